"""What a question asks for, and that a question for two things is taken apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rag.answering.asked import Kind, asked, parts
from rag.text.keywords import keywords

KINDS: list[tuple[Kind, str]] = [
    ("date", "When was the bridge opened?"),
    ("date", "In what year did the war end?"),
    ("date", "What is the release date of version 5?"),
    ("date", "大桥是什么时候通车的？"),
    ("date", "公司哪一年成立？"),
    ("number", "How many people work in Porto?"),
    ("number", "How long is the warranty?"),
    ("number", "What does the drill cost?"),
    ("number", "What percentage of the cells is tested?"),
    ("number", "年假有几天？"),
    ("number", "住宿费是多少？"),
    ("person", "Who approves an order?"),
    ("person", "采购由谁批准？"),
    ("place", "Where is the warehouse?"),
    ("place", "Which city is the warehouse in?"),
    ("place", "仓库位于哪个城市？"),
    ("reason", "Why was the test repeated?"),
    ("reason", "为什么要重新测试？"),
    ("manner", "How is the battery replaced?"),
    ("manner", "How is it decided where they go?"),
    ("manner", "如何更换电池？"),
    ("yes_no", "Is the canteen open on Sundays?"),
    ("yes_no", "周日食堂开门吗？"),
    ("definition", "What is a probe?"),
    ("definition", "什么是探头？"),
    ("thing", "What happens when the battery is empty?"),
    ("thing", "哪些材料可以回收？"),
]


@pytest.mark.parametrize(("kind", "question"), KINDS)
def test_the_kind_of_thing_that_a_question_asks_for_is_told(kind: Kind, question: str) -> None:
    assert asked(question).kind == kind


def test_traditional_characters_ask_the_same() -> None:
    assert asked("大橋是什麼時候通車的？") == asked("大桥是什么时候通车的？")


def test_the_noun_that_is_asked_for_is_known_by_its_terms() -> None:
    assert asked("Which cities have an office?").noun == {"citi"}
    assert "国家" in asked("总部在哪个国家？").noun


def wanted_of(question: str) -> list[tuple[str, list[str]]]:
    def equal(terms: Sequence[str]) -> list[float]:
        return [2.0] * len(terms)

    found = parts(question, keywords(question, equal))
    return [(part.text, [word.text for word in part.wanted]) for part in found]


def test_two_questions_in_one_are_two_parts_and_the_second_knows_what_it_is_about() -> None:
    first, second = wanted_of("What is the X200 and when was it introduced?")
    assert first == ("What is the X200", ["X200"])
    assert second == ("when was it introduced", ["introduced", "X200"])


def test_what_is_asked_of_two_things_each_is_asked_of_both() -> None:
    first, second = wanted_of("北京和上海的住宿标准分别是多少？")
    assert first == ("北京的住宿标准是多少？", ["北京", "住宿", "标准"])
    assert second == ("上海的住宿标准是多少？", ["上海", "住宿", "标准"])


def test_two_clauses_that_both_ask_are_two_parts() -> None:
    assert [text for text, _ in wanted_of("春节放假到哪天，之后哪天要补班？")] == ["春节放假到哪天", "之后哪天要补班"]


@pytest.mark.parametrize(
    "question",
    [
        "What do England and Wales share?",
        "A cell in the warehouse is swollen and hot. Where should it go?",
        "If the manager is away, who lifts the stop?",
        "产线停了一个多小时，应该向谁报告？",
        "When did the war between France and Prussia end?",
    ],
)
def test_a_question_that_asks_one_thing_stays_whole(question: str) -> None:
    assert [text for text, _ in wanted_of(question)] == [question]
