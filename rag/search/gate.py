"""Many may look, or one may flip: SQLite and Tantivy have no snapshot in common."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Many may look, or one may flip. A flip that waits goes first, so that readers without pause cannot starve it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._looking = 0
        self._flipping = False
        self._flips_waiting = 0

    @contextmanager
    def look(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._flipping and not self._flips_waiting)
            self._looking += 1
        try:
            yield
        finally:
            with self._condition:
                self._looking -= 1
                self._condition.notify_all()

    @contextmanager
    def flip(self) -> Iterator[None]:
        with self._condition:
            self._flips_waiting += 1
            self._condition.wait_for(lambda: not self._flipping and not self._looking)
            self._flips_waiting -= 1
            self._flipping = True
        try:
            yield
        finally:
            with self._condition:
                self._flipping = False
                self._condition.notify_all()
