"""Reading untrusted bytes in a child process that has limits, can be killed, and never sees the data folder.

The parent speaks to the child over two private pipes, in frames of a length and a pickle. The child is started as
`python -m ingest.readers.sandbox_child`: not forked, because a fork copies the locks of a service's threads, and not by
multiprocessing, which would run the main program's file again.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.readers.options import ReadOptions
from ingest.readers.sandbox_child import receive, send, too_much_memory
from rag.errors import DocumentError, Unavailable
from rag.models import Parsed

_PATIENCE_SHARE = 0.8  # of the time for a document; the rest is for what comes after its last page
_LOOK_SECONDS = 0.1  # whether anybody still wants what is being read
_SETTLED = 50  # documents; after them a child that has grown large goes
_LARGE_SHARE = 0.25  # of the memory that a document may take
# What the child may know of our environment: no keys, no addresses.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT", "LANG", "TZ")


class Sandbox:
    """Reads documents in child processes. Thread-safe: up to `workers` at once, the others wait their turn.

    A child serves `recycle_after` documents, or fewer where it has grown large, so that starting it (0.1 s of CPU)
    costs little per document and its leaks are bounded.
    """

    def __init__(
        self, *, memory_bytes: int, timeout_seconds: float, workers: int = 1, recycle_after: int = 500
    ) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_seconds = timeout_seconds
        self._recycle_after = recycle_after
        self._slots = threading.Semaphore(workers)
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._lock = threading.Lock()
        self._closed = False

    def read(
        self,
        data: bytes,
        *,
        name: str,
        media_type: str | None,
        options: ReadOptions,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Parsed:
        """What the reader of its format makes of the bytes. Raises DocumentError, also where the child died of them.

        Raises Unavailable as soon as `stopped` says that nobody wants it any more: a child at work is ended, because
        the next job would wait for it otherwise.
        """
        with self._slot(stopped), self._child() as child:
            patience = min(options.patience_seconds, _PATIENCE_SHARE * self._timeout_seconds)
            limited = replace(options, patience_seconds=patience)
            result = child.ask(
                (data, name, media_type, limited), name=name, timeout_seconds=self._timeout_seconds, stopped=stopped
            )
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
    def _slot(self, stopped: Callable[[], bool]) -> Iterator[None]:
        while not self._slots.acquire(timeout=_LOOK_SECONDS):
            if stopped():
                raise _stopped()
        try:
            if stopped():
                raise _stopped()
            yield
        finally:
            self._slots.release()

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
                keep = child.well and not child.is_worn(self._recycle_after) and not self._closed
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
            [sys.executable, "-P", "-m", "ingest.readers.sandbox_child", str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
            cwd="/",  # modules in the working folder must not be imported, and the data folder may be relative to it
            start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
        )

    def is_worn(self, recycle_after: int) -> bool:
        """Whether it has served long enough: so many documents, or some and what they left behind is large."""
        if self.served < min(recycle_after, _SETTLED):
            return False
        if self.served >= recycle_after:
            return True
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text("ascii").split()[1])
        except (OSError, ValueError, IndexError):  # it has ended, or this is not Linux: then nobody knows
            return True
        return pages * os.sysconf("SC_PAGE_SIZE") > _LARGE_SHARE * self._memory_bytes

    def ask(
        self, request: object, *, name: str, timeout_seconds: float, stopped: Callable[[], bool]
    ) -> Parsed | DocumentError:
        """The child's reply. Where none comes, a DocumentError that says why, and the child is not well any more."""
        answered, unwanted, timed_out = threading.Event(), threading.Event(), threading.Event()

        def watch() -> None:
            end = time.monotonic() + timeout_seconds
            while not answered.wait(max(0.0, min(_LOOK_SECONDS, end - time.monotonic()))):
                if stopped() or time.monotonic() >= end:
                    (unwanted if stopped() else timed_out).set()
                    self._process.kill()
                    return

        watcher = threading.Thread(target=watch, name="watch", daemon=True)
        watcher.start()
        self.served += 1
        self.well = False
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            send(self._process.stdin, pickle.dumps((timeout_seconds, request), protocol=5))
            reply = receive(self._process.stdout)
        except (OSError, EOFError, ValueError):  # ValueError: closed from another thread
            if unwanted.is_set():
                raise _stopped() from None
            return _timed_out(name, timeout_seconds) if timed_out.is_set() else self._death(name)
        finally:
            answered.set()
            watcher.join()
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
            return too_much_memory(name, self._memory_bytes)
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


def _stopped() -> Unavailable:
    return Unavailable("The job was stopped.")


def _timed_out(name: str, seconds: float) -> DocumentError:
    return DocumentError(
        "too_large",
        f"Reading {name} took longer than {seconds:g} s.",
        remedy="Split it, or raise ATTEST_READ_TIMEOUT_SECONDS.",
    )
