"""Rounds of measures as medians, ratios, a table, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

Rounds = Sequence[Mapping[str, float]]  # of one contestant: measure → value
MEASURES = (
    "chunks",
    "tokens embedded",
    "ingest CPU s",
    "ingest s",
    "ingest CPU s / 1,000 chunks",
    "ingest s / 1,000 chunks",
    "ingest CPU s / 1,000 tokens of text",
    "share of the fp32 roofline",
    "share of the bf16 roofline",
    "PDF pages / CPU s",
    "PDF pages / s",
    "re-sync CPU s",
    "re-sync s",
    "one change CPU s",
    "one change s",
    "start CPU s",
    "start s",
    "first answer s",
    "question CPU ms, 1 client",
    "question p50 ms, 1 client",
    "question p95 ms, 1 client",
    "question p99 ms, 1 client",
    "questions / s, 1 client",
    "question CPU ms, 8 clients",
    "question p50 ms, 8 clients",
    "question p95 ms, 8 clients",
    "question p99 ms, 8 clients",
    "questions / s, 8 clients",
    "question CPU ms, 32 clients",
    "question p50 ms, 32 clients",
    "question p95 ms, 32 clients",
    "question p99 ms, 32 clients",
    "questions / s, 32 clients",
    "ingest peak MiB",
    "asked peak MiB",
    "disk MiB",
    "hit@5",
)
DRAWN = (
    "ingest CPU s",
    "re-sync CPU s",
    "one change CPU s",
    "start CPU s",
    "question CPU ms, 1 client",
    "asked peak MiB",
)
_COLOURS = ("#1f6f54", "#7fb69f", "#b9d7ca", "#8a8f98", "#c3a46b", "#a0705a")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def medians(rounds: Rounds) -> dict[str, float]:
    """Of every measure that was taken, over the rounds in which it was."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: median(one[name] for one in rounds if name in one) for name in names}


def ratios(theirs: Rounds, ours: Rounds, measure: str) -> tuple[float, float, float] | None:
    """Theirs by ours, round by round: median, lowest, highest. None where one of them has no such measure, or 0."""
    pairs = [(a[measure], b[measure]) for a, b in zip(theirs, ours, strict=True) if a.get(measure) and b.get(measure)]
    found = sorted(a / b for a, b in pairs)
    return (median(found), found[0], found[-1]) if found else None


def table(rounds: Mapping[str, Rounds], *, ours: str) -> str:
    """Markdown: the median of each measure, and how many times ours it is in each round: median (lowest–highest)."""
    others = [name for name in rounds if name != ours]
    middle = {name: medians(some) for name, some in rounds.items()}
    lines = [["", *rounds, *(f"{name} ÷ {ours}" for name in others)]]
    lines.append(["---"] * len(lines[0]))
    for measure in MEASURES:
        if not any(measure in one for one in middle.values()):
            continue
        values = [shown(middle[name].get(measure)) for name in rounds]
        times = [_times(ratios(rounds[name], rounds[ours], measure)) for name in others]
        lines.append([measure, *values, *times])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def compared(new: Mapping[str, Rounds], old: Mapping[str, Rounds]) -> str:
    """Markdown: medians of now by those of another run, of what both measured."""
    both = [name for name in new if name in old]
    now, then = ({name: medians(run[name]) for name in both} for run in (new, old))
    lines = [["now ÷ then", *both], ["---"] * (1 + len(both))]
    for measure in MEASURES:
        pairs = [(now[name].get(measure), then[name].get(measure)) for name in both]
        if any(a and b for a, b in pairs):
            lines.append([measure, *(f"{a / b:.2f}" if a and b else "" for a, b in pairs)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def picture(rounds: Mapping[str, Rounds]) -> str:
    """An SVG: for some measures a bar for each contestant, as a part of the longest one. Shorter is better."""
    label, room, row, gap = 150, 380, 16, 26
    middle = {name: medians(some) for name, some in rounds.items()}
    parts, y = [], 8
    for measure in DRAWN:
        present = [(number, name) for number, name in enumerate(rounds) if measure in middle[name]]
        if not present:
            continue
        longest = max(middle[name][measure] for _, name in present) or 1.0
        parts.append(f'<text x="0" y="{y + 12}" font-weight="bold">{escape(measure)}</text>')
        y += row + 4
        for number, name in present:
            value = middle[name][measure]
            width, colour = max(1.0, room * value / longest), _COLOURS[number % len(_COLOURS)]
            parts.append(f'<text x="{label - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="{label}" y="{y + 1}" width="{width:.1f}" height="{row - 3}" fill="{colour}"/>')
            parts.append(f'<text x="{label + width + 6:.1f}" y="{y + 12}">{shown(value)}</text>')
            y += row
        y += gap - row
    size = f'viewBox="0 0 620 {y}" width="620" height="{y}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    frame = f'<rect width="620" height="{y}" fill="#fff"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{frame}{"".join(parts)}</svg>\n'


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(found: tuple[float, float, float] | None) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f}–{found[2]:.2f})" if found else ""
