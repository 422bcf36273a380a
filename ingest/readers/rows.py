"""Table rows that explain themselves: `Region: North; Sales: 12` can be found and quoted without its table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from itertools import chain, islice

from ingest.readers.blocks import Blocks

Row = tuple[int, Sequence[str]]  # its number as the file shows it, and its cells as text

_LOOK_AHEAD_ROWS = 12
_HEADER_CELL_CHARS = 60
_NUMBER = re.compile(r"[-+(]?\s*[$€£¥￥]?\s*[-+]?\d[\d,.\s'’]*\s*(?:[%‰元万亿]|[A-Za-z]{1,3})?\)?")
_DATE = re.compile(r"\d{4}[-/.年]\d{1,2}([-/.月]\d{1,2}日?)?.*|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}.*")
_YEAR = re.compile(r"(?:19|20)\d\d年?")  # years head columns: "2023 | 2024"
_SENTENCE_END = ("。", "！", "？", "；", ".", "!", "?", ";", ",", "，")


def show_value(value: object) -> str:
    """A cell as text: dates in ISO, 3.0 as 3, 0.30000000000000004 as 0.3, truth as TRUE and FALSE, nothing as ""."""
    match value:
        case None:
            return ""
        case bool():
            return "TRUE" if value else "FALSE"
        case float():
            return _show_float(value)
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00").removesuffix(" 00:00")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
        case _:
            return " ".join(str(value).split())


def _show_float(value: float) -> str:
    if value != value:  # not a number, as empty cells of exported data often are
        return ""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.12g}"


def add_table(
    blocks: Blocks,
    rows: Iterable[Row],
    *,
    has_header: bool | None = None,
    place: str = "",
    max_rows: int | None = None,
) -> int:
    """Adds every row that has something in it, and returns how many were left out past `max_rows`.

    `has_header` is what the format knows about the first row; None lets the rows' looks decide. Rows are streamed.
    `place` stands before the row's number in `Block.row`: "Sheet1" gives "Sheet1 / 12".
    """
    filled = ((number, cells) for number, cells in rows if any(cells))
    first = list(islice(filled, _LOOK_AHEAD_ROWS))
    if has_header is None:
        first = _take_captions(blocks, first)
    header: Sequence[str] | None = None
    if first and (has_header or (has_header is None and plausible_header([cells for _, cells in first]))):
        header = first.pop(0)[1]
        if not first:  # a table of its header alone still says which columns there are
            blocks.add("table_row", " | ".join(cell for cell in header if cell))
    added = left_out = 0
    for number, cells in chain(first, filled):
        if max_rows is not None and added >= max_rows:
            left_out += 1
            continue
        blocks.add("table_row", row_text(cells, header), row=f"{place} / {number}" if place else str(number))
        added += 1
    return left_out


def row_text(cells: Sequence[str], header: Sequence[str] | None) -> str:
    """`Header: value; Header: value`, empty cells skipped; without a header `a | b | c`.

    The separators are the same in Chinese: a full-width `；` would end a clause for everything that cuts sentences.
    """
    if header is None:
        return " | ".join(cell for cell in cells if cell)
    names = [*header, *[""] * (len(cells) - len(header))]
    return "; ".join(_named(name, cell) for name, cell in zip(names, cells, strict=False) if cell)


def _named(name: str, cell: str) -> str:
    name = name.rstrip(":： ")
    return f"{name}: {cell}" if name else cell


def plausible_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of these rows names the columns: all words, all different, all short, as wide as the rest."""
    if len(rows) < 2:
        return False
    names = [cell for cell in rows[0] if cell]
    widest = max(sum(1 for cell in cells if cell) for cells in rows[1:])
    if len(set(names)) < len(names) or not names or len(names) < min(2, widest):
        return False
    if any(len(name) > _HEADER_CELL_CHARS for name in names):
        return False
    if widest == 1 and (names[0].endswith(_SENTENCE_END) or not any(looks_numeric(row[0]) for row in rows[1:] if row)):
        return False
    # The upper left corner is often empty; more holes than that, and it is a row like the others.
    if len(names) < widest - 1:
        return False
    numeric = [name for name in names if looks_numeric(name)]
    only_years = all(_YEAR.fullmatch(name) for name in numeric)
    # Years alone head columns where the corner above the row names is empty.
    return only_years and (len(numeric) < len(names) or not rows[0][0])


def looks_numeric(cell: str) -> bool:
    """Numbers, amounts, shares and dates."""
    return bool(_NUMBER.fullmatch(cell) or _DATE.fullmatch(cell))


def _take_captions(blocks: Blocks, rows: list[Row]) -> list[Row]:
    """Lines of one cell above a wider table are its caption, not its header."""
    if len(rows) < 3 or max(_width(cells) for _, cells in rows) < 2:
        return rows
    captions = 0
    while captions < len(rows) - 2 and captions < 5 and _width(rows[captions][1]) == 1:
        captions += 1
    for _, cells in rows[:captions]:
        blocks.add("paragraph", next(cell for cell in cells if cell))
    return rows[captions:]


def _width(cells: Sequence[str]) -> int:
    return sum(1 for cell in cells if cell)


def numbered(rows: Iterable[Sequence[str]]) -> Iterator[Row]:
    """The rows counted from 1."""
    return enumerate(rows, start=1)
