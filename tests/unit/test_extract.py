"""Answers without a model: which sentences are told, how many, and the phrase in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rag.answering.extract import Extracted, extract
from rag.models import Hit, Place
from rag.text.keywords import keywords
from tests.fakes import HashEmbedder


def hit(text: str, *, title: str = "Handbook", score: float = 1.0, start: int = 40, row: str | None = None) -> Hit:
    number = sum(map(ord, title))
    return Hit(
        chunk_id=number,
        collection_id="col",
        document_id=f"doc_{number}",
        version=1,
        title=title,
        uri=f"{title}.txt",
        places=((start, Place(row=row)),),
        start=start,
        end=start + len(text),
        text=text,
        heading=title,
        tokens=len(text.split()),
        score=score,
        arms={},
    )


def equal(terms: Sequence[str]) -> list[float]:
    return [2.0] * len(terms)


class Counting(HashEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False):  # type: ignore[no-untyped-def]
        self.asked += len(texts)
        return super().embed_passages(texts, urgent=urgent)


def told(question: str, *hits: Hit, coverage: float = 1.0, embedder: HashEmbedder | None = None) -> Extracted:
    embedder = embedder or HashEmbedder()
    return extract(
        hits,
        question=question,
        wanted=keywords(question, equal),
        coverage=coverage,
        vector=embedder.embed_query(question),
        embedder=embedder,
    )


def texts(found: Extracted) -> list[str]:
    return [item.text for item in found.sentences]


def short(found: Extracted) -> str | None:
    if found.short is None:
        return None
    item = found.sentences[found.short.sentence]
    assert item.start <= found.short.start < found.short.end <= item.end
    return item.hit.text[found.short.start - item.hit.start : found.short.end - item.hit.start]


FLEET = hit(
    "The Aurora is a research ship of the institute. It was launched in Gdansk in 1987. The crew likes the galley. "
    "Repairs of the Aurora are paid by the institute. The institute has a library with a reading room.",
    title="Fleet",
)


def test_nothing_found_is_nothing_told() -> None:
    assert told("When was the Aurora launched?") == Extracted(())


@pytest.mark.parametrize("question", ["When was the Aurora launched?", "In what year was the Aurora launched?"])
def test_a_sentence_that_leans_on_the_one_before_it_is_told_for_what_that_names(question: str) -> None:
    found = told(question, FLEET)
    assert texts(found)[0] == "It was launched in Gdansk in 1987."
    assert short(found) == "1987"


def test_something_of_the_kind_that_is_asked_for_decides_between_sentences_with_the_same_words() -> None:
    page = hit("The bridge in Porto was opened by the mayor. The bridge in Porto was opened on 4 May 1963.")
    assert texts(told("When was the bridge in Porto opened?", page))[0].endswith("4 May 1963.")
    chinese = hit("大桥由市长宣布通车。大桥于1963年5月4日通车。", title="桥梁")
    assert texts(told("大桥是哪一年通车的？", chinese))[0] == "大桥于1963年5月4日通车。"


def test_every_sentence_is_its_hits_own_text_at_its_offsets_and_none_is_told_twice() -> None:
    copy = hit(FLEET.text, title="Copy of the fleet", score=0.9)
    found = told("When was the Aurora launched?", FLEET, copy)
    assert 1 <= len(found.sentences) <= 3
    for item in found.sentences:
        assert item.hit.text[item.start - item.hit.start : item.end - item.hit.start] == item.text
    assert len(set(texts(found))) == len(found.sentences)


def test_probabilities_fall_from_sentence_to_sentence() -> None:
    scores = [item.score for item in told("Who pays the repairs of the ship?", FLEET).sentences]
    assert scores == sorted(scores, reverse=True)
    assert 0.0 < sum(scores) <= 1.0


def test_headings_and_pointers_are_not_told_where_a_sentence_is_there() -> None:
    page = hit("Paid leave in Porto\nSee section 4 for paid leave in Porto.\nEmployees have 25 days of it.")
    assert texts(told("How many days of paid leave are there in Porto?", page))[0] == "Employees have 25 days of it."


# ── two parts ─────────────────────────────────────────────────────────────────────────────────


def test_each_part_of_a_question_is_answered_by_a_sentence_of_its_own_in_the_order_of_the_parts() -> None:
    found = told("When was the Aurora launched and who pays for repairs of the Aurora?", FLEET)
    assert texts(found) == ["It was launched in Gdansk in 1987.", "Repairs of the Aurora are paid by the institute."]
    assert found.short is None


def test_what_is_asked_of_two_things_is_told_of_both() -> None:
    page = hit("北京的住宿标准是每晚750元。上海的住宿标准是每晚700元。深圳的餐费是每天100元。", title="差旅")
    found = told("北京和上海的住宿标准分别是多少？", page)
    assert texts(found) == ["北京的住宿标准是每晚750元。", "上海的住宿标准是每晚700元。"]


def test_one_sentence_that_answers_both_parts_is_told_once() -> None:
    page = hit("The Aurora was launched in 1987 and scrapped in 2015.")
    assert texts(told("When was the Aurora launched and when was it scrapped?", page)) == [page.text]


def test_nothing_is_said_of_a_part_that_nothing_answers() -> None:
    page = hit("The Aurora was launched in 1987. Lunch is served at noon.")
    found = told("When was the Aurora launched and which pirates painted submarines green?", page)
    assert texts(found) == ["The Aurora was launched in 1987."]


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


def test_a_row_is_told_whole_and_its_cell_is_the_short_answer() -> None:
    row = hit("Product: TL-1310\nWarehouse: Rotterdam\nStock: 37", title="stock / 6", row="stock / 6")
    found = told("How many TL-1310 do we have on stock in Rotterdam?", row)
    assert texts(found) == [row.text]
    assert short(found) == "37"


def test_reasons_have_no_short_answer() -> None:
    page = hit("The test was repeated because the probe was wet. The probe was dried.")
    found = told("Why was the test repeated?", page)
    assert texts(found)[0] == "The test was repeated because the probe was wet."
    assert found.short is None


# ── what it costs ─────────────────────────────────────────────────────────────────────────────


def test_sentences_are_embedded_only_for_an_embedder_that_reads_the_question_and_never_many() -> None:
    page = hit(" ".join(f"The Aurora met ship number {number} at sea." for number in range(30)))
    reads, hardly = Counting(), Counting()
    told("Which ship did the Aurora meet?", page, embedder=reads)
    told("Which ship did the Aurora meet?", page, coverage=0.4, embedder=hardly)
    assert 0 < reads.asked <= 8
    assert hardly.asked == 0


TEAMS = (
    "Team: north; Lead: Ada Brun; Vans: 14\nTeam: south; Lead: Olaf Kern; Vans: 22\nTeam: east; Lead: Ida Moss; Vans: 9"
)


def test_rows_that_the_question_does_not_name_are_not_told_beside_the_one_that_it_does() -> None:
    lines = TEAMS.split("\n")
    starts = [TEAMS.index(line) for line in lines]
    base = hit(TEAMS, title="Teams", start=0)
    rows = replace(base, places=tuple((start, Place(row=str(number))) for number, start in enumerate(starts, 1)))
    assert texts(told("How many vans does team south have?", rows)) == [lines[1]]
    assert len(texts(told("Who leads the teams?", rows))) > 1, "where it names none, several are told"


def test_a_heading_is_not_told_beside_a_sentence() -> None:
    text = "会议纪要 安全委员会\n2023年3月14日，安全委员会在二楼会议室开会。主席韩立群主持会议。"
    said = texts(told("谁主持了安全委员会会议？", hit(text, title="会议纪要 安全委员会"), coverage=0.4))
    assert "主席韩立群主持会议。" in said
    assert "会议纪要 安全委员会" not in said


def test_a_line_of_a_list_is_told_without_its_bullet() -> None:
    rules = hit("- The gate opens at six.\n- The gate closes at ten.\n* −5 °C is the least.", title="Rules")
    found = told("When does the gate close?", rules)
    assert texts(found)[0] == "The gate closes at ten."
    item = found.sentences[0]
    assert rules.text[item.start - rules.start : item.end - rules.start] == item.text


def test_words_of_the_question_are_no_short_answer() -> None:
    text = "发生泄漏时，立即拨打内线电话8119，并撤离到东门集合点。"
    assert short(told("发生泄漏时应拨打哪个内线电话？", hit(text, title="安全手册"))) != "内线"
