"""What goes over the wire. Unknown fields are refused, so that a typo is an error and not a silent default."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from rag.catalog.jobs import Job
from rag.catalog.knowledge import CollectionCounts
from rag.models import (
    Answer,
    Citation,
    Collection,
    Document,
    Hit,
    Place,
    Problem,
    SourceRecord,
    Support,
    Version,
)

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


# ── asking ────────────────────────────────────────────────────────────────────────────────────


class TurnIn(Strict):
    role: Literal["user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=20_000)]


class SearchRequest(Strict):
    question: Text = Field(examples=["How long is the warranty of the TL-1207?", "TL-1207 的保修期是多久？"])
    collection: Name | list[Name] | None = Field(
        None, description="One name, several, or none for all.", examples=["default"]
    )
    top_k: int | None = Field(None, ge=1, le=50, description="Passages to look for.")


class AskRequest(SearchRequest):
    history: list[TurnIn] = Field(
        default_factory=list, max_length=MAX_TURNS, description="Earlier turns, oldest first."
    )
    stream: bool = Field(False, description="Answer as server-sent events.")


class PlaceOut(BaseModel):
    page: int | None = Field(None, description="As a PDF viewer counts, from 1.")
    page_label: str | None = Field(None, description="As printed on the page.")
    section: str | None = None
    row: str | None = Field(None, description="Row of a sheet, or table and primary key.")

    @staticmethod
    def fields_of(place: Place) -> dict[str, Any]:
        return {"page": place.page, "page_label": place.page_label, "section": place.section, "row": place.row}


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
            **PlaceOut.fields_of(hit.place),
        )


class Hits(BaseModel):
    hits: list[HitOut]
    timings_ms: dict[str, float]


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


class RefusalOut(BaseModel):
    reason: str
    searched: dict[str, int] = Field(description="Collection → documents searched.")
    closest: list[ClosestOut]


class UsageOut(BaseModel):
    prompt_tokens: int
    completion_tokens: int


ANSWER_EXAMPLE: dict[str, Any] = {
    "id": "ans_3f9c2b7e51d04a86",
    "answer": "The TL-1207 is covered for 36 months from the date of delivery. [1]",
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
    "language": "en",
    "model": "extractive",
    "degraded": None,
    "left_out": 0,
    "usage": {"prompt_tokens": 0, "completion_tokens": 0},
    "timings_ms": {"embed": 11.2, "look_up": 6.4, "fuse": 0.3, "total": 43.0},
}


class AnswerOut(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": ANSWER_EXAMPLE})

    id: str
    answer: str = Field(description="With [n] behind each sentence that has a source.")
    refused: bool = Field(description="True when there was not enough evidence; `answer` then says why.")
    refusal: RefusalOut | None
    citations: list[CitationOut]
    sentences: list[SentenceOut]
    standalone_question: str = Field(description="The question as it was searched for.")
    language: str
    model: str
    degraded: str | None = Field(description="Why the configured language model did not answer; null when it did.")
    left_out: int = Field(description="Passages that were found and did not fit the model's window.")
    usage: UsageOut
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, answer: Answer) -> AnswerOut:
        refusal = answer.refusal
        return cls(
            id=answer.id,
            answer=answer.answer,
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
            language=answer.language,
            model=answer.model,
            degraded=answer.degraded,
            left_out=answer.left_out,
            usage=UsageOut(prompt_tokens=answer.usage.prompt_tokens, completion_tokens=answer.usage.completion_tokens),
            timings_ms=dict(answer.timings_ms),
        )


# ── knowledge ─────────────────────────────────────────────────────────────────────────────────


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


class FolderConfig(Strict):
    path: Annotated[str, StringConstraints(min_length=1)] = Field(examples=["/srv/manuals"])
    include: list[str] = Field(default_factory=list, examples=[["*.pdf", "policies/**"]])
    exclude: list[str] = Field(default_factory=list)
    passwords_env: str | None = Field(
        None, description="Variable ATTEST_… with passwords of encrypted files, one a line."
    )


class CrawlConfig(Strict):
    depth: int = Field(2, ge=0, le=10)
    max_pages: int = Field(200, ge=1, le=10_000)


class WebConfig(Strict):
    urls: list[str] = Field(default_factory=list, examples=[["https://example.org/help/"]])
    sitemap: str | None = None
    crawl: CrawlConfig | None = None
    include: list[str] = Field(default_factory=list)
    exclude: list[str] = Field(default_factory=list)
    allow_private: bool = Field(False, description="Permit addresses of your own network. Off by default on purpose.")
    headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="Header → variable ATTEST_… that holds its value.",
        examples=[{"Cookie": "ATTEST_WIKI_COOKIE"}],
    )
    passwords_env: str | None = None


class TableConfig(Strict):
    name: str
    key: list[str] = Field(default_factory=list)
    text_columns: list[str] | None = None
    metadata_columns: list[str] = Field(default_factory=list)
    title_columns: list[str] = Field(default_factory=list)
    updated_at: str | None = None


class DatabaseConfig(Strict):
    url_env: str = Field(description="Variable ATTEST_DB_… that holds the URL.", examples=["ATTEST_DB_PRODUCTS"])
    tables: list[str | TableConfig] | None = Field(None, description="Names or tables; none means all tables.")
    query: str | None = Field(None, description="One SELECT instead of tables; needs `key`.")
    query_name: str = "query"
    key: list[str] = Field(default_factory=list)
    text_columns: list[str] | None = None
    metadata_columns: list[str] = Field(default_factory=list)
    title_columns: list[str] = Field(default_factory=list)
    updated_at: str | None = None
    labels: dict[str, list[str]] = Field(
        default_factory=dict, description="Table → columns that name its rows where a foreign key points at them."
    )


class FolderSourceIn(Strict):
    name: Name
    kind: Literal["folder"]
    config: FolderConfig


class WebSourceIn(Strict):
    name: Name
    kind: Literal["web"]
    config: WebConfig


class DatabaseSourceIn(Strict):
    name: Name
    kind: Literal["database"]
    config: DatabaseConfig


SourceIn = Annotated[FolderSourceIn | WebSourceIn | DatabaseSourceIn, Field(discriminator="kind")]


class SourcePatch(Strict):
    name: Name | None = None
    config: dict[str, Any] | None = Field(None, description="Replaces the whole configuration.")


class SourceOut(BaseModel):
    id: str
    collection_id: str
    name: str
    kind: str
    config: dict[str, Any]
    created_at: datetime
    synced_at: datetime | None

    @classmethod
    def of(cls, source: SourceRecord) -> SourceOut:
        return cls(
            id=source.id,
            collection_id=source.collection_id,
            name=source.name,
            kind=source.kind,
            config=dict(source.config),
            created_at=source.created_at,
            synced_at=source.synced_at,
        )


class SyncRequest(Strict):
    dry_run: bool = Field(False, description="Answer with the plan and change nothing.")
    allow_deletes: bool = Field(False, description="Permit a plan that removes more than a fifth of the source.")
    verify: bool = Field(False, description="Read everything, whatever the source says of it.")


class PlanItem(BaseModel):
    state: Literal["added", "changed", "unchanged", "deleted", "failed"]
    key: str
    uri: str


class Plan(BaseModel):
    counts: dict[str, int]
    items: list[PlanItem] = Field(description="All that is not unchanged.")


class TextDocumentIn(Strict):
    title: Name
    text: Annotated[str, StringConstraints(min_length=1)]
    key: Name | None = Field(None, description="Identity; a second one under it is a new version. Default: the title.")
    uri: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None
    media_type: Literal["text/plain", "text/markdown", "text/html"] = "text/plain"
    metadata: dict[str, str | Whole | FiniteFloat | bool | date] = Field(default_factory=dict)


class ProblemOut(BaseModel):
    code: str
    detail: str
    remedy: str

    @classmethod
    def of(cls, problem: Problem) -> ProblemOut:
        return cls(code=problem.code, detail=problem.detail, remedy=problem.remedy)


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
    enabled: bool
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
            problems=[ProblemOut.of(problem) for problem in document.problems],
            enabled=document.enabled,
            updated_at=document.updated_at,
        )


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
        )


class ChunkOut(BaseModel):
    chunk_id: str
    start: int
    end: int
    text: str
    heading: str
    tokens: int


# ── work ──────────────────────────────────────────────────────────────────────────────────────


class ProgressOut(BaseModel):
    done: int
    total: int | None
    unit: str


class CountsOut(BaseModel):
    added: int
    changed: int
    unchanged: int
    deleted: int
    failed: int


class JobItemOut(BaseModel):
    key: str
    uri: str
    state: str
    document_id: str | None
    problem: ProblemOut | None


class JobOut(BaseModel):
    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
    collection_id: str | None
    source_id: str | None
    progress: ProgressOut
    counts: CountsOut
    problem: ProblemOut | None
    items: list[JobItemOut] = Field(description="Everything that was not plainly unchanged.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> JobOut:
        counts = job.counts
        return cls(
            id=job.id,
            kind=job.kind,
            state=job.state,
            collection_id=job.collection_id,
            source_id=job.source_id,
            progress=ProgressOut(done=job.done, total=job.total, unit=job.unit),
            counts=CountsOut(
                added=counts.added,
                changed=counts.changed,
                unchanged=counts.unchanged,
                deleted=counts.deleted,
                failed=counts.failed,
            ),
            problem=ProblemOut.of(job.problem) if job.problem else None,
            items=[
                JobItemOut(
                    key=item.key,
                    uri=item.uri,
                    state=item.state,
                    document_id=item.document_id,
                    problem=ProblemOut.of(item.problem) if item.problem else None,
                )
                for item in job.items
            ],
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class CollectionList(BaseModel):
    data: list[CollectionOut]
    next_cursor: str | None


class SourceList(BaseModel):
    data: list[SourceOut]
    next_cursor: str | None


class DocumentList(BaseModel):
    data: list[DocumentOut]
    next_cursor: str | None


class VersionList(BaseModel):
    data: list[VersionOut]
    next_cursor: str | None


class ChunkList(BaseModel):
    data: list[ChunkOut]
    next_cursor: str | None


class JobList(BaseModel):
    data: list[JobOut]
    next_cursor: str | None


def metadata_of(values: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Metadata as JSON can carry it."""
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in values.items()}
