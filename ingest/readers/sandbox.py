"""Reading untrusted bytes in a child process that has limits, can be killed, and never sees the data folder.

The parent speaks to the child over two private pipes, in frames of a length and a pickle. The child is started as
`python -m ingest.readers.sandbox`: not forked, because a fork copies the locks of a service's threads, and not by
multiprocessing, which would run the main program's file again.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pickle
import queue
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

from ingest.readers.options import ReadOptions
from rag.errors import DocumentError
from rag.models import Parsed

_LENGTH = struct.Struct(">Q")
_MAX_FILE_BYTES = 64 * 1024 * 1024  # readers write nothing but a spooled archive member now and then
_MAX_RESULT_BYTES = 1024 * 1024 * 1024
_OCR_SHARE = 0.8  # of the time for a document; the rest is for what comes before and after
_GRACE_SECONDS = 5.0  # the child's own alarm, for the case that the parent is gone
# What the child may know of our environment: no keys, no addresses.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "LANG", "TZ")


class Sandbox:
    """Reads documents in child processes. Thread-safe: up to `workers` at once, the others wait their turn.

    A child serves `recycle_after` documents, so that starting it costs little per document and its leaks are bounded.
    """

    def __init__(self, *, memory_bytes: int, timeout_seconds: float, workers: int = 1, recycle_after: int = 50) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_seconds = timeout_seconds
        self._recycle_after = recycle_after
        self._slots = threading.Semaphore(workers)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def read(self, data: bytes, *, name: str, media_type: str | None, options: ReadOptions) -> Parsed:
        """What the reader of its format makes of the bytes. Raises DocumentError, also where the child died of them."""
        with self._slots, self._child() as child:
            limited = replace(options, ocr_seconds=min(options.ocr_seconds, _OCR_SHARE * self._timeout_seconds))
            result = child.ask((data, name, media_type, limited), name=name, timeout_seconds=self._timeout_seconds)
        if isinstance(result, DocumentError):
            raise result
        return result

    def close(self) -> None:
        """Ends all children, busy ones too. Nothing can be read afterwards."""
        with self._lock:
            self._closed = True
            children = [*self._idle, *self._busy]
            self._idle = []
        for child in children:
            child.end()

    @contextlib.contextmanager
    def _child(self) -> Iterator[_Child]:
        """A child for one document; it is kept for the next one if it is still well."""
        with self._lock:
            if self._closed:
                raise RuntimeError("This sandbox is closed.")
            child = self._idle.pop() if self._idle else _Child(self._memory_bytes)
            self._busy.add(child)
        try:
            yield child
        finally:
            with self._lock:
                self._busy.discard(child)
                keep = child.well and child.served < self._recycle_after and not self._closed
                if keep:
                    self._idle.append(child)
            if not keep:
                child.end()


class _Child:
    """One child process and the two pipes to it."""

    def __init__(self, memory_bytes: int) -> None:
        self.served = 0
        self.well = True
        self._memory_bytes = memory_bytes
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child; its last line explains a death
        self._ended = False
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module, no shell
            [sys.executable, "-P", "-m", "ingest.readers.sandbox", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
            cwd="/",  # modules in the working folder must not be imported, and the data folder may be relative to it
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
        )

    def ask(self, request: object, *, name: str, timeout_seconds: float) -> Parsed | DocumentError:
        """The child's reply. Where none comes, a DocumentError that says why, and the child is not well any more."""
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            self._process.kill()

        timer = threading.Timer(timeout_seconds, give_up)
        timer.daemon = True
        timer.start()
        self.served += 1
        self.well = False
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            _send(self._process.stdin, pickle.dumps((timeout_seconds, request), protocol=5))
            reply = _receive(self._process.stdout)
        except (OSError, EOFError, ValueError):  # ValueError: closed from another thread
            return _timed_out(name, timeout_seconds) if timed_out.is_set() else self._death(name)
        finally:
            timer.cancel()
            timer.join()
        result, well = _trusted(reply)
        if result is None:
            return DocumentError("failed", f"The reading process sent something else than a reading of {name}.")
        self.well = well and not timed_out.is_set()
        return result

    def end(self) -> None:
        """Kills the process and everything it started."""
        self.well = False
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent bytes for a process that is gone
                    pipe.close()

    def _death(self, name: str) -> DocumentError:
        """Why there was no reply."""
        self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError, ValueError):  # closed from another thread: then there is nothing to tell
            self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 2000))
        said = self._last_words()
        if "MemoryError" in said or "bad_alloc" in said or "bad alloc" in said:
            return _too_much_memory(name, self._memory_bytes)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return DocumentError(
            "failed",
            f"The reading process died ({how}) while it read {name}{': ' + said if said else ''}.",
            remedy="Export the file again in another way; other documents are not affected.",
        )

    def _last_words(self) -> str:
        try:
            lines = self._stderr.read(2000).decode("utf-8", "replace").strip().splitlines()
        except (OSError, ValueError):  # closed from another thread: then there is nothing to tell
            return ""
        return lines[-1][:200] if lines else ""


class _Trusted(pickle.Unpickler):
    """Unpickles what a child may say and nothing else: a document that takes over a child must not reach the parent."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = (
            (module == "rag.models" and name in ("Parsed", "Block", "Page", "Problem"))
            or (module == "rag.errors" and name in ("_rebuild", "DocumentError"))
            or (module == "datetime" and name in ("date", "datetime", "timedelta", "timezone"))
        )
        if not allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a reading")
        return super().find_class(module, name)


def _trusted(reply: bytes) -> tuple[Parsed | DocumentError | None, bool]:
    """The reading in a child's reply, None where it is something else, and whether the child is well."""
    try:
        reading, well = _Trusted(io.BytesIO(reply)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError):
        return None, False
    return (reading if isinstance(reading, Parsed | DocumentError) else None), well is True


def _environment() -> dict[str, str]:
    """The child's environment. Read from ours only for what a Python needs to start."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    root = str(Path(__file__).resolve().parents[2])
    return {
        **passed,
        "PYTHONPATH": os.pathsep.join([root, *(str(Path(entry).resolve()) for entry in sys.path if entry)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Libraries with a thread pool take it at import; each thread's arena counts against the memory limit.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _timed_out(name: str, seconds: float) -> DocumentError:
    return DocumentError(
        "too_large",
        f"Reading {name} took longer than {seconds:g} s.",
        remedy="Split it, or raise ATTEST_READ_TIMEOUT_SECONDS.",
    )


def _too_much_memory(name: str, limit: int) -> DocumentError:
    return DocumentError(
        "too_large",
        f"Reading {name} wanted more than {limit // 2**20} MiB of memory.",
        remedy="Split it, or raise ATTEST_READ_MEMORY_MB.",
    )


# ── frames ────────────────────────────────────────────────────────────────────────────────────


def _send(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(_LENGTH.pack(len(frame)))
    pipe.write(frame)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """One frame; EOFError where the other side is gone."""
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    if length > _MAX_RESULT_BYTES:
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
        _send(replies, pickle.dumps((result, well), protocol=5))


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
            inbox.put(_receive(requests))
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
        return _too_much_memory(name, memory_bytes), False
    except RecursionError:
        return DocumentError("too_large", f"{name} is nested too deeply to be read."), True
    except Exception as error:  # noqa: BLE001  # hostile bytes make parsers raise anything; this edge reports it
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return DocumentError("failed", f"{name} could not be read: {reason}."), False


if __name__ == "__main__":
    serve(int(sys.argv[1]))
