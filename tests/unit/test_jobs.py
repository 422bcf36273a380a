"""Jobs: every end has its state, no work is lost or done twice, and one bad job stops nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.jobs import Jobs, Running, Work
from ingest.sync import Cancelled, Progress, Report
from rag.catalog import jobs as rows
from rag.catalog import knowledge
from rag.catalog.engine import Catalog
from rag.catalog.jobs import Counts, Job, JobItem
from rag.errors import Conflict, NotFound, SourceError
from rag.models import Problem
from tests.fakes import HashEmbedder

PATIENCE_SECONDS = 10.0


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    yield catalog
    catalog.close()


@pytest.fixture
def jobs_of(catalog: Catalog) -> Iterator[Callable[..., Jobs]]:
    """Makes the runner of jobs, started unless told otherwise, and closes it at the end."""
    made: list[Jobs] = []

    def make(work: Work, *, start: bool = True, threads: int = 2, uploads: Work | None = None) -> Jobs:
        kinds = {"sync": work} | ({"upload": uploads} if uploads else {})
        jobs = Jobs(catalog, kinds, threads=threads, lanes={"upload": 1} if uploads else None)
        made.append(jobs)
        if start:
            jobs.start()
        return jobs

    yield make
    for jobs in made:
        jobs.close(patience_seconds=2.0)


@pytest.fixture
def sources(catalog: Catalog) -> list[str]:
    with catalog.write() as connection:
        collection = knowledge.create_collection(connection, "notes", embedder=HashEmbedder(), splitter="test")
        return [
            knowledge.create_source(connection, collection, name=name, kind="folder", config={}).id
            for name in ("first", "second")
        ]


def submit(jobs: Jobs, source_id: str | None = None, **request: object) -> Job:
    return jobs.submit(kind="sync", collection_id=None, source_id=source_id, request=request)


def finished(jobs: Jobs, job: Job) -> Job:
    return jobs.wait(job.id, poll_seconds=0.005)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def find(catalog: Catalog, job: Job) -> Job:
    with catalog.read() as snapshot:
        return rows.get_job(snapshot, job.id)


def find_or_none(catalog: Catalog, job: Job) -> Job | None:
    try:
        return find(catalog, job)
    except NotFound:
        return None


class Held:
    """Work that waits until it is let go, or is asked to stop."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.most_at_once = 0
        self.go = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()

    def __call__(self, running: Running) -> Report:
        with self._lock:
            self.started.append(running.job.id)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            while not self.go.wait(0.002):
                if running.cancelled():
                    raise Cancelled
        finally:
            with self._lock:
                self._at_once -= 1
                self.ended.append(running.job.id)
        return Report(Counts(added=1))


# ── how a job ends ────────────────────────────────────────────────────────────────────────────

AWAY = Problem("source-unreachable", "The share went away.", "Mount it again.")


@pytest.mark.parametrize(
    ("report", "state"),
    [
        (Report(Counts(added=2)), "succeeded"),
        (Report(Counts()), "succeeded"),
        (Report(Counts(added=2, failed=1)), "partial"),
        (Report(Counts(failed=1)), "failed"),
        (Report(Counts(unchanged=2), AWAY), "partial"),
        (Report(Counts(), AWAY), "failed"),
    ],
)
def test_the_report_decides_the_state(jobs_of: Callable[..., Jobs], report: Report, state: str) -> None:
    jobs = jobs_of(lambda running: report)
    job = finished(jobs, submit(jobs))
    assert (job.state, job.problem) == (state, report.problem)
    assert job.started_at is not None
    assert job.finished_at is not None


def test_items_and_counts_are_there_when_it_ends(jobs_of: Callable[..., Jobs]) -> None:
    item = JobItem("手册.pdf", "files/手册.pdf", "failed", None, Problem("corrupt", "It is cut off.", ""))

    def work(running: Running) -> Report:
        for number in range(5):
            running.report_items([JobItem(f"{number}.txt", f"files/{number}.txt", "added", "doc_1")])
            running.report_progress(Progress(number + 1, 6, Counts(added=number + 1)))
        running.report_items([item])
        running.report_progress(Progress(6, 6, Counts(added=5, failed=1)))
        return Report(Counts(added=5, failed=1))

    jobs = jobs_of(work)
    job = finished(jobs, submit(jobs))
    assert (job.done, job.total, job.counts) == (6, 6, Counts(added=5, failed=1))
    assert [found.key for found in job.items] == ["0.txt", "1.txt", "2.txt", "3.txt", "4.txt", "手册.pdf"]
    assert job.items[-1] == item


def test_an_error_of_ours_fails_the_job_with_its_sentence(jobs_of: Callable[..., Jobs]) -> None:
    def work(running: Running) -> Report:
        raise SourceError("The share went away.", remedy="Mount it again.")

    jobs = jobs_of(work)
    job = finished(jobs, submit(jobs))
    assert (job.state, job.problem) == ("failed", AWAY)


def test_a_bug_fails_its_job_and_the_thread_goes_on(
    jobs_of: Callable[..., Jobs], caplog: pytest.LogCaptureFixture
) -> None:
    def work(running: Running) -> Report:
        if running.job.request["bad"]:
            raise ZeroDivisionError("secret detail")
        return Report(Counts(added=1))

    jobs = jobs_of(work, threads=1)
    bad, good = submit(jobs, bad=True), submit(jobs, bad=False)
    ended = finished(jobs, bad)
    assert ended.state == "failed"
    assert ended.problem is not None
    assert ended.problem.code == "internal"
    assert "secret detail" not in ended.problem.detail
    assert "secret detail" in caplog.text  # but in the log
    assert finished(jobs, good).state == "succeeded"


def test_an_unknown_kind_fails_and_stops_nobody(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(lambda running: Report(Counts()), threads=1)
    unknown = jobs.submit(kind="dance", collection_id=None, source_id=None, request={})
    assert finished(jobs, unknown).state == "failed"
    assert finished(jobs, submit(jobs)).state == "succeeded"


def test_a_source_deleted_under_its_job_ends_quietly(
    jobs_of: Callable[..., Jobs], catalog: Catalog, sources: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    jobs = jobs_of(held, threads=1)
    submit(jobs, sources[0])
    until(lambda: bool(held.started))
    waiting = submit(jobs, sources[0], again=True)
    with catalog.write() as connection:
        knowledge.delete_source(connection, sources[0])
    held.go.set()
    assert finished(jobs, submit(jobs)).state == "succeeded"
    assert waiting.id not in held.started
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_work_stops_when_its_source_is_deleted_and_what_it_stumbles_over_is_no_error(
    jobs_of: Callable[..., Jobs], catalog: Catalog, sources: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()  # never let go: it must see by itself that it should stop
    stumbling = threading.Event()

    def work(running: Running) -> Report:
        if running.job.request["stumbles"]:
            stumbling.set()
            until(lambda: find_or_none(catalog, running.job) is None)
            with catalog.write() as connection:
                rows.add_items(connection, running.job.id, [JobItem("a", "a", "added")])  # breaks a foreign key
        return held(running)

    jobs = jobs_of(work)
    submit(jobs, sources[0], stumbles=False)
    submit(jobs, sources[1], stumbles=True)
    until(lambda: bool(held.started) and stumbling.is_set())
    with catalog.write() as connection:
        for source in sources:
            knowledge.delete_source(connection, source)
    until(lambda: bool(held.ended))
    jobs.close()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_what_is_reported_of_a_deleted_job_stops_the_work(
    jobs_of: Callable[..., Jobs], catalog: Catalog, sources: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    outcome: list[str] = []

    def work(running: Running) -> Report:
        with catalog.write() as connection:
            knowledge.delete_source(connection, sources[0])
        try:
            running.report_items([JobItem("a", "a", "added")])
        except Cancelled:
            outcome.append("stopped")
            raise
        return Report(Counts(added=1))

    jobs = jobs_of(work)
    submit(jobs, sources[0])
    until(lambda: bool(outcome))
    jobs.close()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


# ── cancelling ────────────────────────────────────────────────────────────────────────────────


def test_cancelling_a_running_job_stops_it(jobs_of: Callable[..., Jobs]) -> None:
    held = Held()
    jobs = jobs_of(held)
    job = submit(jobs)
    until(lambda: bool(held.started))
    assert jobs.cancel(job.id).cancel_requested
    assert finished(jobs, job).state == "cancelled"


def test_a_job_cancelled_before_its_turn_never_runs(jobs_of: Callable[..., Jobs]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=1)
    first, second = submit(jobs, n=1), submit(jobs, n=2)
    until(lambda: bool(held.started))
    jobs.cancel(second.id)
    held.go.set()
    assert finished(jobs, first).state == "succeeded"
    assert finished(jobs, second).state == "cancelled"
    assert held.started == [first.id]


def test_a_job_that_waits_is_cancelled_at_once(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held)
    submit(jobs, sources[0], n=1)
    until(lambda: bool(held.started))
    second = submit(jobs, sources[0], n=2)
    cancelled = jobs.cancel(second.id)
    assert (cancelled.state, cancelled.finished_at is not None) == ("cancelled", True)
    third = submit(jobs, sources[0], n=3)
    held.go.set()
    assert finished(jobs, third).state == "succeeded"
    assert second.id not in held.started


def test_a_cancelled_job_ends_though_the_service_stops_first(
    jobs_of: Callable[..., Jobs], catalog: Catalog, sources: list[str]
) -> None:
    started = [threading.Event(), threading.Event()]
    closing = threading.Event()

    def work(running: Running) -> Report:
        started[running.job.request["n"]].set()
        closing.wait(PATIENCE_SECONDS)  # it looks up only once the service is stopping
        until(running.cancelled)
        raise Cancelled

    jobs = jobs_of(work)
    cancelled, stopped = (submit(jobs, source, n=n) for n, source in enumerate(sources))
    until(lambda: all(event.is_set() for event in started))
    jobs.cancel(cancelled.id)
    closer = threading.Thread(target=jobs.close)
    closer.start()
    until(jobs._closing.is_set)
    closing.set()
    closer.join()
    assert find(catalog, cancelled).state == "cancelled"
    assert find(catalog, stopped).state == "running"


def test_cancelling_what_has_ended_changes_nothing(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(lambda running: Report(Counts(added=1)))
    job = finished(jobs, submit(jobs))
    assert jobs.cancel(job.id) == job


# ── one source, one job ───────────────────────────────────────────────────────────────────────


def test_jobs_of_one_source_never_overlap(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=4)
    submitted = [submit(jobs, sources[0], number=number) for number in range(4)]
    until(lambda: bool(held.started))
    time.sleep(0.03)  # time enough for another to begin, if it could
    held.go.set()
    for job in submitted:
        assert finished(jobs, job).state == "succeeded"
    assert held.most_at_once == 1


def test_jobs_of_two_sources_run_together(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held)
    submitted = [submit(jobs, source) for source in sources]
    until(lambda: len(held.started) == 2)
    held.go.set()
    for job in submitted:
        finished(jobs, job)
    assert held.most_at_once == 2


def test_a_job_whose_source_is_busy_keeps_no_thread_from_others(
    jobs_of: Callable[..., Jobs], sources: list[str]
) -> None:
    held = Held()
    jobs = jobs_of(held, threads=2)
    first, second = submit(jobs, sources[0], n=1), submit(jobs, sources[0], n=2)
    until(lambda: bool(held.started))
    other = submit(jobs, sources[1])
    until(lambda: len(held.started) == 2)
    assert held.started == [first.id, other.id]
    held.go.set()
    assert finished(jobs, second).state == "succeeded"


def test_jobs_of_one_source_run_in_the_order_they_came(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=3)
    submitted = [submit(jobs, sources[0], number=number) for number in range(6)]
    held.go.set()
    for job in submitted:
        finished(jobs, job)
    assert held.started == [job.id for job in submitted]


def test_an_upload_does_not_wait_for_the_syncs(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=2, uploads=lambda running: Report(Counts(added=1)))
    syncs = [submit(jobs, source) for source in sources] + [submit(jobs)]
    until(lambda: len(held.started) == 2)
    for number in range(3):
        upload = jobs.submit(kind="upload", collection_id=None, source_id=None, request={"number": number})
        assert finished(jobs, upload).state == "succeeded"
    assert held.ended == []
    held.go.set()
    assert [finished(jobs, job).state for job in syncs] == ["succeeded"] * 3


def test_a_source_is_free_again_after_each_of_its_jobs_however_it_ended(
    jobs_of: Callable[..., Jobs], sources: list[str]
) -> None:
    def work(running: Running) -> Report:
        if running.job.request["n"] == 0:
            raise ZeroDivisionError
        return Report(Counts(added=1))

    jobs = jobs_of(work, threads=1)
    assert [finished(jobs, submit(jobs, sources[0], n=n)).state for n in (0, 1, 0, 2)] == [
        "failed",
        "succeeded",
        "failed",
        "succeeded",
    ]


def test_asking_the_same_again_joins_the_job_that_waits(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=1)
    running = submit(jobs, sources[0])
    until(lambda: bool(held.started))
    waiting = submit(jobs, sources[0])
    assert waiting.id != running.id  # what changed meanwhile may be behind the running one already
    assert submit(jobs, sources[0]).id == waiting.id
    assert submit(jobs, sources[0], verify=True).id != waiting.id
    assert submit(jobs, sources[1]).id != waiting.id


def test_a_job_that_is_being_cancelled_is_not_joined(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=1)
    submit(jobs, sources[0])
    until(lambda: bool(held.started))
    waiting = submit(jobs, sources[0])
    jobs.cancel(waiting.id)
    again = submit(jobs, sources[0])
    held.go.set()
    assert finished(jobs, waiting).state == "cancelled"
    assert finished(jobs, again).state == "succeeded"


# ── stopping and starting again ───────────────────────────────────────────────────────────────


def test_closing_leaves_a_running_job_to_be_resumed(jobs_of: Callable[..., Jobs], catalog: Catalog) -> None:
    held = Held()
    jobs = jobs_of(held)
    job = submit(jobs)
    until(lambda: bool(held.started))
    jobs.close()
    assert find(catalog, job).state == "running"
    with pytest.raises(Conflict):
        submit(jobs)
    again = jobs_of(lambda running: Report(Counts(added=1)))
    ended = finished(again, job)
    assert (ended.state, ended.items) == ("succeeded", ())


def test_closing_starts_nothing_that_waits(jobs_of: Callable[..., Jobs], catalog: Catalog, sources: list[str]) -> None:
    """Not even a job that a thread has taken already and that waits for another one of its source."""
    held = Held()
    jobs = jobs_of(held, threads=2)
    first = submit(jobs, sources[0], n=1)
    until(lambda: bool(held.started))
    second = submit(jobs, sources[0], n=2)
    third = submit(jobs, n=3)
    time.sleep(0.02)
    jobs.close()
    assert second.id not in held.started
    assert find(catalog, first).state == "running"
    assert find(catalog, second).state == "queued"
    assert find(catalog, third).state in ("queued", "running")


def test_jobs_of_a_crashed_process_are_taken_up_again_in_order(jobs_of: Callable[..., Jobs], catalog: Catalog) -> None:
    before = jobs_of(lambda running: Report(Counts()), start=False)
    submitted = [submit(before, number=number) for number in range(3)]
    with catalog.write() as connection:
        rows.start_job(connection, submitted[0].id)  # it was at work when the process died
        rows.add_items(connection, submitted[0].id, [JobItem("a", "a", "added")])
        rows.request_cancel(connection, submitted[1].id)
    order: list[str] = []

    def work(running: Running) -> Report:
        order.append(running.job.id)
        running.report_items([JobItem("a", "a", "added")])
        return Report(Counts(added=1))

    after = jobs_of(work, threads=1)
    assert [finished(after, job).state for job in submitted] == ["succeeded", "cancelled", "succeeded"]
    assert order == [submitted[0].id, submitted[2].id]
    assert len(find(catalog, submitted[0]).items) == 1  # nothing is there twice


def test_a_job_submitted_before_the_start_runs_once(jobs_of: Callable[..., Jobs]) -> None:
    ran: list[str] = []

    def work(running: Running) -> Report:
        ran.append(running.job.id)
        return Report(Counts())

    jobs = jobs_of(work, start=False)
    early = submit(jobs, n=1)
    jobs.start()
    finished(jobs, early)
    finished(jobs, submit(jobs, n=2))
    finished(jobs, submit(jobs, n=3))
    assert ran.count(early.id) == 1


def test_closing_twice_and_before_the_start_is_fine(jobs_of: Callable[..., Jobs]) -> None:
    jobs = jobs_of(lambda running: Report(Counts()), start=False)
    jobs.close()
    jobs.close()
