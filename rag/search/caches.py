"""Chroma and Tantivy kept in step with the catalog.

Both are caches. Each can be deleted, torn or unreachable: the catalog rebuilds it, and meanwhile vectors are
searched exactly. A hit from a cache counts only if the catalog says that its chunk is active, so a cache can be late,
never wrong.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from rag.catalog import filtering, history, indexes, knowledge, versions
from rag.catalog.engine import Catalog, Connection, last_change
from rag.catalog.history import Traces
from rag.catalog.indexes import Index
from rag.catalog.versions import Flip
from rag.errors import Unavailable
from rag.filters import Filter
from rag.models import Collection
from rag.ports import TermEntry, TermIndex, VectorIndex, Vectors
from rag.search.arms import Among, Arms, CachedTerms, Exact, Present, Sieved
from rag.search.exact import ExactIndex
from rag.search.gate import Gate
from rag.search.recall import LEAST, RecallMonitor

log = logging.getLogger(__name__)

_TERM_BATCH = 20_000  # chunks per commit while rebuilding: bounded memory, few segments
_VECTOR_BATCH = 5_000
# While an index is prepared, questions and syncs of others wait for one of these at most.
_PREPARED_TERMS, _PREPARED_VECTORS = 500, 250
_BROUGHT = 1_000  # vectors between two looks at whether the process ends
_ADDED = 500  # chunks between two looks whether to stop
_PASTS = 2  # indexes of the past that stay in memory: a conversation about one moment asks more than once
# Chunks that a filter leaves, up to which their vectors are searched exactly, out of the catalog.
_FEW = 20_000
_FILTERED = 40_000  # vectors of such that stay in memory: the next question often has the same filter, and takes 2 ms


def term_space(index_id: int) -> str:
    """The name of an index's terms: another splitter or window makes other chunks, so no two indexes share them."""
    return f"ix-{index_id}"


class Caches:
    """Thread-safe. `prepare_vectors` runs before Chroma is first opened: it may find a torn folder and move it away.
    `exact_up_to`: how many vectors are searched exactly and need no Chroma; 0 for none."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        vectors: VectorIndex,
        terms: TermIndex,
        prepare_vectors: Callable[[], None] = lambda: None,
        exact_up_to: int = 0,
    ) -> None:
        self._catalog = catalog
        self._vectors = vectors
        self._terms = terms
        self._exact = ExactIndex()
        self._exact_up_to = exact_up_to
        self._exact_suffices = False
        self._measured: tuple[int, bool] | None = None  # the last change that was looked at, and whether it is too many
        self._probe_vectors = prepare_vectors
        self._prepare_vectors: Callable[[], None] | None = prepare_vectors
        self._exact_change: dict[int, int] = {}
        self._counted: dict[int, tuple[int, int]] = {}  # index → (change, documents)
        self._pasts: OrderedDict[tuple[int, int], Exact] = OrderedDict()  # by index and change, latest use last
        self._filtered: OrderedDict[tuple[int, ...], tuple[list[int], Vectors]] = OrderedDict()  # by keys, the same way
        self._past_lock = threading.Lock()
        self._attached: set[int] = set()
        self._writing = threading.RLock()  # one writer at a time
        self._renewing = threading.RLock()  # one that attaches or renews; taken before `_writing`, never inside it
        self._weighed: int | None = None  # the change at which vectors were last found not to be worth renewing
        self._ending = threading.Event()
        self._exact_lock = threading.Lock()
        self.gate = Gate()
        self.terms_ready = False
        self.vectors_attached = False
        self.vectors_problem: str | None = None  # why Chroma does not answer, while it does not
        self._terms_late = False
        self.recall = RecallMonitor()

    # ── looking ───────────────────────────────────────────────────────────────────────────────

    def search_vectors(
        self, snapshot: Connection, index_id: int, vector: Vectors, *, k: int
    ) -> list[tuple[int, float]]:
        """At most k (key, cosine), best first: from Chroma, or exactly where Chroma is not attached."""
        if index_id in self._attached:
            vectors = self._vectors
            try:
                found = vectors.search(index_id, vector, k=k)
                self.recall.heard(index_id, vector)
                return found
            except Unavailable as problem:
                if vectors is self._vectors:  # else renewed this very moment, and the old ones are gone
                    self._detach(problem)
        return self._load_exact(snapshot, index_id).search(index_id, vector, k=k)

    def search_terms(
        self, index_id: int, question: str, *, k: int, among: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        return self._terms.search(term_space(index_id), question, k=k, among=among)

    def term_rarity(self, index_id: int, terms: Sequence[str]) -> list[float]:
        return self._terms.rarity(term_space(index_id), terms)

    def count_documents(self, snapshot: Connection, collection: Collection) -> int:
        """How many documents a question searches; counted once per change: 20,000 take 35 ms, a question takes less."""
        change = last_change(snapshot)
        known = self._counted.get(collection.index_id)
        if known is None or known[0] != change:
            known = change, knowledge.count_collection(snapshot, collection).documents
            self._counted[collection.index_id] = known
        return known[1]

    def arms(
        self, snapshot: Connection, collection: Collection, *, at: int | None = None, filters: Filter | None = None
    ) -> Arms:
        """The collection's index as it is, inside the gate; or as it was right after a change; or what a filter leaves
        of either.

        The past takes about as long as indexing its terms again, and the latest few stay in memory. It needs no gate:
        what was then does not change any more.
        """
        if filters is not None:
            return self._filtered_arms(snapshot, collection, at=at, filters=filters)
        if at is None:
            return Present(self, snapshot, collection)
        return self._past(snapshot, collection, at)

    def _past(self, snapshot: Connection, collection: Collection, at: int) -> Exact:
        wanted = collection.index_id, at
        with self._past_lock:
            if wanted not in self._pasts:
                keys = history.keys_at(snapshot, collection.index_id, at)
                found, matrix = versions.vectors_of(snapshot, keys)
                terms = self._terms.occasion(versions.term_entries(snapshot, keys))
                documents = history.count_at(snapshot, collection.index_id, at)
                self._pasts[wanted] = Exact(at, documents, found, matrix, terms)
            self._pasts.move_to_end(wanted)
            while len(self._pasts) > _PASTS:
                self._pasts.popitem(last=False)
            return self._pasts[wanted]

    def _filtered_arms(self, snapshot: Connection, collection: Collection, *, at: int | None, filters: Filter) -> Arms:
        """Few chunks are searched exactly. Of many, both arms are asked for more until enough of them has come, so
        that a filter never costs what would have been found without one."""
        index_id = collection.index_id
        ids = filtering.document_ids(snapshot, filters, collection_id=collection.id, index_id=index_id, at=at)
        if at is not None:
            past = self._past(snapshot, collection, at)
            kept = set(filtering.chunk_keys(snapshot, ids, index_id=index_id, at=at) or [])
            rows = [row for row, key in enumerate(past.keys) if key in kept]
            keys = [past.keys[row] for row in rows]
            return Exact(at, len(ids), keys, past.vectors[rows], Among(past.terms, keys))
        few = filtering.chunk_keys(snapshot, ids, index_id=index_id, at=None, at_most=_FEW)
        if few is not None:
            keys, matrix = self._vectors_kept(snapshot, few)
            return Exact(None, len(ids), keys, matrix, Among(CachedTerms(self, index_id), few))

        def documents_of(keys: Sequence[int]) -> Mapping[int, str]:
            with self._catalog.read() as own:  # the snapshot is not for two threads, and a chunk's document stays
                return filtering.documents_of(own, keys)

        def exact(vector: Vectors, k: int) -> list[tuple[int, float]]:
            every = filtering.chunk_keys(snapshot, ids, index_id=index_id, at=None) or []
            best: list[tuple[int, float]] = []
            for some in _parts(every, _VECTOR_BATCH):
                keys, matrix = versions.vectors_of(snapshot, some)
                if keys:
                    best.extend(zip(keys, (matrix @ vector).tolist(), strict=True))
                    best = sorted(best, key=lambda hit: (-hit[1], hit[0]))[:k]
            return best

        return Sieved(Present(self, snapshot, collection), ids, documents_of, exact)

    def _vectors_kept(self, snapshot: Connection, keys: Sequence[int]) -> tuple[list[int], Vectors]:
        """Vectors of these chunks, ascending by key; the latest stay in memory. A chunk's vector never changes."""
        wanted = tuple(keys)
        with self._past_lock:
            if wanted in self._filtered:
                self._filtered.move_to_end(wanted)
                return self._filtered[wanted]
        found, matrix = versions.vectors_of(snapshot, keys)
        order = sorted(range(len(found)), key=found.__getitem__)
        made = [found[row] for row in order], matrix[order]
        with self._past_lock:
            self._filtered[wanted] = made
            while sum(map(len, self._filtered)) > _FILTERED:
                self._filtered.popitem(last=False)
        return made

    def is_attached(self, index_id: int) -> bool:
        """Whether Chroma answers for this index; exact search does otherwise."""
        return index_id in self._attached

    def _load_exact(self, snapshot: Connection, index_id: int) -> ExactIndex:
        change = last_change(snapshot)
        with self._exact_lock:
            if self._exact_change.get(index_id) != change:
                self._follow_exact(snapshot, index_id)
                self._exact_change[index_id] = change
            return self._exact  # attaching may put another one in its place before this one has been searched

    def _follow_exact(self, snapshot: Connection, index_id: int) -> None:
        """What is new and what is gone; a chunk's vector never changes. All of 20,000 take .3 CPU seconds."""
        if not self._exact.loaded(index_id):
            self._exact.load(index_id, *versions.active_vectors(snapshot, index_id))
            return
        held, wanted = self._exact.keys(index_id), versions.active_keys(snapshot, index_id)
        if held - wanted:
            self._exact.remove(index_id, sorted(held - wanted))
        if wanted - held:
            self._exact.add(index_id, *versions.vectors_of(snapshot, sorted(wanted - held)))

    # ── following the catalog ─────────────────────────────────────────────────────────────────

    def publish(
        self,
        flips: Sequence[Flip],
        *,
        collection: Collection,
        staged_keys: Sequence[int],
        also: Callable[[Connection], None] = lambda _connection: None,
        stop: Callable[[], None] = lambda: None,
    ) -> int:
        """Make staged versions the active ones, everywhere. `also` joins the very transaction that flips.

        Order matters: vectors go first and stay invisible, then one transaction flips, then the terms follow while no
        look-up runs, so that a question sees a document's old version whole or its new one whole. `stop` is called now
        and then before the flip, and may raise: what was staged is removed again.
        """
        with self._writing, self._late_when_it_fails():
            collection = self._current(collection)
            with self._catalog.read() as snapshot:
                # What is active may have changed since the flip was planned: somebody deleted the document meanwhile.
                active = versions.active_versions(snapshot, [item.document_id for item in flips])
                flips = [replace(item, old_version=active.get(item.document_id)) for item in flips]
                retired = versions.chunk_keys(
                    snapshot, [(item.document_id, item.old_version) for item in flips], index_id=collection.index_id
                )
                # Staging was a change of its own, so a crash before the flip leaves a cache that admits nothing more
                # than the catalog knows, and not one that must be rebuilt.
                try:
                    self._add_new(snapshot, collection.index_id, staged_keys, stop=stop)
                except BaseException:
                    self._unstage(flips, collection.index_id, staged_keys)
                    raise
            with ExitStack() as gate:
                with self._catalog.write() as connection:
                    also(connection)
                    change = versions.flip(connection, flips, collection_id=collection.id, index_id=collection.index_id)
                    # From the commit on, and no sooner: questions need not wait for another writer to let this one in.
                    gate.enter_context(self.gate.flip())
                followed = self._follow_terms(collection.index_id)
            self._clear_pending(collection.id, followed)
            self._remove_vectors(collection.index_id, retired, seen=change)
        return change

    def _current(self, collection: Collection) -> Collection:
        """With the index that is active now: another one may have taken its place since the caller read it."""
        with self._catalog.read() as snapshot:
            found = indexes.active_id(snapshot, collection.id)
        return collection if found is None else replace(collection, index_id=found)

    def _add_new(self, snapshot: Connection, index_id: int, keys: Sequence[int], *, stop: Callable[[], None]) -> None:
        """All that can be done before the flip: the vectors, which nobody sees yet, and the terms, made ready."""
        change = last_change(snapshot)
        entries: list[TermEntry] = []
        for some in _parts(keys, _ADDED):
            stop()
            self._add_vectors(snapshot, index_id, some, seen=change)
            entries.extend(versions.term_entries(snapshot, some))
        stop()
        self._terms.prepare(entries)
        stop()

    def _unstage(self, flips: Sequence[Flip], index_id: int, keys: Sequence[int]) -> None:
        with self._catalog.write() as connection:
            new = [(item.document_id, item.new_version) for item in flips if item.new_version is not None]
            removed = versions.collect_staged(connection, only=new)
            change = last_change(connection)
        if removed:  # else these are chunks of a version that was active before
            self._remove_vectors(index_id, keys, seen=change)

    def _add_vectors(self, snapshot: Connection, index_id: int, keys: Sequence[int], *, seen: int) -> None:
        if index_id not in self._attached or not keys:
            return
        found, matrix = versions.vectors_of(snapshot, keys)
        try:
            self._vectors.upsert(index_id, found, matrix, seen=seen)
        except Unavailable as problem:
            self._detach(problem)  # the catalog has them; attaching again brings them over

    def _remove_vectors(self, index_id: int, keys: Sequence[int], *, seen: int) -> None:
        if index_id not in self._attached or not keys:
            return
        try:
            self._vectors.delete(index_id, keys, seen=seen)
        except Unavailable as problem:
            self._detach(problem)

    def _follow_terms(self, index_id: int) -> int:
        """Bring every noted flip of the index into its terms, in one commit. Up to which change that worked."""
        with self._catalog.read() as snapshot:
            noted = [item for item in versions.pending_flips(snapshot) if item.index_id == index_id]
            if not noted:
                return 0
            change = last_change(snapshot)
            remove = versions.chunk_keys(
                snapshot, ((item.flip.document_id, item.flip.old_version) for item in noted), index_id=index_id
            )
            active = {item.flip.document_id: item.flip.new_version for item in noted}
            add = versions.chunk_keys(snapshot, active.items(), index_id=index_id)
            entries = list(versions.term_entries(snapshot, add))
        try:
            self._terms.apply(term_space(index_id), remove=remove, add=entries, seen=change)
        except Unavailable as problem:
            log.error("The terms of index %d could not follow: %s", index_id, problem)
            self._terms_late = True
            return 0
        return change

    def _clear_pending(self, collection_id: str, change: int) -> None:
        with self._catalog.write() as connection:
            versions.clear_pending(connection, collection_id=collection_id, up_to_change=change)

    def rewrite_terms(
        self, document_ids: Sequence[str], *, collection: Collection, also: Callable[[Connection], None]
    ) -> None:
        """What is said of these documents has changed (`also`, in the same transaction), and their terms follow."""
        with self._writing:
            collection = self._current(collection)
            with ExitStack() as gate:
                with self._catalog.write() as connection:
                    also(connection)
                    versions.rewrite(
                        connection, document_ids, collection_id=collection.id, index_id=collection.index_id
                    )
                    gate.enter_context(self.gate.flip())
                followed = self._follow_terms(collection.index_id)
            self._clear_pending(collection.id, followed)

    def purge(self, traces: Traces) -> None:
        """A document out of the catalog and every answer, at once; the files still have to be written anew."""
        with self._writing:
            with self._catalog.read() as snapshot:
                live = {index_id for index_id, _, _ in versions.all_indexes(snapshot)}
            keys_of = {index_id: keys for index_id, keys in traces.keys.items() if index_id in live}
            with ExitStack() as gate:
                with self._catalog.write() as connection:
                    history.purge_rows(connection, traces)
                    change = last_change(connection)
                    gate.enter_context(self.gate.flip())
                with self._past_lock:
                    self._pasts.clear()
                    self._filtered.clear()
                for index_id, keys in keys_of.items():
                    self._terms.apply(term_space(index_id), remove=keys, add=[], seen=change)
            for index_id, keys in keys_of.items():
                self._remove_vectors(index_id, keys, seen=change)

    def write_anew(self) -> None:
        """Both caches made again from the catalog, the old files deleted: what was removed is in none of them.

        Questions go on meanwhile, over the old terms and the old vectors, or over the catalog's own. Raises Unavailable
        where Chroma cannot be reached, and then still holds what it held.
        """
        with self._writing, self._catalog.read() as snapshot:
            live = [index_id for index_id, _, _ in versions.all_indexes(snapshot)]
            for index_id in live:
                self._rebuild_terms(snapshot, index_id)
            # Those of an index that is being built hold it too; they are made again when they are needed.
            for space in self._terms.spaces() - {term_space(index_id) for index_id in live}:
                self._terms.drop(space)
        if self._wiped_where_exact_suffices():
            return
        # A service that has just begun is attaching still, and what is not attached cannot be renewed.
        if not ((self.vectors_attached or self.attach_vectors()) and self.renew_vectors()):
            raise Unavailable(
                "Chroma could not be written anew, and may hold vectors of what was removed.",
                remedy="Make sure that it can be reached, and restart the service, which completes this.",
            )

    def _rebuild_terms(self, snapshot: Connection, index_id: int) -> None:
        """All terms of an active index anew from the catalog; the old ones answer until then. Inside `_writing`."""
        entries = versions.term_entries(snapshot, sorted(versions.active_keys(snapshot, index_id)))
        self._terms.rebuild(term_space(index_id), entries, catalog_id=self._catalog.id, seen=last_change(snapshot))

    def retire(self, documents: Sequence[tuple[str, int | None]], *, collection: Collection) -> None:
        """Take these documents (id, active version) out of every answer, now."""
        flips = [Flip(document_id, version, None) for document_id, version in documents]
        self.publish(flips, collection=collection, staged_keys=[])

    def erase(self, collection: Collection, *, source_id: str) -> None:
        """A source and all that came from it, out of the catalog and every answer. No publish comes in between, so a
        sync that is still running leaves nothing behind."""
        with self._writing:
            collection = self._current(collection)
            with self._catalog.read() as snapshot:
                keys = versions.source_keys(snapshot, source_id, index_id=collection.index_id)
            with ExitStack() as gate:
                with self._catalog.write() as connection:
                    knowledge.delete_source(connection, source_id)
                    change = last_change(connection)
                    gate.enter_context(self.gate.flip())
                try:
                    self._terms.apply(term_space(collection.index_id), remove=keys, add=[], seen=change)
                except Unavailable as problem:
                    log.error("The terms of index %d could not follow: %s", collection.index_id, problem)
            self._remove_vectors(collection.index_id, keys, seen=change)

    def create(self, collection: Collection, *, dimension: int) -> None:
        """Empty caches for a new collection."""
        with self._writing:
            self._terms.reset(term_space(collection.index_id), catalog_id=self._catalog.id)
            # Not before the folder was probed: attaching brings this collection along.
            if self._prepare_vectors is None and self.vectors_problem is None:
                try:
                    self._vectors.reset(collection.index_id, catalog_id=self._catalog.id, dimension=dimension)
                    self._attached.add(collection.index_id)
                except Unavailable as problem:
                    self._detach(problem)

    def forget(self, collection: Collection) -> None:
        """The caches of a collection that has been deleted."""
        with self._writing, self.gate.flip():
            self._terms.drop(term_space(collection.index_id))
            self._attached.discard(collection.index_id)
            if self._exact_suffices:
                return  # there is nothing in Chroma, and it is not opened for that
            try:
                self._vectors.drop(collection.index_id)
            except Unavailable as problem:
                self._detach(problem)

    # ── from one index to another ─────────────────────────────────────────────────────────────

    def prepare(self, index: Index, *, stop: Callable[[], None] = lambda: None) -> None:
        """Bring the caches of an index that is not active near to what the catalog says, while syncs go on. It can be
        searched then, and `switch` has little left to do. `stop` is called now and then, and may raise."""
        try:
            self._prepare_terms(index, stop)
        except Unavailable as problem:  # a purge has taken them away meanwhile
            log.info("The terms of index %d are prepared again: %s", index.id, problem)
            self._prepare_terms(index, stop)
        if self.vectors_attached:
            try:
                self._prepare_chroma(index, stop)
            except Unavailable as problem:  # or they were renewed meanwhile; `switch` finds out, and does what is left
                log.info("The vectors of index %d are prepared in part: %s", index.id, problem)

    def _prepare_terms(self, index: Index, stop: Callable[[], None]) -> None:
        space = term_space(index.id)
        with self._writing:
            if self._terms.open(space, catalog_id=self._catalog.id) is None:
                self._terms.reset(space, catalog_id=self._catalog.id)
            present = self._terms.keys(space)
        with self._catalog.read() as snapshot:
            change, wanted = last_change(snapshot), versions.active_keys(snapshot, index.id)
            for some in _parts(sorted(wanted - present), _PREPARED_TERMS):
                stop()
                self._terms.apply(space, remove=[], add=list(versions.term_entries(snapshot, some)), seen=change)

    def _prepare_chroma(self, index: Index, stop: Callable[[], None]) -> None:
        with self._writing:
            if self._vectors.open(index.id, catalog_id=self._catalog.id, dimension=index.dimension) is None:
                self._vectors.reset(index.id, catalog_id=self._catalog.id, dimension=index.dimension)
            present = self._vectors.keys(index.id)
        with self._catalog.read() as snapshot:
            change, wanted = last_change(snapshot), versions.active_keys(snapshot, index.id)
            for some in _parts(sorted(wanted - present), _PREPARED_VECTORS):
                stop()
                keys, matrix = versions.vectors_of(snapshot, some)
                self._vectors.upsert(index.id, keys, matrix, seen=change)

    def switch(self, index: Index) -> None:
        """Make this index the active one of its collection. A question sees the old one or this one, whole."""
        with self._writing:
            self._reconcile_terms(index.id)
            if self.vectors_attached:
                try:
                    self._reconcile_vectors(index.id, index.dimension)
                    self._attached.add(index.id)
                except Unavailable as problem:
                    self._detach(problem)
            with ExitStack() as gate, self._catalog.write() as connection:
                old = indexes.active_id(connection, index.collection_id)
                indexes.activate(connection, index)
                gate.enter_context(self.gate.flip())
            if old is not None and old != index.id:
                self.drop_index(old)

    def drop_index(self, index_id: int) -> None:
        """The caches of an index that no question looks into any more; the catalog keeps what it has."""
        with self._writing:
            self._terms.drop(term_space(index_id))
            self._attached.discard(index_id)
            with self._exact_lock:
                self._exact.drop(index_id)
                self._exact_change.pop(index_id, None)
            with self._past_lock:
                for wanted in [item for item in self._pasts if item[0] == index_id]:
                    del self._pasts[wanted]
            if self._prepare_vectors is not None or self.vectors_problem is not None:
                return  # Chroma does not answer; what it holds of this index answers nobody
            try:
                self._vectors.drop(index_id)
            except Unavailable as problem:
                self._detach(problem)

    # ── starting, and starting again ──────────────────────────────────────────────────────────

    def attach_terms(self) -> None:
        """Bring the terms of every collection to what the catalog says; rebuild those that cannot be trusted.

        The first time is before any job runs, so what is staged then is what a crash left, and goes.
        """
        with self._writing:
            if not self.terms_ready:
                with self._catalog.write() as connection:
                    versions.collect_staged(connection)
            with self._catalog.read() as snapshot:
                everything, change = versions.all_indexes(snapshot), last_change(snapshot)
            for index_id, collection_id, _ in everything:
                self._reconcile_terms(index_id)
                self._clear_pending(collection_id, change)
            if not self.terms_ready:  # later on, an index that is being built has terms too
                for space in self._terms.spaces() - {term_space(index_id) for index_id, _, _ in everything}:
                    self._terms.drop(space)
            self.terms_ready = True

    def _reconcile_terms(self, index_id: int) -> None:
        space = term_space(index_id)
        seen = self._terms.open(space, catalog_id=self._catalog.id)
        with self._catalog.read() as snapshot:
            change = last_change(snapshot)
            wanted = versions.active_keys(snapshot, index_id)
            if seen is None or seen > change:  # more than the catalog knows: written by another history of it
                if wanted:
                    log.warning("Rebuilding the terms of index %d: %d chunks.", index_id, len(wanted))
                self._terms.reset(space, catalog_id=self._catalog.id)
            present = self._terms.keys(space)
            remove, add = sorted(present - wanted), sorted(wanted - present)
            for start in range(0, max(len(add), 1 if remove else 0), _TERM_BATCH):
                entries = list(versions.term_entries(snapshot, add[start : start + _TERM_BATCH]))
                self._terms.apply(space, remove=remove, add=entries, seen=change)
                remove = []

    @property
    def is_late(self) -> bool:
        """Whether something kept a cache from following the catalog: `catch_up`, when that may be over."""
        return self._terms_late or self.vectors_problem is not None or self._has_outgrown_exact()

    def catch_up(self) -> bool:
        """Bring both caches to the catalog again, after a disk was full or Chroma away. False while that lasts."""
        with self._writing:
            try:
                self._follow_pending()
            except Unavailable as problem:
                log.warning("The terms are still behind the catalog: %s", problem)
                return False
        return not (self.vectors_problem is not None or self._has_outgrown_exact()) or self.attach()

    def _follow_pending(self) -> None:
        with self._catalog.read() as snapshot:
            noted = {(item.collection_id, item.index_id) for item in versions.pending_flips(snapshot)}
        self._terms_late = False
        for collection_id, index_id in sorted(noted):
            with self.gate.flip():
                followed = self._follow_terms(index_id)
            self._clear_pending(collection_id, followed)

    @contextmanager
    def _late_when_it_fails(self) -> Iterator[None]:
        """Between a flip and what follows it the disk may be full. Attaching again finds what was not done then."""
        try:
            yield
        except Unavailable as problem:
            self._terms_late = True
            self._detach(problem)
            raise

    def attach(self) -> bool:
        """Chroma attached, where there are more vectors than exact search is good for. Else it is not even imported;
        what an earlier time left in it goes, and the vectors are brought into memory. False as of `attach_vectors`."""
        with self._renewing:
            with self._catalog.read() as snapshot:
                few = self._are_few(snapshot)
            if self.vectors_attached or not few:
                self._exact_suffices = False
                return self.attach_vectors()
            self._exact_suffices, self.vectors_problem = True, None
            try:
                self._wiped_where_exact_suffices()
            except Unavailable as problem:
                log.warning("Vectors that nobody needs could not be deleted: %s", problem)
        with self._catalog.read() as snapshot:
            for index_id, _, _ in versions.all_indexes(snapshot):
                self._load_exact(snapshot, index_id)
        return True

    @property
    def vectors_ready(self) -> bool:
        """Attached, or few enough to be searched exactly."""
        return self.vectors_attached or self._exact_suffices

    def _are_few(self, snapshot: Connection) -> bool:
        change = last_change(snapshot)
        if self._measured is None or self._measured[0] != change:
            self._measured = change, versions.count_active(snapshot) <= self._exact_up_to
        return self._measured[1] and self._exact_up_to > 0

    def _has_outgrown_exact(self) -> bool:
        if not self._exact_suffices:
            return False
        with self._catalog.read() as snapshot:
            return not self._are_few(snapshot)

    def _wiped_where_exact_suffices(self) -> bool:
        with self._renewing, self._writing:
            if self._exact_suffices and not self.vectors_attached:
                self._vectors.wipe()
                return True
        return False

    def attach_vectors(self) -> bool:
        """Bring Chroma to what the catalog says. False where it cannot be reached; exact search goes on answering.

        Most of it while publishing goes on: 100,000 vectors take some minutes. Never call it from inside `still`.
        """
        with self._renewing:
            try:
                with self._writing:
                    if self.vectors_problem is not None:
                        # After a write that failed nobody knows what it left, in its memory or its files: begin anew.
                        self._vectors.close()
                        self._prepare_vectors = self._probe_vectors
                    if self._prepare_vectors is not None:
                        self._prepare_vectors()
                        self._prepare_vectors = None
                self._bring_all(self._vectors, but=self._attached)
                with self._writing:
                    self._reconcile_all(self._vectors, but=self._attached)
                    self.vectors_problem = None
                    self.vectors_attached = True
                    self._exact_suffices = False
                    with self._exact_lock:
                        self._exact_change.clear()
                        self._exact = ExactIndex()  # give the memory back
            except Unavailable as problem:
                self._detach(problem)
                return False
        return True

    def renew_vectors(self) -> bool:
        """All vectors from the catalog into another place, which the old one gives way to: what was deleted takes room
        no longer. Questions go on over the old ones, and publishing into them. False where that did not work.

        Never call it from inside `still`.
        """
        with self._renewing:
            old = self._vectors
            try:
                fresh = old.successor()
                if fresh is None:
                    with self._writing, self.gate.flip():  # no question is looking into it, and from here on none does
                        self._attached = set()
                    old.wipe()
                    return self.attach_vectors()
            except Unavailable as problem:
                self._detach(problem)
                return False
            try:
                self._bring_all(fresh)
                with self._writing:
                    if not self.vectors_attached:
                        raise Unavailable("Chroma failed meanwhile.", remedy="It is attached again shortly.")
                    attached = self._reconcile_all(fresh)
                    with self.gate.flip():
                        self._vectors, self._attached = fresh, attached
            except Unavailable as problem:
                log.warning("The vectors could not be renewed, and stay where they are: %s", problem)
                fresh.wipe()
                return False
            try:
                old.wipe()  # until now a kill would have left the old ones
            except Unavailable as problem:
                log.warning("The old vectors could not be deleted: %s", problem)
                return False  # they still hold what was removed
        return True

    def compact(self) -> bool:
        """Renew the vectors where what was deleted takes more room than what is there. Whether that was so."""
        if not self.vectors_attached:
            return False
        with self._catalog.read() as snapshot:
            change = last_change(snapshot)
        if change == self._weighed:
            return False
        self._weighed = change
        try:
            if not self._vectors.bloated():
                return False
        except Unavailable as problem:
            self._detach(problem)
            return False
        log.info("Renewing the vectors: most of what Chroma keeps was deleted.")
        return self.renew_vectors()

    def interrupt(self) -> None:
        """The process is about to end: attaching and renewing stop soon, and go on at the next start."""
        self._ending.set()

    def _every_index(self) -> list[tuple[int, int]]:
        with self._catalog.read() as snapshot:
            return [(index_id, dimension) for index_id, _, dimension in versions.all_indexes(snapshot)]

    def _bring_all(self, vectors: VectorIndex, *, but: Set[int] = frozenset()) -> None:
        for index_id, dimension in self._every_index():
            if index_id in but:
                continue
            try:
                self._bring(vectors, index_id, dimension)
            except Unavailable:
                if (index_id, dimension) in self._every_index():
                    raise  # else it was dropped meanwhile

    def _bring(self, vectors: VectorIndex, index_id: int, dimension: int) -> None:
        """Most of what is missing, in short transactions. Nothing else may be written into this index meanwhile."""
        seen = vectors.open(index_id, catalog_id=self._catalog.id, dimension=dimension)
        with self._catalog.read() as snapshot:
            change, wanted = last_change(snapshot), versions.active_keys(snapshot, index_id)
        if seen is None or seen > change:  # more than the catalog knows: written by another history of it
            if wanted:
                log.info("Writing the vectors of index %d into Chroma: %d chunks.", index_id, len(wanted))
            vectors.reset(index_id, catalog_id=self._catalog.id, dimension=dimension)
        for some in _parts(sorted(wanted - vectors.keys(index_id)), _BROUGHT):
            if self._ending.is_set():
                raise Unavailable("The service is stopping.", remedy="Chroma is attached at the next start.")
            with self._catalog.read() as snapshot:
                keys, matrix = versions.vectors_of(snapshot, some)
            if keys:
                vectors.upsert(index_id, keys, matrix, seen=change)

    def _reconcile_all(self, vectors: VectorIndex, *, but: Set[int] = frozenset()) -> set[int]:
        """Exactly what the catalog says, for every index; inside `_writing`. Which ones those are."""
        everything = self._every_index()
        for index_id, dimension in everything:
            if index_id not in but:
                self._reconcile_vectors(index_id, dimension, into=vectors)
                if vectors is self._vectors:
                    self._attached.add(index_id)
        return {index_id for index_id, _ in everything}

    def _reconcile_vectors(self, index_id: int, dimension: int, *, into: VectorIndex | None = None) -> None:
        vectors = into or self._vectors
        seen = vectors.open(index_id, catalog_id=self._catalog.id, dimension=dimension)
        with self._catalog.read() as snapshot:
            change = last_change(snapshot)
            wanted = versions.active_keys(snapshot, index_id)
            if seen is None or seen > change:
                if wanted:
                    log.warning("Rebuilding the vectors of index %d in Chroma: %d chunks.", index_id, len(wanted))
                vectors.reset(index_id, catalog_id=self._catalog.id, dimension=dimension)
            present = vectors.keys(index_id)
            vectors.delete(index_id, sorted(present - wanted), seen=change)
            add = sorted(wanted - present)
            for start in range(0, len(add), _VECTOR_BATCH):
                keys, matrix = versions.vectors_of(snapshot, add[start : start + _VECTOR_BATCH])
                vectors.upsert(index_id, keys, matrix, seen=change)

    def check_recall(self, *, now: bool = False) -> None:
        """What was asked of Chroma is looked up exactly too, every ten minutes or now. Where it missed some it searches
        wider from then on."""
        for index_id, asked in self.recall.take_due(now=now).items():
            if index_id not in self._attached:
                continue
            vectors = self._vectors
            try:
                with self._catalog.read() as snapshot:
                    found = self.recall.measure(snapshot, index_id, asked, vectors, stop=self._ending.is_set)
                if found is not None and found.value < LEAST:
                    wider = vectors.widen(index_id)
                    log.warning(
                        "Chroma found %.0f %% of what exact search finds, over %d questions of index %d. %s",
                        100 * found.value, found.questions, index_id,
                        "It searches twice as widely from now on." if wider else "It searches as widely as it can.",
                    )  # fmt: skip
            except Unavailable as problem:
                if vectors is self._vectors:
                    self._detach(problem)

    def _detach(self, problem: Unavailable) -> None:
        log.warning("Chroma does not answer, so vectors are searched exactly: %s", problem)
        self._attached = set()
        self.vectors_attached = False
        self.vectors_problem = str(problem)

    def keys(self, collection: Collection) -> dict[str, set[int] | None]:
        """What each cache holds of a collection; None where it is not attached."""
        with self._writing:
            attached = collection.index_id in self._attached
            return {
                "terms": self._terms.keys(term_space(collection.index_id)),
                "vectors": self._vectors.keys(collection.index_id) if attached else None,
            }

    # ── being inspected ───────────────────────────────────────────────────────────────────────

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is published, attached or rebuilt until the end; questions go on."""
        with self._writing:
            yield

    def held_terms(self, index_id: int) -> set[int]:
        """Keys of an index in the terms. Raises Unavailable where they are not open."""
        return self._terms.keys(term_space(index_id))

    def held_vectors(self, index_id: int) -> set[int]:
        """Keys of an index in Chroma. Raises Unavailable where it is not attached."""
        return self._vectors.keys(index_id)

    def vectors_in_chroma(self, index_id: int, keys: Sequence[int]) -> dict[int, Vectors]:
        """As Chroma holds them; keys that it does not have are left out."""
        return self._vectors.vectors(index_id, keys)

    def ask_chroma(self, index_id: int, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        return self._vectors.search(index_id, vector, k=k)

    def count_terms(self, index_id: int) -> int:
        return self._terms.count(term_space(index_id))

    def seen(self, index_id: int) -> tuple[int | None, int | None]:
        """The last change that the terms and Chroma say they have seen; None for a Chroma that is not attached."""
        attached = index_id in self._attached
        return self._terms.seen(term_space(index_id)), self._vectors.seen(index_id) if attached else None

    def strays(self, index_ids: Set[int]) -> tuple[list[str], list[int]]:
        """Spaces of terms and of vectors that belong to none of these indexes."""
        vectors = self._vectors.spaces() if self.vectors_attached else set()
        return (
            sorted(self._terms.spaces() - {term_space(index_id) for index_id in index_ids}),
            sorted(vectors - index_ids),
        )

    def drop_strays(self, index_ids: Set[int]) -> None:
        with self._writing:
            terms, vectors = self.strays(index_ids)
            for space in terms:
                self._terms.drop(space)
            for index_id in vectors:
                self._vectors.drop(index_id)

    def rebuild(self, index_id: int, *, terms: bool, vectors: bool) -> None:
        """An active index's part of these caches anew from the catalog; nothing is embedded. Questions go on, over the
        old terms and over the catalog's own vectors."""
        with self._writing:
            with self._catalog.read() as snapshot:
                dimension = next(size for number, _, size in versions.all_indexes(snapshot) if number == index_id)
                if terms:
                    self._rebuild_terms(snapshot, index_id)
            if vectors and self.vectors_attached:
                with self.gate.flip():  # no question is looking into it now, and from here on none does
                    self._attached.discard(index_id)
                try:
                    self._vectors.reset(index_id, catalog_id=self._catalog.id, dimension=dimension)
                    self._reconcile_vectors(index_id, dimension)
                    self._attached.add(index_id)
                except Unavailable as problem:
                    self._detach(problem)

    def close(self) -> None:
        self.interrupt()
        with self._renewing, self._writing:
            self._terms.close()
            self._vectors.close()


def _parts(keys: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
