"""The door to sentence-transformers: runs any model that the library can load, and is what others are held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.embedding.model_files import no_telemetry, passage_prompt, unavailable
from rag.ports import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Reference:
    """A Runtime on torch: on a GPU where there is one. One batch at a time: its tokenizer is not thread-safe."""

    parallel = 1

    def __init__(
        self,
        folder: Path,
        *,
        given: str,
        device: str | None = None,
        threads: int | None = None,
        attention: str | None = None,
    ) -> None:
        self.model: SentenceTransformer = _loaded(folder, given, device=device, threads=threads, attention=attention)

    @property
    def name(self) -> str:
        return f"torch {self.model.device.type}"

    @property
    def on_cpu(self) -> bool:
        return bool(self.model.device.type == "cpu")

    @property
    def dimension(self) -> int:
        return int(self.model.get_embedding_dimension())

    @property
    def window(self) -> int:
        return int(self.model.max_seq_length or 512)

    def encode(self, texts: Sequence[str], *, query: bool) -> Vectors:
        if query:
            found = self.model.encode_query(list(texts), show_progress_bar=False)
        else:
            prompt = passage_prompt(self.model.prompts)
            found = self.model.encode_document(
                list(texts), prompt=prompt, batch_size=max(len(texts), 1), show_progress_bar=False
            )
        vectors: Vectors = np.asarray(found, dtype=np.float32)
        return vectors

    def tokenizer(self) -> Any:
        """The fast tokenizer inside, for a model that keeps none in a file; None where there is none."""
        return getattr(self.model.tokenizer, "backend_tokenizer", None)


def _loaded(
    folder: Path, given: str, *, device: str | None, threads: int | None, attention: str | None
) -> SentenceTransformer:
    no_telemetry()
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    if threads is not None:
        torch.set_num_threads(threads)
    logging.disable_progress_bar()
    try:
        options = {"attn_implementation": attention} if attention else {}
        return SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=options)
    except Exception as error:  # a model's files fail in as many ways as there are architectures
        raise unavailable(given, error) from error
