"""What stands before every route: who may ask, from where, and how much at once."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import problem, respond

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Guard:
    """ASGI middleware. Host and Origin are checked even on loopback, because any web page can send a browser there
    (DNS rebinding); a body is counted as it comes, whatever its Content-Length claims."""

    def __init__(
        self, app: ASGIApp, *, keys: Sequence[str], key_needed: bool, hosts: Iterable[str], max_body_bytes: int
    ) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._key_needed = key_needed
        self._hosts = _LOOPBACK | {host.strip().lower() for host in hosts if host.strip()}
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._wrong_host(headers) or self._wrong_key(scope["path"], headers) or self._too_large(headers)
        if refusal is not None:
            extra = {"WWW-Authenticate": "Bearer"} if refusal["status"] == 401 else None
            await respond(refusal, extra)(scope, receive, send)
            return
        await self._app(scope, _Counted(receive, self._max_body_bytes), send)

    def _wrong_host(self, headers: Headers) -> dict[str, object] | None:
        if "*" in self._hosts:
            return None
        named = [headers.get("host", "")]
        origin = headers.get("origin")
        if origin is not None:
            named.append(urlsplit(origin).netloc or origin)
        for host in named:
            if _without_port(host).lower() not in self._hosts:
                return problem(
                    403,
                    "host-not-allowed",
                    "Not allowed",
                    f"This service does not answer to the name “{host[:100]}”.",
                    remedy="Add it to ATTEST_ALLOWED_HOSTS if it is yours.",
                )
        return None

    def _wrong_key(self, path: str, headers: Headers) -> dict[str, object] | None:
        if not self._key_needed or not path.startswith("/v1"):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and any(secrets.compare_digest(given.encode(), key) for key in self._keys):
            return None
        return problem(
            401,
            "key-needed",
            "Who is asking?",
            "This call needs the admin key, and the request carries none that fits.",
            remedy="Send it as “Authorization: Bearer KEY”; the key is ATTEST_ADMIN_KEY of the service.",
        )

    def _too_large(self, headers: Headers) -> dict[str, object] | None:
        length = headers.get("content-length", "")
        return body_too_large(self._max_body_bytes) if length.isdigit() and int(length) > self._max_body_bytes else None


class BodyTooLarge(HTTPException):
    """The body went on past the limit. An HTTPException, because FastAPI makes a 400 of any other while it reads."""

    def __init__(self) -> None:
        super().__init__(413)


class _Counted:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._count = 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        if self._count > self._limit:
            raise BodyTooLarge
        return message


def body_too_large(limit: int) -> dict[str, object]:
    return problem(
        413,
        "payload-too-large",
        "Too large",
        f"A request may have {limit // (1024 * 1024)} MiB, and this one has more.",
        remedy="Raise ATTEST_MAX_UPLOAD_MB, or put the file into a folder source.",
    )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
