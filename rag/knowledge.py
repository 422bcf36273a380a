"""The knowledge base that the path of a question and of a document share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.caches import Caches
from rag.catalog import knowledge, versions
from rag.catalog.engine import Catalog
from rag.errors import EmbedderMismatch, NotFound
from rag.models import Collection
from rag.originals import Originals
from rag.ports import Embedder


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    catalog: Catalog
    caches: Caches
    originals: Originals
    embedder: Embedder

    def collections(self, names: Sequence[str]) -> list[Collection]:
        """Those of the names, or all there are; each readable with the configured embedder.

        Raises NotFound, and EmbedderMismatch rather than answer badly without a word.
        """
        with self.catalog.read() as snapshot:
            if names:
                found = [knowledge.get_collection(snapshot, name) for name in dict.fromkeys(names)]
            else:
                found = knowledge.list_collections(snapshot)
            if not found:
                raise NotFound(
                    "There is no collection yet.", remedy="Make one, or sync a source: both make what they need."
                )
            for collection in found:
                self._check_embedder(versions.embedder_of(snapshot, collection.index_id)[1:3], collection)
        return found

    def _check_embedder(self, maker: tuple[str, str], collection: Collection) -> None:
        identity, name = maker
        if identity != self.embedder.identity:
            raise EmbedderMismatch(
                f"“{collection.name}” was indexed with the embedder {name}, and {self.embedder.name} is configured: "
                "their vectors cannot be compared.",
                remedy=f"Set ATTEST_EMBEDDER back to {name}, or ingest into a new collection.",
            )

    def create_collection(self, name: str, *, splitter: str) -> Collection:
        with self.catalog.write() as connection:
            collection = knowledge.create_collection(connection, name, embedder=self.embedder, splitter=splitter)
        self.caches.create(collection, dimension=self.embedder.dimension)
        return collection

    def delete_collection(self, collection: Collection) -> None:
        with self.catalog.write() as connection:
            knowledge.delete_collection(connection, collection)
        self.caches.forget(collection)
