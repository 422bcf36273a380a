"""The catalog's transactions and schema: snapshots hold, writes are whole, keys are never reused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from rag.catalog import knowledge
from rag.catalog.engine import Catalog, last_change, new_id, next_change, now
from rag.catalog.tables import activations, chunks, collections, documents, facts, sources, versions
from rag.catalog.tables import metadata as tables
from rag.errors import Conflict, InvalidInput, NotFound
from rag.models import Problem
from tests.fakes import HashEmbedder


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    yield catalog
    catalog.close()


def add_document(connection: Connection, *, key: str = "a.txt", state: dict[str, str] | None = None) -> str:
    """A document in a source in a collection, all of which are made when they are missing."""
    if connection.execute(select(collections.c.id)).first() is None:
        knowledge.create_collection(connection, "notes", embedder=HashEmbedder(), splitter="test")
    collection = knowledge.get_collection(connection, "notes")
    source = knowledge.find_source(connection, collection, "files") or knowledge.create_source(
        connection, collection, name="files", kind="folder", config={}
    )
    return knowledge.save_document(
        connection,
        source.id,
        key=key,
        uri=f"files/{key}",
        title=key,
        name=key,
        media_type=None,
        status="ok",
        problems=(),
        state=state or {},
        content_sha256="c",
        pipeline="text/1",
    )


def add_version(connection: Connection, document_id: str, number: int = 1) -> None:
    connection.execute(
        insert(versions).values(
            document_id=document_id,
            number=number,
            content_sha256="c",
            text_sha256="t",
            pipeline="text/1",
            name="a.txt",
            title="a.txt",
            text="text",
            blocks=[],
            pages=[],
            created_at=now(),
        )
    )


def add_chunk(connection: Connection, document_id: str, ordinal: int, number: int = 1) -> int:
    index_id = connection.execute(select(collections.c.index_id)).scalar_one()
    row = {"document_id": document_id, "version": number, "index_id": index_id, "ordinal": ordinal, "start": 0}
    row |= {"end": 4, "text": "text", "heading": "", "tokens": 1, "places": [], "embedded_sha256": "e"}
    return int(connection.execute(insert(chunks).values(**row).returning(chunks.c.key)).scalar_one())


# ── transactions ──────────────────────────────────────────────────────────────────────────────


def test_a_read_sees_one_state_while_a_writer_commits(catalog: Catalog) -> None:
    with catalog.read() as snapshot:
        before = snapshot.execute(select(func.count()).select_from(facts)).scalar_one(), last_change(snapshot)
        with catalog.write() as connection:
            connection.execute(insert(facts).values(name="x", value="1"))
            next_change(connection)
        after = snapshot.execute(select(func.count()).select_from(facts)).scalar_one(), last_change(snapshot)
        assert after == before
    with catalog.read() as snapshot:
        assert last_change(snapshot) == before[1] + 1


def test_the_snapshot_is_taken_when_the_reading_begins_not_at_the_first_look(catalog: Catalog) -> None:
    with catalog.read() as snapshot:
        with catalog.write() as connection:
            next_change(connection)
        assert last_change(snapshot) == 0


def test_a_write_that_raises_leaves_nothing(catalog: Catalog) -> None:
    def fail() -> None:
        with catalog.write() as connection:
            add_document(connection)
            next_change(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with catalog.read() as snapshot:
        assert last_change(snapshot) == 0
        assert knowledge.list_collections(snapshot) == []


def test_writers_at_once_lose_no_change_and_number_them_without_gaps(catalog: Catalog) -> None:
    numbers: list[int] = []

    def write() -> None:
        for _ in range(20):
            with catalog.write() as connection:
                numbers.append(next_change(connection))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 81))
    with catalog.read() as snapshot:
        assert last_change(snapshot) == 80


def test_change_numbers_count_up_and_survive_a_restart(catalog: Catalog, tmp_path: Path) -> None:
    with catalog.write() as connection:
        assert [next_change(connection), next_change(connection)] == [1, 2]
    again = Catalog(tmp_path / "catalog.sqlite")
    with again.write() as connection:
        assert next_change(connection) == 3
    again.close()


# ── schema ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.filterwarnings("ignore:autoincrement and existing_autoincrement:UserWarning")
def test_migrating_gives_exactly_the_tables_that_the_code_knows(catalog: Catalog) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with catalog.read() as snapshot:
        context = MigrationContext.configure(snapshot, opts={"compare_type": True, "render_as_batch": True})
        assert compare_metadata(context, tables) == []


def test_migrating_keeps_what_alembic_does_not_compare(catalog: Catalog, tmp_path: Path) -> None:
    """Keys that count up for ever, rows that go with their parents: as when the tables are made from the code."""
    from sqlalchemy import create_engine

    engine = create_engine(f"sqlite:///{tmp_path}/made.sqlite")
    tables.create_all(engine)
    question = text("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name <> 'alembic_version'")
    with engine.connect() as connection, catalog.read() as snapshot:
        made, migrated = dict(connection.execute(question).all()), dict(snapshot.execute(question).all())
    engine.dispose()
    assert made.keys() == migrated.keys()
    for word in ("AUTOINCREMENT", "ON DELETE CASCADE", "WITHOUT ROWID", "UNIQUE", "NOT NULL"):
        counts = {name: (sql or "").upper().count(word) for name, sql in migrated.items()}
        assert counts == {name: (sql or "").upper().count(word) for name, sql in made.items()}, word


def test_opening_again_keeps_the_catalogs_id(catalog: Catalog, tmp_path: Path) -> None:
    again = Catalog(tmp_path / "catalog.sqlite")
    assert again.id == catalog.id
    again.close()
    other = Catalog(tmp_path / "other.sqlite")
    assert other.id != catalog.id
    other.close()


def test_a_percent_sign_in_the_folders_name_is_a_percent_sign(tmp_path: Path) -> None:
    folder = tmp_path / "100 % 手册"
    folder.mkdir()
    Catalog(folder / "catalog.sqlite").close()
    assert (folder / "catalog.sqlite").exists()


def test_a_chunks_key_is_never_given_again(catalog: Catalog) -> None:
    with catalog.write() as connection:
        document_id = add_document(connection)
        add_version(connection, document_id)
        keys = [add_chunk(connection, document_id, ordinal) for ordinal in range(3)]
        connection.execute(delete(chunks))
        assert add_chunk(connection, document_id, 0) > max(keys)


def test_the_database_refuses_a_second_open_activation(catalog: Catalog) -> None:
    with catalog.write() as connection:
        document_id = add_document(connection)
        for number in (1, 2):
            add_version(connection, document_id, number)
        connection.execute(insert(activations).values(document_id=document_id, version=1, from_change=1, from_at=now()))
    with pytest.raises(IntegrityError), catalog.write() as connection:
        connection.execute(insert(activations).values(document_id=document_id, version=2, from_change=2, from_at=now()))


def test_deleting_a_source_takes_all_that_came_from_it(catalog: Catalog) -> None:
    with catalog.write() as connection:
        document_id = add_document(connection)
        add_version(connection, document_id)
        add_chunk(connection, document_id, 0)
        connection.execute(insert(activations).values(document_id=document_id, version=1, from_change=1, from_at=now()))
        connection.execute(delete(sources))
        for table in (documents, versions, chunks, activations):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0, table.name


def test_activations_are_found_by_their_version_without_a_scan(catalog: Catalog) -> None:
    """Deleting 8,000 documents took 4.5 seconds when each of their versions scanned all activations."""
    with catalog.read() as snapshot:
        plan = snapshot.execute(
            text("EXPLAIN QUERY PLAN SELECT 1 FROM activations WHERE document_id = 'd' AND version = 1")
        ).all()
    assert "SCAN" not in str(plan)


# ── values ────────────────────────────────────────────────────────────────────────────────────


def test_times_come_back_as_the_same_moment_in_utc(catalog: Catalog) -> None:
    in_shanghai = datetime(2026, 3, 1, 7, 30, 15, 123456, tzinfo=timezone(timedelta(hours=8)))
    with catalog.write() as connection:
        add_document(connection)
        connection.execute(update(sources).values(synced_at=in_shanghai))
        stored = connection.execute(select(sources.c.synced_at)).scalar_one()
        assert (stored, stored.tzinfo) == (in_shanghai, UTC)
        connection.execute(update(sources).values(synced_at=None))
        assert connection.execute(select(sources.c.synced_at)).scalar_one() is None


def test_json_keeps_chinese_readable_in_the_file(catalog: Catalog) -> None:
    with catalog.write() as connection:
        add_document(connection, state={"标题": "员工手册"})
        raw = connection.execute(text("SELECT state FROM documents")).scalar_one()
        assert "员工手册" in raw
        assert json.loads(raw) == {"标题": "员工手册"}


def test_a_deleted_document_that_is_saved_again_keeps_its_id(catalog: Catalog) -> None:
    with catalog.write() as connection:
        document_id = add_document(connection)
        connection.execute(update(documents).values(deleted_at=now()))
        with pytest.raises(NotFound):
            knowledge.get_document(connection, document_id)
        assert add_document(connection) == document_id
        assert knowledge.get_document(connection, document_id).key == "a.txt"


def test_a_reserved_document_is_hidden_until_it_is_saved(catalog: Catalog) -> None:
    with catalog.write() as connection:
        add_document(connection)
        source_id = connection.execute(select(sources.c.id)).scalar_one()
        reserved = knowledge.reserve_document(connection, source_id, key="b.txt", uri="files/b.txt")
        assert set(knowledge.known_documents(connection, source_id)) == {"a.txt"}
        with pytest.raises(NotFound):
            knowledge.get_document(connection, reserved)
        assert knowledge.reserve_document(connection, source_id, key="b.txt", uri="files/b.txt") == reserved
        assert add_document(connection, key="b.txt") == reserved
        assert set(knowledge.known_documents(connection, source_id)) == {"a.txt", "b.txt"}


def test_metadata_comes_back_with_its_types(catalog: Catalog) -> None:
    given = {"作者": "王芳", "pages": 12, "price": 2.5, "draft": True, "date": datetime(2026, 1, 31, tzinfo=UTC).date()}
    with catalog.write() as connection:
        document_id = add_document(connection)
        knowledge.set_metadata(connection, document_id, given)
        found = knowledge.get_document(connection, document_id).metadata
        assert found == given
        assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in given.items()}
        knowledge.set_metadata(connection, document_id, {"pages": 13})
        assert knowledge.get_document(connection, document_id).metadata == {"pages": 13}


def test_problems_come_back_as_they_were(catalog: Catalog) -> None:
    with catalog.write() as connection:
        document_id = add_document(connection)
        problem = Problem("needs-ocr", "第 3 页是图片。", "Install the ocr extra.")
        connection.execute(
            update(documents).values(
                problems=[{"code": problem.code, "detail": problem.detail, "remedy": problem.remedy}]
            )
        )
        assert knowledge.get_document(connection, document_id).problems == (problem,)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a\\b", "a\nb", "x" * 201])
def test_a_name_that_would_confuse_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(InvalidInput), catalog.write() as connection:
        knowledge.create_collection(connection, name, embedder=HashEmbedder(), splitter="test")


def test_a_collections_name_is_its_own_and_may_be_chinese(catalog: Catalog) -> None:
    with catalog.write() as connection:
        made = knowledge.create_collection(connection, " 员工手册 ", embedder=HashEmbedder(), splitter="test")
        assert made.name == "员工手册"
        with pytest.raises(Conflict):
            knowledge.create_collection(connection, "员工手册", embedder=HashEmbedder(), splitter="test")
        renamed = knowledge.rename_collection(connection, made, "手册")
        assert (renamed.id, renamed.name) == (made.id, "手册")
        assert knowledge.get_collection(connection, made.id) == renamed


def test_ids_are_never_the_same() -> None:
    assert len({new_id("doc") for _ in range(1000)}) == 1000
