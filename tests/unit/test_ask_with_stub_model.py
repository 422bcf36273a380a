"""A question over HTTP, answered by a language model behind a socket that behaves and misbehaves as real ones do.

What `Assistant` makes of a model's words is in test_answer.py, and what the client makes of a server's errors in
test_chat_model.py; here both stand behind the service, and what counts is the response.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from app.server import Background
from app.service import Service
from rag.answer import EXTRACTIVE
from rag.llm.prompts import NO_ANSWER
from rag.settings import Settings
from rag.wiring import open_assistant
from tests.fakes import HashEmbedder
from tests.stub_openai import Reply, StubOpenAI

KEY = "sk-a-key-that-nobody-may-see"
HANDBOOK = """# Leave

Employees in Porto have 25 days of paid leave a year.

Leave that is left at the end of December is lost on the last day of March, except after a long illness. A request for
more than ten days in a row is made eight weeks ahead, so that the work can be given to somebody else in good time.

# Office

The office in Porto opens at nine in the morning. The canteen in Porto is closed on Sundays and on public holidays.
"""
CHINESE = "# 年假\n\n波尔图的员工每年有二十五天带薪年假。\n\n# 办公室\n\n波尔图办公室上午九点开门。\n"
LEAVE = "How many days of paid leave do employees in Porto have?"
GOOD = "Employees in Porto have 25 days of paid leave a year [1]."
NONSENSE = "Which submarine did Zanzibar's astronomers paint?"

Json = dict[str, Any]


@pytest.fixture(scope="module")
def server() -> Iterator[StubOpenAI]:
    with StubOpenAI() as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, server: StubOpenAI) -> Service:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("stub") / "data",
        llm="openai:stub",
        llm_base_url=server.base_url,
        llm_api_key=SecretStr(KEY),
        llm_window=4096,
        llm_retries=1,
        llm_timeout_seconds=5.0,
    )
    return Service(settings, embedder=HashEmbedder())


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        client.post("/v1/collections", json={"name": "default"}).raise_for_status()
        for title, text in (("Handbook", HANDBOOK), ("手册", CHINESE)):
            body = {"title": title, "text": text, "media_type": "text/markdown"}
            job = client.post("/v1/collections/default/documents", json=body).json()
            wait_for_job(client, job["id"])
        yield client


def wait_for_job(client: TestClient | httpx.Client, job_id: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job["finished_at"]:
            assert job["state"] == "succeeded", job
            return
        time.sleep(0.02)
    raise AssertionError(f"job {job_id} did not finish")


def ask(client: TestClient, question: str = LEAVE) -> Json:
    """The answer, which is checked for what is true of every answer."""
    response = client.post("/v1/ask", json={"question": question})
    assert response.status_code == 200, response.text
    assert KEY not in response.text
    answer: Json = response.json()
    check(client, answer)
    return answer


def check(client: TestClient, answer: Json) -> None:
    for citation in answer["citations"]:
        version = {"version": citation["version"]}
        text = client.get(f"/v1/documents/{citation['document_id']}/text", params=version).json()["text"]
        assert text[citation["start"] : citation["end"]] == citation["quote"]
    for sentence in answer["sentences"]:
        assert answer["answer"][sentence["start"] : sentence["end"]] == sentence["text"]
        assert sentence["citations"] or sentence["support"] == "unsupported"
    assert answer["refused"] == (answer["refusal"] is not None)


def answered_from_sentences(answer: Json) -> str:
    """Why the model did not answer, after a check that the sources did."""
    assert answer["model"] == EXTRACTIVE
    assert not answer["refused"]
    assert "25 days" in answer["answer"]
    assert answer["left_out"] == 0
    assert isinstance(answer["degraded"], str)
    return str(answer["degraded"])


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def stream(client: TestClient, question: str = LEAVE) -> list[tuple[str, Any]]:
    with client.stream("POST", "/v1/ask", json={"question": question, "stream": True}) as response:
        assert response.status_code == 200
        return list(events_of(response.iter_lines()))


@pytest.fixture
def configured(service: Service, client: TestClient) -> Iterator[Any]:
    """Changes settings of the language model for one test."""
    before = service.assistant

    def configure(**changes: Any) -> None:
        service.assistant = open_assistant(service.settings.model_copy(update=changes), service.base)

    yield configure
    service.assistant = before


# ── what a model says ─────────────────────────────────────────────────────────────────────────


def test_a_reply_becomes_cited_sentences_under_the_models_name_with_its_usage(
    client: TestClient, server: StubOpenAI
) -> None:
    server.then(Reply(GOOD, prompt_tokens=900))
    answer = ask(client)
    assert (answer["model"], answer["degraded"], answer["refused"]) == ("stub", None, False)
    assert [sentence["support"] for sentence in answer["sentences"]] == ["supported"]
    assert "25 days" in answer["citations"][0]["quote"]
    assert answer["usage"]["prompt_tokens"] == 900
    assert answer["usage"]["completion_tokens"] > 0
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_a_reply_without_citations_gets_those_that_support_it(client: TestClient, server: StubOpenAI) -> None:
    server.then(Reply("Employees in Porto have 25 days of paid leave a year."))
    answer = ask(client)
    [sentence] = answer["sentences"]
    assert sentence["support"] == "supported"
    assert "25 days" in answer["citations"][0]["quote"]
    assert answer["answer"] == f"{sentence['text']} [1]"


def test_a_passage_that_was_not_offered_is_no_source(client: TestClient, server: StubOpenAI) -> None:
    server.then(Reply(f"Zanzibar's astronomers painted 17 submarines [42]. {GOOD}"))
    answer = ask(client)
    assert "42" not in answer["answer"]
    invented, true = answer["sentences"]
    assert (invented["support"], invented["citations"]) == ("unsupported", [])
    assert true["support"] == "supported"


def test_the_agreed_words_for_no_answer_are_a_refusal(client: TestClient, server: StubOpenAI) -> None:
    server.then(Reply(NO_ANSWER["en"]))
    answer = ask(client)
    assert answer["refused"]
    assert (answer["model"], answer["degraded"]) == ("stub", None)
    assert answer["refusal"]["searched"] == {"default": 2}
    assert answer["sentences"] == answer["citations"] == []
    assert NO_ANSWER["en"] not in answer["answer"]


def test_a_chinese_question_is_put_to_the_model_in_chinese(client: TestClient, server: StubOpenAI) -> None:
    server.then(Reply("波尔图的员工每年有二十五天带薪年假[1]。"))
    answer = ask(client, "波尔图员工每年有多少天带薪年假？")
    assert (answer["language"], answer["model"]) == ("zh", "stub")
    assert answer["sentences"][0]["support"] == "supported"
    system, user = server.requests[-1]["messages"]
    assert NO_ANSWER["zh"] in system["content"]
    assert "sources" not in system["content"]
    assert "问题：波尔图员工每年有多少天带薪年假？" in user["content"]
    assert "二十五天" in user["content"]


def test_a_question_without_evidence_never_reaches_the_models_server(client: TestClient, server: StubOpenAI) -> None:
    server.then(Reply("Certainly, it was the Nautilus [1]."))
    before = len(server.requests)
    assert ask(client, NONSENSE)["refused"]
    assert len(server.requests) == before


# ── servers that fail ─────────────────────────────────────────────────────────────────────────


def test_a_rate_limit_that_passes_is_waited_for(client: TestClient, server: StubOpenAI) -> None:
    server.then(Reply(status=429, error="slow down", headers={"Retry-After": "0"}), Reply(GOOD))
    before = len(server.requests)
    answer = ask(client)
    assert (answer["model"], answer["degraded"]) == ("stub", None)
    assert len(server.requests) == before + 2


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=429, error="slow down", headers={"Retry-After": "0"}),
        Reply(status=401, error=f"Incorrect API key provided: {KEY}"),
        Reply(status=500, error="out of memory", headers={"Retry-After": "0"}),
        Reply(body=b"<html>a proxy's page</html>"),
        Reply("Bananas are blue and always were.", cut_after=3),
        Reply("Bananas are blue and always were.", error_after=3),
        Reply("Bananas are blue and always were.", end_after=3),
        Reply(""),
    ],
    ids=["rate limit", "key", "500", "html", "cut", "error event", "no end", "empty"],
)
def test_a_failing_server_leaves_the_answer_to_the_sources(
    client: TestClient, server: StubOpenAI, reply: Reply
) -> None:
    server.then(reply)
    answer = ask(client)
    answered_from_sentences(answer)
    assert "anana" not in answer["answer"]


def test_a_prompt_that_the_server_cut_in_silence_is_no_answer(client: TestClient, server: StubOpenAI) -> None:
    """It answers well enough, from what little it read: only its own count gives it away."""
    server.then(Reply("Employees in Porto have plenty of leave.", prompt_tokens=60))
    assert "cut the prompt" in answered_from_sentences(ask(client))


def test_a_server_that_is_not_there_is_said_and_not_an_error(client: TestClient, configured: Any) -> None:
    with socket.socket() as probe:  # bound and not listening: nobody else gets the port, and nobody answers
        probe.bind(("127.0.0.1", 0))
        configured(llm_base_url=f"http://127.0.0.1:{probe.getsockname()[1]}/v1", llm_retries=0)
        assert "stub" in answered_from_sentences(ask(client))


def test_a_window_without_room_for_a_passage_is_said(client: TestClient, server: StubOpenAI, configured: Any) -> None:
    server.then(Reply(GOOD))
    configured(llm_window=256)
    assert "ATTEST_LLM_WINDOW" in answered_from_sentences(ask(client))


def test_other_wordings_are_asked_for_first_and_listed(client: TestClient, server: StubOpenAI, configured: Any) -> None:
    configured(query_rewrites=2)
    server.then(Reply("1. How long is the paid leave in Porto?\n2. What paid leave is there?"), Reply(GOOD))
    answer = ask(client)
    assert answer["rewrites"] == ["How long is the paid leave in Porto?", "What paid leave is there?"]
    assert (answer["standalone_question"], answer["degraded"]) == (LEAVE, None)
    assert "25 days" in answer["citations"][0]["quote"]
    server.then(Reply(status=500, error="Out of order."), Reply(status=500, error="Out of order."), Reply(GOOD))
    answer = ask(client)
    assert (answer["rewrites"], answer["degraded"], answer["model"]) == ([], None, "stub")


# ── as a stream ───────────────────────────────────────────────────────────────────────────────


def test_a_stream_begins_with_what_was_found_and_ends_with_the_plain_answer(
    client: TestClient, server: StubOpenAI
) -> None:
    reply = f"{GOOD} The office in Porto opens at nine in the morning [2]. Bring 17 keys."
    server.then(Reply(reply))
    events = stream(client)
    names = [name for name, _ in events]
    assert names[0] == "retrieval"
    assert names[-1] == "final"
    assert names.count("final") == 1
    assert "".join(data["text"] for name, data in events if name == "token") == reply
    said = [data["text"] for name, data in events if name == "sentence"]
    final, plain = events[-1][1], ask(client)
    for name in ("answer", "citations", "sentences", "refusal", "model", "degraded", "left_out"):
        assert final[name] == plain[name], name
    assert said == [sentence["text"] for sentence in final["sentences"]][: len(said)]
    assert [sentence["support"] for sentence in final["sentences"]] == ["supported", "supported", "unsupported"]


def test_a_server_that_dies_in_mid_sentence_is_forgotten_in_the_final_event(
    client: TestClient, server: StubOpenAI
) -> None:
    server.then(Reply("Bananas are blue and always were.", cut_after=3))
    events = stream(client)
    assert next(data["text"].strip() for name, data in events if name == "token") == "Bananas"
    assert events[-1][0] == "final"
    assert "error" not in [name for name, _ in events]
    answered_from_sentences(events[-1][1])
    assert "anana" not in events[-1][1]["answer"]


def test_a_reader_who_leaves_ends_the_request_to_the_models_server(tmp_path: Path) -> None:
    with StubOpenAI(Reply("word " * 2000, delay_seconds=0.01)) as server:
        settings = Settings(
            _env_file=None, data_dir=tmp_path / "data", llm="openai:stub", llm_base_url=server.base_url, llm_window=4096
        )
        background = Background(Service(settings, embedder=HashEmbedder()))
        try:
            with httpx.Client(base_url=background.url, timeout=30.0, trust_env=False) as client:
                client.post("/v1/collections", json={"name": "default"}).raise_for_status()
                job = client.post(
                    "/v1/collections/default/documents", json={"title": "Handbook", "text": HANDBOOK}
                ).json()
                wait_for_job(client, job["id"])
                with client.stream("POST", "/v1/ask", json={"question": LEAVE, "stream": True}) as response:
                    first = next(data for name, data in events_of(response.iter_lines()) if name == "token")
                assert first["text"]
                assert server.hung_up.wait(10)
        finally:
            background.close()
