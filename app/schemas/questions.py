"""Questions over the wire, their passages and answers."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.schemas.common import MAX_TURNS, Name, PlaceOut, Strict, Text
from app.schemas.filters import FilterIn
from app.schemas.passages import PassageOut, ShownOut
from rag.errors import InvalidInput
from rag.filters import Filter
from rag.models import Also, Answer, Citation, Hit, RefusalKind, ShortAnswer, Support


class TurnIn(Strict):
    role: Literal["user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=20_000)]


class SearchRequest(Strict):
    question: Text = Field(examples=["How long is the warranty of the TL-1207?", "TL-1207 的保修期是多久？"])
    collection: Name | list[Name] | None = Field(
        None, description="One name, several, or none for all.", examples=["default"]
    )
    top_k: int | None = Field(None, ge=1, le=50, description="Passages to look for.")
    as_of: AwareDatetime | date | None = Field(
        None,
        description="Search what was active then: a time with its zone, or a day, which means its end in UTC.",
        examples=["2026-03-31", "2026-03-31T12:00:00Z"],
    )

    filters: FilterIn | None = Field(
        None,
        description="Search only documents of which this is true. Metadata counts as it is today, also with `as_of`.",
    )

    def narrowed(self) -> Filter | None:
        """`filters` as they are asked. Raises InvalidFilter."""
        return self.filters.read(pointer="/filters") if self.filters else None

    def moment(self) -> datetime | None:
        """`as_of` as a time in UTC. Raises InvalidInput for one that is still to come."""
        if self.as_of is None:
            return None
        if isinstance(self.as_of, datetime):
            moment = self.as_of.astimezone(UTC)
        else:
            moment = datetime.combine(self.as_of, time.max, UTC)
        if moment.date() > datetime.now(UTC).date():
            raise InvalidInput(f"as_of is {self.as_of}, which is still to come.", remedy="Leave it out to ask now.")
        return moment


class ContextRequest(SearchRequest):
    context_tokens: int | None = Field(
        None,
        ge=100,
        le=1_000_000,
        description="Put together what a language model of your own should be shown, within so many tokens: see "
        "`context` of the response.",
    )


class AskRequest(SearchRequest):
    history: list[TurnIn] = Field(
        default_factory=list, max_length=MAX_TURNS, description="Earlier turns, oldest first."
    )
    stream: bool = Field(False, description="Answer as server-sent events.")
    min_evidence: float | None = Field(
        None, ge=0, le=1, description="Refuse below this; default: ATTEST_MIN_EVIDENCE. See `evidence` of the answer."
    )
    keep: bool = Field(
        True,
        description="Keep the answer for as long as answers are kept. With false nothing of it is stored: it cannot be "
        "looked up, gives no gap, and no feedback can name it.",
    )


class AlsoOut(PlaceOut):
    document_id: str
    version: int
    title: str
    uri: str
    chunk_id: str
    start: int
    end: int

    @classmethod
    def of(cls, also: Also) -> AlsoOut:
        return cls(
            document_id=also.document_id,
            version=also.version,
            title=also.title,
            uri=also.uri,
            chunk_id=str(also.chunk_id),
            start=also.start,
            end=also.end,
            **PlaceOut.fields_of(also.place),
        )


_ALSO = "Passages that say the same in nearly the same words, with the same numbers, dates and names."


_DATE = (
    "Of what time the document is, or since when in force, by its metadata, text or name. ISO 8601, as exact as "
    "it is known: 2020, 2020-05, 2020-05-01, or two with a slash between."
)


class HitOut(PlaceOut):
    document_id: str
    version: int
    title: str
    uri: str
    chunk_id: str
    start: int = Field(description="Offset in the version's text, in Unicode code points.")
    end: int
    text: str
    score: float = Field(description="0 … 1, higher is better; comparable within one response.")
    arms: dict[str, float] = Field(description="Each arm's own score: cosine of the vectors, BM25 of the terms.")
    also: list[AlsoOut] = Field(default_factory=list, description=_ALSO)
    date: str | None = Field(None, description=_DATE)

    @classmethod
    def of(cls, hit: Hit) -> HitOut:
        return cls(
            document_id=hit.document_id,
            version=hit.version,
            title=hit.title,
            uri=hit.uri,
            chunk_id=str(hit.chunk_id),
            start=hit.start,
            end=hit.end,
            text=hit.text,
            score=round(hit.score, 4),
            arms={name: round(score, 4) for name, score in hit.arms.items()},
            also=[AlsoOut.of(also) for also in hit.also],
            date=hit.date,
            **PlaceOut.fields_of(hit.place),
        )


class Hits(BaseModel):
    hits: list[HitOut]
    evidence: float = Field(
        description="0 … 1: how surely the passages speak of what was asked. A question with too little is refused."
    )
    not_kept: int = Field(description="With `as_of`: documents whose version of then is no longer kept.")
    timings_ms: dict[str, float]
    rewrites: list[str] = Field(default_factory=list, description="As in an answer.")
    context: list[PassageOut] | None = Field(
        None,
        description="With `context_tokens`: the hits, grown to what stands around them or cut by whole sentences, best "
        "first. With room for it and no `top_k`, also what ranks behind the hits.",
    )


class CitationOut(PlaceOut):
    n: int
    document_id: str
    version: int
    title: str
    uri: str
    chunk_id: str
    start: int = Field(description="Offset in the version's text, in Unicode code points.")
    end: int
    quote: str = Field(description="The version's text from start to end, character for character.")
    support: Support
    also: list[AlsoOut] = Field(default_factory=list, description=_ALSO)
    date: str | None = Field(None, description=_DATE)

    @classmethod
    def of(cls, citation: Citation) -> CitationOut:
        return cls(
            n=citation.n,
            document_id=citation.document_id,
            version=citation.version,
            title=citation.title,
            uri=citation.uri,
            chunk_id=str(citation.chunk_id),
            start=citation.start,
            end=citation.end,
            quote=citation.quote,
            support=citation.support,
            also=[AlsoOut.of(also) for also in citation.also],
            date=citation.date,
            **PlaceOut.fields_of(citation.place),
        )


class SentenceOut(BaseModel):
    text: str
    start: int = Field(description="Offset in `answer`.")
    end: int
    citations: list[int]
    support: Support


class ClosestOut(PlaceOut):
    document_id: str
    title: str
    uri: str
    text: str
    score: float


class ReadingOut(BaseModel):
    question: str = Field(description="Can be asked instead.")
    title: str
    section: str | None
    document_id: str


class RefusalOut(BaseModel):
    reason: str
    searched: dict[str, int] = Field(description="Collection → documents searched.")
    closest: list[ClosestOut]
    readings: list[ReadingOut] = Field(
        default_factory=list, description="Where the question was too vague: up to four things that it may mean."
    )
    missing: list[str] = Field(default_factory=list, description="Words of the question that nothing close has.")
    kind: RefusalKind = Field(
        "no_evidence",
        description="`vague`: see `readings`. `filtered_out`: the filter left nothing to search. `across_languages`: "
        "the passages are in another language than the question, and the embedder does not connect the two.",
    )
    lacks: str | None = Field(
        None, description="`date`, `number`, `person` or `place`, where the closest passages name none."
    )


class ShortAnswerOut(BaseModel):
    text: str
    citation: int = Field(description="The `n` of the citation in whose quote it stands.")
    start: int = Field(description="Offset in the version's text, in Unicode code points.")
    end: int

    @classmethod
    def of(cls, short: ShortAnswer | None) -> ShortAnswerOut | None:
        if short is None:
            return None
        return cls(text=short.text, citation=short.citation, start=short.start, end=short.end)


class StatedOut(BaseModel):
    text: str = Field(description="The quote of the citation.")
    value: str = Field(description="The number or the date in it.")
    citation: int = Field(description="Its `n`.")
    date: str | None = Field(description="As `date` of the citation, or else the day on which it was stored.")


class DisagreementOut(BaseModel):
    about: str
    statements: list[StatedOut] = Field(description="The newest first.")


class UsageOut(BaseModel):
    prompt_tokens: int
    completion_tokens: int


ANSWER_EXAMPLE: dict[str, Any] = {
    "id": "ans_3f9c2b7e51d04a86",
    "answer": "The TL-1207 is covered for 36 months from the date of delivery. [1]",
    "short_answer": {"text": "36 months", "citation": 1, "start": 439, "end": 448},
    "refused": False,
    "refusal": None,
    "citations": [
        {
            "n": 1,
            "document_id": "doc_5b1e0c9a77d2f340",
            "version": 1,
            "title": "Warranty",
            "uri": "site/warranty.html",
            "page": None,
            "page_label": None,
            "section": "Warranty › Periods",
            "row": None,
            "chunk_id": "118",
            "start": 412,
            "end": 475,
            "quote": "The TL-1207 is covered for 36 months from the date of delivery.",
            "support": "supported",
            "also": [],
            "date": "2026-01-15",
        }
    ],
    "sentences": [
        {
            "text": "The TL-1207 is covered for 36 months from the date of delivery.",
            "start": 0,
            "end": 63,
            "citations": [1],
            "support": "supported",
        }
    ],
    "standalone_question": "How long is the warranty of the TL-1207?",
    "rewrites": [],
    "language": "en",
    "model": "extractive",
    "degraded": None,
    "support": "supported",
    "left_out": 0,
    "passages": [],
    "evidence": 0.93,
    "as_of": None,
    "not_kept": 0,
    "disagreements": [],
    "usage": {"prompt_tokens": 0, "completion_tokens": 0},
    "timings_ms": {"embed": 11.2, "look_up": 6.4, "fuse": 0.3, "total": 43.0},
}


class AnswerOut(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": ANSWER_EXAMPLE})

    id: str
    answer: str = Field(description="With [n] behind each sentence that has a source.")
    short_answer: ShortAnswerOut | None = Field(
        None,
        description="The phrase or table cell that answers, where a question asks for one and it is sure enough; "
        "without a language model only.",
    )
    refused: bool = Field(description="True when there was not enough evidence; `answer` then says why.")
    refusal: RefusalOut | None
    citations: list[CitationOut]
    sentences: list[SentenceOut]
    standalone_question: str = Field(description="The question as it was searched for.")
    rewrites: list[str] = Field(
        default_factory=list, description="Other wordings of it, by the language model, that were searched for as well."
    )
    language: str
    model: str
    degraded: str | None = Field(
        description="Why the configured language model did not answer, or not as it should; null when it did."
    )
    support: Support | None = Field(
        description="That of the weakest sentence: `supported` means that every sentence is. Null in a refusal."
    )
    left_out: int = Field(description="Passages that were found and did not fit the model's window.")
    passages: list[ShownOut] = Field(
        default_factory=list, description="What the language model was shown, in that order; its texts are at …/text."
    )
    evidence: float | None = Field(
        None,
        description="0 … 1: how probable it is that the passages answer. Less than `min_evidence` is a refusal.",
    )
    as_of: datetime | None = Field(description="The time that was asked about; null for now.")
    not_kept: int = Field(description="With `as_of`: documents whose version of then is no longer kept.")
    disagreements: list[DisagreementOut] = Field(
        default_factory=list,
        description="Where sources give different numbers or dates for what was asked. The answer tells every side.",
    )
    usage: UsageOut
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, answer: Answer) -> AnswerOut:
        refusal = answer.refusal
        return cls(
            id=answer.id,
            answer=answer.answer,
            short_answer=ShortAnswerOut.of(answer.short_answer),
            refused=answer.refused,
            refusal=RefusalOut(
                reason=refusal.reason,
                searched=dict(refusal.searched),
                closest=[
                    ClosestOut(
                        document_id=item.document_id,
                        title=item.title,
                        uri=item.uri,
                        text=item.text,
                        score=round(item.score, 4),
                        **PlaceOut.fields_of(item.place),
                    )
                    for item in refusal.closest
                ],
                readings=[
                    ReadingOut(
                        question=item.question, title=item.title, section=item.section, document_id=item.document_id
                    )
                    for item in refusal.readings
                ],
                missing=list(refusal.missing),
                kind=refusal.kind,
                lacks=refusal.lacks,
            )
            if refusal
            else None,
            citations=[CitationOut.of(citation) for citation in answer.citations],
            sentences=[
                SentenceOut(
                    text=item.text, start=item.start, end=item.end, citations=list(item.citations), support=item.support
                )
                for item in answer.sentences
            ],
            standalone_question=answer.standalone_question,
            rewrites=list(answer.rewrites),
            language=answer.language,
            model=answer.model,
            degraded=answer.degraded,
            support=answer.support,
            left_out=answer.left_out,
            passages=[ShownOut.of(shown) for shown in answer.passages],
            evidence=None if answer.evidence is None else round(answer.evidence, 4),
            as_of=answer.as_of,
            not_kept=answer.not_kept,
            disagreements=[
                DisagreementOut(
                    about=item.about,
                    statements=[
                        StatedOut(text=one.text, value=one.value, citation=one.citation, date=one.date)
                        for one in item.statements
                    ],
                )
                for item in answer.disagreements
            ],
            usage=UsageOut(prompt_tokens=answer.usage.prompt_tokens, completion_tokens=answer.usage.completion_tokens),
            timings_ms=dict(answer.timings_ms),
        )


class KeptAnswerOut(BaseModel):
    id: str
    question: str
    answer: AnswerOut
    created_at: datetime
