"""Both ways to look into one index: by its vectors and by its terms, as it is or as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rag.catalog.engine import Connection
from rag.models import Collection
from rag.ports import TermSearch, Vectors

if TYPE_CHECKING:
    from rag.search.caches import Caches

# Of Chroma, where a filter leaves little of what is near the question. It searches as widely as it is asked for.
_MOST_NEAREST = 4_000


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
class Exact:
    """Vectors in memory and searched exactly: of the past, or of what a filter leaves, now or then."""

    at: int | None
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


@dataclass(frozen=True, slots=True)
class Among:
    """The terms of some of the entries, which score as they do among all."""

    terms: TermSearch
    keys: Sequence[int]

    def search(self, question: str, *, k: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        keys = self.keys if among is None else sorted({*self.keys} & {*among})
        return self.terms.search(question, k=k, among=keys)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        return self.terms.rarity(terms)


@dataclass(frozen=True, slots=True)
class CachedTerms:
    """An index's terms in the cache as a TermSearch; inside the gate they do not change."""

    caches: Caches
    index_id: int

    def search(self, question: str, *, k: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        return self.caches.search_terms(self.index_id, question, k=k, among=among)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        return self.caches.term_rarity(self.index_id, terms)


Search = Callable[[int], list[tuple[int, float]]]


@dataclass(frozen=True, slots=True)
class Sieved:
    """What a filter leaves where that is much: both arms of everything, asked for more until enough has passed.

    `allowed` are its documents; `documents_of` tells a chunk's, and is called from two threads; `exact` gives the k
    best among all that passes, which takes long.
    """

    inner: Arms
    allowed: Set[str]
    documents_of: Callable[[Sequence[int]], Mapping[int, str]]
    exact: Callable[[Vectors, int], list[tuple[int, float]]]

    @property
    def at(self) -> int | None:
        return self.inner.at

    @property
    def documents(self) -> int:
        return len(self.allowed)

    def search_vectors(self, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        found = self._sieve(lambda more: self.inner.search_vectors(vector, k=more), k=k, most=_MOST_NEAREST)
        return self.exact(vector, k) if found is None else found

    def search_terms(self, question: str, *, k: int) -> list[tuple[int, float]]:
        return self._sieve(lambda more: self.inner.search_terms(question, k=more), k=k) or []

    def rarity(self, terms: Sequence[str]) -> list[float]:
        return self.inner.rarity(terms)

    def _sieve(self, search: Search, *, k: int, most: int | None = None) -> list[tuple[int, float]] | None:
        """All that passes where it is less than k; but None where `most` were not to be asked in vain for k."""
        share = self.documents / max(self.inner.documents, 1)
        # Four times as many as may be enough: HNSW misses among the last that it was asked for, not among the first.
        # 20,000 vectors in 200 topics, of the 60 nearest: .995 found without a filter, .999 of what passes with one.
        more = math.ceil(4 * k / max(share, 0.01))
        known: dict[int, str] = {}
        while True:
            found = search(more if most is None else min(more, most))
            known.update(self.documents_of([key for key, _ in found if key not in known]))
            passed = [(key, score) for key, score in found if known.get(key) in self.allowed]
            if len(passed) >= k:
                return passed[:k]
            if most is not None and (more >= most or len(found) < more):
                return None
            if len(found) < more:
                return passed
            more *= 4
