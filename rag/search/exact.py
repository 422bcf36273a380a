"""Exact nearest neighbours over vectors held in memory: slower to fill than Chroma, never wrong, good for filters."""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.errors import InvalidInput, Unavailable
from rag.ports import Vectors

Keys = NDArray[np.int64]
AnyVectors = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Space:
    """Replaced whole by every change, so that a search sees one state from beginning to end."""

    keys: Keys  # ascending
    vectors: Vectors  # one row per key


class ExactIndex:
    """Cosine search by a product with every vector: 20,000 × 384 takes 2 ms and 30 MB. Thread-safe.

    Vectors are unit vectors, stored as float16 in the catalog; the product is taken in float32 (8 ms against 150 of
    100,000).
    """

    def __init__(self) -> None:
        self._spaces: dict[int, _Space] = {}
        self._writing = threading.Lock()

    def load(self, index_id: int, keys: Sequence[int] | Keys, vectors: AnyVectors) -> None:
        """Exactly these vectors under this id, whatever was there before."""
        with self._writing:
            self._spaces[index_id] = _sorted(keys, vectors)

    def loaded(self, index_id: int) -> bool:
        return index_id in self._spaces

    def add(self, index_id: int, keys: Sequence[int] | Keys, vectors: AnyVectors) -> None:
        """A key that is there is replaced."""
        added = _sorted(keys, vectors)
        with self._writing:
            held = self._space(index_id)
            if not held.keys.size or (added.keys.size and added.keys[0] > held.keys[-1]):
                before: Vectors = held.vectors if held.keys.size else added.vectors[:0]
                # keys only grow, so this is nearly every time
                grown: Vectors = np.concatenate([before, added.vectors])
                self._spaces[index_id] = _Space(np.concatenate([held.keys, added.keys]), grown)
                return
            stays = ~np.isin(held.keys, added.keys)
            self._spaces[index_id] = _sorted(
                np.concatenate([held.keys[stays], added.keys]),
                np.concatenate([held.vectors[stays], added.vectors]),
            )

    def remove(self, index_id: int, keys: Sequence[int] | Keys) -> None:
        """Keys that are not there are passed over."""
        with self._writing:
            held = self._space(index_id)
            stays = ~np.isin(held.keys, np.asarray(keys, dtype=np.int64))
            if not stays.all():
                self._spaces[index_id] = _Space(held.keys[stays], held.vectors[stays])

    def search(
        self, index_id: int, vector: Vectors, *, k: int, among: Keys | Set[int] | None = None
    ) -> list[tuple[int, float]]:
        """At most k (key, cosine), best first; of equal ones the lower key. `among` restricts to these keys."""
        space = self._space(index_id)
        keys, vectors = space.keys, space.vectors
        if among is not None:
            rows = _rows(keys, among)
            keys, vectors = keys[rows], vectors[rows]
        if k < 1 or not keys.size:
            return []
        if vector.shape != vectors.shape[1:]:
            raise InvalidInput(f"Expected a vector of {vectors.shape[1]} numbers, got an array of {vector.shape}.")
        # Not `@`: for that OpenBLAS wakes a thread for each core, which took 4.1 CPU-ms of 10,000 × 384 and not .7.
        scores = np.vecdot(vectors, vector.astype(np.float32, copy=False))
        return [(int(keys[row]), float(scores[row])) for row in _best(scores, k)]

    def keys(self, index_id: int) -> set[int]:
        return set(self._space(index_id).keys.tolist())

    def drop(self, index_id: int) -> None:
        with self._writing:
            self._spaces.pop(index_id, None)

    def _space(self, index_id: int) -> _Space:
        space = self._spaces.get(index_id)
        if space is None:
            raise Unavailable(f"The vectors of index {index_id} are not loaded.", remedy="Load them from the catalog.")
        return space


def _sorted(keys: Sequence[int] | Keys, vectors: AnyVectors) -> _Space:
    wanted = np.asarray(keys, dtype=np.int64)
    if vectors.ndim != 2 or len(vectors) != len(wanted):
        raise InvalidInput(f"Expected one vector for each of {len(wanted)} keys, got an array of {vectors.shape}.")
    if (wanted[1:] > wanted[:-1]).all():
        ascending: Vectors = vectors.astype(np.float32, copy=False)
        return _Space(wanted, ascending)
    # The last row of a key given twice counts: look from behind, where np.unique's first is our last.
    unique, first = np.unique(wanted[::-1], return_index=True)
    chosen: Vectors = vectors[len(wanted) - 1 - first].astype(np.float32, copy=False)
    return _Space(unique, chosen)


def _rows(keys: Keys, among: Keys | Set[int]) -> NDArray[np.intp]:
    chosen = among if isinstance(among, np.ndarray) else np.fromiter(among, dtype=np.int64, count=len(among))
    if not keys.size:
        return np.empty(0, dtype=np.intp)
    chosen = np.unique(chosen)
    at = np.searchsorted(keys, chosen)
    at[at == keys.size] = 0
    rows: NDArray[np.intp] = at[keys[at] == chosen]
    return rows


def _best(scores: Vectors, k: int) -> NDArray[np.intp]:
    if k < scores.size:
        # Everything as good as the k-th, so that equal scores are always cut at the same place.
        border = np.partition(scores, scores.size - k)[scores.size - k]
        candidates = np.flatnonzero(scores >= border)
    else:
        candidates = np.arange(scores.size)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
