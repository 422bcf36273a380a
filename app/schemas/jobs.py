"""Jobs over the wire: how far they are, and what became of each item."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from app.schemas.common import ProblemOut, Strict
from rag.catalog.jobs import Job, JobItem


class ProgressOut(BaseModel):
    done: int
    total: int | None = Field(description="Null while nobody knows how many there will be.")
    unit: str
    chunks: int = Field(description="Written so far.")
    bytes: int = Field(description="Read so far.")
    percent: float | None = Field(description="Of the total; null while that is not known.")
    eta_seconds: float | None = Field(description="Until the end, at the rate of the last minute; null if unknown.")

    @classmethod
    def of(cls, job: Job, eta_seconds: float | None) -> ProgressOut:
        percent = None
        if job.finished_at is not None:
            eta_seconds = None
        if job.total is not None:
            percent = 100.0 if job.done >= job.total else round(100.0 * job.done / job.total, 1)
        return cls(
            done=job.done,
            total=job.total,
            unit=job.unit,
            chunks=job.chunks,
            bytes=job.bytes,
            percent=percent,
            eta_seconds=None if eta_seconds is None else round(eta_seconds, 1),
        )


class CountsOut(BaseModel):
    added: int
    changed: int
    unchanged: int
    deleted: int
    failed: int


class JobItemOut(BaseModel):
    key: str
    uri: str
    state: str
    document_id: str | None
    problem: ProblemOut | None

    @classmethod
    def of(cls, item: JobItem) -> JobItemOut:
        return cls(
            key=item.key,
            uri=item.uri,
            state=item.state,
            document_id=item.document_id,
            problem=ProblemOut.of(item.problem) if item.problem else None,
        )


class JobItemList(BaseModel):
    data: list[JobItemOut]
    next_cursor: str | None


class RetryRequest(Strict):
    only_failed: bool | None = Field(
        None, description="Load only what failed. Default: true for a sync of which single documents failed."
    )
    keys: list[str] | None = Field(None, min_length=1, max_length=10_000, description="Load only these of its items.")


class JobOut(BaseModel):
    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
    collection_id: str | None
    source_id: str | None
    progress: ProgressOut
    counts: CountsOut
    problem: ProblemOut | None
    items: list[JobItemOut] = Field(
        description="What was not plainly unchanged, as it came; of more than 1,000, those with a problem first. "
        "`…/items` pages through all. In a stream: those that came since the event before; the last event has all."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, *, eta_seconds: float | None = None) -> JobOut:
        counts = job.counts
        return cls(
            id=job.id,
            kind=job.kind,
            state=job.state,
            collection_id=job.collection_id,
            source_id=job.source_id,
            progress=ProgressOut.of(job, eta_seconds),
            counts=CountsOut(
                added=counts.added,
                changed=counts.changed,
                unchanged=counts.unchanged,
                deleted=counts.deleted,
                failed=counts.failed,
            ),
            problem=ProblemOut.of(job.problem) if job.problem else None,
            items=[JobItemOut.of(item) for item in job.items],
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobList(BaseModel):
    data: list[JobOut]
    next_cursor: str | None
