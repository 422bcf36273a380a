"""One item's bytes → parsed, split, embedded: everything before the catalog is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.interrupt import Cancelled
from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.split import split
from rag.catalog import versions
from rag.catalog.engine import Connection
from rag.catalog.versions import sha256
from rag.errors import AttestError, DocumentError, SourceError, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import DocumentStatus, Item, Original, Parsed, Piece, Problem
from rag.ports import Embedder, Vectors

log = logging.getLogger(__name__)

# (data, name, media_type, options) → Parsed: the sandbox in service, the registry itself in tests.
Read = Callable[..., Parsed]

_COUNTED_AT_ONCE = 1000  # texts, a few hundredths of a second
_ROW_PIPELINE = "row/1"  # of items that come parsed; the number rises when a row's text is written differently


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item that was read, as far as that went. `parsed` is None where it could not be."""

    item: Item
    original: Original | None
    content_sha256: str | None
    pipeline: str | None
    parsed: Parsed | None
    status: DocumentStatus
    problems: tuple[Problem, ...]
    same: bool = False  # the very bytes that are stored already, under the same pipeline

    @property
    def title(self) -> str:
        """What a person would call it: the source's word, the document's own, or its file name."""
        return self.own_title or ((self.original.name if self.original else "") or self.item.key).strip()

    @property
    def own_title(self) -> str:
        """The title that goes to the embedder; empty where there is a file name only: a renamed file embeds nothing."""
        given = self.original.title if self.original else None
        return (given or (self.parsed.title if self.parsed else None) or "").strip()


def load(item: Item, *, read: Read | None, options: ReadOptions, known: tuple[str | None, str | None]) -> Prepared:
    """Fetch and read one item; of its errors only SourceError is raised, the others are its problem.

    `known` is the (content hash, pipeline) that is stored of it. With `read` None its bytes are looked at and not read.
    """
    original: Original | None = None
    digest = pipeline = None
    try:
        original = item.load()
        digest = sha256(original.data)
        if original.parsed is not None:
            pipeline = _ROW_PIPELINE
        else:
            pipeline = registry.pipeline(
                original.data, name=original.name, media_type=original.media_type, options=options
            )
        # Title and metadata that come from the source are not in the bytes, and may have changed beside them.
        told = original.parsed is not None or original.title is not None or bool(original.metadata)
        if (digest, pipeline) == known and not told:
            return Prepared(item, original, digest, pipeline, None, "ok", (), same=True)
        if original.parsed is not None:
            parsed = original.parsed
        elif read is None:
            return Prepared(item, original, digest, pipeline, None, "ok", ())
        else:
            parsed = read(original.data, name=original.name, media_type=original.media_type, options=options)
    except SourceError:
        raise
    except AttestError as problem:
        said = Problem(problem.code, problem.detail, problem.remedy)
        return Prepared(item, original, digest, pipeline, None, _status(problem), (said,))
    except Exception as problem:  # the edge of ingestion: one bad item must not stop the others
        log.exception("%s could not be read", item.uri)
        said = Problem("internal", f"{type(problem).__name__} while reading {item.uri}; the log has the details.")
        return Prepared(item, original, digest, pipeline, None, "failed", (said,))
    parsed = replace(parsed, metadata={**parsed.metadata, **original.metadata})
    return Prepared(item, original, digest, pipeline, parsed, parsed.status, parsed.problems)


def _status(problem: AttestError) -> DocumentStatus:
    if not isinstance(problem, DocumentError):
        return "failed"
    return problem.status  # type: ignore[return-value]  # readers use the words of DocumentStatus


def pieces_of(
    prepared: Prepared, *, embedder: Embedder, target_tokens: int, cancelled: Callable[[], bool] = lambda: False
) -> list[Piece]:
    """Raises Cancelled, in a text of megabytes after a while, when somebody asks for that."""
    assert prepared.parsed is not None

    def count_tokens(texts: Sequence[str]) -> list[int]:
        counts: list[int] = []
        for start in range(0, len(texts), _COUNTED_AT_ONCE):
            if cancelled():
                raise Cancelled
            counts += embedder.count_tokens(texts[start : start + _COUNTED_AT_ONCE])
        return counts

    return split(
        prepared.parsed,
        title=prepared.own_title,
        count_tokens=count_tokens,
        window=embedder.window,
        target_tokens=target_tokens,
    )


@dataclass(frozen=True, slots=True)
class Text:
    """What is embedded, by its hash. `tokens`: about so many."""

    digest: str
    text: str
    tokens: int


def missing_texts(pieces: Sequence[Piece], *, base: KnowledgeBase, embedder_id: int) -> list[Text]:
    """The texts of the pieces that were never embedded before, each once."""
    texts = {sha256(piece.embedded_text): piece for piece in pieces}
    with base.catalog.read() as snapshot:
        missing = versions.missing_vectors(snapshot, embedder_id, texts)
    return [
        # A heading has a token for every three bytes or so, in Chinese and in English.
        Text(digest, piece.embedded_text, piece.tokens + len(piece.heading.encode()) // 3)
        for digest, piece in texts.items()
        if digest in missing
    ]


def embed(texts: Sequence[Text], *, embedder: Embedder) -> dict[str, NDArray[np.float32]]:
    """Their vectors by hash."""
    vectors = _embed([text.text for text in texts], embedder=embedder)
    return {text.digest: vector for text, vector in zip(texts, vectors, strict=True)}


def save_embedded(
    connection: Connection,
    pieces: Sequence[Piece],
    found: Mapping[str, NDArray[np.float32]],
    *,
    embedder: Embedder,
    embedder_id: int,
) -> None:
    """Every piece has its vector when this transaction commits."""
    versions.save_vectors(connection, embedder_id, found)
    texts = {sha256(piece.embedded_text): piece.embedded_text for piece in pieces}
    # Vectors that nothing else refers to may have been removed since it was found that they are there: retention, a
    # purge, a confirmed re-index. Seldom, and few of them.
    gone = sorted(versions.missing_vectors(connection, embedder_id, texts))
    if gone:
        embedded = _embed([texts[key] for key in gone], embedder=embedder)
        versions.save_vectors(connection, embedder_id, dict(zip(gone, embedded, strict=True)))


def _embed(texts: Sequence[str], *, embedder: Embedder) -> Vectors:
    """One vector per text. Raises Unavailable for what is none: once stored, its text would not be embedded again."""
    found = embedder.embed_passages(texts)
    if found.shape != (len(texts), embedder.dimension):
        said = f"returned an array of {found.shape}, not {len(texts)} vectors of {embedder.dimension} numbers"
    elif not np.isfinite(found).all() or not found.any(axis=1).all():
        said = "returned a vector that is zero or has numbers that are not finite"
    else:
        return found
    raise Unavailable(
        f"The embedder {embedder.name} {said}.", remedy="Check ATTEST_EMBEDDER and its files. What was there stays."
    )
