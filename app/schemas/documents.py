"""Documents over the wire: their texts, versions and chunks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat, StringConstraints

from app.schemas.common import Name, ProblemOut, Strict, Whole
from rag.models import Document, Version


class TextDocumentIn(Strict):
    title: Name
    text: Annotated[str, StringConstraints(min_length=1)]
    key: Name | None = Field(None, description="Identity; a second one under it is a new version. Default: the title.")
    uri: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    media_type: Literal["text/plain", "text/markdown", "text/html"] = "text/plain"
    metadata: dict[str, str | Whole | FiniteFloat | bool | date] = Field(default_factory=dict)


class DocumentOut(BaseModel):
    id: str
    source_id: str
    key: str
    title: str
    uri: str
    status: str
    version: int | None = Field(description="The active one; null when nothing of it can be found.")
    chunks: int
    metadata: dict[str, Any]
    problems: list[ProblemOut]
    tags: list[str]
    enabled: bool = Field(description="Whether a question can find it.")
    updated_at: datetime

    @classmethod
    def of(cls, document: Document) -> DocumentOut:
        return cls(
            id=document.id,
            source_id=document.source_id,
            key=document.key,
            title=document.title,
            uri=document.uri,
            status=document.status,
            version=document.version,
            chunks=document.chunks,
            metadata=dict(document.metadata),
            tags=list(document.tags),
            problems=[ProblemOut.of(problem) for problem in document.problems],
            enabled=document.enabled,
            updated_at=document.updated_at,
        )


class DocumentList(BaseModel):
    data: list[DocumentOut]
    next_cursor: str | None


class DocumentPatch(Strict):
    """Somebody's own words about a document. They are kept apart from its source's, and survive every sync."""

    title: Name | None = None
    metadata: dict[Name, str | Whole | FiniteFloat | bool | date | None] | None = Field(
        None, description="Values to set; null hides what the source says.", examples=[{"department": "Sales"}]
    )
    tags: Annotated[list[Name], Field(max_length=100)] | None = Field(None, description="Replaces all tags.")
    enabled: bool | None = Field(None, description="False takes it out of every answer without deleting it.")
    reset: list[str] = Field(
        default_factory=list,
        description="What goes back to the source's word: `title`, or `metadata.KEY`.",
        examples=[["title", "metadata.department"]],
    )


class RollbackRequest(Strict):
    version: int = Field(ge=1, lt=2**31)


class DiffOut(BaseModel):
    document_id: str
    old: int
    new: int
    diff: str = Field(description="Unified diff of the two texts; empty where they say the same.")


class BackupHolding(BaseModel):
    path: str
    created_at: datetime


class PurgeOut(BaseModel):
    document_id: str
    backups: list[BackupHolding] = Field(description="Backups made of this knowledge base that still hold it.")
    comes_back: bool = Field(description="Its source is synced: if it still has the document, the next sync reads it.")


class TextOut(BaseModel):
    document_id: str
    version: int
    title: str
    text: str


class VersionOut(BaseModel):
    version: int
    active: bool
    content_sha256: str
    text_sha256: str
    pipeline: str
    characters: int
    created_at: datetime
    removed_at: datetime | None = Field(description="When retention let go of its text.")

    @classmethod
    def of(cls, version: Version) -> VersionOut:
        return cls(
            version=version.number,
            active=version.active,
            content_sha256=version.content_sha256,
            text_sha256=version.text_sha256,
            pipeline=version.pipeline,
            characters=version.characters,
            created_at=version.created_at,
            removed_at=version.removed_at,
        )


class VersionList(BaseModel):
    data: list[VersionOut]
    next_cursor: str | None


class ChunkOut(BaseModel):
    chunk_id: str
    start: int
    end: int
    text: str
    heading: str
    tokens: int


class ChunkList(BaseModel):
    data: list[ChunkOut]
    next_cursor: str | None


def metadata_of(values: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Metadata as JSON can carry it."""
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in values.items()}
