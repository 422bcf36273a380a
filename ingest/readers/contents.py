"""Tables of contents: which printed lines are their entries ("4.2 Annual leave … 12"), naming what stands elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ingest.readers.lines import Line, is_number

FEWEST_ENTRIES = 4
_FEWEST_UNANNOUNCED = 8  # without a heading or leading dots; a table of rising numbers may look the same
_ENTRY = re.compile(
    r"^(?P<title>.*[^\W\d_].*?)(?P<leaders>(?:\s?[.…·]){3,}|\s)\s*(?P<page>\d{1,4}|[ivxl]{1,7}|[A-Z]{1,2}-\d{1,3})$"
)
_ANNOUNCED = re.compile(
    r"^\W*(?:(?:table\s+of\s+)?contents|index|目\s*[录錄次]|inhalt(?:sverzeichnis)?|sommaire)\W*$", re.I
)
_LONGEST_TITLE = 150
_LAST_OF_PAGE = frozenset("0123456789ivxl")


def with_contents(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages with the entries of tables of contents marked, their leading dots and gaps as " … "."""
    result = []
    last_number = 0  # of a table that reached the end of the page before
    for lines in pages:
        marked = list(lines)
        runs = _runs(lines)
        reached_end = False
        for start, end in runs:
            entries = [match for match in map(_entry, lines[start:end]) if match]
            numbers = [int(match["page"]) for match in entries if match["page"].isdigit()]
            goes_on = last_number > 0 and start <= 3 and numbers[:1] >= [last_number]
            if not (goes_on or _is_contents(lines, start, entries, numbers, page_count=len(pages))):
                continue
            marked[start:end] = [_marked(line) for line in lines[start:end]]
            reached_end = end >= len(lines) - 2
            last_number = numbers[-1] if numbers else 1
        last_number = last_number if reached_end else 0
        result.append(marked)
    return result


def _entry(line: Line) -> re.Match[str] | None:
    if line.text[-1] not in _LAST_OF_PAGE:  # most lines, at a tenth of the cost
        return None
    found = _ENTRY.match(line.text) if len(line.text) <= _LONGEST_TITLE else None
    if not found:
        return None
    title = found["title"].rstrip()
    if len(found["leaders"].strip()) >= 3:
        return found
    # A second number before the last is a row of figures; "Holidays in 2026" is a title.
    figure = is_number(title.split()[-1]) and not re.search(r"(?:19|20)\d\d$", title)
    return None if figure or title[-1] in ",;；，$€¥£" else found


def _runs(lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Where entries follow each other with rising page numbers; single lines without a number may stand among them."""
    runs: list[tuple[int, int]] = []
    start, end, last = 0, 0, 0
    for index, line in enumerate(lines):
        found = _entry(line)
        if found is None:
            continue
        number = int(found["page"]) if found["page"].isdigit() else last
        if end and index - end <= 1 and number >= last:
            end = index + 1
        else:
            runs.append((start, end))
            start, end = index, index + 1
        last = number
    runs.append((start, end))
    return [run for run in runs if run[1] > run[0]]


def _is_contents(
    lines: Sequence[Line], start: int, entries: Sequence[re.Match[str]], numbers: Sequence[int], *, page_count: int
) -> bool:
    if len(entries) < FEWEST_ENTRIES:
        return False
    led = sum(len(match["leaders"].strip()) >= 3 for match in entries)
    if led * 2 >= len(entries):
        return True
    plausible = bool(numbers) and numbers[-1] <= page_count + 20 and len(set(numbers)) >= 3
    announced = any(_ANNOUNCED.match(line.text) for line in lines[max(0, start - 4) : start])
    return plausible and (announced or len(entries) >= _FEWEST_UNANNOUNCED)


def _marked(line: Line) -> Line:
    found = _entry(line)
    text = f"{found['title'].rstrip()} … {found['page']}" if found else line.text
    return replace(line, text=text.replace("\t", " "), contents=True)
