"""Each kind of damage is found for what it is, and repaired, or left to its owner with a word about what to do."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.catalog import aliases, answers, checks, jobs, knowledge, versions
from rag.catalog.engine import last_change
from rag.catalog.versions import sha256
from rag.knowledge import KnowledgeBase
from rag.ports import TermEntry
from rag.text.duplicates import signature
from rag.upkeep.inspection import CHECKS, Finding, inspect, repair
from tests.bases import Bases, Runs, assert_sound, file, found_texts, publish_text, runs_in

DRILL = "The drill weighs one kilogram.\n\nIts battery lasts four hours."
DRILL_NEW = "The drill weighs two kilograms.\n\nIts battery lasts four hours."
SAW = "The saw weighs three kilograms.\n\n它的电池可以用三个小时。"
GONE = "The lathe was sold."


@dataclass
class World:
    """One document in two versions, one in one, one deleted, and an answer that quotes the first version."""

    bases: Bases
    runs: Runs
    drill: str = ""

    def __post_init__(self) -> None:
        self.sync(DRILL, gone=True)
        self.sync(DRILL_NEW)
        self.drill = self.runs.documents()["drill.txt"].id
        quote = "one kilogram"
        start = DRILL.index(quote)
        cited = {"document_id": self.drill, "version": 1, "start": start, "end": start + len(quote), "quote": quote}
        with self.base.catalog.write() as connection:
            answers.keep_answer(
                connection,
                "ans_1",
                question="How heavy?",
                refused=False,
                answer={"citations": [cited]},
                cites=[(self.drill, 1)],
            )

    @property
    def base(self) -> KnowledgeBase:
        return self.runs.base

    @property
    def index_id(self) -> int:
        return self.runs.collection.index_id

    def sync(self, drill: str = DRILL_NEW, *, gone: bool = False) -> None:
        more = [file("gone.txt", GONE)] if gone else []
        self.runs.sync(file("drill.txt", drill), file("saw.txt", SAW), *more, allow_deletes=True)

    def sql(self, statement: str, *values: object) -> None:
        """Past everything that guards the catalog: foreign keys are not even looked at."""
        with sqlite3.connect(self.bases.folder / "catalog.sqlite", isolation_level=None) as connection:
            assert connection.execute(statement, values).rowcount != 0
        connection.close()

    def key(self) -> int:
        """Of the first chunk of the active version."""
        with self.base.catalog.read() as snapshot:
            return versions.chunk_keys(snapshot, [(self.drill, 2)], index_id=self.index_id)[0]

    def original(self, text: str) -> Path:
        return self.base.originals.path(sha256(text))

    def change(self) -> int:
        with self.base.catalog.read() as snapshot:
            return last_change(snapshot)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    bases = Bases(tmp_path)
    world = World(bases, runs_in(bases.open()))
    assert_sound(world.base, but=())
    yield world
    bases.close()


def codes(found: list[Finding]) -> set[str]:
    return {item.code for item in found}


def old(path: Path) -> Path:
    """As if it had been written long ago: what was put in just now may be wanted in a moment."""
    os.utime(path, (time.time() - 86_400,) * 2)
    return path


# ── damages ───────────────────────────────────────────────────────────────────────────────────


def foreign_row(world: World) -> None:
    world.sql("INSERT INTO job_items (job_id, key, uri, state) VALUES ('job_none', 'k', 'u', 'added')")


def other_revision(world: World) -> None:
    world.sql("UPDATE alembic_version SET version_num = '0001'")


def two_active(world: World) -> None:
    world.sql("DROP INDEX ix_activations_open")
    world.sql("UPDATE activations SET to_change = NULL WHERE document_id = ?", world.drill)


def overlap(world: World) -> None:
    world.sql("UPDATE activations SET to_change = to_change + 1 WHERE document_id = ? AND version = 1", world.drill)


def backwards(world: World) -> None:
    world.sql("UPDATE activations SET to_change = from_change - 1 WHERE document_id = ? AND version = 1", world.drill)


def database_damaged(world: World) -> None:
    """A column that holds NULL, and may not."""
    with sqlite3.connect(world.bases.folder / "catalog.sqlite", isolation_level=None) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        changed = "replace(sql, 'media_type VARCHAR', 'media_type VARCHAR NOT NULL')"
        connection.execute(f"UPDATE sqlite_master SET sql = {changed} WHERE name = 'documents'")
        (schema,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute(f"PRAGMA schema_version = {schema + 1}")
    connection.close()


def ahead(world: World) -> None:
    world.sql("UPDATE facts SET value = '1' WHERE name = 'change'")


def no_version(world: World) -> None:
    world.sql(
        "INSERT INTO activations (document_id, version, from_change, to_change, from_at, to_at) VALUES "
        "(?, 9, 0, 0, '2026-01-01', '2026-01-01')",
        world.drill,
    )


def active_removed(world: World) -> None:
    world.sql("DELETE FROM chunks WHERE document_id = ? AND version = 2", world.drill)
    world.sql(
        "UPDATE versions SET text = '', removed_at = '2026-01-01' WHERE document_id = ? AND number = 2", world.drill
    )


def index_retired(world: World) -> None:
    world.sql("UPDATE indexes SET state = 'retired'")


def no_index(world: World) -> None:
    world.sql(
        "INSERT INTO collections (id, name, index_id, metadata_schema, created_at) VALUES "
        "('col_none', 'none', NULL, '{}', '2026-01-01')"
    )


def deleted_active(world: World) -> None:
    world.sql("UPDATE documents SET deleted_at = '2026-01-01' WHERE id = ?", world.drill)


def not_active(world: World) -> None:
    world.sql("UPDATE activations SET to_change = 99 WHERE document_id = ? AND to_change IS NULL", world.drill)
    world.sql("UPDATE facts SET value = '99' WHERE name = 'change'")


def staged(world: World) -> None:
    publish_text(world.base, world.runs.collection, world.runs.source, "drill.txt", "Never active.", flip=False)


def other_text(world: World) -> None:
    world.sql("UPDATE versions SET text = replace(text, 'hours', 'weeks') WHERE document_id = ?", world.drill)


def old_text(world: World) -> None:
    world.sql(
        "UPDATE versions SET text = replace(text, 'battery lasts', 'battery costs') "
        "WHERE document_id = ? AND number = 1",
        world.drill,
    )


def removed_kept(world: World) -> None:
    world.sql("DELETE FROM answer_citations")
    world.sql("DELETE FROM answers")
    world.sql("UPDATE versions SET removed_at = '2026-01-01' WHERE document_id = ? AND number = 1", world.drill)


def no_first_chunk(world: World) -> None:
    world.sql("UPDATE chunks SET ordinal = ordinal + 1 WHERE key = ?", world.key())


def outside(world: World) -> None:
    world.sql('UPDATE chunks SET "end" = 100000 WHERE key = ?', world.key())


def other_signature(world: World) -> None:
    world.sql("UPDATE chunks SET signature = ? WHERE key = ?", signature(SAW), world.key())


def other_names(world: World) -> None:
    aliases.bring_up_to_date(world.base.catalog)
    world.sql("INSERT INTO aliases (chunk_key, zh, en) VALUES (?, '电锯', 'drill')", world.key())


def other_copy(world: World) -> None:
    world.sql("UPDATE chunks SET text = 'The drill weighs nothing.' WHERE key = ?", world.key())


def other_heading(world: World) -> None:
    world.sql("UPDATE chunks SET heading = 'Saws' WHERE key = ?", world.key())


def no_places(world: World) -> None:
    world.sql("UPDATE chunks SET places = '[[0, -3, null, null, null]]' WHERE key = ?", world.key())


def broken_places(world: World) -> None:
    world.sql("UPDATE chunks SET places = '[[0, ' WHERE key = ?", world.key())


def no_chunks(world: World) -> None:
    world.sql("DELETE FROM chunks WHERE document_id = ? AND version = 2", world.drill)


def no_vector(world: World) -> None:
    world.sql("DELETE FROM vectors WHERE sha256 = (SELECT embedded_sha256 FROM chunks WHERE key = ?)", world.key())


def bad_vector(data: bytes) -> Callable[[World], None]:
    def plant(world: World) -> None:
        world.sql(
            "UPDATE vectors SET data = ? WHERE sha256 = (SELECT embedded_sha256 FROM chunks WHERE key = ?)",
            data,
            world.key(),
        )

    return plant


def orphan_vector(world: World) -> None:
    vector = np.eye(1, world.base.embedder.dimension, dtype="<f2").tobytes()
    world.sql("INSERT INTO vectors SELECT id, ?, ? FROM embedders", "f" * 64, vector)


def late_flip(world: World) -> None:
    world.sql(
        "INSERT INTO pending (change, collection_id, index_id, document_id, old_version, new_version) "
        "VALUES (?, ?, ?, ?, 1, 2)",
        world.change(),
        world.runs.collection.id,
        world.index_id,
        world.drill,
    )


def space(world: World) -> str:
    return f"ix-{world.index_id}"


def terms_closed(world: World) -> None:
    world.bases.terms.drop(space(world))


def terms_missing(world: World) -> None:
    world.bases.terms.apply(space(world), remove=[world.key()], add=[], seen=world.change())


def terms_orphan(world: World) -> None:
    world.bases.terms.apply(space(world), remove=[], add=[TermEntry(9_999, "", "x")], seen=world.change())


def terms_ahead(world: World) -> None:
    world.bases.terms.apply(space(world), remove=[], add=[], seen=10_000)


def terms_stray(world: World) -> None:
    world.bases.terms.reset("ix-77", catalog_id=world.base.catalog.id)


def chroma_missing(world: World) -> None:
    world.bases.vectors.delete(world.index_id, [world.key()], seen=world.change())


def unit(world: World) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.eye(1, world.base.embedder.dimension, dtype=np.float32)


def chroma_orphan(world: World) -> None:
    world.bases.vectors.upsert(world.index_id, [9_999], unit(world), seen=world.change())


def chroma_ahead(world: World) -> None:
    world.bases.vectors.delete(world.index_id, [], seen=10_000)


def chroma_differs(world: World) -> None:
    world.bases.vectors.upsert(world.index_id, [world.key()], unit(world), seen=world.change())


def chroma_stray(world: World) -> None:
    world.bases.vectors.reset(77, catalog_id=world.base.catalog.id, dimension=8)


def original_missing(world: World) -> None:
    world.original(DRILL_NEW).unlink()


def original_lost(world: World) -> None:
    world.original(DRILL).unlink()


def original_flipped(world: World) -> None:
    path = world.original(DRILL_NEW)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


def original_orphan(world: World) -> None:
    old(world.base.originals.path(world.base.originals.put(b"nobody wants it")))


def original_partial(world: World) -> None:
    part = world.original(SAW).with_name(".half.part")
    part.write_bytes(b"half")
    old(part)


def answer(world: World, **changes: object) -> None:
    with world.base.catalog.read() as snapshot:
        kept = dict(answers.get_answer(snapshot, "ans_1").answer)
    kept["citations"] = [{**kept["citations"][0], **changes}]
    world.sql("UPDATE answers SET answer = ?", json.dumps(kept))


def answer_broken(world: World) -> None:
    world.sql("UPDATE answers SET answer = '{\"citations'")


def quote_differs(world: World) -> None:
    answer(world, quote="two kilogram")


def quote_lost(world: World) -> None:
    answer(world, version=8)


def unlisted(world: World) -> None:
    world.sql("DELETE FROM answer_citations")


# damage → what is found, and what is left after the repair
PLANTED: list[tuple[Callable[[World], None], set[str], set[str]]] = [
    (foreign_row, {"row-without-parent"}, set()),
    (other_revision, {"schema-revision"}, {"schema-revision"}),
    (database_damaged, {"database-damaged"}, {"database-damaged"}),
    (ahead, {"activation-ahead", "terms-ahead", "chroma-ahead"}, set()),
    (two_active, {"two-versions-active", "terms-missing", "chroma-missing"}, set()),
    (overlap, {"activations-overlap"}, set()),
    (backwards, {"activation-backwards"}, set()),
    (no_version, {"activation-without-version", "row-without-parent"}, set()),
    (
        active_removed,
        {"active-version-removed", "terms-orphan", "chroma-orphan", "vector-orphan"},
        {"document-withdrawn"},
    ),
    (index_retired, {"index-state"}, set()),
    (no_index, {"collection-without-index"}, {"collection-without-index"}),
    (deleted_active, {"deleted-document-active"}, set()),
    (not_active, {"document-without-version", "terms-orphan", "chroma-orphan"}, {"document-withdrawn"}),
    (staged, {"version-never-active"}, set()),
    (other_text, {"text-differs"}, {"document-withdrawn"}),
    (old_text, {"text-differs"}, set()),
    (removed_kept, {"removed-version-kept"}, set()),
    (no_first_chunk, {"chunk-missing"}, {"document-withdrawn"}),
    (outside, {"chunk-outside"}, {"document-withdrawn"}),
    (other_copy, {"chunk-differs"}, set()),
    (other_signature, {"signature-differs"}, set()),
    (other_names, {"names-differ"}, set()),
    (other_heading, {"chunk-hash-differs"}, {"document-withdrawn"}),
    (no_places, {"places-damaged"}, {"document-withdrawn"}),
    (broken_places, {"places-damaged"}, {"document-withdrawn"}),
    (no_chunks, {"text-without-chunks", "terms-orphan", "chroma-orphan", "vector-orphan"}, {"document-withdrawn"}),
    (no_vector, {"vector-missing"}, set()),
    (bad_vector(b"short"), {"vector-damaged"}, set()),
    (bad_vector(np.full(256, np.nan, dtype="<f2").tobytes()), {"vector-damaged"}, set()),
    (bad_vector(np.full(256, 0.5, dtype="<f2").tobytes()), {"vector-damaged", "chroma-differs"}, set()),
    (orphan_vector, {"vector-orphan"}, set()),
    (late_flip, {"flip-pending"}, set()),
    (terms_closed, {"terms-closed"}, set()),
    (terms_missing, {"terms-missing"}, set()),
    (terms_orphan, {"terms-orphan"}, set()),
    (terms_ahead, {"terms-ahead"}, set()),
    (terms_stray, {"terms-stray"}, set()),
    (chroma_missing, {"chroma-missing"}, set()),
    (chroma_orphan, {"chroma-orphan"}, set()),
    (chroma_differs, {"chroma-differs"}, set()),
    (chroma_ahead, {"chroma-ahead"}, set()),
    (chroma_stray, {"chroma-stray"}, set()),
    (original_missing, {"original-missing"}, {"original-lost"}),
    (original_lost, {"original-lost"}, {"original-lost"}),
    (original_flipped, {"original-damaged"}, {"original-lost"}),
    (original_orphan, {"original-orphan"}, set()),
    (original_partial, {"original-partial"}, set()),
    (answer_broken, {"answer-damaged"}, set()),
    (quote_differs, {"quote-differs"}, set()),
    (quote_lost, {"quote-lost"}, set()),
    (unlisted, {"citation-unlisted"}, set()),
]
_NAMES = [plant.__qualname__.split(".")[0] for plant, _, _ in PLANTED]


@pytest.mark.parametrize(("plant", "found", "left"), PLANTED, ids=_NAMES)
def test_damage_is_found_for_what_it_is_and_repaired(
    world: World, plant: Callable[[World], None], found: set[str], left: set[str]
) -> None:
    plant(world)
    findings = inspect(world.base)
    assert codes(findings) == found
    after = repair(world.base, findings)
    assert {item.code for item in after if not item.repaired} == left, after
    assert codes(inspect(world.base)) == left
    beyond_repair = {"schema-revision", "database-damaged", "collection-without-index"} & left
    assert beyond_repair or all(item.level == "note" for item in after if not item.repaired)
    assert all(item.remedy for item in after)
    if beyond_repair:
        return
    world.sync(DRILL_NEW)
    assert codes(inspect(world.base)) - {"original-lost"} == left - {"document-withdrawn", "original-lost"}
    assert "The drill weighs two kilograms." in "".join(found_texts(world.base, "How heavy is the drill?"))


def test_every_check_is_proven_by_such_a_damage() -> None:
    elsewhere = {"document-withdrawn", "chroma-blind", "terms-twice"}  # what a repair leaves; below
    assert set(CHECKS) - elsewhere == set().union(*(found for _, found, _ in PLANTED))


def test_a_chroma_that_does_not_find_its_own_vectors_is_rebuilt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as torn:
        torn.setattr(world.bases.vectors, "search", lambda *_args, **_more: [])
        found = inspect(world.base)
        assert codes(found) == {"chroma-blind"}
        assert [item.repaired for item in repair(world.base, found)] == [False]  # it is as torn as before
    assert [item.repaired for item in repair(world.base, found)] == [True]


def test_names_that_were_lost_are_found_again_and_those_of_others_stay(world: World) -> None:
    aliases.bring_up_to_date(world.base.catalog)
    for name, text in (
        ("a.txt", "退货政策（return policy）在第三章。"),
        ("b.txt", "保修期（warranty period）为两年。"),
    ):
        publish_text(world.base, world.runs.collection, world.runs.source, name, text)
    world.sql("DELETE FROM aliases WHERE en = 'return policy'")
    found = inspect(world.base)
    assert [(item.code, item.count) for item in found] == [("names-differ", 1)]
    assert [item.repaired for item in repair(world.base, found)] == [True]
    with world.base.catalog.read() as snapshot:
        index = [item.index_id for item in knowledge.list_collections(snapshot)]
        kept = aliases.find(snapshot, ["return policy", "warranty period"], index)
    assert sorted(alias.zh for alias, _ in kept) == ["保修期", "退货政策"]


def test_terms_that_hold_a_chunk_twice_are_rebuilt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.bases.terms, "count", lambda _space: 99)
    found = inspect(world.base)
    assert codes(found) == {"terms-twice"}
    rebuilt = world.bases.terms.rebuild

    def rebuild(*args: Any, **more: Any) -> None:
        rebuilt(*args, **more)
        monkeypatch.undo()

    monkeypatch.setattr(world.bases.terms, "rebuild", rebuild)
    assert [item.repaired for item in repair(world.base, found)] == [True]


def test_damage_of_many_kinds_at_once_is_repaired_together(world: World) -> None:
    for plant in (overlap, old_text, other_copy, no_vector, late_flip, terms_orphan, chroma_missing, chroma_stray):
        plant(world)
    after = repair(world.base, inspect(world.base))
    assert len(after) >= 8
    assert all(item.repaired for item in after)
    assert_sound(world.base, but=())


def test_nothing_is_embedded_to_rebuild_the_caches(world: World) -> None:
    terms_missing(world)
    chroma_missing(world)
    embedded = len(world.bases.embedder.embedded)
    repair(world.base, inspect(world.base))
    assert len(world.bases.embedder.embedded) == embedded


def test_only_the_text_that_lost_its_vector_is_embedded_again(world: World) -> None:
    no_vector(world)
    world.bases.embedder.embedded.clear()
    repair(world.base, inspect(world.base))
    assert len(world.bases.embedder.embedded) == 1


def test_an_upload_that_was_damaged_is_asked_for_by_name(world: World) -> None:
    other_text(world)
    after = repair(world.base, inspect(world.base))
    assert next(item for item in after if item.code == "document-withdrawn").examples == (world.drill,)
    document = world.runs.documents()["drill.txt"]
    assert (document.status, document.problems[0].code) == ("failed", "damaged")
    assert found_texts(world.base, "How heavy is the drill?") == [SAW]


def test_a_finding_counts_everything_and_names_a_few(world: World) -> None:
    for number in range(9):
        world.sql(
            "INSERT INTO vectors SELECT id, ?, ? FROM embedders", f"{number:064}", unit(world).astype("<f2").tobytes()
        )
    (found,) = inspect(world.base)
    assert (found.code, found.count, len(found.examples)) == ("vector-orphan", 9, 5)


def test_a_sample_compares_the_caches_whole(world: World) -> None:
    chroma_missing(world)
    assert codes(inspect(world.base, sample=0)) == {"chroma-missing"}


# ── beside other work ─────────────────────────────────────────────────────────────────────────


def test_what_a_job_at_work_has_staged_is_no_finding_and_is_left_alone(world: World) -> None:
    with world.base.catalog.write() as connection:
        job = jobs.create_job(connection, kind="sync", collection_id=None, source_id=None, request={})
        jobs.start_job(connection, job.id)
    staged(world)
    orphan_vector(world)
    original_orphan(world)
    assert inspect(world.base) == []
    with world.base.catalog.write() as connection:
        jobs.finish_job(connection, job.id, state="failed", problem=None)
    found = inspect(world.base)
    assert codes(found) == {"version-never-active", "vector-orphan", "original-orphan"}
    with world.base.catalog.write() as connection:
        jobs.start_job(connection, job.id)
    repair(world.base, found)
    with world.base.catalog.read() as snapshot:
        assert len(list(checks.never_active(snapshot))) == 1
        assert len(list(checks.orphan_vectors(snapshot))) == 1


def test_an_original_that_was_put_in_just_now_is_not_removed(world: World) -> None:
    world.base.originals.put(b"an upload whose job is being written")
    assert inspect(world.base) == []


def test_a_sync_and_questions_beside_it_raise_no_false_alarm(world: World) -> None:
    """And what is repaired meanwhile is sound, and answers in one version, whole."""
    with world.base.catalog.write() as connection:
        job = jobs.create_job(connection, kind="sync", collection_id=None, source_id=None, request={})
        jobs.start_job(connection, job.id)
    stop = threading.Event()
    problems: list[BaseException] = []

    def keep_on(work: Callable[[int], None]) -> threading.Thread:
        def run() -> None:
            try:
                for number in count():
                    if stop.is_set():
                        return
                    work(number)
            except BaseException as problem:  # noqa: BLE001  # the test raises it again
                problems.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def ask(_number: int) -> None:
        texts = found_texts(world.base, "How heavy is the drill, kilograms?")
        assert any("drill" in text for text in texts)

    threads = [keep_on(lambda number: world.sync(DRILL if number % 2 else DRILL_NEW)), keep_on(ask)]
    try:
        for round_ in range(20):
            assert inspect(world.base) == []
            if round_ % 4 == 3:
                repair(
                    world.base, [Finding("terms-missing", "", 1, (), True), Finding("chroma-missing", "", 1, (), True)]
                )
                world.base.caches.rebuild(world.index_id, terms=True, vectors=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert problems == []
    assert_sound(world.base)


def test_a_vector_of_an_embedder_that_is_not_there_stays_missing_and_is_a_problem(world: World) -> None:
    no_vector(world)
    world.sql("UPDATE embedders SET identity = 'another', spec = NULL")
    (left,) = repair(world.base, inspect(world.base))
    assert (left.code, left.repaired, left.level) == ("vector-missing", False, "problem")
