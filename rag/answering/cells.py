"""The cell of a table row that answers: the row is named in the question by another of its cells, the column by its
header, or by the kind of thing that is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rag.answering.asked import Asked
from rag.answering.shapes import evident, unit_of
from rag.text.language import query_terms, terms

_NAMED = re.compile(
    r"(?:^|(?<=; )|(?<=\n))[ \t]*(?P<name>[^:;\n|]{1,60}): +(?P<value>[^;\n]+(?:;(?! [^:;\n|]{1,60}: )[^;\n]*)*)"
)
_BAR = " | "
_NAMES_ROW = 0.5  # of a cell's words that the question has, for the cell to name the row
_ENOUGH = 0.5
_OF_THE_KIND = 0.5  # what a cell gains by having the shape that is asked for
_AHEAD = 0.2


@dataclass(frozen=True, slots=True)
class Cell:
    """Offsets count in the row's text."""

    name: str
    start: int
    end: int


def cells(row: str, *, heading: str = "") -> list[Cell]:
    """The cells of `Header: value; Header: value`, of lines `Header: value`, or of `a | b | c` under a heading that has
    a line of as many names. None for a text that is no such row."""
    if _BAR in row and "\n" not in row:
        return list(_barred(row, heading))
    found = [Cell(match["name"].strip(), *_bare(row, *match.span("value"))) for match in _NAMED.finditer(row)]
    return found if len(found) > 1 else []


def _bare(row: str, start: int, end: int) -> tuple[int, int]:
    value = row[start:end]
    return start + len(value) - len(value.lstrip()), start + len(value.rstrip())


def _barred(row: str, heading: str) -> Iterator[Cell]:
    width = row.count(_BAR) + 1
    names = next((line.split(_BAR) for line in reversed(heading.splitlines()) if line.count(_BAR) + 1 == width), None)
    if names is None:
        return
    at = 0
    for name, value in zip(names, row.split(_BAR), strict=True):
        yield Cell(name.strip(), *_bare(row, at, at + len(value)))
        at += len(value) + len(_BAR)


def best_cell(row: str, question: str, *, title: str, heading: str, what: Asked) -> tuple[int, int] | None:
    """Where the cell stands that answers; None where the text is no row, the question names another one, or two cells
    would answer as well."""
    found = cells(row, heading=heading)
    if not found:
        return None
    own = _telling(query_terms(question))
    values = [_telling(terms(row[cell.start : cell.end])) for cell in found]
    named = [_share(value, own) >= _NAMES_ROW for value in values]
    if not any(named) and not own & _telling(terms(title)):
        return None
    unit = unit_of(question, what)
    scores = [
        (_column(cell, row, own, what, unit), -at)
        for at, cell in enumerate(found)
        if not (named[at] and values[at] <= own) and cell.start < cell.end
    ]
    scores.sort(reverse=True)
    if not scores or scores[0][0] < _ENOUGH or (len(scores) > 1 and scores[0][0] - scores[1][0] < _AHEAD):
        return None
    cell = found[-scores[0][1]]
    return cell.start, cell.end


def _column(cell: Cell, row: str, own: set[str], what: Asked, unit: re.Pattern[str] | None) -> float:
    value = row[cell.start : cell.end]
    fits = what.kind in ("date", "number") and bool(unit.search(value) if unit else evident(value, what))
    name = _telling(terms(cell.name))
    return _share(name, own | what.noun) + _OF_THE_KIND * fits


def _telling(found: list[str]) -> set[str]:
    """Single Han characters stand in too many words."""
    return {term for term in found if len(term) > 1 or term.isascii()}


def _share(some: set[str], of: set[str]) -> float:
    return len(some & of) / len(some) if some else 0.0
