"""What kind of thing a question asks for, and the parts of one that asks for two: by rules, in Chinese and English."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from rag.text.keywords import Keyword
from rag.text.language import is_han, simplified, terms

Kind = Literal["date", "number", "person", "place", "reason", "manner", "yes_no", "definition", "thing"]


@dataclass(frozen=True, slots=True)
class Asked:
    """`noun` has the terms of the word that was asked for: `city` in "which city", 人 in 多少人."""

    kind: Kind
    chinese: bool
    noun: frozenset[str] = frozenset()


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_EN_DATE = re.compile(
    r"\bwhen\b|\b(?:what|which)(?: \w+)? (?:year|years|date|day|month|century|decade|season)\b|\bwhat time\b"
    r"|\b(?:what|which) (?:is|was|were|are) the (?:\w+ ){0,2}(?:year|date|day|time|deadline)\b(?! of (?:the )?name)"
)
_EN_NUMBER = re.compile(
    r"\bhow (?:many|much|long|far|old|tall|big|large|often|fast|high|deep|wide|heavy|hot|cold|soon|late)\b"
    r"|\b(?:what|which) (?:is |was |are |were )?(?:the )?(?:\w+ )?(?:percentage|percent|proportion|number|amount|total|"
    r"population|price|cost|fee|rate|temperature|length|height|weight|distance|speed|size|area|score|age|limit|ratio)\b"
    r"|\bwhat (?:do|does|did|will|would) .+ (?:cost|weigh|measure|earn)\b"
)
_EN_PERSON = re.compile(r"\b(?:who|whom|whose)\b|\b(?:what|which) (?:person|man|woman|people)\b")
_EN_PLACES = (
    "place|city|town|country|state|county|province|region|continent|village|island|location|district|area|capital"
)
_EN_PLACE = re.compile(rf"\bwhere\b|\b(?:what|which) (?:\w+ )?(?:{_EN_PLACES})s?\b|\blocation\b")
_EN_REASON = re.compile(r"\bwhy\b|\b(?:what|which) (?:\w+ ){0,3}(?:reason|cause)s?\b|\bwhat caused\b")
_EN_MANNER = re.compile(r"\bhow\b")
_EN_YES_NO = re.compile(
    r"(?:is|are|was|were|do|does|did|can|could|has|have|had|will|would|should|may|must|am)\b(?!.*\b(?:what|which|who)\b)"
)
_EN_DEFINITION = re.compile(r"(?:what (?:is|are|was|were)(?: an?| the)? (?:[\w'’-]+ ?){1,3}|what does .+ mean)\??$")
_EN_NOUN = re.compile(r"\b(?:what|which|how many|how much)(?: (?:kind|type|sort)s? of)? ((?:[\w'’-]+ ?){1,3})")

_UNITS_OF_COUNT = "个天年月次点号位种周条项名人台座家岁集部所场轮届级层件辆艘架只张米公里元块倍章页本间"
_ZH_DATE = re.compile(
    r"什么时候|什么时间|何时|何年|何日|哪一?年|哪一?天|哪个?月|哪日|哪一?个?(?:世纪|年代|季节|时期|时代)|几月|几号|几点|几几年|"
    r"(?:时间|日期|年份)(?:是|为|在)|什么(?:日期|年代|时期|日子)"
)
_ZH_NUMBER = re.compile(
    rf"多少|百分之几|几(?=[{_UNITS_OF_COUNT}])|多(?:长|大|高|远|久|重|深|宽|快|厚)|第几|有几"
    r"|(?:面积|人口|价格|总数|高度|长度|温度|比例|数量|海拔)(?:是|为|有)"
)
_ZH_PERSON = re.compile(
    r"谁|何人|哪[一几]?位|哪[一几]?个人|什么人|哪一人|(?:人|者|导演|演员|作者|主席|总统|队长)是(?:哪|什么)"
)
_ZH_PLACES = "国家|城市|地方|地区|地点|省份|省|市|县|区|州|大学|洲|岛|镇|村"
_ZH_PLACE = re.compile(
    rf"哪里|哪儿|何处|何地|什么地方|哪[一个]{{0,2}}(?:{_ZH_PLACES})|哪国|什么(?:{_ZH_PLACES})|位于哪|位于什么"
)
_ZH_REASON = re.compile(
    r"为什么|为何|为啥|因为什么|什么(?:的)?(?:原因|缘故|理由)|(?:原因|理由)(?:是什么|为何|有哪些)|何以"
)
_ZH_MANNER = re.compile(r"如何|怎么|怎样")
_ZH_YES_NO = re.compile(r"吗[？?]?$|是否|是不是|有没有|能不能|可不可以|会不会")
_ZH_DEFINITION = re.compile(
    r"什么是.{1,14}[？?]?$|^.{1,14}(?:是什么意思|指的?是什么|是指什么)[？?]?$|^.{1,8}是什么[？?]?$"
)
_ZH_NOUN = re.compile(
    r"(?:多少|几|哪[一几]?(?:个|种|些|家|部|所|座|条|位|支|类|项)?|什么(?:样的)?)([^\W\d_a-zA-Z是有在为被和与的了吗呢]{1,4})"
)

_ENGLISH: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("reason", _EN_REASON),
    ("date", _EN_DATE),
    ("number", _EN_NUMBER),
    ("person", _EN_PERSON),
    ("place", _EN_PLACE),
    ("manner", _EN_MANNER),
)
_CHINESE: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("reason", _ZH_REASON),
    ("date", _ZH_DATE),
    ("number", _ZH_NUMBER),
    ("person", _ZH_PERSON),
    ("place", _ZH_PLACE),
    ("manner", _ZH_MANNER),
    ("yes_no", _ZH_YES_NO),
    ("definition", _ZH_DEFINITION),
)


@lru_cache(maxsize=256)
def asked(question: str) -> Asked:
    """What the question asks for; `thing` where no rule says more."""
    text = simplified(question).strip().lower()
    if any(map(is_han, text)):
        kind: Kind = next((kind for kind, pattern in _CHINESE if pattern.search(text)), "thing")
        noun = _ZH_NOUN.search(text)
        return Asked(kind, chinese=True, noun=frozenset(terms(noun[1])) if noun else frozenset())
    noun = _EN_NOUN.search(text)
    return Asked(_english(text), chinese=False, noun=_english_noun(noun[1]) if noun else frozenset())


def _english(text: str) -> Kind:
    if _EN_YES_NO.match(text):
        return "yes_no"
    if text.startswith("how ") and not _EN_NUMBER.match(text):
        return "manner"  # "How is it decided where they go?" asks for no place
    found = [(match.start(), kind) for kind, pattern in _ENGLISH if (match := pattern.search(text))]
    if found and min(found)[0] <= (_first_what(text) if min(found)[1] != "reason" else len(text)):
        # Of two words that ask at the same place, as in "how" and "how many", the more special one stands first above.
        first = min(at for at, _ in found)
        return next(kind for at, kind in found if at == first)
    return "definition" if _EN_DEFINITION.match(text) else "thing"


def _first_what(text: str) -> int:
    """Where `what` or `which` stands: what comes later ("… what happens when …") is no longer what is asked for."""
    match = re.search(r"\b(?:what|which)\b", text)
    return match.start() if match else len(text)


_NOT_NOUNS = _listed(
    """is are was were do does did can could has have had will would should may might of the a an in on at to for by
    from with and or be been being it its he she they"""
)


def _english_noun(phrase: str) -> frozenset[str]:
    words = []
    for word in phrase.split():
        if word in _NOT_NOUNS:
            break
        words.append(word)
    return frozenset(terms(words[-1])) if words else frozenset()


# ── questions of two parts ────────────────────────────────────────────────────────────────────

_EN_ASKS = r"(?:who|whom|whose|what|which|when|where|why|how)\b"
_EN_BORDER = re.compile(
    rf",? (?:and|or|as well as) (?=(?:(?:in|on|at|by|from|to|for|since|until|with) )?{_EN_ASKS})"
    r"|\? +(?=\w)|, and (?=(?:is|are|was|were|do|does|did|can|has|have) )",
    re.IGNORECASE,
)
_ZH_ASKS = re.compile(r"什么|多少|几|谁|哪|何时|何地|何人|为何|如何|怎|吗|是否|多(?:长|大|高|远|久|重)")
_ZH_BORDER = re.compile(r"[？?；;，,、]\s*(?:以及|并且|而且|和|还有|又|同时)?|(?:以及|并且|而且|还有)")
_ZH_RESPECTIVELY = re.compile(
    r"^(?P<first>[^，,。？?]{1,16}?)(?:和|与|、|及|以及)(?P<second>[^，,。？?]{1,24}?)(?P<rest>(?:各自|各|分别)(?:是|为|有|在|要)?.+)$"
)
_PRONOUN = re.compile(
    r"\b(?:it|its|he|his|him|she|her|they|their|them|this|that|these|those)\b|它|他|她|其|这|该|此", re.I
)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the things that a question asks, with those of the question's content words that are about it."""

    text: str
    wanted: tuple[Keyword, ...]


_MOST_PARTS = 3
_BORROWED = 0.6  # of its weight, what a word counts that stands in another part only


def parts(question: str, wanted: tuple[Keyword, ...]) -> list[Part]:
    """The parts of a question that asks for two or three things, else the question whole.

    A part without words of its own to be found by, or with a pronoun, borrows those of the part before it.
    """
    texts = _split(question)
    if not 2 <= len(texts) <= _MOST_PARTS:
        return [Part(question, wanted)]
    found: list[Part] = []
    for text in texts:
        folded = simplified(text).lower()
        own = [word for word in wanted if word.text.lower() in folded]
        if found and (_PRONOUN.search(folded) or not any(word.anchor for word in own)):
            own += [
                replace(word, weight=_BORROWED * word.weight)
                for word in found[0].wanted
                if all(word.terms != other.terms for other in own)
            ]
        if not own:
            return [Part(question, wanted)]
        found.append(Part(text, tuple(own)))
    return found


def _split(question: str) -> list[str]:
    text = question.strip()
    if not any(map(is_han, text)):
        found = [part.strip(" ,?") for part in _EN_BORDER.split(text)]
        return found if all(len(part.split()) >= 2 for part in found) else [text]
    both = _ZH_RESPECTIVELY.match(text)
    if both:
        # 北京和上海的住宿标准: what is asked of the second is asked of the first.
        first, second = both["first"], both["second"]
        shared = second[second.index("的") :] if "的" in second and "的" not in first else ""
        rest = re.sub(r"^(?:各自|各|分别)", "", both["rest"])
        return [f"{first}{shared}{rest}", f"{second}{rest}"]
    pieces = [piece for piece in _ZH_BORDER.split(text) if piece.strip()]
    found = []
    for piece in pieces:
        if found and not (_ZH_ASKS.search(piece) and _ZH_ASKS.search(found[-1])):
            found[-1] = f"{found[-1]}，{piece}"  # a clause that asks nothing belongs to its neighbour
        else:
            found.append(piece)
    return found
