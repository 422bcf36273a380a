"""Answers: every sentence carries its source, no evidence means no answer, and a failing model is never the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rag.answer import EXTRACTIVE, Assistant, Event, Final, Question, Retrieval, Said, Token, _told
from rag.answering.extract import Extract
from rag.catalog import versions
from rag.errors import (
    EmbedderMismatch,
    ModelError,
    ModelRejected,
    ModelSilent,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
)
from rag.knowledge import KnowledgeBase
from rag.llm.prompts import NO_ANSWER
from rag.models import Answer, Hit, Turn, Usage
from rag.retrieval.retrieve import Found, retrieve
from tests.bases import Bases, publish_text, source_in
from tests.fakes import HashEmbedder, ScriptedModel

HANDBOOK = (
    "Employees in Porto have 25 days of paid leave a year.\n"
    "The office in Porto opens at nine in the morning.\n"
    "The canteen in Porto is closed on Sundays."
)
MANUAL = "The X200 drill weighs 1.8 kilograms. Its battery lasts four hours.\nThe X200 drill costs 129 euros."
CHINESE = "波尔图的员工每年有二十五天带薪年假。\n波尔图办公室上午九点开门。"
LEAVE = "How many days of paid leave do employees in Porto have?"
DRILL = "How much does the X200 drill weigh?"
NONSENSE = "Which submarine did Zanzibar's astronomers paint?"


def handbooks(folder: Path) -> tuple[Bases, KnowledgeBase]:
    bases = Bases(folder)
    base = bases.open()
    into = source_in(base, collection="handbooks")
    for key, text in (("handbook.txt", HANDBOOK), ("manual.txt", MANUAL), ("手册.txt", CHINESE)):
        publish_text(base, *into, key, text, title=key.partition(".")[0])
    return bases, base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    """Only ever read from."""
    bases, base = handbooks(tmp_path_factory.mktemp("data"))
    yield base
    bases.close()


def assistant(base: KnowledgeBase, *replies: str | ModelError | list[str | ModelError], **model: object) -> Assistant:
    """With a model that says these; evidence is not what is tested here."""
    scripted = ScriptedModel(*replies, **model) if replies else None  # type: ignore[arg-type]
    return Assistant(base, model=scripted, enough_evidence=0.0 if replies else 0.3)


def ask(base: KnowledgeBase, question: str, *replies: str | ModelError | list[str | ModelError]) -> Answer:
    return assistant(base, *replies).answer(Question(question))


def assert_holds(base: KnowledgeBase, answer: Answer) -> None:
    """What is true of every answer."""
    for citation in answer.citations:
        with base.catalog.read() as snapshot:
            text = versions.version_row(snapshot, citation.document_id, citation.version).text
        assert text[citation.start : citation.end] == citation.quote
        assert citation.quote.strip()
    assert [citation.n for citation in answer.citations] == list(range(1, len(answer.citations) + 1))
    end = 0
    for sentence in answer.sentences:
        assert answer.answer[sentence.start : sentence.end] == sentence.text
        assert sentence.start >= end
        end = sentence.end
        assert set(sentence.citations) <= {citation.n for citation in answer.citations}
        assert sentence.citations or sentence.support == "unsupported"
        for n in sentence.citations:
            assert f"[{n}]" in answer.answer[sentence.end :]
    assert answer.refused == (answer.refusal is not None)
    assert answer.answer.strip()
    if answer.short_answer is not None:
        short, cited = answer.short_answer, answer.citations[answer.short_answer.citation - 1]
        assert cited.start <= short.start < short.end <= cited.end
        assert cited.quote[short.start - cited.start : short.end - cited.start] == short.text
    if answer.refused:
        assert answer.citations == ()
        assert answer.sentences == ()


# ── without a model ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("question", "says", "language"),
    [(LEAVE, "25 days", "en"), (DRILL, "1.8 kilograms", "en"), ("波尔图员工有多少天年假？", "二十五天", "zh")],
)
def test_an_answer_is_a_sentence_of_a_source_with_that_source(
    base: KnowledgeBase, question: str, says: str, language: str
) -> None:
    answer = ask(base, question)
    assert not answer.refused
    assert says in answer.sentences[0].text
    assert (answer.model, answer.degraded, answer.language) == (EXTRACTIVE, None, language)
    assert says in answer.citations[0].quote
    assert {sentence.support for sentence in answer.sentences} == {"supported"}
    assert_holds(base, answer)


@pytest.mark.parametrize(
    ("question", "phrase"),
    [(LEAVE, "25"), (DRILL, "1.8 kilograms"), ("波尔图员工有多少天年假？", "二十五天")],
)
def test_the_phrase_that_answers_stands_in_the_quote_of_its_citation(
    base: KnowledgeBase, question: str, phrase: str
) -> None:
    events = list(assistant(base).stream(Question(question)))
    said, final = events[1], events[-1]
    assert isinstance(said, Said)
    assert isinstance(final, Final)
    assert final.answer.short_answer is not None
    assert final.answer.short_answer.text == phrase
    assert said.short_answer == final.answer.short_answer
    assert_holds(base, final.answer)


def test_a_model_and_a_refusal_give_no_short_answer(base: KnowledgeBase) -> None:
    assert ask(base, LEAVE, GOOD).short_answer is None
    assert ask(base, NONSENSE).short_answer is None


def test_the_same_question_has_the_same_answer(base: KnowledgeBase) -> None:
    first, again = ask(base, LEAVE), ask(base, LEAVE)
    assert (first.answer, first.citations) == (again.answer, again.citations)
    assert first.id != again.id


def test_no_evidence_is_refused_with_what_was_searched_what_came_closest_and_why(base: KnowledgeBase) -> None:
    answer = ask(base, NONSENSE)
    assert answer.refusal is not None
    assert answer.refusal.searched == {"handbooks": 3}
    assert answer.refusal.reason == answer.answer
    assert "3 documents" in answer.answer
    for closest in answer.refusal.closest:
        assert closest.document_id
        assert closest.text
    assert_holds(base, answer)


def test_a_refusal_speaks_the_questions_language(base: KnowledgeBase) -> None:
    answer = ask(base, "火星上的潜水艇是谁画的？")
    assert answer.refused
    assert answer.language == "zh"
    assert "检索" in answer.answer
    assert_holds(base, answer)


def test_an_empty_collection_is_refused_with_nothing_near(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    base = bases.open()
    source_in(base, collection="empty")
    for replies in ((), ("It is 25 [1].",)):
        answer = Assistant(base, model=ScriptedModel(*replies) if replies else None).answer(Question(LEAVE))
        assert answer.refusal is not None
        assert (answer.refusal.searched, answer.refusal.closest) == ({"empty": 0}, ())
    bases.close()


def test_a_collection_that_is_not_there_is_said_before_the_first_event(base: KnowledgeBase) -> None:
    with pytest.raises(NotFound):
        next(iter(assistant(base).stream(Question(LEAVE, collections=("nowhere",)))))


def test_two_questions_are_looked_up_at_once_and_the_past_takes_nobodys_turn(
    base: KnowledgeBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, free = threading.Lock(), threading.Event()
    at_once: list[int] = []
    inside = 0

    def slow(text: str, **given: Any) -> Found:
        nonlocal inside
        with lock:
            inside += 1
            at_once.append(inside)
        if given["as_of"] is None:
            assert free.wait(30)
        with lock:
            inside -= 1
        return retrieve(text, **{**given, "as_of": None})

    monkeypatch.setattr("rag.answer.retrieve", slow)
    asked = assistant(base)
    with ThreadPoolExecutor(6) as threads:
        pending = [threads.submit(asked.search, Question(LEAVE)) for _ in range(5)]
        while len(at_once) < 2:
            time.sleep(0.01)
        assert asked.search(Question(LEAVE, as_of=datetime(2030, 1, 1, tzinfo=UTC))).hits
        assert at_once == [1, 2, 3]
        free.set()
        assert all(future.result(30).hits for future in pending)
    assert len(at_once) == 6
    assert max(at_once) == 3


def test_another_embedder_than_the_collections_is_refused(base: KnowledgeBase) -> None:
    other = KnowledgeBase(base.catalog, base.caches, base.originals, HashEmbedder(name="other"))
    with pytest.raises(EmbedderMismatch, match="handbooks"):
        Assistant(other, model=None).answer(Question(LEAVE))


def test_two_collections_are_asked_together_and_one_alone(tmp_path: Path) -> None:
    bases, base = handbooks(tmp_path)
    more = source_in(base, collection="更多")
    publish_text(base, *more, "saw.txt", "The S90 saw weighs 3.1 kilograms.")
    saw = "How much does the S90 saw weigh?"
    assert "3.1 kilograms" in ask(base, saw).answer
    only = assistant(base).answer(Question(saw, collections=("handbooks",)))
    assert "3.1" not in only.answer
    both = assistant(base).answer(Question(NONSENSE, collections=("handbooks", "更多")))
    assert both.refusal is not None
    assert both.refusal.searched == {"handbooks": 3, "更多": 1}
    bases.close()


# ── with a model ──────────────────────────────────────────────────────────────────────────────

GOOD = "Employees in Porto have 25 days of paid leave a year [1]."


def test_a_models_sentences_carry_their_sources(base: KnowledgeBase) -> None:
    model = ScriptedModel(f"{GOOD} The office in Porto opens at nine in the morning. [2]", usage=Usage(100, 20))
    answer = Assistant(base, model=model, enough_evidence=0.0).answer(Question(LEAVE))
    assert (answer.model, answer.degraded, answer.usage) == ("scripted", None, Usage(100, 20))
    assert [sentence.support for sentence in answer.sentences] == ["supported", "supported"]
    assert "25 days" in answer.citations[0].quote
    assert "opens at nine" in answer.citations[1].quote
    assert_holds(base, answer)


def test_a_chinese_reply_carries_its_sources(base: KnowledgeBase) -> None:
    answer = ask(base, "波尔图员工有多少天年假？", "波尔图的员工每年有二十五天带薪年假【1】。")
    assert answer.sentences[0].text == "波尔图的员工每年有二十五天带薪年假。"
    assert answer.sentences[0].support == "supported"
    assert_holds(base, answer)


def test_a_reply_without_citations_gets_those_that_support_it(base: KnowledgeBase) -> None:
    answer = ask(base, LEAVE, GOOD.replace(" [1]", ""))
    assert answer.sentences[0].support == "supported"
    assert "25 days" in answer.citations[0].quote
    assert_holds(base, answer)


def test_what_no_passage_supports_is_marked_not_hidden(base: KnowledgeBase) -> None:
    answer = ask(base, LEAVE, f"{GOOD} Zanzibar's astronomers painted 17 submarines.")
    assert [sentence.support for sentence in answer.sentences] == ["supported", "unsupported"]
    assert "submarines" in answer.answer
    assert answer.sentences[1].citations == ()
    assert_holds(base, answer)


def test_a_number_that_the_source_does_not_have_is_unsupported_and_not_cited(base: KnowledgeBase) -> None:
    answer = ask(base, LEAVE, f"Employees in Porto have 35 days of paid leave a year [1]. {GOOD}")
    assert [sentence.support for sentence in answer.sentences] == ["unsupported", "supported"]
    assert answer.sentences[0].citations == ()
    assert answer.support == "unsupported"
    assert_holds(base, answer)


def test_a_source_beside_the_right_one_is_not_cited(base: KnowledgeBase) -> None:
    answer = ask(base, LEAVE, GOOD.replace("[1]", "[1][2][3]"))
    assert [citation.support for citation in answer.citations] == ["supported"]
    assert_holds(base, answer)


def test_two_sources_together_support_what_neither_says_alone(base: KnowledgeBase) -> None:
    reply = "Employees in Porto have 25 days of paid leave and the X200 drill costs 129 euros [1][2][3][4][5]."
    answer = ask(base, f"{LEAVE} And what does the X200 drill cost?", reply)
    assert [sentence.support for sentence in answer.sentences] == ["supported"]
    assert len(answer.citations) == 2
    assert_holds(base, answer)


def test_an_answer_is_as_well_supported_as_its_weakest_sentence(base: KnowledgeBase) -> None:
    assert ask(base, LEAVE, GOOD).support == "supported"
    assert ask(base, LEAVE, f"{GOOD} Zanzibar's astronomers painted 17 submarines.").support == "unsupported"
    assert ask(base, LEAVE).support == "supported"
    assert ask(base, NONSENSE).support is None


@pytest.mark.parametrize(
    "reply",
    ["Employees in Porto have 35 days of paid leave a year [1].", "Zanzibar painted 17 submarines. It did so twice."],
)
def test_a_reply_of_which_nothing_is_supported_is_withdrawn(base: KnowledgeBase, reply: str) -> None:
    events = list(assistant(base, reply).stream(Question(LEAVE)))
    assert any(isinstance(event, Token) for event in events)
    [answer] = [event.answer for event in events if isinstance(event, Final)]
    assert answer.degraded is not None
    assert "scripted" in answer.degraded
    assert answer.model == EXTRACTIVE
    assert "25 days" in answer.answer
    assert "35" not in answer.answer
    assert "submarine" not in answer.answer
    assert_holds(base, answer)


def test_where_evidence_is_thin_an_unsupported_reply_is_refused(base: KnowledgeBase) -> None:
    answer = ask(base, NONSENSE, "Zanzibar's astronomers painted 17 submarines [1].")
    assert answer.refused
    assert answer.degraded is not None
    assert_holds(base, answer)


@pytest.mark.parametrize("marker", ["[99]", "[0]", "[7, 99]"])
def test_a_marker_of_a_passage_that_was_not_offered_is_dropped(base: KnowledgeBase, marker: str) -> None:
    answer = ask(base, LEAVE, f"Zanzibar's astronomers painted 17 submarines {marker}. {GOOD}")
    assert "99" not in answer.answer
    assert "[0]" not in answer.answer
    assert answer.sentences[0].support == "unsupported"
    assert answer.sentences[1].support == "supported"
    assert_holds(base, answer)


def test_a_citation_that_points_at_the_neighbour_is_put_right(base: KnowledgeBase) -> None:
    answer = ask(base, LEAVE, "Employees in Porto have 25 days of paid leave a year [2].")
    assert answer.sentences[0].support == "supported"
    assert "25 days" in answer.citations[0].quote
    assert_holds(base, answer)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_model_that_finds_no_answer_refuses(base: KnowledgeBase, language: str) -> None:
    question = LEAVE if language == "en" else "波尔图员工有多少天年假？"
    answer = ask(base, question, NO_ANSWER[language])
    assert answer.refused
    assert (answer.language, answer.model, answer.degraded) == (language, "scripted", None)
    assert NO_ANSWER[language] not in answer.answer
    assert_holds(base, answer)


def test_weak_evidence_does_not_even_ask_the_model(base: KnowledgeBase) -> None:
    model = ScriptedModel("Certainly, it was the Nautilus [1].")
    answer = Assistant(base, model=model).answer(Question(NONSENSE))
    assert answer.refused
    assert model.asked == []


# ── the language of a reply ───────────────────────────────────────────────────────────────────

ZH_LEAVE = "波尔图员工有多少天年假？"
ZH_GOOD = "波尔图的员工每年有二十五天带薪年假[1]。"
EN_WORDS = ["The ", "employees ", "in ", "Porto ", "have ", "25 ", "days ", "of ", "paid ", "leave ", "[3]."]


def test_a_model_that_begins_in_another_language_is_stopped_and_told_once(base: KnowledgeBase) -> None:
    model = ScriptedModel(EN_WORDS * 5, ZH_GOOD)
    events = list(Assistant(base, model=model, enough_evidence=0.0).stream(Question(ZH_LEAVE)))
    assert "".join(event.text for event in events if isinstance(event, Token)) == ZH_GOOD
    [answer] = [event.answer for event in events if isinstance(event, Final)]
    assert (answer.model, answer.degraded, answer.support) == ("scripted", None, "supported")
    assert model.closed_early == 1
    assert "只用中文作答" not in model.asked[0][-1].content
    assert "只用中文作答" in model.asked[1][-1].content


def test_a_model_that_keeps_to_another_language_leaves_the_answer_to_the_sources(base: KnowledgeBase) -> None:
    answer = ask(base, ZH_LEAVE, EN_WORDS, EN_WORDS)
    assert answer.degraded is not None
    assert answer.model == EXTRACTIVE
    assert "二十五天" in answer.answer
    assert_holds(base, answer)


def test_who_asks_for_another_language_gets_it(base: KnowledgeBase) -> None:
    model = ScriptedModel(EN_WORDS)
    answer = Assistant(base, model=model, enough_evidence=0.0).answer(Question(f"{ZH_LEAVE}请用英文回答。"))
    assert (len(model.asked), answer.degraded) == (1, None)
    assert answer.model == "scripted"


# ── models that fail ──────────────────────────────────────────────────────────────────────────

ERRORS = [
    ModelError("It did not answer."),
    ModelTimeout("It did not answer in time."),
    ModelUnavailable("It cannot be reached."),
    ModelRejected("The key was refused.", remedy="Check ATTEST_LLM_API_KEY."),
    ModelSilent("It said nothing."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("after", [0, 3], ids=["at once", "mid-stream"])
def test_a_model_that_fails_leaves_the_answer_to_the_sources(
    base: KnowledgeBase, error: ModelError, after: int
) -> None:
    said: list[str | ModelError] = ["Bananas are blue. [1] ", "Employees ", "in Paris"]
    answer = ask(base, LEAVE, [*said[:after], error])
    assert answer.degraded == str(error)
    assert answer.model == EXTRACTIVE
    assert not answer.refused
    assert "25 days" in answer.answer
    assert "anana" not in answer.answer
    assert "Paris" not in answer.answer
    assert_holds(base, answer)


@pytest.mark.parametrize("reply", ["", "  \n "])
def test_an_empty_reply_is_no_answer(base: KnowledgeBase, reply: str) -> None:
    answer = ask(base, LEAVE, reply)
    assert answer.degraded is not None
    assert "25 days" in answer.answer
    assert_holds(base, answer)


@pytest.mark.parametrize("reply", ["[1]", "…", "[1][2]."])
def test_a_reply_of_nothing_but_markers_is_no_answer(base: KnowledgeBase, reply: str) -> None:
    answer = ask(base, LEAVE, reply)
    assert answer.degraded is not None
    assert "25 days" in answer.answer
    assert_holds(base, answer)


def test_a_window_without_room_for_a_passage_is_said(base: KnowledgeBase) -> None:
    answer = assistant(base, GOOD, window=60).answer(Question(LEAVE))
    assert answer.degraded is not None
    assert "ATTEST_LLM_WINDOW" in answer.degraded
    assert "25 days" in answer.answer
    assert_holds(base, answer)


def test_passages_that_do_not_fit_are_counted_and_the_prompt_fits(base: KnowledgeBase) -> None:
    model = ScriptedModel(GOOD, window=320)
    answer = Assistant(base, model=model, max_tokens=64, enough_evidence=0.0).answer(Question(LEAVE))
    assert answer.left_out > 0
    assert answer.degraded is None
    [prompt] = model.asked
    assert sum(model.count_tokens(message.content) for message in prompt) + model.max_tokens[0] <= model.window
    wide = assistant(base, GOOD, window=8000).answer(Question(LEAVE))
    assert wide.left_out == 0


# ── as a stream ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("replies", [(), (f"{GOOD} And 17 submarines.",), (ModelTimeout("Too late."),)])
def test_the_plain_answer_is_the_last_event_of_the_stream(
    base: KnowledgeBase, replies: tuple[str | ModelError, ...]
) -> None:
    events = list(assistant(base, *replies).stream(Question(LEAVE)))
    assert isinstance(events[0], Retrieval)
    assert [event for event in events if isinstance(event, Final)] == [events[-1]]
    last = events[-1]
    assert isinstance(last, Final)
    plain = ask(base, LEAVE, *replies)
    for name in ("answer", "citations", "sentences", "refusal", "model", "degraded", "left_out"):
        assert getattr(plain, name) == getattr(last.answer, name), name


def test_tokens_are_the_reply_and_sentences_come_while_it_is_written(base: KnowledgeBase) -> None:
    reply = f"{GOOD} The office in Porto opens at nine in the morning [2]. Bring a key."
    events = list(assistant(base, reply).stream(Question(LEAVE)))
    assert "".join(event.text for event in events if isinstance(event, Token)) == reply
    said = [event for event in events if isinstance(event, Said)]
    assert said[0].sentence.text == GOOD.replace(" [1]", "")
    assert said[0].citations[0].quote
    assert events.index(said[0]) < max(index for index, event in enumerate(events) if isinstance(event, Token))
    final = events[-1]
    assert isinstance(final, Final)
    assert [event.sentence for event in said] == list(final.answer.sentences)[: len(said)]


def test_nothing_is_asked_of_the_model_before_the_first_event_is_taken(base: KnowledgeBase) -> None:
    model = ScriptedModel(GOOD)
    stream = Assistant(base, model=model, enough_evidence=0.0).stream(Question(LEAVE))
    assert isinstance(next(iter(stream)), Retrieval)
    assert model.asked == []


def test_closing_the_stream_closes_the_models(base: KnowledgeBase) -> None:
    model = ScriptedModel(GOOD)
    stream = Assistant(base, model=model, enough_evidence=0.0).stream(Question(LEAVE))
    taken: list[Event] = []
    for event in stream:
        taken.append(event)
        if isinstance(event, Token):
            break
    assert model.closed_early == 0
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert model.closed_early == 1


# ── follow-ups ────────────────────────────────────────────────────────────────────────────────

HISTORY = (Turn("user", DRILL), Turn("assistant", "It weighs 1.8 kilograms [1]."))


def test_a_follow_up_is_answered_from_what_it_leans_on(base: KnowledgeBase) -> None:
    answer = assistant(base).answer(Question("And how much does it cost?", history=HISTORY))
    assert "X200" in answer.standalone_question
    assert "129 euros" in answer.answer
    assert_holds(base, answer)


def test_a_model_rewrites_the_follow_up_and_the_question_itself_is_answered(base: KnowledgeBase) -> None:
    model = ScriptedModel("How much does the X200 drill cost?", "The X200 drill costs 129 euros [1].")
    answer = Assistant(base, model=model, enough_evidence=0.0).answer(
        Question("And how much does it cost?", history=HISTORY)
    )
    assert answer.standalone_question == "How much does the X200 drill cost?"
    assert answer.sentences[0].support == "supported"
    assert_holds(base, answer)


@pytest.mark.parametrize("rewriting", [ModelTimeout("Too late."), "", "x" * 5000])
def test_a_rewriting_that_fails_falls_back_to_the_last_question(
    base: KnowledgeBase, rewriting: str | ModelError
) -> None:
    model = ScriptedModel(rewriting, "The X200 drill costs 129 euros [1].")
    answer = Assistant(base, model=model, enough_evidence=0.0).answer(
        Question("And how much does it cost?", history=HISTORY)
    )
    assert "X200" in answer.standalone_question
    assert (answer.degraded, answer.model) == (None, "scripted")
    assert_holds(base, answer)


def test_a_row_of_a_page_is_told_with_the_names_of_its_columns_and_quoted_as_it_stands() -> None:
    row = "Recalibration | 145 EUR | 2 weeks"
    hit = Hit(
        chunk_id=1,
        collection_id="col",
        document_id="doc",
        version=1,
        title="Prices",
        uri="prices.pdf",
        places=(),
        start=10,
        end=10 + len(row),
        text=row,
        heading="Prices\nService | Price | Time",
        tokens=8,
        score=1.0,
        arms={},
    )
    assert _told(Extract(hit, 10, 10 + len(row), row, 1.0)) == "Service: Recalibration; Price: 145 EUR; Time: 2 weeks"
    assert _told(Extract(replace(hit, heading="Prices"), 10, 10 + len(row), row, 1.0)) == row
