"""A chat model in this process: Hugging Face transformers behind LangChain's interface.

langchain-huggingface's own can neither be stopped nor tells its usage, and wants an older sentence-transformers.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from rag.errors import ModelRejected, ModelUnavailable
from rag.llm.window import UNKNOWN_WINDOW

log = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS = 60.0  # offline, the library spends 25 s on finding out that a model cannot be downloaded

_ROLES = {"system": "system", "human": "user", "ai": "assistant"}


class TransformersChat(BaseChatModel):
    """One model, loaded at its first use, that writes one reply at a time; others wait for their turn."""

    name: str
    timeout_seconds: float

    _loading: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _turn: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _reader: tuple[Any, Any] | None = PrivateAttr(default=None)  # config and tokenizer
    _model: Any = PrivateAttr(default=None)
    _refused: tuple[float, ModelRejected] | None = PrivateAttr(default=None)  # when, and why

    @property
    def _llm_type(self) -> str:
        return "attest-transformers"

    def window(self) -> int:
        """Tokens of prompt and reply together, as the model was made for."""
        config, _ = self._read()
        return int(getattr(config, "max_position_embeddings", None) or UNKNOWN_WINDOW)

    def count_tokens(self, text: str) -> int:
        _, tokenizer = self._read()
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _generate(self, *arguments: Any, **options: Any) -> ChatResult:
        from langchain_core.language_models.chat_models import generate_from_stream

        return generate_from_stream(self._stream(*arguments, **options))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002 - LangChain's signature
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - likewise
        *,
        max_tokens: int = 512,
        **_: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """The reply token by token. Closing the iterator ends the work at the next token."""
        model = self._load()
        _, tokenizer = self._read()
        prompt = _encode(tokenizer, messages).to(model.device)
        given = int(prompt["input_ids"].shape[1])
        self._check_length(given)
        run = _Generation(model, tokenizer, prompt, max_tokens, self.timeout_seconds)
        if not self._turn.acquire(timeout=self.timeout_seconds):
            raise TimeoutError("the model was busy with other questions all the time")
        run.start(self._turn.release)
        try:
            for text in run.pieces():
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        finally:
            run.stop()
        usage = UsageMetadata(input_tokens=given, output_tokens=run.written, total_tokens=given + run.written)
        reason = "length" if run.written >= max_tokens else "stop"
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=usage, response_metadata={"finish_reason": reason})
        )

    def _check_length(self, given: int) -> None:
        if given >= self.window():
            raise ModelRejected(
                f"The prompt of {given} tokens is too long for {Path(self.name).name}, which takes {self.window()}.",
                remedy="Lower ATTEST_TOP_K or ATTEST_LLM_WINDOW.",
            )

    def _read(self) -> tuple[Any, Any]:
        """The model's configuration and tokenizer."""
        with self._loading:
            if self._reader is None:
                from transformers import AutoConfig, AutoTokenizer

                where, options = self._location()
                config = self._pretrained(AutoConfig, where, options)
                self._reader = config, self._pretrained(AutoTokenizer, where, options)
            return self._reader

    def _load(self) -> Any:
        """The model itself, in memory. Weights come from safetensors or GGUF, which cannot carry code."""
        with self._loading:
            if self._model is None:
                import torch
                from transformers import AutoModelForCausalLM

                where, options = self._location()
                if "gguf_file" not in options:
                    options |= {"use_safetensors": True, "dtype": "auto"}
                model = self._pretrained(AutoModelForCausalLM, where, options).eval()
                self._model = model.to("cuda" if torch.cuda.is_available() else "cpu")
            return self._model

    def _location(self) -> tuple[str, dict[str, Any]]:
        if self.name.endswith(".gguf"):
            file = Path(self.name).expanduser()
            return str(file.parent), {"gguf_file": file.name}
        folder = Path(self.name).expanduser()
        return (str(folder) if folder.is_dir() else self.name), {}

    def _pretrained(self, kind: Any, where: str, options: dict[str, Any]) -> Any:
        from transformers.utils import logging as transformers_logging

        if self._refused and time.monotonic() - self._refused[0] < _TRY_AGAIN_SECONDS:
            raise self._refused[1].with_traceback(None)
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.disable_progress_bar()
        try:
            return kind.from_pretrained(where, trust_remote_code=False, **options)
        except MemoryError as error:
            raise ModelUnavailable(f"{Path(self.name).name} does not fit into memory.") from error
        except Exception as error:  # the library has no error class for "there is no such model"
            refusal = ModelRejected(
                f"The language model {self.name} cannot be loaded: {_first_line(error)}",
                remedy="Give a folder with safetensors, a .gguf file, or the name of a model that is cached or can be "
                "downloaded.",
            )
            self._refused = time.monotonic(), refusal
            raise refusal from error
        finally:
            if bars:
                transformers_logging.enable_progress_bar()


class _Generation:
    """One reply being written in a thread of its own, so that it can be read as it comes, and stopped."""

    def __init__(self, model: Any, tokenizer: Any, prompt: Any, max_tokens: int, timeout_seconds: float) -> None:
        from transformers import TextIteratorStreamer

        self.written = 0
        self._model = model
        self._prompt = prompt
        self._max_tokens = max_tokens
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._streamer = TextIteratorStreamer(
            tokenizer, skip_prompt=True, timeout=timeout_seconds, skip_special_tokens=True
        )

    def start(self, when_done: Callable[[], None]) -> None:
        threading.Thread(target=self._run, args=(when_done,), name="attest-generation", daemon=True).start()

    def pieces(self) -> Iterator[str]:
        """Text as it is written. Raises what went wrong in the thread, and TimeoutError after too long a silence."""
        try:
            yield from (piece for piece in self._streamer if piece)
        except queue.Empty:
            raise TimeoutError("no token came in time") from None
        if self._error:
            raise self._error

    def stop(self) -> None:
        """Asks the thread to end; it does at its next token, and gives the turn to the next reply."""
        self._stopped.set()

    def _run(self, when_done: Callable[[], None]) -> None:
        import torch
        from transformers import StoppingCriteriaList

        try:
            with torch.inference_mode():
                self._model.generate(
                    **self._prompt,
                    max_new_tokens=self._max_tokens,
                    do_sample=False,
                    streamer=self._streamer,
                    stopping_criteria=StoppingCriteriaList([self._should_stop]),
                )
        except Exception as error:  # noqa: BLE001 - raised again where the reply is read
            self._error = error
        finally:
            when_done()
            self._streamer.end()

    def _should_stop(self, tokens: Any, _scores: Any, **_: Any) -> Any:
        import torch

        # Counted here, because `generate` ends the stream before it returns.
        self.written = int(tokens.shape[1] - self._prompt["input_ids"].shape[1])
        return torch.full((tokens.shape[0],), self._stopped.is_set(), dtype=torch.bool, device=tokens.device)


def _encode(tokenizer: Any, messages: list[BaseMessage]) -> Any:
    """The prompt in the model's own chat template; plain lines for a model without one."""
    turns = [{"role": _ROLES.get(message.type, "user"), "content": str(message.text)} for message in messages]
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    lines = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns]
    return tokenizer("\n\n".join([*lines, "Assistant:"]), return_tensors="pt")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
