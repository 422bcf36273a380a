"""What each step of ranking is worth: terms alone, vectors alone, both fused, the best judged once more.

    ATTEST_EVAL_DATA=… python bench/ranking.py --cache /tmp/ranking
    ATTEST_EVAL_DATA=… python bench/ranking.py --cache /tmp/ranking --losses 10

Every dataset is asked of its own documents, of these and all in the other language, and pooled, of those of all. A
paragraph that stands in several sets is one document in the pool (`pool_aliases.json`), and what says the same in
another language counts as gold there. Ranks are those of passages. Intervals are of 2,000 paired resamples of the
questions: of `reranked` against the better arm, and of pooled against separate. `--half odd` keeps to the questions
that nothing was fitted on.

Offline: the same look-ups as in `rag.retrieval.retrieve`, with exact vectors and the terms in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.split import split
from quality import datasets, intervals, metrics
from quality.models import Dataset, Document, Question
from rag.embedding.embedder import SentenceTransformerEmbedder
from rag.models import Piece
from rag.ports import Candidate, TermEntry, TermSearch, Vectors
from rag.rerank.light import LightReranker
from rag.retrieval.fusion import Group, arm_weight, fuse, nearness
from rag.search.terms import TantivyIndex
from rag.text.keywords import Keyword, keywords
from rag.text.language import language_of

SETS = (
    "squad_en", "xquad_en", "hotpotqa_en", "musique_en", "multihoprag_en", "rgb/en_fact.jsonl",
    "cmrc_zh", "xquad_zh", "drcd_zh_hant", "crud_zh_news", "rgb/zh_fact.jsonl",
)  # fmt: skip
# What an embedder reads of each language, as rag/retrieval/probe.py finds it for all-MiniLM-L6-v2 on these sets.
UNDERSTOOD = {"en": 1.0, "zh": 0.43}
CANDIDATES = 60
MEASURES = ("hit@1", "hit@5", "hit@10", "mrr@10", "ndcg@10")
STEPS = ("terms", "vectors", "fused", "reranked")

Ranks = list[int | None]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Shelf:
    """Passages of some documents, ready to be looked up. Row for row: `owners`, `pieces`, `matrix` (passages,
    dimension)."""

    owners: list[str]
    pieces: list[Piece]
    matrix: Vectors
    search: TermSearch


@dataclass(frozen=True)
class Asked:
    """A question and what both arms found. `gold`: for each gold document, its passages; one entry for all of them
    where any will do."""

    dataset: str
    question: Question
    shelf: Shelf
    wanted: tuple[Keyword, ...]
    groups: tuple[Group, ...]
    terms: tuple[int, ...]  # best first
    vectors: tuple[int, ...]
    gold: tuple[frozenset[int], ...]


def main() -> None:
    arguments = _arguments()
    found = read_sets(arguments.data)
    found = [
        replace(one, questions=tuple(item for item in one.questions if is_asked(item, half=arguments.half)))
        for one in found
    ]
    library = Library(arguments.cache)
    aliases = datasets.read_aliases(arguments.data / "pool_aliases.json")
    pool = datasets.pooled(found, aliases)
    shelf = library.shelf(pool[0].documents or ())
    for alone, together in zip(found, pool, strict=True):
        others = [one for one in found if _language(one) != _language(alone)]
        beside = datasets.pooled([alone, *others], aliases)[0]
        asked = {
            "alone": library.asked(alone),
            "beside": library.asked(beside),
            "pooled": library.asked(together, shelf),
        }
        _report(alone.name, asked)
        for line in _losses(asked["alone"], asked["pooled"], most=arguments.losses):
            sys.stdout.write(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("ATTEST_EVAL_DATA"), help="ATTEST_EVAL_DATA")
    parser.add_argument("--cache", type=Path, required=True, help="folder for vectors, which take longest")
    parser.add_argument("--half", choices=("even", "odd", "all"), default="odd", help="questions, by their ids (odd)")
    parser.add_argument("--losses", type=int, default=0, help="so many questions that the pool answers worse")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data is: --data or ATTEST_EVAL_DATA")
    arguments.data = Path(arguments.data)
    return arguments


def read_sets(data: Path, names: Sequence[str] = SETS) -> list[Dataset]:
    """Those with questions that have an answer. RGB's edited passages would be rivals of the true ones."""
    found = [one for name in names for one in datasets.open_dataset(data / name)]
    asked = [one for one in found if any(item.answerable and item.gold for item in one.questions)]
    return [one for one in asked if not one.name.endswith(("-counterfactual", "-contradicted"))]


def _language(dataset: Dataset) -> str:
    return language_of(dataset.questions[0].text)


def is_asked(question: Question, *, half: str) -> bool:
    return question.answerable and bool(question.gold) and half in ("all", ("even", "odd")[half_of(question.id)])


def half_of(name: str) -> int:
    """0 for those that are fitted on, 1 for those that are reported."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2


# ── as `rag.retrieval.retrieve` looks up ────────────────────────────────────────────────────────────────


class Library:
    """Shelves by their documents. Vectors of the default embedder are kept in a folder, 16 bits for a number as in the
    catalog."""

    def __init__(self, folder: Path) -> None:
        self.embedder = SentenceTransformerEmbedder()
        self._folder = folder / hashlib.sha256(self.embedder.identity.encode()).hexdigest()[:16]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._split: dict[tuple[str, str], list[Piece]] = {}
        self._vectors: dict[str, NDArray[np.float16]] = {}  # by the SHA-256 of their text
        for file in self._folder.glob("*.npz"):
            kept = np.load(file)
            self._vectors.update(zip(kept["keys"].tolist(), kept["vectors"], strict=True))

    def shelf(self, documents: Sequence[Document]) -> Shelf:
        owners: list[str] = []
        pieces: list[Piece] = []
        for document in documents:
            found = self._pieces(document)
            owners += [document.id] * len(found)
            pieces += found
        entries = (TermEntry(key, piece.heading, piece.text) for key, piece in enumerate(pieces))
        search = TantivyIndex(path=Path("unused")).occasion(entries)
        return Shelf(owners, pieces, self._embedded([piece.embedded_text for piece in pieces]), search)

    def asked(self, dataset: Dataset, shelf: Shelf | None = None) -> list[Asked]:
        """Its questions that have an answer, asked of the shelf, or of one of its own documents."""
        shelf = shelf or self.shelf(dataset.documents or ())
        questions = [item for item in dataset.questions if item.answerable and item.gold]
        vectors = self._embedded([item.text for item in questions])
        return [self._ask(dataset.name, *pair, shelf) for pair in zip(questions, vectors, strict=True)]

    def _ask(self, name: str, question: Question, vector: Vectors, shelf: Shelf) -> Asked:
        cosines = shelf.matrix @ vector
        by_vector = [int(key) for key in np.argsort(-cosines, kind="stable")[:CANDIDATES]]
        terms = dict(shelf.search.search(question.text, k=CANDIDATES))
        keys = sorted({*by_vector, *terms})
        weight = arm_weight(min(self.embedder.coverage(question.text), UNDERSTOOD[language_of(question.text)]))
        group = Group(weight, {key: float(cosines[key]) for key in keys}, terms)
        wanted = keywords(question.text, shelf.search.rarity)
        gold = [
            frozenset(at for at, owner in enumerate(shelf.owners) if owner == one.document) for one in question.gold
        ]
        if question.any_gold:
            gold = [frozenset().union(*gold)]
        return Asked(name, question, shelf, wanted, (group,), tuple(terms), tuple(by_vector), tuple(gold))

    def _pieces(self, document: Document) -> list[Piece]:
        key = (document.title, document.text)
        if key not in self._split:
            options = ReadOptions(ocr=False)
            parsed = registry.read(document.text.encode(), name="a.txt", media_type="text/plain", options=options)
            self._split[key] = list(
                split(
                    parsed,
                    title=document.title,
                    count_tokens=self.embedder.count_tokens,
                    window=self.embedder.window,
                    target_tokens=200,
                )
            )
        return self._split[key]

    def _embedded(self, texts: Sequence[str]) -> Vectors:
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}
        if missing:
            made = self.embedder.embed_passages(list(missing.values())).astype(np.float16)
            np.savez(self._folder / f"{min(missing)[:16]}-{len(missing)}.npz", keys=list(missing), vectors=made)
            self._vectors.update(zip(missing, made, strict=True))
        return np.stack([self._vectors[key] for key in keys]).astype(np.float32)


def order(asked: Asked, step: str, reranker: LightReranker) -> list[int]:
    """Passages, best first, as one of STEPS ranks them."""
    if step in ("terms", "vectors"):
        return list(asked.terms if step == "terms" else asked.vectors)
    scores = fuse(asked.groups)
    fused = sorted(scores, key=lambda key: (-scores[key], key))
    if step == "fused":
        return fused
    best, rest = fused[: reranker.depth], fused[reranker.depth :]
    judged = reranker.rerank(asked.question.text, asked.wanted, candidates(asked, best))
    score = {key: one.score for key, one in zip(best, judged, strict=True)}
    return sorted(best, key=lambda key: (-score[key], key)) + rest


def candidates(asked: Asked, keys: Iterable[int]) -> list[Candidate]:
    scores, near = fuse(asked.groups), nearness(asked.groups)
    pieces = asked.shelf.pieces
    return [Candidate(pieces[key].heading, pieces[key].text, scores[key], near[key]) for key in keys]


# ── figures ───────────────────────────────────────────────────────────────────────────────────


def measured(asked: Asked, ranked: Sequence[int]) -> list[float]:
    """MEASURES of one question."""
    place = {key: rank for rank, key in enumerate(ranked, 1)}
    ranks: Ranks = [min((place[key] for key in one if key in place), default=None) for one in asked.gold]
    hits = [metrics.hit_at(ranks, k) for k in (1, 5, 10)]
    return [*hits, metrics.reciprocal_rank(ranks, 10), metrics.ndcg(ranks, 10)]


def measured_all(asked: Sequence[Asked], step: str, reranker: LightReranker) -> Values:
    """(questions, MEASURES)"""
    return np.array([measured(item, order(item, step, reranker)) for item in asked])


def change(before: Values, after: Values, at: int) -> str:
    figure = intervals.of_differences(before[:, at].tolist(), after[:, at].tolist())
    assert figure is not None
    return f"{figure.value:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def _report(name: str, places: Mapping[str, Sequence[Asked]]) -> None:
    reranker, last = LightReranker(), {}
    sys.stdout.write(f"\n{name}, n={len(places['alone'])}\n{'':18}{''.join(f'{one:>9}' for one in MEASURES)}\n")
    for where, asked in places.items():
        found = {step: measured_all(asked, step, reranker) for step in STEPS}
        for step, values in found.items():
            sys.stdout.write(f"{where:8}{step:10}{''.join(f'{one:9.3f}' for one in values.mean(axis=0))}\n")
        for at, measure in ((0, "hit@1"), (4, "ndcg@10")):
            better = max(("terms", "vectors"), key=lambda arm, at=at: found[arm][:, at].mean())  # type: ignore[misc]
            gain = change(found[better], found["reranked"], at)
            sys.stdout.write(f"{where:8}{measure} reranked over {better}: {gain}\n")
        last[where] = found["reranked"]
    for where in ("beside", "pooled"):
        for at in (0, 1):
            sys.stdout.write(f"{where} over alone, {MEASURES[at]}: {change(last['alone'], last[where], at)}\n")


def _losses(separate: Sequence[Asked], mixed: Sequence[Asked], *, most: int) -> Iterable[str]:
    """Questions whose first passage is right alone and wrong in the pool: what came before it there."""
    reranker = LightReranker()
    lost = 0
    for alone, pooled in zip(separate, mixed, strict=True):
        ranked = order(pooled, "reranked", reranker)
        if lost >= most or not measured(alone, order(alone, "reranked", reranker))[0] or measured(pooled, ranked)[0]:
            continue
        lost += 1
        gold = next((key for key in ranked if any(key in one for one in pooled.gold)), None)
        yield f"  {pooled.question.text}\n"
        for key in (ranked[0], gold):
            if key is not None:
                group = pooled.groups[0]
                arms = f"{group.vectors[key]:.2f} {group.terms.get(key, 0.0):.1f}"
                text = pooled.shelf.pieces[key].text[:90].replace("\n", " ")
                yield f"    {ranked.index(key) + 1:3} {arms} {pooled.shelf.owners[key]}: {text}\n"


if __name__ == "__main__":
    main()
