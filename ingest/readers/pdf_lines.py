"""A PDF page's text layer as printed lines, and how much of the page pictures cover. Works on pypdf's page objects."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingest.readers.lines import CELL, Line, text_width, tidy
from ingest.readers.pdf_pen import Pen

if TYPE_CHECKING:
    from pypdf import PageObject

BOLD = re.compile(r"bold|black|heavy|semibd|demi|-medi\b|cmbx|黑体|simhei", re.IGNORECASE)
ITEM_MARKER = re.compile(r"\s*(?:[(（]?\w{1,3}[.．)）]|[•●▪■◦‣∙○◆◇➢✓❖·–—*-])\s*$")
_FIGURES = re.compile(rb"[\d,.()$%+-]+$")
_PATH_OPERATORS = frozenset({b"l", b"c", b"v", b"y", b"re"})
_DRAWN_LETTERS = 300  # strokes on a page without text and pictures: its letters were turned into outlines
Matrix = Sequence[float]


@dataclass(slots=True)
class Drawn:
    """What else was drawn on a page."""

    pictures: list[tuple[str, float]]  # name, area in square points
    strokes: int = 0


@dataclass(slots=True)
class _Part:
    """A run of text as pypdf reports it, in the frame of its own writing direction."""

    text: str
    x: float
    y: float
    size: float
    bold: bool
    right: float
    measured: bool  # by the font's widths; else its right edge is a guess


def page_lines(page: PageObject, pen: Pen) -> tuple[list[Line], Drawn]:
    """The page's lines in pypdf's reading order (that of the content stream), and what else is drawn there."""
    parts: list[_Part] = []
    drawn = Drawn([])
    spacing, font_size = 0.0, 1.0

    def on_text(text: str, cm: Matrix, tm: Matrix, font: Any, size: float) -> None:
        if text:
            parts.append(_part(text, _multiplied(tm, cm), font, size, pen.lifted(font)))

    def on_operator(operator: bytes, operands: Any, cm: Matrix, tm: Matrix) -> None:
        nonlocal spacing, font_size
        pen.see(operator, operands, _multiplied(tm, cm) if operator in (b"Tj", b"TJ") else ())
        if operator == b"TJ" and spacing > 0.6 * font_size:
            _space_out(operands[0], spacing / font_size)
        elif operator == b"Tc" and operands:
            spacing = float(operands[0])
        elif operator == b"Tf" and len(operands) > 1:
            font_size = abs(float(operands[1])) or 1.0
        elif operator == b"Do" and operands:
            drawn.pictures.append((str(operands[0]), abs(cm[0] * cm[3] - cm[1] * cm[2])))
        elif operator == b"INLINE IMAGE":
            drawn.pictures.append(("", abs(cm[0] * cm[3] - cm[1] * cm[2])))
        elif operator in _PATH_OPERATORS:
            drawn.strokes += 1

    page.extract_text(visitor_text=on_text, visitor_operand_before=on_operator)
    return side_by_side(_lines(parts)), drawn


def _space_out(shown: Any, spacing_ems: float) -> None:
    """Puts the gaps between the cells of a table row into the array that shows it.

    Some tables set a row of figures as one string, wide letter spacing between cells and taken back inside of numbers;
    pypdf looks for gaps between the array's elements only, and would read "0 2,248" as "02,248".
    """
    strings = [part for part in shown if isinstance(part, bytes)]
    taken_back = any(isinstance(part, (int, float)) and part > 600 * spacing_ems for part in shown)
    if not taken_back or not strings or not all(_FIGURES.match(string) for string in strings):
        return
    parts: list[Any] = []
    for part in list(shown):
        if isinstance(part, bytes):
            for code in part:
                # There and back again: a gap for pypdf to see, and the pen where it was.
                parts += [type(part)(bytes([code])), -1000 * spacing_ems, 1000 * spacing_ems]
            del parts[-2:]
        else:
            parts.append(part)
    shown[:] = parts


def image_share(page: PageObject, drawn: Drawn, *, has_text: bool) -> float:
    """The share of the page that pictures cover, 0 to 1; letters drawn as outlines count as one picture of the page."""
    width, height = float(page.mediabox.width), float(page.mediabox.height)
    images = _image_names(page.get("/Resources"), depth=0)
    covered = sum(area for name, area in drawn.pictures if not name or name in images)
    if not covered and not has_text and drawn.strokes >= _DRAWN_LETTERS:
        return 1.0
    return min(1.0, covered / max(1.0, width * height))


def _image_names(resources: Any, *, depth: int) -> set[str]:
    """The names of the images among a page's objects, those inside of forms too."""
    resources = resources.get_object() if resources is not None else {}
    objects = resources.get("/XObject") if resources else None
    if objects is None or depth > 4:
        return set()
    names: set[str] = set()
    for name, reference in objects.get_object().items():
        thing = reference.get_object()
        if thing.get("/Subtype") == "/Image":
            names.add(str(name))
        elif thing.get("/Subtype") == "/Form":
            names |= _image_names(thing.get("/Resources"), depth=depth + 1)
    return names


def _multiplied(m: Matrix, n: Matrix) -> list[float]:
    return [
        m[0] * n[0] + m[1] * n[2],
        m[0] * n[1] + m[1] * n[3],
        m[2] * n[0] + m[3] * n[2],
        m[2] * n[1] + m[3] * n[3],
        m[4] * n[0] + m[5] * n[2] + n[4],
        m[4] * n[1] + m[5] * n[3] + n[5],
    ]


def _part(text: str, matrix: Matrix, font: Any, size: float, measured: tuple[float, float] | None) -> _Part:
    length = math.hypot(matrix[0], matrix[1]) or 1.0
    along, across = matrix[0] / length, matrix[1] / length
    x = matrix[4] * along + matrix[5] * across
    y = matrix[5] * along - matrix[4] * across
    name = str(font.get("/BaseFont", "")) if font is not None else ""
    printed_size = abs(size) * math.hypot(matrix[2], matrix[3])
    # Spaces at the end of a line reach into the margin.
    blank = 0.25 * printed_size * (len(text) - len(text.rstrip(" \n")))
    start, end = measured or (x, x + text_width(text.strip(), printed_size))
    return _Part(
        text,
        start,
        y,
        printed_size,
        bold=BOLD.search(name) is not None,
        right=end - blank if measured else end,
        measured=measured is not None,
    )


def _lines(parts: Sequence[_Part]) -> Iterator[Line]:
    current: list[_Part] = []
    for part in parts:
        *ended, rest = part.text.split("\n")
        for text in ended:
            current.append(replace(part, text=text))
            yield from _line(current)
            current = []
        if rest:
            current.append(replace(part, text=rest))
    yield from _line(current)


def side_by_side(lines: Iterator[Line]) -> list[Line]:
    """The lines with those joined that follow each other in the stream and stand beside each other on the page: torn
    apart by pypdf where the font changes ("10", "‑", "K"), cells of a row, a title and the page number drawn before it.
    """
    result: list[Line] = []
    for line in lines:
        before = result[-1] if result else None
        if before is None or abs(before.y - line.y) > 0.15 * line.size:
            result.append(line)
            continue
        left, right = (before, line) if before.x <= line.x else (line, before)
        measured = left.measured and right.measured
        slack = line.size if measured else max(line.size, 0.12 * (left.right - left.x))
        gap = right.x - left.right
        if gap < -slack:
            result.append(line)
            continue
        marker = ITEM_MARKER.match(left.text)
        wide = not marker and gap > (line.size if measured else line.size + slack)
        tight = gap < slack and (right.text[0] in ".,;:!?)]-\u2011" or left.text[-1] in "([-\u2011")
        result[-1] = replace(
            left,
            text=f"{left.text}{CELL if wide else '' if tight else ' '}{right.text}",
            right=max(left.right, right.right),
            bold=left.bold and right.bold,
            measured=measured,
        )
    return result


def _line(parts: Sequence[_Part]) -> Iterator[Line]:
    printed = [part for part in parts if part.text.strip()]
    text = _joined(parts)
    if not text or not printed:
        return
    largest = max(printed, key=lambda part: len(part.text.strip()))  # footnote marks are smaller than their line
    yield Line(
        text,
        x=min(part.x for part in printed),
        y=largest.y,
        right=max(part.right for part in printed),
        size=round(largest.size, 1),
        bold=all(part.bold for part in printed),
        measured=all(part.measured for part in printed),
        starts_bold=printed[0].bold,
    )


def _joined(parts: Sequence[_Part]) -> str:
    """The text of the parts of a line, its cells apart where gaps are wide."""
    cells: list[str] = []
    before: _Part | None = None
    for part in parts:
        printed = bool(part.text.strip())
        marker = before is not None and len(cells) == 1 and ITEM_MARKER.match(cells[0])
        if before is None or not printed or marker or not _is_gap(before, part):
            glue = " " if marker and before and part.x > before.right + 1 else ""
            cells[-1:] = [glue.join([*cells[-1:], part.text])]
        else:
            cells.append(part.text)
        before = part if printed else before
    return CELL.join(text for text in map(tidy, cells) if text)


def _is_gap(before: _Part, after: _Part) -> bool:
    # Where widths are guessed, those of wide fonts are wider than guessed.
    slack = 0.0 if before.measured else 0.2 * (before.right - before.x)
    return after.x - before.right > after.size + slack
