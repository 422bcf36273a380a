"""Each pipeline as a running process that can be told to sync and be asked: Attest by HTTP, the others line by line."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from bench.speed.workers.protocol import timed

ROOT = Path(__file__).parents[2]
_WORKERS = Path(__file__).parent / "workers"
_PATIENCE_SECONDS = 600.0
# Threads of OpenMP that wait sleep: where a core is busy with something else, torch would count its waiting as work.
_HONEST = {"OMP_WAIT_POLICY": "PASSIVE"}


class Running(Protocol):
    pid: int

    def sync(self) -> int:
        """Bring the store to what the folder holds; returns how many chunks there are."""
        ...

    def ask(self, questions: Sequence[str], *, clients: int) -> dict[str, Any]:
        """`seconds`, and of each question `milliseconds` and the file names `found`."""
        ...

    def reading(self) -> AbstractContextManager[Reader]:
        """What reads the PDFs of the folder, and keeps nothing."""
        ...

    def chunks(self) -> list[str]:
        """The texts that were embedded, of all that is stored."""
        ...


class Reader(Protocol):
    pid: int

    def read(self, *, times: int) -> int:
        """How many pages were read."""
        ...


@dataclass(frozen=True)
class Contestant:
    name: str
    python: Path = Path(sys.executable)
    worker: str = ""  # a script of workers/; none: the service
    settings: Mapping[str, str] = field(default_factory=dict)
    syncs: bool = True  # else it is asked on the store that the one before it has filled

    @contextmanager
    def running(self, corpus: Path, store: Path, *, top_k: int) -> Iterator[Running]:
        """Ready to be asked, and ended at the end."""
        where = [str(corpus)] if self.syncs else []
        with tempfile.TemporaryDirectory() as empty:  # where no .env lies
            if self.worker:
                command = [str(self.python), str(_WORKERS / self.worker), *where, str(store), str(top_k)]
                with _process(command, self._environment(), Path(empty)) as process:
                    _line(process)
                    yield _Worker(process)
            else:
                own = {"ATTEST_DATA_DIR": str(store), "ATTEST_ALLOWED_ROOTS": str(corpus)}
                command = [str(self.python), "-m", "app.cli", "serve", "--port", "0", "--json", "--log-level", "error"]
                with _process(command, self._environment() | own, Path(empty)) as process:
                    about = json.loads("".join(iter(lambda: _text(process), "}\n")) + "}")
                    with httpx.Client(base_url=about["url"], timeout=_PATIENCE_SECONDS, trust_env=False) as client:
                        while client.get("/readyz").status_code != 200:
                            time.sleep(0.01)
                        yield _Service(process.pid, client, corpus, store, top_k)

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ATTEST_", "PYTHON"))}
        ours = {"PYTHONPATH": str(ROOT)} if str(self.python) == sys.executable else {}
        return clean | _HONEST | ours | dict(self.settings)


@contextmanager
def _process(command: Sequence[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(  # noqa: S603  # our own command
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield process
        except BaseException:
            errors.seek(0)
            sys.stderr.write(errors.read()[-4000:])
            raise
        finally:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _text(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("A pipeline has ended; what it said stands above.")
    return line


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_text(process))
    return told


class _Worker:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def sync(self) -> int:
        return int(self._do({"do": "sync"})["chunks"])

    def ask(self, questions: Sequence[str], *, clients: int) -> dict[str, Any]:
        return self._do({"do": "ask", "questions": list(questions), "clients": clients})

    def reading(self) -> AbstractContextManager[Reader]:
        return nullcontext(self)

    def read(self, *, times: int) -> int:
        return int(self._do({"do": "read", "times": times})["pages"])

    def chunks(self) -> list[str]:
        return list(self._do({"do": "chunks"})["texts"])

    def _do(self, wanted: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return _line(self._process)


class _Service:
    def __init__(self, pid: int, client: httpx.Client, corpus: Path, store: Path, top_k: int) -> None:
        self.pid = pid
        self._client = client
        self._corpus = corpus
        self._store = store
        self._top_k = top_k

    def sync(self) -> int:
        job = self._post(f"/v1/sources/{self._source()}/sync", {})
        while not job["finished_at"]:
            time.sleep(0.02)
            job = self._get(f"/v1/jobs/{job['id']}")
        if job["state"] != "succeeded":
            raise RuntimeError(f"The sync did not succeed: {job['problem'] or job['items']}")
        return int(self._get("/v1/collections/default")["chunks"])

    def _source(self) -> str:
        known = [one["id"] for one in self._get("/v1/collections/default/sources")["data"]] if self._is_made() else []
        if known:
            return str(known[0])
        self._post("/v1/collections", {"name": "default"})
        config = {"path": str(self._corpus)}
        made = self._post("/v1/collections/default/sources", {"name": "files", "kind": "folder", "config": config})
        return str(made["id"])

    def _is_made(self) -> bool:
        return bool(self._get("/v1/collections")["data"])

    def ask(self, questions: Sequence[str], *, clients: int) -> dict[str, Any]:
        own = threading.local()  # a connection for each client
        opened: list[httpx.Client] = []

        def search(question: str) -> list[str]:
            if not hasattr(own, "client"):
                own.client = httpx.Client(base_url=self._client.base_url, timeout=_PATIENCE_SECONDS, trust_env=False)
                opened.append(own.client)
            answer = own.client.post("/v1/search", json={"question": question, "top_k": self._top_k})
            return [Path(hit["uri"]).name for hit in answer.raise_for_status().json()["hits"]]

        try:
            return timed(search, questions, clients=clients)
        finally:
            for client in opened:
                client.close()

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        command = [sys.executable, str(_WORKERS / "read_attest.py"), str(self._corpus)]
        with tempfile.TemporaryDirectory() as empty:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            with _process(command, environment, Path(empty)) as process:
                _line(process)
                yield _Worker(process)

    def chunks(self) -> list[str]:
        """Equal texts are embedded once. Out of the catalog's file, which may be read while the service has it open."""
        with closing(sqlite3.connect(f"{(self._store / 'catalog.sqlite').as_uri()}?mode=ro", uri=True)) as catalog:
            rows = catalog.execute("SELECT heading, text FROM chunks GROUP BY embedded_sha256")
            return [f"{heading}\n{text}" if heading else text for heading, text in rows]

    def _get(self, path: str) -> dict[str, Any]:
        told: dict[str, Any] = self._client.get(path).raise_for_status().json()
        return told

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = self._client.post(path, json=body).raise_for_status().json()
        return told
