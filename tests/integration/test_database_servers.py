"""Real PostgreSQL and MariaDB: equal rows give equal documents, nothing is written, and nothing secret is said."""

from __future__ import annotations

import logging
import os
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from ingest.sources.database import DatabaseSource
from ingest.sync import Report, SyncOptions
from rag.catalog.jobs import Counts
from rag.errors import AttestError, InvalidInput, SourceError
from rag.models import Item, Original, Unlisted
from tests.bases import Bases, runs_in

pytestmark = pytest.mark.services

SERVERS = {
    "postgresql": ("ATTEST_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"),
    "mysql": ("ATTEST_TEST_MYSQL", "mysql+pymysql://root@127.0.0.1:3306/mysql?charset=utf8mb4"),
}
CANARY = "k4n@ry/P%ss:w0rd'x"


@dataclass
class Server:
    kind: str
    url: sa.URL
    admin: sa.Engine

    def engine(self) -> sa.Engine:
        return sa.create_engine(self.url, poolclass=NullPool)

    def run(self, *statements: str) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def source(self, **options: Any) -> DatabaseSource:
        return DatabaseSource(url=self.text(), **options)

    def text(self, **changes: Any) -> str:
        url = self.url.set(drivername=self.kind, **changes)
        return url.render_as_string(hide_password=False)


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A scratch database of its own, dropped afterwards."""
    kind = request.param
    variable, default = SERVERS[kind]
    url = sa.make_url(os.environ.get(variable, default))
    admin = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    name = f"attest_test_{uuid.uuid4().hex[:12]}"
    try:
        with admin.connect() as connection:
            suffix = " CHARACTER SET utf8mb4" if kind == "mysql" else ""
            connection.exec_driver_sql(f"CREATE DATABASE {name}{suffix}")
    except sa.exc.OperationalError as error:
        pytest.skip(f"no {kind} server at {url.host}:{url.port} ({type(error.orig).__name__}); set {variable}")
    yield Server(kind, url.set(database=name), admin)
    with admin.connect() as connection:
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


def items(source: DatabaseSource) -> list[Item]:
    found = list(source.items({}))
    assert all(isinstance(entry, Item) for entry in found)
    return [entry for entry in found if isinstance(entry, Item)]


def originals(source: DatabaseSource) -> dict[str, Original]:
    return {item.key: item.load() for item in items(source)}


def text_of(source: DatabaseSource, key: str) -> str:
    return originals(source)[key].data.decode()


def copy_into(source_path: Path, server: Server) -> None:
    """The SQLite database's tables and rows, as this server keeps them."""
    original = sa.create_engine(f"sqlite:///{source_path}")
    metadata = sa.MetaData()
    metadata.reflect(original)
    for table in metadata.tables.values():
        for column in table.columns:
            column.type = column.type.as_generic()  # NVARCHAR is VARCHAR elsewhere
    target = server.engine()
    metadata.create_all(target)
    with original.connect() as reader, target.begin() as writer:
        for table in metadata.sorted_tables:
            rows = [dict(row) for row in reader.execute(sa.select(table)).mappings()]
            rows.sort(key=lambda row: tuple(row[column.name] for column in table.primary_key))
            for start in range(0, len(rows), 1000):
                writer.execute(table.insert(), rows[start : start + 1000])
    original.dispose()


# ── what is read ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.eval_data
@pytest.mark.filterwarnings("ignore:Dialect sqlite.*does .not. support Decimal:sqlalchemy.exc.SAWarning")
def test_chinook_says_the_same_from_every_database(server: Server) -> None:
    """Number of rows, keys, texts, titles and states are those of the SQLite file: moving embeds nothing again."""
    folder = os.environ.get("ATTEST_EVAL_DATA")
    if not folder:
        pytest.skip("ATTEST_EVAL_DATA names no folder with the evaluation data")
    path = Path(folder) / "db" / "chinook.sqlite"
    copy_into(path, server)
    expected = {item.key: item for item in items(DatabaseSource(url=f"sqlite:///{path}"))}
    found = {item.key: item for item in items(server.source())}
    assert len(found) == len(expected) == 15_607
    for key, item in expected.items():
        assert found[key].load().data.decode() == item.load().data.decode()
        assert found[key].load().title == item.load().title
        assert found[key].state == item.state
    assert "Support Rep: Jane Peacock" in found["Customer/1"].load().data.decode()
    assert "Album: Facelift (Artist: Alice In Chains)" in found["Track/51"].load().data.decode()


def test_values_of_every_type_read_well(server: Server) -> None:
    if server.kind == "postgresql":
        server.run(
            "CREATE TYPE mood AS ENUM ('glad', 'sad')",
            "CREATE TABLE kinds (id int PRIMARY KEY, price numeric(12,4), ratio double precision, small real, yes bool,"
            " day date, clock time, moment timestamp, zoned timestamptz, span interval, doc jsonb, words text[],"
            " ref uuid, state mood, flags bit(4), photo bytea, spot point, net inet, parts int4range, search tsvector)",
            "INSERT INTO kinds VALUES (1, 12.5000, 0.1, 0.5, true, '2024-02-29', '24:00:00', '2024-02-29 12:30:00.25',"
            " '2024-02-29 12:30:00+08', '1 mon 2 days', '{\"名\": [1, 2.50]}', '{a,NULL,乙}',"
            " 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'sad', '0101', '\\x00ff01', '(1,2)', '10.0.0.1', '[1,5)', 'cat')",
            "INSERT INTO kinds (id, day, moment, price) VALUES (2, 'infinity', '20240-01-01 00:00:00', 'NaN')",
        )
        expected = {
            *("Price: 12.5", "Ratio: 0.1", "Small: 0.5", "Yes: yes", "Day: 2024-02-29", "Clock: 24:00:00"),
            *("Moment: 2024-02-29 12:30:00.25", "Zoned: 2024-02-29 04:30:00 UTC", "Span: 1 mon 2 days"),
            *('Doc: {"名": [1, 2.5]}', "Words: a, 乙", "Ref: a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "State: sad"),
            *("Flags: 0101", "Photo: [binary data, 3 bytes]", "Spot: (1,2)", "Net: 10.0.0.1"),
        }
        assert "Day: infinity" in text_of(server.source(), "kinds/2")
        assert "Search" not in text_of(server.source(), "kinds/1")
    else:
        server.run(
            "CREATE TABLE kinds (id int PRIMARY KEY, price decimal(12,4), ratio double, small float, yes boolean,"
            " day date, clock time, moment datetime(6), zoned timestamp NULL, doc json, state enum('glad', 'sad'),"
            " colours set('red', 'blue'), flags bit(4), photo blob, year_of year)",
            "SET time_zone = '+08:00'",
            "INSERT INTO kinds VALUES (1, 12.5000, 0.1, 0.5, true, '2024-02-29', '-30:15:00', '2024-02-29 12:30:00.25',"
            " '2024-02-29 12:30:00', '{\"名\": [1, 2.50]}', 'sad', 'red,blue', b'0101', x'00ff01', 2024)",
            "SET sql_mode = ''",
            "INSERT INTO kinds (id, day, moment) VALUES (2, '0000-00-00', '0000-00-00 00:00:00')",
        )
        expected = {
            *("Price: 12.5", "Ratio: 0.1", "Small: 0.5", "Yes: yes", "Day: 2024-02-29", "Clock: -30:15:00"),
            *("Moment: 2024-02-29 12:30:00.25", "Zoned: 2024-02-29 04:30:00", "State: sad", "Flags: 5"),
            *("Photo: [binary data, 3 bytes]", "Year of: 2024", "Colours: red,blue"),
        }
        assert "Day: 0000-00-00" in text_of(server.source(), "kinds/2")
    assert expected <= set(text_of(server.source(), "kinds/1").split("\n"))


def test_names_of_any_kind_are_quoted(server: Server) -> None:
    """Blanks, quotes, reserved words, mixed case and Chinese, in tables, columns, keys and labels."""
    metadata = sa.MetaData()
    maker = sa.Table(
        "生产 厂家", metadata, sa.Column("编号", sa.Integer, primary_key=True), sa.Column("名称", sa.String(50))
    )
    order = sa.Table(
        'Select "it\'s"',
        metadata,
        sa.Column("group", sa.String(20), primary_key=True),
        sa.Column("a:b %s", sa.String(20)),
        sa.Column("厂家编号", sa.Integer, sa.ForeignKey(maker.c["编号"])),
    )
    engine = server.engine()
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(maker.insert(), {"编号": 7, "名称": "华为"})
        quote = engine.dialect.identifier_preparer.quote_identifier
        table = quote(order.name).replace("%%", "%")
        connection.exec_driver_sql(
            f"INSERT INTO {table} VALUES ('x/y, z', 'v %', 7)", execution_options={"no_parameters": True}
        )
    found = originals(server.source())
    row = found['Select "it\'s"/x%2Fy%2C z']
    assert row.data.decode() == "Group: x/y, z\nA:b %s: v %\n厂家: 华为"
    assert row.parsed is not None
    assert row.parsed.blocks[0].row == 'Select "it\'s" / x/y, z'
    assert found["生产 厂家/7"].title == "生产 厂家: 华为"
    chosen = originals(server.source(tables=[{"name": 'Select "it\'s"', "text_columns": "a:b %s"}]))
    assert [original.data.decode() for original in chosen.values()] == ["A:b %s: v %"]


def test_schemas_views_and_partitions(server: Server) -> None:
    """PostgreSQL: every schema of our own, each row once; views only when named, on both servers."""
    server.run(
        "CREATE TABLE city (id int PRIMARY KEY, name varchar(20))",
        "INSERT INTO city VALUES (1, 'Lyon')",
        "CREATE VIEW towns AS SELECT id, name FROM city",
    )
    assert [item.key for item in items(server.source())] == ["city/1"]
    assert [item.key for item in items(server.source(tables=["towns"], key=["id"]))] == ["towns/1"]
    if server.kind == "postgresql":
        server.run(
            "CREATE SCHEMA sales",
            "CREATE TABLE sales.orders (id int PRIMARY KEY, city int REFERENCES city(id)) PARTITION BY RANGE (id)",
            "CREATE TABLE sales.orders_1 PARTITION OF sales.orders FOR VALUES FROM (0) TO (100)",
            "INSERT INTO sales.orders VALUES (5, 1)",
        )
        assert server.source().check() == ["city", "sales.orders"]
        assert text_of(server.source(tables=["sales.orders"]), "sales.orders/5") == "Id: 5\nCity: Lyon"
    else:
        name = server.url.database
        assert [item.key for item in items(server.source(tables=[f"{name}.city"]))] == ["city/1"]


def test_a_reference_to_many_rows_multiplies_nothing(server: Server) -> None:
    """MySQL lets a foreign key point at what is not unique; composite keys and self-references are labelled."""
    server.run(
        "CREATE TABLE region (country char(2), code int, name varchar(20), PRIMARY KEY (country, code))",
        "CREATE TABLE person (id int PRIMARY KEY, name varchar(20), boss int, country char(2), code int,"
        " FOREIGN KEY (boss) REFERENCES person (id), FOREIGN KEY (country, code) REFERENCES region (country, code))",
        "INSERT INTO region VALUES ('fr', 1, 'Bretagne')",
        "INSERT INTO person VALUES (1, 'Ada', NULL, 'fr', 1)",
        "INSERT INTO person VALUES (2, 'Bo', 1, 'fr', NULL)",
    )
    if server.kind == "mysql":
        server.run(
            "CREATE TABLE loose (code int, name varchar(9), KEY (code)) ENGINE=InnoDB",
            "CREATE TABLE tight (id int PRIMARY KEY, code int, FOREIGN KEY (code) REFERENCES loose (code))",
            "INSERT INTO loose VALUES (1, 'a'), (1, 'b')",
            "INSERT INTO tight VALUES (1, 1)",
        )
        assert [item.load().data for item in items(server.source(tables=["tight"]))] == [b"Id: 1\nCode: 1"]
    assert text_of(server.source(), "person/1") == "Id: 1\nName: Ada\nRegion: fr, 1 (Bretagne)"
    assert text_of(server.source(), "person/2") == "Id: 2\nName: Bo\nBoss: Ada\nCountry: fr"


def test_a_query_is_run_as_it_is_written(server: Server) -> None:
    """Colons, percent signs and semicolons in strings mean nothing to us; types keep their form."""
    server.run(
        "CREATE TABLE note (id int PRIMARY KEY, body varchar(50), price decimal(8,2), at date)",
        "INSERT INTO note VALUES (1, 'half :x', 2.50, '2024-03-01')",
    )
    source = server.source(
        query="SELECT id, body AS title, price, at, '100%; :y' AS mark FROM note WHERE body LIKE 'half%';",
        query_name="notes",
        key=["id"],
        metadata_columns=["price"],
        updated_at="at",
    )
    original = originals(source)["notes/1"]
    assert original.data.decode() == "Id: 1\nTitle: half :x\nPrice: 2.5\nMark: 100%; :y"
    assert original.title == "Notes: half :x"
    assert original.metadata == {"price": 2.5, "date": date(2024, 3, 1)}
    assert original.state["updated_at"] == "2024-03-01"


def test_a_table_that_may_not_be_read_gives_no_labels(server: Server) -> None:
    """A reader with rights on one table alone sees that one, with the bare keys of the others."""
    server.run(
        "CREATE TABLE maker (id int PRIMARY KEY, name varchar(20))",
        "CREATE TABLE item (id int PRIMARY KEY, maker_id int, FOREIGN KEY (maker_id) REFERENCES maker (id))",
        "INSERT INTO maker VALUES (1, 'Kepler')",
        "INSERT INTO item VALUES (5, 1)",
    )
    user = f"reader_{uuid.uuid4().hex[:8]}"
    if server.kind == "postgresql":
        server.run(f"CREATE ROLE {user} LOGIN", f"GRANT SELECT ON item TO {user}")
        drop = [f"DROP OWNED BY {user}", f"DROP ROLE {user}"]
    else:
        server.run(f"CREATE USER {user} IDENTIFIED BY 'secret-words'", f"GRANT SELECT ON item TO {user}")
        drop = [f"DROP USER {user}"]
    url = server.text(username=user, password="secret-words")
    try:
        assert text_of(DatabaseSource(url=url, tables=["item"]), "item/5") == "Id: 5\nMaker id: 1"
        if server.kind == "postgresql":
            with pytest.raises(SourceError, match="maker"):
                items(DatabaseSource(url=url))
        else:
            assert DatabaseSource(url=url).check() == ["item"]
    finally:
        server.run(*drop)


# ── what is not done ──────────────────────────────────────────────────────────────────────────


def test_nothing_can_be_written_through_a_query(server: Server) -> None:
    server.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    if server.kind == "postgresql":
        server.run(
            "CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM t; RETURN 1; END $$",
            "CREATE SEQUENCE counter",
        )
        attacks = [
            "WITH x AS (DELETE FROM t RETURNING id) SELECT id FROM x",
            "SELECT wipe() AS id",
            "SELECT nextval('counter') AS id",
            "SELECT set_config('transaction_read_only', 'off', false) AS id, wipe()",
            "SELECT id INTO copied FROM t",
            "SELECT 1 AS id; COMMIT; DELETE FROM t",
            "SELECT $$;$$ AS id; COMMIT; DELETE FROM t",
        ]
    else:
        server.run("CREATE FUNCTION wipe() RETURNS int MODIFIES SQL DATA BEGIN DELETE FROM t; RETURN 1; END")
        attacks = [
            "SELECT wipe() AS id",
            "SELECT 1 AS id; COMMIT; DELETE FROM t",
            "SELECT '\\'' AS id; DELETE FROM t -- '",
            "SELECT id FROM t INTO OUTFILE '/tmp/attest-must-not-be'",
            "SELECT id FROM t /*! INTO OUTFILE '/tmp/attest-must-not-be' */",
        ]
    for attack in [*attacks, "DELETE FROM t", "UPDATE t SET id = 2", "DROP TABLE t", "CREATE TABLE copied (id int)"]:
        with pytest.raises(InvalidInput):
            items(server.source(query=attack, key=["id"]))
    assert [item.key for item in items(server.source())] == ["t/1"]


def test_the_transaction_itself_refuses_writes(server: Server) -> None:
    """Even a statement that got past our own look at it."""
    server.run("CREATE TABLE t (id int PRIMARY KEY)")
    source = server.source()
    for statement in ("INSERT INTO t VALUES (1)", "DROP TABLE t", "CREATE TABLE u (id int)"):
        with source._database.reading() as snapshot, pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.only"):
            snapshot.connection.exec_driver_sql(statement)
    assert items(source) == []


def test_all_tables_are_seen_in_one_state(server: Server) -> None:
    """A row that arrives while the first table is read is in none of the tables."""
    server.run("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)")
    reading = server.source().items({})
    keys = [next(reading).key]
    server.run("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2)")
    assert keys + [item.key for item in reading] == ["a/1"]
    assert [item.key for item in items(server.source())] == ["a/1", "a/2", "b/2"]


def test_a_connection_cut_while_reading_is_a_source_error(server: Server) -> None:
    series = "INSERT INTO big SELECT n, repeat('x', 200) FROM generate_series(1, 60000) AS g(n)"
    if server.kind == "mysql":
        series = "INSERT INTO big SELECT seq, repeat('x', 200) FROM seq_1_to_60000"
    server.run("CREATE TABLE big (id int PRIMARY KEY, body varchar(200))", series)
    reading = server.source(batch_rows=50).items({})
    next(reading)
    with server.admin.connect() as admin:
        if server.kind == "postgresql":
            admin.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": server.url.database},
            )
        else:
            process = admin.execute(
                sa.text("SELECT id FROM information_schema.processlist WHERE db = :name"), {"name": server.url.database}
            ).scalar_one()
            admin.exec_driver_sql(f"KILL {process}")
    with pytest.raises(SourceError):
        for _ in reading:
            pass


def test_leaving_early_leaves_no_connection_behind(server: Server) -> None:
    """… and does not read a long table to its end first."""
    server.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    before = threading.active_count()
    reading = server.source(batch_rows=1).items({})
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = :name"
        if server.kind == "postgresql"
        else "SELECT count(*) FROM information_schema.processlist WHERE db = :name"
    )
    with server.admin.connect() as admin:
        for _ in range(50):
            if admin.execute(sa.text(count), {"name": server.url.database}).scalar_one() == 0:
                break
            threading.Event().wait(0.1)
        else:
            pytest.fail("the connection is still there after five seconds")
    assert threading.active_count() == before


def test_a_statement_that_takes_too_long_is_broken_off(server: Server) -> None:
    sleep = "pg_sleep(5)::text" if server.kind == "postgresql" else "sleep(5)"
    with pytest.raises(SourceError):
        items(server.source(query=f"SELECT {sleep} AS id", key=["id"], statement_timeout_seconds=1))


def test_a_slow_reader_is_no_timeout(server: Server) -> None:
    """The limit holds for the server's work, not for the time that we take over a row."""
    rows = "generate_series(1, 20000) AS g(n)" if server.kind == "postgresql" else "seq_1_to_20000"
    column = "n" if server.kind == "postgresql" else "seq"
    server.run(
        "CREATE TABLE big (id int PRIMARY KEY, body varchar(400))",
        f"INSERT INTO big SELECT {column}, repeat('x', 400) FROM {rows}",
    )
    reading = server.source(batch_rows=100, statement_timeout_seconds=1).items({})
    next(reading)
    threading.Event().wait(2.5)
    assert sum(1 for _ in reading) == 19_999


# ── what is not said ──────────────────────────────────────────────────────────────────────────


def test_no_error_carries_the_credentials(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong user or password, unreachable host, missing database, bad table, bad SQL: neither message nor traceback."""
    caplog.set_level(logging.DEBUG)
    server.run("CREATE TABLE t (id int PRIMARY KEY)")
    user = f"us3r_{uuid.uuid4().hex[:8]}"
    if server.kind == "postgresql":
        server.run(f"CREATE ROLE {user} LOGIN", f"GRANT pg_read_all_data TO {user}")
        drop = [f"DROP ROLE {user}"]
    else:
        quoted = CANARY.replace("'", "''").replace("%", "%%")
        server.run(f"CREATE USER {user} IDENTIFIED BY '{quoted}'", f"GRANT SELECT ON {server.url.database}.* TO {user}")
        drop = [f"DROP USER {user}"]
    good = {"username": user, "password": CANARY}
    attempts: list[Callable[[], object]] = [
        lambda: items(DatabaseSource(url=server.text(username=user + "x", password=CANARY))),
        lambda: items(DatabaseSource(url=server.text(username=user, password=CANARY, database="no_such_database"))),
        lambda: items(DatabaseSource(url=server.text(**good, host="127.0.0.1", port=1))),
        lambda: items(DatabaseSource(url=server.text(**good, host="no-such-host.invalid"), connect_timeout_seconds=2)),
        lambda: items(DatabaseSource(url=server.text(**good), tables=["nothing"])),
        lambda: items(DatabaseSource(url=server.text(**good), tables=["t"], text_columns=["nothing"])),
        lambda: items(DatabaseSource(url=server.text(**good), query="SELECT nothing FROM t", key=["id"])),
        lambda: items(DatabaseSource(url=server.text(**good), query="SELEC", key=["id"])),
        lambda: items(DatabaseSource(url=server.text(**good, port=1) + "?no_such_option=1")),
    ]
    try:
        assert items(DatabaseSource(url=server.text(**good))) == []
        for attempt in attempts:
            with pytest.raises(AttestError) as raised:
                attempt()
            assert isinstance(raised.value, SourceError | InvalidInput)
            assert raised.value.__cause__ is None
            assert raised.value.__context__ is None
            said = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__)
            assert not [secret for secret in (CANARY, "k4n", "w0rd", user) if secret in said]
        assert CANARY not in caplog.text
        assert user not in caplog.text
    finally:
        server.run(*([f"REVOKE pg_read_all_data FROM {user}"] if server.kind == "postgresql" else []), *drop)


def test_an_unreadable_row_does_not_stop_the_rest(server: Server) -> None:
    server.run(
        "CREATE TABLE t (id int PRIMARY KEY, body text)",
        "INSERT INTO t VALUES (1, 'short'), (2, repeat('x', 5000)), (3, 'short')",
    )
    found = list(server.source(max_row_characters=1000).items({}))
    assert [entry.key for entry in found] == ["t/1", "t/2", "t/3"]
    assert isinstance(found[1], Unlisted)
    assert found[1].problem.code == "too-large"


# ── rows that change under a sync ─────────────────────────────────────────────────────────────


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.close()


def test_rows_inserted_updated_deleted_and_given_another_key_are_followed(server: Server, bases: Bases) -> None:
    runs = runs_in(bases.open())
    server.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(200), changed_at TIMESTAMP NULL)",
        *(
            f"INSERT INTO note VALUES ({number}, 'Note {number} speaks of pumps.', '2026-01-01 10:00:00')"
            for number in range(20)
        ),
    )

    def sync(**options: Any) -> tuple[Report, int]:
        before = len(bases.embedder.embedded)
        source = server.source(tables=["note"], updated_at="changed_at", verify=options.get("verify", False))
        report = runs.make().run(source, SyncOptions(**options))
        return report, len(bases.embedder.embedded) - before

    assert sync()[0].counts == Counts(added=20)
    report, embedded = sync()
    assert (report.counts, embedded) == (Counts(unchanged=20), 0)

    server.run(
        "INSERT INTO note VALUES (20, 'Note 20 speaks of valves.', '2026-01-02 10:00:00')",
        "UPDATE note SET body = 'Note 1 speaks of storms.', changed_at = '2026-01-02 10:00:00' WHERE id = 1",
        "UPDATE note SET body = 'Note 2 speaks of rivers.' WHERE id = 2",  # its updated-at stands still
        "UPDATE note SET changed_at = '2026-01-02 10:00:00' WHERE id = 3",  # and here nothing but that changed
        "DELETE FROM note WHERE id = 4",
        "UPDATE note SET id = 105 WHERE id = 5",
    )
    report, embedded = sync()
    assert report.counts == Counts(added=2, changed=1, unchanged=17, deleted=2)
    assert embedded <= 3
    report, embedded = sync(verify=True)
    assert (report.counts, embedded) == (Counts(changed=1, unchanged=19), 1)
    assert {"note/20", "note/105"} <= set(runs.documents())
    assert not {"note/4", "note/5"} & set(runs.documents())
    assert (sync()[0].counts, sync(verify=True)[1]) == (Counts(unchanged=20), 0)

    server.run("ALTER TABLE note RENAME TO remark")
    with pytest.raises(InvalidInput):
        sync()
    assert len(runs.documents()) == 20
    server.run("ALTER TABLE remark RENAME TO note", "DELETE FROM note")
    report, _ = sync()
    assert report.problem is not None
    assert report.problem.code == "empty-listing"
    assert len(runs.documents()) == 20


@pytest.mark.parametrize("kind_of_key", ["text", "composite", "binary", "moment", "uuid"])
def test_rows_that_moved_are_found_again_by_keys_of_any_kind(server: Server, bases: Bases, kind_of_key: str) -> None:
    """… by the rows' keys, and not by reading the table whole."""
    postgresql = server.kind == "postgresql"
    columns, keys = {
        "text": ("k varchar(40)", ["'a: b'", "'%s'", "'王''小明'"]),
        "composite": ("k int, l varchar(9)", ["1, 'x'", "1, 'y'", "2, 'x'"]),
        "binary": ("k bytea", ["'\\x00ff'", "'\\x01'", "'\\x02'"])
        if postgresql
        else ("k varbinary(9)", ["x'00ff'", "x'01'", "x'02'"]),
        "moment": (
            "k timestamp" if postgresql else "k datetime(6)",
            ["'2026-01-01 10:00:00.25'", "'2026-01-01'", "'2026-01-02'"],
        ),
        "uuid": (
            "k uuid" if postgresql else "k char(36)",
            [f"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1{number}'" for number in range(3)],
        ),
    }[kind_of_key]
    names = "k, l" if kind_of_key == "composite" else "k"
    server.run(f"CREATE TABLE item ({columns}, body varchar(90), changed_at timestamp NULL, PRIMARY KEY ({names}))")
    engine = server.engine()
    with engine.begin() as connection:
        for key in keys:
            statement = f"INSERT INTO item VALUES ({key}, 'Speaks of pumps.', '2026-01-01 10:00:00')"
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    runs = runs_in(bases.open())
    assert runs.make().run(server.source(updated_at="changed_at"), SyncOptions()).counts == Counts(added=3)
    server.run("UPDATE item SET body = 'Speaks of storms.', changed_at = '2026-01-03 10:00:00'")
    source = server.source(updated_at="changed_at")
    source._table_rows = lambda *_: pytest.fail("the table was read whole")  # type: ignore[method-assign]
    assert runs.make().run(source, SyncOptions()).counts == Counts(changed=3)
    assert runs.make().run(source, SyncOptions()).counts == Counts(unchanged=3)


def test_a_row_is_read_again_when_its_label_changed_or_it_has_no_stamp(server: Server, bases: Bases) -> None:
    server.run(
        "CREATE TABLE maker (id int PRIMARY KEY, name varchar(20))",
        "CREATE TABLE item (id int PRIMARY KEY, maker_id int, note varchar(40), changed_at timestamp NULL,"
        " FOREIGN KEY (maker_id) REFERENCES maker (id))",
        "INSERT INTO maker VALUES (1, 'Kepler'), (2, 'Optica')",
        *(f"INSERT INTO item VALUES ({n}, {1 + n % 2}, 'n{n}', '2026-01-01 10:00:00')" for n in range(10)),
        "UPDATE item SET changed_at = NULL WHERE id = 9",
    )
    runs = runs_in(bases.open())

    def sync() -> Counts:
        return runs.make().run(server.source(tables=["item"], updated_at="changed_at"), SyncOptions()).counts

    assert sync() == Counts(added=10)
    assert sync() == Counts(unchanged=10)
    server.run("UPDATE maker SET name = 'Galileo' WHERE id = 1")
    assert sync() == Counts(changed=5, unchanged=5)
    server.run("UPDATE item SET note = 'other' WHERE id IN (8, 9)")  # of these only 9 has no stamp
    assert sync() == Counts(changed=1, unchanged=9)


def test_rows_of_a_query_are_followed_by_their_stamps(server: Server, bases: Bases) -> None:
    server.run(
        "CREATE TABLE note (id int PRIMARY KEY, body varchar(50), changed_at timestamp NULL)",
        *(f"INSERT INTO note VALUES ({n}, 'half :x of {n}', '2026-01-01 10:00:00')" for n in range(10)),
    )
    runs = runs_in(bases.open())
    query = (
        "WITH n AS (SELECT * FROM note) SELECT id, body, '100%; :y \\:z' AS mark, changed_at AS \"at: %s\" FROM n"
        " WHERE body LIKE 'half%' -- all"
    )
    query = query if server.kind == "postgresql" else query.replace('"', "`")

    def sync(**watch: Any) -> Counts:
        source = server.source(query=query, key=["id"], updated_at="at: %s")
        for name, replacement in watch.items():
            setattr(source, name, replacement)
        return runs.make().run(source, SyncOptions()).counts

    assert sync() == Counts(added=10)
    server.run(
        "UPDATE note SET body = 'half of 1', changed_at = '2026-01-02 10:00:00' WHERE id = 1",
        "DELETE FROM note WHERE id = 2",
    )
    found = sync(_query_rows=lambda *_: pytest.fail("the query was run whole"))
    assert found == Counts(changed=1, unchanged=8, deleted=1)


def test_a_server_in_another_time_zone_or_with_another_clock_hides_no_second_change(
    server: Server, bases: Bases
) -> None:
    """A row that changes twice within the second that its stamp can tell."""
    moment = "timestamp(0)" if server.kind == "postgresql" else "datetime"
    server.run(f"CREATE TABLE note (id int PRIMARY KEY, body varchar(50), changed_at {moment})")
    local = "SET TIME ZONE 'Asia/Kathmandu'" if server.kind == "postgresql" else "SET time_zone = '+05:45'"
    server.run(
        local, "INSERT INTO note VALUES (1, 'before', now())", "INSERT INTO note VALUES (2, 'old', '2026-01-01')"
    )
    runs = runs_in(bases.open())

    def sync() -> Counts:
        return runs.make().run(server.source(updated_at="changed_at"), SyncOptions()).counts

    assert sync() == Counts(added=2)
    server.run("UPDATE note SET body = 'after'")
    assert sync() == Counts(changed=1, unchanged=1)


def test_a_server_that_stops_in_the_middle_deletes_nothing(server: Server, bases: Bases) -> None:
    runs = runs_in(bases.open())
    server.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(200))",
        *(f"INSERT INTO note VALUES ({number}, 'Note {number} speaks of pumps.')" for number in range(30)),
    )
    assert runs.make().run(server.source(), SyncOptions()).counts == Counts(added=30)
    server.run("UPDATE note SET body = 'Note 0 speaks of storms.' WHERE id = 0", "DELETE FROM note WHERE id = 29")
    broken = server.source(batch_rows=5)
    fetched = 0
    ask = broken._database.ask

    def cut(stage: Any, action: Callable[[], Any]) -> Any:
        nonlocal fetched
        fetched += stage in ("read", "query")
        if fetched == 4:
            raise SourceError("The connection was cut.", remedy="Sync again.")
        return ask(stage, action)

    broken._database.ask = cut  # type: ignore[method-assign,assignment]
    report = runs.make().run(broken, SyncOptions())
    assert report.problem is not None
    assert report.counts.deleted == 0
    assert len(runs.documents()) == 30
    assert runs.make().run(server.source(), SyncOptions()).counts.deleted == 1
    assert len(runs.documents()) == 29
