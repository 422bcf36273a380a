"""The network as the transport sees it: a host is resolved once, checked, and connected to at the checked address."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ingest.sources.addresses import resolve

if TYPE_CHECKING:
    import httpcore


class Clock:
    """When the present request must be over. A server that sends a byte now and then does not stretch it."""

    def __init__(self) -> None:
        self._ends_at = 0.0

    def start(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    def limit(self, timeout_seconds: float | None) -> float:
        import httpcore

        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for this request is over")
        return left if timeout_seconds is None else min(left, timeout_seconds)


class GuardedBackend:
    """httpcore's way to the network, with a check between resolving and connecting.

    httpcore keeps the host name for TLS and asks here for a connection only: what is checked is what is connected to.
    """

    def __init__(self, clock: Clock, *, allow_private: bool) -> None:
        import httpcore

        self._inner = httpcore.SyncBackend()
        self._clock = clock
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> _GuardedStream:
        import httpcore

        error: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in resolve(host, port, allow_private=self._allow_private):
            try:
                stream = self._inner.connect_tcp(
                    address, port, self._clock.limit(timeout), local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
            else:
                return _GuardedStream(stream, self._clock)
        raise error or httpcore.ConnectError(f"no address of {host} answered")


class _GuardedStream:
    def __init__(self, inner: httpcore.NetworkStream, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._clock.limit(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._clock.limit(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _GuardedStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._clock.limit(timeout))
        return _GuardedStream(inner, self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
