"""Long work."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response, status

from app.dependencies import ServiceDep
from app.schemas.jobs import JobItemList, JobItemOut, JobList, JobOut, RetryRequest
from app.service import Service
from app.streams import Frame, event_stream
from rag.catalog import jobs
from rag.catalog.jobs import Job
from rag.errors import Conflict, Gone, InvalidInput

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOOK_SECONDS = 0.25
_ITEMS_IN_AN_EVENT = 1000
_SYNC = "sync"  # the kind of job whose items can be loaded one by one


@router.get("")
def list_jobs(
    service: ServiceDep,
    state: jobs.JobState | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> JobList:
    """Newest first, without their items. A finished one is kept for 30 days, and the last 1,000 in any case."""
    with service.base.catalog.read() as snapshot:
        found = jobs.list_jobs(snapshot, state=state, after=cursor, limit=limit + 1)
    page = found[:limit]
    return JobList(data=[_shown(job, service) for job in page], next_cursor=page[-1].id if len(found) > limit else None)


@router.get("/{job_id}", response_model=JobOut)
def get_job(job_id: str, service: ServiceDep, accept: Annotated[str, Header()] = "") -> Any:
    """With `Accept: text/event-stream`: an event `job` whenever it has moved on, until it is finished."""
    if "text/event-stream" in accept:
        return event_stream(_followed(job_id, service))
    return _shown(service.job(job_id), service)


@router.get("/{job_id}/items")
def list_job_items(
    job_id: str,
    service: ServiceDep,
    state: Annotated[str | None, Query(description="Only those in this state, e.g. `failed`.")] = None,
    cursor: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> JobItemList:
    """All its items as they came, each failure with its reason."""
    with service.base.catalog.read() as snapshot:
        jobs.get_job(snapshot, job_id, items_limit=0)
        found = jobs.list_items(snapshot, job_id, state=state, after=cursor, limit=limit + 1)
    page = found[:limit]
    return JobItemList(
        data=[JobItemOut.of(item) for _, item in page], next_cursor=str(page[-1][0]) if len(found) > limit else None
    )


@router.post("/{job_id}/cancel", status_code=status.HTTP_202_ACCEPTED)
def cancel_job(job_id: str, service: ServiceDep) -> JobOut:
    """What was written stays, whole; what was not is left out."""
    return _shown(service.jobs.cancel(job_id), service)


@router.post("/{job_id}/retry", status_code=status.HTTP_202_ACCEPTED)
def retry_job(job_id: str, service: ServiceDep, response: Response, request: RetryRequest | None = None) -> JobOut:
    """The same again, as a new job: all of it, or what failed. What succeeded already costs nothing."""
    wanted = request or RetryRequest()
    job = service.job(job_id)
    if job.state not in jobs.FINISHED:
        raise Conflict(f"Job {job_id} is {job.state}.", remedy="Cancel it first, or wait for it.")
    if not job.request:
        raise Gone(f"What job {job_id} handed over was purged.", remedy="Hand the document over again.")
    keys = _keys_to_retry(job, wanted, service)
    service.begin()
    again = service.jobs.submit(
        kind=job.kind,
        collection_id=job.collection_id,
        source_id=job.source_id,
        request=job.request if keys is None else {**job.request, "only": keys},
    )
    response.headers["Location"] = f"/v1/jobs/{again.id}"
    return _shown(again, service)


def _keys_to_retry(job: Job, wanted: RetryRequest, service: Service) -> list[str] | None:
    """Of the items to load again; None means all of the job."""
    if wanted.keys is not None and wanted.only_failed is not None:
        raise InvalidInput("`keys` and `only_failed` exclude each other.", remedy="Give one of them.")
    if job.kind != _SYNC:
        if wanted.keys is not None or wanted.only_failed:
            raise InvalidInput(f"A job of the kind “{job.kind}” is retried as a whole.", remedy="Send no body.")
        return None
    with service.base.catalog.read() as snapshot:
        if wanted.keys is not None:
            known = jobs.item_keys(snapshot, job.id, states=("failed", "partial"))
            unknown = sorted(set(wanted.keys) - set(known))
            if unknown:
                detail = f"Job {job.id} has no item “{unknown[0][:200]}” that failed."
                raise InvalidInput(detail, remedy=f"GET /v1/jobs/{job.id}/items?state=failed lists them.")
            return sorted(set(wanted.keys))
        failed = jobs.item_keys(snapshot, job.id, states=("failed",))
    if wanted.only_failed and not failed:
        raise InvalidInput(f"Nothing of job {job.id} failed on its own.", remedy="Retry it without `only_failed`.")
    # Where the listing itself broke off, or somebody cancelled it, there is more to do than what failed.
    by_default = bool(failed) and job.problem is None and job.state != "cancelled"
    return failed if (by_default if wanted.only_failed is None else wanted.only_failed) else None


def _shown(job: Job, service: Service) -> JobOut:
    return JobOut.of(job, eta_seconds=service.jobs.eta_seconds(job.id))


def _followed(job_id: str, service: Service) -> Generator[Frame | None, None, None]:
    """Its moves; None for each look that found nothing new, so that a client that goes away is noticed."""
    before, last_item = None, 0
    while True:
        with service.base.catalog.read() as snapshot:
            job = jobs.get_job(snapshot, job_id, items_limit=0)
            new = jobs.list_items(snapshot, job_id, after=last_item, limit=_ITEMS_IN_AN_EVENT)
        if job.state in jobs.FINISHED:
            yield "job", _shown(service.job(job_id), service).model_dump(mode="json")
            return
        if new or job != before:
            shown = _shown(job, service)
            shown.items = [JobItemOut.of(item) for _, item in new]
            yield "job", shown.model_dump(mode="json")
            before, last_item = job, new[-1][0] if new else last_item
        else:
            yield None
        time.sleep(_LOOK_SECONDS)
