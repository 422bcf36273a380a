"""Collections over the wire, and the indexes of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

from app.schemas.common import Name, Strict
from rag.catalog.indexes import Index, Probe
from rag.catalog.knowledge import CollectionCounts
from rag.models import Collection


class CollectionIn(Strict):
    name: Name = Field(examples=["handbook", "产品手册"])


class CollectionOut(BaseModel):
    id: str
    name: str
    documents: int = Field(description="Documents that a question can find.")
    chunks: int
    created_at: datetime

    @classmethod
    def of(cls, collection: Collection, counts: CollectionCounts) -> CollectionOut:
        return cls(
            id=collection.id,
            name=collection.name,
            documents=counts.documents,
            chunks=counts.chunks,
            created_at=collection.created_at,
        )


class CollectionList(BaseModel):
    data: list[CollectionOut]
    next_cursor: str | None


class ReindexIn(Strict):
    """What is not said is as configured."""

    embedder: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="`default`, a sentence-transformers name or path. Default: ATTEST_EMBEDDER."
    )
    chunk_tokens: int | None = Field(
        None, ge=32, le=2048, description="Longest chunk in the embedder's tokens. Default: ATTEST_CHUNK_TOKENS."
    )
    check: bool = Field(True, description="Compare the new index with the old one before the switch.")
    force: bool = Field(False, description="Switch even where the check finds that it is worse.")
    back: bool = Field(False, description="Go back to the index that answered before.")
    confirm: bool = Field(False, description="Remove all indexes but the one that answers: there is no way back then.")

    @model_validator(mode="after")
    def _one_thing(self) -> ReindexIn:
        building = self.embedder is not None or self.chunk_tokens is not None or self.force or not self.check
        if self.back + self.confirm + building > 1:
            raise ValueError("`back` and `confirm` stand alone")
        return self


class WayOut(BaseModel):
    old: float = Field(description="Share of the questions whose answer the old index has among the first five.")
    new: float
    lost: bool


class CheckedOut(BaseModel):
    questions: int
    own: int = Field(description="Of them, those that somebody asked; the others are sentences of the texts.")
    fused: WayOut
    vectors: WayOut


class QualityOut(BaseModel):
    at: datetime
    passed: bool
    forced: bool
    languages: dict[str, CheckedOut]


class ProbeOut(BaseModel):
    language: str
    coverage: float = Field(description="Share of the tokens that the embedder knows.")
    found: float = Field(description="Share of sampled chunks that a sentence of theirs finds, by vectors alone.")
    samples: int
    chunks: int = Field(description="Of this language, about, when it was probed.")
    probed_at: datetime


class IndexOut(BaseModel):
    id: int
    state: Literal["building", "active", "retired"]
    embedder: str
    embedder_spec: str | None
    dimension: int
    chunk_tokens: int | None
    chunks: int
    checked: QualityOut | None = Field(description="What the quality check before the switch found.")
    probes: list[ProbeOut]
    created_at: datetime
    activated_at: datetime | None
    retired_at: datetime | None

    @classmethod
    def of(cls, index: Index, *, chunk_tokens: int | None, chunks: int, probes: Sequence[Probe]) -> IndexOut:
        return cls(
            id=index.id,
            state=index.state,
            embedder=index.embedder_name,
            embedder_spec=index.embedder_spec,
            dimension=index.dimension,
            chunk_tokens=chunk_tokens,
            chunks=chunks,
            checked=QualityOut.model_validate(index.checked) if index.checked else None,
            probes=[ProbeOut(**asdict(probe)) for probe in probes],
            created_at=index.created_at,
            activated_at=index.activated_at,
            retired_at=index.retired_at,
        )


class IndexList(BaseModel):
    data: list[IndexOut]
    next_cursor: str | None
