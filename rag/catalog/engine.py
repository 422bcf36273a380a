"""The catalog's database: transactions that mean what they say, and the schema brought up to date."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as Connection  # the rooms above speak of connections without knowing SQLAlchemy
from sqlalchemy import Engine, create_engine, event, insert, select, update
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from rag.catalog.tables import facts

MIGRATIONS = Path(__file__).parent / "migrations"


def now() -> datetime:
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """An opaque id; the prefix is for people who read logs."""
    return f"{prefix}_{secrets.token_hex(8)}"


class Catalog:
    """One database file. Thread-safe; each transaction has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._engine = _sqlite(path)
        migrate(self._engine)
        with self.write() as connection:
            self.id = _own_id(connection)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: every statement inside sees the same state, whatever is written meanwhile."""
        with self._engine.connect() as connection, connection.begin():
            connection.execute(select(facts.c.value).limit(1)).first()  # SQLite takes its snapshot at the first read
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """All of it or nothing. Takes the writer's lock at once, so that what was read stays true until the commit."""
        with self._engine.connect().execution_options(attest_write=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def next_change(connection: Connection) -> int:
    """The number of the change that this transaction makes. Changes count up and are never reused."""
    connection.execute(update(facts).where(facts.c.name == "change").values(value=str(last_change(connection) + 1)))
    return last_change(connection)


def last_change(connection: Connection) -> int:
    return int(connection.execute(select(facts.c.value).where(facts.c.name == "change")).scalar_one())


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


def _own_id(connection: Connection) -> str:
    found = connection.execute(select(facts.c.value).where(facts.c.name == "catalog_id")).scalar_one_or_none()
    if found is not None:
        return str(found)
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
