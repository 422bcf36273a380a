"""Two arms' scores become one, best first, in both languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.retrieval.fusion import Group, arm_weight, dense_weight, fuse, min_max, nearness

SCORES = st.dictionaries(st.integers(0, 30), st.floats(-1, 100, allow_nan=False), max_size=15)
POSITIVE = st.dictionaries(st.integers(0, 30), st.floats(0.01, 100, allow_nan=False), max_size=15)


@given(SCORES)
def test_stretched_scores_keep_their_order_and_reach_from_0_to_1(scores: dict[int, float]) -> None:
    stretched = min_max(scores)
    assert stretched.keys() == scores.keys()
    assert all(0.0 <= value <= 1.0 for value in stretched.values())
    for key, score in scores.items():
        assert all(stretched[key] <= stretched[other] for other, more in scores.items() if more >= score)
    if scores:
        assert max(stretched.values()) == 1.0


@given(vectors=SCORES, terms=POSITIVE, dense=st.floats(0, 0.5))
def test_every_key_of_either_arm_has_one_score_between_0_and_1(
    vectors: dict[int, float], terms: dict[int, float], dense: float
) -> None:
    fused = fuse([Group(dense, vectors, terms)])
    assert fused.keys() == vectors.keys() | terms.keys()
    assert all(-1e-9 <= score <= 1.0 + 1e-9 for score in fused.values())


@given(vectors=SCORES, terms=POSITIVE)
def test_without_weight_for_the_vectors_the_terms_decide(vectors: dict[int, float], terms: dict[int, float]) -> None:
    if not terms:
        return
    fused = fuse([Group(0.0, vectors, terms)])
    best = max(fused, key=lambda key: fused[key])
    assert terms[best] == pytest.approx(max(terms.values()))


def test_best_in_both_arms_is_best_and_best_in_none_is_last() -> None:
    fused = fuse([Group(0.5, {1: 0.9, 2: 0.5, 3: 0.1}, {1: 9.0, 2: 5.0, 3: 1.0})])
    assert sorted(fused, key=lambda key: -fused[key]) == [1, 2, 3]
    assert fused[1] == 1.0


def test_what_an_arm_did_not_find_has_its_worst_score() -> None:
    fused = fuse([Group(0.5, {1: 0.9, 2: 0.5}, {2: 5.0})])
    assert fused == {1: 0.5, 2: 0.5}


def test_without_terms_the_vectors_alone_decide() -> None:
    assert fuse([Group(0.1, {1: 0.9, 2: 0.5}, {})]) == {1: 1.0, 2: 0.0}
    assert fuse([Group(0.5, {}, {})]) == {}


def test_cosines_of_two_embedders_are_never_compared() -> None:
    """The second one's are all higher, and its best says no more for that."""
    low, high = Group(0.5, {1: 0.4, 2: 0.1}, {1: 8.0}), Group(0.5, {3: 0.9, 4: 0.8}, {4: 2.0})
    fused = fuse([low, high])
    assert fused[1] == 1.0
    assert fused[3] == 0.5
    assert fused[4] == 0.125
    assert fuse([Group(0.5, {1: 0.4, 2: 0.1}), Group(0.5, {3: 0.9, 4: 0.8})]) == {1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0}


def test_an_embedder_that_does_not_read_the_question_hardly_counts() -> None:
    assert dense_weight(1.0) == 0.5
    assert dense_weight(0.43) < 0.1  # all-MiniLM-L6-v2 on Chinese
    assert dense_weight(0.0) == 0.0


def test_a_passage_is_ranked_by_vectors_as_far_as_they_mean_something() -> None:
    assert arm_weight(1.0) == dense_weight(1.0)
    assert arm_weight(0.43) < 0.02
    assert nearness([Group(arm_weight(1.0), {1: 0.9, 2: 0.5}), Group(arm_weight(0.5), {3: 0.9, 4: 0.5}, {5: 2.0})]) == {
        1: 1.0,
        2: 0.0,
        3: 0.0625,
        4: 0.0,
    }
