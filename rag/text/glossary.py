"""What a collection itself calls by two names, one Chinese and one English: “退货政策（return policy）”.

A default embedder that reads one of the two languages finds nothing in the other. Most collections that hold both say
somewhere which words belong together: in brackets, in titles that are written twice, in tables of terms.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from rag.text.keywords import tagged
from rag.text.language import ENGLISH_STOP_WORDS, HAN, is_han, simplified

FORMAT = 1  # raise it when the same text would give other pairs: those that are stored are then found anew

LONGEST_ZH = 12  # characters
LONGEST_EN = 6  # words


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_LATIN = r"[A-Za-z][A-Za-z0-9.&'’+/-]*"
_BRACKETS = re.compile(r"[(（]\s*([^()（）\n]{2,80}?)\s*[)）]")
_ENGLISH = re.compile(rf"{_LATIN}(?:\s+{_LATIN}){{0,{LONGEST_EN - 1}}}")
_ENGLISH_TAIL = re.compile(rf"{_LATIN}(?:[ ]{_LATIN}){{0,{LONGEST_EN - 1}}}$")
_CHINESE = re.compile(rf"[{HAN}·]{{2,{LONGEST_ZH}}}")
_CHINESE_TAIL = re.compile(rf"[{HAN}·]{{2,30}}$")
_LABEL = re.compile(
    r"^(?:英文|英语|英文名|英文名称|简称|缩写|缩写为|全称|中文|中文名|又称|又名|即|Chinese|English)\s*[:：为]?\s*"
)
_PARTS = re.compile(r"\s*[,，;；、]\s*")
_CLOSING, _OPENING = '”"」』》〉’ *_`', '“"「『《〈‘*_`'
_EN_NAME = rf"{_LATIN}(?:[ ]{_LATIN}){{0,{LONGEST_EN - 1}}}"
_ZH_NAME = rf"[{HAN}·]{{2,{LONGEST_ZH}}}"
_BETWEEN = r"\s*[|/·—–:：-]?\s*"
_BOTH = re.compile(
    rf"[#\s\d.]*(?:(?P<zh>{_ZH_NAME}){_BETWEEN}(?P<en>{_EN_NAME})|(?P<en2>{_EN_NAME}){_BETWEEN}(?P<zh2>{_ZH_NAME}))\s*"
)
_ROW_ZH = re.compile(r"^\s*(?:中文|汉语|简体中文|中文名|中文名称|Chinese)\s*[:：]\s*(\S.*?)\s*$", re.IGNORECASE)
_ROW_EN = re.compile(r"^\s*(?:英文|英语|英文名|英文名称|English)\s*[:：]\s*(\S.*?)\s*$", re.IGNORECASE)

# Units, currencies and references stand in brackets too, and name nothing.
_NO_NAME = _listed(
    """kg g mg km m cm mm l ml w kw kwh v mv ma mah hz khz mhz ghz db mb gb tb kb pcs usd eur cny rmb hkd gbp jpy aud
    am pm ad bc ce bce jan feb mar apr jun jul aug sep sept oct nov dec etc ie eg fig figs table see note page no nr
    vol ed eds pp ii iii iv vi vii viii ix xi xii yes ok na n/a tbd optional required"""
)
_POINTING = frozenset({"see", "table", "fig", "figure", "page", "e.g", "i.e", "cf", "note"})
_TELLING = re.compile(r"[a-z]{2}")  # A+B names nothing
_JOINING = frozenset({"of", "and", "for", "to", "the", "in", "on", "with"})  # inside a name, never at its ends
_CONTENT = ("n", "v", "a", "j", "l", "i", "s", "z", "b", "t", "f", "q", "m", "x", "g", "h", "k")
_NOT_CONTENT = _listed("是 有 为 称 叫 称为 叫做 即 指 使用 根据 按照 通过 采用 属于 包括 例如 其中 以及 进行 规定")


@dataclass(frozen=True, slots=True)
class Alias:
    """Two names of one thing: `zh` in simplified characters, `en` in small letters and the singular."""

    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Translated:
    """A part of a question, and what the collection calls it in the other language; the likeliest first."""

    text: str
    others: tuple[str, ...]


# ── mining ────────────────────────────────────────────────────────────────────────────────────


def mine(text: str) -> list[Alias]:
    """The pairs that a text spells out, each once."""
    if text.isascii():
        return []
    text = simplified(unicodedata.normalize("NFKC", text))
    found = [*_in_brackets(text), *_on_lines(text)]
    return list(dict.fromkeys(Alias(zh.strip("·"), en) for zh, en in found))


def _in_brackets(text: str) -> Iterator[tuple[str, str]]:
    for match in _BRACKETS.finditer(text):
        before = text[max(text.rfind("\n", 0, match.start()) + 1, match.start() - 60) : match.start()].rstrip()
        quoted = before[-1:] in _CLOSING and bool(before)
        before = before.rstrip(_CLOSING)
        for part in _PARTS.split(match[1]):
            inside = _LABEL.sub("", part.strip(_OPENING + _CLOSING))
            if _ENGLISH.fullmatch(inside) and (en := _english(inside)) and (run := _CHINESE_TAIL.search(before)):
                bounded = quoted or _begins(before, run.start())
                yield from ((zh, en) for zh in _names_ending(run[0], bounded=bounded, words=len(en.split())))
            elif _CHINESE.fullmatch(inside) and (tail := _ENGLISH_TAIL.search(before)):
                bounded = quoted or _begins(before, tail.start())
                if en := _english(_last_name(tail[0], bounded=bounded, characters=len(inside))):
                    yield inside, en


def _begins(text: str, at: int) -> bool:
    """Whether a name that begins there must begin there: at the line's beginning or behind a mark."""
    before = text[:at].rstrip()
    return not before or not (before[-1].isalnum())


def _names_ending(run: str, *, bounded: bool, words: int) -> list[str]:
    """The Chinese names that a run may end in: all of it where something sets it off; else the trailing content words,
    about as many characters as the English name has room for, and the shorter one of these two beside it."""
    if bounded and len(run) <= LONGEST_ZH and all(_is_content(word, part) for word, part in tagged(run)):
        return [run]
    shortest, longest = words + 1, min(2 * words + 2, LONGEST_ZH)
    found: list[str] = []
    name = ""
    for word, part in reversed(tagged(run)):
        if not _is_content(word, part) or len(word) + len(name) > longest:
            break
        name = word + name
        found.append(name)
    # Of the longest two, one is it; 政策 alone is no return policy.
    return [item for item in found if len(item) >= shortest][-2:]


def _is_content(word: str, part: str) -> bool:
    return part.startswith(_CONTENT) and word not in _NOT_CONTENT


def _last_name(tail: str, *, bounded: bool, characters: int) -> str:
    """The English name that a run of words ends in."""
    words = tail.split()
    most = LONGEST_EN if bounded else -(-characters // 2) + 1
    kept: list[str] = []
    for word in reversed(words):
        if len(kept) == most or (
            word.lower() in ENGLISH_STOP_WORDS and word.lower() not in _JOINING and not word.isupper()
        ):
            break
        kept.insert(0, word)
    return " ".join(kept)


def _english(name: str) -> str:
    """As it is stored: small letters, singular, without what only joins at its ends; empty where it names nothing."""
    words = [word.strip(".,'’-/&+") for word in name.lower().replace("’", "'").split()]
    while words and (not words[0] or words[0] in ENGLISH_STOP_WORDS):
        words = words[1:]
    while words and (not words[-1] or words[-1] in ENGLISH_STOP_WORDS):
        words = words[:-1]
    if not words or len(words) > LONGEST_EN or all(word in _NO_NAME or len(word) < 2 for word in words):
        return ""
    if words[0] in _POINTING or not _TELLING.search(" ".join(words)):
        return ""
    return " ".join(map(_singular, words))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _on_lines(text: str) -> Iterator[tuple[str, str]]:
    """Titles written twice, and rows of a table of terms."""
    zh_row = en_row = ""
    for line in text.splitlines():
        if found := _ROW_ZH.match(line):
            zh_row = found[1]
        elif found := _ROW_EN.match(line):
            en_row = found[1]
        elif len(line) <= 80 and (both := _BOTH.fullmatch(line.replace("**", ""))):
            if en := _english(both["en"] or both["en2"]):
                yield both["zh"] or both["zh2"], en
            continue
        else:
            continue
        if zh_row and en_row:
            if _CHINESE.fullmatch(zh_row) and (en := _english(en_row)):
                yield zh_row, en
            zh_row = en_row = ""


# ── a question's names ────────────────────────────────────────────────────────────────────────


def names_in(question: str) -> list[str]:
    """Every part of a question that may be a name in a glossary, as it is stored there, longest first."""
    text = simplified(unicodedata.normalize("NFKC", question))
    found: list[str] = []
    for run in re.findall(f"[{HAN}·]+", text):
        # Names begin and end where words do: a fifth of all the parts.
        ends = [0, *accumulate(len(word) for word, _ in tagged(run))]
        found += [
            run[start:end] for at, start in enumerate(ends) for end in ends[at + 1 :] if 2 <= end - start <= LONGEST_ZH
        ]
    words = [_singular(word.strip(".,'-/&+")) for word in re.findall(_LATIN, text.lower().replace("’", "'"))]
    for size in range(min(LONGEST_EN, len(words)), 0, -1):
        for start in range(len(words) - size + 1):
            part = words[start : start + size]
            if part[0] not in ENGLISH_STOP_WORDS and part[-1] not in ENGLISH_STOP_WORDS:
                found.append(" ".join(part))
    return sorted(dict.fromkeys(found), key=lambda name: -len(name))


def translate(question: str, known: Sequence[tuple[Alias, int]]) -> list[Translated]:
    """The longest names of the question that a glossary has, none inside another. `known`: pairs with how often they
    stand in the collection."""
    others: dict[str, dict[str, int]] = {}
    for alias, count in known:
        others.setdefault(alias.zh, {})[alias.en] = count
        others.setdefault(alias.en, {})[alias.zh] = count
    left = simplified(unicodedata.normalize("NFKC", question)).lower()
    found: list[Translated] = []
    for name in names_in(question):
        if name not in others:
            continue
        left, stands = _pattern(name).subn("\n", left)
        if not stands:
            continue
        ranked = sorted(others[name].items(), key=lambda item: (-item[1], len(item[0]), item[0]))
        found.append(Translated(name, tuple(other for other, _ in ranked[:2])))
    return found


def _pattern(name: str) -> re.Pattern[str]:
    """A name as it may stand in a question, in the plural too."""
    if is_han(name[0]):
        return re.compile(re.escape(name))
    return re.compile(r"\b" + r"\W+".join(f"{re.escape(_stem(word))}(?:y|ies|es|s)?" for word in name.split()) + r"\b")


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("y") else word
