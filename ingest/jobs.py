"""Long work: queued in the catalog, run by threads, resumed after a crash, cancelled when asked."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ingest.sync import Cancelled, Progress, Report
from rag.catalog import jobs
from rag.catalog.engine import Catalog
from rag.catalog.jobs import Job, JobItem, JobState
from rag.errors import AttestError, Conflict, NotFound
from rag.models import Problem

log = logging.getLogger(__name__)

_SAVE_EVERY_SECONDS = 0.5  # progress that nobody could read faster is not worth a commit


@dataclass
class Running:
    """What a piece of work holds of its job: where to report, and whether to stop."""

    job: Job
    catalog: Catalog
    stop: threading.Event
    _saved_at: float = 0.0
    _items: list[JobItem] = field(default_factory=list)
    _progress: Progress | None = None

    def cancelled(self) -> bool:
        return self.stop.is_set()

    def report_items(self, items: list[JobItem]) -> None:
        self._items.extend(items)
        self._save_now_and_then()

    def report_progress(self, progress: Progress) -> None:
        self._progress = progress
        self._save_now_and_then()

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at >= _SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        with self.catalog.write() as connection:
            jobs.add_items(connection, self.job.id, self._items)
            if self._progress is not None:
                progress = self._progress
                jobs.save_progress(
                    connection, self.job.id, done=progress.done, total=progress.total, counts=progress.counts
                )
        self._items = []
        self._saved_at = time.monotonic()


Work = Callable[[Running], Report]


class Jobs:
    """Runs jobs in threads of this process, those of one source one after the other."""

    def __init__(self, catalog: Catalog, work: Mapping[str, Work], *, threads: int = 2) -> None:
        self._catalog = catalog
        self._work = work
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stops: dict[str, threading.Event] = {}
        self._source_locks: dict[str, threading.Lock] = {}
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, name=f"job-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Take up what a stop or a crash left, and begin. Work is made so that doing it again changes nothing."""
        with self._catalog.read() as snapshot:
            unfinished = jobs.unfinished_jobs(snapshot)
        for job in unfinished:
            if job.cancel_requested:
                self._finish(job, "cancelled", None)
            else:
                self._waiting.put(job.id)
        for thread in self._threads:
            thread.start()

    def submit(
        self, *, kind: str, collection_id: str | None, source_id: str | None, request: Mapping[str, object]
    ) -> Job:
        """A new job. One that asks the same of the same source and still waits is joined instead."""
        if self._closing.is_set():
            raise Conflict("The service is stopping and takes no new work.", remedy="Ask again when it is back.")
        with self._catalog.write() as connection:
            waiting = jobs.queued_for_source(connection, source_id) if source_id else None
            if waiting is not None and waiting.kind == kind and dict(waiting.request) == dict(request):
                return waiting
            job = jobs.create_job(
                connection, kind=kind, collection_id=collection_id, source_id=source_id, request=request
            )
        self._waiting.put(job.id)
        return job

    def cancel(self, job_id: str) -> Job:
        with self._catalog.write() as connection:
            job = jobs.request_cancel(connection, job_id)
        if job.state not in jobs.FINISHED:
            self._stop(job_id).set()
        return job

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
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(patience_seconds)

    def _serve(self) -> None:
        while (job_id := self._waiting.get()) is not None:
            if not self._closing.is_set():
                self._run(job_id)

    def _run(self, job_id: str) -> None:
        waiting = self._find(job_id)
        if waiting is None:
            return
        with self._source_lock(waiting.source_id or waiting.id):
            job = self._find(job_id)  # again: it may have waited here for long
            if job is None or job.state in jobs.FINISHED or self._closing.is_set():
                return
            if job.cancel_requested:
                self._finish(job, "cancelled", None)
                return
            running = Running(job, self._catalog, self._stop(job.id))
            with self._catalog.write() as connection:
                jobs.start_job(connection, job.id)
            self._attempt(job, running)
        self._stops.pop(job.id, None)

    def _find(self, job_id: str) -> Job | None:
        with self._catalog.read() as snapshot:
            try:
                return jobs.get_job(snapshot, job_id, items_limit=0)
            except NotFound:
                return None  # its collection or source was deleted meanwhile, and the job with it

    def _stop(self, job_id: str) -> threading.Event:
        return self._stops.setdefault(job_id, threading.Event())

    def _source_lock(self, name: str) -> threading.Lock:
        return self._source_locks.setdefault(name, threading.Lock())

    def _attempt(self, job: Job, running: Running) -> None:
        try:
            report = self._work[job.kind](running)
        except Cancelled:
            if not self._closing.is_set():  # else it stays as it is and goes on at the next start
                self._end(running, "cancelled", None)
        except AttestError as problem:
            self._end(running, "failed", Problem(problem.code, problem.detail, problem.remedy))
        except Exception as problem:  # the edge of ingestion: one job must not end the thread of all
            log.exception("Job %s failed", job.id)
            detail = f"{type(problem).__name__} while working on this job; the log has the details."
            self._end(running, "failed", Problem("internal", detail, "Try again; if it stays, report it."))
        else:
            self._end(running, _state(report), report.problem)

    def _end(self, running: Running, state: JobState, problem: Problem | None) -> None:
        try:
            running.save()
            self._finish(running.job, state, problem)
        except Exception:  # e.g. the source was deleted under a running job, or the disk is full
            log.exception("The end of job %s could not be written", running.job.id)

    def _finish(self, job: Job, state: JobState, problem: Problem | None) -> None:
        with self._catalog.write() as connection:
            jobs.finish_job(connection, job.id, state=state, problem=problem)


def _state(report: Report) -> JobState:
    counts = report.counts
    worked = counts.added + counts.changed + counts.unchanged + counts.deleted
    if report.problem is not None:
        return "partial" if worked else "failed"
    if counts.failed:
        return "partial" if worked else "failed"
    return "succeeded"
