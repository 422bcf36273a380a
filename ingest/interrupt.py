"""Blocking calls that a cancel need not wait for.

A page that trickles in, a model that loads and a text of a hundred thousand lines cannot be interrupted from within
Python. They run in a thread; whoever wants to stop leaves it behind, and it ends by itself. So nothing that is called
in this way may write.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from rag.models import Item, Unlisted
from rag.ports import Source

_LOOK_SECONDS = 0.1
_LISTED_AHEAD = 64  # items that wait for whoever takes them: bounds the memory

T = TypeVar("T")


class Cancelled(Exception):  # not an error: somebody asked for it
    """The job was asked to stop; what was written stays, whole."""


def call(function: Callable[[], T], *, cancelled: Callable[[], bool]) -> T:
    """What the function returns or raises; or Cancelled as soon as somebody asks for that."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as problem:  # noqa: BLE001  # it belongs to whoever waits
            future.set_exception(problem)

    # Not a daemon: an interpreter that ends under a model that is loading crashes (measured with torch 2.13).
    threading.Thread(target=run, name="interruptible").start()
    while not wait([future], timeout=_LOOK_SECONDS).done:
        if cancelled():
            raise Cancelled
    return future.result()


class Listening:
    """A Source whose listing can be left at once, be its server ever so slow."""

    def __init__(self, source: Source, *, cancelled: Callable[[], bool]) -> None:
        self._source = source
        self._cancelled = cancelled

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
        """As the source lists them. Raises Cancelled as soon as somebody asks for that."""
        ahead = _Ahead(lambda: self._source.items(known))
        try:
            while True:
                found = ahead.take(_LOOK_SECONDS)
                if self._cancelled():
                    raise Cancelled
                if isinstance(found, _End):
                    if found.problem is not None:
                        raise found.problem
                    return
                if found is not None:
                    yield found
        finally:
            ahead.leave()


class _End:
    def __init__(self, problem: BaseException | None) -> None:
        self.problem = problem


class _Ahead(Generic[T]):
    """An iterator that is run by a thread of its own, a bounded number of values ahead of whoever takes them."""

    def __init__(self, make: Callable[[], Iterator[T]]) -> None:
        self._make = make
        self._values: queue.Queue[T | _End] = queue.Queue(_LISTED_AHEAD)
        self._left = threading.Event()
        # A daemon: it may wait for a server for half a minute after the command that wanted it has ended.
        threading.Thread(target=self._run, name="listing", daemon=True).start()

    def take(self, seconds: float) -> T | _End | None:
        """The next value, the end, or None where nothing came in this time."""
        try:
            return self._values.get(timeout=seconds)
        except queue.Empty:
            return None

    def leave(self) -> None:
        self._left.set()

    def _run(self) -> None:
        values: Any = None
        end = _End(None)
        try:
            values = self._make()
            for value in values:
                if not self._put(value):
                    break
        except BaseException as problem:  # noqa: BLE001  # it belongs to whoever takes
            end = _End(problem)
        finally:
            close = getattr(values, "close", None)  # in the thread that made it: its connections may be tied to it
            if close is not None:
                close()
        self._put(end)

    def _put(self, value: T | _End) -> bool:
        while not self._left.is_set():
            try:
                self._values.put(value, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
