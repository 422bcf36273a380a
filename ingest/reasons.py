"""Why a plan does what it does, in a few words for the person who reads it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

_SAID = {  # in this order: the first that moved is told
    "etag": "ETag changed",
    "last_modified": "Last-Modified changed",
    "updated_at": "its updated-at changed",
    "sha256": "content changed",
    "title": "its title changed",
    "inode": "another file in its place",
    "ctime_ns": "touched",
    "unsettled": "was changed just before it was read",
}


def state_moved(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What a source says otherwise of an item than at the last sync."""
    if not now:
        return "its source does not say whether it changed"
    moved = {name for name in {*before, *now} if before.get(name) != now.get(name)}
    if "size" in moved and "size" in before and "size" in now:
        return f"size {before['size']} → {now['size']}"
    if "mtime_ns" in moved and now.get("mtime_ns", "").lstrip("-").isdecimal():
        return f"modified {_moment(int(now['mtime_ns']))}"
    if moved and all(name not in before for name in moved):
        return "more is known of it than at the last sync"  # kept by an older version of ours
    return next((said for name, said in _SAID.items() if name in moved), "its source says that it changed")


def state_stood(now: Mapping[str, str]) -> str:
    if "mtime_ns" in now:
        return "same size and times"
    return "same content" if "sha256" in now else "its source says the same of it"


def newer_reader(pipeline: str) -> str:
    return f"the reader is newer or set otherwise than {pipeline}"


def _moment(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # a file system may say the year 200,000
        return "at another time"
