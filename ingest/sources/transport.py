"""The one way to a web server: every address is checked and then connected to, at each redirect; all has a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.sources.addresses import check_url, origin, shortened
from ingest.sources.guard import Clock, GuardedBackend
from ingest.sources.headers import checked_headers, conditions, header_texts, readable, retry_after_seconds
from ingest.sources.unpack import Broken, unpacker
from rag.errors import DocumentError, NotAllowed

if TYPE_CHECKING:
    import httpcore
    import httpx

USER_AGENT = "Attest/0.1 (+knowledge-base reader)"
MAX_REDIRECTS = 5
MAX_RETRY_WAIT_SECONDS = 30.0
_USUAL_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "text/html,application/xhtml+xml,application/pdf;q=0.9,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate",  # what can be counted while it is unpacked
}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WORTH_RETRYING = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Page:
    """What a server answered. `data` is filled for status 200 only; header names are in lower case."""

    url: str  # the final one
    status: int
    headers: Mapping[str, str]
    media_type: str | None  # "text/html", without parameters
    data: bytes
    redirected_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to wait for the next bytes, and for one request in all."""

    connect: float = 5.0
    read: float = 15.0
    total: float = 60.0


class Transport:
    """Fetches pages, one at a time, politely. May be called from several threads; they queue.

    `headers` (cookies and keys among them) go to `trusted_hosts` only, by default to the host that was asked first,
    and never from https down to http. No environment variable is read: no proxy, no netrc.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        max_bytes: int,
        delay_seconds: float,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        trusted_hosts: Collection[str] | None = None,
        timeouts: Timeouts | None = None,
        retries: int = 2,
        retry_seconds: float = 1.0,
    ) -> None:
        import httpcore
        import httpx

        self._allow_private = allow_private
        self._max_bytes = max_bytes
        self._delay_seconds = delay_seconds
        self._headers = checked_headers(headers or {}, cookies or {})
        self._trusted_hosts = trusted_hosts
        self._timeouts = timeouts or Timeouts()
        self._retries = retries
        self._retry_seconds = retry_seconds
        self._delays: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._clock = Clock()
        self._lock = threading.RLock()  # re-entrant: `on_redirect` may fetch a robots.txt
        certificates = httpx.create_ssl_context(trust_env=False)
        certificates.load_default_certs()  # beside certifi's: a company's own authority is often installed there
        self._pool = httpcore.ConnectionPool(
            ssl_context=certificates,
            network_backend=GuardedBackend(self._clock, allow_private=allow_private),  # type: ignore[arg-type]  # same methods
            max_connections=4,
            keepalive_expiry=10.0,
            retries=0,
        )

    def get(
        self,
        url: str,
        *,
        etag: str | None = None,
        last_modified: str | None = None,
        any_type: bool = False,
        on_redirect: Callable[[str], None] | None = None,
    ) -> Page:
        """What the server answers in the end, whatever its status.

        `on_redirect` is called with each further URL before it is asked, and may raise. Raises NotAllowed for an
        address that may not be read, DocumentError "too_large", "unsupported" (unless `any_type`) or "failed".
        """
        first = hop = check_url(url, allow_private=self._allow_private)
        asked_before = conditions(etag, last_modified)
        redirected_from: list[str] = []
        with self._lock:
            while True:
                own = self._headers if self._may_see_headers(first, hop) else {}
                page = self._persist(hop, {**own, **asked_before}, any_type=any_type)
                target = page.headers.get("location")
                if page.status not in _REDIRECTS or not target:
                    return _redirected(page, redirected_from)
                redirected_from.append(page.url)
                if len(redirected_from) > MAX_REDIRECTS:
                    raise DocumentError(
                        "failed",
                        f"{shortened(url)} redirects more than {MAX_REDIRECTS} times.",
                        remedy="Check the site.",
                    )
                hop = self._next_hop(hop, target)
                if on_redirect is not None:
                    on_redirect(str(hop))

    def slow_down(self, url: str, seconds: float) -> None:
        """From now on at least so many seconds lie between two requests to this site."""
        self._delays[origin(url)] = max(seconds, self._delay_seconds)

    def close(self) -> None:
        """Hangs up. A later `get` connects anew."""
        with self._lock:
            self._pool.close()

    def _next_hop(self, hop: httpx.URL, target: str) -> httpx.URL:
        import httpx

        try:
            joined = str(hop.join(target).copy_with(fragment=None))
        except (httpx.InvalidURL, ValueError) as error:
            raise DocumentError("failed", f"{shortened(str(hop))} redirects to something that is no URL.") from error
        following = check_url(joined, allow_private=self._allow_private)
        if hop.scheme == "https" and following.scheme == "http":
            raise NotAllowed(
                f"{shortened(str(hop))} redirects from https to unprotected http.",
                remedy="Give the http address itself, if it can be trusted.",
            )
        return following

    def _may_see_headers(self, first: httpx.URL, hop: httpx.URL) -> bool:
        if first.scheme == "https" and hop.scheme == "http":
            return False
        if self._trusted_hosts is not None:
            return hop.host in self._trusted_hosts
        return hop.host == first.host and (hop.port == first.port or hop.port is None)

    def _persist(self, url: httpx.URL, headers: Mapping[str, str], *, any_type: bool) -> Page:
        """The answer, asked for again a few times where that may help."""
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            wait = self._retry_seconds * 2**attempt
            try:
                page = self._ask(url, headers, any_type=any_type)
            except _Interrupted as error:
                if last:
                    raise DocumentError("failed", error.detail, remedy="Try again later, or check the site.") from error
            else:
                wait = max(wait, retry_after_seconds(page.headers.get("retry-after")))
                if page.status not in _WORTH_RETRYING or last or wait > MAX_RETRY_WAIT_SECONDS:
                    return page
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _ask(self, url: httpx.URL, headers: Mapping[str, str], *, any_type: bool) -> Page:
        import httpcore

        self._wait_turn(str(url))
        seconds = self._timeouts
        self._clock.start(seconds.total)
        given = {name.lower() for name in headers}
        usual = {name: value for name, value in _USUAL_HEADERS.items() if name.lower() not in given}
        request_headers = {"Host": url.netloc.decode("ascii"), **usual, **headers}
        try:
            with self._pool.stream(
                "GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=list(request_headers.items()),
                extensions={"timeout": {"connect": seconds.connect, "read": seconds.read, "write": seconds.read}},
            ) as response:
                return self._page(str(url), response, any_type=any_type)
        except httpcore.TimeoutException as error:
            raise _Interrupted(f"{shortened(str(url))} did not answer in time.") from error
        except httpcore.ProtocolError as error:
            raise _Interrupted(
                f"{shortened(str(url))} broke off or sent something that is no answer ({error})."
            ) from error
        except httpcore.NetworkError as error:
            raise _Interrupted(f"{shortened(str(url))} could not be reached ({error}).") from error

    def _wait_turn(self, url: str) -> None:
        site = origin(url)
        pause = self._delays.get(site, self._delay_seconds)
        wait = self._asked.get(site, float("-inf")) + pause - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._asked[site] = time.monotonic()

    def _page(self, url: str, response: httpcore.Response, *, any_type: bool) -> Page:
        headers = header_texts(response.headers)
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower() or None
        data = b""
        if response.status == 200:
            if not any_type and not readable(media_type, url):
                raise DocumentError(
                    "unsupported", f"{shortened(url)} is {media_type}, which is not read.", remedy="Leave it out."
                )
            data = self._body(url, headers, response.iter_stream())
        return Page(url=url, status=response.status, headers=headers, media_type=media_type, data=data)

    def _body(self, url: str, headers: Mapping[str, str], parts: Iterable[bytes]) -> bytes:
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large(url)
        encoding = headers.get("content-encoding", "").strip().lower()
        unpack = unpacker(encoding)
        if unpack is None:
            raise DocumentError(
                "failed",
                f"{shortened(url)} is packed as {encoding!r}, which was not asked for.",
                remedy="Check the site.",
            )
        data = bytearray()
        received = 0
        for part in parts:
            self._clock.limit(None)
            received += len(part)
            try:
                data += unpack.feed(part, self._max_bytes - len(data) + 1)
            except Broken as error:
                raise _Interrupted(f"{shortened(url)} cannot be unpacked ({error}).") from error
            if max(received, len(data)) > self._max_bytes:
                raise self._too_large(url)
        if not unpack.complete:
            raise _Interrupted(f"{shortened(url)} broke off in the middle.")
        return bytes(data)

    def _too_large(self, url: str) -> DocumentError:
        return DocumentError(
            "too_large",
            f"{shortened(url)} is larger than {self._max_bytes / 2**20:g} MiB.",
            remedy="Raise ATTEST_WEB_MAX_MB, or leave it out.",
        )


class _Interrupted(Exception):
    """Something that may go better the next time."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def _redirected(page: Page, redirected_from: list[str]) -> Page:
    return Page(page.url, page.status, page.headers, page.media_type, page.data, tuple(redirected_from))
