"""Fits the weights of `rag.rerank.light` on one half of questions with known answers, and reports the other.

    ATTEST_EVAL_DATA=… python bench/fit_rerank.py --cache /tmp/ranking

The questions are asked as bench/ranking.py asks them, each dataset of its own documents and of those of all, and halved
by a hash of their ids. On one half the weights are fitted, for each language (softmax over the 30 best candidates of
each question, none below zero; datasets count by the root of their size). On the other, fused scores alone, the weights
of the reranker and those just fitted are compared, with intervals of paired bootstrap resamples. Weights are put into
rag/rerank/light.py only where they win with an interval above zero and lose nowhere.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ranking import Asked, Library, candidates, half_of, order, read_sets

from quality import datasets, intervals, metrics
from quality.tuning import FITTED, fit_weights
from rag.rerank.light import FEATURES, WEIGHTS, LightReranker, features
from rag.text.language import language_of

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """A question's best candidates: features (candidates, FEATURES) and, of each gold document, its candidates."""

    dataset: str
    id: str
    rows: Rows
    gold: tuple[frozenset[int], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    parser.add_argument("--cache", type=Path, required=True, help="folder for vectors, which take longest")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    library, data = Library(arguments.cache), Path(arguments.data)
    found = read_sets(data)
    pool = datasets.pooled(found, datasets.read_aliases(data / "pool_aliases.json"))
    shelf = library.shelf(pool[0].documents or ())
    judged: dict[str, list[Judged]] = {"en": [], "zh": []}
    for one, together in zip(found, pool, strict=True):
        judged[language_of(one.questions[0].text)] += _judged([*library.asked(one), *library.asked(together, shelf)])
    for language, asked in judged.items():
        fitted = _fit([item for item in asked if half_of(item.id) == 0], FITTED[language])
        sys.stdout.write(f"\n{language}: {', '.join(f'{n} {w:.2f}' for n, w in zip(FEATURES, fitted, strict=True))}\n")
        _report([item for item in asked if half_of(item.id) == 1], np.array(WEIGHTS[language]), fitted)


def _judged(asked: Sequence[Asked]) -> Iterable[Judged]:
    took = 0.0
    for item in asked:
        best = order(item, "fused", LightReranker())[: LightReranker.depth]
        began = time.thread_time()
        rows = np.array(features(item.question.text, item.wanted, candidates(item, best)))
        took += time.thread_time() - began
        gold = tuple(frozenset(at for at, key in enumerate(best) if key in one) for one in item.gold)
        yield Judged(item.dataset, item.question.id, rows, gold)
    sys.stderr.write(f"{asked[0].dataset}: {1000 * took / len(asked):.1f} ms of features for each question\n")


# ── weights ───────────────────────────────────────────────────────────────────────────────────


def _fit(asked: Sequence[Judged], names: Sequence[str]) -> Rows:
    """Weights of all FEATURES that sum to 1, those not named 0."""
    sizes = Counter(item.dataset for item in asked)
    found = [
        (item.rows, np.array([any(at in one for one in item.gold) for at in range(len(item.rows))], float))
        for item in asked
    ]
    return fit_weights(found, names, counts=[sizes[item.dataset] ** -0.5 for item in asked])


def _report(asked: Sequence[Judged], present: Rows, fitted: Rows) -> None:
    fused_alone = np.eye(len(FEATURES))[FEATURES.index("fused")]
    for name in dict.fromkeys(item.dataset for item in asked):
        own = [item for item in asked if item.dataset == name]
        before = [_measures(item, present) for item in own]
        for label, weights in (("fused", fused_alone), ("present", present), ("fitted", fitted)):
            after = [_measures(item, weights) for item in own]
            cells = []
            for at, measure in enumerate(("hit@1", "hit@5", "ndcg@10")):
                change = intervals.of_differences([one[at] for one in before], [one[at] for one in after])
                assert change is not None
                cells.append(
                    f"{measure} {np.mean([one[at] for one in after]):.3f}"
                    f" ({change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}])"
                )
            sys.stdout.write(f"{name:24} n={len(own)} {label:8} {'  '.join(cells)}\n")


def _measures(item: Judged, weights: Rows) -> tuple[float, float, float]:
    order = np.argsort(-(item.rows @ weights), kind="stable")
    place = {int(at): rank for rank, at in enumerate(order, 1)}
    ranks = [min((place[at] for at in one), default=None) for one in item.gold]
    return metrics.hit_at(ranks, 1), metrics.hit_at(ranks, 5), metrics.ndcg(ranks, 10)


if __name__ == "__main__":
    main()
