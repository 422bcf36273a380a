"""Exact search is exact, also among chosen keys, and sees its changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.errors import InvalidInput, Unavailable
from rag.ports import Vectors
from rag.search.exact import ExactIndex


def unit_vectors(count: int, *, seed: int = 1) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@given(st.integers(0, 40), st.integers(0, 50), st.sets(st.integers(0, 60)) | st.none())
def test_it_finds_what_sorting_everything_would_find(count: int, k: int, among: set[int] | None) -> None:
    vectors, question = unit_vectors(count), unit_vectors(1, seed=2)[0]
    index = ExactIndex()
    index.load(1, list(range(count))[::-1], vectors[::-1])
    expected = sorted((-float(vectors[key] @ question), key) for key in range(count) if among is None or key in among)
    found = index.search(1, question, k=k, among=among)
    assert [key for key, _ in found] == [key for _, key in expected[:k]]
    if among is not None:
        assert found == index.search(1, question, k=k, among=np.array(sorted(among), dtype=np.int64))


def test_equal_scores_come_in_order_of_their_keys() -> None:
    index = ExactIndex()
    index.load(1, [5, 3, 9], np.repeat(unit_vectors(1), 3, axis=0))
    assert [key for key, _ in index.search(1, unit_vectors(1)[0], k=2)] == [3, 5]


@pytest.mark.parametrize("keys", [[20, 21], [4, 20], [0, 1]])
def test_added_vectors_replace_those_of_the_same_key(keys: list[int]) -> None:
    old, new = unit_vectors(10), unit_vectors(2, seed=3)
    index = ExactIndex()
    index.load(1, range(10), old.astype(np.float16))
    index.add(1, keys, new)
    index.add(1, keys, new)
    assert index.keys(1) == set(range(10)) | set(keys)
    assert index.search(1, new[0], k=1)[0][0] == keys[0]
    assert index.search(1, new[1], k=1)[0][0] == keys[1]


def test_removed_vectors_are_gone_and_removing_nothing_is_fine() -> None:
    index = ExactIndex()
    index.load(1, range(10), unit_vectors(10))
    index.remove(1, [3, 77])
    index.remove(1, [])
    assert index.keys(1) == set(range(10)) - {3}
    index.remove(1, list(range(10)))
    assert index.search(1, unit_vectors(1)[0], k=3) == []
    index.add(1, [2], unit_vectors(1))
    assert index.keys(1) == {2}


def test_what_is_not_loaded_is_unavailable_and_wrong_shapes_are_refused() -> None:
    index = ExactIndex()
    with pytest.raises(Unavailable):
        index.search(1, unit_vectors(1)[0], k=1)
    with pytest.raises(InvalidInput):
        index.load(1, [1, 2], unit_vectors(1))
    index.load(1, [1], unit_vectors(1))
    assert index.loaded(1)
    with pytest.raises(InvalidInput):
        index.search(1, np.ones(3, dtype=np.float32), k=1)
    index.drop(1)
    assert not index.loaded(1)
