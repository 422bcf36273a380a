"""Idempotency keys: a writing call that is sent twice has one effect and one answer."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import func, select, update
from starlette.types import Message, Receive, Scope, Send

from app.idempotency import HEADER, Idempotency
from app.main import create_app
from app.security import BodyTooLarge
from app.service import Service
from rag.catalog import idempotency as rows
from rag.catalog.engine import Catalog, now
from rag.catalog.tables import idempotency, jobs
from rag.settings import Settings
from tests.fakes import HashEmbedder

PATIENCE_SECONDS = 10.0
KEY = "an-admin-key-of-this-test"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("idempotency")
    values: dict[str, Any] = {"data_dir": folder / "data", "max_upload_mb": 1, "admin_key": SecretStr(KEY)}
    return Service(Settings(_env_file=None, **values), embedder=HashEmbedder())


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    headers = {"Authorization": f"Bearer {KEY}"}
    app = create_app(service)
    with TestClient(app, base_url="http://localhost", headers=headers, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def key() -> dict[str, str]:
    return {HEADER: str(uuid.uuid4())}


def problem_in(response: Any, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == f"/problems/{code}"


def count_jobs(service: Service) -> int:
    with service.base.catalog.read() as snapshot:
        return int(snapshot.execute(select(func.count()).select_from(jobs)).scalar_one())


# ── through the service ───────────────────────────────────────────────────────────────────────


def test_a_repetition_is_answered_as_the_first_time_and_does_nothing(client: TestClient, key: dict[str, str]) -> None:
    first = client.post("/v1/collections", json={"name": "twice"}, headers=key)
    again = client.post("/v1/collections", json={"name": "twice"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    problem_in(client.post("/v1/collections", json={"name": "twice"}), 409, "conflict")  # without the key it is new


def test_a_document_handed_over_twice_is_one_job_with_its_location(
    client: TestClient, service: Service, key: dict[str, str]
) -> None:
    before = count_jobs(service)
    body = {"title": "Hours", "text": "The office is open from 8:30."}
    first = client.post("/v1/collections/default/documents", json=body, headers=key)
    again = client.post("/v1/collections/default/documents", json=body, headers=key)
    assert first.status_code == 202, first.text
    assert again.headers["location"] == first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    assert count_jobs(service) == before + 1


def test_the_same_file_in_a_form_with_another_boundary_is_the_same_call(
    client: TestClient, service: Service, key: dict[str, str]
) -> None:
    before = count_jobs(service)
    data = bytes(range(256)) * 2000  # more than is kept in memory
    first = client.post("/v1/collections/default/documents", files={"file": ("a.txt", data)}, headers=key)
    again = client.post("/v1/collections/default/documents", files={"file": ("a.txt", data)}, headers=key)
    assert first.request.headers["content-type"] != again.request.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert count_jobs(service) == before + 1
    other = client.post("/v1/collections/default/documents", files={"file": ("a.txt", data[:-1])}, headers=key)
    problem_in(other, 422, "idempotency-key-reused")


def test_another_call_under_the_same_key_is_a_mistake(client: TestClient, key: dict[str, str]) -> None:
    made = client.post("/v1/collections", json={"name": "mistake"}, headers=key).json()
    for method, path, body in (
        ("POST", "/v1/collections", {"name": "mistake-2"}),
        ("POST", "/v1/collections?x=1", {"name": "mistake"}),
        ("PATCH", f"/v1/collections/{made['id']}", {"name": "mistake"}),
    ):
        problem_in(client.request(method, path, json=body, headers=key), 422, "idempotency-key-reused")
    assert client.get("/v1/collections/mistake-2").status_code == 404


def test_a_deletion_is_answered_again_though_the_thing_is_gone(client: TestClient, key: dict[str, str]) -> None:
    made = client.post("/v1/collections", json={"name": "goes"}).json()
    answers = [client.delete(f"/v1/collections/{made['id']}", headers=key) for _ in range(2)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    assert client.delete(f"/v1/collections/{made['id']}").status_code == 404


def test_a_mistake_of_the_client_is_answered_again(client: TestClient, key: dict[str, str]) -> None:
    answers = [client.post("/v1/jobs/job_0/cancel", headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert answers[1].headers["content-type"] == "application/problem+json"


def test_reading_and_asking_take_no_keys(client: TestClient, key: dict[str, str]) -> None:
    for method, path in (("GET", "/v1/collections"), ("GET", "/v1/jobs"), ("POST", "/v1/search")):
        for _ in range(2):
            response = client.request(
                method, path, headers=key, json={"question": "When?"} if method == "POST" else None
            )
            assert response.status_code == 200, response.text
            assert "idempotent-replayed" not in response.headers


@pytest.mark.parametrize("bad", ["", "   ", "x" * 256, "caf\u00e9", "tab\tin it"])
def test_a_key_that_cannot_be_used_is_a_problem(client: TestClient, bad: str) -> None:
    response = client.post("/v1/collections", json={"name": "bad"}, headers={HEADER.encode(): bad.encode("latin-1")})
    problem_in(response, 422, "idempotency-key-unusable")
    assert client.get("/v1/collections/bad").status_code == 404


def test_nobody_is_given_an_answer_again_who_may_not_ask(client: TestClient, key: dict[str, str]) -> None:
    assert client.post("/v1/collections", json={"name": "secret"}, headers=key).status_code == 201
    stranger = client.post("/v1/collections", json={"name": "secret"}, headers=key | {"Authorization": "Bearer no"})
    problem_in(stranger, 401, "key-needed")


def test_a_body_past_the_limit_is_a_problem_with_a_key_too(client: TestClient, key: dict[str, str]) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 65536

    response = client.post("/v1/collections/default/documents", content=endless(), headers=key)
    problem_in(response, 413, "payload-too-large")


def test_equal_calls_at_the_same_instant_have_one_effect(
    client: TestClient, service: Service, key: dict[str, str]
) -> None:
    before = count_jobs(service)
    body = {"title": "At once", "text": "One of many."}
    gate = threading.Barrier(8)

    def send(_number: int) -> Any:
        gate.wait()
        return client.post("/v1/collections/default/documents", json=body, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert count_jobs(service) == before + 1
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 409)


def test_the_reference_names_the_header_on_every_writing_call_and_on_no_other(client: TestClient) -> None:
    client.get("/openapi.json")
    paths = client.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            named = [one["name"] for one in operation.get("parameters", [])].count(HEADER)
            writes = method in ("post", "put", "patch", "delete") and path not in ("/v1/ask", "/v1/search")
            assert named == int(writes and path.startswith("/v1/")), f"{method} {path}"


# ── around any application ────────────────────────────────────────────────────────────────────


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path / "catalog.sqlite")
    yield catalog
    catalog.close()


class Counting:
    """An application that counts its calls and answers with their number and what it was sent."""

    def __init__(self, *statuses: int) -> None:
        self.calls = 0
        self.statuses = list(statuses)
        self.hold: asyncio.Event | None = None
        self.at_work = asyncio.Event()
        self.fails = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.at_work.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.fails:
            raise ZeroDivisionError
        status = self.statuses.pop(0) if self.statuses else 200
        headers = [(b"content-type", b"application/json"), (b"location", b"/v1/x"), (b"set-cookie", b"secret")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = json.dumps({"call": self.calls, "size": size}).encode()
        await send({"type": "http.response.body", "body": body[:5], "more_body": True})
        await send({"type": "http.response.body", "body": body[5:]})


async def call(app: Any, pieces: list[bytes], *, key: str = "k", length: int | None = None) -> dict[str, Any]:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/things",
        "query_string": b"",
        "headers": [(b"idempotency-key", key.encode()), (b"content-type", b"application/json")],
    }
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        if length is not None and len(waiting) <= length:
            raise BodyTooLarge
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]} if sent else {}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return {"status": sent[0]["status"] if sent else None, "headers": headers, "body": json.loads(body or b"null")}


def around(inner: Any, catalog: Catalog) -> Idempotency:
    return Idempotency(inner, catalog=catalog, max_body_bytes=1024)


def test_a_call_that_ended_in_a_5xx_may_be_done_again(catalog: Catalog) -> None:
    async def story() -> None:
        inner = Counting(503, 201)
        app = around(inner, catalog)
        statuses = [(await call(app, [b"a"]))["status"] for _ in range(3)]
        assert (statuses, inner.calls) == ([503, 201, 201], 2)

    asyncio.run(story())


def test_a_call_that_ended_in_an_exception_may_be_done_again(catalog: Catalog) -> None:
    async def story() -> None:
        inner = Counting()
        inner.fails = True
        app = around(inner, catalog)
        with pytest.raises(ZeroDivisionError):
            await call(app, [b"a"])
        inner.fails = False
        assert (await call(app, [b"a"]))["body"]["call"] == 2

    asyncio.run(story())


def test_a_repetition_while_the_first_is_at_work_has_to_wait(catalog: Catalog) -> None:
    async def story() -> None:
        inner = Counting()
        inner.hold = asyncio.Event()
        app = around(inner, catalog)
        first = asyncio.create_task(call(app, [b"a"]))
        await inner.at_work.wait()
        meanwhile = await call(app, [b"a"])
        other = await call(app, [b"b"])
        assert (meanwhile["status"], meanwhile["headers"]["retry-after"]) == (409, "1")
        assert other["status"] == 422
        inner.hold.set()
        assert (await first)["body"]["call"] == 1
        assert (await call(app, [b"a"]))["body"]["call"] == 1
        assert inner.calls == 1

    asyncio.run(story())


def test_a_call_whose_process_died_at_it_may_be_done_again(catalog: Catalog) -> None:
    with catalog.write() as connection:
        rows.begin(connection, "k", fingerprint="of a call that nobody is at work on")

    async def story() -> None:
        inner = Counting()
        assert (await call(around(inner, catalog), [b"a"]))["status"] == 200
        assert (await call(around(inner, catalog), [b"a"]))["headers"]["idempotent-replayed"] == "true"  # a new process
        assert inner.calls == 1

    asyncio.run(story())


def test_keys_are_kept_for_a_day_and_then_collected(catalog: Catalog) -> None:
    async def story() -> None:
        inner = Counting()
        app = around(inner, catalog)
        for key in ("old", "older"):
            await call(app, [b"a"], key=key)
        with catalog.write() as connection:
            connection.execute(update(idempotency).values(created_at=now() - timedelta(hours=25)))
        assert (await call(app, [b"b"], key="old"))["body"]["call"] == 3  # even for another call
        with catalog.read() as snapshot:
            assert snapshot.execute(select(idempotency.c.key)).scalars().all() == ["old"]

    asyncio.run(story())


def test_only_what_belongs_to_the_answer_is_kept(catalog: Catalog) -> None:
    async def story() -> None:
        app = around(Counting(), catalog)
        first = await call(app, [b"a"])
        again = await call(app, [b"a"])
        assert "set-cookie" in first["headers"]
        assert again["headers"] == {
            "content-type": "application/json",
            "location": "/v1/x",
            "idempotent-replayed": "true",
            "content-length": str(len(json.dumps(again["body"]))),
        }

    asyncio.run(story())


def test_a_large_body_arrives_whole_in_whatever_pieces_it_comes(catalog: Catalog) -> None:
    async def story() -> None:
        inner = Counting()
        app = around(inner, catalog)
        data = b"x" * 1_000_003
        one = await call(app, [data])
        many = await call(app, [data[start : start + 65_536] for start in range(0, len(data), 65_536)])
        assert (one["body"], many["body"]) == ({"call": 1, "size": len(data)}, {"call": 1, "size": len(data)})
        exact = await call(app, [b"y" * 256 * 1024], key="a whole number of pieces")
        assert exact["body"]["size"] == 256 * 1024

    asyncio.run(story())


def test_a_client_that_goes_away_before_its_body_is_whole_has_done_nothing(catalog: Catalog) -> None:
    async def story() -> None:
        inner = Counting()
        app = around(inner, catalog)
        scope = {"type": "http", "method": "POST", "path": "/v1/things", "headers": [(b"idempotency-key", b"k")]}
        messages: list[Message] = [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Message:
            return messages.pop(0)

        async def send(_message: Message) -> None:
            raise AssertionError("nobody listens any more")

        await app(scope, receive, send)
        assert inner.calls == 0
        assert (await call(app, [b"a"]))["body"]["call"] == 1

    asyncio.run(story())
