"""How much memory the service takes, and how soon and with how much work it answers. Linux only; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from bench.speed.processes import cpu_seconds, settled_cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
DATABASE = "ATTEST_DB_BENCH"
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "office files": ("folder", {"path": str(DATA / "corpus")}),
    "web pages": ("folder", {"path": str(DATA / "site"), "include": ["*.html"]}),
    "products": ("database", {"url_env": DATABASE}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=20, help="how many of the sample questions to ask (20)")
    parser.add_argument(
        "--chunks",
        type=int,
        nargs="+",
        metavar="N",
        help="instead: warm starts on made-up documents of so many passages",
    )
    parser.add_argument("--keep", type=Path, help="where those are made, and found again (a temporary folder)")
    parser.add_argument("--fill", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        _fill(Path(arguments.fill[0]), int(arguments.fill[1]))
        return
    if arguments.chunks:
        with tempfile.TemporaryDirectory() as folder:
            _measure_starts(arguments.keep or Path(folder), arguments.chunks)
        return
    lines = (DATA / "eval" / "questions.jsonl").read_text("utf-8").splitlines()[: arguments.questions]
    questions = [json.loads(line)["question"] for line in lines]
    with tempfile.TemporaryDirectory() as folder:
        rows = [("first start, reads the corpus", *_run(Path(folder), [], read=True))]
        rows.append(("warm start", *_run(Path(folder), questions)))
    headings = ("", "ready s", "first answer s", "median ms", "peak MiB", "with children MiB")
    for row in (headings, ("---",) * len(headings), *rows):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    sys.stdout.write(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")


def _run(data_dir: Path, questions: list[str], *, read: bool = False) -> tuple[str, ...]:
    """One life of the service: the columns of its row."""
    began = time.monotonic()
    with _serving(data_dir) as (pid, client):
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        ready = time.monotonic() - began
        whole = _read(client, pid) if read else 0
        first, taken = "", list[float]()
        for question in questions:
            asked = time.monotonic()
            client.post("/v1/ask", json={"question": question}).raise_for_status()
            taken.append(time.monotonic() - asked)
            first = first or f"{asked + taken[0] - began:.1f}"
        median = f"{sorted(taken)[len(taken) // 2] * 1000:.0f}" if taken else ""
        peak, whole = _kib(pid, "VmHWM"), max(whole, _resident_kib(pid))
        return f"{ready:.1f}", first, median, f"{peak / 1024:.0f}", f"{whole / 1024:.0f}"


# ── warm starts on documents that are made up ─────────────────────────────────────────────────

_STARTS = 3
_ASKED = 20
_SYLLABLES = ("ka", "lo", "mi", "ren", "tor", "ba", "shu", "vel", "quin", "dor", "est", "pra", "lin", "gom", "hes")
_WORDS = 20_000
_PASSAGES_PER_FILE = 40


def _measure_starts(folder: Path, sizes: Sequence[int]) -> None:
    headings = (
        *("chunks", "ready s", "ready CPU s", "first answer CPU s", "settled CPU s"),
        *("question CPU ms", "now MiB", "peak MiB"),
    )
    for row in (headings, ("---",) * len(headings)):
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    for size in sizes:
        place = folder / str(size)
        if not (place / "whole").is_file():
            command = [sys.executable, "-m", "bench.memory", "--fill", str(place.resolve()), str(size)]
            subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603  # ourselves
        chunks = (place / "whole").read_text("utf-8")
        starts = [_start(place.resolve() / "data", folder.resolve() / "models") for _ in range(_STARTS)]
        medians = (statistics.median(values) for values in zip(*starts, strict=True))
        shown = [f"{value:.{digits}f}" for value, digits in zip(medians, (1, 2, 2, 2, 1, 0, 0), strict=True)]
        sys.stdout.write(f"| {' | '.join((chunks, *shown))} |\n")
        sys.stdout.flush()
    sys.stdout.write(f"\nMedians of {_STARTS} starts; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")


def _start(data_dir: Path, models: Path) -> tuple[float, ...]:
    """The columns behind the number of chunks. CPU seconds are those of the service and its children."""
    began = time.monotonic()
    with _serving(data_dir, ATTEST_MODEL_CACHE=str(models)) as (pid, client):
        while client.get("/readyz").status_code != 200:
            time.sleep(0.02)
        ready, ready_cpu = time.monotonic() - began, cpu_seconds(pid)
        _search(client, 0)
        first = cpu_seconds(pid)
        settled = settled_cpu_seconds(pid)
        for number in range(1, _ASKED + 1):
            _search(client, number)
        asked = (cpu_seconds(pid) - settled) / _ASKED * 1000
        return ready, ready_cpu, first, settled, asked, _kib(pid, "VmRSS") / 1024, _kib(pid, "VmHWM") / 1024


def _search(client: httpx.Client, number: int) -> None:
    draw = random.Random(-number)  # noqa: S311  # the same questions each time
    question = f"How many {' and '.join(draw.choices(_vocabulary(), k=3))} are there in {2000 + number}?"
    client.post("/v1/search", json={"question": question}).raise_for_status()


def _vocabulary() -> list[str]:
    draw = random.Random(1)  # noqa: S311
    return ["".join(draw.choices(_SYLLABLES, k=draw.randint(2, 4))) for _ in range(_WORDS)]


def _fill(folder: Path, chunks: int) -> None:
    """A data folder with about so many passages. Their vectors are drawn, for embedding them would take an hour; all
    else is as it would be, the embedder's identity too."""
    import numpy as np

    from app.service import Service
    from rag.catalog import knowledge, versions
    from rag.embedding.embedder import SentenceTransformerEmbedder
    from rag.settings import Settings

    class Drawing(SentenceTransformerEmbedder):
        def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Any:  # noqa: ARG002
            return np.stack([self.embed_query(text) for text in texts])

        def embed_query(self, text: str) -> Any:
            drawn = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.dimension, dtype=np.float32)
            return drawn / np.linalg.norm(drawn)

    files = folder / "files"
    files.mkdir(parents=True)
    _write_files(files, chunks)
    settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder), llm="none")
    service = Service(settings, embedder=Drawing())
    service.start()
    try:
        collection = service.collection_to_fill("default")
        with service.base.catalog.write() as connection:
            config = {"path": str(files)}
            source = knowledge.create_source(connection, collection, name="files", kind="folder", config=config)
        job = service.submit_sync(source)
        while not service.job(job.id).finished_at:
            time.sleep(0.2)
        with service.base.catalog.read() as snapshot:
            made = versions.count_active(snapshot)
    finally:
        service.close()
    (folder / "whole").write_text(f"{made:,}", "utf-8")


def _write_files(folder: Path, chunks: int) -> None:
    draw, words = random.Random(2), _vocabulary()  # noqa: S311
    weights = [1 / (rank + 10) for rank in range(_WORDS)]  # as words are: a few often, most seldom

    def passage() -> str:
        sentences = (" ".join(draw.choices(words, weights, k=13)).capitalize() for _ in range(3))
        return ". ".join(sentences) + "."

    for number in range(-(-chunks // _PASSAGES_PER_FILE)):
        text = "\n\n".join(passage() for _ in range(min(_PASSAGES_PER_FILE, chunks - number * _PASSAGES_PER_FILE)))
        (folder / f"{number:05}.txt").write_text(text, "utf-8")


# ── the service ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def _serving(data_dir: Path, **settings: str) -> Iterator[tuple[int, httpx.Client]]:
    own = {"ATTEST_DATA_DIR": str(data_dir), "ATTEST_ALLOWED_ROOTS": str(DATA), "PYTHONPATH": str(ROOT)}
    own |= {DATABASE: f"sqlite:///{DATA / 'products.sqlite'}"} | settings
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json", "--log-level", "error"]
    with (
        tempfile.TemporaryDirectory() as empty,  # where no .env lies
        subprocess.Popen(command, cwd=empty, env=clean | own, stdout=subprocess.PIPE, text=True) as process,  # noqa: S603  # our own command
    ):
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or lines[-1] != "}\n":
                lines.append(process.stdout.readline() or sys.exit("The service did not start."))
            with httpx.Client(base_url=json.loads("".join(lines))["url"], timeout=300.0, trust_env=False) as client:
                yield process.pid, client
        finally:
            process.terminate()


def _read(client: httpx.Client, pid: int) -> int:
    """Have the corpus read, and return the most KiB that the service and its children took together."""
    client.post("/v1/collections", json={"name": "default"}).raise_for_status()
    most = 0
    for name, (kind, config) in SOURCES.items():
        body = {"name": name, "kind": kind, "config": config}
        source = client.post("/v1/collections/default/sources", json=body).raise_for_status().json()
        job = client.post(f"/v1/sources/{source['id']}/sync", json={}).raise_for_status().json()
        while not job["finished_at"]:
            time.sleep(0.1)
            most = max(most, _resident_kib(pid))
            job = client.get(f"/v1/jobs/{job['id']}").json()
        if job["state"] != "succeeded":
            sys.exit(f"{name} could not be read: {job['problem'] or job['items']}")
    return most


def _resident_kib(pid: int) -> int:
    """Of a process and all its descendants, now. Pages that they share count once for each."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _words(task)]
    return _kib(pid, "VmRSS") + sum(_resident_kib(child) for child in children)


def _kib(pid: int, field: str) -> int:
    words = _words(Path(f"/proc/{pid}/status"))
    return int(words[words.index(f"{field}:") + 1]) if f"{field}:" in words else 0


def _words(path: Path) -> list[str]:
    with suppress(OSError):  # it has ended meanwhile
        return path.read_text().split()
    return []


if __name__ == "__main__":
    main()
