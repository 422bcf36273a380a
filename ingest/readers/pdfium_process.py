"""PDFium in a process of its own: what it aborts, hangs or fills its memory on costs one page of one document.

The process is a fork of the one that reads the document, which is a child with limits already (`sandbox`) and runs one
thread of Python at that moment: starting another interpreter for every file would cost more than pypdf does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import marshal
import math
import os
import resource
import select
import signal
import struct
import time
import warnings
from collections.abc import Generator, Iterator
from dataclasses import astuple

from ingest.readers import pdfium
from ingest.readers.lines import Line

_LENGTH = struct.Struct(">I")
_PAGE_SECONDS = 15.0  # usual pages take milliseconds
_GROWTH_BYTES = 512 * 2**20  # beyond what the process holds when it is forked; 300 pages of filings take 40 MiB
_MOST_DEATHS = 3  # of one document: then pypdf reads what is left
_PR_SET_PDEATHSIG = 1


def read_pages(
    data: bytes, *, count: int, total: int, password: str, deadline: float
) -> Generator[list[Line] | None, None, None]:
    """The lines of the first `count` of `total` pages, None for each that PDFium cannot read or should not.

    `deadline` is a value of `time.monotonic()`.
    """
    index = deaths = 0
    available = hasattr(os, "fork") and pdfium.load()
    while available and index < count and deaths < _MOST_DEATHS:
        process = _Process(data, password, range(index, count), total)
        try:
            for lines in process.pages(deadline):
                yield lines
                index += 1
        finally:
            process.end()
        if index < count:  # it died of this page
            deaths += 1
            index += 1
            yield None
    yield from (None for _ in range(index, count))


class _Process:
    """A fork that reads these pages, and the pipe from it."""

    def __init__(self, data: bytes, password: str, pages: range, total: int) -> None:
        self._left = len(pages)
        self._pipe, theirs = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns where other threads run: ours waits for the parent's next request, and holds no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._id = os.fork()
        if self._id == 0:
            try:
                _serve(data, password, pages, total, theirs)
            finally:
                os._exit(1)  # whatever happened, this is not the process that goes on
        os.close(theirs)

    def pages(self, deadline: float) -> Iterator[list[Line] | None]:
        """Page by page; ends where nothing more comes."""
        received = bytearray()
        while self._left:
            while len(received) < _LENGTH.size or len(received) < _LENGTH.size + _LENGTH.unpack_from(received)[0]:
                patience = min(_PAGE_SECONDS, deadline - time.monotonic())
                if patience <= 0 or not select.select([self._pipe], [], [], patience)[0]:
                    return
                more = os.read(self._pipe, 1 << 16)
                if not more:
                    return
                received += more
            end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
            # It is as much at the mercy of the document as this process is; neither is trusted by the service.
            rows = marshal.loads(received[_LENGTH.size : end])  # noqa: S302
            del received[:end]
            self._left -= 1
            yield None if rows is None else [Line(*row) for row in rows]

    def end(self) -> None:
        os.close(self._pipe)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self._id, signal.SIGKILL)
        os.waitpid(self._id, 0)


def _serve(data: bytes, password: str, pages: range, total: int, pipe: int) -> None:
    """The fork's side: its limits, then one frame per page."""
    gc.disable()
    os.closerange(3, pipe)
    os.closerange(pipe + 1, 1024)
    _limit()
    try:
        document: pdfium.Document | None = pdfium.Document(data, password=password)
    except ValueError:
        document = None
    if document is not None and len(document) != total:
        document = None  # it numbers the pages of a damaged file in another way
    with os.fdopen(pipe, "wb") as frames:
        for index in pages:
            lines = document.page_lines(index) if document else None
            frame = marshal.dumps(None if lines is None else [astuple(line) for line in lines])
            frames.write(_LENGTH.pack(len(frame)) + frame)
            frames.flush()
    os._exit(0)


def _limit() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as sizes:  # noqa: PTH123  # no file of ours
            held = int(sizes.read().split()[5]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        room = math.inf if soft == resource.RLIM_INFINITY else (soft - held) // 2
        resource.setrlimit(resource.RLIMIT_DATA, (int(held + min(_GROWTH_BYTES, room)), hard))
