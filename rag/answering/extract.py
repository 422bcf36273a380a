"""Answers without any model: the sentences of the passages that best answer the question, each with its source.

Each sentence of the best passages has features: which of the question's words it has, alone and as neighbours, whether
it has something of the kind that is asked for, what stands before and above it, how near its vector is. Weights fitted
by bench/fit_extract.py make of them how probable it is that the sentence answers; that says which are told, and how
many. In the likeliest two the phrase that answers is looked for (`phrases`), or the cell of a table row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from rag.answering.asked import Asked, Part, asked, parts
from rag.answering.cells import best_cell
from rag.answering.phrases import best_phrase, is_sure
from rag.answering.shapes import evident, unit_of
from rag.models import Hit
from rag.ports import Embedder, Vectors
from rag.text.dates import dates
from rag.text.keywords import Keyword, share
from rag.text.language import ENGLISH_STOP_WORDS, language_of, query_terms, sentences, terms

_PASSAGES = 5  # whose sentences are looked at
_EMBEDDED = 6  # sentences whose vectors are compared, the best by words; each costs about two milliseconds
_MOST_TOLD = 3
# A second and a third sentence are told as long as those before it are, together, less likely than this to hold the
# answer, and it is itself at least so likely beside the first. Chosen on the half that fits: docs/quality.md.
_SURE = 0.9
_BESIDE_FIRST = 0.05
_OF_A_PART = 0.3  # of a part's words, that a sentence must have to answer it
# A word of the question counts in full in the sentence itself, less in the headings above it or the question that it
# follows (as in an FAQ), and little elsewhere in the passage.
_IN_HEADING, _IN_PASSAGE = 0.6, 0.3
_POINTS_ELSEWHERE = re.compile(
    r"see also\b|see (?:the )?(?:section|chapter|page|table)\b|参见|详见|另见", re.IGNORECASE
)
_LEANS = re.compile(
    r"(?:it|its|he|his|she|her|they|their|this|that|these|those|such|both|the (?:former|latter))\b"
    r"|[它他她其这那该此]|同[年月时]|当时|之后|后来|随后",
    re.IGNORECASE,
)
_FRAGMENT_CHARS = 40
_ENUMERATOR = re.compile(r"^\s*(?:[(（]?(?:\d{1,2}(?:\.\d{1,2})*|[一二三四五六七八九十]{1,3})[)）.、．]|§\s?\d+)\s*")
_BULLET = re.compile(r"[-*•·–—]\s+(?=\S)")  # of a list: a line of it is told without
_ENDS = tuple(".!?。！？…;；\"'”’)）]】")
_ROW_CHARS = 600  # of a table row that is told whole
_NEWS = {"en": 8, "zh": 20}  # terms that neither question nor headings have: a sentence without any answers nothing
_LONG = {"en": 300, "zh": 100}  # characters

# Fitted by bench/fit_extract.py on half of the questions.
WEIGHTS: Final[Mapping[str, Mapping[str, float]]] = {
    "en": {
        "after": 0.68, "ahead": 2.39, "before": 1.25, "date": 1.77, "every": 2.55, "first": 0.59, "found": 1.36,
        "leans": 1.72, "long": 0.4, "manner": 0.18, "neighbours": 0.23, "news": 0.77, "noun": 1.61, "number": 1.31,
        "passage": 0.98, "person": 0.2, "place": 0.94, "placed": 1.64, "reason": -0.2, "together": 0.21, "unit": 1.97,
        "words": 0.71,
    },
    "zh": {
        "after": 0.31, "ahead": 0.99, "before": 1.9, "date": 2.33, "every": 3.95, "first": 0.6, "found": 0.89,
        "leans": 0.92, "long": -0.7, "manner": 0.22, "neighbours": 0.1, "news": -0.47, "noun": 1.54, "number": 1.3,
        "opening": 0.37, "passage": 1.09, "placed": 4.26, "reason": 1.69, "together": -0.5, "unit": 0.82,
        "words": -0.4,
    },
}  # fmt: skip
# Of a sentence's cosine, for an embedder that reads the whole question; of one that reads two fifths of its tokens, as
# all-MiniLM-L6-v2 does in Chinese, the weight that fits is 0.
_NEAR = 3.6
_LEAST_NEAR = 0.25  # below, vectors would change no order that matters
# Of what keeps headings and pointers from being told: the public sets have none to learn it from.
_TITLE = -2.0


@dataclass(frozen=True, slots=True)
class Extract:
    """A sentence of a hit; offsets count in the version's canonical text. `score`: how probable it is that it answers,
    of all sentences that were looked at."""

    hit: Hit
    start: int
    end: int
    text: str
    score: float
    title: bool = False  # it names what is told below it, or elsewhere


@dataclass(frozen=True, slots=True)
class Short:
    """The phrase that answers, in the sentence of this number; offsets count in the version's canonical text."""

    sentence: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """One to three sentences, the best first, or in the order of the parts of a question that has several."""

    sentences: tuple[Extract, ...]
    short: Short | None = None


def extract(
    hits: Sequence[Hit],
    *,
    question: str,
    wanted: Sequence[Keyword],
    coverage: float,
    vector: Vectors,
    embedder: Embedder,
) -> Extracted:
    """The sentences that answer, and the phrase in them where it is sure enough; nothing where there are no hits."""
    units = list(read(hits))
    if not units:
        return Extracted(())
    pieces = parts(question, tuple(wanted))
    ranked = [_ranked(units, part, coverage=coverage, vector=vector, embedder=embedder) for part in pieces]
    if len(pieces) > 1:
        return Extracted(tuple(_one_of_each(pieces, ranked)))
    return _told(ranked[0], question)


# ── the sentences that there are ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Unit:
    """A sentence or a table row of a hit, with the terms in it and around it."""

    hit: Hit
    rank: int  # of the hit, from 0
    ahead: float  # how much better the hit was found than the next best or, of all but the first, the best
    start: int
    end: int
    text: str
    said: tuple[str, ...]  # its terms
    present: frozenset[str]
    before: frozenset[str]  # those of the sentence before it
    after: frozenset[str]
    above: frozenset[str]  # those of the headings above it, or of the question that it follows
    around: frozenset[str]  # those of the whole passage
    title: bool
    row: bool


def read(hits: Sequence[Hit]) -> Iterator[Unit]:
    """The sentences of the best hits that may be told; none of another edition than the one that is asked about."""
    hits = [hit for hit in hits if not hit.untimely][:_PASSAGES]
    for rank, hit in enumerate(hits):
        rival = hits[0].score if rank else hits[1].score if len(hits) > 1 else 0.0
        yield from _units(hit, rank, hit.score - rival)


def _units(hit: Hit, rank: int, ahead: float) -> Iterator[Unit]:
    spans = [span for span in _spans(hit) if any(map(str.isalnum, hit.text[span[0] : span[1]]))]
    said = [tuple(terms(hit.text[start:end])) for start, end in spans]
    present = [frozenset(words) for words in said]
    around = frozenset(terms(hit.heading)).union(*present)
    headings: dict[str, frozenset[str]] = {}
    asked_before: frozenset[str] = frozenset()  # terms of the question that the text itself asks just before
    for at, (start, end) in enumerate(spans):
        text = hit.text[start:end]
        if text.rstrip().endswith(("?", "？")):
            asked_before = present[at]
            continue
        place = hit.place_at(hit.start + start)
        section = place.section or ""
        title = _is_title(text, hit, section) or _is_fragment(text, hit, start)
        if section not in headings:
            headings[section] = frozenset(terms(f"{hit.title}\n{section}"))
        yield Unit(
            hit=hit,
            rank=rank,
            ahead=ahead,
            start=hit.start + start,
            end=hit.start + end,
            text=text,
            said=said[at],
            present=present[at],
            before=present[at - 1] if at else frozenset(),
            after=present[at + 1] if at + 1 < len(spans) else frozenset(),
            above=frozenset() if title else asked_before | headings[section],
            around=around,
            title=title,
            row=place.row is not None,
        )
        asked_before = frozenset()


def _spans(hit: Hit) -> list[tuple[int, int]]:
    """The spans that an answer may be made of: sentences, and short table rows whole: `Stock: 37` says little alone."""
    spans: list[tuple[int, int]] = []
    before: str | None = None
    for start, end in sentences(hit.text):
        row = hit.place_at(hit.start + start).row
        if spans and row is not None and row == before and end - spans[-1][0] <= _ROW_CHARS:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
        before = row
    return [(_behind_bullet(hit.text, start, end), end) for start, end in spans]


def _behind_bullet(text: str, start: int, end: int) -> int:
    bullet = _BULLET.match(text, start, end)
    return bullet.end() if bullet else start


def _is_title(text: str, hit: Hit, section: str) -> bool:
    """Headings name what is told below them, and pointers what is told elsewhere; they seldom tell it."""
    bare = text.strip(" \n\t#·•-–—.:：")
    if _POINTS_ELSEWHERE.match(bare):
        return True
    return bare == hit.title or bare in section.split(" › ")


def _is_fragment(text: str, hit: Hit, start: int) -> bool:
    """A running header, a label, the column names of a table: short, no row, and not ended like a sentence."""
    bare = text.strip()
    if bare in hit.heading:
        return True
    if len(bare) > _FRAGMENT_CHARS or bare[-1:] in _ENDS or hit.place_at(hit.start + start).row is not None:
        return False
    # The number of a heading tells nothing, and neither does the date in a running header.
    return not any(map(str.isdigit, _without_dates(_ENUMERATOR.sub("", bare))))


def _without_dates(text: str) -> str:
    for span in reversed(dates(text)):
        text = text[: span.start] + text[span.end :]
    return text


# ── how probable it is that each answers ──────────────────────────────────────────────────────


def features(units: Sequence[Unit], part: Part) -> list[dict[str, float]]:
    """Of each unit, by name; all but `ahead` from 0 to 1 or a little more. The vectors' is not among them."""
    what = asked(part.text)
    own = set(query_terms(part.text))
    neighbours = _neighbours(terms(part.text))
    unit = unit_of(part.text, what)
    long, news = _LONG[language_of(part.text)], _NEWS[language_of(part.text)]
    passages: dict[int, float] = {}
    found = []
    for item in units:
        if item.rank not in passages:
            passages[item.rank] = share(part.wanted, ((1.0, set(item.around)),))
        present = set(item.present)
        words = share(part.wanted, ((1.0, present),))
        with_before = share(part.wanted, ((1.0, present | item.before),)) - words
        places = ((1.0, present), (_IN_HEADING, set(item.above)), (_IN_PASSAGE, set(item.around)))
        row = {
            "words": words,
            "placed": share(part.wanted, places),
            "before": with_before,
            "leans": with_before if _LEANS.match(item.text) else 0.0,
            "after": share(part.wanted, ((1.0, present | item.after),)) - words,
            "every": len(own & present) / len(own) if own else 0.0,
            "neighbours": len(neighbours & _neighbours(item.said)) / len(neighbours) if neighbours else 0.0,
            "together": _together(part.wanted, item.said),
            "noun": float(not what.noun.isdisjoint(present)),
            "unit": float(unit is not None and unit.search(item.text) is not None),
            "passage": passages[item.rank],
            "found": item.hit.score,
            "ahead": item.ahead,
            "first": float(item.rank == 0),
            "news": min(len(present - own - item.above) / news, 1.0),
            "long": min(len(item.text) / long, 1.5),
            "opening": float(item.start == item.hit.start),
        }
        if any(what.kind in ("reason", "manner") or _is_new(item.text[a:b], own) for a, b in evident(item.text, what)):
            row[what.kind] = 1.0
        found.append(row)
    return found


def _is_new(text: str, own: set[str]) -> bool:
    """What the question names itself is no answer to it."""
    found = terms(text)
    return bool(found) and not own.issuperset(found)


def _neighbours(found: Sequence[str]) -> set[tuple[str, str]]:
    """Two words, or two pairs of Han characters, which are three characters in a row."""
    kept = [term for term in found if term not in ENGLISH_STOP_WORDS and (len(term) > 1 or term.isascii())]
    return set(pairwise(kept))


def _together(wanted: Sequence[Keyword], said: Sequence[str]) -> float:
    """How close together the question's words stand, where there are two of them at least."""
    places: dict[str, int] = {}
    for at, term in enumerate(said):
        places.setdefault(term, at)
    there = ([places[term] for term in word.terms if term in places] for word in wanted)
    found = [min(of_word) for of_word in there if of_word]
    return len(found) / (1 + max(found) - min(found)) if len(found) > 1 else 0.0


def logit(row: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights[name] * value for name, value in row.items() if name in weights)


def _ranked(
    units: Sequence[Unit], part: Part, *, coverage: float, vector: Vectors, embedder: Embedder
) -> list[tuple[Extract, float]]:
    """The likeliest sentences of a part, the best first, each with its share of the part's own words."""
    weights = WEIGHTS[language_of(part.text)]
    rows = features(units, part)
    scores = [logit(row, weights) + _TITLE * item.title for row, item in zip(rows, units, strict=True)]
    near = _NEAR * coverage**4
    order = sorted(range(len(units)), key=lambda at: -scores[at])
    if near > _LEAST_NEAR and len(units) > 1:
        order = order[:_EMBEDDED]
        texts = [units[at].text for at in order]
        cosines = np.clip(embedder.embed_passages(texts, urgent=True) @ vector, 0.0, 1.0)
        for at, cosine in zip(order, cosines, strict=True):
            scores[at] += near * float(cosine)
    order.sort(key=lambda at: (-scores[at], units[at].hit.chunk_id, units[at].start))
    total = sum(math.exp(scores[at] - scores[order[0]]) for at in order)
    found = []
    for at in order[:_EMBEDDED]:
        item = units[at]
        probability = math.exp(scores[at] - scores[order[0]]) / total
        title = item.title and _is_title(item.text, item.hit, item.hit.place_at(item.start).section or "")
        found.append((Extract(item.hit, item.start, item.end, item.text, probability, title), rows[at]["words"]))
    return found


# ── what is told ──────────────────────────────────────────────────────────────────────────────


def _told(ranked: Sequence[tuple[Extract, float]], question: str) -> Extracted:
    found = [item for item, _ in ranked]
    what = asked(question)
    own = set(query_terms(question))
    row = _cell(found[0], question, what)
    if row is not None:
        return Extracted(tuple(_enough(found, own)), row)
    phrase = best_phrase([item.text for item in found[:2]], [item.score for item in found[:2]], own=own, what=what)
    if phrase is not None and len(found) > 1:
        # The sentence with the likelier phrases goes first, where the two judge differently.
        both = [(item.score + share) / 2 for item, share in zip(found[:2], phrase.shares, strict=True)]
        if both[1] > both[0]:
            found[:2] = [replace(found[1], score=found[0].score), replace(found[0], score=found[1].score)]
            phrase = replace(phrase, sentence=1 - phrase.sentence)
    told = _enough(found, own)
    if phrase is None or not is_sure(phrase, what):
        return Extracted(tuple(told))
    inside = found[phrase.sentence]
    if not _is_new(inside.text[phrase.start : phrase.end], own):
        return Extracted(tuple(told))
    number = next((number for number, item in enumerate(told) if item is inside), None)
    if number is None:
        return Extracted(tuple(told))
    return Extracted(tuple(told), Short(number, inside.start + phrase.start, inside.start + phrase.end))


def _enough(found: Sequence[Extract], own: set[str]) -> list[Extract]:
    """The best, and those behind it that are needed to be sure that the answer is told."""
    told: list[Extract] = []
    reached = 0.0
    for item in found:
        if len(told) == _MOST_TOLD or (told and (reached >= _SURE or item.score < _BESIDE_FIRST * found[0].score)):
            break
        if not any(_says_the_same(item, other) for other in told) and not (told and _adds_nothing(item, told[0], own)):
            told.append(item)
        reached += item.score
    return told


def _adds_nothing(item: Extract, best: Extract, own: set[str]) -> bool:
    """Beside the best: a heading, or another row of a table of which the best names more of what is asked about."""
    if item.title:
        return True
    if any(one.hit.place_at(one.start).row is None for one in (item, best)) or item.hit.title != best.hit.title:
        return False
    return own.intersection(terms(item.text)) < own.intersection(terms(best.text))


def _cell(item: Extract, question: str, what: Asked) -> Short | None:
    """The cell that a table row answers with."""
    heading = item.hit.heading if item.hit.place_at(item.start).row is None else ""
    span = best_cell(item.text, question, title=item.hit.title, heading=heading, what=what)
    return Short(0, item.start + span[0], item.start + span[1]) if span else None


def _one_of_each(pieces: Sequence[Part], ranked: Sequence[Sequence[tuple[Extract, float]]]) -> Iterator[Extract]:
    """For each part the sentence that answers it best; of a part that nothing answers, nothing is said."""
    told: list[Extract] = []
    for at, (part, found) in enumerate(zip(pieces, ranked, strict=True)):
        best, words = found[0]
        if (at == 0 or words >= _OF_A_PART or not part.wanted) and not any(
            (best.hit.chunk_id, best.start) == (other.hit.chunk_id, other.start) for other in told
        ):
            told.append(best)
            yield best


def _says_the_same(one: Extract, other: Extract) -> bool:
    mine, theirs = set(terms(one.text)), set(terms(other.text))
    return not mine or not theirs or len(mine & theirs) >= 0.8 * min(len(mine), len(theirs))
