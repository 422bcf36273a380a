"""A clock that is set back between two syncs: what came last is told by the number of the change, never by the time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.service import Service
from rag.catalog import engine, jobs, knowledge, versions
from rag.settings import Settings
from rag.upkeep.revisions import roll_back
from tests.bases import Bases, Runs, assert_sound, file, found_texts, publish_text, runs_in
from tests.fakes import HashEmbedder


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Sets the clock of the catalog, and of all who read it, so far back."""
    real, offset = engine.now, timedelta()

    def now() -> datetime:
        return real() - offset

    for module in list(sys.modules.values()):
        if getattr(module, "now", None) is real:
            monkeypatch.setattr(module, "now", now)

    def set_back(by: timedelta) -> None:
        nonlocal offset
        offset += by

    return set_back


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path)
    yield bases
    bases.assert_sound()
    bases.close()


@pytest.fixture
def runs(bases: Bases) -> Runs:
    return runs_in(bases.open())


HOUR = timedelta(hours=1)


def test_syncs_while_the_clock_goes_back_follow_each_other_all_the_same(
    runs: Runs, bases: Bases, set_back: Callable[[timedelta], None]
) -> None:
    for number in range(1, 5):
        set_back(HOUR)
        text = f"The drill weighs {number} kilograms."
        others = [file(f"{other}.txt", f"The saw {other} has {number} teeth.") for other in range(number)]
        runs.sync(file("a.txt", text), *others, allow_deletes=True)
        assert text in found_texts(runs.base, "How much does the drill weigh?", k=20)
        bases.assert_sound()
    document = runs.documents()["a.txt"]
    with runs.base.catalog.read() as snapshot:
        listed = versions.list_versions(snapshot, document.id)
    assert [(version.number, version.active) for version in listed] == [(4, True), (3, False), (2, False), (1, False)]

    set_back(HOUR)
    roll_back(runs.base, document.id, 2)
    assert "The drill weighs 2 kilograms." in found_texts(runs.base, "How much does the drill weigh?", k=20)
    set_back(HOUR)
    runs.sync(file("b.txt", "The plane is long."), allow_deletes=True)
    assert found_texts(runs.base, "drill or plane", k=20) == ["The plane is long."]
    set_back(HOUR)
    runs.sync(file("a.txt", "The drill weighs 5 kilograms."), allow_deletes=True)
    assert found_texts(runs.base, "drill or plane", k=20) == ["The drill weighs 5 kilograms."]
    assert runs.sync(file("a.txt", "The drill weighs 5 kilograms.")).counts.unchanged == 1


def test_a_restart_after_the_clock_went_back_finds_all_in_step(
    bases: Bases, runs: Runs, set_back: Callable[[timedelta], None]
) -> None:
    runs.sync(file("a.txt", "The drill weighs one kilogram."))
    set_back(24 * HOUR)
    into = runs.collection, runs.source
    publish_text(runs.base, *into, "a.txt", "The drill weighs two kilograms.", flip=False)  # and dies
    runs = runs_in(bases.open())
    assert found_texts(runs.base, "drill") == ["The drill weighs one kilogram."]
    runs.sync(file("a.txt", "The drill weighs three kilograms."))
    assert found_texts(runs.base, "drill") == ["The drill weighs three kilograms."]


def test_jobs_run_and_end_though_the_clock_goes_back(tmp_path: Path, set_back: Callable[[timedelta], None]) -> None:
    (tmp_path / "files").mkdir()
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", allowed_roots=str(tmp_path), llm="none")
    service = Service(settings, embedder=HashEmbedder())
    service.start()
    try:
        collection = service.create_collection("tools")
        with service.base.catalog.write() as connection:
            record = knowledge.create_source(
                connection, collection, name="files", kind="folder", config={"path": str(tmp_path / "files")}
            )
        submitted = []
        for number in range(3):
            set_back(HOUR)
            (tmp_path / "files" / "a.txt").write_text(f"The drill weighs {number} kilograms.")
            job = service.jobs.wait(service.submit_sync(record).id, poll_seconds=0.02)
            submitted.append(job.id)
            assert (job.state, job.counts.failed) == ("succeeded", 0)
            assert found_texts(service.base, "drill") == [f"The drill weighs {number} kilograms."]
        with service.base.catalog.read() as snapshot:
            assert [job.id for job in jobs.list_jobs(snapshot)] == submitted[::-1]
            assert jobs.unfinished_jobs(snapshot) == []
        assert_sound(service.base)
    finally:
        service.close()
