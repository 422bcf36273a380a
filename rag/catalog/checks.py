"""What must be true of the catalog, as queries. Each yields what breaks it, and keeps no more than a batch in memory.

Functions over a connection. What the damage means and what is done about it is told in `rag.upkeep.inspection`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sqlalchemy import Connection, Text, and_, func, select, type_coerce, union

from rag.catalog.aliases import is_up_to_date
from rag.catalog.engine import MIGRATIONS, last_change
from rag.catalog.tables import (
    activations,
    aliases,
    answer_citations,
    answers,
    chunks,
    collections,
    documents,
    embedders,
    indexes,
    jobs,
    pending,
    sources,
    vectors,
    versions,
)
from rag.catalog.versions import sha256
from rag.ports import Vectors
from rag.text.duplicates import is_signature_of
from rag.text.glossary import Alias, mine

WITHDRAWN = "damaged"  # code of the problem of a document that repair took out of answers
ORIGINAL_LOST = " (original lost)"  # behind the pipeline of a version: its source is to be read again
_TEXTS = 8  # versions held at once: one may be a book
_ROWS = 512
_NORM_TOLERANCE = 0.02  # float16 moves the length of a unit vector by some .0005


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it must be: by which check, what a person would look for, and what repair needs."""

    code: str
    example: str
    target: Any = None


def is_idle(connection: Connection) -> bool:
    """Whether no job is at work: what a job has staged belongs to nobody yet, and looks like what a crash left."""
    return connection.execute(select(jobs.c.id).where(jobs.c.state == "running").limit(1)).first() is None


# ── the database ──────────────────────────────────────────────────────────────────────────────


def database(connection: Connection) -> Iterator[Damage]:
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield Damage("database-damaged", str(line))
    for table, rowid, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield Damage("row-without-parent", f"{table} row {rowid} → {parent}", (table, rowid))
    current, head = _revisions(connection)
    if current != head:
        yield Damage("schema-revision", f"{current} instead of {head}")


def _revisions(connection: Connection) -> tuple[str | None, str | None]:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    return MigrationContext.configure(connection).get_current_revision(), ScriptDirectory(
        str(MIGRATIONS)
    ).get_current_head()


# ── which version is active ───────────────────────────────────────────────────────────────────


def history(connection: Connection) -> Iterator[Damage]:
    """Activations: one open at most, one after the other, of versions that exist and are kept."""
    change = last_change(connection)
    rows = connection.execution_options(yield_per=_ROWS).execute(
        select(
            activations.c.id,
            activations.c.document_id,
            activations.c.version,
            activations.c.from_change,
            activations.c.to_change,
            versions.c.number,
            versions.c.removed_at,
        )
        .outerjoin(
            versions,
            and_(versions.c.document_id == activations.c.document_id, versions.c.number == activations.c.version),
        )
        .order_by(activations.c.document_id, activations.c.from_change, activations.c.id)
    )
    before: Any = None
    for row in rows:
        if before is not None and before.document_id == row.document_id:
            if before.to_change is None and row.to_change is None:
                yield Damage("two-versions-active", row.document_id, row.document_id)
            elif before.to_change is None or before.to_change > row.from_change:
                yield Damage("activations-overlap", row.document_id, row.document_id)
        if row.to_change is not None and row.to_change < row.from_change:
            yield Damage("activation-backwards", f"{row.document_id} version {row.version}", row.document_id)
        if max(row.from_change, row.to_change or 0) > change:
            yield Damage("activation-ahead", f"{row.document_id} version {row.version}", None)
        if row.number is None:
            yield Damage("activation-without-version", f"{row.document_id} version {row.version}", row.id)
        elif row.to_change is None and row.removed_at is not None:
            yield Damage(
                "active-version-removed", f"{row.document_id} version {row.version}", (row.document_id, row.version)
            )
        before = row


def index_states(connection: Connection) -> Iterator[Damage]:
    """Of a collection's indexes the one that it names is active, and no other."""
    query = select(indexes.c.id, indexes.c.state, collections.c.id.label("collection_id"), collections.c.index_id)
    rows = connection.execute(query.join(collections, collections.c.id == indexes.c.collection_id)).all()
    for row in rows:
        if (row.state == "active") != (row.id == row.index_id):
            yield Damage("index-state", f"index {row.id} of {row.collection_id} is {row.state}", row.collection_id)
    indexed = {row.index_id for row in rows if row.id == row.index_id}
    for collection_id, index_id in connection.execute(select(collections.c.id, collections.c.index_id)):
        if index_id not in indexed:
            yield Damage("collection-without-index", collection_id)


def lives(connection: Connection) -> Iterator[Damage]:
    """Documents: deleted ones are not active, readable ones are."""
    is_open = and_(activations.c.document_id == documents.c.id, activations.c.to_change.is_(None))
    deleted = select(documents.c.id, activations.c.version).join(activations, is_open)
    for row in connection.execute(deleted.where(documents.c.deleted_at.is_not(None))):
        yield Damage("deleted-document-active", row.id, row.id)
    unsearchable = select(documents.c.id).where(
        documents.c.deleted_at.is_(None),
        documents.c.status.in_(["ok", "partial"]),
        ~select(activations.c.id).where(is_open).exists(),
    )
    for document_id in connection.execute(unsearchable).scalars():
        yield Damage("document-without-version", document_id, (document_id, None))
    withdrawn = select(documents.c.id).where(
        documents.c.deleted_at.is_(None), documents.c.problems[0]["code"].as_string() == WITHDRAWN
    )
    for document_id in connection.execute(withdrawn).scalars():
        yield Damage("document-withdrawn", document_id)


def never_active(connection: Connection) -> Iterator[Damage]:
    spans = select(activations.c.id).where(
        activations.c.document_id == versions.c.document_id, activations.c.version == versions.c.number
    )
    for row in connection.execute(select(versions.c.document_id, versions.c.number).where(~spans.exists())):
        yield Damage("version-never-active", f"{row.document_id} version {row.number}", (row.document_id, row.number))


# ── texts and their chunks ────────────────────────────────────────────────────────────────────


def texts(connection: Connection, *, sample: int | None = None) -> Iterator[Damage]:
    """Every version's text and every chunk of it, or those of so many documents, chosen at random."""
    columns = (versions.c.document_id, versions.c.number, versions.c.text_sha256, versions.c.removed_at)
    wanted = select(*columns, versions.c.text).order_by(versions.c.document_id, versions.c.number)
    # Places as they are written: what is no JSON is a finding, not the end of the inspection.
    columns_ = [column for column in chunks.c if column is not chunks.c.places]
    cut = select(*columns_, type_coerce(chunks.c.places, Text).label("places")).order_by(
        chunks.c.document_id, chunks.c.version, chunks.c.index_id, chunks.c.ordinal
    )
    if sample is not None:
        chosen = _some_documents(connection, sample)
        wanted, cut = wanted.where(versions.c.document_id.in_(chosen)), cut.where(chunks.c.document_id.in_(chosen))
    searched = _searched(connection)
    # Two cursors walk side by side in one order; both orders are those of an index, so nothing is sorted.
    pieces = iter(connection.execution_options(yield_per=_ROWS).execute(cut))
    piece = next(pieces, None)
    for version in connection.execution_options(yield_per=_TEXTS).execute(wanted):
        own: list[Any] = []
        at = (version.document_id, version.number)
        while piece is not None and (piece.document_id, piece.version) <= at:
            if (piece.document_id, piece.version) == at:
                own.append(piece)
            piece = next(pieces, None)  # of a version that is not there: the database's own check says so
        wrong = list(_text(version, own))
        yield from wrong or _pieces(version, own, searched.get(at[0]))  # a wrong text is no measure of its chunks


def _some_documents(connection: Connection, sample: int) -> list[str]:
    return list(connection.execute(select(documents.c.id).order_by(func.random()).limit(sample)).scalars())


def _searched(connection: Connection) -> dict[str, tuple[int, int]]:
    """Document → (version, index) that a question searches. A few dozen bytes per document, not per text."""
    rows = connection.execute(
        select(activations.c.document_id, activations.c.version, collections.c.index_id)
        .join(documents, documents.c.id == activations.c.document_id)
        .join(sources, sources.c.id == documents.c.source_id)
        .join(collections, collections.c.id == sources.c.collection_id)
        .where(activations.c.to_change.is_(None))
    )
    return {row.document_id: (row.version, row.index_id) for row in rows}


def _text(version: Any, own: list[Any]) -> Iterator[Damage]:
    at = (version.document_id, version.number)
    name = f"{at[0]} version {at[1]}"
    if version.removed_at is not None:
        if version.text or own:
            yield Damage("removed-version-kept", name, at)
    elif sha256(version.text) != version.text_sha256:
        yield Damage("text-differs", name, at)


def _pieces(version: Any, own: list[Any], searched: tuple[int, int] | None) -> Iterator[Damage]:
    at = (version.document_id, version.number)
    if version.removed_at is not None:
        return
    text: str = version.text
    ordinals: dict[int, int] = {}
    for chunk in own:
        expected = ordinals.get(chunk.index_id, 0)
        ordinals[chunk.index_id] = chunk.ordinal + 1
        if chunk.ordinal != expected:
            yield Damage("chunk-missing", f"chunk {expected} of {at[0]} version {at[1]}", at)
        yield from _piece(chunk, text, at)
    if searched is not None and searched[0] == at[1] and text.strip() and searched[1] not in ordinals:
        yield Damage("text-without-chunks", f"{at[0]} version {at[1]}", at)


def _piece(chunk: Any, text: str, at: tuple[str, int]) -> Iterator[Damage]:
    name = f"chunk {chunk.key} of {at[0]} version {at[1]}"
    if not 0 <= chunk.start < chunk.end <= len(text):
        yield Damage("chunk-outside", name, at)
        return
    cut = text[chunk.start : chunk.end]
    embedded = f"{chunk.heading}\n{cut}" if chunk.heading else cut  # as rag.models.Piece has it
    if sha256(embedded) != chunk.embedded_sha256:
        yield Damage("chunk-hash-differs", name, at)
    elif chunk.text != cut:
        # The hash is that of the text as it stands in the version, so the version is right and the copy is not.
        yield Damage("chunk-differs", name, (chunk.key, cut))
    elif chunk.signature is not None and not is_signature_of(chunk.signature, cut):
        yield Damage("signature-differs", name, (chunk.key, cut))
    if not _is_sane(chunk.places, chunk.end):
        yield Damage("places-damaged", name, at)


def _is_sane(written: str, end: int) -> bool:
    """[[start, page, page label, section, row], …] in order of start, none behind the chunk."""
    places = _json(written)
    if not isinstance(places, list) or not all(isinstance(place, list) and len(place) == 5 for place in places):
        return False
    starts = [place[0] for place in places]
    if not all(isinstance(start, int) and 0 <= start < end for start in starts):
        return False
    pages = [place[1] for place in places]
    named = [word for place in places for word in place[2:]]
    return (
        all(first <= second for first, second in pairwise(starts))
        and all(page is None or (isinstance(page, int) and page >= 1) for page in pages)
        and all(word is None or isinstance(word, str) for word in named)
    )


def _json(written: str) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(written)
    except ValueError:
        return None


# ── names in two languages ────────────────────────────────────────────────────────────────────


def glossary(connection: Connection, *, sample: int | None = None) -> Iterator[Damage]:
    """Whether the names kept of each chunk are those that its text spells out; of all, or of so many documents."""
    if not is_up_to_date(connection):
        return  # they are being found anew, and the text says what is right
    texts_ = select(chunks.c.key, chunks.c.text).order_by(chunks.c.key)
    kept = select(aliases.c.chunk_key, aliases.c.zh, aliases.c.en).order_by(aliases.c.chunk_key, aliases.c.id)
    if sample is not None:
        texts_ = texts_.where(chunks.c.document_id.in_(_some_documents(connection, sample)))
    rows = iter(connection.execution_options(yield_per=_ROWS).execute(kept))
    row = next(rows, None)
    for chunk in connection.execution_options(yield_per=_ROWS).execute(texts_):
        own: list[Alias] = []
        while row is not None and row.chunk_key <= chunk.key:
            if row.chunk_key == chunk.key:
                own.append(Alias(row.zh, row.en))
            row = next(rows, None)
        if sorted(own, key=astuple) != sorted(mine(chunk.text), key=astuple):
            yield Damage("names-differ", f"chunk {chunk.key}", (chunk.key, chunk.text))


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


def missing_vectors(connection: Connection) -> Iterator[Damage]:
    """Chunks whose text has no vector; `target` is (embedder, hash)."""
    query = (
        select(chunks.c.key, indexes.c.embedder_id, chunks.c.embedded_sha256)
        .join(indexes, indexes.c.id == chunks.c.index_id)
        .outerjoin(
            vectors,
            and_(vectors.c.embedder_id == indexes.c.embedder_id, vectors.c.sha256 == chunks.c.embedded_sha256),
        )
        .where(vectors.c.sha256.is_(None))
    )
    for row in connection.execution_options(yield_per=_ROWS).execute(query):
        yield Damage("vector-missing", f"chunk {row.key}", (row.embedder_id, row.embedded_sha256))


def damaged_vectors(connection: Connection) -> Iterator[Damage]:
    """Of the wrong length, not finite, or not of length 1; `target` is (embedder, hash)."""
    query = select(vectors, embedders.c.dimension).join(embedders, embedders.c.id == vectors.c.embedder_id)
    for some in connection.execution_options(yield_per=_ROWS).execute(query).partitions():
        fitting = [row for row in some if len(row.data) == 2 * row.dimension]
        bad = {id(row) for row in some} - {id(row) for row in fitting}
        for dimension in {row.dimension for row in fitting}:
            of_one = [row for row in fitting if row.dimension == dimension]
            matrix = np.frombuffer(b"".join(row.data for row in of_one), dtype="<f2").reshape(len(of_one), -1)
            with np.errstate(invalid="ignore", over="ignore"):
                lengths = np.linalg.norm(matrix.astype(np.float32), axis=1)
                wrong = ~(np.abs(lengths - 1.0) <= _NORM_TOLERANCE)  # a NaN is not within it either
            bad |= {id(row) for row, is_wrong in zip(of_one, wrong.tolist(), strict=True) if is_wrong}
        for row in some:
            if id(row) in bad:
                yield Damage("vector-damaged", f"vector {row.sha256[:12]}…", (row.embedder_id, row.sha256))


def orphan_vectors(connection: Connection) -> Iterator[Damage]:
    """Vectors that no chunk of any index of their embedder wants."""
    for embedder_id in connection.execute(select(embedders.c.id)).scalars().all():
        # IN (…), and not EXISTS: SQLite makes one sorted list of it, where there is no index over the hashes.
        wanted = (
            select(chunks.c.embedded_sha256)
            .join(indexes, indexes.c.id == chunks.c.index_id)
            .where(indexes.c.embedder_id == embedder_id)
        )
        query = select(vectors.c.sha256).where(vectors.c.embedder_id == embedder_id, vectors.c.sha256.not_in(wanted))
        for digest in connection.execution_options(yield_per=_ROWS).execute(query).scalars():
            yield Damage("vector-orphan", f"vector {digest[:12]}…", (embedder_id, digest))


def readable_vectors(connection: Connection, keys: Sequence[int], *, dimension: int) -> tuple[list[int], Vectors]:
    """Vectors of these chunks that can be compared with others: shape (n, dimension), float32, of length 1."""
    found: list[int] = []
    data: list[bytes] = []
    for start in range(0, len(keys), _ROWS):
        query = (
            select(chunks.c.key, vectors.c.data)
            .join(indexes, indexes.c.id == chunks.c.index_id)
            .join(
                vectors,
                and_(vectors.c.embedder_id == indexes.c.embedder_id, vectors.c.sha256 == chunks.c.embedded_sha256),
            )
            .where(chunks.c.key.in_(keys[start : start + _ROWS]), func.length(vectors.c.data) == 2 * dimension)
        )
        for key, blob in connection.execute(query):
            found.append(key)
            data.append(blob)
    matrix = np.frombuffer(b"".join(data), dtype="<f2").reshape(len(found), dimension).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        lengths = np.linalg.norm(matrix, axis=1)
    whole = np.isfinite(lengths) & (lengths > 0)
    return [key for key, is_whole in zip(found, whole.tolist(), strict=True) if is_whole], (
        matrix[whole] / lengths[whole, None]
    )


# ── flips, originals, answers ─────────────────────────────────────────────────────────────────


def pending_flips(connection: Connection) -> Iterator[Damage]:
    for row in connection.execute(select(pending.c.document_id, pending.c.index_id).order_by(pending.c.id)):
        yield Damage("flip-pending", row.document_id, row.index_id)


def wanted_originals(connection: Connection) -> Iterator[tuple[str, str, int, bool]]:
    """(hash, document, version, whether a sync would bring it back), by hash, of every version that had an original.

    A row of a database has none: its canonical text is its original (`row/…` pipelines).
    """
    is_open = and_(
        activations.c.document_id == versions.c.document_id,
        activations.c.version == versions.c.number,
        activations.c.to_change.is_(None),
    )
    query = (
        select(
            versions.c.content_sha256, versions.c.document_id, versions.c.number, activations.c.id, versions.c.pipeline
        )
        .outerjoin(activations, is_open)
        .where(versions.c.removed_at.is_(None), versions.c.pipeline.not_like("row/%"))
        .order_by(versions.c.content_sha256)
    )
    for row in connection.execution_options(yield_per=_ROWS).execute(query):
        yield (
            row.content_sha256,
            row.document_id,
            row.number,
            row.id is not None and not row.pipeline.endswith(ORIGINAL_LOST),
        )


def referenced_originals(connection: Connection) -> Iterator[str]:
    """Hashes that a version, a document or an upload refers to, each once, in order."""
    of_versions = select(versions.c.content_sha256.label("digest")).where(versions.c.removed_at.is_(None))
    of_documents = select(documents.c.content_sha256).where(documents.c.content_sha256.is_not(None))
    of_uploads = select(jobs.c.request["sha256"].as_string()).where(jobs.c.request["sha256"].as_string().is_not(None))
    query = union(of_versions, of_documents, of_uploads).order_by("digest")
    yield from connection.execution_options(yield_per=_ROWS).execute(query).scalars()


def kept_answers(connection: Connection) -> Iterator[Damage]:
    """Every quote against the text it was taken from, and every citation on the list that keeps its version."""
    for row in connection.execution_options(yield_per=_TEXTS).execute(
        select(answers.c.id, type_coerce(answers.c.answer, Text).label("answer"))
    ):
        answer = _json(row.answer)
        if not isinstance(answer, dict):
            yield Damage("answer-damaged", row.id, row.id)
            continue
        of_answer = select(answer_citations).where(answer_citations.c.answer_id == row.id)
        listed = {(cited.document_id, cited.version) for cited in connection.execute(of_answer)}
        for citation in answer.get("citations") or ():
            yield from _citation(connection, row.id, citation, listed)


def _citation(
    connection: Connection, answer_id: str, citation: dict[str, Any], listed: set[tuple[str, int]]
) -> Iterator[Damage]:
    document_id, number = citation["document_id"], citation["version"]
    # substr() counts code points, as our offsets do, and spares reading the whole text for one line of it.
    quoted = func.substr(versions.c.text, citation["start"] + 1, citation["end"] - citation["start"])
    found = connection.execute(
        select(quoted.label("text"), versions.c.removed_at).where(
            versions.c.document_id == document_id, versions.c.number == number
        )
    ).first()
    name = f"{answer_id} cites {document_id} version {number}"
    if found is None:
        known = connection.execute(select(documents.c.id).where(documents.c.id == document_id)).first()
        if known:  # else the document went with its source, or was purged
            yield Damage("quote-lost", name, answer_id)
    elif found.removed_at is not None:
        yield Damage("quote-lost", name, answer_id)
    else:
        if found.text != citation["quote"]:
            yield Damage("quote-differs", name, answer_id)
        if (document_id, number) not in listed:
            yield Damage("citation-unlisted", name, (answer_id, document_id, number))


def index_ids(connection: Connection) -> set[int]:
    """Of every index that there is, whatever its state."""
    return set(connection.execute(select(indexes.c.id)).scalars())


def collection_ids(connection: Connection) -> set[str]:
    return set(connection.execute(select(collections.c.id)).scalars())
