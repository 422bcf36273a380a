"""A read-only, consistent look at a database: connecting, the limits of time, and errors that keep its credentials.

Every call to a driver goes through `Database.ask`, because drivers put the user, the host and at times the whole
address into their messages, and a chained exception would carry them into a log.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ingest.sources.database_url import URL_REMEDY, parsed_url, secrets_of, sqlite_path
from ingest.sources.rows import DamagedText
from rag.errors import AttestError, InvalidInput, SourceError

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Engine

Result = TypeVar("Result")
Stage = Literal["connect", "reflect", "query", "read"]

# The server waits this long for us to take the next rows: documents may be embedded between two fetches.
_PATIENCE_WITH_US_SECONDS = 86_400

# SQLSTATE classes: connection, transaction rolled back, resources, intervention and time-outs, system, internal.
_OUTAGE_STATES = ("08", "40", "53", "57", "58", "XX")
_OUTAGE_CODES = (1053, 1205, 1213, 1317, 1969, 2006, 2013, 3024)  # MySQL: shutdown, locks, killed, time, gone, lost
_OUTAGE_MESSAGES = ("interrupted", "database is locked", "disk I/O", "database disk image", "file is not a database")


@dataclass(slots=True)
class Snapshot:
    """A connection in its read-only transaction, and the results that are still open on it."""

    connection: Connection
    began: float  # seconds since 1970; what changed before may be in it
    results: list[CursorResult[Any]] = field(default_factory=list)
    server_ahead: float = 0.0  # seconds, its clock against ours


class Database:
    """One database, opened anew for each reading. Its repr and its errors say nothing of user and password."""

    def __init__(
        self,
        url: str,
        *,
        allowed_roots: Sequence[Path] | None,
        statement_timeout_seconds: float,
        connect_timeout_seconds: float,
    ) -> None:
        if statement_timeout_seconds <= 0 or connect_timeout_seconds <= 0:
            raise InvalidInput("The time limits of a database source must be positive numbers of seconds.")
        self._url = parsed_url(url)
        self._secrets = secrets_of(self._url)
        self._statement_timeout_seconds = statement_timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._sqlite_path = None
        if self._url.get_backend_name() == "sqlite":
            self._sqlite_path = sqlite_path(self._url, allowed_roots)
        elif self._url.get_backend_name() == "mysql" and not self._url.database:
            raise InvalidInput("The database URL names no database.", remedy=URL_REMEDY)
        self._deadline = float("inf")
        self._engine = self.ask("connect", self._make_engine)

    @property
    def name(self) -> str:
        """The database's name, or its file's name without suffix; part of every citation."""
        if self._sqlite_path is not None:
            return self._sqlite_path.stem
        return self._url.database or self._url.get_backend_name()

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """A connection inside one read-only transaction that sees one state of all tables."""
        connection = self.ask("connect", self._engine.connect)
        driver_connection = connection.connection.dbapi_connection
        snapshot = Snapshot(connection, began=time.time())
        try:
            self.ask("connect", lambda: self._begin(connection))
            snapshot.server_ahead = self.ask("connect", lambda: self._server_ahead(connection))
            yield snapshot
        finally:
            # Nothing was written, so hang up: closing politely would first read a half-read table to its end.
            _forget_unread_rows(driver_connection)
            for result in snapshot.results:
                self.ask("read", result.close)
            self.ask("read", connection.invalidate)
            self.ask("read", connection.close)

    def ask(self, stage: Stage, call: Callable[[], Result]) -> Result:
        """The call's result; whatever its driver raises becomes an error of ours with the credentials taken out."""
        self._deadline = time.monotonic() + self._statement_timeout_seconds
        try:
            return call()
        except AttestError:
            raise
        except Exception as error:  # noqa: BLE001 — drivers raise what they like, and their words may hold the password
            failure = self._failure(stage, error)
        # Outside of the handler on purpose: inside it, the driver's own error would travel along as __context__.
        raise failure

    # ── connecting ────────────────────────────────────────────────────────────────────────────

    def _make_engine(self) -> Engine:
        from sqlalchemy import create_engine
        from sqlalchemy.exc import NoSuchModuleError
        from sqlalchemy.pool import NullPool

        options: dict[str, Any] = {"poolclass": NullPool, "hide_parameters": True}
        if self._sqlite_path is not None:
            return create_engine("sqlite://", creator=self._open_sqlite, **options)
        backend = self._url.get_backend_name()
        whole_seconds = max(1, round(self._connect_timeout_seconds))
        if backend == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "connect_args": {"connect_timeout": whole_seconds}}
            options["execution_options"] = {"postgresql_readonly": True}
        elif self._url.drivername == "mysql+pymysql":
            # The server's own limit counts the time that we take between two fetches; the socket's does not.
            read_timeout = max(1, round(self._statement_timeout_seconds))
            options["connect_args"] = {"connect_timeout": whole_seconds, "read_timeout": read_timeout}
            if "charset" not in self._url.query:
                options["connect_args"]["charset"] = "utf8mb4"
        try:
            engine = create_engine(self._url, **options)
        except (NoSuchModuleError, ModuleNotFoundError):
            engine = None
        if engine is None or engine.dialect.is_async:
            raise InvalidInput(
                f"There is no usable driver for {self._url.drivername} databases.",
                remedy="Install a synchronous SQLAlchemy driver for it, or use a postgresql, mysql or sqlite URL.",
            )
        return engine

    def _open_sqlite(self) -> sqlite3.Connection:
        path = self._sqlite_path
        if path is None or not path.is_file():
            raise InvalidInput(f"There is no database file {path}.", remedy="Check the path in the database URL.")
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=ro",
            uri=True,
            timeout=self._connect_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = _sqlite_text
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, 10_000)
        return connection

    def _begin(self, connection: Connection) -> None:
        milliseconds = max(1, round(self._statement_timeout_seconds * 1000))
        if self.dialect == "sqlite":
            for statement in ("PRAGMA query_only = ON", "BEGIN"):
                connection.exec_driver_sql(statement)
        elif self.dialect == "postgresql":
            for name, value in (
                ("statement_timeout", f"{milliseconds}"),
                ("idle_in_transaction_session_timeout", f"{_PATIENCE_WITH_US_SECONDS * 1000}"),
                ("timezone", "UTC"),
                ("datestyle", "ISO"),
                ("intervalstyle", "postgres"),
            ):
                connection.exec_driver_sql(f"SET LOCAL {name} = '{value}'")
            _keep_moments_as_text(connection)
        elif self.dialect in ("mysql", "mariadb"):
            for statement in (
                f"SET SESSION net_write_timeout = {_PATIENCE_WITH_US_SECONDS}",
                "SET SESSION time_zone = '+00:00'",
                "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                "SET SESSION TRANSACTION READ ONLY",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
            ):
                connection.exec_driver_sql(statement)

    def _server_ahead(self, connection: Connection) -> float:
        """Its clock against ours, in seconds. A file has none of its own."""
        clocks = {"postgresql": "SELECT extract(epoch FROM now())"}
        clocks |= dict.fromkeys(("mysql", "mariadb"), "SELECT unix_timestamp(now(6))")
        clock = clocks.get(self.dialect)
        return 0.0 if clock is None else float(connection.exec_driver_sql(clock).scalar_one()) - time.time()

    # ── errors ────────────────────────────────────────────────────────────────────────────────

    def _failure(self, stage: Stage, error: Exception) -> AttestError:
        from sqlalchemy.exc import DBAPIError

        original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        cause = self._secrets.redacted(" ".join(str(original).split()))[:400].rstrip(". ")
        cause = f": {cause}." if cause else f" ({type(original).__name__})."
        database = f"the database {self.name}" if hasattr(self, "_engine") else "the database"
        if stage == "connect":
            return SourceError(
                f"Attest could not connect to {database}{cause}",
                remedy="Check that the server runs and that address, user and password in the database URL are right.",
            )
        if stage == "query" and not _is_outage(error, str(original)):
            return InvalidInput(
                f"The database refused the query{cause}", remedy="Try the query in the database's own console."
            )
        return SourceError(
            f"Reading {database} was broken off{cause}",
            remedy="Nothing is deleted because of it. Check the server and the user's rights, and sync again.",
        )


def _is_outage(error: Exception, message: str) -> bool:
    """Whether a refused query is the server's trouble rather than the query's."""
    from sqlalchemy.exc import DBAPIError

    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return state[:2] in _OUTAGE_STATES or code in _OUTAGE_CODES or message.startswith(_OUTAGE_MESSAGES)


# ── what drivers need ─────────────────────────────────────────────────────────────────────────


def _sqlite_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return DamagedText(data.decode(errors="replace"))


def _keep_moments_as_text(connection: Connection) -> None:
    """psycopg raises on dates beyond the year 9999 and on `infinity`, which would cost the whole table for one row."""
    if connection.dialect.driver != "psycopg":
        return
    from ingest.sources.database_psycopg import register_stamps

    register_stamps(connection.connection.dbapi_connection)


def _forget_unread_rows(driver_connection: Any) -> None:
    """PyMySQL reads what is left of a result when that is closed or collected, and fails where the socket is gone."""
    result = getattr(driver_connection, "_result", None)
    if result is not None and hasattr(result, "unbuffered_active"):
        result.unbuffered_active, result.has_next = False, None
