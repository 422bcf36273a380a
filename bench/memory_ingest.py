"""Whether ingesting a larger folder takes more memory. Linux only; see README.md."""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
DIMENSION = 64  # small, so that what Chroma keeps of every vector is little beside what is measured here
WORDS = ("valve", "pressure", "screw", "torque", "office", "canteen", "shift", "allowance", "logger", "gasket")
HEADINGS = (
    "folder MiB",
    "files",
    "chunks",
    "seconds",
    "before",
    "peak",
    "grown by",
    "with children",
    "again: grown by",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[50, 200], metavar="MiB", help="of the folders (50 200)"
    )
    parser.add_argument("--text-share", type=float, default=0.1, help="of each folder, that is text to be cut (0.1)")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(Path(arguments.serve))
        return
    for row in (HEADINGS, ("---",) * len(HEADINGS)):
        _show(row)
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            files = _generate(Path(folder) / "files", size * MIB, text_share=arguments.text_share)
            _show((str(size), str(files), *_measure(Path(folder))))
    sys.stdout.write(f"\nMiB; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")


def _show(row: Sequence[str]) -> None:
    sys.stdout.write(f"| {' | '.join(row)} |\n")
    sys.stdout.flush()


# ── what is ingested ──────────────────────────────────────────────────────────────────────────


def _generate(folder: Path, size: int, *, text_share: float) -> int:
    """Text, tables, and pages that carry pictures: most bytes of a real folder are no text. Returns how many files."""
    folder.mkdir()
    draw = random.Random(size)  # noqa: S311  # the same folder each time
    files = 0

    def write(name: str, data: bytes) -> int:
        nonlocal files
        (folder / f"{files:06}-{name}").write_bytes(data)
        files += 1
        return len(data)

    text = int(size * text_share)
    while text > 0:
        kind = draw.random()
        if kind < 0.02:
            text -= write("long.txt", _text(draw, min(MIB, text)))
        elif kind < 0.2:
            text -= write("table.csv", _table(draw, 20_000))
        else:
            text -= write("note.txt", _text(draw, 10_000))
    rest = int(size * (1 - text_share))
    while rest > 0:
        picture = min(rest, draw.choice((MIB // 4, MIB, MIB, 3 * MIB, 20 * MIB)))
        rest -= write("page.html", _page(draw, picture))
    return files


def _text(draw: random.Random, size: int) -> bytes:
    paragraphs: list[str] = []
    while size > 0:
        paragraphs.append(" ".join(draw.choices(WORDS, k=60)) + f" {draw.random()}.")
        size -= len(paragraphs[-1]) + 2
    return "\n\n".join(paragraphs).encode()


def _table(draw: random.Random, size: int) -> bytes:
    lines = ["part,torque,bar,remark"]
    while size > 0:
        lines.append(
            f"{draw.randrange(10**6)},{draw.random():.3f},{draw.randrange(16)},{' '.join(draw.choices(WORDS, k=4))}"
        )
        size -= len(lines[-1]) + 1
    return "\n".join(lines).encode()


def _page(draw: random.Random, size: int) -> bytes:
    picture = base64.b64encode(draw.randbytes(size * 3 // 4)).decode()
    text = "".join(f"<p>{_text(draw, 400).decode()}</p>" for _ in range(3))
    return f"<html><title>Page {draw.random()}</title>{text}<img src='data:image/png;base64,{picture}'></html>".encode()


# ── the service ───────────────────────────────────────────────────────────────────────────────


def _serve(folder: Path) -> None:
    import numpy as np

    from app.server import Server, listen
    from app.service import Service
    from rag.settings import Settings

    class Quick:
        """An embedder whose vectors mean nothing and cost nothing."""

        name = identity = spec = "quick"
        dimension = DIMENSION
        window = 256

        def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Any:  # noqa: ARG002
            return np.stack([self.embed_query(text) for text in texts])

        def embed_query(self, text: str) -> Any:
            vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION, dtype=np.float32)
            return vector / np.linalg.norm(vector)

        def count_tokens(self, texts: Sequence[str]) -> list[int]:
            return [len(text) // 5 + 1 for text in texts]

        def coverage(self, _text: str) -> float:
            return 1.0

    settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder))
    service = Service(settings, embedder=Quick())

    def listening(url: str) -> None:
        sys.stdout.write(json.dumps({"url": url, "token": service.token}) + "\n")
        sys.stdout.flush()

    Server(service, listen("127.0.0.1", 0), listening=listening).serve_until_stopped()


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[int, Any]]:
    import httpx

    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    command = [sys.executable, __file__, "--serve", str(folder)]
    with subprocess.Popen(  # noqa: S603  # ourselves
        command, cwd=ROOT, env=clean | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline() or sys.exit("The service did not start."))
            headers = {"Authorization": f"Bearer {said['token']}"}
            with httpx.Client(base_url=said["url"], headers=headers, timeout=300.0, trust_env=False) as client:
                yield process.pid, client
        finally:
            process.terminate()


def _measure(folder: Path) -> tuple[str, ...]:
    with _serving(folder) as (pid, client):
        while any("attach" in part for part in client.get("/readyz").json()["parts"].values()):
            time.sleep(0.1)
        client.post("/v1/collections", json={"name": "files"}).raise_for_status()
        # One small document first, so that what is loaded only once is not counted as growth.
        job = client.post("/v1/collections/files/documents", json={"title": "First", "text": "A valve."}).json()
        _watched(client, pid, job)
        body = {"name": "files", "kind": "folder", "config": {"path": str(folder / "files")}}
        source = client.post("/v1/collections/files/sources", json=body).raise_for_status().json()["id"]
        before, began = _forget_peak(pid), time.monotonic()
        job, children = _watched(client, pid, client.post(f"/v1/sources/{source}/sync", json={}).json())
        seconds, peak = time.monotonic() - began, _mib(pid, "VmHWM")
        if job["state"] != "succeeded":
            sys.exit(f"The folder could not be read: {job['problem'] or job['items'][:3]}")
        settled = _forget_peak(pid)
        _watched(client, pid, client.post(f"/v1/sources/{source}/sync", json={}).json())
        again = _mib(pid, "VmHWM") - settled
        numbers = (job["progress"]["chunks"], seconds, before, peak, peak - before, peak + children, again)
        return tuple(f"{number:.0f}" for number in numbers)


def _watched(client: Any, pid: int, job: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """The finished job, and the most MiB that the service's children took together."""
    most = 0.0
    while not job["finished_at"]:
        time.sleep(0.1)
        most = max(most, sum(_mib(child, "VmRSS") for child in _children(pid)))
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return job, most


def _forget_peak(pid: int) -> float:
    """MiB that it takes now; VmHWM counts anew from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _mib(pid, "VmRSS")


def _children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in _words(task)]


def _mib(pid: int, field: str) -> float:
    words = _words(Path(f"/proc/{pid}/status"))
    return int(words[words.index(f"{field}:") + 1]) / 1024 if f"{field}:" in words else 0.0


def _words(path: Path) -> list[str]:
    with suppress(OSError):  # it has ended meanwhile
        return path.read_text().split()
    return []


if __name__ == "__main__":
    main()
