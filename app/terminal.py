"""What people see: answers, tables and progress. Results go to stdout, everything about them to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

Json = Mapping[str, Any]

# What was ingested may hold escape sequences; it must not be able to write to somebody's terminal settings.
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_LONGEST_QUOTE_CHARS = 300
_DEEPER = " › "  # between a section's title and that of one in it
_NO_MODEL = "extractive"  # what an answer made of the sources' sentences names as its model


def clean(text: object) -> str:
    return str(text).translate(_CONTROL)


def prepare() -> None:
    """Characters that this terminal's encoding lacks are shown as escapes instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _console(*, stderr: bool = False) -> Console:
    # Nothing in a text is markup, an emoji code or worth a colour of its own.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def say(text: str = "", *, style: str | None = None) -> None:
    """To stdout."""
    _console().print(clean(text), style=style)


def hint(text: str) -> None:
    """To stderr: about the work, not its result."""
    _console(stderr=True).print(clean(text), style="dim")


def complain(text: str) -> None:
    console = _console(stderr=True)
    console.print("Error: ", style="bold red", end="")
    console.print(clean(text))


def show_json(content: Any) -> None:
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    sys.stdout.write(json.dumps(content, ensure_ascii=encoding != "utf8", indent=2) + "\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for people; lines of tab-separated values, without the headings, for a pipe."""
    console = _console()
    if not console.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join(" ".join(clean(cell).split()) for cell in row) + "\n")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        shown.add_column(heading, overflow="fold")
    for row in rows:
        shown.add_row(*(clean(cell) for cell in row))
    console.print(shown, soft_wrap=False)


# ── answers and hits ──────────────────────────────────────────────────────────────────────────


def place(item: Json) -> str:
    """Where it stands in its document: “, page 6 (printed 2), Leave, row 12”. The title, which many sections begin
    with, is not said again."""
    label = item.get("page_label")
    page = f", page {item['page']}" if item.get("page") is not None else ""
    if page and label and label != str(item["page"]):
        page += f" (printed {label})"
    path = (item.get("section") or "").split(_DEEPER)
    deeper = _DEEPER.join(path[1:] if path[0] == item.get("title") else path)
    section = f", {deeper}" if deeper else ""
    row = f", row {item['row']}" if item.get("row") else ""
    return f"{page}{section}{row}"


def quoted(text: str) -> str:
    one_line = " ".join(text.split())
    return f"“{one_line[:_LONGEST_QUOTE_CHARS]}{'…' if len(one_line) > _LONGEST_QUOTE_CHARS else ''}”"


class Told:
    """An answer that is printed while it is being said, if somebody watches."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._printed = ""

    def sentence(self, said: Json) -> None:
        if not self._live:
            return
        self._short(said)
        marks = "".join(f"[{n}]" for n in said["citations"])
        gap = " " if self._printed and self._printed[-1].isascii() else ""
        spaced = f" {marks}" if marks and said["text"][-1:].isascii() else marks
        piece = f"{gap}{said['text']}{spaced}"
        self._printed += piece
        sys.stdout.write(clean(piece))
        sys.stdout.flush()

    def final(self, answer: Json) -> None:
        """The answer that counts, once: what was printed already is not repeated, unless it turned out otherwise."""
        if self._printed:
            say()
        if _letters(self._printed) != _letters(answer["answer"]):
            if self._printed:
                hint("That was provisional. The answer is:")
            self._short(answer)
            say(answer["answer"])
        self._remarks(answer)
        for citation in answer["citations"]:
            say()
            say(f"[{citation['n']}] {citation['title']}{place(citation)}", style="bold")
            say(f"    {quoted(citation['quote'])}")
            of = f", {citation['date']}" if citation.get("date") else ""
            say(f"    {citation['uri']}{of}", style="dim")
            show_also(citation)
        for number, closest in enumerate((answer["refusal"] or {"closest": []})["closest"], 1):
            say()
            say(f"Closest {number}: {closest['title']}{place(closest)} (score {closest['score']:.2f})", style="bold")
            say(f"    {quoted(closest['text'])}")
            say(f"    {closest['uri']}", style="dim")

    def _short(self, item: Json) -> None:
        """The phrase that answers, on a line before the sentences."""
        short = item.get("short_answer")
        if short:
            say(f"{' '.join(short['text'].split())} [{short['citation']}]", style="bold")

    def _remarks(self, answer: Json) -> None:
        for sentence in answer["sentences"]:
            if sentence["support"] != "supported":
                say(f"({sentence['support']} by the sources: {quoted(sentence['text'])})", style="yellow")
        if answer["degraded"]:
            hint(f"{_without_model(answer)}: {answer['degraded']}")


def _without_model(answer: Json) -> str:
    """What became of the question because the model did not answer it, or not as it should."""
    if answer["model"] != _NO_MODEL:
        return "The language model's answer"
    return "Refused without the language model" if answer["refused"] else "Answered without the language model"


def _letters(text: str) -> str:
    return "".join(text.split())


def show_context(passages: Sequence[Json]) -> None:
    """Whole, to be read or handed on; what it costs and where it is from goes with it."""
    for passage in passages:
        say(f"[{passage['n']}] {passage['title']}{place(passage)} ({passage['tokens']} tokens)", style="bold")
        if passage["header"]:
            say(passage["header"])
        text, end = "", None
        for span in passage["spans"]:
            text += span["text"] if end in (None, span["start"]) else f"\n…\n{span['text']}"
            end = span["end"]
        say(text)
        say(f"    {passage['uri']}", style="dim")


def show_hits(hits: Sequence[Json]) -> None:
    for number, hit in enumerate(hits, 1):
        arms = ", ".join(f"{name} {score:.2f}" for name, score in hit["arms"].items())
        say(f"{number}. {hit['score']:.2f}  {hit['title']}{place(hit)}", style="bold")
        say(f"    {quoted(hit['text'])}")
        say(f"    {hit['uri']} ({arms})", style="dim")
        show_also(hit)


def show_also(item: Json) -> None:
    """Where else a passage stands that says the same."""
    for also in item.get("also", ()):
        say(f"    also in: {also['title']}{place(also)}, {also['uri']}", style="dim")


# ── work ──────────────────────────────────────────────────────────────────────────────────────


_LINE_EVERY_SECONDS = 10.0  # where nobody watches a bar; the first one after as long
_RATE_SECONDS = 15.0  # over which chunks per second are counted


@contextmanager
def progress(names: Mapping[str, str]) -> Iterator[Callable[[Json], None]]:
    """A bar for each job (id → name) on stderr, or a line now and then where that is no terminal.

    Yields what is to be told of each move.
    """
    console = _console(stderr=True)
    paces = {job: ChunkPace() for job in names}
    if not console.is_terminal:
        yield _Lines(names, paces)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = [
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[shown]}", markup=False),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console) as bars:
        tasks = {job: bars.add_task(clean(name), total=None, shown="waiting") for job, name in names.items()}

        def moved(job: Json) -> None:
            at = job["progress"]
            over = job["finished_at"] is not None
            total = at["done"] if over and at["total"] is None else at["total"]
            task = next(task for task in bars.tasks if task.id == tasks[job["id"]])
            task.total = max(total, 1) if over else total  # not by `update`, where None leaves what was there
            bars.update(task.id, completed=at["done"], shown=how_far(job, paces[job["id"]]))

        yield moved


class ChunkPace:
    """Chunks per second of one job, over the last looks at it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, int]] = deque()

    def per_second(self, chunks: int) -> float | None:
        now = self._clock()
        if self._looks and chunks < self._looks[-1][1]:  # it was begun again
            self._looks.clear()
        self._looks.append((now, chunks))
        while len(self._looks) > 2 and self._looks[1][0] < now - _RATE_SECONDS:
            self._looks.popleft()
        began, first = self._looks[0]
        return (chunks - first) / (now - began) if now - began >= 1.0 and chunks > first else None


class _Lines:
    def __init__(self, names: Mapping[str, str], paces: Mapping[str, ChunkPace]) -> None:
        self._names = names
        self._paces = paces
        self._said_at = dict.fromkeys(names, time.monotonic())

    def __call__(self, job: Json) -> None:
        shown = how_far(job, self._paces[job["id"]])
        now = time.monotonic()
        if job["finished_at"] is not None or now - self._said_at[job["id"]] < _LINE_EVERY_SECONDS:
            return
        self._said_at[job["id"]] = now
        at = job["progress"]
        of = f" of {at['total']}" if at["total"] is not None else ""
        hint(f"{self._names[job['id']]}: {at['done']}{of} {at['unit']}, {shown}")


def how_far(job: Json, pace: ChunkPace) -> str:
    """“3 added, 1 failed · 812 chunks, 71/s · 2:05 left”: what there is of it."""
    at = job["progress"]
    rate = pace.per_second(at["chunks"])
    if job["state"] == "queued":
        return "waiting"
    said = [counts(job["counts"]) or str(job["state"])]
    if at["chunks"]:
        speed = f", {rate:.0f}/s" if rate is not None and rate >= 1 and job["finished_at"] is None else ""
        said.append(f"{at['chunks']} chunks{speed}")
    if at["eta_seconds"] is not None:
        said.append(f"{duration(at['eta_seconds'])} left")
    return " · ".join(said)


def duration(seconds: float) -> str:
    """“0:07”, “12:30”, “3:00:00”."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def counts(values: Mapping[str, int]) -> str:
    """“3 added, 1 failed”: what there is any of."""
    return ", ".join(f"{number} {state}" for state, number in values.items() if number)


def show_job(job: Json, *, name: str) -> None:
    """One line on how it went, and why for each thing that went wrong."""
    style = {"succeeded": "green", "partial": "yellow"}.get(job["state"], "red")
    say(f"{name}: {job['state']}, {counts(job['counts']) or 'nothing to do'}", style=style)
    if job["problem"]:
        hint(f"  {job['problem']['detail']} {job['problem']['remedy']}".rstrip())
    for item in job["items"]:
        problem = item["problem"]
        if problem:
            hint(f"  {item['key']}: {problem['detail']} {problem['remedy']}".rstrip())
