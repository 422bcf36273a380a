"""Hits in the order of time: what held when the question asks about, and the newest of versions that say otherwise.

    in_time(hits, time_asked(question, today), told, today=today)

*Editions* are documents whose titles or addresses differ in their dates alone (policy-2020.md, policy-2022.md). Their
near-equal passages change places among themselves: the one that held at the time asked about goes first, or, where
the question names none, the newest one. All other hits stay where they are, unless the question names a time: then
passages of documents that are of it, or that speak of it, are lifted by a bounded amount.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache
from typing import Final, TypeVar

from rag.catalog.versions import Chunk
from rag.models import Hit
from rag.text.dates import DateSpan, dates
from rag.text.periods import Interval, Period, TimeAsked, Told, in_force, of_metadata, of_name, stem

# Chosen by bench/fit_time.py: what a hit is lifted by at most, for its document's time and for dates in its text.
LIFT: Final = 0.1
IN_TEXT: Final = 0.15
# How far apart the scores of near-equal passages are at most: without a time asked about, and with one.
NEAR: Final = (0.1, 0.3)
_LOOKED_AT = (10, 20)  # of the best hits, likewise
_DATED = 60  # of the best hits: more are never shown
_OF_THE_TIME = 0.8 * LIFT  # from which lift on a hit is of the time asked about
_ALIKE = 0.4  # share of the shorter passage's shingles that the other has too

_NOTHING = Told()

T = TypeVar("T", Hit, Chunk)


def period_of(hit: Hit, told: Told = _NOTHING) -> Period | None:
    """Of what time the passage is: its section's where that names one, or else its document's."""
    section = (hit.place.section or "").split(" › ")[-1]
    if section and section != hit.title and (found := of_name(section, "")):
        return found
    of_values = of_metadata(told.dates) if told.dates else None
    if of_values is not None and of_values.holds:
        return of_values
    return in_force(told.opening) or of_name(hit.title, hit.uri) or of_values


def in_time(hits: Sequence[Hit], asked: TimeAsked, told: Mapping[str, Told], *, today: date) -> list[Hit]:
    """The hits, which come best first, in the order that time gives them, and their scores with it, from 0 to 1."""
    ordered = [*(_with_date(hit, told) for hit in hits[:_DATED]), *hits[_DATED:]]
    head = ordered[: _LOOKED_AT[bool(asked)]]
    families = _families(head)
    if not head or (not asked and not families):
        return ordered
    dated = {hit.chunk_id: period_of(hit, told.get(hit.document_id, _NOTHING)) for hit in head}
    suits = _suitable(head, asked, dated, families, today)
    for family in families:
        places = [at for at in family if dated[head[at].chunk_id] is not None]
        _exchange(ordered, places, suits, NEAR[bool(asked)])
    if asked:
        ordered = _lifted(ordered, asked, suits)
        _mark_untimely(ordered, [{head[at].chunk_id for at in family} for family in families], suits)
    return ordered


def _with_date(hit: Hit, told: Mapping[str, Told]) -> Hit:
    period = period_of(hit, told.get(hit.document_id, _NOTHING))
    return hit if period is None else replace(hit, date=period.written)


def answers_when(hits: Sequence[Hit], asked: TimeAsked) -> bool:
    """Whether the best hit is of the time asked about, so that it need not say so in words."""
    if not hits or not asked or hits[0].arms.get("time", 0.0) < _OF_THE_TIME:
        return False
    return not any(_is_of_another(hits[0], period) for period in asked.periods)


# ── editions ──────────────────────────────────────────────────────────────────────────────────


def _families(head: Sequence[T]) -> list[list[int]]:
    """The places of hits whose documents may be editions of one: two documents at least in each."""
    by_name: dict[str, list[int]] = {}
    for at, hit in enumerate(head):
        for kind, name in (("title", stem(hit.title)), ("uri", stem(hit.uri))):
            if name:
                by_name.setdefault(f"{hit.collection_id}/{kind}/{name}", []).append(at)
    found = [places for places in by_name.values() if len({head[at].document_id for at in places}) > 1]
    return [list(places) for places in dict.fromkeys(map(tuple, found))]


def may_be_editions(hits: Sequence[T]) -> list[T]:
    """Those of the hits whose documents may be editions of one another."""
    return [hits[at] for at in sorted({at for family in _families(hits) for at in family})]


def _suitable(
    head: Sequence[Hit],
    asked: TimeAsked,
    dated: Mapping[int, Period | None],
    families: Sequence[Sequence[int]],
    today: date,
) -> dict[int, float]:
    """By chunk: how well its document's time suits, -1 to 1 for a time that is asked about; otherwise how new it is."""
    suits: dict[int, float] = {}
    siblings: dict[int, list[Period]] = {}
    for family in families:
        periods = [period for at in family if (period := dated[head[at].chunk_id]) is not None]
        for at in family:
            siblings.setdefault(head[at].chunk_id, []).extend(periods)
    for hit in head:
        period = dated[hit.chunk_id]
        if period is None:
            continue
        others = siblings.get(hit.chunk_id, [period])
        if not asked:
            # What is still to come stands behind what holds.
            ahead = (period.first - today).days
            suits[hit.chunk_id] = -1e6 - ahead if ahead > 0 else ahead
            continue
        newest = max((one.first for one in others if one.first <= today), default=None)
        is_newest = asked.newest and len(others) > 1 and period.first == newest
        held = (_held(period, others, one, span) for one, span in zip(asked.periods, asked.spans, strict=True))
        suits[hit.chunk_id] = 1.0 if is_newest else max(held, default=0.0)
    return suits


def _held(period: Period, siblings: Sequence[Period], asked: Interval, span: DateSpan) -> float:
    """A report is of its time. What is in force holds until the next edition; before its own time it held never."""
    if not period.holds:
        own = period.first, period.last or period.first
        named = span.first, span.last
        if asked != named and own[0] <= asked[0] == asked[1] <= own[1]:  # by the end of 2020, before 2021
            return _OF_A_DAY
        return max(_of(own, asked), _of(own, named) if asked[1] == named[1] else 0.0)
    if period.began_in(asked):
        return 1.0
    if not period.overlaps(asked):
        return -1.0
    if any(period.first < one.first <= asked[0] for one in siblings):
        return -0.5
    return 0.9 if any(one.began_in(asked) for one in siblings) else 1.0


_OF_A_DAY = 0.95  # what a report of a year is worth where it is asked how things stood on one of its days
_OF_A_YEAR = 0.9  # what a day's is worth where it is asked about the year


def _of(own: Interval, asked: Interval) -> float:
    """What is of a part of the time asked about is of it; a report of the year says little of a day."""
    if asked[0] <= own[0] and own[1] <= asked[1]:
        return 1.0 if own == asked or _days(asked) < _YEAR else _OF_A_YEAR
    return _shared(own, asked)


def _mark_untimely(ordered: list[Hit], families: Sequence[set[int]], suits: Mapping[int, float]) -> None:
    """Changes the list: the hits of a family that another suits the time better than by far are marked and go behind
    it. One that was found much worse says nothing of what the others say, and leaves them where they are."""
    for family in families:
        places = [at for at, hit in enumerate(ordered) if hit.chunk_id in family and hit.chunk_id in suits]
        best = max(places, key=lambda at: (suits[ordered[at].chunk_id], -at), default=0)
        if not places or suits[ordered[best].chunk_id] < _OF_A_YEAR:
            continue
        most = suits[ordered[best].chunk_id] - _BY_FAR
        nearest = ordered[best].score / _MUCH_WORSE
        places = [at for at in places if ordered[at].score <= nearest]
        marked = [replace(hit, untimely=suits[hit.chunk_id] <= most) for hit in (ordered[at] for at in places)]
        marked.sort(key=lambda hit: hit.untimely)
        scores = [ordered[at].score for at in places]
        for at, score, hit in zip(places, scores, marked, strict=True):
            ordered[at] = replace(hit, score=score)


_MUCH_WORSE = 0.5
_BY_FAR = 0.5


def _exchange(ordered: list[Hit], places: Sequence[int], suits: Mapping[int, float], near: float) -> None:
    """Changes the list: near-equal passages of different documents among themselves, the most suitable first. The
    scores stay at their places."""
    left = list(places)
    while left:
        best = ordered[left[0]]
        twins = [at for at in left if at == left[0] or _are_twins(best, ordered[at], near)]
        left = [at for at in left if at not in twins]
        wanted = sorted(twins, key=lambda at: (-suits[ordered[at].chunk_id], at))
        most = suits[ordered[wanted[0]].chunk_id]
        moved = [
            replace(ordered[source], score=ordered[at].score, untimely=suits[ordered[source].chunk_id] < most)
            for at, source in zip(twins, wanted, strict=True)
        ]
        for at, hit in zip(twins, moved, strict=True):
            ordered[at] = hit


def _are_twins(one: Hit, other: Hit, near: float) -> bool:
    """Whether passages of two documents say the like: of near scores, most of the shorter one is in the other too."""
    if one.document_id == other.document_id or abs(one.score - other.score) > near:
        return False
    left, right = _shingles(one.text), _shingles(other.text)
    return len(left & right) >= _ALIKE * min(len(left), len(right))


@lru_cache(maxsize=512)
def _shingles(text: str) -> frozenset[tuple[str, str, str]]:
    return frozenset(zip(text, text[1:], text[2:], strict=False))


# ── a time that is asked about ────────────────────────────────────────────────────────────────


def _lifted(ordered: Sequence[Hit], asked: TimeAsked, suits: Mapping[int, float]) -> list[Hit]:
    lifted: list[Hit] = []
    for at, hit in enumerate(ordered):
        lift = 0.0
        if at < _LOOKED_AT[True]:
            lift = LIFT * suits.get(hit.chunk_id, 0.0) + IN_TEXT * _speaks_of(hit, asked)
        lifted.append(replace(hit, score=hit.score + lift, arms={**hit.arms, "time": lift}) if lift else hit)
    lifted.sort(key=lambda hit: -hit.score)  # stable: equal ones stay as they were
    most, least = lifted[0].score, min(lifted[-1].score, 0.0)
    if most <= 1.0 and least >= 0.0:
        return lifted
    return [replace(hit, score=(hit.score - least) / (max(most, 1.0) - least)) for hit in lifted]


def _speaks_of(hit: Hit, asked: TimeAsked) -> float:
    """From 0 to 1: which share of the times that the question names the passage itself names."""
    if not asked.spans or not any(name in hit.text for name in asked.years):
        return 0.0
    found = _said(hit.text)
    # Not the day of “before September 2020”: who speaks of September speaks of another time.
    wanted = [(span.first, span.last) for span in asked.spans if (span.first, span.last) in asked.periods]
    if not wanted:
        return 0.0
    return sum(max((_match(one, what) for one in found), default=0.0) for what in wanted) / len(wanted)


@lru_cache(maxsize=1024)
def _said(text: str) -> tuple[Interval, ...]:
    return tuple({(span.first, span.last) for span in dates(text)})


def _is_of_another(hit: Hit, asked: Interval) -> bool:
    """Whether it names a period like the one asked about, and not that one: the report of the first quarter comes out
    in the second. Its document's own date is none: a policy of 2020 that held in 2021 names 2020."""
    own = date.fromisoformat(f"{hit.date.partition('/')[0]}-01-01"[:10]) if hit.date else None
    alike = [
        one
        for one in _said(f"{hit.heading}\n{hit.text}")
        if _days(asked) <= 2 * _days(one) <= 4 * _days(asked) and not (own and one[0] <= own <= one[1])
    ]
    return asked not in alike and any(one[1] < asked[0] or asked[1] < one[0] for one in alike)


def _match(said: Interval, asked: Interval) -> float:
    """A month or a day may be written otherwise than it is asked. A year is a word that was looked for anyway."""
    if _days(asked) >= _YEAR:
        return 0.0
    if said == asked:
        return 1.0
    return _WITHIN if asked[0] <= said[0] and said[1] <= asked[1] else 0.0


def _shared(one: Interval, other: Interval) -> float:
    """The share of the longer that both have: a report of the year is little of a day."""
    days = (min(one[1], other[1]) - max(one[0], other[0])).days + 1
    return max(0, days) / max(_days(one), _days(other))


def _days(interval: Interval) -> int:
    return (interval[1] - interval[0]).days + 1


_YEAR = 365
_WITHIN = 0.6  # what a day is worth of the month that is asked about
