"""How costs grow with the chunks: one knowledge base that grows from size to size, by the real sync, catalog, Chroma
and Tantivy.

    ATTEST_EVAL_DATA=… python -m bench.growth [1000 10000 100000] [--rebuild-up-to 100000] [--json FILE]

Texts are paragraphs of the public sets, mixed anew and given other figures, so that none is there twice; without the
evaluation pack those of the sample corpus. Vectors are synthesised from the words of a text (what embedding costs grows
with the chunks, and `make bench` measures it); token counts are the model's own. Prints Markdown after every size, and
at the end the exponent e with which each cost grows, cost ~ chunks^e, by least squares over the logarithms. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from bench.speed.corpus import DATA
from bench.speed.processes import cpu_seconds, disk_mib, settled_cpu_seconds
from bench.speed.report import percentile, shown
from rag.embedding.embedder import SentenceTransformerEmbedder
from rag.ports import Vectors

_SETS = ("squad_en", "cmrc_zh", "hotpotqa_en", "drcd_zh_hant", "musique_en", "crud_zh_news")
_MOST_TEXTS = 3_000  # of each set
_FILE_CHARACTERS = {True: 3_000, False: 8_000}  # Chinese, and English: some ten chunks of either
_DIMENSION, _HASHES = 384, 8_192
_QUESTIONS = 100
_WORD = re.compile(r"[A-Za-z]{4,}|[\u4e00-\u9fff]{2}")
_SENTENCE = re.compile(r"(?<=[。！？])|(?<=[.!?])\s+")
_NUMBER = re.compile(r"\d+")

Row = dict[str, float]
# What is fitted.
GROWING = (
    "ingest CPU ms / chunk",
    "question CPU p50 ms",
    "question CPU p95 ms",
    "question p50 ms",
    "question p95 ms",
    "resident MiB",
    "disk MiB",
    "re-sync CPU s",
    "one change CPU s",
    "rebuild CPU s",
)


class WordEmbedder(SentenceTransformerEmbedder):
    """The packaged model's tokens, and for a vector the sum of a random one for each longer word: texts that share
    words are near each other. Loads no model."""

    def __init__(self) -> None:
        super().__init__()
        self._words = np.random.default_rng(0).standard_normal((_HASHES, _DIMENSION), dtype=np.float32)

    @property
    def identity(self) -> str:
        return "words-384"

    @property
    def runtime(self) -> str | None:
        return "hashing"

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:  # noqa: ARG002  # the port
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Vectors:
        rows = [zlib.crc32(word.encode()) % _HASHES for word in _WORD.findall(text)] or [len(text) % _HASHES]
        vector = self._words[rows].sum(axis=0)
        unit: Vectors = vector / max(float(np.linalg.norm(vector)), 1e-6)
        return unit


def main() -> None:
    options = _options()
    evaluation = os.environ.get("ATTEST_EVAL_DATA")
    for name in [name for name in os.environ if name.startswith("ATTEST_")]:
        del os.environ[name]
    texts = list(_texts(Path(evaluation) if evaluation else None))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        for row in _grown(Path(made), texts, options.sizes, rebuild_up_to=options.rebuild_up_to):
            rows.append(row)
            sys.stderr.write(f"{row}\n")
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    sys.stdout.write(table(rows) + f"\n\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000, 10_000, 100_000], help="In chunks, ascending.")
    parser.add_argument(
        "--rebuild-up-to", type=int, default=100_000, help="Larger ones are not rebuilt: it takes long."
    )
    parser.add_argument("--folder", type=Path, help="Where there is room: some 1.5 GB for 100,000 chunks.")
    parser.add_argument("--json", type=Path, help="Where the figures go after every size.")
    return parser.parse_args()


# ── texts ─────────────────────────────────────────────────────────────────────────────────────


def _texts(evaluation: Path | None) -> Iterator[str]:
    if evaluation is None:
        for path in sorted((DATA / "source").glob("*.md")):
            yield from (part for part in path.read_text("utf-8").split("\n\n") if len(part) > 200)
        return
    for name in _SETS:
        corpus = evaluation / name / "corpus.jsonl"
        if corpus.is_file():
            with corpus.open(encoding="utf-8") as lines:
                for line in itertools.islice(lines, _MOST_TEXTS):
                    yield json.loads(line)["text"]


def _mixed(texts: Sequence[str], number: int) -> str:
    """A text of sentences that stand elsewhere too, in another company and with other figures. Every fourth is of the
    texts' other language where they have two."""
    draw = random.Random(number)  # noqa: S311  # the same text each time
    chinese = draw.choice(texts)
    is_chinese = bool(re.search(r"[\u4e00-\u9fff]", chinese))
    parts: list[str] = []
    while sum(map(len, parts)) < _FILE_CHARACTERS[is_chinese]:
        text = draw.choice(texts)
        if bool(re.search(r"[\u4e00-\u9fff]", text)) != is_chinese:
            continue
        sentences = [one for one in _SENTENCE.split(text) if one.strip()]
        draw.shuffle(sentences)
        joined = ("" if is_chinese else " ").join(sentences[:6])
        parts.append(_NUMBER.sub(lambda found: str(draw.randrange(10 ** min(len(found[0]), 6))), joined))
    return f"Report {number}\n\n" + "\n\n".join(parts) + "\n"


def _questions(texts: Sequence[str]) -> list[str]:
    """The beginnings of sentences: they share words with many chunks, as questions do."""
    draw = random.Random(-1)  # noqa: S311  # the same ones each time
    found = dict.fromkeys(_SENTENCE.split(draw.choice(texts))[0][:80] for _ in range(4 * _QUESTIONS))
    return [one for one in found if len(one) > 10][:_QUESTIONS]


# ── growing ───────────────────────────────────────────────────────────────────────────────────


def _grown(folder: Path, texts: Sequence[str], sizes: Sequence[int], *, rebuild_up_to: int) -> Iterator[Row]:
    from app.service import Service
    from rag.answer import Question
    from rag.catalog import knowledge
    from rag.settings import Settings

    files, data = folder / "files", folder / "data"
    files.mkdir()
    settings = Settings(_env_file=None, data_dir=data, allowed_roots=str(folder))
    with closing(Service(settings, embedder=WordEmbedder())) as service:
        service.start()
        while not service.is_ready():
            time.sleep(0.1)
        collection = service.collection_to_fill("default")
        with service.base.catalog.write() as connection:
            source = knowledge.create_source(
                connection, collection, name="files", kind="folder", config={"path": str(files)}
            )

        def sync() -> None:
            job = service.jobs.wait(service.submit_sync(source).id, poll_seconds=0.1)
            if job.state != "succeeded":
                raise SystemExit(f"The sync did not succeed: {job.problem}")

        def chunks() -> int:
            with service.base.catalog.read() as snapshot:
                return knowledge.count_collection(snapshot, collection).chunks

        questions = _questions(texts)
        written = present = 0
        for size in sizes:
            spent, seconds, before = 0.0, 0.0, present
            while present < size:
                more = max(1, math.ceil((size - present) / (present / written if written else 15.0)))
                for number in range(written, written + more):
                    (files / f"{number:06}.txt").write_text(_mixed(texts, number), "utf-8")
                written += more
                cpu, wall = _timed(sync)
                spent, seconds, present = spent + cpu, seconds + wall, chunks()
            row: Row = {"chunks": present, "documents": written}
            row["ingest CPU ms / chunk"], row["ingest ms / chunk"] = (
                one * 1000 / (present - before) for one in (spent, seconds)
            )
            time.sleep(2.5)  # what was written last is looked at once more
            sync()
            row["re-sync CPU s"], row["re-sync s"] = _timed(sync)
            with (files / "000000.txt").open("a", encoding="utf-8") as changed:
                changed.write(f"\nAdded when there were {size} chunks.\n")
            row["one change CPU s"], row["one change s"] = _timed(sync)
            row |= _asked(lambda text: service.assistant.search(Question(text, ("default",))), questions)
            row["resident MiB"] = _resident_mib()
            row["disk MiB"] = disk_mib(data)
            for part in ("chroma", "terms", "originals"):
                row[f"disk MiB, {part}"] = disk_mib(data / part)
            if size <= rebuild_up_to:
                row["rebuild CPU s"], row["rebuild s"] = _timed(service.base.caches.write_anew)
            yield row


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, of the reading processes and the background too, and wall seconds."""
    cpu, began = cpu_seconds(os.getpid()), time.perf_counter()
    work()
    wall = time.perf_counter() - began
    return settled_cpu_seconds(os.getpid()) - cpu, wall


def _asked(ask: Callable[[str], object], questions: Sequence[str]) -> Row:
    ask(questions[0])
    cpu, wall = [], []
    for question in questions:
        spent, began = time.process_time(), time.perf_counter()
        ask(question)
        cpu.append((time.process_time() - spent) * 1000)
        wall.append((time.perf_counter() - began) * 1000)
    return {
        f"question {kind}p{part} ms": percentile(values, part / 100)
        for kind, values in (("CPU ", cpu), ("", wall))
        for part in (50, 95)
    }


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# ── showing ───────────────────────────────────────────────────────────────────────────────────


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """e in cost ~ size^e: the slope of the line through their logarithms. At least two different sizes."""
    slope, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(slope)


def table(rows: Sequence[Row]) -> str:
    """Markdown: a column for each size, and the exponent of what is fitted."""
    names = dict.fromkeys(name for row in rows for name in row if name != "chunks")
    lines = [["", *(f"{row['chunks']:,.0f} chunks" for row in rows), "exponent"], ["---"] * (len(rows) + 2)]
    for name in names:
        known = [(row["chunks"], row[name]) for row in rows if row.get(name)]
        fitted = f"{exponent(*zip(*known, strict=True)):.2f}" if name in GROWING and len(known) > 1 else ""
        lines.append([name, *(shown(row.get(name)) for row in rows), fitted])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
