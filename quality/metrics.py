"""The measures. Pure functions; each says what it divides by what.

Ranks count from 1. Shares are 0 … 1, and None where there is nothing to divide by.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.text.language import is_han, simplified

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WORDS = re.compile(r"[^\W_]+")


# ── retrieval ─────────────────────────────────────────────────────────────────────────────────


def hit_at(ranks: Sequence[int | None], k: int) -> float:
    """1 where any gold place stands among the first k. `ranks` has the best rank of each gold place."""
    return float(any(rank is not None and rank <= k for rank in ranks))


def all_at(ranks: Sequence[int | None], k: int) -> float:
    """1 where every gold place stands among the first k."""
    return float(bool(ranks) and all(rank is not None and rank <= k for rank in ranks))


def reciprocal_rank(ranks: Sequence[int | None], k: int) -> float:
    """1 / rank of the first gold place, 0 behind k."""
    best = min((rank for rank in ranks if rank is not None and rank <= k), default=None)
    return 1.0 / best if best else 0.0


def ndcg(ranks: Sequence[int | None], k: int) -> float:
    """Each gold place gains 1 / log2(1 + rank) once, over what the best order would gain. Two gold places that stand in
    one passage share its rank, so they could gain more than the best order: the value is held to 1."""
    gained = sum(1.0 / math.log2(1 + rank) for rank in ranks if rank is not None and rank <= k)
    ideal = sum(1.0 / math.log2(1 + rank) for rank in range(1, min(len(ranks), k) + 1))
    return min(gained / ideal, 1.0) if ideal else 0.0


# ── answers ───────────────────────────────────────────────────────────────────────────────────


def normalised(text: str) -> list[str]:
    """The words of an answer as SQuAD and CMRC compare them: no punctuation, articles, capitals or width; Han one
    character each, folded to simplified. `1,207` is `1207`."""
    folded = simplified(unicodedata.normalize("NFKC", text).lower())
    kept = "".join(
        f" {character} " if is_han(character) else "" if _is_punctuation(character) else character
        for character in _without_dashes(folded)
    )
    return _WORDS.findall(_ARTICLES.sub(" ", kept))


def _without_dashes(text: str) -> str:
    # SQuAD deletes every mark; between words that would glue them (`1990–1995`), which no reader means.
    return re.sub(r"[-–—/~～]", " ", text)


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def exact_match(answer: str, gold: Sequence[str]) -> float:
    words = normalised(answer)
    return float(any(words == normalised(one) for one in gold))


def token_f1(answer: str, gold: Sequence[str]) -> float:
    """The best overlap with any gold answer: harmonic mean of the shares of words (in Chinese: characters) in common,
    counted as a bag. CMRC's own script takes the longest common run instead, which is never more."""
    return max((_f1(normalised(answer), normalised(one)) for one in gold), default=0.0)


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    if not said or not gold:
        return float(list(said) == list(gold))
    common = sum((Counter(said) & Counter(gold)).values())
    return 2.0 * common / (len(said) + len(gold)) if common else 0.0


def contains(answer: str, gold: Sequence[str], parts: Sequence[Sequence[str]] = ()) -> float:
    """1 where the answer has any gold answer as whole words in a row; with parts, one wording of each of them."""
    words = normalised(answer)
    if parts:
        return float(all(any(_has(words, normalised(one)) for one in wordings) for wordings in parts))
    return float(any(_has(words, normalised(one)) for one in gold))


def _has(words: Sequence[str], wanted: Sequence[str]) -> bool:
    size = len(wanted)
    return bool(size) and any(list(words[at : at + size]) == list(wanted) for at in range(len(words) - size + 1))


# ── citations ─────────────────────────────────────────────────────────────────────────────────


def precision(right: Sequence[bool]) -> float | None:
    """The share of what was cited that is gold; None where nothing was cited."""
    return sum(right) / len(right) if right else None


def overlaps(start: int, end: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start < last and first < end for first, last in spans)


def nearest(text: str, wanted: str, near: int) -> tuple[int, int] | None:
    """Where `wanted` stands in the text, white space aside: of several places the one that begins nearest to `near`."""
    words = wanted.split()
    if not words:
        return None
    pattern = r"\s+".join(map(re.escape, words))
    found = min(re.finditer(pattern, text), key=lambda match: abs(match.start() - near), default=None)
    return found.span() if found else None


# ── refusal ───────────────────────────────────────────────────────────────────────────────────


def auroc(answerable: NDArray[np.float64], unanswerable: NDArray[np.float64]) -> float:
    """The chance that a question with an answer has more evidence than one without; ties count half. .5 is guessing."""
    if not len(answerable) or not len(unanswerable):
        return math.nan
    _, inverse, counts = np.unique(np.concatenate([answerable, unanswerable]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    wins = ranks[: len(answerable)].sum() - len(answerable) * (len(answerable) + 1) / 2.0
    return float(wins / (len(answerable) * len(unanswerable)))


def refusal_curve(
    answerable: Sequence[float], unanswerable: Sequence[float], *, points: int = 101
) -> list[tuple[float, float, float]]:
    """(threshold, share of the unanswerable refused, share of the answerable refused) for thresholds from 0 to 1."""
    yes, no = np.asarray(answerable, dtype=float), np.asarray(unanswerable, dtype=float)
    return [
        (float(at), float((no < at).mean()) if len(no) else 0.0, float((yes < at).mean()) if len(yes) else 0.0)
        for at in np.linspace(0.0, 1.0, points)
    ]
