"""The knowledge base that the path of a question and of a document share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.catalog import indexes, knowledge
from rag.catalog.engine import Catalog
from rag.catalog.indexes import Index
from rag.embedding.embedders import Embedders
from rag.errors import EmbedderMismatch, NotFound, Unavailable
from rag.models import Collection
from rag.ports import Embedder, Reranker
from rag.rerank.light import LightReranker
from rag.search.caches import Caches
from rag.storage.originals import Originals


@dataclass(frozen=True, slots=True)
class KnowledgeBase:
    """`embedder` is the configured one, which new collections get; `others` are those of older collections."""

    catalog: Catalog
    caches: Caches
    originals: Originals
    embedder: Embedder
    others: Embedders = field(default_factory=Embedders)
    reranker: Reranker = field(default_factory=LightReranker)

    def collections(self, names: Sequence[str]) -> list[Collection]:
        """Those of the names, or all there are; each readable with its own embedder.

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
            self.embedder_of(collection)
        return found

    def embedder_of(self, collection: Collection) -> Embedder:
        """The one that the vectors of this collection's index were made with.

        Raises EmbedderMismatch where it cannot be loaded, or is another one than it was.
        """
        known = self._known(collection.embedder)
        if known is not None:
            return known
        with self.catalog.read() as snapshot:
            index = indexes.get_index(snapshot, collection.index_id)
        return self.embedder_for(index, collection.name)

    def embedder_for(self, index: Index, name: str) -> Embedder:
        """The one that made this index of the collection `name`, active or not; raises as `embedder_of` does."""
        known = self._known(index.embedder)
        if known is not None:
            return known
        configured = index.embedder_spec == self.embedder.spec
        if configured:
            identity = self.embedder.identity  # raises Unavailable where it cannot be loaded, and says why
            reason = f"that is another one today ({identity})"
        elif index.embedder_spec is None:
            reason = "nothing is known of where it can be loaded from"
        else:
            try:
                embedder = self.others.open(index.embedder_spec)
            except Unavailable as problem:
                reason = problem.detail.rstrip(".")
            else:
                if embedder.identity == index.embedder:
                    return embedder
                reason = f"{index.embedder_spec} is another one today ({embedder.identity})"
        raise EmbedderMismatch(
            f"“{name}” was indexed with the embedder {index.embedder_name}, which is not there: {reason}.",
            remedy=f'Bring it back, or run `attest reindex -c "{name}"` to index it with {self.embedder.name}.',
        )

    def _known(self, identity: str) -> Embedder | None:
        try:
            if self.embedder.identity == identity:
                return self.embedder
        except Unavailable:  # the collections of other embedders can be read without it
            return self.others.known(identity)
        return self.others.known(identity)

    def open_embedder(self, spec: str) -> Embedder:
        """The configured one, or another one by what loads it. Raises Unavailable."""
        return self.embedder if spec == self.embedder.spec else self.others.open(spec)

    def create_collection(self, name: str, *, splitter: str) -> Collection:
        with self.catalog.write() as connection:
            collection = knowledge.create_collection(connection, name, embedder=self.embedder, splitter=splitter)
        self.caches.create(collection, dimension=self.embedder.dimension)
        return collection

    def delete_collection(self, collection: Collection) -> None:
        with self.catalog.write() as connection:
            knowledge.delete_collection(connection, collection)
        self.caches.forget(collection)
