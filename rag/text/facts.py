"""What a text states that must not differ when it is told again: numbers, days, names and codes, and what it denies."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from rag.text.dates import DateSpan, dates
from rag.text.keywords import tagged
from rag.text.language import ENGLISH_STOP_WORDS, HAN, is_han, terms
from rag.text.polarity import Polarity, polarity
from rag.text.quantities import Quantity, folded, quantities

_HAN_CHARACTER = re.compile(f"[{HAN}]")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a text states that must not differ: numbers, days, names and codes; and what it denies."""

    text: str  # folded
    numbers: tuple[Quantity, ...]
    days: tuple[DateSpan, ...]
    names: tuple[str, ...]
    polarity: Polarity
    terms: frozenset[str]


@lru_cache(maxsize=256)
def facts(text: str) -> Facts:
    read = folded(text)
    days = tuple(dates(read))
    return Facts(read, tuple(quantities(read)), days, tuple(names(read)), polarity(read), frozenset(terms(read)))


# ── names ─────────────────────────────────────────────────────────────────────────────────────

_LETTER: Final = rf"[^\W_{HAN}]"  # a digit too
_CAPITALISED = re.compile(rf"(?<!{_LETTER})(?<!\.)[A-Z](?:(?:{_LETTER}|['’&.-])*{_LETTER})?")
_CODE = re.compile(
    r"(?<![A-Za-z0-9.])(?=[A-Za-z.\-/]*\d)(?=[\d.\-/]*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9.\-/]*[A-Za-z0-9])?"
)
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s|k|m|km|kg|g|cm|mm|am|pm|bn)$", re.IGNORECASE)
_NO_NAMES_LISTED = """
    january february march april may june july august september october november december monday tuesday
    wednesday thursday friday saturday sunday jan feb mar apr jun jul aug sep sept oct nov dec bc ad ce
    bce mr mrs ms dr sir great
"""
_NO_NAMES: Final = ENGLISH_STOP_WORDS.union(_NO_NAMES_LISTED.split())
_TITLED = re.compile('[《〈「『“"]([^《》〈〉「」『』“”"]{2,30})[》〉」』”"]')
_ZH_NAME_PARTS = ("nr", "nrt", "ns", "nt", "nz", "nrfg")
_PLACE_ENDS = "省市县区国州镇乡村"


def names(text: str) -> list[str]:
    """Names and codes that a folded text states, each once."""
    found = [match[0] for match in _CODE.finditer(text) if not _ORDINAL.fullmatch(match[0])]
    found += [name for name in _latin_names(text) if name not in found]
    if _HAN_CHARACTER.search(text):
        found += [word for word, part in tagged(text) if part in _ZH_NAME_PARTS and len(word) > 1 and is_han(word[0])]
    return list(dict.fromkeys(found))


def _latin_names(text: str) -> list[str]:
    matches = list(_CAPITALISED.finditer(text))
    if len(matches) > 3 and len(matches) > 0.8 * len(re.findall(r"[A-Za-z]{2,}", text)):
        return []  # a title, or shouted: capitals tell nothing
    found = []
    for match in matches:
        word = re.sub(r"['’]s?$", "", match[0])
        if word.lower() in _NO_NAMES:
            continue
        before = text[: match.start()].rstrip()
        begins = not before or before[-1] in '.!?:\n“"‘(—-'
        if not begins or _CAPITALISED.match(text, match.end() + 1):
            found.append(word)
    return found


_BEGINNING = re.compile(r"[^\w]*([A-Z][a-z]+)\b")
_NO_NAME_ENDS = ("s", "ed", "ing", "ly", "ion", "ment", "ness", "ity")


def begins_with_a_name(text: str, named: Named) -> bool:
    """Whether a sentence begins with a word that may be a name, and is not there: every first word has a capital."""
    match = _BEGINNING.match(text)
    if match is None or match[1].lower() in _NO_NAMES or match[1].endswith(_NO_NAME_ENDS):
        return False
    return not named.has(match[1])


class Named:
    """A text that names are looked for in."""

    def __init__(self, text: str) -> None:
        self._text = text

    def has(self, name: str) -> bool:
        if is_han(name[0]):
            return name in self._text or (len(name) > 2 and name[-1] in _PLACE_ENDS and name[:-1] in self._text)
        flat = _flat(name)
        return (
            flat in self._flat
            or set(terms(name)) <= self._terms
            # Victoria of Victorian, and a name's letters for the name.
            or (len(flat) >= 5 and any(word.startswith(flat[: max(4, len(flat) - 3)]) for word in self._terms))
            or (name.isupper() and flat in _initials(self._text))
        )

    @cached_property
    def _flat(self) -> str:
        return _flat(self._text)

    @cached_property
    def _terms(self) -> frozenset[str]:
        return frozenset(terms(self._text))


def _flat(text: str) -> str:
    text = re.sub(r"[\s\-_./'’]+", "", text).lower()
    if text.isascii():
        return text
    kept = (c for c in unicodedata.normalize("NFD", text.translate(_STROKES)) if not unicodedata.combining(c))
    return "".join(kept)


_STROKES: Final = str.maketrans("łøđħı", "lodhi")


def _initials(text: str) -> str:
    """WWII of World War II, and UN of United Nations."""
    found = [match[0] for match in _CAPITALISED.finditer(text)]
    return "".join(word if word.isupper() and len(word) < 5 else word[0] for word in found).lower()
