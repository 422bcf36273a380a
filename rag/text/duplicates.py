"""Passages that say the same: marked by a MinHash when they are stored, listed as one when they are found. The door to
rensa."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rag.models import Also, Hit
from rag.text.keywords import tagged
from rag.text.language import HAN, simplified

FORMAT = 1  # of a signature; raise it when the shingles change
_PERMUTATIONS = 64  # 32 bits each: 256 bytes for a chunk, whose vector takes 768
_SEED = 20_251_120
_HEADER = 2  # bytes: our format, and the version of the library's algorithm

# Estimated Jaccard similarity of the shingles; bench/fit_duplicates.py tells why. One word in fifty changes 0.11.
NEAR = 0.8
_LOOKED_AT = 30  # best passages that are compared, though fewer are wanted: what the reranker judges

_TOKEN = re.compile(rf"[{HAN}]|\d+(?:[.,]\d+)*|[^\W\d_{HAN}]+")
_HAN_DIGITS = "〇零一二两三四五六七八九十百千万亿"
# What must be the same, in the same order, for two texts to say the same: numbers, months, and what is denied.
_FACT = re.compile(
    rf"\d+(?:[.,]\d+)*|[{_HAN_DIGITS}]{{2,}}|[{_HAN_DIGITS}](?=[天日周月季年岁倍元次级成点分页条章人家名项小])"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?|dozens?|half)\b"
    r"|\b(?:january|february|april|june|july|august|september|october|november|december)\b"
    r"|\b(?:not|no|never|none|neither|nor|without|cannot|except|unless)\b|n['’]t\b|[不没未无勿禁]"
)
_NAME = re.compile(r"\b[A-Z][^\W\d_]+")


def signature(text: str) -> bytes:
    """258 bytes by which texts can be compared: two of format and algorithm, then 64 minima, little endian.

    Of shingles of three: words, and single Han characters. Case, width, script (traditional or simplified) and
    punctuation do not matter.
    """
    return _header() + _minima(text).tobytes()


def is_signature_of(stored: bytes, text: str) -> bool:
    """Whether it is the text's, as far as that can be told: one of another format may well be."""
    return stored[:_HEADER] != _header() or stored == signature(text)


def collapse(ranked: Sequence[Hit], *, k: int) -> list[Hit]:
    """The k best passages that differ, in their order; each lists in `also` those that say the same as it.

    Near-duplicates whose numbers, dates, negations or names differ say something else, and stay. Of equal scores the
    passage that was stored last speaks for the others. Looks at the k best and some more, at every passage once.
    """
    groups: list[list[Hit]] = []
    known = np.empty((min(k, len(ranked)), _PERMUTATIONS), dtype=np.uint32)
    for position, hit in enumerate(ranked):
        if len(groups) == k and position >= _LOOKED_AT:
            break
        mine = _stored(hit)
        near = np.flatnonzero((known[: len(groups)] == mine).mean(axis=1) >= NEAR)
        same = next((groups[at] for at in near if _say_the_same(groups[at][0].text, hit.text)), None)
        if same is not None:
            same.append(hit)
        elif len(groups) < k:
            known[len(groups)] = mine
            groups.append([hit])
    return [_one(group) for group in groups]


def _one(group: Sequence[Hit]) -> Hit:
    if len(group) == 1:
        return group[0]
    best = max(group, key=lambda hit: (hit.score, hit.chunk_id))
    others = (Also.of(hit) for hit in group if hit is not best)
    return replace(best, also=(*best.also, *others))


# ── signatures ────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=1)
def _header() -> bytes:
    from rensa import RMinHash

    return bytes((FORMAT, RMinHash.ALGORITHM_VERSION))


@lru_cache(maxsize=1 << 12)  # of passages that were stored before there were signatures
def _minima(text: str) -> NDArray[np.uint32]:
    from rensa import RMinHash

    sketch = RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
    sketch.update(shingles(text))
    return np.array(sketch.digest(), dtype="<u4")


def _stored(hit: Hit) -> NDArray[np.uint32]:
    if hit.signature[:_HEADER] == _header() and len(hit.signature) == _HEADER + 4 * _PERMUTATIONS:
        return np.frombuffer(hit.signature, dtype="<u4", offset=_HEADER)
    return _minima(hit.text)


def shingles(text: str) -> list[str]:
    tokens = _TOKEN.findall(_folded(text))
    return list(map(" ".join, zip(tokens, tokens[1:], tokens[2:], strict=False))) or [" ".join(tokens)]


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else simplified(unicodedata.normalize("NFKC", text)).lower()


# ── facts ─────────────────────────────────────────────────────────────────────────────────────


def _say_the_same(one: str, other: str) -> bool:
    """Of two texts that are nearly the same."""
    if one == other:
        return True
    mine, theirs = _folded(one), _folded(other)
    if _FACT.findall(mine) != _FACT.findall(theirs):
        return False
    here, there = set(_TOKEN.findall(mine)), set(_TOKEN.findall(theirs))
    return not (_new_names(one, there) and _new_names(other, here)) and not _renamed(mine, theirs)


def _new_names(text: str, known: set[str]) -> bool:
    """Whether it names something that the other text does not know."""
    return any(name.lower() not in known for name in _NAME.findall(text))


def _renamed(one: str, other: str) -> bool:
    """Whether each has Chinese names that the other lacks: 北京 here and 上海 there. One byline more is nothing."""
    if one.isascii() or other.isascii():
        return False
    mine, theirs = _names(one), _names(other)
    return bool(mine - theirs) and bool(theirs - mine)


def _names(text: str) -> set[str]:
    return {word for word, part in tagged(text) if part.startswith(("nr", "ns", "nt", "nz")) and len(word) > 1}
