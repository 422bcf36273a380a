"""Answers without any model: the sentences of the passages that best answer the question, each with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rag.fusion import dense_weight
from rag.keywords import Keyword, share
from rag.language import sentences, terms
from rag.models import Hit
from rag.ports import Embedder, Vectors

_PASSAGES = 5  # whose sentences are looked at
_EMBEDDED = 8  # sentences whose vectors are compared, the best by words; each costs about two milliseconds
_ENOUGH = (1.0, 0.65, 0.8)  # of the best sentence's score, for the first, second and third to be told
# A word of the question counts in full in the sentence itself, less in the headings above it or the question that it
# follows (as in an FAQ), and little elsewhere in the passage.
_IN_HEADING, _IN_PASSAGE = 0.6, 0.3
_POINTS_ELSEWHERE = re.compile(
    r"see also\b|see (?:the )?(?:section|chapter|page|table)\b|参见|详见|另见", re.IGNORECASE
)
_FRAGMENT_CHARS = 40
_ENDS = tuple(".!?。！？…;；\"'”’)）]】")
_TITLE_SHARE = 0.75
_ROW_CHARS = 600  # of a table row that is told whole
_PASSAGE_SHARE = 0.25  # of a sentence's score, how well its passage was found


@dataclass(frozen=True, slots=True)
class Extract:
    """A sentence of a hit; offsets count in the version's canonical text."""

    hit: Hit
    start: int
    end: int
    text: str
    score: float


def extract(
    hits: Sequence[Hit], *, wanted: Sequence[Keyword], coverage: float, vector: Vectors, embedder: Embedder
) -> list[Extract]:
    """One to three sentences, the best first; none where there are no hits."""
    candidates = [item for hit in hits[:_PASSAGES] for item in _by_words(hit, wanted)]
    candidates = sorted(candidates, key=lambda item: -item.score)[:_EMBEDDED]
    if not candidates:
        return []
    scored = _with_vectors(candidates, coverage=coverage, vector=vector, embedder=embedder)
    best = scored[0].score
    chosen: list[Extract] = []
    for item in scored:
        if len(chosen) == len(_ENOUGH) or item.score < _ENOUGH[len(chosen)] * best:
            break
        if not any(_says_the_same(item, other) for other in chosen):
            chosen.append(item)
    return chosen


def _by_words(hit: Hit, wanted: Sequence[Keyword]) -> Iterator[Extract]:
    around = set(terms(f"{hit.heading}\n{hit.text}"))
    asked: set[str] = set()  # terms of the question that the text itself asks just before
    for start, end in _units(hit):
        text = hit.text[start:end]
        section = hit.place_at(hit.start + start).section or ""
        if not any(map(str.isalnum, text)):
            continue
        if text.rstrip().endswith(("?", "？")):
            asked = set(terms(text))
            continue
        title = _is_title(text, hit, section) or _is_fragment(text, hit, start)
        above = set() if title else asked | set(terms(f"{hit.title}\n{section}"))
        asked = set()
        words = share(wanted, ((1.0, set(terms(text))), (_IN_HEADING, above), (_IN_PASSAGE, around)))
        score = (1.0 - _PASSAGE_SHARE) * words + _PASSAGE_SHARE * hit.score
        yield Extract(hit, hit.start + start, hit.start + end, text, score * (_TITLE_SHARE if title else 1.0))


def _units(hit: Hit) -> list[tuple[int, int]]:
    """The spans that an answer may be made of: sentences, and short table rows whole: `Stock: 37` says little alone."""
    units: list[tuple[int, int]] = []
    before: str | None = None
    for start, end in sentences(hit.text):
        row = hit.place_at(hit.start + start).row
        if units and row is not None and row == before and end - units[-1][0] <= _ROW_CHARS:
            units[-1] = (units[-1][0], end)
        else:
            units.append((start, end))
        before = row
    return units


def _is_title(text: str, hit: Hit, section: str) -> bool:
    """Headings name what is told below them, and pointers what is told elsewhere; they seldom tell it."""
    bare = text.strip(" \n\t#·•-–—.:：")
    if _POINTS_ELSEWHERE.match(bare):
        return True
    return bare == hit.title or bare in section.split(" › ")


def _is_fragment(text: str, hit: Hit, start: int) -> bool:
    """A running header, a label, the column names of a table: short, no row, and not ended like a sentence."""
    bare = text.strip()
    return (
        len(bare) <= _FRAGMENT_CHARS
        and bare[-1:] not in _ENDS
        and not any(map(str.isdigit, bare))
        and hit.place_at(hit.start + start).row is None
    ) or bare in hit.heading


def _with_vectors(
    candidates: Sequence[Extract], *, coverage: float, vector: Vectors, embedder: Embedder
) -> list[Extract]:
    """The candidates with what their vectors say mixed in, best first."""
    dense = dense_weight(coverage)
    if dense > 0.05:
        cosines = np.clip(embedder.embed_passages([item.text for item in candidates], urgent=True) @ vector, 0.0, 1.0)
        candidates = [
            replace(item, score=(1.0 - dense) * item.score + dense * float(cosine))
            for item, cosine in zip(candidates, cosines, strict=True)
        ]
    return sorted(candidates, key=lambda item: (-item.score, item.hit.chunk_id, item.start))


def _says_the_same(one: Extract, other: Extract) -> bool:
    mine, theirs = set(terms(one.text)), set(terms(other.text))
    return not mine or not theirs or len(mine & theirs) >= 0.8 * min(len(mine), len(theirs))
