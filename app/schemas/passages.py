"""What a language model is shown, over the wire."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.schemas.common import PlaceOut
from rag.models import Passage, Shown


class SpanOut(BaseModel):
    start: int = Field(description="Offset in the version's text, in Unicode code points.")
    end: int
    text: str = Field(description="The version's text from start to end, character for character.")
    chunk_id: str


class PassageOut(PlaceOut):
    n: int
    document_id: str
    version: int
    title: str
    uri: str
    header: str = Field(description="Names of the columns of a table whose rows are shown without them; often empty.")
    spans: list[SpanOut] = Field(
        description="In order. Where one begins at the end of the one before, the text goes on; elsewhere some was "
        "left out, which a model is shown as “…”."
    )
    tokens: int = Field(description="In the configured model's count, title and frame included; an estimate without.")

    @classmethod
    def of(cls, passage: Passage) -> PassageOut:
        return cls(
            n=passage.n,
            document_id=passage.hit.document_id,
            version=passage.hit.version,
            title=passage.hit.title,
            uri=passage.hit.uri,
            header=passage.header,
            spans=[
                SpanOut(start=span.start, end=span.end, text=span.text, chunk_id=str(span.chunk_id))
                for span in passage.spans
            ],
            tokens=passage.tokens,
            **PlaceOut.fields_of(passage.hit.place),
        )


class ShownOut(BaseModel):
    n: int
    document_id: str
    version: int
    spans: list[tuple[int, int]] = Field(description="Start and end in the version's text of each stretch of it.")

    @classmethod
    def of(cls, shown: Shown) -> ShownOut:
        return cls(n=shown.n, document_id=shown.document_id, version=shown.version, spans=list(shown.spans))
