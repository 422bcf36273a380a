"""Filters: their grammar says what is wrong and where; what they leave is what a plain reading of them leaves."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.answer import Assistant, Question
from rag.catalog import filtering, knowledge
from rag.errors import InvalidFilter
from rag.filters import And, Condition, Not, Or, parse
from rag.knowledge import KnowledgeBase
from rag.models import MetadataValue
from rag.retrieval.retrieve import Found, _candidates, look, retrieve
from rag.search import caches
from tests.bases import Bases, publish_text, source_in

# ── grammar ───────────────────────────────────────────────────────────────────────────────────


class TestGrammar:
    def test_every_form_is_read(self) -> None:
        read = parse(
            {
                "and": [
                    {"field": "department", "eq": "Sales"},
                    {"or": [{"field": "year", "between": [2020, 2022]}, {"field": "published", "gte": "2023-05-01"}]},
                    {"not": {"field": "@tag", "in": ["draft", "old"]}},
                ]
            }
        )
        assert read == And(
            (
                Condition("department", "eq", ("Sales",)),
                Or(
                    (
                        Condition("year", "between", (2020, 2022)),
                        Condition("published", "gte", (date(2023, 5, 1),)),
                    )
                ),
                Not(Condition("@tag", "in", ("draft", "old"))),
            )
        )

    @pytest.mark.parametrize(
        ("data", "pointer", "says"),
        [
            ([], "", "is an object; this is a list"),
            (None, "", "this is null"),
            ({}, "", "this has nothing"),
            ({"and": [], "or": []}, "", "this has “and”, “or”"),
            ({"and": []}, "/and", "an empty list"),
            ({"or": {"field": "a", "eq": 1}}, "/or", "an object"),
            ({"not": [{"field": "a", "eq": 1}]}, "/not", "is an object"),
            ({"field": "a"}, "", "has none"),
            ({"field": "a", "eq": 1, "ne": 2}, "", "exactly one operator"),
            ({"field": "a", "equals": 1}, "", "“equals”"),
            ({"field": 3, "eq": 1}, "/field", "a number"),
            ({"field": "", "eq": 1}, "/field", "empty"),
            ({"field": "@titel", "eq": "x"}, "/field", "no “@titel”"),
            ({"field": "a", "eq": None}, "/eq", "null"),
            ({"field": "a", "eq": [1]}, "/eq", "a list"),
            ({"field": "a", "eq": float("nan")}, "/eq", "too large, or none"),
            ({"field": "a", "eq": 10**400}, "/eq", "too large"),
            ({"field": "a", "eq": "\ud800"}, "/eq", "surrogate"),
            ({"field": "a", "eq": "x" * 1001}, "/eq", "1001"),
            ({"field": "a", "in": []}, "/in", "1 to 1000"),
            ({"field": "a", "in": "Sales"}, "/in", "a text"),
            ({"field": "a", "in": [1, {}]}, "/in/1", "an object"),
            ({"field": "a", "gt": "Sales"}, "/gt", "“Sales” is a text"),
            ({"field": "a", "gt": "2023-02-30"}, "/gt", "is a text"),
            ({"field": "a", "gt": True}, "/gt", "true or false"),
            ({"field": "a", "gt": "2023-05-01T10:00:00Z"}, "/gt", "days"),
            ({"field": "a", "between": [1]}, "/between", "two values"),
            ({"field": "a", "between": [2, 1]}, "/between", "larger"),
            ({"field": "a", "between": [1, "2023-05-01"]}, "/between", "one of each"),
            ({"field": "a", "contains": 3}, "/contains", "a number"),
            ({"field": "a", "contains": " "}, "/contains", "empty"),
            ({"field": "a", "exists": 1}, "/exists", "true or false"),
            ({"field": "@title", "gt": 3}, "/gt", "“@title” is a text"),
            ({"field": "@title", "in": ["a", 3]}, "/in/1", "a number"),
            ({"field": "@updated_at", "eq": "yesterday"}, "/eq", "is a time"),
            ({"field": "@updated_at", "contains": "2023"}, "/contains", "is a time"),
            ({"and": [{"field": "a", "eq": 1}, {"not": {"field": "b", "lt": "x"}}]}, "/and/1/not/lt", "is a text"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_place(self, data: Any, pointer: str, says: str) -> None:
        with pytest.raises(InvalidFilter) as problem:
            parse(data)
        assert problem.value.pointer == pointer
        assert says in problem.value.detail

    def test_depth_and_size_are_bounded(self) -> None:
        leaf: dict[str, Any] = {"field": "a", "eq": 1}
        deep = leaf
        for _ in range(7):
            deep = {"not": deep}
        parse(deep)
        with pytest.raises(InvalidFilter, match="8 deep"):
            parse({"not": deep})
        parse({"or": [leaf] * 64})
        with pytest.raises(InvalidFilter, match="64 conditions") as problem:
            parse({"or": [leaf] * 65})
        assert problem.value.pointer == "/or/64"

    def test_a_key_of_metadata_with_an_at_sign_is_written_with_two(self) -> None:
        read = parse({"field": "@@title", "eq": "x"})
        assert isinstance(read, Condition)
        assert read.key == "@title"


# ── what a filter leaves ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def bases(tmp_path: Path) -> Iterator[Bases]:
    made = Bases(tmp_path)
    yield made
    made.close()


class Shelf:
    """Documents with metadata, by key."""

    def __init__(self, base: KnowledgeBase, *, collection: str = "notes") -> None:
        self.base = base
        self.collection, self.source = source_in(base, collection=collection)
        self.ids: dict[str, str] = {}

    def put(self, key: str, text: str = "The lamp shines.", **metadata: MetadataValue) -> str:
        document_id, _, _ = publish_text(self.base, self.collection, self.source, key, text)
        with self.base.catalog.write() as connection:
            knowledge.set_metadata(connection, document_id, metadata)
        self.ids[key] = document_id
        return document_id

    def edit(self, key: str, **changes: Any) -> None:
        with self.base.catalog.write() as connection:
            knowledge.edit_document(connection, self.ids[key], **changes)

    def left(self, data: Mapping[str, Any]) -> set[str]:
        """Keys of the documents that pass."""
        what = parse(data)
        with self.base.catalog.read() as snapshot:
            filtering.check(snapshot, what, [self.collection.id])
            ids = filtering.document_ids(
                snapshot, what, collection_id=self.collection.id, index_id=self.collection.index_id, at=None
            )
        return {key for key, document_id in self.ids.items() if document_id in ids}


@pytest.fixture
def shelf(bases: Bases) -> Shelf:
    made = Shelf(bases.open())
    made.put("a", department="Sales", year=2020, final=True, published=date(2020, 5, 1))
    made.put("b", department="Ｓａｌｅｓ Asia", year=2021.5, final=False, published=date(2021, 12, 31))
    made.put("c", department="Straße", author="李雷")
    made.put("d")
    return made


class TestLeft:
    @pytest.mark.parametrize(
        ("data", "keys"),
        [
            ({"field": "department", "eq": "Sales"}, "a"),
            ({"field": "department", "eq": "sales"}, ""),
            ({"field": "department", "ne": "Sales"}, "bcd"),
            ({"field": "department", "in": ["Sales", "Straße"]}, "ac"),
            ({"field": "department", "contains": "SALES"}, "ab"),
            ({"field": "department", "contains": "STRASSE"}, "c"),
            ({"field": "author", "contains": "雷"}, "c"),
            ({"field": "department", "contains": "%"}, ""),
            ({"field": "department", "exists": True}, "abc"),
            ({"field": "department", "exists": False}, "d"),
            ({"field": "year", "eq": 2020}, "a"),
            ({"field": "year", "eq": 2020.0}, "a"),
            ({"field": "year", "gt": 2020}, "b"),
            ({"field": "year", "gte": 2020}, "ab"),
            ({"field": "year", "lt": 2021.5}, "a"),
            ({"field": "year", "lte": 2021.5}, "ab"),
            ({"field": "year", "between": [2020, 2021]}, "a"),
            ({"not": {"field": "year", "gt": 2020}}, "acd"),
            ({"field": "final", "eq": True}, "a"),
            ({"field": "final", "ne": True}, "bcd"),
            ({"field": "published", "eq": "2020-05-01"}, "a"),
            ({"field": "published", "gt": "2020-05-01"}, "b"),
            ({"field": "published", "between": ["2020-05-01", "2021-12-31"]}, "ab"),
            ({"field": "nobody", "eq": "x"}, ""),
            ({"field": "nobody", "ne": "x"}, "abcd"),
            ({"not": {"field": "nobody", "gt": 3}}, "abcd"),
            ({"and": [{"field": "year", "gt": 2000}, {"field": "final", "eq": False}]}, "b"),
            ({"or": [{"field": "author", "exists": True}, {"field": "year", "lt": 2021}]}, "ac"),
            ({"field": "@title", "in": ["a", "c"]}, "ac"),
            ({"field": "@uri", "contains": "FILES/B"}, "b"),
            ({"field": "@source", "eq": "files"}, "abcd"),
            ({"field": "@kind", "ne": "folder"}, ""),
            ({"field": "@collection", "eq": "notes"}, "abcd"),
            ({"field": "@media_type", "exists": False}, "abcd"),
            ({"field": "@media_type", "ne": "text/html"}, "abcd"),
            ({"field": "@tag", "exists": True}, ""),
        ],
    )
    def test_documents_pass_of_which_it_is_true(self, shelf: Shelf, data: Mapping[str, Any], keys: str) -> None:
        assert shelf.left(data) == set(keys)

    def test_what_somebody_edited_goes_before_what_the_source_says(self, shelf: Shelf) -> None:
        shelf.edit("a", metadata={"department": "Legal", "year": None})
        assert shelf.left({"field": "department", "eq": "Sales"}) == set()
        assert shelf.left({"field": "department", "eq": "Legal"}) == {"a"}
        assert shelf.left({"field": "year", "exists": True}) == {"b"}
        assert shelf.left({"field": "year", "lt": 3000}) == {"b"}
        shelf.edit("a", title="Price list", back_to_source=["department"])
        assert shelf.left({"field": "department", "eq": "Sales"}) == {"a"}
        assert shelf.left({"field": "@title", "contains": "price"}) == {"a"}

    def test_tags_are_whole_and_several(self, shelf: Shelf) -> None:
        shelf.edit("a", tags=["Draft", "部门 一"])
        shelf.edit("b", tags=["draft"])
        assert shelf.left({"field": "@tag", "eq": "Draft"}) == {"a"}
        assert shelf.left({"field": "@tag", "contains": "ｄｒａｆｔ"}) == {"a", "b"}
        assert shelf.left({"field": "@tag", "contains": "raf"}) == set()
        assert shelf.left({"field": "@tag", "in": ["部门 一", "x"]}) == {"a"}
        assert shelf.left({"field": "@tag", "ne": "draft"}) == {"a", "c", "d"}
        assert shelf.left({"field": "@tag", "exists": False}) == {"c", "d"}

    def test_a_day_is_all_of_its_instants(self, shelf: Shelf) -> None:
        with shelf.base.catalog.read() as snapshot:
            moment = knowledge.get_document(snapshot, shelf.ids["d"]).updated_at
        today, tomorrow = moment.date().isoformat(), (moment.date() + timedelta(days=1)).isoformat()
        everything = set("abcd")
        assert shelf.left({"field": "@updated_at", "eq": today}) == everything
        assert shelf.left({"field": "@updated_at", "lte": today}) == everything
        assert shelf.left({"field": "@updated_at", "gt": today}) == set()
        assert shelf.left({"field": "@updated_at", "lt": tomorrow}) == everything
        assert shelf.left({"field": "@created_at", "between": [today, tomorrow]}) == everything
        assert "d" in shelf.left({"field": "@updated_at", "gte": moment.astimezone(UTC).isoformat()})
        assert shelf.left({"field": "@updated_at", "lt": datetime.min.replace(tzinfo=UTC).isoformat()}) == set()
        assert shelf.left({"field": "@updated_at", "lte": "9999-12-31"}) == everything

    def test_a_field_that_holds_another_type_is_an_error(self, shelf: Shelf) -> None:
        for data, says in (
            ({"field": "department", "gt": 3}, "“department” holds texts"),
            ({"field": "year", "eq": "2020"}, "“year” holds numbers"),
            ({"field": "year", "contains": "20"}, "“year” holds numbers"),
            ({"field": "final", "lt": 1}, "holds true or false"),
            ({"field": "published", "gt": 2020}, "“published” holds dates"),
        ):
            with pytest.raises(InvalidFilter) as problem:
                shelf.left({"and": [{"field": "@title", "eq": "a"}, data]})
            assert says in problem.value.detail
            assert problem.value.pointer.startswith("/and/1/")
        shelf.put("e", year="2020")
        assert shelf.left({"field": "year", "eq": "2020"}) == {"e"}
        assert shelf.left({"field": "year", "in": ["2020", 2020]}) == {"a", "e"}

    def test_hidden_and_deleted_documents_do_not_pass(self, shelf: Shelf) -> None:
        shelf.edit("a", enabled=False)
        shelf.base.caches.retire([(shelf.ids["b"], 1)], collection=shelf.collection)
        assert shelf.left({"field": "nobody", "ne": 1}) == {"c", "d"}


# ── no recall is lost ─────────────────────────────────────────────────────────────────────────

WORDS = [
    "lamp",
    "socket",
    "warranty",
    "price",
    "cable",
    "switch",
    "motor",
    "red",
    "green",
    "保修",
    "价格",
    "灯",
    "电机",
]
VALUES: dict[str, list[MetadataValue]] = {
    "department": ["Sales", "sales", "HR", "ＨＲ"],
    "year": [2019, 2020, 2020.5],
    "final": [True, False],
    "published": [date(2020, 1, 1), date(2021, 1, 1)],
}

COMPARISONS = st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"])


def condition(name: str, operators: st.SearchStrategy[str], *values: object) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda operator, value: {"field": name, operator: value}, operators, st.sampled_from(values))


leaves = st.one_of(
    condition("department", st.sampled_from(["eq", "ne", "contains"]), "Sales", "HR", "s"),
    condition("year", COMPARISONS, 2019, 2020, 2020.5),
    condition("final", st.just("eq"), True, False),
    condition("published", COMPARISONS, "2020-01-01", "2020-06-01", "2022-01-01"),
    *(condition(name, st.just("exists"), True, False) for name in (*VALUES, "nobody")),
)


def _combined(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(lambda name, parts: {name: parts}, st.sampled_from(["and", "or"]), lists),
    )


trees = st.recursive(leaves, _combined, max_leaves=5)


def plainly(data: Mapping[str, Any], metadata: Mapping[str, MetadataValue]) -> bool:
    """A filter read as docs/filters.md tells it, with nothing but Python."""
    if "and" in data:
        return all(plainly(part, metadata) for part in data["and"])
    if "or" in data:
        return any(plainly(part, metadata) for part in data["or"])
    if "not" in data:
        return not plainly(data["not"], metadata)
    (operator, wanted), held = next((o, v) for o, v in data.items() if o != "field"), metadata.get(data["field"])
    if operator == "ne":
        return not plainly({"field": data["field"], "eq": wanted}, metadata)
    if operator == "exists":
        return bool((held is not None) == wanted)
    if held is None:
        return False
    if operator == "contains":
        return isinstance(held, str) and _folded(wanted) in _folded(held)
    if isinstance(held, date):
        held = held.isoformat()
    if isinstance(held, bool) != isinstance(wanted, bool) or isinstance(held, str) != isinstance(wanted, str):
        return False
    return bool(
        {
            "eq": lambda: held == wanted,
            "gt": lambda: held > wanted,
            "gte": lambda: held >= wanted,
            "lt": lambda: held < wanted,
            "lte": lambda: held <= wanted,
        }[operator]()
    )


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shelf, dict[str, dict[str, Any]]]]:
    """120 documents of three chunks, some of which share their words."""
    made = Bases(tmp_path_factory.mktemp("library"))
    shelf = Shelf(made.open())
    said: dict[str, dict[str, Any]] = {}
    for number in range(120):
        metadata = {
            name: values[number * step % (len(values) + 1)]
            for step, (name, values) in zip((1, 7, 11, 13), VALUES.items(), strict=True)
            if number * step % (len(values) + 1) < len(values)
        }
        text = "\n".join(
            " ".join(WORDS[(number * 5 + line * 3 + at * (1 + number % 4)) % len(WORDS)] for at in range(6))
            for line in range(3)
        )
        shelf.put(f"{number:03}", text, **metadata)
        said[f"{number:03}"] = metadata
    yield shelf, said
    made.close()


class TestRecall:
    @pytest.mark.parametrize("few", [20_000, 40, 0], ids=["exact", "either", "sieved"])
    @given(tree=trees, question=st.sampled_from(["warranty lamp price", "保修 价格", "red motor E-07"]))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_a_filtered_search_is_an_unlimited_one_of_which_the_rest_is_taken_away(
        self,
        library: tuple[Shelf, dict[str, dict[str, Any]]],
        monkeypatch: pytest.MonkeyPatch,
        few: int,
        tree: dict[str, Any],
        question: str,
    ) -> None:
        shelf, said = library
        monkeypatch.setattr(caches, "_FEW", few)
        passing = {key for key, metadata in said.items() if plainly(tree, metadata)}
        assert shelf.left(tree) == passing
        base, collection = shelf.base, shelf.collection
        ids = {shelf.ids[key] for key in passing}
        vector = look(question, base=base, collections=[collection])[collection.id].vector
        with base.caches.gate.look(), base.catalog.read() as snapshot:
            everything = base.caches.arms(snapshot, collection)
            filtered = base.caches.arms(snapshot, collection, filters=parse(tree))
            assert filtered.documents == len(passing)
            documents_of = filtering.documents_of(snapshot, sorted(base.caches.held_terms(collection.index_id)))
            every = everything.search_terms(question, k=10_000)
            assert filtered.search_terms(question, k=20) == [hit for hit in every if documents_of[hit[0]] in ids][:20]
            near = [hit for hit in everything.search_vectors(vector, k=10_000) if documents_of[hit[0]] in ids][:20]
            found = filtered.search_vectors(vector, k=20)
            assert [score for _, score in found] == pytest.approx([score for _, score in near], abs=1e-3)
            assert len(found) == len({key for key, _ in found})
            assert {documents_of[key] for key, _ in found} <= ids
            hits = _candidates(
                question, vector, snapshot=snapshot, arms=filtered, index_id=collection.index_id, wanted=8
            )
            assert bool(hits) == bool(passing)
        asked = retrieve(question, base=base, collections=[collection], k=8, filters=parse(tree))
        assert {hit.document_id for hit in asked.hits} <= ids
        assert len(asked.hits) == min(8, 3 * len(passing))

    def test_one_document_among_many_nearer_ones_is_found(self, bases: Bases, monkeypatch: pytest.MonkeyPatch) -> None:
        shelf = Shelf(bases.open())
        near = "\n".join(["The warranty of the lamp is two years."] * 200)
        shelf.put("near", near)
        shelf.put("far", "Boats float on water.", department="Sea")
        for few in (20_000, 0):
            monkeypatch.setattr(caches, "_FEW", few)
            found = ask(shelf, "How long is the warranty of the lamp?", {"field": "department", "eq": "Sea"})
            assert [hit.text for hit in found.hits] == ["Boats float on water."]
            assert found.searched == {"notes": 1}


def ask(shelf: Shelf, question: str, data: Mapping[str, Any], **options: Any) -> Found:
    collections = shelf.base.collections([])
    return retrieve(question, base=shelf.base, collections=collections, k=8, filters=parse(data), **options)


class TestQuestions:
    def test_several_collections_are_filtered_alike(self, bases: Bases) -> None:
        base = bases.open()
        one, two = Shelf(base, collection="one"), Shelf(base, collection="two")
        one.put("a", "The lamp is red.", year=2020)
        one.put("b", "The lamp is blue.", year=2021)
        two.put("c", "The lamp is green.", year=2021)
        two.put("d", "The lamp is white.", year="2021")
        found = ask(one, "What colour is the lamp?", {"field": "year", "eq": 2021})
        assert {hit.text for hit in found.hits} == {"The lamp is blue.", "The lamp is green."}
        assert found.searched == {"one": 1, "two": 1}
        only = ask(one, "What colour is the lamp?", {"field": "@collection", "eq": "two"})
        assert only.searched == {"one": 0, "two": 2}

    def test_the_past_is_filtered_by_what_is_said_of_its_documents_today(self, bases: Bases) -> None:
        shelf = Shelf(bases.open())
        shelf.put("a", "The lamp was red.", year=2020)
        shelf.put("b", "The lamp was pink.", year=2021)
        then = datetime.now(UTC)
        shelf.put("a", "The lamp is blue.", year=2022)
        old = ask(shelf, "What colour is the lamp?", {"field": "year", "eq": 2022}, as_of=then)
        assert [hit.text for hit in old.hits] == ["The lamp was red."]
        assert old.searched == {"notes": 1}
        assert not ask(shelf, "What colour is the lamp?", {"field": "year", "eq": 2020}, as_of=then).hits

    def test_a_filter_that_leaves_nothing_is_a_refusal_that_says_so(self, bases: Bases) -> None:
        shelf = Shelf(bases.open())
        shelf.put("a", "The lamp is red.", year=2020)
        nothing = parse({"field": "year", "gt": 2020})
        assistant = Assistant(shelf.base, model=None)
        answer = assistant.answer(Question("What colour is the lamp?", filters=nothing))
        assert answer.refusal is not None
        assert answer.refusal.searched == {"notes": 0}
        assert answer.answer == "No document passes the filter, so nothing was searched."
        assert "筛选" in assistant.answer(Question("灯是什么颜色？", filters=nothing)).answer

    def test_metadata_that_is_edited_counts_from_the_next_question_on(self, bases: Bases) -> None:
        shelf = Shelf(bases.open())
        shelf.put("a", "The lamp is red.", year=2020)
        assert ask(shelf, "lamp", {"field": "year", "eq": 2020}).hits
        shelf.edit("a", metadata={"year": 2021})
        assert not ask(shelf, "lamp", {"field": "year", "eq": 2020}).hits
