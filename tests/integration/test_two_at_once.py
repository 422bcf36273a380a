"""Two who want the same folder, source or document at the same time: both are served, or one is told why not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import ingest.sync
from app.service import Service
from ingest.sources.uploads import Upload
from rag.catalog import knowledge
from rag.catalog.jobs import Job
from rag.errors import NotFound
from rag.models import SourceRecord
from rag.retrieval.retrieve import retrieve
from rag.settings import Settings
from tests.bases import assert_sound
from tests.fakes import HashEmbedder

ROOT = Path(__file__).parents[2]
DOCUMENTS = 60

# The command line with an embedder that loads at once; everything else is as it is.
_ATTEST = """
import app.service
from tests.fakes import HashEmbedder
real = app.service.Service
app.service.Service = lambda settings, **options: real(settings, embedder=HashEmbedder(), **options)
from app.cli import main
main()
"""


# ── two processes ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(DOCUMENTS):
        (folder / f"{number:02}.txt").write_text(f"Valve V-{number:02} opens at {number + 10} bar.")
    return folder


def started(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    environment |= {
        "ATTEST_DATA_DIR": str(folder / "data"),
        "ATTEST_ALLOWED_ROOTS": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [sys.executable, "-c", _ATTEST, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def attest(*arguments: str, folder: Path) -> tuple[int, str, str]:
    return ended(started(*arguments, folder=folder))


def serving(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A service of its own, and its address."""
    process = started("serve", "--port", "0", "--json", folder=folder)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        text += line
    return process, json.loads(text)["url"]


def stopped(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


@pytest.mark.slow
def test_two_syncs_at_once_without_a_service_both_succeed_and_the_result_is_right(tmp_path: Path, files: Path) -> None:
    assert attest("sources", "add", "valves", "--folder", str(files), folder=tmp_path)[0] == 0
    for number in range(DOCUMENTS):
        (files / f"{number:02}.txt").write_text(f"Valve V-{number:02} opens at {number + 100} bar.")
    both = [started("sync", "--json", folder=tmp_path) for _ in range(2)]
    for code, out, err in map(ended, both):
        assert code == 0, err
        assert [job["state"] for job in json.loads(out)["jobs"]] == ["succeeded"]
    code, out, _ = attest("ask", "At how many bar does valve V-07 open?", folder=tmp_path)
    assert (code, "107 bar" in out, "17 bar" in out) == (0, True, False)
    code, out, _ = attest("sync", "--dry-run", "--json", folder=tmp_path)
    assert "changed" not in out.replace("unchanged", "")


@pytest.mark.slow
def test_a_second_service_on_the_folder_is_refused_and_the_first_is_unharmed(tmp_path: Path, files: Path) -> None:
    first, url = serving(tmp_path)
    try:
        code, out, err = attest("serve", "--port", "0", folder=tmp_path)
        assert (code, out) == (1, "")
        assert f"is in use by process {first.pid} at {url}" in err
        assert "Talk to that one" in err
        assert httpx.get(f"{url}/healthz", trust_env=False).json()["status"] == "ok"
        assert attest("sources", "add", "valves", "--folder", str(files), folder=tmp_path)[0] == 0  # through the first
        assert first.poll() is None
        assert "17 bar" in attest("ask", "At how many bar does valve V-07 open?", folder=tmp_path)[1]
    finally:
        stopped(first)


# ── two threads of one service ────────────────────────────────────────────────────────────────


class Slow(HashEmbedder):
    """Waits at its first passages until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def hold(self) -> None:
        self.reached.clear()
        self.go_on.clear()

    def embed_passages(self, texts: Any, *, urgent: bool = False) -> Any:
        self.reached.set()
        assert self.go_on.wait(60)
        return super().embed_passages(texts, urgent=urgent)


class World:
    def __init__(self, folder: Path) -> None:
        self.embedder = Slow()
        settings = Settings(_env_file=None, data_dir=folder / "data", allowed_roots=str(folder), llm="none")
        self.service = Service(settings, embedder=self.embedder)
        self.service.start()
        self.collection = self.service.create_collection("valves")

    def source(self, path: Path) -> SourceRecord:
        with self.service.base.catalog.write() as connection:
            return knowledge.create_source(
                connection, self.collection, name="files", kind="folder", config={"path": str(path)}
            )

    def sync(self, source: SourceRecord, **options: bool) -> Job:
        return self.ended(self.service.submit_sync(source, **options))

    def syncing(self, source: SourceRecord) -> Job:
        """A sync that has read its first documents and is about to embed them."""
        self.embedder.hold()
        job = self.service.submit_sync(source)
        assert self.embedder.reached.wait(60)
        return job

    def ended(self, job: Job) -> Job:
        return self.service.jobs.wait(job.id, poll_seconds=0.02)

    def found(self, question: str) -> list[str]:
        """The texts, each as often as it is found: what says the same is listed with the best of it."""
        base = self.service.base
        hits = retrieve(question, base=base, collections=base.collections([]), k=200).hits
        return [hit.text for hit in hits for _ in (hit, *hit.also)]

    def gone(self, job: Job) -> None:
        """Returns when the job, deleted with its source, has left its thread."""
        self.embedder.go_on.set()
        deadline = time.monotonic() + 60
        while job.id in self.service.jobs._stops:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def sound(self) -> None:
        assert_sound(self.service.base)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(ingest.sync, "_BATCH_DOCUMENTS", 10)
    world = World(tmp_path)
    yield world
    world.embedder.go_on.set()
    world.service.close()


def test_a_source_that_is_deleted_under_its_sync_leaves_nothing(world: World, files: Path) -> None:
    source = world.source(files)
    world.sync(source)
    for number in range(DOCUMENTS):
        (files / f"{number:02}.txt").write_text(f"Valve V-{number:02} opens at {number + 100} bar.")
    job = world.syncing(source)
    world.service.delete_source(source)
    assert world.found("valve") == []
    world.gone(job)
    assert world.found("valve") == []
    with world.service.base.catalog.read() as snapshot:
        assert knowledge.list_documents(snapshot, world.collection) == []
        with pytest.raises(NotFound):
            knowledge.get_source(snapshot, source.id)
    world.sound()


def test_a_collection_that_is_deleted_under_a_sync_leaves_nothing(world: World, files: Path) -> None:
    other = world.service.create_collection("other")
    job = world.syncing(world.source(files))
    world.service.base.delete_collection(world.collection)
    world.gone(job)
    with world.service.base.catalog.read() as snapshot:
        assert knowledge.list_collections(snapshot) == [other]
        assert knowledge.list_sources(snapshot) == []
    assert world.found("valve") == []
    world.sound()
    world.collection = world.service.create_collection("valves")  # the name is free, and all works as before
    assert world.sync(world.source(files)).counts.added == DOCUMENTS
    assert len(world.found("valve")) == DOCUMENTS
    world.sound()


@pytest.mark.parametrize("changes", [True, False], ids=["that changes", "that does not change"])
def test_a_document_deleted_by_hand_while_it_is_being_read_stays_or_comes_back_whole(
    world: World, files: Path, changes: bool
) -> None:
    """Its file is there still, so that it may come back; what may not be is half of it, or its old text."""
    source = world.source(files)
    world.sync(source)
    (files / "20.txt").write_text("Valve V-20 opens at 500 bar.")
    if changes:
        (files / "07.txt").write_text("Valve V-07 opens at 400 bar.")
    with world.service.base.catalog.read() as snapshot:
        document_id = knowledge.known_documents(snapshot, source.id)["07.txt"].document_id
    job = world.syncing(source)
    world.service.delete_document(document_id)
    assert not any("V-07" in text for text in world.found("valve V-07"))
    world.embedder.go_on.set()
    assert world.ended(job).state == "succeeded"
    left = [text for text in world.found("valve V-07") if "V-07" in text]
    assert left in ([], ["Valve V-07 opens at 400 bar."])
    world.sound()
    world.sync(source)
    back = "Valve V-07 opens at 400 bar." if changes else "Valve V-07 opens at 17 bar."
    assert [text for text in world.found("valve V-07") if "V-07" in text] == [back]
    world.sound()


def test_one_key_uploaded_many_times_at_once_is_one_document_with_the_text_that_came_last(world: World) -> None:
    submitted: list[Job] = []
    for number in range(8):
        text = f"Valve V-01 opens at {number + 10} bar."
        submitted.append(world.service.submit_upload(world.collection, text.encode(), Upload("v.txt", "v.txt", "")))
    assert [world.ended(job).state for job in submitted] == ["succeeded"] * 8
    assert world.found("valve") == ["Valve V-01 opens at 17 bar."]
    world.sound()


def test_one_key_uploaded_by_many_threads_at_once_is_one_document_with_one_of_the_texts(world: World) -> None:
    def upload(number: int) -> None:
        text = f"Valve V-01 opens at {number + 10} bar."
        done.append(world.ended(world.service.submit_upload(world.collection, text.encode(), Upload("v", "v.txt", ""))))

    done: list[Job] = []
    at_once([lambda number=number: upload(number) for number in range(6)])
    assert [job.state for job in done] == ["succeeded"] * 6
    (text,) = world.found("valve")
    assert text in [f"Valve V-01 opens at {number + 10} bar." for number in range(6)]
    with world.service.base.catalog.read() as snapshot:
        assert len(knowledge.list_documents(snapshot, world.collection)) == 1
    world.sound()


def test_the_same_sync_asked_for_many_times_at_once_runs_a_few_times_and_embeds_once(world: World, files: Path) -> None:
    source = world.source(files)
    done: list[Job] = []
    at_once([lambda: done.append(world.sync(source)) for _ in range(8)])
    assert {job.state for job in done} == {"succeeded"}
    assert len(world.embedder.embedded) == DOCUMENTS
    assert sum(job.counts.added for job in {job.id: job for job in done}.values()) == DOCUMENTS
    world.sound()


def test_two_sources_with_the_same_texts_synced_at_once_are_two_sets_of_documents(world: World, files: Path) -> None:
    sources = []
    for name in ("first", "second"):
        with world.service.base.catalog.write() as connection:
            config = {"path": str(files)}
            sources.append(
                knowledge.create_source(connection, world.collection, name=name, kind="folder", config=config)
            )
    done: list[Job] = []
    at_once([lambda source=source: done.append(world.sync(source)) for source in sources])
    assert [(job.state, job.counts.added) for job in done] == [("succeeded", DOCUMENTS)] * 2
    assert len(world.found("valve")) == 2 * DOCUMENTS
    world.sound()


def at_once(calls: list[Callable[[], object]]) -> None:
    problems: list[Exception] = []
    ready = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        ready.wait(30)
        try:
            call()
        except Exception as problem:  # noqa: BLE001  # shown by the test's own thread
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert problems == []
