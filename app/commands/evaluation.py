"""`attest eval`: datasets and questions of one's own, measured; see docs/evaluation.md.

A dataset's documents go into a knowledge base in a cache folder, which this process owns while it asks. Questions about
a collection of one's own go through the service, as every other command does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.shared import connected, read_settings
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from app.client import Client
    from app.eval_service import ServiceSubject
    from quality.compare import Comparison
    from quality.models import Dataset
    from quality.report import Report
    from quality.run import Record
    from quality.subject import Subject
    from rag.settings import Settings

WORSE = 5  # the exit code of a gate that found a loss

Moved = Callable[[int, int | None], None]


def evaluate(
    dataset: Annotated[
        list[Path],
        typer.Argument(help="A dataset's folder or file, a folder of several, or questions as .jsonl or .csv."),
    ],
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Ask this collection. Default where no documents come along: default."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions per dataset, always the same ones.")] = None,
    seed: Annotated[int, typer.Option(help="Of samples, held-out documents and intervals.")] = 0,
    held_out: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Take documents out, so that about this share of the questions has no answer."
        ),
    ] = None,
    pooled: Annotated[bool, typer.Option("--pooled", help="Ask each dataset of the documents of all.")] = False,
    across: Annotated[
        bool, typer.Option("--across", help="Add questions in one language about documents in the other.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.html.")] = None,
    compare: Annotated[Path | None, typer.Option(help="A report.json from before; shows what changed.")] = None,
    gate: Annotated[
        Path | None, typer.Option(help="A report.json from before; exit code 5 when something got measurably worse.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="A loss that is surely larger than this is one.")] = 0.01,
    cache: Annotated[
        Path | None, typer.Option(help="Where datasets' knowledge bases are kept. Default: ~/.cache/attest/eval.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure retrieval, answers, citations, refusal and latency. Exit code 5 when --gate finds a loss."""
    from quality.compare import compare as compare_runs
    from quality.report import load

    if compare is not None and gate is not None and compare != gate:
        raise typer.BadParameter("Give --compare or --gate; --gate compares too.", param_hint="--compare")
    baseline_path = gate or compare
    baseline = load(baseline_path) if baseline_path is not None else None  # before an hour of work, not after it
    chosen = _chosen(dataset, pooled=pooled, across=across)
    prepare = _Preparation(limit=limit, seed=seed, held_out=held_out)
    cache = (cache or Path.home() / ".cache" / "attest" / "eval").expanduser()
    report = _measured(chosen, prepare, read_settings(), collection=collection, cache=cache)
    comparison = None
    if baseline is not None:
        comparison = compare_runs(baseline, report, tolerance=tolerance, seed=seed)
        report = replace(report, comparison=comparison.to_json())
    _show(report, comparison, out=out, as_json=as_json)
    if gate is not None and comparison is not None and comparison.worse:
        raise typer.Exit(WORSE)


def _chosen(paths: Sequence[Path], *, pooled: bool, across: bool) -> list[Dataset]:
    from quality import datasets

    found = [one for path in paths for one in datasets.open_dataset(path)]
    if across:
        found += datasets.across(found)
    if pooled:
        aliases: dict[str, str] = {}
        for path in paths:
            for folder in (path, path.parent):
                aliases |= datasets.read_aliases(folder / "pool_aliases.json")
        found = datasets.pooled(found, aliases)
    names = [one.name for one in found]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise InvalidInput(f"Two datasets are called {', '.join(double)}.", remedy="Rename a folder or file.")
    return found


class _Preparation:
    """What is done to each dataset before it is asked. The same numbers do the same every time."""

    def __init__(self, *, limit: int | None, seed: int, held_out: float | None) -> None:
        self.limit = limit
        self.seed = seed
        self.held_out = held_out

    def __call__(self, dataset: Dataset) -> Dataset:
        from quality import datasets

        if self.held_out is not None:
            dataset = datasets.hold_out(dataset, self.held_out, seed=self.seed)
        return datasets.sample(dataset, self.limit, seed=self.seed)


# ── measuring ─────────────────────────────────────────────────────────────────────────────────


def _measured(
    chosen: Sequence[Dataset], prepare: _Preparation, settings: Settings, *, collection: str | None, cache: Path
) -> Report:
    from quality.report import Report, summarise

    own = [one for one in chosen if collection is not None or one.documents is None]
    records: list[Record] = []
    told: list[dict[str, Any]] = []
    asked_of: dict[str, Any] = {}
    embedder: dict[str, str] = {}
    if own:
        from app.eval_service import ServiceSubject

        with connected(working=True) as client:
            client.wait_until_ready()
            subject = ServiceSubject(client, collection or "default")
            asked_of = _about_service(client, subject)
            for dataset in own:
                if prepare.held_out is not None:
                    dataset = subject.copied(replace(dataset, documents=None))
                    told.append(_asked_of_a_copy(dataset, prepare, settings, cache, records))
                else:
                    told.append(_asked(prepare(dataset), subject, records, documents=len(subject.documents)))
    others = [one for one in chosen if one not in own]
    if others:
        from app.eval_bases import DatasetBases

        bases = DatasetBases(cache, settings)
        embedder = bases.about()
        for dataset in map(prepare, others):
            told.append(_asked_of_base(dataset, bases, records))
    made = {
        **_about_run(),
        "seed": prepare.seed,
        "limit": prepare.limit,
        "held_out": prepare.held_out,
        "settings": {name: settings.without_secrets()[name] for name in _SETTINGS},
        "embedder": embedder,
        "service": asked_of,
    }
    return Report(made, told, summarise(records, seed=prepare.seed), records)


# What of the settings bears on quality; paths and addresses of this machine are nobody's business.
_SETTINGS = ("embedder", "llm", "llm_max_tokens", "llm_window", "top_k", "chunk_tokens")


def _asked_of_a_copy(
    dataset: Dataset, prepare: _Preparation, settings: Settings, cache: Path, records: list[Record]
) -> dict[str, Any]:
    """Documents are taken out of a copy of the collection, never of the collection itself."""
    from app.eval_bases import DatasetBases

    return _asked_of_base(prepare(dataset), DatasetBases(cache, settings), records)


def _asked_of_base(dataset: Dataset, bases: Any, records: list[Record]) -> dict[str, Any]:
    assert dataset.documents is not None
    with (
        _moving(f"{dataset.name}: documents", len(dataset.documents)) as moved,
        bases.open(dataset, moved=moved) as subject,
    ):
        return _asked(dataset, subject, records, documents=len(dataset.documents))


def _asked(dataset: Dataset, subject: Subject, records: list[Record], *, documents: int) -> dict[str, Any]:
    from quality.run import run

    done = 0
    with _moving(f"{dataset.name}: questions", len(dataset.questions)) as moved:

        def asked(record: Record) -> None:
            nonlocal done
            records.append(record)
            done += 1
            moved(done, len(dataset.questions))

        run(dataset, subject, asked=asked)
    return {
        "name": dataset.name,
        "documents": documents,
        "questions": len(dataset.questions),
        "answerable": sum(question.answerable for question in dataset.questions),
    }


def _about_run() -> dict[str, Any]:
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import version

    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "attest": version("attest"),
        "python": platform.python_version(),
    }


def _about_service(client: Client, subject: ServiceSubject) -> dict[str, Any]:
    chosen = client.collection(subject.collection)
    return {"collection": chosen["name"], "documents": chosen["documents"], "chunks": chosen["chunks"]}


@contextmanager
def _moving(name: str, total: int) -> Iterator[Moved]:
    """A bar on stderr, or a line now and then where that is no terminal."""
    import sys
    import time

    from app.terminal import clean, hint

    if not sys.stderr.isatty():
        said = time.monotonic()

        def tell(done: int, of: int | None) -> None:
            nonlocal said
            if time.monotonic() - said >= 10.0:
                said = time.monotonic()
                hint(f"{name}: {done} of {of or total}")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(clean(name), total=total)
        yield lambda done, of: bars.update(task, completed=done, total=of or total)


# ── showing ───────────────────────────────────────────────────────────────────────────────────


def _show(report: Report, comparison: Comparison | None, *, out: Path | None, as_json: bool) -> None:
    from app.terminal import hint, show_json
    from quality.page import page
    from quality.report import save, to_json

    if as_json:
        show_json(to_json(report))
    else:
        _tables(report)
        if comparison is not None:
            _changes(comparison)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        save(report, out / "report.json")
        (out / "report.html").write_text(page(report), "utf-8")
        hint(f"Written: {out / 'report.json'}, {out / 'report.html'}")


def _tables(report: Report) -> None:
    from app.terminal import hint, table
    from quality.failures import MEANING
    from quality.report import REFUSAL_RATE, TABLES
    from quality.report import table as rows_of

    for title, names in TABLES.items():
        kinds = sorted(
            {name for group in report.groups for name in group.metrics if name.startswith(f"{REFUSAL_RATE}:")}
        )
        columns = [*names, *kinds] if REFUSAL_RATE in names else list(names)
        rows = rows_of(report.groups, columns)
        if rows:
            hint(f"\n{title}, with 95 % intervals")
            table(("dataset", "language", "questions", *columns), rows)
    failed = [
        (group.dataset, group.language, name, str(count), MEANING[name])  # type: ignore[index]
        for group in report.groups
        for name, count in group.failures.items()
    ]
    if failed:
        hint("\nWhy questions failed")
        table(("dataset", "language", "failure", "questions", "meaning"), failed)


def _changes(comparison: Comparison) -> None:
    from app.terminal import hint, table

    moved = [one for one in comparison.changes if one.change.value or one.worse or one.better]
    hint(f"\nAgainst the baseline: {len(moved)} of {len(comparison.changes)} measures moved")
    rows = [
        (
            one.dataset,
            one.language,
            one.metric,
            f"{one.before:.3f} → {one.after:.3f}",
            f"{one.change.value:+.3f} [{one.change.low:+.3f}, {one.change.high:+.3f}]",
            "worse" if one.worse else "better" if one.better else "",
        )
        for one in moved
    ]
    if rows:
        table(("dataset", "language", "measure", "before → after", "change", "measurably"), rows)
    for one in comparison.worse:
        hint(f"Worse: {one.metric} of {one.dataset} ({one.language}), {one.before:.3f} → {one.after:.3f}")
