"""Draws docs/images/answer.svg: what `attest ask` really printed, over the sample corpus that `make demo` has read.

    python docs/images/render.py [DATA_FOLDER]

rich's own SVG export gives a Chinese character the width of a Latin one, so the lines are drawn here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
QUESTIONS = (
    "How much annual leave do full-time people in Rotterdam get?",
    "2025 年 10 月那次消防演练没有达标，是什么原因？",
)
_COLUMNS, _CELL, _LINE, _MARGIN = 100, 8.4, 21, 24  # characters, then pixels
_BACKGROUND, _TEXT, _DIM = "#0d1117", "#dee4eb", "#8b949e"
# No font is fetched from anywhere: the reader's own, with one for Chinese in reach.
_FONTS = (
    "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'PingFang SC', 'Noto Sans CJK SC', monospace"
)
_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]+")
_WORD = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]|[^\s\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60]+\s*|\s+")


def asked(question: str) -> Text:
    """The terminal's output, colours and all. Raises where the question has no answer."""
    command = [sys.executable, "-m", "app.cli", "ask", question]
    environment = {**os.environ, "FORCE_COLOR": "1"}
    done = subprocess.run(  # noqa: S603  # our own command line, no shell
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=True
    )
    return Text.from_ansi(done.stdout.rstrip("\n"))


def wrapped(line: Text) -> Iterator[Text]:
    """The line in parts that fit, broken between words, or between any two Chinese characters."""
    breaks, width = [], 0
    for word in _WORD.finditer(line.plain):
        if width and width + cell_len(word[0].rstrip()) > _COLUMNS:
            breaks.append(word.start())
            width = 0
        width += cell_len(word[0])
    yield from line.divide(breaks)


def drawn(lines: list[Text]) -> str:
    width, height = round(_COLUMNS * _CELL) + 2 * _MARGIN, len(lines) * _LINE + 2 * _MARGIN
    body = "\n".join(
        span for number, line in enumerate(lines) for span in _spans(line, _MARGIN + (number + 0.75) * _LINE)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{_FONTS}" font-size="14" fill="{_TEXT}">\n'
        f'<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>\n{body}\n</svg>\n'
    )


def _spans(line: Text, y: float) -> Iterator[str]:
    """One element for each run of one style and one width of characters, each at its own cell."""
    at = 0
    for segment in line.render(Console(width=_COLUMNS * 2, color_system="truecolor")):
        style, start = segment.style, 0
        for end in sorted({edge for run in _WIDE.finditer(segment.text) for edge in run.span()} | {len(segment.text)}):
            text, start = segment.text[start:end], end
            shown, before = text.strip(), len(text) - len(text.lstrip())  # SVG swallows blanks at the ends
            x, at = _MARGIN + (at + before) * _CELL, at + cell_len(text)
            if not shown:
                continue
            look = ' font-weight="bold"' if style and style.bold else ""
            look += f' fill="{_DIM}"' if style and style.dim else ""
            look += f' fill="{style.color.name}"' if style and style.color else ""
            length = cell_len(shown) * _CELL
            yield f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}"{look}>{escape(shown)}</text>'


def main() -> None:
    if len(sys.argv) > 1:
        os.environ["ATTEST_DATA_DIR"] = str(Path(sys.argv[1]).absolute())
    lines: list[Text] = []
    for question in QUESTIONS:
        prompt = Text.assemble(("$ ", "bold #3fb950"), ("attest ask ", "bold"), (f'"{question}"', "#39c5cf"))
        lines += [Text()] if lines else []
        lines += [part for line in (prompt, *asked(question).split("\n", allow_blank=True)) for part in wrapped(line)]
    (HERE / "answer.svg").write_text(drawn(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
