"""Whether a runtime makes of texts what sentence-transformers makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from rag.embedding.runtimes import export
from rag.embedding.runtimes.exported import Exported
from rag.ports import Vectors

# Cosines with what sentence-transformers makes of the same texts. fp32 measured 1.0000, bf16 .9999 and more.
_LEAST_COSINE: Final = 0.999
_LEAST_AGREEMENT: Final = 0.9  # of the five nearest
_FEW: Final = (0, 10)  # probes: one English and one Chinese, both short


def disagreement(runtime: Exported, folder: Path) -> str:
    """How its vectors differ from the library's own, where that is too much. Every text that there is to compare."""
    expected = np.load(folder / export.EXPECTED)
    for asked in (False, True):
        theirs = unit(expected["questions" if asked else "passages"])
        ours = _vectors(runtime, range(len(export.PROBES)), asked=asked)
        if problem := _too_far(ours, theirs):
            return problem
        nearest = [np.argsort(-(side @ side.T), axis=1, kind="stable")[:, :5] for side in (theirs, ours)]
        same = np.mean([len({*one} & {*other}) / 5 for one, other in zip(*nearest, strict=True)])
        if same < _LEAST_AGREEMENT:
            return f"{same:.2f} of the five nearest are the same"
    return ""


def quick_disagreement(runtime: Exported, folder: Path) -> str:
    """The same of two short texts: for a runtime that agreed before, on this very machine."""
    expected = np.load(folder / export.EXPECTED)["passages"]
    return _too_far(_vectors(runtime, _FEW, asked=False), unit(expected[list(_FEW)]))


def _vectors(runtime: Exported, probes: range | tuple[int, ...], *, asked: bool) -> Vectors:
    # One by one: OpenVINO keeps room for the largest batch that it ever saw.
    return unit(np.concatenate([runtime.encode([export.PROBES[probe]], query=asked) for probe in probes]))


def _too_far(ours: Vectors, theirs: Vectors) -> str:
    worst = float((ours * theirs).sum(axis=1).min())
    return f"cosine {worst:.4f}" if not worst >= _LEAST_COSINE else ""  # not a number is too far as well


def unit(vectors: Vectors) -> Vectors:
    """Each row with length 1, in float32."""
    single = np.asarray(vectors, dtype=np.float32)
    scaled: Vectors = single / np.maximum(np.linalg.norm(single, axis=1, keepdims=True), 1e-12)
    return scaled
