"""A read-only, consistent look at a database: connecting, the limits of time, and errors that keep its credentials.

Every call to a driver goes through `Database.ask`, because drivers put the user, the host and at times the whole
address into their messages, and a chained exception would carry them into a log.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote, quote_plus, unquote

from ingest.sources.rows import DamagedText
from rag.errors import AttestError, InvalidInput, NotAllowed, SourceError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

Result = TypeVar("Result")
Stage = Literal["connect", "reflect", "query", "read"]

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
}
_URL_REMEDY = (
    "Write it as postgresql://user:password@host:5432/database, mysql://user:password@host:3306/database or "
    "sqlite:///path/to/file.sqlite, with special characters of the password percent-encoded (@ is %40, / is %2F)."
)
# The server waits this long for us to take the next rows: documents may be embedded between two fetches.
_PATIENCE_WITH_US_SECONDS = 86_400


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
        self._url = _parsed_url(url)
        self._secrets = _secrets_of(self._url)
        self._statement_timeout_seconds = statement_timeout_seconds
        self._connect_timeout_seconds = connect_timeout_seconds
        self._sqlite_path = None
        if self._url.get_backend_name() == "sqlite":
            self._sqlite_path = _sqlite_path(self._url, allowed_roots)
        elif self._url.get_backend_name() == "mysql" and not self._url.database:
            raise InvalidInput("The database URL names no database.", remedy=_URL_REMEDY)
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
    def reading(self) -> Iterator[Connection]:
        """A connection inside one read-only transaction that sees one state of all tables."""
        connection = self.ask("connect", self._engine.connect)
        try:
            self.ask("connect", lambda: self._begin(connection))
            yield connection
        finally:
            # Closing politely would make PyMySQL read the rest of a half-read table; nothing was written, so hang up.
            self.ask("connect", connection.invalidate)
            self.ask("connect", connection.close)

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

    # ── errors ────────────────────────────────────────────────────────────────────────────────

    def _failure(self, stage: Stage, error: Exception) -> AttestError:
        from sqlalchemy.exc import DBAPIError

        original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        cause = self._redacted(" ".join(str(original).split()))[:400].rstrip(". ")
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

    def _redacted(self, text: str) -> str:
        """The text without user, password and address; nothing of it where the password is too short to be found."""
        if any(len(secret) < 3 for secret in self._secrets.passwords if secret):
            return ""
        text = re.sub(r"[\w+.-]+://\S+", "[address]", text)
        for secret in self._secrets.passwords:
            text = text.replace(secret, "***")
        for user in self._secrets.users:
            text = re.sub(rf"(?<!\w){re.escape(user)}(?!\w)", "***", text)
        return text


class _Secrets:
    """What must not be said, in each spelling it may have: as typed, percent-encoded, as a driver quotes it."""

    __slots__ = ("passwords", "users")

    def __init__(self, passwords: Sequence[str], users: Sequence[str]) -> None:
        self.passwords = _spellings(passwords)
        self.users = _spellings(users)


def _spellings(words: Sequence[str]) -> list[str]:
    found = set()
    for word in words:
        forms = {word, unquote(word), quote(word), quote(word, safe=""), quote_plus(word), repr(word)[1:-1]}
        found |= forms | {form.replace("'", "''") for form in forms} | {form.lower() for form in forms}
    return sorted(found - {""}, key=len, reverse=True)


def _secrets_of(url: URL) -> _Secrets:
    in_query = [
        value
        for name, values in url.query.items()
        if re.search(r"pass|pwd|secret|token|key|user", name, re.IGNORECASE)
        for value in ([values] if isinstance(values, str) else values)
    ]
    return _Secrets([str(url.password or ""), *in_query], [url.username or ""])


def _is_outage(error: Exception, message: str) -> bool:
    """Whether a refused query is the server's trouble rather than the query's."""
    from sqlalchemy.exc import DBAPIError

    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return True
    # SQLSTATE classes 08 connection, 53 resources, 57 intervention and time-outs; MySQL 2006, 2013 lost, others time.
    state = getattr(error.orig, "sqlstate", None) or ""
    code = error.orig.args[0] if error.orig is not None and error.orig.args else None
    return state[:2] in ("08", "53", "57") or code in (1969, 2006, 2013, 3024) or message in ("interrupted",)


# ── what a URL says ───────────────────────────────────────────────────────────────────────────


def _parsed_url(text: str) -> URL:
    url = _url_or_none(text)
    # "p@ss" written as it is ends up in the host's name, and the host is named in messages.
    if url is None or (url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}"):
        raise InvalidInput("The database URL cannot be read.", remedy=_URL_REMEDY)
    return url


def _url_or_none(text: str) -> URL | None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):  # their words quote parts of the URL
        return None
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _sqlite_path(url: URL, allowed_roots: Sequence[Path] | None) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise InvalidInput("The SQLite URL names no file.", remedy="Write it as sqlite:///path/to/file.sqlite.")
    path = Path(url.database).expanduser().resolve()
    if allowed_roots is not None and not any(path.is_relative_to(root.resolve()) for root in allowed_roots):
        raise NotAllowed(
            f"The database file {path} lies outside of the folders that sources may use.",
            remedy="Add its folder to ATTEST_ALLOWED_ROOTS.",
        )
    if not path.is_file():
        raise InvalidInput(f"There is no database file {path}.", remedy="Check the path in the database URL.")
    return path


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
