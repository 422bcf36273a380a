"""What the path of a question and of a document knows of its helpers: small, and free of any library's words."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rag.models import Item, Unlisted, Usage
from rag.text.keywords import Keyword

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Texts become unit vectors. Thread-safe.

    `identity` is a digest of weights, pooling, prefixes, window and normalisation: two embedders with one identity
    give interchangeable vectors. `window` is the longest input in tokens, special tokens included.
    """

    @property
    def identity(self) -> str: ...

    @property
    def runtime(self) -> str | None:
        """What computes, for people: a library, its version and precision. None as long as nothing is loaded."""
        ...

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> str:
        """What loads it again: `default`, a folder, a name on the hub."""
        ...

    @property
    def dimension(self) -> int: ...

    @property
    def window(self) -> int: ...

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        """Shape (len(texts), dimension), float32, each row of length 1. Urgent ones overtake what is being ingested."""
        ...

    def embed_query(self, text: str) -> Vectors:
        """Shape (dimension,), float32, of length 1."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens not counted, nothing truncated."""
        ...

    def coverage(self, text: str) -> float:
        """Share of the text's tokens that the vocabulary knows, 0 to 1; 1 for an empty text.

        all-MiniLM-L6-v2 knows 43 % of the tokens of Chinese text: its vectors of it mean little.
        """
        ...


class VectorIndex(Protocol):
    """Approximate nearest neighbours, a cache of the catalog's vectors. Thread-safe. One space per `index_id`.

    `seen` is the catalog's change number that a write belongs to. A cache that has seen more than the catalog knows
    was made by another history of it and must be rebuilt.
    """

    def open(self, index_id: int, *, catalog_id: str, dimension: int) -> int | None:
        """The last change this cache has seen, or None where it is missing, foreign or of another format."""
        ...

    def upsert(self, index_id: int, keys: Sequence[int], vectors: Vectors, *, seen: int) -> None: ...

    def delete(self, index_id: int, keys: Sequence[int], *, seen: int) -> None:
        """Keys that are not there are passed over."""
        ...

    def search(self, index_id: int, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        """At most k (key, cosine), best first."""
        ...

    def widen(self, index_id: int) -> bool:
        """Search twice as widely from now on: slower, and more is found. False where it is as wide as it gets."""
        ...

    def keys(self, index_id: int) -> set[int]: ...

    def vectors(self, index_id: int, keys: Sequence[int]) -> dict[int, Vectors]:
        """As they are stored; keys that are not there are left out."""
        ...

    def seen(self, index_id: int) -> int | None:
        """The last change that an open space says it has seen, as `open` would find it after a restart."""
        ...

    def spaces(self) -> set[int]:
        """All that take up room under this catalog's name, opened or not."""
        ...

    def reset(self, index_id: int, *, catalog_id: str, dimension: int) -> None:
        """An empty space under this id, whatever was there before."""
        ...

    def drop(self, index_id: int) -> None: ...

    def bloated(self) -> bool:
        """Whether what was deleted takes more room than what is there, so that a successor is worth its work."""
        ...

    def successor(self) -> VectorIndex | None:
        """An empty one, in a place of its own beside this one, which goes on. After a crash this one still counts,
        until it has been wiped; from then on the successor does. None where another place would gain nothing."""
        ...

    def wipe(self) -> None:
        """Every space of this catalog gone, with the room that they took where that can be had, and all spaces
        closed. The next call finds an empty place, or the successor's where there is one."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TermEntry:
    key: int
    heading: str
    text: str


class TermSearch(Protocol):
    """BM25 over a set of entries that does not change. Thread-safe."""

    def search(self, question: str, *, k: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        """At most k (key, BM25 score), best first; nothing when no term of the question occurs. `among`: only these
        keys, with the scores that they have among all."""
        ...

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """Inverse document frequency of each term, as in `TermIndex.rarity`."""
        ...


class TermIndex(Protocol):
    """BM25 over words and Han characters, a cache of the catalog's texts. Thread-safe. One index per `space`,
    because document frequencies must not leak between collections."""

    def open(self, space: str, *, catalog_id: str) -> int | None:
        """The last change this cache has seen, or None where it is missing, foreign, broken or of another format."""
        ...

    def prepare(self, entries: Sequence[TermEntry]) -> None:
        """Do now what can be done before the next `apply` that adds these: most of it. Nobody waits for it then."""
        ...

    def apply(self, space: str, *, remove: Sequence[int], add: Sequence[TermEntry], seen: int) -> None:
        """In one commit: a search sees all of it or nothing. Adding a key that is there replaces it."""
        ...

    def search(
        self, space: str, question: str, *, k: int, among: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """At most k (key, BM25 score), best first; nothing when no term of the question occurs. `among`: only these
        keys, with the scores that they have among all."""
        ...

    def rarity(self, space: str, terms: Sequence[str]) -> list[float]:
        """Inverse document frequency of each term as BM25 has it, ln(1 + (N - n + ½) / (n + ½)); a term that no
        document has gets the highest value there is."""
        ...

    def keys(self, space: str) -> set[int]: ...

    def count(self, space: str) -> int:
        """Entries of an open space; a key that stands there twice, which must not be, counts twice."""
        ...

    def seen(self, space: str) -> int | None:
        """The last change that an open space says it has seen, as `open` would find it after a restart."""
        ...

    def occasion(self, entries: Iterable[TermEntry]) -> TermSearch:
        """An index in memory over exactly these entries, gone when it is let go of. It scores as a space does that
        holds the same; of a key given twice the last counts."""
        ...

    def spaces(self) -> set[str]:
        """Names of all spaces that take up room, whole or broken, opened or not."""
        ...

    def reset(self, space: str, *, catalog_id: str) -> None: ...

    def rebuild(self, space: str, entries: Iterable[TermEntry], *, catalog_id: str, seen: int) -> None:
        """The space made anew of these entries, its old files deleted. The old one answers until then."""
        ...

    def drop(self, space: str) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that was found. `fused`: both arms' score, 0 to 1. `near`: how near its vector is to the question's,
    0 for the farthest candidate to 1 for the nearest, less as the embedder understands less of the question."""

    heading: str
    text: str
    fused: float
    near: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """The score that counts, 0 to 1, and what is shown beside the arms' scores of how it came about."""

    score: float
    arms: Mapping[str, float] = field(default_factory=dict)


class Reranker(Protocol):
    """Judges the best candidates once more. Thread-safe. `depth`: how many of them it is given."""

    @property
    def name(self) -> str: ...

    @property
    def depth(self) -> int: ...

    def rerank(self, question: str, wanted: Sequence[Keyword], candidates: Sequence[Candidate]) -> list[Reranked]:
        """One for each candidate, in their order. `wanted` are the question's content words."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a reply; the last one carries the usage where the model reports it, and why it stopped."""

    text: str
    usage: Usage | None = None
    finish_reason: str | None = None  # "stop" | "length" | …


class ChatModel(Protocol):
    """A language model. Thread-safe. Raises ModelError and its children, nothing else."""

    @property
    def name(self) -> str: ...

    @property
    def window(self) -> int:
        """Tokens of prompt and reply together."""
        ...

    def count_tokens(self, text: str) -> int:
        """With the model's tokenizer where there is one, else an estimate that errs on the high side."""
        ...

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Generator[Delta]:
        """The reply as it comes. Closing the iterator stops the work behind it."""
        ...


class Source(Protocol):
    """Where knowledge comes from."""

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
        """Everything there is, streamed; `known` holds the states recorded at the last sync, by key.

        An iterator that ends means a complete listing. Raises SourceError where it could not be completed:
        then nothing may be deleted.
        """
        ...
