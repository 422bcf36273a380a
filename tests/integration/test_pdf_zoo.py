"""The PDF zoo: every odd file gets its right word, and the readable ones give the text that answers need."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ingest.readers.options import ReadOptions
from ingest.readers.pdf import read_pdf
from rag.errors import DocumentError
from rag.models import Parsed
from tests.readers_checks import check_parsed

_FOLDER = os.environ.get("ATTEST_EVAL_DATA")
pytestmark = [
    pytest.mark.eval_data,
    pytest.mark.skipif(not _FOLDER, reason="ATTEST_EVAL_DATA does not name the evaluation pack"),
]
DATA = Path(_FOLDER or "/nonexistent")
PASSWORDS = ("test", "openpassword")


def records(path: str) -> list[dict[str, Any]]:
    file = DATA / path
    return [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


@cache
def parsed(path: str) -> Parsed:
    result = read_pdf((DATA / path).read_bytes(), options=ReadOptions(passwords=PASSWORDS, ocr=False))
    check_parsed(result)
    return result


@pytest.mark.parametrize("record", records("pdf/manifest.jsonl"), ids=lambda record: Path(record["file"]).stem)
def test_each_file_of_the_zoo_gets_its_right_status(record: dict[str, Any]) -> None:
    data = (DATA / "pdf" / record["file"]).read_bytes()
    try:
        status = read_pdf(data, options=ReadOptions(ocr=False)).status
    except DocumentError as error:
        status = error.status
    assert status == record["expect"]


@pytest.mark.parametrize("path", sorted(str(p.relative_to(DATA)) for p in DATA.glob("financebench/pdfs/*.pdf")))
def test_each_filing_is_read_whole(path: str) -> None:
    assert parsed(path).status == "ok"


def test_encrypted_files_open_with_their_passwords() -> None:
    for name in ("encrypted_backup4all", "encrypted_libreoffice"):
        assert parsed(f"pdf/files/{name}.pdf").status in ("ok", "partial")


def letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def page_text(folder: str, gold: dict[str, Any]) -> str:
    result = parsed(f"{folder}/{gold['pdf']}")
    page = result.pages[gold["page"] - 1]
    return result.text[page.start : page.end]


def test_the_gold_page_holds_the_answer() -> None:
    readable = [
        record
        for record in records("pdf/queries.jsonl")
        if record["answerable"] and "scanned" not in record["pdf"] and record.get("gold_pages")
    ]
    found = 0
    for record in readable:
        text = letters(" ".join(page_text("pdf/files", gold) for gold in record["gold_pages"]))
        found += any(letters(answer) in text for answer in record["answers"])
    assert found >= 0.9 * len(readable)  # the others are answered in other words than the page's


def test_the_evidence_of_every_filing_question_is_on_its_page() -> None:
    for record in records("financebench/queries.jsonl"):
        if not record.get("pdf_present"):
            continue
        text = letters(" ".join(page_text("financebench/pdfs", gold) for gold in record["gold_pages"]))
        tokens = [letters(token) for evidence in record["evidence"] for token in evidence.split() if letters(token)]
        assert sum(token in text for token in tokens) >= 0.98 * len(tokens), record["qid"]


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("financebench/pdfs/BESTBUY_2023_10K.pdf", "Gross profit 9,912 11,640 10,573"),
        (
            "financebench/pdfs/AMCOR_2023Q4_EARNINGS.pdf",
            "Net income attributable to non-controlling interests 10 10 10 10",
        ),
        ("pdf/files/zh_quarterly_report.pdf", "经营活动产生的现金流量净额（元） -4,194,229.68 35,078,254.69 -111.96%"),
        ("pdf/files/zh_quarterly_report.pdf", "深圳中达软件开发公司 境内非国有法人 0.41% 3,550,000 3,550,000"),
        ("pdf/files/nics_table.pdf", "0 2,248 1,135 2 40 5 0 36 19 0 0 0 0 103,532"),
    ],
)
def test_a_number_stays_on_the_line_of_its_label(path: str, row: str) -> None:
    result = parsed(path)
    rows = [
        result.text[block.start : block.end].replace(" | ", " ") for block in result.blocks if block.kind == "table_row"
    ]
    assert any(row in text for text in rows)


def test_two_columns_are_read_one_after_the_other() -> None:
    text = parsed("pdf/files/tracemonkey.pdf").text
    assert "the system identifies hot (frequently executed) bytecode sequences, records them, and compiles them" in text
