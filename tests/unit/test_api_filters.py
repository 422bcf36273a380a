"""Filters over HTTP and as they are typed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi.testclient import TestClient

from app.commands import questions
from app.commands.narrowing import condition, narrowed
from app.main import create_app
from app.schemas.filters import EXAMPLES
from app.service import Service
from rag.filters import parse
from rag.settings import Settings
from tests.fakes import HashEmbedder

DOCUMENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("The warranty of the lamp is two years.", {"department": "Sales", "year": 2021, "final": True}),
    ("The warranty of the lamp is three years.", {"department": "Sales", "year": 2022}),
    ("The warranty of the lamp is five years.", {"department": "Legal", "year": 2023, "code": "2021"}),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("filters")
    settings: Any = {"data_dir": folder / "data", "allowed_roots": str(folder)}
    service = Service(Settings(_env_file=None, **settings), embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        client.post("/v1/collections", json={"name": "lamps"})
        for number, (text, metadata) in enumerate(DOCUMENTS):
            body = {"title": f"Lamp {number}", "text": text, "metadata": metadata}
            made = client.post("/v1/collections/lamps/documents", json=body)
            assert made.status_code < 300, made.text
        wait_for(client)
        yield client


def wait_for(client: TestClient) -> None:
    deadline = time.monotonic() + 30
    while any(job["state"] in ("queued", "running") for job in client.get("/v1/jobs").json()["data"]):
        assert time.monotonic() < deadline, "the jobs do not end"
        time.sleep(0.02)


def found(client: TestClient, filters: Any) -> list[str]:
    response = client.post("/v1/search", json={"question": "warranty of the lamp", "filters": filters})
    assert response.status_code == 200, response.text
    return sorted(hit["title"] for hit in response.json()["hits"])


class TestOverHttp:
    def test_only_documents_that_pass_are_found(self, client: TestClient) -> None:
        assert found(client, None) == ["Lamp 0", "Lamp 1", "Lamp 2"]
        assert found(client, {"field": "department", "eq": "Sales"}) == ["Lamp 0", "Lamp 1"]
        assert found(client, {"not": {"field": "year", "lte": 2021}}) == ["Lamp 1", "Lamp 2"]
        assert found(client, {"field": "@title", "contains": "lamp 2"}) == ["Lamp 2"]

    def test_answers_come_from_what_passes_and_refusals_count_it(self, client: TestClient) -> None:
        only = {"field": "year", "eq": 2023}
        answer = client.post("/v1/ask", json={"question": "How long is the warranty of the lamp?", "filters": only})
        body = answer.json()
        assert {citation["title"] for citation in body["citations"]} <= {"Lamp 2"}
        refused = client.post("/v1/ask", json={"question": "Who won the football cup in Peru?", "filters": only}).json()
        assert refused["refusal"]["searched"] == {"lamps": 1}
        nothing = {"field": "year", "gt": 2023}
        refused = client.post("/v1/ask", json={"question": "How long is the warranty?", "filters": nothing}).json()
        assert refused["refused"]
        assert refused["refusal"]["searched"] == {"lamps": 0}
        assert "No document passes the filter" in refused["answer"]

    @pytest.mark.parametrize(
        ("filters", "pointer"),
        [
            ({"field": "department", "gt": "Sales"}, "/filters/gt"),
            ({"and": [{"field": "year", "eq": 1}, {"field": "@nobody", "eq": 1}]}, "/filters/and/1/field"),
            ({"field": "department", "gt": 3}, "/filters/gt"),  # what is stored are texts
            ({"field": "year", "is": 3}, "/filters"),
            ({}, "/filters"),
        ],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_a_wrong_filter_is_a_problem_that_points_at_the_wrong_part(
        self, client: TestClient, filters: Any, pointer: str, stream: bool
    ) -> None:
        response = client.post("/v1/ask", json={"question": "warranty", "filters": filters, "stream": stream})
        assert response.status_code == 422
        assert response.headers["content-type"] == "application/problem+json"
        body = response.json()
        assert body["type"] == "/problems/invalid-filter"
        assert [error["pointer"] for error in body["errors"]] == [pointer]

    def test_what_is_no_object_is_a_problem_of_the_form(self, client: TestClient) -> None:
        response = client.post("/v1/search", json={"question": "warranty", "filters": ["x"]})
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "/filters"

    def test_the_openapi_has_the_whole_grammar_and_its_examples_are_true(self, client: TestClient) -> None:
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        form = schemas["FilterIn"]
        itself = {"$ref": "#/components/schemas/FilterIn"}
        by_title = {one["title"]: one["properties"] for one in form["oneOf"]}
        assert by_title["Not this"] == {"not": itself}
        assert by_title["All of these"]["and"]["items"] == itself
        assert len(by_title) == 13
        assert form["examples"] == EXAMPLES
        for example in EXAMPLES:
            parse(example)


class TestTyped:
    @pytest.mark.parametrize(
        ("typed", "read"),
        [
            ("department=Sales", {"field": "department", "eq": "Sales"}),
            ("department != Human Resources", {"field": "department", "ne": "Human Resources"}),
            ("year>=2021", {"field": "year", "gte": 2021}),
            ("price<1.5", {"field": "price", "lt": 1.5}),
            ("published<=2023-05-01", {"field": "published", "lte": "2023-05-01"}),
            ("@updated_at>2023-05-01", {"field": "@updated_at", "gt": "2023-05-01"}),
            ("year=2021", {"field": "year", "in": [2021, "2021"]}),
            ("final!=true", {"not": {"field": "final", "in": [True, "true"]}}),
            ('code="2021"', {"field": "code", "eq": "2021"}),
            ("@title=2021", {"field": "@title", "eq": "2021"}),
            ("@title~2021", {"field": "@title", "contains": "2021"}),
            ("部门=销售", {"field": "部门", "eq": "销售"}),
            ("formula=a=b", {"field": "formula", "eq": "a=b"}),
        ],
    )
    def test_a_condition_is_read(self, typed: str, read: dict[str, Any]) -> None:
        assert condition(typed) == read
        parse(read)

    @pytest.mark.parametrize("typed", ["department", "=Sales", "year>", ""])
    def test_what_is_no_condition_is_said(self, typed: str) -> None:
        with pytest.raises(typer.BadParameter, match="no condition"):
            condition(typed)

    def test_conditions_and_json_are_all_true_together(self) -> None:
        one = {"field": "a", "eq": "b"}
        assert narrowed(None, None) is None
        assert narrowed(["a=b"], None) == one
        assert narrowed(["a=b", "a=b"], json.dumps({"not": one})) == {"and": [one, one, {"not": one}]}
        for wrong in ("{", "[]", "3"):
            with pytest.raises(typer.BadParameter):
                narrowed(None, wrong)

    def test_ask_and_search_take_both_forms(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[dict[str, Any]] = []

        class Told(Exception):
            pass

        class Client:
            def __enter__(self) -> Client:
                return self

            def __exit__(self, *_error: object) -> None: ...

            def post(self, _path: str, body: dict[str, Any]) -> Any:
                sent.append(body)
                raise Told

        monkeypatch.setattr(questions, "connected", Client)
        one = {"field": "year", "gte": 2021}
        for command in (questions.ask, questions.search):
            with pytest.raises(Told):
                command("How long?", where=["year>=2021"], filter_json='{"not": {}}', as_json=True)
            with pytest.raises(Told):
                command("How long?", filter_json="{}", as_json=True)
        assert [body["filters"] for body in sent] == 2 * [{"and": [one, {"not": {}}]}, {}]

    def test_a_number_that_is_typed_finds_numbers_and_texts(self, client: TestClient) -> None:
        assert found(client, condition("code=2021")) == ["Lamp 2"]
        assert found(client, condition("year=2021")) == ["Lamp 0"]
