"""A knowledge base of fakes on a real catalog, and sources that say what a test tells them to."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.sync import Plan, Progress, Report, Sync, SyncOptions
from rag.catalog import knowledge, versions
from rag.catalog.engine import Catalog, Connection
from rag.catalog.jobs import JobItem
from rag.catalog.tables import facts
from rag.catalog.versions import Flip, NewVersion, sha256
from rag.errors import SourceError
from rag.knowledge import KnowledgeBase
from rag.models import Block, Collection, Document, Item, Original, Parsed, Piece, Problem, SourceRecord, Unlisted
from rag.ports import TermIndex, VectorIndex
from rag.retrieval.retrieve import retrieve
from rag.search.caches import Caches
from rag.storage.originals import Originals
from rag.upkeep.inspection import inspect
from tests.fakes import HashEmbedder, MemoryTerms, MemoryVectors

LEFTOVERS = frozenset({"vector-orphan", "original-orphan", "original-partial"})


@dataclass
class Bases:
    """Opens the knowledge base of one folder, again and again; its caches live on between two openings."""

    folder: Path
    vectors: VectorIndex = field(default_factory=MemoryVectors)
    terms: TermIndex = field(default_factory=MemoryTerms)
    embedder: HashEmbedder = field(default_factory=HashEmbedder)
    exact_up_to: int = 0
    _open: list[KnowledgeBase] = field(default_factory=list)

    def open(self, *, attach: bool = True) -> KnowledgeBase:
        path = self.folder / "catalog.sqlite"
        if not path.exists():
            path.write_bytes(_migrated())
        catalog = Catalog(path)
        _without_fsync(catalog)
        caches = Caches(catalog, vectors=self.vectors, terms=self.terms, exact_up_to=self.exact_up_to)
        base = KnowledgeBase(catalog, caches, Originals(self.folder / "originals"), self.embedder)
        self._open.append(base)
        caches.attach_terms()
        if attach:
            assert caches.attach()
        return base

    def assert_sound(self, *, staged: bool = False) -> None:
        """Of the base that was opened last: those before it ended as processes do. `staged`: a job that failed on its
        way may have left versions that only the next start removes."""
        if self._open:
            assert_sound(self._open[-1], but=LEFTOVERS | {"version-never-active"} if staged else LEFTOVERS)

    def close(self) -> None:
        for base in self._open:
            base.catalog.close()


@cache
def _migrated() -> bytes:
    """An empty catalog file without an id of its own yet: migrating takes longer than most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite"
        catalog = Catalog(path)
        with catalog.write() as connection:
            connection.execute(facts.delete())
        catalog.close()
        return path.read_bytes()


def _without_fsync(catalog: Catalog) -> None:
    """These tests kill no machine, and waiting for its disk was most of their time."""

    @event.listens_for(catalog._engine, "connect")
    def configure(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        connection.cursor().execute("PRAGMA synchronous=OFF")

    catalog._engine.dispose()


def source_in(
    base: KnowledgeBase, *, collection: str = "notes", name: str = "files"
) -> tuple[Collection, SourceRecord]:
    """The collection, made when it is not there, with a source in it."""
    with base.catalog.read() as snapshot:
        found = [item for item in knowledge.list_collections(snapshot) if item.name == collection]
    into = found[0] if found else base.create_collection(collection, splitter="test")
    with base.catalog.write() as connection:
        record = knowledge.find_source(connection, into, name) or knowledge.create_source(
            connection, into, name=name, kind="folder", config={}
        )
    return into, record


def publish_text(
    base: KnowledgeBase,
    collection: Collection,
    source: SourceRecord,
    key: str,
    text: str,
    *,
    title: str | None = None,
    flip: bool = True,
) -> tuple[str, int, list[int]]:
    """A document of one chunk per line, put there without a sync: (document id, version, chunk keys)."""
    parsed, pieces = lines(text)
    base.originals.put(text.encode())
    with base.catalog.write() as connection:
        embedder_id = versions.embedder_of(connection, collection.index_id)[0]
        document_id = knowledge.reserve_document(connection, source.id, key=key, uri=f"files/{key}")
        texts = {sha256(piece.embedded_text): piece.embedded_text for piece in pieces}
        missing = sorted(versions.missing_vectors(connection, embedder_id, texts))
        embedded = base.embedder.embed_passages([texts[digest] for digest in missing])
        versions.save_vectors(connection, embedder_id, dict(zip(missing, embedded, strict=True)))
        old = versions.active_version(connection, document_id)
        number, keys = versions.stage(
            connection,
            NewVersion(document_id, sha256(text), "text/1", None, key, title or key, parsed, pieces),
            index_id=collection.index_id,
        )

    def describe(connection: Connection) -> None:
        knowledge.save_document(
            connection,
            source.id,
            key=key,
            uri=f"files/{key}",
            title=title or key,
            name=key,
            media_type=None,
            status="ok",
            problems=(),
            state={},
            content_sha256=sha256(text),
            pipeline="text/1",
        )

    if flip:
        base.caches.publish([Flip(document_id, old, number)], collection=collection, staged_keys=keys, also=describe)
    return document_id, number, keys


def lines(text: str) -> tuple[Parsed, list[Piece]]:
    """Each line a paragraph and a piece."""
    blocks, start = [], 0
    for line in text.split("\n"):
        blocks.append(Block("paragraph", start, start + len(line)))
        start += len(line) + 1
    pieces = [Piece(b.start, b.end, text[b.start : b.end], "", len(text[b.start : b.end].split())) for b in blocks]
    return Parsed(text, tuple(blocks)), pieces


def assert_sound(base: KnowledgeBase, *, but: Container[str] = LEFTOVERS) -> None:
    """The deep check finds nothing, apart from the codes in `but`: what takes up room and answers nobody."""
    found = [item for item in inspect(base) if item.code not in but]
    assert not found, "\n".join(f"{item.code} × {item.count}: {', '.join(item.examples)}" for item in found)


def found_texts(base: KnowledgeBase, question: str, *, k: int = 8) -> list[str]:
    hits = retrieve(question, base=base, collections=base.collections([]), k=k).hits
    return [hit.text for hit in hits]


# ── sources ───────────────────────────────────────────────────────────────────────────────────


def file(
    key: str,
    text: str | bytes | Callable[[], Original],
    *,
    state: Mapping[str, str] | None = None,
    title: str | None = None,
    unchanged: bool = False,
) -> Item:
    """An item of a folder. Its state is made of its content unless one is given."""
    if callable(text):
        return Item(key, f"files/{key}", state or {}, text, unchanged)
    data = text.encode() if isinstance(text, str) else text
    return Item(
        key,
        f"files/{key}",
        {"hash": sha256(data)} if state is None else state,
        lambda: Original(data, key, title=title),
        unchanged,
    )


def unlisted(key: str) -> Unlisted:
    return Unlisted(key, f"files/{key}", Problem("blocked", f"files/{key} cannot be opened."))


@dataclass
class ListSource:
    """A source with these items; with `fails_after`, its listing breaks off behind so many of them."""

    content: Sequence[Item | Unlisted]
    fails_after: int | None = None
    known: Mapping[str, Mapping[str, str]] | None = None  # what it was told at the last listing

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item | Unlisted]:
        self.known = known
        for number, item in enumerate(self.content):
            if number == self.fails_after:
                raise SourceError("The share went away.", remedy="Mount it again.")
            yield item
        if self.fails_after is not None and self.fails_after >= len(self.content):
            raise SourceError("The share went away.", remedy="Mount it again.")


@dataclass
class Runs:
    """Syncs one source of a base, run after run."""

    base: KnowledgeBase
    collection: Collection
    source: SourceRecord
    items: list[JobItem] = field(default_factory=list)  # of the last run
    progress: list[Progress] = field(default_factory=list)
    cancelled: Callable[[], bool] = lambda: False

    def sync(self, *content: Item | Unlisted, fails_after: int | None = None, **options: Any) -> Report:
        self.items, self.progress = [], []
        return self.make().run(ListSource(content, fails_after), SyncOptions(**options))

    def plan(self, *content: Item | Unlisted, fails_after: int | None = None, **options: Any) -> Plan:
        return self.make().plan(ListSource(content, fails_after), SyncOptions(**options))

    def make(self) -> Sync:
        return Sync(
            base=self.base,
            collection=self.collection,
            source=self.source,
            read=registry.read,
            read_options=ReadOptions(ocr=False),
            target_tokens=40,
            report_items=self.items.extend,
            report_progress=self.progress.append,
            cancelled=lambda: self.cancelled(),
        )

    def documents(self) -> dict[str, Document]:
        with self.base.catalog.read() as snapshot:
            return {item.key: item for item in knowledge.list_documents(snapshot, self.collection)}


def runs_in(base: KnowledgeBase, **names: str) -> Runs:
    return Runs(base, *source_in(base, **names))
