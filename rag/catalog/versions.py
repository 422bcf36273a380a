"""Versions, their chunks and vectors, and which of them is active. Functions over a connection."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    String,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    true,
    tuple_,
    type_coerce,
    update,
)

from rag.catalog import aliases
from rag.catalog.engine import batches, next_change, next_moment, now
from rag.catalog.tables import (
    activations,
    chunk_is_active,
    chunk_is_active_at,
    chunks,
    collections,
    documents,
    embedders,
    indexes,
    pending,
    sources,
    vectors,
    versions,
)
from rag.errors import Gone, NotFound
from rag.models import Hit, Parsed, Piece, Place, Version, file_stem
from rag.ports import TermEntry, Vectors
from rag.text.duplicates import signature

_KEYS: BindParameter[Any] = bindparam("keys", expanding=True)
_MANY = 500  # values in one IN (…); SQLite allows 32,766, plans of that size help nobody


def sha256(data: bytes | str) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


# ── writing ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class NewVersion:
    document_id: str
    content_sha256: str
    pipeline: str
    media_type: str | None
    name: str
    title: str
    parsed: Parsed
    pieces: Sequence[Piece]


@dataclass(frozen=True, slots=True)
class Flip:
    """One document changes from one version to another; None stands for not being there."""

    document_id: str
    old_version: int | None
    new_version: int | None


def stage(connection: Connection, version: NewVersion, *, index_id: int) -> tuple[int, list[int]]:
    """Store a version and its chunks, active for nobody yet. Returns its number and the chunks' keys in order.

    Every embedded text must have its vector already, or get it in the same transaction (`save_vectors`).
    """
    return stage_all(connection, [version], index_id=index_id)[0]


def stage_all(connection: Connection, new: Sequence[NewVersion], *, index_id: int) -> list[tuple[int, list[int]]]:
    """The same of many, each of another document: statements cost more than rows."""
    next_change(connection)  # the caches are told of these chunks before they are active
    highest: dict[str, int] = {}
    for some in batches([version.document_id for version in new], _MANY):
        query = select(versions.c.document_id, func.max(versions.c.number)).where(versions.c.document_id.in_(some))
        highest.update((row[0], row[1]) for row in connection.execute(query.group_by(versions.c.document_id)))
    numbers = [1 + highest.get(version.document_id, 0) for version in new]
    moment = now()
    rows = [
        {
            "document_id": version.document_id,
            "number": number,
            "content_sha256": version.content_sha256,
            "text_sha256": sha256(version.parsed.text),
            "pipeline": version.pipeline,
            "media_type": version.media_type,
            "name": version.name,
            "title": version.title,
            "text": version.parsed.text,
            "blocks": [
                [block.kind, block.start, block.end, list(block.section), block.page, block.level, block.row]
                + ([block.header] if block.header else [])
                for block in version.parsed.blocks
            ],
            "pages": [asdict(page) for page in version.parsed.pages],
            "created_at": moment,
        }
        for version, number in zip(new, numbers, strict=True)
    ]
    if rows:
        connection.execute(insert(versions), rows)
    keys = _add_chunks(
        connection,
        [
            (version.document_id, number, version.parsed, version.pieces)
            for version, number in zip(new, numbers, strict=True)
        ],
        index_id=index_id,
    )
    return list(zip(numbers, keys, strict=True))


def add_chunks(
    connection: Connection,
    document_id: str,
    number: int,
    *,
    parsed: Parsed,
    pieces: Sequence[Piece],
    index_id: int,
) -> list[int]:
    """The pieces of a stored version as chunks of an index. Returns their keys in order."""
    return _add_chunks(connection, [(document_id, number, parsed, pieces)], index_id=index_id)[0]


def _add_chunks(
    connection: Connection, cut: Sequence[tuple[str, int, Parsed, Sequence[Piece]]], *, index_id: int
) -> list[list[int]]:
    """The pieces of stored versions (document, number). Their keys, for each version in order."""
    rows = [
        {
            "document_id": document_id,
            "version": number,
            "index_id": index_id,
            "ordinal": ordinal,
            "start": piece.start,
            "end": piece.end,
            "text": piece.text,
            "heading": piece.heading,
            "tokens": piece.tokens,
            "places": places,
            "embedded_sha256": sha256(piece.embedded_text),
            "signature": signature(piece.text),
        }
        for document_id, number, parsed, pieces in cut
        for ordinal, (piece, places) in enumerate(zip(pieces, _places(parsed, pieces), strict=True))
    ]
    if not rows:
        return [[] for _ in cut]
    last = connection.execute(select(func.coalesce(func.max(chunks.c.key), 0))).scalar_one()
    connection.execute(insert(chunks), rows)
    # Nobody else writes meanwhile, and keys only ever rise: what is behind the last one are these rows, in their order.
    added = iter(connection.execute(select(chunks.c.key).where(chunks.c.key > last).order_by(chunks.c.key)).scalars())
    keys = [[next(added) for _ in pieces] for _, _, _, pieces in cut]
    # A document's title stands in its headings alone; once is enough.
    texts = (
        (key, piece.text if ordinal else f"{piece.heading}\n{piece.text}")
        for own, (_, _, _, pieces) in zip(keys, cut, strict=True)
        for ordinal, (key, piece) in enumerate(zip(own, pieces, strict=True))
    )
    aliases.save(connection, texts)
    return keys


def _places(parsed: Parsed, pieces: Sequence[Piece]) -> list[list[list[Any]]]:
    """For each piece, where its blocks stand: [start, page, page label, section, row], equal neighbours once."""
    labels = {page.number: page.label for page in parsed.pages}
    found: list[list[list[Any]]] = []
    first = 0
    for piece in pieces:
        while first < len(parsed.blocks) and parsed.blocks[first].end <= piece.start:
            first += 1
        places: list[list[Any]] = []
        for block in parsed.blocks[first:]:
            if block.start >= piece.end:
                break
            label = labels.get(block.page) if block.page is not None else None
            place = [block.start, block.page, label, " › ".join(block.section) or None, block.row]
            if not places or places[-1][1:] != place[1:]:
                places.append(place)
        found.append(places)
    return found


def flip(connection: Connection, flips: Sequence[Flip], *, collection_id: str, index_id: int) -> int:
    """Make the new versions the active ones, all at once, and note that the terms must follow. Returns the change."""
    change, moment = next_change(connection), next_moment(connection)
    documents_ = [{"document": item.document_id} for item in flips]
    begun = [
        {"document_id": item.document_id, "version": item.new_version, "from_change": change, "from_at": moment}
        for item in flips
        if item.new_version is not None
    ]
    gone = [{"document": item.document_id} for item in flips if item.new_version is None]
    if documents_:
        ends = update(activations).where(
            activations.c.document_id == bindparam("document"), activations.c.to_change.is_(None)
        )
        connection.execute(ends.values(to_change=change, to_at=moment), documents_)
    if begun:
        connection.execute(insert(activations), begun)
    if gone:
        leaves = update(documents).where(documents.c.id == bindparam("document"))
        connection.execute(leaves.values(deleted_at=moment, updated_at=moment), gone)
    _note(connection, flips, change=change, collection_id=collection_id, index_id=index_id)
    return change


def rewrite(connection: Connection, documents_: Sequence[str], *, collection_id: str, index_id: int) -> int:
    """Note that the terms of these documents' active versions must be written again. Returns the change."""
    change = next_change(connection)
    active = [(document_id, active_version(connection, document_id)) for document_id in documents_]
    flips = [Flip(document_id, number, number) for document_id, number in active if number is not None]
    _note(connection, flips, change=change, collection_id=collection_id, index_id=index_id)
    return change


def _note(connection: Connection, flips: Sequence[Flip], *, change: int, collection_id: str, index_id: int) -> None:
    if flips:
        rows = [
            {"change": change, "collection_id": collection_id, "index_id": index_id, **asdict(item)} for item in flips
        ]
        connection.execute(insert(pending), rows)


def active_version(connection: Connection, document_id: str) -> int | None:
    return connection.execute(
        select(activations.c.version).where(activations.c.document_id == document_id, activations.c.to_change.is_(None))
    ).scalar()


def active_versions(connection: Connection, document_ids: Sequence[str]) -> dict[str, int]:
    """Of those that have one."""
    found: dict[str, int] = {}
    for some in batches(document_ids, _MANY):
        query = select(activations.c.document_id, activations.c.version).where(
            activations.c.document_id.in_(some), activations.c.to_change.is_(None)
        )
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found


def collect_staged(connection: Connection, *, only: Sequence[tuple[str, int]] | None = None) -> int:
    """Remove versions that were staged and never became active: what a crash left. Returns how many.

    `only`: those of these (document, version).
    """
    never = ~select(activations.c.id).where(
        activations.c.document_id == versions.c.document_id, activations.c.version == versions.c.number
    ).exists()  # fmt: skip
    chosen = true() if only is None else tuple_(versions.c.document_id, versions.c.number).in_(only)
    return connection.execute(delete(versions).where(never, chosen)).rowcount


# ── flips that the terms have not followed yet ────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Pending:
    id: int
    collection_id: str
    index_id: int
    flip: Flip


def pending_flips(connection: Connection) -> list[Pending]:
    rows = connection.execute(select(pending).order_by(pending.c.id))
    return [
        Pending(row.id, row.collection_id, row.index_id, Flip(row.document_id, row.old_version, row.new_version))
        for row in rows
    ]


def clear_pending(connection: Connection, *, collection_id: str, up_to_change: int) -> None:
    connection.execute(
        delete(pending).where(pending.c.collection_id == collection_id, pending.c.change <= up_to_change)
    )


def chunk_keys(connection: Connection, versions_of: Iterable[tuple[str, int | None]], *, index_id: int) -> list[int]:
    keys: list[int] = []
    for document_id, number in versions_of:
        if number is not None:
            query = select(chunks.c.key).where(
                chunks.c.document_id == document_id, chunks.c.version == number, chunks.c.index_id == index_id
            )
            keys.extend(connection.execute(query).scalars())
    return keys


def source_keys(connection: Connection, source_id: str, *, index_id: int) -> list[int]:
    """Keys of all chunks of all versions of a source's documents."""
    query = (
        select(chunks.c.key)
        .join(documents, documents.c.id == chunks.c.document_id)
        .where(documents.c.source_id == source_id, chunks.c.index_id == index_id)
    )
    return list(connection.execute(query).scalars())


# ── what is active ────────────────────────────────────────────────────────────────────────────


def active_keys(connection: Connection, index_id: int) -> set[int]:
    """Keys of the chunks that a question may find, disabled documents included (they are hidden when hits are read)."""
    query = select(chunks.c.key).join(activations, chunk_is_active).where(chunks.c.index_id == index_id)
    return set(connection.execute(query).scalars())


def count_active(connection: Connection) -> int:
    """Chunks that a question may find, of all collections together."""
    active = [index_id for index_id, _, _ in all_indexes(connection)]
    query = select(func.count()).select_from(chunks).join(activations, chunk_is_active)
    return int(connection.execute(query.where(chunks.c.index_id.in_(active))).scalar_one())


def term_entries(connection: Connection, keys: Sequence[int]) -> Iterator[TermEntry]:
    for some in batches(keys, _MANY):
        query = (
            select(chunks.c.key, chunks.c.heading, chunks.c.text, documents.c.uri, documents.c.edited_title)
            .join(documents, documents.c.id == chunks.c.document_id)
            .where(chunks.c.key.in_(some))
        )
        for row in connection.execute(query):
            # `3M_2018_10K.pdf` may be all that says whose report this is. File names never go to the embedder, so that
            # a renamed file embeds nothing; its terms are written again anyway.
            about = [row.edited_title, row.heading, file_stem(row.uri)]
            yield TermEntry(row.key, "\n".join(filter(None, about)), row.text)


class Chunk(NamedTuple):
    """A chunk that a question may find, as it is stored, under the title that its document has."""

    chunk_id: int
    collection_id: str
    document_id: str
    version: int
    title: str
    uri: str
    places: str  # JSON; most of what is looked at is never shown
    start: int
    end: int
    text: str
    heading: str
    tokens: int
    signature: bytes | None

    def hit(self, *, score: float, arms: Mapping[str, float]) -> Hit:
        return Hit(
            self.chunk_id,
            self.collection_id,
            self.document_id,
            self.version,
            self.title,
            self.uri,
            tuple((place[0], Place(*place[1:])) for place in json.loads(self.places)),
            self.start,
            self.end,
            self.text,
            self.heading,
            self.tokens,
            score,
            arms,
            signature=self.signature or b"",
        )


def read_chunks(
    connection: Connection, keys: Sequence[int], *, at: int | None = None, index_id: int | None = None
) -> dict[int, Chunk]:
    """The chunks behind these keys that are active and enabled in this snapshot, by key.

    `at`: those that were active right after this change, under the titles that they had then. `index_id`: those of
    this index, be it the active one or not; otherwise of the active ones.
    """
    query = _chunks_now(index_id is None) if at is None else _chunks(index_id is None, at)
    given = {} if index_id is None else {"index_id": index_id}
    found: dict[int, Chunk] = {}
    for some in batches(keys, _MANY):
        for row in connection.execute(query, {"keys": some, **given}).all():
            found[row[0]] = Chunk._make(row)
    return found


def _chunks(of_active_indexes: bool, at: int | None) -> Any:
    ours = (
        collections.c.index_id == chunks.c.index_id if of_active_indexes else chunks.c.index_id == bindparam("index_id")
    )
    title: ColumnElement[str] = func.coalesce(documents.c.edited_title, documents.c.title)
    if at is not None:
        own = versions.c.document_id == chunks.c.document_id, versions.c.number == chunks.c.version
        title = select(versions.c.title).where(*own).scalar_subquery()
    return (
        select(
            chunks.c.key,
            sources.c.collection_id,
            chunks.c.document_id,
            chunks.c.version,
            title.label("title"),
            documents.c.uri,
            type_coerce(chunks.c.places, String),
            chunks.c.start,
            chunks.c.end,
            chunks.c.text,
            chunks.c.heading,
            chunks.c.tokens,
            chunks.c.signature,
        )
        .join(activations, chunk_is_active if at is None else chunk_is_active_at(at))
        .join(documents, documents.c.id == chunks.c.document_id)
        .join(sources, sources.c.id == documents.c.source_id)
        .join(collections, and_(collections.c.id == sources.c.collection_id, ours))
        .where(chunks.c.key.in_(_KEYS), documents.c.enabled)
    )


@cache
def _chunks_now(of_active_indexes: bool) -> Any:
    """Built once: SQLAlchemy takes longer to build the statement than SQLite to run it."""
    return _chunks(of_active_indexes, None)


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


def missing_vectors(connection: Connection, embedder_id: int, hashes: Iterable[str]) -> set[str]:
    """Those of the hashes that have no vector of this embedder yet."""
    wanted = set(hashes)
    for some in batches(sorted(wanted), _MANY):
        query = select(vectors.c.sha256).where(vectors.c.embedder_id == embedder_id, vectors.c.sha256.in_(some))
        wanted.difference_update(connection.execute(query).scalars())
    return wanted


def save_vectors(connection: Connection, embedder_id: int, found: Mapping[str, NDArray[np.float32]]) -> None:
    """Kept as float16: half the disk and the same top 10 (measured on 100,000 vectors)."""
    if not found:
        return
    rows = [
        {"embedder_id": embedder_id, "sha256": key, "data": vector.astype("<f2").tobytes()}
        for key, vector in found.items()
    ]
    # Two jobs may embed the same text at the same time; the second one's vector is the same.
    connection.execute(insert(vectors).prefix_with("OR IGNORE"), rows)


def vectors_of(connection: Connection, keys: Sequence[int]) -> tuple[list[int], Vectors]:
    """Vectors of these chunks, with the keys in the order of the rows, shape (n, dimension), float32, of length 1."""
    return _matrix(
        row for some in batches(keys, _MANY) for row in connection.execute(_vectors_of(), {"keys": some}).all()
    )


def active_vectors(connection: Connection, index_id: int) -> tuple[list[int], Vectors]:
    query = _vectors().join(activations, chunk_is_active).where(chunks.c.index_id == index_id)
    return _matrix(connection.execute(query))


def _vectors() -> Any:
    return (
        select(chunks.c.key, vectors.c.data)
        .join(indexes, indexes.c.id == chunks.c.index_id)
        .join(
            vectors,
            and_(vectors.c.embedder_id == indexes.c.embedder_id, vectors.c.sha256 == chunks.c.embedded_sha256),
        )
    )


@cache
def _vectors_of() -> Any:
    return _vectors().where(chunks.c.key.in_(_KEYS))


def _matrix(rows: Iterable[Any]) -> tuple[list[int], Vectors]:
    keys: list[int] = []
    data = bytearray()
    for key, blob in rows:
        keys.append(key)
        data += blob
    if not keys:
        return [], np.zeros((0, 0), dtype=np.float32)
    matrix = np.frombuffer(data, dtype="<f2").reshape(len(keys), -1).astype(np.float32)
    matrix /= np.sqrt(np.vecdot(matrix, matrix))[:, None]  # in place: of 20,000 there are 30 MB, and never twice
    return keys, matrix


def embedder_of(connection: Connection, index_id: int) -> tuple[int, str, str, int]:
    """(number, identity, name, dimension) of the embedder that built this index."""
    row = connection.execute(
        select(embedders).join(indexes, indexes.c.embedder_id == embedders.c.id).where(indexes.c.id == index_id)
    ).one()
    return row.id, row.identity, row.name, row.dimension


def all_indexes(connection: Connection) -> list[tuple[int, str, int]]:
    """(index, collection, dimension) of every active index."""
    query = (
        select(indexes.c.id, indexes.c.collection_id, embedders.c.dimension)
        .join(embedders, embedders.c.id == indexes.c.embedder_id)
        .where(indexes.c.state == "active")
    )
    return [(row.id, row.collection_id, row.dimension) for row in connection.execute(query)]


# ── reading versions ──────────────────────────────────────────────────────────────────────────


def list_versions(connection: Connection, document_id: str) -> list[Version]:
    active = active_version(connection, document_id)
    query = (
        select(versions, func.length(versions.c.text).label("characters"))
        .where(versions.c.document_id == document_id)
        .order_by(versions.c.number.desc())
    )
    return [
        Version(
            document_id=row.document_id,
            number=row.number,
            content_sha256=row.content_sha256,
            text_sha256=row.text_sha256,
            pipeline=row.pipeline,
            media_type=row.media_type or "",
            created_at=row.created_at,
            characters=row.characters,
            active=row.number == active,
            removed_at=row.removed_at,
        )
        for row in connection.execute(query)
    ]


def version_row(connection: Connection, document_id: str, number: int | None) -> Any:
    """The stored version, the active one when no number is given. Raises NotFound, and Gone for one that retention
    removed."""
    number = active_version(connection, document_id) if number is None else number
    row = connection.execute(
        select(versions).where(versions.c.document_id == document_id, versions.c.number == number)
    ).first()
    if row is None:
        wanted = "an active version" if number is None else f"a version {number}"
        raise NotFound(
            f"Document {document_id} does not have {wanted}.", remedy="Its versions are listed at …/versions."
        )
    if row.removed_at is not None:
        raise Gone(
            f"Version {row.number} of document {document_id} was removed on {row.removed_at:%Y-%m-%d}: "
            "newer ones took its place, and no kept answer cites it.",
            remedy="ATTEST_KEEP_VERSIONS says how many are kept; a backup from before has it.",
        )
    return row


def list_chunks(
    connection: Connection, document_id: str, *, version: int, after: int = 0, limit: int = 100
) -> list[Any]:
    """Those of the active index: while a re-index is at work, or could be taken back, there are others beside them."""
    query = (
        select(chunks)
        .join(indexes, indexes.c.id == chunks.c.index_id)
        .where(indexes.c.state == "active")
        .where(chunks.c.document_id == document_id, chunks.c.version == version, chunks.c.key > after)
        .order_by(chunks.c.key)
        .limit(limit)
    )
    return list(connection.execute(query))
