"""Spreadsheets and delimited text: every row names its columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import BytesIO, StringIO
from itertools import chain
from typing import Any
from zipfile import ZipFile

from ingest.readers.blocks import Blocks
from ingest.readers.office import DAMAGE, about, corrupt
from ingest.readers.options import ReadOptions
from ingest.readers.rows import Row, add_table, show_value
from ingest.readers.text import declared_charset, decode, note_encoding
from rag.errors import DocumentError
from rag.models import Parsed
from rag.text.language import canonical

MAX_ROWS = 200_000  # of one file; more belong into a database, and can be read from there
_SHEET_ROWS = 1_048_576  # more there cannot be; the gap before a damaged row number would be filled for hours
_DELIMITERS = (",", "\t", ";", "|")
_UNCOMPUTED = re.compile(rb"</f>\s*(?:<v\s*/>|<v>\s*</v>)?\s*</c>")


def read_xlsx(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    blocks = Blocks()
    left_out = 0
    try:
        workbook = openpyxl.load_workbook(BytesIO(data), read_only=True, data_only=True)
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()  # files declare anything here, a million empty columns included
            rows = _sheet_rows(sheet)
            first = next(rows, None)
            if first is None:
                continue
            room = max(MAX_ROWS - len(blocks), 0)
            blocks.heading(sheet.title, level=1)
            left_out += add_table(blocks, chain([first], rows), place=sheet.title, max_rows=room)
        title, metadata = about(_Properties(workbook.properties))
    except (InvalidFileException, RuntimeError, *DAMAGE) as error:
        raise corrupt("workbook", error) from error
    _note_uncomputed(blocks, data)
    return _limited(blocks, left_out, title=title, metadata=metadata)


class _Properties:
    """A workbook's properties under the names that Word and PowerPoint use."""

    def __init__(self, properties: Any) -> None:
        self.author = properties.creator
        self.title = properties.title
        self.modified = properties.modified


def _sheet_rows(sheet: Any) -> Iterator[Row]:
    """The rows that have something in them, with the numbers that the spreadsheet shows."""
    for number, cells in enumerate(sheet.iter_rows(max_row=_SHEET_ROWS), start=1):
        texts = [_cell_text(cell) for cell in cells]
        if any(texts):
            yield number, texts


def _cell_text(cell: Any) -> str:
    value = cell.value
    if isinstance(value, int | float) and not isinstance(value, bool) and "%" in (cell.number_format or ""):
        return f"{show_value(float(value) * 100)}%"
    return show_value(value)


def _note_uncomputed(blocks: Blocks, data: bytes) -> None:
    """Formulas that no spreadsheet program has worked out yet have no value to read."""
    with ZipFile(BytesIO(data)) as archive:
        sheets = [name for name in archive.namelist() if name.startswith("xl/worksheets/") and name.endswith(".xml")]
        missing = sum(len(_UNCOMPUTED.findall(archive.read(name))) for name in sheets)
    if missing:
        remedy = "Open the workbook in a spreadsheet program, save it and add it again."
        blocks.problem("formulas-without-values", f"{missing:,} formulas have no stored result.", remedy=remedy)


def read_csv(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    text, _ = decode(data, declared_charset(media_type))
    blocks = Blocks()
    note_encoding(blocks, text)
    text = canonical(text)
    first_line, _, rest = text.partition("\n")
    delimiter = first_line[4:5] if re.fullmatch(r"sep=.", first_line, re.IGNORECASE) else ""  # Excel's own hint
    skipped = 1 if delimiter else 0
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(StringIO(rest if delimiter else text, newline=""), delimiter=delimiter or _delimiter(text))
    try:
        rows = ((number, [show_value(cell) for cell in row]) for number, row in enumerate(reader, start=1 + skipped))
        left_out = add_table(blocks, rows, max_rows=MAX_ROWS)
    except csv.Error as error:
        raise DocumentError("corrupt", f"This table cannot be read past its row {reader.line_num}: {error}.") from error
    return _limited(blocks, left_out)


def _delimiter(text: str) -> str:
    """The one that cuts the first lines into the most even rows."""
    lines = [line for line in text[:20_000].split("\n")[:50] if line.strip()]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(widths), key=widths.count, default=1)
        score = widths.count(usual) / max(len(widths), 1) * min(usual, 20) if usual > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _limited(blocks: Blocks, left_out: int, **about_it: Any) -> Parsed:
    if not left_out:
        return blocks.parsed(**about_it)
    remedy = "Split the file, or load it into a database and add that as a source."
    blocks.problem("rows-left-out", f"{left_out:,} rows past the first {MAX_ROWS:,} were not read.", remedy=remedy)
    return blocks.parsed(**about_it, status="partial")
