"""Both ways to look into one index: by its vectors and by its terms, as it is or as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag.catalog.engine import Connection
from rag.models import Collection
from rag.ports import TermSearch, Vectors

if TYPE_CHECKING:
    from rag.caches import Caches


class Arms(Protocol):
    """Both ways to look into one index, as it is or as it was. `at`: the change after which it was so; None for now."""

    @property
    def at(self) -> int | None: ...

    @property
    def documents(self) -> int:
        """How many documents there are to be found."""
        ...

    def search_vectors(self, vector: Vectors, *, k: int) -> list[tuple[int, float]]: ...

    def search_terms(self, question: str, *, k: int) -> list[tuple[int, float]]: ...

    def rarity(self, terms: Sequence[str]) -> list[float]: ...


@dataclass(frozen=True, slots=True)
class Present:
    """What is active in this snapshot, inside the gate."""

    caches: Caches
    snapshot: Connection
    collection: Collection
    at: None = None

    @property
    def documents(self) -> int:
        return self.caches.count_documents(self.snapshot, self.collection)

    def search_vectors(self, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        return self.caches.search_vectors(self.snapshot, self.collection.index_id, vector, k=k)

    def search_terms(self, question: str, *, k: int) -> list[tuple[int, float]]:
        return self.caches.search_terms(self.collection.index_id, question, k=k)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        return self.caches.term_rarity(self.collection.index_id, terms)


@dataclass(frozen=True, slots=True)
class Past:
    """Made for the occasion: vectors searched exactly, terms in memory."""

    at: int
    documents: int
    keys: list[int]
    vectors: Vectors
    terms: TermSearch

    def search_vectors(self, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        if not self.keys:
            return []
        scores = self.vectors @ vector
        best = np.argsort(-scores, kind="stable")[:k]
        return [(self.keys[row], float(scores[row])) for row in best]

    def search_terms(self, question: str, *, k: int) -> list[tuple[int, float]]:
        return self.terms.search(question, k=k)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        return self.terms.rarity(terms)
