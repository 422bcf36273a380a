"""What approximate search misses is noticed, on the questions that were asked, and it searches wider then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rag.knowledge import KnowledgeBase
from rag.ports import Vectors
from rag.search.recall import Recall
from tests.bases import Bases, found_texts, publish_text, source_in
from tests.fakes import MemoryVectors


class Narrow(MemoryVectors):
    """Finds every other one of the nearest, until it has been widened `turns` times."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def search(self, index_id: int, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        found = super().search(index_id, vector, k=2 * k)
        return found[::2][:k] if self.turns else found[:k]

    def widen(self, index_id: int) -> bool:
        del index_id
        self.turns -= 1
        return True


def asked(base: KnowledgeBase, *, questions: int) -> None:
    for number in range(questions):
        found_texts(base, f"What does product {number} weigh?")


def filled(folder: Path, vectors: MemoryVectors) -> KnowledgeBase:
    base = Bases(folder, vectors=vectors).open()
    collection, source = source_in(base)
    for number in range(60):
        publish_text(base, collection, source, f"{number}.txt", f"Product {number} weighs {number * 3} kilograms.")
    return base


def test_where_nothing_is_missed_nothing_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = filled(tmp_path, MemoryVectors())
    asked(base, questions=20)
    base.caches.check_recall(now=True)
    assert list(base.caches.recall.found.values()) == [Recall(1.0, 16)]  # the latest of them
    assert "exact search" not in caplog.text


def test_what_was_missed_is_told_and_makes_it_search_wider(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = Narrow(turns=1)
    base = filled(tmp_path, vectors)
    asked(base, questions=4)
    base.caches.check_recall(now=True)
    (found,) = base.caches.recall.found.values()
    assert (found.value, found.questions) == (pytest.approx(0.5), 4)
    assert "found 50 % of what exact search finds, over 4 questions" in caplog.text
    assert vectors.turns == 0
    asked(base, questions=4)
    base.caches.check_recall(now=True)
    assert list(base.caches.recall.found.values()) == [Recall(1.0, 4)]


def test_it_is_measured_every_ten_minutes_at_most_and_only_where_somebody_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = filled(tmp_path, MemoryVectors())
    asked(base, questions=1)
    base.caches.check_recall()
    assert not base.caches.recall.found
    late = time.monotonic() + 601
    monkeypatch.setattr("rag.search.recall.time.monotonic", lambda: late)
    base.caches.check_recall()
    assert base.caches.recall.found
    base.caches.recall.found.clear()
    late += 601
    base.caches.check_recall()
    assert not base.caches.recall.found
