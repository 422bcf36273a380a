"""Knowledge bases."""

from __future__ import annotations

from fastapi import APIRouter, status

from app.dependencies import ServiceDep
from app.schemas import CollectionIn, CollectionList, CollectionOut
from rag.catalog import knowledge
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


def _shown(collection: Collection, service: ServiceDep) -> CollectionOut:
    with service.base.catalog.read() as snapshot:
        return CollectionOut.of(collection, knowledge.count_collection(snapshot, collection))
