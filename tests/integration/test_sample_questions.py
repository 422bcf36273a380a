"""The sixty sample questions, asked of the sample corpus with the real embedder and no language model.

The floors are what we promise; where today's figure is better or worse than the aim, the comment beside it says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.service import Service
from rag.answer import Final, Question, Retrieval
from rag.catalog import knowledge, versions
from rag.models import Answer, Hit, Place, SourceRecord, Turn
from rag.settings import Settings

pytestmark = [pytest.mark.models, pytest.mark.slow]

DATA = Path(__file__).parents[2] / "data"
DATABASE = "ATTEST_DB_SAMPLE_QUESTIONS"
SOURCES: dict[str, tuple[str, dict[str, object]]] = {
    "office files": ("folder", {"path": str(DATA / "corpus")}),
    "web site": ("folder", {"path": str(DATA / "site"), "include": ["*.html"]}),
    "products": ("database", {"url_env": DATABASE}),
}
QUESTIONS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "eval" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
]
ANSWERABLE = [question for question in QUESTIONS if question["answerable"]]
UNANSWERABLE = [question for question in QUESTIONS if not question["answerable"]]
INGEST_SECONDS = 240.0

FOUND_SHARE = 0.9  # of the answerable, the right source within the first three hits; 43 of 45 when this was written
REFUSED = 12  # of the 15 that cannot be answered; 13 when this was written
FALSELY_REFUSED = 4  # of the 45 that can be; the aim is 3, and so many were when this was written


@dataclass(frozen=True)
class Told:
    """What came of one question."""

    question: dict[str, Any]
    hits: tuple[Hit, ...]
    answer: Answer

    def line(self) -> str:
        wanted = ", ".join(_wanted(one) for one in self.question["expected"]) or "a refusal"
        found = " | ".join(f"{hit.uri.rpartition('/')[2]} {_where(hit.place)}" for hit in self.hits[:3])
        said = " ".join(self.answer.answer.split())[:100]
        return (
            f"{self.question['id']}  {self.question['question']}\n    wanted {wanted}\n    found  {found}\n    {said}"
        )


def table(failed: Sequence[Told]) -> str:
    return "\n".join([f"{len(failed)} questions failed:", *(told.line() for told in failed)])


def _wanted(expected: dict[str, Any]) -> str:
    return f"{expected['source']} {_where(Place(page=expected.get('page')))}".strip()


def _where(place: Place) -> str:
    return place.row or (f"p. {place.page}" if place.page else "")


def holds(hit: Hit, expected: dict[str, Any]) -> bool:
    """Whether the hit stands in the expected file, on its page or in its row where one is named."""
    source = str(expected["source"])
    file, _, row = source.partition(": ")
    places = [place for _, place in hit.places]
    if row:
        return row in [place.row for place in places]
    return hit.uri.endswith(f"/{file}") and ("page" not in expected or expected["page"] in [p.page for p in places])


# ── one ingestion for all ─────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The sample corpus in the default collection: two folders and a database, read by jobs as a user's would be."""
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("sample") / "data",
        allowed_roots=str(DATA),
        ocr=False,  # the corpus has no pictures of text
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATABASE, f"sqlite:///{DATA / 'products.sqlite'}")
        service = Service(settings)
        try:
            service.start()
            ingest(service)
            yield service
        finally:
            service.close()


def ingest(service: Service) -> None:
    collection = service.create_collection("default")
    records: list[SourceRecord] = []
    with service.base.catalog.write() as connection:
        for name, (kind, config) in SOURCES.items():
            records.append(knowledge.create_source(connection, collection, name=name, kind=kind, config=config))
    waiting = [service.submit_sync(record).id for record in records]
    deadline = time.monotonic() + INGEST_SECONDS
    while waiting:
        job = service.job(waiting[0])
        if job.finished_at is None:
            assert time.monotonic() < deadline, f"the corpus was not read in {INGEST_SECONDS:.0f} s: {job}"
            time.sleep(0.05)
            continue
        assert job.state == "succeeded", job
        waiting.pop(0)


@pytest.fixture(scope="module")
def told(service: Service) -> list[Told]:
    """All questions asked once, with their history."""
    return [ask(service, question) for question in QUESTIONS]


def ask(service: Service, question: dict[str, Any]) -> Told:
    history = tuple(Turn(turn["role"], turn["content"]) for turn in question.get("history", ()))
    hits: tuple[Hit, ...] = ()
    for event in service.assistant.stream(Question(question["question"], ("default",), history)):
        if isinstance(event, Retrieval):
            hits = event.hits
        elif isinstance(event, Final):
            return Told(question, hits, event.answer)
    raise AssertionError("a stream ends with its Final event")


def of(told: Sequence[Told], questions: Sequence[dict[str, Any]]) -> list[Told]:
    return [item for item in told if item.question in questions]


# ── what is promised ──────────────────────────────────────────────────────────────────────────


def test_there_are_sixty_questions_and_fifteen_without_an_answer() -> None:
    assert (len(QUESTIONS), len(UNANSWERABLE)) == (60, 15)


def test_the_right_source_is_among_the_first_three_hits(told: list[Told]) -> None:
    failed = [
        item
        for item in of(told, ANSWERABLE)
        if not any(holds(hit, expected) for hit in item.hits[:3] for expected in item.question["expected"])
    ]
    assert len(ANSWERABLE) - len(failed) >= FOUND_SHARE * len(ANSWERABLE), table(failed)


def test_questions_without_an_answer_are_refused(told: list[Told]) -> None:
    failed = [item for item in of(told, UNANSWERABLE) if not item.answer.refused]
    assert len(UNANSWERABLE) - len(failed) >= REFUSED, table(failed)


def test_questions_with_an_answer_are_seldom_refused(told: list[Told]) -> None:
    failed = [item for item in of(told, ANSWERABLE) if item.answer.refused]
    assert len(failed) <= FALSELY_REFUSED, table(failed)


def test_every_answer_is_cited_and_every_refusal_says_why(told: list[Told]) -> None:
    for item in told:
        if item.answer.refused:
            assert item.answer.refusal is not None, item.line()
            assert item.answer.refusal.searched, item.line()
            assert item.answer.citations == (), item.line()
        else:
            assert item.answer.sentences, item.line()
            assert all(sentence.citations for sentence in item.answer.sentences), item.line()


def test_every_citation_is_the_stored_text_at_its_offsets_on_its_page(service: Service, told: list[Told]) -> None:
    """All of them, without exception: a citation that is nearly right is wrong."""
    checked = 0
    for item in told:
        for citation in item.answer.citations:
            with service.base.catalog.read() as snapshot:
                document = knowledge.get_document(snapshot, citation.document_id)
                version = versions.version_row(snapshot, citation.document_id, citation.version)
            assert version.text[citation.start : citation.end] == citation.quote, item.line()
            assert citation.quote.strip(), item.line()
            assert (document.title, document.uri) == (citation.title, citation.uri), item.line()
            pages = {page["number"]: page for page in version.pages}
            assert bool(pages) == (citation.place.page is not None), item.line()
            if citation.place.page is not None:
                page = pages[citation.place.page]
                assert page["start"] <= citation.start < page["end"], item.line()
                assert page["label"] == citation.place.page_label, item.line()
            checked += 1
    assert checked >= len(ANSWERABLE) - FALSELY_REFUSED
