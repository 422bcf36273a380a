"""Shows what listing near-duplicates as one is worth, at several thresholds.

`rag.text.duplicates.NEAR` was chosen by it.

    ATTEST_EVAL_DATA=… python bench/fit_duplicates.py --cache /tmp/bases

The questions of each dataset are halved by a hash of their ids: the threshold is chosen on the even half. For each
threshold: the share of the ten best passages that nearly repeat a better one (exact Jaccard similarity of shingles of
.8 or more, whatever their numbers), how many were listed with another, and the measures of retrieval, where a gold
document that is listed with another counts as found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.eval_bases import DatasetBases
from quality import metrics
from quality.formats import read_folder
from quality.models import Question
from rag import answer as answering
from rag.models import Hit
from rag.settings import Settings
from rag.text import duplicates

DATASETS = (
    "squad_en",
    "xquad_en",
    "musique_en",
    "multihoprag_en",
    "cmrc_zh",
    "xquad_zh",
    "drcd_zh_hant",
    "crud_zh_news",
)
THRESHOLDS = (2.0, 0.9, 0.8, 0.7, 0.6)  # the first lists nothing
REPEATS = 0.8
FOUND = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    parser.add_argument("--cache", type=Path, required=True, help="knowledge bases, made where they are missing")
    parser.add_argument("--limit", type=int, default=400, help="questions of each dataset (400)")
    parser.add_argument("names", nargs="*", default=DATASETS)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    bases = DatasetBases(arguments.cache, Settings(_env_file=None))  # type: ignore[call-arg]
    for name in arguments.names:
        (dataset,) = (one for one in read_folder(arguments.data / name) if one.name == name)
        asked = [one for one in dataset.questions if one.answerable and one.gold][: arguments.limit]
        with bases.open(dataset) as subject:
            duplicates.NEAR = THRESHOLDS[0]
            found = [(one, subject.assistant.search(answering.Question(one.text, top_k=FOUND)).hits) for one in asked]
        for half in (0, 1):
            _report(name, half, [item for item in found if _half(item[0].id) == half])


def _half(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


def _report(name: str, half: int, found: Sequence[tuple[Question, Sequence[Hit]]]) -> None:
    for threshold in THRESHOLDS:
        duplicates.NEAR = threshold
        rows = []
        for question, hits in found:
            collapsed = duplicates.collapse(hits, k=30)
            ranks = [_rank(gold.document, collapsed) for gold in question.gold]
            best = [min((rank for rank in ranks if rank), default=None)] if question.any_gold else ranks
            top = collapsed[:10]
            listed = sum(len(hit.also) for hit in top)
            rows.append(
                (_repeated(top) / max(1, len(top)), listed, metrics.hit_at(ranks, 1), metrics.hit_at(ranks, 5),
                 metrics.hit_at(ranks, 10), metrics.ndcg(best, 10), metrics.all_at(best, 10))
            )  # fmt: skip
        mean = np.mean(np.array(rows, dtype=float), axis=0)
        what = ("repeated", "listed", "hit@1", "hit@5", "hit@10", "ndcg@10", "all@10")
        told = "  ".join(f"{label} {value:.4f}" for label, value in zip(what, mean, strict=True))
        sys.stdout.write(f"{name} {'odd' if half else 'even'} n={len(rows)} near={threshold}: {told}\n")
        sys.stdout.flush()


def _rank(document: str, hits: Sequence[Hit]) -> int | None:
    named = ({hit.uri, *(also.uri for also in hit.also)} for hit in hits)
    return next((rank for rank, names in enumerate(named, 1) if document in names), None)


def _repeated(hits: Sequence[Hit]) -> int:
    """How many nearly repeat a better one."""
    sets = [set(duplicates.shingles(hit.text)) for hit in hits]
    return sum(
        any(len(one & other) >= REPEATS * len(one | other) for other in sets[:at]) for at, one in enumerate(sets)
    )


if __name__ == "__main__":
    main()
