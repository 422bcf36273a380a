"""The nouns. Frozen dataclasses that every room may hold; they import nothing of ours.

All offsets count Unicode code points in a version's canonical text, start inclusive, end exclusive.
All scores are better when higher. All times are UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import PurePosixPath
from typing import Literal

BlockKind = Literal["heading", "paragraph", "list_item", "table_row", "code"]
PageStatus = Literal["text", "ocr", "needs_ocr", "garbled", "empty"]
DocumentStatus = Literal[
    "ok",  # read and searchable
    "partial",  # searchable, but some pages or parts could not be read
    "needs_ocr",  # nothing but pictures of text, and OCR is not installed
    "needs_password",
    "corrupt",
    "garbled",  # there is a text layer, and it is rubbish
    "empty",
    "unsupported",  # no reader for this format
    "too_large",  # a limit of size, time or memory was reached
    "blocked",  # a page that wants a login or JavaScript, or a host that refused
    "failed",
]
MetadataValue = str | int | float | bool | date
Support = Literal["supported", "weak", "unsupported"]
# filtered_out: the filter left nothing to search. across_languages: the passages are in a language that the embedder
# does not connect with the question's.
RefusalKind = Literal["no_evidence", "vague", "filtered_out", "across_languages"]


# ── what a reader makes of bytes ──────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph, heading, list item or table row of the canonical text.

    `section` holds the titles of the headings above it, outermost first; a heading is the last of its own section.
    `row` names a table row for a citation ("12", "Artist / 3").
    `header` names the columns where the row's own text does not ("Region | Q1 | Q2").
    """

    kind: BlockKind
    start: int
    end: int
    section: tuple[str, ...] = ()
    page: int | None = None  # 1-based
    level: int | None = None  # of a heading, 1 is the outermost
    row: str | None = None
    header: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    number: int  # 1-based, as a PDF viewer counts
    label: str  # as printed on the page: "vii", "A-3"
    start: int
    end: int
    status: PageStatus = "text"


@dataclass(frozen=True, slots=True)
class Problem:
    """A stable word, what happened, and what to do."""

    code: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reader makes of bytes: canonical text and its structure.

    Blocks are in order, do not overlap, and lie inside the text; what lies between them is white space only.
    Text is canonical: `\\n` line ends, no NUL, no lone surrogates (see `rag.text.language.canonical`).
    """

    text: str
    blocks: tuple[Block, ...]
    pages: tuple[Page, ...] = ()
    title: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)  # author, date, language, …
    status: DocumentStatus = "ok"
    problems: tuple[Problem, ...] = ()


# ── what a source offers ──────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Original:
    """The bytes of one item as its source has them. Rows of a database come parsed already."""

    data: bytes
    name: str  # a file name or the last part of a URL; helps to tell the format
    media_type: str | None = None  # as declared by the source; may be wrong
    title: str | None = None  # overrides what the reader finds
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)  # overrides what the reader finds
    state: Mapping[str, str] = field(default_factory=dict)  # replaces the item's state once this is stored
    parsed: Parsed | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """Something a source has. `load` fetches its bytes and may raise DocumentError.

    `state` is what the source can tell without reading (size and mtime, ETag, updated-at); equal states mean unchanged.
    """

    key: str  # identity within the source: relative path, canonical URL, table + primary key
    uri: str  # for people and citations; never carries credentials
    state: Mapping[str, str]
    load: Callable[[], Original]
    unchanged: bool = False  # the source itself is sure (304 Not Modified)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """Something a source has but could not show. It keeps its last good copy and counts as failed."""

    key: str
    uri: str
    problem: Problem


# ── what is stored ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk before it is stored: `text == canonical[start:end]`.

    `heading` (title, section path, a table's header) goes to the embedder and the terms, and is not part of the text.
    """

    start: int
    end: int
    text: str
    heading: str
    tokens: int  # of the text alone, in the embedder's own tokens
    page: int | None = None
    row: str | None = None

    @property
    def embedded_text(self) -> str:
        """The exact text that is embedded; vectors are stored by its hash."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


@dataclass(frozen=True, slots=True)
class Collection:
    id: str
    name: str
    embedder: str  # identity of the embedder of the active index
    index_id: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SourceRecord:
    id: str
    collection_id: str
    name: str
    kind: str  # "folder" | "web" | "database" | "upload"
    config: Mapping[str, object]
    created_at: datetime
    synced_at: datetime | None = None
    refresh: str | None = None  # "15m", "daily 03:00", a cron line; None: only when asked
    watch: bool = False  # a folder's file events start a sync


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    source_id: str
    key: str
    title: str
    uri: str
    status: DocumentStatus
    version: int | None  # the active one; None when nothing of it can be searched
    metadata: Mapping[str, MetadataValue]
    problems: tuple[Problem, ...]
    enabled: bool
    updated_at: datetime
    chunks: int = 0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    document_id: str
    number: int
    content_sha256: str
    text_sha256: str
    pipeline: str
    media_type: str
    created_at: datetime
    characters: int
    active: bool
    removed_at: datetime | None = None  # by retention; its text is no longer kept


def file_stem(uri: str) -> str:
    """`3M 2018 10K` of `reports/3M_2018_10K.pdf`."""
    return PurePosixPath(uri.rstrip("/")).stem.replace("_", " ").replace("%20", " ")


# ── a question and its answer ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Turn:
    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in its document, for a person: page, section, table row."""

    page: int | None = None
    page_label: str | None = None
    section: str | None = None
    row: str | None = None


@dataclass(frozen=True, slots=True)
class Also:
    """Where a passage stands that says the same as another one, with the same numbers, dates and names."""

    document_id: str
    version: int
    title: str
    uri: str
    place: Place
    chunk_id: int
    start: int
    end: int

    @classmethod
    def of(cls, hit: Hit) -> Also:
        return cls(hit.document_id, hit.version, hit.title, hit.uri, hit.place, hit.chunk_id, hit.start, hit.end)


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answers to the question. `arms` holds each arm's own score, where that arm found it.

    `places` says where its blocks stand: (offset, place) in order of offset, the first at or before `start`.
    """

    chunk_id: int
    collection_id: str
    document_id: str
    version: int
    title: str
    uri: str
    places: tuple[tuple[int, Place], ...]
    start: int
    end: int
    text: str
    heading: str
    tokens: int  # of the text, as the embedder counts
    score: float
    arms: Mapping[str, float]
    also: tuple[Also, ...] = ()  # near-duplicates that were found with it
    signature: bytes = field(default=b"", repr=False)  # see `rag.text.duplicates`; empty where none is stored
    date: str | None = None  # of what time its document is, or since when in force (ISO 8601): 2020, 2020-05-01
    untimely: bool = False  # another edition or report of the same suits the time that was asked about better

    @property
    def file_stem(self) -> str:
        """The last part of its address, without the suffix: at times all that says whose report this is."""
        return file_stem(self.uri)

    def place_at(self, offset: int) -> Place:
        """Where the character at this offset of the canonical text stands."""
        found = Place()
        for start, place in self.places:
            if start > offset:
                break
            found = place
        return found

    @property
    def place(self) -> Place:
        return self.place_at(max(self.start, self.places[0][0])) if self.places else Place()

    @property
    def table_header(self) -> str:
        """Names of the columns of the tables that its rows are from, a line for each table: what a heading has below
        the line of title and sections."""
        return self.heading.partition("\n")[2]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one chunk. Its offsets count in the version's canonical text, and its text is what stands there."""

    chunk: Hit
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.chunk.text[self.start - self.chunk.start : self.end - self.chunk.start]

    @property
    def chunk_id(self) -> int:
        return self.chunk.chunk_id


@dataclass(frozen=True, slots=True)
class Passage:
    """What the answerer is shown under the number that citations use: stretches of one version, in order of offset,
    none over another. Spans that touch are one run of text; between those that do not, text was left out.

    `hit` is what was found there, the best where several were; `tokens` are the answerer's own count, frame included.
    """

    n: int
    hit: Hit
    spans: tuple[Span, ...]
    tokens: int

    @classmethod
    def whole(cls, n: int, hit: Hit, tokens: int) -> Passage:
        return cls(n, hit, (Span(hit, hit.start, hit.end),), tokens)

    @property
    def runs(self) -> tuple[tuple[int, str], ...]:
        """(offset, text) of each stretch without a gap: a quote lies inside one of them."""
        found: list[tuple[int, str]] = []
        end = None
        for span in self.spans:
            if span.start == end:
                found[-1] = found[-1][0], found[-1][1] + span.text
            else:
                found.append((span.start, span.text))
            end = span.end
        return tuple(found)

    @property
    def text(self) -> str:
        """As it is shown, with a line for each gap."""
        return GAP.join(text for _, text in self.runs)

    @property
    def header(self) -> str:
        """Names of the columns of tables whose rows are shown, where the shown text does not have them itself."""
        lines = [line for span in self.spans for line in span.chunk.table_header.splitlines()]
        text = " ".join(self.text.split()) if any(lines) else ""
        return "\n".join(line for line in dict.fromkeys(lines) if line not in text)

    def span_at(self, offset: int) -> Span:
        """That which holds the character at this offset, or the last before it."""
        return next((span for span in reversed(self.spans) if span.start <= offset), self.spans[0])

    def quote(self, start: int, end: int) -> str:
        """The canonical text from start to end, which lie inside one run."""
        offset, text = next(run for run in reversed(self.runs) if run[0] <= start)
        return text[start - offset : end - offset]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is kept of a passage that a model was shown: (start, end) of each of its runs in the version's text."""

    n: int
    document_id: str
    version: int
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, passage: Passage) -> Shown:
        spans = tuple((start, start + len(text)) for start, text in passage.runs)
        return cls(passage.n, passage.hit.document_id, passage.hit.version, spans)


GAP = "\n…\n"  # between stretches of a passage that do not touch


@dataclass(frozen=True, slots=True)
class Citation:
    """`quote` is the version's canonical text from start to end, character for character."""

    n: int
    document_id: str
    version: int
    title: str
    uri: str
    place: Place
    chunk_id: int
    start: int
    end: int
    quote: str
    support: Support
    also: tuple[Also, ...] = ()  # where passages stand that say the same as the one it is from
    date: str | None = None  # as `Hit.date`


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of the answer; start and end are offsets into the answer's text."""

    text: str
    start: int
    end: int
    citations: tuple[int, ...]
    support: Support


@dataclass(frozen=True, slots=True)
class ShortAnswer:
    """The phrase that answers, where it is sure enough: inside the quote of the citation of this number, from start to
    end in its version's canonical text."""

    text: str
    citation: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stated:
    """What one side of a disagreement says: `text` is the quote of the citation of this number, `value` the number or
    the date in it, `date` that of the document as `Hit.date`, or else the day on which its version was stored; None
    where it is gone."""

    text: str
    value: str
    citation: int
    date: str | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Sources give different numbers or dates for the same thing; the newest first. `about`: what they have in common
    with the question."""

    about: str
    statements: tuple[Stated, ...]


@dataclass(frozen=True, slots=True)
class Closest:
    title: str
    uri: str
    document_id: str
    place: Place
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What a vague question may mean: a question that can be asked instead, and the section that it is about."""

    question: str
    title: str
    section: str | None
    document_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no answer: what was searched, what came closest, and why that was not enough.

    With `readings` the question was too vague to be looked up; `missing`: the words that nothing close has.
    `lacks`: the passages speak of what was asked and have nothing of the kind that was asked for.
    """

    reason: str
    searched: Mapping[str, int]  # collection name → documents in it
    closest: tuple[Closest, ...]
    readings: tuple[Reading, ...] = ()
    missing: tuple[str, ...] = ()
    kind: RefusalKind = "no_evidence"
    lacks: str | None = None  # "date" | "number" | "person" | "place"


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    answer: str
    refused: bool
    refusal: Refusal | None
    citations: tuple[Citation, ...]
    sentences: tuple[Sentence, ...]
    standalone_question: str
    language: str  # "en" | "zh"
    model: str  # "extractive", or the language model's name
    degraded: str | None  # why the configured model did not answer, or not as it should; None when it did
    left_out: int  # passages that were found relevant and did not fit the window
    usage: Usage
    timings_ms: Mapping[str, float]
    as_of: datetime | None = None  # the time that was asked about; None for now
    not_kept: int = 0  # documents whose version of then retention has removed
    disagreements: tuple[Disagreement, ...] = ()
    evidence: float | None = None  # 0 … 1: how probable it is that the passages answer; None where nobody looked
    short_answer: ShortAnswer | None = None
    passages: tuple[Shown, ...] = ()  # what the language model was shown; none without one
    support: Support | None = None  # as its weakest sentence; None where nothing is said
    rewrites: tuple[str, ...] = ()  # other wordings of the question that were searched for as well
