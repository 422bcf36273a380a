"""Two runs over the same questions: what changed, and whether anything got measurably worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from quality import intervals
from quality.intervals import Figure
from quality.report import AUROC, LATENCY, LOWER_IS_BETTER, METRICS, Report, evidence_of, measures_of
from quality.run import Record
from rag.errors import InvalidInput

TOLERANCE = 0.01  # a loss that is surely larger than this is one


@dataclass(frozen=True, slots=True)
class Change:
    """How one measure of one group moved, over the questions that both runs asked. `change` is after minus before."""

    dataset: str
    language: str
    metric: str
    before: float
    after: float
    change: Figure
    worse: bool
    better: bool


@dataclass(frozen=True, slots=True)
class Flip:
    """A question that failed in one run only."""

    dataset: str
    id: str
    question: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left_out`: measures that meant something else when an older baseline was made, and are not compared."""

    changes: list[Change]
    flips: list[Flip]
    left_out: list[str] = field(default_factory=list)

    @property
    def worse(self) -> list[Change]:
        return [change for change in self.changes if change.worse]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(baseline: Report, report: Report, *, tolerance: float = TOLERANCE, seed: int = 0) -> Comparison:
    """Worse is a 95 % interval of the paired difference that lies wholly beyond the tolerance, on the bad side.

    Latency is not compared: it says more about the machine and its other work. Raises InvalidInput where the baseline
    has a group of which this run asked nothing: what was not measured has not passed.
    """
    old, new = _by_group(baseline.questions), _by_group(report.questions)
    absent = [key for key in old if not old[key].keys() & new.get(key, {}).keys()]
    if absent:
        names = ", ".join(f"{dataset} ({language})" for dataset, language in absent)
        raise InvalidInput(
            f"The baseline was measured on {names}, and this run asked none of those questions.",
            remedy="Run it on the same datasets with the same --seed, or make a new baseline.",
        )
    changes: list[Change] = []
    flips: list[Flip] = []
    for key, before in old.items():
        after = new[key]
        shared = [(before[name], after[name]) for name in before if name in after]
        changes += _changes(key, shared, tolerance=tolerance, seed=seed)
        flips += [
            Flip(key[0], late.id, late.question, early.failure, late.failure)
            for early, late in shared
            if early.failure != late.failure
        ]
    return Comparison(changes, flips, left_out=list(baseline.made.get("left_out", ())))


def _by_group(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, Record]]:
    groups: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        groups.setdefault((record.dataset, record.language), {})[record.id] = record
    return groups


def _changes(
    key: tuple[str, str], shared: Sequence[tuple[Record, Record]], *, tolerance: float, seed: int
) -> list[Change]:
    values: dict[str, tuple[list[float], list[float]]] = {}
    for early, late in shared:
        before, after = measures_of(early), measures_of(late)
        # Of what only one of the two answered, the citations cannot be compared; that it was refused is a measure too.
        for name in before.keys() & after.keys():
            pair = values.setdefault(name, ([], []))
            pair[0].append(before[name])
            pair[1].append(after[name])
    figures = {name: (_mean(a), _mean(b), intervals.of_differences(a, b, seed=seed)) for name, (a, b) in values.items()}
    figures |= _auroc(shared, seed=seed)
    return [
        _change(key, name, *figures[name], tolerance=tolerance)
        for name in METRICS
        if name in figures and name not in LATENCY
    ]


def _auroc(shared: Sequence[tuple[Record, Record]], *, seed: int) -> Mapping[str, tuple[float, float, Figure | None]]:
    both = [
        pair
        for pair in shared
        if pair[0].evidence is not None and pair[1].evidence is not None and pair[0].answerable == pair[1].answerable
    ]
    before, after = evidence_of([early for early, _ in both]), evidence_of([late for _, late in both])
    change = intervals.of_auroc_difference(before, after, seed=seed)
    if change is None:
        return {}
    old, new = intervals.of_auroc(*before, seed=seed), intervals.of_auroc(*after, seed=seed)
    assert old is not None
    assert new is not None
    return {AUROC: (old.value, new.value, change)}


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _change(
    key: tuple[str, str], name: str, before: float, after: float, change: Figure | None, *, tolerance: float
) -> Change:
    assert change is not None  # there is a value, so there is a difference
    low, high = (-change.high, -change.low) if name in LOWER_IS_BETTER else (change.low, change.high)
    return Change(*key, name, before, after, change, worse=high < -tolerance, better=low > tolerance)
