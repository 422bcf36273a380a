"""A model's reply with markers like [1] becomes clean sentences, each with the passages it points at."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rag.text.language import sentences

# [1]  [1, 2]  [1][2]  [[1]]  【1】  ［1］  [1-3] — what models really write
_MARKER = re.compile(r"\s*(?:\[{1,2}|[【［])\s*(\d{1,3}(?:\s*[,，、;；–-]\s*\d{1,3})*)\s*(?:\]{1,2}|[】］])")
_OPEN_MARKER = re.compile(r"\s*(?:\[{1,2}|[【［])(?:[^\]】］]{0,20}|[\s\d,，、;；–-]*)$")
# Small models copy the fence that their passages stand in.
_FENCE = re.compile(r"</?source\b[^<>\n]{0,20}>")
_OPEN_FENCE = re.compile(r"<[^<>\n]{0,28}$")
_OPEN_WORD = re.compile(r"[A-Za-z]+$")  # “Acme Inc. The” ends a sentence in its middle, “Acme Inc. Theodore” does not
_WORD_BEHIND = re.compile(r"[A-Za-z0-9]")
_LIST_SIGN = re.compile(r"^(?:[-*•]|\d{1,2}[.)])\s+")


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of a reply and the numbers of the passages that it names, in order, each once."""

    text: str
    passages: tuple[int, ...]


def claims(reply: str, *, finished: bool = True) -> list[Claim]:
    """The sentences of a reply. While it is still being written, the last one is held back: it may get a marker yet."""
    if not finished:
        reply = _OPEN_MARKER.sub("", _OPEN_FENCE.sub("", reply))
    clean, markers = _without_markers(_FENCE.sub(" ", reply))
    if not finished:
        clean = _OPEN_WORD.sub("", clean)
    spans = [span for span in sentences(clean) if _says_something(clean[span[0] : span[1]])]
    named: list[list[int]] = [[] for _ in spans]
    for position, numbers in markers:
        # The sentence it stands in or behind; the first one where it stands before all.
        owners = [index for index, (start, _) in enumerate(spans) if start < position] or [0][: len(spans)]
        if owners:
            named[owners[-1]].extend(numbers)
    found = [
        Claim(_LIST_SIGN.sub("", clean[start:end]), tuple(dict.fromkeys(numbers)))
        for (start, end), numbers in zip(spans, named, strict=True)
    ]
    return found if finished else found[:-1]


def _without_markers(reply: str) -> tuple[str, list[tuple[int, list[int]]]]:
    parts: list[str] = []
    markers: list[tuple[int, list[int]]] = []
    length = last = 0
    for match in _MARKER.finditer(reply):
        parts.append(reply[last : match.start()])
        length += match.start() - last
        last = match.end()
        markers.append((length, _numbers(match.group(1))))
        if _WORD_BEHIND.match(reply, last):
            parts.append(" ")  # “… nine.[1]It closes”: the marker was all that stood between two words
            length += 1
    parts.append(reply[last:])
    return "".join(parts), markers


def _numbers(inside: str) -> list[int]:
    span = re.fullmatch(r"(\d+)\s*[–-]\s*(\d+)", inside)
    if span:
        first, last = int(span[1]), int(span[2])
        return list(range(first, last + 1)) if first <= last < first + 10 else [first, last]
    return [int(number) for number in re.findall(r"\d+", inside)]


def _says_something(text: str) -> bool:
    return any(character.isalpha() or character.isdigit() for character in text)
