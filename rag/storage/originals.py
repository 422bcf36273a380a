"""The bytes of files and pages as they came, in a folder addressed by content."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rag.catalog.versions import sha256
from rag.disk import says_when_full
from rag.errors import Gone

_FRESH_SECONDS = 3600.0  # longer than a batch waits to be written, however slow its embedder
_ZEROS = 1024 * 1024  # bytes written over at once


class Originals:
    """Writing twice is writing once; what has a name is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        """The SHA-256 under which the bytes are kept. Raises DiskFull."""
        digest = sha256(data)
        path = self._path(digest)
        if path.exists():
            os.utime(path)  # wanted again, by a version that is not in the catalog yet: see `is_fresh`
        else:
            with says_when_full(self._folder):
                self._write(path, data)
        return digest

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
        part = Path(name)
        try:
            # Unbuffered: what a failed write left in a buffer is written once more by close, which then raises anew.
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink()
            raise

    def get(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def path(self, digest: str) -> Path:
        """Raises Gone where the bytes are no longer kept."""
        path = self._path(digest)
        if not path.exists():
            raise Gone(
                f"The original with SHA-256 {digest[:12]}… is not kept any more.", remedy="Sync its source again."
            )
        return path

    def is_fresh(self, digest: str) -> bool:
        """Whether somebody put it in just now: the version that wants it may not be in the catalog yet."""
        path = self._path(digest)
        return path.exists() and time.time() - path.stat().st_mtime < _FRESH_SECONDS

    def remove(self, digest: str) -> None:
        """Its bytes are written over, then it goes. One that is not there is passed over."""
        path = self._path(digest)
        if not path.exists():
            return
        with path.open("r+b") as file:
            left = path.stat().st_size
            while left > 0:
                left -= file.write(bytes(min(left, _ZEROS)))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()

    def digests(self) -> Iterator[str]:
        """Names of all that is kept, in order."""
        for folder in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))

    def partial(self) -> Iterator[Path]:
        """What a kill left half-written; what is being written just now is not meant."""
        for path in self._folder.glob("??/.*.part"):
            if time.time() - path.stat().st_mtime >= _FRESH_SECONDS:
                yield path

    def examine(self, digest: str, *, deep: bool = True) -> Literal["ok", "missing", "damaged"]:
        """Whether the bytes are there and, when `deep`, whether they are those that the name says."""
        path = self._path(digest)
        try:
            if not deep:
                return "ok" if path.exists() else "missing"
            with path.open("rb") as file:
                return "ok" if hashlib.file_digest(file, "sha256").hexdigest() == digest else "damaged"
        except FileNotFoundError:
            return "missing"

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
