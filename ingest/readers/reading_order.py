"""Boxes of recognised words → lines as a person reads them: columns one after the other, rows of a table whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from ingest.readers.lines import CELL, Line

# A letter's box is higher than its size in points: it reaches from the ascenders to the descenders, with a rim.
_SIZE_PER_HEIGHT = 0.75


@dataclass(frozen=True, slots=True)
class Box:
    """A recognised line, in points from the top left corner of the page."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top


def in_reading_order(boxes: Sequence[Box]) -> list[Line]:
    """The page's lines; `y` runs upwards from an arbitrary zero, as in a text layer."""
    if not boxes:
        return []
    height = median(box.height for box in boxes)
    width = max(box.right for box in boxes) - min(box.left for box in boxes)
    return [line for part in _parts(list(boxes), height, width) for line in _rows(part, height)]


def _parts(boxes: list[Box], height: float, page_width: float) -> list[list[Box]]:
    """The page cut between its columns, and where that fails between its paragraphs, until nothing more comes apart."""
    columns = _cut_columns(boxes, height, page_width)
    if columns:
        return [part for column in columns for part in _parts(column, height, page_width)]
    halves = _cut_across(boxes, height)
    # A cut across is only worth it where columns show in one of the halves: rows of one column are in order already.
    if halves:
        parts = [_parts(half, height, page_width) for half in halves]
        if any(len(part) > 1 for part in parts):
            return [part for half in parts for part in half]
    return [boxes]


def _cut_columns(boxes: list[Box], height: float, page_width: float) -> list[list[Box]] | None:
    """Left and right of a gutter that no box crosses, if both sides are columns of prose and not of a table."""
    ordered = sorted(boxes, key=lambda box: box.left)
    reach = ordered[0].right
    for index, box in enumerate(ordered[1:], start=1):
        if box.left - reach > 0.6 * height:
            sides = [ordered[:index], ordered[index:]]
            if all(_is_prose(side, page_width) for side in sides):
                return sides
        reach = max(reach, box.right)
    return None


def _is_prose(boxes: Sequence[Box], page_width: float) -> bool:
    width = max(box.right for box in boxes) - min(box.left for box in boxes)
    full = sum(box.right - box.left > 0.6 * width for box in boxes)
    return len(boxes) >= 3 and width > 0.2 * page_width and full * 2 >= len(boxes)


def _cut_across(boxes: list[Box], height: float) -> list[list[Box]] | None:
    """Above and below the widest horizontal gap."""
    ordered = sorted(boxes, key=lambda box: box.top)
    reach, best, where = ordered[0].bottom, 0.15 * height, 0
    for index, box in enumerate(ordered[1:], start=1):
        if box.top - reach > best:
            best, where = box.top - reach, index
        reach = max(reach, box.bottom)
    return [ordered[:where], ordered[where:]] if where else None


def _rows(boxes: Sequence[Box], usual_height: float) -> list[Line]:
    """Lines from top to bottom; boxes at one height are one line."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom) / 2):
        middle = (box.top + box.bottom) / 2
        if rows and rows[-1][0].top < middle < rows[-1][0].bottom and all(_apart(box, other) for other in rows[-1]):
            rows[-1].append(box)
        else:
            rows.append([box])
    return [_line(sorted(row, key=lambda box: box.left), usual_height) for row in rows]


def _apart(box: Box, other: Box) -> bool:
    return box.left >= other.right - 0.5 * box.height or other.left >= box.right - 0.5 * box.height


def _line(row: Sequence[Box], usual_height: float) -> Line:
    height = median(box.height for box in row)
    # The height of a box wavers with the letters in it: only a clear difference is one of size.
    if 0.65 * usual_height < height < 1.4 * usual_height:
        height = usual_height
    text = row[0].text
    for before, after in pairwise(row):
        text += (CELL if after.left - before.right > 2 * after.height else " ") + after.text
    return Line(
        text,
        x=row[0].left,
        y=-max(box.bottom for box in row),
        right=row[-1].right,
        size=round(height * _SIZE_PER_HEIGHT, 1),
    )
