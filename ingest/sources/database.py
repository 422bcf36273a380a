"""Rows of a database as documents: each table's rows, or those of one query, streamed from a read-only snapshot."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.sources.database_choices import column_names, one_select, table_choice
from ingest.sources.database_connection import Database, Snapshot, Stage
from ingest.sources.database_rows import DatabaseRow
from ingest.sources.database_select import select_keyed, select_nothing, select_rows
from ingest.sources.database_shapes import Column, Reading, TableChoice, chosen, label_columns
from ingest.sources.database_stamps import Moment, Stamps
from ingest.sources.database_tables import readings as reflected_readings
from ingest.sources.rows import DamagedText
from rag.errors import DocumentError, InvalidInput
from rag.models import Item, Original, Problem, Unlisted

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

log = logging.getLogger(__name__)

_TRIED_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb")
_MOST_BY_KEY = 10_000  # rows that moved; of more, the whole table is read: their keys wait in memory
_MOST_KEY_VALUES = 500  # in one statement; SQLite takes an expression a thousand terms deep


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

    By default the text holds every column but `updated_at`, which becomes the metadata field `date`. By it a listing
    tells which rows to read; `verify` reads them all.
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
        verify: bool = False,
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
            key=column_names(key, "key"),
            text_columns=None if text_columns is None else column_names(text_columns, "text_columns"),
            metadata_columns=column_names(metadata_columns, "metadata_columns"),
            title_columns=column_names(title_columns, "title_columns"),
            updated_at=updated_at,
        )
        self._choices = None if tables is None else [table_choice(table) for table in tables]
        self._query = None if query is None else one_select(query)
        self._labels = {name: column_names(columns, "labels") for name, columns in (labels or {}).items()}
        self._verify = verify
        self._batch_rows = batch_rows
        self._max_row_characters = max_row_characters
        self._database = Database(
            url,
            allowed_roots=allowed_roots,
            statement_timeout_seconds=statement_timeout_seconds,
            connect_timeout_seconds=connect_timeout_seconds,
        )

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
        """Every row. Where there is an updated-at, rows whose stamp is the one that is known are not read.

        The state holds a hash of what the row says, so a stamp that moved alone changes nothing. With `verify`, and
        without an updated-at, every row is read: a time stamp that stood still hides no change.

        The snapshot stays open until the last row is taken (or the iterator closed): a SQLite file outside of WAL mode
        takes no writes meanwhile. Raises InvalidInput before the first row where the source does not fit the database.
        """
        stamped = any("read_as" in state for state in known.values())
        by_stamps = stamped and not self._verify and self._database.dialect in _TRIED_DIALECTS
        with self._database.reading() as snapshot:
            if self._query is not None:
                narrow = self._query_shape(snapshot, self._query) if by_stamps and self._common.updated_at else None
                start = partial(self._query_rows, snapshot, self._query)
                yield from self._items(snapshot, narrow, start, known)
                return
            for reading in self._readings(snapshot):
                start = partial(self._table_rows, snapshot, reading)
                yield from self._items(snapshot, reading if by_stamps else None, start, known)

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

    def _table_rows(self, snapshot: Snapshot, reading: Reading) -> tuple[Reading, Iterator[Sequence[Any]]]:
        return reading, self._rows(snapshot, select_rows(reading, most_characters=self._most_characters))

    def _keyed_rows(
        self, snapshot: Snapshot, reading: Reading, keys: Sequence[Sequence[Any]]
    ) -> Iterator[Sequence[Any]]:
        return self._rows(snapshot, select_keyed(reading, keys, most_characters=self._most_characters))

    def _rows(self, snapshot: Snapshot, statement: Select[Any]) -> Iterator[Sequence[Any]]:
        return self._stream(snapshot, partial(self._streaming(snapshot).execute, statement))[1]

    @property
    def _most_characters(self) -> int | None:
        return self._max_row_characters if self._database.dialect in _TRIED_DIALECTS else None

    def _query_shape(self, snapshot: Snapshot, query: str) -> Reading | None:
        """The query as something to select from; None where the database takes it only on its own."""
        connection = snapshot.connection
        self._database.ask("read", partial(connection.exec_driver_sql, "SAVEPOINT attest"))
        try:
            names = self._database.ask("query", lambda: list(connection.execute(select_nothing(query)).keys()))
            if len(set(names)) == len(names):
                return self._query_reading(query, names)
        except InvalidInput as refused:
            log.info("The query %s is read whole at each sync: %s", self._common.name, refused.detail)
        self._database.ask("read", partial(connection.exec_driver_sql, "ROLLBACK TO SAVEPOINT attest"))
        return None

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
        return self._query_reading(query, names), rows

    def _query_reading(self, query: str, names: Sequence[str]) -> Reading:
        columns = tuple(Column(name) for name in names)
        everything = tuple(name for name in names if name != self._common.updated_at)
        bare = Reading(self._common.name, columns, everything, key_is_unique=False, query=query)
        reading = chosen(bare, self._common)
        return replace(reading, title_columns=reading.title_columns or label_columns(reading.name, columns))

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

    def _items(
        self,
        snapshot: Snapshot,
        narrow: Reading | None,
        start: Callable[[], tuple[Reading, Iterator[Sequence[Any]]]],
        known: Mapping[str, Mapping[str, str]],
    ) -> Iterator[Item | Unlisted]:
        """By stamps where `narrow` says how, as far as that goes; the others from the beginning to the end."""
        yielded: set[str] = set()
        stamps = None if narrow is None else _stamps(snapshot, narrow)
        if narrow is not None and stamps is not None:
            found = yield from self._by_stamps(snapshot, narrow, stamps, known)
            if found is None:
                return
            yielded = found
        reading, rows = start()
        yield from self._whole_rows(reading, rows, _stamps(snapshot, reading), yielded)

    def _by_stamps(
        self, snapshot: Snapshot, reading: Reading, stamps: Stamps, known: Mapping[str, Mapping[str, str]]
    ) -> Generator[Item | Unlisted, None, set[str] | None]:
        """Each row's key, stamp and labels; then the rows that moved, by their keys, some hundreds at a time.

        Returns the keys that were yielded where the others take the whole table: too many moved, one cannot be asked
        for by its key, or a key is there twice. Otherwise None.
        """
        yielded: set[str] = set()
        moved: dict[str, tuple[Any, ...]] = {}
        whole = False
        prefix = f"{reading.name}/"
        # To its end before anything else is asked: MySQL has one open result for a connection.
        for values in self._rows(snapshot, select_rows(stamps.narrow, most_characters=self._most_characters)):
            found = stamps.key(values)
            if found is None or any(isinstance(part, DamagedText) for part in found[0]):
                whole = True
                continue
            key = prefix + found[1]
            if not reading.key_is_unique and (key in yielded or key in moved):
                whole = True
            elif stamps.stands(values, before := known.get(key)):
                assert before is not None
                yielded.add(key)
                uri = f"{self._database.name}/{key}"
                yield Item(key, uri, before, partial(self._load, reading, found[0], uri), unchanged=True)
            elif not whole:
                moved[key] = found[0]
                whole = len(moved) > _MOST_BY_KEY
        waiting = [] if whole else list(moved.values())
        some = max(1, min(self._batch_rows, _MOST_KEY_VALUES) // len(reading.key))
        for first in range(0, len(waiting), some):
            rows = self._keyed_rows(snapshot, reading, waiting[first : first + some])
            for item in self._whole_rows(reading, rows, stamps, yielded):
                yielded.add(item.key)
                moved.pop(item.key, None)
                yield item
        # What a key did not find again (a number that is rounded, a table outside of transactions) is not gone.
        return yielded if whole or moved else None

    def _load(self, reading: Reading, key: Sequence[Any], uri: str) -> Original:
        """A row that stood by its stamp and is wanted all the same, as it is now."""
        with self._database.reading() as snapshot:
            rows = list(self._keyed_rows(snapshot, reading, [key]))
            item = next(self._whole_rows(reading, iter(rows), _stamps(snapshot, reading), set()), None)
        if isinstance(item, Item):
            return item.load()
        if item is not None:
            raise DocumentError("too_large", item.problem.detail, remedy=item.problem.remedy)
        raise DocumentError("failed", f"{uri} was deleted before it could be read.", remedy="Sync again.")

    def _whole_rows(
        self, reading: Reading, rows: Iterator[Sequence[Any]], stamps: Stamps | None, yielded: Container[str]
    ) -> Iterator[Item | Unlisted]:
        """The rows as items, but for those that were yielded before."""
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
            if key in yielded:
                continue
            if row.characters > self._max_row_characters:
                yield Unlisted(key, uri, _too_large(self._max_row_characters))
                continue
            yield row.item(uri, stamps)


def _stamps(snapshot: Snapshot, reading: Reading) -> Stamps | None:
    """To be made when something was read already: only then is the snapshot taken for certain."""
    if not reading.updated_at or not reading.key:
        return None
    return Stamps(reading, Moment(snapshot.began, time.time(), snapshot.server_ahead))


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
