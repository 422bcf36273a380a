"""Markers in a model's reply become citations of clean sentences, also while the reply is still being written."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag.answering.citations import Claim, claims


@pytest.mark.parametrize(
    ("reply", "passages"),
    [
        ("The drill weighs 2 kg [1].", (1,)),
        ("The drill weighs 2 kg. [1]", (1,)),
        ("The drill weighs 2 kg.[1]", (1,)),
        ("The drill weighs 2 kg [1, 2].", (1, 2)),
        ("The drill weighs 2 kg [1,2].", (1, 2)),
        ("The drill weighs 2 kg [1][2].", (1, 2)),
        ("The drill weighs 2 kg [1] [2].", (1, 2)),
        ("The drill weighs 2 kg [[1]].", (1,)),
        ("The drill weighs 2 kg 【1】.", (1,)),
        ("The drill weighs 2 kg [1-3].", (1, 2, 3)),
        ("The drill weighs 2 kg [1–3].", (1, 2, 3)),
        ("The drill weighs 2 kg [1; 3].", (1, 3)),
        ("The drill weighs 2 kg [ 1 ].", (1,)),
        ("The drill weighs 2 kg [2][1][2].", (2, 1)),
        ("The drill [1] weighs 2 kg [2].", (1, 2)),
        ("The drill [1]weighs 2 kg.", (1,)),
        ("[1] The drill weighs 2 kg.", (1,)),
    ],
)
def test_every_way_of_writing_a_marker_names_its_passages(reply: str, passages: tuple[int, ...]) -> None:
    [claim] = claims(reply)
    assert set(claim.passages) == set(passages)
    assert claim.text == "The drill weighs 2 kg."


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("年假有二十五天[1]。", [("年假有二十五天。", (1,))]),
        ("年假有二十五天。[1]", [("年假有二十五天。", (1,))]),
        ("年假有二十五天【1】。病假另计[2，3]。", [("年假有二十五天。", (1,)), ("病假另计。", (2, 3))]),
        ("年假有二十五天。[1]病假另计。[2]", [("年假有二十五天。", (1,)), ("病假另计。", (2,))]),
        ("年假有二十五天[1、2]。", [("年假有二十五天。", (1, 2))]),
        ("年假有二十五天［1］。", [("年假有二十五天。", (1,))]),
    ],
)
def test_chinese_replies_are_read_as_well(reply: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert claims(reply) == [Claim(*one) for one in expected]


def test_a_marker_belongs_to_the_sentence_it_stands_in_or_behind() -> None:
    assert claims("The office opens at nine. [1] It closes at six [2]. On Sundays it is closed.[3]Bring a key.") == [
        Claim("The office opens at nine.", (1,)),
        Claim("It closes at six.", (2,)),
        Claim("On Sundays it is closed.", (3,)),
        Claim("Bring a key.", ()),
    ]


def test_lists_lose_their_signs_and_keep_their_markers() -> None:
    reply = "There are two:\n- The drill weighs 2 kg [1].\n2. The saw weighs 3 kg [2]"
    assert claims(reply) == [
        Claim("There are two:", ()),
        Claim("The drill weighs 2 kg.", (1,)),
        Claim("The saw weighs 3 kg", (2,)),
    ]


def test_what_is_no_marker_stays_in_the_text() -> None:
    for reply in ("The array a[i] is empty.", "The year [sic] was 1998.", "See [Appendix A] for more."):
        assert claims(reply) == [Claim(reply, ())]


@pytest.mark.parametrize("reply", ["", "   ", "[1]", "[1][2].", "...", "—"])
def test_a_reply_that_says_nothing_claims_nothing(reply: str) -> None:
    assert claims(reply) == []


def test_a_span_of_absurd_length_is_two_numbers() -> None:
    assert claims("All of it [1-999].")[0].passages == (1, 999)


# ── while it is being written ─────────────────────────────────────────────────────────────────

REPLIES = [
    "The office opens at nine. [1] It closes at six [2]. On Sundays it is closed.[3] Bring a key.",
    "Acme Inc. Theodore founded it [1]. Acme Inc. The firm grew [2].",
    "Ask Dr. Lee, e.g. on Jan. 5 at 3.14 p.m. about No. 5 [1]. Done.",
    "J. K. Theroux wrote it. [1] Then the U.S. Thermal Co. bought it [2, 3].",
    "Many say so. [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] Few deny it [11].",
    "There are two:\n- The drill weighs 2 kg [1].\n- The saw weighs 3 kg [2].\n\nNothing else.",
    "1. First [1].\n2. Second [2].\n3. Third.",
    "He said “It is over.” [1] She (the boss) left. [2] See [Appendix A]. The end.",
    "What? [1] Really?! [2] Yes... it is [3]. So... The end.",
    "年假有二十五天。[1]病假另计[2]。“为什么？”，他问。因为规定如此【3】。",
    "第一，价格为3.5元[1]。第二：重量是2.0公斤。[2][3]他说：“好！”然后离开……结束了。",
    "See the array a[i] there. [1] It is [[2]] fine. [[3]] Good [1-3]. Bye",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_sentence_that_was_said_is_never_taken_back(reply: str) -> None:
    whole = claims(reply)
    for end in range(len(reply) + 1):
        said = claims(reply[:end], finished=False)
        assert said == whole[: len(said)], reply[:end]


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("It opens at nine. It", 0),
        ("It opens at nine. [1] It closes", 1),
        ("九点开门。[1]六点", 1),
        ("One. Two. Three more", 2),
    ],
)
def test_a_sentence_is_said_soon_after_the_next_one_begins(written: str, count: int) -> None:
    assert len(claims(written, finished=False)) == count


WORDS = [
    "The drill weighs",
    " 2 kg",
    " 3.5",
    " Inc.",
    " Dr.",
    " e.g.",
    " U.S.",
    " No. 5",
    " The",
    " A",
    "Theodore",
    " it",
]
MARKS = [
    ".",
    ".",
    ". ",
    " ",
    "\n",
    "!",
    "?",
    "...",
    "(",
    ")",
    "“",
    "”",
    '"',
    ":",
    ";",
    "-",
    "- ",
    "1. ",
    "’s",
    "é",
    "_",
]
MARKERS = ["[1]", " [2]", "[1, 2]", "[[3]]", "【1】", "[1-3]", " [a]", "[", "]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]"]
CHINESE = ["年假", "有二十五天", "。", "；", "！", "，", "……", "的"]
PIECES = st.sampled_from(WORDS + MARKS + MARKERS + CHINESE)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
@example("A Inc. The")
def test_streaming_says_a_beginning_of_the_whole_reply(reply: str) -> None:
    whole = claims(reply)
    for end in range(len(reply) + 1):
        said = claims(reply[:end], finished=False)
        assert said == whole[: len(said)], reply[:end]


def test_the_fence_that_a_small_model_copies_is_not_part_of_its_answer() -> None:
    reply = "<source 2d531a> The bridge opens at nine. [1] </source 2d531a> It closes at ten. [2]"
    assert claims(reply) == [Claim("The bridge opens at nine.", (1,)), Claim("It closes at ten.", (2,))]
    for end in range(len(reply)):
        said = claims(reply[:end], finished=False)
        assert said == claims(reply)[: len(said)]
