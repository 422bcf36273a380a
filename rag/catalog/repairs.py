"""What `rag.upkeep.inspection` does to the catalog to make it whole again. Functions over a writing connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal_column, select, update

from rag.catalog.aliases import save as save_names
from rag.catalog.checks import ORIGINAL_LOST, WITHDRAWN
from rag.catalog.engine import batches, last_change, next_change, now
from rag.catalog.tables import (
    activations,
    aliases,
    answer_citations,
    answers,
    chunks,
    collections,
    documents,
    facts,
    indexes,
    metadata,
    pending,
    sources,
    vectors,
    versions,
)
from rag.models import Problem
from rag.text.duplicates import signature

_MANY = 200


def remove_rows(connection: Connection, rows: Iterable[tuple[str, int]]) -> None:
    """What a deletion of their parents would have taken along."""
    for table, rowid in rows:
        if table in metadata.tables and rowid is not None:
            connection.execute(delete(metadata.tables[table]).where(literal_column("rowid") == rowid))


def order_activations(connection: Connection, document_id: str) -> None:
    """Each ends where the next begins at the latest, and none before it began: the later one wins."""
    rows = connection.execute(
        select(activations)
        .where(activations.c.document_id == document_id)
        .order_by(activations.c.from_change, activations.c.id)
    ).all()
    for row, following in pairwise([*rows, None]):
        assert row is not None
        ends, moment = row.to_change, row.to_at
        if following is not None and (ends is None or ends > following.from_change):
            ends, moment = following.from_change, following.from_at
        elif ends is not None and ends < row.from_change:
            ends, moment = row.from_change, row.from_at
        if ends != row.to_change:
            values = {"to_change": ends, "to_at": moment}
            connection.execute(update(activations).where(activations.c.id == row.id).values(**values))
    next_change(connection)


def remove_activations(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(delete(activations).where(activations.c.id.in_(ids)))
    next_change(connection)


def catch_up(connection: Connection) -> None:
    """Changes count on from the last one that anything speaks of."""
    begun, ended = connection.execute(
        select(func.max(activations.c.from_change), func.max(activations.c.to_change))
    ).one()
    change = max(begun or 0, ended or 0, last_change(connection))
    connection.execute(update(facts).where(facts.c.name == "change").values(value=str(change)))


def state_indexes(connection: Connection, collection_id: str) -> None:
    """The index that the collection names is the active one; another that says so is retired."""
    named = select(collections.c.index_id).where(collections.c.id == collection_id).scalar_subquery()
    own = indexes.c.collection_id == collection_id
    connection.execute(
        update(indexes)
        .where(own, indexes.c.id != named, indexes.c.state == "active")
        .values(state="retired", retired_at=now())
    )
    connection.execute(update(indexes).where(own, indexes.c.id == named).values(state="active", retired_at=None))
    next_change(connection)


def withdraw(connection: Connection, document_id: str) -> None:
    """It has no active version any more; its row says why, and the next sync reads it as if for the first time."""
    problem = Problem(
        WITHDRAWN, "What was stored of it is damaged, so it is not searched.", "Sync its source, or upload it again."
    )
    connection.execute(
        update(documents)
        .where(documents.c.id == document_id)
        .values(
            status="failed",
            problems=[asdict(problem)],
            state={},
            content_sha256=None,
            pipeline=None,
            deleted_at=None,
            updated_at=now(),
        )
    )


def ask_for_original(connection: Connection, document_id: str, number: int) -> None:
    """The next sync reads the document and writes a version with an original; its texts are embedded already."""
    forgotten: dict[str, Any] = {"state": {}, "content_sha256": None, "pipeline": None}
    connection.execute(update(documents).where(documents.c.id == document_id).values(**forgotten))
    connection.execute(
        update(versions)
        .where(versions.c.document_id == document_id, versions.c.number == number)
        .values(pipeline=versions.c.pipeline + ORIGINAL_LOST)
    )


def cut_again(connection: Connection, key: int, text: str) -> int | None:
    """A chunk's copy of its text, as it stands in its version. Returns its index; None where the chunk has gone."""
    query = update(chunks).where(chunks.c.key == key).values(text=text).returning(chunks.c.index_id)
    return connection.execute(query).scalar()


def sign_again(connection: Connection, key: int, text: str) -> None:
    """A chunk's mark of near-duplicates, of its text as it stands in its version."""
    connection.execute(update(chunks).where(chunks.c.key == key).values(signature=signature(text)))


def spell_out_again(connection: Connection, texts: Mapping[int, str]) -> None:
    """The names in two languages that chunks spell out, by their keys."""
    for some in batches(sorted(texts), _MANY):
        connection.execute(delete(aliases).where(aliases.c.chunk_key.in_(some)))
    save_names(connection, texts.items())


def collection_of(connection: Connection, document_id: str) -> str:
    query = select(sources.c.collection_id).join(documents, documents.c.source_id == sources.c.id)
    return str(connection.execute(query.where(documents.c.id == document_id)).scalar_one())


# ── vectors ───────────────────────────────────────────────────────────────────────────────────


def index_with(connection: Connection, embedder_id: int) -> int | None:
    """An index that this embedder made."""
    return connection.execute(select(indexes.c.id).where(indexes.c.embedder_id == embedder_id).limit(1)).scalar()


def embedded_texts(connection: Connection, hashes: Iterable[str]) -> dict[str, str]:
    """By hash, the texts that were embedded, as the chunks have them."""
    found: dict[str, str] = {}
    for some in batches(sorted(set(hashes)), _MANY):
        query = select(chunks.c.embedded_sha256, chunks.c.heading, chunks.c.text)
        for row in connection.execute(query.where(chunks.c.embedded_sha256.in_(some))):
            found[row.embedded_sha256] = f"{row.heading}\n{row.text}" if row.heading else row.text
    return found


def remove_vectors(connection: Connection, keys: Iterable[tuple[int, str]]) -> None:
    of: dict[int, list[str]] = {}
    for embedder_id, digest in keys:
        of.setdefault(embedder_id, []).append(digest)
    for embedder_id, digests in of.items():
        for some in batches(digests, _MANY):
            connection.execute(delete(vectors).where(vectors.c.embedder_id == embedder_id, vectors.c.sha256.in_(some)))
    next_change(connection)  # exact search reads them again


# ── flips and answers ─────────────────────────────────────────────────────────────────────────


def forget_pending(connection: Connection, index_ids: Iterable[int]) -> None:
    """Of indexes whose terms have just been written from the catalog, or that are not there any more."""
    connection.execute(delete(pending).where(pending.c.index_id.in_(list(index_ids))))


def remove_answers(connection: Connection, ids: Iterable[str]) -> None:
    for some in batches(sorted(set(ids)), _MANY):
        connection.execute(delete(answers).where(answers.c.id.in_(some)))


def list_citations(connection: Connection, rows: Iterable[tuple[str, str, int]]) -> None:
    names = ("answer_id", "document_id", "version")
    unlisted = [dict(zip(names, row, strict=True)) for row in rows]
    if unlisted:
        connection.execute(insert(answer_citations).prefix_with("OR IGNORE"), unlisted)
