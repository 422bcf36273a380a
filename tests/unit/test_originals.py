"""Bytes are kept by their content: once, whole, and for their owner's eyes."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from rag.catalog.versions import sha256
from rag.errors import DiskFull, Gone
from rag.storage.originals import Originals


def test_what_was_put_comes_back(tmp_path: Path) -> None:
    originals = Originals(tmp_path / "originals")
    for data in (b"", b"text", bytes(range(256)) * 1000, "手册".encode()):
        digest = originals.put(data)
        assert digest == sha256(data)
        assert originals.get(digest) == data
        assert originals.path(digest).read_bytes() == data


def test_putting_twice_keeps_one_file(tmp_path: Path) -> None:
    originals = Originals(tmp_path)
    first = originals.path(originals.put(b"text")).stat()
    again = originals.path(originals.put(b"text")).stat()
    assert again.st_ino == first.st_ino
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_only_their_owner_may_read_them(tmp_path: Path) -> None:
    originals = Originals(tmp_path)
    assert stat.S_IMODE(originals.path(originals.put(b"text")).stat().st_mode) == 0o600


def test_what_is_not_kept_is_said_to_be_gone(tmp_path: Path) -> None:
    with pytest.raises(Gone, match="0123456789ab"):
        Originals(tmp_path).get("0123456789abcdef")


def test_a_half_written_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    originals = Originals(tmp_path)
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DiskFull, match=f"disk is full: {tmp_path}"):
        originals.put(b"text")
    monkeypatch.undo()
    with pytest.raises(Gone):
        originals.get(sha256(b"text"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert originals.get(originals.put(b"text")) == b"text"


def test_putting_the_same_from_many_threads_is_putting_it_once(tmp_path: Path) -> None:
    originals, data = Originals(tmp_path), b"x" * 100_000
    threads = [threading.Thread(target=originals.put, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert originals.get(sha256(data)) == data
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_what_was_put_just_now_is_fresh_also_when_it_was_there_before(tmp_path: Path) -> None:
    """Retention leaves it alone: the version that wants it may not be in the catalog yet."""
    originals = Originals(tmp_path)
    digest = originals.put(b"text")
    os.utime(originals.path(digest), (0, 0))
    assert not originals.is_fresh(digest)
    originals.put(b"text")
    assert originals.is_fresh(digest)
    assert not originals.is_fresh("0" * 64)


def test_what_is_removed_is_gone_and_removing_it_again_is_nothing(tmp_path: Path) -> None:
    originals = Originals(tmp_path)
    digest, other = originals.put(b"text"), originals.put(b"other")
    originals.remove(digest)
    originals.remove(digest)
    assert set(originals.digests()) == {other}
