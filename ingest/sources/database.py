"""Rows of a database as documents: each table's rows, or those of one query, streamed from a read-only snapshot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.sources.database_connection import Database, Snapshot, Stage
from ingest.sources.database_rows import DatabaseRow
from ingest.sources.database_select import select_rows
from ingest.sources.database_shapes import Column, Reading, TableChoice, chosen, label_columns
from ingest.sources.database_tables import readings as reflected_readings
from rag.errors import InvalidInput
from rag.models import Item, Problem, Unlisted

if TYPE_CHECKING:
    from sqlalchemy import Connection

_TRIED_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")
_TABLE_FIELDS = ("name", "key", "text_columns", "metadata_columns", "title_columns", "updated_at")
# A quoted string or name, a comment, or a character that means something outside of them.
_SQL_PART = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|(\$\w*\$).*?\1|--[^\n]*|/\*(?![!M]).*?\*/|(;)|(/\*)""", re.DOTALL
)


class DatabaseSource:
    """A `Source`. Reads in a read-only transaction that sees one state of all tables; never writes.

    `tables`: names (`Track`, `sales.orders`) or mappings `{name, key?, text_columns?, metadata_columns?,
    title_columns?, updated_at?}`; None reads every table of the database (of PostgreSQL, of every schema), views and
    partitions not. `key`, `text_columns` … beside `tables` hold for each table that has columns of these names.

    A row's key is the primary key, else a unique index without NULLs; a row without either is known by its content,
    so that a changed row is a new document and equal rows are one. With `query`, `key` must be given.

    A foreign key reads as the label of the row it refers to, and that row's owner's: `Album: Facelift (Artist: Alice In
    Chains)`; one that people use as a code keeps it: `Sku: TL-1310 (TideLog Cryo)`. `labels` sets a table's label
    columns (`{"Employee": ["FirstName", "LastName"]}`; an empty list: none); otherwise they are found by their names.
    The referred tables are read for it even where `tables` leaves them out.

    By default the text holds every column but `updated_at`, which becomes the metadata field `date`.
    """

    def __init__(
        self,
        *,
        url: str,
        tables: Sequence[str | Mapping[str, object]] | None = None,
        query: str | None = None,
        query_name: str = "query",
        key: Sequence[str] = (),
        text_columns: Sequence[str] | None = None,
        metadata_columns: Sequence[str] = (),
        title_columns: Sequence[str] = (),
        updated_at: str | None = None,
        labels: Mapping[str, str | Sequence[str]] | None = None,
        allowed_roots: Sequence[Path] | None = None,
        batch_rows: int = 500,
        max_row_characters: int = 10_000_000,
        statement_timeout_seconds: float = 300.0,
        connect_timeout_seconds: float = 10.0,
    ) -> None:
        if query is not None and tables is not None:
            raise InvalidInput("A database source has either tables or a query.", remedy="Leave one of them out.")
        if query is not None and not key:
            raise InvalidInput(
                "A query needs a key.", remedy="Name the columns that tell its rows apart, as key: [id]."
            )
        if batch_rows < 1 or max_row_characters < 1:
            raise InvalidInput("batch_rows and max_row_characters must be at least 1.")
        self._common = TableChoice(
            name=query_name,
            key=_names(key, "key"),
            text_columns=None if text_columns is None else _names(text_columns, "text_columns"),
            metadata_columns=_names(metadata_columns, "metadata_columns"),
            title_columns=_names(title_columns, "title_columns"),
            updated_at=updated_at,
        )
        self._choices = None if tables is None else [_table_choice(table) for table in tables]
        self._query = None if query is None else _one_select(query)
        self._labels = {name: _names(columns, "labels") for name, columns in (labels or {}).items()}
        self._batch_rows = batch_rows
        self._max_row_characters = max_row_characters
        self._database = Database(
            url,
            allowed_roots=allowed_roots,
            statement_timeout_seconds=statement_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
        )

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:  # noqa: ARG002
        """Every row. The state holds a hash of what the row says: a time stamp that stood still hides no change.

        The snapshot stays open until the last row is taken (or the iterator closed): a SQLite file outside of WAL mode
        takes no writes meanwhile. Raises InvalidInput before the first row where the source does not fit the database.
        """
        with self._database.reading() as snapshot:
            if self._query is not None:
                yield from self._table_items(*self._query_rows(snapshot, self._query))
                return
            for reading in self._readings(snapshot):
                limit = self._max_row_characters if self._database.dialect in _TRIED_DIALECTS else None
                statement = select_rows(reading, most_characters=limit)
                _, rows = self._stream(snapshot, partial(self._streaming(snapshot).execute, statement))
                yield from self._table_items(reading, rows)

    def check(self) -> list[str]:
        """The names of the tables that a sync would read; raises what a sync would raise before its first row."""
        with self._database.reading() as snapshot:
            if self._query is None:
                return [reading.name for reading in self._readings(snapshot)]
            return [self._query_rows(snapshot, self._query)[0].name]

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    def _readings(self, snapshot: Snapshot) -> list[Reading]:
        def reflect() -> list[Reading]:
            return reflected_readings(snapshot.connection, self._choices, common=self._common, labels=self._labels)

        return self._database.ask("reflect", reflect)

    def _query_rows(self, snapshot: Snapshot, query: str) -> tuple[Reading, Iterator[Sequence[Any]]]:
        # As it is: without parameters neither a colon nor a percent sign means anything to SQLAlchemy or the driver.
        def start() -> Any:
            return self._streaming(snapshot).execution_options(no_parameters=True).exec_driver_sql(query)

        names, rows = self._stream(snapshot, start)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(
                f"The query has more than one column called {', '.join(twice)}.",
                remedy="Give each its own name with AS.",
            )
        columns = tuple(Column(name) for name in names)
        everything = tuple(name for name in names if name != self._common.updated_at)
        reading = chosen(Reading(self._common.name, columns, everything, key_is_unique=False), self._common)
        titles = reading.title_columns or label_columns(reading.name, columns)
        return replace(reading, title_columns=titles), rows

    def _streaming(self, snapshot: Snapshot) -> Connection:
        return snapshot.connection.execution_options(stream_results=True, yield_per=self._batch_rows)

    def _stream(self, snapshot: Snapshot, start: Callable[[], Any]) -> tuple[list[str], Iterator[Sequence[Any]]]:
        """The columns' names and the rows, fetched a batch at a time through a server-side cursor."""
        stage: Stage = "query" if self._query is not None else "read"
        result = self._database.ask(stage, start)
        snapshot.results = [result]
        names = self._database.ask(stage, lambda: list(result.keys()))

        def rows() -> Iterator[Sequence[Any]]:
            first = True
            # SQLite and PostgreSQL run the query at its first fetch: until then the query may be to blame.
            while batch := self._database.ask(stage if first else "read", lambda: result.fetchmany(self._batch_rows)):
                first = False
                yield from batch
            self._database.ask("read", result.close)

        return names, rows()

    # ── rows ──────────────────────────────────────────────────────────────────────────────────

    def _table_items(self, reading: Reading, rows: Iterator[Sequence[Any]]) -> Iterator[Item | Unlisted]:
        seen: set[bytes] = set()  # only where nothing promises that keys are unique
        for values in rows:
            row = DatabaseRow(reading, values)
            key, uri = row.key, f"{self._database.name}/{reading.name}/{row.path}"
            if not reading.key_is_unique or row.by_content:
                digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()
                if digest in seen:
                    if not row.by_content:
                        yield _duplicate(key, uri, len(seen))
                    continue
                seen.add(digest)
            if row.characters > self._max_row_characters:
                yield Unlisted(key, uri, _too_large(self._max_row_characters))
                continue
            yield row.item(uri)


def _too_large(limit: int) -> Problem:
    return Problem(
        "too-large",
        f"The row's text is longer than {limit:,} characters.",
        "Leave the column out with text_columns, or cut it in a query.",
    )


def _duplicate(key: str, uri: str, number: int) -> Unlisted:
    problem = Problem(
        "duplicate-key",
        f"More than one row has the key {key}; only the first was read.",
        "Name key columns that tell every row apart.",
    )
    return Unlisted(f"{key}#{number}", uri, problem)


# ── what the owner wrote ──────────────────────────────────────────────────────────────────────


def _table_choice(table: str | Mapping[str, object]) -> TableChoice:
    if isinstance(table, str):
        return TableChoice(table)
    unknown = sorted(set(table) - set(_TABLE_FIELDS))
    name, updated_at = table.get("name"), table.get("updated_at")
    if unknown or not isinstance(name, str) or not isinstance(updated_at, str | None):
        raise InvalidInput(
            f"A table of a database source cannot be read: {unknown or 'its name or updated_at is not a text'}.",
            remedy=f"Write a name, or a mapping with {', '.join(_TABLE_FIELDS)}.",
        )
    return TableChoice(
        name=name,
        key=_names(table.get("key", ()), "key"),
        text_columns=None if table.get("text_columns") is None else _names(table["text_columns"], "text_columns"),
        metadata_columns=_names(table.get("metadata_columns", ()), "metadata_columns"),
        title_columns=_names(table.get("title_columns", ()), "title_columns"),
        updated_at=updated_at,
    )


def _names(value: object, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise InvalidInput(f"{what} must be a column's name or a list of them.")
    return tuple(value)


def _one_select(query: str) -> str:
    """The query without its closing semicolon, if it is one that only reads.

    A courtesy with a clear message: the read-only transaction and the drivers, which take one statement, are the guard.
    """
    query = query.strip().rstrip(";").rstrip()
    plain = _SQL_PART.sub(lambda match: match[2] or match[3] or " ", query)
    words = plain.replace("(", " ").split()
    if not words or words[0].upper() not in ("SELECT", "WITH", "VALUES", "TABLE"):
        raise InvalidInput("The query of a database source must be a SELECT.", remedy="Start it with SELECT or WITH.")
    if ";" in plain:
        raise InvalidInput("The query holds more than one statement.", remedy="Give one SELECT, without a semicolon.")
    if "/*" in plain or re.search(r"\bINTO\s+(OUTFILE|DUMPFILE)\b", plain, re.IGNORECASE):
        raise InvalidInput("The query would do more than read.", remedy="Take INTO OUTFILE and `/*!` out of it.")
    return query
