"""The door to language models: LangChain's chat models in, our port `ChatModel` out.

`openai:MODEL` is any server that speaks OpenAI's protocol, `transformers:NAME_OR_PATH` a model in this process, every
other `provider:MODEL` whatever LangChain's `init_chat_model` knows and the user has installed. The libraries below
retry nothing: retries, patience and the meaning of errors are decided once, in `rag/llm/stream.py`, for all alike.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag.errors import InvalidInput, Unavailable
from rag.llm.errors import redact
from rag.llm.stream import LONGEST_REPLY, Backend, LangChainModel
from rag.llm.window import WindowFinder, ask_server, default_for, is_loopback
from rag.ports import ChatModel

_OPENAI_URL = "https://api.openai.com/v1"
_OLLAMA_URL = "http://127.0.0.1:11434"
_CONNECT_SECONDS = 10.0
_CHOOSES_ITS_TEMPERATURE = re.compile(r"(^|/)(o\d|gpt-5)")  # OpenAI's reasoning models refuse any other


def open_chat_model(
    spec: str, *, base_url: str | None, api_key: str | None, window: int | None, timeout_seconds: float, retries: int
) -> ChatModel:
    """The chat model that `provider:MODEL` names. Servers and weights are not touched before its first use."""
    provider, _, model = spec.partition(":")
    if not provider or not model:
        raise InvalidInput(
            f"'{spec}' does not name a language model.",
            remedy="Set ATTEST_LLM to provider:MODEL, for example openai:qwen3:8b, or to none.",
        )
    if provider == "transformers":
        backend = _transformers(model, window, timeout_seconds)
    elif provider == "openai":
        backend = _openai(model, base_url, api_key, window, timeout_seconds)
    else:
        backend = _other(provider, model, base_url, api_key, window, timeout_seconds)
    # A path is nobody's business: answers name the file.
    name = Path(model).name if provider == "transformers" else model
    return LangChainModel(backend, name=name, secret=api_key, patience_seconds=timeout_seconds, retries=retries)


def _openai(
    model: str, base_url: str | None, api_key: str | None, window: int | None, timeout_seconds: float
) -> Backend:
    import openai
    from langchain_openai import ChatOpenAI

    # The address is always given: left out, LangChain takes one from OPENAI_API_BASE or LangSmith's gateway variables.
    url = base_url or _OPENAI_URL
    # Likewise the key: OPENAI_API_KEY is for OpenAI, and a server at another address must not be shown it.
    key = api_key or ("not-needed" if base_url else None)
    timeout = openai.Timeout(timeout_seconds, connect=min(timeout_seconds, _CONNECT_SECONDS))
    client = openai.DefaultHttpxClient(
        timeout=timeout,
        trust_env=not is_loopback(url),
        follow_redirects=False,  # a question goes to the address that was configured, or nowhere
        event_hooks={"response": [lambda response: _bound(response, LONGEST_REPLY * timeout_seconds)]},
    )
    options: dict[str, Any] = {} if _CHOOSES_ITS_TEMPERATURE.match(model) else {"temperature": 0.0}
    if base_url:
        options["use_responses_api"] = False  # OpenAI's own newer protocol, chosen by some model names
    if key:
        options["api_key"] = key
    try:
        chat = ChatOpenAI(
            model=model,
            base_url=url,
            timeout=timeout,
            max_retries=0,
            stream_usage=True,
            http_client=client,
            **options,
        )
    except (openai.OpenAIError, ValueError) as error:
        raise InvalidInput(
            f"The language model {model} cannot be set up: {redact(str(error), api_key)}",
            remedy="Set ATTEST_LLM_API_KEY, or ATTEST_LLM_BASE_URL for a server of your own.",
        ) from None
    if chat.root_client is None:
        raise InvalidInput(f"OpenAI wants a key for {model}.", remedy="Set ATTEST_LLM_API_KEY, or ATTEST_LLM_BASE_URL.")
    known = None if base_url else _profile_window(chat)
    finder = WindowFinder(lambda: window or known or ask_server(url, model, api_key), default=default_for(url))
    # ChatOpenAI sends max_completion_tokens, which OpenAI wants and llama-cpp-python and older Ollamas pass over.
    limits = (lambda n: {"extra_body": {"max_tokens": n}}) if base_url else (lambda n: {"max_tokens": n})
    return Backend(chat, window=finder, limits=limits, says_when_done=True, close=client.close)


def _transformers(name: str, window: int | None, timeout_seconds: float) -> Backend:
    if name.endswith(".gguf"):
        missing = [package for package in ("gguf", "accelerate") if importlib.util.find_spec(package) is None]
        if missing:
            raise Unavailable(
                f"Reading {Path(name).name} needs {' and '.join(missing)}.", remedy="pip install 'attest[gguf]'"
            )
    from rag.llm.transformers import TransformersChat

    chat = TransformersChat(name=name, timeout_seconds=timeout_seconds)
    finder = WindowFinder(lambda: window or chat.window())
    return Backend(
        chat,
        window=finder,
        limits=lambda n: {"max_tokens": n},
        says_when_done=True,
        count_tokens=chat.count_tokens,
    )


def _other(
    provider: str, model: str, base_url: str | None, api_key: str | None, window: int | None, timeout_seconds: float
) -> Backend:
    from langchain.chat_models import init_chat_model

    options: dict[str, Any] = {"max_retries": 0, "timeout": timeout_seconds}
    if provider == "ollama":  # its client takes these instead, and its own protocol does not live under /v1
        base_url = (base_url or _OLLAMA_URL).rstrip("/").removesuffix("/v1")
        options = {"client_kwargs": {"timeout": timeout_seconds, "follow_redirects": False}}
    if base_url:
        options["base_url"] = base_url
    if api_key:
        options["api_key"] = api_key
    try:
        chat = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        command = re.search(r"pip install (?:-U )?([\w-]+)", str(error))
        package = command.group(1) if command else f"langchain-{provider}"
        raise Unavailable(
            f"The language models of {provider} need a package that is not installed.",
            remedy=f"pip install {package.replace('_', '-')}",
        ) from error
    except Exception as error:  # noqa: BLE001 - every provider's package refuses a missing key or name in its own way
        raise InvalidInput(
            f"The language model {provider}:{model} cannot be set up: {redact(str(error), api_key)}",
            remedy="Check ATTEST_LLM, ATTEST_LLM_API_KEY and ATTEST_LLM_BASE_URL.",
        ) from None
    if provider == "ollama":
        finder = WindowFinder(lambda: window or ask_server(f"{base_url}/v1", model, api_key))
        # With num_ctx given, Ollama loads the model with the window that we pack for, and cuts nothing.
        return Backend(
            chat,
            window=finder,
            limits=lambda n: {"options": {"temperature": 0.0, "num_predict": n, "num_ctx": finder()}},
        )
    finder = WindowFinder(lambda: window or _profile_window(chat))
    argument = "max_output_tokens" if provider.startswith("google_") else "max_tokens"
    return Backend(chat, window=finder, limits=lambda n: {argument: n})


def _profile_window(chat: Any) -> int | None:
    """The window that LangChain's provider package has on record for the model, where it has one."""
    profile = getattr(chat, "profile", None) or {}
    tokens = profile.get("max_input_tokens")
    return tokens if isinstance(tokens, int) else None


def _bound(response: Any, seconds: float) -> None:
    """Ends a response at its deadline, however busily it comes.

    The HTTP client's own time-out starts again with every byte, so a server that sends nothing but keep-alive comments
    would be waited for without end.
    """
    deadline = time.monotonic() + seconds
    inner = response.stream
    # The client is httpx in older openai packages and httpx2 in newer ones; each accepts only its own stream class.
    base: Any = sys.modules[type(response).__module__.partition(".")[0]].SyncByteStream

    class BoundedStream(base):
        def __iter__(self) -> Iterator[bytes]:
            for data in inner:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the reply was not complete after {seconds:.0f} seconds")
                yield data

        def close(self) -> None:
            inner.close()

    response.stream = BoundedStream()
