"""Dates that a text speaks of, as intervals of days, in English and Chinese. Pure: no clock, no library.

`in 2019`, `Q4 2022`, `2023年5月` and `1990s` are intervals like `1 May 2023` is one: of a year, a quarter, a month, a
decade and a day. docs/decisions/0008-dates-by-a-grammar.md says why this is a grammar of our own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal

from rag.text.dates_grammar import is_relative, matches, meaning, months
from rag.text.years import DASH, is_year, is_year_in_name

Precision = Literal["day", "month", "quarter", "half", "year", "decade", "range"]


@dataclass(frozen=True, slots=True)
class DateSpan:
    """`text` stands at [start, end) of what was read, and means the days from `first` to `last`, both included.

    `relative`: it means what it does only on the day that was given as today.
    """

    start: int
    end: int
    text: str
    first: date
    last: date
    relative: bool = False

    @property
    def precision(self) -> Precision:
        """What the interval is by the calendar; `range` where it is nothing of these."""
        if self.first == self.last:
            return "day"
        for name, length in _LENGTHS.items():
            aligned = (self.first.year * 12 + self.first.month - 1) % length == 0
            if aligned and (self.first, self.last) == months(self.first.year, self.first.month, length):
                return name
        return "range"


_LENGTHS: Final[dict[Precision, int]] = {"month": 1, "quarter": 3, "half": 6, "year": 12, "decade": 120}
_WIDE = str.maketrans("０１２３４５６７８９／－．　○Ｏ", "0123456789/-. 〇〇")


def dates(text: str, *, today: date | None = None, name: bool = False) -> list[DateSpan]:
    """The dates and periods that stand in the text, in order, none inside another.

    With `today`, also those that are told from it (last quarter, 去年, three days ago). `name`: the text is a title or
    a file name, where four digits that can be a year are one, and 20230501 is a day.

    01.05.2023 is the first of May, as wherever dots are written. With slashes or hyphens the month comes first, unless
    it cannot be one (25/12/2023). A fiscal year is taken for the calendar's. Years lie between 1000 and 2099. What says
    no year (May 1, 5月) is no date here.
    """
    read = text if text.isascii() else text.translate(_WIDE)
    if name:
        read = read.replace("_", " ")
    found: list[DateSpan] = []
    for match in matches(read, relative=today is not None):
        start, end = match.span()
        if match.lastgroup == "year" and not (is_year_in_name if name else is_year)(read, start, end):
            continue
        if match.lastgroup == "compact" and not name:
            continue
        interval = meaning(match, today)
        if interval is not None:
            found.append(DateSpan(start, end, text[start:end], *interval, is_relative(match)))
    return _joined(found, text, read)


# ── ranges ────────────────────────────────────────────────────────────────────────────────────

_GAP = re.compile(
    rf"\s?(?:{DASH}|至|到|to|through|thru|until|till|(?P<and>and)|(?P<he>[和与與]))\s?(?:the\s)?", re.IGNORECASE
)
_BETWEEN = re.compile(r"\bbetween\s(?:the\s)?$", re.IGNORECASE)
_AMONG = re.compile(r"\s?之?[间間]")


def _joined(found: list[DateSpan], text: str, read: str) -> list[DateSpan]:
    """`2019–2021`, `from May 2020 to June 2021`, `between 2019 and 2021`: one range instead of its two ends."""
    joined: list[DateSpan] = []
    for span in found:
        before = joined[-1] if joined else None
        if before is None or before.first > span.last or not _is_range(read, before, span):
            joined.append(span)
            continue
        whole = text[before.start : span.end]
        relative = before.relative or span.relative
        joined[-1] = DateSpan(before.start, span.end, whole, before.first, span.last, relative)
    return joined


def _is_range(read: str, before: DateSpan, after: DateSpan) -> bool:
    gap = _GAP.fullmatch(read, before.end, after.start)
    if gap is None:
        return False
    if gap["and"]:
        return _BETWEEN.search(read, 0, before.start) is not None
    return not gap["he"] or _AMONG.match(read, after.end) is not None
