"""What people say of answers is kept, listed and removed; it outlives the answer and not the documents it quotes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.catalog.answers import collect_answers
from rag.catalog.engine import now
from rag.settings import Settings
from rag.upkeep import backup
from tests.fakes import HashEmbedder

ASKED = "When does the canteen open?"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(Settings(_env_file=None, data_dir=tmp_path), embedder=HashEmbedder())


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def add(client: TestClient, title: str, text: str, *, collection: str = "default") -> str:
    job = client.post(f"/v1/collections/{collection}/documents", json={"title": title, "text": text}).json()
    while not job["finished_at"]:
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job
    return str(job["items"][0]["document_id"])


def ask(client: TestClient, question: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/v1/ask", json={"question": question, **more}).json()
    return answer


def give(client: TestClient, **said: Any) -> dict[str, Any]:
    response = client.post("/v1/feedback", json=said)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def listed(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/feedback", params=query).json()["data"]
    return found


def test_feedback_on_an_answer_knows_its_question_its_documents_and_its_collection(client: TestClient) -> None:
    hours = add(client, "Opening hours", "The canteen opens at nine in the morning.")
    answer = ask(client, ASKED)
    made = give(client, answer_id=answer["id"], helpful=False, evidence=True, expected="at nine", comment="too long")
    assert (made["question"], made["refused"], made["cited"]) == (ASKED, False, [hours])
    assert made["collections"] == [client.get("/v1/collections/default").json()["id"]]
    assert (made["helpful"], made["evidence"], made["expected"], made["comment"]) == (
        False,
        True,
        "at nine",
        "too long",
    )
    assert listed(client) == [made] == [client.get(f"/v1/feedback/{made['id']}").json()]


def test_feedback_on_a_refusal_knows_where_was_searched(client: TestClient) -> None:
    hours = add(client, "Opening hours", "The canteen opens at nine in the morning.")
    answer = ask(client, "Which submarine did Zanzibar paint near the canteen?")
    assert answer["refused"]
    made = give(client, answer_id=answer["id"], helpful=False, documents=[hours])
    assert (made["refused"], made["cited"], made["documents"]) == (True, [], [hours])
    assert made["collections"] == [client.get("/v1/collections/default").json()["id"]]


def test_a_question_without_an_answer_can_be_told_what_answers_it(client: TestClient) -> None:
    add(client, "Opening hours", "The canteen opens at nine.")
    made = give(client, question="  Since when? ", expected="2019", collection="default")
    assert (made["question"], made["answer_id"], made["refused"]) == ("Since when?", None, None)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"helpful": True}, 422),
        ({"question": "Since when?"}, 422),
        ({"question": "Since when?", "helpfull": True}, 422),
        ({"answer_id": "ans_0", "helpful": True}, 404),
        ({"question": "Since when?", "documents": ["doc_0"]}, 404),
        ({"question": "Since when?", "helpful": True, "collection": "nowhere"}, 404),
    ],
)
def test_feedback_that_says_nothing_or_names_what_is_not_there_is_a_problem(
    client: TestClient, said: dict[str, Any], status: int
) -> None:
    response = client.post("/v1/feedback", json=said)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
    assert listed(client) == []


def test_feedback_is_listed_newest_first_in_pages_and_by_what_it_says(client: TestClient) -> None:
    add(client, "Opening hours", "The canteen opens at nine.")
    client.post("/v1/collections", json={"name": "other"})
    made = [give(client, question=f"Question {n}?", helpful=n % 2 == 0, collection="default") for n in range(5)]
    newest = [item["id"] for item in reversed(made)]
    first = client.get("/v1/feedback", params={"limit": 2}).json()
    rest = client.get("/v1/feedback", params={"limit": 5, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["data"] + rest["data"]] == newest
    assert rest["next_cursor"] is None
    assert [item["question"] for item in listed(client, helpful=False)] == ["Question 3?", "Question 1?"]
    assert len(listed(client, collection="default")) == 5
    assert listed(client, collection="other") == []
    assert listed(client, since="2999-01-01") == []


def test_removed_feedback_is_gone(client: TestClient) -> None:
    made = give(client, question=ASKED, helpful=True)
    assert client.delete(f"/v1/feedback/{made['id']}").status_code == 204
    assert listed(client) == []
    assert client.delete(f"/v1/feedback/{made['id']}").status_code == 404


def test_feedback_outlives_the_answer(client: TestClient, service: Service) -> None:
    add(client, "Opening hours", "The canteen opens at nine in the morning.")
    answer = ask(client, ASKED)
    made = give(client, answer_id=answer["id"], helpful=True)
    with service.base.catalog.write() as connection:
        assert collect_answers(connection, before=now() + timedelta(days=1)) == 1
    assert listed(client) == [made]
    again = client.post("/v1/feedback", json={"answer_id": answer["id"], "helpful": True})
    assert again.status_code == 404


def test_a_purge_takes_feedback_along_that_has_to_do_with_the_document(client: TestClient, service: Service) -> None:
    hours = add(client, "Opening hours", "The canteen opens at nine in the morning.")
    other = add(client, "Parking", "Parking costs four euros.")
    answered, refused = ask(client, ASKED), ask(client, "Which submarine did Zanzibar paint near the canteen?")
    assert refused["refused"]
    give(client, answer_id=answered["id"], helpful=True)
    give(client, answer_id=refused["id"], helpful=True)
    give(client, question="When is lunch?", documents=[hours])
    stays = give(client, question="What does parking cost?", documents=[other])
    with service.base.catalog.write() as connection:
        collect_answers(connection, before=now() + timedelta(days=1))
    assert client.post(f"/v1/documents/{hours}/purge").status_code == 200
    assert listed(client) == [stays]


def test_a_backup_carries_feedback(client: TestClient, service: Service, tmp_path: Path) -> None:
    add(client, "Opening hours", "The canteen opens at nine in the morning.")
    made = give(client, answer_id=ask(client, ASKED)["id"], helpful=False, expected="at nine", comment="too long")
    backup.create(service.base.catalog, service.base.originals, tmp_path / "all.tar", settings={})
    backup.restore(tmp_path / "all.tar", tmp_path / "restored")
    other = Service(Settings(_env_file=None, data_dir=tmp_path / "restored"), embedder=HashEmbedder())
    with TestClient(create_app(other), base_url="http://localhost") as restored:
        assert listed(restored) == [made]


def test_the_same_feedback_under_one_key_is_given_once(client: TestClient) -> None:
    said = {"question": ASKED, "helpful": True}
    first, second = (
        client.post("/v1/feedback", json=said, headers={"Idempotency-Key": "a-key-of-mine"}) for _ in range(2)
    )
    assert first.json() == second.json()
    assert len(listed(client)) == 1


def test_what_is_asked_without_being_kept_cannot_be_looked_up_and_is_no_gap(client: TestClient) -> None:
    add(client, "Opening hours", "The canteen opens at nine in the morning.")
    for question in (ASKED, "Which submarine did Zanzibar paint?"):
        answer = ask(client, question, keep=False)
        assert client.get(f"/v1/answers/{answer['id']}").status_code == 404
        with client.stream("POST", "/v1/ask", json={"question": question, "keep": False, "stream": True}) as stream:
            assert "event: final" in stream.read().decode()
    assert client.get("/v1/gaps").json()["data"] == []
    ask(client, "Which submarine did Zanzibar paint?")
    assert len(client.get("/v1/gaps").json()["data"]) == 1
