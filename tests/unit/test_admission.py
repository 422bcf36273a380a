"""A flood of questions: some are answered, the others are told when to come again, and nothing is left of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.server import Background
from app.service import Service
from rag.ports import Vectors
from rag.settings import Settings
from tests.fakes import HashEmbedder

QUESTION = {"question": "When is the Rotterdam office open?"}


class Held(HashEmbedder):
    """Embeds questions while it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.let.set()
        self.inside = threading.Semaphore(0)

    def embed_query(self, text: str) -> Vectors:
        self.inside.release()
        assert self.let.wait(30)
        return super().embed_query(text)


@pytest.fixture
def embedder() -> Held:
    return Held()


@pytest.fixture
def client(tmp_path: Path, embedder: Held) -> Iterator[httpx.Client]:
    settings = Settings(_env_file=None, data_dir=tmp_path, max_questions=2, question_wait_seconds=0.3)
    service = Service(settings, embedder=embedder)
    server = Background(service)
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
            job = client.post(
                "/v1/collections/default/documents",
                json={"title": "Hours", "text": "The Rotterdam office opens at 8:30."},
            ).json()
            service.jobs.wait(job["id"])
            yield client
    finally:
        embedder.let.set()
        server.close()


def test_what_cannot_be_answered_soon_is_turned_away_and_all_is_well_when_the_flood_is_over(
    client: httpx.Client, embedder: Held
) -> None:
    assert client.post("/v1/search", json=QUESTION).status_code == 200
    embedder.let.clear()
    while embedder.inside.acquire(blocking=False):
        pass
    with ThreadPoolExecutor(24) as clients:
        flood = [
            clients.submit(client.post, "/v1/ask" if number % 2 else "/v1/search", json=QUESTION)
            for number in range(24)
        ]
        assert embedder.inside.acquire(timeout=10)
        assert embedder.inside.acquire(timeout=10)
        while sum(one.done() for one in flood) < 22:
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 200
            assert client.get("/v1/collections").status_code == 200
            assert time.monotonic() - began < 10, "it waited behind questions"
        assert not embedder.inside.acquire(blocking=False), "more than two were let in"
        turned_away = [one.result() for one in flood if one.done()]
        embedder.let.set()
        answers = [one.result() for one in flood]
    assert [answer.status_code for answer in answers].count(200) == 2
    for answer in turned_away:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/overloaded"
        assert answer.json()["remedy"]
    after = [client.post("/v1/search", json=QUESTION).status_code for _ in range(5)]
    assert after == [200] * 5


def test_who_finds_a_place_in_time_is_answered(client: httpx.Client, embedder: Held) -> None:
    embedder.let.clear()
    while embedder.inside.acquire(blocking=False):
        pass
    with ThreadPoolExecutor(3) as clients:
        first = [clients.submit(client.post, "/v1/search", json=QUESTION) for _ in range(2)]
        assert embedder.inside.acquire(timeout=10)
        assert embedder.inside.acquire(timeout=10)
        third = clients.submit(client.post, "/v1/search", json=QUESTION)
        embedder.let.set()
        assert [one.result().status_code for one in (*first, third)] == [200, 200, 200]


def test_a_stream_has_its_place_until_its_last_byte_and_gives_it_back(client: httpx.Client) -> None:
    for _ in range(5):  # more than there are places
        with client.stream("POST", "/v1/ask", json={**QUESTION, "stream": True}) as answer:
            assert answer.status_code == 200
            assert "event: final" in "".join(answer.iter_text())


def test_a_question_that_fails_gives_its_place_back(client: httpx.Client) -> None:
    for _ in range(5):
        missing = client.post("/v1/search", json={**QUESTION, "collection": "nothing"})
        assert missing.status_code == 404
    assert client.post("/v1/search", json=QUESTION).status_code == 200


def test_the_reference_tells_of_it(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/v1/ask", "/v1/search"):
        assert "Retry-After" in paths[path]["post"]["responses"]["503"]["headers"]
