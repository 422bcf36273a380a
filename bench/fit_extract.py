"""Fits the weights of `extract` and `phrases` in `rag/answering`, and says what they are worth on other questions.

    ATTEST_EVAL_DATA=… .venv/bin/python bench/fit_extract.py            # prints the weights of the sentences
    ATTEST_EVAL_DATA=… .venv/bin/python bench/fit_extract.py --report   # of the weights as they are
    ATTEST_EVAL_DATA=… .venv/bin/python bench/fit_extract.py --write    # writes rag/answering/phrase_weights.py as well

A sentence is right where it holds a gold answer and stands in a gold document; where the sentences that prove the
answer are known, those. A phrase is right where it is a gold answer, letter for letter but for case, articles and
punctuation. Both are ranked by a softmax over all candidates of a question, whose likelihood is what is fitted. Even
questions (by a hash of the last part of their ids, which datasets of the same questions share) fit, odd ones report.

Knowledge bases, vectors and what was found are kept in `--cache`. Needs scipy, which sentence-transformers brings.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from app.eval_bases import COLLECTION, DatasetBases
from bench.fit_evidence import Remembered
from quality.datasets import open_dataset
from quality.metrics import contains, exact_match, token_f1
from quality.models import Dataset, Question
from rag import answer
from rag.answering import extract, phrase_weights, phrases
from rag.answering.asked import Part, asked
from rag.answering.extract import Unit
from rag.embedding.embedder import SentenceTransformerEmbedder
from rag.models import Hit
from rag.settings import Settings
from rag.text.keywords import Keyword
from rag.text.language import query_terms

SETS = {
    "en": ("squad_en", "xquad_en", "expmrc_en", "rgb/en_fact.jsonl"),
    "zh": ("cmrc_zh", "xquad_zh", "expmrc_zh", "drcd_zh_hant", "rgb/zh_fact.jsonl"),
}
RIDGE, PHRASE_RIDGE = 1.0, 4.0
SENTENCES = 2  # in which phrases are looked for
LEAST, MOST, SEEN = 0.12, 120, 30  # weight of a phrase's feature, how many of them, candidates that have it
THRESHOLDS = (0.3, 0.4, 0.45, 0.5, 0.6)

Row = Mapping[str, float]
Weights = dict[str, float]


@dataclass(frozen=True)
class Looked:
    """What a question found."""

    dataset: str
    question: Question
    hits: tuple[Hit, ...]
    wanted: tuple[Keyword, ...]
    coverage: float
    vector: NDArray[np.float32]

    @property
    def fits(self) -> bool:
        name = self.question.id.rsplit(":", 1)[-1]
        return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 2 == 0


@dataclass(frozen=True)
class Choice:
    """Candidates of one question, their features, which are right, and which are to be learned from."""

    looked: Looked
    texts: list[str]
    rows: list[Row]
    right: NDArray[np.bool_]
    learned: NDArray[np.bool_]
    units: list[Unit]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# ── asking ────────────────────────────────────────────────────────────────────────────────────


def look(data: Path, cache: Path, name: str) -> Iterator[Looked]:
    embedder = Remembered(SentenceTransformerEmbedder("default"), cache / "vectors.pkl")
    bases = DatasetBases(cache, Settings(_env_file=None), embedder=embedder)  # type: ignore[call-arg, arg-type]
    for dataset in open_dataset(data / name):
        if "rejection" not in dataset.name:
            yield from _look(bases, dataset)
    embedder.save()


def _look(bases: DatasetBases, dataset: Dataset) -> Iterator[Looked]:
    with bases.open(dataset) as subject:
        for question in dataset.questions:
            if not question.answerable:
                continue
            found = subject.assistant.search(answer.Question(question.text, (COLLECTION,)))
            if found.hits:
                view = found.view
                yield Looked(dataset.name, question, found.hits, found.keywords, view.coverage, view.vector)


def looked_up(data: Path, cache: Path, language: str) -> list[Looked]:
    file = cache / f"looked-{language}.pkl"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps([one for name in SETS[language] for one in look(data, cache, name)]))
    found: list[Looked] = pickle.loads(file.read_bytes())  # noqa: S301  # written by ourselves
    return found


# ── candidates ────────────────────────────────────────────────────────────────────────────────


def sentences(looked: Sequence[Looked], language: str, cache: Path) -> Iterator[Choice]:
    """With the cosines of the sentences that `extract` would have embedded, and the mean of these for the others."""
    embedder = Remembered(SentenceTransformerEmbedder("default"), cache / "vectors.pkl")
    for one in looked:
        units = list(extract.read(one.hits))
        if not units:
            continue
        rows = [dict(row) for row in extract.features(units, Part(one.question.text, one.wanted))]
        order = sorted(range(len(units)), key=lambda at: -extract.logit(rows[at], extract.WEIGHTS[language]))
        best = order[: extract._EMBEDDED]
        cosines = np.clip(embedder.embed_passages([units[at].text for at in best]) @ one.vector, 0.0, 1.0)
        for row in rows:
            row["near"] = one.coverage**4 * float(cosines.mean())
        for at, cosine in zip(best, cosines, strict=True):
            rows[at]["near"] = one.coverage**4 * float(cosine)
        right = np.array([bool(_says(one.question, unit.text)) for unit in units])
        yield Choice(one, [unit.text for unit in units], list(rows), right, _learned(one, units, right), units)
    embedder.save()


def _says(question: Question, text: str) -> float:
    return contains(text, question.answers, question.parts)


def _learned(one: Looked, units: Sequence[Unit], right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    gold = {place.document for place in one.question.gold}
    proofs = [item.text for item in one.question.evidence]
    proves = np.array([any(proof in unit.text or unit.text in proof for proof in proofs) for unit in units])
    inside = np.array([not gold or unit.hit.uri in gold for unit in units])
    return next((chosen for chosen in (right & proves, right & inside) if chosen.any()), right)


def phrases_of(choices: Sequence[Choice], weights: Weights) -> Iterator[Choice]:
    for choice in choices:
        question = choice.looked.question
        what, own = asked(question.text), set(query_terms(question.text))
        if what.kind not in phrases.ASKS_FOR_A_PHRASE:
            continue
        likely = _softmax(choice, weights)
        texts: list[str] = []
        rows: list[Row] = []
        for rank, at in enumerate(np.argsort(-likely, kind="stable")[:SENTENCES]):
            for item in phrases.candidates(choice.texts[at], float(likely[at]), rank=rank, own=own, what=what):
                texts.append(choice.texts[at][item.start : item.end])
                rows.append(item.features)
        right = np.array([bool(exact_match(text, question.answers)) for text in texts])
        if texts:
            yield Choice(choice.looked, texts, rows, right, right, [])


# ── fitting ───────────────────────────────────────────────────────────────────────────────────


def fit(choices: Sequence[Choice], names: Sequence[str], ridge: float) -> Weights:
    """Of the likelihood that a right candidate is drawn, with a ridge."""
    column = {name: at for at, name in enumerate(names)}
    told = []
    for choice in choices:
        if choice.learned.any() and not choice.learned.all():
            matrix = np.zeros((len(choice.rows), len(names)))
            for at, row in enumerate(choice.rows):
                for name, value in row.items():
                    if name in column:
                        matrix[at, column[name]] = value
            told.append((matrix, choice.learned))

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, slope = ridge * float(w @ w) / 2, ridge * w
        for matrix, right in told:
            logits = matrix @ w
            likely = np.exp(logits - logits.max())
            likely /= likely.sum()
            share = likely[right].sum()
            value -= float(np.log(share + 1e-12))
            slope = slope + matrix.T @ (likely - np.where(right, likely / share, 0.0))
        return value, slope

    found = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    return {name: round(float(weight), 2) for name, weight in zip(names, found, strict=True)}


def fit_sentences(choices: Sequence[Choice]) -> Weights:
    names = sorted({name for choice in choices for row in choice.rows for name in row})
    return {name: weight for name, weight in fit(choices, names, RIDGE).items() if abs(weight) >= 0.05}


def fit_phrases(choices: Sequence[Choice]) -> Weights:
    """The features that weigh most, fitted once more by themselves."""
    counts = Counter(name for choice in choices for row in choice.rows for name in row)
    weights = fit(choices, sorted(name for name, count in counts.items() if count >= SEEN), PHRASE_RIDGE)
    kept = [name for name in sorted(weights, key=lambda name: -abs(weights[name])) if abs(weights[name]) >= LEAST]
    return fit(choices, sorted(kept[:MOST]), PHRASE_RIDGE)


def _softmax(choice: Choice, weights: Weights) -> NDArray[np.float64]:
    titles = [extract._TITLE * unit.title for unit in choice.units] or [0.0] * len(choice.rows)
    logits = np.array([extract.logit(row, weights) + title for row, title in zip(choice.rows, titles, strict=True)])
    likely: NDArray[np.float64] = np.exp(logits - logits.max())
    likely /= likely.sum()
    return likely


# ── reporting ─────────────────────────────────────────────────────────────────────────────────


def report_sentences(choices: Sequence[Choice], weights: Weights) -> None:
    say("| dataset | n | first holds it | one of two | one of three | any sentence looked at |")
    say("| --- | --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(choice.looked.dataset for choice in choices):
        own = [choice for choice in choices if choice.looked.dataset == name]
        ranked = [choice.right[np.argsort(-_softmax(choice, weights), kind="stable")] for choice in own]
        shares = [np.mean([bool(right[:k].any()) for right in ranked]) for k in (1, 2, 3, 10**6)]
        say(f"| {name} | {len(own)} | {' | '.join(f'{share:.3f}' for share in shares)} |")


def report_phrases(choices: Sequence[Choice], weights: Weights) -> None:
    say("\n| dataset | n | likely at least | told | exact | F1 |\n| --- | --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(choice.looked.dataset for choice in choices):
        found = []
        for choice in (choice for choice in choices if choice.looked.dataset == name):
            likely = _softmax(choice, weights)
            best = int(likely.argmax())
            f1 = token_f1(choice.texts[best], choice.looked.question.answers)
            found.append((float(likely[best]), float(choice.right[best]), f1))
        for least in THRESHOLDS:
            told = [one for one in found if one[0] >= least]
            exact, f1 = (np.mean([one[1:] for one in told], axis=0)) if told else (0.0, 0.0)
            say(f"| {name} | {len(found)} | {least} | {len(told) / len(found):.2f} | {exact:.2f} | {f1:.2f} |")


def listed(weights: Mapping[str, float]) -> str:
    lines, line = [], "       "
    for name, weight in sorted(weights.items()):
        part = f' "{name}": {weight:g},'
        if len(line) + len(part) > 119:
            lines.append(line)
            line = "       "
        line += part
    return "\n".join([*lines, line])


def write(weights: Mapping[str, Weights]) -> None:
    """The table in `rag/answering/phrase_weights.py`; what stands above it stays."""
    file = Path(phrase_weights.__file__)
    head, mark, _ = file.read_text("utf-8").partition("WEIGHTS: Final")
    table = "".join(f'    "{language}": {{\n{listed(own)}\n    }},\n' for language, own in weights.items())
    file.write_text(f"{head}{mark}[Mapping[str, Mapping[str, float]]] = {{\n{table}}}  # fmt: skip\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(gettempdir()) / "attest-fit-extract")
    parser.add_argument("--report", action="store_true", help="fit nothing")
    parser.add_argument("--write", action="store_true", help="write rag/answering/phrase_weights.py")
    given = parser.parse_args()
    fitted: dict[str, Weights] = {}
    for language in SETS:
        looked = looked_up(Path(os.environ["ATTEST_EVAL_DATA"]), given.cache, language)
        choices = list(sentences(looked, language, given.cache))
        even = [choice for choice in choices if choice.looked.fits]
        odd = [choice for choice in choices if not choice.looked.fits]
        held = {**extract.WEIGHTS[language], "near": extract._NEAR}
        weights = held if given.report else fit_sentences(even)
        told = dict(phrase_weights.WEIGHTS[language])
        if not given.report:
            told = fit_phrases(list(phrases_of(even, weights)))
        fitted[language] = told
        say(f"\n{language}: {{\n{listed(weights)}\n}}\n")
        report_sentences(odd, weights)
        report_phrases(list(phrases_of(odd, weights)), told)
    if given.write:
        write(fitted)


if __name__ == "__main__":
    main()
