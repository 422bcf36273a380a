"""How much memory the service takes with the sample corpus, and how soon it answers. Linux only; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

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
    arguments = parser.parse_args()
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


@contextmanager
def _serving(data_dir: Path) -> Iterator[tuple[int, httpx.Client]]:
    own = {"ATTEST_DATA_DIR": str(data_dir), "ATTEST_ALLOWED_ROOTS": str(DATA), "PYTHONPATH": str(ROOT)}
    own |= {DATABASE: f"sqlite:///{DATA / 'products.sqlite'}"}
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
