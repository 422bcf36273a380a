"""Jobs: every end has its state, no work is lost or done twice, and one bad job stops nobody else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from ingest import interrupt
from ingest.budget import Budget
from ingest.interrupt import Cancelled, Listening
from ingest.jobs import Jobs, Running, Work
from ingest.pace import Pace
from ingest.sync import Progress, Report
from rag.catalog import jobs as rows
from rag.catalog import knowledge
from rag.catalog.engine import Catalog, now
from rag.catalog.jobs import Counts, Job, JobItem
from rag.catalog.tables import job_items
from rag.catalog.tables import jobs as job_rows
from rag.errors import Conflict, NotFound, SourceError
from rag.models import Item, Original, Problem, Unlisted
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
        running.report_progress(Progress(6, 6, Counts(added=5, failed=1), chunks=40, bytes=9000))
        return Report(Counts(added=5, failed=1))

    jobs = jobs_of(work)
    job = finished(jobs, submit(jobs))
    assert (job.done, job.total, job.counts) == (6, 6, Counts(added=5, failed=1))
    assert (job.chunks, job.bytes) == (40, 9000)
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


def test_work_hears_of_a_cancel_while_another_writes_the_catalog(
    jobs_of: Callable[..., Jobs], catalog: Catalog
) -> None:
    held = Held()
    jobs = jobs_of(held)
    job = submit(jobs)
    until(lambda: bool(held.started))
    with catalog.write():
        canceller = threading.Thread(target=jobs.cancel, args=(job.id,))
        canceller.start()
        until(lambda: bool(held.ended))
    canceller.join()
    assert finished(jobs, job).state == "cancelled"


def test_a_call_that_blocks_is_left_at_once_and_one_that_ends_gives_its_result() -> None:
    stop, release = threading.Event(), threading.Event()
    assert interrupt.call(lambda: 7, cancelled=stop.is_set) == 7
    with pytest.raises(ZeroDivisionError):
        interrupt.call(lambda: 1 // 0, cancelled=stop.is_set)
    stop.set()
    with pytest.raises(Cancelled):
        interrupt.call(lambda: release.wait(PATIENCE_SECONDS), cancelled=stop.is_set)
    assert not release.is_set()  # it was still waiting
    release.set()


class Slow:
    """A source that lists two items and then blocks until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.blocks = threading.Event()
        self.closed = threading.Event()

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
        try:
            for key in ("a", "b"):
                yield Item(key=key, uri=key, state=known.get(key, {}), load=lambda: Original(data=b"", name="a"))
            self.blocks.set()
            self.release.wait(PATIENCE_SECONDS)
            raise SourceError("The server went away.")
        finally:
            self.closed.set()


def test_a_listing_that_blocks_is_left_at_once_and_closed_when_it_can_be() -> None:
    source, stop = Slow(), threading.Event()
    listing = Listening(source, cancelled=stop.is_set).items({"a": {"size": "1"}})
    first, second = next(listing), next(listing)
    assert (first.key, dict(first.state) if isinstance(first, Item) else None, second.key) == ("a", {"size": "1"}, "b")
    assert source.blocks.wait(PATIENCE_SECONDS)
    stop.set()
    with pytest.raises(Cancelled):
        next(listing)
    assert not source.closed.is_set()
    source.release.set()
    assert source.closed.wait(PATIENCE_SECONDS)


def test_a_listing_that_breaks_off_says_so_after_what_it_listed() -> None:
    source = Slow()
    source.release.set()
    listing = Listening(source, cancelled=lambda: False).items({})
    found = [next(listing).key, next(listing).key]
    with pytest.raises(SourceError, match="went away"):
        next(listing)
    assert found == ["a", "b"]


def test_a_listing_that_nobody_takes_any_more_ends() -> None:
    class Endless:
        closed = threading.Event()

        def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
            try:
                while True:
                    yield Item(key="a", uri="a", state={}, load=lambda: Original(data=b"", name="a"))
            finally:
                self.closed.set()

    source = Endless()
    listing = Listening(source, cancelled=lambda: False).items({})
    next(listing)
    listing.close()  # type: ignore[attr-defined]  # a generator
    assert source.closed.wait(PATIENCE_SECONDS)


# ── how much may wait ─────────────────────────────────────────────────────────────────────────


def test_readers_begin_in_order_and_wait_while_too_much_is_held() -> None:
    budget, begun = Budget(100), list[int]()

    def read(ticket: int) -> None:
        budget.begin(ticket)
        begun.append(ticket)
        budget.hold(100)

    readers = [threading.Thread(target=read, args=(ticket,)) for ticket in (2, 1, 0)]
    for reader in readers:
        reader.start()
    for expected in ([0], [0, 1], [0, 1, 2]):
        until(lambda expected=expected: begun == expected)  # type: ignore[misc]
        budget.give_back(100)
    for reader in readers:
        reader.join()


def test_a_reader_that_waits_hears_that_nobody_wants_it() -> None:
    budget, heard = Budget(0), threading.Event()

    def read() -> None:
        try:
            budget.begin(0)
        except Cancelled:
            heard.set()

    reader = threading.Thread(target=read)
    reader.start()
    budget.close()
    assert heard.wait(PATIENCE_SECONDS)
    reader.join()


# ── how long it will take ─────────────────────────────────────────────────────────────────────


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_time_left_comes_from_the_rate_of_the_work(clock: Clock) -> None:
    pace = Pace(clock)
    for done in range(0, 50, 10):
        pace.move(done=done, total=100, unchanged=0)
        clock.now += 5
    assert pace.eta_seconds() == pytest.approx(25)  # 60 of them at 2 a second, since the last move 5 s ago


def test_neither_what_was_passed_over_nor_a_slow_start_is_in_the_rate(clock: Clock) -> None:
    pace = Pace(clock)
    for number in range(9000):
        pace.move(done=number, total=10_000, unchanged=number)
    clock.now += 300  # a model loads
    for done in range(9010, 9060, 10):
        pace.move(done=done, total=10_000, unchanged=9000)
        clock.now += 10
    assert pace.eta_seconds() == pytest.approx(950 - 10)  # one a second


def test_the_time_left_is_unknown_without_a_total_and_before_much_was_done(clock: Clock) -> None:
    pace = Pace(clock)
    assert pace.eta_seconds() is None
    for done in range(1, 6):
        pace.move(done=done, total=None, unchanged=0)
        clock.now += 5
        assert pace.eta_seconds() is None
    pace.move(done=6, total=100, unchanged=0)
    assert pace.eta_seconds() is not None
    pace.move(done=7, total=3, unchanged=0)  # the total proved too small
    assert pace.eta_seconds() is None
    early = Pace(clock)
    for done in (1, 2, 3):
        early.move(done=done, total=100, unchanged=0)
        clock.now += 0.5
    assert early.eta_seconds() is None


def test_the_time_left_counts_down_between_moves_and_goes_up_when_nothing_moves(clock: Clock) -> None:
    pace = Pace(clock)
    for done in (10, 20, 30, 40):
        pace.move(done=done, total=100, unchanged=0)
        clock.now += 10
    clock.now -= 10
    seen = []
    for _ in range(60):
        eta = pace.eta_seconds()
        assert eta is not None
        assert eta >= 0
        seen.append(eta)
        clock.now += 1
    assert seen[0] == pytest.approx(60)
    assert seen[5] == pytest.approx(55)
    assert seen[-1] > seen[10]


def test_the_time_left_is_never_negative_and_zero_at_the_end(clock: Clock) -> None:
    pace = Pace(clock)
    for done in (10, 40, 70, 99):
        pace.move(done=done, total=100, unchanged=0)
        clock.now += 10
    clock.now += 3
    assert (pace.eta_seconds() or 0.0) >= 0
    pace.move(done=100, total=100, unchanged=0)
    assert pace.eta_seconds() == 0.0


def test_only_the_last_minute_counts(clock: Clock) -> None:
    pace = Pace(clock)
    for done in range(100):  # ten a second
        pace.move(done=done, total=300, unchanged=0)
        clock.now += 0.1
    for done in range(100, 200):  # one in two seconds
        pace.move(done=done, total=300, unchanged=0)
        clock.now += 2
    assert pace.eta_seconds() == pytest.approx(202 - 2, rel=0.05)


def test_a_running_job_has_the_time_left_and_a_finished_one_has_none(jobs_of: Callable[..., Jobs]) -> None:
    told, go = threading.Event(), threading.Event()

    def work(running: Running) -> Report:
        clock = Clock()
        running.pace = Pace(clock)
        for done in (10, 20, 30, 40):
            running.report_progress(Progress(done, 100, Counts(added=done)))
            clock.now += 10
        told.set()
        go.wait(PATIENCE_SECONDS)
        return Report(Counts(added=100))

    jobs = jobs_of(work)
    job = submit(jobs)
    assert told.wait(PATIENCE_SECONDS)
    assert jobs.eta_seconds(job.id) == pytest.approx(50)
    go.set()
    finished(jobs, job)
    until(lambda: jobs.eta_seconds(job.id) is None)


# ── items, and old jobs ───────────────────────────────────────────────────────────────────────


def test_of_many_items_those_with_a_problem_are_shown_first(catalog: Catalog) -> None:
    with catalog.write() as connection:
        job = rows.create_job(connection, kind="sync", collection_id=None, source_id=None, request={})
        rows.add_items(connection, job.id, [JobItem(f"{number}", "", "added") for number in range(30)])
        rows.add_items(connection, job.id, [JobItem("bad", "", "failed", None, AWAY)])
    with catalog.read() as snapshot:
        shown = rows.get_job(snapshot, job.id, items_limit=3).items
        failed = rows.list_items(snapshot, job.id, state="failed")
        assert rows.item_keys(snapshot, job.id, states=("failed",)) == ["bad"]
    assert [item.key for item in shown] == ["0", "1", "bad"]
    assert [item for _, item in failed] == [JobItem("bad", "", "failed", None, AWAY)]


def test_items_are_paged_without_a_gap(catalog: Catalog) -> None:
    with catalog.write() as connection:
        job = rows.create_job(connection, kind="sync", collection_id=None, source_id=None, request={})
        rows.add_items(connection, job.id, [JobItem(f"{number}", "", "added") for number in range(7)])
    seen, after = [], 0
    with catalog.read() as snapshot:
        while page := rows.list_items(snapshot, job.id, after=after, limit=3):
            seen += [item.key for _, item in page]
            after = page[-1][0]
    assert seen == [str(number) for number in range(7)]


def test_old_jobs_go_with_their_items_and_the_last_ones_stay(catalog: Catalog) -> None:
    with catalog.write() as connection:
        made = []
        for number in range(6):
            job = rows.create_job(connection, kind="sync", collection_id=None, source_id=None, request={})
            rows.add_items(connection, job.id, [JobItem("a", "a", "added")])
            if number < 5:
                rows.finish_job(connection, job.id, state="succeeded", problem=None)
                age = now() - timedelta(days=(40, 35, 20, 10, 1)[number])
                connection.execute(update(job_rows).where(job_rows.c.id == job.id).values(finished_at=age))
            made.append(job.id)
        connection.execute(update(job_rows).where(job_rows.c.id == made[5]).values(created_at=now() - timedelta(90)))
    with catalog.write() as connection:
        assert rows.forget_old_jobs(connection, keep=5) == 0  # so few are kept, be they ever so old
        assert rows.forget_old_jobs(connection, keep=2) == 2
        assert rows.forget_old_jobs(connection, keep=2) == 0  # younger than thirty days
    with catalog.read() as snapshot:
        assert {job.id for job in rows.list_jobs(snapshot)} == set(made[2:])
        assert snapshot.execute(select(func.count()).select_from(job_items)).scalar_one() == 4


def test_old_jobs_are_forgotten_when_the_service_starts(
    jobs_of: Callable[..., Jobs], catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [2, 0]
    monkeypatch.setattr(rows, "forget_old_jobs", lambda _connection: left.pop(0))
    jobs_of(lambda running: Report(Counts()))
    assert left == []


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


def test_every_job_that_waits_is_looked_at_for_one_to_join(jobs_of: Callable[..., Jobs], sources: list[str]) -> None:
    held = Held()
    jobs = jobs_of(held, threads=1)
    submit(jobs, sources[0])
    until(lambda: bool(held.started))
    whole, some = submit(jobs, sources[0]), submit(jobs, sources[0], only=["a", "b"])
    other = submit(jobs, sources[0], only=["a"])
    assert len({whole.id, some.id, other.id}) == 3
    assert submit(jobs, sources[0]).id == whole.id
    assert submit(jobs, sources[0], only=["a", "b"]).id == some.id
    assert submit(jobs, sources[0], only=["a"]).id == other.id


def test_of_three_uploads_the_last_one_counts_though_it_equals_the_first(
    jobs_of: Callable[..., Jobs], sources: list[str]
) -> None:
    held = Held()
    jobs = jobs_of(held, uploads=held)

    def upload(content: str) -> Job:
        return jobs.submit(kind="upload", collection_id=None, source_id=sources[0], request={"sha256": content})

    upload("at work")
    until(lambda: bool(held.started))
    first, second, third = upload("A"), upload("B"), upload("A")
    assert len({first.id, second.id, third.id}) == 3
    assert upload("A").id == third.id


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


def test_a_job_that_goes_on_counts_what_it_did_before_and_after(jobs_of: Callable[..., Jobs], catalog: Catalog) -> None:
    before = jobs_of(lambda running: Report(Counts()), start=False)
    job = submit(before)
    done = [JobItem("a", "a", "added"), JobItem("b", "b", "changed"), JobItem("gone", "gone", "deleted")]
    again = [JobItem("c", "c", "added"), JobItem("bad", "bad", "failed", None, AWAY)]
    with catalog.write() as connection:
        rows.start_job(connection, job.id)
        rows.add_items(connection, job.id, [*done, *again])
    began = find(catalog, job).started_at
    part_way = []

    def work(running: Running) -> Report:
        running.report_progress(Progress(1, 6, Counts(unchanged=1)))
        running.save()
        part_way.append(find(catalog, job).counts)
        running.report_items([JobItem("c", "c", "changed")])  # it changed once more meanwhile
        running.report_items([JobItem("d", "d", "added"), JobItem("bad", "bad", "failed", None, AWAY)])
        counts = Counts(added=1, changed=1, unchanged=3, failed=1)  # a, b and one that never changed
        running.report_progress(Progress(6, 6, counts))
        return Report(counts)

    ended = finished(jobs_of(work), job)
    assert part_way == [Counts(added=2, changed=1, deleted=1)]
    assert ended.counts == Counts(added=2, changed=2, unchanged=1, deleted=1, failed=1)
    assert sorted((item.key, item.state) for item in ended.items) == [
        ("a", "added"),
        ("b", "changed"),
        ("bad", "failed"),
        ("c", "changed"),
        ("d", "added"),
        ("gone", "deleted"),
    ]
    assert ended.started_at == began


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
