"""What a process and all its descendants have taken: CPU time and memory, from /proc. Linux only."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_QUIET_CPU_SECONDS, _QUIET_SECONDS, _LONGEST_SECONDS = 0.02, 0.4, 15.0
_SAMPLE_SECONDS = 0.2


def cpu_seconds(pid: int) -> float:
    """Of the process, those below it, and those below it that have ended."""
    return sum(sum(map(int, _stat(one)[11:15])) for one in _tree(pid)) / _TICKS


def settled_cpu_seconds(pid: int) -> float:
    """The same, when what is done in the background has ended."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    before = cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(_QUIET_SECONDS)
        now = cpu_seconds(pid)
        if now - before < _QUIET_CPU_SECONDS:
            return now
        before = now
    return before


@contextmanager
def watched_memory(pid: int) -> Iterator[list[float]]:
    """A list whose last entry is, at the end, the most MiB that they were seen to take together."""
    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            most[0] = max(most[0], resident_mib(pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        ended.set()
        watcher.join()
        most[0] = max(most[0], resident_mib(pid))


def resident_mib(pid: int) -> float:
    """Now. Pages that several share count once for each."""
    return sum(_pages(one) for one in _tree(pid)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def disk_mib(folder: Path) -> float:
    return sum(path.stat().st_blocks for path in folder.rglob("*") if path.is_file()) * 512 / 2**20


def _tree(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _read(task).split()]
    return [pid, *(one for child in children for one in _tree(child))]


def _stat(pid: int) -> list[str]:
    """The fields after the name, which may hold anything; none once the process has ended."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()


def _pages(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/statm")).split()
    return int(fields[1]) if fields else 0


def _read(path: Path) -> str:
    with suppress(OSError):  # it has ended meanwhile
        return path.read_text("utf-8", "replace")
    return ""
