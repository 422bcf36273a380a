"""Passages fit the window: grown where there is room, cut by whole sentences where there is not; offsets are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.answering.context import REACH, Context, pack
from rag.answering.verify import best_evidence
from rag.llm.prompts import answer_messages, passage_tokens
from rag.models import Hit, Passage, Place
from rag.text.keywords import Keyword
from rag.text.language import sentences, terms

ENGLISH = (
    "Warranty\n\nThe TL-1207 is covered for 36 months. Batteries are covered for six months. Keep the invoice.\n\n"
    "Repairs are made in Porto. They take ten days. Shipping is free within the union.\n\n"
    "Loans\n\nA tool is lent while yours is repaired. It is returned within a week. Damage is paid for.\n\n"
)
CHINESE = (
    "保修\n\n该型号保修三十六个月。电池保修六个月。请保留发票。\n\n维修在波尔图进行。一般需要十天。欧盟境内免运费。\n\n"
    "借用\n\n维修期间可以借用工具。一周之内归还。损坏照价赔偿。\n\n"
)
TABLE = "".join(f"Region {number} | {number * 7} | {number * 11}\n" for number in range(12)) + "\n"


def chunks(text: str, *, document: str = "doc", version: int = 1, size: int = 2, header: str = "") -> list[Hit]:
    """The text in chunks of so many sentences, without a gap, with the sections that its headings begin."""
    begins = [start for start, _ in sentences(text)][::size] or [0]
    begins[0] = 0
    headings = [(start, text[start:end]) for start, end in sentences(text) if text[start:end].isalnum()]
    places = [(start, Place(section=f"Manual › {title}")) for start, title in headings]
    found = []
    for number, (start, end) in enumerate(zip(begins, [*begins[1:], len(text)], strict=True)):
        before = [place for place in places if place[0] <= start][-1:] or [(0, Place())]
        own = (*before, *(place for place in places if start < place[0] < end))
        heading = f"Manual\n{header}" if header else "Manual"
        part, key = text[start:end], crc32(f"{document} {version} {number}".encode())
        found.append(
            Hit(key, "col", document, version, "Manual", "m", own, start, end, part, heading, words(part), 0.0, {})
        )
    return found


def words(text: str) -> int:
    return len(terms(text))


def cost(passage: Passage) -> int:
    return passage_tokens(words, passage, language="en")


def ranked(found: Sequence[Hit], order: Sequence[int]) -> list[Hit]:
    return [replace(found[at], score=1.0 - rank / 20) for rank, at in enumerate(order)]


def beside(every: Sequence[Hit]) -> Callable[[Sequence[Hit]], list[Hit]]:
    """As the catalog reads them."""

    def around(hits: Sequence[Hit]) -> list[Hit]:
        known = {hit.chunk_id for hit in hits}
        near = {
            every[other].chunk_id: every[other]
            for at, chunk in enumerate(every)
            if chunk.chunk_id in known
            for other in range(max(0, at - REACH), min(len(every), at + REACH + 1))
        }
        return [chunk for key, chunk in near.items() if key not in known]

    return around


def wanted(*texts: str) -> list[Keyword]:
    return [Keyword(text, tuple(terms(text)[:1]), 1.0, False, not text.isascii(), True) for text in texts]


def assert_holds(context: Context, text: str, budget: int) -> None:
    """What is true of every context."""
    assert sum(passage.tokens for passage in context.passages) <= max(budget, 0)
    assert [passage.n for passage in context.passages] == list(range(1, len(context.passages) + 1))
    shown: list[tuple[int, int]] = []
    for passage in context.passages:
        assert passage.tokens == cost(passage)
        for span in passage.spans:
            assert span.text == text[span.start : span.end]
            assert span.chunk.start <= span.start < span.end <= span.chunk.end
        for start, run in passage.runs:
            assert run == run.strip() == text[start : start + len(run)]
            shown.append((start, start + len(run)))
    shown.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(shown)), "nothing is shown twice"
    borders = [span for span in sentences(text) if text[span[0] : span[1]].strip()]
    for start, end in shown:
        assert start in {one for one, _ in borders}
        assert end in {one for _, one in borders}


@settings(deadline=None)  # the first one loads the words of Chinese
@given(
    text=st.sampled_from([ENGLISH, CHINESE, TABLE]),
    size=st.integers(1, 5),
    order=st.lists(st.integers(0, 40), max_size=6, unique=True),
    more=st.lists(st.integers(0, 40), max_size=4, unique=True),
    budget=st.integers(-5, 260),
)
def test_offsets_are_kept_and_the_budget_too_whatever_is_cut_or_grown(
    text: str, size: int, order: list[int], more: list[int], budget: int
) -> None:
    every = chunks(text, size=size, header="Region | Q1 | Q2" if text is TABLE else "")
    order = [at for at in order if at < len(every)]
    hits = ranked(every, [*order, *(at for at in more if at < len(every) and at not in order)])
    context = pack(
        hits[: len(order)],
        budget_tokens=budget,
        count_tokens=cost,
        wanted=wanted("batteries", "Porto", "电池"),
        around=beside(every),
        more=hits[len(order) :],
    )
    assert_holds(context, text, budget)
    shown = {span.chunk_id for passage in context.passages for span in passage.spans}
    assert context.left_out == sum(hit.chunk_id not in shown for hit in hits[: len(order)])
    if sum(cost(Passage.whole(1, hit, 0)) for hit in hits[: len(order)]) <= budget:
        assert context.left_out == 0


@settings(deadline=None)
@given(text=st.sampled_from([ENGLISH, CHINESE]), budget=st.integers(30, 200), said=st.integers(0, 20))
def test_what_supports_a_sentence_is_quoted_as_stored_also_from_what_grew(text: str, budget: int, said: int) -> None:
    every = chunks(text)
    context = pack(ranked(every, [1]), budget_tokens=budget, count_tokens=cost, around=beside(every))
    spans = sentences(text)
    start, end = spans[said % len(spans)]
    for passage in context.passages:
        found = best_evidence(text[start:end], passage)
        assert passage.quote(found.start, found.end) == text[found.start : found.end]
        chunk = passage.span_at(found.start).chunk
        assert chunk.start <= found.start < chunk.end


# ── with room ─────────────────────────────────────────────────────────────────────────────────


def test_a_hit_grows_in_its_section_and_no_further() -> None:
    every = chunks(ENGLISH, size=1)
    context = pack(ranked(every, [2]), budget_tokens=1000, count_tokens=cost, around=beside(every))
    [passage] = context.passages
    assert passage.text == ENGLISH[: ENGLISH.index(" They take")]
    last = pack(ranked(every, [6]), budget_tokens=1000, count_tokens=cost, around=beside(every))
    assert last.passages[0].text.endswith("within the union.")
    assert "Loans" not in last.passages[0].text


def test_what_does_not_fit_any_more_is_not_grown_into_and_the_hits_stay_whole() -> None:
    every = chunks(ENGLISH, size=1)
    hits = ranked(every, [2, 4])
    exact = sum(cost(Passage.whole(1, hit, 0)) for hit in hits)
    context = pack(hits, budget_tokens=exact, count_tokens=cost, around=beside(every))
    assert [passage.text for passage in context.passages] == [hit.text.strip() for hit in hits]
    assert context.left_out == 0


def test_hits_that_touch_are_one_passage_at_the_place_of_the_better_one() -> None:
    every = chunks(ENGLISH)
    hits = ranked([*every, *chunks("Something else.", document="other")], [2, len(every), 1])
    context = pack(hits, budget_tokens=1000, count_tokens=cost)
    assert [passage.hit.document_id for passage in context.passages] == ["doc", "other"]
    assert context.passages[0].text == ENGLISH[every[1].start : every[2].end].strip()
    assert [span.chunk_id for span in context.passages[0].spans] == [every[1].chunk_id, every[2].chunk_id]
    assert context.left_out == 0


def test_hits_that_grow_towards_each_other_become_one() -> None:
    every = chunks(ENGLISH, size=1)
    context = pack(ranked(every, [1, 3]), budget_tokens=1000, count_tokens=cost, around=beside(every))
    assert len(context.passages) == 1
    assert len(context.passages[0].runs) == 1


def test_what_ranks_behind_the_hits_is_shown_where_there_is_room_and_never_counted_as_left_out() -> None:
    every = [chunks(f"Sentence {name} is here.", document=name)[0] for name in "abcdefgh"]
    hits = ranked(every, range(8))
    wide = pack(hits[:2], budget_tokens=1000, count_tokens=cost, more=hits[2:])
    assert [passage.hit.document_id for passage in wide.passages] == list("abcdefgh")
    narrow = pack(hits[:2], budget_tokens=3 * cost(Passage.whole(1, hits[0], 0)), count_tokens=cost, more=hits[2:])
    assert [passage.hit.document_id for passage in narrow.passages] == list("abc")
    assert wide.left_out == narrow.left_out == 0


def test_a_purged_neighbour_leaves_the_hit_as_it_is() -> None:
    every = chunks(ENGLISH, size=1)
    context = pack(ranked(every, [2]), budget_tokens=1000, count_tokens=cost, around=lambda _hits: [])
    assert context.passages[0].text == every[2].text.strip()
    gap = [chunk for chunk in every if chunk.chunk_id != every[3].chunk_id]
    context = pack(ranked(every, [2]), budget_tokens=1000, count_tokens=cost, around=lambda _hits: gap)
    assert context.passages[0].runs[0][1].endswith(every[2].text.strip())


def test_two_versions_of_a_document_stay_two_passages() -> None:
    old, new = chunks(ENGLISH), chunks(ENGLISH.replace("36", "24"), version=2)
    hits = [replace(old[0], score=1.0), replace(new[1], score=0.9)]
    context = pack(hits, budget_tokens=1000, count_tokens=cost, around=lambda _hits: [*old[1:3], new[0], new[2]])
    assert [passage.hit.version for passage in context.passages] == [1, 2]
    assert "36 months" in context.passages[0].text
    assert "24 months" in context.passages[1].text
    for passage in context.passages:
        assert {span.chunk.version for span in passage.spans} == {passage.hit.version}


# ── without ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "keyword", "kept"),
    [(ENGLISH, "batteries", "Batteries are covered for six months."), (CHINESE, "电池", "电池保修六个月。")],
)
def test_where_room_is_short_the_sentence_that_was_asked_for_stays(text: str, keyword: str, kept: str) -> None:
    every = chunks(text, size=8)
    budget = cost(Passage.whole(1, every[0], 0)) // 2
    context = pack(ranked(every, [0]), budget_tokens=budget, count_tokens=cost, wanted=wanted(keyword))
    assert kept in context.passages[0].text
    assert_holds(context, text, budget)


def test_a_sentence_keeps_the_heading_that_it_stands_under() -> None:
    every = chunks(ENGLISH, size=20)
    context = pack(ranked(every, [0]), budget_tokens=40, count_tokens=cost, wanted=wanted("week"))
    assert "Loans" in context.passages[0].text
    assert "within a week" in context.passages[0].text
    assert "invoice" not in context.passages[0].text


def test_a_row_keeps_the_header_of_its_table_and_gaps_are_shown() -> None:
    every = chunks(TABLE, size=12, header="Region | Q1 | Q2")
    full = cost(Passage.whole(1, every[0], 0))
    context = pack(ranked(every, [0]), budget_tokens=full // 2, count_tokens=cost, wanted=wanted("77", "7"))
    [passage] = context.passages
    shown = answer_messages("q", context.passages, language="en")[-1].content
    assert "Region | Q1 | Q2\nRegion" in shown
    assert "Region 1 | 7 | 11" in shown
    assert "Region 11 | 77 | 121" in shown
    assert "\n…\n" in shown
    assert passage.header == "Region | Q1 | Q2"


def test_what_is_left_of_one_document_shares_a_frame_when_room_is_short() -> None:
    every = chunks(ENGLISH, size=1)
    hits = ranked(every, [2, 7, 4])
    whole = pack(hits, budget_tokens=1000, count_tokens=cost)
    assert len(whole.passages) == 3
    budget = sum(passage.tokens for passage in whole.passages) - 1
    cut = pack(hits, budget_tokens=budget, count_tokens=cost)
    assert len(cut.passages) == 1
    assert cut.left_out == 0
    shown = answer_messages("q", cut.passages, language="en")[-1].content
    assert "\n… Manual › Loans\n" in shown


def test_a_budget_without_room_shows_nothing_and_counts_all() -> None:
    assert pack(ranked(chunks(ENGLISH), [0, 1]), budget_tokens=3, count_tokens=cost) == Context((), 2)
    assert pack([], budget_tokens=100, count_tokens=cost) == Context((), 0)
