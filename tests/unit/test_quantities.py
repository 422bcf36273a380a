"""Numbers are read as what they mean, in both languages, with what they count."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.text.quantities import Quantity, folded, quantities


def read(text: str) -> list[Quantity]:
    return quantities(folded(text))


def values(text: str) -> list[Decimal]:
    return [item.value for item in read(text)]


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (
            ("1,200", "1200", "１２００", "一千二百", "twelve hundred", "one thousand two hundred", "1.2 thousand"),
            1_200,
        ),
        (("3 million", "3,000,000", "300万", "三百万", "three million", "$3 million", "0.03亿"), 3_000_000),
        (("25", "二十五", "twenty-five", "twenty five"), 25),
        (("120000000", "1亿2000万", "1.2亿", "一亿二千万"), 120_000_000),
        (("350", "three hundred and fifty", "三百五十"), 350),
        (("2.5", "二点五"), Decimal("2.5")),
    ],
)
def test_one_number_is_written_in_many_ways(texts: tuple[str, ...], value: Decimal) -> None:
    for text in texts:
        assert values(f"{text}.") == [value], text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("5 %", "5%", True),
        ("5 percent", "百分之五", True),
        ("5 per cent", "5％", True),
        ("5 %", "5 units", False),
        ("30天", "30 days", True),
        ("三十天", "30日", True),
        ("30天", "30元", False),
        ("$30", "30美元", True),
        ("$30", "€30", False),
        ("3 kg", "3公斤", True),
        ("3 kg", "3 km", False),
        ("3", "3 kg", True),  # a cell of a table whose header names the unit
        ("500 employees", "500人", True),
    ],
)
def test_a_unit_that_is_known_has_to_agree(one: str, other: str, same: bool) -> None:
    [mine], [theirs] = read(one), read(other)
    assert mine.may_be(theirs) == theirs.may_be(mine) == same


def test_every_end_of_a_range_has_its_unit() -> None:
    assert [item.unit for item in read("5 to 10 % in 3-5天")] == ["percent", "percent", "day", "day"]


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("more than 500 people", "over"),
        ("at least $500", "over"),
        ("超过500人", "over"),
        ("500人以上", "over"),
        ("fewer than 500", "under"),
        ("no more than 500", "under"),
        ("不足500人", "under"),
        ("不超过500元", "under"),
        ("500 people", ""),
    ],
)
def test_a_bound_is_part_of_a_number(text: str, bound: str) -> None:
    assert [item.bound for item in read(text)] == [bound]


@pytest.mark.parametrize(
    "text", ["四川的风景十分美丽", "一些人一直在那里", "万一下雨", "One of them left", "hundreds of men"]
)
def test_a_part_of_another_word_is_not_told_as_a_number(text: str) -> None:
    assert not any(item.told for item in read(text))


def test_two_numbers_are_not_one() -> None:
    assert values("five and six, 2, 3 and nineteen eighty-four") == [5, 6, 2, 3, 19, 84]


@given(st.integers(min_value=0, max_value=10**12))
def test_digits_mean_their_value_with_and_without_commas(number: int) -> None:
    assert values(str(number)) == values(f"{number:,}") == [number]


@given(st.text(max_size=80))
def test_any_text_is_read_and_offsets_lie_inside_it(text: str) -> None:
    read_text = folded(text)
    for item in quantities(read_text):
        assert 0 <= item.start < item.end <= len(read_text)
