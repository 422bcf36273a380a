"""Does one text deny what another says? By negations and opposites, in English and Chinese, from words alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rag.text.language import CHINESE_FUNCTION_CHARACTERS, ENGLISH_STOP_WORDS, HAN, terms

# ── negation ──────────────────────────────────────────────────────────────────────────────────

_EN_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|unable to|fail(?:s|ed)? to|refus(?:e|es|ed) to|lack(?:s|ed)?"
    r"|except(?: for)?|unless|hardly|rarely|seldom|scarcely)\b|n['’]t\b",
    re.IGNORECASE,
)
_NO_NEGATION = re.compile(
    r"\b(?:not (?:only|until)|no (?:doubt|less than|more than|fewer than|later than|earlier than|longer than)"
    r"|no\.? ?\d|whether or not)\b",
    re.IGNORECASE,
)
_ZH_NEGATION = re.compile("并非|并没有|没有|尚未|未曾|未能|无法|无需|无须|不得|不能|禁止|严禁|[不没未非无勿]")
# 不 and its like are parts of other words here, or two of them make a yes.
_ZH_NO_NEGATION = re.compile(
    "不但|不仅|不只|不光|不过|不断|不同|不久|不少|不料|不锈|不论|不管|不如|不等|不得不|不能不|不可不|不超过|不低于|不少于|不多于|不高于"
    "|无不|无论|无线|无锡|无机|无限|无数|未来|未必|未婚|非常|非洲|南非|北非|东非|西非|非凡|莫非|除非|是非|是否|能否|有没有|是不是|并无二致|而不是"
)
_SCOPE_WORDS = 2  # content words behind a negation that it denies
_CLAUSE_END = re.compile(r"[,.;:!?()\n]")
_WORD = re.compile(r"[A-Za-z][\w'’-]*")
_ZH_AUXILIARY = re.compile("[再曾能会可以应该须要被是有在对给为将把让得很太]*")
_HAN_RUN = re.compile(f"[{HAN}]+")
_EXCEPT = re.compile("除外|不在此列|不包括在内")


@dataclass(frozen=True, slots=True)
class Polarity:
    """The words that each negation of a text denies, and those that it says without one. A word may be both."""

    denied: tuple[frozenset[str], ...]
    said: frozenset[str]
    negations: int


def polarity(text: str) -> Polarity:
    """Of a text folded as `quantities.folded` does."""
    denied: list[frozenset[str]] = []
    spans: list[tuple[int, int]] = []
    negations = 0
    blank = _ZH_NO_NEGATION.sub(lambda match: " " * len(match[0]), _masked(_NO_NEGATION, text))
    for match in _EN_NEGATION.finditer(blank):
        # Two behind each other in one clause make a yes: not without, never unable to.
        negations += 1
        words, end = _denied_words(text, match.end())
        denied.append(frozenset(words))
        spans.append((match.end(), end))
    for match in _ZH_NEGATION.finditer(blank):
        negations += 1
        start = _ZH_AUXILIARY.match(text, match.end())
        begin = start.end() if start else match.end()
        run = _HAN_RUN.match(text, begin)
        if run is not None:
            word = run[0][:2]
            denied.append(frozenset([word]))
            spans.append((begin, begin + len(word)))
    said = "".join(" " if any(low <= at < high for low, high in spans) else c for at, c in enumerate(text))
    negations += len(_EXCEPT.findall(blank))
    return Polarity(tuple(denied), frozenset(terms(said)), negations)


def _masked(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: " " * len(match[0]), text)


def _denied_words(text: str, start: int) -> tuple[list[str], int]:
    """The stems of the content words behind a negation, up to the clause's end, and where the last one ends."""
    stop = _CLAUSE_END.search(text, start)
    found: list[str] = []
    end = start
    for match in _WORD.finditer(text, start, stop.start() if stop else len(text)):
        if len(found) == _SCOPE_WORDS:
            break
        end = match.end()
        if match[0].lower() not in ENGLISH_STOP_WORDS:
            found += terms(match[0])[:1]
    return found, end


def denies(sentence: Polarity, quote: Polarity) -> bool:
    """Whether one says what the other denies, and nowhere else otherwise."""
    return _flipped(sentence, quote) or _flipped(quote, sentence)


def _flipped(one: Polarity, other: Polarity) -> bool:
    theirs = frozenset().union(*other.denied)
    for words in one.denied:
        # “It is not covered by the warranty” and “the warranty does not cover it” are one negation.
        if words & theirs or CHINESE_FUNCTION_CHARACTERS.issuperset("".join(words)):
            continue
        if any(word in other.said and word not in one.said for word in words):
            return True
    return False


# ── opposites ─────────────────────────────────────────────────────────────────────────────────

_POLES: Final = tuple(
    (re.compile(rf"\b(?:{one})\b", re.IGNORECASE), re.compile(rf"\b(?:{other})\b", re.IGNORECASE))
    for one, other in (
        (
            "rise|rises|rose|risen|rising|increas(?:e|es|ed|ing)|grow|grows|grew|grown|growing|climb(?:s|ed)?|gain(?:s|ed)?",
            "fall|falls|fell|fallen|falling|decreas(?:e|es|ed|ing)|declin(?:e|es|ed|ing)|drop(?:s|ped|ping)?|shr(?:ink|ank|unk)",
        ),
        ("highest|largest|biggest|greatest|maximum", "lowest|smallest|least|minimum"),
        ("higher|larger|bigger|greater|longer", "lower|smaller|shorter"),
        ("win|wins|won|winning", "lose|loses|lost|losing"),
        ("includ(?:e|es|ed|ing)", "exclud(?:e|es|ed|ing)"),
        ("allow(?:s|ed)?|permit(?:s|ted)?", "forbid(?:s|den)?|prohibit(?:s|ed)?|ban(?:s|ned)?"),
        ("accept(?:s|ed)?|approv(?:e|es|ed)", "reject(?:s|ed)?|declin(?:e|es|ed)"),
        ("support(?:s|ed)?", "oppos(?:e|es|ed)"),
        ("import(?:s|ed)?", "export(?:s|ed)?"),
        ("profits?", "loss(?:es)?"),
        ("enter(?:s|ed)?|join(?:s|ed)?", "left|leaves|leave"),
        ("begin(?:s|ning)?|began|start(?:s|ed)?", "end(?:s|ed)?|finish(?:es|ed)?"),
        ("open|opens|opened", "close|closes|closed"),
        ("before", "after"),
    )
) + tuple(
    (re.compile(one), re.compile(other))
    for one, other in (
        ("增长|增加|上升|上涨|提高|升高", "下降|减少|下跌|降低|下滑"),
        ("最[高大多长早]", "最[低小少短晚]"),
        ("(?<!提)高于|大于|多于|超过", "低于|小于|少于|不足"),
        ("获胜|击败|战胜|赢得", "落败|败给|输给|输掉"),
        ("(?<!不)包括|包含", "不包括|不含|除外"),
        ("允许|准许", "禁止|严禁|不得"),
        ("(?<!不)同意|接受|批准", "拒绝|驳回|不同意"),
        ("支持|赞成", "反对"),
        ("进口", "出口"),
        ("盈利", "亏损"),
        ("开始|开幕", "结束|闭幕"),
        ("之前|以前", "之后|以后"),
    )
)


def opposes(sentence: str, quote: str) -> bool:
    """Whether the sentence has one of two opposites where the quote has only the other. Not where either is negated."""
    for one, other in _POLES:
        mine, theirs = (_has(one, sentence), _has(other, sentence)), (_has(one, quote), _has(other, quote))
        if mine in ((True, False), (False, True)) and theirs == (mine[1], mine[0]):
            return True
    return False


def _has(pattern: re.Pattern[str], text: str) -> bool:
    match = pattern.search(text)
    return match is not None
