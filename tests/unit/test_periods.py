"""What a question asks about in time, and of what time a document is, in both languages."""

from __future__ import annotations

from datetime import date

import pytest

from rag.text.periods import Period, in_force, of_metadata, of_name, stem, time_asked

TODAY = date(2025, 3, 10)


@pytest.mark.parametrize(
    ("question", "first", "last"),
    [
        ("What was the fee in 2021?", "2021-01-01", "2021-12-31"),
        ("2021年的标准是多少？", "2021-01-01", "2021-12-31"),
        ("What did it cost last quarter?", "2024-10-01", "2024-12-31"),
        ("上个季度收入多少？", "2024-10-01", "2024-12-31"),
        ("How many were there as of March 2022?", "2022-03-31", "2022-03-31"),
        ("How many were there at the end of 2022?", "2022-12-31", "2022-12-31"),
        ("截至2022年3月有多少人？", "2022-03-31", "2022-03-31"),
        ("2022年底有多少人？", "2022-12-31", "2022-12-31"),
        ("What was paid before 2021?", "2020-12-31", "2020-12-31"),
        ("2021年之前是多少？", "2020-12-31", "2020-12-31"),
        ("What has changed since May 2021?", "2021-05-01", "2025-03-10"),
        ("2021年5月以来有哪些变化？", "2021-05-01", "2025-03-10"),
        ("What came after 2021?", "2021-12-31", "2025-03-10"),
        ("Which rule is in force since 2021?", "2021-01-01", "2021-12-31"),
    ],
)
def test_the_days_that_are_asked_about(question: str, first: str, last: str) -> None:
    asked = time_asked(question, TODAY)
    assert [(str(one[0]), str(one[1])) for one in asked.periods] == [(first, last)]
    assert not asked.newest


@pytest.mark.parametrize(
    "question",
    [
        "What is the current fee?",
        "What does it cost now?",
        "What does it cost today?",
        "Which is the latest release?",
        "Which terms are still in force?",
        "现行标准是多少？",
        "目前多少钱？",
        "最新的版本是哪个？",
        "今天多少钱？",
    ],
)
def test_the_newest_is_asked_for(question: str) -> None:
    asked = time_asked(question, TODAY)
    assert asked.newest
    assert not asked.periods


@pytest.mark.parametrize(
    "question",
    [
        "How long is the warranty?",
        "What is its current ratio?",
        "How is alternating current made?",
        "How do I order 2000 screws?",
        "保修期多长？",
        "三年保修包括什么？",
        "",
    ],
)
def test_most_questions_ask_about_no_time(question: str) -> None:
    assert not time_asked(question, TODAY)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("This policy is in force since 1 March 2021.", "2021-03-01", None),
        ("Effective date: May 1, 2023", "2023-05-01", None),
        ("It applies from 2022-07-01 and replaces all others.", "2022-07-01", None),
        ("It replaces the one in force since 2018. Effective from 1 July 2022 the fee is 5.", "2022-07-01", None),
        ("Valid from: 2022-01-01. Valid until: 2023-12-31", "2022-01-01", "2023-12-31"),
        ("本规定自2021年3月1日起施行。", "2021-03-01", None),
        ("原2017年3月1日施行的制度同时废止。本制度自2020年9月1日起施行。", "2020-09-01", None),
        ("有效期：2022年1月1日至2023年12月31日", "2022-01-01", "2023-12-31"),
    ],
)
def test_since_when_a_text_says_it_is_in_force(text: str, first: str, last: str | None) -> None:
    assert in_force(text) == Period(date.fromisoformat(first), date.fromisoformat(last) if last else None, holds=True)


@pytest.mark.parametrize(
    "text",
    ["Sales rose in 2021.", "The warranty is valid for two years.", "2021年销售增长。", "该制度适用于全体员工。", ""],
)
def test_other_texts_say_nothing_of_being_in_force(text: str) -> None:
    assert in_force(text) is None


def test_metadata_is_read_from_what_says_most_to_what_says_least() -> None:
    first, second = date(2021, 1, 2), date(2022, 3, 4)
    assert of_metadata({"valid_from": first, "date": second}) == Period(first, None, holds=True)
    assert of_metadata({"Valid From": first, "valid-until": second}) == Period(first, second, holds=True)
    assert of_metadata({"施行日期": first}) == Period(first, None, holds=True)
    assert of_metadata({"updated_at": second, "published": first}) == Period(first, first)
    assert of_metadata({"updated_at": second, "hired_on": first}) == Period(first, first)
    assert of_metadata({"updated_at": second}) == Period(second, second)
    assert of_metadata({}) is None


@pytest.mark.parametrize(
    ("title", "uri", "period"),
    [
        ("Annual report 2021", "a.pdf", Period(date(2021, 1, 1), date(2021, 12, 31))),
        ("10K", "reports/3M_2018_10K.pdf", Period(date(2018, 1, 1), date(2018, 12, 31))),
        ("Travel policy", "policy-2020.md", Period(date(2020, 1, 1), None, holds=True)),
        ("差旅费管理办法（2021年修订）", "a.docx", Period(date(2021, 1, 1), None, holds=True)),
        ("Notes", "https://example.org/2023/05/12/notes.html", Period(date(2023, 5, 12), date(2023, 5, 12))),
        ("Notes", "2023/q3/notes.html", None),
        ("TL-1207", "manuals/tl-1207-v2.3.1.pdf", None),
    ],
)
def test_names_of_documents_files_and_folders_say_a_time(title: str, uri: str, period: Period | None) -> None:
    if uri.startswith("2023/q3"):
        period = Period(date(2023, 7, 1), date(2023, 9, 30))
    assert of_name(title, uri) == period


def test_editions_of_one_document_have_one_name() -> None:
    for editions in (
        ("policy-2020.md", "policy-2022.md", "policy_2024-05-01.md", "policy v2.1 (2024).md"),
        ("差旅费管理办法", "差旅费管理办法（2021年修订）", "差旅费管理办法2023年版"),
        ("Orchard bulletin Q1 2023", "Orchard bulletin Q4 2023"),
    ):
        assert len({stem(name) for name in editions}) == 1
    assert stem("policy-2020.md") != stem("fees-2020.md")
    assert stem("2020") == ""
