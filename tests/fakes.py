"""Small, real implementations of the ports: quick, deterministic, no files, no models. Contract tests run for them."""

from __future__ import annotations

import math
import re
import threading
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rag.errors import InvalidInput, ModelError, Unavailable
from rag.models import Usage
from rag.ports import Delta, Message, TermEntry, TermSearch, Vectors
from rag.text.language import is_han, query_terms, terms

_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")


def _tokens(text: str) -> list[str]:
    """Words, Han characters and punctuation marks."""
    spaced = "".join(f" {character} " if is_han(character) else character for character in text)
    return _TOKEN.findall(spaced)


class HashEmbedder:
    """An Embedder whose vectors count hashed terms: texts that share words are near each other.

    With `reads_chinese=False` it knows no Han character, as an English model does.
    """

    def __init__(
        self, *, name: str = "hash", dimension: int = 256, window: int = 256, reads_chinese: bool = True
    ) -> None:
        self.name = name
        self.dimension = dimension
        self.window = window
        self.reads_chinese = reads_chinese
        self.embedded: list[str] = []  # every passage that was ever embedded, for tests that count work

    @property
    def identity(self) -> str:
        return f"{self.name}-{self.dimension}-{self.window}-{self.reads_chinese}"

    @property
    def runtime(self) -> str | None:
        return "hashing"

    @property
    def spec(self) -> str:
        return self.name

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.embedded.extend(texts)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._vector(text)
        return vectors

    def embed_query(self, text: str) -> Vectors:
        return self._vector(text)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(_tokens(text)) for text in texts]

    def coverage(self, text: str) -> float:
        tokens = _tokens(text)
        if self.reads_chinese or not tokens:
            return 1.0
        return sum(not is_han(token[0]) for token in tokens) / len(tokens)

    def _vector(self, text: str) -> Vectors:
        vector = np.zeros(self.dimension, dtype=np.float32)
        for term in query_terms(text):
            known = self.reads_chinese or not any(map(is_han, term))
            vector[zlib.crc32(term.encode()) % self.dimension if known else 0] += 1.0
        length = float(np.linalg.norm(vector))
        if length == 0:
            vector[0] = length = 1.0
        unit: Vectors = (vector / length).astype(np.float32)
        return unit


@dataclass
class _VectorSpace:
    catalog_id: str
    dimension: int
    seen: int = 0
    vectors: dict[int, Vectors] = field(default_factory=dict)


class MemoryVectors:
    """A VectorIndex in a dictionary; exact."""

    def __init__(self) -> None:
        self._spaces: dict[int, _VectorSpace] = {}
        self._lock = threading.Lock()
        self._deleted = 0

    def open(self, index_id: int, *, catalog_id: str, dimension: int) -> int | None:
        space = self._spaces.get(index_id)
        if space is None or (space.catalog_id, space.dimension) != (catalog_id, dimension):
            return None
        return space.seen

    def upsert(self, index_id: int, keys: Sequence[int], vectors: Vectors, *, seen: int) -> None:
        space = self._space(index_id)
        if vectors.shape != (len(keys), space.dimension) or not np.isfinite(vectors).all():
            raise InvalidInput("Vectors of another shape, or not finite.")
        with self._lock:
            space.seen = seen
            space.vectors.update(zip(keys, vectors.copy(), strict=True))

    def delete(self, index_id: int, keys: Sequence[int], *, seen: int) -> None:
        space = self._space(index_id)
        with self._lock:
            space.seen = seen
            for key in keys:
                self._deleted += space.vectors.pop(key, None) is not None

    def search(self, index_id: int, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        space = self._space(index_id)
        if vector.shape != (space.dimension,) or not np.isfinite(vector).all():
            raise InvalidInput("A vector of another shape, or not finite.")
        with self._lock:
            scored = [(key, float(stored @ vector)) for key, stored in space.vectors.items()]
        return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[: max(k, 0)]

    def keys(self, index_id: int) -> set[int]:
        with self._lock:
            return set(self._space(index_id).vectors)

    def vectors(self, index_id: int, keys: Sequence[int]) -> dict[int, Vectors]:
        held = self._space(index_id).vectors
        with self._lock:
            return {key: held[key] for key in keys if key in held}

    def seen(self, index_id: int) -> int | None:
        return self._space(index_id).seen

    def spaces(self) -> set[int]:
        return set(self._spaces)

    def reset(self, index_id: int, *, catalog_id: str, dimension: int) -> None:
        self._spaces[index_id] = _VectorSpace(catalog_id, dimension)

    def drop(self, index_id: int) -> None:
        self._spaces.pop(index_id, None)

    def widen(self, index_id: int) -> bool:
        self._space(index_id)
        return False  # it finds everything

    def bloated(self) -> bool:
        return self._deleted > max(100, sum(len(space.vectors) for space in self._spaces.values()))

    def successor(self) -> MemoryVectors:
        return MemoryVectors()

    def wipe(self) -> None:
        self._spaces.clear()
        self._deleted = 0

    def close(self) -> None:
        """Nothing to let go of: what is in memory stays, as a folder would."""

    def _space(self, index_id: int) -> _VectorSpace:
        try:
            return self._spaces[index_id]
        except KeyError:
            raise Unavailable(f"The vectors of index {index_id} are not open.") from None


def _counted(entry: TermEntry) -> Counter[str]:
    return Counter(terms(entry.text) + 2 * terms(entry.heading))


@dataclass(frozen=True)
class _MemorySearch:
    """Textbook BM25 (k1 1.2, b 0.75)."""

    counts: Mapping[int, Counter[str]]

    def search(self, question: str, *, k: int, among: Sequence[int] | None = None) -> list[tuple[int, float]]:
        mean_length = sum(count.total() for count in self.counts.values()) / max(len(self.counts), 1)
        scores: dict[int, float] = {}
        asked = query_terms(question)
        for term, weight in zip(asked, self.rarity(asked), strict=True):
            for key in (key for key, count in self.counts.items() if term in count):
                frequency, length = self.counts[key][term], self.counts[key].total() / mean_length
                scores[key] = scores.get(key, 0.0) + weight * frequency * 2.2 / (
                    frequency + 1.2 * (0.25 + 0.75 * length)
                )
        scores = {key: score for key, score in scores.items() if among is None or key in set(among)}
        return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[: max(k, 0)]

    def rarity(self, terms: Sequence[str]) -> list[float]:
        having = [sum(term in count for count in self.counts.values()) for term in terms]
        return [math.log(1 + (len(self.counts) - n + 0.5) / (n + 0.5)) for n in having]


@dataclass
class _TermSpace:
    catalog_id: str
    seen: int = 0
    counts: dict[int, Counter[str]] = field(default_factory=dict)


class MemoryTerms:
    """A TermIndex in a dictionary; a heading counts twice."""

    def __init__(self) -> None:
        self._spaces: dict[str, _TermSpace] = {}
        self._lock = threading.Lock()

    def open(self, space: str, *, catalog_id: str) -> int | None:
        held = self._spaces.get(space)
        return held.seen if held is not None and held.catalog_id == catalog_id else None

    def prepare(self, entries: Sequence[TermEntry]) -> None:
        """Nothing takes long here."""

    def apply(self, space: str, *, remove: Sequence[int], add: Sequence[TermEntry], seen: int) -> None:
        held = self._space(space)
        with self._lock:
            counts = {key: count for key, count in held.counts.items() if key not in set(remove)}
            for entry in add:
                counts[entry.key] = _counted(entry)
            held.seen, held.counts = seen, counts

    def search(
        self, space: str, question: str, *, k: int, among: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        return _MemorySearch(self._space(space).counts).search(question, k=k, among=among)

    def rarity(self, space: str, terms: Sequence[str]) -> list[float]:
        return _MemorySearch(self._space(space).counts).rarity(terms)

    def occasion(self, entries: Iterable[TermEntry]) -> TermSearch:
        return _MemorySearch({entry.key: _counted(entry) for entry in entries})

    def spaces(self) -> set[str]:
        return set(self._spaces)

    def keys(self, space: str) -> set[int]:
        return set(self._space(space).counts)

    def count(self, space: str) -> int:
        return len(self._space(space).counts)

    def seen(self, space: str) -> int | None:
        return self._space(space).seen

    def reset(self, space: str, *, catalog_id: str) -> None:
        self._spaces[space] = _TermSpace(catalog_id)

    def rebuild(self, space: str, entries: Iterable[TermEntry], *, catalog_id: str, seen: int) -> None:
        self.reset(space, catalog_id=catalog_id)
        self.apply(space, remove=[], add=list(entries), seen=seen)

    def drop(self, space: str) -> None:
        self._spaces.pop(space, None)

    def close(self) -> None:
        """Nothing to let go of: what is in memory stays, as a folder would."""

    def _space(self, space: str) -> _TermSpace:
        try:
            return self._spaces[space]
        except KeyError:
            raise Unavailable(f"The terms of {space} are not open.") from None


class ScriptedModel:
    """A ChatModel that says what it is told to, a few characters at a time.

    A reply is a text, an error, or a list of both: pieces as they are streamed, ended by an error. Replies are used up
    one by one; the last one stays.
    """

    def __init__(
        self, *replies: str | ModelError | Sequence[str | ModelError], window: int = 4096, usage: Usage | None = None
    ) -> None:
        self.name = "scripted"
        self.window = window
        self.asked: list[list[Message]] = []
        self.max_tokens: list[int] = []
        self.closed_early = 0  # streams that were closed before their end
        self._replies = list(replies)
        self._usage = usage

    def count_tokens(self, text: str) -> int:
        return len(_tokens(text))

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Generator[Delta]:
        self.asked.append(list(messages))
        self.max_tokens.append(max_tokens)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, str):
            reply = [reply[start : start + 5] for start in range(0, len(reply), 5)]
        return self._say([reply] if isinstance(reply, ModelError) else reply)

    def _say(self, pieces: Sequence[str | ModelError]) -> Generator[Delta]:
        try:
            for piece in pieces:
                if isinstance(piece, ModelError):
                    raise piece
                yield Delta(piece)
            yield Delta("", usage=self._usage, finish_reason="stop")
        except GeneratorExit:
            self.closed_early += 1
            raise
