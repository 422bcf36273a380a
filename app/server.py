"""The service behind a socket: in the foreground for `attest serve`, in a thread for a command that finds none."""

from __future__ import annotations

import errno
import gc
import logging
import socket
import threading
from collections.abc import Callable

import uvicorn

from app.main import create_app
from app.service import Service
from rag.errors import InvalidInput, NotAllowed, Unavailable

log = logging.getLogger(__name__)

_GRACE_SECONDS = 10  # that a request in flight may still take when the service stops
_KEEP_ALIVE_SECONDS = 15
_MOST_CONNECTIONS = 512
_LONGEST_HEADERS_BYTES = 32 * 1024
_THREAD_START_SECONDS = 60.0


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to this address; port 0 takes any that is free."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port left a second ago can be had again
    try:
        listener.bind((host, port))
    except OSError as problem:
        listener.close()
        raise _cannot_listen(host, port, problem) from problem
    return listener


def _cannot_listen(host: str, port: int, problem: OSError) -> InvalidInput | NotAllowed | Unavailable:
    if problem.errno == errno.EADDRINUSE:
        return Unavailable(
            f"Port {port} of {host} is in use by another program.",
            remedy=f"Stop that one, or choose another port: attest serve --port {port + 1 if port < 65535 else 0}.",
        )
    if problem.errno == errno.EACCES:
        return NotAllowed(f"This user may not listen on port {port}.", remedy="Choose a port above 1023.")
    return InvalidInput(
        f"Nobody can listen on {host}, port {port}: {problem.strerror or problem}.",
        remedy="Use an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them.",
    )


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine reaches the socket: a listener on every address is at home on loopback."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """One process, one event loop. While it listens, the owner's note in the data folder says where."""

    def __init__(self, service: Service, listener: socket.socket, *, listening: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            create_app(service),
            http="h11",  # the one with a limit on the size of headers
            ws="none",
            lifespan="on",
            log_config=None,  # our own logging is in force
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            h11_max_incomplete_event_size=_LONGEST_HEADERS_BYTES,
        )
        super().__init__(config)
        self.url = url_of(listener)
        self._service = service
        self._listener = listener
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # what was imported stays: no collection looks at it again
        self._service.owner.announce(self.url, token=self._service.token)
        self._listening(self.url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever looks now waits for the folder instead of knocking at a door that is being closed.
        self._service.owner.announce(None, token=None)
        await super().shutdown(sockets)

    def serve_until_stopped(self) -> None:
        """Returns after a signal or `should_exit`, the service closed. Raises Unavailable where it cannot start."""
        try:
            self.run(sockets=[self._listener])
        except SystemExit as end:  # how uvicorn says that the application did not start
            raise Unavailable("The service could not start.", remedy="The log says why.") from end
        finally:
            self._listener.close()
            self._service.close()


class Background:
    """A service in a thread of this process, from construction to `close`. By default on any free port of loopback."""

    def __init__(self, service: Service, listener: socket.socket | None = None) -> None:
        self._started = threading.Event()
        # Waited for instead of joining the thread: on Python 3.11 a join that Ctrl-C interrupts takes the thread for
        # ended, and the next one returns at once (Thread._wait_for_tstate_lock), before the service is closed.
        self._ended = threading.Event()
        self._problem: BaseException | None = None
        try:
            listener = listener or listen("127.0.0.1", 0)
            self._server = Server(service, listener, listening=lambda _url: self._started.set())
        except BaseException:
            service.close()
            raise
        self.url = self._server.url
        self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self._thread.start()
        if not self._started.wait(_THREAD_START_SECONDS) or self._problem is not None:
            self.close()
            raise self._problem or Unavailable("The service did not start in a minute.")

    def _serve(self) -> None:
        try:
            self._server.serve_until_stopped()
        except Exception as problem:  # a thread has nobody above it: the constructor raises this
            if self._started.is_set():
                log.exception("The service did not end well")
            self._problem = problem
        finally:
            self._started.set()
            self._ended.set()

    def wait(self) -> None:
        """Until it stops by itself, or somebody interrupts."""
        self._ended.wait()

    def close(self) -> None:
        """Let requests in flight end for a while, then close the service. Unfinished jobs go on at the next start."""
        self._server.should_exit = True
        self._ended.wait()
