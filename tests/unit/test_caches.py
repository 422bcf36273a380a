"""The caches follow the catalog: late at worst, never wrong, and whole again after whatever failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.catalog import knowledge, versions
from rag.catalog.engine import Catalog, last_change
from rag.catalog.versions import Flip, NewVersion, sha256
from rag.errors import Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Collection, SourceRecord
from rag.ports import TermEntry
from rag.retrieval.retrieve import retrieve
from rag.search.caches import Caches, term_space
from rag.search.gate import Gate
from rag.storage.originals import Originals
from tests.bases import Bases, found_texts, lines, publish_text, source_in
from tests.fakes import HashEmbedder, MemoryTerms, MemoryVectors


class Failing:
    """Passes every call on to another object, notes its name, and raises Unavailable for those named in `broken`."""

    def __init__(self, inner: object, log: list[str]) -> None:
        self._inner = inner
        self._log = log
        self.broken: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._log.append(name)
            if name in self.broken:
                raise Unavailable(f"{name} does not answer.")
            return method(*args, **kwargs)

        return call


class World:
    """A knowledge base whose caches can be made to fail."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        self.inner_vectors, self.inner_terms = MemoryVectors(), MemoryTerms()
        self.vectors: Any = Failing(self.inner_vectors, self.log)
        self.terms: Any = Failing(self.inner_terms, self.log)
        self.bases = Bases(folder, vectors=self.vectors, terms=self.terms)
        self.base = self.bases.open()
        self.collection, self.source = source_in(self.base)

    @property
    def caches(self) -> Caches:
        return self.base.caches

    def restart(self) -> None:
        self.base = self.bases.open()

    def publish(self, key: str, text: str) -> tuple[str, int, list[int]]:
        return publish_text(self.base, self.collection, self.source, key, text)

    def active(self) -> set[int]:
        with self.base.catalog.read() as snapshot:
            return versions.active_keys(snapshot, self.collection.index_id)

    def document_id(self, key: str) -> str:
        with self.base.catalog.read() as snapshot:
            return knowledge.known_documents(snapshot, self.source.id)[key].document_id

    def pending(self) -> int:
        with self.base.catalog.read() as snapshot:
            return len(versions.pending_flips(snapshot))

    def assert_in_step(self) -> None:
        active = self.active()
        assert self.caches.keys(self.collection) == {"terms": active, "vectors": active}
        assert self.pending() == 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.vectors.broken.clear()
    world.terms.broken.clear()
    world.bases.assert_sound(staged=True)
    world.bases.close()


# ── publishing ────────────────────────────────────────────────────────────────────────────────


def test_vectors_go_first_then_the_flip_then_the_terms_and_the_old_vectors_last(world: World) -> None:
    world.publish("a.txt", "The drill weighs one kilogram.")
    world.log.clear()
    flip = versions.flip

    def noted(*args: Any, **kwargs: Any) -> int:
        world.log.append("flip")
        return flip(*args, **kwargs)

    versions.flip = noted
    try:
        world.publish("a.txt", "The drill weighs two kilograms.")
    finally:
        versions.flip = flip
    assert world.log == ["upsert", "prepare", "flip", "apply", "delete"]
    world.assert_in_step()


def test_whoever_stops_before_the_flip_leaves_nothing_behind(world: World) -> None:
    world.publish("a.txt", "The drill weighs one kilogram.")
    document_id, number, keys = publish_text(
        world.base, world.collection, world.source, "a.txt", "The drill weighs two kilograms.", flip=False
    )
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # the vectors are there already
            raise InterruptedError

    flip = Flip(document_id, 1, number)
    with pytest.raises(InterruptedError):
        world.caches.publish([flip], collection=world.collection, staged_keys=keys, stop=stop)
    world.assert_in_step()
    with world.base.catalog.read() as snapshot:
        assert [item.number for item in versions.list_versions(snapshot, document_id)] == [1]


def test_stopping_a_roll_back_keeps_the_version_that_it_was_about(world: World) -> None:
    document_id, _, first = world.publish("a.txt", "The drill weighs one kilogram.")
    world.publish("a.txt", "The drill weighs two kilograms.")

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        world.caches.publish([Flip(document_id, 2, 1)], collection=world.collection, staged_keys=first, stop=stop)
    world.assert_in_step()
    with world.base.catalog.read() as snapshot:
        assert [item.number for item in versions.list_versions(snapshot, document_id)] == [2, 1]


def test_what_joins_the_flip_is_undone_with_it(world: World) -> None:
    """And nothing of the new version can be found."""
    world.publish("a.txt", "The drill weighs one kilogram.")
    document_id, number, keys = publish_text(
        world.base, world.collection, world.source, "a.txt", "The drill weighs two.", flip=False
    )

    def fail(_: object) -> None:
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        world.caches.publish([Flip(document_id, 1, number)], collection=world.collection, staged_keys=keys, also=fail)
    assert found_texts(world.base, "How much does the drill weigh?") == ["The drill weighs one kilogram."]
    world.restart()
    assert found_texts(world.base, "How much does the drill weigh?") == ["The drill weighs one kilogram."]
    world.assert_in_step()


def test_retiring_takes_a_document_out_of_both_caches(world: World) -> None:
    document_id, number, _ = world.publish("a.txt", "The drill weighs one kilogram.")
    world.publish("b.txt", "The saw weighs two kilograms.")
    world.caches.retire([(document_id, number)], collection=world.collection)
    assert found_texts(world.base, "How much does the drill weigh?") == ["The saw weighs two kilograms."]
    world.assert_in_step()


def test_deleting_a_source_takes_all_of_it_out_of_the_catalog_and_both_caches(world: World) -> None:
    world.publish("a.txt", "The drill weighs one kilogram.")
    assert found_texts(world.base, "drill") == ["The drill weighs one kilogram."]
    world.caches.erase(world.collection, source_id=world.source.id)
    assert found_texts(world.base, "drill") == []
    assert world.active() == set()
    world.assert_in_step()
    with world.base.catalog.read() as snapshot:
        assert knowledge.list_sources(snapshot, world.collection) == []


def test_a_document_that_changed_since_the_flip_was_planned_leaves_nothing_behind(world: World) -> None:
    document_id, planned, _ = world.publish("a.txt", "The drill weighs one kilogram.")
    world.publish("a.txt", "The drill weighs two kilograms.")
    world.caches.retire([(document_id, planned)], collection=world.collection)
    assert found_texts(world.base, "drill") == []
    world.assert_in_step()


def test_a_question_never_waits_for_a_writer(world: World) -> None:
    """Not even while a document waits for its turn to flip behind another job's long transaction."""
    world.publish("a.txt", "The drill weighs one kilogram.")
    document_id, number, keys = publish_text(
        world.base, world.collection, world.source, "a.txt", "The drill weighs two kilograms.", flip=False
    )
    with world.base.catalog.write():
        flips = {"collection": world.collection, "staged_keys": keys}
        flipping = threading.Thread(target=world.caches.publish, args=([Flip(document_id, 1, number)],), kwargs=flips)
        asking = threading.Thread(target=found_texts, args=(world.base, "drill"))
        flipping.start()
        time.sleep(0.05)
        asking.start()
        asking.join(5.0)
        assert not asking.is_alive()
    flipping.join()
    assert found_texts(world.base, "drill") == ["The drill weighs two kilograms."]


def test_documents_are_counted_once_per_change(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0
    count = knowledge.count_collection

    def noted(*args: Any) -> knowledge.CollectionCounts:
        nonlocal counted
        counted += 1
        return count(*args)

    monkeypatch.setattr(knowledge, "count_collection", noted)

    def documents() -> int:
        with world.base.catalog.read() as snapshot:
            return world.caches.count_documents(snapshot, world.collection)

    assert [documents(), documents()] == [0, 0]
    document_id, number, _ = world.publish("a.txt", "The drill weighs one kilogram.")
    world.publish("b.txt", "The saw weighs two kilograms.")
    assert [documents(), documents()] == [2, 2]
    world.caches.retire([(document_id, number)], collection=world.collection)
    assert [documents(), documents()] == [1, 1]
    assert counted == 3


# ── vectors that fail ─────────────────────────────────────────────────────────────────────────

TEXTS = [f"Product {number} weighs {number * 3} kilograms and belongs to group {number % 4}." for number in range(30)]


@pytest.mark.parametrize("broken", ["upsert", "search", "delete"])
def test_without_chroma_the_answers_are_the_same_and_attaching_heals(world: World, broken: str) -> None:
    for number, text in enumerate(TEXTS):
        world.publish(f"{number}.txt", text)
    questions = ["What weighs 27 kilograms?", "Which products belong to group 3?", "product 12"]
    world.vectors.broken = {broken}
    world.publish("0.txt", "Product 0 is weightless.")
    without = [found_texts(world.base, question) for question in questions]
    assert not world.caches.is_attached(world.collection.index_id)
    assert world.caches.vectors_problem is not None
    assert found_texts(world.base, "What is weightless?")[0] == "Product 0 is weightless."

    world.publish("new.txt", "Product 99 weighs 300 kilograms.")  # while it is away
    world.vectors.broken = set()
    assert world.caches.attach_vectors()
    assert world.caches.vectors_problem is None
    world.assert_in_step()
    world.base.caches.retire([(world.document_id("new.txt"), 1)], collection=world.collection)
    assert [found_texts(world.base, question) for question in questions] == without
    world.assert_in_step()


def test_chroma_that_cannot_be_opened_is_said_and_tried_again(tmp_path: Path) -> None:
    vectors: Any = Failing(MemoryVectors(), [])
    bases = Bases(tmp_path, vectors=vectors)
    vectors.broken = {"open"}
    base = bases.open(attach=False)
    into = source_in(base)
    publish_text(base, *into, "a.txt", "The drill weighs one kilogram.")
    assert not base.caches.attach_vectors()
    assert not base.caches.vectors_attached
    assert base.caches.vectors_problem == "open does not answer."
    assert found_texts(base, "drill") == ["The drill weighs one kilogram."]
    vectors.broken = set()
    assert base.caches.attach_vectors()
    assert base.caches.vectors_attached
    assert found_texts(base, "drill") == ["The drill weighs one kilogram."]
    bases.close()


def test_chroma_is_not_touched_before_its_folder_was_probed(tmp_path: Path) -> None:
    """Opening a torn folder can hang or crash the process."""
    log: list[str] = []
    catalog = Catalog(tmp_path / "catalog.sqlite")
    vectors: Any = Failing(MemoryVectors(), log)
    caches = Caches(catalog, vectors=vectors, terms=MemoryTerms(), prepare_vectors=lambda: log.append("probe"))
    base = KnowledgeBase(catalog, caches, Originals(tmp_path), HashEmbedder())
    caches.attach_terms()
    into = source_in(base)
    publish_text(base, *into, "a.txt", "The drill weighs one kilogram.")
    assert found_texts(base, "drill") == ["The drill weighs one kilogram."]
    assert log == []
    assert caches.attach_vectors()
    assert log[0] == "probe"
    assert caches.attach_vectors()
    assert log.count("probe") == 1
    assert caches.is_attached(into[0].index_id)
    catalog.close()


def test_exact_search_sees_each_change(world: World) -> None:
    world.vectors.broken = {"search"}
    world.publish("a.txt", "The drill weighs one kilogram.")
    assert found_texts(world.base, "drill") == ["The drill weighs one kilogram."]
    world.publish("a.txt", "The drill weighs two kilograms.")
    assert found_texts(world.base, "drill") == ["The drill weighs two kilograms."]


def test_exact_search_goes_on_while_chroma_is_being_attached_again_and_again(world: World) -> None:
    for number, text in enumerate(TEXTS):
        world.publish(f"{number}.txt", text)
    problems: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                if not found_texts(world.base, "product 12"):
                    problems.append("nothing was found")
            except Unavailable as problem:
                problems.append(str(problem))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        world.vectors.broken = {"search"}
        time.sleep(0.005)
        world.vectors.broken = set()
        world.caches.attach_vectors()
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []


# ── terms that fail ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("healed_by", ["the next publish", "attaching again", "a restart"])
def test_terms_that_could_not_follow_follow_later(world: World, healed_by: str) -> None:
    world.publish("a.txt", "The drill weighs one kilogram.")
    world.terms.broken = {"apply"}
    world.publish("a.txt", "The drill weighs two kilograms.")
    world.publish("a.txt", "The drill weighs three kilograms.")
    assert world.pending() == 2
    assert found_texts(world.base, "drill") == ["The drill weighs three kilograms."]  # by its vector
    world.terms.broken = set()
    if healed_by == "the next publish":
        world.publish("b.txt", "The saw weighs two kilograms.")
    elif healed_by == "attaching again":
        world.caches.attach_terms()
    else:
        world.restart()
    world.assert_in_step()


def test_attaching_terms_again_does_not_take_what_a_running_job_has_staged(world: World) -> None:
    _, _, keys = publish_text(world.base, world.collection, world.source, "a.txt", "The drill.", flip=False)
    world.caches.attach_terms()
    with world.base.catalog.read() as snapshot:
        assert [entry.key for entry in versions.term_entries(snapshot, keys)] == keys
    world.restart()  # but then nobody is at work on it any more
    with world.base.catalog.read() as snapshot:
        assert list(versions.term_entries(snapshot, keys)) == []


# ── caches that are not this catalog's ────────────────────────────────────────────────────────


def test_caches_that_have_seen_more_than_the_catalog_knows_are_rebuilt(world: World) -> None:
    """The catalog was put back from a backup: the keys there may mean other chunks."""
    _, _, keys = world.publish("a.txt", "The drill weighs one kilogram.\nThe saw weighs two.")
    with world.base.catalog.read() as snapshot:
        future = last_change(snapshot) + 1
    wrong = np.zeros((len(keys), world.base.embedder.dimension), dtype=np.float32)
    wrong[:, 0] = 1.0
    world.inner_vectors.upsert(world.collection.index_id, keys, wrong, seen=future)
    entries = [TermEntry(key, "", "Something else entirely.") for key in keys]
    world.inner_terms.apply(term_space(world.collection.index_id), remove=[], add=entries, seen=future)
    world.restart()
    assert found_texts(world.base, "drill")[0] == "The drill weighs one kilogram."
    assert world.inner_terms.search(term_space(world.collection.index_id), "entirely", k=5) == []
    [(best, cosine), *_] = world.inner_vectors.search(
        world.collection.index_id, world.base.embedder.embed_query("The drill weighs one kilogram."), k=2
    )
    assert best == keys[0]
    assert cosine > 0.99
    world.assert_in_step()


def test_missing_and_surplus_keys_are_repaired(world: World) -> None:
    _, _, keys = world.publish("a.txt", "One kilogram.\nTwo kilograms.\nThree kilograms.")
    with world.base.catalog.read() as snapshot:
        change = last_change(snapshot)
    world.inner_vectors.delete(world.collection.index_id, keys[:1], seen=change)
    stray = np.eye(1, world.base.embedder.dimension, dtype=np.float32)
    world.inner_vectors.upsert(world.collection.index_id, [9999], stray, seen=change)
    world.inner_terms.apply(
        term_space(world.collection.index_id), remove=keys[1:2], add=[TermEntry(9999, "", "Stray.")], seen=change
    )
    world.restart()
    world.assert_in_step()
    assert len(found_texts(world.base, "kilograms")) == 3


def test_caches_that_were_deleted_are_rebuilt_without_embedding(world: World) -> None:
    for number, text in enumerate(TEXTS[:10]):
        world.publish(f"{number}.txt", text)
    before = found_texts(world.base, "What weighs 27 kilograms?")
    embedded = len(world.bases.embedder.embedded)
    world.inner_vectors.drop(world.collection.index_id)
    world.inner_terms.drop(term_space(world.collection.index_id))
    world.restart()
    world.assert_in_step()
    assert found_texts(world.base, "What weighs 27 kilograms?") == before
    assert len(world.bases.embedder.embedded) == embedded


def test_a_restart_rebuilds_nothing_that_is_in_step(world: World) -> None:
    world.publish("a.txt", "The drill weighs one kilogram.")
    world.log.clear()
    world.restart()
    assert "reset" not in world.log
    assert "upsert" not in world.log
    assert "apply" not in world.log


def test_a_deleted_collection_leaves_no_caches(world: World) -> None:
    world.publish("a.txt", "The drill weighs one kilogram.")
    world.base.delete_collection(world.collection)
    assert world.inner_terms.open(term_space(world.collection.index_id), catalog_id=world.base.catalog.id) is None
    dimension = world.base.embedder.dimension
    opened = world.inner_vectors.open(world.collection.index_id, catalog_id=world.base.catalog.id, dimension=dimension)
    assert opened is None
    world.restart()


# ── the gate ──────────────────────────────────────────────────────────────────────────────────


def test_many_may_look_at_once_and_nobody_while_a_flip_is_under_way() -> None:
    gate, looking, most, problems = Gate(), 0, 0, []
    lock, done = threading.Lock(), threading.Event()
    flipping = False

    def look() -> None:
        nonlocal looking, most
        while not done.is_set():
            with gate.look():
                with lock:
                    looking += 1
                    most = max(most, looking)
                if flipping:
                    problems.append("looked during a flip")
                time.sleep(0.0005)
                with lock:
                    looking -= 1

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with gate.flip():
            flipping = True
            if looking:
                problems.append("flipped during a look")
            flipping = False
    done.set()
    for thread in threads:
        thread.join()
    assert problems == []
    assert most > 1


def test_a_flip_that_waits_goes_before_those_who_come_later() -> None:
    gate, order = Gate(), []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with gate.look():
            inside.set()
            leave.wait()

    def flip() -> None:
        with gate.flip():
            order.append("flip")

    def later() -> None:
        with gate.look():
            order.append("look")

    threads = [threading.Thread(target=work) for work in (first, flip, later)]
    threads[0].start()
    inside.wait()
    threads[1].start()
    while not gate._flips_waiting:
        time.sleep(0.001)
    threads[2].start()
    time.sleep(0.01)
    assert order == []
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["flip", "look"]


def test_flips_do_not_starve_among_readers_without_pause() -> None:
    gate, done = Gate(), threading.Event()

    def look() -> None:
        while not done.is_set():
            with gate.look():
                time.sleep(0.002)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    for _ in range(20):
        with gate.flip():
            pass
    seconds = time.monotonic() - start
    done.set()
    for thread in threads:
        thread.join()
    assert seconds < 5.0


# ── readers during flips ──────────────────────────────────────────────────────────────────────


def stage_two(base: KnowledgeBase, collection: Collection, source: SourceRecord) -> list[tuple[str, int, list[int]]]:
    """Two versions of one document that contradict each other, the first one published."""
    document_id, number, keys = publish_text(
        base, collection, source, "policy.txt", "\n".join(f"Rule {n}: leave is 25 days." for n in range(4))
    )
    text = "\n".join(f"Rule {n}: leave is 30 days." for n in range(4))
    parsed, pieces = lines(text)
    with base.catalog.write() as connection:
        embedder_id = versions.embedder_of(connection, collection.index_id)[0]
        vectors = base.embedder.embed_passages([piece.text for piece in pieces])
        found = {sha256(piece.text): vector for piece, vector in zip(pieces, vectors, strict=True)}
        versions.save_vectors(connection, embedder_id, found)
        new = NewVersion(document_id, "c", "text/1", None, "policy.txt", "policy.txt", parsed, pieces)
        second, new_keys = versions.stage(connection, new, index_id=collection.index_id)
    return [(document_id, number, keys), (document_id, second, new_keys)]


# ── few vectors ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Bases]:
    """Where up to three vectors need no Chroma."""
    bases = Bases(tmp_path, exact_up_to=3)
    yield bases
    bases.assert_sound()
    bases.close()


def test_few_vectors_are_searched_exactly_and_follow_every_change(few: Bases) -> None:
    base = few.open()
    into = source_in(base)
    publish_text(base, *into, "drill.txt", "The drill weighs one kilogram.")
    assert found_texts(base, "How much does the drill weigh?") == ["The drill weighs one kilogram."]
    publish_text(base, *into, "drill.txt", "The drill weighs two kilograms.")
    publish_text(base, *into, "saw.txt", "The saw weighs three kilograms.")
    assert found_texts(base, "How much does the drill weigh?") == [
        "The drill weighs two kilograms.",
        "The saw weighs three kilograms.",
    ]
    base.delete_collection(into[0])
    assert (base.caches.vectors_ready, base.caches.vectors_attached) == (True, False)
    assert few.vectors.spaces() == set()


def test_chroma_is_attached_when_vectors_have_become_many(few: Bases) -> None:
    base = few.open()
    into = source_in(base)
    for number in range(3):
        publish_text(base, *into, f"{number}.txt", f"The drill number {number} weighs one kilogram.")
    assert not base.caches.is_late
    publish_text(base, *into, "one too many.txt", "The saw weighs three kilograms.")
    assert base.caches.is_late
    assert base.caches.catch_up()
    assert base.caches.is_attached(into[0].index_id)
    assert not base.caches.is_late
    with base.catalog.read() as snapshot:
        assert base.caches.keys(into[0])["vectors"] == versions.active_keys(snapshot, into[0].index_id)
    assert "The saw weighs three kilograms." in found_texts(base, "How much does the saw weigh?")


def test_what_chroma_holds_of_an_earlier_time_goes_when_vectors_are_few(few: Bases) -> None:
    base = few.open()
    into = source_in(base)
    publish_text(base, *into, "drill.txt", "The drill weighs one kilogram.")
    assert base.caches.attach_vectors()
    assert few.vectors.spaces() == {into[0].index_id}
    base = few.open()
    assert few.vectors.spaces() == set()
    assert found_texts(base, "How much does the drill weigh?") == ["The drill weighs one kilogram."]


def test_nothing_of_a_purge_is_left_in_chroma_where_it_is_not_attached(few: Bases) -> None:
    base = few.open()
    into = source_in(base)
    publish_text(base, *into, "drill.txt", "The drill weighs one kilogram.")
    few.vectors.reset(into[0].index_id, catalog_id=base.catalog.id, dimension=base.embedder.dimension)
    base.caches.write_anew()
    assert few.vectors.spaces() == set()
    assert not base.caches.vectors_attached


@pytest.mark.parametrize(("attached", "flips"), [(True, 200), (False, 50)], ids=["chroma", "exact"])
def test_readers_see_one_version_whole_while_it_flips_again_and_again(
    tmp_path: Path, attached: bool, flips: int
) -> None:
    bases = Bases(tmp_path)
    base = bases.open(attach=attached)
    into = source_in(base)
    staged = stage_two(base, *into)
    collections = base.collections([])
    problems: list[str] = []
    asked = [0] * 8
    done = threading.Event()

    def ask(number: int) -> None:
        while not done.is_set():
            hits = retrieve("How many days is leave?", base=base, collections=collections, k=8).hits
            asked[number] += 1
            time.sleep(0.01)  # or the readers take all of Python's lock, and two hundred flips many seconds
            if len(hits) != 4 or len({hit.version for hit in hits}) != 1:
                problems.append(f"{[(hit.version, hit.text) for hit in hits]}")
            if len({hit.text.split("is ")[1] for hit in hits}) != 1:
                problems.append("two versions mixed")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(flips):
            (document_id, old, _), (_, new, keys) = staged[turn % 2], staged[(turn + 1) % 2]
            base.caches.publish([Flip(document_id, old, new)], collection=into[0], staged_keys=keys)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        bases.close()
    assert problems == []
    assert min(asked) > 0
