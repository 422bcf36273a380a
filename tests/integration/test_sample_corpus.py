"""The sample corpus is what its sources say, and its questions are fair: each answer stands where `expected` says."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lxml import html

from data.build import build

DATA = Path(__file__).parents[2] / "data"
CORPUS, SITE, DATABASE = DATA / "corpus", DATA / "site", DATA / "products.sqlite"
QUESTIONS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "eval" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]
ABSENT = ["dental", "TL-1650", "Leafpoint Wind", "Hamburg", "revenue", "SO-26-0999", "football", "sourdough"]
ABSENT += ["期权", "第三十条", "防爆认证", "成都", "GS-2060", "手机号", "李白"]
ANSWERABLE = [question for question in QUESTIONS if question["answerable"]]


def test_a_fresh_build_holds_what_is_committed(tmp_path: Path) -> None:
    build(tmp_path)

    def listing(root: Path) -> list[str]:
        return sorted(
            path.relative_to(root).as_posix() for part in ("corpus", "site") for path in (root / part).iterdir()
        )

    assert listing(tmp_path) == listing(DATA)
    for name in listing(DATA):
        assert content(tmp_path / name) == content(DATA / name), f"run `python -m data.build`: {name} is out of date"
    assert dump(tmp_path / "products.sqlite") == dump(DATABASE)


def test_the_committed_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize(("name", "pages", "front", "chapters"), [("en", 24, 4, 17), ("zh", 19, 4, 13)])
def test_a_handbook_has_the_marks_of_a_printed_book(name: str, pages: int, front: int, chapters: int) -> None:
    from pypdf import PdfReader

    reader = PdfReader(CORPUS / f"handbook-{name}.pdf")
    outline = reader.outline
    assert len(reader.pages) == pages
    assert reader.page_labels == ["i", "ii", "iii", "iv"][:front] + [str(n + 1) for n in range(pages - front)]
    assert sum(not isinstance(entry, list) for entry in outline) == chapters
    assert reader.metadata is not None
    assert reader.metadata.author
    assert reader.metadata.creation_date is not None
    assert reader.metadata.creation_date.year == 2026


def test_every_link_of_the_site_leads_to_a_page_of_it() -> None:
    for page in SITE.glob("*.html"):
        links = [a.get("href") for a in html.fromstring(page.read_bytes()).iter("a")]
        assert len(links) > 5
        for link in links:
            assert link.startswith("#") or (SITE / link).is_file(), f"{page.name} links to {link}"
    listed = re.findall(r"<loc>https://www\.tidelark\.example/([^<]+)</loc>", (SITE / "sitemap.xml").read_text("utf-8"))
    assert sorted(listed) == sorted(page.name for page in SITE.glob("*.html"))


def test_every_foreign_key_of_the_database_points_at_a_row() -> None:
    connection = sqlite3.connect(DATABASE)
    try:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


def test_the_questions_are_mixed_as_the_readme_says() -> None:
    assert len({question["id"] for question in QUESTIONS}) == len(QUESTIONS) == 60
    counts = Counter((question["language"], question["answerable"]) for question in QUESTIONS)
    assert counts == {("en", True): 25, ("zh", True): 20, ("en", False): 8, ("zh", False): 7}
    kinds = Counter(question["kind"] for question in ANSWERABLE)
    assert min(kinds["follow-up"], kinds["date"], kinds["cross-language"], kinds["database row"]) >= 6
    for question in QUESTIONS:
        allowed = {"id", "question", "language", "kind", "history", "answerable", "expected", "notes"}
        assert question.keys() <= allowed, question["id"]
        assert bool(question["expected"]) is question["answerable"], question["id"]
        roles = [turn["role"] for turn in question.get("history", [])]
        assert roles == (["user", "assistant"] if question["kind"] == "follow-up" else []), question["id"]


@pytest.mark.parametrize("question", ANSWERABLE, ids=[question["id"] for question in ANSWERABLE])
def test_the_expected_words_stand_in_the_named_source(question: dict[str, Any]) -> None:
    for expected in question["expected"]:
        text = squeeze(text_at(expected["source"], expected.get("page")))
        assert expected["words"]
        for word in expected["words"]:
            assert squeeze(word) in text, f"{word!r} is not in {expected['source']}, page {expected.get('page')}"


@pytest.mark.parametrize("question", [q for q in ANSWERABLE if q["kind"] == "cross-language"], ids=lambda q: q["id"])
def test_a_question_across_languages_shares_a_latin_name_with_its_source(question: dict[str, Any]) -> None:
    names = re.findall(r"[A-Z][A-Za-z]*-?[\dA-Za-z-]+", question["question"])
    sources = [squeeze(text_at(expected["source"], expected.get("page"))) for expected in question["expected"]]
    assert any(squeeze(name) in source for name in names for source in sources)


@pytest.mark.parametrize("absent", ABSENT)
def test_what_cannot_be_answered_is_nowhere_in_the_corpus(absent: str) -> None:
    everything = [content(path) for folder in (CORPUS, SITE) for path in folder.iterdir()] + [dump(DATABASE)]
    assert not any(squeeze(absent) in squeeze(text) for text in everything)


# ── what stands where, read without any of our own readers ────────────────────────────────────


def squeeze(text: str) -> str:
    """Without white space, because a PDF breaks its lines anywhere, and without capitals."""
    return re.sub(r"\s", "", text).lower()


@cache
def text_at(source: str, page: int | None) -> str:
    if source.startswith("products.sqlite: "):
        return row_text(*source.removeprefix("products.sqlite: ").split(" / "))
    if source.endswith(".html"):
        return str(html.fromstring((SITE / source).read_bytes()).find(".//article").text_content())
    if source.endswith(".pdf"):
        from pypdf import PdfReader

        assert page is not None
        return PdfReader(CORPUS / source).pages[page - 1].extract_text()
    return content(CORPUS / source)


def row_text(table: str, key: str) -> str:
    connection = sqlite3.connect(DATABASE)
    try:
        column = next(row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[5])
        (row,) = connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (key,)).fetchall()
    finally:
        connection.close()
    return " | ".join(str(value) for value in row if value is not None)


def dump(database: Path) -> str:
    connection = sqlite3.connect(database)
    try:
        return "\n".join(connection.iterdump())
    finally:
        connection.close()


@cache
def content(path: Path) -> str:
    """All text of a file."""
    if path.suffix == ".pdf":
        from pypdf import PdfReader

        return "\f".join(page.extract_text() for page in PdfReader(path).pages)
    if path.suffix == ".docx":
        from docx import Document

        document = Document(str(path))
        cells = [cell.text for table in document.tables for row in table.rows for cell in row.cells]
        return "\n".join([paragraph.text for paragraph in document.paragraphs] + cells)
    if path.suffix == ".xlsx":
        from openpyxl import load_workbook

        book = load_workbook(path, read_only=True)
        rows = [" | ".join(map(str, row)) for sheet in book for row in sheet.iter_rows(values_only=True)]
        book.close()
        return "\n".join(rows)
    return path.read_text(encoding="utf-8")
