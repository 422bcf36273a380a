"""The numbers of two texts: which of them stand against each other, and whether one may be the other, rounded, told
vaguely, or in another unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Final

from rag.text.facts import Facts
from rag.text.language import HAN, terms
from rag.text.quantities import Quantity

_MOST_VALUES = 4  # a sentence with more of them is a table in prose: which stands for what cannot be told
_ABOUT = re.compile(
    r"(?:\b(?:about|around|approximately|roughly|nearly|almost|some|circa|c\.)|约|大约|近|将近)\s?[$€£¥]?$", re.I
)
_ABOUT_BEHIND = re.compile(rf"\s?[{HAN}]{{0,3}}(?:左右|上下)|[多余几]")
_LABEL_BEFORE = re.compile(
    r"(?:[A-Za-z_#№第§/]|[A-Za-z]-|\b(?:no|nr|page|chapter|section|version|table|figure|art|article)\.? )$", re.I
)
_LABEL_BEHIND = re.compile(r"(?:st|nd|rd|th)\b|[A-Za-z]*[-_/]?\d|-[A-Z]")
_ORDINAL = re.compile(r"(?:first|second|third|\w+th)$", re.IGNORECASE)
_AGO = re.compile(
    r"[ -]?[a-z]* (?:ago|earlier|later|before|after|old)\b|\s?[多余几]?(?:个?[年月日天周]|小时|分钟)[之以]?[前后後]",
    re.I,
)
_ENUMERATOR = re.compile(r"[.、)）:：]")

# Units of one dimension, in a base unit; those that are not listed are a dimension of their own.
_SCALES: Final = {
    "second": ("time", 1), "minute": ("time", 60), "hour": ("time", 3_600), "day": ("time", 86_400),
    "week": ("time", 604_800), "month": ("time", 2_629_800), "year": ("time", 31_557_600),
    "millimetre": ("length", 1), "centimetre": ("length", 10), "metre": ("length", 1_000), "foot": ("length", 305),
    "kilometre": ("length", 1_000_000), "mile": ("length", 1_609_344),
    "gram": ("mass", 1), "kilogram": ("mass", 1_000), "tonne": ("mass", 1_000_000),
}  # fmt: skip
_CONVERTED = Decimal("0.06")  # two units of one dimension agree within this: 30 days are a month
_VAGUE = Decimal("0.2")  # what is told as about so much


def numbers_apart(one: Facts, other: Facts) -> tuple[list[Quantity], list[Quantity]] | None:
    """The numbers of each that the other does not have; None where there are too many."""
    mine, theirs = _told(one), _told(other)
    if max(len(mine), len(theirs)) > _MOST_VALUES:
        return None
    left = [number for number in mine if not any(number.may_be(there) for there in theirs)]
    right = [number for number in theirs if not any(number.may_be(there) for there in mine)]
    return left, right


def _told(said: Facts) -> list[Quantity]:
    """Quantities: no part of a date, a code, an ordinal or the number of a list's item."""
    found = []
    for number in said.numbers:
        inside = any(day.start <= number.start < day.end for day in said.days)
        text = said.text[number.start : number.end]
        label = _LABEL_BEFORE.search(said.text, 0, number.start) or _LABEL_BEHIND.match(said.text, number.end)
        label = label or _AGO.match(said.text, number.end)  # counted from a day that another text has no part in
        first = number.start == 0 and _ENUMERATOR.match(said.text, number.end)
        if number.told and not (inside or label or first or _ORDINAL.search(text)):
            found.append(number)
    return found


def values_apart(
    one: Facts, other: Facts, mine: Sequence[Quantity], theirs: Sequence[Quantity]
) -> tuple[str, str] | None:
    """Of the only two that count the same thing, as they are written, where they cannot be the same."""
    pairs = [(left, right) for left in mine for right in theirs if _comparable(one, left, other, right)]
    if len(pairs) != 1:
        return None
    left, right = pairs[0]
    vague = _is_vague(one, left) or _is_vague(other, right)
    if left.bound != right.bound or _agree(left, right, vague=vague):
        return None
    return _shown(one, left), _shown(other, right)


def _comparable(said: Facts, left: Quantity, there: Facts, right: Quantity) -> bool:
    """Of one dimension; of numbers without a unit that is known, before or behind the same word."""
    if left.unit not in ("", "?") or right.unit not in ("", "?"):
        return _SCALES.get(left.unit, (left.unit,))[0] == _SCALES.get(right.unit, (right.unit,))[0]
    if left.counted and right.counted:
        return terms(left.counted) == terms(right.counted)
    return not left.counted and not right.counted and _word_before(said, left) == _word_before(there, right)


def _word_before(said: Facts, number: Quantity) -> str:
    found = re.findall(rf"[{HAN}]{{1,2}}|[A-Za-z]+", said.text[max(0, number.start - 24) : number.start])
    return found[-1].lower() if found else ""


def _is_vague(said: Facts, number: Quantity) -> bool:
    before = said.text[max(0, number.start - 16) : number.start].rstrip()
    return bool(_ABOUT.search(before) or _ABOUT_BEHIND.match(said.text, number.end))


def _agree(left: Quantity, right: Quantity, *, vague: bool) -> bool:
    """Whether one number may be the other, rounded or in another unit."""
    a, b = left.value, right.value
    if left.unit != right.unit and left.unit in _SCALES:
        a, b = a * _SCALES[left.unit][1], b * _SCALES[right.unit][1]
        return abs(a - b) <= (_VAGUE if vague else _CONVERTED) * max(a, b)
    if vague and abs(a - b) <= _VAGUE * max(a, b):
        return True
    coarse, fine = sorted((a, b), key=_digits)
    rounded = fine == fine.to_integral_value() and coarse < 1_000
    return not rounded and Context(prec=_digits(coarse)).plus(fine) == coarse


def _digits(value: Decimal) -> int:
    """That say something: 2 of 1,500."""
    return len(value.normalize().as_tuple().digits)


_SIGN_BEFORE = re.compile(r"(?:[$€£¥]\s?|百分之)$")
_COUNTED = re.compile(
    r"\s?(?:[%‰]|percent\b|per cent\b|°[CF]?)|[ -]?(?P<word>[A-Za-z]+)"
    r"|\s?(?:个?百分点|个(?:月|小时|星期)|小时|分钟|星期|平方公里|平方米|公里|千米|公斤|千克|毫米|厘米|英里|英尺|美元|欧元|日元|英镑"
    rf"|[{HAN}])"
)


def counted(said: Facts, number: Quantity) -> str:
    """What stands behind the number and belongs to it: a sign, a unit, what it counts."""
    found = _COUNTED.match(said.text, number.end)
    if found is None:
        return ""
    word = found["word"]
    if word is None or number.unit not in ("", "?"):
        return found[0]
    named = word.endswith("s") or len(word) < 4 or word.isupper()  # beds, rpm, GHz; not the rest of the sentence
    return found[0] if number.counted and named else ""


def _shown(said: Facts, number: Quantity) -> str:
    """The number as it stands, with its sign and the word that it counts."""
    sign = _SIGN_BEFORE.search(said.text, 0, number.start)
    start = sign.start() if sign else number.start
    return said.text[start : number.end] + ("" if sign else counted(said, number))
