"""One process owns the data folder. A lock held for life says so; a note beside it says where the owner listens."""

from __future__ import annotations

import json
import os
from pathlib import Path

from filelock import FileLock, Timeout

from rag.errors import FolderInUse, InvalidInput

_LOCK = "owner.lock"
_NOTE = "owner.json"
_PATIENCE_SECONDS = 0.5  # somebody who only looks for the owner holds the lock for an instant


class Owner:
    """Holds the lock from construction to `release`. Raises FolderInUse where another process holds it.

    The operating system releases the lock when a process dies, however it dies, so no lock is ever stale.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as problem:
            raise InvalidInput(
                f"The data folder {folder} cannot be made: {problem.strerror}.",
                remedy="Set ATTEST_DATA_DIR to a folder that can.",
            ) from problem
        self._note = folder / _NOTE
        self._lock = FileLock(folder / _LOCK, thread_local=False)
        try:
            self._lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=0.01)
        except Timeout:
            note = _read(self._note)
            where = f" at {note['url']}" if note.get("url") else ""
            raise FolderInUse(
                f"The data folder {folder} is in use by process {note.get('pid', 'unknown')}{where}.",
                remedy="Talk to that one (the command line does so by itself), stop it, "
                "or set ATTEST_DATA_DIR to another folder.",
            ) from None
        self.announce(None, token=None)

    def announce(self, url: str | None, *, token: str | None) -> None:
        """Say where this process listens. The token lets this user's other commands in; nobody else may read it."""
        part = self._note.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "url": url, "token": token}, file)
        part.replace(self._note)

    def release(self) -> None:
        self._note.unlink(missing_ok=True)
        self._lock.release()


def find_owner(folder: Path) -> tuple[str, str] | None:
    """(URL, token) of the running process that owns this folder, or None where nobody does."""
    note = _read(folder / _NOTE)
    if not note.get("url") or not (folder / _LOCK).exists():
        return None  # nobody listens; and a lock that is not tried does not stop one who starts this moment
    probe = FileLock(folder / _LOCK, thread_local=False)
    try:
        probe.acquire(blocking=False)
    except Timeout:
        note = _read(folder / _NOTE)  # again: a new owner may have taken the place of one that was killed
        return (note["url"], note.get("token") or "") if note.get("url") else None
    probe.release()
    return None


def _read(path: Path) -> dict[str, str]:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # being written, or from a process that died before it wrote
    return note if isinstance(note, dict) else {}
