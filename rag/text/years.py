"""Whether four digits are a year: by the words on both sides of them, in English and Chinese."""

from __future__ import annotations

import re

YEAR = r"(?:1\d|20)\d\d"
DASH = r"[-\u2010-\u2015~\u301c\uff5e]"  # hyphens, dashes, waves

_SAYS_WHEN = re.compile(
    r"\b(?:in|since|during|by|until|till|years?|circa|late|early|mid|ended|ending|before|after|prior to|copyright|dated"
    r"|as of|as of the|throughout|summer|winter|spring|autumn|fall|season|born|act|acts|cup|olympics|census|law)\s+$"
    r"|(?<!total )(?<!number )(?<!sum )(?<!height )(?<!weight )(?<!length )(?<!population )(?<!average )(?<!price )"
    r"(?<!maximum )(?<!minimum )(?<!cost )(?<!capacity )(?<!speed )(?<!distance )(?<!depth )(?<!area )(?<!out )"
    r"(?<!elevation )(?<!altitude )(?<!output )(?<!value )(?<!fee )(?<!fine )(?<!group )(?<!crowd )(?<!power )"
    r"\bof\s+$"
    r"|\b(?:mid|pre|post|early|late)-$|[(\[©（][^)\]\d]{0,12}$|[在于於]$",
    re.IGNORECASE,
)
_SAYS_NUMBER = re.compile(
    r"(?:\b(?:pages?|pp?\.|no\.?|nos\.?|numbers?|room|section|articles?|model|version|port|route|highway|line"
    r"|item|rule|form|building|order|invoice|ticket|part|code|error|iso|rfc|flight|chapter|zip|box|class|extension"
    r"|of|all|than|over|nearly|almost|some|exactly|approximately|roughly|about|least|most|level|street|units?|id"
    r"|usd|eur|rmb|cny|hk|us|is|are|was|were|costs?|equals?|weighs|and|or|to|minus|plus|paid|another):?\s*"
    r"|[A-Za-z][-/]|\d\s?[-\u2010-\u2015/×x*]\s?|\d:\s?|[=×/]\s?|[^\W\dA-Za-z_])$",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s?(?:%|‰|°|percent\b|per\s?cent\b|people\b|persons?\b|units?\b|[kcm]?m\b|k?g\b|[mg]hz\b|[mk]?w\b|mah\b|v\b|hp\b"
    r"|rpm\b|[mgt]b\b|px\b|dpi\b|ppm\b|bc\b|b\.c|bce\b|bp\b|usd\b|eur\b|euros?\b|dollars?\b|yuan\b|rmb\b|[mb]illion\b"
    r"|thousand\b|men\b|women\b|children\b|or more\b|more\b|different\b|feet\b|square\b|cubic\b|additional\b|hrs?\b"
    r"|tons?\b|tonnes?\b|years?\b|yr\b|miles?\b|met(?:er|re)s?\b|times\b|hours?\b|days?\b|words\b|[×x*=]\s?\d)"
    r"|\s?[个個名人米吨噸元万萬亿億千百多余餘公里平方种種条條次户戶亩畝只隻件台辆輛架艘座家所间間份张張本册页頁卷集号號"
    r"字分秒时時小天周月岁歲度瓦伏克斤升毫厘英尺寸海里步股点點倍位年]",
    re.IGNORECASE,
)
_PLURAL = re.compile(
    r"-[a-z]|\s(?!(?:was|is|has|does|sales|results|earnings|elections|games|series|financials|guidelines|statements"
    r"|revenues|terms|rules|standards|benefits|olympics|this|its|finals|playoffs|championships|awards|as|us|various"
    r"|previous|across|accounts|expenses|holidays|fees|prices|rates|regulations|figures|levels)\b)[a-z]+(?<!s)s\b"
)
_TO_YEAR = re.compile(rf"{YEAR}\s?(?:{DASH}|to|through|until|till|and|or|,|、)\s?(?:and\s|or\s)?$", re.IGNORECASE)
_AFTER_TO = re.compile(rf"\s?(?:{DASH}|to|through|until|till|and)\s?(?:the\s)?{YEAR}(?!\d)", re.IGNORECASE)


def is_year(text: str, start: int, end: int) -> bool:
    """Whether four digits that nothing else says to be a date are a year: by the words on both sides of them.

    A wrong yes is worse than a wrong no: 1984 units, page 1984 and 2000 people are no years.
    """
    before, after = text[max(0, start - 24) : start], text[end : end + 24]
    if _COUNTED.match(after):
        return False
    if _SAYS_WHEN.search(before) or _AFTER_TO.match(after) or _TO_YEAR.search(before):
        return True
    return text[start:end] >= "1900" and not _PLURAL.match(after) and not _SAYS_NUMBER.search(before)


def is_year_in_name(text: str, start: int, end: int) -> bool:
    """Likewise in a title or a file name, where nothing else stands beside it: policy-2020, but not GS-2090 or 1207."""
    return text[start:end] >= "1900" and _CODE.search(text, 0, start) is None


_CODE = re.compile(r"(?<![A-Za-z0-9])[A-Z]{1,3}\d*[-/. ]?$")
