"""Embedders that can be loaded by name, and one that is no good."""

from __future__ import annotations

import numpy as np

from rag.errors import Unavailable
from rag.ports import Embedder, Vectors
from tests.fakes import HashEmbedder


class Shelf:
    """What can be loaded, by spec; counts how often it was."""

    def __init__(self, *embedders: HashEmbedder) -> None:
        self.embedders: dict[str, Embedder] = {embedder.spec: embedder for embedder in embedders}
        self.loaded: list[str] = []

    def load(self, spec: str) -> Embedder:
        self.loaded.append(spec)
        if spec not in self.embedders:
            raise Unavailable(f"There is no embedder in {spec}.")
        return self.embedders[spec]


class Blind(HashEmbedder):
    """Knows every token, and everything looks the same to it."""

    def __init__(self) -> None:
        super().__init__(name="blind", dimension=8)

    def _vector(self, text: str) -> Vectors:
        vector = np.zeros(self.dimension, dtype=np.float32)
        vector[0] = 1.0
        return vector
