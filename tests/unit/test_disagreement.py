"""Where sources give different numbers or dates for the same thing the answer says so; where something else may explain
the difference, nothing is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.schemas.questions import AnswerOut
from rag.answer import Assistant, Question
from rag.answering.disagreement import Conflict, conflicts
from rag.catalog.tables import document_metadata
from rag.knowledge import KnowledgeBase
from rag.models import Answer, Hit, Place
from rag.text.keywords import keywords
from tests.bases import Bases, publish_text, source_in
from tests.fakes import ScriptedModel

PAIRS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "disagreements" / "pairs.jsonl").read_text("utf-8").splitlines()
]
QUESTION = "How many days do customers have to return goods?"
SHORT = "Customers may return goods within 14 days of delivery."
LONG = "Customers may return goods within 30 days of delivery."
ASKED = "客户可以在多少天内退货？"
SHORT_ZH = "客户可以在收货后14天内申请退货。"
LONG_ZH = "客户可以在收货后30天内申请退货。"


def hit(key: int, text: str, *, title: str = "", document: int | None = None, row: str | None = None) -> Hit:
    return Hit(
        chunk_id=key,
        collection_id="c",
        document_id=f"doc_{key if document is None else document}",
        version=1,
        title=title,
        uri=f"files/{key}.txt",
        places=((0, Place(row=row)),),
        start=0,
        end=len(text),
        text=text,
        heading=title,
        tokens=10,
        score=1.0 - key / 100,
        arms={},
    )


def found_in(question: str, hits: Sequence[Hit]) -> list[Conflict]:
    return conflicts(question, hits, keywords(question, lambda terms: [1.0] * len(terms)))


def values(question: str, *hits: Hit) -> list[str]:
    return [one.value for conflict in found_in(question, hits) for one in conflict.statements]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["passages"][1]["text"][:60])
def test_what_contradicts_is_told_from_what_only_differs(pair: dict[str, Any]) -> None:
    hits = [hit(key, one["text"], title=one["title"]) for key, one in enumerate(pair["passages"])]
    assert sorted(values(pair["question"], *hits)) == sorted(pair["values"])
    assert sorted(values(pair["question"], *reversed(hits))) == sorted(pair["values"])


def test_a_document_does_not_disagree_with_itself() -> None:
    assert values(QUESTION, hit(1, SHORT, document=1), hit(2, LONG, document=1)) == []


def test_rows_of_one_name_in_two_tables_disagree_and_rows_of_two_names_do_not() -> None:
    one = hit(1, "Stock: 37", title="Pump P-100", row="1")
    other = hit(2, "Stock: 42", title="Pump P-100", row="8")
    assert sorted(values("How many are in stock of the Pump P-100?", one, other)) == ["37", "42"]
    another = hit(3, "Stock: 42", title="Pump P-200", row="8")
    assert values("How many are in stock of the Pump P-100?", one, another) == []


@pytest.mark.parametrize("question", ["Who returns goods?", "谁可以退货？", "客户退货的仓库在哪？"])
def test_a_question_for_a_person_or_a_place_has_no_numbers_in_dispute(question: str) -> None:
    assert values(question, hit(1, SHORT), hit(2, LONG)) == []
    assert values(question, hit(1, SHORT_ZH), hit(2, LONG_ZH)) == []


def test_every_value_is_told_once_whoever_says_it() -> None:
    texts = [SHORT, LONG, SHORT, LONG, SHORT.replace("14", "21")]
    hits = [hit(key, text, title="Returning goods") for key, text in enumerate(texts)]
    (conflict,) = found_in(QUESTION, hits)
    assert [one.value for one in conflict.statements] == ["14 days", "30 days", "21 days"]


def test_it_points_at_the_very_sentence() -> None:
    (conflict,) = found_in(QUESTION, [hit(1, f"The shop. {SHORT} Thank you."), hit(2, LONG)])
    assert [one.text for one in conflict.statements] == [SHORT, LONG]
    assert "return" in conflict.about


# ── in an answer ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    """Two documents in each language that disagree; the one that was stored first has the later date."""
    bases = Bases(tmp_path)
    base = bases.open()
    collection, source = source_in(base)
    for name, text, day in (
        ("return of goods.txt", LONG, "2024-05-01"),
        ("returned goods.txt", SHORT, "2021-03-01"),
        ("退货须知.txt", LONG_ZH, "2024-05-01"),
        ("退货说明.txt", SHORT_ZH, "2021-03-01"),
    ):
        document_id, _, _ = publish_text(base, collection, source, name, text, title=name.partition(".")[0])
        with base.catalog.write() as connection:
            connection.execute(
                document_metadata.insert().values(
                    document_id=document_id, key="date", edited=False, type="date", text=day, number=None
                )
            )
    publish_text(base, collection, source, "hours.txt", "The shop opens at nine.", title="hours")
    yield base
    bases.close()


def ask(base: KnowledgeBase, question: str, *replies: str) -> Answer:
    model = ScriptedModel(*replies) if replies else None
    return Assistant(base, model=model, enough_evidence=0.0).answer(Question(question))


def assert_told(answer: Answer, *texts: str) -> None:
    """Both sides, the newest first, each a citation with its exact quote."""
    (disagreement,) = answer.disagreements
    assert [one.text for one in disagreement.statements] == list(texts)
    assert [one.date for one in disagreement.statements] == ["2024-05-01", "2021-03-01"]
    assert [answer.citations[one.citation - 1].quote for one in disagreement.statements] == list(texts)
    for text, one in zip(texts, disagreement.statements, strict=True):
        assert f"[{one.citation}]" in answer.answer[answer.answer.rindex(text) :]
        told = [item.support for item in answer.sentences if one.citation in item.citations and text in item.text]
        assert set(told) == {"supported"}


@pytest.mark.parametrize(
    ("question", "says", "texts"),
    [(QUESTION, "The sources disagree:", (LONG, SHORT)), (ASKED, "各处资料的说法不一：", (LONG_ZH, SHORT_ZH))],
)
def test_the_answer_tells_both_sides_newest_first(
    base: KnowledgeBase, question: str, says: str, texts: tuple[str, str]
) -> None:
    answer = ask(base, question)
    assert answer.answer.startswith(says)
    assert "2024-05-01" in answer.answer
    assert_told(answer, *texts)
    assert answer.short_answer is None  # it would take a side


def test_a_model_is_told_and_both_sides_are_told_whatever_it_says(base: KnowledgeBase) -> None:
    model = ScriptedModel("Customers may return goods within 14 days of delivery [1].")
    answer = Assistant(base, model=model, enough_evidence=0.0).answer(Question(QUESTION))
    assert "The sources disagree about this." in model.asked[0][-1].content
    assert answer.model == "scripted"
    assert answer.degraded is None
    assert_told(answer, LONG, SHORT)


def test_a_model_that_finds_no_answer_tells_no_side(base: KnowledgeBase) -> None:
    answer = ask(base, QUESTION, "The sources do not contain the answer.")
    assert answer.refused
    assert answer.disagreements == ()


def test_other_questions_are_answered_as_ever(base: KnowledgeBase) -> None:
    answer = ask(base, "When does the shop open?")
    assert answer.disagreements == ()
    assert not answer.answer.startswith("The sources disagree")


def test_without_a_date_of_its_own_a_document_has_the_day_on_which_it_was_stored(base: KnowledgeBase) -> None:
    with base.catalog.write() as connection:
        connection.execute(document_metadata.delete())
    (disagreement,) = ask(base, QUESTION).disagreements
    assert {one.date for one in disagreement.statements} == {datetime.now(UTC).date().isoformat()}


def test_sides_are_dated_as_their_documents_are_elsewhere_as_exactly_as_it_is_known(tmp_path: Path) -> None:
    bases = Bases(tmp_path)
    base = bases.open()
    into = source_in(base)
    publish_text(base, *into, "2024-05/faq.txt", LONG, title="return of goods")
    publish_text(base, *into, "2019/terms.txt", SHORT, title="returned goods")  # the older one, stored last
    publish_text(base, *into, "hours.txt", "The shop opens at nine.", title="hours")
    answer = ask(base, QUESTION)
    (disagreement,) = answer.disagreements
    assert [(one.value, one.date) for one in disagreement.statements] == [("30 days", "2024-05"), ("14 days", "2019")]
    cited = [answer.citations[one.citation - 1] for one in disagreement.statements]
    assert [citation.date for citation in cited] == ["2024-05", "2019"]
    assert "(2024-05)" in answer.answer
    bases.close()


def test_it_is_the_same_over_http(base: KnowledgeBase) -> None:
    answer = ask(base, QUESTION)
    told = AnswerOut.of(answer).model_dump(mode="json")["disagreements"]
    assert [one["value"] for one in told[0]["statements"]] == ["30 days", "14 days"]
    assert [one["date"] for one in told[0]["statements"]] == ["2024-05-01", "2021-03-01"]
    assert [one["citation"] for one in told[0]["statements"]] == [1, 2]
