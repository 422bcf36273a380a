"""How a collection's passages are ranked, over the wire."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from app.schemas.common import Strict, Text
from quality.models import Gold, Question
from rag.text.language import language_of

MAX_QUESTIONS = 1_000

Called = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]


class GoldIn(Strict):
    document: Called = Field(description="Its id, key, title, uri or file name.", examples=["handbook.pdf"])
    page: int | None = Field(None, ge=1)
    row: Called | None = None


class GoldQuestionIn(Strict):
    question: Text
    documents: list[GoldIn] = Field(min_length=1, max_length=50, description="Where its answer stands.")
    needs_all: bool = Field(False, description="Every one of the documents is needed; else any of them will do.")

    def told(self) -> Question:
        gold = tuple(Gold(one.document, one.page, one.row) for one in self.documents)
        return Question("", self.question, language_of(self.question), gold=gold, any_gold=not self.needs_all)


class RankingIn(Strict):
    questions: list[GoldQuestionIn] = Field(min_length=1, max_length=MAX_QUESTIONS)


class GainOut(BaseModel):
    value: float
    low: float
    high: float
    n: int


class FittedOut(BaseModel):
    kept: bool = Field(description="Whether questions are ranked so. If not, the defaults rank them.")
    share: float = Field(description="The vectors' share where the embedder reads all of a question; default 0.5.")
    weights: dict[str, float] | None = Field(description="Of the light reranker's features; null: as they are.")
    reranker: str = Field(description="That was configured then.")
    fitted_on: int = Field(description="Questions.")
    measured_on: int = Field(description="Other questions: what follows is of these.")
    before: dict[str, float] = Field(description="With the defaults: ndcg@10, hit@1, mrr@10.")
    after: dict[str, float] = Field(description="As fitted.")
    gain: GainOut = Field(description="Of ndcg@10, with its 95 % interval.")
    at: datetime


class RankingOut(BaseModel):
    """By language; what is not in it is ranked by the defaults."""

    languages: dict[str, FittedOut]

    @classmethod
    def of(cls, ranking: Mapping[str, Any] | None) -> RankingOut:
        return cls.model_validate(ranking or {"languages": {}})


class TunedOut(RankingOut):
    too_few: dict[str, int] = Field(description="Questions of languages that had too few of them to fit anything.")
    not_here: int = Field(description="Questions whose documents are not in the collection.")
