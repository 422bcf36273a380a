"""The life of an index: building → active → retired, and perhaps back. Functions over a connection.

A collection has one active index; questions and syncs know no other. Others are built beside it, or kept behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    null,
    select,
    update,
)

from rag.catalog.engine import next_change, now
from rag.catalog.knowledge import embedder_row
from rag.catalog.tables import (
    activations,
    answer_citations,
    answers,
    chunk_is_active,
    chunks,
    collections,
    documents,
    embedder_probes,
    embedders,
    indexes,
    pending,
    sources,
    vectors,
    versions,
)
from rag.errors import NotFound
from rag.models import Block, Collection, Page, Parsed
from rag.ports import Embedder

IndexState = Literal["building", "active", "retired"]

# Built once: every question runs them, and building them takes longer than running them.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_ACTIVE = select(collections.c.id, collections.c.index_id).where(collections.c.id.in_(_IDS))
_PROBES = select(embedder_probes).where(embedder_probes.c.index_id.in_(_IDS))
_RANKING = select(indexes.c.ranking).where(indexes.c.id == bindparam("own"))

_DELETED_AT_ONCE = 2_000  # chunks in one transaction: others want to write meanwhile


@dataclass(frozen=True, slots=True)
class Index:
    id: int
    collection_id: str
    state: IndexState
    splitter: str
    embedder_id: int
    embedder: str  # its identity
    embedder_name: str
    embedder_spec: str | None
    dimension: int
    checked: Mapping[str, Any] | None
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None


def _indexes() -> Any:
    return select(
        indexes,
        embedders.c.identity,
        embedders.c.name.label("embedder_name"),
        embedders.c.spec.label("embedder_spec"),
        embedders.c.dimension,
    ).join(embedders, embedders.c.id == indexes.c.embedder_id)


def _index(row: Row[Any]) -> Index:
    return Index(
        id=row.id,
        collection_id=row.collection_id,
        state=row.state,
        splitter=row.splitter,
        embedder_id=row.embedder_id,
        embedder=row.identity,
        embedder_name=row.embedder_name,
        embedder_spec=row.embedder_spec,
        dimension=row.dimension,
        checked=row.checked,
        created_at=row.created_at,
        activated_at=row.activated_at,
        retired_at=row.retired_at,
    )


def get_index(connection: Connection, index_id: int) -> Index:
    """Raises NotFound."""
    row = connection.execute(_indexes().where(indexes.c.id == index_id)).first()
    if row is None:
        raise NotFound(f"There is no index {index_id}.", remedy="Its collection may have been deleted.")
    return _index(row)


def list_indexes(connection: Connection, collection_id: str) -> list[Index]:
    """Oldest first."""
    query = _indexes().where(indexes.c.collection_id == collection_id).order_by(indexes.c.id)
    return [_index(row) for row in connection.execute(query)]


def active_index(connection: Connection, collection_id: str) -> Index:
    """Raises NotFound where the collection is gone."""
    of_collection = _indexes().join(collections, collections.c.index_id == indexes.c.id)
    row = connection.execute(of_collection.where(collections.c.id == collection_id)).first()
    if row is None:
        raise NotFound(f"There is no collection {collection_id}.", remedy="It may have been deleted.")
    return _index(row)


def active_id(connection: Connection, collection_id: str) -> int | None:
    return connection.execute(select(collections.c.index_id).where(collections.c.id == collection_id)).scalar()


def are_active(connection: Connection, wanted: Sequence[Collection]) -> bool:
    """Whether each of these collections still has the index that it had when it was read."""
    found = {row.id: row.index_id for row in connection.execute(_ACTIVE, {"ids": [item.id for item in wanted]})}
    return all(found.get(item.id) == item.index_id for item in wanted)


# ── from building to active, and back ─────────────────────────────────────────────────────────


def begin(connection: Connection, collection_id: str, *, embedder: Embedder, splitter: str) -> Index:
    """The collection's index of this embedder and splitter: the one that was begun or kept, or a new, empty one."""
    embedder_id = embedder_row(connection, embedder)
    # A model that was moved has its old identity: where it can be loaded today counts.
    connection.execute(update(embedders).where(embedders.c.id == embedder_id).values(spec=embedder.spec))
    found = connection.execute(
        select(indexes.c.id)
        .where(
            indexes.c.collection_id == collection_id,
            indexes.c.embedder_id == embedder_id,
            indexes.c.splitter == splitter,
        )
        .order_by(indexes.c.state != "active", indexes.c.id.desc())
    ).scalar()
    if found is None:
        values = {"collection_id": collection_id, "embedder_id": embedder_id, "splitter": splitter}
        found = connection.execute(
            insert(indexes).values(**values, state="building", created_at=now()).returning(indexes.c.id)
        ).scalar_one()
    return get_index(connection, int(found))


def activate(connection: Connection, index: Index) -> int:
    """Make it the collection's active index, in place of the one that was. Returns the change."""
    moment = now()
    of_collection = indexes.c.collection_id == index.collection_id
    connection.execute(
        update(indexes).where(of_collection, indexes.c.state == "active").values(state="retired", retired_at=moment)
    )
    values = {"state": "active", "activated_at": moment, "retired_at": None}
    connection.execute(update(indexes).where(indexes.c.id == index.id).values(**values))
    connection.execute(update(collections).where(collections.c.id == index.collection_id).values(index_id=index.id))
    # What the old index's terms had still to follow is nothing to the new one, whose terms are up to date.
    connection.execute(delete(pending).where(pending.c.collection_id == index.collection_id))
    return next_change(connection)


def previous(connection: Connection, collection_id: str) -> Index | None:
    """The index that was active last, before the one that is."""
    kept = _indexes().where(indexes.c.collection_id == collection_id, indexes.c.state == "retired")
    row = connection.execute(kept.order_by(indexes.c.retired_at.desc(), indexes.c.id.desc())).first()
    return _index(row) if row else None


def save_check(connection: Connection, index_id: int, checked: Mapping[str, Any]) -> None:
    connection.execute(update(indexes).where(indexes.c.id == index_id).values(checked=dict(checked)))


def ranking_of(connection: Connection, index_id: int) -> Mapping[str, Any] | None:
    """How its passages are weighed, as it was fitted on questions (`rag.retrieval.ranking`); None: nobody tried."""
    return connection.execute(_RANKING, {"own": index_id}).scalar()


def save_ranking(connection: Connection, index_id: int, ranking: Mapping[str, Any] | None) -> None:
    value = null() if ranking is None else dict(ranking)
    connection.execute(update(indexes).where(indexes.c.id == index_id).values(ranking=value))


def forget_some(connection: Connection, index: Index) -> bool:
    """Delete some chunks of an index that is not active; False where the index itself is gone now, with the vectors
    that only it wanted. The caller has the writer's lock of the caches, or a sync could count on such a vector."""
    some = select(chunks.c.key).where(chunks.c.index_id == index.id).limit(_DELETED_AT_ONCE)
    if connection.execute(delete(chunks).where(chunks.c.key.in_(some))).rowcount:
        return True
    of_embedder = select(indexes.c.id).where(indexes.c.embedder_id == index.embedder_id)
    wanted = select(chunks.c.embedded_sha256).where(chunks.c.index_id.in_(of_embedder))
    connection.execute(
        delete(vectors).where(vectors.c.embedder_id == index.embedder_id, vectors.c.sha256.not_in(wanted))
    )
    connection.execute(delete(indexes).where(indexes.c.id == index.id, indexes.c.state != "active"))
    next_change(connection)
    return False


# ── versions that an index still has to get ───────────────────────────────────────────────────


def _kept(collection_id: str) -> Any:
    return (
        select(versions.c.document_id, versions.c.number)
        .join(documents, documents.c.id == versions.c.document_id)
        .join(sources, sources.c.id == documents.c.source_id)
        .where(sources.c.collection_id == collection_id, versions.c.removed_at.is_(None))
    )


def count_versions(connection: Connection, collection_id: str) -> int:
    """All that are kept, those of deleted documents among them."""
    kept = _kept(collection_id).subquery()
    return int(connection.execute(select(func.count()).select_from(kept)).scalar_one())


def unindexed(connection: Connection, index: Index) -> list[tuple[str, int]]:
    """(document, version) of all kept versions that have no chunk in this index; active ones first, then the newest."""
    query = (
        _kept(index.collection_id)
        .outerjoin(activations, _active_version())
        .where(~_has_chunks(index))
        .order_by(activations.c.id.is_(None), versions.c.number.desc(), versions.c.document_id)
    )
    return [(row.document_id, row.number) for row in connection.execute(query)]


def _has_chunks(index: Index) -> ColumnElement[bool]:
    return exists().where(
        chunks.c.document_id == versions.c.document_id,
        chunks.c.version == versions.c.number,
        chunks.c.index_id == index.id,
    )


def _active_version() -> ColumnElement[bool]:
    return and_(
        activations.c.document_id == versions.c.document_id,
        activations.c.version == versions.c.number,
        activations.c.to_change.is_(None),
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A version as a reader once made it. `title` is what the embedder is told: empty where it is a file's name."""

    document_id: str
    number: int
    title: str
    parsed: Parsed


def read_version(connection: Connection, document_id: str, number: int) -> Stored | None:
    """None where it was removed meanwhile."""
    row = connection.execute(
        select(versions, documents.c.key)
        .join(documents, documents.c.id == versions.c.document_id)
        .where(versions.c.document_id == document_id, versions.c.number == number, versions.c.removed_at.is_(None))
    ).first()
    if row is None:
        return None
    blocks = tuple(
        Block(kind, start, end, tuple(section), page, level, line, *header)
        for kind, start, end, section, page, level, line, *header in row.blocks
    )
    pages = tuple(Page(**page) for page in row.pages)
    title = "" if row.title in ((row.name or "").strip(), row.key.strip()) else row.title
    return Stored(document_id, number, title, Parsed(row.text, blocks, pages))


def is_unindexed(connection: Connection, index: Index, document_id: str, number: int) -> bool:
    """Whether this version is still kept, and has no chunk in this index."""
    own = versions.c.document_id == document_id, versions.c.number == number, versions.c.removed_at.is_(None)
    query = select(versions.c.number).where(*own, ~_has_chunks(index))
    return connection.execute(query).first() is not None


# ── can the embedder read it? ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Probe:
    """`coverage`: share of the tokens that the embedder knows. `found`: share of the sampled chunks that a sentence of
    theirs finds by vectors alone. `chunks`: of this language, about, when it was probed."""

    language: str
    coverage: float
    found: float
    samples: int
    chunks: int
    probed_at: datetime


def probes_of(connection: Connection, index_ids: Iterable[int]) -> dict[int, dict[str, Probe]]:
    """By index and language."""
    found: dict[int, dict[str, Probe]] = {}
    for row in connection.execute(_PROBES, {"ids": list(index_ids)}):
        probe = Probe(row.language, row.coverage, row.found, row.samples, row.chunks, row.probed_at)
        found.setdefault(row.index_id, {})[row.language] = probe
    return found


def save_probe(
    connection: Connection,
    index_id: int,
    language: str,
    *,
    coverage: float,
    found: float,
    samples: int,
    chunk_count: int,
) -> None:
    own = embedder_probes.c.index_id == index_id, embedder_probes.c.language == language
    connection.execute(delete(embedder_probes).where(*own))
    connection.execute(
        insert(embedder_probes).values(
            index_id=index_id,
            language=language,
            coverage=coverage,
            found=found,
            samples=samples,
            chunks=chunk_count,
            probed_at=now(),
        )
    )


def count_chunks(connection: Connection, index_id: int) -> int:
    """Of all versions: counted in an index of the table, some milliseconds for 100,000."""
    return int(
        connection.execute(select(func.count()).select_from(chunks).where(chunks.c.index_id == index_id)).scalar_one()
    )


def count_active(connection: Connection, index_id: int) -> int:
    """Of active versions alone."""
    query = select(func.count()).select_from(chunks).join(activations, chunk_is_active)
    return int(connection.execute(query.where(chunks.c.index_id == index_id)).scalar_one())


@dataclass(frozen=True, slots=True)
class Text:
    """A chunk, as far as a probe has to know it."""

    key: int
    document_id: str
    version: int
    start: int
    text: str


def newest_texts(connection: Connection, index_id: int, *, limit: int) -> list[str]:
    query = select(chunks.c.text).where(chunks.c.index_id == index_id).order_by(chunks.c.key.desc()).limit(limit)
    return list(connection.execute(query).scalars())


def spread(connection: Connection, index_id: int, *, limit: int) -> list[Text]:
    """At most so many active chunks of enabled documents, evenly spread over all of them."""
    keys = list(
        connection.execute(
            select(chunks.c.key)
            .join(activations, chunk_is_active)
            .join(documents, documents.c.id == chunks.c.document_id)
            .where(chunks.c.index_id == index_id, documents.c.enabled)
            .order_by(chunks.c.key)
        ).scalars()
    )
    chosen = keys if len(keys) <= limit else [keys[number * len(keys) // limit] for number in range(limit)]
    query = select(chunks.c.key, chunks.c.document_id, chunks.c.version, chunks.c.start, chunks.c.text)
    found = connection.execute(query.where(chunks.c.key.in_(chosen)).order_by(chunks.c.key))
    return [Text(row.key, row.document_id, row.version, row.start, row.text) for row in found]


# ── questions of its own ──────────────────────────────────────────────────────────────────────


def own_questions(connection: Connection, collection_id: str, *, limit: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Questions to this collection that were answered, newest first, each with its answer as it was kept."""
    of_collection = (
        select(answer_citations.c.answer_id)
        .join(documents, documents.c.id == answer_citations.c.document_id)
        .join(sources, sources.c.id == documents.c.source_id)
        .where(sources.c.collection_id == collection_id)
    )
    query = (
        select(answers.c.question, answers.c.answer)
        .where(answers.c.id.in_(of_collection), ~answers.c.refused)
        .order_by(answers.c.created_at.desc())
        .limit(limit)
    )
    return [(row.question, row.answer) for row in connection.execute(query)]


def active_text(connection: Connection, document_id: str) -> tuple[int, str] | None:
    """(version, text) of the active version."""
    row = connection.execute(
        select(versions.c.number, versions.c.text)
        .join(activations, _active_version())
        .where(versions.c.document_id == document_id)
    ).first()
    return (row.number, row.text) if row else None
