"""Tables and records: every row names its columns, and is numbered as the file shows it."""

from __future__ import annotations

import csv
import json
from datetime import date, datetime
from io import BytesIO, StringIO
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.readers import records, tables
from ingest.readers.options import ReadOptions
from ingest.readers.rows import plausible_header, show_value
from ingest.readers.tables import read_csv
from rag.errors import DocumentError
from tests.parsed_checks import assert_exact, block_with, parse, texts


def workbook(**sheets: list[list[Any]]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    return book


def saved(book: openpyxl.Workbook) -> bytes:
    file = BytesIO()
    book.save(file)
    return file.getvalue()


def test_a_workbook_is_read_sheet_by_sheet() -> None:
    book = workbook(
        销售=[
            ["2024 年销售报告"],
            [],
            ["产品", "数量", "日期", "占比"],
            ["阿尔法", 3.0, date(2024, 1, 5), 0.125],
            ["贝塔", 0.1 + 0.2],
        ],
        Empty=[],
        Staff=[["Name", "Active", "Since"], ["Ann", True, datetime(2024, 1, 5, 10, 30)]],
    )
    book["销售"]["D4"].number_format = "0.0%"
    book.properties.title, book.properties.creator = "Report", "王明"
    parsed = parse(saved(book), "a.xlsx")
    assert (parsed.title, parsed.metadata["author"]) == ("Report", "王明")
    assert texts(parsed, "heading") == ["销售", "Staff"]
    assert texts(parsed, "paragraph") == ["2024 年销售报告"]
    assert texts(parsed, "table_row") == [
        "产品: 阿尔法; 数量: 3; 日期: 2024-01-05; 占比: 12.5%",
        "产品: 贝塔; 数量: 0.3",
        "Name: Ann; Active: TRUE; Since: 2024-01-05 10:30",
    ]
    assert block_with(parsed, "贝塔").row == "销售 / 5"
    assert block_with(parsed, "Ann").section == ("Staff",)


def test_formulas_that_were_never_computed_are_reported() -> None:
    parsed = parse(saved(workbook(A=[["Item", "Sum"], ["x", "=1+1"]])), "a.xlsx")
    assert [problem.code for problem in parsed.problems] == ["formulas-without-values"]


def test_an_empty_workbook_is_empty() -> None:
    assert parse(saved(openpyxl.Workbook()), "a.xlsx").status == "empty"


def test_a_workbook_that_is_cut_off_is_corrupt() -> None:
    with pytest.raises(DocumentError) as raised:
        parse(saved(workbook(A=[["a", "b"]]))[:-100], "a.xlsx")
    assert raised.value.status == "corrupt"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimited_text_is_read_with_any_delimiter_and_encoding(delimiter: str, encoding: str) -> None:
    rows = [["姓名", "年龄", "城市"], ["张三", "30", "北京"], ["李四", "", f"上海\n浦东{delimiter}新区"]]
    file = StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    parsed = parse(file.getvalue().encode(encoding), "a.csv")
    city = " ".join(f"上海 浦东{delimiter}新区".split())
    assert texts(parsed) == ["姓名: 张三; 年龄: 30; 城市: 北京", f"姓名: 李四; 城市: {city}"]
    assert block_with(parsed, "李四").row == "3"


def test_a_table_without_a_header_shows_its_cells() -> None:
    assert texts(parse("1,2\n3,4\n", "a.csv")) == ["1 | 2", "3 | 4"]
    assert texts(parse("sep=;\na;b\n1;2\n", "a.csv")) == ["a: 1; b: 2"]


def test_rows_past_the_limit_are_counted_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    parsed = parse("n,word\n1,a\n2,b\n3,c\n4,d\n", "a.csv")
    assert parsed.status == "partial"
    assert [problem.code for problem in parsed.problems] == ["rows-left-out"]
    assert texts(parsed) == ["n: 1; word: a", "n: 2; word: b"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["Name", "Age"], ["Ann", "3"]], True),
        ([["名称", "说明"], ["甲", "第一个"]], True),
        ([["", "2023", "2024"], ["Sales", "1", "2"]], True),
        ([["Region", "2023", "2024"], ["North", "1", "2"]], True),
        ([["1", "2"], ["3", "4"]], False),
        ([["2023", "2024"], ["3", "4"]], False),
        ([["Name", "Name"], ["a", "b"]], False),
        ([["Only"]], False),
        ([["x" * 80, "y"], ["a", "b"]], False),
        ([["Title"], ["a", "b", "c"]], False),
    ],
)
def test_a_header_is_words_that_differ(rows: list[list[str]], expected: bool) -> None:
    assert plausible_header(rows) is expected


def test_values_read_well() -> None:
    values = (3.0, 0.1 + 0.2, -0.0, 1e20, float("nan"), True, None, date(2024, 2, 3), datetime(2024, 2, 3), " a\n b ")
    assert [show_value(value) for value in values] == (
        ["3", "0.3", "0", "1e+20", "", "TRUE", "", "2024-02-03", "2024-02-03", "a b"]
    )


@given(st.lists(st.lists(st.text(max_size=8), max_size=4), max_size=20))
def test_offsets_of_any_csv_are_exact_and_no_cell_is_lost(rows: list[list[str]]) -> None:
    file = StringIO()
    csv.writer(file).writerows(rows)
    data = file.getvalue().encode("utf-8", errors="replace")
    assert_exact(read_csv(data, options=ReadOptions()))


@given(st.lists(st.lists(st.text(alphabet="abc甲乙1", min_size=1, max_size=6), min_size=2, max_size=2), max_size=10))
def test_every_word_of_a_csv_is_in_its_text(rows: list[list[str]]) -> None:
    file = StringIO()
    csv.writer(file).writerows(rows)
    text = read_csv(file.getvalue().encode(), options=ReadOptions()).text
    assert all(" ".join(cell.split()) in text for row in rows for cell in row)


def test_records_with_a_title_and_a_text_are_documents() -> None:
    long = "A paragraph that says something about the matter at hand, at a certain length, in plain words."
    parsed = parse(
        json.dumps([{"title": "First", "content": f"{long}\n\nSecond paragraph.", "tags": ["a", "b"]}]), "a.json"
    )
    assert texts(parsed) == ["First", "tags: a, b", long, "Second paragraph."]
    assert block_with(parsed, "Second").section == ("First",)


def test_other_records_are_rows() -> None:
    parsed = parse(
        json.dumps({"items": [{"name": "Ann", "address": {"city": "上海"}, "ok": True, "none": None}]}), "a.json"
    )
    assert texts(parsed) == ["items", "name: Ann; address.city: 上海; ok: TRUE"]
    assert (block_with(parsed, "Ann").row, block_with(parsed, "Ann").section) == ("1", ("items",))


def test_bad_lines_are_reported_and_the_good_ones_read() -> None:
    parsed = parse('{"a": "x"}\nbroken\n\n{"a": "y"}\n', "a.jsonl")
    assert (parsed.status, [problem.code for problem in parsed.problems]) == ("partial", ["lines-left-out"])
    assert block_with(parsed, "y").row == "4"
    with pytest.raises(DocumentError) as raised:
        parse("broken\nbroken", "a.jsonl")
    assert raised.value.status == "corrupt"


def test_lines_of_json_are_read_under_the_name_of_json() -> None:
    assert texts(parse('{"a": 1}\n{"a": 2}\n', "a.json")) == ["a: 1", "a: 2"]


@pytest.mark.parametrize(("data", "status"), [("{bad", "corrupt"), ("[" * 200_000, "too_large")])
def test_broken_json_says_where(data: str, status: str) -> None:
    with pytest.raises(DocumentError) as raised:
        parse(data, "a.json")
    assert raised.value.status == status


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["title", "text", "a", "表"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_offsets_of_any_json_are_exact(value: object) -> None:
    assert_exact(records.read_json(json.dumps(value).encode(), options=ReadOptions()))
