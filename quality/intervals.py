"""How sure a figure is: 95 % intervals by resampling the questions. Seeded, so the same run says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quality.metrics import auroc

RESAMPLES = 2000
_TAIL = 2.5  # percent, on each side
_AT_ONCE = 2_000_000  # resampled values in memory

Values = NDArray[np.float64]
Statistic = Callable[[Values], Values]  # rows of samples → one figure per row


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its interval, from n questions."""

    value: float
    low: float
    high: float
    n: int


def mean(rows: Values) -> Values:
    return np.asarray(rows.mean(axis=1), dtype=np.float64)


def percentile(share: float) -> Statistic:
    return lambda rows: np.asarray(np.percentile(rows, share, axis=1), dtype=np.float64)


def of_values(values: Sequence[float], *, statistic: Statistic = mean, seed: int = 0) -> Figure | None:
    """None where there are no values."""
    if not values:
        return None
    sample = np.asarray(values, dtype=np.float64)
    found = _resampled(sample, statistic, seed)
    return _figure(float(statistic(sample[None, :])[0]), found, len(sample))


def of_differences(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Figure | None:
    """How much the mean changed, the questions resampled in pairs: what both runs found easy or hard cancels out."""
    pairs = [late - early for early, late in zip(before, after, strict=True)]
    return of_values(pairs, seed=seed)


def of_auroc(answerable: Sequence[float], unanswerable: Sequence[float], *, seed: int = 0) -> Figure | None:
    """Both sides resampled, each by itself."""
    yes, no = np.asarray(answerable, dtype=np.float64), np.asarray(unanswerable, dtype=np.float64)
    if not len(yes) or not len(no):
        return None
    draws = _draws(len(yes), len(no), seed)
    found = np.array([auroc(yes[mine], no[theirs]) for mine, theirs in draws])
    return _figure(auroc(yes, no), found, len(yes) + len(no))


def of_auroc_difference(
    before: tuple[Sequence[float], Sequence[float]], after: tuple[Sequence[float], Sequence[float]], *, seed: int = 0
) -> Figure | None:
    """(answerable, unanswerable) of the same questions in the same order in both runs."""
    old = [np.asarray(side, dtype=np.float64) for side in before]
    new = [np.asarray(side, dtype=np.float64) for side in after]
    if not len(old[0]) or not len(old[1]):
        return None
    draws = _draws(len(old[0]), len(old[1]), seed)
    found = np.array([auroc(new[0][m], new[1][t]) - auroc(old[0][m], old[1][t]) for m, t in draws])
    return _figure(auroc(*new) - auroc(*old), found, len(old[0]) + len(old[1]))


def _draws(mine: int, theirs: int, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    chance = np.random.default_rng(seed)
    return [(chance.integers(0, mine, mine), chance.integers(0, theirs, theirs)) for _ in range(RESAMPLES)]


def _resampled(sample: Values, statistic: Statistic, seed: int) -> Values:
    chance = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _AT_ONCE // len(sample)))
    found = []
    for start in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - start)
        found.append(statistic(sample[chance.integers(0, len(sample), (count, len(sample)))]))
    return np.concatenate(found)


def _figure(value: float, found: Values, n: int) -> Figure:
    low, high = np.percentile(found, [_TAIL, 100.0 - _TAIL])
    return Figure(round(value, 4), round(float(low), 4), round(float(high), 4), n)
