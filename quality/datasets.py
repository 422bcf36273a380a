"""Paths → datasets, and what is made of datasets: samples, held-out documents, one pool of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quality.formats import QUERIES, UNANSWERABLE, holds_rgb, read_folder, read_json, read_rgb
from quality.lines import whole_json
from quality.models import Dataset, Document, Gold, Question
from quality.questions import read_questions
from rag.errors import InvalidInput, NotFound

HELD_OUT = "held_out"


def open_dataset(path: Path) -> list[Dataset]:
    """Everything that the path holds: a file, a folder in a known form, or a folder of such."""
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        raise NotFound(f"There is nothing at {path}.", remedy="Give a dataset's folder or file, or a questions.jsonl.")
    if (path / "corpus.jsonl").is_file():
        return read_folder(path)
    if (path / QUERIES).is_file():  # documents are files, pages or tables, and in a collection
        files = [file for file in (path / QUERIES, path / UNANSWERABLE) if file.is_file()]
        return [Dataset(path.name, tuple(one for file in files for one in read_questions(file)))]
    inner = [item for item in sorted(path.iterdir()) if _is_dataset(item)]
    if not inner:
        raise InvalidInput(
            f"{path} is no dataset.", remedy="A folder has corpus.jsonl with queries.jsonl, and for BEIR qrels/."
        )
    return [dataset for item in inner for dataset in (read_folder(item) if item.is_dir() else _file(item))]


def _file(path: Path) -> list[Dataset]:
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") and holds_rgb(path):
        return read_rgb(path)
    if path.suffix.lower() == ".json":
        return read_json(path)
    if path.suffix.lower() in (".jsonl", ".ndjson", ".csv", ".tsv"):
        return [Dataset(path.parent.name if path.name == QUERIES else path.stem, read_questions(path))]
    raise InvalidInput(
        f"{path} is in no form that is known here.", remedy="Questions are read from .jsonl and .csv, SQuAD from .json."
    )


def _is_dataset(path: Path) -> bool:
    """In a folder of several: what brings its own documents along."""
    if path.is_dir():
        return (path / "corpus.jsonl").is_file() and (path / QUERIES).is_file()
    return path.suffix == ".jsonl" and holds_rgb(path)


# ── samples ───────────────────────────────────────────────────────────────────────────────────


def sample(dataset: Dataset, limit: int | None, *, seed: int) -> Dataset:
    """At most so many questions, always the same ones: a smaller sample is part of a larger one. Documents stay."""
    if limit is None or len(dataset.questions) <= limit:
        return dataset
    chosen = {question.id for question in sorted(dataset.questions, key=lambda one: _chance(seed, one.id))[:limit]}
    return replace(dataset, questions=tuple(one for one in dataset.questions if one.id in chosen))


def _chance(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


# ── questions that cannot be answered ─────────────────────────────────────────────────────────


def hold_out(dataset: Dataset, share: float, *, seed: int) -> Dataset:
    """Take documents out of the collection, so that about this share of the questions has no answer in it.

    What belongs together goes together: documents of one title, because the paragraph beside the gold one may answer as
    well, and all documents that answer one question. The same seed takes out the same ones.
    """
    if dataset.documents is None:
        raise InvalidInput(
            f"{dataset.name} brings no documents that could be taken out.", remedy="Leave out --held-out."
        )
    group = _groups(dataset)
    asked: dict[str, int] = {}  # group → questions that it answers
    for question in dataset.questions:
        for name in {group[gold.document] for gold in question.gold if gold.document in group}:
            asked[name] = asked.get(name, 0) + 1
    left = share * sum(asked.values())
    out: set[str] = set()
    for name in sorted(asked, key=lambda one: _chance(seed, one)):
        # One that would take out twice of what is left to take is passed over, unless it is all that there is of it.
        if left > 0 and asked[name] <= 2 * left and len(out) + 1 < len(asked):
            out.add(name)
            left -= asked[name]
    if share > 0 and not out:
        raise InvalidInput(
            f"Nothing can be taken out of {dataset.name} alone: its questions share all their documents.",
            remedy="Use a larger share, or more questions about different documents.",
        )
    return Dataset(
        dataset.name,
        tuple(
            _unanswerable(one) if any(group.get(gold.document) in out for gold in one.gold) else one
            for one in dataset.questions
        ),
        tuple(document for document in dataset.documents if group[document.id] not in out),
    )


def _groups(dataset: Dataset) -> dict[str, str]:
    """Document → the first document of those that it has a title or a question in common with, over any number of
    steps."""
    parent: dict[str, str] = {document.id: document.id for document in dataset.documents or ()}

    def first(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    titled: dict[str, str] = {}
    for document in dataset.documents or ():
        if document.title:
            parent[first(document.id)] = first(titled.setdefault(document.title, document.id))
    for question in dataset.questions:
        there = [gold.document for gold in question.gold if gold.document in parent]
        for name in there[1:]:
            parent[first(name)] = first(there[0])
    return {name: first(name) for name in parent}


def _unanswerable(question: Question) -> Question:
    return replace(question, answerable=False, gold=(), answers=(), parts=(), evidence=(), kind=HELD_OUT)


# ── several datasets together ─────────────────────────────────────────────────────────────────


def pooled(datasets: Sequence[Dataset], aliases: Mapping[str, str]) -> list[Dataset]:
    """The same questions, each asked of the documents of all datasets together. `aliases` maps a document's id to that
    of the same text under another id; what says the same in another language counts as gold too."""
    documents: dict[str, Document] = {}
    for dataset in datasets:
        if dataset.documents is None:
            raise InvalidInput(f"{dataset.name} brings no documents along.", remedy="Leave it out of the pool.")
        for document in dataset.documents:
            documents.setdefault(aliases.get(document.id, document.id), document)
    pool = tuple(replace(document, id=name) for name, document in documents.items())
    return [
        Dataset(
            f"{dataset.name} (pooled)",
            tuple(_in_pool(question, aliases, documents.keys()) for question in dataset.questions),
            pool,
        )
        for dataset in datasets
    ]


def _in_pool(question: Question, aliases: Mapping[str, str], there: Iterable[str]) -> Question:
    gold = [replace(item, document=aliases.get(item.document, item.document)) for item in question.gold]
    parallel = [aliases.get(name, name) for name in question.parallel if aliases.get(name, name) in there]
    evidence = tuple(
        replace(item, document=aliases.get(item.document, item.document) if item.document else None)
        for item in question.evidence
    )
    return replace(
        question,
        gold=tuple(dict.fromkeys([*gold, *map(Gold, parallel)])),
        any_gold=question.any_gold or bool(parallel),
        evidence=evidence,
    )


def across(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Questions in one language, documents in the other, where two of the datasets say the same in both."""
    found = []
    for asked in datasets:
        for other in datasets:
            there = {document.id for document in other.documents or ()}
            questions = tuple(
                replace(question, gold=tuple(map(Gold, question.parallel)), answers=(), evidence=())
                for question in asked.questions
                if question.parallel and there.issuperset(question.parallel)
            )
            if questions and other is not asked:
                found.append(Dataset(f"{asked.name} → {other.name}", questions, other.documents))
    return found


def read_aliases(path: Path) -> dict[str, str]:
    """`pool_aliases.json`: id → the id of the same text elsewhere."""
    if not path.is_file():
        return {}
    content = whole_json(path)
    aliases = content.get("aliases", content) if isinstance(content, dict) else {}
    return {str(name): str(other) for name, other in aliases.items() if isinstance(other, str)}
