"""Questions that the knowledge does not answer are a list for whoever looks after it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.answer import Assistant
from rag.gaps import Asked, Gap, gaps_of
from rag.settings import Settings
from tests.fakes import HashEmbedder, ScriptedModel

START = datetime(2026, 1, 1, tzinfo=UTC)


def asked(*questions: str, answered: tuple[int, ...] = ()) -> list[Gap]:
    """One a day; those at the positions `answered` had an answer."""
    return gaps_of(
        Asked(f"ans_{at}", question, START + timedelta(days=at), at not in answered)
        for at, question in enumerate(questions)
    )


@pytest.mark.parametrize(
    "wordings",
    [
        ("Who founded Acme?", "who founded  ACME", "Who founded Ａｃｍｅ ?!"),
        ("What is the parking fee in Porto?", "What are parking fees in Porto", "Parking fee in Porto"),
        ("停车费是多少？", "停车费是多少", "請問停車費是多少？"),
        ("How long is the warranty of the TL-1207?", "How long is the TL-1207's warranty?"),
    ],
)
def test_the_same_question_in_other_words_is_one_gap(wordings: tuple[str, ...]) -> None:
    (gap,) = asked(*wordings)
    assert gap.count == len(wordings)
    assert gap.wordings == list(reversed(wordings))
    assert gap.asked[0].at == START


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who founded Acme?", "When was Acme founded?"),
        ("How long is the warranty of the TL-1207?", "How long is the warranty of the TL-1422?"),
        ("谁创办了公司？", "什么时候创办的公司？"),
        ("What is the parking fee in Porto?", "What is the travel allowance in Porto?"),
        ("What was the revenue of 2023?", "What was the revenue of 2024?"),
    ],
)
def test_other_questions_are_other_gaps(one: str, other: str) -> None:
    assert len(asked(one, other)) == 2


def test_what_is_asked_most_often_comes_first_and_of_those_the_latest() -> None:
    found = asked("Who founded Acme?", "Where is the sauna?", "Why is the sky blue?", "Where is the sauna?")
    assert [gap.wordings[0] for gap in found] == ["Where is the sauna?", "Why is the sky blue?", "Who founded Acme?"]


def test_a_gap_that_was_answered_since_says_so_and_one_that_was_answered_before_does_not() -> None:
    (since,) = asked("Where is the sauna?", "where is the sauna", answered=(1,))
    assert since.answered_since == START + timedelta(days=1)
    assert since.count == 1
    (before,) = asked("Where is the sauna?", "where is the sauna", answered=(0,))
    assert before.answered_since is None
    assert asked("Where is the sauna?", answered=(0,)) == []


def test_ten_thousand_questions_are_grouped() -> None:
    found = asked(*(f"Where is room {at % 2500} of building {at % 7}?" for at in range(10_000)))
    assert sum(gap.count for gap in found) == 10_000


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    yield from serve(tmp_path)


def serve(folder: Path, **settings: Any) -> Iterator[TestClient]:
    service = Service(Settings(_env_file=None, data_dir=folder, **settings), embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        for name in ("handbook", "更多"):
            add(client, name, "Opening hours", "The canteen opens at nine in the morning.")
        yield client


def add(client: TestClient, collection: str, title: str, text: str) -> str:
    client.post("/v1/collections", json={"name": collection})
    job = client.post(f"/v1/collections/{collection}/documents", json={"title": title, "text": text}).json()
    while not job["finished_at"]:
        time.sleep(0.01)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return str(job["items"][0]["document_id"])


def ask(client: TestClient, question: str, **more: Any) -> dict[str, Any]:
    response = client.post("/v1/ask", json={"question": question, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def gaps(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    response = client.get("/v1/gaps", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def test_a_refused_question_is_listed_with_what_came_closest_and_what_is_missing(client: TestClient) -> None:
    ask(client, "Which submarine did Zanzibar paint?", collection="handbook")
    refused = ask(client, "which submarine did Zanzibar paint", collection="handbook")
    assert not ask(client, "When does the canteen open?")["refused"]
    (gap,) = gaps(client)
    assert (gap["count"], gap["question"]) == (2, "which submarine did Zanzibar paint")
    assert gap["answer_id"] == refused["id"]
    assert gap["first_at"] <= gap["last_at"]
    assert "submarine" in gap["missing"]
    assert {item["title"] for item in gap["closest"]} <= {"Opening hours"}
    assert gap["answered_since"] is None


def test_a_filter_that_leaves_nothing_to_search_is_no_gap_of_the_knowledge(client: TestClient) -> None:
    nowhere = {"field": "title", "eq": "A title that no document has"}
    refusal = ask(client, "When does the canteen open?", filters=nowhere)["refusal"]
    assert refusal["kind"] == "filtered_out"
    assert gaps(client) == []
    ask(client, "Where is the sauna?")
    assert [gap["wordings"] for gap in gaps(client)] == [["Where is the sauna?"]]


def test_a_follow_up_is_listed_as_the_question_that_it_stands_for(client: TestClient) -> None:
    history = [{"role": "user", "content": "Which submarine did Zanzibar paint in Oslo?"}]
    ask(client, "And in Porto?", history=history)
    assert [gap["question"] for gap in gaps(client)] == ["Which submarine did Zanzibar paint in Porto?"]


def test_gaps_are_narrowed_to_a_collection_and_a_time(client: TestClient) -> None:
    ask(client, "Which submarine did Zanzibar paint?", collection="handbook")
    assert len(gaps(client, collection="handbook")) == 1
    assert gaps(client, collection="更多") == []
    assert client.get("/v1/gaps", params={"collection": "nowhere"}).status_code == 404
    today = datetime.now(UTC).date()
    assert len(gaps(client, since=str(today))) == 1
    assert gaps(client, since=(datetime.now(UTC) + timedelta(minutes=1)).isoformat()) == []
    assert client.get("/v1/gaps", params={"since": "last spring"}).status_code == 422


def test_gaps_come_in_pages(client: TestClient) -> None:
    for thing in ("submarine", "zeppelin", "trombone"):
        ask(client, f"Which {thing} did Zanzibar paint?")
    first = client.get("/v1/gaps", params={"limit": 2}).json()
    rest = client.get("/v1/gaps", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (len(first["data"]), len(rest["data"]), rest["next_cursor"]) == (2, 1, None)
    assert len({gap["id"] for gap in first["data"] + rest["data"]}) == 3
    assert client.get("/v1/gaps", params={"cursor": "gap_none"}).status_code == 422


def test_a_gap_is_hidden_until_it_is_asked_again_in_vain(client: TestClient) -> None:
    refused = ask(client, "Which submarine did Zanzibar paint?")
    (gap,) = gaps(client)
    assert client.delete(f"/v1/gaps/{gap['id']}").status_code == 204
    assert gaps(client) == []
    assert client.get(f"/v1/answers/{refused['id']}").status_code == 404
    assert client.delete(f"/v1/gaps/{gap['id']}").status_code == 404
    ask(client, "Which submarine did Zanzibar paint?")
    assert [(item["id"], item["count"]) for item in gaps(client)] == [(gap["id"], 1)]


def test_a_gap_that_is_closed_says_when_it_was_answered(client: TestClient) -> None:
    assert ask(client, "Who repairs the zeppelin?")["refused"]
    add(client, "handbook", "Zeppelin", "The blacksmith repairs the zeppelin.")
    assert gaps(client)[0]["answered_since"] is None  # nobody has asked again
    assert not ask(client, "Who repairs the zeppelin?")["refused"]
    assert gaps(client)[0]["answered_since"]


def test_a_purged_document_is_in_no_gap(client: TestClient) -> None:
    document = add(client, "handbook", "Zeppelin", "The zeppelin is silver.")
    ask(client, "Which submarine did Zanzibar paint near the zeppelin?")
    assert document in str(gaps(client))
    assert client.post(f"/v1/documents/{document}/purge").status_code < 300
    assert gaps(client) == []


def test_where_no_answers_are_kept_the_list_says_so(tmp_path: Path) -> None:
    for client in serve(tmp_path, keep_answers_days=0):
        ask(client, "Which submarine did Zanzibar paint?")
        told = client.get("/v1/gaps").json()
        assert (told["data"], told["next_cursor"]) == ([], None)
        assert "ATTEST_KEEP_ANSWERS_DAYS" in told["note"]


def test_what_a_model_says_and_no_source_supports_is_a_gap_too(tmp_path: Path) -> None:
    service = Service(Settings(_env_file=None, data_dir=tmp_path), embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        add(client, "handbook", "Opening hours", "The canteen opens at nine in the morning.")
        for reply in ("Zanzibar's astronomers painted 17 submarines.", "The canteen opens at nine in the morning [1]."):
            service.assistant = Assistant(service.base, model=ScriptedModel(reply), enough_evidence=0.0)
            ask(client, f"When does the canteen open, {reply[:8]}?")
        assert [gap["question"] for gap in gaps(client)] == ["When does the canteen open, Zanzibar?"]
