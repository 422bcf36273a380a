"""A full disk, said as what it is: an error of its own that names the place."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag.errors import DiskFull

# No space, no quota, and a file that may grow no further (`ulimit -f`).
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOTHING_LEFT_BYTES = 1024 * 1024


@contextmanager
def says_when_full(path: Path) -> Iterator[None]:
    """Raises DiskFull instead of the operating system's error or SQLite's; any other error goes on as it is."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _FULL:
            raise
        raise disk_full(path) from problem
    except sqlite3.Error as problem:
        if not is_database_full(problem, path):
            raise
        raise disk_full(path) from problem


def is_database_full(problem: sqlite3.Error, path: Path) -> bool:
    """SQLite has a word for a full disk only where a write says so; growing its shared memory is an I/O error, and so
    is a write past the size that a file may have."""
    name = getattr(problem, "sqlite_errorname", "")
    unwritten = name in ("SQLITE_IOERR", "SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN")
    return name in ("SQLITE_FULL", "SQLITE_IOERR_WRITE") or (unwritten and is_full(path.parent))


def disk_full(path: Path, *, wanted_bytes: int | None = None) -> DiskFull:
    wanted = f" {_mib(wanted_bytes)} more are wanted." if wanted_bytes is not None else ""
    return DiskFull(
        f"The disk is full: {path} cannot be written.{wanted}",
        remedy="Free some space there, then do it again. What was written before is whole, and questions are answered.",
    )


def free_bytes(folder: Path) -> int:
    """For this user. Of a folder that is not there yet: where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def is_full(folder: Path) -> bool:
    """Whether so little is left that a database cannot work there, whatever words its error has."""
    return free_bytes(folder) < _NOTHING_LEFT_BYTES


def sync_folder(folder: Path) -> None:
    """A name in a folder outlives a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mib(count: int) -> str:
    return f"{max(1, -(-count // (1024 * 1024)))} MiB"
