"""Cells of a table printed as lines of their own → one line per row: wrapped cells, and stacked column names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from ingest.readers.lines import CELL, Line, is_number, is_table_row, is_wide

_FEWEST_NAMES = 3  # columns whose stacked names are put together; two could be anything
_HEADER_SIZES = 7  # how far above the first row, in letter sizes, its column names may begin


def joined_cells(lines: Sequence[Line]) -> list[Line]:
    """The lines with wrapped cells of a table row put together: a label of two lines and the number beside it are one.

    Such a cell starts higher than the line before it, to the right of it, and beside lines that are few and short.
    """
    result: list[Line] = []
    for line in _with_stacked_names(lines):
        if line.contents:
            result.append(line)
            continue
        if result and _goes_on_in_cell(result[-1], line):
            glue = "" if is_wide(line.text[0]) else " "
            row = result[-1]
            result[-1] = replace(row, text=row.text + glue + line.text, right=max(row.right, line.right))
            continue
        start = _row_start(result, line)
        if start is None:
            result.append(line)
            continue
        cells = [*result[start:], line]
        text = cells[0].text
        for before, cell in pairwise(cells):
            beside = cell is line or cell.x > before.right - 0.1 * (before.right - before.x)
            text += (CELL if beside else "" if is_wide(text[-1]) else " ") + cell.text
        result[start:] = [replace(cells[0], text=text, right=max(cell.right for cell in cells))]
    return result


def _goes_on_in_cell(row: Line, line: Line) -> bool:
    """Whether the line is the second one of the last cell of a row: right below, far from the row's start."""
    below = 0.8 * line.size < row.y - line.y < 1.7 * line.size
    inside = line.x > row.x + 5 * line.size and line.right < row.right + 3 * line.size
    return row.gaps > 0 and not line.gaps and below and inside and abs(row.size - line.size) < 1


def _row_start(before: Sequence[Line], line: Line) -> int | None:
    """Where the cells start that `line` stands to the right of, or None where it begins something of its own."""
    if not before or not -0.3 * line.size <= line.y - before[-1].y < 6 * line.size:
        return None
    # Cells are centred beside each other: a label reaches as far above the number as it reaches below it.
    highest = line.y + (line.y - before[-1].y) + 0.6 * line.size
    start = len(before)
    while start > 0 and len(before) - start < 6:
        part = before[start - 1]
        reach = part.right - 0.1 * (part.right - part.x)  # widths are guesses
        if part.y > highest or reach > line.x + 0.5 * line.size or abs(part.size - line.size) > 1:
            break
        start -= 1
    in_table = any(is_number(token) for token in line.text.split()) or any(part.gaps for part in before[start:])
    return start if start < len(before) and in_table else None


def _with_stacked_names(lines: Sequence[Line]) -> list[Line]:
    """The lines, and as one row the names of a table's columns that were printed in lines of their own above it."""
    result: list[Line] = []
    for line in lines:
        if line.gaps >= 2 and line.measured and is_table_row(line) and any(map(str.isdigit, line.text)):
            start = _names_start(result, line)
            end = len(result)
            while end > start + 1 and _is_label(result[end - 1], result[start : end - 1], line):
                end -= 1
            while end > start + 1 and _is_title(result[start], result[start + 1 : end], line):
                start += 1
            columns = _columns(result[start:end])
            if len(columns) >= _FEWEST_NAMES and _beside_each_other(columns):
                result[start:end] = [_names_row(columns)]
        result.append(line)
    return result


def _is_label(last: Line, names: Sequence[Line], row: Line) -> bool:
    """Whether the last line before a row labels a group of rows: at their left edge, and below all the names."""
    return abs(last.x - row.x) < 2 * row.size and last.y < min(name.y for name in names) - 0.5 * row.size


def _is_title(first: Line, names: Sequence[Line], row: Line) -> bool:
    """Whether the first line is above all the names and at the rows' left edge."""
    return abs(first.x - row.x) < 2 * row.size and first.y > max(name.y for name in names) + 0.5 * row.size


def _names_start(before: Sequence[Line], row: Line) -> int:
    """Where the short lines right above a row start."""
    start = len(before)
    while start > 0:
        name = before[start - 1]
        above = 0 < name.y - row.y < _HEADER_SIZES * row.size
        narrow = name.right - name.x < 0.35 * (row.right - row.x)
        if not (above and narrow and name.measured and not name.gaps and abs(name.size - row.size) < 1.5):
            break
        start -= 1
    return start


def _columns(names: Sequence[Line]) -> list[list[Line]]:
    """The lines by the column they stand in, from left to right."""
    columns: list[list[Line]] = []
    for name in sorted(names, key=lambda name: name.x):
        if columns and name.x < max(other.right for other in columns[-1]):
            columns[-1].append(name)
        else:
            columns.append([name])
    return [sorted(column, key=lambda name: -name.y) for column in columns]


def _beside_each_other(columns: Sequence[Sequence[Line]]) -> bool:
    """Whether neighbours overlap in height: names stand side by side, and the lines of a list do not."""
    return all(
        left[0].y > right[-1].y - 0.5 * left[0].size and right[0].y > left[-1].y - 0.5 * left[0].size
        for left, right in pairwise(columns)
    )


def _names_row(columns: Sequence[Sequence[Line]]) -> Line:
    names = [name for column in columns for name in column]
    glue = "" if all(is_wide(name.text[0]) for name in names) else " "
    return replace(
        columns[0][0],
        text=CELL.join(glue.join(name.text for name in column) for column in columns),
        y=min(name.y for name in names),
        right=max(name.right for name in names),
        bold=all(name.bold for name in names),
    )
