"""An index made anew from the catalog's own texts, beside the one that answers. No source is read.

Each version is whole in the index or not in it at all, so the work can be broken off anywhere and goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from ingest.embedding import Embedded, Embedding
from ingest.interrupt import Cancelled, call
from ingest.pipeline import save_embedded
from ingest.split import split
from ingest.sync import Progress
from rag.catalog import indexes, versions
from rag.catalog.engine import next_change
from rag.catalog.indexes import Index, Stored
from rag.catalog.jobs import Counts
from rag.catalog.versions import sha256
from rag.knowledge import KnowledgeBase
from rag.models import Piece
from rag.ports import Embedder

log = logging.getLogger(__name__)

_BATCH_CHUNKS = 256
_BATCH_VERSIONS = 100
# Versions that may be left for the last round, which keeps syncs waiting. Where syncs write faster than this embeds,
# some rounds are enough: the last one then takes longer, but it ends.
_FEW = 8
_MOST_ROUNDS = 10


@dataclass
class Reindex:
    """Brings one index to have every kept version of its collection, those that are active first.

    Reports progress as it comes; raises Cancelled between two slices of work, with all that was written staying.
    """

    base: KnowledgeBase
    index: Index
    embedder: Embedder
    target_tokens: int
    report_progress: Callable[[Progress], None]
    cancelled: Callable[[], bool]
    _without: set[tuple[str, int]] = field(default_factory=set)  # versions that make no piece
    _added: int = 0
    _chunks: int = 0
    _had: int = 0  # versions that the index had when this began

    def catch_up(self) -> None:
        """Round by round, while syncs go on, until next to nothing is left."""
        missing = self._missing()
        with self.base.catalog.read() as snapshot:
            self._had = indexes.count_versions(snapshot, self.index.collection_id) - len(missing)
        for _ in range(_MOST_ROUNDS):
            self._index(missing)
            missing = self._missing()
            if len(missing) <= _FEW:
                return

    def finish(self) -> None:
        """The last round; the caller holds the writer's lock of the caches, so that nothing comes after it."""
        while missing := self._missing():
            self._index(missing)

    @property
    def counts(self) -> Counts:
        """Versions: indexed now, and found there."""
        return Counts(added=self._added, unchanged=self._had)

    def _missing(self) -> list[tuple[str, int]]:
        with self.base.catalog.read() as snapshot:
            found = indexes.unindexed(snapshot, self.index)
        return [version for version in found if version not in self._without]

    def _index(self, missing: Sequence[tuple[str, int]]) -> None:
        waiting: list[tuple[Stored, list[Piece]]] = []
        chunks = 0
        self._progress(left=len(missing))
        for left, (document_id, number) in zip(range(len(missing), 0, -1), missing, strict=True):
            self._stop_if_cancelled()
            with self.base.catalog.read() as snapshot:
                stored = indexes.read_version(snapshot, document_id, number)
            pieces = self._pieces(stored) if stored else []
            if stored is None or not pieces:
                self._without.add((document_id, number))
                continue
            waiting.append((stored, pieces))
            chunks += len(pieces)
            if chunks >= _BATCH_CHUNKS or len(waiting) >= _BATCH_VERSIONS:
                self._write(waiting)
                waiting, chunks = [], 0
                self._progress(left=left - 1)
        self._write(waiting)
        self._progress(left=0)

    def _pieces(self, stored: Stored) -> list[Piece]:
        return call(  # a text of a hundred thousand lines takes longer than somebody who cancels would wait
            lambda: split(
                stored.parsed,
                title=stored.title,
                count_tokens=self.embedder.count_tokens,
                window=self.embedder.window,
                target_tokens=self.target_tokens,
            ),
            cancelled=self.cancelled,
        )

    def _write(self, batch: Sequence[tuple[Stored, list[Piece]]]) -> None:
        """All of these versions in one transaction, apart from those that were removed meanwhile."""
        if not batch:
            return
        pieces = [piece for _, some in batch for piece in some]
        with closing(
            Embedding(self.base, cancelled=self.cancelled)
        ) as embedding:  # the first one waits for the model to be loaded
            begun = embedding.begin(pieces, embedder=self.embedder, embedder_id=self.index.embedder_id)
            found = embedding.take(begun)
        with self.base.catalog.write() as connection:
            kept = [
                (stored, own)
                for stored, own in batch
                if indexes.is_unindexed(connection, self.index, stored.document_id, stored.number)
            ]
            wanted = [piece for _, own in kept for piece in own]
            save_embedded(
                connection, wanted, _of(wanted, found), embedder=self.embedder, embedder_id=self.index.embedder_id
            )
            for stored, own in kept:
                keys = versions.add_chunks(
                    connection,
                    stored.document_id,
                    stored.number,
                    parsed=stored.parsed,
                    pieces=own,
                    index_id=self.index.id,
                )
                self._chunks += len(keys)
            next_change(connection)
        self._added += len(kept)

    def _progress(self, *, left: int) -> None:
        done = self._had + self._added + len(self._without)
        self.report_progress(Progress(done, done + left, self.counts, self._chunks))

    def _stop_if_cancelled(self) -> None:
        if self.cancelled():
            raise Cancelled


def _of(pieces: Sequence[Piece], found: Embedded) -> Embedded:
    """The vectors of these pieces alone: one that nobody refers to would stay for good."""
    wanted = {sha256(piece.embedded_text) for piece in pieces}
    return {digest: vector for digest, vector in found.items() if digest in wanted}
