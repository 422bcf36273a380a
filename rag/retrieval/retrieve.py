"""Question → candidates from both indexes → checked against the catalog → fused → Hits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import NamedTuple

from rag.catalog import aliases, dated, filtering, history, indexes, versions
from rag.catalog.engine import Connection
from rag.catalog.versions import Chunk
from rag.filters import Filter
from rag.knowledge import KnowledgeBase
from rag.models import Collection, Hit
from rag.ports import Candidate, Embedder, Reranker, Vectors
from rag.retrieval.fusion import Group, arm_weight, fuse, nearness
from rag.retrieval.probe import understood
from rag.retrieval.ranking import DEFAULT, Weighing, weighing_of, with_weights
from rag.retrieval.timely import answers_when, in_time, may_be_editions
from rag.search.arms import Arms
from rag.text.duplicates import collapse
from rag.text.glossary import Translated, names_in, translate
from rag.text.keywords import Keyword, keywords, with_others
from rag.text.language import language_of
from rag.text.periods import TimeAsked, time_asked

_CANDIDATES = 60  # per arm and collection, before the catalog's check
_CLOSEST = 10  # of each arm, among which editions of a document are looked for
_MOST_CANDIDATES = 2_000  # over-fetching stops doubling here

# The two arms look at once. Both let go of Python's lock, and neither waits for the other.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="arm")


class Scored(NamedTuple):
    """A candidate, and each arm's own score where that arm found it."""

    chunk: Chunk
    arms: dict[str, float]


@dataclass(frozen=True, slots=True)
class View:
    """The question as one embedder sees it. `coverage`: how much of it the embedder understands, 0 to 1: the share of
    its tokens that it knows, or less where a probe found that it reads the collection's texts worse than that."""

    embedder: Embedder
    vector: Vectors
    coverage: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a question found, best first, and what is needed to judge and explain it.

    `keywords` are the question's content words; `views` has one for each collection, by its id.
    """

    hits: tuple[Hit, ...]
    searched: dict[str, int]  # collection name → documents
    keywords: tuple[Keyword, ...]
    views: Mapping[str, View]
    timings_ms: dict[str, float]
    not_kept: int = 0  # documents whose version of then is gone, where it was asked about the past
    filtered: bool = False  # `searched` counts what a filter has left
    more: tuple[Hit, ...] = ()  # what ranks behind the hits; a large window has room for it
    question: str = ""  # as it was searched for
    rewrites: tuple[str, ...] = ()  # other wordings of it that were looked up as well

    @property
    def view(self) -> View:
        """That of the best hit's collection."""
        return self.view_of(self.hits[0]) if self.hits else next(iter(self.views.values()))

    def view_of(self, hit: Hit) -> View:
        return self.views[hit.collection_id]


def retrieve(
    question: str,
    *,
    base: KnowledgeBase,
    collections: Sequence[Collection],
    k: int,
    as_of: datetime | None = None,
    filters: Filter | None = None,
    today: date | None = None,
    how: Weighing | None = None,
) -> Found:
    """The k chunks that answer best to the question, near-duplicates listed as one, all from one snapshot of the
    catalog: of what is active now, or of what was at the time `as_of`; of the documents that pass the filter. `today`,
    from which “last year” is told: by default the day of `as_of`, or this one, in UTC. `how` they are weighed: by
    default as the index says. Raises InvalidFilter."""
    clock = _Clock()
    today = today or (as_of or datetime.now(UTC)).date()
    when = time_asked(question, today)
    while True:
        views = look(question, base=base, collections=collections)
        clock.lap("embed")
        with base.caches.gate.look() if as_of is None else nullcontext(), base.catalog.read() as snapshot:
            if not indexes.are_active(snapshot, collections):
                # A re-index has put another index in the place of one of them: its embedder must see the question.
                collections = base.collections([item.id for item in collections])
                continue
            views = limited(views, question, snapshot=snapshot, collections=collections)
            at = None if as_of is None else history.change_at(snapshot, as_of)
            if filters is not None:
                filtering.check(snapshot, filters, [item.id for item in collections])
            arms = {item.name: base.caches.arms(snapshot, item, at=at, filters=filters) for item in collections}
            others = _translated(question, snapshot, collections, at=at)
            wider = " ".join([question, *(other for name in others for other in name.others)])
            found: dict[int, Scored] = {}
            for item in collections:
                found |= _candidates(
                    wider,
                    views[item.id].vector,
                    snapshot=snapshot,
                    arms=arms[item.name],
                    index_id=item.index_id,
                    wanted=k,
                )
            clock.lap("look_up")
            searched = {name: one.documents for name, one in arms.items()}
            not_kept = 0 if at is None else sum(history.not_kept_at(snapshot, item.id, at) for item in collections)
            words = with_others(_keywords(question, list(arms.values())), others)
            weighing = how or _weighing(question, snapshot, collections)
            chunks = [one.chunk for one in found.values()]
            told = dated.told_of(snapshot, chunks, openings=chunks if when else _editions(found))
        break
    ranked = in_time(_ranked(question, found, views, words, base.reranker, weighing), when, told, today=today)
    best = collapse(ranked, k=k)
    clock.lap("fuse")
    return Found(
        tuple(best),
        searched,
        _but_when(words, ranked, when),
        views,
        clock.laps_ms,
        not_kept,
        filters is not None,
        more=_behind(best, ranked),
        question=question,
    )


def _weighing(question: str, snapshot: Connection, collections: Sequence[Collection]) -> Weighing:
    """As fitted, where one collection is asked alone. Scores that were weighed otherwise cannot be compared."""
    if len(collections) != 1:
        return DEFAULT
    return weighing_of(indexes.ranking_of(snapshot, collections[0].index_id), language_of(question))


def _but_when(words: tuple[Keyword, ...], ranked: Sequence[Hit], when: TimeAsked) -> tuple[Keyword, ...]:
    """The words that a passage must have: where its document's date says when, it need not say so again."""
    if not answers_when(ranked, when):
        return words
    return tuple(word for word in words if word.text in when.rest or _says_more(word, when))


def _says_more(word: Keyword, when: TimeAsked) -> bool:
    """Whether a time is only a part of the word, as in 今天天气, which jieba takes for one."""
    text = word.text
    parts = (part for at in range(2, len(text) - 1) for part in (text[:at], text[at:]))
    return word.chinese and any(part in when.rest for part in parts)


def _behind(best: Sequence[Hit], ranked: Sequence[Hit]) -> tuple[Hit, ...]:
    """What ranks behind the best and says something else than they do, down to the candidates that one arm gives."""
    told = {hit.chunk_id for hit in best} | {also.chunk_id for hit in best for also in hit.also}
    return tuple(hit for hit in ranked[:_CANDIDATES] if hit.chunk_id not in told)


def _editions(found: Mapping[int, Scored]) -> list[Chunk]:
    """Those of the closest that may be from editions of one document: their time matters though none is asked about."""
    best = {
        key
        for arm in ("vectors", "terms")
        for key in sorted(found, key=lambda key: -found[key].arms.get(arm, 0.0))[:_CLOSEST]
    }
    return may_be_editions([found[key].chunk for key in sorted(best)])


def _translated(
    question: str, snapshot: Connection, collections: Sequence[Collection], *, at: int | None
) -> list[Translated]:
    """What the collections themselves call things in the question in the other language."""
    found = aliases.find(snapshot, names_in(question), [item.index_id for item in collections], at=at)
    return translate(question, found) if found else []


def look(question: str, *, base: KnowledgeBase, collections: Sequence[Collection]) -> dict[str, View]:
    """The question as the embedder of each collection sees it, by the collection's id; embedded once by each."""
    by_embedder: dict[str, View] = {}
    for item in collections:
        if item.embedder not in by_embedder:
            embedder = base.embedder_of(item)
            vector = embedder.embed_query(question)
            by_embedder[item.embedder] = View(embedder, vector, embedder.coverage(question))
    return {item.id: by_embedder[item.embedder] for item in collections}


def limited(
    views: Mapping[str, View], question: str, *, snapshot: Connection, collections: Sequence[Collection]
) -> dict[str, View]:
    """What an embedder was found not to read weighs no more than it reads of it, however many tokens it knows."""
    language = language_of(question)
    probes = indexes.probes_of(snapshot, [item.index_id for item in collections])
    limits: dict[str, float] = {}
    for item in collections:
        probe = probes.get(item.index_id, {}).get(language)
        limits[item.embedder] = min(limits.get(item.embedder, 1.0), 1.0 if probe is None else understood(probe))
    return {
        item.id: replace(views[item.id], coverage=min(views[item.id].coverage, limits[item.embedder]))
        for item in collections
    }


def rank_in(
    question: str, view: View, *, base: KnowledgeBase, snapshot: Connection, collection: Collection, k: int
) -> tuple[list[Hit], list[Hit]]:
    """The k best of one index, which need not be the active one: by both arms, and by the vectors alone."""
    found, words = _look_in(question, view, base=base, snapshot=snapshot, collection=collection)
    weighing = _weighing(question, snapshot, [collection])
    fused = _ranked(question, found, {collection.id: view}, words, base.reranker, weighing)
    alone = sorted(fused, key=lambda hit: (-hit.arms.get("vectors", -1.0), hit.chunk_id))
    return fused[:k], alone[:k]


def candidates_in(
    question: str, view: View, *, base: KnowledgeBase, snapshot: Connection, collection: Collection
) -> tuple[dict[int, Hit], tuple[Keyword, ...]]:
    """What both arms find in one index, by chunk and not ranked yet, and the question's content words."""
    found, words = _look_in(question, view, base=base, snapshot=snapshot, collection=collection)
    return {key: one.chunk.hit(score=0.0, arms=one.arms) for key, one in found.items()}, words


def _look_in(
    question: str, view: View, *, base: KnowledgeBase, snapshot: Connection, collection: Collection
) -> tuple[dict[int, Scored], tuple[Keyword, ...]]:
    arms = base.caches.arms(snapshot, collection)
    found = _candidates(
        question, view.vector, snapshot=snapshot, arms=arms, index_id=collection.index_id, wanted=_CANDIDATES
    )
    return found, _keywords(question, [arms])


def _candidates(
    question: str, vector: Vectors, *, snapshot: Connection, arms: Arms, index_id: int, wanted: int
) -> dict[int, Scored]:
    """Active chunks of one collection. Where the catalog rejects what the caches offer, they are asked for more."""
    k = max(_CANDIDATES, 2 * wanted)
    while True:
        pending = _threads.submit(arms.search_terms, question, k=k)
        by_vector = dict(arms.search_vectors(vector, k=k))
        by_terms = dict(pending.result())
        exhausted = len(by_vector) < k and len(by_terms) < k
        keys = by_vector.keys() | by_terms.keys()
        # The cosine of what only the terms found is a look-up away, and fusion is fairer for knowing it.
        by_vector |= _cosines(snapshot, sorted(keys - by_vector.keys()), vector)
        found = versions.read_chunks(snapshot, list(keys), at=arms.at, index_id=index_id)
        if len(found) >= min(wanted, len(keys)) or exhausted or k >= _MOST_CANDIDATES:
            return {key: Scored(chunk, _arms_of(key, by_vector, by_terms)) for key, chunk in found.items()}
        k *= 2


def _arms_of(key: int, by_vector: dict[int, float], by_terms: dict[int, float]) -> dict[str, float]:
    arms = {}
    if key in by_vector:
        arms["vectors"] = by_vector[key]
    if key in by_terms:
        arms["terms"] = by_terms[key]
    return arms


def _cosines(snapshot: Connection, keys: Sequence[int], vector: Vectors) -> dict[int, float]:
    found, matrix = versions.vectors_of(snapshot, keys)
    return dict(zip(found, (matrix @ vector).tolist(), strict=True)) if found else {}


def _ranked(
    question: str,
    found: Mapping[int, Scored],
    views: Mapping[str, View],
    words: Sequence[Keyword],
    reranker: Reranker,
    how: Weighing,
) -> list[Hit]:
    """By both arms' scores, the best of them judged once more; best first."""
    groups: dict[str, Group] = {}
    for key, one in found.items():
        view = views[one.chunk.collection_id]
        group = groups.setdefault(
            view.embedder.identity, Group(arm_weight(view.coverage, share=how.share), share=how.share)
        )
        if "vectors" in one.arms:
            group.vectors[key] = one.arms["vectors"]
        if "terms" in one.arms:
            group.terms[key] = one.arms["terms"]
    reranker = with_weights(reranker, how, language_of(question))
    scores = fuse(list(groups.values()))
    # Equal scores keep the order of their keys, so that the same question always has the same answer.
    order = sorted(found, key=lambda key: (-scores.get(key, 0.0), key))
    best, rest = order[: reranker.depth], order[reranker.depth :]
    near = nearness(list(groups.values()))
    candidates = [
        Candidate(found[key].chunk.heading, found[key].chunk.text, scores.get(key, 0.0), near.get(key, 0.0))
        for key in best
    ]
    judged = dict(zip(best, reranker.rerank(question, words, candidates), strict=True))
    best.sort(key=lambda key: (-judged[key].score, key))
    # What was not judged stays behind what was, and its score says so.
    least = judged[best[-1]].score if best else 1.0
    return [
        *(_hit(found[key], judged[key].score, judged[key].arms) for key in best),
        *(_hit(found[key], min(scores.get(key, 0.0), least), {}) for key in rest),
    ]


def _hit(one: Scored, score: float, judged: Mapping[str, float]) -> Hit:
    return one.chunk.hit(score=score, arms={**one.arms, **judged})


def _keywords(question: str, arms: Sequence[Arms]) -> tuple[Keyword, ...]:
    def rarity(terms: Sequence[str]) -> list[float]:
        """A term is as common as it is in the collection that knows it best."""
        return [min(values) for values in zip(*(one.rarity(terms) for one in arms), strict=True)]

    return keywords(question, rarity)


class _Clock:
    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_ms[name] = round((now - self._last) * 1000, 2)
        self._last = now
