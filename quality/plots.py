"""Plots as SVG, made here: a page that a browser opens without a network needs no library for three of them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from quality.intervals import Figure

_WIDTH, _ROW, _LABEL, _NUMBER = 640, 22, 250, 120


def forest(rows: Sequence[tuple[str, Figure]], *, low: float = 0.0, high: float = 1.0) -> str:
    """A dot and its interval for each row, on one axis; a line at 0 where that lies within."""
    left, right = _LABEL, _WIDTH - _NUMBER
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return left + (min(max(value, low), high) - low) / span * (right - left)

    height = _ROW * len(rows) + 26
    parts = [_axis(left, right, height - 20, [low + span * tick / 4 for tick in range(5)], at)]
    if low < 0 < high:
        parts.append(f'<line class="zero" x1="{at(0):.1f}" x2="{at(0):.1f}" y1="0" y2="{height - 20}"/>')
    for number, (label, figure) in enumerate(rows):
        y = _ROW * number + _ROW / 2
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(_short(label))}</text>')
        parts.append(f'<line class="bar" x1="{at(figure.low):.1f}" x2="{at(figure.high):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle cx="{at(figure.value):.1f}" cy="{y}" r="4"/>')
        said = f"{figure.value:.3f} (n = {figure.n})"
        parts.append(f'<text x="{right + 8}" y="{y + 4}">{said}</text>')
    return _svg(_WIDTH, height, parts)


def curves(lines: Sequence[tuple[str, Sequence[tuple[float, float, float]]]], *, at_threshold: float) -> str:
    """Refused of the answerable (x) against refused of the unanswerable (y), one line each; a dot where the threshold
    in force stands."""
    size, left, top = 340, 46, 10
    parts = [f'<rect class="frame" x="{left}" y="{top}" width="{size}" height="{size}"/>']
    parts.append(f'<line class="zero" x1="{left}" y1="{top + size}" x2="{left + size}" y2="{top}"/>')
    for tick in range(5):
        share = tick / 4
        x, y = left + share * size, top + size - share * size
        parts.append(f'<text x="{x}" y="{top + size + 16}" text-anchor="middle">{share:.2f}</text>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:.2f}</text>')
    for number, (label, points) in enumerate(lines):
        colour = f"hsl({(number * 137) % 360} 65% 42%)"
        path = " ".join(f"{left + false * size:.1f},{top + size - right * size:.1f}" for _, right, false in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        _, right, false = min(points, key=lambda point: abs(point[0] - at_threshold))
        x, y = left + false * size, top + size - right * size
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{colour}"/>')
        parts.append(
            f'<text x="{left + size + 14}" y="{top + 16 + 18 * number}" style="fill:{colour}">{escape(label)}</text>'
        )
    parts.append(f'<text x="{left + size / 2}" y="{top + size + 34}" text-anchor="middle">answerable, refused</text>')
    middle = top + size / 2
    parts.append(
        f'<text text-anchor="middle" transform="translate(10 {middle}) rotate(-90)">unanswerable, refused</text>'
    )
    return _svg(size + left + 250, max(size + 56, top + 30 + 18 * len(lines)), parts)


def _axis(left: float, right: float, y: float, ticks: Sequence[float], at: object) -> str:
    assert callable(at)
    lines = [f'<line class="frame" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>']
    for tick in ticks:
        x = at(tick)
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{y}"/>')
        lines.append(f'<text x="{x:.1f}" y="{y + 15}" text-anchor="middle">{tick:.2g}</text>')
    return "".join(lines)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img">{"".join(parts)}</svg>'


def _short(label: str) -> str:
    return label if len(label) <= 38 else f"{label[:37]}…"
