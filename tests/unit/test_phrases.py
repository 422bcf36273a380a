"""Phrases and cells: what is told stands in the sentence and is of the kind that was asked for."""

from __future__ import annotations

import pytest

from rag.answering.asked import asked
from rag.answering.cells import best_cell, cells
from rag.answering.phrases import best_phrase, candidates
from rag.answering.shapes import evident, shapes_of, unit_of
from rag.text.language import query_terms

ANSWERS = [
    ("When was the office opened?", "The Rotterdam office was opened on 3 March 2014.", "3 March 2014"),
    ("Who founded Kepler Labs?", "Kepler Labs was founded by Maria Lindqvist in 1998.", "Maria Lindqvist"),
    ("Where is the head office of Tidelark?", "The head office of Tidelark is in Rotterdam.", "Rotterdam"),
    ("How much does the X200 drill weigh?", "The X200 drill weighs 1.8 kilograms.", "1.8 kilograms"),
    ("波尔图员工有多少天年假？", "波尔图的员工每年有二十五天带薪年假。", "二十五天"),
    ("谁批准采购？", "采购由顾文清批准。", "顾文清"),
    ("公司的总部在哪里？", "公司总部位于苏州工业园区，员工三百人。", "苏州工业园区"),
]  # fmt: skip


@pytest.mark.parametrize(("question", "sentence", "answer"), ANSWERS)
def test_the_phrase_that_answers_is_found(question: str, sentence: str, answer: str) -> None:
    found = best_phrase([sentence], [0.9], own=set(query_terms(question)), what=asked(question))
    assert found is not None
    assert sentence[found.start : found.end] == answer


@pytest.mark.parametrize(("question", "sentence", "answer"), ANSWERS)
def test_every_candidate_is_a_run_of_characters_of_its_sentence_without_white_space_around(
    question: str, sentence: str, answer: str
) -> None:
    found = list(candidates(sentence, 0.9, rank=0, own=set(query_terms(question)), what=asked(question)))
    texts = [sentence[item.start : item.end] for item in found]
    assert answer in texts
    assert all(text and text == text.strip() for text in texts)
    assert len({(item.start, item.end) for item in found}) == len(found)


@pytest.mark.parametrize(
    "question", ["Why was it closed?", "How is it done?", "Is it open?", "为什么关门？", "开门吗？"]
)
def test_reasons_manners_and_yes_or_no_are_told_in_sentences_alone(question: str) -> None:
    sentence = "It was closed in 1998 because nobody came."
    assert best_phrase([sentence], [0.9], own=set(), what=asked(question)) is None


def test_the_shares_of_the_sentences_are_of_one_whole() -> None:
    question = "When was the Rotterdam office opened?"
    found = best_phrase(
        ["The Rotterdam office was opened on 3 March 2014.", "The Porto office was opened in 2019."],
        [0.8, 0.2],
        own=set(query_terms(question)),
        what=asked(question),
    )
    assert found is not None
    assert found.sentence == 0
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.probability <= found.shares[0]


def test_a_sentence_without_a_word_has_no_phrase() -> None:
    assert best_phrase(["…"], [0.9], own=set(), what=asked("When?")) is None


# ── shapes ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("It opened on 3 March 2014.", "3 March 2014"),
        ("It opened on March 3, 2014.", "March 3, 2014"),
        ("It is valid from 2026-03-27 on.", "2026-03-27"),
        ("Built in the 1980s.", "1980s"),
        ("In the 19th century it burned.", "19th century"),
        ("自 2027 年 3 月 15 日起施行。", "2027 年 3 月 15 日"),
        ("二〇二四年五月开业。", "二〇二四年五月"),
        ("每月最后一个星期五维护。", "星期五"),
    ],
)
def test_dates_are_seen_in_the_forms_that_people_write(text: str, date: str) -> None:
    chinese = not text.isascii()
    assert date in [text[start:end] for start, end in shapes_of(text, chinese=chinese)["date"]]


def test_a_price_is_no_year() -> None:
    assert not shapes_of("It costs 1,990 euros and 2050% more.", chinese=False)["date"]


def test_a_name_does_not_begin_with_the_word_that_begins_the_sentence() -> None:
    text = "The University of Porto opened In March."
    assert "University of Porto" in [text[start:end] for start, end in shapes_of(text, chinese=False)["name"]]


def test_a_reason_speaks_for_a_sentence_when_a_reason_is_asked_for() -> None:
    assert evident("It was closed because nobody came.", asked("Why was it closed?"))
    assert not evident("It was closed on Sunday.", asked("Why was it closed?"))


def test_the_unit_follows_from_the_question() -> None:
    money = unit_of("How much does it cost?", asked("How much does it cost?"))
    assert money is not None
    assert money.search("129 euros")
    assert not money.search("1.8 kilograms")
    assert unit_of("Who pays?", asked("Who pays?")) is None


# ── cells ─────────────────────────────────────────────────────────────────────────────────────

STOCK = "Product: TL-1310\nWarehouse: Rotterdam\nStock: 37"
CUSTOMER = "编号: 6; 名称: 寿光绿源蔬菜合作社; 城市: 寿光; 客户经理: 周若琳"
PRICES = "Recalibration TL-1310 | 145 EUR | 2 weeks"
COLUMNS = "Handbook › Prices\nService | Price | Time"


def cell(row: str, question: str, *, title: str = "", heading: str = "") -> str | None:
    span = best_cell(row, question, title=title, heading=heading, what=asked(question))
    return row[span[0] : span[1]] if span else None


def test_the_cell_is_the_one_in_the_column_that_the_question_names() -> None:
    assert cell(STOCK, "How many TL-1310 do we have on stock in the Rotterdam warehouse?") == "37"
    assert cell(CUSTOMER, "寿光绿源蔬菜合作社的客户经理是谁？") == "周若琳"
    assert cell(PRICES, "What does the recalibration of a TL-1310 cost?", heading=COLUMNS) == "145 EUR"


def test_a_row_that_the_question_does_not_name_has_no_answer() -> None:
    assert cell(STOCK, "How many GS-2090 do we have on stock in Porto?") is None


def test_two_cells_that_would_answer_as_well_answer_nothing() -> None:
    row = "Product: TL-1310; Price 2025: 279; Price 2026: 265"
    assert cell(row, "What is the price of the TL-1310?") is None
    assert cell(row, "What was the price of the TL-1310 in 2025?") == "279"


def test_cells_without_the_names_of_their_columns_and_sentences_are_no_row() -> None:
    assert cells(PRICES) == []
    assert cells(PRICES, heading="Handbook\nService | Price") == []
    assert cells("Note: the office is closed.") == []
    assert cells("The office is closed on Sundays.") == []


def test_a_cell_is_without_the_white_space_around_it() -> None:
    row = "Product: TL-1310 ; Stock:  37 "
    assert [row[one.start : one.end] for one in cells(row)] == ["TL-1310", "37"]
