"""Texts of one batch become vectors while the batch before it is written and the next one is cut.

Nothing here writes, so whoever is cancelled leaves it behind, and it ends by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from ingest.interrupt import Cancelled
from ingest.pipeline import embed, missing_texts
from rag.knowledge import KnowledgeBase
from rag.models import Piece
from rag.ports import Embedder

Embedded = Mapping[str, NDArray[np.float32]]  # hash of a text → its vector

_LOOK_SECONDS = 0.1
# What a cancel leaves to end by itself takes about so long. Many texts at a time are padded less and keep all cores
# busy; a slow model gets fewer.
_SECONDS = 0.5
_FEWEST, _FIRST, _MOST = 16, 32, 256  # texts at a time


class Embedding:
    """Embeds one batch after the other, in the order they came, in a thread of its own. For one run, and one thread
    that begins and takes."""

    def __init__(self, base: KnowledgeBase, *, cancelled: Callable[[], bool]) -> None:
        self._base = base
        self._cancelled = cancelled
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="embedding")
        self._left = threading.Event()
        self._at_once = _FIRST
        # Of the batch before, which may not be written yet: equal texts in two documents are embedded once.
        self._before: tuple[int, frozenset[str]] = 0, frozenset()

    def begin(self, pieces: Sequence[Piece], *, embedder: Embedder, embedder_id: int) -> Future[Embedded]:
        """The vectors of the texts that have none and did not come with the batch before."""
        return self._pool.submit(self._embed, pieces, embedder, embedder_id)

    def take(self, begun: Future[Embedded]) -> Embedded:
        """When it is done; or Cancelled as soon as somebody asks for that."""
        while not wait([begun], timeout=_LOOK_SECONDS).done:
            if self._cancelled():
                raise Cancelled
        return begun.result()

    def close(self) -> None:
        """Nobody takes what is not done yet."""
        self._left.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _embed(self, pieces: Sequence[Piece], embedder: Embedder, embedder_id: int) -> Embedded:
        texts = missing_texts(pieces, base=self._base, embedder_id=embedder_id)
        of_whom, before = self._before
        if of_whom == embedder_id:
            texts = [text for text in texts if text.digest not in before]
        texts.sort(key=lambda text: -text.tokens)  # like beside like: one model's batch is padded to its longest text
        found: dict[str, NDArray[np.float32]] = {}
        start = 0
        while start < len(texts):
            if self._left.is_set() or self._cancelled():
                raise Cancelled
            some = texts[start : start + self._at_once]
            began = time.monotonic()
            found.update(embed(some, embedder=embedder))
            start += len(some)
            self._adapt(len(some) * _SECONDS / max(time.monotonic() - began, 1e-3))
        self._before = embedder_id, frozenset(found)
        return found

    def _adapt(self, wanted: float) -> None:
        self._at_once = round(min(max(wanted, self._at_once / 2, _FEWEST), self._at_once * 2, _MOST))
