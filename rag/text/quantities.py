"""Numbers that a text states, with what they count, in English and Chinese: digits, words and numerals.

`1,200`, `1200` and `一千二百` are one number, as are `3 million`, `300万` and `3,000,000`; `5 %` is not `5 units`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final, Literal

from rag.text.language import HAN, simplified

Bound = Literal["", "over", "under"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number at [start, end) of the folded text. `unit`: a unit that is known, `?` for another word, "" for none.

    `counted` is the word behind it (days, 名员); `told`: whether the text says it, rather than that it may be a part of
    another word (the 四 of 四川).
    """

    value: Decimal
    unit: str
    counted: str
    bound: Bound
    told: bool
    start: int
    end: int
    unit_end: int  # behind its unit, where that is known

    def may_be(self, other: Quantity) -> bool:
        """Whether these are one number of one unit, where both have a unit that is known."""
        if self.value != other.value:
            return False
        if "percent" in (self.unit, other.unit):
            return self.unit == other.unit or "" in (self.unit, other.unit)
        return self.unit in ("", "?", other.unit) or other.unit in ("", "?")


def folded(text: str) -> str:
    """As the offsets of quantities count: full width as half width, traditional as simplified."""
    return text if text.isascii() else simplified(unicodedata.normalize("NFKC", text))


def quantities(text: str) -> list[Quantity]:
    """Those of a folded text, in order. Of a range (5 to 10 %) every end has the unit."""
    found = sorted([*_of_digits(text), *_of_words(text), *_of_numerals(text)], key=lambda item: item.start)
    return _ranged(found, text)


def _listed(words: str) -> list[str]:
    return words.split()


# ── what stands around a number ───────────────────────────────────────────────────────────────

_UNIT_WORDS: Final = {
    "percent": "% percent percentage 百分比 个百分点 百分点",
    "day": "day days 天 日",
    "week": "week weeks 周 星期 礼拜",
    "month": "month months 个月",
    "year": "year years 年",
    "hour": "hour hours hr hrs 小时 钟头 个小时",
    "minute": "minute minutes min mins 分钟",
    "second": "seconds sec secs 秒 秒钟",
    "dollar": "dollar dollars usd 美元 美金",
    "euro": "euro euros eur € 欧元",
    "yuan": "yuan rmb cny 元 人民币 元人民币 块钱",
    "pound": "pounds lb lbs £ 英镑 磅",
    "yen": "yen 日元",
    "kilogram": "kg kilogram kilograms kilogramme kilogrammes 公斤 千克",
    "gram": "gram grams g 克",
    "tonne": "ton tons tonne tonnes 吨",
    "kilometre": "km kilometre kilometres kilometer kilometers 公里 千米",
    "metre": "metre metres meter meters 米",
    "centimetre": "cm centimetre centimetres centimeter centimeters 厘米 公分",
    "millimetre": "mm millimetre millimetres millimeter millimeters 毫米",
    "mile": "mile miles 英里",
    "foot": "foot feet ft 英尺",
    "square kilometre": "km2 km² 平方公里 平方千米",
    "square metre": "m2 m² 平方米",
    "person": "people persons 人 名 位",
    "degree": "° °c ℃ degrees 度 摄氏度",
}
_UNITS: Final = {word: unit for unit, words in _UNIT_WORDS.items() for word in words.split()}
_HAN_UNITS: Final = "|".join(sorted((word for word in _UNITS if not word.isascii()), key=len, reverse=True))
_PREFIXES: Final = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yuan"}

_BEHIND = re.compile(
    rf"[ \u00a0-]?(?P<unit>%|{_HAN_UNITS})|[ \u00a0-]?(?P<word>[A-Za-z²°]+2?)|\s?(?P<han>[{HAN}]{{1,2}})"
)
_NOT_COUNTED: Final = frozenset(
    _listed(
        """
        to or and of in on at by for from with as is was are were the a an than that which who when
        per between but
        """
    )
)
_OVER = re.compile(
    r"(?:\b(?:more than|greater than|higher than|longer than|over|above|exceed(?:s|ed|ing)?|at least|no less than"
    r"|no fewer than|minimum of)|超过|超|多于|高于|大于|至少|不少于|不低于|逾|最低)\s*(?:the\s)?[$€£¥]?\s?$",
    re.IGNORECASE,
)
_UNDER = re.compile(
    r"(?:\b(?:less than|fewer than|lower than|shorter than|under|below|at most|no more than|up to|not exceed(?:ing)?"
    r"|maximum of)|不足|不到|少于|低于|小于|至多|最多|不超过|不多于|不高于|未满|最高)\s*(?:the\s)?[$€£¥]?\s?$",
    re.IGNORECASE,
)
_OVER_BEHIND = re.compile(rf"(?:[{HAN}]{{0,2}})(?:以上)|\s+or (?:more|above|over)")
_UNDER_BEHIND = re.compile(rf"(?:[{HAN}]{{0,2}})(?:以下|以内)|\s+or (?:less|fewer|below|under)")


def _made(text: str, value: Decimal, start: int, end: int, *, told: bool = True) -> Quantity:
    unit, counted, unit_end = "", "", end
    behind = _BEHIND.match(text, end)
    if text[start - 1 : start] in _PREFIXES and start:
        unit = _PREFIXES[text[start - 1]]
    elif text[max(0, start - 3) : start] == "百分之":
        unit = "percent"
    elif behind and behind["unit"]:
        unit = counted = _UNITS[behind["unit"]]
        unit_end = behind.end()
    elif behind and behind["word"]:
        word = behind["word"].lower()
        if word in _NOT_COUNTED or behind["word"] in ("G", "K", "M"):  # 5G, 4K
            word = ""
        unit = (
            "percent" if behind["word"].lower() == "per" and text[end:].lower().lstrip().startswith("per cent") else ""
        )
        unit = unit or _UNITS.get(word, "?" if word else "")
        counted = word
        unit_end = behind.end() if word in _UNITS else end
    elif behind and behind["han"]:
        unit, counted = "?", behind["han"]
    return Quantity(value, unit, counted, _bound(text, start, end), told, start, end, unit_end)


def _bound(text: str, start: int, end: int) -> Bound:
    before = text[max(0, start - 20) : start]
    if _UNDER.search(before) or _UNDER_BEHIND.match(text, end):
        return "under"
    return "over" if _OVER.search(before) or _OVER_BEHIND.match(text, end) else ""


_BETWEEN = re.compile(r"\s*(?:-|–|—|~|至|到|to|and|or|和|或|、)\s*$")


def _ranged(found: list[Quantity], text: str) -> list[Quantity]:
    for at in range(len(found) - 2, -1, -1):
        one, after = found[at], found[at + 1]
        if not one.unit and after.unit not in ("", "?") and _BETWEEN.match(text[one.end : after.start]):
            found[at] = replace(one, unit=after.unit, counted=after.counted)
    return found


# ── digits ────────────────────────────────────────────────────────────────────────────────────

_MAGNITUDES: Final = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "bn": 9, "k": 3,
    "十": 1, "百": 2, "千": 3, "万": 4, "百万": 6, "千万": 7, "亿": 8, "十亿": 9, "百亿": 10, "千亿": 11, "万亿": 12,
}  # fmt: skip
_HAN_MAGNITUDE: Final = "万亿|千亿|百亿|十亿|千万|百万|亿|万|千|百(?!分)"
_DIGITS = re.compile(
    rf"(?<![A-Za-z\d.])(?<!\d,)(\d{{1,3}}(?:,\d{{3}})+|\d+)(\.\d+)?(?!\d)"
    rf"(?:\s?({_HAN_MAGNITUDE})|[ -]?(hundred|thousand|million|billion|trillion|bn)\b|(k)(?![\w]))?",
    re.IGNORECASE,
)


def _of_digits(text: str) -> Iterator[Quantity]:
    before: tuple[int, Decimal] | None = None  # where a larger part of the same number ended: 1亿2000万
    for match in _DIGITS.finditer(text):
        magnitude = next((group for group in match.groups()[2:] if group), "")
        value = Decimal(match[1].replace(",", "") + (match[2] or "")).scaleb(_MAGNITUDES.get(magnitude.lower(), 0))
        if before is not None and before[0] == match.start():
            value += before[1]
        before = (match.end(), value) if magnitude and magnitude in "万亿千" else None
        if before is not None and match.end() < len(text) and text[match.end()].isdigit():
            continue
        yield _made(text, value.normalize(), match.start(), match.end())


# ── English words ─────────────────────────────────────────────────────────────────────────────

_ONES = _listed(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
    """
)
_TENS = _listed(
    """
    twenty thirty forty fifty sixty seventy eighty ninety
    """
)
_ORDINALS = _listed(
    """
    third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
    """
)
_VALUES: Final = (
    {word: value for value, word in enumerate(_ONES)}
    | {word: 10 * value for value, word in enumerate(_TENS, 2)}
    | {word: value for value, word in enumerate(_ORDINALS, 3)}
)
_SCALES: Final = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_ANY_WORD = "|".join(sorted([*_VALUES, *_SCALES], key=len, reverse=True))
_WORDS = re.compile(rf"\b(?:{_ANY_WORD})(?:(?:[ -]|\s+and\s+)(?:{_ANY_WORD}))*\b", re.IGNORECASE)


def _of_words(text: str) -> Iterator[Quantity]:
    for match in _WORDS.finditer(text):
        words = re.findall(r"[a-z]+", match[0].lower())
        if words[0] in _SCALES and re.search(r"\d[ -]?$", text[: match.start()][-3:]):
            continue  # 3 million was read with its digits
        for value in _numbers_in([word for word in words if word != "and"]):
            # “One of them” counts nothing, and “hundreds” no number; “a hundred” does.
            told = value > 1 and (words[0] not in _SCALES or bool(re.search(r"\ba $", text[: match.start()].lower())))
            yield _made(text, Decimal(value), match.start(), match.end(), told=told)


def _numbers_in(words: list[str]) -> list[int]:
    """Twenty five is one number, five and six are two."""
    found: list[int] = []
    total = part = 0
    room = 1_000  # a word below this goes on with the number
    for word in words:
        if word == "hundred":
            part, room = (part or 1) * 100, 100
        elif word in _SCALES:
            total, part, room = total + (part or 1) * _SCALES[word], 0, 1_000
        else:
            value = _VALUES[word]
            if value >= room:
                found.append(total + part)
                total = part = 0
            part += value
            room = 10 if value >= 20 else 0
    return [*found, total + part]


# ── Chinese numerals ──────────────────────────────────────────────────────────────────────────

_NUMERALS: Final = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SMALL_SCALES: Final = {"十": 10, "百": 100, "千": 1_000}
_LARGE_SCALES: Final = {"万": 10_000, "亿": 100_000_000}
_HAN_NUMBER = re.compile(
    "(?:百分之)?(?<![0-9.])(?<![0-9.] )[零〇一二三四五六七八九十百千万亿两]+(?:点[零一二三四五六七八九]+)?"
)
# What a numeral counts; before other characters it may be a part of a word: 四川, 三国, 一直.
_COUNTED = re.compile(
    f"(?:{_HAN_UNITS}|[个岁次种条项家座部届期章节款元集场层辆台套件只头颗级倍口艘本所门支队轮票分版张句万亿号世])"
)
_IDIOMS = re.compile("[十万]分|千万|万一|百[姓货科]|一[个些直样般定起方]|[二三四]川|九江|两[者岸]|三国")


def _of_numerals(text: str) -> Iterator[Quantity]:
    for match in _HAN_NUMBER.finditer(text):
        number = match[0].removeprefix("百分之")
        if not number or (number == "百" and text.startswith("分", match.end())):
            continue  # 百分之5: digits are read as digits
        start = match.end() - len(number)
        value = _han_value(number)
        counted = _COUNTED.match(text, match.end()) is not None or start > match.start()
        told = value > 1 and (counted or len(number) > 1) and not _IDIOMS.match(text, start)
        yield _made(text, value, start, match.end(), told=told)


def _han_value(number: str) -> Decimal:
    whole, _, fraction = number.partition("点")
    if not any(character in _SMALL_SCALES or character in _LARGE_SCALES for character in whole):
        value = Decimal("".join(str(_NUMERALS[character]) for character in whole) or "0")
    else:
        value = Decimal(_scaled(whole))
    if fraction:
        value += Decimal("0." + "".join(str(_NUMERALS[character]) for character in fraction))
    return value.normalize()


def _scaled(number: str) -> int:
    total = section = digit = 0
    for character in number:
        if character in _NUMERALS:
            digit = _NUMERALS[character]
        elif character in _SMALL_SCALES:
            section += (digit or (1 if not section else 0)) * _SMALL_SCALES[character]
            digit = 0
        else:
            scale, part = _LARGE_SCALES[character], section + digit
            # 一亿二千万 is a sum, 三万亿 a product.
            total = total + part * scale if total >= scale else (total + part or 1) * scale
            section = digit = 0
    return total + section + digit
