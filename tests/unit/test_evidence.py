"""Evidence: words, codes and vectors, each as far as it can be trusted."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from rag.answer import Assistant, Question
from rag.answering.evidence import CHINESE, ENGLISH, ENOUGH, Features, evidence, features
from rag.text.keywords import keywords
from tests.bases import Bases, publish_text, source_in
from tests.found import BREAD, LEAVE, PAID, PAY, TOLD, found

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
    against = {"lacking", "unheard", "bare"}
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


SEVERAL = (
    "Did the Porto newspaper report that canal freight tolls rose in spring, while the Suzhou magazine praised the"
    " cheaper night trains?"
)
TOLLS = "The Porto newspaper wrote a report on the canal: freight tolls rose in spring."
TRAINS = "A Suzhou magazine praised the night trains, which are cheaper."


def test_a_question_of_several_parts_may_find_each_in_another_passage() -> None:
    assert evidence(found(SEVERAL, TOLLS, TRAINS)) > ENOUGH
    assert evidence(found(SEVERAL, TOLLS, others=[TRAINS])) < ENOUGH
    assert evidence(found(SEVERAL, TRAINS, others=[TOLLS])) < ENOUGH


def test_a_question_of_one_part_is_not_put_together_from_several_passages() -> None:
    halves = "Employees in Rotterdam have a canteen.", "Interns take days of leave that is not paid."
    assert features(found(LEAVE, *halves)) == [
        features(found(LEAVE, half, others=[other]))[0] for half, other in (halves, halves[::-1])
    ]


def test_a_known_code_alone_carries_no_answer() -> None:
    question = "With what torque are the screws of the TL-1207 tightened?"
    told = "Tighten the screws of the TL-1207 with a torque of 0.4 Nm."
    others = ["The TL-1207 is sold in Porto.", "Stock: TL-1207, Rotterdam, 1265 pieces."]
    assert evidence(found(question, told, *others)) > ENOUGH
    assert evidence(found(question, *others, others=[told])) < ENOUGH
    another = found(question, "The TL-1530 is sold in Porto.", others=[told, *others])
    assert evidence(found(question, *others, others=[told])) > evidence(another)


def test_another_language_counts_for_a_code_that_ones_own_does_not_have() -> None:
    chinese, english = "E-07 表示探头接头受潮，请擦干。", "The display has two lines."
    assert evidence(found("What does E-07 on the display mean?", chinese, english)) > ENOUGH
    named = "The TL-1207 can be read by phone.", "TL-1207 内有电池，可读取三年。"
    for asked, others in (("Which patent covers the TL-1207?", named), ("TL-1207 的防爆认证是哪一级？", named[::-1])):
        assert evidence(found(asked, *others)) < ENOUGH


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


def test_an_answer_says_how_probable_it_is_and_a_question_may_ask_for_more_or_less(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    base = bases.open()
    publish_text(base, *source_in(base, collection="handbooks"), "leave.txt", TOLD, title="Leave")
    assistant = Assistant(base, model=None)
    answer = assistant.answer(Question(LEAVE))
    assert answer.evidence is not None
    assert ENOUGH <= answer.evidence < 1.0
    assert assistant.answer(Question(LEAVE, min_evidence=1.0)).refused
    refused = assistant.answer(Question("Which submarine did the employees of Rotterdam paint?", min_evidence=0.999))
    assert refused.evidence is not None
    assert refused.evidence < answer.evidence
    assert not assistant.answer(Question(refused.standalone_question, min_evidence=0.0)).refused
    bases.close()


@pytest.mark.parametrize(
    ("question", "content"),
    [
        ("试用期是多长时间？", ["试用期"]),
        ("保修期有多长", ["保修期"]),
        ("多高的温度", ["温度"]),
        ("How long is the probation period?", ["probation", "period"]),
    ],
)
def test_words_that_only_ask_are_nothing_that_a_passage_must_say(question: str, content: list[str]) -> None:
    assert [word.text for word in keywords(question, lambda terms: [3.0] * len(terms))] == content
