"""Long work."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, status

from app.dependencies import ServiceDep
from app.schemas import JobList, JobOut
from app.service import Service
from app.streams import Frame, event_stream
from rag.catalog import jobs
from rag.errors import Conflict

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOOK_SECONDS = 0.25


@router.get("")
def list_jobs(
    service: ServiceDep,
    state: jobs.JobState | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> JobList:
    """Newest first, without their items."""
    with service.base.catalog.read() as snapshot:
        found = jobs.list_jobs(snapshot, state=state, after=cursor, limit=limit + 1)
    page = found[:limit]
    return JobList(data=[JobOut.of(job) for job in page], next_cursor=page[-1].id if len(found) > limit else None)


@router.get("/{job_id}", response_model=JobOut)
def get_job(job_id: str, service: ServiceDep, accept: Annotated[str, Header()] = "") -> Any:
    """With `Accept: text/event-stream`: an event `job` whenever it has moved on, until it is finished."""
    if "text/event-stream" in accept:
        return event_stream(_followed(job_id, service))
    return JobOut.of(service.job(job_id))


@router.post("/{job_id}/cancel", status_code=status.HTTP_202_ACCEPTED)
def cancel_job(job_id: str, service: ServiceDep) -> JobOut:
    """What was written stays, whole; what was not is left out."""
    return JobOut.of(service.jobs.cancel(job_id))


@router.post("/{job_id}/retry", status_code=status.HTTP_202_ACCEPTED)
def retry_job(job_id: str, service: ServiceDep) -> JobOut:
    """The same again, as a new job. What succeeded already costs nothing."""
    job = service.job(job_id)
    if job.state not in jobs.FINISHED:
        raise Conflict(f"Job {job_id} is {job.state}.", remedy="Cancel it first, or wait for it.")
    service.begin()
    return JobOut.of(
        service.jobs.submit(
            kind=job.kind, collection_id=job.collection_id, source_id=job.source_id, request=job.request
        )
    )


def _followed(job_id: str, service: Service) -> Generator[Frame, None, None]:
    before = None
    while True:
        job = service.job(job_id)
        shown = JobOut.of(job).model_dump(mode="json")
        if shown != before:
            yield "job", shown
            before = shown
        if job.state in jobs.FINISHED:
            return
        time.sleep(_LOOK_SECONDS)
