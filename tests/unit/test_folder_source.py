"""What a folder source promises."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.sources import folder as folder_module
from ingest.sources.folder import FolderSource
from rag.errors import DocumentError, InvalidInput, NotAllowed, SourceError
from rag.models import Item

SUFFIXES = frozenset({".pdf", ".md", ".txt"})


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    root.mkdir()
    return root


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}", encoding="utf-8", errors="surrogateescape")


def source(path: Path, **options: object) -> FolderSource:
    arguments: dict[str, object] = {"allowed_roots": [path.parent], "max_bytes": 1000, "suffixes": SUFFIXES, **options}
    return FolderSource(path=path, **arguments)  # type: ignore[arg-type]


def items(found: FolderSource) -> dict[str, Item]:
    listed = list(found.items({}))
    assert all(isinstance(item, Item) for item in listed)
    keys = [item.key for item in listed]
    assert len(set(keys)) == len(keys)
    return {item.key: item for item in listed if isinstance(item, Item)}


def test_files_are_listed_with_relative_keys_states_and_bytes(docs: Path) -> None:
    put(docs, "b.md", "a/手册.txt", "a/deep/er/x.PDF", "picture.png")
    found = items(source(docs))
    assert list(found) == ["a/deep/er/x.PDF", "a/手册.txt", "b.md"]
    item = found["a/手册.txt"]
    assert item.uri == "docs/a/手册.txt"
    status = (docs / "a/手册.txt").stat()
    assert item.state == {
        "size": str(status.st_size),
        "mtime_ns": str(status.st_mtime_ns),
        "ctime_ns": str(status.st_ctime_ns),
        "inode": str(status.st_ino),
    }
    original = item.load()
    assert (original.data, original.name) == ("content of a/手册.txt".encode(), "手册.txt")


def test_a_file_changed_just_before_it_was_read_is_marked_and_an_older_one_is_not(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be changed again within the same tick of the file system's clock."""
    put(docs, "a.txt")
    item = items(source(docs))["a.txt"]
    assert item.load().state == {**item.state, "unsettled": "1"}
    later = (docs / "a.txt").stat().st_ctime_ns + 3_000_000_000
    monkeypatch.setattr(folder_module.time, "time_ns", lambda: later)
    assert item.load().state == item.state


def test_a_clock_that_is_ahead_leaves_the_mark_and_a_date_in_the_future_does_not(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(docs, "a.txt")
    changed = (docs / "a.txt").stat().st_ctime_ns
    monkeypatch.setattr(folder_module.time, "time_ns", lambda: changed - 3600 * 10**9)
    item = items(source(docs))["a.txt"]
    assert item.load().state != item.state
    os.utime(docs / "a.txt", ns=(0, changed + 10**18))
    monkeypatch.setattr(folder_module.time, "time_ns", lambda: changed + 3600 * 10**9)
    item = items(source(docs))["a.txt"]
    assert item.load().state == item.state


@pytest.mark.parametrize("how", ["touched back", "copied over with its times", "moved over with its times"])
def test_content_that_changed_under_an_old_time_is_another_state(docs: Path, how: str) -> None:
    put(docs, "a.txt")
    path = docs / "a.txt"
    before, status = items(source(docs))["a.txt"].state, path.stat()
    other = docs.parent / "other.txt"
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    if how == "touched back":
        path.write_bytes(other.read_bytes())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "copied over with its times":
        shutil.copy2(other, path)
    else:
        other.rename(path)
    after = items(source(docs))["a.txt"].state
    assert (after["size"], after["mtime_ns"]) == (before["size"], before["mtime_ns"])
    assert after != before


def test_an_empty_folder_is_a_complete_listing_of_nothing(docs: Path) -> None:
    assert items(source(docs)) == {}


def test_hidden_files_locks_and_leavings_are_passed_over(docs: Path) -> None:
    put(
        docs,
        ".hidden.md",
        ".git/readme.md",
        "~$plan.md",
        "Thumbs.db",
        ".DS_Store",
        "x.tmp",
        "old.md~",
        "__MACOSX/a.md",
        "a.md",
    )
    assert list(items(source(docs))) == ["a.md"]
    assert list(items(source(docs, include=["**"]))) == ["a.md"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.pdf"], [], ["a.pdf", "r/2024/c.PDF", "r/b.pdf"]),
        (["**/*.pdf"], [], ["a.pdf", "r/2024/c.PDF", "r/b.pdf"]),
        (["/*.pdf"], [], ["a.pdf"]),
        (["r/*.pdf"], [], ["r/b.pdf"]),
        (["r/**/*.pdf"], [], ["r/2024/c.PDF", "r/b.pdf"]),
        (["r"], [], ["r/2024/c.PDF", "r/b.pdf", "r/n.odd"]),
        (["r/**"], ["20*/"], ["r/b.pdf", "r/n.odd"]),
        ([], ["r"], ["a.pdf"]),
        ([], ["r/"], ["a.pdf"]),
        ([], ["a.pdf/"], ["a.pdf", "r/2024/c.PDF", "r/b.pdf"]),
        (["?.pdf"], ["[bc].*"], ["a.pdf"]),
        (["[!ab].pdf"], [], ["r/2024/c.PDF"]),
        (["*.odd"], [], ["r/n.odd"]),
    ],
)
def test_globs_match_names_anywhere_and_paths_from_the_folder(
    docs: Path, include: list[str], exclude: list[str], expected: list[str]
) -> None:
    put(docs, "a.pdf", "r/b.pdf", "r/2024/c.PDF", "r/n.odd")
    assert list(items(source(docs, include=include, exclude=exclude))) == expected


@pytest.mark.parametrize("pattern", ["", "/", "[z-a]"])
def test_a_glob_that_means_nothing_is_refused(docs: Path, pattern: str) -> None:
    with pytest.raises(InvalidInput):
        source(docs, include=[pattern])


def test_only_allowed_folders_may_be_read(docs: Path, tmp_path: Path) -> None:
    put(docs, "a.md")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "link"
    link.symlink_to(docs)
    for path in (docs, elsewhere / "../docs", link, Path("/etc/passwd"), tmp_path / "docs-not-there"):
        with pytest.raises(NotAllowed, match="ATTEST_ALLOWED_ROOTS"):
            source(path, allowed_roots=[elsewhere])
    with pytest.raises(NotAllowed):
        source(docs, allowed_roots=[])
    with pytest.raises(NotAllowed):  # a longer name is not a folder inside
        source(tmp_path / "docs2", allowed_roots=[docs])
    assert list(items(source(link, allowed_roots=[docs]))) == ["a.md"]


def test_a_missing_path_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not there"):
        source(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="neither"):
        source(tmp_path / "pipe")


def test_a_single_file_is_a_source_of_one(docs: Path) -> None:
    put(docs, "only.odd", "other.md")
    one = source(docs / "only.odd")
    found = items(one)
    assert list(found) == ["only.odd"]
    assert found["only.odd"].load().data == b"content of only.odd"
    (docs / "only.odd").unlink()
    assert items(one) == {}


def test_links_out_of_the_folder_are_not_followed(docs: Path, tmp_path: Path) -> None:
    put(tmp_path, "secret/key.md")
    put(docs, "a.md")
    (docs / "leak.md").symlink_to(tmp_path / "secret/key.md")
    (docs / "leaks").symlink_to(tmp_path / "secret")
    (docs / "dangling.md").symlink_to(docs / "gone.md")
    assert list(items(source(docs))) == ["a.md"]


def test_links_inside_give_each_file_once_and_loops_end(docs: Path) -> None:
    put(docs, "a.md", "sub/b.md", ".releases/1/c.md", ".releases/1/d.md")
    (docs / "again.md").symlink_to(docs / "a.md")
    (docs / "sub/up").symlink_to(docs)
    (docs / "sub/self").symlink_to(docs / "sub")
    (docs / "ring").symlink_to(docs / "ring")
    (docs / "current").symlink_to(docs / ".releases/1")
    (docs / "current2").symlink_to(docs / ".releases/1")
    (docs / ".releases/1/back").symlink_to(docs / ".releases")
    found = items(source(docs))
    assert list(found) == ["a.md", "current/c.md", "current/d.md", "sub/b.md"]
    assert found["current/c.md"].load().data == b"content of .releases/1/c.md"


def test_a_file_swapped_for_a_link_after_the_listing_is_not_read(docs: Path, tmp_path: Path) -> None:
    put(tmp_path, "secret.md", "secrets/b.md")
    put(docs, "a.md", "sub/b.md")
    found = items(source(docs))
    (docs / "a.md").unlink()
    (docs / "a.md").symlink_to(tmp_path / "secret.md")
    (docs / "sub/b.md").unlink()
    (docs / "sub").rmdir()
    (docs / "sub").symlink_to(tmp_path / "secrets")
    for key in ("a.md", "sub/b.md"):
        with pytest.raises(DocumentError) as caught:
            found[key].load()
        assert caught.value.status == "failed"


def test_a_pipe_put_in_place_of_a_file_does_not_hang(docs: Path) -> None:
    put(docs, "a.md")
    found = items(source(docs))
    (docs / "a.md").unlink()
    os.mkfifo(docs / "a.md")
    with pytest.raises(DocumentError, match="no longer a file"):
        found["a.md"].load()
    assert items(source(docs)) == {}


def test_a_file_deleted_after_the_listing_is_its_own_failure(docs: Path) -> None:
    put(docs, "a.md")
    found = items(source(docs))
    (docs / "a.md").unlink()
    with pytest.raises(DocumentError, match="deleted"):
        found["a.md"].load()


def test_a_file_that_is_too_large_is_not_read(docs: Path) -> None:
    (docs / "big.md").write_bytes(b"x" * 1001)
    (docs / "fits.md").write_bytes(b"x" * 1000)
    found = items(source(docs))
    assert len(found["fits.md"].load().data) == 1000
    with pytest.raises(DocumentError) as caught:
        found["big.md"].load()
    assert caught.value.status == "too_large"


def test_a_file_that_may_not_be_read_is_its_own_failure(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(docs, "a.md", "b.md")
    found = items(source(docs))
    monkeypatch.setattr(folder_module.os, "open", refuse("a.md"))
    with pytest.raises(DocumentError, match="Permission denied"):
        found["a.md"].load()
    assert found["b.md"].load().data == b"content of b.md"


def test_a_folder_inside_that_may_not_be_read_makes_the_listing_incomplete(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(docs, "a.md", "locked/b.md")
    monkeypatch.setattr(folder_module.os, "open", refuse("locked"))
    with pytest.raises(SourceError, match="docs/locked"):
        list(source(docs).items({}))


def refuse(name: str) -> Callable[..., int]:
    real = os.open

    def guarded(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == name:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

    return guarded


def test_a_folder_that_vanished_is_an_incomplete_listing(docs: Path) -> None:
    put(docs, "a.md")
    listed = source(docs)
    docs.rename(docs.parent / "moved")
    with pytest.raises(SourceError, match="Nothing was deleted"):
        list(listed.items({}))


def test_a_folder_that_vanishes_while_it_is_listed_is_an_incomplete_listing(docs: Path) -> None:
    put(docs, "a.md", "b/c.md")
    listing = source(docs).items({})
    next(listing)
    docs.rename(docs.parent / "moved")
    with pytest.raises(SourceError):
        list(listing)


def test_a_file_that_changes_while_it_is_read_is_read_again(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(docs, "a.md")
    found = items(source(docs))
    writes = iter(["a new and longer text"])
    monkeypatch.setattr(folder_module.os, "fstat", meddle(docs / "a.md", lambda: next(writes, None)))
    original = found["a.md"].load()
    assert original.data == b"a new and longer text"
    assert original.state["size"] == str(len(original.data))
    growing = iter(range(100))
    monkeypatch.setattr(folder_module.os, "fstat", meddle(docs / "a.md", lambda: "x" * (50 + next(growing))))
    with pytest.raises(DocumentError, match="keeps changing"):
        found["a.md"].load()


def meddle(path: Path, text: Callable[[], str | None]) -> Callable[[int], os.stat_result]:
    """`os.fstat` with somebody writing to the file right after each look."""
    real = os.fstat

    def look(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        written = text()
        if written is not None:
            path.write_text(written)
        return status

    return look


def test_names_that_differ_only_in_their_unicode_form_are_two_files(docs: Path) -> None:
    composed, decomposed = unicodedata.normalize("NFC", "é.md"), unicodedata.normalize("NFD", "é.md")
    put(docs, decomposed)
    assert list(items(source(docs))) == [composed]
    put(docs, composed)
    found = items(source(docs))
    assert set(found) == {composed, decomposed}
    assert found[composed].load().data == f"content of {composed}".encode()
    assert found[decomposed].load().data == f"content of {decomposed}".encode()


def test_names_that_are_not_utf8_are_read_and_can_be_stored(docs: Path) -> None:
    name = os.fsdecode(b"\xb9\xab\xcb\xbe.md")  # 公司 in GBK
    put(docs, name, r"\xb9\xab\xcb\xbe.md")
    found = items(source(docs))
    assert len(found) == 2
    for key, item in found.items():
        key.encode("utf-8")
        item.uri.encode("utf-8")
        item.load().name.encode("utf-8")


def test_a_very_deep_folder_is_walked(docs: Path) -> None:
    deep = "/".join(["d"] * 600)
    put(docs, f"{deep}/x.md")
    assert list(items(source(docs))) == [f"{deep}/x.md"]


def test_no_file_is_left_open(docs: Path) -> None:
    put(docs, *(f"{number}/x.md" for number in range(20)))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for item in items(source(docs)).values():
        item.load()
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before


# ── what is ours ──────────────────────────────────────────────────────────────────────────────


def test_our_own_data_folder_is_never_read(docs: Path, tmp_path: Path) -> None:
    """It holds a token that lets its reader in, and every original once more."""
    data = docs / "attest-data"
    put(docs, "a.md", "attest-data/owner.txt", "attest-data/originals/aa/x.txt")
    (docs / "door").symlink_to(data / "originals", target_is_directory=True)
    (docs / "note.txt").symlink_to(data / "owner.txt")
    assert list(items(source(docs, private=data))) == ["a.md"]
    for inside in (data, data / "originals", data / "owner.txt"):
        with pytest.raises(NotAllowed, match="data folder"):
            source(inside, private=data, allowed_roots=[tmp_path])
