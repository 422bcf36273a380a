"""The child's side of the reading sandbox: takes its limits, then reads one document after another."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import queue
import resource
import signal
import struct
import sys
import threading
from typing import IO, NoReturn

from ingest.readers.options import ReadOptions
from rag.errors import DocumentError
from rag.models import Parsed

_LENGTH = struct.Struct(">Q")
_MAX_FRAME_BYTES = 1024 * 1024 * 1024
_MAX_FILE_BYTES = 64 * 1024 * 1024  # readers write nothing but a spooled archive member now and then
_GRACE_SECONDS = 5.0  # after the parent's patience the child's own alarm rings, for the case that the parent is gone


def too_much_memory(name: str, limit: int) -> DocumentError:
    return DocumentError(
        "too_large",
        f"Reading {name} wanted more than {limit // 2**20} MiB of memory.",
        remedy="Split it, or raise ATTEST_READ_MEMORY_MB.",
    )


# ── frames ────────────────────────────────────────────────────────────────────────────────────


def send(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(_LENGTH.pack(len(frame)))
    pipe.write(frame)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """One frame; EOFError where the other side is gone."""
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    if length > _MAX_FRAME_BYTES:
        raise EOFError("a frame of an impossible length")
    return _exactly(pipe, length)


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError("the other side is gone")
    return data


# ── the child's side ──────────────────────────────────────────────────────────────────────────


def serve(memory_bytes: int) -> NoReturn:
    """Answers requests until the parent closes the pipe."""
    requests, replies = _own_pipes()
    _limit(memory_bytes)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    while True:
        timeout_seconds, (data, name, media_type, options) = pickle.loads(inbox.get())  # noqa: S301  # from our parent
        # With no Python handler the kernel ends us, however stuck native code is, and even where the parent is gone.
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds + _GRACE_SECONDS)
        result, well = _read(data, name, media_type, options, memory_bytes)
        del data
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(replies, pickle.dumps((result, well), protocol=5))


def _own_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes to the parent, moved away from where a library's stray print or read would meet them."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def _limit(memory_bytes: int) -> None:
    # RLIMIT_DATA counts what is allocated. RLIMIT_AS also counts libraries and reserved address space, some 700 MiB
    # with onnxruntime loaded, hence its margin.
    for kind, value in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_AS, memory_bytes + 2 * 2**30),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):  # a system without this limit; the time limit holds everywhere
            resource.setrlimit(kind, (ceiling, ceiling))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing too much is an error of that write, not a death
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the frames still work
        libc = ctypes.CDLL(None)
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS


def _listen(requests: IO[bytes], inbox: queue.SimpleQueue[bytes]) -> None:
    """Puts requests in the inbox; when the parent is gone there is nobody to read for, whatever is being read."""
    try:
        while True:
            inbox.put(receive(requests))
    except (EOFError, OSError):
        os._exit(0)


def _read(
    data: bytes, name: str, media_type: str | None, options: ReadOptions, memory_bytes: int
) -> tuple[Parsed | DocumentError, bool]:
    """The reading or what prevented it, and whether this process is fit for another one."""
    try:
        from ingest.readers.registry import read

        return read(data, name=name, media_type=media_type, options=options), True
    except DocumentError as error:
        return error, True
    except MemoryError:
        return too_much_memory(name, memory_bytes), False
    except RecursionError:
        return DocumentError("too_large", f"{name} is nested too deeply to be read."), True
    except Exception as error:  # noqa: BLE001  # hostile bytes make parsers raise anything; this edge reports it
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return DocumentError("failed", f"{name} could not be read: {reason}."), False


if __name__ == "__main__":
    serve(int(sys.argv[1]))
