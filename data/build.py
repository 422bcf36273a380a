"""Makes the sample corpus from `data/source`: `python -m data.build [FOLDER]` writes into `data/` or another folder.

Building twice gives the same files, so that a change of a text shows as a change of its own file only.
"""

from __future__ import annotations

import csv
import re
import shutil
import sqlite3
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from data.book import make_book, read_source
from data.site import make_site

DATA = Path(__file__).parent
SOURCE = DATA / "source"
TABLES = ("suppliers", "products", "prices", "stock", "customers", "orders", "order_lines")  # referred ones first


def build(target: Path) -> None:
    """Writes the whole corpus into the folder, over what is there."""
    corpus = target / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for name in ("handbook-en", "handbook-zh"):
        make_book(SOURCE / f"{name}.md", corpus / f"{name}.pdf")
    make_letter(SOURCE / "onboarding.md", corpus / "onboarding.docx")
    make_price_list(corpus / "price-list-2026.xlsx")
    shutil.copyfile(SOURCE / "meeting-notes-2026-10.md", corpus / "meeting-notes-2026-10.md")
    make_site(SOURCE / "site", target / "site")
    make_database(target / "products.sqlite")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ── the database ──────────────────────────────────────────────────────────────────────────────


def make_database(target: Path) -> None:
    """A SQLite file with the tables of `schema.sql` and the rows of the CSV files; an empty field is NULL."""
    target.unlink(missing_ok=True)
    connection = sqlite3.connect(target)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript((SOURCE / "database" / "schema.sql").read_text(encoding="utf-8"))
    for table in TABLES:
        rows = rows_of(SOURCE / "database" / f"{table}.csv")
        marks = ", ".join("?" * len(rows[0]))
        # The names come from the tuple above, never from outside.
        connection.executemany(
            f"INSERT INTO {table} VALUES ({marks})",  # noqa: S608
            [[value or None for value in row.values()] for row in rows],
        )
    connection.commit()
    connection.execute("VACUUM")
    connection.close()


# ── office files ──────────────────────────────────────────────────────────────────────────────


def make_price_list(target: Path) -> None:
    """A workbook: this year's list prices in both currencies, and the discounts by quantity."""
    from openpyxl import Workbook
    from openpyxl.styles import Font, PatternFill

    prices = {
        (row["sku"], row["currency"]): float(row["list_price"])
        for row in rows_of(SOURCE / "database" / "prices.csv")
        if row["valid_from"] == "2026-01-01"
    }
    book = Workbook()
    sheet = book.active
    sheet.title = "List prices 2026"
    sheet.append(["Number", "Name", "名称", "Price EUR", "Price CNY", "Weight in grams"])
    for row in rows_of(SOURCE / "database" / "products.csv"):
        euro, yuan = prices.get((row["sku"], "EUR")), prices.get((row["sku"], "CNY"))
        if euro is not None:
            sheet.append([row["sku"], row["name"], row["name_zh"], euro, yuan, int(row["weight_grams"])])
    discounts = book.create_sheet("Quantity discounts")
    lines = rows_of(SOURCE / "discounts.csv")
    discounts.append(list(lines[0]))
    for line in lines:
        discounts.append([int(value) if value.isdigit() else value or None for value in line.values()])
    for page in (sheet, discounts):
        page.freeze_panes = "A2"
        for cell in page[1]:
            cell.font, cell.fill = Font(bold=True, color="FFFFFF"), PatternFill("solid", "0F6B70")
        for column, width in zip("ABCDEF", (36, 24, 30, 20, 14, 16), strict=True):
            page.column_dimensions[column].width = width
    book.properties.creator = "Pieter Noteboom"
    book.properties.title = "Tidelark price list 2026"
    book.properties.created = datetime(2026, 1, 2, 9, tzinfo=UTC).replace(tzinfo=None)
    book.save(target)
    settle(target, "2026-01-02T09:00:00Z")


def make_letter(source_path: Path, target: Path) -> None:
    """A Word file with headings, lists and a table."""
    from docx import Document

    source = read_source(source_path)
    document = Document()
    document.add_heading(source.header["title"], 0)
    tokens = MarkdownIt("commonmark").enable("table").parse(source.body)
    style, position = "Normal", 0
    while position < len(tokens):
        token = tokens[position]
        if token.type == "heading_open":
            document.add_heading(tokens[position + 1].content, int(token.tag[1]))
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            style = "List Bullet" if token.type == "bullet_list_open" else "List Number"
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            style = "Normal"
        elif token.type == "paragraph_open":
            document.add_paragraph(tokens[position + 1].content.replace("\n", " "), style=style)
        elif token.type == "table_open":
            end = next(n for n in range(position, len(tokens)) if tokens[n].type == "table_close")
            _add_table(document, tokens[position:end])
            position = end
        position += 1
    properties = document.core_properties
    properties.title, properties.author = source.header["title"], source.header["author"]
    properties.last_modified_by = source.header["author"]
    properties.created = properties.modified = datetime.fromisoformat(source.header["date"])
    document.save(str(target))
    settle(target, source.header["date"] + "T00:00:00Z")


def _add_table(document: Any, tokens: list[Token]) -> None:
    rows: list[list[str]] = []
    for position, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(tokens[position + 1].content)
    table = document.add_table(rows=0, cols=len(rows[0]), style="Light Grid Accent 1")
    for row in rows:
        for cell, text in zip(table.add_row().cells, row, strict=True):
            cell.text = text


def settle(path: Path, modified: str) -> None:
    """Writes an office file anew without the time of building: neither in the archive nor in its properties."""
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts:
            if name == "docProps/core.xml":
                data = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>" + modified.encode(), data)
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    build(folder)
    print(f"The sample corpus is in {folder}.")
