"""The catalog's database: transactions that mean what they say, and the schema brought up to date."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection as Connection  # the rooms above speak of connections without knowing SQLAlchemy
from sqlalchemy import Engine, create_engine, event, func, insert, select, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import ConnectionPoolEntry

from rag.catalog.tables import activations, facts
from rag.disk import disk_full, is_database_full, is_full, sync_folder
from rag.errors import Conflict, Unavailable

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")

MIGRATIONS = Path(__file__).parent / "migrations"
_COPY_PAGES = 2_000  # of the database per step of a copy, between which a cancel is heard
# Given back when the disk is full, so that what went wrong can still be written down: a small commit takes some pages.
_RESERVE_BYTES = 512 * 1024
# Built once: every question runs them, and building them takes longer than running them.
_ANY_FACT = select(facts.c.value).limit(1)
_LAST_CHANGE = select(facts.c.value).where(facts.c.name == "change")
_CHECKPOINTS, _CHECKPOINT_PAUSE_SECONDS = 600, 0.1


def now() -> datetime:
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """An opaque id; the prefix is for people who read logs."""
    return f"{prefix}_{secrets.token_hex(8)}"


class Catalog:
    """One database file. Thread-safe; each transaction has a connection of its own.

    Opening it brings its schema up to date, after a copy of it was put beside it (`migration_copies`). Raises Conflict
    for one that a newer Attest wrote, and DiskFull from here and every transaction.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reserve = path.with_name(f"{path.name}.reserve")
        revision = schema_revision(path)
        if revision is not None:
            check_known(revision, path=path)
        with self._says_when_full():
            if revision not in (None, newest_revision()):
                _copy_before_migration(path)
            self._engine = _sqlite(path)
            if revision != newest_revision():
                migrate(self._engine)
        with self.write() as connection:
            self.id = _own_id(connection)
            remember(connection, "written_by", installed_version())
        self._keep_reserve()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: every statement inside sees the same state, whatever is written meanwhile."""
        with self._says_when_full(), self._engine.connect() as connection, connection.begin():
            connection.execute(_ANY_FACT).first()  # SQLite takes its snapshot at the first read
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """All of it or nothing. Takes the writer's lock at once, so that what was read stays true until the commit."""
        with (
            self._says_when_full(),
            self._engine.connect().execution_options(attest_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    def copy_to(self, path: Path, *, check: Callable[[], None] = lambda: None) -> None:
        """The catalog as it is now, as one file of its own. Readers and writers go on meanwhile; what they write from
        now on is not in it. `check` is called between two steps and may raise. Raises DiskFull.
        """
        with closing(sqlite3.connect(self.path, isolation_level=None)) as source:
            # Inside of a read transaction all steps copy one snapshot; without, a commit in between would begin the
            # copying anew. In WAL mode it keeps no writer waiting.
            source.execute("BEGIN")
            source.execute("SELECT value FROM facts LIMIT 1").fetchone()
            copy_database(source, path, check=check)

    def write_anew(self) -> None:
        """The file without free pages and the write-ahead log emptied: what was deleted is in neither of them.

        Takes the time of copying the file; writers wait, readers do not. Raises Unavailable where somebody reads an
        old snapshot for so long that the log cannot be emptied.
        """
        raw = self._engine.raw_connection()
        try:
            cursor: Any = raw.cursor()
            with self._says_when_full():
                cursor.execute("VACUUM")
            for _ in range(_CHECKPOINTS):
                busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    return
                time.sleep(_CHECKPOINT_PAUSE_SECONDS)
        finally:
            raw.close()
        raise Unavailable(
            "The catalog's write-ahead log could not be emptied: somebody has been reading for a minute.",
            remedy="Restart the service, which empties it.",
        )

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _says_when_full(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, sqlite3.Error) as problem:
            raw = problem.orig if isinstance(problem, OperationalError) else problem
            if not isinstance(raw, sqlite3.Error) or not is_database_full(raw, self.path):
                raise
            self._reserve.unlink(missing_ok=True)  # a few more small commits go through
            raise disk_full(self.path) from problem

    def _keep_reserve(self) -> None:
        """Some bytes that only this catalog gives back. Without room for them there is none."""
        with suppress(OSError):
            if not self._reserve.exists() and not is_full(self.path.parent):
                self._reserve.write_bytes(bytes(_RESERVE_BYTES))


def next_change(connection: Connection) -> int:
    """The number of the change that this transaction makes. Changes count up and are never reused."""
    connection.execute(update(facts).where(facts.c.name == "change").values(value=str(last_change(connection) + 1)))
    return last_change(connection)


def last_change(connection: Connection) -> int:
    return int(connection.execute(_LAST_CHANGE).scalar_one())


def next_moment(connection: Connection) -> datetime:
    """When the change of this transaction happens: now, and never before or with an earlier one, so that the order in
    time is the order of changes though the machine's clock be set back. Recorded."""
    recorded = fact(connection, "moment")
    if recorded is not None:
        last: datetime | None = datetime.fromisoformat(recorded)
    else:  # written by a version that recorded none
        ends = connection.execute(select(func.max(activations.c.from_at), func.max(activations.c.to_at))).one()
        last = max((moment for moment in ends if moment is not None), default=None)
    moment = now() if last is None else max(now(), last + timedelta(microseconds=1))
    remember(connection, "moment", moment.isoformat())
    return moment


def quick_check(connection: Connection) -> str:
    """`ok`, or what SQLite finds wrong with the file."""
    return str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())


def migrate(engine: Engine) -> None:
    """Bring the schema to the newest revision, in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.connect().execution_options(attest_write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


# ── the schema of a file ──────────────────────────────────────────────────────────────────────


def installed_version() -> str:
    """Of this Attest."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("attest")
    except PackageNotFoundError:  # run from a checkout that nobody installed
        return "unknown"


@cache
def known_revisions() -> tuple[str, ...]:
    """Oldest first: the names of the migrations begin with them. A look at the folder is quicker than Alembic."""
    return tuple(sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")))


def newest_revision() -> str:
    return known_revisions()[-1]


def schema_revision(path: Path) -> str | None:
    """Of a catalog's file, or None where there is none yet. Nothing is written. Raises Unavailable for no catalog."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        with closing(_open_read_only(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "alembic_version" not in tables:
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as problem:
        raise Unavailable(
            f"{path} cannot be read as a catalog: {problem}.",
            remedy="Bring it back from a backup: attest backup restore FILE --replace.",
        ) from problem
    return str(row[0]) if row else None


def check_known(revision: str, *, path: Path) -> None:
    """Raises Conflict where a newer Attest wrote the file."""
    if revision in known_revisions():
        return
    with closing(_open_read_only(path)) as connection:
        row = connection.execute("SELECT value FROM facts WHERE name = 'written_by'").fetchone()
    writer = f"Attest {row[0]}" if row else "a newer Attest"
    raise Conflict(
        f"{path} was written by {writer} (schema {revision}); this is Attest {installed_version()}, which knows "
        f"schemas up to {newest_revision()}. Nothing was changed.",
        remedy="Start that version or a later one; or go back with a backup or with the copy that was put beside the "
        "catalog before the upgrade (docs/upgrading.md).",
    )


def migration_copies(path: Path) -> list[Path]:
    """Copies that were put beside this catalog before migrations, oldest schema first. They hold what it held then,
    documents that were purged since included."""
    return sorted(copy for copy in path.parent.glob(f"{path.name}.before-*") if copy.is_file())


def _copy_before_migration(path: Path) -> None:
    copy = path.with_name(f"{path.name}.before-{newest_revision()}")
    part = copy.with_name(f"{copy.name}.part")
    try:
        with closing(_open_read_only(path)) as source:
            copy_database(source, part)
        part.replace(copy)
        sync_folder(copy.parent)
    finally:
        part.unlink(missing_ok=True)
    log.warning("The catalog's schema is brought to %s. What it was is kept as %s.", newest_revision(), copy)


def copy_database(source: sqlite3.Connection, path: Path, *, check: Callable[[], None] = lambda: None) -> None:
    """One file without a journal beside it, on the disk when this returns. Raises DiskFull, and leaves nothing then."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as target:
            source.backup(target, pages=_COPY_PAGES, progress=lambda *_of: check(), sleep=0.001)
            target.execute("PRAGMA journal_mode=DELETE")  # the copy has its source's, and with WAL it is not one file
    except BaseException as problem:
        path.unlink(missing_ok=True)
        if isinstance(problem, sqlite3.Error) and is_database_full(problem, path):
            raise disk_full(path) from problem
        raise
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)


def batches(values: Sequence[_Value], size: int) -> Iterator[Sequence[_Value]]:
    """For statements with IN (…), one after the other."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def fact(connection: Connection, name: str) -> str | None:
    """What is remembered of the catalog as a whole."""
    return connection.execute(select(facts.c.value).where(facts.c.name == name)).scalar_one_or_none()


def remember(connection: Connection, name: str, value: str) -> None:
    done = connection.execute(update(facts).where(facts.c.name == name).values(value=value))
    if not done.rowcount:
        connection.execute(insert(facts).values(name=name, value=value))


def _own_id(connection: Connection) -> str:
    found = fact(connection, "catalog_id")
    if found is not None:
        return found
    created = secrets.token_hex(16)
    connection.execute(insert(facts), [{"name": "catalog_id", "value": created}, {"name": "change", "value": "0"}])
    return created


def _sqlite(path: Path) -> Engine:
    # By default pysqlite opens transactions late and SELECTs see two states on one connection (measured). With
    # isolation_level=None and BEGIN emitted here, a transaction is a snapshot:
    # https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"isolation_level": None, "timeout": 60.0},
        pool_size=64,
        json_serializer=partial(json.dumps, ensure_ascii=False, separators=(",", ":")),
    )

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor: Any = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=60000",
            "cache_size=-32000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("attest_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
