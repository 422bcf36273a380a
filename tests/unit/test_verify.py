"""What a passage supports is said mechanically: numbers, negation and most of the words have to agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.models import Hit, Passage, Support
from rag.verify import best_evidence

ENGLISH = (
    "The X200 drill weighs 1.8 kilograms and costs 1,299 euros. Its battery lasts four hours. "
    "The warranty does not cover the battery. Spare parts are sold for ten years."
)
CHINESE = "X200电钻重1.8公斤，售价1299元。电池可用四小时。保修不包括电池。备件供应十年。"


def passage(text: str, *, heading: str = "", start: int = 100) -> Passage:
    hit = Hit(1, "col", "doc", 1, "Manual", "m", (), start, start + len(text), text, heading, 9, 1.0, {})
    return Passage(1, hit, text, 9)


def support(sentence: str, text: str, *, heading: str = "") -> Support:
    return best_evidence(sentence, passage(text, heading=heading)).support


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The X200 drill weighs 1.8 kilograms.", "supported"),
        ("The drill costs 1299 euros.", "supported"),
        ("Its battery lasts four hours.", "supported"),
        ("The drill weighs 2.8 kilograms.", "unsupported"),  # another number
        ("The X300 drill weighs 1.8 kilograms.", "unsupported"),
        ("The canteen serves soup on Fridays.", "unsupported"),
    ],
)
def test_english_is_judged_by_numbers_and_words(sentence: str, expected: Support) -> None:
    assert support(sentence, ENGLISH) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("X200电钻重1.8公斤。", "supported"),
        ("电池可用四小时。", "supported"),
        ("X200电钻重2.8公斤。", "unsupported"),
        ("食堂周五供应汤。", "unsupported"),
    ],
)
def test_chinese_is_judged_by_numbers_and_words(sentence: str, expected: Support) -> None:
    assert support(sentence, CHINESE) == expected


@pytest.mark.parametrize(
    ("sentence", "text"),
    [
        ("The warranty covers the battery.", ENGLISH),
        ("Its battery does not last four hours.", ENGLISH),
        ("保修包括电池。", CHINESE),
        ("备件不供应十年。", CHINESE),
    ],
)
def test_a_flipped_negation_is_not_supported(sentence: str, text: str) -> None:
    assert support(sentence, text) != "supported"


def test_the_quote_is_the_part_that_says_it() -> None:
    found = best_evidence("Its battery lasts four hours.", passage(ENGLISH))
    assert ENGLISH[found.start - 100 : found.end - 100] == "Its battery lasts four hours."
    found = best_evidence("电池可用四小时。", passage(CHINESE))
    assert CHINESE[found.start - 100 : found.end - 100] == "电池可用四小时。"


def test_two_sentences_are_quoted_where_one_does_not_say_it_all() -> None:
    text = "Rain fell all day. The depot closed at six. Its gate was locked by Maria. Nobody saw it."
    found = best_evidence("The depot closed at six and the gate was locked by Maria.", passage(text))
    assert text[found.start - 100 : found.end - 100] == "The depot closed at six. Its gate was locked by Maria."


def test_the_headings_words_and_numbers_count_as_said() -> None:
    row = "Weight: 1.8 kg"
    assert support("The X200 drill weighs 1.8 kg.", row) == "unsupported"
    assert support("The X200 drill's weight is 1.8 kg.", row, heading="Products › X200 drill") == "supported"


@pytest.mark.parametrize("sentence", ["It is.", "是的。", "They do."])
def test_a_sentence_without_a_word_to_check_is_never_called_supported(sentence: str) -> None:
    assert support(sentence, ENGLISH) != "supported"


@given(st.text(max_size=60), st.text(max_size=120))
def test_the_quote_always_lies_inside_the_passage(sentence: str, text: str) -> None:
    found = best_evidence(sentence, passage(text))
    assert 100 <= found.start <= found.end <= 100 + len(text)
    assert found.support in ("supported", "weak", "unsupported")


def test_a_scrap_of_a_heading_is_not_called_supported() -> None:
    found = best_evidence("Warranty", passage("Warranty\n\nThe warranty is 24 months for loggers."))
    assert found.support == "weak"
