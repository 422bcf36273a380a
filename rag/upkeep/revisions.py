"""What may be done with a document without reading it again: go back to a version, compare two, say more about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from rag.catalog import knowledge, versions
from rag.catalog.engine import Connection
from rag.catalog.versions import Flip
from rag.errors import Conflict
from rag.knowledge import KnowledgeBase
from rag.models import Collection, Document, MetadataValue

_CONTEXT_LINES = 3


def roll_back(base: KnowledgeBase, document_id: str, number: int) -> Document:
    """Make an older version the active one: a new activation of what is stored, nothing is embedded.

    It stays until its source has other bytes than those that were read last. Raises NotFound, Gone where retention
    removed that version, and Conflict where the active index does not have it.
    """
    with base.catalog.read() as snapshot:
        document = knowledge.get_document(snapshot, document_id)
        row = versions.version_row(snapshot, document_id, number)
        collection = _collection_of(snapshot, document)
        keys = versions.chunk_keys(snapshot, [(document_id, number)], index_id=collection.index_id)
    if document.version == number:
        return document
    if not keys:
        raise Conflict(
            f"Version {number} of “{document.title}” is not in the index of “{collection.name}”.",
            remedy=f"attest reindex -c “{collection.name}” brings older versions into it.",
        )

    def describe(connection: Connection) -> None:
        versions.version_row(connection, document_id, number)  # retention may have come first
        knowledge.set_title(connection, document_id, row.title)

    flip = Flip(document_id, document.version, number)
    base.caches.publish([flip], collection=collection, staged_keys=keys, also=describe)
    with base.catalog.read() as snapshot:
        return knowledge.get_document(snapshot, document_id)


def edit(
    base: KnowledgeBase,
    document_id: str,
    *,
    title: str | None = None,
    metadata: Mapping[str, MetadataValue | None] | None = None,
    back_to_source: Iterable[str] = (),
    tags: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Document:
    """Somebody's own words about a document (see `knowledge.edit_document`), in every answer from now on."""
    with base.catalog.read() as snapshot:
        collection = _collection_of(snapshot, knowledge.get_document(snapshot, document_id))

    def write(connection: Connection) -> None:
        knowledge.edit_document(
            connection,
            document_id,
            title=title,
            metadata=metadata,
            back_to_source=back_to_source,
            tags=tags,
            enabled=enabled,
        )

    base.caches.rewrite_terms([document_id], collection=collection, also=write)  # it is found by its new title
    with base.catalog.read() as snapshot:
        return knowledge.get_document(snapshot, document_id)


def diff(base: KnowledgeBase, document_id: str, *, old: int, new: int) -> str:
    """Unified diff of two versions' texts; empty where they say the same. Raises NotFound and Gone."""
    with base.catalog.read() as snapshot:
        before, after = (versions.version_row(snapshot, document_id, number) for number in (old, new))
    return "\n".join(
        difflib.unified_diff(
            before.text.split("\n"),
            after.text.split("\n"),
            fromfile=f"{before.title} (version {old})",
            tofile=f"{after.title} (version {new})",
            fromfiledate=before.created_at.isoformat(),
            tofiledate=after.created_at.isoformat(),
            n=_CONTEXT_LINES,
            lineterm="",
        )
    )


def _collection_of(snapshot: Connection, document: Document) -> Collection:
    source = knowledge.get_source(snapshot, document.source_id)
    return knowledge.get_collection(snapshot, source.collection_id)
