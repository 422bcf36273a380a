"""Single documents: handed over, listed, read back, removed."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from app.dependencies import ServiceDep
from app.schemas.documents import (
    BackupHolding,
    ChunkList,
    ChunkOut,
    DiffOut,
    DocumentList,
    DocumentOut,
    DocumentPatch,
    PurgeOut,
    RollbackRequest,
    TextDocumentIn,
    TextOut,
    VersionList,
    VersionOut,
    metadata_of,
)
from app.schemas.jobs import JobOut
from app.service import Service
from ingest.sources.uploads import Upload
from rag.catalog import knowledge, versions
from rag.errors import InvalidInput, NotFound
from rag.models import Document
from rag.upkeep import retention, revisions

router = APIRouter(tags=["documents"])

Limit = Annotated[int, Query(ge=1, le=500)]
VersionNumber = Annotated[int | None, Query(ge=1, lt=2**31, description="Default: the active one.")]

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "title": {"type": "string"},
                        "key": {"type": "string", "description": "Identity; default: the file name."},
                    },
                }
            },
            "application/json": {
                "schema": TextDocumentIn.model_json_schema(),
                "example": {"title": "Opening hours", "text": "The Rotterdam office is open from 8:30 to 17:30."},
            },
        },
    }
}


@router.get("/collections/{name}/documents")
def list_documents(name: str, service: ServiceDep, cursor: str = "", limit: Limit = 100) -> DocumentList:
    collection = service.collection(name)
    with service.base.catalog.read() as snapshot:
        found = knowledge.list_documents(snapshot, collection, after=cursor, limit=limit + 1)
    page = found[:limit]
    return DocumentList(
        data=[DocumentOut.of(item) for item in page], next_cursor=page[-1].id if len(found) > limit else None
    )


@router.post("/collections/{name}/documents", status_code=status.HTTP_202_ACCEPTED, openapi_extra=_BODY)
async def add_document(name: str, request: Request, service: ServiceDep, response: Response) -> JobOut:
    """A file, or a text with a title. The same again adds nothing; another content under its key is a new version."""
    data, upload = await _handed_over(request)
    if not data:
        raise InvalidInput(f"“{upload.name}” has no content.", remedy="Send a file or a text that has some.")
    job = await run_in_threadpool(lambda: service.submit_upload(service.collection_to_fill(name), data, upload))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobOut.of(job)


async def _handed_over(request: Request) -> tuple[bytes, Upload]:
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=20) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                detail = "The form has no field “file” with a file in it."
                raise InvalidInput(detail, remedy="curl -F file=@handbook.pdf …")
            name = _file_name(file.filename)
            key, title = _text(form.get("key")) or name, _text(form.get("title"))
            return await file.read(), Upload(key, name, "", file.content_type, title, f"uploads/{key}")
    if content_type.startswith("application/json"):
        try:
            body = TextDocumentIn.model_validate_json(await request.body())
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error
        key = body.key or body.title
        suffix = {"text/plain": ".txt", "text/markdown": ".md", "text/html": ".html"}[body.media_type]
        # It came as text, so it is text: a NUL in it would make the reader take it for something else.
        return body.text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(), Upload(
            key=key,
            name=_file_name(body.title) + suffix,
            sha256="",
            media_type=f"{body.media_type}; charset=utf-8",
            title=body.title,
            uri=body.uri or f"uploads/{key}",
            metadata=metadata_of(body.metadata),
        )
    raise InvalidInput(
        f"A document cannot be handed over as “{content_type or 'nothing'}”.",
        remedy="Send multipart/form-data with a file, or application/json with title and text.",
    )


@router.get("/documents/{document_id}")
def get_document(document_id: str, service: ServiceDep) -> DocumentOut:
    return DocumentOut.of(_document(document_id, service))


@router.patch("/documents/{document_id}")
def change_document(document_id: str, request: DocumentPatch, service: ServiceDep) -> DocumentOut:
    """Title, metadata, tags, and whether it may be found. Nothing is read or embedded again; every sync keeps it."""
    wrong = [name for name in request.reset if name != "title" and not name.startswith("metadata.")]
    if wrong:
        raise InvalidInput(f"“{wrong[0]}” cannot be reset.", remedy="Use title, or metadata.KEY.")
    changed = revisions.edit(
        service.base,
        document_id,
        title="" if "title" in request.reset else request.title,
        metadata=request.metadata,
        back_to_source=[name.removeprefix("metadata.") for name in request.reset if name != "title"],
        tags=request.tags,
        enabled=request.enabled,
    )
    return DocumentOut.of(changed)


@router.post("/documents/{document_id}/rollback")
def roll_back(document_id: str, request: RollbackRequest, service: ServiceDep) -> DocumentOut:
    """Make an older version the active one, at once. It stays until its source has something new."""
    return DocumentOut.of(revisions.roll_back(service.base, document_id, request.version))


@router.post("/documents/{document_id}/purge")
def purge_document(document_id: str, service: ServiceDep) -> PurgeOut:
    """Remove every trace: versions, vectors, terms, originals, and the answers that quote it. Cannot be undone.

    Returns when no file of the data folder holds it any more, which takes about as long as copying them.
    """
    service.begin()
    purged = retention.purge(service.base, document_id)
    return PurgeOut(
        document_id=purged.document_id,
        backups=[BackupHolding(path=item.path, created_at=item.created_at) for item in purged.backups],
        comes_back=purged.comes_back,
    )


@router.get("/documents/{document_id}/diff")
def diff_versions(
    document_id: str,
    service: ServiceDep,
    old: Annotated[int, Query(ge=1, lt=2**31, description="Version before.")],
    new: VersionNumber = None,
) -> DiffOut:
    """What changed in its text from one version to another."""
    after = _version(document_id, new, service).number
    return DiffOut(
        document_id=document_id, old=old, new=after, diff=revisions.diff(service.base, document_id, old=old, new=after)
    )


@router.delete("/documents/{document_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_document(document_id: str, service: ServiceDep) -> None:
    """Out of every answer at once. One that its source still has comes back with the source's next sync."""
    service.delete_document(document_id)


@router.get("/documents/{document_id}/text")
def get_text(document_id: str, service: ServiceDep, version: VersionNumber = None) -> TextOut:
    """The canonical text that citations' offsets count in."""
    row = _version(document_id, version, service)
    return TextOut(document_id=row.document_id, version=row.number, title=row.title, text=row.text)


@router.get("/documents/{document_id}/original", response_class=Response)
def get_original(document_id: str, service: ServiceDep, version: VersionNumber = None) -> Response:
    """The bytes as they came. Rows of a database have none but their text."""
    row = _version(document_id, version, service)
    if row.pipeline.startswith("row/"):
        data, media_type = row.text.encode(), "text/plain; charset=utf-8"
    else:
        data, media_type = service.base.originals.get(row.content_sha256), row.media_type or "application/octet-stream"
    # Always as a download that no browser interprets: what was ingested may be hostile HTML.
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.name)}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return Response(data, media_type=media_type, headers=headers)


@router.get("/documents/{document_id}/versions")
def list_versions(document_id: str, service: ServiceDep) -> VersionList:
    with service.base.catalog.read() as snapshot:
        found = versions.list_versions(snapshot, document_id)
    if not found:
        _document(document_id, service)
    return VersionList(data=[VersionOut.of(item) for item in found], next_cursor=None)


@router.get("/documents/{document_id}/chunks")
def list_chunks(
    document_id: str,
    service: ServiceDep,
    version: VersionNumber = None,
    cursor: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Limit = 100,
) -> ChunkList:
    with service.base.catalog.read() as snapshot:
        number = version or versions.active_version(snapshot, document_id)
        found = (
            versions.list_chunks(snapshot, document_id, version=number, after=cursor, limit=limit + 1) if number else []
        )
    if not found:
        _version(document_id, number, service)  # says so where there is no such version, or no such document
    page = found[:limit]
    return ChunkList(
        data=[
            ChunkOut(
                chunk_id=str(row.key),
                start=row.start,
                end=row.end,
                text=row.text,
                heading=row.heading,
                tokens=row.tokens,
            )
            for row in page
        ],
        next_cursor=str(page[-1].key) if len(found) > limit else None,
    )


def _version(document_id: str, number: int | None, service: Service) -> Any:
    """The stored version, the active one when no number is given."""
    with service.base.catalog.read() as snapshot:
        try:
            return versions.version_row(snapshot, document_id, number)
        except NotFound:
            knowledge.get_document(snapshot, document_id)  # where there is none at all, that is what to say
            raise


def _document(document_id: str, service: ServiceDep) -> Document:
    with service.base.catalog.read() as snapshot:
        return knowledge.get_document(snapshot, document_id)


def _file_name(name: str | None) -> str:
    """The last part of what the client calls it; only ever shown, never used as a path."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1].strip()
    return "".join(character for character in last if character.isprintable())[:200] or "document"


def _text(value: Any) -> str | None:
    return value.strip()[:200] or None if isinstance(value, str) else None
