"""`attest eval`: datasets and questions of one's own, measured; see docs/evaluation.md.

A dataset's documents go into a knowledge base in a cache folder, which this process owns while it asks. Questions about
a collection of one's own go through the service, as every other command does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.shared import connected, read_settings
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from app.eval_run import Moved, Run
    from quality.compare import Comparison
    from quality.models import Dataset
    from quality.report import Report

WORSE = 5  # the exit code of a gate that found a loss


def evaluate(
    dataset: Annotated[
        list[Path] | None,
        typer.Argument(help="A dataset's folder or file, a folder of several, or questions as .jsonl or .csv."),
    ] = None,
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
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Ask what people gave feedback on, in the collection.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and report.html.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was broken off in the --out folder.")
    ] = False,
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
    from app.eval_run import Preparation, Run
    from quality.compare import compare as compare_runs
    from quality.report import load

    if compare is not None and gate is not None and compare != gate:
        raise typer.BadParameter("Give --compare or --gate; --gate compares too.", param_hint="--compare")
    baseline_path = gate or compare
    baseline = load(baseline_path) if baseline_path is not None else None  # before an hour of work, not after it
    if resume and out is None:
        raise typer.BadParameter("Say with --out which run to resume.", param_hint="--resume")
    if not dataset and not feedback:
        raise typer.BadParameter("Name a dataset or a file of questions, or give --feedback.", param_hint="DATASET")
    chosen = _chosen(dataset or [], pooled=pooled, across=across)
    run = Run(
        prepare=Preparation(limit=limit, seed=seed, held_out=held_out),
        settings=read_settings(),
        cache=(cache or Path.home() / ".cache" / "attest" / "eval").expanduser(),
        collection=collection,
        service=lambda: connected(working=True),
        moving=_moving,
        out=out,
        resume=resume,
        feedback=feedback,
    )
    try:
        run.measure(chosen)
    except KeyboardInterrupt:
        _show_part(run, out=out, as_json=as_json)
        raise
    report = run.report()
    comparison = None
    if baseline is not None:
        try:
            comparison = compare_runs(baseline, report, tolerance=tolerance, seed=seed)
        except InvalidInput:
            _show(report, None, out=out, as_json=as_json)  # what was measured is not lost with the comparison
            raise
        report = replace(report, comparison=comparison.to_json())
    _show(report, comparison, out=out, as_json=as_json)
    if gate is not None and comparison is not None and comparison.worse:
        raise typer.Exit(WORSE)


def _show_part(run: Run, *, out: Path | None, as_json: bool) -> None:
    """What an interrupted run has measured so far."""
    from app.terminal import hint

    if run.records:
        _show(run.report(complete=False), None, out=out, as_json=as_json)
    asked = f"Interrupted after {len(run.records)} questions"
    hint(f"{asked}; the same command with --resume goes on." if out is not None else f"{asked}.")


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
    if comparison.left_out:
        hint(f"Not compared, for the baseline's version counted otherwise: {', '.join(comparison.left_out)}")
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
