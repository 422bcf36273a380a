"""Dates in prose are found with the days that they mean, in both languages, and numbers that are no dates are left."""

from __future__ import annotations

import time
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.text.dates import dates

TODAY = date(2024, 5, 15)  # a Wednesday


def meant(text: str, *, today: date | None = None, name: bool = False) -> list[str]:
    return [f"{span.first}..{span.last}" for span in dates(text, today=today, name=name)]


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("Signed on 2023-05-01 in Oslo.", "2023-05-01"),
        ("2023/5/1", "2023-05-01"),
        ("It was sent at 2023-05-01T12:00:00Z.", "2023-05-01"),
        ("01.05.2023", "2023-05-01"),
        ("03/04/2023", "2023-03-04"),
        ("25/12/2023", "2023-12-25"),
        ("On May 1, 2023 it rained.", "2023-05-01"),
        ("the 1st of May, 2023", "2023-05-01"),
        ("1 May 2023", "2023-05-01"),
        ("Dec. 31, 2022", "2022-12-31"),
        ("01-Jan-2020", "2020-01-01"),
        ("自2023年5月1日起施行", "2023-05-01"),
        ("2023 年 5 月 1 日", "2023-05-01"),
        ("２０２３年５月１日", "2023-05-01"),
        ("於二〇二三年五月一日施行", "2023-05-01"),
        ("一九九八年十二月二十一日", "1998-12-21"),
        ("2023年5月1號", "2023-05-01"),
    ],
)
def test_a_day_is_read_in_the_ways_in_which_it_is_written(text: str, day: str) -> None:
    assert meant(text) == [f"{day}..{day}"]
    assert dates(text)[0].precision == "day"


@pytest.mark.parametrize(
    ("text", "first", "last", "precision"),
    [
        ("in May 2023", "2023-05-01", "2023-05-31", "month"),
        ("in Feb 2024", "2024-02-01", "2024-02-29", "month"),
        ("2023-05", "2023-05-01", "2023-05-31", "month"),
        ("二〇二三年五月", "2023-05-01", "2023-05-31", "month"),
        ("Q4 2022", "2022-10-01", "2022-12-31", "quarter"),
        ("2022Q4", "2022-10-01", "2022-12-31", "quarter"),
        ("3Q22 was flat", "2022-07-01", "2022-09-30", "quarter"),
        ("Q3'22", "2022-07-01", "2022-09-30", "quarter"),
        ("the fourth quarter of 2022", "2022-10-01", "2022-12-31", "quarter"),
        ("the last quarter of fiscal 2022", "2022-10-01", "2022-12-31", "quarter"),
        ("2023年第四季度", "2023-10-01", "2023-12-31", "quarter"),
        ("2023年一季度", "2023-01-01", "2023-03-31", "quarter"),
        ("H1 2023", "2023-01-01", "2023-06-30", "half"),
        ("the second half of 2023", "2023-07-01", "2023-12-31", "half"),
        ("2023年上半年", "2023-01-01", "2023-06-30", "half"),
        ("FY2018", "2018-01-01", "2018-12-31", "year"),
        ("fiscal 2018", "2018-01-01", "2018-12-31", "year"),
        ("2023年度报告", "2023-01-01", "2023-12-31", "year"),
        ("2023财年", "2023-01-01", "2023-12-31", "year"),
        ("in 2019", "2019-01-01", "2019-12-31", "year"),
        ("the 2021 policy", "2021-01-01", "2021-12-31", "year"),
        ("the Treaty of 1815", "1815-01-01", "1815-12-31", "year"),
        ("Founded: 1995", "1995-01-01", "1995-12-31", "year"),
        ("他在2022北京冬奥会", "2022-01-01", "2022-12-31", "year"),
        ("the 1990s", "1990-01-01", "1999-12-31", "decade"),
        ("20世纪90年代", "1990-01-01", "1999-12-31", "decade"),
        ("1990年代", "1990-01-01", "1999-12-31", "decade"),
        ("the 19th century", "1801-01-01", "1900-12-31", "range"),
        ("十九世纪", "1801-01-01", "1900-12-31", "range"),
    ],
)
def test_a_period_is_the_days_that_it_lasts(text: str, first: str, last: str, precision: str) -> None:
    assert meant(text) == [f"{first}..{last}"]
    assert dates(text)[0].precision == precision


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2019–2021", "2019-01-01", "2021-12-31"),
        ("2019-21", "2019-01-01", "2021-12-31"),
        ("the 2019/20 season", "2019-01-01", "2020-12-31"),
        ("between 2019 and 2021", "2019-01-01", "2021-12-31"),
        ("from May 2020 to June 2021", "2020-05-01", "2021-06-30"),
        ("May 1–3, 2023", "2023-05-01", "2023-05-03"),
        ("28 April to 3 May 2023", "2023-04-28", "2023-05-03"),
        ("May to June 2023", "2023-05-01", "2023-06-30"),
        ("November to January 2023", "2022-11-01", "2023-01-31"),
        ("Q1 2022 to Q3 2022", "2022-01-01", "2022-09-30"),
        ("2019年至2021年", "2019-01-01", "2021-12-31"),
        ("2019至2021年", "2019-01-01", "2021-12-31"),
        ("2023年5月至8月", "2023-05-01", "2023-08-31"),
        ("2023年5月1日至8日", "2023-05-01", "2023-05-08"),
        ("2023年5月1日到2024年1月2日", "2023-05-01", "2024-01-02"),
    ],
)
def test_two_ends_are_one_range(text: str, first: str, last: str) -> None:
    assert meant(text) == [f"{first}..{last}"]


@pytest.mark.parametrize("text", ["It rained in 2019 and 2021.", "他于2016年和2021年两次来访。"])
def test_two_years_side_by_side_are_two(text: str) -> None:
    assert len(dates(text)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "The plant made 1984 units.",
        "About 2000 people live there.",
        "See page 2012.",
        "Call extension 1995 or room 2012.",
        "It costs $1999, or 1999 euros.",
        "Terms are in 2.3.1 and in v2023.5.1.",
        "He scored 1950 points.",
        "Part A-2019, call 555-2019",
        "The 2,019 sheep and 1.2019 grams",
        "a total of 1500 hours",
        "It was built in 1046 BC.",
        "The second half was worse. They may march on.",
        "共生产1984个零件。",
        "全长2000米，重1950克",
        "约2000人住在这里",
        "有1500年的历史",
        "公元前1046年",
        "三年保修，十天内退货",
        "第2019条",
        "2023-02-31",
        "30/30/2023",
        "",
    ],
)
def test_numbers_that_are_no_dates_are_left_alone(text: str) -> None:
    assert dates(text) == []


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("yesterday", "2024-05-14", "2024-05-14"),
        ("3 weeks ago", "2024-04-22", "2024-04-28"),
        ("a year ago", "2023-01-01", "2023-12-31"),
        ("last quarter", "2024-01-01", "2024-03-31"),
        ("last month", "2024-04-01", "2024-04-30"),
        ("this fiscal year", "2024-01-01", "2024-12-31"),
        ("the first quarter of last year", "2023-01-01", "2023-03-31"),
        ("May of last year", "2023-05-01", "2023-05-31"),
        ("the last two years", "2022-05-15", "2024-05-15"),
        ("前天", "2024-05-13", "2024-05-13"),
        ("三天前", "2024-05-12", "2024-05-12"),
        ("两年前", "2022-01-01", "2022-12-31"),
        ("去年", "2023-01-01", "2023-12-31"),
        ("今年第一季度", "2024-01-01", "2024-03-31"),
        ("去年5月", "2023-05-01", "2023-05-31"),
        ("上个月", "2024-04-01", "2024-04-30"),
        ("上季度", "2024-01-01", "2024-03-31"),
        ("上周", "2024-05-06", "2024-05-12"),
        ("最近6个月", "2023-11-15", "2024-05-15"),
        ("過去三年", "2021-05-15", "2024-05-15"),
    ],
)
def test_what_is_told_from_today_is_read_where_today_is_known(text: str, first: str, last: str) -> None:
    assert meant(text, today=TODAY) == [f"{first}..{last}"]
    assert dates(text, today=TODAY)[0].relative
    assert dates(text) == []


def test_the_last_quarter_of_a_year_is_its_fourth_even_where_today_is_known() -> None:
    assert meant("the last quarter of 2022", today=TODAY) == ["2022-10-01..2022-12-31"]
    assert not dates("the last quarter of 2022", today=TODAY)[0].relative


def test_a_month_back_from_its_31st_is_the_shorter_months_last_day() -> None:
    assert meant("the last 1 month", today=date(2024, 3, 31)) == ["2024-02-29..2024-03-31"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy-2020.md", ["2020-01-01..2020-12-31"]),
        ("3M_2018_10K", ["2018-01-01..2018-12-31"]),
        ("report_20230501_final", ["2023-05-01..2023-05-01"]),
        ("notes-202305", ["2023-05-01..2023-05-31"]),
        ("规定2021版", ["2021-01-01..2021-12-31"]),
        ("handbook v2.3.1", []),
    ],
)
def test_in_a_name_four_digits_are_a_year(text: str, expected: list[str]) -> None:
    assert meant(text, name=True) == expected


def test_offsets_count_code_points_and_the_text_is_as_it_was_written() -> None:
    text = "𠀀自２０２３年５月起施行，until 2025."
    first, second = dates(text)
    assert (first.text, second.text) == ("２０２３年５月", "2025")
    assert all(text[span.start : span.end] == span.text for span in (first, second))


@given(st.text(alphabet="0123456789 年月日至到-/.Qqthmay,第一二十季度世纪'", max_size=80))
def test_any_text_gives_spans_in_order_that_lie_in_it(text: str) -> None:
    end = 0
    for span in dates(text, today=TODAY):
        assert end <= span.start < span.end <= len(text)
        assert span.first <= span.last
        assert text[span.start : span.end] == span.text
        end = span.end


@pytest.mark.parametrize("part", ["1", "2019", "2019年", "2019-", "May 1 ", "一九", "1 ", "Q1 "])
def test_long_rubbish_takes_no_longer_than_its_length(part: str) -> None:
    begun = time.process_time()
    dates(part * (20_000 // len(part)))
    assert time.process_time() - begun < 2
