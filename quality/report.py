"""Records → figures with intervals, per dataset and language; the report as a file and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from quality import intervals
from quality.failures import MEANING
from quality.intervals import Figure
from quality.lines import whole_json
from quality.run import Record
from rag.errors import InvalidInput

SCHEMA = "attest-eval/2"
# Older ones that can be read, each with the measures that have changed their meaning since.
_OLDER: Mapping[str, tuple[str, ...]] = {"attest-eval/1": ("exact_match", "f1")}

# Measures that are a mean over questions, in the order in which they are shown. Of an answerable question that was
# refused the answer counts as wrong; citations are those of the answers that were given.
MEANS = (
    "hit@1",
    "hit@5",
    "hit@10",
    "mrr@10",
    "ndcg@10",
    "all_gold@10",
    "contains_gold",
    "first_contains_gold",
    "misled",
    "both_sides",
    "exact_match",
    "f1",
    "short_answers",
    "short_exact_match",
    "short_f1",
    "sentences",
    "characters",
    "cited_gold",
    "cited_page",
    "cited_document",
    "citation_precision",
    "citation_recall",
    "evidence_overlap",
    "exact_quote",
)
REFUSAL_RATE, FALSE_REFUSALS, AUROC = "refusal_rate", "false_refusal_rate", "evidence_auroc"
LATENCY = ("latency_p50_ms", "latency_p95_ms")
LENGTH = ("sentences", "characters")
LOWER_IS_BETTER = frozenset({FALSE_REFUSALS, "misled", *LATENCY, *LENGTH})
METRICS = (*MEANS, REFUSAL_RATE, FALSE_REFUSALS, AUROC, *LATENCY)


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of one dataset in one language."""

    dataset: str
    language: str
    questions: int
    answerable: int
    metrics: dict[str, Figure]
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """`made` says how: time, version, seed, settings, embedder; of a report by an older version also `left_out`, the
    measures that meant something else and are not in it any more. `datasets` has the size of each."""

    made: dict[str, Any]
    datasets: list[dict[str, Any]]
    groups: list[Group]
    questions: list[Record]
    comparison: dict[str, Any] | None = field(default=None)


def summarise(records: Sequence[Record], *, seed: int) -> list[Group]:
    """One group for each dataset and language, in the order in which they were asked."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.dataset, record.language), []).append(record)
    return [_group(*key, some, seed=seed) for key, some in groups.items()]


def _group(dataset: str, language: str, records: Sequence[Record], *, seed: int) -> Group:
    figures = {name: intervals.of_values(values, seed=seed) for name, values in _values(records).items()}
    yes, no = evidence_of(records)
    figures[AUROC] = intervals.of_auroc(yes, no, seed=seed)
    times = [record.milliseconds for record in records if record.milliseconds is not None]
    for name, share in zip(LATENCY, (50.0, 95.0), strict=True):
        figures[name] = intervals.of_values(times, statistic=intervals.percentile(share), seed=seed)
    failures = Counter(record.failure for record in records if record.failure is not None)
    return Group(
        dataset=dataset,
        language=language,
        questions=len(records),
        answerable=sum(record.answerable for record in records),
        metrics={name: figure for name, figure in _in_order(figures) if figure is not None},
        failures={name: failures[name] for name in MEANING if failures[name]},
    )


def _values(records: Iterable[Record]) -> dict[str, list[float]]:
    """Measure → its values, where a question has one. Kinds of unanswerable questions are also told apart."""
    found: dict[str, list[float]] = {}
    kinds = {record.kind for record in records if not record.answerable and record.kind}
    for record in records:
        for name, value in measures_of(record).items():
            found.setdefault(name, []).append(value)
        if not record.answerable and len(kinds) > 1 and record.kind:
            found.setdefault(f"{REFUSAL_RATE}:{record.kind}", []).append(record.measures["refused"])
    return found


def measures_of(record: Record) -> dict[str, float]:
    """By the names of METRICS."""
    refused = {FALSE_REFUSALS if record.answerable else REFUSAL_RATE: record.measures["refused"]}
    return {name: record.measures[name] for name in MEANS if name in record.measures} | refused


def evidence_of(records: Iterable[Record]) -> tuple[list[float], list[float]]:
    """The evidence of the answerable and of the unanswerable questions."""
    told = [(record.answerable, record.evidence) for record in records if record.evidence is not None]
    return [value for answerable, value in told if answerable], [value for answerable, value in told if not answerable]


def _in_order(figures: Mapping[str, Figure | None]) -> list[tuple[str, Figure | None]]:
    places = {name: place for place, name in enumerate(METRICS)}
    return sorted(figures.items(), key=lambda item: (places[item[0].partition(":")[0]], item[0]))


# ── the file ──────────────────────────────────────────────────────────────────────────────────


def to_json(report: Report) -> dict[str, Any]:
    return {"schema": SCHEMA, **asdict(report)}


def save(report: Report, path: Path) -> None:
    path.write_text(json.dumps(to_json(report), ensure_ascii=False, indent=1) + "\n", "utf-8")


def load(path: Path) -> Report:
    """A report that was saved before, by an older version too: without the measures that meant something else then.

    Raises InvalidInput for anything else, and NotFound where there is nothing.
    """
    content = whole_json(path)
    schema = str(content.get("schema")) if isinstance(content, dict) else None
    if schema is None or (schema != SCHEMA and schema not in _OLDER):
        raise InvalidInput(
            f"{path} is no report of attest eval that can be compared: its schema is {schema!r}, not {SCHEMA!r}.",
            remedy="Make the baseline again: attest eval … --out FOLDER, and give its report.json.",
        )
    left_out = _OLDER.get(schema, ())
    try:
        return Report(
            made={**content["made"], "left_out": list(left_out)} if left_out else content["made"],
            datasets=content["datasets"],
            groups=[_group_from(group, left_out) for group in content["groups"]],
            questions=[Record(**_known(record, left_out)) for record in content["questions"]],
            comparison=content.get("comparison"),
        )
    except (KeyError, TypeError) as problem:
        raise InvalidInput(f"{path} is damaged: {problem}.", remedy="Make the baseline again.") from problem


def _group_from(content: Mapping[str, Any], left_out: Sequence[str]) -> Group:
    metrics = {name: Figure(**figure) for name, figure in content["metrics"].items() if name not in left_out}
    return Group(**{**content, "metrics": metrics})


def _known(record: Mapping[str, Any], left_out: Sequence[str]) -> dict[str, Any]:
    """Without fields that a later release may have added, and without measures that meant something else."""
    known = {name: value for name, value in record.items() if name in _FIELDS}
    return {**known, "measures": {name: value for name, value in record["measures"].items() if name not in left_out}}


_FIELDS = frozenset(get_type_hints(Record))


# ── for people ────────────────────────────────────────────────────────────────────────────────

TABLES = {
    "Retrieval": ("hit@1", "hit@5", "hit@10", "mrr@10", "ndcg@10", "all_gold@10"),
    "Answers": ("contains_gold", "first_contains_gold", "exact_match", "f1"),
    "Short answers and length": ("short_answers", "short_exact_match", "short_f1", *LENGTH),
    "Contradicted": ("misled", "both_sides"),
    "Citations": (
        "cited_gold",
        "cited_page",
        "citation_precision",
        "citation_recall",
        "evidence_overlap",
        "exact_quote",
    ),
    "Refusal": (REFUSAL_RATE, FALSE_REFUSALS, AUROC),
    "Latency": LATENCY,
}


def table(groups: Sequence[Group], names: Sequence[str]) -> list[list[str]]:
    """One row per group: dataset, language, questions, each figure with its interval."""
    return [
        [group.dataset, group.language, str(group.questions), *(shown(name, group.metrics.get(name)) for name in names)]
        for group in groups
        if any(name in group.metrics for name in names)
    ]


def shown(name: str, figure: Figure | None) -> str:
    if figure is None:
        return "–"
    if name in LATENCY:
        return f"{figure.value:.0f} [{figure.low:.0f}, {figure.high:.0f}]"
    return f"{figure.value:.3f} [{figure.low:.2f}, {figure.high:.2f}]"
