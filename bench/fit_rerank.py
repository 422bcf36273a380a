"""Fits the weights of `rag.rerank.LightReranker` on one half of questions with known answers, and reports the other.

    ATTEST_EVAL_DATA=… python bench/fit_rerank.py --cache /tmp/fit

For each language: the questions of its datasets are halved by a hash of their ids. On one half the weights are fitted
(softmax over the 30 best candidates of each question, none below zero); on the other, fused scores alone, the weights
of rag/rerank.py and those just fitted are compared, with intervals of paired bootstrap resamples.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.split import split
from quality import intervals, metrics
from quality.formats import read_folder
from quality.models import Dataset
from rag.embedder import SentenceTransformerEmbedder
from rag.fusion import Group, arm_weight, fuse, nearness
from rag.keywords import keywords
from rag.models import Piece
from rag.ports import Candidate, TermEntry, Vectors
from rag.rerank import FEATURES, WEIGHTS, LightReranker, features
from rag.terms import TantivyIndex

DATASETS = {
    "en": ("squad_en", "xquad_en"),
    "zh": ("cmrc_zh", "xquad_zh", "drcd_zh_hant", "drcd_zh_hant-simplified"),
}
# What an embedder reads of Chinese, as the probe finds it for all-MiniLM-L6-v2 on these sets (rag/probe.py).
UNDERSTOOD = {"en": 1.0, "zh": 0.43}
# In English the share of words in the whole passage adds nothing to that of its best sentence; in Chinese, where a
# sentence's terms are pairs of characters, the others add nothing to it.
FITTED = {"en": ("fused", "near", "sentence", "pair", "phrase"), "zh": ("fused", "near", "words")}
CANDIDATES = 60
PENALTY = 0.03

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """A question's best candidates: features (candidates, FEATURES) and, of each gold document, its candidates."""

    dataset: str
    id: str
    rows: Rows
    gold: tuple[frozenset[int], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    parser.add_argument("--cache", type=Path, required=True, help="folder for vectors, which take longest")
    parser.add_argument("--limit", type=int, default=500, help="questions of each dataset (500)")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    embedder = _Cached(arguments.cache)
    for language, names in DATASETS.items():
        folders = dict.fromkeys(name.removesuffix("-simplified") for name in names)
        sets = [one for name in folders for one in read_folder(arguments.data / name) if one.name in names]
        asked = [item for one in sets for item in _asked(one, embedder, language, arguments.limit)]
        fitted = _fit([item for item in asked if _half(item.id) == 0], FITTED[language])
        sys.stdout.write(f"\n{language}: {', '.join(f'{n} {w:.2f}' for n, w in zip(FEATURES, fitted, strict=True))}\n")
        _report([item for item in asked if _half(item.id) == 1], np.array(WEIGHTS[language]), fitted)


def _half(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


# ── candidates as `rag.retrieve` has them ─────────────────────────────────────────────────────


class _Cached:
    """The default embedder, and vectors of passages kept in a folder, 16 bits for a number as in the catalog."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.inner = SentenceTransformerEmbedder()
        self._folder = folder

    def passages(self, name: str, texts: Sequence[str]) -> Vectors:
        made_of = hashlib.sha256("\0".join([self.inner.identity, *texts]).encode()).hexdigest()[:16]
        file = self._folder / f"{name}-{made_of}.npy"
        if not file.is_file():
            np.save(file, self.inner.embed_passages(texts).astype(np.float16))
        vectors: Vectors = np.load(file).astype(np.float32)
        return vectors


def _asked(dataset: Dataset, embedder: _Cached, language: str, limit: int) -> Iterable[Asked]:
    owners, pieces = _pieces(dataset, embedder.inner)
    matrix = embedder.passages(dataset.name, [piece.embedded_text for piece in pieces])
    search = TantivyIndex(path=Path("unused")).occasion(
        TermEntry(key, piece.heading, piece.text) for key, piece in enumerate(pieces)
    )
    questions = [item for item in dataset.questions if item.answerable and item.gold][:limit]
    vectors = embedder.passages(f"{dataset.name}-questions", [item.text for item in questions])
    took = 0.0
    for question, vector in zip(questions, vectors, strict=True):
        cosines = matrix @ vector
        terms = dict(search.search(question.text, k=CANDIDATES))
        keys = {int(key) for key in np.argsort(-cosines)[:CANDIDATES]} | terms.keys()
        weight = arm_weight(min(embedder.inner.coverage(question.text), UNDERSTOOD[language]))
        groups = [Group(weight, {key: float(cosines[key]) for key in keys}, terms)]
        scores, near = fuse(groups), nearness(groups)
        best = sorted(scores, key=lambda key: (-scores[key], key))[: LightReranker.depth]
        wanted = keywords(question.text, search.rarity)
        candidates = [Candidate(pieces[key].heading, pieces[key].text, scores[key], near[key]) for key in best]
        began = time.thread_time()
        rows = np.array(features(question.text, wanted, candidates))
        took += time.thread_time() - began
        gold = tuple(
            frozenset(at for at, key in enumerate(best) if owners[key] == one.document) for one in question.gold
        )
        yield Asked(dataset.name, question.id, rows, gold)
    sys.stderr.write(f"{dataset.name}: {1000 * took / len(questions):.1f} ms of features for each question\n")


def _pieces(dataset: Dataset, embedder: SentenceTransformerEmbedder) -> tuple[list[str], list[Piece]]:
    owners: list[str] = []
    pieces: list[Piece] = []
    for document in dataset.documents or ():
        parsed = registry.read(
            document.text.encode(), name=f"{document.id}.txt", media_type="text/plain", options=ReadOptions(ocr=False)
        )
        found = split(
            parsed,
            title=document.title,
            count_tokens=embedder.count_tokens,
            window=embedder.window,
            target_tokens=200,
        )
        owners += [document.id] * len(found)
        pieces += found
    return owners, pieces


# ── weights ───────────────────────────────────────────────────────────────────────────────────


def _fit(asked: Sequence[Asked], names: Sequence[str]) -> Rows:
    """Weights of all FEATURES that sum to 1, those not named 0."""
    used = [FEATURES.index(name) for name in names]
    questions = [
        (item.rows[:, used], np.array([any(at in one for one in item.gold) for at in range(len(item.rows))], float))
        for item in asked
        if any(item.gold)
    ]
    spread = np.concatenate([rows for rows, _ in questions]).std(axis=0) + 1e-9
    longest = max(len(rows) for rows, _ in questions)
    rows_ = np.zeros((len(questions), longest, len(used)))
    right = np.zeros((len(questions), longest))
    there = np.zeros((len(questions), longest), bool)
    for at, (rows, is_gold) in enumerate(questions):
        rows_[at, : len(rows)] = rows / spread
        right[at, : len(rows)] = is_gold / is_gold.sum()
        there[at, : len(rows)] = True
    weights = np.ones(len(used))
    for _ in range(3_000):
        scores = np.where(there, rows_ @ weights, -np.inf)
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        slope = np.einsum("ij,ijk->k", chances - right, rows_) / len(questions) + 2 * PENALTY * weights
        weights = np.maximum(weights - 0.3 * slope, 0.0)
    found = np.zeros(len(FEATURES))
    found[used] = weights / spread
    result: Rows = found / found.sum()
    return result


def _report(asked: Sequence[Asked], present: Rows, fitted: Rows) -> None:
    fused_alone = np.eye(len(FEATURES))[FEATURES.index("fused")]
    # Until there was a reranker, a quarter of the share of words was mixed into the fused score.
    mixed = 0.75 * fused_alone + 0.25 * np.eye(len(FEATURES))[FEATURES.index("words")]
    for name in dict.fromkeys(item.dataset for item in asked):
        own = [item for item in asked if item.dataset == name]
        before = [_measures(item, mixed) for item in own]
        for label, weights in (("fused", fused_alone), ("mixed", mixed), ("present", present), ("fitted", fitted)):
            after = [_measures(item, weights) for item in own]
            cells = []
            for at, measure in enumerate(("hit@1", "hit@5", "ndcg@10")):
                change = intervals.of_differences([one[at] for one in before], [one[at] for one in after])
                assert change is not None
                cells.append(
                    f"{measure} {np.mean([one[at] for one in after]):.3f}"
                    f" ({change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}])"
                )
            sys.stdout.write(f"{name:24} n={len(own)} {label:8} {'  '.join(cells)}\n")


def _measures(item: Asked, weights: Rows) -> tuple[float, float, float]:
    order = np.argsort(-(item.rows @ weights), kind="stable")
    place = {int(at): rank for rank, at in enumerate(order, 1)}
    ranks = [min((place[at] for at in one), default=None) for one in item.gold]
    return metrics.hit_at(ranks, 1), metrics.hit_at(ranks, 5), metrics.ndcg(ranks, 10)


if __name__ == "__main__":
    main()
