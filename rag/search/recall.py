"""Whether approximate search finds what exact search would: a few questions that were asked are looked up both ways."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from rag.catalog import versions
from rag.catalog.engine import Connection
from rag.ports import VectorIndex, Vectors

K: Final = 10
LEAST: Final = 0.98
_EVERY_SECONDS = 600.0  # one look reads every vector of an index: a CPU second of 100,000
_QUESTIONS = 16  # of each index, the latest
_BATCH = 5_000
_SPARE = 3  # times K are asked for, because Chroma may hold some that the catalog has no use for any more


@dataclass(frozen=True, slots=True)
class Recall:
    """The share of the exact K nearest that approximate search found, over so many questions."""

    value: float
    questions: int


class RecallMonitor:
    """Thread-safe. Remembers the latest questions of each index until they are looked up both ways."""

    def __init__(self) -> None:
        self.found: dict[int, Recall] = {}
        self._asked: dict[int, deque[Vectors]] = {}
        self._lock = threading.Lock()
        self._due = time.monotonic() + _EVERY_SECONDS

    def heard(self, index_id: int, vector: Vectors) -> None:
        with self._lock:
            self._asked.setdefault(index_id, deque(maxlen=_QUESTIONS)).append(vector)

    def take_due(self, *, now: bool = False) -> dict[int, Vectors]:
        """The questions that wait, shape (n, dimension), by index, when it is time again."""
        with self._lock:
            if not self._asked or (time.monotonic() < self._due and not now):
                return {}
            self._due = time.monotonic() + _EVERY_SECONDS
            taken, self._asked = self._asked, {}
        return {index_id: np.stack(vectors) for index_id, vectors in taken.items()}

    def measure(
        self,
        snapshot: Connection,
        index_id: int,
        asked: Vectors,
        vectors: VectorIndex,
        *,
        stop: Callable[[], bool] = lambda: False,
    ) -> Recall | None:
        """None where there is nothing to find, or it was told to stop. Raises Unavailable."""
        active = versions.active_keys(snapshot, index_id)
        nearest = _nearest(snapshot, sorted(active), asked, stop)
        if nearest is None or not active:
            return None
        shares = []
        for vector, exact in zip(asked, nearest, strict=True):
            approximate = [key for key, _ in vectors.search(index_id, vector, k=_SPARE * K) if key in active][:K]
            shares.append(len(exact.intersection(approximate)) / len(exact))
        self.found[index_id] = found = Recall(sum(shares) / len(shares), len(shares))
        return found


def _nearest(snapshot: Connection, keys: list[int], asked: Vectors, stop: Callable[[], bool]) -> list[set[int]] | None:
    """The keys of the K nearest to each question; of the vectors, one batch at a time is in memory."""
    best = np.full((len(asked), K), -np.inf, dtype=np.float32)
    whose = np.full((len(asked), K), -1, dtype=np.int64)
    for start in range(0, len(keys), _BATCH):
        if stop():
            return None
        found, matrix = versions.vectors_of(snapshot, keys[start : start + _BATCH])
        scores = np.concatenate([best, asked @ matrix.T], axis=1)
        whom = np.concatenate([whose, np.tile(np.asarray(found, dtype=np.int64), (len(asked), 1))], axis=1)
        kept = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        best, whose = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(whom, kept, axis=1)
    return [{int(key) for key in row if key >= 0} for row in whose]
