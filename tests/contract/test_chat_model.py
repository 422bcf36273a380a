"""Promises of the port `ChatModel`, held over real sockets against a server that misbehaves on demand."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from rag.errors import (
    InvalidInput,
    ModelError,
    ModelRejected,
    ModelSilent,
    ModelTimeout,
    ModelUnavailable,
    Unavailable,
)
from rag.llm.chat import open_chat_model
from rag.models import Usage
from rag.ports import ChatModel, Delta, Message
from tests.stub_openai import Reply, StubOpenAI

KEY = "sk-test-0123456789"
HELLO = [Message("system", "Be brief."), Message("user", "Hello?")]


def model_of(server: StubOpenAI, **changes: Any) -> ChatModel:
    options: dict[str, Any] = {
        "base_url": server.base_url,
        "api_key": KEY,
        "window": None,
        "timeout_seconds": 2.0,
        "retries": 2,
    }
    return open_chat_model("openai:stub", **(options | changes))


def said(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.fixture
def server() -> Iterator[StubOpenAI]:
    with StubOpenAI() as stub:
        yield stub


class TestReplies:
    def test_a_reply_comes_piece_by_piece_and_ends_with_its_usage_and_reason(self, server: StubOpenAI) -> None:
        server.then(Reply("Paris is the capital [1]."))
        deltas = list(model_of(server).stream(HELLO, max_tokens=20))
        assert said(deltas) == "Paris is the capital [1]."
        assert len(deltas) > 3
        assert deltas[-1].finish_reason == "stop"
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.prompt_tokens > 0
        assert deltas[-1].usage.completion_tokens > 0
        assert all(delta.usage is None for delta in deltas[:-1])

    def test_the_server_is_asked_in_the_words_that_every_server_knows(self, server: StubOpenAI) -> None:
        list(model_of(server).stream(HELLO, max_tokens=20))
        asked = server.requests[0]
        assert asked["model"] == "stub"
        assert asked["max_tokens"] == 20
        assert "max_completion_tokens" not in asked
        assert asked["temperature"] == 0.0
        assert [(message["role"], message["content"]) for message in asked["messages"]] == [
            ("system", "Be brief."),
            ("user", "Hello?"),
        ]

    def test_a_server_that_reports_no_usage_is_fine(self, server: StubOpenAI) -> None:
        server.then(Reply("Fine.", usage=False))
        deltas = list(model_of(server).stream(HELLO, max_tokens=20))
        assert said(deltas) == "Fine."
        assert deltas[-1].usage is None

    def test_a_reply_that_ran_out_of_tokens_says_so(self, server: StubOpenAI) -> None:
        server.then(Reply("It is", finish_reason="length"))
        assert list(model_of(server).stream(HELLO, max_tokens=2))[-1].finish_reason == "length"

    def test_thoughts_are_not_part_of_the_answer(self, server: StubOpenAI) -> None:
        server.then(Reply(reasoning="secretly", pieces=["<thi", "nk>well", "</think", ">\n\nPar", "is."]))
        assert said(list(model_of(server).stream(HELLO, max_tokens=20))) == "Paris."

    def test_one_model_serves_many_threads(self, server: StubOpenAI) -> None:
        model = model_of(server)
        server.then(Reply(lambda messages: f"You said {messages[-1]['content']}", delay_seconds=0.005))
        answers: dict[int, str] = {}

        def ask(number: int) -> None:
            answers[number] = said(list(model.stream([Message("user", f"number {number}")], max_tokens=9)))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {number: f"You said number {number}" for number in range(8)}


class TestFailures:
    def test_a_server_that_is_down_is_unavailable(self) -> None:
        with StubOpenAI() as stub:
            url = stub.base_url
        model = open_chat_model("openai:stub", base_url=url, api_key=None, window=None, timeout_seconds=2.0, retries=1)
        with pytest.raises(ModelUnavailable, match="ATTEST_LLM_BASE_URL"):
            list(model.stream(HELLO, max_tokens=9))

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_may_pass_is_tried_again(self, server: StubOpenAI, status: int) -> None:
        server.then(Reply(status=status), Reply("Back again."))
        assert said(list(model_of(server).stream(HELLO, max_tokens=9))) == "Back again."
        assert len(server.requests) == 2

    def test_retries_are_bounded_and_counted_once(self, server: StubOpenAI) -> None:
        """The libraries below have retries of their own, which would multiply with ours."""
        server.then(Reply(status=503, error="Loading model", headers={"retry-after": "0"}))
        with pytest.raises(ModelUnavailable, match="Loading model"):
            list(model_of(server, retries=3).stream(HELLO, max_tokens=9))
        assert len(server.requests) == 4

    def test_a_rate_limit_is_waited_for_as_long_as_the_server_says(self, server: StubOpenAI) -> None:
        server.then(Reply(status=429, headers={"retry-after": "0.4"}), Reply("Now."))
        began = time.monotonic()
        assert said(list(model_of(server).stream(HELLO, max_tokens=9))) == "Now."
        assert 0.4 <= time.monotonic() - began < 2

    def test_a_rate_limit_of_a_minute_is_not_waited_for(self, server: StubOpenAI) -> None:
        server.then(Reply(status=429, headers={"retry-after": "60"}))
        began = time.monotonic()
        with pytest.raises(ModelUnavailable):
            list(model_of(server).stream(HELLO, max_tokens=9))
        assert time.monotonic() - began < 1
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("status", "remedy"),
        [(401, "API_KEY"), (403, "API_KEY"), (404, "ATTEST_LLM"), (400, "refused"), (307, "BASE_URL")],
    )
    def test_a_refusal_is_not_repeated_and_never_shows_the_key(
        self, server: StubOpenAI, status: int, remedy: str
    ) -> None:
        server.then(Reply(status=status, error=f"no, not with {KEY}", headers={"location": "http://127.0.0.1:9/v1"}))
        with pytest.raises(ModelRejected, match=remedy) as refused:
            list(model_of(server).stream(HELLO, max_tokens=9))
        assert KEY not in str(refused.value)
        assert refused.value.__cause__ is None
        assert len(server.requests) == 1

    def test_a_prompt_that_is_too_long_teaches_the_window(self, server: StubOpenAI) -> None:
        model = model_of(server)
        assert model.window == 4096
        server.then(Reply(status=400, error="This model's maximum context length is 2048 tokens."))
        with pytest.raises(ModelRejected, match="too long"):
            list(model.stream(HELLO, max_tokens=9))
        assert model.window == 2048

    def test_a_server_that_does_not_answer_is_left_in_time(self, server: StubOpenAI) -> None:
        server.then(Reply(hang_before_headers=True))
        began = time.monotonic()
        with pytest.raises(ModelTimeout):
            list(model_of(server, timeout_seconds=0.4).stream(HELLO, max_tokens=9))
        assert time.monotonic() - began < 1.2
        assert len(server.requests) == 1

    def test_a_server_that_falls_silent_is_left_in_time(self, server: StubOpenAI) -> None:
        server.then(Reply("one two three four", hang_after=2))
        deltas: list[Delta] = []
        began = time.monotonic()
        with pytest.raises(ModelTimeout):
            deltas.extend(model_of(server, timeout_seconds=0.4).stream(HELLO, max_tokens=9))
        assert time.monotonic() - began < 1.2
        assert said(deltas) == "one two "

    @pytest.mark.parametrize("reply", [Reply("one two", keep_alive_after=1), Reply("w " * 500, delay_seconds=0.05)])
    def test_a_reply_that_never_ends_is_left_in_time(self, server: StubOpenAI, reply: Reply) -> None:
        """Each byte starts the HTTP client's own time-out again, so keep-alive comments would be waited for forever."""
        server.then(reply)
        began = time.monotonic()
        with pytest.raises(ModelTimeout):
            list(model_of(server, timeout_seconds=0.2).stream(HELLO, max_tokens=9))
        assert 0.9 < time.monotonic() - began < 2

    @pytest.mark.parametrize(
        "reply",
        [Reply("one two three", cut_after=2), Reply("one two three", end_after=2), Reply("a b c", error_after=2)],
    )
    def test_a_reply_cut_in_the_middle_is_not_taken_for_whole_nor_repeated(
        self, server: StubOpenAI, reply: Reply
    ) -> None:
        server.then(reply)
        deltas: list[Delta] = []
        with pytest.raises(ModelUnavailable):
            deltas.extend(model_of(server).stream(HELLO, max_tokens=9))
        assert len(deltas) == 2
        assert len(server.requests) == 1

    def test_a_reply_cut_before_its_first_word_is_asked_for_again(self, server: StubOpenAI) -> None:
        server.then(Reply("one", cut_after=0), Reply("Whole."))
        assert said(list(model_of(server).stream(HELLO, max_tokens=9))) == "Whole."

    @pytest.mark.parametrize("text", ["", "  \n ", "<think>only thoughts</think>"])
    def test_an_empty_reply_is_silence(self, server: StubOpenAI, text: str) -> None:
        server.then(Reply(pieces=[text]))
        with pytest.raises(ModelSilent):
            list(model_of(server).stream(HELLO, max_tokens=9))

    def test_a_model_that_thinks_until_its_tokens_are_used_up_is_told_apart(self, server: StubOpenAI) -> None:
        server.then(Reply("<think>and then", finish_reason="length"))
        with pytest.raises(ModelSilent, match="ATTEST_LLM_MAX_TOKENS"):
            list(model_of(server).stream(HELLO, max_tokens=9))

    @pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"data: {broken\n\n", b"", b'{"choices": []}'])
    def test_what_is_not_the_protocol_is_unavailable(self, server: StubOpenAI, body: bytes) -> None:
        server.then(Reply(body=body, headers={"content-type": "text/event-stream"}))
        with pytest.raises(ModelUnavailable):
            list(model_of(server, retries=0).stream(HELLO, max_tokens=9))

    def test_a_prompt_that_the_server_cut_without_a_word_is_noticed(self, server: StubOpenAI) -> None:
        """Ollama drops the beginning of a long prompt and answers 200; only the usage gives it away."""
        long = [Message("user", "The committee met on Monday. " * 400)]
        server.then(Reply("On Monday.", prompt_tokens=1024))
        with pytest.raises(ModelRejected, match="OLLAMA_CONTEXT_LENGTH"):
            list(model_of(server).stream(long, max_tokens=9))

    @pytest.mark.parametrize("reported", [None, 0])
    def test_an_honest_or_absent_count_raises_no_alarm(self, server: StubOpenAI, reported: int | None) -> None:
        server.then(Reply("On Monday.", prompt_tokens=reported))
        for text in ("The committee met on Monday. " * 400, "委员会在星期一开会。" * 400, "x" * 4000):
            assert list(model_of(server).stream([Message("user", text)], max_tokens=9))


class TestClosing:
    def test_closing_the_iterator_hangs_up_at_once(self, server: StubOpenAI) -> None:
        server.then(Reply("word " * 1000, delay_seconds=0.02))
        reply = model_of(server).stream(HELLO, max_tokens=999)
        next(reply)
        reply.close()  # type: ignore[attr-defined]  # every implementation is a generator
        assert server.hung_up.wait(1.0)

    def test_an_iterator_that_is_dropped_hangs_up_too(self, server: StubOpenAI) -> None:
        server.then(Reply("word " * 1000, hang_after=3))
        model = model_of(server)
        for _ in model.stream(HELLO, max_tokens=999):
            break
        assert server.hung_up.wait(1.0)


class TestPrivacy:
    def test_nothing_is_reported_to_langsmith_even_where_the_environment_asks_for_it(
        self, server: StubOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with StubOpenAI() as elsewhere:
            for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
                monkeypatch.setenv(name, "true")
            monkeypatch.setenv("LANGSMITH_ENDPOINT", elsewhere.base_url)
            monkeypatch.setenv("LANGSMITH_API_KEY", "lsv2-test")
            monkeypatch.setenv("LANGSMITH_GATEWAY", "true")
            tracers: list[object] = []
            from langchain_core.tracers import langchain

            monkeypatch.setattr(langchain.LangChainTracer, "__init__", lambda *_, **__: tracers.append(1))
            assert said(list(model_of(server).stream(HELLO, max_tokens=9))) == "Hello."
            assert tracers == []
            assert elsewhere.requests == []
            assert elsewhere.asked_paths == []

    def test_a_key_for_openai_in_the_environment_is_not_shown_to_another_server(
        self, server: StubOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-for-openai-only")
        list(model_of(server, api_key=None).stream(HELLO, max_tokens=9))
        assert "sk-for-openai-only" not in str(server.headers)

    def test_addresses_in_the_environment_do_not_redirect_a_question(
        self, server: StubOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert said(list(model_of(server).stream(HELLO, max_tokens=9))) == "Hello."


class TestWindows:
    @pytest.mark.parametrize(
        ("paths", "window"),
        [
            ({}, 4096),
            ({"/v1/models": {"data": [{"id": "other"}, {"id": "stub", "max_model_len": 32768}]}}, 32768),  # vLLM
            ({"/props": {"default_generation_settings": {"n_ctx": 16384}}}, 16384),  # llama.cpp
            ({"/v1/models": {"data": [{"id": "x.gguf", "meta": {"n_ctx": 8192, "n_ctx_train": 131072}}]}}, 8192),
            ({"/api/v0/models": {"data": [{"id": "stub", "loaded_context_length": 12288}]}}, 12288),  # LM Studio
            ({"/api/ps": {"models": [{"name": "stub:latest", "context_length": 8192}]}}, 8192),  # Ollama, loaded
            ({"/api/ps": {"models": []}, "/api/show": {"parameters": "temperature 1\nnum_ctx      6144"}}, 6144),
            ({"/api/ps": {"models": []}, "/api/show": {"model_info": {"qwen3.context_length": 40960}}}, 4096),
            ({"/api/ps": {"models": []}, "/api/show": {"model_info": {"tiny.context_length": 2048}}}, 2048),
        ],
    )
    def test_the_window_is_what_the_server_says(self, paths: dict[str, Any], window: int) -> None:
        with StubOpenAI(paths=paths) as server:
            assert model_of(server).window == window

    def test_a_window_that_is_configured_wins_and_asks_nobody(self, server: StubOpenAI) -> None:
        assert model_of(server, window=1234).window == 1234
        assert server.asked_paths == []

    def test_a_server_that_is_down_does_not_stop_the_question_of_its_window(self) -> None:
        with StubOpenAI() as stub:
            url = stub.base_url
        model = open_chat_model("openai:stub", base_url=url, api_key=None, window=None, timeout_seconds=1.0, retries=0)
        assert model.window == 4096

    def test_tokens_are_estimated_without_any_download(self, server: StubOpenAI) -> None:
        assert model_of(server).count_tokens("Hello, world.") >= 4


class TestProviders:
    @pytest.mark.parametrize("spec", ["", "gpt-4o", "openai:", ":model"])
    def test_a_name_that_is_none_is_refused(self, spec: str) -> None:
        with pytest.raises(InvalidInput, match="ATTEST_LLM"):
            open_chat_model(spec, base_url=None, api_key=None, window=None, timeout_seconds=1.0, retries=0)

    def test_a_provider_whose_package_is_missing_names_it(self) -> None:
        with pytest.raises(Unavailable, match="pip install langchain-anthropic"):
            open_chat_model(
                "anthropic:claude", base_url=None, api_key=None, window=None, timeout_seconds=1.0, retries=0
            )

    def test_a_provider_that_langchain_does_not_know_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="nonsense"):
            open_chat_model("nonsense:x", base_url=None, api_key=None, window=None, timeout_seconds=1.0, retries=0)

    def test_openai_without_a_key_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(InvalidInput, match="ATTEST_LLM_API_KEY"):
            open_chat_model("openai:gpt-4o", base_url=None, api_key=None, window=None, timeout_seconds=1.0, retries=0)

    def test_a_model_that_openai_publishes_has_its_window_on_record(self) -> None:
        model = open_chat_model(
            "openai:gpt-4o", base_url=None, api_key="sk-x", window=None, timeout_seconds=1.0, retries=0
        )
        assert model.window == 128_000

    def test_any_provider_that_a_user_installs_works_through_langchain(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A provider package is a module with a chat model class; this one stands in for langchain-ollama."""
        from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
        from langchain_core.messages import AIMessage

        made: dict[str, Any] = {}

        class ChatOllama(GenericFakeChatModel):
            def __init__(self, **options: Any) -> None:
                made.update(options)
                usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
                message = AIMessage("Hello there", usage_metadata=usage, response_metadata={"done_reason": "stop"})
                super().__init__(messages=iter([message]))

        package = ModuleType("langchain_ollama")
        package.ChatOllama = ChatOllama  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "langchain_ollama", package)
        from langchain.chat_models import base

        base._get_chat_model_creator.cache_clear()
        model = open_chat_model(
            "ollama:qwen3:8b", base_url="http://127.0.0.1:9", api_key=None, window=8192, timeout_seconds=3.0, retries=0
        )
        base._get_chat_model_creator.cache_clear()
        deltas = list(model.stream(HELLO, max_tokens=9))
        assert said(deltas) == "Hello there"
        assert made["model"] == "qwen3:8b"
        assert made["base_url"] == "http://127.0.0.1:9"
        assert made["client_kwargs"]["timeout"] == 3.0
        assert (model.name, model.window) == ("qwen3:8b", 8192)

    def test_whatever_a_provider_raises_leaves_as_one_of_our_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from langchain_core.language_models.fake_chat_models import FakeListChatModel

        from rag.llm.stream import Backend, LangChainModel
        from rag.llm.window import WindowFinder

        class Broken(FakeListChatModel):
            def _stream(self, *_: Any, **__: Any) -> Any:
                raise KeyError("choices")

        backend = Backend(Broken(responses=[]), window=WindowFinder(lambda: 1), limits=lambda n: {})
        model = LangChainModel(backend, name="broken", secret=None, patience_seconds=1.0, retries=2)
        with pytest.raises(ModelError, match="KeyError"):
            list(model.stream(HELLO, max_tokens=9))

    def test_importing_the_door_loads_no_library(self) -> None:
        import subprocess

        code = (
            "import sys, rag.llm.chat, rag.llm.prompts\n"
            "heavy = {'torch', 'transformers', 'langchain', 'langchain_core', 'openai', 'httpx'} & set(sys.modules)\n"
            "sys.exit(str(heavy) if heavy else 0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_usage_is_that_of_the_reply(server: StubOpenAI) -> None:
    server.then(Reply("On Monday.", prompt_tokens=77))
    assert list(model_of(server).stream(HELLO, max_tokens=9))[-1].usage == Usage(77, 3)
