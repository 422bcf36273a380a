"""A writing call that is sent twice is done once: the header `Idempotency-Key`.

After https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/: the first call's answer is kept for a
day and given again to its repetition; the same key on another call is a mistake; a repetition while the first is at
work has to wait. A call that ended in a 5xx, or whose process died at it, is forgotten and may be done again.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem, respond
from app.security import BodyTooLarge, body_too_large
from rag.catalog import idempotency
from rag.catalog.engine import Catalog
from rag.catalog.idempotency import Kept

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
_REPLAYED = "Idempotent-Replayed"
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ASKS = frozenset({"/v1/ask", "/v1/search"})  # they write nothing that a second call would write twice
_LONGEST_KEY = 255
_KEPT_HEADERS = ("content-type", "location")
# An answer to a writing call is small; only the plan of a dry run can be this large, and that may be made again.
_MOST_KEPT_BYTES = 4 * 1024 * 1024
_IN_MEMORY_BYTES = 256 * 1024  # of a body; more waits on disk
_PIECE_BYTES = 256 * 1024
_RETRY_AFTER_SECONDS = 1

_File = tempfile.SpooledTemporaryFile[bytes]


class Idempotency:
    """ASGI middleware, to stand inside the Guard: nobody is given an answer again who may not ask."""

    def __init__(self, app: ASGIApp, *, catalog: Catalog, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._calls = _Calls(catalog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_writing(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = headers.get(HEADER)
        if key is None:
            await self._app(scope, receive, send)
            return
        if not _is_usable(key):
            await respond(_unusable())(scope, receive, send)
            return
        # Above this size it goes to disk: two uploads of 100 MB must not be two hundred megabytes of memory.
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as body:
            try:
                fingerprint = await _read(scope, headers, receive, body)
            except BodyTooLarge:  # FastAPI's handlers stand further in
                await respond(body_too_large(self._max_body_bytes))(scope, receive, send)
                return
            if fingerprint is None:
                return  # the client went away before it had said all
            await self._once(key, fingerprint, _Again(body, receive), scope, send)

    async def _once(self, key: str, fingerprint: str, again: _Again, scope: Scope, send: Send) -> None:
        before = await run_in_threadpool(self._calls.begin, key, fingerprint)
        if before is not None:
            await _answer_from(before, fingerprint, scope, again, send)
            return
        answer = _Answer(send)
        ended = False
        try:
            await self._app(scope, again, answer.take)
            ended = answer.is_whole
        finally:
            if not ended:  # an exception, which the server makes a 500 of, or a client that went away
                self._calls.over(key)  # its row has no answer, and that is as good as forgotten
        if answer.is_worth_keeping:
            # Before it is sent: what a client has seen is what it will be told again.
            await run_in_threadpool(self._calls.finish, key, answer.status, answer.headers, answer.body)
        else:
            await run_in_threadpool(self._calls.forget, key)
        await answer.send()


class _Calls:
    """The calls that are at work in this process, and those that the catalog remembers.

    One process owns the catalog, so a call without an answer that is not at work here died with its process.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._at_work: dict[str, str] = {}  # key → fingerprint
        self._lock = threading.Lock()

    def begin(self, key: str, fingerprint: str) -> Kept | None:
        """What is known of an earlier call under this key; None makes this the first."""
        with self._lock:
            if key in self._at_work:
                return Kept(self._at_work[key], None, {}, b"")
            with self._catalog.write() as connection:
                before = idempotency.find(connection, key)
                if before is not None and before.status is not None:
                    return before
                idempotency.begin(connection, key, fingerprint=fingerprint)
            self._at_work[key] = fingerprint
            return None

    def finish(self, key: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
        try:
            with self._catalog.write() as connection:
                idempotency.finish(connection, key, status=status, headers=headers, body=body)
        except Exception:  # e.g. the disk is full: the call itself was done, and its answer must reach the client
            log.exception("The answer to a call could not be kept for its repetition")
        finally:
            self.over(key)

    def forget(self, key: str) -> None:
        try:
            with self._catalog.write() as connection:
                idempotency.forget(connection, key)
        except Exception:  # without an answer it counts as forgotten anyway
            log.exception("A call that failed could not be forgotten")
        finally:
            self.over(key)

    def over(self, key: str) -> None:
        with self._lock:
            self._at_work.pop(key, None)


class _Again:
    """The body once more, for whoever stands further in, and then what the client does."""

    def __init__(self, body: _File, receive: Receive) -> None:
        self._body = body
        self._receive = receive
        self._given = False
        body.seek(0)

    async def __call__(self) -> Message:
        if self._given:
            return await self._receive()
        piece = await run_in_threadpool(self._body.read, _PIECE_BYTES)
        self._given = len(piece) < _PIECE_BYTES
        return {"type": "http.request", "body": piece, "more_body": not self._given}


class _Answer:
    """A response that is held back until it is whole. One that grows too large goes out as it comes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self._passed_on = False
        self.is_whole = False

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._passed_on:
            await self._send(message)
        else:
            piece = message.get("body", b"")
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > _MOST_KEPT_BYTES:
                self._passed_on = True
                await self._send(self._start)
                await self._send({**message, "body": self.body})
        self.is_whole = not message.get("more_body", False)

    @property
    def status(self) -> int:
        return int(self._start["status"])

    @property
    def headers(self) -> dict[str, str]:
        headers = Headers(raw=self._start["headers"])
        return {name: headers[name] for name in _KEPT_HEADERS if name in headers}

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)

    @property
    def is_worth_keeping(self) -> bool:
        return self.is_whole and not self._passed_on and self.status < 500

    async def send(self) -> None:
        if not self._passed_on and self._start:
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": self.body})


async def _answer_from(before: Kept, fingerprint: str, scope: Scope, receive: Receive, send: Send) -> None:
    if before.fingerprint != fingerprint:
        await respond(_another_call())(scope, receive, send)
    elif before.status is None:
        await respond(_at_work(), {"Retry-After": str(_RETRY_AFTER_SECONDS)})(scope, receive, send)
    else:
        headers = {**before.headers, _REPLAYED.lower(): "true"}
        if before.status != 204:  # No Content, and so without its length
            headers["content-length"] = str(len(before.body))
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": before.status, "headers": raw})
        await send({"type": "http.response.body", "body": before.body})


async def _read(scope: Scope, headers: Headers, receive: Receive, body: _File) -> str | None:
    """The whole body into the file, and the fingerprint of the call; None where the client went away."""
    content_type, boundary = _form(headers.get("content-type", ""))
    said = (scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1"), content_type)
    digest = _Digest(boundary)
    for word in said:
        digest.head(word)
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        piece = message.get("body", b"")
        digest.add(piece)
        size += len(piece)
        if size > _IN_MEMORY_BYTES:
            await run_in_threadpool(body.write, piece)
        else:
            body.write(piece)
        if not message.get("more_body", False):
            return digest.hex()


class _Digest:
    """SHA-256 of a call. A form is the same with another boundary, which every client draws anew each time."""

    def __init__(self, boundary: bytes | None) -> None:
        self._hash = hashlib.sha256()
        self._mark = b"--" + boundary if boundary else b""
        self._rest = b""

    def head(self, word: str) -> None:
        data = word.encode("utf-8", "surrogatepass")
        self._hash.update(b"%d:" % len(data) + data)

    def add(self, piece: bytes) -> None:
        if not self._mark:
            self._hash.update(piece)
            return
        *parts, last = (self._rest + piece).split(self._mark)
        for part in parts:
            self._hash.update(part + b"--")
        cut = max(0, len(last) - len(self._mark) + 1)  # the beginning of a mark may stand at the end
        self._hash.update(last[:cut])
        self._rest = last[cut:]

    def hex(self) -> str:
        self._hash.update(self._rest)
        return self._hash.hexdigest()


def _form(content_type: str) -> tuple[str, bytes | None]:
    """A form's type without its boundary, and the boundary; any other type as it is."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    if kind.lower() != "multipart/form-data":
        return content_type, None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "boundary":
            return kind.lower(), value.strip().strip('"').encode("latin-1", "replace") or None
    return content_type, None


def _is_writing(method: str, path: str) -> bool:
    return method in _WRITES and path.startswith("/v1/") and path not in _ASKS


def _is_usable(key: str) -> bool:
    return 1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable() and bool(key.strip())


# ── problems, and what the reference says ─────────────────────────────────────────────────────


def _unusable() -> dict[str, Any]:
    return problem(
        422,
        "idempotency-key-unusable",
        "Cannot be used",
        f"The {HEADER} of this call is not 1 to {_LONGEST_KEY} printable characters of ASCII.",
        remedy="Send a fresh UUID for each new call, and the same one when you repeat it.",
    )


def _another_call() -> dict[str, Any]:
    return problem(
        422,
        "idempotency-key-reused",
        "Cannot be used",
        f"Another call was made under this {HEADER}, with another method, path or body.",
        remedy="Send a fresh key for each new call; a key is free again after 24 hours.",
    )


def _at_work() -> dict[str, Any]:
    return problem(
        409,
        "idempotency-key-at-work",
        "In conflict with what is going on",
        f"The first call under this {HEADER} is still at work.",
        remedy=f"Repeat it in {_RETRY_AFTER_SECONDS} s, and you are given its answer.",
    )


def document_keys(openapi: dict[str, Any]) -> None:
    """Adds the header to every writing call of an OpenAPI document."""
    parameter = {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": "Makes a repetition safe: the same call under the same key within 24 hours is not done again; "
        f"it is answered as the first time, with `{_REPLAYED}: true`. Another call under it is a 422, "
        "a repetition while the first is at work a 409.",
        "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST_KEY},
    }
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            if not _is_writing(method.upper(), path):
                continue
            parameters = operation.setdefault("parameters", [])
            if parameter not in parameters:  # FastAPI keeps the document, and this comes by at each look at it
                parameters.append(parameter)
