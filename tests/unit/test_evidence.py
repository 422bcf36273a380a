"""Evidence: words, codes and vectors, each as far as it can be trusted; and a refusal that says what was missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rag.answer import Assistant, Question
from rag.evidence import CHINESE, ENGLISH, ENOUGH, Features, evidence, explain, features
from rag.keywords import keywords
from rag.language import terms
from rag.models import Hit
from rag.retrieve import Found, View
from rag.terms import inverse_document_frequency
from tests.bases import Bases, publish_text, source_in
from tests.fakes import HashEmbedder

LEAVE = "How many days of paid leave do employees in Rotterdam have?"
TOLD = "Employees in Rotterdam have 27 days of paid leave a year."
BREAD = "Sourdough has to rise overnight, and longer where the kitchen is cold."
PAY = "夜班津贴是多少元？"
PAID = "夜班津贴为每班 58 元，随工资发放。"


def hit(text: str, cosine: float | None, *, number: int = 0, title: str = "Handbook") -> Hit:
    arms = {} if cosine is None else {"vectors": cosine}
    return Hit(number, "c", f"d{number}", 1, title, f"{number}.txt", (), 0, len(text), text, "", 9, 0.0, arms)


def found(
    question: str,
    *texts: str,
    cosines: Sequence[float | None] | None = None,
    coverage: float = 1.0,
    others: Sequence[str] = (),
) -> Found:
    """As if these passages had come up, in a collection that has the other texts as well, many times each."""
    cosines = [None] * len(texts) if cosines is None else cosines
    every = [set(terms(text)) for text in (*texts, *others)]

    def rarity(wanted: Sequence[str]) -> list[float]:
        return [inverse_document_frequency(100, 5 * sum(term in one for one in every)) for term in wanted]

    hits = tuple(
        hit(text, cosine, number=number) for number, (text, cosine) in enumerate(zip(texts, cosines, strict=True))
    )
    view = View(HashEmbedder(), np.zeros(256, dtype=np.float32), coverage)
    return Found(hits, {"c": len(texts)}, keywords(question, rarity), {"c": view}, {})


# ── what is enough ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("question", "told"), [(LEAVE, TOLD), (PAY, PAID)])
def test_a_passage_with_the_words_is_enough_and_one_about_something_else_is_not(question: str, told: str) -> None:
    assert evidence(found(question, told, others=[BREAD])) > ENOUGH
    assert evidence(found(question, BREAD, others=[told])) < ENOUGH


def test_nothing_found_and_nothing_asked_are_no_evidence() -> None:
    assert evidence(found(LEAVE)) == 0.0
    assert evidence(found("?!", TOLD)) == 0.0


@pytest.mark.parametrize("weights", [ENGLISH, CHINESE])
def test_what_speaks_for_an_answer_never_counts_against_it(weights: object) -> None:
    against = {"lacking", "unheard"}
    for one in fields(Features):
        weight = getattr(weights, one.name)
        assert weight <= 0 if one.name in against else weight >= 0, one.name


def test_a_code_that_no_document_has_is_refused_though_all_the_rest_is_there() -> None:
    known, unknown = "What does the TL-1530 cost?", "What does the TL-1650 cost?"
    told = "The TL-1530 logger costs 129 euros."
    assert evidence(found(known, told)) > ENOUGH
    assert evidence(found(unknown, told)) < ENOUGH


def test_the_best_passage_counts_wherever_it_stands_among_the_first_five() -> None:
    before = [BREAD] * 4
    assert evidence(found(LEAVE, *before, TOLD)) > ENOUGH
    assert evidence(found(LEAVE, *before, BREAD, TOLD)) < ENOUGH


def test_words_that_stand_in_one_sentence_count_more_than_the_same_words_far_apart() -> None:
    apart = "Employees have a canteen. Rotterdam is far. Days are long. It was paid. They took leave."
    together, scattered = features(found(LEAVE, TOLD, others=[apart])), features(found(LEAVE, apart, others=[TOLD]))
    assert together[0].together > scattered[0].together
    assert together[0].words == pytest.approx(scattered[0].words, abs=0.01)


# ── what an embedder may say ──────────────────────────────────────────────────────────────────


def test_near_vectors_are_evidence_and_far_ones_are_against_it() -> None:
    other = "Staff there may take twenty-seven of them off."
    near, far = (evidence(found(LEAVE, other, cosines=[cosine])) for cosine in (0.8, 0.1))
    assert near > evidence(found(LEAVE, other, cosines=[0.4])) > far


@pytest.mark.parametrize(("question", "told"), [(LEAVE, TOLD), (PAY, PAID)])
def test_an_embedder_that_does_not_read_the_question_says_nothing(question: str, told: str) -> None:
    def judged(text: str, cosine: float) -> float:
        return evidence(found(question, text, cosines=[cosine], coverage=0.0, others=[told, BREAD]))

    assert judged(told, 0.1) == judged(told, 0.9) > ENOUGH
    assert judged(BREAD, 0.1) == judged(BREAD, 0.9) < ENOUGH


def test_an_embedder_that_finds_everything_near_makes_no_evidence_of_it() -> None:
    texts = [f"{BREAD} {number}" for number in range(8)]
    assert evidence(found(LEAVE, *texts, cosines=[0.82] * 8)) < ENOUGH
    assert evidence(found(LEAVE, *texts, cosines=[0.82] * 8)) == evidence(found(LEAVE, *texts, cosines=[0.4] * 8))


def test_across_languages_vectors_say_nothing_and_words_of_the_other_language_are_not_missed() -> None:
    question = "TL-1530 的电池可以用多久？"
    english = "The battery of the TL-1530 lasts four years."
    near, far = (features(found(question, english, cosines=[cosine])) for cosine in (0.9, 0.1))
    assert near == far
    assert [(item.unheard, item.lacking) for item in near] == [(0.0, 0.0)]


def test_hashed_words_for_an_embedder_answer_and_refuse_as_well(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    base = bases.open()
    into = source_in(base, collection="handbooks")
    for number, text in enumerate((TOLD, BREAD, PAID, "The canteen opens at nine in the morning.")):
        publish_text(base, *into, f"{number}.txt", text, title=f"Text {number}")
    assistant = Assistant(base, model=None)
    for question in (LEAVE, PAY):
        assert not assistant.answer(Question(question)).refused, question
    for question in ("Which submarine did Zanzibar's astronomers paint?", "火星上的潜水艇是谁画的？"):
        assert assistant.answer(Question(question)).refused, question
    bases.close()


# ── why not ───────────────────────────────────────────────────────────────────────────────────


def test_a_refusal_names_what_was_searched_what_came_closest_and_the_rarest_words_that_are_missing() -> None:
    asked = "How many days of paid leave do employees in Hamburg have?"
    reason, refusal = explain(found(asked, TOLD), language="en")
    assert "1 document " in reason
    assert "“Hamburg”" in reason
    assert "Rotterdam" not in reason
    assert [item.text for item in refusal.closest] == [TOLD]
    reason, _ = explain(found("潜水艇的津贴是多少？", PAID), language="zh")
    assert "潜水艇" in reason
    assert "“津贴”" not in reason


def test_words_that_only_ask_are_not_named_beside_what_was_asked() -> None:
    reason, _ = explain(found("What is the name of the submarine called?", BREAD), language="en")
    assert "“submarine”" in reason
    assert "“called”" not in reason
