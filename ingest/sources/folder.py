"""A source of files: a folder and what lies under it, never what its links lead out to."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ingest.sources.globs import covers, glob, matches
from rag.errors import DocumentError, InvalidInput, NotAllowed, SourceError
from rag.models import Item, Original, Unlisted

# Locks and leavings of office programs, editors, browsers and file managers. What begins with a dot is skipped anyway.
_NOBODY_WANTS = re.compile(
    r"~\$.*|.*~|thumbs\.db|desktop\.ini|.*\.(tmp|swp|part|crdownload)|__MACOSX|\$RECYCLE\.BIN"
    r"|System Volume Information",
    re.IGNORECASE,
)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # non-blocking: a pipe put there must not hang us


# A file that was changed so shortly before it was read may have been changed once more since, within one tick of its
# file system's clock (2 s on FAT, some ms on ext4): the next sync looks at its bytes again, as git does.
_UNSETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class _File:
    parts: tuple[str, ...]  # as the file system has them, links resolved
    key: str
    status: os.stat_result


class FolderSource:
    """Lists the files under `path`, sorted; `path` may also be a single file.

    Globs are matched against the relative path, in any case of letters. One without a slash matches a name at any
    depth (`*.pdf`); with one it is anchored at the folder (`reports/*.pdf`); `**` stands for any number of folders.
    A glob that matches a folder covers all that is in it. Without `include`, files with one of `suffixes` are taken.
    Hidden files and folders, lock files and the leavings of editors are passed over.

    A key is the relative path in Unicode NFC; where two names fall together in NFC, one of them keeps its own form.
    Links to what is listed anyway, and links out of the folder, are passed over; bytes are read without following any.
    """

    def __init__(
        self,
        *,
        path: Path,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        allowed_roots: Sequence[Path],
        max_bytes: int,
        suffixes: frozenset[str] = frozenset(),
        private: Path | None = None,
    ) -> None:
        """`private` is our own data folder: what is in there, tokens too, must never become an answer."""
        resolved = _allowed(path, allowed_roots)
        self._private = None if private is None else Path(os.path.realpath(private))
        if self._private is not None and resolved.is_relative_to(self._private):
            raise NotAllowed(
                f"{path} lies in the data folder of Attest itself.",
                remedy="Name the folder that your documents are in.",
            )
        self._single = None if resolved.is_dir() else resolved.name
        self._root = resolved if self._single is None else resolved.parent
        self._include = [glob(pattern) for pattern in include]
        self._exclude = [glob(pattern) for pattern in exclude]
        self._max_bytes = max_bytes
        self._suffixes = frozenset(suffix.lower() for suffix in suffixes)

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:  # noqa: ARG002 - states are compared by the caller
        """Every file there is. Raises SourceError where the folder or a folder in it cannot be read."""
        before = self._identity()
        for file in self._single_file() if self._single is not None else self._walk():
            yield self._item(file)
        if self._identity() != before:
            raise SourceError(
                f"The folder {self._root.name} was replaced while it was read.", remedy="Sync again when it is at rest."
            )

    @property
    def folder(self) -> Path | None:
        """The real folder; None where the source is a single file."""
        return self._root if self._single is None else None

    def may_list(self, path: Path) -> bool:
        """Whether something that happened to `path` can change the listing. What is gone may have been a folder."""
        if path == self._root or not path.is_relative_to(self._root):
            return False
        parts = path.relative_to(self._root).parts
        key = _shown("/".join(parts))
        if any(_skipped(part) for part in parts) or covers(self._exclude, key):
            return False
        try:
            found = path.lstat()
        except OSError:
            return True
        return not stat.S_ISREG(found.st_mode) or self._wanted(key)

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._root.stat()
        except OSError as error:
            raise self._unreadable(self._root.name, error) from error
        return found.st_dev, found.st_ino

    def _unreadable(self, name: str, error: OSError) -> SourceError:
        return SourceError(
            f"The folder {_shown(name)} cannot be read ({error.strerror}).",
            remedy="Check that it is there, mounted, and readable for this process. Nothing was deleted.",
        )

    def _single_file(self) -> Iterator[_File]:
        name = self._single or ""
        try:
            found = (self._root / name).lstat()
        except FileNotFoundError:
            return  # the folder is there (checked before), so the file was really deleted
        except OSError as error:
            raise self._unreadable(name, error) from error
        if stat.S_ISREG(found.st_mode):
            yield _File((name,), _shown(name), found)

    def _walk(self) -> Iterator[_File]:
        """Depth first, by key. Links to folders are followed only into folders that are not walked on their own."""
        linked: set[str] = set()
        waiting: list[Iterator[tuple[tuple[str, ...], str, os.stat_result]]] = [self._listed((), "", linked)]
        while waiting:
            entry = next(waiting[-1], None)
            if entry is None:
                waiting.pop()
                continue
            parts, key, found = entry
            if stat.S_ISDIR(found.st_mode):
                if not matches(self._exclude, key, folder=True) and self._root.joinpath(*parts) != self._private:
                    waiting.append(self._listed(parts, f"{key}/", linked))
            elif stat.S_ISREG(found.st_mode) and self._wanted(key):
                yield _File(parts, key, found)

    def _listed(
        self, parts: tuple[str, ...], prefix: str, linked: set[str]
    ) -> Iterator[tuple[tuple[str, ...], str, os.stat_result]]:
        """One folder's entries by key: where they really are, their key, and what they are."""
        try:
            folder = self._open(parts, os.O_DIRECTORY)
            try:
                found = _scan(folder)
            finally:
                os.close(folder)
        except FileNotFoundError:
            if not parts:
                raise self._unreadable(self._root.name, FileNotFoundError(2, "it is not there")) from None
            return  # deleted since its parent was listed
        except OSError as error:
            raise self._unreadable("/".join((self._root.name, *parts)), error) from error
        for name, shown in sorted(_names(found).items(), key=lambda pair: pair[1]):
            place, status = (*parts, name), found[name]
            if stat.S_ISLNK(status.st_mode):
                target = self._link_target(place, linked)
                if target is None:
                    continue
                place, status = target
            yield place, prefix + shown, status

    def _link_target(self, parts: tuple[str, ...], linked: set[str]) -> tuple[tuple[str, ...], os.stat_result] | None:
        """Where a link leads, if that is inside the folder, not listed on its own, and not linked to before."""
        real = os.path.realpath(self._root.joinpath(*parts))
        try:
            inside = Path(real).relative_to(self._root).parts
            found = os.lstat(real)
        except (ValueError, OSError):
            return None
        if not inside or real in linked or (self._private and Path(real).is_relative_to(self._private)):
            return None
        listed_anyway = not any(_skipped(part) for part in inside) and not covers(
            self._exclude, _shown("/".join(inside))
        )
        if listed_anyway and (stat.S_ISDIR(found.st_mode) or self._wanted(_shown("/".join(inside)))):
            return None
        if inside == parts[: len(inside)]:
            return None  # a loop
        linked.add(real)
        return inside, found

    def _wanted(self, key: str) -> bool:
        if covers(self._exclude, key):
            return False
        if self._include:
            return covers(self._include, key)
        return not self._suffixes or PurePosixPath(key).suffix.lower() in self._suffixes

    def _item(self, file: _File) -> Item:
        uri = f"{_shown(self._root.name)}/{file.key}" if self._single is None and self._root.name else file.key
        return Item(key=file.key, uri=uri, state=_state(file.status), load=lambda: self._load(file, uri))

    def _load(self, file: _File, uri: str) -> Original:
        for _ in range(2):
            original = self._read(file, uri)
            if original is not None:
                return original
        raise DocumentError(
            "failed", f"{uri} keeps changing while it is read.", remedy="Sync again when it is at rest."
        )

    def _read(self, file: _File, uri: str) -> Original | None:
        """The file as one moment has it; None where it changed meanwhile."""
        began = time.time_ns()
        try:
            descriptor = self._open(file.parts)
            with os.fdopen(descriptor, "rb") as stream:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise DocumentError("failed", f"{uri} is no longer a file.", remedy="Sync again.")
                if before.st_size > self._max_bytes:
                    raise self._too_large(uri)
                data = stream.read(self._max_bytes + 1)
                after = os.fstat(descriptor)
        except FileNotFoundError as error:
            raise DocumentError(
                "failed", f"{uri} was deleted before it could be read.", remedy="Sync again."
            ) from error
        except OSError as error:
            remedy = "Check its permissions, and that it is no link."
            raise DocumentError("failed", f"{uri} cannot be read ({error.strerror}).", remedy=remedy) from error
        if len(data) > self._max_bytes:
            raise self._too_large(uri)
        if _state(before) != _state(after) or len(data) != after.st_size:
            return None
        return Original(data=data, name=_shown(file.parts[-1]), state=_state(after) | _unsettled(after, began))

    def _too_large(self, uri: str) -> DocumentError:
        return DocumentError(
            "too_large", f"{uri} is larger than {self._max_bytes / 2**20:g} MiB.", remedy="Split it, or leave it out."
        )

    def _open(self, parts: tuple[str, ...], flags: int = 0) -> int:
        """A descriptor reached from the folder step by step, no step through a link, be it ever so new."""
        descriptor = os.open(self._root, _READ | os.O_DIRECTORY)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            try:
                following = os.open(part, _READ | (flags if last else os.O_DIRECTORY), dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = following
        return descriptor


def _allowed(path: Path, roots: Sequence[Path]) -> Path:
    """The path, resolved. Whether it exists is told only to those who may know."""
    if "\0" in str(path):
        raise InvalidInput("A path cannot have a NUL character.", remedy="Check the path.")
    resolved = Path(os.path.realpath(path.expanduser()))
    if not any(resolved.is_relative_to(os.path.realpath(root.expanduser())) for root in roots):
        raise NotAllowed(
            f"{path} does not lie under a folder that sources may read.",
            remedy="Add that folder to ATTEST_ALLOWED_ROOTS, or move the files.",
        )
    if not resolved.exists():
        raise InvalidInput(f"{path} is not there.", remedy="Check the path.")
    if not (resolved.is_dir() or resolved.is_file()):
        raise InvalidInput(f"{path} is neither a folder nor a file.", remedy="Give the path of a folder.")
    return resolved


def _state(found: os.stat_result) -> dict[str, str]:
    """Anybody may set the time of modification back (`touch -r`, `cp -p`); the time of change (ctime) nobody can, and
    another file in its place has another inode. Where only these moved the bytes are looked at, and decide."""
    return {
        "size": str(found.st_size),
        "mtime_ns": str(found.st_mtime_ns),
        "ctime_ns": str(found.st_ctime_ns),
        "inode": str(found.st_ino),
    }


def _unsettled(found: os.stat_result, read_ns: int) -> dict[str, str]:
    """A mark that no listing has, so the state that is kept differs from the next one. A clock that is ahead (a file
    server's) leaves it standing; a time of modification that somebody set into the future does not."""
    just_changed = read_ns - found.st_ctime_ns < _UNSETTLED_NS or abs(read_ns - found.st_mtime_ns) < _UNSETTLED_NS
    return {"unsettled": "1"} if just_changed else {}


def _scan(folder: int) -> dict[str, os.stat_result]:
    """What lies in an open folder, without what is passed over."""
    found: dict[str, os.stat_result] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if not _skipped(entry.name):
                with contextlib.suppress(FileNotFoundError):  # deleted this very moment
                    found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def _skipped(name: str) -> bool:
    return name.startswith(".") or _NOBODY_WANTS.fullmatch(name) is not None


def _shown(name: str) -> str:
    """A name as text: NFC, and bytes that are not UTF-8 as `\\xb9`."""
    return unicodedata.normalize("NFC", _readable(name))


def _readable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _names(found: Mapping[str, Any]) -> dict[str, str]:
    """The text of each name in one folder, all different, whichever files come and go beside them."""
    texts: dict[str, str] = {}
    taken: set[str] = set()
    # A name that is in NFC already keeps it; of others with the same NFC, the first takes it.
    for name in sorted(found, key=lambda name: (_shown(name) != name, os.fsencode(name))):
        text = _shown(name)
        for candidate in (text, _readable(name), *(f"{text} ({number})" for number in range(2, len(found) + 2))):
            if candidate not in taken:
                texts[name] = candidate
                taken.add(candidate)
                break
    return texts
