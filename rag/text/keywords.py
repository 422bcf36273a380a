"""What a question is about: its content words, weighed by how rare they are in what is asked.

The terms that look passages up are cut blindly (every pair of Han characters), which finds well and judges badly: in
现在上一个夜班有多少津贴 only 夜班 and 津贴 matter. Whether a passage speaks of what was asked is judged by words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from rag.text.language import ENGLISH_STOP_WORDS, HAN, HOW_MUCH, is_han, language_of, simplified, terms

if TYPE_CHECKING:
    from rjieba import Jieba

    from rag.text.glossary import Translated


@dataclass(frozen=True, slots=True)
class Keyword:
    """A content word as the asker wrote it, the terms that a text must have for it, and how much it counts.

    An anchor is a code or a name (E-07, 第三十条, Hamburg): there is no other word for it, so a passage without it
    speaks of something else. `chinese` words can only be met by Chinese text.
    """

    text: str
    terms: tuple[str, ...]
    weight: float
    anchor: bool
    chinese: bool
    known: bool  # whether any document searched has it
    also: tuple[tuple[str, ...], ...] = ()  # terms of what the collection calls it in the other language


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Words that carry the asking rather than the asked; they count for little, present or absent.
_WEAK = _listed(
    """
    get gets got give given gives go goes going make makes made take takes took taken use used uses using need
    needs needed want wants allow allowed able say says said tell show shows mean means meant happen happens
    happened call called come comes find found know known let look much many long often day days time times
    thing things way kind sort type work works one two list name named exactly currently now still apply
    applies there may people person someone anyone
    做 用 使用 需要 想 知道 找 给 拿 放 看 说 叫 到 去 来 上 下 开 关 钱 时候 时间 情况 问题 东西 事情 现在 目前
    具体 包括 属于 要求 进行 规定 天 年 月 日 号 人 晚 早 最晚 最多 最少
    """
)
_WEAK_SHARE = 0.2
# A word that no document has is often only another way to say it (酒店 for 住宿), unless it is an anchor.
_UNKNOWN_SHARE = 0.6
_CODE_SHARE, _NAME_SHARE = 2.0, 1.5

_CHARACTER_SHARE = 0.4
_UNASKED = 0.75  # exponent: of two equal words one could not be asked, and the other's being there is worth 0.6

# jieba's parts of speech that carry content, and those that are names, by their first letters
_CONTENT = ("n", "v", "a", "t", "j", "l", "i", "s", "z", "eng")
_NAME = ("ns", "nt")  # places and organisations; what it takes for persons is too often something else
_NOUN = ("n", "vn", "j", "l", "i", "s", "eng")
_VERB_SHARE = 0.5  # verbs have more synonyms than things have: 打开 for 开罐, 放到 for 放假
_NEVER = _listed(
    "是 有 要 可以 应该 能 能够 会 可 得 让 请 请问 没有 为 能否 是否 想要 打算 多少 什么 怎么 如何 哪个 哪几个 谁 "
    "多长时间 多长 多久 多大 多高 多远 多深 多宽 多重 多快"
)
_WORD = re.compile(r"[^\W_](?:[\w'’.\-/@:+#]*[^\W_])?(?:\+\+|#)?")
_CODE = re.compile(r"(?=.*\d)(?=.*[^\W\d_])[\w.\-/]{2,}")
_CLAUSE = re.compile(r"第\s?(?:\d{1,6}|[〇零一二三四五六七八九十百千两]{1,9})\s?(?:[条章节款项编部期届次卷]|季度)")
_YEAR = re.compile(r"(?:19|20)\d\d")
_FISCAL_YEAR = re.compile(r"\bFY\s?((?:19|20)\d\d)\b")
_RUNS = re.compile(f"[{HAN}]+|[^{HAN}]+")
_HAN_CHARACTER = re.compile(f"[{HAN}]")
_ASKING = re.compile(HOW_MUCH, re.IGNORECASE)


def keywords(question: str, rarity: Callable[[Sequence[str]], list[float]]) -> tuple[Keyword, ...]:
    """The question's content words, each once. `rarity` gives terms their inverse document frequency."""
    found = {needed: word for word in _content_words(question) if (needed := _needed(word.text))}
    every = [term for needed in found for term in needed]
    weights = dict(zip(every, rarity(every), strict=True))
    unknown = rarity(["\u0000"])[0]  # what a term has that no document has
    return tuple(
        _weighed(word, needed, max(weights[term] for term in needed), unknown=unknown) for needed, word in found.items()
    )


def _weighed(word: _Word, needed: tuple[str, ...], weight: float, *, unknown: float) -> Keyword:
    """As rare as its rarest part: a code is not made common by the common number in it."""
    text = word.text
    code = bool(_CODE.fullmatch(text)) or bool(_CLAUSE.fullmatch(text))
    name = word.name or bool(_YEAR.fullmatch(text))  # the figures of another year are other figures
    if code or name:
        share = _CODE_SHARE if code else _NAME_SHARE
    elif text.lower() in _WEAK:
        share = _WEAK_SHARE
    else:
        share = word.share * (_UNKNOWN_SHARE if weight >= unknown else 1.0)
    return Keyword(text, needed, weight * share, code or name, all(map(is_han, text)), weight < unknown)


def share(wanted: Iterable[Keyword], places: Sequence[tuple[float, Set[str]]]) -> float:
    """How much of the keywords' weight is found, 0 … 1; 1 where nothing is wanted.

    In each place (share, its terms) a word counts for that share, and it counts where it counts most.
    """
    wanted = list(wanted)
    total = sum(word.weight for word in wanted)
    if not total:
        return 1.0
    found = (word.weight * max(part * presence(word, present) for part, present in places) for word in wanted)
    return sum(found) / total


def presence(word: Keyword, present: Set[str]) -> float:
    """The share of the word's terms that are there. Chinese words of two characters share one with what they are
    another word for (补班 and 上班), so that counts a little; longer ones would share a pair."""
    if word.also:
        found = max(sum(term in present for term in terms_) / len(terms_) for terms_ in (word.terms, *word.also))
    else:
        found = sum([term in present for term in word.terms]) / len(word.terms)
    if found or not word.chinese or word.anchor or len(word.text) != 2:
        return found
    return _CHARACTER_SHARE * sum(character in present for character in word.text) / 2


def readings(wanted: Sequence[Keyword], text: str) -> list[tuple[bool, list[Keyword], float]]:
    """(as Chinese?, the keywords that a text could have, what their being there is worth).

    A row or a table with some of each language is read as either. Where words could not be asked, because they are of
    the other language, the rest is worth less.
    """
    return [(chinese, *reading(wanted, chinese=chinese)) for chinese in readable_as(text)]


def readable_as(text: str) -> tuple[bool, ...]:
    """As Chinese (True), as anything else, or as either."""
    han = 0 if text.isascii() else len(_HAN_CHARACTER.findall(text))
    if not han:
        return (False,)
    return (True,) if han * 3 > len(text) and language_of(text) == "zh" else (True, False)


def reading(wanted: Sequence[Keyword], *, chinese: bool) -> tuple[list[Keyword], float]:
    """The keywords that a text could have which is read so, and what their being there is worth."""
    every = sum(word.weight for word in wanted)
    words = comparable(wanted, chinese=chinese)
    return words, (sum(word.weight for word in words) / every) ** _UNASKED if every else 1.0


def comparable(wanted: Iterable[Keyword], *, chinese: bool) -> list[Keyword]:
    """Those that a passage could have: English text no Chinese word, Chinese text of the English ones only anchors."""
    return [word for word in wanted if word.chinese == chinese or (word.anchor and not word.chinese) or word.also]


def with_others(wanted: Iterable[Keyword], translated: Sequence[Translated]) -> tuple[Keyword, ...]:
    """The keywords, those that a glossary knows with what it calls them in the other language."""
    return tuple(_with_others(word, translated) for word in wanted)


def _with_others(word: Keyword, translated: Sequence[Translated]) -> Keyword:
    mine = set(word.terms)
    for name in translated:
        if mine <= set(terms(name.text)):
            also = tuple(found for other in name.others if (found := tuple(dict.fromkeys(_all_needed(other)))))
            return replace(word, also=also, known=True)
    return word


def _all_needed(name: str) -> Iterator[str]:
    for part in _RUNS.findall(name):
        for word in [part] if is_han(part[0]) else part.split():
            if word not in ENGLISH_STOP_WORDS:
                yield from _needed(word)


def _needed(word: str) -> tuple[str, ...]:
    """The terms of a word that tell it: pairs of Han characters where there are any, codes and clauses whole."""
    found = terms(word)
    if _CLAUSE.fullmatch(word):
        whole = [term for term in found if term.startswith("第") and term[-1] in word and len(term) > 2]
        if whole:
            return tuple(whole[-1:])
    pairs = [term for term in found if len(term) > 1 and all(map(is_han, term))]
    if pairs:
        return tuple(dict.fromkeys(pairs))
    longest = max(found, key=len, default="")
    return (longest,) if longest else ()


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    name: bool = False
    share: float = 1.0  # of a full word's weight


def _content_words(question: str) -> list[_Word]:
    text = _FISCAL_YEAR.sub(r"\1", simplified(unicodedata.normalize("NFKC", question)))
    return list(_chinese(text) if any(map(is_han, text)) else _english(text))


def _english(text: str, *, inside: bool = False) -> Iterator[_Word]:
    """A capital letter makes a name, but not at the beginning of a sentence, unless that is inside a Chinese one."""
    shouting = text.isupper()
    for match in _WORD.finditer(_ASKING.sub(" ", text)):
        word = re.sub(r"['’]s$", "", match[0])
        shouted = word.isupper() and len(word) > 1 and not shouting  # "IT" is not "it"
        if shouted or word.lower() not in ENGLISH_STOP_WORDS:
            begins = not text[: match.start()].rstrip() or text[: match.start()].rstrip()[-1] in ".?!:—"
            yield _Word(word, word[0].isupper() and not shouting and (inside or not begins))


def _chinese(text: str) -> Iterator[_Word]:
    """By jieba's words and parts of speech; clauses whole; runs of other scripts are read as English."""
    position = 0
    for clause in [*_CLAUSE.finditer(text), None]:
        for run in _RUNS.findall(text[position : clause.start() if clause else len(text)]):
            if is_han(run[0]):
                yield from _tagged(run)
            else:
                yield from _english(run, inside=True)
        if clause:
            yield _Word(clause[0], name=True)
            position = clause.end()


def _tagged(run: str) -> Iterator[_Word]:
    for word, part in _jieba().tag(run):
        if word not in _NEVER and part.startswith(_CONTENT) and part not in ("ul", "uj"):
            name = part.startswith(_NAME) and len(word) > 1
            yield _Word(word, name, 1.0 if part.startswith(_NOUN) else _VERB_SHARE)


def is_weak(word: Keyword) -> bool:
    """Whether it carries the asking rather than the asked."""
    return word.text.lower() in _WEAK


def tagged(text: str) -> list[tuple[str, str]]:
    """Chinese in words, each with jieba's part of speech (`n`, `ns`, `v`, `r`, `eng`, …)."""
    return [(word, part) for word, part in _jieba().tag(text)]


@lru_cache(maxsize=1)
def _jieba() -> Jieba:
    from rjieba import Jieba

    return Jieba()
