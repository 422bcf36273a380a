"""What quality is measured on, and what was observed. Frozen dataclasses, beside those of `rag.models`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rag.models import Turn


@dataclass(frozen=True, slots=True)
class Document:
    """A text that a dataset brings along."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Gold:
    """A place that answers: a document by any of its names, and its page (1-based) or row where they are known."""

    document: str
    page: int | None = None
    row: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The words that prove an answer. Of several places where they stand, the one nearest to `near` is meant."""

    text: str
    document: str | None = None  # None: any gold document
    near: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """`answers` are alternatives; of `parts` each must be said, in any of its wordings. Of `gold` every place is
    needed, or any one of them where `any_gold`. `kind` says why there is no answer, where there is none."""

    id: str
    text: str
    language: str  # "en" | "zh" | "zh-Hant"
    answers: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    gold: tuple[Gold, ...] = ()
    any_gold: bool = False
    evidence: tuple[Evidence, ...] = ()
    answerable: bool = True
    kind: str = ""
    history: tuple[Turn, ...] = ()
    fakes: tuple[str, ...] = ()  # false answers that some passages give
    parallel: tuple[str, ...] = ()  # documents that say the same in another language


@dataclass(frozen=True, slots=True)
class Dataset:
    """Questions, and the documents that they are asked of; None where those are in a collection already."""

    name: str
    questions: tuple[Question, ...]
    documents: tuple[Document, ...] | None = None


# ── what was observed ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Twin:
    """Where a passage stands that says the same as one that was found, and is listed with it."""

    names: frozenset[str]
    pages: frozenset[int] = frozenset()
    rows: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that was found. `names` are all that its document may be called by in a list of gold documents."""

    document_id: str
    version: int
    names: frozenset[str]
    title: str
    uri: str
    start: int
    end: int
    text: str
    score: float
    arms: Mapping[str, float] = field(default_factory=dict)
    pages: frozenset[int] = frozenset()
    rows: frozenset[str] = frozenset()
    also: tuple[Twin, ...] = ()


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation: `quote` ought to be the version's text from `start` to `end`."""

    document_id: str
    version: int
    names: frozenset[str]
    title: str
    uri: str
    start: int
    end: int
    quote: str
    support: str
    page: int | None = None
    row: str | None = None
    also: tuple[Twin, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one question. `text` has no citation marks; `shown` is how many of the best passages were given to
    the answerer; `evidence` is what a refusal is decided by, 0 to 1."""

    hits: tuple[Found, ...]
    text: str
    refused: bool
    reason: str
    citations: tuple[Cited, ...]
    evidence: float | None
    shown: int
    milliseconds: float
    degraded: str | None = None
    first: str = ""  # the first sentence
    sentences: int = 0
    short: str | None = None  # the phrase that answers, where one was given


@dataclass(frozen=True, slots=True)
class Ranks:
    """How far from the top the best gold passage stands in each arm and in their fusion; None: not within `depth`."""

    depth: int
    fused: int | None = None
    vectors: int | None = None
    terms: int | None = None
