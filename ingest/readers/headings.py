"""Which pieces of a printed text are headings, and of which level: by print, and by English and Chinese numbering."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from ingest.readers.lines import CELL, is_wide
from ingest.readers.pieces import BULLET, LEADERS, Piece, body_size

HEADING_CHARS = 120
_NUMBERED_CHARS = 20  # of a Chinese heading with a plain number: 5、合并现金流量表
_CLAUSE = re.compile(r"[，。；：,;:]|\d[\d,.]*%?$")
_WORD_OR_HAN = re.compile(r"[^\W\d_]{3}|[\u3400-\u9fff]{2}")

# Numbered headings, the outermost kind first.
_HEADING_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("part", re.compile(r"^(?:第\s?[一二三四五六七八九十百零\d]{1,4}\s?[编篇部]|PART\s+[IVX\d]+\b|Part\s+[IVX]+\b)")),
    ("chapter", re.compile(r"^(?:第\s?[一二三四五六七八九十百零\d]{1,4}\s?章|Chapter\s+\d+\b|CHAPTER\s+\d+\b)")),
    ("section", re.compile(r"^第\s?[一二三四五六七八九十百零\d]{1,4}\s?节")),
    ("item", re.compile(r"^(?:Item|ITEM)\s+\d{1,2}[AB]?\.\s?\S")),
    ("han", re.compile(r"^[一二三四五六七八九十]{1,3}、\s?\S")),
    ("han-bracket", re.compile(r"^[（(][一二三四五六七八九十]{1,3}[）)]\s?\S")),
    ("han-number", re.compile(r"^\d{1,2}、\s?\S")),
    ("dotted-1", re.compile(r"^(?:\d{1,2}|[A-Z])\.?\s+(?=\S*[^\W\d])\S")),
    ("dotted-2", re.compile(r"^(?:\d{1,2}|[A-Z])\.\d{1,2}\.?\s*(?=[^\W\d])\S")),
    ("dotted-3", re.compile(r"^\d{1,2}(?:\.\d{1,2}){2,3}\.?\s*(?=[^\W\d])\S")),
)
SELF_EVIDENT = frozenset({"part", "chapter", "section", "han", "dotted-2", "dotted-3"})


def heading_kind(text: str) -> str | None:
    if LEADERS.search(text):
        return None
    return next((name for name, pattern in _HEADING_KINDS if pattern.match(text)), None)


def with_headings(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with those marked as headings that print, or numbering, shows to be some."""
    body = body_size(pieces)
    characters = sum(len(piece.text) for piece in pieces)
    # Where much is bold, bold says nothing.
    bold_counts = sum(len(piece.text) for piece in pieces if piece.bold) < 0.3 * characters
    repeated = _repeated(pieces)
    styles: dict[int, tuple[float, int]] = {}
    for index, piece in enumerate(pieces):
        if piece.text in repeated:
            continue
        before, after = pieces[max(0, index - 1) : index], pieces[index + 1 : index + 2]
        bold_here = bold_counts and not _is_in_table(pieces, index)
        style = _heading_style(piece, before, after, body, bold_here)
        if style is not None:
            styles[index] = style
    styles = _without_labels(styles)
    levels = {style: min(6, rank + 1) for rank, style in enumerate(sorted(set(styles.values())))}
    return [
        replace(piece, kind="heading", level=levels[styles[index]]) if index in styles else piece
        for index, piece in enumerate(pieces)
    ]


def _is_in_table(pieces: Sequence[Piece], index: int) -> bool:
    """Whether a line labels a group of table rows, or captions a table: being bold makes it no heading then."""
    piece = pieces[index]
    after_row = index > 0 and _is_row(pieces[index - 1], piece.page)
    rows_after = [_is_row(other, piece.page) for other in pieces[index + 1 : index + 4]]
    if after_row and piece.size < 1.1 * pieces[index - 1].size:
        return any(rows_after)
    # A heading in larger print may stand right above the row of a table's column names.
    titles_table = not after_row and any(rows_after) and _names_columns(pieces[index + 1], smaller_than=piece.size)
    return bool(rows_after) and rows_after[0] and not titles_table


def _is_row(piece: Piece, page: int) -> bool:
    return piece.kind == "table_row" and piece.page == page


def _names_columns(row: Piece, *, smaller_than: float) -> bool:
    return row.size <= 0.9 * smaller_than and row.text.count(CELL) >= 2 and not any(map(str.isdigit, row.text))


def _repeated(pieces: Sequence[Piece]) -> set[str]:
    """Texts that are no headings however they are printed: on top of page after page, or several times on one page."""
    places: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    order, page = 0, -1
    for piece in pieces:
        order = order + 1 if piece.page == page else 0
        page = piece.page
        if len(piece.text) <= HEADING_CHARS:
            places[piece.text].append((page, order < 3))
    repeated = set()
    for text, found in places.items():
        pages = [page for page, _ in found]
        at_top = sum(top for _, top in found)
        if (len(set(pages)) >= 4 and at_top * 4 >= len(found) * 3) or len(pages) >= 3 + len(set(pages)):
            repeated.add(text)
    return repeated


def _without_labels(styles: dict[int, tuple[float, int]]) -> dict[int, tuple[float, int]]:
    """Without the styles whose pieces mostly follow each other: those are a diagram's words, not headings."""
    unnumbered = {style for style in styles.values() if style[1] == len(_HEADING_KINDS)}
    labels = set()
    for style in unnumbered:
        places = [index for index in styles if styles[index] == style]
        followed = sum(styles.get(index + 1) == style for index in places)
        if len(places) >= 4 and followed * 2 >= len(places):
            labels.add(style)
    return {index: style for index, style in styles.items() if style not in labels}


def _heading_style(
    piece: Piece, before: Sequence[Piece], after: Sequence[Piece], body: float, bold_counts: bool
) -> tuple[float, int] | None:
    """What ranks a heading among the others, (−size, kind of numbering), or None for what is no heading."""
    text = piece.text
    if (
        piece.kind == "table_row"
        or piece.contents
        or len(text) > HEADING_CHARS
        or piece.line_count > 3
        or LEADERS.search(text)
    ):
        return None
    kind = heading_kind(text)
    # "Item 1. Business." is how filings write it.
    if not _WORD_OR_HAN.search(text) or (kind != "item" and re.search(r"[.。,，;；:：、]$", text)):
        return None
    order = next((rank for rank, (name, _) in enumerate(_HEADING_KINDS) if name == kind), len(_HEADING_KINDS))
    large = piece.size >= 1.15 * body and piece.size >= body + 1
    bold = bold_counts and piece.bold
    if piece.kind == "list_item" and kind is None:
        return None
    if large or bold:
        if not bold and BULLET.match(text):
            return None
        return -round(piece.size), order
    short = len(text) <= (40 if is_wide(text[-1]) else 80)
    if kind in SELF_EVIDENT and short:
        return -round(piece.size), order
    # What stands among others of its kind is one of a list.
    if kind in ("item", "han-bracket") and short and (not after or heading_kind(after[0].text) != kind):
        return -round(piece.size), order
    alone = all(heading_kind(other.text) != kind for other in (*before, *after))
    if kind == "han-number" and alone and len(text) <= _NUMBERED_CHARS and not _CLAUSE.search(text):
        return -round(piece.size), order
    return None
