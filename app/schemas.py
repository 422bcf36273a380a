"""What goes over the wire. Unknown fields are refused, so that a typo is an error and not a silent default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from rag.catalog.backups import Backup
from rag.catalog.indexes import Index, Probe
from rag.catalog.jobs import Job, JobItem
from rag.catalog.knowledge import CollectionCounts
from rag.errors import InvalidInput
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
    as_of: AwareDatetime | date | None = Field(
        None,
        description="Search what was active then: a time with its zone, or a day, which means its end in UTC.",
        examples=["2026-03-31", "2026-03-31T12:00:00Z"],
    )

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
    evidence: float = Field(
        description="0 … 1: how surely the passages speak of what was asked. A question with too little is refused."
    )
    not_kept: int = Field(description="With `as_of`: documents whose version of then is no longer kept.")
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
    "as_of": None,
    "not_kept": 0,
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
    as_of: datetime | None = Field(description="The time that was asked about; null for now.")
    not_kept: int = Field(description="With `as_of`: documents whose version of then is no longer kept.")
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
            as_of=answer.as_of,
            not_kept=answer.not_kept,
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


# ── indexes of a collection ───────────────────────────────────────────────────────────────────


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


# ── sources ───────────────────────────────────────────────────────────────────────────────────


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


Refresh = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=200),
    Field(
        description="When it is synced by itself: `15m`, `2h`, `1d`, `daily 03:00`, `weekly mon 03:00` or five cron "
        "fields, in the machine's time zone. Empty or null: only when asked.",
        examples=["15m", "daily 03:00", "*/30 8-18 * * mon-fri"],
    ),
]


class AnySourceIn(Strict):
    name: Name
    refresh: Refresh | None = None
    watch: bool = Field(False, description="Folders only: sync when files in it have changed and come to rest.")


class FolderSourceIn(AnySourceIn):
    kind: Literal["folder"]
    config: FolderConfig


class WebSourceIn(AnySourceIn):
    kind: Literal["web"]
    config: WebConfig


class DatabaseSourceIn(AnySourceIn):
    kind: Literal["database"]
    config: DatabaseConfig


SourceIn = Annotated[FolderSourceIn | WebSourceIn | DatabaseSourceIn, Field(discriminator="kind")]


class SourcePatch(Strict):
    name: Name | None = None
    config: dict[str, Any] | None = Field(None, description="Replaces the whole configuration.")
    refresh: Refresh | None = None
    watch: bool | None = Field(None, description="Folders only: sync when files in it have changed.")


class SourceOut(BaseModel):
    id: str
    collection_id: str
    name: str
    kind: str
    config: dict[str, Any]
    created_at: datetime
    synced_at: datetime | None
    refresh: str | None
    next_sync_at: datetime | None = Field(description="By `refresh`; null where no service runs that stays.")
    watch: bool
    watch_state: str | None = Field(description="How the watching goes, and why not otherwise; null without `watch`.")

    @classmethod
    def of(
        cls, source: SourceRecord, *, next_sync_at: datetime | None = None, watch_state: str | None = None
    ) -> SourceOut:
        return cls(
            id=source.id,
            collection_id=source.collection_id,
            name=source.name,
            kind=source.kind,
            config=dict(source.config),
            created_at=source.created_at,
            synced_at=source.synced_at,
            refresh=source.refresh,
            next_sync_at=next_sync_at,
            watch=source.watch,
            watch_state=watch_state,
        )


class SyncRequest(Strict):
    dry_run: bool = Field(False, description="Answer with the plan and change nothing.")
    allow_deletes: bool = Field(
        False, description="Permit a plan that removes more than ATTEST_MAX_DELETE_SHARE of the source, or all of it."
    )
    verify: bool = Field(False, description="Read everything, whatever the source says of it.")


class PlanItem(BaseModel):
    state: Literal["added", "changed", "unchanged", "deleted", "failed"]
    key: str
    uri: str
    reason: str = Field(description="Why, in a few words.")


class Plan(BaseModel):
    counts: dict[str, int]
    items: list[PlanItem] = Field(description="All that is not unchanged.")
    problem: ProblemOut | None = Field(
        None, description="Why a sync would delete nothing: the listing broke off, is empty, or lacks too much."
    )


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


class KeptAnswerOut(BaseModel):
    id: str
    question: str
    answer: AnswerOut
    created_at: datetime


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
    total: int | None = Field(description="Null while nobody knows how many there will be.")
    unit: str
    chunks: int = Field(description="Written so far.")
    bytes: int = Field(description="Read so far.")
    percent: float | None = Field(description="Of the total; null while that is not known.")
    eta_seconds: float | None = Field(description="Until the end, at the rate of the last minute; null if unknown.")

    @classmethod
    def of(cls, job: Job, eta_seconds: float | None) -> ProgressOut:
        percent = None
        if job.finished_at is not None:
            eta_seconds = None
        if job.total is not None:
            percent = 100.0 if job.done >= job.total else round(100.0 * job.done / job.total, 1)
        return cls(
            done=job.done,
            total=job.total,
            unit=job.unit,
            chunks=job.chunks,
            bytes=job.bytes,
            percent=percent,
            eta_seconds=None if eta_seconds is None else round(eta_seconds, 1),
        )


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

    @classmethod
    def of(cls, item: JobItem) -> JobItemOut:
        return cls(
            key=item.key,
            uri=item.uri,
            state=item.state,
            document_id=item.document_id,
            problem=ProblemOut.of(item.problem) if item.problem else None,
        )


class RetryRequest(Strict):
    only_failed: bool | None = Field(
        None, description="Load only what failed. Default: true for a sync of which single documents failed."
    )
    keys: list[str] | None = Field(None, min_length=1, max_length=10_000, description="Load only these of its items.")


class JobOut(BaseModel):
    id: str
    kind: str
    state: Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
    collection_id: str | None
    source_id: str | None
    progress: ProgressOut
    counts: CountsOut
    problem: ProblemOut | None
    items: list[JobItemOut] = Field(
        description="What was not plainly unchanged, as it came; of more than 1,000, those with a problem first. "
        "`…/items` pages through all. In a stream: those that came since the event before; the last event has all."
    )
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: Job, *, eta_seconds: float | None = None) -> JobOut:
        counts = job.counts
        return cls(
            id=job.id,
            kind=job.kind,
            state=job.state,
            collection_id=job.collection_id,
            source_id=job.source_id,
            progress=ProgressOut.of(job, eta_seconds),
            counts=CountsOut(
                added=counts.added,
                changed=counts.changed,
                unchanged=counts.unchanged,
                deleted=counts.deleted,
                failed=counts.failed,
            ),
            problem=ProblemOut.of(job.problem) if job.problem else None,
            items=[JobItemOut.of(item) for item in job.items],
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


# ── backups ───────────────────────────────────────────────────────────────────────────────────


class BackupIn(Strict):
    name: Annotated[str, StringConstraints(min_length=1, max_length=150)] | None = Field(
        None, description="A plain file name. Default: one with the time in it."
    )
    path: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^/")] | None = Field(
        None, description="Anywhere on the service's disk: for commands of the user who runs the service."
    )


class BackupOut(BaseModel):
    id: str
    path: str
    change: int = Field(description="The last change of the knowledge base that it holds.")
    bytes: int
    created_at: datetime
    present: bool = Field(description="A file is still where it was put.")

    @classmethod
    def of(cls, backup: Backup) -> BackupOut:
        return cls(
            id=backup.id,
            path=backup.path,
            change=backup.change,
            bytes=backup.bytes,
            created_at=backup.created_at,
            present=Path(backup.path).is_file(),
        )


class BackupList(BaseModel):
    data: list[BackupOut]
    next_cursor: str | None


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


class JobItemList(BaseModel):
    data: list[JobItemOut]
    next_cursor: str | None


class JobList(BaseModel):
    data: list[JobOut]
    next_cursor: str | None


def metadata_of(values: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Metadata as JSON can carry it."""
    return {key: value.isoformat() if isinstance(value, date) else value for key, value in values.items()}
