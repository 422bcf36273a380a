"""Packed bodies, unpacked under a limit: a bomb costs no memory."""

from __future__ import annotations

import zlib
from typing import Any

from rag.errors import DocumentError


class Broken(Exception):
    """These bytes cannot be unpacked."""


class Plain:
    complete = True

    def feed(self, part: bytes, limit: int) -> bytes:
        return part[:limit]


class Inflate:
    """Unpacks gzip and deflate, never more than it is asked for."""

    def __init__(self) -> None:
        self._engine: Any = None

    @property
    def complete(self) -> bool:
        return self._engine is None or bool(self._engine.eof)

    def feed(self, part: bytes, limit: int) -> bytes:
        data = b""
        while part and len(data) < limit:
            if self._engine is None or (self._engine.eof and part[:2] == b"\x1f\x8b"):
                self._engine = zlib.decompressobj(_window_bits(part))
            elif self._engine.eof:
                break  # padding after the end
            try:
                data += self._engine.decompress(part, limit - len(data))
            except zlib.error as error:
                raise Broken(str(error)) from error
            part = self._engine.unused_data or self._engine.unconsumed_tail
        return data


def _window_bits(start: bytes) -> int:
    if start[:1] == b"\x1f":
        return 31  # gzip
    # Deflate should come in a zlib wrapper; some servers leave it out. The first byte of a wrapper says "8".
    return 15 if start[0] & 0x0F == 8 else -15


def unpacker(encoding: str) -> Plain | Inflate | None:
    """What undoes this Content-Encoding, or None where nothing here does."""
    if encoding in ("", "identity", "none"):
        return Plain()
    if encoding in ("gzip", "x-gzip", "deflate"):
        return Inflate()
    return None


def gunzip(data: bytes, *, max_bytes: int, name: str) -> bytes:
    """A gzip file's content; DocumentError where it is broken or larger than the limit."""
    engine = Inflate()
    try:
        unpacked = engine.feed(data, max_bytes + 1)
    except Broken as error:
        raise DocumentError("corrupt", f"{name} cannot be unpacked ({error}).") from error
    if len(unpacked) > max_bytes:
        raise DocumentError("too_large", f"{name} is larger than {max_bytes / 2**20:g} MiB when unpacked.")
    if not engine.complete:
        raise DocumentError("corrupt", f"{name} breaks off in the middle.")
    return unpacked
