"""What bodies of several nouns share. Unknown fields are refused: a typo is an error and not a silent default."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rag.models import Place, Problem

MAX_QUESTION_CHARS = 4000
MAX_TURNS = 50

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_QUESTION_CHARS)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]  # what a database can hold, and so can every language's JSON
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
]  # one line


class Strict(BaseModel):
    # Any limit on strings makes pydantic look inside them, and then it refuses lone surrogates, which JSON can escape
    # and no answer, log or database can write.
    model_config = ConfigDict(extra="forbid", str_min_length=0)


class PlaceOut(BaseModel):
    page: int | None = Field(None, description="As a PDF viewer counts, from 1.")
    page_label: str | None = Field(None, description="As printed on the page.")
    section: str | None = None
    row: str | None = Field(None, description="Row of a sheet, or table and primary key.")

    @staticmethod
    def fields_of(place: Place) -> dict[str, Any]:
        return {"page": place.page, "page_label": place.page_label, "section": place.section, "row": place.row}


class ProblemOut(BaseModel):
    code: str
    detail: str
    remedy: str

    @classmethod
    def of(cls, problem: Problem) -> ProblemOut:
        return cls(code=problem.code, detail=problem.detail, remedy=problem.remedy)
