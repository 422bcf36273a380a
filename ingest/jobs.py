"""Long work: queued in the catalog, run by threads, resumed after a crash, cancelled when asked."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ingest.interrupt import Cancelled
from ingest.pace import Pace
from ingest.sync import Progress, Report
from rag.catalog import jobs
from rag.catalog.engine import Catalog, Connection
from rag.catalog.jobs import Counts, Job, JobItem, JobState
from rag.errors import AttestError, Conflict, DiskFull, NotFound
from rag.models import Problem

log = logging.getLogger(__name__)

_SAVE_EVERY_SECONDS = 0.5  # progress that nobody could read faster is not worth a commit
_WRITE_AGAIN_SECONDS = 1.0  # after the disk was found to be full
_LOOK_EVERY_SECONDS = 0.5  # whether the job is still there
_FORGET_EVERY_SECONDS = 3600.0  # old jobs
# Kinds whose request is what is to be stored, not where it is to be looked for: after A, B, A the last one counts.
_LAST_ONE_COUNTS = frozenset({"upload"})


@dataclass
class Running:
    """What a piece of work holds of its job: where to report, and whether to stop.

    `before` is what the job had finished when its process died (key → state). Work that is done again finds these
    unchanged; they are counted as what the job made of them.
    """

    job: Job
    catalog: Catalog
    stop: threading.Event
    before: dict[str, str] = field(default_factory=dict)
    _saved_at: float = 0.0
    _looked_at: float = 0.0
    _items: list[JobItem] = field(default_factory=list)
    _progress: Progress | None = None
    pace: Pace = field(default_factory=Pace)

    def cancelled(self) -> bool:
        """Also where the job itself is gone: its source or collection was deleted under it."""
        if not self.stop.is_set() and time.monotonic() - self._looked_at >= _LOOK_EVERY_SECONDS:
            with self.catalog.read() as snapshot:
                if _find(snapshot, self.job.id) is None:
                    self.stop.set()
            self._looked_at = time.monotonic()
        return self.stop.is_set()

    def report_items(self, items: list[JobItem]) -> None:
        self._items.extend(items)
        if any(item.state != "failed" for item in items):
            self.save()  # at once: what a kill leaves untold would be counted as unchanged when the job goes on
        else:
            self._save_now_and_then()

    def report_progress(self, progress: Progress) -> None:
        self._progress = progress
        self.pace.move(done=progress.done, total=progress.total, unchanged=progress.counts.unchanged)
        self._save_now_and_then()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at >= _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Raises Cancelled where the job is gone."""
        with self.catalog.write() as connection:
            self._write(connection)
        self._saved()

    def finish(self, state: JobState, problem: Problem | None) -> None:
        """What is not saved yet, and the end, in one. Raises Cancelled where the job is gone."""
        with self.catalog.write() as connection:
            self._write(connection)
            jobs.finish_job(connection, self.job.id, state=state, problem=problem)
        self._saved()

    def _write(self, connection: Connection) -> None:
        if _find(connection, self.job.id) is None:
            raise Cancelled
        again = [item.key for item in self._items if self.before.pop(item.key, None) is not None]
        jobs.drop_items(connection, self.job.id, again)
        jobs.add_items(connection, self.job.id, self._items)
        if self._progress is not None:
            progress = self._progress
            jobs.save_progress(
                connection,
                self.job.id,
                done=progress.done,
                total=progress.total,
                counts=_together(self.before, progress.counts),
                chunks=progress.chunks,
                read_bytes=progress.bytes,
            )

    def _saved(self) -> None:
        self._items = []
        self._saved_at = time.monotonic()


Work = Callable[[Running], Report]


_Queue = queue.SimpleQueue[Job | None]  # of one lane; None ends a thread
_SHARED = ""  # the lane of all kinds that have none of their own


class Jobs:
    """Runs jobs in threads of this process, those of one source one after the other, in the order they came.

    `lanes` gives a kind threads of its own, so that short work need not wait for long work; the other kinds share
    `threads`. A job whose source is busy waits outside of the lanes, where it holds no thread.
    """

    def __init__(
        self, catalog: Catalog, work: Mapping[str, Work], *, threads: int = 2, lanes: Mapping[str, int] | None = None
    ) -> None:
        self._catalog = catalog
        self._work = work
        counts = {_SHARED: threads, **(lanes or {})}
        self._lanes: dict[str, _Queue] = {kind: queue.SimpleQueue() for kind in counts}
        # By source: the jobs behind the one that is in a lane or at work. A source that is not in here is free.
        self._behind: dict[str, deque[Job]] = {}
        self._behind_lock = threading.Lock()
        self._stops: dict[str, threading.Event] = {}
        self._running: dict[str, Running] = {}
        self._forgot_at = time.monotonic()
        self._closing = threading.Event()
        self._threads = [
            (
                threading.Thread(target=self._serve, args=(lane,), name=f"job-{kind or 'any'}-{number}", daemon=True),
                lane,
            )
            for kind, lane in self._lanes.items()
            for number in range(counts[kind])
        ]

    def start(self) -> None:
        """Take up what a stop or a crash left, and begin. Work is made so that doing it again changes nothing."""
        with self._catalog.read() as snapshot:
            unfinished = jobs.unfinished_jobs(snapshot)
        for job in unfinished:
            if job.cancel_requested:
                self._finish(job, "cancelled", None)
            else:
                self._enqueue(job)
        for thread, _ in self._threads:
            thread.start()
        self._forget_old_jobs()

    def submit(
        self, *, kind: str, collection_id: str | None, source_id: str | None, request: Mapping[str, object]
    ) -> Job:
        """A new job. One that asks the same of the same source and still waits is joined instead."""
        if self._closing.is_set():
            raise Conflict("The service is stopping and takes no new work.", remedy="Ask again when it is back.")
        with self._catalog.write() as connection:
            waiting = jobs.queued_for_source(connection, source_id) if source_id else []
            for other in waiting[:1] if kind in _LAST_ONE_COUNTS else waiting:
                if other.kind == kind and dict(other.request) == dict(request):
                    return other
            job = jobs.create_job(
                connection, kind=kind, collection_id=collection_id, source_id=source_id, request=request
            )
        self._enqueue(job)
        return job

    def cancel(self, job_id: str) -> Job:
        """Asks a running job to stop; one that waits for its turn has ended when this returns."""
        running = self._running.get(job_id)
        if running is not None:  # before the catalog is asked: another writer may keep us waiting there
            running.stop.set()
        with self._catalog.write() as connection:
            job = jobs.request_cancel(connection, job_id)
            if job.state == "queued":
                jobs.finish_job(connection, job_id, state="cancelled", problem=None)
                job = jobs.get_job(connection, job_id)
        if job.state not in jobs.FINISHED:
            self._stop(job_id).set()
        return job

    def eta_seconds(self, job_id: str) -> float | None:
        """How long a running job will still take; None where nobody knows."""
        running = self._running.get(job_id)
        return running.pace.eta_seconds() if running else None

    def wait(self, job_id: str, *, poll_seconds: float = 0.1) -> Job:
        """The job when it is finished."""
        while True:
            with self._catalog.read() as snapshot:
                job = jobs.get_job(snapshot, job_id)
            if job.state in jobs.FINISHED:
                return job
            time.sleep(poll_seconds)

    def close(self, *, patience_seconds: float = 20.0) -> None:
        """Stop after the batch that is being written. Unfinished jobs go on at the next start."""
        self._closing.set()
        for stop in list(self._stops.values()):
            stop.set()
        for _, lane in self._threads:
            lane.put(None)
        end = time.monotonic() + patience_seconds
        for thread, _ in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _enqueue(self, job: Job) -> None:
        """Into its lane, or behind the job of its source that is there already."""
        with self._behind_lock:
            behind = self._behind.get(_source_of(job))
            if behind is not None:
                behind.append(job)
                return
            self._behind[_source_of(job)] = deque()
        self._lane(job).put(job)

    def _let_next(self, job: Job) -> None:
        """This job is over: the next one of its source may go into its lane, or the source is free."""
        with self._behind_lock:
            behind = self._behind[_source_of(job)]
            following = behind.popleft() if behind else None
            if following is None:
                del self._behind[_source_of(job)]
        if following is not None:
            self._lane(following).put(following)

    def _lane(self, job: Job) -> _Queue:
        return self._lanes.get(job.kind, self._lanes[_SHARED])

    def _serve(self, lane: _Queue) -> None:
        while (job := lane.get()) is not None:
            if self._closing.is_set():
                continue
            try:
                self._run_when_there_is_room(job.id)
            except Exception:  # whatever it is: the jobs after this one must find a thread all the same
                log.exception("Job %s could not be begun", job.id)
            finally:
                self._stops.pop(job.id, None)
                self._let_next(job)
            if time.monotonic() - self._forgot_at > _FORGET_EVERY_SECONDS:
                self._forget_old_jobs()

    def _run_when_there_is_room(self, job_id: str) -> None:
        """That a job begins must be written down. On a full disk it waits in the queue, as it is in the catalog."""
        while not self._closing.is_set():
            try:
                self._run(job_id)
                return
            except DiskFull as problem:
                log.warning("Job %s waits: %s", job_id, problem)
                self._closing.wait(_WRITE_AGAIN_SECONDS)

    def _run(self, job_id: str) -> None:
        with self._catalog.write() as connection:  # one look and one step: nobody can cancel it in between
            job = _find(connection, job_id)  # again: it may have waited for long
            if job is None or job.state in jobs.FINISHED:
                return
            if job.cancel_requested:
                jobs.finish_job(connection, job_id, state="cancelled", problem=None)
                return
            before = jobs.start_job(connection, job_id)
        running = self._running[job_id] = Running(job, self._catalog, self._stop(job_id), before)
        try:
            self._attempt(job, running)
        finally:
            del self._running[job_id]

    def _find(self, job_id: str) -> Job | None:
        with self._catalog.read() as snapshot:
            return _find(snapshot, job_id)

    def _stop(self, job_id: str) -> threading.Event:
        return self._stops.setdefault(job_id, threading.Event())

    def _attempt(self, job: Job, running: Running) -> None:
        try:
            report = self._work[job.kind](running)
        except Cancelled:
            found = self._find(job.id)
            # Stopped by a close alone, it stays as it is and goes on at the next start.
            if not self._closing.is_set() or (found is not None and found.cancel_requested):
                self._end(running, "cancelled", None)
        except AttestError as problem:
            self._end(running, "failed", Problem(problem.code, problem.detail, problem.remedy))
        except Exception as problem:  # the edge of ingestion: one job must not end the thread of all
            if self._is_gone(job):
                return  # whatever it stumbled over then, e.g. a foreign key of its source
            log.exception("Job %s failed", job.id)
            detail = f"{type(problem).__name__} while working on this job; the log has the details."
            self._end(running, "failed", Problem("internal", detail, "Try again; if it stays, report it."))
        else:
            self._end(running, _state(report), report.problem)

    def _end(self, running: Running, state: JobState, problem: Problem | None) -> None:
        if self._is_gone(running.job):
            return
        while True:
            try:
                running.finish(state, problem)
            except Cancelled:  # it went just now
                log.info("Job %s is over: it was deleted with its source", running.job.id)
            except DiskFull as full:  # else it would seem to run until the next start
                log.warning("The end of job %s waits to be written: %s", running.job.id, full)
                if not self._closing.wait(_WRITE_AGAIN_SECONDS):
                    continue
            except Exception:  # whatever it is: the thread goes on
                log.exception("The end of job %s could not be written", running.job.id)
            return

    def _is_gone(self, job: Job) -> bool:
        gone = self._find(job.id) is None
        if gone:
            log.info("Job %s is over: it was deleted with its source", job.id)
        return gone

    def _forget_old_jobs(self) -> None:
        self._forgot_at = time.monotonic()
        try:
            while not self._closing.is_set():
                with self._catalog.write() as connection:
                    if not jobs.forget_old_jobs(connection):
                        return
        except Exception:  # e.g. the disk is full: the jobs that are kept too long harm nobody
            log.exception("Old jobs could not be deleted")

    def _finish(self, job: Job, state: JobState, problem: Problem | None) -> None:
        with self._catalog.write() as connection:
            jobs.finish_job(connection, job.id, state=state, problem=problem)


def _find(connection: Connection, job_id: str) -> Job | None:
    try:
        return jobs.get_job(connection, job_id, items_limit=0)
    except NotFound:
        return None  # its collection or source was deleted meanwhile, and the job with it


def _together(before: Mapping[str, str], counts: Counts) -> Counts:
    """The counts of a job that went on: what it did before it was interrupted, and what it did since."""
    did = Counter(before.values())
    still_there = did.total() - did["deleted"]
    return replace(
        counts,
        added=counts.added + did["added"] + did["partial"],
        changed=counts.changed + did["changed"],
        deleted=counts.deleted + did["deleted"],
        unchanged=max(0, counts.unchanged - still_there),  # it may not have come to them again yet
    )


def _source_of(job: Job) -> str:
    return job.source_id or job.id


def _state(report: Report) -> JobState:
    counts = report.counts
    worked = counts.added + counts.changed + counts.unchanged + counts.deleted
    if report.problem is not None:
        return "partial" if worked else "failed"
    if counts.failed:
        return "partial" if worked else "failed"
    return "succeeded"
