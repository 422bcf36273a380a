"""A question too vague to answer is given readings to choose from, and only such a question."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.schemas.questions import AnswerOut
from rag.answer import Assistant, Final, Question
from rag.knowledge import KnowledgeBase
from rag.models import Answer, Turn
from tests.bases import Bases, publish_text, source_in
from tests.fakes import ScriptedModel

TEXTS = {
    "Hotels": "The limit for a hotel is 140 euros.",
    "Gifts": "The limit for a gift is 50 euros.",
    "Alarms": "The limit of an alarm is set with a code.",
    "Discounts": "The limit for a discount is 12 percent.",
    "Speed": "The limit on the yard is 10 kilometres.",
    "酒店": "酒店限额为每晚八百元。",
    "礼品": "礼品限额为两百元。",
    "折扣": "折扣限额为百分之十。",
    "Canteen": "The canteen opens at nine in the morning.\nThe canteen is closed on Sundays.",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    """Only ever read from."""
    bases = Bases(tmp_path_factory.mktemp("data"))
    base = bases.open()
    into = source_in(base, collection="handbooks")
    for title, text in TEXTS.items():
        publish_text(base, *into, f"{title}.txt", text, title=title)
    yield base
    bases.close()


def ask(base: KnowledgeBase, question: str, *history: str) -> Answer:
    turns = tuple(Turn("user", text) for text in history)
    return Assistant(base, model=None, enough_evidence=0.3).answer(Question(question, history=turns))


@pytest.mark.parametrize(
    "question",
    ["Tell me about limits", "What about the limit?", "limits", "Limit?", "What is the limit?", "What are the limits?"],
)
def test_a_topic_of_which_nothing_is_asked_gets_readings(base: KnowledgeBase, question: str) -> None:
    answer = ask(base, question)
    assert answer.refused
    assert answer.refusal is not None
    assert "vague" in answer.answer
    assert answer.refusal.reason == answer.answer
    readings = answer.refusal.readings
    assert len(readings) == 4
    assert len({item.document_id for item in readings}) == 4  # of different documents, while there are enough
    assert all(item.title in TEXTS and item.question in answer.answer for item in readings)
    assert (answer.citations, answer.sentences) == ((), ())


@pytest.mark.parametrize("question", ["限额？", "请介绍一下限额", "关于限额", "限额呢？", "限额是多少？"])
def test_readings_are_in_the_questions_language(base: KnowledgeBase, question: str) -> None:
    answer = ask(base, question)
    assert answer.refusal is not None
    assert {item.title for item in answer.refusal.readings} == {"酒店", "礼品", "折扣"}
    assert "太笼统" in answer.answer
    assert all("限额" in item.question for item in answer.refusal.readings)


def test_a_reading_can_be_asked_and_is_answered_from_its_document(base: KnowledgeBase) -> None:
    first = ask(base, "Tell me about limits")
    assert first.refusal is not None
    for reading in first.refusal.readings:
        answer = ask(base, reading.question)
        assert not answer.refused, reading
        assert answer.citations[0].document_id == reading.document_id


@pytest.mark.parametrize(
    "question",
    [
        "What is the limit for a hotel?",
        "How high is the limit for gifts?",
        "Hotel limit",
        "Tell me about the canteen",
        "canteen",
        "When does the canteen open?",
        "酒店限额是多少？",
        "礼品限额",
    ],
)
def test_what_is_clear_is_answered(base: KnowledgeBase, question: str) -> None:
    assert not ask(base, question).refused


def test_a_follow_up_is_as_clear_as_what_it_leans_on(base: KnowledgeBase) -> None:
    assert not ask(base, "What about the limit?", "Can I stay at a hotel?").refused


def test_a_question_without_a_content_word_gets_readings_where_nothing_answers_it(base: KnowledgeBase) -> None:
    answer = ask(base, "Tell me more")
    assert answer.refusal is not None
    assert answer.refusal.readings
    assert answer.answer.split("\n- ")[1:] == [item.question for item in answer.refusal.readings], "each on its line"


def test_what_has_no_content_word_is_not_said_to_stand_in_the_documents(base: KnowledgeBase) -> None:
    assert "多处" in ask(base, "介绍一下限额").answer
    assert "多处" not in ask(base, "请问一下？").answer


def test_a_model_is_not_asked_to_guess(base: KnowledgeBase) -> None:
    model = ScriptedModel("The limit is 140 euros [1].")
    *_, last = Assistant(base, model=model, enough_evidence=0.0).stream(Question("Tell me about limits"))
    assert isinstance(last, Final)
    shown = AnswerOut.of(last.answer)
    assert shown.refusal is not None
    assert [item.title for item in shown.refusal.readings] == [item.title for item in last.answer.refusal.readings]  # type: ignore[union-attr]
    assert len(shown.refusal.readings) == 4


def test_an_empty_collection_has_no_readings(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    empty = bases.open()
    source_in(empty, collection="empty")
    answer = ask(empty, "Tell me about limits")
    assert answer.refusal is not None
    assert answer.refusal.readings == ()
    bases.close()
