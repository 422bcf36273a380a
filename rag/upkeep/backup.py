"""One file that restores a knowledge base: made while the service works, checked to the last bit, put back.

The file is a tar, so that it can be opened without us: `manifest.json`, `settings.json`, `catalog.sqlite`, the
originals that this catalog names, and last `members.jsonl` with size and SHA-256 of all of them. Its headers are read
strictly: they must be, byte for byte, what this module writes. So no flipped bit goes unnoticed, and no link, device or
path that leads elsewhere is ever followed. Caches are not in it; they are made anew from the catalog.

Memory does not grow with the number of originals or their size.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rag.catalog import backups
from rag.catalog.backups import Backup
from rag.catalog.engine import Catalog, installed_version, known_revisions, newest_revision
from rag.disk import disk_full, free_bytes, says_when_full, sync_folder
from rag.errors import Conflict, Gone, InvalidInput, NotAllowed, NotFound
from rag.storage.originals import Originals
from rag.storage.owner import Owner

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST, SETTINGS, CATALOG, MEMBERS = "manifest.json", "settings.json", "catalog.sqlite", "members.jsonl"
RESTORED_SETTINGS = "settings-of-backup.json"

_ORIGINAL = re.compile(r"originals/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_CHUNK = 1024 * 1024
_MOST_SMALL_BYTES = 1024 * 1024  # of manifest and settings, which are read into memory
_MOST_PROBLEMS = 100
_LONGEST_LINE = 4096  # of the list
_SPARE_BYTES = 1024 * 1024
# In a data folder, and yet no part of a knowledge base: a restore leaves them where they are.
_BESIDE = frozenset({"backups", "models", "lost+found"})
_LOCK = frozenset({"owner.lock", "owner.json"})

Check = Callable[[], None]  # called now and then; may raise, e.g. because somebody cancelled
Progress = Callable[[int, int], None]  # originals done, of so many


def default_name() -> str:
    return f"attest-{datetime.now(UTC):%Y%m%dT%H%M%S}Z.tar"


# ── making one ────────────────────────────────────────────────────────────────────────────────


def create(
    catalog: Catalog,
    originals: Originals,
    path: Path,
    *,
    settings: Mapping[str, Any],
    check: Check = lambda: None,
    progress: Progress = lambda _done, _of: None,
) -> Backup:
    """Write everything into a new file at `path`, and note it in the catalog.

    The catalog may be read and written meanwhile; the file has its state at the beginning. It gets its name when it is
    complete and on the disk. `settings` must be without secrets. Raises Conflict where there is a file already, and
    DiskFull.
    """
    if path.exists():
        raise Conflict(f"There is a file at {path} already.", remedy="Choose another name, or move that file away.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as problem:
        raise InvalidInput(f"The folder {path.parent} cannot be made: {problem.strerror}.") from problem
    part, copy = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.catalog.part")
    try:
        with says_when_full(path.parent):
            part.unlink(missing_ok=True)  # of an attempt that was killed
            catalog.copy_to(copy, check=check)
            change = backups.facts_of(copy).change
            with _open_new(part) as file:
                _write(file, copy, originals, settings=settings, check=check, progress=progress)
                file.flush()
                os.fsync(file.fileno())
            return _name(catalog, part, path, copy=copy, change=change)
    except PermissionError as problem:
        raise NotAllowed(f"{path} cannot be written: {problem.strerror}.", remedy="Choose another place.") from problem
    finally:
        part.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """What backups that were killed left in the folder. Not while one is being made there."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _name(catalog: Catalog, part: Path, path: Path, *, copy: Path, change: int) -> Backup:
    """Give the file its name and note it, in a transaction: a purge comes before it, or finds the note."""
    purged_before, placed = backups.purged_in(copy), False
    try:
        with catalog.write() as connection:
            if backups.purged_documents(connection) - purged_before:
                raise Conflict(
                    "A document was purged while the backup was being made, which would have kept it.",
                    remedy="Make the backup again.",
                )
            if path.exists():
                raise Conflict(f"There is a file at {path} already.", remedy="Choose another name.")
            size = part.stat().st_size
            part.replace(path)
            placed = True
            sync_folder(path.parent)
            return backups.record_backup(connection, path=path.resolve(), change=change, size=size)
    except BaseException:
        if placed:
            path.unlink(missing_ok=True)
        raise


def _write(
    file: IO[bytes],
    copy: Path,
    originals: Originals,
    *,
    settings: Mapping[str, Any],
    check: Check,
    progress: Progress,
) -> None:
    facts, count, size = backups.facts_of(copy), 0, copy.stat().st_size
    for digest, _ in backups.originals_of(copy):
        with suppress(Gone):
            size += originals.path(digest).stat().st_size + 2 * _BLOCK
            count += 1
    free = free_bytes(copy.parent)
    if free < size + _SPARE_BYTES:
        raise disk_full(copy.parent, wanted_bytes=size + _SPARE_BYTES - free)
    moment = datetime.now(UTC)
    manifest = {
        "format": FORMAT,
        "attest": installed_version(),
        "schema": facts.schema,
        "catalog_id": facts.catalog_id,
        "change": facts.change,
        "created_at": moment.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "counts": {**facts.counts, "originals": count},
    }
    with tempfile.TemporaryFile(dir=copy.parent) as listed:
        archive = _Archive(file, listed, int(moment.timestamp()))
        archive.add_text(MANIFEST, json.dumps(manifest, indent=2))
        archive.add_text(SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False))
        with copy.open("rb") as source:
            archive.add(CATALOG, source, check=check)
        done = 0
        for digest, needed in backups.originals_of(copy):
            name = f"originals/{digest[:2]}/{digest}"
            try:
                source = originals.path(digest).open("rb")
            except (Gone, FileNotFoundError):
                if needed:
                    archive.lack(name)
                continue
            with source:
                archive.add(name, source, check=check, expected=digest)
            done += 1
            progress(done, count)
        archive.end()


class _Archive:
    """A tar that is written front to back, and the list of what went into it."""

    def __init__(self, file: IO[bytes], listed: IO[bytes], mtime: int) -> None:
        self._file = file
        self._listed = listed
        self._mtime = mtime
        self._lines = hashlib.sha256()

    def add_text(self, name: str, text: str) -> None:
        data = text.encode()
        self._begin(name, len(data))
        self._file.write(data)
        self._pad(len(data))
        self._list(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def add(self, name: str, source: IO[bytes], *, check: Check, expected: str | None = None) -> None:
        """All that the open file has. One that is not what its name promises goes in as it is, and the list says so."""
        size = os.fstat(source.fileno()).st_size
        self._begin(name, size)
        digest, left = hashlib.sha256(), size
        while left:
            check()
            data = source.read(min(_CHUNK, left)) or bytes(min(_CHUNK, left))  # somebody cut it off meanwhile
            digest.update(data)
            self._file.write(data)
            left -= len(data)
        self._pad(size)
        found = digest.hexdigest()
        self._list(name=name, bytes=size, sha256=found, **({"damaged": True} if expected not in (None, found) else {}))

    def lack(self, name: str) -> None:
        """What the catalog names and the data folder does not have."""
        self._list(name=name, missing=True)

    def end(self) -> None:
        last = _line(lines_sha256=self._lines.hexdigest())
        size = self._listed.tell() + len(last)
        self._begin(MEMBERS, size)
        self._listed.seek(0)
        shutil.copyfileobj(self._listed, self._file, _CHUNK)
        self._file.write(last)
        self._pad(size)
        self._file.write(_END)

    def _begin(self, name: str, size: int) -> None:
        self._file.write(_header(name, size, self._mtime))

    def _pad(self, size: int) -> None:
        self._file.write(bytes(-size % _BLOCK))

    def _list(self, **values: Any) -> None:
        line = _line(**values)
        self._lines.update(line)
        self._listed.write(line)


def _line(**values: Any) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _header(name: str, size: int, mtime: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _open_new(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=_CHUNK)


# ── reading one ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Manifest:
    format: int
    attest: str  # the version that made it
    schema: str
    catalog_id: str
    change: int
    created_at: datetime
    counts: Mapping[str, int]


@dataclass(slots=True)
class Verified:
    """What a look at every byte found. `problems`: it cannot be relied on, and why. `notes`: what was amiss already
    in the data folder when the backup was made."""

    path: Path
    bytes: int
    manifest: Manifest | None = None
    originals: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def fault(self, sentence: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(sentence)
        elif len(self.problems) == _MOST_PROBLEMS:
            self.problems.append("There is more than that.")


class _Broken(Exception):  # not an error of ours: it becomes a line of what was found
    """The file cannot be followed any further."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    at: int  # byte of the file where its header begins


def verify(path: Path, *, check: Check = lambda: None) -> Verified:
    """Every hash, the form of the file, the catalog inside, and whether each original that it names is there.

    Needs neither a service nor a data folder, only some room for a copy of the catalog. Raises NotFound.
    """
    beside = path.parent if os.access(path.parent, os.W_OK) else None
    if not path.is_file():
        raise NotFound(f"There is no file {path}.", remedy="attest backup list shows what was made.")
    scratch = tempfile.TemporaryDirectory(dir=beside, prefix=".attest-verify-")
    with _opened(path) as file, scratch as folder, says_when_full(Path(folder)):
        return _read(path, file, Path(folder), originals=False, check=check)


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as problem:
        raise NotFound(f"There is no file {path}.") from problem
    except OSError as problem:
        raise InvalidInput(f"{path} cannot be read: {problem.strerror}.") from problem


def _read(path: Path, file: IO[bytes], into: Path, *, originals: bool, check: Check) -> Verified:
    """Look at everything, and leave catalog and settings in the folder `into`; the originals as well where wanted."""
    found = Verified(path, os.fstat(file.fileno()).st_size)
    with closing(sqlite3.connect(into / "check.sqlite", isolation_level=None)) as book:
        book.execute("PRAGMA journal_mode=OFF")
        book.execute("PRAGMA synchronous=OFF")
        book.execute("CREATE TABLE seen (name TEXT PRIMARY KEY, bytes INT, sha256 TEXT, at INT) WITHOUT ROWID")
        book.execute("CREATE TABLE listed (name TEXT PRIMARY KEY, bytes INT, sha256 TEXT, missing INT, damaged INT)")
        book.execute("BEGIN")
        _read_members(file, into, book, found, originals=originals, check=check)
        _read_manifest(into, found)
        _compare(into, book, found)
        _check_format(found)
        if found.manifest is not None and (into / CATALOG).exists():
            _examine_catalog(into / CATALOG, book, found)
    for name in ("check.sqlite", MEMBERS, MANIFEST):
        (into / name).unlink(missing_ok=True)
    return found


def _read_members(
    file: IO[bytes], into: Path, book: sqlite3.Connection, found: Verified, *, originals: bool, check: Check
) -> None:
    last = ""
    try:
        for member in _members(file):
            last = member.name
            original = _ORIGINAL.fullmatch(member.name)
            if not original and member.name not in (MANIFEST, SETTINGS, CATALOG, MEMBERS):
                found.fault(f"A member is called {member.name[:200]!r}, which no backup has (byte {member.at}).")
                for _ in _content(file, member):
                    check()
                continue
            if book.execute("SELECT 1 FROM seen WHERE name = ?", (member.name,)).fetchone():
                raise _Broken(f"{member.name} is there twice (byte {member.at}).")
            if member.name in (MANIFEST, SETTINGS) and member.size > _MOST_SMALL_BYTES:
                raise _Broken(f"{member.name} is larger than any that Attest writes (byte {member.at}).")
            keep = into / member.name if originals or not original else None
            digest = _unpack(file, member, keep, check=check)
            book.execute("INSERT INTO seen VALUES (?, ?, ?, ?)", (member.name, member.size, digest, member.at))
            found.originals += bool(original)
    except _Broken as broken:
        behind = f" The last member that could be read is {last}." if last else ""
        found.fault(f"{broken}{behind}")


def _members(file: IO[bytes]) -> Iterator[_Member]:
    """Headers one after the other. The content of each must have been read when the next is asked for."""
    while True:
        at = file.tell()
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            rest = file.read(_BLOCK + 1)
            if rest != bytes(_BLOCK):
                raise _Broken(f"The end of the file is not what it was: after byte {at + _BLOCK}.")
            return
        if len(block) < _BLOCK:
            raise _Broken(f"The file is cut off at byte {at + len(block)}.")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            same = _header(info.name, info.size, int(info.mtime)) == block
        except (tarfile.HeaderError, ValueError, UnicodeError):
            same = False
        if not same:
            raise _Broken(
                f"There should be the header of a member at byte {at}, as Attest writes it, and there is not."
            )
        yield _Member(info.name, info.size, at)


def _content(file: IO[bytes], member: _Member) -> Iterator[bytes]:
    left = member.size
    while left:
        data = file.read(min(_CHUNK, left))
        if not data:
            raise _Broken(f"The file is cut off at byte {file.tell()}, within {member.name}.")
        left -= len(data)
        yield data
    at = file.tell()
    padding = -member.size % _BLOCK
    found = file.read(padding)
    if len(found) < padding:
        raise _Broken(f"The file is cut off at byte {file.tell()}, behind {member.name}.")
    if found != bytes(padding):
        raise _Broken(f"Between byte {at} and {at + padding}, behind {member.name}, there is something.")


def _unpack(file: IO[bytes], member: _Member, target: Path | None, *, check: Check) -> str:
    """The SHA-256 of the member's content, which goes to `target` where there is one."""
    digest = hashlib.sha256()
    if target is None:
        for data in _content(file, member):
            check()
            digest.update(data)
        return digest.hexdigest()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open_new(target) as out:
        for data in _content(file, member):
            check()
            digest.update(data)
            out.write(data)
    return digest.hexdigest()


def _read_manifest(into: Path, found: Verified) -> None:
    try:
        values = json.loads((into / MANIFEST).read_text(encoding="utf-8"))
        found.manifest = Manifest(**{**values, "created_at": datetime.fromisoformat(values["created_at"])})
    except FileNotFoundError:
        found.fault(f"{MANIFEST} is not there: this is no backup of Attest, or not the beginning of one.")
    except (ValueError, TypeError, KeyError, AttributeError):
        found.fault(f"{MANIFEST} cannot be understood.")


def _check_format(found: Verified) -> None:
    manifest = found.manifest
    if manifest is not None and manifest.format != FORMAT and not any(MANIFEST in fault for fault in found.problems):
        raise Conflict(
            f"{found.path} has the format {manifest.format} of Attest {manifest.attest}; this is Attest "
            f"{installed_version()}, which reads format {FORMAT}.",
            remedy="Use that version or a later one.",
        )


def _compare(into: Path, book: sqlite3.Connection, found: Verified) -> None:
    """What was seen against the list at the end."""
    if not (into / MEMBERS).exists():
        found.fault(f"{MEMBERS}, the list at the end of every backup, is not there.")
        _compare_names(book, found)
        return
    if not _read_list(into / MEMBERS, book):
        found.fault(f"{MEMBERS}, the list of what should be there, was damaged.")
    for name, at in book.execute(
        "SELECT s.name, s.at FROM seen s JOIN listed l USING (name) "
        "WHERE s.sha256 IS NOT l.sha256 OR s.bytes IS NOT l.bytes ORDER BY s.at"
    ):
        found.fault(f"{name} is not what it was when the backup was made (byte {at} and following).")
    for (name,) in book.execute(
        "SELECT name FROM listed WHERE NOT missing AND name NOT IN (SELECT name FROM seen) ORDER BY name"
    ):
        found.fault(f"{name} is missing.")
    for name, at in book.execute(
        "SELECT name, at FROM seen WHERE name NOT IN (SELECT name FROM listed) AND name <> ? ORDER BY at", (MEMBERS,)
    ):
        found.fault(f"{name} is not on the list (byte {at}).")
    for name in (MANIFEST, SETTINGS, CATALOG):
        if not book.execute("SELECT 1 FROM listed WHERE name = ?", (name,)).fetchone():
            found.fault(f"{name} is missing, and not even on the list.")
    for name, missing in book.execute("SELECT name, missing FROM listed WHERE missing OR damaged ORDER BY name"):
        state = "missing" if missing else "damaged"
        found.notes.append(f"{name} was {state} in the data folder already when the backup was made.")
        if len(found.notes) == _MOST_PROBLEMS:
            break


def _compare_names(book: sqlite3.Connection, found: Verified) -> None:
    """Without a list: an original is called by the hash of its content."""
    for name, at in book.execute(
        "SELECT name, at FROM seen WHERE name LIKE 'originals/%' AND substr(name, 14) <> sha256"
    ):
        found.fault(f"{name} is not what its name says (byte {at} and following).")


def _read_list(path: Path, book: sqlite3.Connection) -> bool:
    """Whether the list is what it was: its last line has the hash of those before."""
    lines, whole = hashlib.sha256(), False
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            if whole:
                return False  # something behind the last line
            try:
                values = json.loads(line)
                if "lines_sha256" in values:
                    whole = line == _line(lines_sha256=lines.hexdigest())
                    if not whole:
                        return False
                    continue
                lines.update(line)
                row = (values["name"], values.get("bytes"), values.get("sha256"))
                flags = (bool(values.get("missing")), bool(values.get("damaged")))
                book.execute("INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?)", (*row, *flags))
            except (ValueError, TypeError, KeyError, sqlite3.Error):
                return False
    return whole


def _examine_catalog(copy: Path, book: sqlite3.Connection, found: Verified) -> None:
    manifest = found.manifest
    assert manifest is not None
    try:
        faults = backups.faults_of(copy)
        facts = backups.facts_of(copy)
        for fault in faults:
            found.fault(f"{CATALOG}: {fault}.")
        said = (manifest.schema, manifest.catalog_id, manifest.change)
        if (facts.schema, facts.catalog_id, facts.change) != said:
            found.fault(f"{CATALOG} is not the one that {MANIFEST} speaks of.")
        if facts.schema not in known_revisions():
            found.notes.append(
                f"Attest {manifest.attest} made it, which is newer than this one ({installed_version()}): whether "
                "every original that it names is there was not looked into."
            )
            return
        for digest, needed in backups.originals_of(copy):
            name = f"originals/{digest[:2]}/{digest}"
            here = book.execute("SELECT 1 FROM seen WHERE name = ?", (name,)).fetchone()
            told = book.execute("SELECT 1 FROM listed WHERE name = ?", (name,)).fetchone()
            if needed and not here and not told:  # what is listed and not here was said already
                found.fault(f"{name} is missing, which the catalog names.")
    except (sqlite3.Error, ValueError, TypeError, KeyError) as problem:
        found.fault(f"{CATALOG} cannot be read: {problem}.")


# ── putting it back ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Restored:
    verified: Verified
    data_dir: Path
    aside: Path | None  # where the knowledge base that was there before is now
    cancelled: int  # unfinished jobs


def restore(path: Path, data_dir: Path, *, replace: bool = False, check: Check = lambda: None) -> Restored:
    """Make the knowledge base of a backup in a folder that has none, after everything in the file was checked.

    With `replace`, what is in the folder is moved aside; nothing is deleted. Caches are made, and an older schema is
    brought up to date, when the service starts. Raises InvalidInput for a file that is not whole, Conflict for a folder
    that is not empty or a backup of a newer Attest, FolderInUse while a service owns the folder, and DiskFull.
    """
    with _opened(path) as file:
        made = not data_dir.exists()
        owner = Owner(data_dir)
        try:
            present = _belongings(data_dir)
            if present and not replace:
                raise Conflict(
                    f"The data folder {data_dir} is not empty.",
                    remedy="Give another one with --data-dir, or --replace to have what is there moved aside.",
                )
            with says_when_full(data_dir):
                return _restore(path, file, data_dir.resolve(), present, check=check)
        finally:
            owner.release()
            if made and not _belongings(data_dir):
                _remove_empty(data_dir)


def _remove_empty(folder: Path) -> None:
    """A folder that is there for our lock alone."""
    with suppress(OSError):  # something else came into it
        (folder / "owner.lock").unlink(missing_ok=True)
        folder.rmdir()


def _belongings(folder: Path) -> list[str]:
    """What is in the folder, apart from the lock, hidden files, and what lies beside a knowledge base."""
    names = sorted(entry.name for entry in folder.iterdir())
    return [name for name in names if name not in _BESIDE | _LOCK and not name.startswith(".")]


def _restore(path: Path, file: IO[bytes], data_dir: Path, present: list[str], *, check: Check) -> Restored:
    size, free = os.fstat(file.fileno()).st_size, free_bytes(data_dir)
    if free < size + _SPARE_BYTES:
        raise disk_full(data_dir, wanted_bytes=size + _SPARE_BYTES - free)
    for left in data_dir.glob(".restore-*"):
        shutil.rmtree(left)  # of an attempt that was killed; nobody else is here while we have the lock
    staged = Path(tempfile.mkdtemp(dir=data_dir, prefix=".restore-"))
    try:
        found = _read(path, file, staged, originals=True, check=check)
        if not found.ok:
            more = f" And {len(found.problems) - 1} more." if len(found.problems) > 1 else ""
            raise InvalidInput(
                f"{path} is not whole: {found.problems[0]}{more} Nothing was restored.",
                remedy="attest backup verify names everything; take another backup.",
            )
        assert found.manifest is not None
        if found.manifest.schema not in known_revisions():
            raise Conflict(
                f"{path} was made by Attest {found.manifest.attest} (schema {found.manifest.schema}); this is Attest "
                f"{installed_version()}, which knows schemas up to {newest_revision()}. Nothing was restored.",
                remedy="Install that version or a later one, and restore with it.",
            )
        cancelled = backups.prepare_restored(
            staged / CATALOG, archive=path.resolve(), size=size, created_at=found.manifest.created_at
        )
        os.sync()  # once for all: waiting for each of a hundred thousand originals takes minutes
        if (staged / SETTINGS).exists():
            (staged / SETTINGS).rename(staged / RESTORED_SETTINGS)
        aside = _move_aside(data_dir, present) if present else None
        # The catalog comes last: without it there is no knowledge base here, and with it all of it is here.
        for entry in sorted(staged.iterdir(), key=lambda entry: entry.name == CATALOG):
            entry.rename(data_dir / entry.name)
        sync_folder(data_dir)
    finally:
        shutil.rmtree(staged)
    return Restored(found, data_dir, aside, cancelled)


def _move_aside(data_dir: Path, names: Iterable[str]) -> Path:
    """Where these entries are now: beside the data folder, or within it where that is a volume of its own."""
    name = f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z"
    aside = data_dir.with_name(f"{data_dir.name}.{name}")
    try:
        aside.mkdir(mode=0o700)
        if aside.stat().st_dev != data_dir.stat().st_dev:
            aside.rmdir()
            raise OSError
    except OSError:
        aside = data_dir / f".{name}"
        aside.mkdir(mode=0o700)
    # The catalog goes first: what is left of a knowledge base without it is not taken for one.
    for entry in sorted(names, key=lambda entry: (not entry.startswith(CATALOG), entry)):
        (data_dir / entry).rename(aside / entry)
    return aside
