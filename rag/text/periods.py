"""What time a question asks about, and of what time a document is. Pure; `rag/retrieval/timely.py` ranks by it.

A document is of a time (a report *of* 2021), or it holds *from* a time on (a policy in force since 2021) until
another takes its place. Where it says so is looked for in this order: that it is in force, by its opening or its
metadata; its title, its file's name, its folders; a date among its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from rag.text.dates import DateSpan, dates

Interval = tuple[date, date]  # both days included

# ── what a question asks about ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TimeAsked:
    """`periods` that the question names, none where it names none; `newest`: it asks for what holds now, or came last.
    `spans`: where it says so, one for each period; `rest`: the question without them."""

    periods: tuple[Interval, ...] = ()
    newest: bool = False
    spans: tuple[DateSpan, ...] = ()
    rest: str = ""

    def __bool__(self) -> bool:
        return bool(self.periods) or self.newest

    @property
    def years(self) -> set[str]:
        """How the years of its spans are written; a text with none of these speaks of none of them."""
        found = {year for span in self.spans for year in (span.first.year, span.last.year)}
        written = {str(year) for year in found} | {
            "".join(_HAN_DIGITS[int(one)] for one in str(year)) for year in found
        }
        return written | {f"{before}{year % 100:02}" for year in found for before in "'YyQqHh"}


_HAN_DIGITS = "〇一二三四五六七八九"
_NEWEST = re.compile(
    r"\b(?:latest|newest|most recent(?:ly)?|currently|at present|presently|right now|nowadays|these days"
    r"|as of (?:now|today)|up[- ]to[- ]date|(?:still|now) (?:valid|in force|in effect|apply|applies)|today|now)\b"
    r"|(?<!alternating )(?<!direct )(?<!electric )(?<!ocean )(?<!rated )\bcurrent\b"
    r"(?! (?:ratio|asset|liabilit|account))"
    r"|最新|最近一[次期份版届]|目前|现行|現行|当前|當前|现在|現在|如今|眼下|现阶段|今日|今天",
    re.IGNORECASE,
)
_IN_FORCE = re.compile(
    r"\b(?:in(?:to)? force|in(?:to)? effect|effective|valid|appl(?:y|ies|ied|icable)|takes? effect)\b"
    r"|生效|施行|实施|實施|执行|執行|有效|适用|適用",
    re.IGNORECASE,
)
_BY = re.compile(
    r"\b(?:as (?:of|at)|by|until|till|up to|through|at)\s+(?:the\s+)?(?:end of\s+)?$|\bend of\s+$"
    r"|(?:截至|截止到?|直到)$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"\b(?:before|prior to|earlier than)\s+$", re.IGNORECASE)
_SINCE = re.compile(r"\b(?P<since>since|starting|from)\s+$|\b(?:after|following)\s+$", re.IGNORECASE)
_THEN_BEFORE = re.compile(r"\s?(?:之|以)?前")
_THEN_SINCE = re.compile(r"\s?(?P<since>以来|以來|起)|\s?(?:之|以)?[后後]")
_THEN_END = re.compile(r"\s?(?:年)?[底末]|\s?年终")


def time_asked(question: str, today: date) -> TimeAsked:
    """What the question asks about in time; `today` is the day on which it is asked."""
    spans = tuple(dates(question, today=today))
    asked = tuple(span for span in spans if not (span.relative and span.first == span.last == today))
    words = (found.start() for found in _NEWEST.finditer(question))
    newest = any(not any(span.start <= at < span.end for span in asked) for at in words)
    rest = question
    for span in reversed(asked):
        before, after = question[: span.start], question[span.end :]
        cue = _BY.search(before) or _BEFORE.search(before) or _SINCE.search(before)
        then = _THEN_BEFORE.match(after) or _THEN_END.match(after) or _THEN_SINCE.match(after)
        rest = f"{before[: cue.start()] if cue else before} {rest[span.end + (then.end() if then else 0) :]}"
    rest = _NEWEST.sub(" ", rest)
    return TimeAsked(tuple(_period(question, span, today) for span in asked), newest, asked, rest)


def _period(question: str, span: DateSpan, today: date) -> Interval:
    """The days that are asked about: `as of May 2023` is its last day, `since 2021` lasts until today."""
    before, after = question[max(0, span.start - 24) : span.start], question[span.end : span.end + 6]
    if _BEFORE.search(before) or (_THEN_BEFORE.match(after) and not span.relative):
        day = max(span.first, date(1, 1, 2)) - timedelta(days=1)
        return day, day
    if _BY.search(before) or _THEN_END.match(after):
        return span.last, span.last
    if since := _SINCE.search(before) or _THEN_SINCE.match(after):
        if _IN_FORCE.search(question):
            return span.first, span.last
        first = span.first if since["since"] else span.last
        return first, max(today, span.last)
    return span.first, span.last


# ── of what time a document is ────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Period:
    """The days that a document is of. `holds`: it came into force with the first, and holds until something else does,
    or through `last` where it says so. `written` in ISO 8601, as exact as it is known: 2020, 2020-05, 2020-05-01."""

    first: date
    last: date | None
    holds: bool = False
    written: str = field(default="", compare=False)

    def overlaps(self, asked: Interval) -> bool:
        return self.first <= asked[1] and (self.last is None or self.last >= asked[0])

    def began_in(self, asked: Interval) -> bool:
        return asked[0] <= self.first <= asked[1]


@dataclass(frozen=True, slots=True)
class Told:
    """What the catalog knows of a document's time: its metadata that are dates, and how its text begins."""

    dates: Mapping[str, date] = field(default_factory=dict)
    opening: str = ""


def iso(first: date, last: date) -> str:
    """A day, a month, a year, or two of them with a slash between: as short as it can be said."""
    precision = DateSpan(0, 0, "", first, last).precision
    if precision == "day":
        return first.isoformat()
    if precision in ("month", "year"):
        return first.isoformat()[: 7 if precision == "month" else 4]
    if (first.month, first.day, last.month, last.day) == (1, 1, 12, 31):
        return f"{first.year:04}/{last.year:04}"
    return f"{first.isoformat()}/{last.isoformat()}"


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_EFFECTIVE_KEYS: Final = _listed(
    """valid_from effective_from effective_date effective in_force in_force_since start_date starts_on valid_since
    生效日期 施行日期 实施日期 生效 施行 启用日期"""
)
_UNTIL_KEYS: Final = _listed(
    "valid_until valid_to expires expires_on expiry effective_until end_date 失效日期 废止日期 有效期至"
)
_DATE_KEYS: Final = _listed(
    """date published published_at publication_date issued issued_on posted created
    发布日期 发表日期 日期 印发日期 时间"""
)
_LAST_KEYS: Final = _listed("updated_at modified changed last_modified 更新日期 修改日期")  # say least of all
_FORCE = re.compile(
    "in(?:to)? force|effect|valid|appl(?:y|ies|icable)|生效|施行|实施|實施|执行|執行|启用|有效期|适用|適用",
    re.IGNORECASE,
)
_STARTS = re.compile(
    r"(?:in(?:to)? force|in(?:to)? effect|effective|valid(?! (?:until|to|through))|appl(?:y|ies|icable)|takes? effect"
    r"|with effect|生效|施行|实施|實施|执行|執行|启用|有效期自?)[^.。;；\n]{0,25}$",
    re.IGNORECASE,
)
_STARTED = re.compile(r"\s?(?:起|开始|開始|之日起)?(?:正式)?(?:施行|实施|實施|生效|执行|執行|启用|適用|适用)")
_ENDS = re.compile(r"(?:valid (?:until|to|through)|expires?(?: on)?|有效期至|[至到])[^.。;；\n]{0,10}$", re.IGNORECASE)
_OTHERS = re.compile(
    r"\b(?:replac|supersed|former|previous|earlier)|取代|代替|废止|原[^.。]{0,10}$|旧|此前", re.IGNORECASE
)
_RULES = re.compile(
    r"polic|rule|regulation|handbook|guide|terms|price|tariff|standard|agreement|contract|procedure|manual|statute|bylaw"
    r"|\bact\b|\blaw\b|code of|rates?\b|fees?\b|制度|规定|规程|办法|条例|政策|手册|准则|规范|标准|价目|价格表|协议|合同"
    r"|章程|细则|指南|规则|法$|須知|须知|通知|收费",
    re.IGNORECASE,
)


@lru_cache(maxsize=2048)  # openings of documents, which are asked for again and again
def in_force(text: str) -> Period | None:
    """Since when what the text says has been in force, where it says so of itself (in force since, 自…起施行)."""
    if _FORCE.search(text) is None:
        return None
    found = dates(text)
    for at, span in enumerate(found):
        before, after = text[max(0, span.start - 60) : span.start], text[span.end : span.end + 12]
        sentence = re.split(r"[.。;；\n]", before)[-1]
        if _OTHERS.search(sentence) or not (_STARTS.search(before) or _STARTED.match(after)):
            continue
        if span.precision == "range":
            return Period(span.first, span.last, holds=True, written=iso(span.first, span.last))
        following = found[at + 1] if at + 1 < len(found) else None
        ends = following is not None and _ENDS.search(text, span.end, following.start) is not None
        until = following.last if ends and following else None
        return Period(span.first, until, holds=True, written=iso(span.first, span.last))
    return None


def of_metadata(values: Mapping[str, date]) -> Period | None:
    """What a document's metadata says: since when it is in force, or else its date, or else any day that it has."""
    folded = {key.lower().replace(" ", "_").replace("-", "_"): value for key, value in values.items()}
    start = next((folded[key] for key in _EFFECTIVE_KEYS if key in folded), None)
    if start is not None:
        until = next((folded[key] for key in _UNTIL_KEYS if key in folded), None)
        return Period(start, until, holds=True, written=start.isoformat())
    day = next((folded[key] for key in _DATE_KEYS if key in folded), None)
    if day is None and (others := sorted(folded.keys() - set(_UNTIL_KEYS), key=lambda key: (key in _LAST_KEYS, key))):
        day = folded[others[0]]
    return None if day is None else Period(day, day, written=day.isoformat())


@lru_cache(maxsize=4096)
def of_name(title: str, uri: str) -> Period | None:
    """What its title says, or the name of its file, or of the folders that this is in, the nearest first."""
    for name in (title, *_segments(uri)):
        if found := dates(name, name=True):
            first, last = found[0].first, max(span.last for span in found)
            written = iso(first, last)
            if first < last and len(found) == 1 and _RULES.search(f"{title} {uri}"):
                until = last if found[0].precision == "range" else None
                return Period(first, until, holds=True, written=written)
            return Period(first, last, written=written)
    return None


def _segments(uri: str) -> list[str]:
    path = re.sub(r"^[a-z]+://[^/]*", "", uri.replace("%20", " ")).split("?")[0].split("#")[0]
    segments = [segment for segment in path.split("/") if segment]
    folders = "/".join(segments[:-1][-3:])  # 2023/05/12
    return [segments[-1], folders] if segments else []


@lru_cache(maxsize=4096)
def stem(name: str) -> str:
    """The name without its dates and what tells editions apart; equal for policy-2020.md and policy-2022.md."""
    for span in reversed(dates(name, name=True)):
        name = name[: span.start] + " " + name[span.end :]
    return " ".join(_EDITION.sub(" ", name.lower().replace("_", " ")).split())


_EDITION = re.compile(
    r"\bv?\d+(?:\.\d+)+\b|\bv\d+\b|\b(?:version|revision|rev|edition|final|draft|new|old|current)\b|修订版?|修正版?|试行|暂行"
    r"|[新旧]版|[第]?[一二三四五六七八九十\d]+版|版|年度?|[^\w]+|_"
)
