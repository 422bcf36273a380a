"""The door to sentence-transformers' cross-encoders: question and passage are read together by a model."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import InvalidInput, Unavailable
from rag.ports import Candidate, Reranked
from rag.text.keywords import Keyword
from rag.text.language import canonical

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

_REMEDY = (
    "Set ATTEST_RERANKER to `light`, to `none`, to a cross-encoder's folder, or to its name on the Hugging Face hub "
    "(which needs the network the first time)."
)
_BATCH = 16  # pairs at once
_MOST_TOKENS = 512  # of question and passage together; longer pairs lose the passage's end


class CrossEncoderReranker:
    """A Reranker from a folder or a name on the Hugging Face hub. Its score alone decides, and is shown as `rerank`.

    A path without a model raises InvalidInput at once; the model is loaded when the first question needs it, and
    raises Unavailable where that fails. On a CPU a small one costs about a second for each question.
    """

    depth = 30

    def __init__(self, name_or_path: str, *, device: str | None = None) -> None:
        folder = Path(name_or_path).expanduser()
        is_path = folder.is_dir() or name_or_path.startswith(("/", ".", "~")) or name_or_path.count("/") > 1
        if is_path and not (folder / "config.json").is_file():
            raise InvalidInput(f"ATTEST_RERANKER: there is no cross-encoder in {name_or_path}.", remedy=_REMEDY)
        self.name = folder.resolve().name if is_path else name_or_path
        self._given = str(folder) if is_path else name_or_path
        self._is_path = is_path
        self._device = device
        self._turn = threading.Lock()  # the model's tokenizer is not thread-safe

    def rerank(
        self,
        question: str,
        wanted: Sequence[Keyword],  # noqa: ARG002  # the port's
        candidates: Sequence[Candidate],
    ) -> list[Reranked]:
        if not candidates:
            return []
        pairs = [
            (canonical(question), canonical(f"{item.heading}\n{item.text}" if item.heading else item.text))
            for item in candidates
        ]
        with self._turn:
            scores = self._model.predict(pairs, batch_size=_BATCH, show_progress_bar=False)
        return [Reranked(float(score), {"rerank": float(score)}) for score in scores]

    @cached_property
    def _model(self) -> CrossEncoder:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
        os.environ.setdefault("DO_NOT_TRACK", "1")
        from sentence_transformers import CrossEncoder
        from torch import nn
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            # Some say in their configuration that their scores are bare logits; ours go from 0 to 1.
            model = CrossEncoder(
                self._given, device=self._device, local_files_only=self._is_path, activation_fn=nn.Sigmoid()
            )
            outputs = int(model.num_labels)
        except Exception as error:  # a model's files fail in as many ways as there are architectures
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise Unavailable(
                f"The reranker {self.name} (ATTEST_RERANKER) could not be loaded: {reason[:300]}.", remedy=_REMEDY
            ) from error
        if outputs != 1:
            raise Unavailable(
                f"The reranker {self.name} (ATTEST_RERANKER) gives {outputs} scores for a passage instead of one.",
                remedy=_REMEDY,
            )
        model.max_seq_length = min(int(model.max_seq_length or _MOST_TOKENS), _MOST_TOKENS)
        return model
