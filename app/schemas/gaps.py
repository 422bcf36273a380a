"""Questions without an answer, over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from app.schemas.common import PlaceOut
from rag.gaps import Gap


class GapDocumentOut(PlaceOut):
    document_id: str
    title: str
    uri: str


class GapOut(BaseModel):
    id: str
    question: str = Field(description="As it was asked last.")
    count: int = Field(description="Times it had no answer.")
    first_at: datetime
    last_at: datetime
    wordings: list[str] = Field(description="How it was asked, newest first.")
    closest: list[GapDocumentOut] = Field(description="What was shown as closest the last time.")
    missing: list[str] = Field(description="Words of the question that nothing close has.")
    answered_since: datetime | None = Field(
        description="When a later asking of it was answered; null where none was. Old questions are not asked again."
    )
    answer_id: str = Field(description="The last kept refusal: `GET /v1/answers/{id}`.")

    @classmethod
    def of(cls, gap: Gap, last: Mapping[str, Any]) -> GapOut:
        """`last`: the last of its answers, as it was kept."""
        refusal = last.get("refusal") or {}
        closest = {
            item["document_id"]: GapDocumentOut(**{name: item.get(name) for name in GapDocumentOut.model_fields})
            for item in refusal.get("closest", [])
        }
        return cls(
            id=gap.id,
            question=gap.asked[-1].question,
            count=gap.count,
            first_at=gap.asked[0].at,
            last_at=gap.asked[-1].at,
            wordings=gap.wordings,
            closest=list(closest.values()),
            missing=refusal.get("missing", []),
            answered_since=gap.answered_since,
            answer_id=gap.asked[-1].id,
        )


class GapList(BaseModel):
    data: list[GapOut]
    next_cursor: str | None
    note: str | None = Field(None, description="Why nothing can be listed, where no answers are kept.")
