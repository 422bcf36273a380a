"""Knowledge bases."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from app.dependencies import ServiceDep
from app.schemas.collections import CollectionIn, CollectionList, CollectionOut, IndexList, IndexOut, ReindexIn
from app.schemas.jobs import JobOut
from ingest.split import target_of
from rag.catalog import indexes, knowledge
from rag.models import Collection

router = APIRouter(prefix="/collections", tags=["collections"])


@router.get("")
def list_collections(service: ServiceDep) -> CollectionList:
    with service.base.catalog.read() as snapshot:
        found = [
            CollectionOut.of(item, knowledge.count_collection(snapshot, item))
            for item in knowledge.list_collections(snapshot)
        ]
    return CollectionList(data=found, next_cursor=None)


@router.post("", status_code=status.HTTP_201_CREATED)
def create_collection(request: CollectionIn, service: ServiceDep) -> CollectionOut:
    return _shown(service.create_collection(request.name), service)


@router.get("/{name}")
def get_collection(name: str, service: ServiceDep) -> CollectionOut:
    return _shown(service.collection(name), service)


@router.patch("/{name}")
def rename_collection(name: str, request: CollectionIn, service: ServiceDep) -> CollectionOut:
    collection = service.collection(name)
    with service.base.catalog.write() as connection:
        renamed = knowledge.rename_collection(connection, collection, request.name)
    return _shown(renamed, service)


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT)
def delete_collection(name: str, service: ServiceDep) -> None:
    """With its sources, documents and versions."""
    service.base.delete_collection(service.collection(name))
    service.follow_sources()


@router.get("/{name}/indexes")
def list_indexes(name: str, service: ServiceDep) -> IndexList:
    """The index that answers, those that are being built or were kept, and what is known of their embedders."""
    collection = service.collection(name)
    with service.base.catalog.read() as snapshot:
        found = indexes.list_indexes(snapshot, collection.id)
        probes = indexes.probes_of(snapshot, [item.id for item in found])
        data = [
            IndexOut.of(
                item,
                chunk_tokens=target_of(item.splitter),
                chunks=indexes.count_active(snapshot, item.id),
                probes=list(probes.get(item.id, {}).values()),
            )
            for item in found
        ]
    return IndexList(data=data, next_cursor=None)


@router.post("/{name}/reindex", status_code=status.HTTP_202_ACCEPTED)
def reindex_collection(name: str, service: ServiceDep, response: Response, request: ReindexIn | None = None) -> JobOut:
    """Make the index anew from the texts that are stored, beside the one that answers, and switch when it is as good.

    The old index is kept: `back` returns to it, `confirm` removes it. Sources are not read."""
    wanted = request or ReindexIn()
    job = service.submit_reindex(service.collection(name), **wanted.model_dump())
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobOut.of(job)


def _shown(collection: Collection, service: ServiceDep) -> CollectionOut:
    with service.base.catalog.read() as snapshot:
        return CollectionOut.of(collection, knowledge.count_collection(snapshot, collection))
