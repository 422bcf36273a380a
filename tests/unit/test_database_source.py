"""Rows of SQLite databases as documents, and what the database source refuses."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import traceback
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ingest.sources import database
from ingest.sources.database import DatabaseSource
from ingest.sources.database_stamps import Moment
from ingest.sources.rows import (
    Field,
    is_code,
    key_path,
    labelled_code,
    metadata_value,
    readable,
    reference_name,
    row_parsed,
    value_text,
)
from ingest.sync import SyncOptions
from rag.catalog import knowledge
from rag.catalog.jobs import Counts
from rag.errors import AttestError, DocumentError, InvalidInput, NotAllowed, SourceError
from rag.models import Item, Original, Unlisted
from tests.bases import Bases, Runs, runs_in

SHOP = """
CREATE TABLE maker (id INTEGER PRIMARY KEY, name TEXT, country TEXT);
CREATE TABLE product (
    product_id INTEGER PRIMARY KEY, title VARCHAR(80), maker_id INTEGER NOT NULL REFERENCES maker,
    price NUMERIC(10,4), added DATETIME, description TEXT, picture BLOB, in_stock BOOLEAN, 备注 TEXT);
CREATE TABLE staff (
    id INTEGER PRIMARY KEY, first_name TEXT, last_name TEXT, title TEXT, reports_to INTEGER REFERENCES staff);
CREATE TABLE review (id INTEGER PRIMARY KEY, ProductId INTEGER REFERENCES product (product_id), stars INTEGER);
CREATE TABLE product_tag (
    product_id INTEGER REFERENCES product, tag_id INTEGER REFERENCES tag, PRIMARY KEY (product_id, tag_id));
CREATE TABLE tag (id INTEGER PRIMARY KEY, label TEXT);
INSERT INTO maker VALUES (1, 'Kepler Labs', 'France');
INSERT INTO product VALUES (7, 'Star map', 1, 12.5, '2024-05-01 00:00:00', NULL, x'00ff', 1, '限量');
INSERT INTO staff VALUES (1, 'Ada', 'Moreau', 'Manager', NULL), (2, 'Bo', 'Lind', 'Clerk', 1);
INSERT INTO review VALUES (3, 7, 5);
INSERT INTO tag VALUES (4, 'sky');
INSERT INTO product_tag VALUES (7, 4);
"""


def make(path: Path, script: str) -> str:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return f"sqlite:///{path}"


@pytest.fixture
def shop(tmp_path: Path) -> str:
    return make(tmp_path / "shop.sqlite", SHOP)


def listed(url: str, **options: Any) -> list[Item | Unlisted]:
    return list(DatabaseSource(url=url, **options).items({}))


def originals(url: str, **options: Any) -> dict[str, Original]:
    return {entry.key: entry.load() for entry in listed(url, **options) if isinstance(entry, Item)}


def texts(url: str, **options: Any) -> dict[str, str]:
    return {key: original.data.decode() for key, original in originals(url, **options).items()}


# ── a row's text ──────────────────────────────────────────────────────────────────────────────


def test_a_row_reads_as_one_line_per_column(shop: str) -> None:
    original = originals(shop)["product/7"]
    assert original.data.decode() == (
        "Product id: 7\nTitle: Star map\nMaker: Kepler Labs\nPrice: 12.5\nAdded: 2024-05-01\n"
        "Picture: [binary data, 2 bytes]\nIn stock: yes\n备注: 限量"
    )
    assert original.title == "Product: Star map"
    assert original.media_type == "text/plain"
    assert original.parsed is not None
    assert {block.row for block in original.parsed.blocks} == {"product / 7"}
    assert {block.section for block in original.parsed.blocks} == {("product",)}


def test_foreign_keys_read_as_labels_and_their_owners(shop: str) -> None:
    found = originals(shop)
    assert found["review/3"].data.decode() == "Id: 3\nProduct: Star map (Maker: Kepler Labs)\nStars: 5"
    assert found["staff/2"].data.decode().endswith("Title: Clerk\nReports to: Ada Moreau")
    assert found["staff/2"].title == "Staff: Bo Lind"
    assert found["review/3"].title == "Review: 3"
    link = found["product_tag/7,4"]
    assert link.data.decode() == "Product: Star map (Maker: Kepler Labs)\nTag: sky"
    assert link.title == "Product tag: Star map (Maker: Kepler Labs), sky"
    assert link.parsed is not None
    assert link.parsed.blocks[0].row == "product_tag / 7, 4"


DEPOT = """
CREATE TABLE vendor (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE product (sku TEXT PRIMARY KEY, name TEXT, note TEXT, vendor_id INTEGER NOT NULL REFERENCES vendor);
CREATE TABLE country (code CHAR(2) PRIMARY KEY, name TEXT);
CREATE TABLE lot (uid CHAR(36) PRIMARY KEY, name TEXT, vendor_id INTEGER NOT NULL REFERENCES vendor);
CREATE TABLE region (country TEXT REFERENCES country, number INTEGER, name TEXT, PRIMARY KEY (country, number));
CREATE TABLE 产品 (产品编号 TEXT PRIMARY KEY, 名称 TEXT);
CREATE TABLE stock (
    id INTEGER PRIMARY KEY, sku TEXT REFERENCES product, lot_uid CHAR(36) REFERENCES lot,
    made_in TEXT REFERENCES country, 产品编号 TEXT REFERENCES 产品, sold_country TEXT, sold_number INTEGER,
    FOREIGN KEY (sold_country, sold_number) REFERENCES region);
INSERT INTO vendor VALUES (1, 'Optica');
INSERT INTO product VALUES ('TL-1310', 'TideLog Cryo', '', 1), ('TL-9', 'TL-9 Mini', '', 1);
INSERT INTO country VALUES ('NL', 'Netherlands');
INSERT INTO lot VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'Spring', 1);
INSERT INTO region VALUES ('NL', 7, 'Zeeland');
INSERT INTO 产品 VALUES ('冷链-13', '潮记深冷');
INSERT INTO stock VALUES
    (1, 'TL-1310', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'NL', '冷链-13', 'NL', 7),
    (2, 'TL-9', NULL, NULL, NULL, NULL, NULL), (3, 'TL-404', NULL, '', NULL, NULL, NULL);
"""


def test_a_foreign_key_that_people_use_as_a_code_keeps_it(tmp_path: Path) -> None:
    """Before its label, and without the owner, which only tells apart what a number cannot."""
    found = texts(make(tmp_path / "a.db", DEPOT))
    assert found["stock/1"].split("\n")[1:] == [
        "Sku: TL-1310 (TideLog Cryo)",
        "Lot uid: Spring (Vendor: Optica)",
        "Made in: NL (Netherlands)",
        "产品: 冷链-13 (潮记深冷)",
        "Region: NL, 7 (Zeeland)",
    ]
    assert found["stock/2"] == "Id: 2\nSku: TL-9 Mini"
    assert found["stock/3"] == "Id: 3\nSku: TL-404"


def test_metadata_has_the_code_that_people_filter_by(tmp_path: Path) -> None:
    url = make(tmp_path / "a.db", DEPOT)
    found = originals(url, tables=["stock", "product"], metadata_columns=["sku", "vendor_id", "lot_uid"])
    assert found["stock/1"].metadata == {"sku": "TL-1310", "lot_uid": "Spring (Vendor: Optica)"}
    assert found["product/TL-1310"].metadata == {"sku": "TL-1310", "vendor_id": "Optica"}


@pytest.mark.parametrize("key", ["TL-1310", "NL", "SO-26-0107", "2024-05-01", "00123", "冷链-13", "deadbeef", "x" * 26])
def test_a_code_is_a_key_that_says_something(key: str) -> None:
    assert is_code(key)


@pytest.mark.parametrize(
    "key",
    [
        *(7, 2.5, None, b"TL", "", " "),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "507f1f77bcf86cd799439011",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ],
)
def test_what_only_counts_rows_is_no_code(key: object) -> None:
    assert not is_code(key)


def test_a_code_is_not_said_twice() -> None:
    assert labelled_code("TL-9", "Mini (tl-9)") == "Mini (tl-9)"
    assert labelled_code("NL", "NLBV") == "NL (NLBV)"
    assert labelled_code("冷链", "冷链箱") == "冷链 (冷链箱)"


def test_the_sample_database_answers_by_article_number() -> None:
    """Every word that a sample question expects of a row stands in the row's text."""
    data = Path(__file__).parents[2] / "data"
    found = {
        original.parsed.blocks[0].row: original.data.decode()
        for original in originals(f"sqlite:///{data / 'products.sqlite'}").values()
        if original.parsed is not None
    }
    questions = [json.loads(line) for line in (data / "eval" / "questions.jsonl").read_text("utf-8").splitlines()]
    rows = [
        (expected["source"].removeprefix("products.sqlite: "), word)
        for question in questions
        for expected in question["expected"]
        if expected["source"].startswith("products.sqlite: ")
        for word in expected["words"]
    ]
    assert len(rows) >= 15
    assert [(row, word) for row, word in rows if word not in found[row]] == []
    assert "Sku: TL-1310 (TideLog Cryo)\nWarehouse: Rotterdam\nPieces: 37\n" in found["stock / 6"]


def test_labels_can_be_chosen_and_switched_off(shop: str) -> None:
    found = texts(shop, tables=["review", "product"], labels={"maker": ["name", "country"], "product": []})
    assert found["review/3"] == "Id: 3\nProduct Id: 7\nStars: 5"
    assert "Maker: Kepler Labs France" in found["product/7"]
    with pytest.raises(InvalidInput, match="Did you mean country"):
        texts(shop, labels={"maker": "contry"})
    with pytest.raises(InvalidInput, match="'makers'"):
        texts(shop, labels={"makers": "name"})


def test_long_text_stands_as_paragraphs_under_its_column(tmp_path: Path) -> None:
    story = "First paragraph of it. " * 12
    url = make(tmp_path / "a.db", "CREATE TABLE post (id INTEGER PRIMARY KEY, body TEXT, tag TEXT)")
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("INSERT INTO post VALUES (1, ?, 'x')", (f"{story}\r\n\r\n  Second\x00 one.  \n",))
    connection.commit()
    connection.close()
    parsed = originals(url)["post/1"].parsed
    assert parsed is not None
    assert parsed.text == f"Id: 1\nTag: x\n\nBody\n{story.strip()}\n\nSecond\ufffd one."
    assert [(block.kind, block.section) for block in parsed.blocks] == [
        ("table_row", ("post",)),
        ("table_row", ("post",)),
        ("heading", ("post", "Body")),
        ("paragraph", ("post", "Body")),
        ("paragraph", ("post", "Body")),
    ]


@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=400)), max_size=6))
def test_blocks_lie_exactly_in_the_text(values: list[tuple[str, str]]) -> None:
    """In order, without overlap, nothing but white space between them, none empty."""
    parsed = row_parsed("t", "t / 1", [Field(f"c{name.strip()}", text) for name, text in values])
    end = 0
    for block in parsed.blocks:
        assert not parsed.text[end : block.start].strip()
        assert parsed.text[block.start : block.end].strip()
        end = block.end
    assert not parsed.text[end:].strip()
    assert parsed.status == ("ok" if parsed.text else "empty")
    parsed.text.encode()


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (Decimal("0.9900"), "decimal", "0.99"),
        (Decimal("1E+3"), "decimal", "1000"),
        (Decimal("NaN"), "decimal", "NaN"),
        (Decimal("-0.00"), "decimal", "0"),
        (0.1 + 0.2, "number", "0.30000000000000004"),
        (5.0, "number", "5"),
        (1e300, "number", "1e+300"),
        (float("inf"), "number", "inf"),
        (10**30, "number", str(10**30)),
        (True, "other", "yes"),
        (0, "yes_no", "no"),
        (3, "yes_no", "3"),
        (datetime(2024, 1, 2), "moment", "2024-01-02"),
        (datetime(2024, 1, 2, 3, 4, 5, 600_000), "moment", "2024-01-02 03:04:05.6"),
        ("2024-01-02T03:04:05Z", "moment", "2024-01-02 03:04:05 UTC"),
        ("next spring", "moment", "next spring"),
        ("2024-01-02 00:00:00", "text", "2024-01-02 00:00:00"),
        (date(2024, 1, 2), "moment", "2024-01-02"),
        (timedelta(hours=-30, minutes=-15), "moment", "-30:15:00"),
        ('{"名": [1, 2]}', "json", '{"名": [1, 2]}'),
        ('{"a":  1}', "json", '{"a": 1}'),
        ("{broken", "json", "{broken"),
        (["a", None, 2], "other", "a, 2"),
        (b"\x05", "bits", "5"),
        ("字".encode(), "text", "字"),
        (b"\xff\xfe", "text", "[binary data, 2 bytes]"),
        (None, "text", ""),
    ],
)
def test_values_are_written_exactly_and_plainly(value: object, kind: Any, expected: str) -> None:
    assert value_text(value, kind) == expected


def test_metadata_keeps_its_types() -> None:
    assert metadata_value(Decimal("2.50"), "decimal") == 2.5
    assert metadata_value(Decimal("2"), "decimal") == 2
    assert metadata_value(1, "yes_no") is True
    assert metadata_value("2024-01-02 03:04:05", "moment") == date(2024, 1, 2)
    assert metadata_value("0000-00-00", "moment") == "0000-00-00"
    assert metadata_value("", "text") is None


def test_names_read_well() -> None:
    assert [readable(name) for name in ("FirstName", "unit_price", "HTMLPage", "客户名称", "a b", "_")] == [
        *("First Name", "Unit price", "HTML Page", "客户名称", "A b", "_")
    ]
    assert [reference_name(name) for name in ("SupportRepId", "maker_id", "客户编号", "客户ID", "id", "paid")] == [
        *("Support Rep", "Maker", "客户", "客户", "", "Paid")
    ]


def test_han_names_stand_together(tmp_path: Path) -> None:
    script = "CREATE TABLE 员工 (编号 INTEGER PRIMARY KEY, 名 TEXT, 姓 TEXT, 上级编号 INTEGER REFERENCES 员工);"
    url = make(tmp_path / "a.db", script + "INSERT INTO 员工 VALUES (1, '小明', '王', NULL), (2, '丽', '李', 1)")
    found = originals(url)
    assert found["员工/1"].title == "员工: 王小明"
    assert "上级: 王小明" in found["员工/2"].data.decode()


# ── keys, states, choices ─────────────────────────────────────────────────────────────────────


def test_the_key_is_found(tmp_path: Path) -> None:
    """Primary key, else a unique index without NULLs, else the row's content; equal rows are one document."""
    url = make(
        tmp_path / "a.db",
        """CREATE TABLE a (x INTEGER PRIMARY KEY, y TEXT); INSERT INTO a VALUES (1, 'p');
        CREATE TABLE b (x TEXT NOT NULL UNIQUE, y TEXT UNIQUE); INSERT INTO b VALUES ('k/1', NULL);
        CREATE TABLE c (x TEXT); INSERT INTO c VALUES ('one'), ('one'), ('two');
        CREATE TABLE d (x TEXT, y TEXT); CREATE UNIQUE INDEX part ON d (x) WHERE y IS NULL;
        INSERT INTO d VALUES ('s', 'a'), ('s', 'b');
        CREATE TABLE e (x TEXT PRIMARY KEY); INSERT INTO e VALUES (NULL), ('v');""",
    )
    keys = [entry.key for entry in listed(url)]
    assert keys[:2] == ["a/1", "b/k%2F1"]
    assert [key.partition("~")[0] for key in keys[2:]] == ["c/", "c/", "d/", "d/", "e/", "e/v"]
    assert len(set(keys)) == len(keys)
    assert [entry.key for entry in listed(url)] == keys


def test_a_key_that_is_not_unique_is_said(shop: str) -> None:
    found = listed(shop, query="SELECT 1 AS id, 'a' AS t UNION ALL SELECT 1, 'b'", key=["id"])
    assert isinstance(found[0], Item)
    assert isinstance(found[1], Unlisted)
    assert found[1].problem.code == "duplicate-key"


@given(st.lists(st.text(), min_size=2, max_size=2), st.lists(st.text(), min_size=2, max_size=2))
def test_two_keys_never_look_alike(one: list[str], other: list[str]) -> None:
    kinds: Any = ["text", "text"]
    canonical = [
        [part.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd") for part in k] for k in (one, other)
    ]
    assert (key_path(one, kinds) == key_path(other, kinds)) == (canonical[0] == canonical[1])


def test_the_state_notices_a_change_behind_a_still_time_stamp(tmp_path: Path) -> None:
    url = make(tmp_path / "a.db", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, at DATETIME)")
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("INSERT INTO t VALUES (1, 'old', '2024-01-01 10:00:00')")
    connection.commit()
    [before] = listed(url, updated_at="at")
    [again] = listed(url, updated_at="at")
    connection.execute("UPDATE t SET v = 'new'")
    connection.commit()
    connection.close()
    [after] = listed(url, updated_at="at")
    assert isinstance(before, Item)
    assert isinstance(again, Item)
    assert isinstance(after, Item)
    assert before.state == again.state == before.load().state
    assert before.state["updated_at"] == after.state["updated_at"] == "2024-01-01 10:00:00"
    assert before.state["sha256"] != after.state["sha256"]
    assert before.load().data == b"Id: 1\nV: old"
    assert before.load().metadata == {"date": date(2024, 1, 1)}


def test_columns_are_chosen_per_table_or_for_all(shop: str) -> None:
    found = originals(
        shop,
        tables=[
            {"name": "product", "text_columns": ["title", "maker_id"], "metadata_columns": ["price", "maker_id"]},
            {"name": "maker", "title_columns": "country", "key": "name"},
        ],
        text_columns=["country"],
    )
    assert found["product/7"].data.decode() == "Title: Star map\nMaker: Kepler Labs"
    assert found["product/7"].metadata == {"price": 12.5, "maker_id": "Kepler Labs"}
    assert found["maker/Kepler Labs"].data.decode() == "Country: France"
    assert found["maker/Kepler Labs"].title == "Maker: France"


@pytest.mark.parametrize(
    "options",
    [
        {"tables": ["produkt"]},
        {"tables": ["product", {"name": "product"}]},
        {"query": "SELECT id, name AS id FROM maker", "key": ["id"]},
        {"tables": [{"name": "product", "text_columns": ["titel"]}]},
        {"text_columns": ["nowhere"]},
        {"updated_at": "nowhere"},
        {"tables": [{"name": "product", "colour": "red"}]},
        {"tables": [{"text_columns": ["title"]}]},
        {"tables": ["product"], "query": "SELECT 1", "key": ["id"]},
        {"query": "SELECT 1 AS id"},
        {"query": "SELECT 1 AS id", "key": ["di"]},
        {"query": "SELECT nothing FROM product", "key": ["id"]},
        {"query": "SELEC 1", "key": ["id"]},
        {"batch_rows": 0},
        {"statement_timeout_seconds": 0},
    ],
)
def test_what_cannot_be_used_is_named(shop: str, options: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        listed(shop, **options)


def test_a_misspelt_name_is_answered_with_the_right_one(shop: str) -> None:
    with pytest.raises(InvalidInput, match="Did you mean product"):
        listed(shop, tables=["produkt"])


def test_check_names_the_tables_without_reading_them(shop: str) -> None:
    source = DatabaseSource(url=shop)
    assert source.check() == ["maker", "product", "product_tag", "review", "staff", "tag"]
    assert DatabaseSource(url=shop, query="SELECT 1 AS id", key=["id"]).check() == ["query"]


def test_indexes_for_full_text_search_are_no_tables(tmp_path: Path) -> None:
    script = (
        "CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE VIRTUAL TABLE f USING fts5(body); CREATE VIEW v AS SELECT 1"
    )
    assert DatabaseSource(url=make(tmp_path / "a.db", script)).check() == ["t"]


# ── updated-at ────────────────────────────────────────────────────────────────────────────────

NOTES = """
CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE note (
    id INTEGER PRIMARY KEY, body TEXT, author_id INTEGER REFERENCES author ON DELETE SET NULL, changed_at DATETIME);
INSERT INTO author VALUES (1, 'Ada'), (2, 'Bo');
WITH RECURSIVE n(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < 19)
INSERT INTO note SELECT id, 'Note ' || id || ' speaks of pumps.', 1 + id % 2, '2026-01-01 10:00:00' FROM n;
"""


class Counting(DatabaseSource):
    """Counts the rows that it was given, by what was asked: `whole`, `narrow` (key and stamp), `keyed`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows = dict.fromkeys(("whole", "narrow", "keyed"), 0)

    def _stream(self, snapshot: Any, start: Any) -> Any:
        names, rows = super()._stream(snapshot, start)
        statement = str(snapshot.results[0].context.statement).casefold()
        how = "keyed" if " in (" in statement or " = ?" in statement else "narrow"
        if "body" in statement.partition(" from ")[0] or "*" in statement:
            how = how if how == "keyed" else "whole"

        def counted() -> Iterator[Any]:
            for row in rows:
                self.rows[how] += 1
                yield row

        return names, counted()


class Followed:
    """A table that is synced again and again."""

    def __init__(self, folder: Path, script: str = NOTES, **options: Any) -> None:
        self.path = folder / "notes.db"
        self.url = make(self.path, script)
        self.options = {"tables": ["note"], "updated_at": "changed_at"} | options
        self.bases = Bases(folder / "base")
        self.bases.folder.mkdir()
        self.runs: Runs = runs_in(self.bases.open())
        self.rows: dict[str, int] = {}

    def run(self, *statements: str) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            connection.execute("PRAGMA foreign_keys = ON")
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def source(self, **options: Any) -> Counting:
        return Counting(url=self.url, **(self.options | options))

    def sync(self, *, verify: bool = False, allow_deletes: bool = False, **options: Any) -> tuple[Counts, int]:
        """What it did, and how many texts were embedded."""
        before = len(self.bases.embedder.embedded)
        source = self.source(verify=verify, **options)
        report = self.runs.make().run(source, SyncOptions(verify=verify, allow_deletes=allow_deletes))
        assert report.problem is None
        self.rows = source.rows
        return report.counts, len(self.bases.embedder.embedded) - before

    def state(self, key: str) -> Mapping[str, str]:
        with self.runs.base.catalog.read() as snapshot:
            return knowledge.known_documents(snapshot, self.runs.source.id)[key].state


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Followed]:
    followed = Followed(tmp_path)
    yield followed
    followed.bases.assert_sound()
    followed.bases.close()


def test_rows_whose_stamp_stood_are_not_read(notes: Followed) -> None:
    assert notes.sync() == (Counts(added=20), 20)
    assert notes.rows == {"whole": 20, "narrow": 0, "keyed": 0}
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows == {"whole": 0, "narrow": 20, "keyed": 0}


def test_rows_inserted_updated_deleted_and_given_another_key_are_read_by_their_keys(notes: Followed) -> None:
    notes.sync()
    notes.run(
        "INSERT INTO note VALUES (20, 'Note 20 speaks of valves.', 1, '2026-01-02 10:00:00')",
        "UPDATE note SET body = 'Note 1 speaks of storms.', changed_at = '2026-01-02 10:00:00' WHERE id = 1",
        "UPDATE note SET changed_at = '2026-01-02 10:00:00' WHERE id = 3",  # nothing else of it
        "UPDATE note SET body = 'Note 6 is back.', changed_at = '2025-12-01 10:00:00' WHERE id = 6",  # an older stamp
        "DELETE FROM note WHERE id = 4",
        "UPDATE note SET id = 105 WHERE id = 5",
    )
    counts, embedded = notes.sync(batch_rows=2)
    assert counts == Counts(added=2, changed=2, unchanged=16, deleted=2)
    assert embedded <= 4
    assert notes.rows == {"whole": 0, "narrow": 20, "keyed": 5}
    assert {"note/20", "note/105"} <= set(notes.runs.documents())
    assert not {"note/4", "note/5"} & set(notes.runs.documents())
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows["keyed"] == 0


def test_a_change_behind_a_stamp_that_stood_is_found_by_verify(notes: Followed) -> None:
    notes.sync()
    notes.run("UPDATE note SET body = 'Note 2 speaks of rivers.' WHERE id = 2")
    assert notes.sync() == (Counts(unchanged=20), 0)
    counts, embedded = notes.sync(verify=True)
    assert counts == Counts(changed=1, unchanged=19)
    assert embedded == 1
    assert notes.rows == {"whole": 20, "narrow": 0, "keyed": 0}
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows == {"whole": 0, "narrow": 20, "keyed": 0}


@pytest.mark.parametrize("stamp", ["NULL", "''", "'soon'", "'01.02.2026 10:00'"])
def test_a_row_without_a_stamp_that_says_when_is_always_read(notes: Followed, stamp: str) -> None:
    notes.run(f"UPDATE note SET changed_at = {stamp} WHERE id < 3")
    notes.sync()
    notes.run("UPDATE note SET body = 'Note 2 speaks of rivers.' WHERE id = 2")
    assert notes.sync() == (Counts(changed=1, unchanged=19), 1)
    assert notes.rows["keyed"] == 3
    assert notes.sync() == (Counts(unchanged=20), 0)


def test_a_renamed_label_is_read_in_the_rows_that_use_it(notes: Followed) -> None:
    notes.sync()
    notes.run("INSERT INTO author VALUES (3, 'Cy')")  # nobody's label
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows["keyed"] == 0
    notes.run("UPDATE author SET name = 'Zoe' WHERE id = 2")
    assert notes.sync() == (Counts(changed=10, unchanged=10), 10)
    assert notes.rows == {"whole": 0, "narrow": 20, "keyed": 10}
    notes.run("DELETE FROM author WHERE id = 2")  # sets the rows' key to NULL, and no stamp
    assert notes.sync()[0] == Counts(changed=10, unchanged=10)


def test_rows_that_are_read_in_another_way_are_read_again_once(notes: Followed) -> None:
    notes.sync()
    notes.run("ALTER TABLE note ADD COLUMN place TEXT DEFAULT 'Lyon'")
    assert notes.sync()[0] == Counts(changed=20)
    assert notes.sync(text_columns=["body"])[0] == Counts(changed=20)
    assert notes.sync(text_columns=["body"]) == (Counts(unchanged=20), 0)
    assert notes.rows == {"whole": 0, "narrow": 20, "keyed": 0}


def test_states_of_older_catalogs_are_read_once_and_embed_nothing(notes: Followed) -> None:
    notes.sync()
    with notes.runs.base.catalog.write() as connection:
        for known in knowledge.known_documents(connection, notes.runs.source.id).values():
            old = {name: value for name, value in known.state.items() if name in ("sha256", "updated_at")}
            digest = known.content_sha256
            knowledge.touch_document(connection, known.document_id, state=old, content_sha256=digest)
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows == {"whole": 20, "narrow": 0, "keyed": 0}
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows == {"whole": 0, "narrow": 20, "keyed": 0}


def test_a_row_stamped_just_now_is_looked_at_again(notes: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may change once more within the second that its stamp can tell."""
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    notes.run(f"UPDATE note SET changed_at = '{now}' WHERE id = 7")
    notes.sync()
    assert notes.state("note/7")["unsettled"] == "1"
    notes.run("UPDATE note SET body = 'Note 7 speaks of rivers.' WHERE id = 7")

    def later(earliest: float, latest: float, server_ahead: float) -> Moment:
        return Moment(earliest + 100, latest + 100, server_ahead)

    monkeypatch.setattr(database, "Moment", later)
    assert notes.sync() == (Counts(changed=1, unchanged=19), 1)
    assert notes.rows["keyed"] == 1
    assert "unsettled" not in notes.state("note/7")
    assert notes.sync() == (Counts(unchanged=20), 0)
    assert notes.rows["keyed"] == 0


@pytest.mark.parametrize(
    ("stamp", "unsettled"),
    [
        ("2026-03-01 11:59:59", True),
        ("2026-03-01 11:59:57.5", True),
        ("2026-03-01 11:59:56", False),
        ("2026-03-01 12:00:01", True),  # a clock that is a little ahead
        ("2026-03-01 17:44:59", True),  # Kathmandu's
        ("2026-03-01 05:59:59-06:00", True),
        ("2026-03-01 17:59:59+00", False),  # somebody's future
        ("2026-03-01 11:59", True),
        ("2026-03-01 11:58", False),
        ("2026-03-01", True),  # the day goes on
        ("2026-02-28 00:00:00", True),  # and somewhere the day before
        ("2026-02-26", False),
        ("20260301", True),
        ("20260301115959", True),
        ("1772366399", True),
        ("1772366390", False),
        ("1772366399500", True),
        ("17", False),  # a row version
        ("00000000000007d1", False),
    ],
)
def test_a_stamp_is_unsettled_while_its_tick_goes_on(stamp: str, unsettled: bool) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
    assert Moment(noon, noon).unsettled(stamp) == unsettled
    assert Moment(noon - 40, noon - 40, server_ahead=40).unsettled(stamp) >= unsettled


def test_too_many_rows_that_moved_are_read_with_the_table(notes: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_MOST_BY_KEY", 5)
    notes.sync()
    notes.run("UPDATE note SET body = body || '!', changed_at = '2026-01-02 10:00:00' WHERE id > 12")
    assert notes.sync() == (Counts(changed=7, unchanged=13), 7)
    assert notes.rows == {"whole": 20, "narrow": 20, "keyed": 0}


def test_a_row_that_its_key_does_not_find_again_is_not_gone(tmp_path: Path) -> None:
    """SQLite keeps NULL in a primary key, text that is no text, and texts that only look like its key."""
    script = (
        "CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT, changed_at TEXT);"
        "INSERT INTO note VALUES (NULL, 'one', '2026-01-01'), ('a', 'two', '2026-01-01'),"
        " (CAST(x'62ff' AS TEXT), 'three', '2026-01-01'), (x'00', 'four', '2026-01-01')"
    )
    followed = Followed(tmp_path, script)
    assert followed.sync()[0] == Counts(added=4)
    assert followed.sync()[0] == Counts(unchanged=4)
    followed.run("UPDATE note SET body = body || '!', changed_at = '2026-01-02' WHERE id IS NOT NULL")
    assert followed.sync()[0] == Counts(changed=3, unchanged=1)
    assert len(followed.runs.documents()) == 4
    followed.bases.close()


def test_rows_of_a_query_go_by_their_stamps_too(tmp_path: Path) -> None:
    query = "SELECT id, body, ':x 100%' AS mark, changed_at FROM note WHERE body LIKE '%pumps%' ORDER BY id -- all"
    followed = Followed(tmp_path, tables=None, query=query, key=["id"])
    assert followed.sync() == (Counts(added=20), 20)
    followed.run(
        "UPDATE note SET body = 'More pumps.', changed_at = '2026-01-02 10:00:00' WHERE id = 1",
        "DELETE FROM note WHERE id = 2",
    )
    assert followed.sync() == (Counts(changed=1, unchanged=18, deleted=1), 1)
    assert followed.rows["keyed"] == 1
    assert followed.sync() == (Counts(unchanged=19), 0)
    followed.bases.close()


def test_a_query_that_stands_only_alone_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = Followed(tmp_path, tables=None, query="SELECT id, body, changed_at FROM note", key=["id"])
    followed.sync()

    def refused(_query: str) -> Any:
        return sa.text("SELECT * FROM nowhere")

    monkeypatch.setattr(database, "select_nothing", refused)
    assert followed.sync() == (Counts(unchanged=20), 0)
    assert followed.rows == {"whole": 20, "narrow": 0, "keyed": 0}
    followed.bases.close()


def test_two_rows_with_one_key_are_said_at_each_listing(tmp_path: Path) -> None:
    script = (
        "CREATE TABLE note (id INTEGER, body TEXT, changed_at TEXT);"
        "INSERT INTO note VALUES (1, 'one', '2026-01-01'), (1, 'two', '2026-01-01'), (2, 'three', '2026-01-01')"
    )
    followed = Followed(tmp_path, script, key=["id"])
    assert followed.sync()[0] == Counts(added=2, failed=1)
    assert followed.sync()[0] == Counts(unchanged=2, failed=1)
    followed.bases.close()


def test_a_row_that_stood_can_be_loaded_all_the_same(notes: Followed) -> None:
    notes.sync()
    source = notes.source()
    with notes.runs.base.catalog.read() as snapshot:
        known = {key: item.state for key, item in knowledge.known_documents(snapshot, notes.runs.source.id).items()}
    found = {entry.key: entry for entry in source.items(known) if isinstance(entry, Item)}
    assert found["note/3"].unchanged
    assert found["note/3"].uri == "notes/note/3"
    assert found["note/3"].load().data == b"Id: 3\nBody: Note 3 speaks of pumps.\nAuthor: Bo"
    assert found["note/3"].load().state == known["note/3"] == found["note/3"].state
    notes.run("DELETE FROM note WHERE id = 3")
    with pytest.raises(DocumentError, match="deleted"):
        found["note/3"].load()


def test_rows_with_binary_keys_are_different_rows(tmp_path: Path) -> None:
    script = "CREATE TABLE t (id BLOB PRIMARY KEY, v TEXT); INSERT INTO t VALUES (x'0001', 'a'), (x'0002', 'b')"
    assert set(texts(make(tmp_path / "a.db", script))) == {"t/0001", "t/0002"}


# ── bad input ─────────────────────────────────────────────────────────────────────────────────


def test_a_bad_row_does_not_stop_the_rest(tmp_path: Path) -> None:
    url = make(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, n NUMERIC(6,2), at DATETIME);"
        "INSERT INTO t VALUES (1, 'ok', 1, NULL), (2, CAST(x'63ff64' AS TEXT), 'many', 'soon'), (3, x'80', 2.5, 7),"
        " (4, printf('%.*c', 5000, 'x'), NULL, NULL), (5, '', NULL, NULL)",
    )
    found = {entry.key: entry for entry in listed(url, max_row_characters=1000)}
    assert list(found) == ["t/1", "t/2", "t/3", "t/4", "t/5"]
    too_large = found["t/4"]
    assert isinstance(too_large, Unlisted)
    assert too_large.problem.code == "too-large"
    damaged = originals(url)["t/2"].parsed
    assert damaged is not None
    assert damaged.text == "Id: 2\nV: c\ufffdd\nN: many\nAt: soon"
    assert [problem.code for problem in damaged.problems] == ["undecodable-text"]
    assert texts(url)["t/3"] == "Id: 3\nV: [binary data, 1 bytes]\nN: 2.5\nAt: 7"
    assert originals(url, text_columns=["v"])["t/5"].parsed.status == "empty"  # type: ignore[union-attr]


def test_a_file_that_is_no_database_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database at all, but long enough to be looked at as one" * 50)
    with pytest.raises(SourceError):
        listed(f"sqlite:///{tmp_path}/a.db")


def test_a_locked_or_slow_database_is_broken_off(shop: str) -> None:
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT max(id) AS id FROM n"
    with pytest.raises(SourceError):
        listed(shop, query=endless, key=["id"], statement_timeout_seconds=0.2)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM maker",
        "INSERT INTO maker VALUES (9, 'x', 'y') RETURNING id",
        "WITH x AS (SELECT 1) DELETE FROM maker",
        "SELECT 1 AS id; DELETE FROM maker",
        "PRAGMA user_version = 7",
        "ATTACH 'other.db' AS other",
        "/* SELECT */ DROP TABLE maker",
        "SELECT 1 AS id /*! INTO OUTFILE 'x' */",
        "",
    ],
)
def test_nothing_can_be_written_through_a_query(shop: str, query: str) -> None:
    with pytest.raises(InvalidInput):
        listed(shop, query=query, key=["id"])
    assert len(listed(shop, tables=["maker"])) == 1


def test_semicolons_and_comments_inside_of_a_query_are_fine(shop: str) -> None:
    query = "-- all; of them\nSELECT id, ';' AS mark /* ; */, name AS \"a;b\" FROM maker;  "
    assert texts(shop, query=query, key=["id"])["query/1"] == "Id: 1\nMark: ;\nA;b: Kepler Labs"


def test_the_file_itself_is_opened_for_reading_only(shop: str) -> None:
    source = DatabaseSource(url=shop)
    with source._database.reading() as snapshot, pytest.raises(Exception, match="readonly"):
        snapshot.connection.exec_driver_sql("DELETE FROM maker")


# ── where a database may be, and what is not said of it ───────────────────────────────────────


def test_a_file_must_be_there_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no database file"):
        DatabaseSource(url=f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_and_odd_names_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "数据 #1%20.db", "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    monkeypatch.chdir(tmp_path)
    [item] = listed("sqlite:///数据 #1%2520.db")  # as in every URL, % is written %25
    assert item.uri == "数据 #1%20/t/1"


def test_files_outside_of_the_allowed_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    outside = make(tmp_path / "out.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    (tmp_path / "in" / "link.db").symlink_to(tmp_path / "out.db")
    for url in (outside, f"sqlite:///{tmp_path}/in/link.db", f"sqlite:///{tmp_path}/in/../out.db"):
        with pytest.raises(NotAllowed):
            DatabaseSource(url=url, allowed_roots=[tmp_path / "in"])
    with pytest.raises(NotAllowed):
        DatabaseSource(url=outside, allowed_roots=[])
    assert listed(outside, allowed_roots=[tmp_path]) == []


CANARY = "k4n@ry/P%ss:w0rd'x"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://us3r:{CANARY}@127.0.0.1:1/db",
        "postgresql://us3r:k4n%40ry@127.0.0.1:port/db",
        "mysql://us3r:k4n%40ry@127.0.0.1",
        "nosuchbase://us3r:k4n%40ry@127.0.0.1/db",
        "postgresql+asyncpg://us3r:k4n%40ry@127.0.0.1/db",
        "k4n%40ry",
        "",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        DatabaseSource(url=url)
    assert "k4n" not in "".join(traceback.format_exception(raised.value)).replace(repr(url), "")
    assert "us3r" not in str(raised.value)
    assert raised.value.__context__ is None


@pytest.fixture
def talkative_server() -> Iterator[int]:
    """The port of a PostgreSQL that answers every login with an error that repeats the password."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                if client.recv(4096)[4:8] != b"\x00\x03\x00\x00":  # a request for TLS or GSS comes first
                    client.sendall(b"N")
                    client.recv(4096)
                words = f"password {CANARY} of us3r is wrong, postgresql://us3r:k4n%40ry%2FP%25ss%3Aw0rd%27x@host/db"
                fields = b"".join(b + b"\0" for b in (b"SFATAL", b"C28P01", b"M" + words.encode())) + b"\0"
                client.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_driver_that_repeats_the_password_is_silenced(talkative_server: int, scheme: str) -> None:
    url = f"{scheme}://us3r:k4n%40ry%2FP%25ss%3Aw0rd%27x@127.0.0.1:{talkative_server}/db?sslmode=disable"
    with pytest.raises(AttestError) as raised:
        listed(url)
    said = "".join(traceback.format_exception(raised.value)) + repr(raised.value.__dict__)
    assert isinstance(raised.value, SourceError)
    assert not [
        secret for secret in ("k4n", "w0rd", "us3r") if secret in str(raised.value) + repr(raised.value.__dict__)
    ]
    assert CANARY not in said
    assert raised.value.__context__ is None
