"""The bytes of files and pages as they came, in a folder addressed by content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rag.catalog.versions import sha256
from rag.errors import Gone


class Originals:
    """Writing twice is writing once; what has a name is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        """The SHA-256 under which the bytes are kept."""
        digest = sha256(data)
        path = self._path(digest)
        if path.exists():
            return digest
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            part = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
            except BaseException:
                part.unlink()
                raise
        return digest

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

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
