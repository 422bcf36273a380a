"""A place for the bodies that were fetched while listing, until they are loaded: on disk, gone with its last holder."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable

from rag.errors import DocumentError, SourceError


class Spool:
    """One nameless temporary file. Thread-safe. A process that dies leaves nothing behind."""

    def __init__(self) -> None:
        self._descriptor, path = tempfile.mkstemp(prefix="attest-")
        os.unlink(path)  # noqa: PTH108 - the open file stays usable and cannot be left lying around
        weakref.finalize(self, os.close, self._descriptor)
        self._end = 0
        self._lock = threading.Lock()

    def put(self, data: bytes) -> Callable[[], bytes]:
        """Keeps the bytes; the function it returns reads them back, as often as needed."""
        with self._lock:
            start, self._end = self._end, self._end + len(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.pwrite(self._descriptor, view, start + len(data) - len(view)) :]
        except OSError as error:
            raise SourceError(
                f"A fetched page could not be kept in {tempfile.gettempdir()} ({error.strerror}).",
                remedy="Make room there, then sync again.",
            ) from error
        return lambda: self._read(start, len(data))

    def _read(self, start: int, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = os.pread(self._descriptor, length - len(data), start + len(data))
            if not part:
                raise DocumentError("failed", "A fetched page was lost before it could be read.", remedy="Sync again.")
            data += part
        return bytes(data)
