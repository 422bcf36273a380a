"""Other wordings of a question are looked up beside it, and a model that gives none changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest

from rag.answer import Assistant, Question
from rag.errors import ModelError, ModelTimeout, ModelUnavailable
from rag.knowledge import KnowledgeBase
from rag.models import Hit, Turn
from rag.retrieval import rewrites as rewriting
from rag.retrieval.retrieve import Found
from rag.retrieval.rewrites import fused, rewrites, wordings
from tests.bases import Bases, publish_text, source_in
from tests.fakes import ScriptedModel

LEAVE = "Employees in Porto have 25 days of paid leave a year."
CHINESE = "波尔图的员工每年有二十五天带薪年假。"
QUESTION = "How much holiday may the staff take?"
OTHERS = "1. How many days of paid leave do employees have?\n2. What paid leave do employees have in a year?"
GOOD = "Employees in Porto have 25 days of paid leave a year [1]."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    """Only ever read from."""
    bases = Bases(tmp_path_factory.mktemp("data"))
    base = bases.open()
    into = source_in(base)
    for name, text in (
        ("leave", LEAVE),
        ("staff", "The staff may take the lift. The staff may take bread from the canteen."),
        ("canteen", "How much the canteen costs is written on its door."),
        ("年假", CHINESE),
    ):
        publish_text(base, *into, f"{name}.txt", text, title=name)
    yield base
    bases.close()


def assistant(base: KnowledgeBase, *replies: str | ModelError, n: int = 2) -> tuple[Assistant, ScriptedModel]:
    model = ScriptedModel(*replies)
    return Assistant(base, model=model, enough_evidence=0.0, query_rewrites=n), model


# ── what a model writes ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("How long is the leave?\nHow many days off?", ("How long is the leave?", "How many days off?")),
        (
            "Here are two questions:\n\n1. “How long is the leave?”\n- How many days off?",
            ("How long is the leave?", "How many days off?"),
        ),
        ("How long is the leave?\nHow long is the leave?", ("How long is the leave?",)),
        ("How much holiday may the staff take?", ()),  # it is the question
        ("The staff may take 25 days.", ()),  # it answers
        ("员工有多少天假期？", ()),
        ("How " * 80 + "long?", ()),
        ("?", ()),
        ("", ()),
    ],
)
def test_lines_that_ask_the_question_otherwise_are_wordings(reply: str, expected: tuple[str, ...]) -> None:
    assert wordings(reply, QUESTION, n=3) == expected


def test_a_chinese_question_has_chinese_wordings() -> None:
    reply = "以下是两种说法：\n1、员工每年有几天年假？\n2、每年的带薪年假是多少天？"
    assert wordings(reply, "年假有几天？", n=3) == ("员工每年有几天年假？", "每年的带薪年假是多少天？")


def test_no_more_wordings_than_were_asked_for() -> None:
    model = ScriptedModel("Which one?\n" + "".join(f"Which other {n}?\n" for n in range(50)))
    assert rewrites(model, QUESTION, n=2) == ("Which one?", "Which other 0?")
    assert model.closed_early == 1  # nobody waits for the rest


def test_of_a_model_that_is_slow_the_complete_lines_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr(rewriting, "time", SimpleNamespace(monotonic=lambda: 2.0 * next(seconds)))
    model = ScriptedModel("How long is the leave?\nHow many days off may they take?")  # five characters in two seconds
    assert rewrites(model, QUESTION, n=2) == ("How long is the leave?",)
    assert model.closed_early == 1


# ── what is found with them ───────────────────────────────────────────────────────────────────


def test_a_passage_in_other_words_than_the_questions_is_found_first(base: KnowledgeBase) -> None:
    plain, _ = assistant(base, GOOD, n=0)
    assert plain.search(Question(QUESTION)).hits[0].title != "leave"
    with_others, model = assistant(base, OTHERS, GOOD)
    answer = with_others.answer(Question(QUESTION))
    assert answer.rewrites == (
        "How many days of paid leave do employees have?",
        "What paid leave do employees have in a year?",
    )
    assert answer.citations[0].title == "leave"
    assert answer.standalone_question == QUESTION
    assert (answer.degraded, answer.support) == (None, "supported")
    assert len(model.asked) == 2
    assert QUESTION in model.asked[0][-1].content


def test_without_the_setting_nothing_is_asked_for(base: KnowledgeBase) -> None:
    model = ScriptedModel(GOOD)
    answer = Assistant(base, model=model, enough_evidence=0.0).answer(Question(QUESTION))
    assert answer.rewrites == ()
    assert len(model.asked) == 1
    assert Assistant(base, model=None, query_rewrites=3).search(Question(QUESTION)).rewrites == ()


@pytest.mark.parametrize("reply", [ModelTimeout("Too late."), ModelUnavailable("Not there."), "", "I cannot do that."])
def test_a_model_that_gives_no_wording_changes_nothing(base: KnowledgeBase, reply: str | ModelError) -> None:
    plain, _ = assistant(base, GOOD, n=0)
    failing, _ = assistant(base, reply, GOOD)
    expected, answer = plain.answer(Question(QUESTION)), failing.answer(Question(QUESTION))
    assert (answer.answer, answer.citations, answer.rewrites) == (expected.answer, expected.citations, ())
    assert (answer.degraded, answer.model) == (None, "scripted")


def test_a_follow_up_is_whole_before_it_is_put_otherwise(base: KnowledgeBase) -> None:
    asked, model = assistant(base, "How much leave do employees in Porto have?", OTHERS, GOOD)
    asked.answer(Question("And how much do they have there?", history=(Turn("user", "Who works in Porto?"),)))
    assert "How much leave do employees in Porto have?" in model.asked[1][-1].content


def test_every_passage_stands_once_and_scores_fall(base: KnowledgeBase) -> None:
    plain, _ = assistant(base, GOOD, n=0)
    own = plain.search(Question(QUESTION, top_k=3))
    other = plain.search(Question("How many days of paid leave do employees have?", top_k=3))
    both = fused(own, [("another", other)], k=3)
    keys = [hit.chunk_id for hit in (*both.hits, *both.more)]
    scores = [hit.score for hit in (*both.hits, *both.more)]
    assert sorted(keys) == sorted({hit.chunk_id for one in (own, other) for hit in (*one.hits, *one.more)})
    assert scores == sorted(scores, reverse=True)
    assert len(both.hits) == 3
    assert 0 <= scores[-1] < scores[0] <= 1
    assert both.keywords == own.keywords


def test_what_one_list_has_alone_stands_behind_what_the_lists_agree_on(base: KnowledgeBase) -> None:
    plain, _ = assistant(base, GOOD, n=0)
    found = plain.search(Question(QUESTION, top_k=4))
    staff, *_ = found.hits
    (leave,) = (hit for hit in plain.search(Question(LEAVE, top_k=4)).hits if hit.title == "leave")
    alone = fused(_only(found, staff), [("off the point", _only(found, leave, staff))], k=2)
    assert [hit.title for hit in alone.hits] == [staff.title, "leave"]
    assert set(alone.hits[0].arms) == set(staff.arms)
    assert set(alone.hits[1].arms) == {"rewrite"}  # its cosine is that of another question


def _only(found: Found, *hits: Hit) -> Found:
    return replace(found, hits=hits, more=())
