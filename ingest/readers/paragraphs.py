"""Printed lines → headings, paragraphs, list items and table rows, re-flowed. Shared by PDF text layers and OCR."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ingest.readers.cells import joined_cells
from ingest.readers.contents import with_contents
from ingest.readers.headings import SELF_EVIDENT, heading_kind, with_headings
from ingest.readers.lines import CELL, Line, is_number, is_table_row, is_wide
from ingest.readers.pieces import BULLET, LEADERS, SENTENCE_END, Piece
from ingest.readers.table_headers import with_cells, with_table_headers
from rag.models import BlockKind

_PAIR_CHARS = 100
_SECTION_NUMBER = re.compile(
    r"^(?:\d{1,2}(?:\.\d{1,2}){1,3}\.?|(?:Chapter|Section|Article|Part|Item|Appendix|Note)\s+\w{1,3}[.:]?|第\S{1,4}[编篇部章节条]"
    r"|[（(][一二三四五六七八九十]{1,3}[）)])$",
    re.IGNORECASE,
)
_NUMBERED_ITEM = re.compile(
    r"^(?:\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})\)|[a-z]\.|\d{1,2}[.)])\s+\S|^\d{1,2}、\S|^\d{1,2}[.．][\u3400-\u9fff“「『《（]|^[①-⑳]"
)
_WORD = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*")
_HYPHENS = "-\u2010\u2011"
_HYPHENATED = re.compile(rf"([^\W_]+)[{_HYPHENS}]$")


def to_pieces(pages: Sequence[Sequence[Line]]) -> list[Piece]:
    """The pieces of all pages in reading order, headings with their levels and table rows with their headers."""
    pages = with_contents(pages)
    vocabulary = Counter(word for lines in pages for line in lines for word in _WORD.findall(line.text.lower()))
    done = [_page_pieces(lines, index, vocabulary) for index, lines in enumerate(pages)]
    for before, after in pairwise(done):
        if _goes_on(before, after):
            after.pieces[0] = replace(after.pieces[0], goes_on=True)
    pieces = [piece for page in done for piece in page.pieces]
    return [with_cells(piece) for piece in with_table_headers(with_headings(pieces))]


# ── lines to pieces ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _PagePieces:
    pieces: list[Piece]
    groups: list[tuple[BlockKind, list[Line]]]  # the lines of each
    prose: list[Line]


def _page_pieces(lines: Sequence[Line], page: int, vocabulary: Counter[str]) -> _PagePieces:
    lines = [_with_number_beside_title(line) for line in joined_cells(lines)]
    rows = [is_table_row(line) or _is_pair_among_pairs(lines, index) for index, line in enumerate(lines)]
    prose = [line for line, row in zip(lines, rows, strict=True) if not row]
    leading = _usual_leading(prose)
    run_in = sum(line.starts_bold and not line.bold for line in prose) >= 2
    groups: list[tuple[BlockKind, list[Line]]] = []
    for line, row in zip(lines, rows, strict=True):
        if row:
            if groups and _is_label_of(groups[-1], line):
                groups[-1] = ("table_row", [*groups[-1][1], line])
            else:
                groups.append(("table_row", [line]))
        elif line.contents:
            groups.append(("list_item", [line]))
        elif groups and groups[-1][0] != "table_row" and not _starts_new(groups[-1], line, prose, leading, run_in):
            groups[-1][1].append(line)
        else:
            groups.append(("list_item" if _is_list_item(line.text) else "paragraph", [line]))
    return _PagePieces([_piece(kind, group, page, vocabulary) for kind, group in groups], groups, prose)


def _goes_on(before: _PagePieces, after: _PagePieces) -> bool:
    """Whether a page begins in the middle of the paragraph that the one before it ended with.

    Where pages break is no matter of the text: a paragraph more at the front of a book moves all of its page breaks.
    """
    if not before.groups or not after.groups or {before.groups[-1][0], after.groups[0][0]} != {"paragraph"}:
        return False
    lines, following = before.groups[-1][1], after.groups[0][1]
    last, first = lines[-1], following[0]
    if last.contents or first.contents or abs(last.size - first.size) > 0.12 * last.size or last.bold != first.bold:
        return False
    if _HYPHENATED.search(last.text) or heading_kind(first.text) in SELF_EVIDENT | {"item", "han-bracket"}:
        return False
    ended, begins_small = SENTENCE_END.search(last.text) is not None, first.text[0].islower()
    if ended:
        is_indented = len(following) > 1 and first.x > following[1].x + 0.7 * first.size
        return min(len(lines), len(following)) > 1 and not is_indented and not _would_fit(first, last, before.prose)
    if _is_short(last, first, before.prose):
        return begins_small
    return begins_small or is_wide(first.text[0]) or len(lines) > 1


def _would_fit(after: Line, line: Line, prose: Sequence[Line]) -> bool:
    """Whether the first word of the line after it would have fitted into this line: then nobody broke it there."""
    rights = sorted((other.right for other in prose if abs(other.x - line.x) < 4 * line.size), reverse=True)
    edge = rights[min(1, len(rights) - 1)]  # the farthest may be a note in the margin
    if is_wide(after.text[0]):
        word = 1.5 * line.size
    else:
        word = (line.right - line.x) / len(line.text) * (len(after.text.split()[0]) + 1)
    return edge - line.right > word


def _with_number_beside_title(line: Line) -> Line:
    """The line without the gap between a section's number and its title: two cells those are not."""
    number, gap, title = line.text.partition(CELL)
    apart = _SECTION_NUMBER.match(number) or (line.bold and re.fullmatch(r"\d{1,2}", number))
    if gap and CELL not in title and apart and not any(map(is_number, title.split())):
        return replace(line, text=f"{number} {title}")
    return line


def _is_pair_among_pairs(lines: Sequence[Line], index: int) -> bool:
    """Whether a line is two short cells, as in a table of two columns: a neighbour is too, and starts where it does."""
    line = lines[index]
    if not _is_pair(line):
        return False
    neighbours = [other for other in lines[max(0, index - 1) : index + 2] if other is not line]
    return any(_is_pair(other) and abs(other.x - line.x) < line.size for other in neighbours)


def _is_pair(line: Line) -> bool:
    return line.measured and not line.contents and line.gaps == 1 and len(line.text) <= _PAIR_CHARS


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
        contents=lines[0].contents,
        line_count=len(lines),
    )


def join_lines(before: str, after: str, vocabulary: Counter[str]) -> str:
    """Two lines as one: a space between words, nothing between Chinese letters, a divided word whole again."""
    if is_wide(before[-1]) or is_wide(after[0]):
        return before + after
    divided = _HYPHENATED.search(before) if before[-1] in _HYPHENS else None  # a search reads a long paragraph whole
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
    """The leading inside of paragraphs, as a multiple of the letter size; the gaps between them are wider."""
    gaps = sorted(
        (a.y - b.y) / b.size for a, b in pairwise(lines) if a.size == b.size and 0.5 < (a.y - b.y) / (b.size or 1) < 4
    )
    return gaps[len(gaps) // 4] if gaps else 0.0


def _is_list_item(text: str) -> bool:
    return bool(BULLET.match(text) or _NUMBERED_ITEM.match(text) or LEADERS.search(text))


def _is_label_of(group: tuple[BlockKind, list[Line]], row: Line) -> bool:
    """Whether the line before a table row begins its label: "Net income attributable to non-controlling"."""
    kind, lines = group
    label = lines[-1]
    return (
        kind == "paragraph"
        and len(lines) == 1
        and row.text[0].islower()
        and not SENTENCE_END.search(label.text)
        and 0 < label.y - row.y < 2 * row.size
        and abs(label.x - row.x) < 3 * row.size
    )


def _starts_new(
    group: tuple[BlockKind, list[Line]], line: Line, prose: Sequence[Line], leading: float, run_in: bool
) -> bool:
    """Whether a line begins a new piece rather than continuing the one before it.

    With `run_in` paragraphs of this page begin with words in bold, and such words may fill a line.
    """
    kind, lines = group
    before = lines[-1]
    drop = before.y - line.y
    if before.contents or abs(before.size - line.size) > 0.12 * before.size:
        return True
    if before.bold != line.bold:
        runs_in = run_in and before.bold and not heading_kind(before.text) and 0 < drop <= 1.15 * leading * line.size
        return not runs_in or line.starts_bold
    if _is_list_item(line.text) or heading_kind(line.text) in SELF_EVIDENT | {"item", "han-bracket"}:
        return True
    ended = SENTENCE_END.search(before.text) is not None
    if drop < -0.3 * line.size or drop > 12 * line.size:  # the next column, or around a picture
        return ended or not (line.text[0].islower() or (is_wide(line.text[0]) and not _is_short(before, line, prose)))
    if drop > 1.35 * leading * line.size and drop > 1.6 * line.size:
        return True
    if kind == "list_item":
        if LEADERS.search(before.text):
            return True
        if len(lines) == 1 and line.x > before.x + 0.5 * line.size and not _is_short(before, line, prose):
            return False  # its second line hangs under its text
        if len(lines) > 1 and lines[1].x > lines[0].x + 0.5 * line.size:
            return line.x < lines[1].x - 0.3 * line.size
    short = _is_short(before, line, prose)
    if ended and (short or line.x > before.x + 0.7 * line.size):
        return True
    return short and not line.text[0].islower()


def _is_short(line: Line, after: Line, prose: Sequence[Line]) -> bool:
    """Whether the line stops clearly before its column's right edge: what comes after it would have fitted."""
    rights = sorted((other.right for other in prose if abs(other.x - line.x) < 4 * line.size), reverse=True)
    # Not the very farthest: a note in the margin or a guess too wide would make every line look short.
    edge = rights[min(len(rights) - 1, max(1, len(rights) // 10))] if len(rights) > 3 else max([line.right, *rights])
    wide = sum(map(is_wide, line.text)) * 2 > len(line.text)
    if wide:
        slack = max(3 * line.size, 0.06 * (edge - line.x))
    elif line.measured and not line.bold:
        word = min(len(after.text.split()[0]), 20)
        slack = 0.55 * line.size * (word + 1) + 0.04 * (edge - line.x)
    else:
        slack = 0.3 * (edge - line.x)
    return edge - line.right > slack
