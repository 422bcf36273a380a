"""What a text is cut into when not all of it can be shown: sentences, table rows, headings; and what each is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rag.models import Hit
from rag.text.keywords import Keyword, comparable, share
from rag.text.language import language_of, sentences, terms

_ROW_CHARS = 600  # of a table row that is kept whole
# How much more likely a sentence is the one that was meant, as a logarithm: with all of the keywords in it against none
# of them, and as the one of its passage that has most of them against one far away from it. See decision 9.
_WORDS, _CLOSE = 4.0, 0.5


@dataclass(frozen=True, slots=True)
class Unit:
    """Offsets count in the version's canonical text; each unit reaches to the next one, white space and all.

    `heading` is the number of the unit that is the heading above this one, where it stands in the same chunk and is not
    shown above the passage anyway; `told`: this one says no more than what is shown there, the title and the section.
    """

    start: int
    end: int
    heading: int | None = None
    told: bool = False


def units(chunk: Hit) -> list[Unit]:
    """The units of a chunk, in order, without a gap."""
    found: list[tuple[int, int | None, bool]] = []
    shown = {chunk.title, _innermost(chunk.place.section)}
    heading: int | None = None
    row: str | None = None
    for start, end in sentences(chunk.text):
        place = chunk.place_at(chunk.start + start)
        if found and place.row is not None and place.row == row and end - found[-1][0] <= _ROW_CHARS:
            continue
        row = place.row
        text = chunk.text[start:end].strip(" #")
        told = text in shown
        if text == _innermost(place.section):
            heading = None if told else len(found)
        found.append((start, heading if heading != len(found) else None, told))
    borders = [0, *(start for start, _, _ in found[1:]), len(chunk.text)]
    about = found or [(0, None, False)]
    return [
        Unit(chunk.start + start, chunk.start + end, heading, told)
        for (start, end), (_, heading, told) in zip(pairwise(borders), about, strict=True)
    ]


def worth(chunk: Hit, parts: Sequence[Unit], wanted: Sequence[Keyword]) -> list[float]:
    """Of each unit of a chunk against the others: more with more of the keywords in it, and near to that with most."""
    words = comparable(wanted, chinese=language_of(chunk.text) == "zh")
    texts = [chunk.text[part.start - chunk.start : part.end - chunk.start] for part in parts]
    shares = [
        0.0 if part.told else share(words, ((1.0, set(terms(text))),)) for part, text in zip(parts, texts, strict=True)
    ]
    best = max(range(len(parts)), key=shares.__getitem__)
    return [
        0.0 if part.told else math.exp(_WORDS * found + _CLOSE * math.exp(-abs(at - best)))
        for at, (part, found) in enumerate(zip(parts, shares, strict=True))
    ]


def _innermost(section: str | None) -> str | None:
    return section.rpartition(" › ")[2] if section else None
