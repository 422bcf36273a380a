"""Readers who never pause, while what they read changes under them: each answer is of one version, whole, and of one
that was active while they asked. Real catalog, Chroma and Tantivy."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rag.answer import Assistant, Question
from rag.catalog import knowledge
from rag.models import Citation, Collection, Hit
from rag.search.terms import TantivyIndex
from rag.search.vectors import ChromaIndex
from tests.bases import Bases, publish_text, source_in

pytestmark = pytest.mark.slow

_FLIPS = 500 if "ATTEST_SOAK" in os.environ else 40
_READERS = 8
_VALVES = ("A-17", "B-20", "C-35")
_LIMITS = (40, 55)
_RULES = 6
_FILLER = 40


def text_of(valve: str, limit: int) -> str:
    """Every paragraph, so every chunk, says which of the two texts it belongs to."""
    return "\n".join(
        [
            f"The limit of {valve} is {limit} bar.",
            f"Above {limit} bar the relief line of {valve} opens by itself.",
            f"At {limit} bar the display of {valve} shows a red lamp.",
            f"Nobody may run {valve} at more than {limit} bar without the shift leader.",
            f"The test pressure of {valve} is twice its limit of {limit} bar.",
            f"The label of {valve} has {limit} bar printed on its lower edge.",
        ]
    )


@dataclass
class Times:
    """When each version of a document may have been active: from before its publishing until after the next one's."""

    began: dict[str, list[float]] = field(default_factory=dict)  # position: version - 1
    ended: dict[str, list[float]] = field(default_factory=dict)

    def allows(self, document_id: str, version: int, *, asked: float, answered: float) -> bool:
        first = self.began[document_id][version - 1]
        following = self.ended[document_id][version:]  # when the next version was published for sure
        return first <= answered and (not following or asked <= following[0])


@dataclass
class World:
    assistant: Assistant
    collection: Collection
    times: Times
    limits: dict[tuple[str, int], int]  # (document, version) → what it says
    flip: Callable[[int], None]


@pytest.fixture
def world(tmp_path: Path) -> World:
    bases = Bases(tmp_path, terms=TantivyIndex(path=tmp_path / "terms"), vectors=ChromaIndex(path=tmp_path / "chroma"))
    base = bases.open()
    collection, source = source_in(base)
    times, limits = Times(), {}
    with base.catalog.write() as connection:
        ids = {
            valve: knowledge.reserve_document(connection, source.id, key=f"{valve}.txt", uri=f"files/{valve}.txt")
            for valve in _VALVES
        }
    for document_id in ids.values():
        times.began[document_id], times.ended[document_id] = [], []

    def flip(number: int) -> None:
        for valve, document_id in ids.items():
            limit = _LIMITS[number % 2]
            limits[document_id, number + 1] = limit
            times.began[document_id].append(time.monotonic())
            published = publish_text(base, collection, source, f"{valve}.txt", text_of(valve, limit))
            times.ended[document_id].append(time.monotonic())
            assert published[:2] == (document_id, number + 1)

    for number in range(_FILLER):
        publish_text(
            base, collection, source, f"filler-{number}.txt", f"Gasket G-{number:02} is kept on shelf {number}."
        )
    flip(0)
    yield World(Assistant(base, model=None), collection, times, limits, flip)
    base.caches.close()
    bases.close()


def test_every_answer_is_of_one_version_that_was_active_while_it_was_asked(world: World) -> None:
    answers, hits = 0, 0
    problems: list[str] = []
    done = threading.Event()
    counting = threading.Lock()

    def check(said: list[tuple[str, int, str]], *, asked: float, answered: float) -> None:
        """Of each document one version, that was active, and nothing that contradicts it."""
        of: dict[str, set[int]] = {}
        for document_id, version, text in said:
            if document_id in world.times.began:
                of.setdefault(document_id, set()).add(version)
                limit = world.limits[document_id, version]
                numbers = {int(found) for found in re.findall(r"(\d+) bar", text)}
                assert numbers == {limit}, f"version {version} says {limit} bar, not “{text}”"
        for document_id, versions in of.items():
            assert len(versions) == 1, f"versions {sorted(versions)} at once"
            version = versions.pop()
            assert world.times.allows(document_id, version, asked=asked, answered=answered), f"{version} is stale"

    def ask(valve: str) -> None:
        asked = time.monotonic()
        answer = world.assistant.answer(Question(f"What is the limit of {valve}?"))
        answered = time.monotonic()
        assert not answer.refused, answer.answer
        assert f"The limit of {valve} is" in answer.answer, answer.answer
        check([_cited(citation) for citation in answer.citations], asked=asked, answered=answered)
        assert len(set(re.findall(r"(\d+) bar", answer.answer))) == 1, answer.answer

    def search(valve: str) -> None:
        asked = time.monotonic()
        found = world.assistant.search(Question(f"{valve} bar limit", top_k=100)).hits
        answered = time.monotonic()
        check([_hit(hit) for hit in found], asked=asked, answered=answered)
        for document_id in world.times.began:
            parts = [hit for hit in found if hit.document_id == document_id]
            assert len(parts) == _RULES, f"{len(parts)} of {_RULES} chunks of a document"

    def reader(number: int) -> None:
        nonlocal answers, hits
        turn = number
        try:
            while not done.is_set():
                turn += 1
                valve = _VALVES[turn % len(_VALVES)]
                if number % 4 == 3:
                    search(valve)
                else:
                    ask(valve)
                with counting:
                    answers, hits = answers + (number % 4 != 3), hits + (number % 4 == 3)
        except Exception as problem:  # noqa: BLE001  # shown by the test's own thread
            problems.append(f"{type(problem).__name__}: {problem}")
            done.set()

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(_READERS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(1, _FLIPS):
            if done.is_set():
                break
            world.flip(number)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert answers
    assert hits
    print(f"\n{answers} answers and {hits} searches during {_FLIPS} flips of {len(_VALVES)} documents")  # noqa: T201


def _cited(citation: Citation) -> tuple[str, int, str]:
    return citation.document_id, citation.version, citation.quote


def _hit(hit: Hit) -> tuple[str, int, str]:
    return hit.document_id, hit.version, hit.text
