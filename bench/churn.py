"""What replacing all documents again and again leaves on disk and in memory, with compaction and without. Linux only.

Real catalog, Chroma and Tantivy; an embedder that costs nothing. Run it from the root: `python -m bench.churn`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag.ports import Vectors
from rag.settings import Settings
from rag.wiring import open_knowledge_base
from tests.bases import publish_text, source_in
from tests.fakes import HashEmbedder

_DOCUMENTS = 20
_DIMENSION = 384
_PARTS = ("chroma", "terms", "catalog.sqlite")
_WORDS = Path(__file__).resolve().parent.parent / "docs" / "architecture.md"


class QuickEmbedder(HashEmbedder):
    """Another random vector for every text."""

    def __init__(self) -> None:
        super().__init__(dimension=_DIMENSION)

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:  # noqa: ARG002  # the port
        return np.stack([self.embed_query(text) for text in texts])

    def embed_query(self, text: str) -> Vectors:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        vector = np.random.default_rng(seed).normal(size=_DIMENSION).astype(np.float32)
        unit: Vectors = vector / np.linalg.norm(vector)
        return unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="how often every document is replaced (30)")
    parser.add_argument("--chunks", type=int, default=2_000, help="how many chunks the collection has (2,000)")
    parser.add_argument("--only", choices=("compacted", "left", "fresh"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            _run(Path(folder), arguments.only, rounds=arguments.rounds, chunks=arguments.chunks)
        return
    for only in ("fresh", "compacted", "left"):  # each in a process of its own: memory is measured too
        given = ["--rounds", str(arguments.rounds), "--chunks", str(arguments.chunks), "--only", only]
        subprocess.run([sys.executable, "-m", "bench.churn", *given], check=True)  # noqa: S603  # our own command
    _write(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def _run(folder: Path, only: str, *, rounds: int, chunks: int) -> None:
    base = open_knowledge_base(Settings(data_dir=folder), embedder=QuickEmbedder())
    base.caches.attach_terms()
    base.caches.attach_vectors()
    collection, source = source_in(base)
    words = _WORDS.read_text("utf-8").split()
    titles = {"fresh": "a fresh build", "compacted": "with compaction", "left": "without compaction"}
    _write(
        f"\n{titles[only]}\n\n| round | chroma MB | terms MB | catalog MB | resident MB | seconds |\n"
        + "| ---: " * 6
        + "|"
    )
    for number in [rounds] if only == "fresh" else range(rounds + 1):
        began = time.monotonic()
        for document in range(_DOCUMENTS):
            lines = (
                f"Edition {number} of rule {rule} of document {document}: "
                + " ".join(words[(document * 31 + rule * 7) % len(words) :][:60])
                for rule in range(chunks // _DOCUMENTS)
            )
            publish_text(base, collection, source, f"{document}.txt", "\n".join(lines))
        if only == "compacted":
            base.caches.compact()
        taken = time.monotonic() - began
        sizes = [_size(folder / part) / 1e6 for part in _PARTS]
        row = [f"{number}", *(f"{size:.1f}" for size in (*sizes, _resident_mb())), f"{taken:.1f}"]
        _write(f"| {' | '.join(row)} |")
    base.caches.close()
    base.catalog.close()


def _size(path: Path) -> int:
    """Of a folder, or of a file with its write-ahead log."""
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _resident_mb() -> float:
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index("VmRSS:") + 1]) * 1024 / 1e6


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
