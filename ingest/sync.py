"""Source → plan → apply. A document changes from its old version to its new one at once, or not at all.

What a sync may conclude from silence: nothing. Only a listing that ended well says that something is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.pipeline import Prepared, Read, embed_missing, load, pieces_of
from ingest.readers import registry
from ingest.readers.options import ReadOptions
from rag.catalog import knowledge, versions
from rag.catalog.engine import Connection
from rag.catalog.jobs import Counts, JobItem
from rag.catalog.knowledge import Known
from rag.catalog.versions import Flip, NewVersion, sha256
from rag.errors import SourceError, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Collection, Item, Parsed, Piece, Problem, SourceRecord, Unlisted
from rag.ports import Source

log = logging.getLogger(__name__)

# Documents are written together until there is this much of them: one row of a table is not worth a commit of its own.
_BATCH_CHUNKS = 256
_BATCH_DOCUMENTS = 200
_EMBED_CHUNKS = 64  # a second or so of a CPU, after which a cancel is heard
_LOOK_SECONDS = 0.2  # whether to stop, while a document is being read
_AHEAD = 16  # items being read while others are embedded: bounds the memory
_MASS_DELETION_SHARE = 0.2  # of a source; more stops and asks
_MASS_DELETION_LEAST = 5  # documents; below, a fifth is one file
_TRY_AGAIN = frozenset({"failed", "blocked", "needs_password", "too_large"})  # another day may be another answer


class Cancelled(Exception):  # not an error: somebody asked for it
    """The job was asked to stop; what was written stays, whole."""


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int | None
    counts: Counts


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """`allow_deletes`: a plan may remove more than a fifth. `verify`: read everything, whatever the source says.
    `partial`: the listing is not all that there is, so what it leaves out is not gone."""

    allow_deletes: bool = False
    verify: bool = False
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    counts: Counts
    problem: Problem | None = None  # why the listing could not be completed


@dataclass(frozen=True, slots=True)
class _Ready:
    """A document that is read, split and embedded, and waits to be written with others."""

    prepared: Prepared
    pieces: list[Piece]


@dataclass
class Sync:
    """One run over one source. Reports items and progress as they come; raises Cancelled between two batches."""

    base: KnowledgeBase
    collection: Collection
    source: SourceRecord
    read: Read
    read_options: ReadOptions
    target_tokens: int
    report_items: Callable[[list[JobItem]], None]
    report_progress: Callable[[Progress], None]
    cancelled: Callable[[], bool]
    readers: int = 2
    _counts: Counts = field(default_factory=Counts)
    _done: int = 0
    _total: int | None = None
    _waiting: list[_Ready] = field(default_factory=list)
    _waiting_chunks: int = 0

    def run(self, listing: Source, options: SyncOptions) -> Report:
        with self.base.catalog.read() as snapshot:
            known = knowledge.known_documents(snapshot, self.source.id)
            self._embedder_id = versions.embedder_of(snapshot, self.collection.index_id)[0]
        self._total = len(known) if known and not options.partial else None  # most likely as many as the last time
        seen: set[str] = set()
        problem: Problem | None = None
        try:
            with closing(self._prepared(listing, known, seen, options)) as found:
                for prepared in found:
                    self._take(prepared, known.get(prepared.item.key))
        except SourceError as failure:
            problem = Problem(failure.code, failure.detail, failure.remedy)
        self._write_waiting()
        if problem is None and not options.partial:
            problem = self._delete([known[key] for key in known.keys() - seen], of=len(known), options=options)
        self._progress()
        if problem is None and not options.partial:
            with self.base.catalog.write() as connection:
                knowledge.mark_synced(connection, self.source.id)
        return Report(self._counts, problem)

    def plan(self, listing: Source, options: SyncOptions) -> list[tuple[str, str, str]]:
        """(state, key, uri) of all that `run` would do, by what the source says of its items. Touches nothing."""
        with self.base.catalog.read() as snapshot:
            known = knowledge.known_documents(snapshot, self.source.id)
        planned: dict[str, tuple[str, str, str]] = {}
        for item in listing.items({} if options.verify else {key: value.state for key, value in known.items()}):
            before = known.get(item.key)
            if isinstance(item, Unlisted):
                state = "failed"
            elif before is None:
                state = "added"
            else:
                state = "unchanged" if not options.verify and self._is_unchanged(item, before) else "changed"
            planned.setdefault(item.key, (state, item.key, item.uri))
        gone = [("deleted", key, before.uri) for key, before in known.items() if key not in planned]
        return [*planned.values(), *gone]

    # ── reading ahead ─────────────────────────────────────────────────────────────────────────

    def _prepared(
        self, listing: Source, known: Mapping[str, Known], seen: set[str], options: SyncOptions
    ) -> Generator[Prepared]:
        """Items that have to be looked into, in the order of the listing, read by threads ahead of the embedding."""
        states = {} if options.verify else {key: item.state for key, item in known.items()}
        queue: list[Future[Prepared]] = []
        pool = ThreadPoolExecutor(self.readers, thread_name_prefix="read")
        try:
            for item in listing.items(states):
                self._stop_if_cancelled()
                if item.key in seen:
                    continue  # a site may list a page twice
                seen.add(item.key)
                if self._total is not None and len(seen) > self._total:
                    self._total = None  # there are more, and nobody knows how many, before the listing ends
                if isinstance(item, Unlisted):
                    self._count_failure(item.key, item.uri, item.problem, known.get(item.key))
                elif not options.verify and self._is_unchanged(item, known.get(item.key)):
                    self._count(unchanged=1)
                else:
                    before = known.get(item.key)
                    final = before is not None and before.status not in _TRY_AGAIN
                    stored = (before.content_sha256, before.pipeline) if before and final else (None, None)
                    queue.append(pool.submit(load, item, read=self._read, options=self.read_options, known=stored))
                while len(queue) >= _AHEAD or (queue and queue[0].done()):
                    yield self._result(queue.pop(0))
        except SourceError:
            yield from self._rest(queue)  # what was listed before counts
            raise
        else:
            self._total = len(seen)
            yield from self._rest(queue)
        finally:
            # Not waited for: what is being read at a cancel ends by itself, and nobody takes its result.
            pool.shutdown(wait=False, cancel_futures=True)

    def _rest(self, queue: list[Future[Prepared]]) -> Generator[Prepared]:
        while queue:
            yield self._result(queue.pop(0))

    def _result(self, reading: Future[Prepared]) -> Prepared:
        """When it is read; or Cancelled as soon as somebody asks for that."""
        self._stop_if_cancelled()
        while not wait([reading], timeout=_LOOK_SECONDS).done:
            self._stop_if_cancelled()
        return reading.result()

    def _read(self, data: bytes, **about: Any) -> Parsed:
        try:
            return self.read(data, **about)
        except RuntimeError:
            if self.cancelled():  # the service stops, and closed what reads: no error that anybody should look into
                raise Unavailable("The job was stopped.") from None
            raise

    def _is_unchanged(self, item: Item, before: Known | None) -> bool:
        """By what the source says of it, as long as its reader would make the same of it today."""
        if before is None or before.pipeline is None or before.status in _TRY_AGAIN:
            return False
        same = item.unchanged or (bool(item.state) and dict(item.state) == dict(before.state))
        return same and registry.is_current(before.pipeline, self.read_options)

    # ── deciding ──────────────────────────────────────────────────────────────────────────────

    def _take(self, prepared: Prepared, before: Known | None) -> None:
        self._stop_if_cancelled()
        if before is not None and (prepared.same or _says_the_same(prepared, before)):
            with self.base.catalog.write() as connection:
                if prepared.same:
                    knowledge.touch_document(
                        connection,
                        before.document_id,
                        state=_state_of(prepared),
                        content_sha256=prepared.content_sha256,
                    )
                else:
                    self._save_row(connection, prepared)
            self._count(unchanged=1)
            return
        if prepared.parsed is None or not prepared.parsed.text.strip():
            self._keep_last_good(prepared, before)
            return
        pieces = pieces_of(prepared, base=self.base, target_tokens=self.target_tokens)
        self._waiting.append(_Ready(prepared, pieces))
        self._waiting_chunks += len(pieces)
        if self._waiting_chunks >= _BATCH_CHUNKS or len(self._waiting) >= _BATCH_DOCUMENTS:
            self._write_waiting()

    def _keep_last_good(self, prepared: Prepared, before: Known | None) -> None:
        """It could not be read. Its row says why; a version that could be read before stays the active one."""
        code = "empty" if prepared.status == "ok" else prepared.status.replace("_", "-")
        problems = prepared.problems or (Problem(code, f"{prepared.item.uri} has no text.", ""),)
        original = prepared.original
        if original is not None and prepared.content_sha256 is not None:
            self.base.originals.put(original.data)  # OCR may read it one day, without another upload
        with self.base.catalog.write() as connection:
            knowledge.save_document(
                connection,
                self.source.id,
                key=prepared.item.key,
                uri=prepared.item.uri,
                # A version that stays searchable keeps the title it is cited by.
                title=before.title if before and before.version is not None else prepared.title,
                name=original.name if original else before.name if before else prepared.item.key.rsplit("/", 1)[-1],
                media_type=original.media_type if original else None,
                status="empty" if prepared.status == "ok" else prepared.status,
                problems=problems,
                state=_state_of(prepared),
                content_sha256=prepared.content_sha256,
                pipeline=prepared.pipeline,
            )
        self._count_failure(prepared.item.key, prepared.item.uri, problems[0], before)

    def _count_failure(self, key: str, uri: str, problem: Problem, before: Known | None) -> None:
        if before is not None and before.version is not None:
            problem = replace(problem, remedy=f"{problem.remedy} Its last good version stays searchable.".strip())
        self.report_items([JobItem(key, uri, "failed", before.document_id if before else None, problem)])
        self._count(failed=1)

    # ── writing ───────────────────────────────────────────────────────────────────────────────

    def _write_waiting(self) -> None:
        """What waits becomes active, all in one transaction. Texts that were embedded once are not embedded again."""
        batch, self._waiting, self._waiting_chunks = self._waiting, [], 0
        if not batch:
            return
        pieces = [piece for ready in batch for piece in ready.pieces]
        found = self._embedded(pieces)
        for ready in batch:
            original = ready.prepared.original
            if original is not None and original.parsed is None:
                self.base.originals.put(original.data)
        flips: list[Flip] = []
        keys: list[int] = []
        items: list[JobItem] = []
        with self.base.catalog.write() as connection:
            versions.save_vectors(connection, self._embedder_id, found)
            for ready in batch:
                item, new_flip, new_keys = self._stage(connection, ready)
                flips.append(new_flip)
                keys.extend(new_keys)
                items.append(item)

        def describe(connection: Connection) -> None:
            # With the flip, not before: what a crash leaves must not look like what was read, or nobody reads it again.
            for ready in batch:
                self._save_row(connection, ready.prepared)

        self.base.caches.publish(flips, collection=self.collection, staged_keys=keys, also=describe)
        self.report_items(items)
        added = sum(1 for flip in flips if flip.old_version is None)
        self._count(added=added, changed=len(flips) - added)

    def _embedded(self, pieces: list[Piece]) -> dict[str, NDArray[np.float32]]:
        """Vectors of the texts that have none, by hash; a little at a time, because somebody may want it to stop."""
        found: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(pieces), _EMBED_CHUNKS):
            self._stop_if_cancelled()
            some = [
                piece for piece in pieces[start : start + _EMBED_CHUNKS] if sha256(piece.embedded_text) not in found
            ]
            found.update(embed_missing(some, base=self.base, embedder_id=self._embedder_id))
        return found

    def _stage(self, connection: Connection, ready: _Ready) -> tuple[JobItem, Flip, list[int]]:
        prepared = ready.prepared
        assert prepared.original is not None
        assert prepared.parsed is not None
        assert prepared.content_sha256 is not None
        assert prepared.pipeline is not None
        document_id = knowledge.reserve_document(
            connection, self.source.id, key=prepared.item.key, uri=prepared.item.uri
        )
        old = versions.active_version(connection, document_id)
        number, keys = versions.stage(
            connection,
            NewVersion(
                document_id=document_id,
                content_sha256=prepared.content_sha256,
                pipeline=prepared.pipeline,
                media_type=prepared.original.media_type,
                name=prepared.original.name,
                title=prepared.title,
                parsed=prepared.parsed,
                pieces=ready.pieces,
            ),
            index_id=self.collection.index_id,
        )
        state = "partial" if prepared.status == "partial" else "added" if old is None else "changed"
        problem = prepared.problems[0] if prepared.problems else None
        item = JobItem(prepared.item.key, prepared.item.uri, state, document_id, problem)
        return item, Flip(document_id, old, number), keys

    def _save_row(self, connection: Connection, prepared: Prepared) -> None:
        """All that a document says of itself beside its versions."""
        assert prepared.original is not None
        assert prepared.parsed is not None
        document_id = knowledge.save_document(
            connection,
            self.source.id,
            key=prepared.item.key,
            uri=prepared.item.uri,
            title=prepared.title,
            name=prepared.original.name,
            media_type=prepared.original.media_type,
            status=prepared.status,
            problems=prepared.problems,
            state=_state_of(prepared),
            content_sha256=prepared.content_sha256,
            pipeline=prepared.pipeline,
        )
        knowledge.set_metadata(connection, document_id, prepared.parsed.metadata)

    def _delete(self, gone: list[Known], *, of: int, options: SyncOptions) -> Problem | None:
        if not gone:
            return None
        if len(gone) >= _MASS_DELETION_LEAST and len(gone) > _MASS_DELETION_SHARE * of and not options.allow_deletes:
            return Problem(
                "mass-deletion",
                f"{len(gone)} of {of} documents of “{self.source.name}” are gone from it. Nothing was deleted.",
                "If that is right, sync again with --allow-deletes (API: allow_deletes).",
            )
        self.base.caches.retire([(item.document_id, item.version) for item in gone], collection=self.collection)
        self.report_items([JobItem(item.key, item.uri, "deleted", item.document_id) for item in gone])
        self._count(deleted=len(gone))
        return None

    # ── counting ──────────────────────────────────────────────────────────────────────────────

    def _count(
        self, *, added: int = 0, changed: int = 0, unchanged: int = 0, deleted: int = 0, failed: int = 0
    ) -> None:
        before = self._counts
        self._counts = Counts(
            before.added + added,
            before.changed + changed,
            before.unchanged + unchanged,
            before.deleted + deleted,
            before.failed + failed,
        )
        self._done += added + changed + unchanged + failed
        self._progress()

    def _progress(self) -> None:
        self.report_progress(Progress(self._done, self._total, self._counts))

    def _stop_if_cancelled(self) -> None:
        if self.cancelled():
            raise Cancelled


def _says_the_same(prepared: Prepared, before: Known) -> bool:
    """Other bytes, and the text and title that were there before: a page's nonce, a PDF saved again."""
    if prepared.parsed is None or before.version is None or prepared.pipeline != before.version_pipeline:
        return False
    return (sha256(prepared.parsed.text), prepared.title) == (before.text_sha256, before.title)


def _state_of(prepared: Prepared) -> Mapping[str, str]:
    if prepared.original is not None and prepared.original.state:
        return prepared.original.state
    return prepared.item.state
