"""What a language model should be shown, over HTTP, on the command line's way, and from a real catalog."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.answer import Assistant, Question
from rag.catalog import versions
from rag.catalog.surroundings import read_around
from rag.knowledge import KnowledgeBase
from rag.models import Hit
from rag.retrieval.retrieve import retrieve
from rag.settings import Settings
from rag.upkeep.retention import purge
from tests.bases import Bases, file, publish_text, runs_in, source_in
from tests.fakes import HashEmbedder, ScriptedModel

LINES = [f"Paragraph {number} tells of subject {number} at some length." for number in range(40)]
TEXT = "\n\n".join([*LINES[:20], "The Rotterdam depot opens at eight.", *LINES[20:]])
QUESTION = "When does the Rotterdam depot open?"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    bases = Bases(tmp_path)
    yield bases.open()
    bases.close()


def best(base: KnowledgeBase, **asked: Any) -> Hit:
    return retrieve(QUESTION, base=base, collections=base.collections([]), k=1, **asked).hits[0]


def around(base: KnowledgeBase, *hits: Hit) -> list[str]:
    with base.catalog.read() as snapshot:
        return [chunk.text for chunk in read_around(snapshot, hits, reach=2)]


def test_neighbours_are_of_the_same_version_also_of_one_that_is_no_longer_active(base: KnowledgeBase) -> None:
    runs = runs_in(base)
    runs.sync(file("depot.txt", TEXT))
    then = datetime.now(UTC)
    runs.sync(file("depot.txt", TEXT.replace("subject", "topic").replace("eight", "nine")))
    old, new = best(base, as_of=then), best(base)
    assert (old.version, new.version) == (1, 2)
    for hit, text in ((old, TEXT), (new, TEXT.replace("subject", "topic").replace("eight", "nine"))):
        beside = around(base, hit)
        assert len(beside) == 4
        assert "".join([*beside[:2], hit.text, *beside[2:]]) in text
    assert len(around(base, old, new)) == 8
    assistant = Assistant(base, model=None)
    found = assistant.search(Question(QUESTION, top_k=1, as_of=then))
    [passage] = assistant.context(found, tokens=1000, language="en", wider=False).passages
    assert passage.hit.version == 1
    with base.catalog.read() as snapshot:
        text = versions.version_row(snapshot, old.document_id, 1).text
    assert [text[start : start + len(run)] for start, run in passage.runs] == [run for _, run in passage.runs]
    assert "topic" not in passage.text


def test_what_was_purged_after_it_was_found_has_nothing_around_it(base: KnowledgeBase) -> None:
    runs_in(base).sync(file("depot.txt", TEXT))
    assistant = Assistant(base, model=None)
    found = assistant.search(Question(QUESTION, top_k=1))
    purge(base, found.hits[0].document_id)
    assert around(base, *found.hits) == []
    [passage] = assistant.context(found, tokens=1000, language="en", wider=False).passages
    assert passage.text == found.hits[0].text.strip()


def test_a_citation_from_a_neighbour_names_the_neighbours_chunk_and_quotes_it_exactly(base: KnowledgeBase) -> None:
    runs_in(base).sync(file("depot.txt", TEXT))
    found = best(base)
    with base.catalog.read() as snapshot:
        behind = next(one for one in read_around(snapshot, [found], reach=2) if one.start == found.end)
    said = behind.text.strip().splitlines()[0]
    model = ScriptedModel(f"{said.removesuffix('.')} [1].", window=8000)
    assistant = Assistant(base, model=model, enough_evidence=0.0)
    answer = assistant.answer(Question(QUESTION, top_k=1, wider=False))
    [citation] = answer.citations
    assert citation.quote == said == TEXT[citation.start : citation.end]
    assert citation.chunk_id == behind.chunk_id != found.chunk_id
    [shown] = answer.passages
    assert (shown.n, shown.document_id, shown.version) == (1, found.document_id, 1)
    assert any(start <= citation.start and citation.end <= end for start, end in shown.spans)


def test_an_explicit_top_k_is_a_limit_also_for_a_model(base: KnowledgeBase) -> None:
    into = source_in(base)
    for number in range(6):
        publish_text(base, *into, f"{number}.txt", f"The Rotterdam depot number {number} opens at {number}.")
    for wider, shown in ((False, 2), (True, 6)):
        model = ScriptedModel("It opens at eight [1].", window=8000)
        question = Question(QUESTION, top_k=2, wider=wider)
        answer = Assistant(base, model=model, enough_evidence=0.0).answer(question)
        assert sum(message.content.count("</source ") for message in model.asked[0][1:]) == shown
        assert answer.left_out == 0


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("context") / "data")
    service = Service(settings, embedder=HashEmbedder())
    into = source_in(service.base, collection="default")
    publish_text(service.base, *into, "depot.txt", TEXT)
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def test_a_search_with_context_tokens_gives_passages_within_them(client: TestClient) -> None:
    plain = client.post("/v1/search", json={"question": QUESTION}).json()
    assert plain["context"] is None
    for tokens in (100, 400, 4000):
        found = client.post("/v1/search", json={"question": QUESTION, "context_tokens": tokens}).json()
        assert found["context"][0]["n"] == 1
        assert sum(passage["tokens"] for passage in found["context"]) <= tokens
        for passage in found["context"]:
            where = {"version": passage["version"]}
            text = client.get(f"/v1/documents/{passage['document_id']}/text", params=where).json()["text"]
            assert all(text[span["start"] : span["end"]] == span["text"] for span in passage["spans"])
            assert {span["chunk_id"] for span in passage["spans"]}
    assert "Rotterdam" in str(found["context"])


@pytest.mark.parametrize("tokens", [0, 99, -1, "many"])
def test_too_few_context_tokens_are_refused(client: TestClient, tokens: object) -> None:
    response = client.post("/v1/search", json={"question": QUESTION, "context_tokens": tokens})
    assert response.status_code == 422
    assert "context_tokens" in response.text


def test_ask_takes_no_context_tokens(client: TestClient) -> None:
    assert client.post("/v1/ask", json={"question": QUESTION, "context_tokens": 500}).status_code == 422
