"""How much of what was read may wait in memory for whoever takes it."""

from __future__ import annotations

import threading

from ingest.interrupt import Cancelled


class Budget:
    """Readers begin one after the other in the order of their tickets (0, 1, 2 …), while less than `most_bytes` wait.

    In this order, because whoever takes does so too: a later one that filled the budget would wait for an earlier one
    that waits for the budget. At most one document per reader comes on top.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = 0
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def begin(self, ticket: int) -> None:
        """When it may be read. Raises Cancelled where nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (ticket == self._next and self._held < self._most_bytes))
            if self._closed:
                raise Cancelled
            self._next += 1
            self._changed.notify_all()

    def hold(self, count: int) -> None:
        """So many bytes wait."""
        with self._changed:
            self._held += count

    def give_back(self, count: int) -> None:
        with self._changed:
            self._held -= count
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
