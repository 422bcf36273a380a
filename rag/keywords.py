"""What a question is about: its content words, weighed by how rare they are in what is asked.

The terms that look passages up are cut blindly (every pair of Han characters), which finds well and judges badly: in
现在上一个夜班有多少津贴 only 夜班 and 津贴 matter. Whether a passage speaks of what was asked is judged by words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rag.language import ENGLISH_STOP_WORDS, HAN, is_han, query_terms, simplified, terms

if TYPE_CHECKING:
    from rjieba import Jieba


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
_WEAK_SHARE = 0.3
# A word that no document has is often only another way to say it (酒店 for 住宿), unless it is an anchor.
_UNKNOWN_SHARE = 0.7
_ANCHOR_SHARE = 1.5

# jieba's parts of speech that carry content, and those that are names, by their first letters
_CONTENT = ("n", "v", "a", "t", "j", "l", "i", "s", "z", "eng", "x")
_NAME = ("nr", "ns", "nt", "nz")
_NEVER = _listed(
    "是 有 要 可以 应该 能 能够 会 可 得 让 请 请问 没有 为 能否 是否 想要 打算 多少 什么 怎么 如何 哪个 哪几个 谁"
)
_WORD = re.compile(r"[^\W_](?:[\w'’.\-/@:+#]*[^\W_])?(?:\+\+|#)?")
_CODE = re.compile(r"(?=.*\d)(?=.*[^\W\d_])[\w.\-/]{2,}")
_CLAUSE = re.compile(r"第\s?(?:\d{1,6}|[〇零一二三四五六七八九十百千两]{1,9})\s?[条章节款项编部]")
_RUNS = re.compile(f"[{HAN}]+|[^{HAN}]+")
_ASKING = re.compile(r"\bhow\s+(?:long|many|much|often|far|old|big|large|soon|quickly|high)\b", re.IGNORECASE)


def keywords(question: str, rarity: Callable[[Sequence[str]], list[float]]) -> tuple[Keyword, ...]:
    """The question's content words, each once. `rarity` gives terms their inverse document frequency."""
    found = {needed: (word, name) for word, name in _content_words(question) if (needed := _needed(word))}
    every = [term for needed in found for term in needed]
    weights = dict(zip(every, rarity(every), strict=True))
    unknown = rarity(["\u0000"])[0]  # what a term has that no document has
    return tuple(
        _weighed(word, needed, max(weights[term] for term in needed), name=name, unknown=unknown)
        for needed, (word, name) in found.items()
    )


def _weighed(word: str, needed: tuple[str, ...], weight: float, *, name: bool, unknown: float) -> Keyword:
    """As rare as its rarest part: a code is not made common by the common number in it."""
    anchor = name or bool(_CODE.fullmatch(word)) or bool(_CLAUSE.fullmatch(word))
    if anchor:
        share = _ANCHOR_SHARE
    elif word.lower() in _WEAK:
        share = _WEAK_SHARE
    else:
        share = _UNKNOWN_SHARE if weight >= unknown else 1.0
    return Keyword(word, needed, weight * share, anchor, all(map(is_han, word)))


def share(wanted: Iterable[Keyword], places: Sequence[tuple[float, set[str]]]) -> float:
    """How much of the keywords' weight is found, 0 … 1; 1 where nothing is wanted.

    In each place (share, its terms) a word counts for that share, and it counts where it counts most.
    """
    wanted = list(wanted)
    total = sum(word.weight for word in wanted)
    if not total:
        return 1.0
    found = (word.weight * max(part * presence(word, present) for part, present in places) for word in wanted)
    return sum(found) / total


def presence(word: Keyword, present: set[str]) -> float:
    """The share of the word's terms that are there."""
    return sum(term in present for term in word.terms) / len(word.terms)


def comparable(wanted: Iterable[Keyword], *, chinese: bool) -> list[Keyword]:
    """Those that a passage could have: English text no Chinese word, Chinese text of the English ones only anchors."""
    return [word for word in wanted if word.chinese == chinese or (word.anchor and not word.chinese)]


def _needed(word: str) -> tuple[str, ...]:
    """The terms of a word that tell it: pairs of Han characters where there are any, codes and clauses whole."""
    found = terms(word)
    if _CLAUSE.fullmatch(word):
        whole = [term for term in found if term.startswith("第") and term[-1] in word and len(term) > 2]
        return tuple(whole[-1:]) or tuple(found)
    pairs = [term for term in found if len(term) > 1 and all(map(is_han, term))]
    if pairs:
        return tuple(dict.fromkeys(pairs))
    longest = max(found, key=len, default="")
    return (longest,) if longest else ()


def _content_words(question: str) -> list[tuple[str, bool]]:
    """(word, whether it is a name), in order."""
    text = simplified(unicodedata.normalize("NFKC", question))
    words = list(_chinese(text) if any(map(is_han, text)) else _english(text))
    return words or [(term, False) for term in query_terms(question)]


def _english(text: str, *, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """A capital letter makes a name, but not at the beginning of a sentence, unless that is inside a Chinese one."""
    shouting = text.isupper()
    for match in _WORD.finditer(_ASKING.sub(" ", text)):
        word = re.sub(r"['’]s$", "", match[0])
        shouted = word.isupper() and len(word) > 1 and not shouting  # "IT" is not "it"
        if shouted or word.lower() not in ENGLISH_STOP_WORDS:
            begins = not text[: match.start()].rstrip() or text[: match.start()].rstrip()[-1] in ".?!:—"
            yield word, word[0].isupper() and not shouting and (inside or not begins)


def _chinese(text: str) -> Iterator[tuple[str, bool]]:
    """By jieba's words and parts of speech; clauses whole; runs of other scripts are read as English."""
    position = 0
    for clause in [*_CLAUSE.finditer(text), None]:
        for run in _RUNS.findall(text[position : clause.start() if clause else len(text)]):
            if is_han(run[0]):
                yield from _tagged(run)
            else:
                yield from _english(run, inside=True)
        if clause:
            yield clause[0], True
            position = clause.end()


def _tagged(run: str) -> Iterator[tuple[str, bool]]:
    for word, part in _jieba().tag(run):
        if word not in _NEVER and part.startswith(_CONTENT) and part not in ("ul", "uj"):
            yield word, part.startswith(_NAME) and len(word) > 1


@lru_cache(maxsize=1)
def _jieba() -> Jieba:
    from rjieba import Jieba

    return Jieba()
