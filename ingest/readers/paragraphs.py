"""Printed lines → headings, paragraphs, list items and table rows, re-flowed. Shared by PDF text layers and OCR."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from ingest.readers.lines import Line, is_number, is_table_row, is_wide, joined_cells
from rag.models import BlockKind

HEADING_CHARS = 120
HEADER_CHARS = 160
_BULLET = re.compile(r"^(?:[•●▪■◦‣∙○◆◇➢✓❖·*–—-]\s|[•●▪■◦‣➢❖□☐☑√✔]\s?\S)")
_NUMBERED_ITEM = re.compile(r"^(?:\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})\)|[a-z]\.|\d{1,2}[.)])\s+\S|^\d{1,2}、\S|^[①-⑳]")
_LEADERS = re.compile(r"[.…·]{4,}|(?:\. ){4,}")
_SENTENCE_END = re.compile(r"[.!?。！？;；:：…][\"'”’」』)）\]]*$")
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_HYPHENATED = re.compile(r"([^\W_]+)[-\u2010\u2011]$")

# Numbered headings, the outermost kind first.
_HEADING_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("part", re.compile(r"^(?:第\s?[一二三四五六七八九十百零\d]{1,4}\s?[编篇部]|PART\s+[IVX\d]+\b|Part\s+[IVX]+\b)")),
    ("chapter", re.compile(r"^(?:第\s?[一二三四五六七八九十百零\d]{1,4}\s?章|Chapter\s+\d+\b|CHAPTER\s+\d+\b)")),
    ("section", re.compile(r"^第\s?[一二三四五六七八九十百零\d]{1,4}\s?节")),
    ("item", re.compile(r"^(?:Item|ITEM)\s+\d{1,2}[AB]?\.\s?\S")),
    ("han", re.compile(r"^[一二三四五六七八九十]{1,3}、\s?\S")),
    ("han-bracket", re.compile(r"^[（(][一二三四五六七八九十]{1,3}[）)]\s?\S")),
    ("dotted-1", re.compile(r"^(?:\d{1,2}|[A-Z])\.?\s+(?=\S*[^\W\d])\S")),
    ("dotted-2", re.compile(r"^(?:\d{1,2}|[A-Z])\.\d{1,2}\.?\s*(?=[^\W\d])\S")),
    ("dotted-3", re.compile(r"^\d{1,2}(?:\.\d{1,2}){2,3}\.?\s*(?=[^\W\d])\S")),
)
_SELF_EVIDENT = frozenset({"part", "chapter", "section", "han", "dotted-2", "dotted-3"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A block on its way: its text is re-flowed, its place in the canonical text is not known yet."""

    kind: BlockKind
    text: str
    page: int  # index
    y: float = 0.0  # of its first line
    size: float = 0.0
    bold: bool = False
    line_count: int = 1
    level: int | None = None
    header: str = ""


def to_pieces(pages: Sequence[Sequence[Line]]) -> list[Piece]:
    """The pieces of all pages in reading order, headings with their levels and table rows with their headers."""
    vocabulary = Counter(word for lines in pages for line in lines for word in _WORD.findall(line.text.lower()))
    pieces = [piece for index, lines in enumerate(pages) for piece in _page_pieces(lines, index, vocabulary)]
    return _with_table_headers(_with_headings(pieces))


# ── lines to pieces ───────────────────────────────────────────────────────────────────────────


def _page_pieces(lines: Sequence[Line], page: int, vocabulary: Counter[str]) -> list[Piece]:
    lines = joined_cells(lines)
    rows = [is_table_row(line) for line in lines]
    prose = [line for line, row in zip(lines, rows, strict=True) if not row]
    leading = _usual_leading(prose)
    groups: list[tuple[BlockKind, list[Line]]] = []
    for line, row in zip(lines, rows, strict=True):
        if row:
            if groups and _is_label_of(groups[-1], line):
                groups[-1] = ("table_row", [*groups[-1][1], line])
            else:
                groups.append(("table_row", [line]))
        elif groups and groups[-1][0] != "table_row" and not _starts_new(groups[-1], line, prose, leading):
            groups[-1][1].append(line)
        else:
            groups.append(("list_item" if _is_list_item(line.text) else "paragraph", [line]))
    return [_piece(kind, group, page, vocabulary) for kind, group in groups]


def _piece(kind: BlockKind, lines: Sequence[Line], page: int, vocabulary: Counter[str]) -> Piece:
    text = lines[0].text
    for line in lines[1:]:
        text = join_lines(text, line.text, vocabulary)
    return Piece(
        kind,
        text,
        page,
        y=lines[0].y,
        size=max(line.size for line in lines),
        bold=all(line.bold for line in lines),
        line_count=len(lines),
    )


def join_lines(before: str, after: str, vocabulary: Counter[str]) -> str:
    """Two lines as one: a space between words, nothing between Chinese letters, a divided word whole again."""
    if is_wide(before[-1]) or is_wide(after[0]):
        return before + after
    divided = _HYPHENATED.search(before)
    if not divided or not after[0].isalnum():
        return f"{before} {after}"
    head, tail = divided[1].lower(), _WORD.match(after.lower())
    compound, whole = (vocabulary[f"{head}{hyphen}{tail[0] if tail else ''}"] for hyphen in ("-", ""))
    # The document's own spelling decides ("mixed-mode", "TraceMonkey"); unknown words lose the hyphen
    # of their division, "Non-" + "GAAP" and "10-" + "year" keep it.
    divided_word = after[0].islower() and divided[1].isalpha()
    drop = whole >= compound if divided_word else whole > compound
    return before[:-1] + after if drop else before + after


def _usual_leading(lines: Sequence[Line]) -> float:
    gaps = [a.y - b.y for a, b in pairwise(lines) if 0.5 * b.size < a.y - b.y < 4 * b.size and b.size > 0]
    return median(gaps) if gaps else 0.0


def _is_list_item(text: str) -> bool:
    return bool(_BULLET.match(text) or _NUMBERED_ITEM.match(text) or _LEADERS.search(text))


def _is_label_of(group: tuple[BlockKind, list[Line]], row: Line) -> bool:
    """Whether the line before a table row begins its label: "Net income attributable to non-controlling"."""
    kind, lines = group
    label = lines[-1]
    return (
        kind == "paragraph"
        and len(lines) == 1
        and row.text[0].islower()
        and not _SENTENCE_END.search(label.text)
        and 0 < label.y - row.y < 2 * row.size
        and abs(label.x - row.x) < 3 * row.size
    )


def _starts_new(group: tuple[BlockKind, list[Line]], line: Line, prose: Sequence[Line], leading: float) -> bool:
    """Whether a line begins a new piece rather than continuing the one before it."""
    kind, lines = group
    before = lines[-1]
    if abs(before.size - line.size) > 0.12 * before.size or before.bold != line.bold:
        return True
    if _is_list_item(line.text) or _heading_kind(line.text) in _SELF_EVIDENT | {"item", "han-bracket"}:
        return True
    ended = _SENTENCE_END.search(before.text) is not None
    drop = before.y - line.y
    if drop < -0.3 * line.size or drop > 12 * line.size:  # the next column, or around a picture
        return ended or not (line.text[0].islower() or (is_wide(line.text[0]) and not _is_short(before, prose)))
    if drop > 1.35 * leading and drop > 1.6 * line.size:
        return True
    if kind == "list_item":
        if _LEADERS.search(before.text):
            return True
        if len(lines) == 1 and line.x > before.x + 0.5 * line.size and not _is_short(before, prose):
            return False  # its second line hangs under its text
        if len(lines) > 1 and lines[1].x > lines[0].x + 0.5 * line.size:
            return line.x < lines[1].x - 0.3 * line.size
    short = _is_short(before, prose)
    if ended and (short or line.x > before.x + 0.7 * line.size):
        return True
    return short and not line.text[0].islower()


def _is_short(line: Line, prose: Sequence[Line]) -> bool:
    """Whether the line stops clearly before its column's right edge. Latin widths are guesses, hence the slack."""
    rights = sorted((other.right for other in prose if abs(other.x - line.x) < 4 * line.size), reverse=True)
    # Not the very farthest: a note in the margin or a guess too wide would make every line look short.
    edge = rights[min(len(rights) - 1, max(1, len(rights) // 10))] if len(rights) > 3 else max([line.right, *rights])
    wide = sum(map(is_wide, line.text)) * 2 > len(line.text)
    slack = max(3 * line.size, 0.06 * (edge - line.x)) if wide else 0.3 * (edge - line.x)
    return edge - line.right > slack


# ── headings ──────────────────────────────────────────────────────────────────────────────────


def _heading_kind(text: str) -> str | None:
    if _LEADERS.search(text):
        return None
    return next((name for name, pattern in _HEADING_KINDS if pattern.match(text)), None)


def body_size(pieces: Iterable[Piece]) -> float:
    """The letter size that most of the text is set in."""
    sizes: Counter[float] = Counter()
    for piece in pieces:
        sizes[round(piece.size * 2) / 2] += len(piece.text)
    return sizes.most_common(1)[0][0] if sizes else 0.0


def _with_headings(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with those marked as headings that print, or numbering, shows to be some."""
    body = body_size(pieces)
    characters = sum(len(piece.text) for piece in pieces)
    # Where much is bold, bold says nothing.
    bold_counts = sum(len(piece.text) for piece in pieces if piece.bold) < 0.3 * characters
    styles: dict[int, tuple[float, int]] = {}
    for index, piece in enumerate(pieces):
        following = pieces[index + 1] if index + 1 < len(pieces) else None
        style = _heading_style(piece, following, body, bold_counts)
        if style is not None:
            styles[index] = style
    styles = _without_labels(styles)
    levels = {style: min(6, rank + 1) for rank, style in enumerate(sorted(set(styles.values())))}
    return [
        replace(piece, kind="heading", level=levels[styles[index]]) if index in styles else piece
        for index, piece in enumerate(pieces)
    ]


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


def _heading_style(piece: Piece, following: Piece | None, body: float, bold_counts: bool) -> tuple[float, int] | None:
    """What ranks a heading among the others, (−size, kind of numbering), or None for what is no heading."""
    text = piece.text
    if piece.kind == "table_row" or len(text) > HEADING_CHARS or piece.line_count > 3 or _LEADERS.search(text):
        return None
    kind = _heading_kind(text)
    # "Item 1. Business." is how filings write it.
    if sum(map(str.isalpha, text)) < 2 or (kind != "item" and re.search(r"[.。,，;；:：、]$", text)):
        return None
    order = next((rank for rank, (name, _) in enumerate(_HEADING_KINDS) if name == kind), len(_HEADING_KINDS))
    large = piece.size >= 1.15 * body and piece.size >= body + 1
    bold = bold_counts and piece.bold and not (following and following.kind == "table_row")
    if piece.kind == "list_item" and kind is None:
        return None
    if large or bold:
        if not bold and _BULLET.match(text):
            return None
        return -round(piece.size), order
    short = len(text) <= (40 if is_wide(text[-1]) else 80)
    if kind in _SELF_EVIDENT and short:
        return -round(piece.size), order
    beside = following is not None and _heading_kind(following.text) == kind
    if kind in ("item", "han-bracket") and short and not beside:
        return -round(piece.size), order
    return None


# ── table headers ─────────────────────────────────────────────────────────────────────────────


def _with_table_headers(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with each table row knowing the text that names its columns, where one can be told."""
    result: list[Piece] = []
    header, distance = "", 0
    for piece in pieces:
        if piece.kind == "heading" or (result and result[-1].page != piece.page):
            header, distance = "", 0
        if piece.kind != "table_row":
            distance += 1
            if distance > 2:
                header = ""
            result.append(piece)
            continue
        above = _caption(result, piece.page)
        before = result[-1] if result else None
        if _names_columns(piece.text):
            header = f"{above} {piece.text}".strip()
            result.append(piece)
        else:
            if before and before.page == piece.page and before.kind == "paragraph" and _names_columns(before.text):
                header = before.text
                result[-1] = replace(before, kind="table_row")
            elif not header and len(_YEAR.findall(above)) >= 2:
                header = above
            result.append(replace(piece, header=header))
        distance = 0
    return result


def _caption(before: Sequence[Piece], page: int) -> str:
    """The short lines right above a table: what it is, in which unit, and its columns where each name stands alone."""
    parts: list[str] = []
    for piece in reversed(before[-8:]):
        if piece.kind != "paragraph" or piece.page != page or _SENTENCE_END.search(piece.text):
            break
        if sum(map(len, parts)) + len(piece.text) > HEADER_CHARS:
            break
        parts.insert(0, piece.text)
    return " ".join(parts)


def _names_columns(text: str) -> bool:
    """Whether a line reads like column names: years and dates, or a few short words side by side, and no figures."""
    if len(text) > HEADER_CHARS or _SENTENCE_END.search(text):
        return False
    tokens = text.split()
    figures = [token for token in tokens if is_number(token) and any(character.isdigit() for character in token)]
    if not all(_YEAR.fullmatch(figure) or re.fullmatch(r"[12]?\d|3[01]", figure) for figure in figures):
        return False
    if len(_YEAR.findall(text)) >= 2:
        return True
    return not figures and len(tokens) >= 3 and any(map(is_wide, text)) and max(map(len, tokens)) <= 14
