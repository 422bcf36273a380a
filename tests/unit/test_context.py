"""Passages fit the window whole, best first, or are left out and counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rag.context import pack
from rag.models import Hit


def hit(number: int, tokens: int) -> Hit:
    text = " ".join(["word"] * tokens)
    return Hit(number, "col", "doc", 1, "T", "t", (), 0, len(text), text, "", tokens, 1.0, {})


SIZES = st.lists(st.integers(0, 300), max_size=20)


@given(sizes=SIZES, budget=st.integers(-10, 1000))
def test_the_budget_is_never_exceeded_and_nothing_is_cut(sizes: list[int], budget: int) -> None:
    hits = [hit(number, size) for number, size in enumerate(sizes)]
    context = pack(hits, budget_tokens=budget, count_tokens=lambda hit: hit.tokens + 7)
    assert sum(passage.tokens for passage in context.passages) <= max(budget, 0)
    assert context.left_out == len(hits) - len(context.passages)
    assert [passage.n for passage in context.passages] == list(range(1, len(context.passages) + 1))
    for passage in context.passages:
        assert passage.text == passage.hit.text
        assert passage.tokens == passage.hit.tokens + 7
    order = [passage.hit.chunk_id for passage in context.passages]
    assert order == sorted(order)


@given(sizes=SIZES, budget=st.integers(0, 1000))
def test_what_is_left_out_would_not_have_fitted(sizes: list[int], budget: int) -> None:
    hits = [hit(number, size) for number, size in enumerate(sizes)]
    context = pack(hits, budget_tokens=budget, count_tokens=lambda hit: hit.tokens)
    taken = {passage.hit.chunk_id for passage in context.passages}
    for left in (item for item in hits if item.chunk_id not in taken):
        before = sum(item.tokens for item in hits[: left.chunk_id] if item.chunk_id in taken)
        assert before + left.tokens > budget


def test_a_short_passage_behind_one_that_is_too_long_still_goes_in() -> None:
    context = pack([hit(0, 10), hit(1, 500), hit(2, 20)], budget_tokens=40, count_tokens=lambda hit: hit.tokens)
    assert [passage.hit.chunk_id for passage in context.passages] == [0, 2]
    assert context.left_out == 1
