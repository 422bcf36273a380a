"""The grammar of dates: what they look like in English and Chinese, and which days they mean. For `dates`."""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from rag.text.years import DASH, YEAR

Interval = tuple[date, date]  # both days included

# ── what a day, a month, a year is ────────────────────────────────────────────────────────────


def months(year: int, month: int, count: int = 1) -> Interval:
    """So many whole months from this one; `month` may lie outside of 1 to 12."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    end = year * 12 + month - 2 + count
    last = date(end // 12, end % 12 + 1, 1)
    return date(year, month, 1), last.replace(day=monthrange(last.year, last.month)[1])


def _day(year: int, month: int, day: int) -> Interval:
    return (date(year, month, day),) * 2


def _back(today: date, count: int, unit: str) -> date:
    """The day so many units before today; the last day of a shorter month."""
    if unit in ("day", "week"):
        return today - timedelta(days=count * (7 if unit == "week" else 1))
    first = months(today.year, today.month - count * _UNIT_MONTHS[unit])
    return first[0].replace(day=min(today.day, first[1].day))


def _unit(today: date, shift: int, unit: str) -> Interval:
    """The day, week, month, quarter or year that lies so many of them after today's."""
    if unit == "day":
        return (today + timedelta(days=shift),) * 2
    if unit == "week":
        monday = today - timedelta(days=today.weekday() - 7 * shift)
        return monday, monday + timedelta(days=6)
    length = _UNIT_MONTHS[unit]
    begun = (today.year * 12 + today.month - 1) // length * length
    return months(begun // 12, begun % 12 + 1 + shift * length, length)


_UNIT_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12, "decade": 120}

# ── words ─────────────────────────────────────────────────────────────────────────────────────

_NAMES = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2, "兩": 2}
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}
_ORDINALS |= {"last": -1, "final": -1}
_CENTURIES = ["sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth", "twenty-first"]
_SMALL = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_UNITS = {"天": "day", "日": "day", "周": "week", "週": "week", "星期": "week", "礼拜": "week", "月": "month"}
_UNITS |= {"季度": "quarter", "季": "quarter", "年": "year", "年度": "year"}
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1, "今天": 0, "今日": 0, "昨天": -1, "昨日": -1, "前天": -2}
_DAYS |= {"明天": 1, "明日": 1, "后天": 2, "後天": 2}
_SHIFTS = {"this": 0, "current": 0, "last": -1, "previous": -1, "next": 1, "coming": 1, "本": 0, "这": 0, "這": 0}
_SHIFTS |= {"当": 0, "當": 0, "上": -1, "下": 1, "今年": 0, "本年": 0, "去年": -1, "上年": -1, "前年": -2, "明年": 1}


def _number(text: str) -> int:
    """12, 十二, 二十一, 三, twelve."""
    if text.isdigit() and text.isascii():
        return int(text)
    if text.lower() in _SMALL:
        return _SMALL.index(text.lower()) + 1
    if "十" in text:
        tens, _, ones = text.partition("十")
        return (_DIGITS[tens] if tens else 1) * 10 + (_DIGITS[ones] if ones else 0)
    return int("".join(str(_DIGITS[character]) for character in text))


# ── the grammar: branches in the order in which they are tried ────────────────────────────────

_M = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_D = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?(?![\d:]|\.\d)"
_MD = rf"(?:{_M}[\s-]{{1,2}}{_D}|{_D}[\s-]{{1,2}}(?:of\s)?{_M}|{_M})"
_TO = rf"(?:\s?{DASH}\s?|\s(?:to|through|thru|until|till|and)\s(?:the\s)?)"
_END = r"(?![0-9A-Za-z]|[.,]\d)"
_FISCAL = r"(?:the\s)?(?:(?:fiscal|financial|calendar)\s(?:year\s)?|year\s|fy\s?)?"
_REL_EN = r"(?:this|last|next|the\scurrent|the\sprevious|the\snext)\s(?:fiscal\s|financial\s|calendar\s)?year"
_HAN = "[〇零一二三四五六七八九]"
_N = r"(?:\d{1,2}|二?十[一二三四五六七八九]?|三十一?|[一二三四五六七八九])"
_ZY = rf"(?:(?:{YEAR}|[一二]{_HAN}{{3}})\s?年(?:度|(?!代|的?(?:历史|歷史|之久)))|{YEAR}\s?(?:财年|財年|财政年度|年度))"
_ZY_REL = r"(?:[今去明]年度?|前年|本年度?|上一?年度?)"
_ZMD = rf"\s?(?P<m>{_N})\s?月(?:份)?(?:\s?(?P<d>{_N})\s?[日号號])?"
_ZQ = r"\s?的?\s?(?:第?\s?(?P<q>[1-4一二三四])\s?季度?|[Qq](?P<qq>[1-4])|(?P<h>[上下])半年)"
_ZTO = rf"\s?(?:{DASH}|至|到)\s?"
_COUNT = rf"(?:\d{{1,3}}|{'|'.join(_SMALL)})"
_ZCOUNT = r"(?:\d{1,3}|[一二三四五六七八九]?十[一二三四五六七八九]?|[一二两兩三四五六七八九])"

_SOURCES: Final = {
    "ymd": rf"(?P<y>{YEAR})(?P<s>[-/.])(?P<m>0?[1-9]|1[0-2])(?P=s)(?P<d>[12]\d|3[01]|0?[1-9])(?!\d|[-/.]\d)",
    "dmy": rf"(?P<a>\d{{1,2}})(?P<s>[-/.])(?P<b>\d{{1,2}})(?P=s)(?P<y>{YEAR})(?!\d|[-/.]\d)",
    "compact": rf"(?P<y>{YEAR})(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])?(?!\d)",
    "stretch": rf"(?P<a>{_MD}|{_D}){_TO}(?P<b>{_MD}|{_D}),?\s(?P<y>{YEAR}){_END}",
    "en": rf"(?P<a>{_MD})(?:,\s?|[\s-](?:of\s)?)(?P<y>{YEAR}|{_REL_EN}){_END}",
    "quarter": (
        r"(?:(?P<o>first|second|third|fourth|1st|2nd|3rd|4th|last|final)[ -](?P<w>quarter|half)"
        r"|(?P<l>[qh])\s?(?P<n>[1-4])|(?P<n2>[1-4])\s?(?P<l2>[qh]))"
        rf"(?:,?[\s/-]|\sof\s|(?=['\d])){_FISCAL}(?P<y>{YEAR}|'\d\d|(?<=fy)\d\d|(?<=[qh])\d\d|{_REL_EN}){_END}"
    ),
    "quarter2": rf"(?:fy\s?)?(?P<y>{YEAR})[\s,/-]{{0,2}}(?P<l>[qh])(?P<n>[1-4]){_END}",
    "fiscal": rf"(?:fy\s?-?|(?:fiscal|financial)\s(?:years?\s)?)(?P<y>{YEAR}|'?\d\d){_END}",
    "zh": (
        rf"(?<!公元前)(?<!西元前)(?P<y>{_ZY}|{_ZY_REL})(?:{_ZMD}|{_ZQ})?"
        rf"(?:{_ZTO}(?:(?P<m2>{_N})\s?月(?:份)?(?:\s?(?P<d2>{_N})\s?[日号號])?|(?P<d3>{_N})\s?[日号號]))?"
    ),
    "zhyears": rf"(?P<a>{YEAR}){_ZTO}(?P<b>{YEAR})\s?(?:年度?|财年)",
    "century": rf"(?P<c>(?:1\d|20|[4-9])th|1st|2nd|3rd|21st|{'|'.join(_CENTURIES)})[ -]century",
    "zhcentury": rf"(?P<c>1\d|20|21|二?十[一二三四五六七八九]?|上个?)\s?世[纪紀](?:\s?(?P<d>\d0|{_HAN}十)\s?年代)?",
    "decade": rf"(?P<y>{YEAR[:-2]}0)(?:'?s\b|\s?年代)",
    "pair": rf"(?P<a>{YEAR})(?P<s>/|{DASH})(?P<b>\d\d)(?!{DASH}?[0-9A-Za-z]|[.,/]\d)",
    "year": rf"(?P<y>{YEAR}){_END}",
}
_SOURCES_TODAY: Final = {
    "ago": rf"(?P<n>{_COUNT}|an?)\s(?P<u>day|week|month|year|decade)s?\s(?:ago|earlier)\b",
    "past": rf"(?:last|past|previous)\s(?P<n>{_COUNT})\s(?P<u>day|week|month|quarter|year|decade)s?\b",
    "unit": (
        r"(?P<s>this|last|next|current|previous|coming)\s(?:fiscal\s|financial\s|calendar\s)?"
        r"(?P<u>week|month|quarter|year|decade)\b"
    ),
    "oneday": rf"(?P<w>{'|'.join(_DAYS)})(?![A-Za-z])",
    "zhago": rf"(?P<n>{_ZCOUNT})\s?[个個]?(?P<u>天|日|周|週|星期|月|季度|年)(?:之|以)?前",
    "zhpast": rf"(?:最近|过去|過去|近)的?(?P<n>{_ZCOUNT})\s?[个個]?(?P<u>天|日|周|週|星期|月|季度|年)(?![前代])",
    "zhunit": (
        r"(?P<s>[本当當]|[这這上下]一?)[个個]?(?P<u>周|週|星期|礼拜|月|季度?)(?:份)?(?:\s?(?P<d>\d{1,2})\s?[日号號])?"
    ),
}
_RELATIVE_YEAR = re.compile(rf"{_REL_EN}|^{_ZY_REL}", re.IGNORECASE)

# The first character that a branch can begin with: looked at before the rest of it, which takes a third of the time.
_FIRST: Final = {
    "[12]": ("ymd", "compact", "zhyears", "decade", "pair", "year"),
    "[0-9]": ("dmy",),
    "[0-9jfmasond]": ("stretch", "en"),
    "[1-4fstlqh]": ("quarter",),
    "[12f]": ("quarter2",),
    "f": ("fiscal",),
    "[12一二今去前明本上]": ("zh",),
    "[0-9stefn]": ("century",),
    "[12二十上]": ("zhcentury",),
}
# Nothing begins inside a word, a number or a code: 2.3.1, x2020. In Chinese a date needs no space before it.
_BEGIN = r"(?<![0-9A-Za-z])(?<![0-9][.,/:])(?<![$€£¥#@+])"
_GROUP = re.compile(r"\(\?P([<=])(\w+)")
_GROUPS: Final = {
    branch: tuple(name for kind, name in _GROUP.findall(source) if kind == "<")
    for branch, source in (_SOURCES | _SOURCES_TODAY).items()
}


def _pattern(sources: dict[str, str]) -> re.Pattern[str]:
    """One pattern of all branches; the groups inside a branch carry its name, so that branches may use the same."""
    first = {branch: f"(?={characters})" for characters, those in _FIRST.items() for branch in those}
    named = {branch: _GROUP.sub(rf"(?P\g<1>{branch}_\g<2>", source) for branch, source in sources.items()}
    branches = [f"{first.get(branch, '')}(?P<{branch}>{source})" for branch, source in named.items()]
    return re.compile(f"{_BEGIN}(?:{'|'.join(branches)})", re.IGNORECASE)


_PATTERN = _pattern(_SOURCES)
_PATTERN_TODAY = _pattern(_SOURCES | _SOURCES_TODAY)
# What every absolute date has; most sentences have none of it and are done with in a microsecond or two.
_HINT = re.compile(rf"[12]\d\d|[12一二]{_HAN}{{3}}|世[纪紀]|[Cc]entury|[Ff][Yy]\s?'?\d|[QqHh]\s?[1-4]|[1-4]\s?[QqHh]")
_LONGEST = 48  # characters that a date may have before its year, and after


def matches(text: str, *, relative: bool) -> Iterator[re.Match[str]]:
    """Where a branch fits, in order; its name is `lastgroup`. With `relative` also the branches told from today.

    Absolute ones are looked for around the hints only: most of a text has nothing to match.
    """
    if relative:
        yield from _PATTERN_TODAY.finditer(text)
        return
    at = 0
    while (hint := _HINT.search(text, at)) is not None:
        match = _PATTERN.search(text, max(at, hint.start() - _LONGEST), hint.end() + _LONGEST)
        if match is None or match.start() > hint.end():
            at = hint.end()
            continue
        yield match
        at = match.end()


# ── what the branches mean ────────────────────────────────────────────────────────────────────


def meaning(match: re.Match[str], today: date | None) -> Interval | None:
    """The days that are meant; None where there are none, like the 31st of February."""
    branch = match.lastgroup or ""
    parts = _Parts({group: match[f"{branch}_{group}"] for group in _GROUPS[branch]}, today)
    try:
        found = _MEANINGS[branch](parts)
    except (ValueError, OverflowError):
        return None
    return found if found is not None and found[0] <= found[1] else None


def is_relative(match: re.Match[str]) -> bool:
    """Whether what was matched is told from today."""
    return match.lastgroup in _SOURCES_TODAY or _RELATIVE_YEAR.search(match[0]) is not None


@dataclass(frozen=True, slots=True)
class _Parts:
    groups: dict[str, str | None]
    today: date | None

    def __getitem__(self, name: str) -> str:
        """What the group has; nothing where it was not there."""
        return self.groups.get(name) or ""

    def year(self) -> int:
        """Raises ValueError for a year told from today where there is no today."""
        text = self["y"].lower().strip("' ")
        if digits := re.match(rf"\d+|{_HAN}{{4}}", text):
            value = _number(digits[0])
            return value if value > 99 else value + (2000 if value < 50 else 1900)
        words = text.split() if text.isascii() else [re.sub("[一度]", "", text)]
        return self.now().year + next(_SHIFTS[word] for word in words if word in _SHIFTS)

    def now(self) -> date:
        if self.today is None:
            raise ValueError
        return self.today


def _year_month_day(parts: _Parts) -> Interval:
    year, month = parts.year(), int(parts["m"])
    return _day(year, month, int(parts["d"])) if parts["d"] else months(year, month)


def _day_month_year(parts: _Parts) -> Interval:
    one, two = int(parts["a"]), int(parts["b"])
    day_first = parts["s"] == "." or one > 12
    return _day(parts.year(), *((two, one) if day_first else (one, two)))


def _english(text: str, year: int, month: int | None = None) -> Interval:
    """`May 1`, `1 May`, `May`, or `1` of the given month."""
    name = _MONTH_NAME.search(text)
    day = re.search(r"\d+", text)
    if name is not None:
        month = _NAMES.index(name[0].lower()) + 1
    if month is None:
        raise ValueError
    return _day(year, month, int(day[0])) if day else months(year, month)


_MONTH_NAME = re.compile("|".join(_NAMES), re.IGNORECASE)


def _month_named(parts: _Parts) -> Interval:
    return _english(parts["a"], parts.year())


def _stretch(parts: _Parts) -> Interval:
    """`May 1–3, 2023`, `28 April to 3 May 2023`: either may leave to the other what month it is."""
    year, months = parts.year(), {}
    for end in ("a", "b"):
        if name := _MONTH_NAME.search(parts[end]):
            months[end] = _NAMES.index(name[0].lower()) + 1
    first = _english(parts["a"], year, months.get("b"))
    last = _english(parts["b"], year, months.get("a"))
    if first[0] > last[1]:  # November to January 2023
        first = _english(parts["a"], year - 1, months.get("b"))
    return first[0], last[1]


def _quarter_or_half(parts: _Parts) -> Interval:
    letter = (parts["w"] or parts["l"] or parts["l2"])[0].lower()
    part = _ORDINALS[parts["o"].lower()] if parts["o"] else int(parts["n"] or parts["n2"])
    return _part_of(parts.year(), letter, part)


def _part_of(year: int, letter: str, part: int) -> Interval:
    of = 4 if letter == "q" else 2
    part = of if part < 0 else part
    if part > of:
        raise ValueError
    return months(year, (part - 1) * (12 // of) + 1, 12 // of)


def _chinese(parts: _Parts) -> Interval:
    year = parts.year()
    if parts["q"] or parts["qq"]:
        return _part_of(year, "q", _number(parts["q"] or parts["qq"]))
    if parts["h"]:
        return _part_of(year, "h", 1 if parts["h"] == "上" else 2)
    month, day = (_number(parts[name]) if parts[name] else 0 for name in ("m", "d"))
    first = _day(year, month, day) if day else months(year, month) if month else months(year, 1, 12)
    if not (parts["m2"] or parts["d3"]):
        return first
    month = _number(parts["m2"]) if parts["m2"] else month
    last_day = parts["d2"] or parts["d3"]
    last = _day(year, month, _number(last_day)) if last_day else months(year, month)
    return first[0], last[1]


def _pair(parts: _Parts) -> Interval | None:
    """2019–21 and 2019/20 are years; 2023-05 and 2023/11 are months."""
    year, second = int(parts["a"]), int(parts["b"])
    following = second == (year + 1) % 100
    if parts["s"] in "-/" and 1 <= second <= 12 and not following:
        return months(year, second)
    last = year - year % 100 + second
    return _span(year, last) if last > year and (following or parts["s"] != "/") else None


def _span(first: int, last: int) -> Interval:
    return date(first, 1, 1), date(last, 12, 31)


def _century(parts: _Parts) -> Interval:
    text = parts["c"].lower()
    number = _CENTURIES.index(text) + 16 if text in _CENTURIES else int(text[:-2])
    return _span(number * 100 - 99, number * 100)


def _chinese_century(parts: _Parts) -> Interval:
    number = 20 if parts["c"].startswith("上") else _number(parts["c"])
    if not parts["d"]:
        return _span(number * 100 - 99, number * 100)
    first = (number - 1) * 100 + _number(parts["d"])
    return _span(first, first + 9)


def _one_of(parts: _Parts) -> Interval:
    """本季度, 上个月, 下月5日, last quarter."""
    unit = _UNITS[parts["u"]] if not parts["u"].isascii() else parts["u"].lower()
    found = _unit(parts.now(), _SHIFTS[parts["s"][0] if not parts["s"].isascii() else parts["s"].lower()], unit)
    return (found[0].replace(day=int(parts["d"])),) * 2 if parts["d"] and unit == "month" else found


def _ago(parts: _Parts) -> Interval:
    return _unit(parts.now(), -_amount(parts), _unit_named(parts))


def _past(parts: _Parts) -> Interval:
    today = parts.now()
    return _back(today, _amount(parts), _unit_named(parts)), today


def _amount(parts: _Parts) -> int:
    return 1 if parts["n"].lower() in ("a", "an") else _number(parts["n"])


def _unit_named(parts: _Parts) -> str:
    return parts["u"].lower() if parts["u"].isascii() else _UNITS[parts["u"]]


_MEANINGS: Final[dict[str, Callable[[_Parts], Interval | None]]] = {
    "ymd": _year_month_day,
    "dmy": _day_month_year,
    "compact": _year_month_day,
    "stretch": _stretch,
    "en": _month_named,
    "quarter": _quarter_or_half,
    "quarter2": _quarter_or_half,
    "fiscal": lambda parts: months(parts.year(), 1, 12),
    "zh": _chinese,
    "zhyears": lambda parts: _span(int(parts["a"]), int(parts["b"])),
    "century": _century,
    "zhcentury": _chinese_century,
    "decade": lambda parts: _span(parts.year(), parts.year() + 9),
    "pair": _pair,
    "year": lambda parts: months(parts.year(), 1, 12),
    "ago": _ago,
    "past": _past,
    "unit": _one_of,
    "oneday": lambda parts: _unit(parts.now(), _DAYS[parts["w"].lower()], "day"),
    "zhago": _ago,
    "zhpast": _past,
    "zhunit": _one_of,
}
