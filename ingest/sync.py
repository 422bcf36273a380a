"""Source → plan → apply. A document changes from its old version to its new one at once, or not at all.

What a sync may conclude from silence: nothing. Only a listing that ended well says that something is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, Literal

from ingest.budget import Budget
from ingest.embedding import Embedded, Embedding
from ingest.interrupt import Cancelled as Cancelled
from ingest.interrupt import Listening, call
from ingest.pipeline import Prepared, Read, load, pieces_of, save_embedded
from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.reasons import newer_reader, state_moved, state_stood
from ingest.split import target_of
from rag.catalog import indexes, knowledge, versions
from rag.catalog.engine import Connection
from rag.catalog.indexes import Index
from rag.catalog.jobs import Counts, JobItem
from rag.catalog.knowledge import Known
from rag.catalog.versions import Flip, NewVersion, sha256
from rag.errors import SourceError, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Collection, Item, Parsed, Piece, Problem, SourceRecord, Unlisted
from rag.ports import Embedder, Source

log = logging.getLogger(__name__)

# Documents are written together until there is this much of them: one row of a table is not worth a commit of its own.
_BATCH_CHUNKS = 256
_BATCH_DOCUMENTS = 200
_BATCH_BYTES = 32 * 2**20  # of originals: two hundred scans with a word or two in each are gigabytes
_LARGE_TEXT = 200_000  # characters; cutting more takes long enough for somebody to want it to stop
_LOOK_SECONDS = 0.2  # whether to stop, while a document is being read
_AHEAD = 16  # items being read while others are embedded: bounds the memory …
_AHEAD_BYTES = 32 * 2**20  # … with this, of originals and texts
_MASS_DELETION_LEAST = 2  # documents; one alone is what people delete, and of three it is a third
_MOST_TOUCHES = 500  # documents that turned out unchanged, before that is noted: their rows wait in memory
_TRY_AGAIN = frozenset({"failed", "blocked", "needs_password", "too_large"})  # another day may be another answer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `chunks` were written and `bytes` read so far; a `total` of None is not known yet."""

    done: int
    total: int | None
    counts: Counts
    chunks: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """`allow_deletes`: a plan may remove more than the share that stops it, or everything. `verify`: read everything,
    whatever the source says. `partial`: the listing is short and not all that there is, so what it leaves out is not
    gone. `only`: load the items with these keys and no others, whether they changed or not; nothing is deleted."""

    allow_deletes: bool = False
    verify: bool = False
    partial: bool = False
    only: frozenset[str] | None = None

    @property
    def may_delete(self) -> bool:
        return not self.partial and self.only is None


PlannedState = Literal["added", "changed", "unchanged", "deleted", "failed"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would do with one item, and why, in words for people."""

    state: PlannedState
    key: str
    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """`problem`: why the listing could not be completed, or why the run would delete nothing of what is gone."""

    items: list[Planned]
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Report:
    counts: Counts
    problem: Problem | None = None  # why the listing could not be completed, or why nothing was deleted


@dataclass(frozen=True, slots=True)
class _Ready:
    """A document that is read and split, and waits to be embedded and written with others."""

    prepared: Prepared
    pieces: list[Piece]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Documents that are cut as `index` wants it and are being embedded, to be written together."""

    documents: Sequence[_Ready]
    index: Index
    vectors: Future[Embedded]

    @property
    def pieces(self) -> list[Piece]:
        return [piece for ready in self.documents for piece in ready.pieces]


@dataclass(frozen=True, slots=True)
class _Touched:
    """A document that says what it said, and waits to be noted with others. `said` where its row is written anew."""

    before: Known
    state: Mapping[str, str]
    content_sha256: str | None
    said: Prepared | None = None


@dataclass
class Sync:
    """One run over one source. Reports items and progress as they come; raises Cancelled between two batches."""

    base: KnowledgeBase
    collection: Collection
    source: SourceRecord
    read: Read
    read_options: ReadOptions
    target_tokens: int  # of a collection whose index does not say
    report_items: Callable[[list[JobItem]], None]
    report_progress: Callable[[Progress], None]
    cancelled: Callable[[], bool]
    readers: int = 2
    max_delete_share: float = 0.2  # of a source's documents; a plan that removes more stops and asks
    _counts: Counts = field(default_factory=Counts)
    _done: int = 0
    _total: int | None = None
    _waiting: list[_Ready] = field(default_factory=list)
    _waiting_chunks: int = 0
    _waiting_bytes: int = 0
    _begun: _Batch | None = None
    _touched: list[_Touched] = field(default_factory=list)
    _known: dict[str, Known] = field(default_factory=dict)
    _index: Index | None = None
    _embedder: Embedder = field(init=False)
    _embedding: Embedding = field(init=False)
    _chunks: int = 0
    _bytes: int = 0

    def run(self, listing: Source, options: SyncOptions) -> Report:
        self._remember(options)
        self._total = len(self._known) if self._known and not options.partial else None  # most likely as the last time
        with closing(Embedding(self.base, cancelled=self.cancelled)) as self._embedding:
            return self._run(listing, options)

    def _run(self, listing: Source, options: SyncOptions) -> Report:
        seen: set[str] = set()
        problem: Problem | None = None
        try:
            with closing(self._prepared(listing, seen, options)) as found:
                for prepared in found:
                    self._take(prepared, self._known.get(prepared.item.key))
        except SourceError as failure:
            problem = Problem(failure.code, failure.detail, failure.remedy)
        self._hand_over()
        self._write_begun()
        self._write_touched()
        if problem is None and options.may_delete:
            gone = self._gone(seen)
            problem = self._brake(gone, seen, options)
            if problem is None:
                self._delete(gone)
        self._progress()
        if problem is None and options.may_delete:
            with self.base.catalog.write() as connection:
                knowledge.mark_synced(connection, self.source.id)
        return Report(self._counts, problem)

    def plan(self, listing: Source, options: SyncOptions) -> Plan:
        """All that `run` would do. Touches nothing; of what may have changed it looks at the bytes, and reads no text.

        A document whose bytes changed and whose text did not (a PDF saved again) is planned as changed.
        """
        self._remember(options)
        items: list[Planned] = []
        seen: set[str] = set()
        try:
            with closing(self._decided(listing, seen, options)) as found:
                for item, before, planned in found:
                    if isinstance(item, Item) and before is not None and planned.state in ("added", "changed"):
                        planned = self._looked_at(item, before, planned, options)
                    items.append(planned)
        except SourceError as failure:
            return Plan(items, Problem(failure.code, failure.detail, failure.remedy))
        if not options.may_delete:
            return Plan(items)
        gone = self._gone(seen)
        items += [Planned("deleted", item.key, item.uri, "not in the listing any more") for item in gone]
        return Plan(items, self._brake(gone, seen, options))

    def _remember(self, options: SyncOptions) -> None:
        self._follow_index()
        with self.base.catalog.read() as snapshot:
            self._known = {} if options.partial else knowledge.known_documents(snapshot, self.source.id)

    # ── deciding, for the plan and for the run ────────────────────────────────────────────────

    def _decided(
        self, listing: Source, seen: set[str], options: SyncOptions
    ) -> Generator[tuple[Item | Unlisted, Known | None, Planned]]:
        """Each item of the listing once, with what is known of it, and what is to be done by what its source says."""
        states = {key: item.state for key, item in self._known.items()}
        # Left at once when somebody asks for that, be the server ever so slow.
        with closing(Listening(listing, cancelled=self.cancelled).items(states)) as found:  # type: ignore[type-var]
            for item in found:
                if item.key in seen:
                    continue  # a site may list a page twice
                seen.add(item.key)
                before = self._before(item.key, options)
                if before is None and options.only is not None and item.key not in options.only:
                    continue
                yield item, before, self._decide(item, before, options)

    def _before(self, key: str, options: SyncOptions) -> Known | None:
        if options.partial and key not in self._known:
            with self.base.catalog.read() as snapshot:
                self._known |= knowledge.known_documents(snapshot, self.source.id, key=key)
        return self._known.get(key)

    def _decide(self, item: Item | Unlisted, before: Known | None, options: SyncOptions) -> Planned:
        if options.only is not None and item.key not in options.only:
            return Planned("unchanged", item.key, item.uri, "not among those asked for")
        if isinstance(item, Unlisted):
            return Planned("failed", item.key, item.uri, item.problem.detail)
        if before is None:
            return Planned("added", item.key, item.uri, "new")
        why = self._why_read(item, before, options)
        if why is None:
            said = "not modified, says its source" if item.unchanged else state_stood(item.state)
            return Planned("unchanged", item.key, item.uri, said)
        return Planned("added" if before.version is None else "changed", item.key, item.uri, why)

    def _why_read(self, item: Item, before: Known, options: SyncOptions) -> str | None:
        """Why it has to be looked into; None where it is unchanged by what the source says of it, as long as its
        reader would make the same of it today."""
        if before.status in _TRY_AGAIN:
            return "could not be read last time"
        if before.pipeline is None:
            return "was not read yet"
        if not registry.is_current(before.pipeline, self.read_options):
            return newer_reader(before.pipeline)
        if options.only is not None:
            return "asked for"
        if options.verify:
            return "everything is read"
        if item.unchanged or (item.state and dict(item.state) == dict(before.state)):
            return None
        return state_moved(before.state, item.state)

    def _looked_at(self, item: Item, before: Known, planned: Planned, options: SyncOptions) -> Planned:
        """The plan of an item that has to be looked into, after a look at its bytes, where they can tell."""
        if before.status in _TRY_AGAIN or not registry.is_current(before.pipeline or "", self.read_options):
            return planned
        prepared = load(item, read=None, options=self.read_options, known=_stored(before, options))
        if prepared.status not in ("ok", "partial"):
            return replace(planned, state="failed", reason=prepared.problems[0].detail)
        if prepared.same or _says_the_same(prepared, before):
            return replace(planned, state="unchanged", reason="same content")
        return replace(planned, reason="content changed" if options.verify else planned.reason)

    def _gone(self, seen: set[str]) -> list[Known]:
        return [item for key, item in self._known.items() if key not in seen]

    def _brake(self, gone: Sequence[Known], seen: set[str], options: SyncOptions) -> Problem | None:
        """Why nothing of what is gone may be deleted without being asked for."""
        if not gone or options.allow_deletes:
            return None
        remedy = "If that is right, sync again with --allow-deletes (API: allow_deletes)."
        if not seen:
            return Problem(
                "empty-listing",
                f"“{self.source.name}” has nothing in it now, and had {len(self._known)} at the last sync. "
                "Nothing was deleted.",
                f"Check that it is mounted and complete. {remedy}",
            )
        if len(gone) < _MASS_DELETION_LEAST or len(gone) <= self.max_delete_share * len(self._known):
            return None
        return Problem(
            "mass-deletion",
            f"{len(gone)} of {len(self._known)} documents of “{self.source.name}” are gone from it, "
            f"more than {self.max_delete_share:.0%}. Nothing was deleted.",
            remedy,
        )

    # ── reading ahead ─────────────────────────────────────────────────────────────────────────

    def _prepared(self, listing: Source, seen: set[str], options: SyncOptions) -> Generator[Prepared]:
        """Items that have to be looked into, in the order of the listing, read by threads ahead of the embedding."""
        queue: list[Future[Prepared]] = []
        budget = Budget(_AHEAD_BYTES)
        ticket = count()
        pool = ThreadPoolExecutor(self.readers, thread_name_prefix="read")
        try:
            for item, before, planned in self._decided(listing, seen, options):
                if self._total is not None and len(seen) > self._total:
                    self._total = None  # there are more, and nobody knows how many, before the listing ends
                if planned.state == "unchanged":
                    self._leave(item, before)
                elif isinstance(item, Unlisted):
                    self._count_failure(item.key, item.uri, item.problem, before)
                else:
                    stored = _stored(before, options)
                    queue.append(pool.submit(self._load, item, budget, next(ticket), stored))
                while len(queue) >= _AHEAD or (queue and queue[0].done()):
                    yield self._result(queue.pop(0), budget)
        except SourceError:
            yield from self._rest(queue, budget)  # what was listed before counts
            raise
        else:
            self._total = len(seen) if options.only is None else None
            yield from self._rest(queue, budget)
        finally:
            budget.close()
            # Not waited for: what is being read at a cancel ends by itself, and nobody takes its result.
            pool.shutdown(wait=False, cancel_futures=True)

    def _leave(self, item: Item | Unlisted, before: Known | None) -> None:
        """It is unchanged; but a server that was moved names the same page by another ETag, and is asked by it next."""
        if isinstance(item, Item) and item.unchanged and before and dict(item.state) != dict(before.state):
            self._touch(_Touched(before, item.state, before.content_sha256))
        self._count(unchanged=1)

    def _load(self, item: Item, budget: Budget, ticket: int, known: tuple[str | None, str | None]) -> Prepared:
        budget.begin(ticket)
        prepared = load(item, read=self._read, options=self.read_options, known=known)
        budget.hold(_size(prepared))
        return prepared

    def _rest(self, queue: list[Future[Prepared]], budget: Budget) -> Generator[Prepared]:
        while queue:
            yield self._result(queue.pop(0), budget)

    def _result(self, reading: Future[Prepared], budget: Budget) -> Prepared:
        """When it is read; or Cancelled as soon as somebody asks for that."""
        self._stop_if_cancelled()
        while not wait([reading], timeout=_LOOK_SECONDS).done:
            self._stop_if_cancelled()
        prepared = reading.result()
        budget.give_back(_size(prepared))
        return prepared

    def _read(self, data: bytes, **about: Any) -> Parsed:
        try:
            return self.read(data, **about)
        except RuntimeError:
            if self.cancelled():  # the service stops, and closed what reads: no error that anybody should look into
                raise Unavailable("The job was stopped.") from None
            raise

    # ── taking what was read ──────────────────────────────────────────────────────────────────

    def _take(self, prepared: Prepared, before: Known | None) -> None:
        self._stop_if_cancelled()
        self._bytes += len(prepared.original.data) if prepared.original else 0
        if before is not None and (prepared.same or _says_the_same(prepared, before)):
            said = None if prepared.same else _without_text(prepared)
            self._touch(_Touched(before, _state_of(prepared), prepared.content_sha256, said))
            self._count(unchanged=1)
            return
        if prepared.parsed is None or not prepared.parsed.text.strip():
            self._keep_last_good(prepared, before)
            return
        pieces = self._pieces(prepared)
        self._waiting.append(_Ready(prepared, pieces))
        self._waiting_chunks += len(pieces)
        self._waiting_bytes += _size(prepared)
        full = self._waiting_chunks >= _BATCH_CHUNKS or self._waiting_bytes >= _BATCH_BYTES
        if full or len(self._waiting) >= _BATCH_DOCUMENTS:
            self._hand_over()

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

    def _touch(self, touched: _Touched) -> None:
        self._touched.append(touched)
        if len(self._touched) >= _MOST_TOUCHES:
            self._write_touched()

    def _write_touched(self) -> None:
        """What was looked into and found unchanged, many in one commit."""
        touched, self._touched = self._touched, []
        if not touched:
            return
        with self.base.catalog.write() as connection:
            for item in touched:
                document_id = item.before.document_id
                if item.said is None:
                    knowledge.touch_document(
                        connection, document_id, state=item.state, content_sha256=item.content_sha256
                    )
                elif versions.active_version(connection, document_id) == item.before.version:
                    self._save_row(connection, item.said)  # else it was deleted meanwhile, and stays so

    def _hand_over(self) -> None:
        """What waits is embedded from now on, while the batch before it is written and the next one is cut."""
        documents, self._waiting, self._waiting_chunks, self._waiting_bytes = self._waiting, [], 0, 0
        if not documents:
            return
        begun = self._begin(documents)
        self._write_begun()
        self._begun = begun

    def _begin(self, documents: Sequence[_Ready]) -> _Batch:
        assert self._index is not None
        pieces = [piece for ready in documents for piece in ready.pieces]
        vectors = self._embedding.begin(pieces, embedder=self._embedder, embedder_id=self._index.embedder_id)
        return _Batch(documents, self._index, vectors)

    def _write_begun(self) -> None:
        """The batch that is being embedded becomes active, all in one transaction."""
        batch, self._begun = self._begun, None
        if batch is None:
            return
        for ready in batch.documents:
            original = ready.prepared.original
            if original is not None and original.parsed is None:
                self.base.originals.put(original.data)
        while True:
            found = self._embedding.take(batch.vectors)
            with self.base.caches.still():  # no other index becomes the active one
                self._follow_index()
                if batch.index is self._index:
                    self._publish(batch, found)
                    return
            batch = self._begin([replace(ready, pieces=self._pieces(ready.prepared)) for ready in batch.documents])

    def _follow_index(self) -> bool:
        """Take up the active index of the collection. Whether it is another one: a re-index has ended meanwhile, and
        what waits has to be cut and embedded as the new one wants it."""
        with self.base.catalog.read() as snapshot:
            index = indexes.active_index(snapshot, self.collection.id)
        if self._index is not None and self._index.id == index.id:
            return False
        self._index = index
        self._embedder = self.base.embedder_for(index, self.collection.name)
        self.collection = replace(self.collection, embedder=index.embedder, index_id=index.id)
        return True

    def _pieces(self, prepared: Prepared) -> list[Piece]:
        assert self._index is not None
        target_tokens = target_of(self._index.splitter) or self.target_tokens
        split = partial(
            pieces_of, prepared, embedder=self._embedder, target_tokens=target_tokens, cancelled=self.cancelled
        )
        assert prepared.parsed is not None
        return call(split, cancelled=self.cancelled) if len(prepared.parsed.text) > _LARGE_TEXT else split()

    def _publish(self, batch: _Batch, found: Embedded) -> None:
        with self.base.catalog.write() as connection:
            embedder_id = batch.index.embedder_id
            save_embedded(connection, batch.pieces, found, embedder=self._embedder, embedder_id=embedder_id)
            flips, keys, items = self._stage(connection, batch.documents)

        def describe(connection: Connection) -> None:
            # With the flip, not before: what a crash leaves must not look like what was read, or nobody reads it again.
            for ready in batch.documents:
                self._save_row(connection, ready.prepared)

        self.base.caches.publish(
            flips, collection=self.collection, staged_keys=keys, also=describe, stop=self._stop_if_cancelled
        )
        self._chunks += len(keys)
        self.report_items(items)
        added = sum(1 for flip in flips if flip.old_version is None)
        self._count(added=added, changed=len(flips) - added)

    def _stage(
        self, connection: Connection, documents: Sequence[_Ready]
    ) -> tuple[list[Flip], list[int], list[JobItem]]:
        """Stored, and active for nobody yet: the flips that will change that, all chunks' keys, and what to tell."""
        ids = knowledge.reserve_documents(
            connection, self.source.id, {ready.prepared.item.key: ready.prepared.item.uri for ready in documents}
        )
        active = versions.active_versions(connection, list(ids.values()))
        new = [_new_version(ready, ids[ready.prepared.item.key]) for ready in documents]
        staged = versions.stage_all(connection, new, index_id=self.collection.index_id)
        flips = [
            Flip(version.document_id, active.get(version.document_id), number)
            for version, (number, _) in zip(new, staged, strict=True)
        ]
        items = [_job_item(ready.prepared, flip) for ready, flip in zip(documents, flips, strict=True)]
        return flips, [key for _, keys in staged for key in keys], items

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

    def _delete(self, gone: Sequence[Known]) -> None:
        if not gone:
            return
        self.base.caches.retire([(item.document_id, item.version) for item in gone], collection=self.collection)
        self.report_items([JobItem(item.key, item.uri, "deleted", item.document_id) for item in gone])
        self._count(deleted=len(gone))

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
        self.report_progress(Progress(self._done, self._total, self._counts, self._chunks, self._bytes))

    def _stop_if_cancelled(self) -> None:
        if self.cancelled():
            raise Cancelled


def _new_version(ready: _Ready, document_id: str) -> NewVersion:
    prepared = ready.prepared
    assert prepared.original is not None
    assert prepared.parsed is not None
    assert prepared.content_sha256 is not None
    assert prepared.pipeline is not None
    return NewVersion(
        document_id=document_id,
        content_sha256=prepared.content_sha256,
        pipeline=prepared.pipeline,
        media_type=prepared.original.media_type,
        name=prepared.original.name,
        title=prepared.title,
        parsed=prepared.parsed,
        pieces=ready.pieces,
    )


def _job_item(prepared: Prepared, flip: Flip) -> JobItem:
    state = "partial" if prepared.status == "partial" else "added" if flip.old_version is None else "changed"
    problem = prepared.problems[0] if prepared.problems else None
    return JobItem(prepared.item.key, prepared.item.uri, state, flip.document_id, problem)


def _size(prepared: Prepared) -> int:
    """Bytes that it takes in memory, more or less."""
    original = len(prepared.original.data) if prepared.original is not None else 0
    return original + (len(prepared.parsed.text) if prepared.parsed is not None else 0)


def _says_the_same(prepared: Prepared, before: Known) -> bool:
    """Other bytes, and the text and title that were there before: a page's nonce, a PDF saved again."""
    if prepared.parsed is None or before.version is None or prepared.pipeline != before.version_pipeline:
        return False
    return (sha256(prepared.parsed.text), prepared.title) == (before.text_sha256, before.title)


def _state_of(prepared: Prepared) -> Mapping[str, str]:
    if prepared.original is not None and prepared.original.state:
        return prepared.original.state
    return prepared.item.state


def _without_text(prepared: Prepared) -> Prepared:
    """What its row needs, and no more of it in memory."""
    assert prepared.original is not None
    assert prepared.parsed is not None
    return replace(
        prepared,
        original=replace(prepared.original, data=b"", parsed=None),
        parsed=replace(prepared.parsed, text="", blocks=(), pages=()),
    )


def _stored(before: Known | None, options: SyncOptions) -> tuple[str | None, str | None]:
    """(content hash, pipeline) under which the same bytes need no reading. A failure is read again when it may end
    otherwise, and whenever somebody asks for it."""
    if before is None or before.status in _TRY_AGAIN:
        return None, None
    if options.only is not None and before.status not in ("ok", "partial"):
        return None, None
    return before.content_sha256, before.pipeline
