"""An embedder that fails half-way, in whichever way: what was there stays, the next run completes what was begun."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import ingest.sync
from app.service import Service
from ingest.sources.uploads import Upload
from rag.catalog import knowledge
from rag.catalog.jobs import Job
from rag.embedding.runtimes import choice
from rag.errors import Unavailable
from rag.ports import Vectors
from rag.settings import Settings
from tests.bases import Bases, Runs, file, found_texts, runs_in
from tests.fakes import HashEmbedder

Fault = Callable[[Vectors], Vectors]


class Failing(HashEmbedder):
    """Embeds as it should until `fault` is set; then what was left of `sound_calls`, and the fault after that."""

    fault: Fault | None = None
    sound_calls = 0

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        vectors = super().embed_passages(texts, urgent=urgent)
        if self.fault is None:
            return vectors
        self.sound_calls -= 1
        return vectors if self.sound_calls >= 0 else self.fault(vectors)


def _raise(error: BaseException) -> Fault:
    def fault(_: Vectors) -> Vectors:
        raise error

    return fault


def _with_nan(vectors: Vectors) -> Vectors:
    vectors[-1, 0] = np.nan
    return vectors


def _with_zero(vectors: Vectors) -> Vectors:
    vectors[-1] = 0.0
    return vectors


RAISED = {"RuntimeError": _raise(RuntimeError("CUDA error")), "MemoryError": _raise(MemoryError())}
RETURNED: dict[str, Fault] = {
    "too few": lambda vectors: vectors[:-1],
    "too short": lambda vectors: vectors[:, :-1],
    "too long": lambda vectors: np.hstack([vectors, vectors]),
    "one for all": lambda vectors: vectors[0],
    "not a number": _with_nan,
    "zero": _with_zero,
}
FAULTS = RAISED | RETURNED


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path, embedder=Failing())
    yield bases
    bases.assert_sound()
    bases.close()


@pytest.fixture
def runs(bases: Bases) -> Runs:
    return runs_in(bases.open())


def _failing(bases: Bases, fault: str, *, sound_calls: int = 0) -> Failing:
    assert isinstance(bases.embedder, Failing)
    bases.embedder.fault, bases.embedder.sound_calls = FAULTS[fault], sound_calls
    return bases.embedder


@pytest.mark.parametrize("restart", [False, True], ids=["running on", "restarted"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_there_stays_and_the_next_run_brings_the_rest(
    runs: Runs, bases: Bases, monkeypatch: pytest.MonkeyPatch, fault: str, restart: bool
) -> None:
    monkeypatch.setattr(ingest.sync, "_BATCH_DOCUMENTS", 1)
    before = [file(f"{name}.txt", f"The drill {name} weighs one kilogram.") for name in "abcd"]
    after = [file(f"{name}.txt", f"The drill {name} weighs two kilograms.") for name in "abcd"]
    runs.sync(*before)
    failing = _failing(bases, fault, sound_calls=2)
    with pytest.raises((RuntimeError, MemoryError, Unavailable)):
        runs.sync(*after)
    failing.fault = None
    if restart:
        runs = runs_in(bases.open())
    found = found_texts(runs.base, "How much does the drill weigh?", k=20)
    assert sorted(found) == [
        "The drill a weighs two kilograms.",
        "The drill b weighs two kilograms.",
        "The drill c weighs one kilogram.",
        "The drill d weighs one kilogram.",
    ]
    failing.embedded.clear()
    counts = runs.sync(*after).counts
    assert (counts.changed, counts.unchanged, counts.failed) == (2, 2, 0)
    assert len(failing.embedded) == 2
    assert all("two kilograms" in text for text in found_texts(runs.base, "How much does the drill weigh?", k=20))


@pytest.mark.parametrize("fault", RETURNED)
def test_what_is_no_vector_is_said_to_be_none(runs: Runs, bases: Bases, fault: str) -> None:
    _failing(bases, fault)
    with pytest.raises(Unavailable, match=r"^The embedder hash returned .*\. Check ATTEST_EMBEDDER"):
        runs.sync(file("a.txt", "The drill weighs one kilogram."))
    _failing(bases, fault).fault = None
    runs.sync(file("a.txt", "The drill weighs one kilogram."))


@pytest.mark.parametrize(
    ("fault", "said"),
    [("RuntimeError", "RuntimeError while working"), ("MemoryError", "MemoryError while"), ("zero", "that is zero")],
)
def test_the_job_fails_with_the_reason_and_the_next_one_succeeds(tmp_path: Path, fault: str, said: str) -> None:
    embedder = Failing()
    service = Service(Settings(_env_file=None, data_dir=tmp_path / "data", llm="none"), embedder=embedder)
    service.start()
    try:
        collection = service.create_collection("tools")

        def upload(text: str) -> Job:
            job = service.submit_upload(collection, text.encode(), Upload("a.txt", "a.txt", ""))
            return service.jobs.wait(job.id, poll_seconds=0.02)

        assert upload("The drill weighs one kilogram.").state == "succeeded"
        embedder.fault = FAULTS[fault]
        failed = upload("The drill weighs two kilograms.")
        assert failed.state == "failed"
        assert failed.problem is not None
        assert said in failed.problem.detail
        assert found_texts(service.base, "How much does the drill weigh?") == ["The drill weighs one kilogram."]
        embedder.fault = None
        assert upload("The drill weighs two kilograms.").state == "succeeded"
        assert found_texts(service.base, "How much does the drill weigh?") == ["The drill weighs two kilograms."]
        with service.base.catalog.read() as snapshot:
            assert len(knowledge.list_documents(snapshot, collection)) == 1
    finally:
        service.close()


@pytest.mark.parametrize(("status", "again"), [(-signal.SIGTERM, True), (-signal.SIGINT, True), (1, False)])
def test_a_preparation_that_somebody_ended_is_done_at_the_next_start(
    status: int, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = tmp_path / "model", tmp_path / "cache"
    model.mkdir()
    (model / "tokenizer.json").write_text("{}")
    tried: list[list[str]] = []

    def child(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        tried.append(command)
        return subprocess.CompletedProcess(command, status, stdout="", stderr="KeyboardInterrupt")

    monkeypatch.setattr(choice.subprocess, "run", child)
    for _start in range(2):
        runtime = choice.exported_runtime(
            "onnx", model=model, identity="m", window=256, cache=cache, tokenizer=lambda: pytest.fail("not needed")
        )
        assert runtime is None
    assert len(tried) == (2 if again else 1)
