"""A model's sentence is held against every passage that the model was shown, its own first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rag.answering.check import Checker, weakest
from rag.answering.citations import Claim
from rag.models import Hit, Passage
from rag.ports import Vectors
from rag.retrieval.retrieve import Found, View
from tests.fakes import HashEmbedder

TEXTS = (
    "The X200 drill weighs 1.8 kilograms. Its battery lasts four hours.",
    "The X200 drill costs 129 euros. It is sold in Porto.",
    "The canteen in Porto is closed on Sundays.",
)


class Counting(HashEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.batches.append(list(texts))
        return super().embed_passages(texts, urgent=urgent)


def hit(n: int, text: str) -> Hit:
    return Hit(n, "col", f"doc{n}", 1, "Notes", "n", (), 0, len(text), text, "", 9, 1.0, {})


def checker(*texts: str, embedder: HashEmbedder | None = None) -> Checker:
    embedder = embedder or HashEmbedder()
    hits = tuple(hit(n, text) for n, text in enumerate(texts or TEXTS, 1))
    view = View(embedder, embedder.embed_query("a question"), 1.0)
    found = Found(hits, {}, (), {"col": view}, {})
    return Checker([Passage.whole(item.chunk_id, item, 9) for item in hits], found)


def test_the_passage_that_is_named_is_cited_where_it_supports() -> None:
    checked = checker().check(Claim("The X200 drill weighs 1.8 kilograms.", (1,)))
    assert (checked.support, [item.passage.n for item in checked.found]) == ("supported", [1])


@pytest.mark.parametrize("named", [(), (2,), (99,), (2, 3)])
def test_the_passage_that_supports_is_cited_whichever_was_named(named: tuple[int, ...]) -> None:
    checked = checker().check(Claim("The X200 drill weighs 1.8 kilograms.", named))
    assert (checked.support, [item.passage.n for item in checked.found]) == ("supported", [1])


def test_nothing_is_cited_for_what_no_passage_says() -> None:
    for text in (
        "The X200 drill weighs 2.8 kilograms.",
        "Zanzibar painted 17 submarines.",
        "The canteen is in Lisbon.",
    ):
        checked = checker().check(Claim(text, (1, 2, 3)))
        assert (checked.support, checked.found) == ("unsupported", ())


def test_two_passages_support_together_what_neither_says_alone_and_each_is_weak() -> None:
    checked = checker().check(Claim("The X200 drill weighs 1.8 kilograms and costs 129 euros.", (1, 2)))
    assert checked.support == "supported"
    assert sorted((item.passage.n, item.support) for item in checked.found) == [(1, "weak"), (2, "weak")]


def test_what_was_checked_is_remembered_and_one_call_embeds_all_quotes() -> None:
    embedder = Counting()
    one = checker(embedder=embedder)
    claim = Claim("This drill is run for around half a day by its battery of four hours.", (1,))
    first = one.check(claim)
    batches = len(embedder.batches)
    assert batches <= 2  # the passages that were named, and the others
    assert one.check(claim) == first
    assert len(embedder.batches) == batches


def test_no_vector_is_asked_for_where_words_decide() -> None:
    embedder = Counting()
    one = checker(embedder=embedder)
    one.check(Claim("The X200 drill weighs 1.8 kilograms.", (1,)))
    assert embedder.batches == []


def test_between_languages_numbers_and_codes_are_all_that_can_be_found_and_that_is_weak() -> None:
    one = checker()
    assert one.check(Claim("X200电钻重1.8公斤。", (1,))).support == "weak"
    assert one.check(Claim("X200电钻重2.8公斤。", (1,))).support == "unsupported"
    assert one.check(Claim("食堂周日关门。", (3,))).support == "unsupported"  # nothing to look for
    assert one.speaks("en")
    assert not one.speaks("zh")


def test_an_answer_is_as_its_weakest_sentence() -> None:
    assert weakest(["supported", "weak"]) == "weak"
    assert weakest(["weak", "unsupported", "supported"]) == "unsupported"
    assert weakest([]) is None
