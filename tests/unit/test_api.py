"""The HTTP face: every route, its problems, its guards, its streams."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr, TypeAdapter

from app.main import create_app
from app.schemas.collections import CollectionIn
from app.schemas.documents import TextDocumentIn
from app.schemas.questions import AnswerOut, AskRequest
from app.schemas.sources import SourceIn
from app.server import Background
from app.service import Service
from rag.answer import Assistant
from rag.ports import Delta, Message
from rag.settings import Settings
from tests.fakes import HashEmbedder

HOURS = "The Rotterdam office is open from 8:30 to 17:30 on weekdays.\n\nThe canteen serves lunch from noon."
WARRANTY = "The TL-1207 logger is covered for 36 months from the date of delivery."
ZH = "夜班津贴为每班 58 元。\n\n年假最多可以结转五天。"


def settings_in(folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {"data_dir": folder / "data", "max_upload_mb": 1, "allowed_roots": str(folder)}
    return Settings(_env_file=None, **(values | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def service(folder: Path) -> Service:
    return Service(settings_in(folder), embedder=HashEmbedder())


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def problem_in(response: Any, status: int, code: str) -> dict[str, Any]:
    """The body, after a check that it is a problem of this status and type."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["type"] == f"/problems/{code}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"].endswith((".", "?"))
    return body


def finished(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        if found["finished_at"]:
            return found
        time.sleep(0.02)
    raise AssertionError(f"job {job['id']} did not finish")


def add(client: TestClient, collection: str, title: str, text: str, **more: Any) -> dict[str, Any]:
    """The finished job of a text handed over."""
    response = client.post(f"/v1/collections/{collection}/documents", json={"title": title, "text": text, **more})
    assert response.status_code == 202, response.text
    return finished(client, response.json())


def make(client: TestClient, name: str) -> dict[str, Any]:
    response = client.post("/v1/collections", json={"name": name})
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def ask(client: TestClient, question: str, collection: Any) -> dict[str, Any]:
    response = client.post("/v1/ask", json={"question": question, "collection": collection})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def events_of(text: str) -> list[tuple[str, Any]]:
    frames = [frame.split("\n") for frame in text.strip().split("\n\n")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in frames]


# ── the whole way ─────────────────────────────────────────────────────────────────────────────


def test_an_uploaded_file_is_read_cited_character_for_character_and_given_back(client: TestClient) -> None:
    make(client, "whole-way")
    data = HOURS.encode()
    response = client.post("/v1/collections/whole-way/documents", files={"file": ("hours.txt", data, "text/plain")})
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    job = finished(client, response.json())
    assert (job["state"], job["counts"]["added"]) == ("succeeded", 1)

    answer = ask(client, "When is the Rotterdam office open?", "whole-way")
    assert not answer["refused"]
    assert "8:30" in answer["answer"]
    for citation in answer["citations"]:
        document = f"/v1/documents/{citation['document_id']}"
        text = client.get(f"{document}/text", params={"version": citation["version"]}).json()["text"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert client.get(f"{document}/original").content == data
    assert all(sentence["citations"] for sentence in answer["sentences"])


def test_an_original_is_never_shown_by_a_browser(client: TestClient) -> None:
    make(client, "originals")
    job = add(client, "originals", "Page", "<p>Some words about valves.</p>", media_type="text/html")
    response = client.get(f"/v1/documents/{job['items'][0]['document_id']}/original")
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in response.headers["content-security-policy"]


def test_the_same_again_adds_nothing_and_another_text_is_a_new_version(client: TestClient) -> None:
    make(client, "versions")
    first = add(client, "versions", "Hours", HOURS)
    again = add(client, "versions", "Hours", HOURS)
    assert (again["counts"]["added"], again["counts"]["changed"], again["counts"]["unchanged"]) == (0, 0, 1)

    changed = add(client, "versions", "Hours", HOURS.replace("8:30", "9:45"))
    assert changed["counts"]["changed"] == 1
    document = f"/v1/documents/{first['items'][0]['document_id']}"
    versions = client.get(f"{document}/versions").json()["data"]
    assert [(item["version"], item["active"]) for item in sorted(versions, key=lambda item: item["version"])] == [
        (1, False),
        (2, True),
    ]
    hits = client.post("/v1/search", json={"question": "Rotterdam office open", "collection": "versions"}).json()[
        "hits"
    ]
    assert hits
    assert all(hit["version"] == 2 and "8:30" not in hit["text"] for hit in hits)
    assert "8:30" in client.get(f"{document}/text", params={"version": 1}).json()["text"]
    assert len(client.get("/v1/collections/versions/documents").json()["data"]) == 1


def test_a_deleted_document_is_out_of_every_answer(client: TestClient) -> None:
    make(client, "deletion")
    job = add(client, "deletion", "Warranty", WARRANTY)
    assert not ask(client, "How long is the TL-1207 covered?", "deletion")["refused"]
    assert client.delete(f"/v1/documents/{job['items'][0]['document_id']}").status_code == 204
    answer = ask(client, "How long is the TL-1207 covered?", "deletion")
    assert answer["refused"]
    assert answer["refusal"]["closest"] == []
    assert client.get("/v1/collections/deletion").json()["documents"] == 0


def test_a_refusal_says_what_was_searched_and_what_came_closest(client: TestClient) -> None:
    make(client, "refusal")
    add(client, "refusal", "Hours", HOURS)
    answer = ask(client, "How tall is the Rotterdam lighthouse keeper's ladder?", "refusal")
    assert answer["refused"]
    assert answer["citations"] == []
    assert answer["refusal"]["searched"] == {"refusal": 1}
    assert answer["refusal"]["closest"][0]["title"] == "Hours"


def test_two_collections_are_asked_together_and_a_third_is_left_alone(client: TestClient) -> None:
    for name, title, text in (("both-1", "Hours", HOURS), ("both-2", "Warranty", WARRANTY), ("other", "Hours", HOURS)):
        make(client, name)
        add(client, name, title, text)
    body = {"question": "TL-1207 delivery, Rotterdam office open", "collection": ["both-1", "both-2"]}
    hits = client.post("/v1/search", json=body).json()["hits"]
    assert {hit["title"] for hit in hits} == {"Hours", "Warranty"}
    assert len(hits) == 2


def test_collections_and_documents_have_chinese_names(client: TestClient) -> None:
    assert make(client, "员工手册")["name"] == "员工手册"
    job = add(client, "员工手册", "夜班津贴", ZH)
    answer = ask(client, "夜班津贴是多少？", "员工手册")
    assert "58 元" in answer["answer"]
    assert answer["language"] == "zh"
    original = client.get(f"/v1/documents/{job['items'][0]['document_id']}/original")
    assert "UTF-8''%E5%A4%9C" in original.headers["content-disposition"]
    renamed = client.patch("/v1/collections/员工手册", json={"name": "手册 2026"})
    assert renamed.json()["name"] == "手册 2026"
    assert client.get("/v1/collections/员工手册").status_code == 404


def test_citations_across_astral_characters_count_code_points(client: TestClient) -> None:
    make(client, "astral")
    add(client, "astral", "Emoji", "😀😀 𠮷野家 opens early.\n\nThe boiler 🔥 is inspected every April by Osei.")
    answer = ask(client, "Who inspects the boiler every April?", "astral")
    citation = answer["citations"][0]
    text = client.get(f"/v1/documents/{citation['document_id']}/text").json()["text"]
    assert text[citation["start"] : citation["end"]] == citation["quote"]


def test_a_document_lists_its_chunks_as_slices_of_its_text(client: TestClient) -> None:
    make(client, "chunks")
    text = "\n\n".join(f"Paragraph {n} speaks of valve number {n}, of its seat and of its spring." for n in range(120))
    job = add(client, "chunks", "Valves", text)
    document = f"/v1/documents/{job['items'][0]['document_id']}"
    stored = client.get(f"{document}/text").json()["text"]
    seen, cursor = [], None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"{document}/chunks", params=query).json()
        assert len(page["data"]) <= 3
        seen += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) > 3
    assert len({chunk["chunk_id"] for chunk in seen}) == len(seen)
    assert all(stored[chunk["start"] : chunk["end"]] == chunk["text"] for chunk in seen)


# ── sources ───────────────────────────────────────────────────────────────────────────────────


def test_a_folder_source_is_planned_synced_changed_and_removed(client: TestClient, folder: Path) -> None:
    files = folder / "manuals"
    files.mkdir()
    (files / "hours.md").write_text(HOURS)
    (files / "warranty.txt").write_text(WARRANTY)
    make(client, "folder-source")
    body = {"name": "manuals", "kind": "folder", "config": {"path": str(files)}}
    created = client.post("/v1/collections/folder-source/sources", json=body)
    assert created.status_code == 201, created.text
    source = f"/v1/sources/{created.json()['id']}"
    assert client.get("/v1/collections/folder-source/sources").json()["data"] == [created.json()]

    plan = client.post(f"{source}/sync", json={"dry_run": True})
    assert plan.status_code == 200
    assert plan.json()["counts"] == {"added": 2}
    assert client.get("/v1/collections/folder-source").json()["documents"] == 0

    response = client.post(f"{source}/sync")
    assert response.status_code == 202
    assert finished(client, response.json())["state"] == "succeeded"
    assert client.get(source).json()["synced_at"]
    assert not ask(client, "How long is the TL-1207 covered?", "folder-source")["refused"]

    changed = client.patch(source, json={"config": {"path": str(files), "include": ["*.md"]}})
    assert changed.json()["config"]["include"] == ["*.md"]
    problem_in(client.patch(source, json={"config": {"path": str(files), "pattern": "*"}}), 422, "invalid-input")

    assert client.delete(source).status_code == 204
    assert client.get("/v1/collections/folder-source").json()["documents"] == 0
    assert ask(client, "How long is the TL-1207 covered?", "folder-source")["refused"]
    problem_in(client.get(source), 404, "not-found")


def test_a_database_source_cites_rows_and_never_shows_its_url(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "stock.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE parts (id INTEGER PRIMARY KEY, name TEXT, shelf TEXT)")
    connection.execute("INSERT INTO parts VALUES (7, 'Glycol bottle', 'Shelf Q-19')")
    connection.commit()
    connection.close()
    monkeypatch.setenv("ATTEST_DB_STOCK", f"sqlite:///{path}")
    make(client, "rows")
    body = {"name": "stock", "kind": "database", "config": {"url_env": "ATTEST_DB_STOCK"}}
    created = client.post("/v1/collections/rows/sources", json=body)
    assert created.status_code == 201, created.text
    job = finished(client, client.post(f"/v1/sources/{created.json()['id']}/sync").json())
    assert job["state"] == "succeeded", job
    answer = ask(client, "On which shelf is the glycol bottle?", "rows")
    assert "parts" in answer["citations"][0]["row"]
    assert "sqlite:" not in json.dumps([answer, job, created.json()])


@pytest.mark.parametrize(
    ("config", "code", "status"),
    [
        ({"path": "/proc"}, "not-allowed", 403),
        ({"path": "{folder}/nowhere"}, "invalid-input", 422),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_when_it_is_added(
    client: TestClient, folder: Path, config: dict[str, str], code: str, status: int
) -> None:
    config = {"path": config["path"].format(folder=folder)}
    body = {"name": "bad", "kind": "folder", "config": config}
    problem_in(client.post("/v1/collections/default/sources", json=body), status, code)


def test_a_source_reads_no_other_part_of_the_environment(client: TestClient) -> None:
    body = {"name": "spy", "kind": "database", "config": {"url_env": "PATH"}}
    found = problem_in(client.post("/v1/collections/default/sources", json=body), 422, "invalid-input")
    assert "ATTEST_" in found["detail"]


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_newest_first_page_by_page(client: TestClient) -> None:
    make(client, "job-pages")
    made = [add(client, "job-pages", f"Note {n}", f"Note number {n} about pumps.")["id"] for n in range(3)]
    seen, cursor = [], None
    while True:
        page = client.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen[:3] == made[::-1]
    assert len(set(seen)) == len(seen)


def test_a_job_tells_its_moves_until_it_is_finished(client: TestClient) -> None:
    make(client, "job-events")
    job = client.post("/v1/collections/job-events/documents", json={"title": "Hours", "text": HOURS}).json()
    response = client.get(f"/v1/jobs/{job['id']}", headers={"Accept": "text/event-stream"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response.text)
    assert {name for name, _ in events} == {"job"}
    assert events[-1][1]["state"] == "succeeded"
    assert events[-1][1] == client.get(f"/v1/jobs/{job['id']}").json()


def test_a_finished_job_is_done_again_at_no_cost(client: TestClient, service: Service) -> None:
    make(client, "retry")
    job = add(client, "retry", "Hours", HOURS)
    embedder = service.base.embedder
    assert isinstance(embedder, HashEmbedder)
    before = len(embedder.embedded)
    again = client.post(f"/v1/jobs/{job['id']}/retry")
    assert again.status_code == 202
    assert finished(client, again.json())["state"] == "succeeded"
    assert len(embedder.embedded) == before


def test_a_document_that_cannot_be_read_fails_its_job_with_a_reason(client: TestClient) -> None:
    make(client, "broken")
    response = client.post("/v1/collections/broken/documents", files={"file": ("broken.pdf", b"%PDF-1.7 nothing")})
    job = finished(client, response.json())
    assert job["state"] == "failed"
    assert job["items"][0]["problem"]["detail"]


# ── paging ────────────────────────────────────────────────────────────────────────────────────


def test_documents_are_paged_with_cursors_each_once(client: TestClient) -> None:
    make(client, "pages")
    for n in range(5):
        add(client, "pages", f"Note {n}", f"Note {n} about gauges.")
    seen, cursor, pages = [], None, 0
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/collections/pages/documents", params=query).json()
        seen += [item["title"] for item in page["data"]]
        pages += 1
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == [f"Note {n}" for n in range(5)]
    assert pages == 3


# ── problems ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/collections/nobody"),
        ("PATCH", "/v1/collections/nobody"),
        ("DELETE", "/v1/collections/nobody"),
        ("GET", "/v1/collections/nobody/sources"),
        ("GET", "/v1/collections/nobody/documents"),
        ("GET", "/v1/sources/src_0"),
        ("DELETE", "/v1/sources/src_0"),
        ("POST", "/v1/sources/src_0/sync"),
        ("GET", "/v1/documents/doc_0"),
        ("DELETE", "/v1/documents/doc_0"),
        ("GET", "/v1/documents/doc_0/text"),
        ("GET", "/v1/documents/doc_0/original"),
        ("GET", "/v1/documents/doc_0/versions"),
        ("GET", "/v1/documents/doc_0/chunks"),
        ("GET", "/v1/jobs/job_0"),
        ("POST", "/v1/jobs/job_0/cancel"),
        ("POST", "/v1/jobs/job_0/retry"),
    ],
)
def test_what_there_is_not_is_a_404_with_a_stable_type(client: TestClient, method: str, path: str) -> None:
    body = {"name": "new"} if method == "PATCH" else None
    problem_in(client.request(method, path, json=body), 404, "not-found")


def test_a_path_that_nobody_serves_is_a_problem_too(client: TestClient) -> None:
    problem_in(client.get("/v1/nothing"), 404, "not-found")


def test_a_method_that_a_path_does_not_have_is_a_405(client: TestClient) -> None:
    response = client.put("/v1/collections")
    problem_in(response, 405, "method-not-allowed")
    assert response.headers["allow"]


def test_a_name_that_is_taken_is_a_409(client: TestClient) -> None:
    make(client, "taken")
    found = problem_in(client.post("/v1/collections", json={"name": "taken"}), 409, "conflict")
    assert found["remedy"]
    make(client, "taken-2")
    problem_in(client.patch("/v1/collections/taken-2", json={"name": "taken"}), 409, "conflict")


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/v1/ask", {"question": "Who?", "colection": "default"}, "/colection"),
        ("/v1/ask", {}, "/question"),
        ("/v1/ask", {"question": "   "}, "/question"),
        ("/v1/ask", {"question": "x" * 4001}, "/question"),
        ("/v1/ask", {"question": "Who?", "top_k": 51}, "/top_k"),
        ("/v1/search", {"question": "Who?", "stream": True}, "/stream"),
        ("/v1/collections", {"name": ""}, "/name"),
        ("/v1/collections/default/sources", {"name": "a", "kind": "ftp", "config": {}}, ""),
        ("/v1/collections/default/documents", {"title": "a", "text": "b", "colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_or_unknown_field_is_refused_by_name(
    client: TestClient, path: str, body: dict[str, Any], pointer: str
) -> None:
    found = problem_in(client.post(path, json=body), 422, "validation-error")
    assert found["errors"][0]["pointer"] == pointer


def test_a_body_that_is_no_json_is_a_422(client: TestClient) -> None:
    response = client.post("/v1/ask", content=b"{", headers={"Content-Type": "application/json"})
    problem_in(response, 422, "validation-error")


def test_a_document_without_content_or_of_another_kind_of_body_is_refused(client: TestClient) -> None:
    path = "/v1/collections/default/documents"
    problem_in(client.post(path, files={"file": ("empty.txt", b"")}), 422, "invalid-input")
    problem_in(client.post(path, files={"data": ("a.txt", b"x")}), 422, "invalid-input")
    problem_in(client.post(path, content=b"x", headers={"Content-Type": "text/plain"}), 422, "invalid-input")


def test_a_body_too_large_is_a_413_whatever_it_claims(client: TestClient) -> None:
    path = "/v1/collections/default/documents"
    large = b"x" * (1024 * 1024 + 1)
    problem_in(client.post(path, files={"file": ("large.txt", large)}), 413, "payload-too-large")

    def pieces() -> Iterator[bytes]:  # sent in chunks, without a Content-Length
        for _ in range(20):
            yield b"x" * 100_000

    headers = {"Content-Type": "application/json"}
    problem_in(client.post(path, content=pieces(), headers=headers), 413, "payload-too-large")
    problem_in(client.post("/v1/ask", content=pieces(), headers=headers), 413, "payload-too-large")


def test_what_was_not_foreseen_is_a_500_that_tells_nothing_of_the_inside(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret-of-the-inside")

    monkeypatch.setattr(service.assistant, "answer", broken)
    response = client.post("/v1/ask", json={"question": "Who?"})
    problem_in(response, 500, "internal")
    assert "secret-of-the-inside" not in response.text


# ── streams ───────────────────────────────────────────────────────────────────────────────────


def test_a_streamed_answer_is_retrieval_sentences_final_and_final_is_the_plain_answer(client: TestClient) -> None:
    make(client, "stream")
    add(client, "stream", "Hours", HOURS)
    body = {"question": "When is the Rotterdam office open, and when does the canteen serve lunch?"}
    body["collection"] = "stream"
    response = client.post("/v1/ask", json=body | {"stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    events = events_of(response.text)
    names = [name for name, _ in events]
    assert names[0] == "retrieval"
    assert names[-1] == "final"
    assert set(names[1:-1]) == {"sentence"}
    final, plain = events[-1][1], client.post("/v1/ask", json=body).json()
    for changing in ("id", "timings_ms"):
        final.pop(changing)
        plain.pop(changing)
    assert final == plain
    said = [content["text"] for name, content in events if name == "sentence"]
    assert said == [sentence["text"] for sentence in plain["sentences"]]


def test_what_fails_before_the_first_event_has_its_real_status(client: TestClient) -> None:
    body = {"question": "Who?", "collection": "nobody", "stream": True}
    problem_in(client.post("/v1/ask", json=body), 404, "not-found")
    problem_in(client.get("/v1/jobs/job_0", headers={"Accept": "text/event-stream"}), 404, "not-found")


def test_only_writing_makes_the_default_collection(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    service = Service(settings_in(tmp_path), embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        default = "/v1/collections/default"
        for path in (default, f"{default}/documents", f"{default}/sources"):
            problem_in(client.get(path), 404, "not-found")
        problem_in(client.patch(default, json={"name": "other"}), 404, "not-found")
        problem_in(client.delete(default), 404, "not-found")
        refused = {"name": "docs", "kind": "folder", "config": {"path": "/nowhere/at/all"}}
        assert client.post(f"{default}/sources", json=refused).status_code >= 400
        assert client.post(f"{default}/documents", json={"title": "Hours", "text": ""}).status_code == 422
        assert client.get("/v1/collections").json()["data"] == []

        source = {"name": "docs", "kind": "folder", "config": {"path": str(tmp_path / "docs")}}
        assert client.post(f"{default}/sources", json=source).status_code == 201
        assert client.get(default).json()["name"] == "default"
        assert client.delete(default).status_code == 204
        assert add(client, "default", "Hours", HOURS)["state"] == "succeeded"
        assert client.get(default).json()["documents"] == 1


@pytest.mark.parametrize(
    "part", ["", "/text", "/original", "/versions", "/chunks", "/text?version=2", "/chunks?version=2"]
)
def test_a_document_that_is_not_there_is_said_to_be_none(client: TestClient, part: str) -> None:
    body = problem_in(client.get(f"/v1/documents/nope{part}"), 404, "not-found")
    assert body["detail"] == "There is no document nope."


@pytest.mark.parametrize("part", ["text", "original", "chunks"])
def test_a_version_that_is_not_there_is_named(client: TestClient, part: str) -> None:
    make(client, f"no-version-{part}")
    job = add(client, f"no-version-{part}", "Hours", HOURS)
    path = f"/v1/documents/{job['items'][0]['document_id']}/{part}"
    assert "a version 7" in problem_in(client.get(f"{path}?version=7"), 404, "not-found")["detail"]


class SlowModel:
    """Writes a word every 20 ms for a long time, and remembers whether it was stopped."""

    name = "slow"
    window = 4096

    def __init__(self) -> None:
        self.closed = threading.Event()

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Generator[Delta]:
        try:
            for _ in range(1500):
                time.sleep(0.02)
                yield Delta("word ")
        finally:
            self.closed.set()


def test_a_client_that_goes_away_stops_the_model(tmp_path: Path) -> None:
    service = Service(settings_in(tmp_path), embedder=HashEmbedder())
    server = Background(service)
    try:
        headers = {"Authorization": f"Bearer {service.token}"}
        with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=30) as client:
            job = client.post("/v1/collections/default/documents", json={"title": "Hours", "text": HOURS}).json()
            service.jobs.wait(job["id"])
            model = SlowModel()
            service.assistant = Assistant(service.base, model=model)
            body = {"question": "When is the Rotterdam office open?", "stream": True}
            with client.stream("POST", "/v1/ask", json=body) as response:
                for line in response.iter_lines():
                    if line == "event: token":
                        break
                assert not model.closed.is_set()
            assert model.closed.wait(5), "the model went on writing for nobody"
    finally:
        server.close()


# ── guards ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
def test_another_host_name_is_refused_even_on_loopback(client: TestClient, host: str) -> None:
    problem_in(client.get("/v1/collections", headers={"Host": host}), 403, "host-not-allowed")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:9", "[::1]:8000", "LOCALHOST"])
def test_loopback_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_page_of_another_site_may_not_send_its_visitors_here(client: TestClient) -> None:
    for origin in ("https://evil.example", "null"):
        response = client.post("/v1/ask", json={"question": "Who?"}, headers={"Origin": origin})
        problem_in(response, 403, "host-not-allowed")
    assert client.get("/healthz", headers={"Origin": "http://localhost:8000"}).status_code == 200


KEY = "a-long-random-admin-key"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = settings_in(tmp_path_factory.mktemp("locked"), admin_key=SecretStr(KEY), allowed_hosts="kb.example.org")
    with TestClient(create_app(Service(settings, embedder=HashEmbedder())), base_url="http://localhost") as client:
        yield client


def test_with_an_admin_key_every_call_of_the_api_needs_it(locked: TestClient) -> None:
    paths = locked.get("/openapi.json").json()["paths"]
    calls = [(method, path) for path, item in paths.items() for method in item if path.startswith("/v1")]
    assert len(calls) > 20
    for method, path in calls:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            response = locked.request(method, path, headers=headers)
            problem_in(response, 401, "key-needed")
            assert response.headers["www-authenticate"] == "Bearer"


def test_health_checks_need_no_key_and_the_key_opens(locked: TestClient) -> None:
    assert locked.get("/healthz").json()["status"] == "ok"
    assert locked.get("/readyz").status_code in (200, 503)
    assert locked.get("/v1/collections", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert locked.get("/v1/collections", headers={"Authorization": f"bearer {KEY}"}).status_code == 200


def test_the_owners_own_token_opens_too_and_allowed_hosts_are_answered(locked: TestClient) -> None:
    token = locked.app.state.service.token  # type: ignore[attr-defined]
    headers = {"Authorization": f"Bearer {token}", "Host": "kb.example.org"}
    assert locked.get("/v1/collections", headers=headers).status_code == 200


# ── health, doctor, documentation ─────────────────────────────────────────────────────────────


def test_it_is_ready_once_questions_can_be_answered(client: TestClient, service: Service) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    deadline = time.monotonic() + 10
    while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.get("/readyz").json()["ready"] is True


def test_an_embedder_that_cannot_load_makes_it_not_ready_with_the_reason(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, embedder=str(tmp_path / "no-model"))
    with TestClient(create_app(Service(settings)), base_url="http://localhost") as client:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            response = client.get("/readyz")
            if "loading" not in response.json()["parts"]["embedder"]:
                break
            time.sleep(0.05)
        assert response.status_code == 503
        assert "no-model" in response.json()["parts"]["embedder"]
        response = client.post("/v1/collections", json={"name": "any"})
        problem_in(response, 503, "unavailable")
        assert response.headers["retry-after"]


def test_the_doctor_finds_a_fresh_service_well(client: TestClient) -> None:
    found = client.get("/v1/doctor").json()
    assert found["ok"], found
    assert {"catalog", "caches", "embedder", "disk"} <= {check["name"] for check in found["checks"]}


def test_the_openapi_document_hangs_together(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    schemas = document["components"]["schemas"]
    for reference in _values(document, "$ref"):
        assert reference.startswith("#/components/schemas/"), reference
        assert reference.rpartition("/")[2] in schemas
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["responses"] for operation in operations)


def test_the_examples_of_the_documentation_are_real(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    answer = schemas["AnswerOut"]["example"]
    assert AnswerOut.model_validate(answer).model_dump(mode="json") == answer
    for sentence in answer["sentences"]:
        assert answer["answer"][sentence["start"] : sentence["end"]] == sentence["text"]
    for citation in answer["citations"]:
        assert citation["end"] - citation["start"] == len(citation["quote"])
    for question in schemas["AskRequest"]["properties"]["question"]["examples"]:
        AskRequest.model_validate({"question": question})
    for name in schemas["CollectionIn"]["properties"]["name"]["examples"]:
        CollectionIn.model_validate({"name": name})
    source: TypeAdapter[Any] = TypeAdapter(SourceIn)
    for kind, schema in (("folder", "FolderConfig"), ("web", "WebConfig"), ("database", "DatabaseConfig")):
        properties = schemas[schema]["properties"].items()
        config = {name: field["examples"][0] for name, field in properties if "examples" in field}
        source.validate_python({"name": "example", "kind": kind, "config": config})
    upload = document["paths"]["/v1/collections/{name}/documents"]["post"]["requestBody"]["content"]
    TextDocumentIn.model_validate(upload["application/json"]["example"])


def test_the_documentation_page_needs_no_network(client: TestClient) -> None:
    """All that it loads comes from here, and its policy would let nothing else in."""
    page = client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {source for value in policy.values() for source in value.split()} == {"'none'", "'self'", "data:"}
    assert policy["script-src"] == policy["connect-src"] == "'self'"

    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert all(address.startswith("data:image/") or "//" not in address for address in loaded)
    assert "//" not in re.sub(r'"data:[^"]*"', "", page.text)
    types = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json"}
    own = [address for address in loaded if not address.startswith("data:")]
    assert {Path(address).suffix for address in own} == set(types)
    for address in own:
        response = client.get(f"/{address}")
        assert (response.status_code, response.headers["content-type"]) == (200, types[Path(address).suffix])
        assert len(response.content) > 200
    assert 'url: "openapi.json"' in client.get("/ui/docs.js").text
    assert "validatorUrl: null" in client.get("/ui/docs.js").text  # else it asks a service on the internet


def test_what_is_not_ours_comes_with_its_licence(client: TestClient) -> None:
    assert "Apache License" in client.get("/ui/swagger/LICENSE").text
    assert "SmartBear" in client.get("/ui/swagger/NOTICE").text


def test_the_pages_give_out_their_own_files_only(client: TestClient) -> None:
    for path in ("/ui/../main.py", "/ui/%2e%2e/main.py", "/ui/swagger/", "/ui", "/ui/nothing.js", "/redoc"):
        problem_in(client.get(path), 404, "not-found")


def test_a_browser_at_the_root_is_shown_the_documentation(client: TestClient) -> None:
    response = client.get("/", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (307, "/docs")
    assert "/" not in client.get("/openapi.json").json()["paths"]


def _values(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values(value, key)


# ── what no client should send ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "config"),
    [
        ("folder", {"path": "/tmp/a\u0000b"}),
        ("folder", {"path": "/tmp/\udfff"}),
        ("web", {"urls": ["http://\udfff.example/"]}),
        ("database", {"url_env": "ATTEST_DB_\udfff"}),
    ],
)
def test_a_source_with_unusable_characters_is_a_422(client: TestClient, path: str, config: dict[str, Any]) -> None:
    body = json.dumps({"name": "odd", "kind": path, "config": config})  # escapes surrogates, as a client may
    headers = {"Content-Type": "application/json"}
    response = client.post("/v1/collections/default/sources", content=body, headers=headers)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_a_sources_name_is_its_own_and_uploads_keep_theirs(client: TestClient, folder: Path) -> None:
    (folder / "named").mkdir()
    body = {"kind": "folder", "config": {"path": str(folder / "named")}}
    one, two = (
        client.post("/v1/collections/default/sources", json={"name": name, **body}).json() for name in ("one", "two")
    )
    problem_in(client.patch(f"/v1/sources/{two['id']}", json={"name": "one"}), 409, "conflict")
    assert client.patch(f"/v1/sources/{one['id']}", json={"name": "one"}).status_code == 200
    problem_in(client.post("/v1/collections/default/sources", json={"name": "uploads", **body}), 409, "conflict")
    problem_in(client.patch(f"/v1/sources/{one['id']}", json={"name": "uploads"}), 409, "conflict")
    add(client, "default", "Handed over", "A text that was handed over.")
    uploads = next(s for s in client.get("/v1/collections/default/sources").json()["data"] if s["kind"] == "upload")
    problem_in(client.patch(f"/v1/sources/{uploads['id']}", json={"name": "mine"}), 409, "conflict")


def test_numbers_that_no_database_holds_are_a_422(client: TestClient) -> None:
    job = add(client, "default", "Bounds", "A text whose versions are asked for by number.")
    document = job["items"][0]["document_id"]
    for path in (f"text?version={10**30}", f"original?version={10**30}", f"chunks?cursor={10**30}", "chunks?version=0"):
        problem_in(client.get(f"/v1/documents/{document}/{path}"), 422, "validation-error")
    problem_in(client.get("/v1/jobs?state=sleeping"), 422, "validation-error")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400"])
def test_metadata_that_json_cannot_give_back_is_a_422(client: TestClient, value: str) -> None:
    body = f'{{"title": "Odd", "text": "Some text.", "metadata": {{"weight": {value}}}}}'
    headers = {"Content-Type": "application/json"}
    problem_in(client.post("/v1/collections/default/documents", content=body, headers=headers), 422, "validation-error")


def test_the_type_of_a_problem_does_not_depend_on_a_parsers_sentence(client: TestClient) -> None:
    files = [("file", ("a.txt", b"one")), ("file", ("b.txt", b"two"))]
    body = problem_in(client.post("/v1/collections/default/documents", files=files), 400, "bad-request")
    assert "Too many files" in body["detail"]
    assert not body["detail"].endswith("..")


def test_a_text_with_a_nul_is_a_text(client: TestClient) -> None:
    job = add(client, "default", "Nul", "The gate\u0000opens at nine.")
    assert job["state"] == "succeeded"
    document = job["items"][0]["document_id"]
    assert client.get(f"/v1/documents/{document}/text").json()["text"] == "The gate\ufffdopens at nine."


@pytest.mark.parametrize("field", ["title", "key", "uri"])
def test_control_characters_have_no_place_in_names(client: TestClient, field: str) -> None:
    body = {"title": "Fine", "text": "Some text.", field: "a\u0000b\nc"}
    problem_in(client.post("/v1/collections/default/documents", json=body), 422, "validation-error")
