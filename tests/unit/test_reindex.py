"""An index is made anew beside the live one: nothing is read, nothing is asked for twice, and no question notices."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from app.reindex import ReindexRequest, Tally, reindex, samples
from ingest.embedding import Embedding
from ingest.interrupt import Cancelled
from ingest.jobs import Running
from ingest.reindex import Reindex
from ingest.split import fingerprint
from ingest.sync import Report
from rag.catalog import answers, indexes, jobs, knowledge, versions
from rag.catalog.indexes import Index
from rag.catalog.jobs import Counts
from rag.embedding.embedders import Embedders
from rag.errors import Conflict, QualityLost, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Block, Parsed
from rag.ports import Vectors
from rag.retrieval.retrieve import retrieve
from rag.search.caches import Caches
from tests.bases import Bases, file, found_texts, runs_in
from tests.fakes import HashEmbedder
from tests.shelf import Blind, Shelf

WORDS = ["drill", "lamp", "saw", "pump", "fan", "crane", "door", "gate", "belt", "scale", "truck", "fence"]


def text_of(word: str, *, weight: str = "ninety") -> str:
    return f"The {word} weighs {weight} kilograms.\n\nIt was bought in Hamburg for the {word} hall, which is heated."


class World:
    """A base whose embedder is `old`, with a dozen documents; `new`, `small` and `blind` can be loaded."""

    def __init__(self, folder: Path) -> None:
        self.old = HashEmbedder(name="old", dimension=128)
        self.new = HashEmbedder(name="new", dimension=256, window=128)
        self.blind = Blind()
        self.bases = Bases(folder, embedder=self.old)
        self.open()
        self.runs.sync(*(file(f"{word}.txt", text_of(word)) for word in WORDS))

    def open(self) -> None:
        base = self.bases.open()
        self.shelf = Shelf(self.old, self.new, self.blind)
        self.base = KnowledgeBase(base.catalog, base.caches, base.originals, self.old, Embedders(self.shelf.load))
        self.runs = runs_in(self.base)

    def running(self, **request: Any) -> Running:
        asked: dict[str, Any] = {"embedder": "new", "chunk_tokens": 40, **request}
        wanted = ReindexRequest(**asked)
        with self.base.catalog.write() as connection:
            job = jobs.create_job(
                connection,
                kind="reindex",
                collection_id=self.runs.collection.id,
                source_id=None,
                request=asdict(wanted),
            )
        return Running(job, self.base.catalog, threading.Event())

    def reindex(self, **request: Any) -> Report:
        return reindex(self.running(**request), base=self.base)

    def indexes(self) -> list[Index]:
        with self.base.catalog.read() as snapshot:
            return indexes.list_indexes(snapshot, self.runs.collection.id)

    def states(self) -> list[tuple[str, str]]:
        return [(item.embedder_name, item.state) for item in self.indexes()]

    def find(self, question: str) -> list[str]:
        return found_texts(self.base, question, k=3)

    def weight_of(self, word: str) -> str:
        return self.find(f"How much does the {word} weigh?")[0].partition("\n")[0]

    def vectors(self, embedder: HashEmbedder) -> int:
        with self.base.catalog.read() as snapshot:
            query = "SELECT count(*) FROM vectors JOIN embedders ON embedders.id = embedder_id WHERE identity = ?"
            return int(snapshot.exec_driver_sql(query, (embedder.identity,)).scalar_one())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.bases.assert_sound()
    world.bases.close()


@pytest.fixture
def during(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Does something once, right before one of the steps of a re-index."""

    def plan(step: str, do: Callable[[], None]) -> None:
        owner, name = {
            "prepare": (Caches, "prepare"),
            "switch": (Caches, "switch"),
            "last round": (Reindex, "finish"),
        }[step]
        original, done = getattr(owner, name), False

        def instead(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if not done:
                done = True
                do()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, instead)

    return plan


# ── the switch ────────────────────────────────────────────────────────────────────────────────


def test_another_embedder_takes_over_and_the_old_index_stays(world: World) -> None:
    assert world.reindex().counts == Counts(added=12)
    assert world.states() == [("old", "retired"), ("new", "active")]
    found = retrieve("How much does the pump weigh?", base=world.base, collections=world.base.collections([]), k=3)
    assert found.hits[0].text.startswith("The pump weighs ninety kilograms.")
    assert found.view.embedder is world.new
    assert world.vectors(world.old) > 0


def test_no_source_is_read_and_the_texts_are_those_that_are_stored(world: World) -> None:
    before = world.runs.documents()
    world.reindex()
    after = world.runs.documents()
    assert {key: (item.version, item.title, item.id) for key, item in after.items()} == {
        key: (item.version, item.title, item.id) for key, item in before.items()
    }
    with world.base.catalog.read() as snapshot:
        for item in after.values():
            text = versions.version_row(snapshot, item.id, None).text
            chunks = versions.list_chunks(snapshot, item.id, version=item.version or 0)
            assert chunks
            assert all(row.text == text[row.start : row.end] for row in chunks)


def test_a_sync_after_the_switch_writes_with_the_new_embedder_and_the_new_size(world: World) -> None:
    world.reindex(chunk_tokens=64)
    world.new.embedded.clear()
    world.old.embedded.clear()
    long = " ".join(f"The {word} was moved to the second hall in the spring of that year." for word in WORDS)
    world.runs.sync(*(file(f"{word}.txt", text_of(word)) for word in WORDS), file("new.txt", long))
    assert world.new.embedded
    assert world.old.embedded == []
    with world.base.catalog.read() as snapshot:
        added = world.runs.documents()["new.txt"]
        tokens = [row.tokens for row in versions.list_chunks(snapshot, added.id, version=1)]
    assert max(tokens) > 40  # what this run was told
    assert max(tokens) <= 64


def test_the_same_again_does_nothing(world: World) -> None:
    world.reindex()
    world.new.embedded.clear()
    assert world.reindex().counts == Counts(unchanged=12)
    assert world.new.embedded == []
    assert world.states() == [("old", "retired"), ("new", "active")]


def test_another_size_of_chunks_is_an_index_of_its_own_and_embeds_only_other_texts(world: World) -> None:
    world.reindex(embedder="old", chunk_tokens=40)  # the size that the first index had by chance
    world.old.embedded.clear()
    assert world.indexes()[-1].splitter == fingerprint(target_tokens=40)
    assert world.old.embedded == []
    world.reindex(embedder="old", chunk_tokens=12)
    assert world.old.embedded
    assert len(world.find("How much does the pump weigh?")[0]) < 60


def test_old_versions_come_too_so_that_going_back_to_one_embeds_nothing(world: World) -> None:
    others = [file(f"{word}.txt", text_of(word)) for word in WORDS[1:]]
    world.runs.sync(file("drill.txt", text_of("drill", weight="seven")), *others)
    assert world.reindex().counts == Counts(added=13)
    with world.base.catalog.read() as snapshot:
        document = world.runs.documents()["drill.txt"]
        assert versions.list_chunks(snapshot, document.id, version=1)
        assert versions.list_chunks(snapshot, document.id, version=2)


def test_what_a_reader_said_of_a_table_is_still_known(world: World) -> None:
    """Headers of columns go to the embedder, so they have to be there when it is another one."""
    from rag.catalog.versions import NewVersion

    row = "North | 7 | 9"
    parsed = Parsed(row, (Block("table_row", 0, len(row), ("Sales",), 3, None, "1", "Region | Q1 | Q2"),))
    with world.base.catalog.write() as connection:
        document_id = knowledge.reserve_document(connection, world.runs.source.id, key="t", uri="files/t")
        number, _ = versions.stage(
            connection, NewVersion(document_id, "", "x/1", None, "t.csv", "t.csv", parsed, []), index_id=1
        )
        stored = indexes.read_version(connection, document_id, number)
        versions.collect_staged(connection)
    assert stored is not None
    assert stored.parsed == parsed
    assert stored.title == ""  # a file's name never goes to the embedder


# ── broken off, and taken up again ────────────────────────────────────────────────────────────


def test_broken_off_anywhere_it_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.reindex._BATCH_VERSIONS", 1)
    embed, calls = world.new.embed_passages, 0

    def fail(texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise Unavailable("The card fell out.")
        return embed(texts, urgent=urgent)

    monkeypatch.setattr(world.new, "embed_passages", fail)
    with pytest.raises(Unavailable):
        world.reindex()
    assert world.states() == [("old", "active"), ("new", "building")]
    assert world.weight_of("pump") == "The pump weighs ninety kilograms."
    world.open()  # the next start
    assert world.reindex().counts == Counts(added=8, unchanged=4)
    assert len(world.new.embedded) == len(set(world.new.embedded))
    assert world.states() == [("old", "retired"), ("new", "active")]


def test_a_cancel_leaves_what_was_built_and_the_old_index_answering(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.reindex._BATCH_VERSIONS", 1)
    running = world.running()
    embed = world.new.embed_passages

    def stop(texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        running.stop.set()
        return embed(texts, urgent=urgent)

    monkeypatch.setattr(world.new, "embed_passages", stop)
    with pytest.raises(Cancelled):
        reindex(running, base=world.base)
    assert world.states() == [("old", "active"), ("new", "building")]
    assert world.weight_of("saw") == "The saw weighs ninety kilograms."


def test_a_start_after_the_switch_finds_the_new_index(world: World) -> None:
    world.reindex()
    world.open()
    assert world.weight_of("saw") == "The saw weighs ninety kilograms."
    assert found_texts(world.base, "saw")


def test_another_goal_removes_what_was_built_for_the_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = world.running()
    monkeypatch.setattr(Caches, "prepare", lambda *_args, **_kwargs: running.stop.set())
    with pytest.raises(Cancelled):
        reindex(running, base=world.base)
    monkeypatch.undo()
    assert world.vectors(world.new) > 0
    world.reindex(embedder="old", chunk_tokens=64)
    assert world.states() == [("old", "retired"), ("old", "active")]
    assert world.vectors(world.new) == 0


# ── syncs and questions meanwhile ─────────────────────────────────────────────────────────────


def others(*but: str) -> list[Any]:
    return [file(f"{word}.txt", text_of(word)) for word in WORDS if word not in but]


@pytest.mark.parametrize("step", ["prepare", "last round"])
def test_what_a_sync_brings_meanwhile_is_in_the_new_index_too(
    world: World, during: Callable[[str, Callable[[], None]], None], step: str
) -> None:
    """Changed, added and deleted."""

    def sync() -> None:
        changed = file("drill.txt", text_of("drill", weight="seven"))
        world.runs.sync(changed, file("oven.txt", text_of("oven")), *others("drill", "lamp"))

    # The last round has the writer's lock, which this thread may take again: as if the sync had come just before.
    during(step, sync)
    world.reindex()
    assert world.weight_of("drill") == "The drill weighs seven kilograms."
    assert world.weight_of("oven") == "The oven weighs ninety kilograms."
    assert not any("lamp" in text for text in world.find("How much does the lamp weigh?"))


def test_a_sync_that_is_under_way_at_the_switch_goes_on_in_the_new_index(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had cut and embedded its documents for the old one."""
    sync = world.runs.make()
    take = Embedding.take
    switched = False

    def switch_first(embedding: Embedding, begun: Any) -> Any:
        nonlocal switched
        found = take(embedding, begun)
        if not switched:
            switched = True
            world.reindex()
        return found

    monkeypatch.setattr(Embedding, "take", switch_first)
    from ingest.sync import SyncOptions
    from tests.bases import ListSource

    sync.run(ListSource([file("drill.txt", text_of("drill", weight="seven")), *others("drill")]), SyncOptions())
    assert world.states() == [("old", "retired"), ("new", "active")]
    assert world.weight_of("drill") == "The drill weighs seven kilograms."


def test_a_question_that_began_before_the_switch_is_asked_again_of_the_new_index(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its vector means nothing there."""
    collections = world.base.collections([])
    world.reindex()
    found = retrieve("How much does the pump weigh?", base=world.base, collections=collections, k=3)
    assert found.view.embedder is world.new
    assert found.hits[0].text.startswith("The pump weighs ninety")


def test_questions_without_pause_see_the_old_index_or_the_new_and_never_nothing(world: World) -> None:
    stop, wrong, asked = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            try:
                found = retrieve(
                    "How much does the pump weigh?", base=world.base, collections=world.base.collections([]), k=3
                )
            except Exception as problem:  # noqa: BLE001  # any is one too many
                wrong.append(repr(problem))
                return
            asked.append(found.view.embedder.name)
            if not found.hits or "pump" not in found.hits[0].text:
                wrong.append(f"{[hit.text for hit in found.hits]}")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        world.reindex()
        world.reindex(back=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert {"old", "new"} >= set(asked)
    assert "old" in asked


def test_a_crash_between_the_switch_and_the_end_of_the_old_caches_is_put_right_at_the_next_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_args: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(Caches, "drop_index", crash)
    with pytest.raises(RuntimeError):
        world.reindex()
    monkeypatch.undo()
    world.open()
    assert world.states() == [("old", "retired"), ("new", "active")]
    assert world.weight_of("saw") == "The saw weighs ninety kilograms."
    assert world.bases.terms.spaces() == {f"ix-{world.indexes()[1].id}"}


def test_a_collection_that_is_deleted_leaves_no_index_behind(world: World) -> None:
    world.reindex()
    world.base.delete_collection(world.base.collections([])[0])
    assert world.indexes() == []
    assert world.bases.terms.spaces() == set()


# ── back, and for good ────────────────────────────────────────────────────────────────────────


def test_back_returns_to_the_old_index_and_embeds_only_what_changed_since(world: World) -> None:
    world.reindex()
    world.runs.sync(file("drill.txt", text_of("drill", weight="seven")), *others("drill"))
    world.old.embedded.clear()
    report = world.reindex(back=True)
    assert report.counts.added == 1
    assert all("drill" in text for text in world.old.embedded)
    assert world.states() == [("old", "active"), ("new", "retired")]
    assert world.weight_of("drill") == "The drill weighs seven kilograms."
    assert world.weight_of("saw") == "The saw weighs ninety kilograms."


def test_confirm_removes_the_old_index_with_its_vectors_and_there_is_no_way_back(world: World) -> None:
    world.reindex()
    assert world.reindex(confirm=True).counts == Counts(deleted=1)
    assert world.states() == [("new", "active")]
    assert world.vectors(world.old) == 0
    assert world.vectors(world.new) > 0
    assert world.weight_of("saw") == "The saw weighs ninety kilograms."
    with pytest.raises(Conflict, match="no earlier index"):
        world.reindex(back=True)


def test_confirm_leaves_vectors_that_another_collection_wants(world: World) -> None:
    second = runs_in(world.base, collection="second", name="other")
    second.sync(file("drill.txt", text_of("drill")))
    world.reindex()
    world.reindex(confirm=True)
    assert world.vectors(world.old) > 0
    assert any("drill" in text for text in found_texts(world.base, "How much does the drill weigh?"))


def test_a_vector_that_goes_between_the_look_and_the_writing_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync counts on a vector that is there, and a confirmed re-index takes it away."""
    sync = world.runs.make()
    take = Embedding.take

    def then_confirm(embedding: Embedding, begun: Any) -> Any:
        found = take(embedding, begun)
        with world.base.catalog.write() as connection:
            connection.exec_driver_sql("DELETE FROM vectors WHERE sha256 NOT IN (SELECT embedded_sha256 FROM chunks)")
        return found

    world.runs.sync(*others("drill"), allow_deletes=True)
    monkeypatch.setattr(Embedding, "take", then_confirm)
    with world.base.catalog.write() as connection:
        connection.exec_driver_sql("DELETE FROM chunks WHERE document_id = ?", (_id(world, "drill.txt"),))
    from ingest.sync import SyncOptions
    from tests.bases import ListSource

    sync.run(ListSource([file("drill.txt", text_of("drill")), *others("drill")]), SyncOptions())
    assert world.weight_of("drill") == "The drill weighs ninety kilograms."
    with world.base.catalog.write() as connection:  # what this test left behind itself
        connection.exec_driver_sql(
            "DELETE FROM versions WHERE document_id = ? AND number = 1", (_id(world, "drill.txt"),)
        )


def _id(world: World, key: str) -> str:
    with world.base.catalog.read() as snapshot:
        return str(snapshot.exec_driver_sql("SELECT id FROM documents WHERE key = ?", (key,)).scalar_one())


# ── the quality check ─────────────────────────────────────────────────────────────────────────


def test_an_embedder_that_finds_less_is_refused_with_figures_and_the_old_index_goes_on(world: World) -> None:
    with pytest.raises(QualityLost, match=r"en, \d+ questions.* 100% → \d+% by vectors alone") as raised:
        world.reindex(embedder="blind")
    assert raised.value.code == "quality-check"
    assert "--force" in raised.value.remedy
    assert world.states() == [("old", "active"), ("blind", "building")]
    checked = world.indexes()[1].checked
    assert checked is not None
    assert checked["passed"] is False
    assert checked["languages"]["en"]["vectors"]["lost"] is True
    assert checked["languages"]["en"]["vectors"]["new"] < 0.5
    assert world.weight_of("saw") == "The saw weighs ninety kilograms."


def test_what_was_refused_is_switched_when_that_is_asked_for_and_nothing_is_embedded_again(world: World) -> None:
    with pytest.raises(QualityLost):
        world.reindex(embedder="blind")
    count = len(world.blind.embedded)
    world.reindex(embedder="blind", force=True)
    assert len(world.blind.embedded) == count
    assert world.states() == [("old", "retired"), ("blind", "active")]
    checked = world.indexes()[1].checked
    assert checked is not None
    assert (checked["passed"], checked["forced"]) == (False, True)


def test_without_the_check_nothing_is_compared(world: World) -> None:
    world.reindex(embedder="blind", check=False)
    assert world.states() == [("old", "retired"), ("blind", "active")]
    assert world.indexes()[1].checked is None


def test_a_check_that_was_passed_is_kept_with_its_figures(world: World) -> None:
    world.reindex()
    checked = world.indexes()[1].checked
    assert checked is not None
    assert checked["passed"] is True
    assert set(checked["languages"]) == {"en"}
    assert checked["languages"]["en"]["questions"] >= 12


def test_questions_that_were_asked_and_answered_are_the_first_choice(world: World) -> None:
    with world.base.catalog.read() as snapshot:
        document = world.runs.documents()["pump.txt"]
        text = versions.version_row(snapshot, document.id, None).text
    quote = text.partition("\n")[0]
    citation = {"document_id": document.id, "version": 1, "start": 0, "end": len(quote), "quote": quote}
    with world.base.catalog.write() as connection:
        for number in range(16):
            answers.keep_answer(
                connection,
                f"ans_{number}",
                question=f"How heavy is pump {number}?",
                refused=False,
                answer={"citations": [citation]},
                cites=[(document.id, 1)],
            )
    changed = text_of("pump").replace("heated", "cold")  # another version, in which the quote stands elsewhere
    world.runs.sync(file("pump.txt", f"Notice of May.\n\n{changed}"), *others("pump"))
    with world.base.catalog.read() as snapshot:
        found = samples(snapshot, world.base.collections([])[0])["en"]
    assert [sample.own for sample in found] == [True] * 16
    ((target_document, version, start, end),) = found[0].targets
    with world.base.catalog.read() as snapshot:
        assert versions.version_row(snapshot, target_document, version).text[start:end] == quote
    assert (target_document, version) == (document.id, 2)


def test_a_loss_counts_when_it_is_more_than_a_twentieth_and_more_than_chance() -> None:
    assert not Tally(lost=3, won=0).has_lost(64)
    assert not Tally(lost=4, won=0).has_lost(64)
    assert Tally(lost=5, won=0).has_lost(64)
    assert not Tally(lost=9, won=5).has_lost(64)
    assert Tally(lost=20, won=5).has_lost(64)
    assert not Tally(lost=5, won=0).has_lost(100)
    assert not Tally(lost=0, won=9).has_lost(64)
