"""What dates, numbers and names look like in a sentence; what announces a reason or a manner; what units an amount has.

Patterns, not parsers: they say where something stands that could be an answer, not what it means.
"""

from __future__ import annotations

import re

from rag.answering.asked import Asked
from rag.text.language import ENGLISH_STOP_WORDS, simplified

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_CLOCK = r"(?:\d{1,2}:\d{2}(?: ?[ap]\.?m\.?)?|\d{1,2} ?[ap]\.?m\.?)"
_ENGLISH_DATE = re.compile(
    rf"\b(?:{_MONTH} {_DAY}(?:, ?\d{{4}})?|{_DAY}(?: of)? {_MONTH}(?:,? \d{{4}})?|{_MONTH},? (?:of )?\d{{4}}"
    r"|\d{4}-\d{2}(?:-\d{2})?(?!\d)|(?:early|mid|late)[- ](?:1\d|20)\d\d(?:s|\b)|(?:1[0-9]|20)\d0s"
    r"|\d{1,4}(?:–\d{1,4})? (?:BCE?|AD|CE)\b|AD \d{1,4}|(?:1\d|20)\d\d(?!\.?\d|%|,\d)"
    r"|(?:\d{1,2}(?:st|nd|rd|th)|[a-z]+th|first|second|third)[- ]centur(?:y|ies)"
    rf"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|{_CLOCK}(?:(?: to | until |\s?[–-]\s?){_CLOCK})?"
    r"|(?:Spring|Summer|Autumn|Winter)"
    rf"|{_MONTH}(?= ?[,.;)]|$| and\b| to\b))"
)
_NUMBER_WORD = (
    "(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?|"
    "trillions?|dozens?|half|twice|once|both|zero)"
)
_LARGE = r"(?:hundred|thousand|million|billion|trillion)"
_ENGLISH_NUMBER = re.compile(
    rf"(?:US|A|C|HK|NZ)?[$€£¥]\s?\d[\d,]*(?:\.\d+)?(?: {_LARGE})?"
    r"|[-−+]?(?<!\d:)\b\d[\d,]*(?![\d,]*:\d\d)(?:\.\d+)?(?:/\d+)?(?:\s?[–-]\s?\d[\d,]*(?:\.\d+)?)?"
    rf"(?:\s?%|\s?°\s?[CF]?| {_LARGE}\b)*"
    rf"|\b{_NUMBER_WORD}(?:[ -](?:and[ -])?{_NUMBER_WORD})*\b",
    re.IGNORECASE,
)
_CAPITAL = "[A-ZÀ-ÖØ-Þ]"
_NAME_WORD = rf"(?:{_CAPITAL}\.(?:{_CAPITAL}\.)*|{_CAPITAL}[\w'’-]*)"
_ENGLISH_NAME = re.compile(
    rf"(?<![\w’'-]){_NAME_WORD}(?:(?: (?:of|the|de|da|du|von|van|la|le|der|del|al|and|for|in) (?:the )?| ?& ?| )"
    rf"(?:{_NAME_WORD}|\d+(?![\d,.])))*"
)

_NUMERAL = r"(?:\d+(?:[,，]\d{3})*(?:\.\d+)?|[〇○零一二三四五六七八九十百千万亿两几数半]+)"
_YEAR = r"(?:\d{2,4}|[〇○零一二三四五六七八九]{2,4})"
_CHINESE_DATE = re.compile(
    rf"(?:公元前?|西元前?|民国)?{_YEAR} ?年(?:代(?:初|中|末|后期|中期|初期)?| ?{_NUMERAL} ?月(?: ?{_NUMERAL} ?[日号])?"
    rf"|[春夏秋冬]季?|[初底末中]|度)?|{_NUMERAL} ?月(?: ?{_NUMERAL} ?[日号]|[初底末中])|{_NUMERAL} ?月份?(?![个均])"
    rf"|{_NUMERAL}世纪(?:{_NUMERAL}年代|[初末]|中期|后期|初期|末期)?|\d{{4}}-\d{{1,2}}(?:-\d{{1,2}})?"
    r"|(?:星期|周|礼拜)[一二三四五六日天]|(?:上午|下午|早上|晚上|凌晨)?\d{1,2}(?::\d{2}|[点时](?:\d{1,2}分)?)"
    r"|[夏商周秦汉晋隋唐宋元明清][朝代]"
)
_MEASURE = (
    r"(?:平方公里|平方千米|平方米|立方米|公里|千米|厘米|毫米|公尺|公斤|千克|公顷|英里|英尺|海里|米|克|吨|升|度|℃|°C|元|美元|日元|"
    r"英镑|欧元|港元|人民币|人次|人|名|位|个|只|头|条|座|间|部|集|首|本|册|卷|章|期|届|次|场|回|天|日|周|年|月|小时|分钟|秒|岁|"
    r"种|类|项|家|所|户|艘|辆|架|列|台|枚|张|层|楼|级|代|支|队|站|号|票|分|倍|成|万人|％|%)"
)
_CHINESE_NUMBER = re.compile(
    rf"第?(?:约|近|超过|大约)?(?:百分之{_NUMERAL}|{_NUMERAL}[多余]?(?:[万亿千百]+)?[多余]?"
    rf"(?:[-－–~～至到]{_NUMERAL}(?:[万亿]+)?)?(?: ?个?{_MEASURE})?半?)"
)

_REASON = re.compile(
    r"\b(?:because|due to|since|so that|in order to|as a result|caused? by|owing to|thanks to|therefore|reason"
    r"|led to)\b"
    r"|因为|由于|因此|所以|为了|原因|导致|缘于|源于|使得|以便",
    re.IGNORECASE,
)
_MANNER = re.compile(r"\b(?:by|using|through|via|with|means)\b|通过|利用|采用|借助|方式|方法", re.IGNORECASE)

# What is asked, and the units that its amount comes with.
_AMOUNTS = tuple(
    (re.compile(question), re.compile(unit))
    for question, unit in (
        (
            r"\bcosts?\b|how much .*\b(?:pay|paid|price|spen[dt]|earn|charge|worth|money|revenue|budget|fee)"
            r"|多少钱|多少元|价格|费用",
            r"[$€£¥]|\b(?:dollars?|euros?|pounds?|EUR|USD|CNY|free)\b|元|免费",
        ),
        (
            r"how (?:long|soon|old)\b|多久|多长时间|几岁|几天|几年",
            r"\b(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?|decades?|centur(?:y|ies))\b|[天年月周岁]|小时|分钟",
        ),
        (
            r"how (?:far|tall|high|deep|wide|big|large)\b|面积|多[高长远宽深大]",
            r"\b(?:km|kilomet\w+|met(?:re|er)s?|m|ft|feet|miles?|mi|cm|mm|inch(?:es)?|acres?|hectares?|square)\b"
            r"|公里|米|公顷|英里|英尺",
        ),
        (r"percent|proportion|比例|百分", r"%|per ?cent|百分之|％"),
        (r"day of the week|星期几|周几", r"days?\b|星期|周"),
        (r"century|世纪", r"centur|世纪"),
        (r"temperature|how (?:hot|cold)|温度|气温", r"°|℃|degrees?|度"),
        (
            r"how often|多久一次",
            r"\b(?:once|twice|every|each|daily|weekly|monthly|yearly|annual\w*|per|times)\b|每",
        ),
    )
)

Span = tuple[int, int]


def shapes_of(text: str, *, chinese: bool) -> dict[str, set[Span]]:
    """Where dates, numbers and, in English, names stand: names of people and places in Chinese look like any word."""
    if chinese:
        text = simplified(text)
        return {"date": _spans(_CHINESE_DATE, text), "number": _spans(_CHINESE_NUMBER, text)}
    return {"date": _spans(_ENGLISH_DATE, text), "number": _spans(_ENGLISH_NUMBER, text), "name": _names(text)}


def evident(text: str, what: Asked) -> set[Span]:
    """What speaks for a sentence as an answer to this kind of question: something of the shape that is asked for, or
    the words that announce a reason or a manner."""
    chinese = what.chinese and not text.isascii()  # a Chinese question may be answered in English
    match what.kind:
        case "date":
            return _spans(_CHINESE_DATE, simplified(text)) if chinese else _spans(_ENGLISH_DATE, text)
        case "number":
            return _spans(_CHINESE_NUMBER, simplified(text)) if chinese else _spans(_ENGLISH_NUMBER, text)
        case "person" | "place" if not chinese:
            return _names(text)
        case "reason":
            return _spans(_REASON, simplified(text))
        case "manner":
            return _spans(_MANNER, simplified(text))
        case _:
            return set()


def unit_of(question: str, what: Asked) -> re.Pattern[str] | None:
    """The units that an answer to this question would come with, where it asks for an amount that has some."""
    if what.kind not in ("number", "date"):
        return None
    text = simplified(question).lower()
    return next((unit for asks, unit in _AMOUNTS if asks.search(text)), None)


def _spans(pattern: re.Pattern[str], text: str) -> set[Span]:
    return {match.span() for match in pattern.finditer(text)}


def _names(text: str) -> set[Span]:
    """Runs of capitalised words, without the `The` or `In` that a sentence begins with."""
    found = set()
    for match in _ENGLISH_NAME.finditer(text):
        start, end = match.span()
        first = match[0].split(" ", 1)[0]
        if first.lower() in ENGLISH_STOP_WORDS and not (first.isupper() and len(first) > 1):
            start += len(first) + 1
        if start < end:
            found.add((start, end))
    return found
