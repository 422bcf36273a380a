"""How many questions are answered at once. Those beyond wait a little, and are then told to come again.

Without a limit every question that comes makes all the others slower, until none is answered in the time that its
asker has. What is turned away costs next to nothing, so a service that was flooded is itself again with the next
question.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from rag.errors import Unavailable

RETRY_AFTER_SECONDS: Final = 1
_WAITING = 4  # times as many as are at work may wait; more are turned away at once

OVERLOADED: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "description": "More questions than this service answers at once (`/problems/overloaded`), or a part of it is "
        "not there (`/problems/unavailable`). `Retry-After` says after how many seconds to ask again.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
        "content": {"application/problem+json": {}},
    }
}


class Overloaded(Unavailable):
    code = "overloaded"


class Admission:
    """So many questions at once, and so long a wait for one of their places. For one event loop."""

    def __init__(self, *, at_once: int, wait_seconds: float) -> None:
        self._at_once = at_once
        self._wait_seconds = wait_seconds
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0

    async def enter(self) -> None:
        """Whoever was let in must `leave`. Raises Overloaded."""
        if self._waiting >= _WAITING * self._at_once:
            raise self._overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise self._overloaded() from None
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        self._places.release()

    def _overloaded(self) -> Overloaded:
        return Overloaded(
            f"{self._at_once} questions are being answered, and more are waiting.",
            remedy="Ask again shortly. Where that happens often, a machine with more cores answers more of them.",
        )


async def _admitted(request: Request) -> AsyncIterator[None]:
    """Behind the body, so that one who sends slowly takes no place; until the last byte of a stream is sent."""
    admission: Admission = request.app.state.admission
    await admission.enter()
    try:
        yield
    finally:
        admission.leave()


Admitted = Annotated[None, Depends(_admitted)]
