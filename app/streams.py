"""Server-sent events from a blocking generator."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import anyio
from fastapi.responses import StreamingResponse

from app.errors import problem_of
from rag.errors import AttestError

# Long streams have threads of their own: forty slow readers must not keep /v1/search waiting for a thread.
_STREAMS = anyio.CapacityLimiter(64)
# Proxies cut streams that are silent for a minute, and a model on a laptop may read its prompt for longer.
_HEARTBEAT_SECONDS = 15.0
_HEARTBEAT = ": still at work\n\n"
_END = object()

Frame = tuple[str, Any]  # event name, JSON-able data


def event_stream(frames: Generator[Frame | None, None, None]) -> StreamingResponse:
    """Frames as server-sent events. None is a step without an event: a generator that waits for something makes one
    now and then, because one that is running cannot be closed.

    The first frame is made before the response begins, so that what fails until then has a real status. A client that
    goes away closes the generator, and with it the work behind it, at the generator's next step (measured: 0.15 s with
    an async wrapper; a plain generator's `finally` had not run after 2 s).
    """
    first = next(frames, None)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_sent(first, frames), media_type="text/event-stream", headers=headers)


async def _sent(first: Frame | None, frames: Generator[Frame | None, None, None]) -> AsyncIterator[str]:
    step: asyncio.Task[Any] | None = None
    sent_at = time.monotonic()
    try:
        if first is not None:
            yield _framed(*first)
        while True:
            step = asyncio.create_task(anyio.to_thread.run_sync(_next, frames, limiter=_STREAMS))
            while not (await asyncio.wait({step}, timeout=_HEARTBEAT_SECONDS))[0]:
                yield _HEARTBEAT
                sent_at = time.monotonic()
            frame, step = step.result(), None
            if frame is _END:
                return
            if frame is not None:
                yield _framed(*frame)
            elif time.monotonic() - sent_at >= _HEARTBEAT_SECONDS:
                yield _HEARTBEAT
            else:
                continue
            sent_at = time.monotonic()
    finally:
        with anyio.CancelScope(shield=True):
            if step is not None:  # a generator that is running cannot be closed: it comes to its next step first
                await asyncio.wait({step})
            await anyio.to_thread.run_sync(frames.close, limiter=_STREAMS)


def _next(frames: Iterator[Frame | None]) -> Any:
    try:
        return next(frames, _END)
    except AttestError as error:
        return "error", problem_of(error)  # the generator has ended with it, so the next step is the end


def _framed(event: str, data: Any) -> str:
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
