"""Collections, sources and documents: what there is. Functions over a connection; transactions belong to the caller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from rag.catalog.engine import batches, new_id, next_change, now
from rag.catalog.history import raise_if_purged
from rag.catalog.tables import (
    activations,
    chunk_is_active,
    chunks,
    collections,
    document_metadata,
    documents,
    embedders,
    indexes,
    sources,
    versions,
)
from rag.errors import Conflict, InvalidInput, NotFound
from rag.models import Collection, Document, MetadataValue, Problem, SourceRecord
from rag.ports import Embedder

_MANY = 500  # values in one IN (…)
_NAME_LIMIT = 200  # characters of a collection's or source's name


# ── collections ───────────────────────────────────────────────────────────────────────────────


def _collections() -> Any:
    return (
        select(
            collections.c.id,
            collections.c.name,
            collections.c.index_id,
            collections.c.created_at,
            embedders.c.identity,
        )
        .join(indexes, indexes.c.id == collections.c.index_id)
        .join(embedders, embedders.c.id == indexes.c.embedder_id)
    )


def _collection(row: Row[Any]) -> Collection:
    return Collection(row.id, row.name, row.identity, row.index_id, row.created_at)


def create_collection(connection: Connection, name: str, *, embedder: Embedder, splitter: str) -> Collection:
    """A new, empty collection with its first index. Raises Conflict when the name is taken."""
    name = _valid_name(name, "collection")
    if connection.execute(select(collections.c.id).where(collections.c.name == name)).first():
        raise Conflict(f"There is a collection named “{name}” already.", remedy="Choose another name.")
    collection_id = new_id("col")
    connection.execute(
        insert(collections).values(id=collection_id, name=name, metadata_schema={}, created_at=now(), index_id=None)
    )
    index_id = connection.execute(
        insert(indexes)
        .values(
            collection_id=collection_id,
            embedder_id=embedder_row(connection, embedder),
            splitter=splitter,
            state="active",
            created_at=now(),
            activated_at=now(),
        )
        .returning(indexes.c.id)
    ).scalar_one()
    connection.execute(update(collections).where(collections.c.id == collection_id).values(index_id=index_id))
    next_change(connection)
    return get_collection(connection, name)


def embedder_row(connection: Connection, embedder: Embedder) -> int:
    """The catalog's number of this embedder, given when it is first seen."""
    found = connection.execute(select(embedders.c.id).where(embedders.c.identity == embedder.identity)).scalar()
    if found is not None:
        return int(found)
    values = {
        "identity": embedder.identity,
        "name": embedder.name,
        "dimension": embedder.dimension,
        "spec": embedder.spec,
    }
    return int(connection.execute(insert(embedders).values(**values).returning(embedders.c.id)).scalar_one())


def list_collections(connection: Connection) -> list[Collection]:
    return [_collection(row) for row in connection.execute(_every_collection())]


@cache
def _every_collection() -> Any:
    return _collections().order_by(collections.c.name)


def get_collection(connection: Connection, name: str) -> Collection:
    """By name or id. Raises NotFound."""
    row = connection.execute(_collections().where((collections.c.name == name) | (collections.c.id == name))).first()
    if row is None:
        raise NotFound(
            f"There is no collection named “{name}”.", remedy="GET /v1/collections lists those that there are."
        )
    return _collection(row)


def rename_collection(connection: Connection, collection: Collection, name: str) -> Collection:
    name = _valid_name(name, "collection")
    taken = connection.execute(select(collections.c.id).where(collections.c.name == name)).scalar()
    if taken is not None and taken != collection.id:
        raise Conflict(f"There is a collection named “{name}” already.", remedy="Choose another name.")
    connection.execute(update(collections).where(collections.c.id == collection.id).values(name=name))
    return get_collection(connection, collection.id)


def delete_collection(connection: Connection, collection: Collection) -> None:
    connection.execute(delete(collections).where(collections.c.id == collection.id))
    next_change(connection)


@dataclass(frozen=True, slots=True)
class CollectionCounts:
    documents: int
    chunks: int


def count_collection(connection: Connection, collection: Collection) -> CollectionCounts:
    """Documents and chunks that a question can find."""
    active = (
        select(func.count(func.distinct(chunks.c.document_id)), func.count())
        .select_from(chunks)
        .join(activations, chunk_is_active)
        .join(documents, documents.c.id == chunks.c.document_id)
        .where(chunks.c.index_id == collection.index_id, documents.c.enabled)
    )
    row = connection.execute(active).one()
    return CollectionCounts(int(row[0]), int(row[1]))


# ── sources ───────────────────────────────────────────────────────────────────────────────────


def _source(row: Row[Any]) -> SourceRecord:
    return SourceRecord(
        row.id,
        row.collection_id,
        row.name,
        row.kind,
        row.config,
        row.created_at,
        row.synced_at,
        row.refresh,
        row.watch,
    )


def create_source(
    connection: Connection,
    collection: Collection,
    *,
    name: str,
    kind: str,
    config: Mapping[str, object],
    refresh: str | None = None,
    watch: bool = False,
) -> SourceRecord:
    """A new source. Raises Conflict when the collection has one of this name."""
    name = _valid_name(name, "source")
    taken = select(sources.c.id).where(sources.c.collection_id == collection.id, sources.c.name == name)
    if connection.execute(taken).first():
        raise Conflict(
            f"“{collection.name}” has a source named “{name}” already.",
            remedy="Choose another name, or change that one with PATCH.",
        )
    source_id = new_id("src")
    connection.execute(
        insert(sources).values(
            id=source_id,
            collection_id=collection.id,
            name=name,
            kind=kind,
            config=dict(config),
            refresh=refresh,
            watch=watch,
            created_at=now(),
        )
    )
    return get_source(connection, source_id)


def get_source(connection: Connection, source_id: str) -> SourceRecord:
    row = connection.execute(select(sources).where(sources.c.id == source_id)).first()
    if row is None:
        raise NotFound(f"There is no source {source_id}.", remedy="It may have been deleted.")
    return _source(row)


def find_source(connection: Connection, collection: Collection, name: str) -> SourceRecord | None:
    row = connection.execute(
        select(sources).where(sources.c.collection_id == collection.id, sources.c.name == name)
    ).first()
    return _source(row) if row else None


def list_sources(connection: Connection, collection: Collection | None = None) -> list[SourceRecord]:
    query = select(sources).order_by(sources.c.created_at, sources.c.id)
    if collection is not None:
        query = query.where(sources.c.collection_id == collection.id)
    return [_source(row) for row in connection.execute(query)]


def update_source(
    connection: Connection,
    source: SourceRecord,
    *,
    name: str | None = None,
    config: Mapping[str, object] | None = None,
    refresh: str | None = None,
    watch: bool | None = None,
) -> SourceRecord:
    """What is None stays as it is; an empty `refresh` ends the schedule."""
    values: dict[str, object] = {}
    if refresh is not None:
        values["refresh"] = refresh or None
    if watch is not None:
        values["watch"] = watch
    if name is not None:
        values["name"] = _valid_name(name, "source")
    if config is not None:
        values["config"] = dict(config)
    if values:
        connection.execute(update(sources).where(sources.c.id == source.id).values(**values))
    return get_source(connection, source.id)


def mark_synced(connection: Connection, source_id: str) -> None:
    connection.execute(update(sources).where(sources.c.id == source_id).values(synced_at=now()))


def delete_source(connection: Connection, source_id: str) -> None:
    """With its documents and their versions."""
    connection.execute(delete(sources).where(sources.c.id == source_id))
    next_change(connection)


# ── documents ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Known:
    """What a sync remembers of a document."""

    document_id: str
    key: str
    state: Mapping[str, str]
    content_sha256: str | None
    pipeline: str | None
    status: str
    version: int | None
    title: str
    text_sha256: str | None  # of the active version, as is the next
    version_pipeline: str | None
    uri: str
    name: str


def known_documents(connection: Connection, source_id: str, *, key: str | None = None) -> dict[str, Known]:
    """By key, those that the source had at its last sync; with `key`, that one, if it is among them."""
    query = (
        select(documents, activations.c.version, versions.c.text_sha256, versions.c.pipeline.label("version_pipeline"))
        .outerjoin(activations, and_(activations.c.document_id == documents.c.id, activations.c.to_change.is_(None)))
        .outerjoin(
            versions,
            and_(versions.c.document_id == activations.c.document_id, versions.c.number == activations.c.version),
        )
        .where(documents.c.source_id == source_id, documents.c.deleted_at.is_(None))
    )
    rows = connection.execute(query if key is None else query.where(documents.c.key == key))
    return {
        row.key: Known(
            row.id,
            row.key,
            row.state,
            row.content_sha256,
            row.pipeline,
            row.status,
            row.version,
            row.title,
            row.text_sha256,
            row.version_pipeline,
            row.uri,
            row.name,
        )
        for row in rows
    }


def save_document(
    connection: Connection,
    source_id: str,
    *,
    key: str,
    uri: str,
    title: str,
    name: str,
    media_type: str | None,
    status: str,
    problems: Sequence[Problem],
    state: Mapping[str, str],
    content_sha256: str | None,
    pipeline: str | None,
) -> str:
    """The document's id: the one it had, also if it was deleted in between, or a new one."""
    values = {
        "uri": uri,
        "title": title,
        "name": name,
        "media_type": media_type,
        "status": status,
        "problems": [asdict(problem) for problem in problems],
        "state": dict(state),
        "content_sha256": content_sha256,
        "pipeline": pipeline,
        "updated_at": now(),
        "deleted_at": None,
    }
    found = connection.execute(
        select(documents.c.id).where(documents.c.source_id == source_id, documents.c.key == key)
    ).scalar()
    if found is not None:
        connection.execute(update(documents).where(documents.c.id == found).values(**values))
        return str(found)
    document_id = new_id("doc")
    connection.execute(
        insert(documents).values(id=document_id, source_id=source_id, key=key, enabled=True, created_at=now(), **values)
    )
    return document_id


def reserve_document(connection: Connection, source_id: str, *, key: str, uri: str) -> str:
    """The id of a document that is about to get a version. A new one stays hidden, as if deleted, until it has one."""
    return reserve_documents(connection, source_id, {key: uri})[key]


def reserve_documents(connection: Connection, source_id: str, uris: Mapping[str, str]) -> dict[str, str]:
    """The same of many, by key."""
    found: dict[str, str] = {}
    for some in batches(list(uris), _MANY):
        query = select(documents.c.key, documents.c.id).where(
            documents.c.source_id == source_id, documents.c.key.in_(some)
        )
        found.update((row[0], row[1]) for row in connection.execute(query))
    moment = now()
    new = {key: new_id("doc") for key in uris if key not in found}
    rows = [
        {
            "id": document_id,
            "source_id": source_id,
            "key": key,
            "uri": uris[key],
            "title": "",
            "name": "",
            "status": "failed",
            "problems": [],
            "state": {},
            "enabled": True,
            "created_at": moment,
            "updated_at": moment,
            "deleted_at": moment,
        }
        for key, document_id in new.items()
    ]
    if rows:
        connection.execute(insert(documents), rows)
    return found | new


def touch_document(
    connection: Connection, document_id: str, *, state: Mapping[str, str], content_sha256: str | None
) -> None:
    """It says what it said, though its bytes or the source's state of it changed."""
    values = {"state": dict(state), "content_sha256": content_sha256}
    connection.execute(update(documents).where(documents.c.id == document_id).values(**values))


def set_title(connection: Connection, document_id: str, title: str) -> None:
    """As a version has it that becomes the active one again. What somebody edited still goes before it."""
    values = {"title": title, "updated_at": now()}
    connection.execute(update(documents).where(documents.c.id == document_id).values(**values))


def uploaded(connection: Connection, source_id: str) -> list[tuple[Any, dict[str, MetadataValue]]]:
    """The rows of a source's documents whose bytes are kept, each with its metadata."""
    rows = connection.execute(
        select(documents).where(
            documents.c.source_id == source_id,
            documents.c.deleted_at.is_(None),
        )
    )
    return [(row, _metadata(connection, row.id)) for row in rows]


def set_metadata(connection: Connection, document_id: str, values: Mapping[str, MetadataValue]) -> None:
    """What the source says. Values that somebody edited stay, and go before these."""
    own = document_metadata.c.document_id == document_id, ~document_metadata.c.edited
    connection.execute(delete(document_metadata).where(*own))
    if values:
        rows = [
            {"document_id": document_id, "key": key, "edited": False, **_typed(value)} for key, value in values.items()
        ]
        connection.execute(insert(document_metadata), rows)


def edit_document(
    connection: Connection,
    document_id: str,
    *,
    title: str | None = None,
    metadata: Mapping[str, MetadataValue | None] | None = None,
    back_to_source: Iterable[str] = (),
    tags: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Document:
    """Somebody's own words about a document; they survive every sync. Raises NotFound.

    What is None stays as it is. An empty title goes back to the source's. A metadata value of None hides the source's;
    the keys in `back_to_source` lose their edit.
    """
    get_document(connection, document_id)
    values: dict[str, object] = {"updated_at": now()}
    if title is not None:
        values["edited_title"] = title.strip() or None
    if tags is not None:
        values["tags"] = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    if enabled is not None:
        values["enabled"] = enabled
    connection.execute(update(documents).where(documents.c.id == document_id).values(**values))
    changed = {*(metadata or {}), *back_to_source}
    if changed:
        connection.execute(
            delete(document_metadata).where(
                document_metadata.c.document_id == document_id,
                document_metadata.c.edited,
                document_metadata.c.key.in_(changed),
            )
        )
    if metadata:
        rows = [
            {"document_id": document_id, "key": key, "edited": True, **_typed(value)} for key, value in metadata.items()
        ]
        connection.execute(insert(document_metadata), rows)
    next_change(connection)
    return get_document(connection, document_id)


def _typed(value: MetadataValue | None) -> dict[str, object]:
    if value is None:
        return {"type": "none", "text": "", "number": None}
    if isinstance(value, bool):
        return {"type": "boolean", "text": str(value).lower(), "number": float(value)}
    if isinstance(value, int | float):
        return {"type": "number", "text": str(value), "number": float(value)}
    if isinstance(value, date):
        return {"type": "date", "text": value.isoformat(), "number": float(value.toordinal())}
    return {"type": "text", "text": value, "number": None}


def _untyped(kind: str, text: str, number: float | None) -> MetadataValue:
    if kind == "boolean":
        return text == "true"
    if kind == "number" and number is not None:
        return int(number) if number.is_integer() else number
    if kind == "date":
        return date.fromisoformat(text[:10])
    return text


def get_document(connection: Connection, document_id: str) -> Document:
    """Raises NotFound, also for a deleted one, and Gone for one that was purged."""
    row = connection.execute(_documents().where(documents.c.id == document_id)).first()
    if row is None:
        raise_if_purged(connection, document_id)
        raise NotFound(f"There is no document {document_id}.", remedy="It may have been deleted.")
    return _document(connection, row)


def list_documents(
    connection: Connection, collection: Collection, *, after: str = "", limit: int = 100
) -> list[Document]:
    """In order of id, those after the given one."""
    query = (
        _documents()
        .join(sources, sources.c.id == documents.c.source_id)
        .where(sources.c.collection_id == collection.id, documents.c.id > after)
        .order_by(documents.c.id)
        .limit(limit)
    )
    return [_document(connection, row) for row in connection.execute(query)]


def _documents() -> Any:
    counted = (
        select(func.count())
        .select_from(chunks)
        .join(collections, collections.c.index_id == chunks.c.index_id)
        .where(chunks.c.document_id == documents.c.id, chunks.c.version == activations.c.version)
        .scalar_subquery()
    )
    return (
        select(documents, activations.c.version, counted.label("chunk_count"))
        .outerjoin(activations, and_(activations.c.document_id == documents.c.id, activations.c.to_change.is_(None)))
        .where(documents.c.deleted_at.is_(None))
    )


def _document(connection: Connection, row: Row[Any]) -> Document:
    return Document(
        id=row.id,
        source_id=row.source_id,
        key=row.key,
        title=row.edited_title or row.title,
        uri=row.uri,
        status=row.status,
        version=row.version,
        tags=tuple(row.tags),
        metadata=_metadata(connection, row.id),
        problems=tuple(Problem(**problem) for problem in row.problems),
        enabled=row.enabled,
        updated_at=row.updated_at,
        chunks=row.chunk_count or 0,
    )


def _metadata(connection: Connection, document_id: str) -> dict[str, MetadataValue]:
    values = connection.execute(
        select(document_metadata)
        .where(document_metadata.c.document_id == document_id)
        .order_by(document_metadata.c.edited, document_metadata.c.key)  # what was edited comes last, and counts
    )
    found = {value.key: value for value in values}
    return {key: _untyped(value.type, value.text, value.number) for key, value in found.items() if value.type != "none"}


def _valid_name(name: str, noun: str) -> str:
    name = name.strip()
    if not name or len(name) > _NAME_LIMIT or any(character in name for character in "/\\\n\r\t\x00"):
        raise InvalidInput(
            f"“{name[:80]}” cannot be the name of a {noun}.",
            remedy=f"Use 1 to {_NAME_LIMIT} characters of any script, without slashes and line breaks.",
        )
    return name
