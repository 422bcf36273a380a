"""Fits a collection's ranking on its owner's questions, and keeps it where it is measurably better.

Fitted on one half of the questions. The other half is asked twice, as every question is: with the defaults, and as
fitted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from quality.models import Found, Question
from quality.run import matches
from quality.subject import found_of, names_of
from quality.tuning import Gold, Judged, fit, half_of, judge
from rag.catalog import indexes, knowledge
from rag.catalog.engine import Connection, now
from rag.errors import Conflict, InvalidInput
from rag.knowledge import KnowledgeBase
from rag.models import Collection
from rag.ports import Candidate
from rag.rerank.light import FEATURES, LightReranker, features
from rag.retrieval.fusion import Group, arm_weight, fuse, nearness
from rag.retrieval.ranking import DEFAULT, Weighing
from rag.retrieval.retrieve import candidates_in, limited, look, retrieve
from rag.text.language import language_of

MIN_QUESTIONS = 30  # of one language: fewer say nothing
_DEPTH = 10  # passages that count

_one_at_a_time = threading.Lock()

Names = Mapping[str, frozenset[str]]  # document id → what it may be called


def tune(base: KnowledgeBase, collection: Collection, questions: Sequence[Question]) -> dict[str, Any]:
    """Fit on these questions, each with its gold places, and keep what came of it with the collection's active index.

    Returns what is kept, as `ranking` of the index has it, with `too_few` (language → questions, where they were not
    enough) and `not_here` (questions whose places are not in the collection). What was fitted on other languages before
    stays. Raises InvalidInput where no language has enough questions, and Conflict where this goes on already.
    """
    if not _one_at_a_time.acquire(blocking=False):
        raise Conflict("A ranking is being fitted already.", remedy="Ask again in a minute.")
    try:
        return _tuned(base, collection, questions)
    finally:
        _one_at_a_time.release()


def reset(base: KnowledgeBase, collection: Collection) -> None:
    """Back to the defaults, for all languages."""
    with base.catalog.write() as connection:
        indexes.save_ranking(connection, collection.index_id, None)


def _tuned(base: KnowledgeBase, collection: Collection, questions: Sequence[Question]) -> dict[str, Any]:
    with base.catalog.read() as snapshot:
        names = names_in(snapshot, collection)
    called = frozenset().union(*names.values())
    here = [item for item in questions if any(_is_here(gold.document, gold.row, called) for gold in item.gold)]
    by_language: dict[str, list[Question]] = {}
    for item in {" ".join(one.text.split()): one for one in here}.values():  # asked twice counts once
        by_language.setdefault(language_of(item.text), []).append(item)
    too_few = {language: len(some) for language, some in by_language.items() if len(some) < MIN_QUESTIONS}
    enough = {language: some for language, some in by_language.items() if len(some) >= MIN_QUESTIONS}
    if not enough:
        counted = ", ".join(f"{count} ({language})" for language, count in sorted(too_few.items())) or "none"
        raise InvalidInput(
            f"{MIN_QUESTIONS} questions in one language are needed whose documents are in “{collection.name}”; of the "
            f"{len(questions)} given, that is so of {counted}.",
            remedy="Name with each question the `documents` where its answer stands; feedback does so too.",
        )
    languages = {language: _of_language(base, collection, some, language, names) for language, some in enough.items()}
    with base.catalog.write() as connection:
        before = indexes.ranking_of(connection, collection.index_id) or {}
        ranking = {"languages": {**before.get("languages", {}), **languages}}
        indexes.save_ranking(connection, collection.index_id, ranking)
    return {**ranking, "too_few": too_few, "not_here": len(questions) - len(here)}


def names_in(snapshot: Connection, collection: Collection) -> Names:
    return {
        item.id: names_of(item.id, key=item.key, title=item.title, uri=item.uri)
        for item in knowledge.list_documents(snapshot, collection, limit=10**9)
        if item.enabled
    }


def _is_here(document: str, row: str | None, called: frozenset[str]) -> bool:
    return document in called or document == row  # a row of a table may go by its own name alone


def _of_language(
    base: KnowledgeBase, collection: Collection, questions: Sequence[Question], language: str, names: Names
) -> dict[str, Any]:
    fits, reports = ([item for item in questions if half_of(item.text) == half] for half in (0, 1))
    weigh = isinstance(base.reranker, LightReranker)
    how = fit([judged(item, base, collection, names) for item in fits], language=language, weigh=weigh)
    before, after = (
        [_found(item, base, collection, names, weighing) for item in reports] for weighing in (DEFAULT, how)
    )
    verdict = judge(before, after)
    return {
        "kept": verdict.kept,
        "share": how.share,
        "weights": None if how.weights is None else dict(zip(FEATURES, how.weights, strict=True)),
        "reranker": base.reranker.name,
        "fitted_on": len(fits),
        "measured_on": len(reports),
        "before": verdict.before,
        "after": verdict.after,
        "gain": asdict(verdict.gain),
        "at": now().isoformat(),
    }


def judged(question: Question, base: KnowledgeBase, collection: Collection, names: Names) -> Judged:
    views = look(question.text, base=base, collections=[collection])
    with base.caches.gate.look(), base.catalog.read() as snapshot:
        view = limited(views, question.text, snapshot=snapshot, collections=[collection])[collection.id]
        hits, words = candidates_in(question.text, view, base=base, snapshot=snapshot, collection=collection)
    keys = sorted(hits)
    vectors = {key: hits[key].arms["vectors"] for key in keys if "vectors" in hits[key].arms}
    terms = {key: hits[key].arms["terms"] for key in keys if "terms" in hits[key].arms}
    either = [fuse([Group(dense, vectors, terms)]) for dense in (1.0, 0.0)]
    near = nearness([Group(arm_weight(view.coverage), vectors, terms)])
    candidates = [Candidate(hits[key].heading, hits[key].text, 0.0, near.get(key, 0.0)) for key in keys]
    return Judged(
        vectors=np.array([either[0].get(key, 0.0) for key in keys]),
        terms=np.array([either[1].get(key, 0.0) for key in keys]),
        rows=np.array(features(question.text, words, candidates), dtype=np.float64).reshape(-1, len(FEATURES)),
        read=arm_weight(view.coverage, share=1.0),
        gold=_gold(question, [found_of(hits[key], names) for key in keys]),
    )


def _found(question: Question, base: KnowledgeBase, collection: Collection, names: Names, how: Weighing) -> Gold:
    found = retrieve(question.text, base=base, collections=[collection], k=_DEPTH, how=how)
    return _gold(question, [found_of(hit, names) for hit in found.hits])


def _gold(question: Question, found: Sequence[Found]) -> Gold:
    """Of each gold place that is needed, where it stands among what was found; of alternatives all together."""
    places = [frozenset(at for at, hit in enumerate(found) if matches(hit, gold)) for gold in question.gold]
    return (frozenset().union(*places),) if question.any_gold else tuple(places)
