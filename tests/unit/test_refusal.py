"""A refusal says what was searched, what came closest, and what is missing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag.answering.refusal import explain
from tests.fakes import HashEmbedder
from tests.found import BREAD, PAID, TOLD, found


def test_a_refusal_names_what_was_searched_what_came_closest_and_the_rarest_words_that_are_missing() -> None:
    asked = "How many days of paid leave do employees in Hamburg have?"
    reason, refusal = explain(found(asked, TOLD), language="en")
    assert "1 document " in reason
    assert "“Hamburg”" in reason
    assert "Rotterdam" not in reason
    assert [item.text for item in refusal.closest] == [TOLD]
    assert refusal.missing == ("Hamburg",)
    reason, _ = explain(found("潜水艇的津贴是多少？", PAID), language="zh")
    assert "潜水艇" in reason
    assert "“津贴”" not in reason


@pytest.mark.parametrize(
    ("language", "told"), [("en", "There was no document to search."), ("zh", "没有可供检索的文档。")]
)
def test_where_there_is_no_document_it_is_not_said_that_none_answers(language: str, told: str) -> None:
    nothing = replace(found("How long is the leave?", TOLD), hits=(), searched={"handbook": 0})
    reason, refusal = explain(nothing, language=language)
    assert reason == refusal.reason == told


def test_words_that_only_ask_are_not_named_beside_what_was_asked() -> None:
    reason, _ = explain(found("What is the name of the submarine called?", BREAD), language="en")
    assert "“submarine”" in reason
    assert "“called”" not in reason


@pytest.mark.parametrize(
    ("question", "passage", "lacks", "language", "told"),
    [
        ("When did the canteen open?", "The canteen is open to all employees.", "date", "en", "no date"),
        ("How many seats has the canteen?", "The seats in the canteen are new.", "number", "en", "no number"),
        ("食堂什么时候开业？", "食堂开业以后对全体员工开放。", "date", "zh", "没有给出相关的日期"),
    ],
)  # fmt: skip
def test_where_all_the_words_are_there_it_says_what_kind_of_thing_is_missing(
    question: str, passage: str, lacks: str, language: str, told: str
) -> None:
    reason, refusal = explain(found(question, passage), language=language)
    assert refusal.lacks == lacks
    assert refusal.missing == ()
    assert told in reason


def test_what_is_there_is_not_called_missing() -> None:
    _, refusal = explain(found("When did the canteen open?", "The canteen opened in May 2019."), language="en")
    assert refusal.lacks is None
    # A date that the question names itself is no answer to it.
    asked = "In which month of 2019 did the canteen open?"
    _, refusal = explain(found(asked, "The canteen did open in 2019, in a month that nobody knows."), language="en")
    assert refusal.lacks == "date"


@pytest.mark.parametrize(
    ("question", "passage", "language", "remedy"),
    [
        ("Who pays for the night shift?", PAID, "en", "attest reindex"),
        ("谁支付潜水艇的费用？", TOLD, "zh", "ATTEST_EMBEDDER"),
    ],
)
def test_across_languages_it_says_that_the_embedder_cannot_and_what_to_configure(
    question: str, passage: str, language: str, remedy: str
) -> None:
    embedder = HashEmbedder(name="reads-english", reads_chinese=False)
    item = found(question, passage, embedder=embedder, coverage=embedder.coverage(question))
    reason, refusal = explain(item, language=language)
    assert refusal.kind == "across_languages"
    assert "reads-english" in reason
    assert remedy in reason
    both, refusal = explain(found(question, passage, embedder=HashEmbedder(name="reads-both")), language=language)
    assert refusal.kind == "no_evidence"
    assert "reads-both" not in both
