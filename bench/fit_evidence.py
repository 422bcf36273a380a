"""Fits the constants of `rag/answering/evidence.py`, and says what they are worth on other questions.

    ATTEST_EVAL_DATA=… .venv/bin/python bench/fit_evidence.py
    ATTEST_EVAL_DATA=… .venv/bin/python bench/fit_evidence.py --report   # of the constants as they are

Each dataset is asked of all its documents, and of what is left when two fifths of them are held out. Where a question
has a code, a year or a name that its passage has, it is asked with another one in its place as well, which stands
elsewhere in the collection ("swapped") or nowhere ("unheard"): the passages are near, and none answers. And each is
judged once more without the passages that hold its answer ("taken_out"): what is left is about the same things. Even
questions (by a hash of their ids, which their variants share) fit, odd ones report. Questions of several parts only
report.

What is printed goes into `rag/answering/evidence.py`. Indexes and vectors are kept in
`--cache`, which may be a copy of that of `attest eval`. Needs scipy, which sentence-transformers brings along.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.eval_bases import COLLECTION, DatasetBases
from quality.datasets import hold_out, open_dataset, sample
from quality.metrics import auroc
from quality.models import Dataset, Question
from rag import answer
from rag.answering import evidence
from rag.embedding.embedder import SentenceTransformerEmbedder
from rag.retrieval.retrieve import Found
from rag.settings import Settings

SETS = (
    "squad_en", "xquad_en", "rgb/en_fact.jsonl", "cmrc_zh", "xquad_zh", "drcd_zh_hant", "rgb/zh_fact.jsonl",
    "multihoprag_en", "musique_en",
)  # fmt: skip
SEVERAL_PARTS = ("multihoprag_en", "musique_en")
HELD_OUT = 0.4
FALSE_REFUSALS = 0.05  # on the half that fits: the threshold is put there
# The public sets name things as their documents do, so a name that is not there tells little beyond the words. In a
# collection of one's own a code or a name that is not there is the question (docs/decisions/0003): at least so much.
LEAST_LACKING = -3.0
LEAST_LEFT = 5
TOP_K = 14  # so that enough is left where the passages that answer are taken out
# Of RGB's passages that are said not to answer, those of these questions do, in words that are not the gold ones (7 for
# 7.0, a surname for a name, a date without its year): read one by one, November 2026, in the passages that were found.
TOLD_ALL_THE_SAME = {
    "en": (0, 7, 12, 23, 24, 31, 32, 43, 44, 48, 52, 55, 58, 62, 72, 75, 76, 78, 87, 88, 89, 91),
    "zh": (4, 9, 14, 29, 31, 72, 74, 79, 82, 89, 90),
}
RIDGE = 0.1
# What stands nowhere in the sets: for a question's own code or name, one that nobody has heard of.
UNHEARD = {
    "A": ("Zanthorpe", "Quillonby", "Brakkenfeld", "Marostica", "Yverdale", "Tolquist", "Ormskirken", "Pellworm"),
    "汉": ("邛崃", "铁力", "枞阳", "盱眙", "郏县", "浚县", "泗洪", "栾川", "宕昌", "丰镇"),
    "9": ("1203", "1387", "2091", "1148", "2077", "37415", "86219", "613", "947", "581"),
    "x9": ("QX-8841", "TZ-5520", "V19.7", "PR-938", "KM-3107"),
}
NAMES = [item.name for item in fields(evidence.Features)]


@dataclass(frozen=True)
class Asked:
    """A question, what it found, and whether that can answer it. `kind`: why not, or "" if it can."""

    dataset: str
    question: Question
    found: Found
    features: NDArray[np.float64]  # one row for each passage and reading

    @property
    def kind(self) -> str:
        kind = "" if self.question.answerable else self.question.kind or "unanswerable"
        told = {f"rgb-{name}_fact:{number}" for name, numbers in TOLD_ALL_THE_SAME.items() for number in numbers}
        return "told_all_the_same" if kind == "negative_rejection" and self.question.id in told else kind

    @property
    def language(self) -> str:
        return self.question.language[:2]

    @property
    def near(self) -> bool:
        """Whether its passages are about what was asked, and only do not tell."""
        return self.kind not in ("", "held_out", "out_of_corpus") or self.dataset.startswith("rgb")

    @property
    def counts(self) -> bool:
        """Whether it says what an answer needs: its passages do, or do not, tell as they are said to."""
        return self.kind != "told_all_the_same"

    @property
    def fits(self) -> bool:
        even = int(hashlib.sha256(self.question.id.encode()).hexdigest(), 16) % 2 == 0
        return even and self.dataset not in SEVERAL_PARTS


class Remembered:
    """An embedder that keeps the vectors of every text in a file."""

    def __init__(self, embedder: SentenceTransformerEmbedder, file: Path) -> None:
        self._embedder, self._file = embedder, file
        self._known: dict[str, NDArray[np.float32]] = {}
        if file.is_file():
            self._known = pickle.loads(file.read_bytes())  # noqa: S301  # written by ourselves

    def __getattr__(self, name: str) -> object:
        return getattr(self._embedder, name)

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> NDArray[np.float32]:
        names = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {name: text for name, text in zip(names, texts, strict=True) if name not in self._known}
        if missing:
            vectors = self._embedder.embed_passages(list(missing.values()), urgent=urgent)
            self._known |= dict(zip(missing, vectors, strict=True))
        return np.stack([self._known[name] for name in names]) if names else self._embedder.embed_passages([])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.embed_passages([text], urgent=True)[0]
        return vector

    def save(self) -> None:
        self._file.write_bytes(pickle.dumps(self._known))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# ── asking ────────────────────────────────────────────────────────────────────────────────────


def collect(data: Path, cache: Path, sets: Sequence[str], limit: int) -> list[Asked]:
    cache.mkdir(parents=True, exist_ok=True)
    embedder = Remembered(SentenceTransformerEmbedder("default"), cache / "vectors.pkl")
    bases = DatasetBases(cache, Settings(_env_file=None), embedder=embedder)  # type: ignore[call-arg, arg-type]
    found: list[Asked] = []
    for name in sets:
        for whole in open_dataset(data / name):
            if whole.name.endswith(("-counterfactual", "-contradicted")):
                continue  # their passages answer, wrongly
            found += _asked(bases, whole, limit)
            if not name.startswith("rgb"):
                held = hold_out(whole, HELD_OUT, seed=1)
                found += ask(bases, _without_answer(held, limit // 2), held)
            embedder.save()
            say(f"{whole.name}: {len(found)} questions so far")
    return found


def _asked(bases: DatasetBases, whole: Dataset, limit: int) -> list[Asked]:
    there = list(ask(bases, sample(whole, limit, seed=1).questions, whole))
    if not whole.name.startswith("rgb"):
        for kind in ("swapped", "unheard"):
            other = replace(whole, questions=tuple(_exchanged(there, whole, kind)))
            there += ask(bases, sample(other, limit // 3, seed=1).questions, whole)
    return there


def _without_answer(held: Dataset, limit: int) -> Sequence[Question]:
    none = tuple(question for question in held.questions if question.kind == "held_out")
    return sample(replace(held, questions=none), limit, seed=1).questions


def ask(bases: DatasetBases, questions: Sequence[Question], dataset: Dataset) -> Iterator[Asked]:
    with bases.open(dataset) as subject:
        for question in questions:
            found = subject.assistant.search(answer.Question(question.text, (COLLECTION,), top_k=TOP_K))
            yield _judged(dataset, question, found)
            left = tuple(hit for hit in found.hits if not _holds_answer(hit.text, question))
            told_otherwise = dataset.name.startswith("rgb")  # TOLD_ALL_THE_SAME
            if question.answerable and question.answers and len(left) >= LEAST_LEFT and not told_otherwise:
                taken = replace(question, answerable=False, kind="taken_out")
                yield _judged(dataset, taken, replace(found, hits=left))


def _judged(dataset: Dataset, question: Question, found: Found) -> Asked:
    rows = [astuple(item) for item in evidence.features(found)] or [(0.0,) * len(NAMES)]
    return Asked(dataset.name, question, found, np.array(rows))


def _holds_answer(text: str, question: Question) -> bool:
    folded = text.lower()
    return any(len(words) > 1 and words.lower() in folded for words in question.answers)


def _exchanged(asked: Sequence[Asked], dataset: Dataset, kind: str) -> Iterator[Question]:
    """Questions with another code, year or name in the place of their own, of the same form."""
    everything = "\n".join(document.text for document in dataset.documents or ())
    anchors = [(one, _anchors(one)) for one in asked if not one.kind]
    every = sorted({text for _, texts in anchors for text in texts})
    for number, (one, texts) in enumerate(anchors):
        near = "\n".join(hit.text for hit in one.found.hits)
        for own in [text for text in texts if text in near][:1]:
            if kind == "unheard":
                others = [text for text in UNHEARD[_form(own)] if text not in everything]
            else:
                others = [text for text in every if _form(text) == _form(own) and text not in near]
            if others:
                text = one.question.text.replace(own, others[7919 * number % len(others)])
                yield replace(one.question, text=text, answerable=False, kind=kind, gold=(), answers=())


def _anchors(one: Asked) -> list[str]:
    return [word.text for word in one.found.keywords if word.anchor and word.text in one.question.text]


def _form(text: str) -> str:
    if text.isdigit():
        return "9"
    return "x9" if any(map(str.isdigit, text)) else "A" if text.isascii() else "汉"


# ── fitting ───────────────────────────────────────────────────────────────────────────────────


def fit(asked: Sequence[Asked], quantile: float) -> NDArray[np.float64]:
    """The bias and the weights, none of the wrong sign. The bias puts the threshold where that share is refused."""
    weights = held(asked[0].language)
    right = np.array([not one.kind for one in asked], dtype=np.float64)
    counts = np.array([_counts(one) for one in asked])
    for side in (0.0, 1.0):  # as if half of the questions had an answer
        counts[right == side] *= len(asked) / 2 / counts[right == side].sum()
    bounds = [(None, None), *((None, 0.0) if name in ("lacking", "unheard") else (0.0, None) for name in NAMES)]
    bounds[1 + NAMES.index("lacking")] = (None, LEAST_LACKING)
    bare = 1 + NAMES.index("bare")
    bounds[bare] = (weights[bare], weights[bare])  # these sets have hardly a code: it stays as the code has it
    for _ in range(10):  # the best passage by the weights so far, then the weights anew
        best = [one.features[np.argmax(one.features @ weights[1:])] for one in asked]
        matrix = np.column_stack([np.ones(len(asked)), np.array(best)])

        def loss(w: NDArray[np.float64], matrix: NDArray[np.float64] = matrix) -> tuple[float, NDArray[np.float64]]:
            logits = matrix @ w
            ridge = np.concatenate([[0.0], w[1:]]) * RIDGE
            wrong = counts * (1 / (1 + np.exp(-logits)) - right)
            value = (counts * (np.logaddexp(0, logits) - right * logits)).sum() + ridge @ w / 2
            return float(value), matrix.T @ wrong + ridge

        weights = minimize(loss, weights, jac=True, bounds=bounds, method="L-BFGS-B").x
    answerable = [one for one in asked if not one.kind and not one.near]
    at = np.quantile(logits_of(answerable, weights), quantile)
    weights[0] += math.log(evidence.ENOUGH / (1 - evidence.ENOUGH)) - at
    return weights


def _counts(one: Asked) -> float:
    """Traps count less: where nothing but a model could tell, words must not be bent to it."""
    if one.kind in ("adversarial_paragraph", "taken_out"):
        return 0.3
    return 0.5 if one.kind and one.near else 1.0


def held(language: str) -> NDArray[np.float64]:
    """What the code has."""
    weights = evidence.CHINESE if language == "zh" else evidence.ENGLISH
    return np.array([weights.bias, *(getattr(weights, name) for name in NAMES)])


def logits_of(asked: Sequence[Asked], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([weights[0] + (one.features @ weights[1:]).max() for one in asked])


# ── reporting ─────────────────────────────────────────────────────────────────────────────────


def report(asked: Sequence[Asked], weights: NDArray[np.float64]) -> None:
    scores = 1 / (1 + np.exp(-logits_of(asked, weights)))
    say("| dataset | questions | n | refused at the threshold |\n| --- | --- | --- | --- |")
    for dataset, kind in dict.fromkeys((one.dataset, one.kind) for one in asked):
        own = scores[[one.dataset == dataset and one.kind == kind for one in asked]]
        say(f"| {dataset} | {kind or 'answerable'} | {len(own)} | {np.mean(own < evidence.ENOUGH):.0%} |")
    right = np.array([not one.kind for one in asked])
    near = np.array([one.near for one in asked])
    say(f"\nAUROC, questions about something else: {auroc(scores[right & ~near], scores[~right & ~near]):.3f}")
    say(f"AUROC, all: {auroc(scores[right], scores[~right]):.3f}")
    say("\n| evidence | questions | of which have an answer |\n| --- | --- | --- |")
    for low, high in pairwise((0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)):
        inside = (scores >= low) & ((scores < high) | (high == 1.0))
        if inside.any():
            say(f"| {low:.2f} … {high:.2f} | {inside.sum()} | {right[inside].mean():.0%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(gettempdir()) / "attest-fit-evidence")
    parser.add_argument("--limit", type=int, default=260, help="questions of each dataset")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--report", action="store_true", help="fit nothing")
    given = parser.parse_args()
    asked = collect(Path(os.environ["ATTEST_EVAL_DATA"]), given.cache, given.sets, given.limit)
    for language in ("en", "zh"):
        own = [one for one in asked if one.language == language]
        if not own:
            continue
        weights = held(language)
        fitting, reported = [one for one in own if one.fits and one.counts], [one for one in own if not one.fits]
        if not given.report:
            weights = np.round(fit(fitting, FALSE_REFUSALS), 2)
        told = ", ".join(f"{name}={value:.2f}" for name, value in zip(["bias", *NAMES], weights, strict=True))
        say(f"\n{'CHINESE' if language == 'zh' else 'ENGLISH'} = Weights({told})\n")
        report(reported, weights)


if __name__ == "__main__":
    main()
