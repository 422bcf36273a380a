"""A follow-up gets what it leans on; a question that stands alone is left alone."""

from __future__ import annotations

import pytest

from rag.followup import needs_history, standalone
from rag.models import Turn

HISTORY = (Turn("user", "How heavy is the X200 drill?"), Turn("assistant", "It weighs 1.8 kg [1]."))
CHINESE_HISTORY = (Turn("user", "X200电钻有多重？"), Turn("assistant", "1.8公斤[1]。"))


@pytest.mark.parametrize(
    "question",
    [
        "How much does it cost?",
        "And its battery?",
        "What about the X300?",
        "Who sells them?",
        "Is this one waterproof?",
        "What is sold there?",
        "那X300呢？",
        "它多少钱？",
        "这款防水吗？",
        "还有别的颜色吗",
        "他们在哪里？",
        "该产品保修多久？",
        "其重量是多少？",
    ],
)
def test_what_leans_on_the_last_question_is_noticed(question: str) -> None:
    assert needs_history(question)


@pytest.mark.parametrize(
    "question",
    [
        "How heavy is the X300 drill?",
        "What is the notice period for employees?",
        "Is there a canteen in Porto?",
        "How many days of leave are there in Porto?",
        "X300电钻有多重？",
        "员工应该怎么请假？",
        "其他城市有办公室吗？",
        "哪些产品尤其畅销？",
        "年假有几天？",
    ],
)
def test_what_stands_alone_is_left_alone(question: str) -> None:
    assert not needs_history(question)
    assert standalone(question, HISTORY) == question


def test_the_last_question_is_put_in_front() -> None:
    found = standalone("How much does it cost?", HISTORY)
    assert "X200 drill" in found
    assert "How much does it cost?" in found
    found = standalone("它多少钱？", CHINESE_HISTORY)
    assert "X200电钻" in found
    assert "它多少钱？" in found


def test_only_the_asker_is_quoted_and_the_last_question_counts() -> None:
    history = (Turn("user", "Who founded Acme?"), *HISTORY, Turn("assistant", "Bananas."))
    found = standalone("How much does it cost?", history)
    assert "Acme" not in found
    assert "Bananas" not in found


@pytest.mark.parametrize("history", [(), (Turn("assistant", "Hello."),), (Turn("user", "  "),)])
def test_without_a_question_before_it_stays_as_it_is(history: tuple[Turn, ...]) -> None:
    assert standalone("How much does it cost?", history) == "How much does it cost?"
