"""Passages that give different numbers or dates for the same thing.

Precision counts for more than recall: where another period, name, unit, bound or kind of figure (an average, a plan)
may explain the difference, nothing is said. bench/fit_disagreement.py tells how often it is right and wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import SequenceMatcher
from typing import Final

from rag.answering.asked import Kind, asked
from rag.answering.support import words
from rag.catalog import versions
from rag.catalog.engine import Connection
from rag.errors import Gone, NotFound
from rag.models import Hit
from rag.text.dates import DateSpan
from rag.text.facts import Facts, facts
from rag.text.figures import counted, numbers_apart, values_apart
from rag.text.keywords import Keyword, comparable, presence, share
from rag.text.language import CHINESE_FUNCTION_CHARACTERS, ENGLISH_STOP_WORDS, HAN, is_han, sentences, terms

_PASSAGES = 8
_LONGEST = 320  # characters of a sentence that is compared
_LEAST = 0.5  # share of the question's weight that a statement has
_BESIDE = 0.75  # of what the one that has most of it has
_LEAST_ALIKE = 0.4  # of the shorter one's terms, before anything else of it is looked at
_MOST = 2  # disagreements of one answer

# Of the words of the shorter statement, those that both have; and of all their words. Chinese ones are pairs of
# characters, of which two wordings share fewer.
_SHARED: Final = {False: 0.6, True: 0.5}
_ALIKE: Final = {False: 0.34, True: 0.25}
_COPIED = 0.7  # of the tokens of two sentences, for one to be the other with a word changed
_LONGEST_SWAPPED = 4
_LEAST_SHARED: Final = {False: 2, True: 3}

_HAN_CHARACTER = re.compile(f"[{HAN}]")
_TOKEN = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
_MAY_TELL = re.compile(
    rf"\d|[〇零一二两三四五六七八九十百千万][{HAN}]|\b(?i:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
    r"|hundred|thousand|million|half)\b"
)
_NO_VALUES: Final = frozenset(("person", "place", "reason"))
_WHERE = re.compile(r"在哪\s*[？?]?$")  # which asks for a place without saying so
_FRAME = re.compile(
    r"\b(?:average|mean|median|max(?:imum)?|min(?:imum)?|totals?|per|each|every|estimate[sd]?|expect(?:s|ed)?"
    r"|plan(?:s|ned)?"
    r"|propose[sd]?|forecasts?|targets?|former(?:ly)?|previous(?:ly)?|until|original(?:ly)?|initial(?:ly)?|used to"
    r"|increase[sd]?|decrease[sd]?|rose|fell|grew|more|less|first|last|another|additional(?:ly)?|before|after|old|new"
    r"|north|south|east|west|male|female|men|women|boys|girls|adults?|child(?:ren)?)\b"
    r"|平均|最高|最低|最多|最少|人均|累计|预计|计划|目标|此前|原来|曾经|增长|下降|增加|减少|同比|环比|每|另|男|女|东部|西部|南部|北部",
    re.IGNORECASE,
)
_NO_NAME: Final = CHINESE_FUNCTION_CHARACTERS | set("之日起年月")
# What such a sentence is about may stand in the title alone.
_POINTS = re.compile(r"(?:the|this|that|these|those|it|its|he|his|she|her|they|their|we|our)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of a hit that gives a value; offsets count in the version's canonical text. `dated`: the time of
    its document as exactly as it is known (ISO 8601), once it was looked up."""

    hit: Hit
    start: int
    end: int
    value: str
    dated: str | None = None

    @property
    def text(self) -> str:
        return self.hit.text[self.start - self.hit.start : self.end - self.hit.start]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Statements with different values of the same thing, as many as there are values; `about` has its words."""

    about: str
    statements: tuple[Statement, ...]


def conflicts(question: str, hits: Sequence[Hit], wanted: Sequence[Keyword]) -> list[Conflict]:
    """Where the hits, best first, disagree about what was asked, in numbers or in dates; most often nowhere. What
    held at another time than the one that is asked about is no disagreement."""
    hits = [hit for hit in hits if not hit.untimely]
    kind = asked(question).kind
    if kind in _NO_VALUES or _WHERE.search(question) or len({hit.document_id for hit in hits[:_PASSAGES]}) < 2:
        return []
    claims = _claims(hits[:_PASSAGES], wanted)
    found: list[Conflict] = []
    for at, claim in enumerate(claims):
        against = [(other, pair) for other in claims[at + 1 :] if (pair := _differ(claim, other, kind)) is not None]
        if not against:
            continue
        own = against[0][1][0]
        statements = {_flat(own): claim.stated(own)}
        for other, (mine, theirs) in against:
            if mine == own:
                statements.setdefault(_flat(theirs), other.stated(theirs))
        if not any(statements.keys() <= {_flat(one.value) for one in known.statements} for known in found):
            found.append(Conflict(_about(claim, against[0][0], wanted), tuple(statements.values())))
    return found[:_MOST]


def newest_first(conflict: Conflict, snapshot: Connection) -> Conflict:
    """The statements by the dates of their documents, as `Hit.date` has them, or else by the days on which their
    versions were stored. Where such a one is gone since it was found, its statement comes last."""
    dated = [replace(one, dated=one.hit.date or _stored_on(one.hit, snapshot)) for one in conflict.statements]
    dated.sort(key=lambda one: (one.dated or "", one.hit.chunk_id), reverse=True)
    return replace(conflict, statements=tuple(dated))


def _stored_on(hit: Hit, snapshot: Connection) -> str | None:
    try:
        stored: datetime = versions.version_row(snapshot, hit.document_id, hit.version).created_at
    except (NotFound, Gone):
        return None
    return stored.date().isoformat()


_DISAGREE: Final = {"en": "The sources disagree: {}", "zh": "各处资料的说法不一：{}"}


def told(conflict: Conflict, *, language: str) -> list[str]:
    """The statements as they read in an answer, the first behind a word that says that they disagree. A row of a table
    has its name in front, and each the date of its document, where these differ."""
    dates = {one.dated for one in conflict.statements}
    lines = [_line(one, language=language, dated=len(dates) > 1) for one in conflict.statements]
    return [_DISAGREE[language].format(lines[0]), *lines[1:]]


def _line(one: Statement, *, language: str, dated: bool) -> str:
    text = " ".join(one.text.split())
    if one.hit.place_at(one.start).row is not None:
        text = f"{one.hit.title} — {text}"
    if not dated or one.dated is None:
        return text
    return f"{text}（{one.dated}）" if language == "zh" else f"{text} ({one.dated})"


def _flat(value: str) -> str:
    return "".join(value.lower().split())


# ── statements that may answer ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Claim:
    hit: Hit
    start: int  # in the hit's text
    end: int
    chinese: bool
    said: Facts
    heading: Facts
    words: frozenset[str]

    def stated(self, value: str) -> Statement:
        return Statement(self.hit, self.hit.start + self.start, self.hit.start + self.end, value)


@dataclass(frozen=True, slots=True)
class _Candidate:
    hit: Hit
    start: int
    end: int
    covered: float
    terms: frozenset[str]


def _claims(hits: Sequence[Hit], wanted: Sequence[Keyword]) -> list[_Claim]:
    """Those that have as much of the question as the best of them, or nearly, the best first; and of them those that
    have words in common with one of another document."""
    scored = [item for hit in hits for item in _scored(hit, wanted)]
    best = max((item.covered for item in scored), default=0.0)
    least = max(_LEAST, _BESIDE * best)
    kept = sorted((item for item in scored if item.covered >= least), key=lambda item: -item.covered)
    return [_claim(item) for item in kept[: 2 * _PASSAGES] if any(_may_differ(item, other) for other in kept)]


def _may_differ(one: _Candidate, other: _Candidate) -> bool:
    least = min(len(one.terms), len(other.terms))
    return one.hit.document_id != other.hit.document_id and len(one.terms & other.terms) >= _LEAST_ALIKE * least


def _scored(hit: Hit, wanted: Sequence[Keyword]) -> Iterator[_Candidate]:
    if not _MAY_TELL.search(hit.text):
        return
    above: set[str] | None = None
    for start, end in sentences(hit.text):
        text = hit.text[start:end]
        if end - start > _LONGEST or not _MAY_TELL.search(text) or text.endswith(("?", "？")):
            continue
        above = set(terms(hit.heading)) if above is None else above
        found = set(terms(text))
        asked_of = comparable(wanted, chinese=_is_chinese(text))
        covered = share(asked_of, ((1.0, found), (0.6, above))) if asked_of else 0.0
        yield _Candidate(hit, start, end, covered, frozenset(found))


def _is_chinese(text: str) -> bool:
    return not text.isascii() and _HAN_CHARACTER.search(text) is not None


def _claim(item: _Candidate) -> _Claim:
    text = item.hit.text[item.start : item.end]
    chinese = _is_chinese(text)
    # Single Han characters are in everything; pairs tell.
    said = facts(text)
    amounts = {term for number in said.numbers for term in terms(counted(said, number))}
    own = {
        word
        for word in words(text) - amounts
        if not (len(word) == 1 and is_han(word)) and CHINESE_FUNCTION_CHARACTERS.isdisjoint(word)
    }
    return _Claim(item.hit, item.start, item.end, chinese, said, facts(item.hit.heading), frozenset(own))


# ── whether two of them differ ────────────────────────────────────────────────────────────────


def _differ(one: _Claim, other: _Claim, kind: Kind) -> tuple[str, str] | None:
    """Their values, where they speak of the same thing and give it different ones."""
    if one.hit.document_id == other.hit.document_id or one.chinese != other.chinese:
        return None
    if not _same_words(one, other) or not _same_subject(one, other):
        return None
    if set(map(str.lower, _FRAME.findall(one.said.text))) != set(map(str.lower, _FRAME.findall(other.said.text))):
        return None
    if one.said.polarity.negations != other.said.polarity.negations:
        return None
    numbers = numbers_apart(one.said, other.said)
    days = _unmatched(one.said.days, other.said.days)
    if numbers is None or days is None or not _same_period(one.heading.days, other.heading.days):
        return None
    if kind == "date" or not any(numbers):
        if kind == "number" or all(numbers) or len(days[0]) != 1 or len(days[1]) != 1:
            return None
        return days[0][0].text, days[1][0].text
    return values_apart(one.said, other.said, *numbers) if _same_period(one.said.days, other.said.days) else None


def _same_words(one: _Claim, other: _Claim) -> bool:
    both, every = one.words & other.words, one.words | other.words
    if not both:
        return False
    least = min(len(one.words), len(other.words))
    if len(both) < _LEAST_SHARED[one.chinese]:
        # A row of a table, `Stock: 37`: what it is of stands above it.
        return one.words == other.words and _rows(one) and _rows(other) and one.hit.title == other.hit.title
    if len(both) < _SHARED[one.chinese] * least or len(both) < _ALIKE[one.chinese] * len(every):
        return False
    return not _is_swapped(one.said, other.said)


def _is_swapped(one: Facts, other: Facts) -> bool:
    """Whether a word stands in the place of another in sentences that are the same otherwise: adults and children."""
    mine, theirs = _TOKEN.findall(_blanked(one)), _TOKEN.findall(_blanked(other))
    matcher = SequenceMatcher(None, mine, theirs, autojunk=False)
    if matcher.ratio() < _COPIED:
        return False
    swapped = ((mine[a:b], theirs[c:d]) for kind, a, b, c, d in matcher.get_opcodes() if kind == "replace")
    return any(_tells(left) and _tells(right) for left, right in swapped)


def _tells(tokens: Sequence[str]) -> bool:
    text = "".join(tokens)
    if len(tokens) > _LONGEST_SWAPPED:
        return False
    if any(map(is_han, text)):
        return any(is_han(character) and character not in CHINESE_FUNCTION_CHARACTERS for character in text)
    return any(token not in ENGLISH_STOP_WORDS and token.isalpha() for token in tokens)


def _blanked(said: Facts) -> str:
    """In lower case, without numbers, what they count, and dates."""
    kept = list(said.text.lower())
    for number in said.numbers:
        end = number.end + (len(counted(said, number)) if number.told else 0)
        kept[number.start : end] = " " * (end - number.start)
    for span in said.days:
        kept[span.start : span.end] = " " * (span.end - span.start)
    return "".join(kept)


def _rows(claim: _Claim) -> bool:
    return claim.hit.place_at(claim.hit.start + claim.start).row is not None


def _same_subject(one: _Claim, other: _Claim) -> bool:
    """Names of one must be known to the other's passage, and no two names may stand for each other."""
    mine, theirs = _unknown(one, other), _unknown(other, one)
    if mine and theirs:
        return False
    for names, there in ((mine, other), (theirs, one)):
        if any(name.lower() not in f"{there.hit.heading}\n{there.hit.text}".lower() for name in names):
            return False
    if set(one.said.names) & set(other.said.names):
        return True
    if one.hit.title == other.hit.title or _titles_meet(one, other):
        return True
    return not (one.chinese or _POINTS.match(one.said.text) or _POINTS.match(other.said.text))


def _unknown(one: _Claim, other: _Claim) -> list[str]:
    there = f"{other.said.text}\n{other.heading.text}".lower()
    every = other.said.terms | other.heading.terms
    return [
        name
        for name in one.said.names
        if name.lower() not in there and not set(terms(name)) <= every and _NO_NAME.isdisjoint(name)  # 之日起 is none
    ]


def _titles_meet(one: _Claim, other: _Claim) -> bool:
    """Whether a word of one's title stands in the other's passage: titles that have nothing in common with the other
    document may name the thing that the sentence leaves out."""
    for claim, there in ((one, other), (other, one)):
        own = {term for term in terms(claim.hit.title) if len(term) > 1 and not term.isdigit()}
        if not own or own & set(terms(f"{there.hit.heading}\n{there.hit.text}")):
            return True
    return False


def _same_period(mine: Sequence[DateSpan], theirs: Sequence[DateSpan]) -> bool:
    """Whether neither names a time, or both name the same."""
    if not mine or not theirs:
        return not mine and not theirs
    return all(any(_overlap(day, other) for other in theirs) for day in mine)


def _overlap(one: DateSpan, other: DateSpan) -> bool:
    return one.first <= other.last and other.first <= one.last


def _unmatched(mine: Sequence[DateSpan], theirs: Sequence[DateSpan]) -> tuple[list[DateSpan], list[DateSpan]] | None:
    """The dates of each that the other does not have; None where one of them has more of them."""
    left = [day for day in mine if not any(_overlap(day, other) for other in theirs)]
    right = [day for day in theirs if not any(_overlap(day, other) for other in mine)]
    return (left, right) if len(left) == len(right) else None


def _about(one: _Claim, other: _Claim, wanted: Sequence[Keyword]) -> str:
    """The question's words that both have; the title above the first, where there are none."""
    both = (one.said.terms | one.heading.terms) & (other.said.terms | other.heading.terms)
    return " ".join(word.text for word in wanted if presence(word, set(both)) > 0.5) or one.hit.title
