"""Texts become unit vectors: any model of sentence-transformers, by what runs it fastest here (`runtimes/`)."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag.embedding import model_files
from rag.embedding.runtimes.agreement import unit
from rag.embedding.runtimes.choice import Runtime, exported_runtime
from rag.embedding.runtimes.exported import Exported, whole_tokenizer
from rag.errors import Unavailable
from rag.ports import Vectors
from rag.text.language import canonical

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from rag.embedding.runtimes.reference import Reference

# Length-sorted batches of about 1,024 tokens, padding included, embed 1.7 times as many chunks per second on a CPU as
# the library's 32 texts at a time; a GPU wants them larger.
_BATCH_TOKENS_CPU, _BATCH_TOKENS_GPU = 1_024, 32_768
_QUESTIONS_AT_ONCE = 16
_QUESTIONS_KEPT = 2_048  # vectors of the latest questions: 3 MB


class SentenceTransformerEmbedder:
    """An Embedder from `default` (the packaged all-MiniLM-L6-v2), a folder, or a name on the Hugging Face hub.

    Nothing is loaded before it is needed: `identity`, `window`, `dimension` and token counts of a plain model come from
    its files, without torch. `cache` is where models are kept that were prepared for a faster `runtime` than torch
    (rag/embedding/runtimes/choice.py); without one there is none. `threads` and `device` are torch's.
    Questions overtake passages that wait, and those that come together are embedded together.
    """

    def __init__(
        self,
        name_or_path: str = "default",
        *,
        cache: Path | None = None,
        runtime: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self._given = name_or_path
        self._cache = cache
        self._wanted = runtime
        self._device = device
        self._threads = threads
        self._batch_tokens = batch_tokens
        self._loading = threading.RLock()

    @property
    def name(self) -> str:
        if self._given == "default":
            return "all-MiniLM-L6-v2"
        folder = Path(self._given).expanduser()
        return folder.resolve().name if folder.is_dir() else self._given

    @property
    def spec(self) -> str:
        folder = Path(self._given).expanduser()
        return str(folder.resolve()) if self._given != "default" and folder.is_dir() else self._given

    @property
    def runtime(self) -> str | None:
        """What runs the model; None as long as it is not loaded."""
        loaded: Runtime | None = self.__dict__.get("_runtime")
        return loaded.name if loaded else None

    @cached_property
    def identity(self) -> str:
        with self._loading:
            if self._cache is None:
                return model_files.identity(self._folder)
            return model_files.remembered_identity(self._folder, self._cache)

    @cached_property
    def window(self) -> int:
        return model_files.configured_window(self._folder) or self._reference.window

    @cached_property
    def dimension(self) -> int:
        return model_files.configured_dimension(self._folder) or self._reference.dimension

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        clean = [canonical(text) for text in texts]
        vectors = np.empty((len(clean), self.dimension), dtype=np.float32)
        if not clean:
            return vectors
        self._load()
        encode, lengths = self._tokenised(clean)

        def embed(rows: list[int]) -> None:
            with self._turns.question() if urgent else self._turns.passages():
                vectors[rows] = unit(encode(rows))

        for _ in self._pool.map(embed, self._batches(lengths)):
            pass
        return vectors

    def embed_query(self, text: str) -> Vectors:
        self._load()
        return self._questions.embed(canonical(text))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        encoded = self._tokenizer.encode_batch_fast([canonical(text) for text in texts], add_special_tokens=False)
        return [len(encoding) for encoding in encoded]

    def coverage(self, text: str) -> float:
        unknown = self._tokenizer.token_to_id("[UNK]")
        if unknown is None:
            unknown = self._tokenizer.token_to_id("<unk>")
        ids = self._tokenizer.encode(canonical(text), add_special_tokens=False).ids
        return 1.0 - ids.count(unknown) / len(ids) if ids and unknown is not None else 1.0

    def _tokenised(self, texts: list[str]) -> tuple[Callable[[list[int]], Vectors], list[int]]:
        """What embeds the texts of some rows, and the length of each, in tokens, as it is embedded."""
        runtime = self._runtime
        if isinstance(runtime, Exported):  # tokenised once
            tokens = runtime.tokens(texts, query=False)
            return lambda rows: runtime.vectors([tokens[row] for row in rows]), [
                runtime.padded(len(own)) for own in tokens
            ]
        lengths = [min(tokens + 2, self.window) for tokens in self.count_tokens(texts)]
        return lambda rows: runtime.encode([texts[row] for row in rows], query=False), lengths

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Row numbers, longest texts first, so that padding is short and a batch too big for memory fails at once."""
        on_gpu = self._runtime is self.__dict__.get("_reference") and not self._reference.on_cpu
        budget = self._batch_tokens or (_BATCH_TOKENS_GPU if on_gpu else _BATCH_TOKENS_CPU)
        rows: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
            if rows and lengths[rows[0]] * (len(rows) + 1) > budget:
                yield rows
                rows = []
            rows.append(row)
        yield rows

    # ── what is loaded when it is needed ──────────────────────────────────────────────────────

    def _load(self) -> None:
        with self._loading:
            _ = self._runtime

    @cached_property
    def _folder(self) -> Path:
        with self._loading:
            return model_files.model_folder(self._given)

    @cached_property
    def _runtime(self) -> Runtime:
        found = None
        if self._cache is not None and self._device is None:
            found = exported_runtime(
                self._wanted,
                model=self._folder,
                identity=self.identity,
                window=self.window,
                cache=self._cache,
                tokenizer=lambda: self._tokenizer,
            )
        return found or self._reference

    @cached_property
    def _reference(self) -> Reference:
        from rag.embedding.runtimes.reference import Reference

        with self._loading:
            return Reference(self._folder, given=self._given, device=self._device, threads=self._threads)

    @cached_property
    def _turns(self) -> _Turns:
        return _Turns(self._runtime.parallel)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._runtime.parallel, thread_name_prefix="embed")

    @cached_property
    def _questions(self) -> _Questions:
        def embed(texts: list[str]) -> Vectors:
            with self._turns.question():
                return unit(self._runtime.encode(texts, query=True))

        return _Questions(embed, leaders=self._runtime.parallel)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        """Ours alone: the model's own switches truncation on and off while threads use it, and the packaged file pads
        every text to 128 tokens."""
        with self._loading:
            file = self._folder / "tokenizer.json"
            if file.is_file():
                return whole_tokenizer(file.read_text("utf-8"))
            fast = self._reference.tokenizer()
            if fast is None:
                raise Unavailable(f"The embedder {self._given} has no fast tokenizer.", remedy=model_files.REMEDY)
            return whole_tokenizer(fast.to_str())


class _Turns:
    """So many batches of passages at once. Where that is one, questions wait for it and go before the passages that
    wait (a plain lock would go back to the ingesting thread again and again); else they do not wait."""

    def __init__(self, parallel: int = 1) -> None:
        self._changed = threading.Condition()
        self._parallel = parallel
        self._busy = 0
        self._questions = 0

    @contextmanager
    def question(self) -> Iterator[None]:
        with self._changed:
            self._questions += 1
            self._changed.wait_for(lambda: self._parallel > 1 or not self._busy)
            self._questions -= 1
            self._busy += 1
        yield from self._end()

    @contextmanager
    def passages(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self._parallel and not self._questions)
            self._busy += 1
        yield from self._end()

    def _end(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()


@dataclass
class _Asked:
    text: str
    vector: Vectors | None = None
    problem: Exception | None = None

    @property
    def done(self) -> bool:
        return self.vector is not None or self.problem is not None


class _Questions:
    """Vectors of questions. The latest are kept. Those that come while others are embedded go together in the next
    batch: nobody waits for more to come."""

    def __init__(self, embed: Callable[[list[str]], Vectors], *, leaders: int) -> None:
        self._embed = embed
        self._leaders = leaders  # batches at once
        self._busy = 0
        self._waiting: list[_Asked] = []
        self._changed = threading.Condition()
        self._kept: OrderedDict[str, Vectors] = OrderedDict()

    def embed(self, text: str) -> Vectors:
        with self._changed:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
            mine = _Asked(text)
            self._waiting.append(mine)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: mine.done or self._busy < self._leaders)
                if mine.done:
                    break
                batch, self._waiting = self._waiting[:_QUESTIONS_AT_ONCE], self._waiting[_QUESTIONS_AT_ONCE:]
                self._busy += 1
            self._run(batch)
        if mine.problem is not None:
            raise mine.problem
        assert mine.vector is not None
        return mine.vector

    def _run(self, batch: list[_Asked]) -> None:
        try:
            found = self._embed([asked.text for asked in batch]) if batch else ()
            for asked, vector in zip(batch, found, strict=True):
                asked.vector = vector
        except Exception as problem:  # noqa: BLE001  # of all who asked, not only of the thread that happened to do it
            for asked in batch:
                asked.problem = problem
        finally:
            with self._changed:
                self._busy -= 1
                for asked in batch:
                    if asked.vector is not None:
                        self._kept[asked.text] = asked.vector
                while len(self._kept) > _QUESTIONS_KEPT:
                    self._kept.popitem(last=False)
                self._changed.notify_all()
