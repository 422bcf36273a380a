"""The report as one HTML page that needs nothing else: no network, no library, no file beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from quality import plots
from quality.failures import MEANING
from quality.intervals import Figure
from quality.metrics import refusal_curve
from quality.report import LATENCY, METRICS, REFUSAL_RATE, TABLES, Group, Report, evidence_of, shown
from quality.run import Record
from rag.answering.evidence import ENOUGH

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .2rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
small, .soft { opacity: .7; } .worse { color: #c22; font-weight: 600; } .better { color: #182; font-weight: 600; }
svg { max-width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
svg circle { fill: #27c; } svg .bar { stroke: #27c; stroke-width: 2; } svg .grid { stroke: var(--soft); }
svg .frame { stroke: var(--line); fill: none; } svg .zero { stroke: currentColor; stroke-dasharray: 3 3; opacity: .6; }
details { border-bottom: 1px solid var(--line); padding: .4rem 0; } summary { cursor: pointer; }
.failure { background: var(--soft); border-radius: 4px; padding: .1rem .4rem; font-size: .85em; }
.gold { background: #2a22; } ol { padding-left: 1.6rem; } li { margin: .3rem 0; overflow-wrap: anywhere; }
.filters { position: sticky; top: 0; background: Canvas; padding: .6rem 0; display: flex; gap: 1rem; flex-wrap: wrap; }
"""
_SCRIPT = """
const [failure, dataset, word, said] = ["failure", "dataset", "word", "count"].map(id => document.getElementById(id));
const chosen = failure ? [failure, dataset] : [];
function filter() {
  let n = 0;
  for (const item of document.querySelectorAll("details.question")) {
    const fits = chosen.every(one => !one.value || item.dataset[one.id] === one.value)
      && item.textContent.toLowerCase().includes(word.value.toLowerCase());
    item.hidden = !fits; n += fits;
  }
  said.textContent = n;
}
if (failure) { [...chosen, word].forEach(one => one.addEventListener("input", filter)); filter(); }
"""


def page(report: Report) -> str:
    body = [
        "<h1>How well it answers</h1>",
        _made(report),
        *(_metric_table(title, names, report.groups) for title, names in TABLES.items()),
        _comparison(report.comparison),
        _plots(report.groups),
        _curve(report.questions),
        _failures(report.questions),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Attest: evaluation</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}<script>{_SCRIPT}</script></body></html>\n"
    )


def _made(report: Report) -> str:
    made = report.made
    datasets = ", ".join(
        f"{one['name']} ({one['questions']} questions, {one['documents']} documents)" for one in report.datasets
    )
    settings = ", ".join(f"{name} {value}" for name, value in made.get("settings", {}).items() if value is not None)
    embedder = made.get("embedder", {}).get("name", "")
    rows = [
        ("Made", f"{made.get('at', '')}, Attest {made.get('attest', '')}, seed {made.get('seed')}"),
        *([] if made.get("complete", True) else [("Interrupted", f"after {len(report.questions)} questions")]),
        ("Datasets", datasets),
        ("Settings", settings),
        *([("Embedder", f"{embedder} ({made['embedder'].get('identity', '')})")] if embedder else []),
    ]
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td style='white-space:normal'>{escape(value)}</td></tr>" for name, value in rows
    )
    return f"<table>{cells}</table><p class='soft'>In brackets: 95 % intervals, from resampled questions.</p>"


def _metric_table(title: str, names: Sequence[str], groups: Sequence[Group]) -> str:
    kinds = sorted({name for group in groups for name in group.metrics if name.startswith(f"{REFUSAL_RATE}:")})
    columns = [*names, *kinds] if REFUSAL_RATE in names else list(names)
    columns = [name for name in columns if any(name in group.metrics for group in groups)]
    if not columns:
        return ""
    rows = [
        [
            group.dataset,
            group.language,
            str(group.questions),
            *(shown(name, group.metrics.get(name)) for name in columns),
        ]
        for group in groups
    ]
    return f"<h2>{escape(title)}</h2>{_table(['dataset', 'language', 'questions', *columns], rows)}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _comparison(comparison: Mapping[str, Any] | None) -> str:
    if comparison is None:
        return ""
    moved = [one for one in comparison["changes"] if one["change"]["value"] or one["worse"] or one["better"]]
    if not moved:
        return f"<h2>Against the baseline</h2><p>No measure moved.</p>{_left_out(comparison)}"
    figures = [(f"{one['metric']} · {one['dataset']} ({one['language']})", Figure(**one["change"])) for one in moved]
    reach = max(max(abs(figure.low), abs(figure.high)) for _, figure in figures)
    rows = "".join(
        f"<tr><td>{escape(one['dataset'])}</td><td>{escape(one['language'])}</td><td>{escape(one['metric'])}</td>"
        f"<td>{one['before']:.3f} → {one['after']:.3f}</td>"
        f"<td>{one['change']['value']:+.3f} [{one['change']['low']:+.3f}, {one['change']['high']:+.3f}]</td>"
        f"<td>{'<span class=worse>worse</span>' if one['worse'] else ''}"
        f"{'<span class=better>better</span>' if one['better'] else ''}</td></tr>"
        for one in moved
    )
    head = "<tr><th>dataset<th>language<th>measure<th>before → after<th>change<th>measurably</tr>"
    flips = "".join(
        f"<li>{escape(flip['dataset'])}: {escape(flip['question'])} "
        f"<small>{escape(flip['before'] or 'right')} → {escape(flip['after'] or 'right')}</small></li>"
        for flip in comparison["flips"]
    )
    return (
        f"<h2>Against the baseline</h2>{_left_out(comparison)}{plots.forest(figures, low=-reach, high=reach)}"
        f'<div class="wide"><table>{head}{rows}</table></div>'
        f"<details><summary>{len(comparison['flips'])} questions went another way</summary><ol>{flips}</ol></details>"
    )


def _left_out(comparison: Mapping[str, Any]) -> str:
    names = ", ".join(map(escape, comparison["left_out"]))
    return f"<p>Not compared, for the baseline's version counted otherwise: {names}.</p>" if names else ""


def _plots(groups: Sequence[Group]) -> str:
    parts = []
    for name in METRICS:
        if name in LATENCY:
            continue
        rows = [
            (f"{group.dataset} ({group.language})", group.metrics[name]) for group in groups if name in group.metrics
        ]
        if rows:
            parts.append(f"<h3>{escape(name)}</h3>{plots.forest(rows)}")
    return f"<h2>Plots</h2>{''.join(parts)}" if parts else ""


def _curve(records: Sequence[Record]) -> str:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(f"{record.dataset} ({record.language})", []).append(record)
    lines = []
    for name, some in groups.items():
        yes, no = evidence_of(some)
        if yes and no:
            lines.append((name, refusal_curve(yes, no)))
    if not lines:
        return ""
    return (
        f"<h2>Refusal</h2>{plots.curves(lines, at_threshold=ENOUGH)}"
        f"<p class='soft'>By the evidence score alone; the dot is where it refuses by default ({ENOUGH}).</p>"
    )


def _failures(records: Sequence[Record]) -> str:
    failed = [record for record in records if record.failure is not None]
    if not failed:
        return "<h2>Failures</h2><p>None.</p>"
    classes = [name for name in MEANING if any(record.failure == name for record in failed)]
    datasets = list(dict.fromkeys(record.dataset for record in failed))
    meanings = "".join(f"<li><b>{escape(name)}</b>: {escape(MEANING[name])}</li>" for name in classes)
    return (
        f"<h2>Failures</h2><ul>{meanings}</ul><div class='filters'>"
        f"<label>Why {_select('failure', classes)}</label><label>Dataset {_select('dataset', datasets)}</label>"
        f"<label>Word <input id='word'></label><span><b id='count'>{len(failed)}</b> of {len(failed)}</span></div>"
        f"{''.join(map(_failure, failed))}"
    )


def _select(name: str, values: Sequence[str]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(value)}</option>' for value in values)
    return f'<select id="{name}"><option value="">all</option>{options}</select>'


def _failure(record: Record) -> str:
    ranks = ", ".join(f"{name} {rank or '–'}" for name, rank in record.ranks.items() if name != "depth")
    depth = record.ranks.get("depth")
    hits = "".join(
        f'<li class="{"gold" if hit["gold"] else ""}"><b>{escape(hit["title"])}</b> <small>{escape(hit["uri"])} · '
        f"{hit['score']:.2f} · {escape(_arms(hit['arms']))}</small>"
        f"<br>{escape(hit['text'])}</li>"
        for hit in record.hits
    )
    cited = "".join(
        f'<li class="{"gold" if item["gold"] else ""}"><small>{escape(item["uri"])} · {escape(item["support"])}</small>'
        f"<br>{escape(item['quote'])}</li>"
        for item in record.citations
    )
    gold = ", ".join(str(one["document"]) for one in record.gold)
    evidence = "–" if record.evidence is None else f"{record.evidence:.3f}"
    return (
        f'<details class="question" data-failure="{record.failure}" data-dataset="{escape(record.dataset)}">'
        f"<summary><span class='failure'>{escape(record.failure or '')}</span> {escape(record.question)} "
        f"<small>{escape(record.dataset)} · {escape(record.id)}</small></summary>"
        f"<p>Expected: {escape(' | '.join(record.answers)) or ('an answer' if record.answerable else 'a refusal')}"
        f"<br>From: {escape(gold) or '–'}<br>Said: {escape(record.answer or record.reason)}"
        f"<br><small>evidence {evidence} · rank of the gold passage: {escape(ranks)} (looked at {depth})</small></p>"
        f"<p>Cited</p><ol>{cited or '<li>nothing</li>'}</ol><p>Found</p><ol>{hits or '<li>nothing</li>'}</ol></details>"
    )


def _arms(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
