"""Where knowledge comes from."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Response, status
from pydantic import TypeAdapter, ValidationError

from app.dependencies import ServiceDep
from app.schemas.common import ProblemOut
from app.schemas.jobs import JobOut
from app.schemas.sources import Plan, PlanItem, SourceIn, SourceList, SourceOut, SourcePatch, SyncRequest
from app.service import UPLOAD_KIND, UPLOADS
from ingest.schedule import parse
from ingest.watch import watchable
from rag.catalog import knowledge
from rag.catalog.engine import now
from rag.errors import Conflict, InvalidInput
from rag.models import SourceRecord

router = APIRouter(tags=["sources"])

_SOURCE: TypeAdapter[SourceIn] = TypeAdapter(SourceIn)


@router.get("/collections/{name}/sources")
def list_sources(name: str, service: ServiceDep) -> SourceList:
    collection = service.collection(name)
    with service.base.catalog.read() as snapshot:
        found = knowledge.list_sources(snapshot, collection)
    return SourceList(data=[_shown(item, service) for item in found], next_cursor=None)


@router.post("/collections/{name}/sources", status_code=status.HTTP_201_CREATED)
def create_source(name: str, request: SourceIn, service: ServiceDep) -> SourceOut:
    """A folder, a web site or a database. Its configuration is checked now; nothing is read before it is synced."""
    _check_name(request.name)
    config = request.config.model_dump(exclude_defaults=True)
    refresh = _refresh(request.refresh or "") or None
    _check(SourceRecord("", "", request.name, request.kind, config, now(), watch=request.watch), service)
    collection = service.collection_to_fill(name)
    with service.base.catalog.write() as connection:
        created = knowledge.create_source(
            connection,
            collection,
            name=request.name,
            kind=request.kind,
            config=config,
            refresh=refresh,
            watch=request.watch,
        )
    service.follow_sources()
    return _shown(created, service)


@router.get("/sources/{source_id}")
def get_source(source_id: str, service: ServiceDep) -> SourceOut:
    return _shown(_source(source_id, service), service)


@router.patch("/sources/{source_id}")
def change_source(source_id: str, request: SourcePatch, service: ServiceDep) -> SourceOut:
    source = _source(source_id, service)
    if source.kind == UPLOAD_KIND and (request.refresh or request.watch):
        raise InvalidInput(
            f"“{source.name}” holds what was handed over, and has nowhere to look for news.",
            remedy="Add the folder that the files come from as a source, and give that one refresh or watch.",
        )
    refresh = _refresh(request.refresh or "") if "refresh" in request.model_fields_set else None
    watch = source.watch if request.watch is None else request.watch
    config = None
    if request.config is not None:
        try:
            valid = _SOURCE.validate_python({"name": source.name, "kind": source.kind, "config": request.config})
        except ValidationError as error:
            first = error.errors()[0]
            where = "/".join(str(part) for part in first["loc"][1:])
            raise InvalidInput(f"The configuration cannot be used: {where}: {first['msg']}.") from error
        config = valid.config.model_dump(exclude_defaults=True)
    if config is not None or request.watch:
        used = source.config if config is None else config
        collection_id = source.collection_id
        _check(SourceRecord(source.id, collection_id, source.name, source.kind, used, now(), watch=watch), service)
    if request.name is not None and request.name != source.name:
        _check_name(request.name, before=source)
    with service.base.catalog.write() as connection:
        if request.name is not None:
            collection = knowledge.get_collection(connection, source.collection_id)
            other = knowledge.find_source(connection, collection, request.name)
            if other is not None and other.id != source.id:
                detail = f"“{collection.name}” has a source named “{request.name}” already."
                raise Conflict(detail, remedy="Choose another name.")
        changed = knowledge.update_source(
            connection, source, name=request.name, config=config, refresh=refresh, watch=request.watch
        )
    service.follow_sources()
    return _shown(changed, service)


@router.delete("/sources/{source_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_source(source_id: str, service: ServiceDep) -> None:
    """With every document that came from it."""
    service.delete_source(_source(source_id, service))


@router.post(
    "/sources/{source_id}/sync",
    status_code=status.HTTP_202_ACCEPTED,
    response_model=JobOut | Plan,
    responses={200: {"model": Plan, "description": "The plan of a dry run."}},
)
def sync_source(
    source_id: str, service: ServiceDep, response: Response, request: SyncRequest | None = None
) -> JobOut | Plan:
    """Bring the knowledge base to what the source has now. Answers with a job, or with the plan of a dry run."""
    wanted = request or SyncRequest()
    source = _source(source_id, service)
    if wanted.dry_run:
        response.status_code = status.HTTP_200_OK
        plan = service.plan(source, allow_deletes=wanted.allow_deletes, verify=wanted.verify)
        return Plan(
            counts=dict(Counter(item.state for item in plan.items)),
            items=[
                PlanItem(state=item.state, key=item.key, uri=item.uri, reason=item.reason)
                for item in plan.items
                if item.state != "unchanged"
            ],
            problem=ProblemOut.of(plan.problem) if plan.problem else None,
        )
    job = service.submit_sync(source, allow_deletes=wanted.allow_deletes, verify=wanted.verify)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobOut.of(job)


def _source(source_id: str, service: ServiceDep) -> SourceRecord:
    with service.base.catalog.read() as snapshot:
        return knowledge.get_source(snapshot, source_id)


def _check_name(name: str, *, before: SourceRecord | None = None) -> None:
    """Uploads find their source by its name; in another source, its next sync would take them for deleted."""
    if name == UPLOADS or (before is not None and before.kind == UPLOAD_KIND):
        raise Conflict(f"“{UPLOADS}” is the source of the documents handed over one by one.", remedy="Keep its name.")


def _check(record: SourceRecord, service: ServiceDep) -> None:
    """Opening contacts nothing and says what is wrong with a configuration."""
    source = service.open(record)
    if record.watch:
        watchable(source, name=record.name)


def _refresh(text: str) -> str:
    """In one spelling; empty for none. Raises InvalidInput."""
    if text:
        parse(text)
    return " ".join(text.split()).lower()


def _shown(source: SourceRecord, service: ServiceDep) -> SourceOut:
    return SourceOut.of(
        source,
        next_sync_at=service.schedules.next_run(source.id),
        watch_state=service.watchers.state(source.id),
    )
