"""A service under load: many clients ask at once, with and without documents coming in. Prints Markdown.

    python bench/large_base.py /tmp/base --chunks 20000
    python bench/load.py /tmp/base

Each client asks `POST /v1/search` over a connection of its own, one question after the other, no two the same until all
were asked. The clients are threads of this process and take cores from the service where there are few. While
documents come in, another client uploads long texts, the next as soon as the last has been read. *CPU ms* is what the
service took for each answer, reading and embedding included; where others use the machine too, it says more than the
times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

_CLIENTS = (1, 8, 16, 32)
_SETS = ("squad_en", "cmrc_zh")
_PASSAGES = 30  # of an uploaded document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=15, help="of each row (15)")
    parser.add_argument("--clients", type=int, nargs="+", default=_CLIENTS)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    given = parser.parse_args()
    if given.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    questions = [row["question"] for pair in zip(*_rows(given.data, "queries"), strict=False) for row in pair]
    texts = [row["text"] for rows in _rows(given.data, "corpus") for row in rows]
    with _service(given.folder) as (url, pid):
        _asked(url, questions[-50:], clients=2, seconds=5)  # warm
        _write(
            "| clients | documents come in | requests/s | p50 ms | p95 ms | p99 ms | CPU ms | turned away |\n"
            + "| ---: " * 8
            + "|"
        )
        for ingesting, clients in itertools.product((False, True), given.clients):
            ended = threading.Event()
            uploading = threading.Thread(target=_upload, args=(url, texts, ended))
            if ingesting:
                uploading.start()
            used = _cpu_seconds(pid)
            try:
                took, turned_away, spent = _asked(url, questions, clients=clients, seconds=given.seconds)
            finally:
                ended.set()
                if ingesting:
                    uploading.join()
            cpu_ms = 1000 * (_cpu_seconds(pid) - used) / len(took)
            took.sort()
            percentiles = (
                f"{1000 * took[min(len(took) - 1, int(share * len(took)))]:.0f}" for share in (0.5, 0.95, 0.99)
            )
            row = [
                f"{clients}",
                "yes" if ingesting else "no",
                f"{len(took) / spent:.1f}",
                *percentiles,
                f"{cpu_ms:.0f}",
                f"{turned_away}",
            ]
            _write(f"| {' | '.join(row)} |")
    _write(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def _cpu_seconds(pid: int) -> float:
    """Of the service's own process, so far. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rows(data: Path, name: str) -> list[list[dict[str, str]]]:
    files = (data / one / f"{name}.jsonl" for one in _SETS)
    return [[json.loads(line) for line in file.read_text("utf-8").splitlines()] for file in files]


@contextmanager
def _service(folder: Path) -> Iterator[tuple[str, int]]:
    """Its address and process; a service of its own process over this folder."""
    environment = {**os.environ, "ATTEST_DATA_DIR": str(folder.resolve()), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--json", "--log-level", "error"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own
    try:
        assert process.stdout is not None
        about = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        while httpx.get(f"{about['url']}/readyz", trust_env=False).status_code != 200:
            time.sleep(0.1)
        yield about["url"], process.pid
    finally:
        process.terminate()
        process.wait(60)


def _asked(url: str, questions: list[str], *, clients: int, seconds: float) -> tuple[list[float], int, float]:
    """Seconds of each answer, how many were turned away, and how long it took altogether."""
    left = itertools.cycle(questions)
    taking = threading.Lock()
    took: list[float] = []
    turned_away: list[float] = []
    until = time.perf_counter() + seconds

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            while (began := time.perf_counter()) < until:
                with taking:
                    question = next(left)
                answer = client.post("/v1/search", json={"question": question})
                if answer.status_code == 503:
                    turned_away.append(time.perf_counter() - began)
                    time.sleep(float(answer.headers["Retry-After"]))
                else:
                    answer.raise_for_status()
                    took.append(time.perf_counter() - began)

    began = time.perf_counter()
    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, len(turned_away), time.perf_counter() - began


def _upload(url: str, texts: list[str], ended: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for number in itertools.count():
            start = number * _PASSAGES % len(texts)
            body = {"title": f"Load {number % 20}", "text": "\n\n".join(texts[start : start + _PASSAGES])}
            job = client.post("/v1/collections/default/documents", json=body).raise_for_status().json()
            while client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()["finished_at"] is None:
                if ended.wait(0.05):
                    return


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
