"""Jobs as a client of a real service meets them: killed and going on, retried, cancelled, followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import streams, terminal
from app.server import Background
from app.service import Service
from rag.ports import Vectors
from rag.settings import Settings
from rag.storage.owner import find_owner
from tests.fakes import HashEmbedder

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
Json = dict[str, Any]

# A service whose embedder takes its time and writes down what it embeds, with batches of four documents.
_SERVE = """
import sys, time
from pathlib import Path
import ingest.sync
from app.commands.service import run_service
from app.service import Service
from rag.settings import Settings
from tests.fakes import HashEmbedder

ingest.sync._BATCH_DOCUMENTS = 4
folder = Path(sys.argv[1])

class Slow(HashEmbedder):
    def embed_passages(self, texts, *, urgent=False):
        with (folder / "embedded").open("a") as log:
            log.writelines(text.splitlines()[-1] + "\\n" for text in texts)
        time.sleep(0.02 * len(texts))
        return super().embed_passages(texts, urgent=urgent)

import app.service
app.service.Service = lambda settings: Service(settings, embedder=Slow())
settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder), port=0)
run_service(settings, lambda url: print(url, flush=True))
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    command = [sys.executable, "-c", _SERVE, str(folder)]
    with (
        subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True) as process,
        client_of(process, folder) as client,
    ):
        try:
            yield process, client
        finally:
            process.kill()


def client_of(process: subprocess.Popen[str], folder: Path) -> httpx.Client:
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    owner = find_owner(folder / "data")
    assert owner is not None
    headers = {"Authorization": f"Bearer {owner[1]}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30.0, trust_env=False)


def until(client: httpx.Client, job_id: str, condition: Callable[[Json], bool]) -> Json:
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        job: Json = client.get(f"/v1/jobs/{job_id}").json()
        if condition(job):
            return job
        assert time.monotonic() < end, job
        time.sleep(0.02)


def is_over(job: Json) -> bool:
    return job["finished_at"] is not None


def add_folder(client: httpx.Client, path: Path) -> str:
    client.post("/v1/collections", json={"name": "notes"})
    body = {"name": path.name, "kind": "folder", "config": {"path": str(path)}}
    return str(client.post("/v1/collections/notes/sources", json=body).raise_for_status().json()["id"])


def sync(client: httpx.Client, source: str, **options: Any) -> Json:
    job: Json = client.post(f"/v1/sources/{source}/sync", json=options).raise_for_status().json()
    return job


def documents(client: httpx.Client) -> list[Json]:
    found: list[Json] = client.get("/v1/collections/notes/documents", params={"limit": 500}).json()["data"]
    return found


# ── killed ────────────────────────────────────────────────────────────────────────────────────


def test_a_job_whose_service_is_killed_goes_on_and_does_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number in range(60):
        (tmp_path / "files" / f"{number:02}.txt").write_text(f"Valve {number} closes at {number + 3} bar.")
    with serving(tmp_path) as (process, client):
        job_id = sync(client, add_folder(client, tmp_path / "files"))["id"]
        until(client, job_id, lambda job: job["counts"]["added"] >= 12)
        process.kill()
    with serving(tmp_path) as (process, client):
        seen = until(client, job_id, lambda job: job["counts"]["added"] >= 30)
        assert seen["state"] == "running"
        process.kill()
    with serving(tmp_path) as (_, client):
        job = until(client, job_id, is_over)
        assert job["state"] == "succeeded"
        assert [other["id"] for other in client.get("/v1/jobs").json()["data"]] == [job_id]
        # A batch that was written in the very instant of the kill, and not told any more, counts as unchanged.
        assert job["counts"]["added"] + job["counts"]["unchanged"] == 60
        assert job["counts"]["unchanged"] <= 2 * 4
        assert job["progress"]["done"] == job["progress"]["total"] == 60
        keys = [item["key"] for item in job["items"]]
        assert len(set(keys)) == len(keys) == job["counts"]["added"]
        found = documents(client)
        assert [(item["version"], item["chunks"]) for item in found] == [(1, 1)] * 60
    embedded = (tmp_path / "embedded").read_text().splitlines()
    assert len(set(embedded)) == 60
    # What was at work at each kill: a batch that was being embedded, and one before it that was being written.
    assert len(embedded) <= 60 + 2 * (4 + 4)


# ── in this process ───────────────────────────────────────────────────────────────────────────


class Held(HashEmbedder):
    """Embeds when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.waits = threading.Event()

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.waits.set()
        self.go.wait(PATIENCE_SECONDS)
        return super().embed_passages(texts, urgent=urgent)


@pytest.fixture
def embedder() -> Iterator[Held]:
    embedder = Held()
    yield embedder
    embedder.go.set()


@pytest.fixture
def client(tmp_path: Path, embedder: Held) -> Iterator[httpx.Client]:
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", allowed_roots=tmp_path.as_posix())
    service = Service(settings, embedder=embedder)
    background = Background(service)
    headers = {"Authorization": f"Bearer {service.token}"}
    try:
        with httpx.Client(base_url=background.url, headers=headers, timeout=30.0, trust_env=False) as client:
            yield client
    finally:
        embedder.go.set()
        background.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"Valve {number} closes at {number + 3} bar.")
    for name in ("broken", "torn"):
        (folder / f"{name}.pdf").write_bytes(b"%PDF-1.7 nothing")
    return folder


def test_what_failed_is_retried_alone(client: httpx.Client, files: Path, embedder: Held) -> None:
    job = until(client, sync(client, add_folder(client, files))["id"], is_over)
    assert (job["state"], job["counts"]["added"], job["counts"]["failed"]) == ("partial", 4, 2)
    failed = client.get(f"/v1/jobs/{job['id']}/items", params={"state": "failed"}).json()["data"]
    assert [item["key"] for item in failed] == ["broken.pdf", "torn.pdf"]
    assert all(item["problem"]["detail"] for item in failed)

    (files / "broken.pdf").unlink()
    (files / "broken.pdf").write_text("The gasket is replaced every year.")
    (files / "0.txt").write_text("This changed as well, and nobody asked for it.")
    before = len(embedder.embedded)
    again = client.post(f"/v1/jobs/{job['id']}/retry")
    assert again.status_code == 202
    assert again.headers["location"] == f"/v1/jobs/{again.json()['id']}"
    ended = until(client, again.json()["id"], is_over)
    assert {item["key"] for item in ended["items"]} <= {"broken.pdf", "torn.pdf"}
    assert ended["counts"]["changed"] == 0
    assert all("changed as well" not in text for text in embedder.embedded[before:])

    whole = client.post(f"/v1/jobs/{job['id']}/retry", json={"only_failed": False}).json()
    assert until(client, whole["id"], is_over)["counts"]["changed"] == 1


def test_one_item_is_retried_alone(client: httpx.Client, files: Path) -> None:
    job = until(client, sync(client, add_folder(client, files))["id"], is_over)
    (files / "torn.pdf").write_bytes(b"%PDF-1.7 something else")
    again = client.post(f"/v1/jobs/{job['id']}/retry", json={"keys": ["torn.pdf"]}).json()
    ended = until(client, again["id"], is_over)
    assert [item["key"] for item in ended["items"]] == ["torn.pdf"]
    assert ended["counts"]["failed"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"keys": ["0.txt"]}, 422),  # it did not fail
        ({"keys": ["nothing"]}, 422),
        ({"keys": []}, 422),
        ({"keys": ["torn.pdf"], "only_failed": True}, 422),
        ({"onlyfailed": True}, 422),
    ],
)
def test_a_retry_that_cannot_be_meant_is_a_problem(client: httpx.Client, files: Path, body: Json, status: int) -> None:
    job = until(client, sync(client, add_folder(client, files))["id"], is_over)
    answer = client.post(f"/v1/jobs/{job['id']}/retry", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_cancel_while_the_embedder_is_busy_leaves_a_clean_state(
    client: httpx.Client, files: Path, embedder: Held
) -> None:
    embedder.go.clear()
    embedder.waits.clear()
    source = add_folder(client, files)
    job = sync(client, source)
    assert embedder.waits.wait(PATIENCE_SECONDS)
    client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = until(client, job["id"], is_over)  # though the embedder has not come back
    assert (ended["state"], ended["counts"]["added"]) == ("cancelled", 0)
    assert all(item["chunks"] == 0 for item in documents(client))
    embedder.go.set()
    again = until(client, sync(client, source)["id"], is_over)
    assert again["counts"]["added"] == 4


def test_what_was_purged_is_neither_retried_nor_told_again(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "notes"})
    body = {"title": "Secret", "text": "The word is Quetzalcoatl."}
    job = client.post("/v1/collections/notes/documents", json=body).raise_for_status().json()
    document = until(client, job["id"], is_over)["items"][0]["document_id"]
    key = {"Idempotency-Key": "an edit"}
    path = f"/v1/documents/{document}"
    assert client.patch(path, json={"title": "Quetzalcoatl"}, headers=key).status_code == 200
    assert client.patch(path, json={"title": "Quetzalcoatl"}, headers=key).headers["idempotent-replayed"] == "true"
    client.post(f"{path}/purge").raise_for_status()
    assert client.patch(path, json={"title": "Quetzalcoatl"}, headers=key).status_code == 410
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 410


def events_in(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    event = ""
    for line in lines:
        if line.startswith(":"):
            yield "heartbeat", None
        elif line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def test_a_stream_tells_progress_and_lives_and_ends_with_the_whole(
    client: httpx.Client, files: Path, embedder: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_HEARTBEAT_SECONDS", 0.05)
    embedder.go.clear()
    job = sync(client, add_folder(client, files))
    seen: list[tuple[str, Any]] = []
    with client.stream("GET", f"/v1/jobs/{job['id']}", headers={"Accept": "text/event-stream"}) as response:
        for event in events_in(response.iter_lines()):
            seen.append(event)
            if event[0] == "heartbeat":
                embedder.go.set()
    assert [name for name, _ in seen].count("heartbeat") >= 1
    told = [data for name, data in seen if name == "job"]
    assert all(
        {"done", "total", "unit", "chunks", "bytes", "eta_seconds", "percent"} == set(at["progress"]) for at in told
    )
    assert [at["state"] for at in told][-1] == "partial"
    assert told[-1] == client.get(f"/v1/jobs/{job['id']}").json()
    assert told[-1]["progress"]["chunks"] == 4
    assert told[-1]["progress"]["bytes"] > 0
    assert (told[-1]["progress"]["percent"], told[-1]["progress"]["eta_seconds"]) == (100.0, None)
    told_items = [item["key"] for at in told[:-1] for item in at["items"]]
    assert len(told_items) == len(set(told_items))  # each once, before the end


def test_followers_that_went_away_hold_no_place(client: httpx.Client, files: Path, embedder: Held) -> None:
    """More of them than there are places for streams, on a job that does not move."""
    embedder.go.clear()
    job = sync(client, add_folder(client, files))
    assert embedder.waits.wait(PATIENCE_SECONDS)
    for _ in range(int(streams._STREAMS.total_tokens) + 1):
        with client.stream("GET", f"/v1/jobs/{job['id']}", headers={"Accept": "text/event-stream"}) as response:
            assert next(events_in(response.iter_lines()))[0] == "job"
    embedder.go.set()
    assert until(client, job["id"], is_over)["state"] == "partial"


def test_where_nobody_watches_a_bar_a_line_comes_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "_LINE_EVERY_SECONDS", 0.0)
    at = {"done": 3, "total": 10, "unit": "documents", "chunks": 120, "bytes": 9, "eta_seconds": 125.4}
    job = {"id": "job_1", "state": "running", "finished_at": None, "counts": {"added": 3}, "progress": at}
    with terminal.progress({"job_1": "notes"}) as moved:
        moved(job)
        moved(job | {"state": "succeeded", "finished_at": "2026-11-20T12:00:00Z"})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "notes: 3 of 10 documents, 3 added · 120 chunks · 2:05 left\n"


def test_chunks_per_second_are_those_of_the_last_looks() -> None:
    now = [0.0]
    pace = terminal.ChunkPace(lambda: now[0])
    seen = []
    for chunks in (0, 70, 140, 140, 210):
        seen.append(pace.per_second(chunks))
        now[0] += 1.0
    assert seen == [None, 70.0, 70.0, pytest.approx(140 / 3), pytest.approx(210 / 4)]
    assert pace.per_second(5) is None  # it was begun again
