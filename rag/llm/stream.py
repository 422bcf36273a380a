"""One reply of any LangChain chat model, as our stream: thoughts taken out, patience bounded, errors understood."""

from __future__ import annotations

import contextvars
import logging
import re
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag.errors import ModelError, ModelRejected, ModelSilent
from rag.llm.errors import CutShort, Failure, pause_seconds, understand
from rag.llm.window import WindowFinder, estimate_tokens, fewest_tokens
from rag.models import Usage
from rag.ports import Delta, Message

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

log = logging.getLogger(__name__)

LONGEST_REPLY = 5  # times the patience: the bound on a reply that keeps coming, but slowly

_CUT_MATTERS_FROM = 200  # tokens: below this, what a template adds and a cache hides blurs the comparison
_CUT_BELOW = 0.9  # of the fewest tokens that any tokenizer makes of the prompt
_FINISH_KEYS = ("finish_reason", "stop_reason", "done_reason")  # OpenAI and Google, Anthropic, Ollama


@dataclass(frozen=True)
class Backend:
    """A LangChain chat model, and what differs between providers beside that common interface."""

    chat: BaseChatModel
    window: WindowFinder
    limits: Callable[[int], Mapping[str, Any]]  # arguments that hold a reply to so many tokens
    says_when_done: bool = False  # a complete reply always carries a finish reason
    count_tokens: Callable[[str], int] = estimate_tokens
    close: Callable[[], None] = lambda: None


class LangChainModel:
    """A `ChatModel` over any of LangChain's. Thread-safe where the chat model is."""

    def __init__(
        self, backend: Backend, *, name: str, secret: str | None, patience_seconds: float, retries: int
    ) -> None:
        self._backend = backend
        self._name = name
        self._secret = secret
        self._patience_seconds = patience_seconds
        self._retries = retries
        # Connections are kept for the next question; they end with the model, also where nobody closes it.
        self.close = weakref.finalize(self, backend.close)

    @property
    def name(self) -> str:
        return self._name

    @property
    def window(self) -> int:
        return self._backend.window()

    def count_tokens(self, text: str) -> int:
        return self._backend.count_tokens(text)

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> Generator[Delta]:
        """The reply as it comes. Silence for longer than the patience is a ModelTimeout, and so is 5 times that in all.

        A failure that may pass is repeated, but never once a word has been said.
        """
        began = time.monotonic()
        attempt = 0
        while True:
            said = False
            try:
                with closing(
                    self._attempt(messages, max_tokens, began + LONGEST_REPLY * self._patience_seconds)
                ) as reply:
                    for delta in reply:
                        said = True
                        yield delta
                return
            except ModelError:
                raise
            except Exception as error:  # noqa: BLE001 - each provider has its own errors, and the port promises only ours
                failure = understand(error, model=self._name, secret=self._secret)
            pause = None if said else self._pause(failure, attempt, began)
            if pause is None:
                # Without its cause, whose own text may hold the key.
                raise failure.error from None
            log.info("asking %s again in %.1f s: %s", self._name, pause, failure.error.detail)
            time.sleep(pause)
            attempt += 1

    def _pause(self, failure: Failure, attempt: int, began: float) -> float | None:
        """How long to wait before another attempt; None where there should be none."""
        if failure.stated_window:
            self._backend.window.learn(failure.stated_window)
        if not failure.retryable or attempt >= self._retries:
            return None
        pause = pause_seconds(attempt, failure.retry_after_seconds)
        in_time = pause is not None and time.monotonic() + pause < began + self._patience_seconds
        return pause if in_time else None

    def _attempt(self, messages: Sequence[Message], max_tokens: int, deadline: float) -> Generator[Delta]:
        reply = _Reply()
        with closing(_untraced(self._backend, messages, max_tokens)) as chunks:
            for chunk in chunks:
                text = reply.take(chunk)
                if text:
                    yield Delta(text)
                if time.monotonic() > deadline:
                    raise TimeoutError("the reply was not complete in time")
        if self._backend.says_when_done and reply.finish_reason is None:
            raise CutShort("it ended without a finish reason")
        rest = reply.thoughts.flush()
        if not (rest.strip() or reply.said):
            raise _silence(self._name, reply)
        yield Delta(rest, usage=reply.usage, finish_reason=reply.finish_reason)
        self._refuse_cut_prompt(messages, reply.usage)

    def _refuse_cut_prompt(self, messages: Sequence[Message], usage: Usage | None) -> None:
        """Raises when the server cannot have read the whole prompt: Ollama drops its beginning without a word."""
        fewest = sum(fewest_tokens(message.content) for message in messages)
        # Zero means that the server does not count, or that all of it came from its cache.
        if usage is None or not usage.prompt_tokens or fewest < _CUT_MATTERS_FROM:
            return
        if usage.prompt_tokens < _CUT_BELOW * fewest:
            raise ModelRejected(
                f"The server of {self._name} cut the prompt: it read {usage.prompt_tokens} of {fewest} tokens or more.",
                remedy="Raise the server's context length (OLLAMA_CONTEXT_LENGTH), or set ATTEST_LLM_WINDOW to it.",
            )


@dataclass
class _Reply:
    """What has come of one reply so far."""

    thoughts: ThoughtFilter = field(default_factory=lambda: ThoughtFilter())
    usage: Usage | None = None
    finish_reason: str | None = None
    said: bool = False

    def take(self, chunk: BaseMessage) -> str:
        """The text to show of the next chunk."""
        usage = getattr(chunk, "usage_metadata", None)
        if usage:
            before = self.usage or Usage()
            # The larger of both: some send their counts once, some again and again with the running totals.
            self.usage = Usage(
                max(before.prompt_tokens, usage.get("input_tokens") or 0),
                max(before.completion_tokens, usage.get("output_tokens") or 0),
            )
        for key in _FINISH_KEYS:
            reason = chunk.response_metadata.get(key)
            if reason:
                self.finish_reason = str(reason)
        # `text` leaves out what is not text (reasoning blocks, tool calls) when the content is a list of blocks.
        text = self.thoughts.feed(str(chunk.text))
        self.said = self.said or bool(text.strip())
        return text


class ThoughtFilter:
    """Takes `<think> … </think>` out of a reply that comes in pieces, however they fall."""

    _OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
    _CLOSE = re.compile(r"</think(?:ing)?>\s*", re.IGNORECASE)
    _LONGEST_TAG = len("</thinking>")

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False
        self._begun = False

    def feed(self, text: str) -> str:
        """What can be shown now; the beginning of what may be a tag is held back."""
        self._held += text
        shown = []
        while True:
            if self._thinking:
                tag = self._CLOSE.search(self._held)
                if not tag:
                    self._held = self._held[-self._LONGEST_TAG :]
                    break
            else:
                tag = self._OPEN.search(self._held)
                if not tag:
                    keep = self._possible_tag()
                    shown.append(self._held[: len(self._held) - keep])
                    self._held = self._held[len(self._held) - keep :]
                    break
                shown.append(self._held[: tag.start()])
            self._held = self._held[tag.end() :]
            self._thinking = not self._thinking
        return self._without_leading_blanks("".join(shown))

    def flush(self) -> str:
        """What was held back, at the end; a thought that never ended stays unsaid."""
        rest = "" if self._thinking else self._held
        self._held = ""
        return self._without_leading_blanks(rest)

    def _possible_tag(self) -> int:
        """Length of the end of what is held that may turn out to be the beginning of a tag."""
        start = self._held.rfind("<", -self._LONGEST_TAG)
        if start < 0:
            return 0
        end = self._held[start:].lower()
        return len(end) if "<think>".startswith(end) or "<thinking>".startswith(end) else 0

    def _without_leading_blanks(self, text: str) -> str:
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        return text


def _untraced(backend: Backend, messages: Sequence[Message], max_tokens: int) -> Generator[BaseMessage]:
    """The chunks of LangChain's reply, run in a context where nothing of it is reported anywhere.

    LANGSMITH_TRACING=true in the environment would send question and passages to LangSmith. A context of its own
    switches that off for this reply alone, and keeps callbacks of a LangChain program around us from hearing it.
    """
    context = contextvars.Context()
    context.run(_switch_off_tracing)
    chunks: Any = context.run(backend.chat.stream, _translated(messages), **backend.limits(max_tokens))
    try:
        while (chunk := context.run(next, chunks, None)) is not None:
            yield chunk
    finally:
        context.run(chunks.close)


def _switch_off_tracing() -> None:
    from langsmith.run_helpers import tracing_context

    tracing_context(enabled=False).__enter__()  # never left: the context it is set in is thrown away


def _translated(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


def _silence(name: str, reply: _Reply) -> ModelSilent:
    if reply.finish_reason == "length":
        return ModelSilent(
            f"The language model {name} used up its reply without an answer.", remedy="Raise ATTEST_LLM_MAX_TOKENS."
        )
    return ModelSilent(f"The language model {name} answered with nothing.")
