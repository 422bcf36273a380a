"""Each collection has its own embedder: changing the configured one breaks none of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rag.answer import Assistant, Question
from rag.catalog import indexes, knowledge
from rag.embedding.embedders import Embedders
from rag.errors import EmbedderMismatch, Unavailable
from rag.knowledge import KnowledgeBase
from rag.ports import Vectors
from rag.retrieval.probe import middle_sentence, probe_if_due, understood
from rag.retrieval.retrieve import retrieve
from tests.bases import Bases, found_texts, publish_text, source_in
from tests.fakes import HashEmbedder
from tests.shelf import Blind, Shelf

OLD, NEW = HashEmbedder(name="old", dimension=128), HashEmbedder(name="new", dimension=256)


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    bases = Bases(tmp_path, embedder=OLD)
    yield bases
    bases.close()


def configured(base: KnowledgeBase, embedder: HashEmbedder, *others: HashEmbedder) -> KnowledgeBase:
    """The same base, as if it had been started with another ATTEST_EMBEDDER."""
    return replace(base, embedder=embedder, others=Embedders(Shelf(*others).load))


def test_a_collection_is_found_with_the_embedder_that_it_was_made_with(bases: Bases) -> None:
    base = bases.open()
    publish_text(base, *source_in(base), "a.txt", "The drill weighs one kilogram.")
    other = configured(base, NEW, OLD)
    assert found_texts(other, "How much does the drill weigh?") == ["The drill weighs one kilogram."]
    assert other.embedder_of(other.collections([])[0]) is OLD


def test_new_collections_get_the_configured_embedder(bases: Bases) -> None:
    base = bases.open()
    publish_text(base, *source_in(base, collection="first"), "a.txt", "The drill weighs one kilogram.")
    other = configured(base, NEW, OLD)
    made = other.create_collection("second", splitter="test")
    assert made.embedder == NEW.identity
    assert other.embedder_of(made) is NEW


def test_a_question_to_collections_of_two_embedders_is_embedded_once_by_each(bases: Bases) -> None:
    base = bases.open()
    publish_text(base, *source_in(base, collection="first"), "a.txt", "The drill weighs one kilogram.")
    publish_text(base, *source_in(base, collection="second"), "b.txt", "The saw weighs two kilograms.")
    other = configured(base, NEW, OLD)
    publish_text(other, *source_in(other, collection="third"), "c.txt", "The drill costs ninety euros.")
    asked: list[str] = []
    for embedder in (OLD, NEW):
        query = embedder.embed_query

        def noted(text: str, *, name: str = embedder.name, query: Any = query) -> Vectors:
            asked.append(name)
            return query(text)  # type: ignore[no-any-return]

        embedder.embed_query = noted  # type: ignore[method-assign]
    try:
        found = retrieve("What does the drill weigh?", base=other, collections=other.collections([]), k=8)
    finally:
        for embedder in (OLD, NEW):
            del embedder.embed_query
    assert sorted(asked) == ["new", "old"]
    assert {hit.text for hit in found.hits} == {
        "The drill weighs one kilogram.",
        "The saw weighs two kilograms.",
        "The drill costs ninety euros.",
    }
    assert found.hits[0].text == "The drill weighs one kilogram."
    assert found.view.embedder is OLD
    assert found.view_of(next(hit for hit in found.hits if "euros" in hit.text)).embedder is NEW


def test_an_answer_compares_sentences_with_the_embedder_of_the_best_passage(bases: Bases) -> None:
    base = bases.open()
    publish_text(base, *source_in(base), "a.txt", "The drill weighs one kilogram.")
    assistant = Assistant(configured(base, NEW, OLD), model=None)
    answer = assistant.answer(Question("How much does the drill weigh?"))
    assert answer.citations[0].quote == "The drill weighs one kilogram."


def test_an_embedder_that_cannot_be_loaded_is_said_with_what_to_do(bases: Bases) -> None:
    base = bases.open()
    source_in(base, collection="hand books")
    with pytest.raises(EmbedderMismatch, match=r'“hand books”.* old.*attest reindex -c "hand books"') as raised:
        configured(base, NEW).collections([])
    assert raised.value.code == "embedder-mismatch"


def test_another_model_in_the_old_place_is_not_taken_for_the_old_one(bases: Bases) -> None:
    base = bases.open()
    source_in(base)
    with pytest.raises(EmbedderMismatch, match="another one today"):
        configured(base, NEW, HashEmbedder(name="old", dimension=64)).collections([])
    with pytest.raises(EmbedderMismatch, match="another one today"):
        configured(base, HashEmbedder(name="old", dimension=64)).collections([])


def test_a_configured_embedder_that_cannot_be_loaded_keeps_nobody_from_the_others(bases: Bases) -> None:
    class Broken(HashEmbedder):
        @property
        def identity(self) -> str:
            raise Unavailable("There is no embedder in nowhere.")

    base = bases.open()
    publish_text(base, *source_in(base), "a.txt", "The drill weighs one kilogram.")
    other = configured(base, Broken(name="nowhere"), OLD)
    assert found_texts(other, "How much does the drill weigh?") == ["The drill weighs one kilogram."]


def test_embedders_are_loaded_once_and_the_latest_used_stay() -> None:
    shelf = Shelf(*(HashEmbedder(name=name) for name in "abc"))
    embedders = Embedders(shelf.load, most=2)
    a, b = embedders.open("a"), embedders.open("b")
    assert embedders.known(a.identity) is a
    embedders.open("c")
    assert embedders.known(b.identity) is None
    assert embedders.known(a.identity) is a
    assert shelf.loaded == ["a", "b", "c"]


# ── can it read the texts? ────────────────────────────────────────────────────────────────────

ENGLISH = [
    f"The {word} of the northern warehouse was checked in spring and works well."
    for word in (["drill", "lamp", "saw", "pump", "fan", "crane", "door", "gate", "belt", "scale"])
]
CHINESE = [
    f"北方仓库的{word}已经在春天检查过了，工作正常。"
    for word in (["钻机", "台灯", "锯子", "水泵", "风扇", "吊车", "大门", "栅栏", "皮带", "天平"])
]


def filled(bases: Bases, embedder: HashEmbedder, texts: list[str]) -> tuple[KnowledgeBase, indexes.Index]:
    bases.embedder = embedder
    base = bases.open()
    collection, source = source_in(base)
    publish_text(base, collection, source, "a.txt", "\n".join(texts))
    with base.catalog.read() as snapshot:
        return base, indexes.active_index(snapshot, collection.id)


def probes(base: KnowledgeBase, index: indexes.Index) -> dict[str, indexes.Probe]:
    with base.catalog.read() as snapshot:
        return indexes.probes_of(snapshot, [index.id]).get(index.id, {})


def test_each_language_is_probed_by_what_is_known_of_it_and_what_it_finds(bases: Bases) -> None:
    english_only = HashEmbedder(name="english", reads_chinese=False)
    base, index = filled(bases, english_only, ENGLISH + CHINESE)
    assert probe_if_due(base, index, embedder=english_only) == ["en", "zh"]
    found = probes(base, index)
    assert (found["en"].coverage, found["en"].found, found["en"].samples, found["en"].chunks) == (1.0, 1.0, 10, 10)
    assert found["zh"].coverage < 0.2
    assert found["zh"].found == 0.0


def test_an_embedder_to_which_everything_looks_the_same_finds_nothing(bases: Bases) -> None:
    base, index = filled(bases, Blind(), ENGLISH)
    probe_if_due(base, index, embedder=Blind())
    assert probes(base, index)["en"].coverage == 1.0
    assert probes(base, index)["en"].found == 0.0


def test_what_a_probe_found_limits_the_vectors_for_questions_in_that_language(bases: Bases) -> None:
    blind = Blind()
    base, index = filled(bases, blind, ENGLISH)
    collections = base.collections([])
    before = retrieve("What about the drill?", base=base, collections=collections, k=3)
    probe_if_due(base, index, embedder=blind)
    after = retrieve("What about the drill?", base=base, collections=collections, k=3)
    assert (before.view.coverage, after.view.coverage) == (1.0, 0.0)
    assert retrieve("钻机怎么样？", base=base, collections=collections, k=3).view.coverage == 1.0


def test_a_probe_is_due_when_a_language_is_new_or_has_doubled_and_at_no_other_time(bases: Bases) -> None:
    base, index = filled(bases, NEW, ENGLISH)
    collection, source = source_in(base)
    assert probe_if_due(base, index, embedder=NEW) == ["en"]
    assert probe_if_due(base, index, embedder=NEW) == []
    publish_text(base, collection, source, "b.txt", "\n".join(text.replace("spring", "autumn") for text in ENGLISH[:5]))
    assert probe_if_due(base, index, embedder=NEW) == []
    publish_text(base, collection, source, "c.txt", CHINESE[0])
    assert probe_if_due(base, index, embedder=NEW) == ["zh"]
    publish_text(base, collection, source, "d.txt", "\n".join(text.replace("spring", "winter") for text in ENGLISH))
    assert probe_if_due(base, index, embedder=NEW) == ["en"]
    assert probes(base, index)["en"].chunks == 25


def test_a_few_texts_say_too_little_to_limit_anything() -> None:
    probe = indexes.Probe("en", 1.0, 0.0, 7, 7, None)  # type: ignore[arg-type]
    assert understood(probe) == 1.0
    assert understood(replace(probe, samples=8)) == 0.0
    assert understood(replace(probe, samples=32, found=0.9)) == 1.0


def test_a_sentence_from_the_middle_stands_for_its_passage() -> None:
    text = "Short. The first sentence is long enough to stand alone. The second one is, too, and it is last."
    start, end = middle_sentence(text)
    assert text[start:end] == "The first sentence is long enough to stand alone."
    assert middle_sentence("7 kg") == (0, 4)
    assert middle_sentence("") == (0, 0)


def test_a_collection_keeps_its_probes_until_it_goes(bases: Bases) -> None:
    base, index = filled(bases, NEW, ENGLISH)
    probe_if_due(base, index, embedder=NEW)
    with base.catalog.write() as connection:
        knowledge.delete_collection(connection, base.collections([])[0])
    assert probes(base, index) == {}
