"""Hits come in the order of time: what held then, the newest of editions, and nothing moves where no time matters."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from rag.catalog import dated, knowledge
from rag.knowledge import KnowledgeBase
from rag.models import Hit, Place
from rag.retrieval.retrieve import retrieve
from rag.retrieval.timely import answers_when, in_time, period_of
from rag.text.periods import Told, time_asked
from tests.bases import Bases, publish_text, source_in

DATA = Path(__file__).parents[1] / "data" / "time"
TODAY = date(2025, 3, 10)


def hit(
    key: int,
    text: str,
    *,
    uri: str,
    title: str = "",
    score: float = 0.8,
    section: str | None = None,
    document: str = "",
) -> Hit:
    places = ((0, Place(section=section)),)
    return Hit(key, "c", document or uri, 1, title or uri, uri, places, 0, len(text), text, "", 9, score, {})


def policy(year: int, key: int, score: float, nights: int = 100) -> Hit:
    text = f"Hotels are paid up to {nights + year % 100} euros a night, with a receipt."
    return hit(key, text, uri=f"travel/policy-{year}.md", title="Travel policy", score=score)


def ordered(question: str, hits: Sequence[Hit], told: Mapping[str, Told] | None = None) -> list[str]:
    return [one.uri for one in in_time(hits, time_asked(question, TODAY), told or {}, today=TODAY)]


EDITIONS = [policy(2022, 1, 0.82), policy(2020, 2, 0.81), policy(2024, 3, 0.8)]


class TestEditions:
    @pytest.mark.parametrize(
        ("question", "year"),
        [
            ("What was paid for hotels in 2021?", 2020),
            ("2021年住宿费是多少？", 2020),
            ("What was paid for hotels in 2020?", 2020),
            ("What was paid in May 2023?", 2022),
            ("截至2023年底是多少？", 2022),
            ("What was paid before 2022?", 2020),
            ("2022年以前是多少？", 2020),
            ("What was paid last year?", 2024),
            ("三年前是多少？", 2022),
            ("What is paid at present?", 2024),
            ("现行标准是多少？", 2024),
            ("What is paid for hotels?", 2024),
            ("What will be paid in 2027?", 2024),
        ],
    )
    def test_the_one_that_held_then_goes_first_and_without_a_time_the_newest(self, question: str, year: int) -> None:
        assert ordered(question, EDITIONS)[0] == f"travel/policy-{year}.md"

    def test_one_that_is_still_to_come_is_not_the_current_one(self) -> None:
        hits = [policy(2030, 1, 0.9), policy(2024, 2, 0.85)]
        assert ordered("What is the current rate?", hits)[0] == "travel/policy-2024.md"

    def test_passages_change_places_and_scores_stay_at_their_places(self) -> None:
        other = hit(9, "Parking is free on Sundays for everybody.", uri="parking.md", score=0.815)
        found = in_time([EDITIONS[0], other, *EDITIONS[1:]], time_asked("hotels?", TODAY), {}, today=TODAY)
        assert [one.uri for one in found][:2] == ["travel/policy-2024.md", "parking.md"]
        assert [one.score for one in found] == [0.82, 0.815, 0.81, 0.8]

    def test_only_near_equal_passages_change_places(self) -> None:
        far = [policy(2022, 1, 0.9), policy(2024, 2, 0.5)]
        assert ordered("hotels?", far) == [one.uri for one in far]
        elsewhere = replace(policy(2024, 2, 0.89), text="Nobody needs to ask before the first of the month.")
        assert ordered("hotels?", [far[0], elsewhere]) == [far[0].uri, elsewhere.uri]

    def test_folders_with_dates_hold_editions_too(self) -> None:
        hits = [replace(one, uri=f"rules/{2019 + one.chunk_id}/hotels.md", title="Hotels") for one in EDITIONS]
        assert ordered("What is the current rule?", hits)[0] == "rules/2022/hotels.md"

    def test_other_collections_hold_no_editions(self) -> None:
        hits = [policy(2022, 1, 0.82), replace(policy(2024, 2, 0.8), collection_id="other")]
        assert ordered("hotels?", hits) == [one.uri for one in hits]

    def test_in_force_since_is_read_from_the_opening_and_from_metadata(self) -> None:
        texts = [f"A permit costs {price} pounds a month, paid in advance." for price in (10, 20)]
        hits = [hit(at, text, uri=f"{at}.md", title="Parking", score=0.8 - at / 100) for at, text in enumerate(texts)]
        by_opening = {
            "0.md": Told(opening="In force since 1 April 2018."),
            "1.md": Told(opening="In force since 1 June 2022. It replaces the edition in force since 1 April 2018."),
        }
        by_metadata = {"0.md": Told({"date": date(2018, 4, 1)}), "1.md": Told({"生效日期": date(2022, 6, 1)})}
        for told in (by_opening, by_metadata):
            assert ordered("What does a permit cost?", hits, told)[0] == "1.md"
            assert ordered("What did a permit cost in May 2022?", hits, told)[0] == "0.md"
            assert ordered("What did a permit cost in July 2022?", hits, told)[0] == "1.md"


class TestReports:
    REPORTS = [  # noqa: RUF012
        hit(1, "Revenue was 24 million pounds in this year.", uri="r/report-2022.md", score=0.82),
        hit(2, "Revenue was 18 million pounds in this year.", uri="r/report-2021.md", score=0.81),
    ]

    def test_a_report_is_of_its_own_time(self) -> None:
        assert ordered("What was the revenue in 2021?", self.REPORTS)[0] == "r/report-2021.md"
        assert ordered("2022财年的收入是多少？", self.REPORTS)[0] == "r/report-2022.md"
        assert ordered("What was the revenue in Q3 2021?", self.REPORTS)[0] == "r/report-2021.md"

    def test_a_day_written_otherwise_than_it_is_asked_is_found(self) -> None:
        hits = [
            hit(1, "The board decided on 2023-05-02 to sell the van.", uri="a", score=0.80),
            hit(2, "The board decided on 2023-06-20 to let the flat.", uri="b", score=0.79),
        ]
        assert ordered("What was decided on June 20, 2023?", hits)[0] == "b"
        assert ordered("2023年6月决定了什么？", hits)[0] == "b"


class TestNothingMoves:
    @pytest.mark.parametrize("question", ["Where do hotels lie?", "酒店在哪里？", "How long is 2000 metres of rope?"])
    def test_where_no_time_is_asked_about_and_nothing_is_an_edition(self, question: str) -> None:
        hits = [
            hit(
                key,
                f"Report {key} of {2010 + key}: hotels were full.",
                uri=f"{'abcdef'[key]}.md",
                score=0.9 - key / 100,
            )
            for key in range(6)
        ]
        told = {one.document_id: Told({"date": date(2010 + one.chunk_id, 1, 1)}) for one in hits}
        found = in_time(hits, time_asked(question, TODAY), told, today=TODAY)
        assert [replace(one, date=None) for one in found] == hits
        assert [one.date for one in found] == [f"{2010 + key}-01-01" for key in range(6)]

    @pytest.mark.parametrize(
        ("text", "answers"),
        [
            ("Report for the first quarter of 2018. Revenue was 12 million. Printed in April 2018.", False),
            ("Report for the second quarter of 2018. Revenue was 12 million, 11 in the first quarter of 2018.", True),
            ("Revenue was 12 million. Printed in April 2018.", True),
        ],
    )
    def test_a_report_of_another_quarter_does_not_answer_for_the_one_it_came_out_in(
        self, text: str, answers: bool
    ) -> None:
        asked = time_asked("What was the revenue in the second quarter of 2018?", TODAY)
        found = replace(hit(1, text, uri="report.pdf"), arms={"time": 0.1})
        assert answers_when([found], asked) is answers

    @pytest.mark.parametrize(
        "question", ["How many days of leave were there in 2021?", "2021年有多少天年假？", "How many days as of 2021?"]
    )
    def test_an_edition_that_names_its_own_year_answers_for_those_until_the_next(self, question: str) -> None:
        hits = [
            hit(
                year,
                f"Leave policy {year}. In force from 1 January {year}. There are {year - 2000} days of leave.",
                uri=f"leave-{year}.md",
                title=f"Leave policy {year}",
            )
            for year in (2022, 2020, 2024)
        ]
        told = {one.document_id: Told(opening=one.text) for one in hits}
        asked = time_asked(question, TODAY)
        found = in_time(hits, asked, told, today=TODAY)
        assert found[0].uri == "leave-2020.md"
        assert answers_when(found, asked)
        before = time_asked("How many days of leave were there in 2015?", TODAY)
        assert not answers_when(in_time(hits, before, told, today=TODAY), before)

    def test_nothing_is_found_among_nothing(self) -> None:
        assert in_time([], time_asked("in 2021", TODAY), {}, today=TODAY) == []

    def test_a_lift_is_bounded_and_scores_stay_between_0_and_1(self) -> None:
        best = hit(1, "The only passage that answers.", uri="a", score=1.0)
        dated_ = hit(2, "On 2023-06-20 nothing happened.", uri="report-2023-06-20.md", score=0.5)
        found = in_time([best, dated_], time_asked("on June 20, 2023", TODAY), {}, today=TODAY)
        assert [one.uri for one in found] == ["a", "report-2023-06-20.md"]
        assert all(0.0 <= one.score <= 1.0 for one in found)
        assert found[1].arms["time"] > 0


class TestPeriodOfAPassage:
    def test_its_section_goes_before_its_document(self) -> None:
        one = hit(1, "x", uri="rates-2020.md", section="Rates › From 1 May 2023")
        period = period_of(one)
        assert period is not None
        assert period.first == date(2023, 5, 1)

    def test_what_is_in_force_goes_before_the_name_and_the_name_before_a_date(self) -> None:
        one = hit(1, "x", uri="report-2020.md")
        told = Told({"date": date(2021, 7, 7)}, opening="Effective from 3 March 2019.")
        found = [
            period_of(one, told),
            period_of(one, replace(told, opening="")),
            period_of(replace(one, uri="x"), told),
        ]
        assert [period.first for period in found if period] == [date(2019, 3, 3), date(2020, 1, 1), date(2019, 3, 3)]
        assert period_of(replace(one, uri="x", title="x"), replace(told, opening="")) is not None
        assert period_of(replace(one, uri="x", title="x")) is None


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnowledgeBase]:
    bases = Bases(tmp_path_factory.mktemp("time"))
    opened = bases.open()
    place = source_in(opened)
    for row in rows("documents"):
        text = row["text"].replace("\\n\\n", "\n")
        document, _, _ = publish_text(opened, *place, row["name"], text, title=row["title"])
        name, _, value = row["metadata"].partition("=")
        if name:
            with opened.catalog.write() as connection:
                knowledge.set_metadata(connection, document, {name: date.fromisoformat(value)})
    yield opened
    bases.close()


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


class TestThroughTheKnowledgeBase:
    @pytest.mark.parametrize("language", ["en", "zh"])
    def test_the_right_edition_is_found_first(self, base: KnowledgeBase, language: str) -> None:
        """With an embedder that counts words; bench/fit_time.py has the figures of a real one."""
        asked = [row for row in rows("questions") if row["language"] == language and row["kind"] != "exact"]
        right = 0
        for row in asked:
            found = retrieve(row["question"], base=base, collections=base.collections([]), k=5, today=TODAY)
            right += found.hits[0].uri == f"files/{row['gold']}"
        assert right >= 0.85 * len(asked)

    def test_a_word_that_says_more_than_a_time_must_be_there(self, base: KnowledgeBase) -> None:
        found = retrieve("今天天气怎么样？", base=base, collections=base.collections([]), k=5, today=TODAY)
        assert [word.text for word in found.keywords] == ["今天天气"]

    def test_today_is_the_day_that_is_asked_about_unless_another_is_said(self, base: KnowledgeBase) -> None:
        def first(today: date | None, as_of: datetime | None = None) -> str:
            asked = "What did a garage permit on the campus cost last year?"
            found = retrieve(asked, base=base, collections=base.collections([]), k=3, today=today, as_of=as_of)
            return found.hits[0].uri

        assert first(date(2020, 5, 5)) == "files/parking-1.md"
        assert first(date(2023, 5, 5)) == "files/parking-2.md"
        assert first(date(2026, 5, 5)) == "files/parking-3.md"
        with base.catalog.read() as snapshot:
            last = knowledge.list_documents(snapshot, base.collections([])[0])[-1].updated_at
        assert first(None, max(last, datetime.now(UTC))) == first(datetime.now(UTC).date())

    def test_an_edited_date_counts_and_a_hidden_one_does_not(self, base: KnowledgeBase) -> None:
        found = retrieve("library card", base=base, collections=base.collections([]), k=3, today=TODAY).hits
        card = next(one for one in found if one.uri == "files/library-fees-b.md")
        try:
            for value in (date(2001, 2, 3), None):
                with base.catalog.write() as connection:
                    knowledge.edit_document(connection, card.document_id, metadata={"valid_from": value})
                with base.catalog.read() as snapshot:
                    told = dated.told_of(snapshot, [card], openings=[card])[card.document_id]
                assert told.dates.get("valid_from") == value
                assert told.opening.startswith("A reader's card costs 8 euros")
        finally:
            with base.catalog.write() as connection:
                knowledge.edit_document(connection, card.document_id, back_to_source=["valid_from"])
