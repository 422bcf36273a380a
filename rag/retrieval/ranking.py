"""How the passages of one index are weighed: as fitted on its owner's questions, or by the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag.ports import Reranker
from rag.rerank.light import FEATURES, LightReranker
from rag.retrieval.fusion import DENSE_WEIGHT


@dataclass(frozen=True, slots=True)
class Weighing:
    """`share`: the vectors' share of a fused score where the embedder reads all of the question, above 0 to 1.
    `weights`: of `rag.rerank.light.FEATURES`; None, as the reranker has them."""

    share: float = DENSE_WEIGHT
    weights: tuple[float, ...] | None = None


DEFAULT = Weighing()


def weighing_of(ranking: Mapping[str, Any] | None, language: str) -> Weighing:
    """What is kept with an index (`indexes.ranking`) for questions in this language. Weights of other features than
    there are today say nothing: then the defaults hold."""
    fitted = (ranking or {}).get("languages", {}).get(language)
    if fitted is None or not fitted["kept"]:
        return DEFAULT
    weights = fitted["weights"]
    if weights is None:
        return Weighing(fitted["share"])
    if weights.keys() != set(FEATURES):
        return DEFAULT
    return Weighing(fitted["share"], tuple(weights[name] for name in FEATURES))


def with_weights(reranker: Reranker, how: Weighing, language: str) -> Reranker:
    """The reranker with these weights for questions in this language, where it is one that has weights."""
    if how.weights is None or not isinstance(reranker, LightReranker):
        return reranker
    return LightReranker({language: how.weights})
