"""Where the entries of an outline stand among the pieces of a text, and the section path they make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ingest.readers.pieces import Piece

FEWEST_ENTRIES = 3  # one or two entries are a title, not an outline


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    title: str
    level: int  # 1 is the outermost
    page: int  # index
    top: float | None  # height on the page in points, where it says so


class SectionPath:
    """The titles of the open sections, outermost first."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, title))

    def titles(self) -> tuple[str, ...]:
        return tuple(title for _, title in self._open)


def placed_outline(
    pieces: Sequence[Piece], outline: Sequence[OutlineEntry]
) -> tuple[list[Piece], Mapping[int, Sequence[tuple[int, str]]]]:
    """The pieces with the outline's headings marked as such, and the entries, (level, title), that begin without one.

    The outline is the author's own word on the structure: headings found by print alone go below its levels.
    """
    if len(outline) < FEWEST_ENTRIES or not pieces:
        return list(pieces), {}
    depth = max(entry.level for entry in outline)
    placed = [
        replace(piece, level=piece.level + depth) if piece.kind == "heading" and piece.level else piece
        for piece in pieces
    ]
    marks: dict[int, list[tuple[int, str]]] = {}
    taken: set[int] = set()
    for entry in sorted(outline, key=lambda entry: entry.page):
        candidates = [index for index, piece in enumerate(pieces) if piece.page == entry.page]
        heading = next(
            (
                i
                for i in candidates
                if i not in taken and not pieces[i].contents and _is_title(pieces[i].text, entry.title)
            ),
            None,
        )
        if heading is not None:
            taken.add(heading)
            placed[heading] = replace(placed[heading], kind="heading", level=entry.level)
            continue
        start = _first_below(pieces, candidates, entry)
        if start is not None:
            marks.setdefault(start, []).append((entry.level, entry.title))
    return placed, marks


def _first_below(pieces: Sequence[Piece], candidates: Sequence[int], entry: OutlineEntry) -> int | None:
    """The first piece at or below the entry's height; of a page without text the first piece after it."""
    if candidates:
        top = entry.top
        below = [i for i in candidates if top is not None and pieces[i].y and pieces[i].y <= top + pieces[i].size]
        return below[0] if below else candidates[0]
    return next((index for index, piece in enumerate(pieces) if piece.page > entry.page), None)


def _is_title(text: str, title: str) -> bool:
    """Whether a short piece is the entry's heading, whatever its spacing, case and numbering."""
    ours, theirs = _letters(text), _letters(title)
    if not theirs or len(text) > len(title) + 40:
        return False
    return ours == theirs or (len(theirs) >= 4 and (ours.endswith(theirs) or ours.startswith(theirs)))


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()
