"""How far a quote supports a sentence: by numbers, dates and names, by words, by what is denied, and by vectors.

`judge` compares two plain texts. It never calls a sentence supported that has a number, a date or a name which neither
the quote nor its heading has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from difflib import Match, SequenceMatcher
from functools import lru_cache
from itertools import pairwise
from typing import Final

from rag.models import Support
from rag.text.dates import DateSpan, dates
from rag.text.facts import Facts, Named, begins_with_a_name, facts
from rag.text.language import (
    CHINESE_FUNCTION_CHARACTERS,
    ENGLISH_STOP_WORDS,
    HAN,
    is_han,
    query_terms,
    sentences,
    terms,
)
from rag.text.polarity import denies, opposes
from rag.text.quantities import Quantity, folded, quantities

# By bench/measure_verify.py on half of the questions; docs/decisions/0010 says what they are worth on the other half.
SUPPORTED: Final = 0.7  # share of the sentence's words that the quote has
WEAK: Final = 0.4
TELLING: Final = 2  # terms, at the least, of a sentence that tells anything: “Warranty” and “F” do not

_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot)\b|n['’]t\b|不|没有|无需|无法|未曾|尚未|禁止", re.IGNORECASE
)
_HAN_CHARACTER = re.compile(f"[{HAN}]")


@dataclass(frozen=True, slots=True)
class Judgement:
    """`share`: of the sentence's words, those that the quote or its heading has. `open`: whether nothing but missing
    words keeps it from being supported, so that vectors may tell more. `instead`: what the sentence has in the place
    of something else, with that."""

    support: Support
    share: float
    open: bool = False
    instead: tuple[tuple[str, str], ...] = ()


def judge(sentence: str, quote: str, *, heading: str = "", around: str = "") -> Judgement:
    """How far the quote, under its heading, supports the sentence. `around` is the passage that the quote is from: a
    name that stands there, and not in the quote, may be what its “he” means."""
    claim, said, above = facts(sentence), facts(quote), facts(heading)
    known = said.terms | above.terms
    named = Named(f"{said.text}\n{above.text}")
    missing = [name for name in claim.names if not named.has(name)]
    told = {term for name in claim.names if name not in missing for term in terms(name)}
    share = share_of(words(sentence), known | told)
    if not numbers_told(claim, said, above) or not days_told(claim, said, above):
        return Judgement("unsupported", share)
    if denies(claim.polarity, said.polarity) or opposes(claim.text, said.text) or _bound_differs(claim, said):
        return Judgement("unsupported", share)
    swapped, instead = replaced(claim, said, above.terms)
    unsure = [name for name in missing if swapped or _is_sure(name)]
    if unsure and not (around and all(map(Named(folded(around)).has, unsure))):
        return Judgement("unsupported", share)
    if missing or swapped or begins_with_a_name(claim.text, named):
        return Judgement("weak" if share >= WEAK else "unsupported", share)
    if len(query_terms(sentence)) < TELLING or bool(claim.polarity.negations) > bool(said.polarity.negations):
        return Judgement("weak" if share >= WEAK else "unsupported", share)
    if share >= SUPPORTED and not instead:
        return Judgement("supported", share)
    return Judgement("weak" if share >= WEAK else "unsupported", share, open=True, instead=instead)


def _is_sure(name: str) -> bool:
    """What jieba takes for a name of two characters is often none (籍贯)."""
    return len(name) > 2 or not is_han(name[0])


@lru_cache(maxsize=64)
def words(sentence: str) -> frozenset[str]:
    """The terms that a quote is looked for. Without negations, or the sentence beside the right one would be quoted,
    for the sake of its “not”; and without numbers and days, which are judged by what they mean."""
    return frozenset(query_terms(without_negation(_without_facts(folded(sentence)))))


def without_negation(sentence: str) -> str:
    return _NEGATION.sub(" ", sentence)


def _without_facts(text: str) -> str:
    kept = list(text)
    for start, end in _fact_spans(dates(text), quantities(text)):
        kept[start:end] = " " * (end - start)
    return "".join(kept)


def _fact_spans(days: Sequence[DateSpan], numbers: Sequence[Quantity]) -> Iterator[tuple[int, int]]:
    yield from ((item.start, item.end) for item in days)
    yield from ((item.start, item.unit_end) for item in numbers if item.told)


def share_of(wanted: frozenset[str], there: frozenset[str]) -> float:
    return len(wanted & there) / len(wanted) if wanted else 0.5  # no word that could be checked


# ── numbers and days ──────────────────────────────────────────────────────────────────────────


def numbers_told(claim: Facts, said: Facts, heading: Facts) -> bool:
    offered = (*said.numbers, *heading.numbers)
    return all(
        _is_told(number, offered)
        for number in claim.numbers
        if number.told and not any(day.start <= number.start < day.end for day in claim.days)
    )


def _is_told(number: Quantity, offered: tuple[Quantity, ...]) -> bool:
    same = [other for other in offered if number.may_be(other)]
    if not same:
        return False
    # 35 days are not told by 35 employees and 25 days: what it counts stands behind another number alone.
    counted = number.counted
    if not counted or any(other.counted == counted for other in same):
        return True
    return not any(other.counted == counted for other in offered) or any(not other.counted for other in same)


def days_told(claim: Facts, said: Facts, heading: Facts) -> bool:
    return all(_day_told(day, claim, said, heading) for day in claim.days)


def _day_told(day: DateSpan, claim: Facts, said: Facts, heading: Facts) -> bool:
    offered = (*said.days, *heading.days)
    if any(day.first <= other.first and other.last <= day.last for other in offered):
        return True
    # In parts: “1 May” in a text of 2023.
    values = {number.value for number in (*said.numbers, *heading.numbers)}
    values |= {Decimal(value) for other in offered for value in (other.first.year, other.last.year)}
    own = [number.value for number in claim.numbers if day.start <= number.start < day.end]
    months = set(_MONTH.findall(day.text.lower()))
    told = {name[:3] for name in _MONTH.findall(f"{said.text} {heading.text}".lower())}
    return bool(own) and all(value in values for value in own) and months <= told


_MONTH = re.compile(r"\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)")


def _bound_differs(claim: Facts, said: Facts) -> bool:
    """More than 500 is not less than 500."""
    return any(
        number.bound
        and any(other.value == number.value and other.bound not in ("", number.bound) for other in said.numbers)
        for number in claim.numbers
    )


# ── words in the place of others ──────────────────────────────────────────────────────────────

_TOKEN = re.compile(rf"[{HAN}]|#|[^\W_{HAN}](?:[^\W_{HAN}]|['’.,-](?=[^\W_{HAN}]))*")
_CLAUSE_END = re.compile(r"[,.;:!?，。；：！？、()（）\n]")
_EMPTY: Final = ENGLISH_STOP_WORDS | CHINESE_FUNCTION_CHARACTERS | {"#"}
_AROUND = 2  # tokens in a row that both texts have beside it
_COPIED = 0.6  # of the sentence's tokens, that stand in the quote in the same order
_LONGEST = 12  # tokens of what stands instead


@dataclass(frozen=True, slots=True)
class _Token:
    term: str
    start: int
    end: int
    tells: bool


def replaced(claim: Facts, said: Facts, above: frozenset[str]) -> tuple[bool, tuple[tuple[str, str], ...]]:
    """Where a sentence was made of the quote: what was put in the place of something else, and what that was.

    First, whether a name or a number was: one that the quote has elsewhere, and not there.
    """
    own, theirs = _tokens(claim), _tokens(said)
    matcher = SequenceMatcher(None, [token.term for token in own], [token.term for token in theirs], autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size >= _AROUND]
    if sum(block.size for block in blocks) < _COPIED * len(own):
        return False, ()
    swapped = any(_other_number(claim, said, own[one.a : one.a + one.size], theirs[one.b :]) for one in blocks)
    found = []
    for mine, other in _between(said, own, theirs, blocks):
        here, there = (mine[0].start, mine[-1].end), (other[0].start, other[-1].end)
        told, instead = claim.text[slice(*here)], said.text[slice(*there)]
        if _other_name(claim, said, here, there):
            swapped = True
        elif any(token.tells for token in other) and _is_new(mine, above, _beside(said.text, other[0].start, theirs)):
            found.append((told, instead))
    return swapped, tuple(found)


def _is_new(mine: list[_Token], above: frozenset[str], beside: frozenset[str]) -> bool:
    """Whether it says a word that neither the heading nor the sentence has: that may only be told in another order."""
    return any(token.tells and token.term not in above and token.term not in beside for token in mine)


def _beside(text: str, at: int, tokens: list[_Token]) -> frozenset[str]:
    """The terms of the sentence that stands at `at`."""
    start, end = next((span for span in sentences(text) if span[0] <= at < span[1]), (0, len(text)))
    return frozenset(token.term for token in tokens if start <= token.start < end)


def _between(
    said: Facts, own: list[_Token], theirs: list[_Token], blocks: list[Match]
) -> Iterator[tuple[list[_Token], list[_Token]]]:
    """The stretches between what both have, and from the beginning and to the end of a clause."""
    for before, after in pairwise(blocks):
        mine, other = own[before.a + before.size : after.a], theirs[before.b + before.size : after.b]
        if mine and 0 < len(other) <= _LONGEST:
            yield mine, other
    if not blocks:
        return
    first, last = blocks[0], blocks[-1]
    mine, other = own[: first.a], theirs[: first.b]
    while other and (at := _clause_end(said.text, other)):
        other = other[at:]
    if mine and 0 < len(other) <= _LONGEST:
        yield mine, other
    mine, other = own[last.a + last.size :], theirs[last.b + last.size :]
    at = _clause_end(said.text, other)
    other = other[:at] if at else other
    if mine and 0 < len(other) <= _LONGEST:
        yield mine, other


def _clause_end(text: str, tokens: list[_Token]) -> int:
    """How many of the tokens stand before the first end of a clause between them; 0 where there is none."""
    for at, (one, after) in enumerate(pairwise(tokens), 1):
        if _CLAUSE_END.search(text, one.end, after.start):
            return at
    return 0


def _other_number(claim: Facts, said: Facts, mine: list[_Token], theirs: list[_Token]) -> bool:
    for one, other in zip(mine, theirs, strict=False):
        if one.term == "#":
            own, told = _numbers_at(claim, one), _numbers_at(said, other)
            if own and told and not own & told:
                return True
    return False


def _numbers_at(facts_: Facts, token: _Token) -> set[Decimal]:
    found = {number.value for number in facts_.numbers if token.start <= number.start < token.end}
    days = [day for day in facts_.days if day.start <= token.start < day.end]
    return found | {Decimal(value) for day in days for value in (day.first.year, day.last.year)}


def _other_name(claim: Facts, said: Facts, here: tuple[int, int], there: tuple[int, int]) -> bool:
    mine, theirs = _names_at(claim, here), _names_at(said, there)
    return bool(mine and theirs) and not mine & theirs and not any(name in claim.text for name in theirs)


def _names_at(facts_: Facts, span: tuple[int, int]) -> set[str]:
    return {
        name
        for name in facts_.names
        for match in re.finditer(re.escape(name), facts_.text)
        if match.start() < span[1] and span[0] < match.end()
    }


def _tokens(facts_: Facts) -> list[_Token]:
    """Words and Han characters; a number or a day is one, whatever it is."""
    kept = list(facts_.text)
    for start, end in _fact_spans(facts_.days, facts_.numbers):
        kept[start:end] = ["#"] + ["\u200b"] * (end - start - 1)
    masked = "".join(kept)
    return [
        _Token(_term(match[0]), match.start(), _fact_end(masked, match.end()), match[0].lower() not in _EMPTY)
        for match in _TOKEN.finditer(masked)
    ]


def _fact_end(masked: str, end: int) -> int:
    while masked[end : end + 1] == "\u200b":
        end += 1
    return end


def _term(word: str) -> str:
    return word if word == "#" or _HAN_CHARACTER.match(word) else next(iter(terms(word)), word.lower())
