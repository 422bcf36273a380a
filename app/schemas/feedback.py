"""What people say of answers, over the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, model_validator

from app.schemas.common import Name, Strict, Text
from rag.catalog.feedback import Feedback

_Told = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]


class FeedbackIn(Strict):
    answer_id: str | None = Field(None, description="The answer that it is about, while that is kept.")
    question: Text | None = Field(
        None,
        description="The question, where no answer is named; or how it was meant, instead of how it was understood.",
    )
    collection: Name | list[Name] | None = Field(
        None, description="Where it is asked, by name or id. An answer's own is known by what it showed."
    )
    helpful: bool | None = Field(
        None, description="Whether the answer was right; of a refusal, whether there is indeed no answer."
    )
    evidence: bool | None = Field(None, description="Whether the passages that it cited are the ones that answer.")
    expected: _Told | None = Field(None, description="The answer as it should have been.", examples=["three years"])
    documents: list[str] = Field(
        default_factory=list, max_length=100, description="Ids of the documents that have the answer."
    )
    comment: _Told | None = Field(None, description="Anything else.")

    @model_validator(mode="after")
    def _says_something(self) -> FeedbackIn:
        if self.answer_id is None and self.question is None:
            raise ValueError("give answer_id or question")
        said = (self.helpful, self.evidence, self.expected, self.comment, self.documents or None)
        if all(one is None for one in said):
            raise ValueError("give one of helpful, evidence, expected, documents and comment")
        return self


class FeedbackOut(BaseModel):
    id: str
    answer_id: str | None
    question: str = Field(description="As it stands alone.")
    collections: list[str] = Field(description="Ids of those that were asked; empty where it is not known.")
    helpful: bool | None
    evidence: bool | None
    expected: str | None
    documents: list[str]
    comment: str | None
    refused: bool | None = Field(description="Whether the answer was a refusal; null where none is named.")
    cited: list[str] = Field(description="Ids of the documents that the answer cited.")
    created_at: datetime

    @classmethod
    def of(cls, item: Feedback) -> FeedbackOut:
        said, judged = item.judgement, item.judged
        return cls(
            id=item.id,
            answer_id=judged.answer_id,
            question=item.question,
            collections=list(item.collections),
            helpful=said.helpful,
            evidence=said.evidence,
            expected=said.expected,
            documents=list(said.documents),
            comment=said.comment,
            refused=judged.refused,
            cited=list(judged.cited),
            created_at=item.created_at,
        )


class FeedbackList(BaseModel):
    data: list[FeedbackOut]
    next_cursor: str | None
