"""Versions, edits and kept answers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.settings import Settings
from tests.fakes import HashEmbedder


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("history"), keep_versions=3)
    service = Service(settings, embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield client


def add(client: TestClient, key: str, text: str, *, title: str | None = None) -> str:
    body = {"title": title or key, "key": key, "text": text}
    job = client.post("/v1/collections/default/documents", json=body).json()
    while not job["finished_at"]:
        time.sleep(0.01)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    return str(job["items"][0]["document_id"])


def editions(client: TestClient, key: str, *bars: int) -> tuple[str, list[str]]:
    """A version for each; the id, and a time within each version's."""
    times = []
    for bar in bars:
        document_id = add(client, key, f"The limit of valve {key} is {bar} bar.")
        times.append(datetime.now(UTC).isoformat())
    return document_id, times


def ask(client: TestClient, question: str, **more: Any) -> dict[str, Any]:
    response = client.post("/v1/ask", json={"question": question, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_asking_as_of_a_time_answers_from_the_version_of_then(client: TestClient) -> None:
    _, times = editions(client, "K-31", 40, 55)
    now = ask(client, "What is the limit of valve K-31?")
    then = ask(client, "What is the limit of valve K-31?", as_of=times[0])
    assert ("55 bar" in now["answer"], now["as_of"], now["not_kept"]) == (True, None, 0)
    assert "40 bar" in then["answer"]
    assert [item["version"] for item in then["citations"]] == [1]
    assert then["as_of"].startswith(times[0][:19])
    today = datetime.now(UTC).date()
    assert "55 bar" in ask(client, "What is the limit of valve K-31?", as_of=str(today))["answer"]
    before = ask(client, "What is the limit of valve K-31?", as_of=str(today - timedelta(days=1)))
    assert before["refused"]


@pytest.mark.parametrize("wrong", ["2999-01-01", "2026-03-31T12:00:00", "last spring", ""])
def test_a_time_that_cannot_be_asked_about_is_refused(client: TestClient, wrong: object) -> None:
    for call in ("ask", "search"):
        response = client.post(f"/v1/{call}", json={"question": "What is the limit?", "as_of": wrong})
        assert response.status_code == 422, response.text
        assert "as_of" in response.json()["detail"]


def test_a_citation_resolves_after_its_document_changed(client: TestClient) -> None:
    document_id, _ = editions(client, "K-32", 40)
    citation = ask(client, "What is the limit of valve K-32?")["citations"][0]
    editions(client, "K-32", 41, 42, 43, 44, 45)
    text = client.get(f"/v1/documents/{document_id}/text", params={"version": citation["version"]}).json()["text"]
    assert text[citation["start"] : citation["end"]] == citation["quote"]
    listed = client.get(f"/v1/documents/{document_id}/versions").json()["data"]
    assert {item["version"] for item in listed if item["removed_at"] is None} == {6, 5, 4, 1}  # the cited one stays
    gone = client.get(f"/v1/documents/{document_id}/text", params={"version": 2})
    assert (gone.status_code, gone.json()["type"]) == (410, "/problems/gone")
    assert "ATTEST_KEEP_VERSIONS" in gone.json()["remedy"]


def test_an_answer_can_be_looked_up_while_it_is_kept(client: TestClient) -> None:
    editions(client, "K-33", 40)
    given = ask(client, "What is the limit of valve K-33?")
    kept = client.get(f"/v1/answers/{given['id']}").json()
    assert kept["question"] == "What is the limit of valve K-33?"
    assert kept["answer"] == given
    with client.stream("POST", "/v1/ask", json={"question": "limit of valve K-33", "stream": True}) as response:
        last = [line for line in response.iter_lines() if line.startswith("data: ")][-1]
    streamed = last.partition('"id": "')[2].partition('"')[0]
    assert client.get(f"/v1/answers/{streamed}").status_code == 200
    assert client.get("/v1/answers/ans_none").status_code == 404


def test_rolling_back_and_comparing(client: TestClient) -> None:
    document_id, _ = editions(client, "K-34", 40, 55)
    rolled = client.post(f"/v1/documents/{document_id}/rollback", json={"version": 1})
    assert (rolled.status_code, rolled.json()["version"]) == (200, 1)
    assert "40 bar" in ask(client, "What is the limit of valve K-34?")["answer"]
    compared = client.get(f"/v1/documents/{document_id}/diff", params={"old": 2}).json()
    assert (compared["old"], compared["new"]) == (2, 1)
    assert "-The limit of valve K-34 is 55 bar." in compared["diff"]
    assert "+The limit of valve K-34 is 40 bar." in compared["diff"]
    assert client.post(f"/v1/documents/{document_id}/rollback", json={"version": 9}).status_code == 404
    assert client.post(f"/v1/documents/{document_id}/rollback", json={"version": 0}).status_code == 422


def test_a_document_is_edited_in_place(client: TestClient) -> None:
    document_id, _ = editions(client, "K-35", 40)
    path = f"/v1/documents/{document_id}"
    body = {"title": "阀门手册", "tags": ["安全"], "metadata": {"team": "Presses", "valid_from": "2026-01-01", "n": 3}}
    changed = client.patch(path, json=body).json()
    assert (changed["title"], changed["tags"], changed["version"]) == ("阀门手册", ["安全"], 1)
    assert changed["metadata"] == {"team": "Presses", "valid_from": "2026-01-01", "n": 3}
    add(client, "K-35", "The limit of valve K-35 is 55 bar.")
    after = client.get(path).json()
    assert (after["title"], after["tags"], after["version"]) == ("阀门手册", ["安全"], 2)
    assert after["metadata"] == changed["metadata"]
    assert ask(client, "What is the limit of valve K-35?")["citations"][0]["title"] == "阀门手册"
    reset = client.patch(path, json={"reset": ["title", "metadata.team"]}).json()
    assert (reset["title"], "team" in reset["metadata"]) == ("K-35", False)
    assert not client.patch(path, json={"enabled": False}).json()["enabled"]
    assert not any("K-35" in item["quote"] for item in ask(client, "What is the limit of valve K-35?")["citations"])


@pytest.mark.parametrize(
    "wrong", [{"title": ""}, {"reset": ["text"]}, {"version": 2}, {"tags": ["a\nb"]}, {"metadata": {"a": [1]}}]
)
def test_an_edit_that_makes_no_sense_is_refused(client: TestClient, wrong: dict[str, Any]) -> None:
    document_id = add(client, f"K-36 {sorted(wrong)}", "The limit is 40 bar.")
    response = client.patch(f"/v1/documents/{document_id}", json=wrong)
    assert response.status_code == 422, response.text
    assert client.patch("/v1/documents/doc_none", json={"enabled": False}).status_code == 404
