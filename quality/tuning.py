"""Fits how passages are weighed (`rag.retrieval.ranking`) on questions whose gold passages are known. Pure functions.

Half of the questions fit, the other half say what it is worth: `half_of`. Weights stay on the way from the defaults,
which were fitted on thousands of questions, to those that suit these best, and on few questions they do not go far.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quality import metrics
from quality.intervals import Figure, of_differences
from rag.rerank.light import FEATURES, WEIGHTS, LightReranker
from rag.retrieval.fusion import DENSE_WEIGHT
from rag.retrieval.ranking import Weighing

# In English the share of words in the whole passage adds nothing to that of its best sentence; in Chinese, where a
# sentence's terms are pairs of characters, the others add nothing to it.
FITTED = {"en": ("fused", "near", "sentence", "pair", "phrase"), "zh": ("fused", "words")}
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_PENALTY = 0.03
_STEPS, _STEP = 3_000, 0.3
_DEFAULTS_COUNT = 50  # questions that the default weights count as much as
_WAYS = (0.0, 0.25, 0.5, 0.75, 1.0)  # how far from the defaults
_ROUNDS = 2  # weights, share, weights, share: a third changes nothing any more

Values = NDArray[np.float64]
Gold = tuple[frozenset[int], ...]  # of each gold place that is needed, the rows of the passages that have it


@dataclass(frozen=True, slots=True)
class Judged:
    """A question's candidates, row for row. `vectors` and `terms`: their scores by either arm, stretched to 0 … 1 (n);
    `rows`: FEATURES of each (n, features), of which `fused` is not filled in; `read`: what the vectors weigh where
    their share is 1, less as the embedder knows less of the question."""

    vectors: Values
    terms: Values
    rows: Values
    read: float
    gold: Gold

    def at(self, share: float) -> Values:
        """FEATURES of each (n, features) with this share for the vectors."""
        rows = self.rows.copy()
        dense = share * self.read
        rows[:, FEATURES.index("fused")] = dense * self.vectors + (1.0 - dense) * self.terms
        return rows


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was measured on questions that fitted nothing, with the defaults and as fitted; `gain` is that of nDCG@10.
    It is `kept` where its interval lies above zero and the first passage is not the wrong one more often."""

    before: dict[str, float]
    after: dict[str, float]
    gain: Figure

    @property
    def kept(self) -> bool:
        return self.gain.low > 0.0 and self.after["hit@1"] >= self.before["hit@1"]


def half_of(question: str) -> int:
    """0: fits; 1: reports. By its words, so that a question that is asked twice is on one side."""
    return hashlib.sha256(" ".join(question.casefold().split()).encode("utf-8", "surrogatepass")).digest()[0] % 2


def fit(asked: Sequence[Judged], *, language: str, weigh: bool) -> Weighing:
    """The vectors' share and, with `weigh`, the light reranker's weights for questions in one language; in turns."""
    if not weigh:
        return Weighing(_best_share(asked, None))
    default = np.array(WEIGHTS[language]) / sum(WEIGHTS[language])
    weights, share = default, _best_share(asked, default)
    far = len(asked) / (len(asked) + _DEFAULTS_COUNT)
    for _ in range(_ROUNDS):
        own = fit_weights([best_of(item, share) for item in asked], FITTED[language])
        ways = [default + way * far * (own - default) for way in _WAYS]
        worth = [_worth(asked, share, some) for some in ways]
        weights = ways[int(np.argmax(worth))]  # of those that are equally good the nearest
        share = _best_share(asked, weights)
    return Weighing(share, tuple(np.round(weights, 4).tolist()))


def judge(before: Sequence[Gold], after: Sequence[Gold]) -> Verdict:
    """Of the same questions in the same order, ranked by the defaults and as fitted: the places of gold passages, best
    first, counted from 0. There is at least one question."""
    measured = [[measures(one) for one in side] for side in (before, after)]
    told = [
        {name: round(float(np.mean([one[name] for one in side])), 4) for name in ("ndcg@10", "hit@1", "mrr@10")}
        for side in measured
    ]
    gain = of_differences(*([one["ndcg@10"] for one in side] for side in measured))
    assert gain is not None
    return Verdict(told[0], told[1], gain)


def measures(gold: Gold) -> dict[str, float]:
    ranks = [min(one) + 1 if one else None for one in gold]
    return {
        "ndcg@10": metrics.ndcg(ranks, 10),
        "hit@1": metrics.hit_at(ranks, 1),
        "mrr@10": metrics.reciprocal_rank(ranks, 10),
    }


def ranked(item: Judged, how: Weighing) -> list[int]:
    """Rows, best first, as `rag.retrieval.retrieve` ranks them; without weights as they are fused."""
    return _order(item, how.share, None if how.weights is None else np.array(how.weights))


def best_of(item: Judged, share: float) -> tuple[Values, Values]:
    """What is judged once more: FEATURES of each (n, features), and which are gold (n)."""
    rows = item.at(share)
    best = _by(rows[:, FEATURES.index("fused")])[: LightReranker.depth]
    gold = frozenset().union(*item.gold)
    return rows[best], np.array([float(at in gold) for at in best.tolist()])


def _best_share(asked: Sequence[Judged], weights: Values | None) -> float:
    """Of those that are equally good the one nearest to the default."""
    return max(SHARES, key=lambda share: (_worth(asked, share, weights), -abs(share - DENSE_WEIGHT)))


def _worth(asked: Sequence[Judged], share: float, weights: Values | None) -> float:
    """nDCG@10."""
    found = []
    for item in asked:
        place = {row: at for at, row in enumerate(_order(item, share, weights))}
        found.append(measures(tuple(frozenset(place[row] for row in one) for one in item.gold))["ndcg@10"])
    return round(float(np.mean(found)), 6) if found else 0.0


def _order(item: Judged, share: float, weights: Values | None) -> list[int]:
    rows = item.at(share)
    order = _by(rows[:, FEATURES.index("fused")])
    if weights is None:
        return list(map(int, order))
    best, rest = order[: LightReranker.depth], order[LightReranker.depth :]
    best = best[_by(rows[best] @ weights)]
    return [*map(int, best), *map(int, rest)]


def _by(scores: Values) -> NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")


def fit_weights(
    asked: Sequence[tuple[Values, Values]], names: Sequence[str], *, counts: Sequence[float] | None = None
) -> Values:
    """Weights of all FEATURES that sum to 1, those not named 0, none below zero: softmax over the candidates of each
    question, (n, FEATURES) and which are gold (n). Questions without a gold candidate say nothing. `counts`: how much
    each question counts, by default all the same."""
    used = [FEATURES.index(name) for name in names]
    each = np.ones(len(asked)) if counts is None else np.asarray(counts, dtype=np.float64)
    kept = [(rows[:, used], gold, count) for (rows, gold), count in zip(asked, each, strict=True) if gold.any()]
    if not kept:
        return np.array([float(name == "fused") for name in FEATURES])
    share = np.array([count for _, _, count in kept])
    share /= share.sum()
    spread = np.concatenate([rows for rows, _, _ in kept]).std(axis=0) + 1e-9
    longest = max(len(rows) for rows, _, _ in kept)
    values = np.zeros((len(kept), longest, len(used)))
    right = np.zeros((len(kept), longest))
    there = np.zeros((len(kept), longest), bool)
    for at, (rows, gold, _) in enumerate(kept):
        values[at, : len(rows)] = rows / spread
        right[at, : len(rows)] = gold / gold.sum()
        there[at, : len(rows)] = True
    weights = np.ones(len(used))
    flat = values.reshape(-1, len(used))
    for _ in range(_STEPS):
        scores = np.where(there, values @ weights, -np.inf)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        slope = (share[:, None] * (chances - right)).ravel() @ flat + 2 * _PENALTY * weights
        weights = np.maximum(weights - _STEP * slope, 0.0)
    found = np.zeros(len(FEATURES))
    found[used] = weights / spread
    total = found.sum()
    return found / total if total > 0 else np.array([float(name == "fused") for name in FEATURES])
