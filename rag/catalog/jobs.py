"""Jobs in the catalog: what was asked, how far it is, what came of it. Functions over a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, literal, select, tuple_, update

from rag.catalog.engine import new_id, next_moment, now
from rag.catalog.tables import UtcDateTime, job_items, jobs
from rag.errors import NotFound
from rag.models import Problem

JobState = Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
FINISHED: frozenset[str] = frozenset({"succeeded", "partial", "failed", "cancelled"})
_KEYS_AT_ONCE = 500  # in one statement
_WITH_PROBLEM = ("failed", "partial")  # states of an item

# A finished job is forgotten, items and all, when it is older than this and a thousand have finished after it.
KEEP_JOBS = 1000
KEEP_FOR = timedelta(days=30)
_FORGET_AT_ONCE = 50  # jobs in one transaction: some have ten thousand items, and others want to write meanwhile


@dataclass(frozen=True, slots=True)
class Counts:
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class JobItem:
    key: str
    uri: str
    state: str  # added | changed | deleted | failed | partial
    document_id: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    kind: str
    state: JobState
    collection_id: str | None
    source_id: str | None
    request: Mapping[str, Any]
    done: int
    total: int | None
    unit: str
    chunks: int  # written so far
    bytes: int  # read so far
    counts: Counts
    problem: Problem | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    items: tuple[JobItem, ...] = field(default=())


def create_job(
    connection: Connection,
    *,
    kind: str,
    collection_id: str | None,
    source_id: str | None,
    request: Mapping[str, object],
    unit: str = "documents",
) -> Job:
    job_id = new_id("job")
    connection.execute(
        insert(jobs).values(
            id=job_id,
            kind=kind,
            state="queued",
            collection_id=collection_id,
            source_id=source_id,
            request=dict(request),
            done=0,
            unit=unit,
            counts={},
            cancel_requested=False,
            created_at=next_moment(connection),  # jobs are taken up again in this order
        )
    )
    return get_job(connection, job_id)


def get_job(connection: Connection, job_id: str, *, items_limit: int = 1000) -> Job:
    """With its first items, as they came; those with a problem are among them before any other."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    if row is None:
        raise NotFound(f"There is no job {job_id}.", remedy="GET /v1/jobs lists those that there are.")
    chosen = (
        select(job_items.c.id)
        .where(job_items.c.job_id == job_id)
        .order_by(job_items.c.state.not_in(_WITH_PROBLEM), job_items.c.id)
        .limit(items_limit)
    )
    items = (
        connection.execute(select(job_items).where(job_items.c.id.in_(chosen)).order_by(job_items.c.id))
        if items_limit
        else ()
    )
    return _job(row, tuple(_item(item) for item in items))


def list_items(
    connection: Connection, job_id: str, *, state: str | None = None, after: int = 0, limit: int = 100
) -> list[tuple[int, JobItem]]:
    """Items of a job as they came, each with its number; those behind the number `after`."""
    query = (
        select(job_items).where(job_items.c.job_id == job_id, job_items.c.id > after).order_by(job_items.c.id)
    ).limit(limit)
    if state is not None:
        query = query.where(job_items.c.state == state)
    return [(row.id, _item(row)) for row in connection.execute(query)]


def item_keys(connection: Connection, job_id: str, *, states: Sequence[str]) -> list[str]:
    """Keys of all its items in one of these states, each once, as they came."""
    query = (
        select(job_items.c.key)
        .where(job_items.c.job_id == job_id, job_items.c.state.in_(states))
        .order_by(job_items.c.id)
    )
    return list(dict.fromkeys(connection.execute(query).scalars()))


def list_jobs(
    connection: Connection, *, state: str | None = None, after: str | None = None, limit: int = 100
) -> list[Job]:
    """Newest first, without their items; those after the job with this id."""
    query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    if after is not None:
        last = get_job(connection, after, items_limit=0)
        query = query.where(
            tuple_(jobs.c.created_at, jobs.c.id) < tuple_(literal(last.created_at, UtcDateTime()), literal(last.id))
        )
    if state is not None:
        query = query.where(jobs.c.state == state)
    return [_job(row, ()) for row in connection.execute(query)]


def unfinished_jobs(connection: Connection) -> list[Job]:
    """Oldest first: what a restart has to take up again."""
    query = select(jobs).where(jobs.c.state.in_(["queued", "running"])).order_by(jobs.c.created_at)
    return [_job(row, ()) for row in connection.execute(query)]


def queued_for_source(connection: Connection, source_id: str) -> list[Job]:
    """Jobs for this source that wait, newest first: asking the same again joins one of them."""
    query = (
        select(jobs)
        .where(jobs.c.source_id == source_id, jobs.c.state == "queued", ~jobs.c.cancel_requested)
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    )
    return [_job(row, ()) for row in connection.execute(query)]


def start_job(connection: Connection, job_id: str) -> dict[str, str]:
    """It is at work, again perhaps. Key → state of what it finished before its process died: that stays."""
    values: dict[str, object] = {"state": "running", "done": 0, "total": None, "counts": {}, "chunks": 0, "bytes": 0}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
    # As of the first start, if this is not the first.
    connection.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.started_at.is_(None)).values(started_at=now()))
    connection.execute(delete(job_items).where(job_items.c.job_id == job_id, job_items.c.state == "failed"))
    kept = select(job_items.c.key, job_items.c.state).where(job_items.c.job_id == job_id)
    return {row.key: row.state for row in connection.execute(kept)}


def drop_items(connection: Connection, job_id: str, keys: Sequence[str]) -> None:
    """Forget what is about to be told anew."""
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        connection.execute(delete(job_items).where(job_items.c.job_id == job_id, job_items.c.key.in_(some)))


def save_progress(
    connection: Connection,
    job_id: str,
    *,
    done: int,
    total: int | None,
    counts: Counts,
    chunks: int = 0,
    read_bytes: int = 0,
) -> None:
    values = {"done": done, "total": total, "counts": asdict(counts), "chunks": chunks, "bytes": read_bytes}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def add_items(connection: Connection, job_id: str, items: Sequence[JobItem]) -> None:
    if items:
        connection.execute(
            insert(job_items),
            [
                {
                    "job_id": job_id,
                    "key": item.key,
                    "uri": item.uri,
                    "state": item.state,
                    "document_id": item.document_id,
                    "problem": _problem(item.problem),
                }
                for item in items
            ],
        )


def finish_job(connection: Connection, job_id: str, *, state: JobState, problem: Problem | None) -> None:
    values = {"state": state, "problem": _problem(problem), "finished_at": now()}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def request_cancel(connection: Connection, job_id: str) -> Job:
    job = get_job(connection, job_id)
    if job.state not in FINISHED:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(cancel_requested=True))
    return get_job(connection, job_id)


def forget_old_jobs(connection: Connection, *, keep: int = KEEP_JOBS, keep_for: timedelta = KEEP_FOR) -> int:
    """Delete some finished jobs that nobody needs to see any more, and their items. Returns how many."""
    kept = (
        select(jobs.c.id)
        .where(jobs.c.finished_at.is_not(None))
        .order_by(jobs.c.finished_at.desc(), jobs.c.id.desc())
        .limit(keep)
    )
    old = select(jobs.c.id).where(jobs.c.finished_at < now() - keep_for, jobs.c.id.not_in(kept)).limit(_FORGET_AT_ONCE)
    return connection.execute(delete(jobs).where(jobs.c.id.in_(old))).rowcount


def _job(row: Row[Any], items: tuple[JobItem, ...]) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        state=row.state,
        collection_id=row.collection_id,
        source_id=row.source_id,
        request=row.request,
        done=row.done,
        total=row.total,
        unit=row.unit,
        chunks=row.chunks,
        bytes=row.bytes,
        counts=Counts(**row.counts),
        problem=Problem(**row.problem) if row.problem else None,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        items=items,
    )


def _item(row: Row[Any]) -> JobItem:
    problem = Problem(**row.problem) if row.problem else None
    return JobItem(row.key, row.uri, row.state, row.document_id, problem)


def _problem(problem: Problem | None) -> dict[str, str] | None:
    return asdict(problem) if problem else None
