"""Catalogs of other versions: an old one is copied, migrated and gives what it gave; a newer one is left alone."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.sources.folder import FolderSource
from ingest.sync import Sync, SyncOptions
from rag.catalog import jobs, knowledge, versions
from rag.catalog.engine import (
    Catalog,
    installed_version,
    known_revisions,
    migration_copies,
    newest_revision,
    next_moment,
    schema_revision,
)
from rag.catalog.jobs import Counts
from rag.catalog.tables import activations
from rag.catalog.versions import sha256
from rag.errors import Conflict, Unavailable
from rag.knowledge import KnowledgeBase
from rag.retrieval.retrieve import retrieve
from rag.search.caches import Caches
from rag.storage.originals import Originals
from tests.fakes import HashEmbedder, MemoryTerms, MemoryVectors
from tests.unit.test_catalog import add_document, add_version

DUMPS = Path(__file__).parents[1] / "data"
IDENTITY = "st-ab8addf7886afee24499c1fc68453781"  # of the packaged all-MiniLM-L6-v2, which made the vectors of the dump

# What was synced, as it lay in the folder at the end; the broken file apart.
FILES = {
    "prices.csv": "product,price\nTL-1207,1200\nTL-1422,1580\n",
    "warranty.md": "# Warranty\n\nThe TL-1207 is covered for 36 months from the date of delivery.\n\n"
    "Keep the invoice.\n",
    "年假.md": "# 年假制度\n\n员工每年享有十五天带薪年假。\n\n第十二条 未休年假可顺延至次年三月。\n",
}


class OldEmbedder(HashEmbedder):
    """Says that it is the embedder of the dump, so that its vectors are searched; counts what it is given to embed."""

    def __init__(self) -> None:
        super().__init__(name="all-MiniLM-L6-v2", dimension=384)

    @property
    def identity(self) -> str:
        return IDENTITY


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A catalog as version 0.1.0 wrote it."""
    return loaded("catalog-0001.sql", tmp_path)


def loaded(dump: str, folder: Path) -> Path:
    path = folder / "catalog.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((DUMPS / dump).read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode=WAL")
    return path


@pytest.fixture
def migrated(old: Path) -> Iterator[Catalog]:
    catalog = Catalog(old)
    yield catalog
    catalog.close()


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def opened(catalog: Catalog, embedder: HashEmbedder) -> KnowledgeBase:
    caches = Caches(catalog, vectors=MemoryVectors(), terms=MemoryTerms())
    caches.attach_terms()
    assert caches.attach_vectors()
    return KnowledgeBase(catalog, caches, Originals(catalog.path.parent / "originals"), embedder)


# ── from 0001 ─────────────────────────────────────────────────────────────────────────────────


def test_an_old_catalog_keeps_documents_versions_texts_titles_and_metadata(old: Path) -> None:
    query = "SELECT document_id, number, title, text, blocks, pages, content_sha256 FROM versions ORDER BY 1, 2"
    before = rows(old, query)
    chunks = "SELECT key, document_id, version, ordinal, start, end, text, heading, embedded_sha256 FROM chunks"
    chunks_before = rows(old, chunks)
    catalog = Catalog(old)
    assert rows(old, query) == before
    assert rows(old, chunks) == chunks_before
    with catalog.read() as snapshot:
        [collection] = knowledge.list_collections(snapshot)
        assert collection.name == "手册 handbook"
        found = {item.key: item for item in knowledge.list_documents(snapshot, collection)}
        assert {key: (item.title, item.version, item.status) for key, item in found.items()} == {
            "broken.pdf": ("broken.pdf", None, "corrupt"),
            "prices.csv": ("prices.csv", 1, "ok"),
            "warranty.md": ("Warranty", 2, "ok"),
            "年假.md": ("年假制度", 1, "ok"),
            "hours": ("Opening hours", 1, "ok"),
        }
        assert found["hours"].metadata == {"city": "Rotterdam", "floor": 3}
        assert found["broken.pdf"].problems[0].code == "corrupt"
        assert [item.number for item in versions.list_versions(snapshot, found["warranty.md"].id)] in ([1, 2], [2, 1])
        assert "24 months" in versions.version_row(snapshot, found["warranty.md"].id, 1).text
        assert {job.state for job in jobs.list_jobs(snapshot)} == {"partial", "succeeded"}
        assert [source.name for source in knowledge.list_sources(snapshot)] == ["files", "uploads"]
    catalog.close()


def test_an_old_catalog_answers_as_it_did_and_what_was_deleted_stays_away(migrated: Catalog) -> None:
    base = opened(migrated, OldEmbedder())
    [collection] = base.collections([])
    with migrated.read() as snapshot:
        active = versions.active_keys(snapshot, collection.index_id)
        assert active == {2, 4, 5, 6}
    assert base.caches.keys(collection) == {"terms": active, "vectors": active}
    for question, said in [
        ("How many months is the TL-1207 covered?", "36 months"),
        ("未休年假可以顺延到什么时候？", "次年三月"),
        ("When is the Rotterdam office open?", "8:30"),
    ]:
        texts = [hit.text for hit in retrieve(question, base=base, collections=[collection], k=5).hits]
        assert said in texts[0]
        assert not any("24 months" in text or "deleted before long" in text for text in texts)


def test_syncing_the_same_folder_after_a_migration_embeds_nothing(migrated: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    embedder = OldEmbedder()
    base = opened(migrated, embedder)
    with migrated.read() as snapshot:
        [collection] = knowledge.list_collections(snapshot)
        source = knowledge.find_source(snapshot, collection, "files")
        before = {
            item.key: sha256(versions.version_row(snapshot, item.id, None).text)
            for item in knowledge.list_documents(snapshot, collection)
            if item.version is not None
        }
    assert source is not None
    run = Sync(
        base=base,
        collection=collection,
        source=source,
        read=registry.read,
        read_options=ReadOptions(ocr=False),
        target_tokens=200,
        report_items=lambda _items: None,
        report_progress=lambda _progress: None,
        cancelled=lambda: False,
    )
    report = run.run(
        FolderSource(
            path=folder,
            include=(),
            exclude=(),
            allowed_roots=[tmp_path],
            suffixes=frozenset({".csv", ".md", ".pdf"}),
            max_bytes=10_000_000,
        ),
        SyncOptions(),
    )
    assert report.counts == Counts(unchanged=3, failed=1)
    assert embedder.embedded == []
    with migrated.read() as snapshot:
        after = {
            item.key: sha256(versions.version_row(snapshot, item.id, None).text)
            for item in knowledge.list_documents(snapshot, collection)
            if item.version is not None
        }
    assert after == before


def test_a_copy_is_put_beside_the_catalog_before_and_the_log_says_so(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows(old, "SELECT * FROM documents ORDER BY id")
    with caplog.at_level(logging.WARNING):
        Catalog(old).close()
    [copy] = migration_copies(old)
    assert copy.name == f"catalog.sqlite.before-{newest_revision()}"
    assert str(copy) in caplog.text
    assert schema_revision(copy) == "0001"
    assert rows(copy, "SELECT * FROM documents ORDER BY id") == before
    assert schema_revision(old) == newest_revision()
    assert copy.stat().st_mode & 0o077 == 0


def test_what_was_committed_into_the_log_only_is_in_the_copy(old: Path, tmp_path: Path) -> None:
    """A service that was killed leaves its last commits in the write-ahead log."""
    with closing(sqlite3.connect(old)) as writer:
        writer.execute("UPDATE documents SET title = 'In the log' WHERE key = 'hours'")
        writer.commit()
        killed = tmp_path / "killed"
        killed.mkdir()
        for path in tmp_path.glob("catalog.sqlite*"):
            shutil.copy(path, killed / path.name)
    Catalog(killed / "catalog.sqlite").close()
    [copy] = migration_copies(killed / "catalog.sqlite")
    assert rows(copy, "SELECT title FROM documents WHERE key = 'hours'") == [("In the log",)]
    assert rows(killed / "catalog.sqlite", "SELECT title FROM documents WHERE key = 'hours'") == [("In the log",)]


def test_a_new_catalog_and_one_of_today_are_not_copied(tmp_path: Path) -> None:
    for _ in range(2):
        Catalog(tmp_path / "catalog.sqlite").close()
    assert migration_copies(tmp_path / "catalog.sqlite") == []


def test_a_migration_that_breaks_off_leaves_the_old_state_and_can_be_done_again(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import alembic.op

    class Killed(BaseException):
        pass

    real, done = alembic.op.add_column, []

    def add_column(table: str, *arguments: Any, **options: Any) -> None:
        real(table, *arguments, **options)
        done.append(table)
        if table == "versions":  # after tables were made, renamed and dropped
            raise Killed

    before = rows(old, "SELECT type, name, sql FROM sqlite_master ORDER BY name")
    content = rows(old, "SELECT * FROM document_metadata")
    monkeypatch.setattr(alembic.op, "add_column", add_column)
    with pytest.raises(Killed):
        Catalog(old)
    assert "versions" in done
    assert rows(old, "SELECT type, name, sql FROM sqlite_master ORDER BY name") == before
    assert rows(old, "SELECT * FROM document_metadata") == content
    assert schema_revision(old) == "0001"
    monkeypatch.undo()
    Catalog(old).close()
    assert schema_revision(old) == newest_revision()


def test_the_copy_opens_again_when_it_is_put_back(old: Path) -> None:
    """The way back: what docs/upgrading.md tells people to do."""
    Catalog(old).close()
    [copy] = migration_copies(old)
    for path in old.parent.glob("catalog.sqlite*"):
        if path != copy:
            path.unlink()
    copy.rename(old)
    assert schema_revision(old) == "0001"
    Catalog(old).close()
    assert schema_revision(old) == newest_revision()


# ── from 0002 ─────────────────────────────────────────────────────────────────────────────────


def test_a_catalog_of_0_2_0_keeps_its_versions_and_its_kept_answers(tmp_path: Path) -> None:
    path = loaded("catalog-0002.sql", tmp_path)
    assert schema_revision(path) == "0002"
    query = "SELECT document_id, number, title, text FROM versions ORDER BY 1, 2"
    before, answer = rows(path, query), rows(path, "SELECT * FROM answers")
    assert len(before) == 3
    assert len(answer) == 1
    catalog = Catalog(path)
    assert rows(path, query) == before
    assert rows(path, "SELECT * FROM answers") == answer
    base = opened(catalog, OldEmbedder())
    found = retrieve("How many months is the TL-1207 covered?", base=base, collections=base.collections([]), k=5)
    assert "36 months" in found.hits[0].text
    assert not any("24 months" in hit.text for hit in found.hits)
    catalog.close()


# ── from the future, and none at all ──────────────────────────────────────────────────────────


def test_a_catalog_of_a_newer_version_is_left_alone_and_its_version_named(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    Catalog(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0042'")
        connection.execute("UPDATE facts SET value = '3.1.0' WHERE name = 'written_by'")
    before = path.read_bytes()
    with pytest.raises(
        Conflict, match=r"written by Attest 3\.1\.0 \(schema 0042\).*knows schemas up to 0003"
    ) as raised:
        Catalog(path)
    assert "later" in raised.value.remedy
    assert path.read_bytes() == before
    assert migration_copies(path) == []


def test_a_newer_catalog_that_does_not_name_its_version_is_refused_as_well(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0042'")
    with pytest.raises(Conflict, match="a newer Attest"):
        Catalog(old)


def test_a_catalog_says_which_version_wrote_it(migrated: Catalog) -> None:
    assert rows(migrated.path, "SELECT value FROM facts WHERE name = 'written_by'") == [(installed_version(),)]


def test_a_file_that_is_no_catalog_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite"
    path.write_bytes(b"this is not a database at all, and longer than a header" * 100)
    before = path.read_bytes()
    with pytest.raises(Unavailable, match="cannot be read as a catalog"):
        Catalog(path)
    assert path.read_bytes() == before


def test_the_revisions_that_are_known_are_those_that_alembic_finds() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from rag.catalog.engine import MIGRATIONS

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert list(known_revisions()) == found[::-1]


# ── the catalog's clock ───────────────────────────────────────────────────────────────────────

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_moments_follow_the_clock_and_never_run_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    micro = timedelta(microseconds=1)
    for clock, moment in [
        (NOON, NOON),
        (NOON, NOON + micro),
        (NOON - timedelta(hours=3), NOON + 2 * micro),  # somebody set it back
        (NOON + timedelta(seconds=1), NOON + timedelta(seconds=1)),
    ]:
        monkeypatch.setattr("rag.catalog.engine.now", lambda clock=clock: clock)
        with catalog.write() as connection:
            assert next_moment(connection) == moment
    catalog.close()
    catalog = Catalog(tmp_path / "catalog.sqlite")
    monkeypatch.setattr("rag.catalog.engine.now", lambda: NOON - timedelta(days=400))
    with catalog.write() as connection:
        assert next_moment(connection) == NOON + timedelta(seconds=1) + micro, "a restart forgets nothing"
    catalog.close()


def test_a_transaction_that_fails_records_no_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    monkeypatch.setattr("rag.catalog.engine.now", lambda: NOON)

    def fail() -> None:
        with catalog.write() as connection:
            next_moment(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with catalog.write() as connection:
        assert next_moment(connection) == NOON
    catalog.close()


def test_a_catalog_that_recorded_no_moment_goes_on_after_its_last_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    with catalog.write() as connection:
        document_id = add_document(connection)
        add_version(connection, document_id)
        span = {"document_id": document_id, "version": 1, "from_change": 1, "to_change": 2}
        connection.execute(insert(activations).values(**span, from_at=NOON, to_at=NOON + timedelta(minutes=5)))
    monkeypatch.setattr("rag.catalog.engine.now", lambda: NOON)
    with catalog.write() as connection:
        assert next_moment(connection) == NOON + timedelta(minutes=5, microseconds=1)
    catalog.close()


def test_the_dump_is_what_version_0_1_0_wrote(old: Path) -> None:
    assert schema_revision(old) == "0001"
    assert json.loads(rows(old, "SELECT config FROM sources WHERE name = 'files'")[0][0]) == {"path": "/srv/docs"}
