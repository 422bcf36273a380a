"""One round of one contestant: it reads the corpus from nothing, starts again on what it stored, and is asked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeVar

from bench.speed.contestants import Contestant, Reader, Running
from bench.speed.corpus import Asked, Corpus, CountTokens
from bench.speed.processes import cpu_seconds, disk_mib, settled_cpu_seconds, watched_memory
from bench.speed.report import percentile
from bench.speed.roofline import Products, arithmetic

T = TypeVar("T")
CLIENTS = (1, 8, 32)
_WINDOW, _SPECIAL_TOKENS = 256, 2  # of all-MiniLM-L6-v2: what a text has beyond is not embedded
_WARMING = 7  # questions that are not counted: what is loaded for the first Chinese one, say
_READ_TIMES = 3  # the PDFs: reading them once takes little beside a tick of the clock of CPU time
TOP_K = 5
_NEWS = "\n\nThis paragraph was added later, and nothing else of the file was changed.\n"


def one_round(
    contestant: Contestant,
    corpus: Corpus,
    folder: Path,
    *,
    asked: tuple[int, ...],
    roofline: Mapping[str, Products],
    count_tokens: CountTokens,
) -> dict[str, float]:
    """Measure → value. `asked` is how many questions are asked by one, eight and thirty-two clients. `folder` holds the
    store, and a copy of the files, one of which changes."""
    files, store = folder / "files", folder / "store"
    found: dict[str, float] = {}
    if contestant.syncs:
        shutil.copytree(corpus.folder, files)
        found |= _first(contestant, files, store, roofline=roofline, count_tokens=count_tokens)
        found["ingest CPU s / 1,000 tokens of text"] = found["ingest CPU s"] * 1000 / corpus.tokens(count_tokens)
    return found | _second(contestant, corpus, files, store, asked=asked)


def _first(
    contestant: Contestant,
    files: Path,
    store: Path,
    *,
    roofline: Mapping[str, Products],
    count_tokens: CountTokens,
) -> dict[str, float]:
    with contestant.running(files, store, top_k=TOP_K) as running, watched_memory(running.pid) as memory:
        settled_cpu_seconds(running.pid)
        chunks, wall, cpu = _timed(running, running.sync)
        lengths = [min(one + _SPECIAL_TOKENS, _WINDOW) for one in count_tokens(running.chunks())]
    flop = arithmetic(lengths)
    return {
        "chunks": chunks,
        "tokens embedded": sum(lengths),
        "ingest s": wall,
        "ingest CPU s": cpu,
        "ingest s / 1,000 chunks": wall * 1000 / chunks,
        "ingest CPU s / 1,000 chunks": cpu * 1000 / chunks,
        "ingest peak MiB": memory[-1],
        **{f"share of the {kind} roofline": flop / one.per_cpu_second / cpu for kind, one in roofline.items()},
    }


def _second(
    contestant: Contestant, corpus: Corpus, files: Path, store: Path, *, asked: tuple[int, ...]
) -> dict[str, float]:
    warming, *groups = shared_out(corpus.questions, asked)
    began = time.perf_counter()
    with contestant.running(files, store, top_k=TOP_K) as running, watched_memory(running.pid) as memory:
        found = {"start s": time.perf_counter() - began}
        running.ask([warming[0].text], clients=1)
        found["first answer s"] = time.perf_counter() - began
        found["start CPU s"] = settled_cpu_seconds(running.pid)
        running.ask([one.text for one in warming[1:]], clients=1)
        for clients, questions in zip(CLIENTS, groups, strict=True):
            found |= _asked(running, questions, clients=clients)
        if contestant.syncs:
            found |= _read(running)
            _, found["re-sync s"], found["re-sync CPU s"] = _timed(running, running.sync)
            with sorted(files.glob("*.txt"))[0].open("a", encoding="utf-8") as changed:
                changed.write(_NEWS)
            _, found["one change s"], found["one change CPU s"] = _timed(running, running.sync)
    found["asked peak MiB"] = memory[-1]
    found["disk MiB"] = disk_mib(store)
    return found


def _read(running: Running) -> dict[str, float]:
    """Pages of the PDFs that become text, without what comes after; what reads them has started and read them once."""
    with running.reading() as reader:
        reader.read(times=1)
        pages, wall, cpu = _timed(reader, lambda: reader.read(times=_READ_TIMES))
    return {"PDF pages / s": pages / wall, "PDF pages / CPU s": pages / max(cpu, 0.01)}


def shared_out(questions: Sequence[Asked], asked: tuple[int, ...]) -> tuple[Sequence[Asked], ...]:
    """No question twice: a cache of questions would answer it."""
    ends = list(accumulate(asked, initial=_WARMING))
    if len(questions) < ends[-1]:
        raise ValueError(f"{ends[-1]} different questions are needed; the corpus has {len(questions)}.")
    return tuple(questions[start:end] for start, end in pairwise([0, *ends]))


def _timed(running: Running | Reader, work: Callable[[], T]) -> tuple[T, float, float]:
    """What it returns, its wall seconds, and CPU seconds with what it leaves to be done in the background."""
    cpu, began = cpu_seconds(running.pid), time.perf_counter()
    done = work()
    wall = time.perf_counter() - began
    return done, wall, settled_cpu_seconds(running.pid) - cpu


def _asked(running: Running, questions: Sequence[Asked], *, clients: int) -> dict[str, float]:
    cpu = cpu_seconds(running.pid)
    told = running.ask([one.text for one in questions], clients=clients)
    spent = cpu_seconds(running.pid) - cpu
    label = f"{clients} client{'s' if clients > 1 else ''}"
    found = {
        f"question p50 ms, {label}": percentile(told["milliseconds"], 0.5),
        f"question p95 ms, {label}": percentile(told["milliseconds"], 0.95),
        f"question p99 ms, {label}": percentile(told["milliseconds"], 0.99),
        f"questions / s, {label}": len(questions) / told["seconds"],
        f"question CPU ms, {label}": spent * 1000 / len(questions),
    }
    known = [(one.files, files) for one, files in zip(questions, told["found"], strict=True) if one.files]
    if known and clients == 1:
        found["hit@5"] = sum(not files.isdisjoint(names) for files, names in known) / len(known)
    return found
