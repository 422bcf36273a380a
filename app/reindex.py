"""A re-index: the work, the quality check before the switch, the switch, the way back, and the end of what was kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import comb
from typing import Any

from ingest.interrupt import Cancelled
from ingest.jobs import Running
from ingest.reindex import Reindex
from ingest.split import fingerprint, target_of
from ingest.sync import Progress, Report
from rag.catalog import indexes, knowledge
from rag.catalog.engine import Connection, now
from rag.catalog.indexes import Index
from rag.catalog.jobs import Counts
from rag.errors import Conflict, QualityLost
from rag.knowledge import KnowledgeBase
from rag.models import Collection, Hit
from rag.ports import Embedder
from rag.retrieval.probe import evenly, middle_sentence, probe_if_due
from rag.retrieval.retrieve import limited, look, rank_in
from rag.text.language import language_of

log = logging.getLogger(__name__)

_SAMPLES = 64  # questions per language
_ENOUGH_OWN = 16  # of its own: with these, none are made up
_READ = 1_200  # chunks that questions may be made of
_AMONG_THE_FIRST = 5
_MARGIN = 0.05  # of hit@5 that may be lost …
_CHANCE = 0.05  # … or more, while chance alone would explain it this often
_LANGUAGES = ("en", "zh")


@dataclass(frozen=True, slots=True)
class ReindexRequest:
    """What was asked for. A job holds all of it, so that it means the same after a restart with other settings."""

    embedder: str
    chunk_tokens: int
    check: bool = True
    force: bool = False
    back: bool = False
    confirm: bool = False


def reindex(running: Running, *, base: KnowledgeBase) -> Report:
    """The work of a job of kind `reindex`."""
    wanted = ReindexRequest(**running.job.request)
    counts = _worked(wanted, running, base=base)
    done = counts.added + counts.unchanged + counts.deleted
    running.report_progress(Progress(done, done, counts))
    return Report(counts)


def _worked(wanted: ReindexRequest, running: Running, *, base: KnowledgeBase) -> Counts:
    with base.catalog.read() as snapshot:
        collection = knowledge.get_collection(snapshot, str(running.job.collection_id))
    if wanted.confirm:
        return Counts(deleted=_forget(base, collection.id, ("retired", "building"), running))
    index, embedder = _previous(base, collection) if wanted.back else _begun(base, collection, wanted, running)
    if index.id == collection.index_id:
        with base.catalog.read() as snapshot:
            return Counts(unchanged=indexes.count_versions(snapshot, collection.id))
    work = Reindex(
        base=base,
        index=index,
        embedder=embedder,
        target_tokens=target_of(index.splitter) or wanted.chunk_tokens,
        report_progress=running.report_progress,
        cancelled=running.cancelled,
    )

    def stop() -> None:
        if running.cancelled():
            raise Cancelled

    work.catch_up()
    base.caches.prepare(index, stop=stop)
    if wanted.check and not wanted.back:
        _check(base, collection, index, embedder, force=wanted.force, stop=stop)
    with base.caches.still():
        work.finish()
        base.caches.switch(index)
    log.info("“%s” is answered from index %d now, made with %s.", collection.name, index.id, embedder.name)
    probe_if_due(base, index, embedder=embedder)
    return work.counts


def _begun(
    base: KnowledgeBase, collection: Collection, wanted: ReindexRequest, running: Running
) -> tuple[Index, Embedder]:
    embedder = base.open_embedder(wanted.embedder)
    splitter = fingerprint(target_tokens=wanted.chunk_tokens)
    with base.catalog.write() as connection:
        index = indexes.begin(connection, collection.id, embedder=embedder, splitter=splitter)
    # One that was begun for something else and never finished would stay for good.
    _forget(base, collection.id, ("building",), running, but=index.id)
    return index, embedder


def _previous(base: KnowledgeBase, collection: Collection) -> tuple[Index, Embedder]:
    with base.catalog.read() as snapshot:
        index = indexes.previous(snapshot, collection.id)
    if index is None:
        raise Conflict(
            f"“{collection.name}” has no earlier index to go back to.",
            remedy="It was never re-indexed, or that was confirmed.",
        )
    return index, base.embedder_for(index, collection.name)


def _forget(
    base: KnowledgeBase, collection_id: str, states: Sequence[str], running: Running, *, but: int | None = None
) -> int:
    """Remove indexes in these states with their chunks and vectors. Returns how many."""
    with base.catalog.read() as snapshot:
        gone = [
            item for item in indexes.list_indexes(snapshot, collection_id) if item.state in states and item.id != but
        ]
    for index in gone:
        base.caches.drop_index(index.id)
        more = True
        while more:
            if running.cancelled():
                raise Cancelled
            with base.caches.still(), base.catalog.write() as connection:
                more = indexes.forget_some(connection, index)
    return len(gone)


# ── the quality check ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Sample:
    """A question, and where its answer stands: (document, version, start, end), any of them."""

    question: str
    targets: tuple[tuple[str, int, int, int], ...]
    own: bool  # somebody asked it; otherwise a sentence of the text itself


@dataclass(slots=True)
class Tally:
    """Of one language and one way to look: who found the answer among the first five."""

    old: int = 0
    new: int = 0
    lost: int = 0  # found by the old index alone
    won: int = 0

    def count(self, before: bool, after: bool) -> None:
        self.old += before
        self.new += after
        self.lost += before and not after
        self.won += after and not before

    def has_lost(self, questions: int) -> bool:
        """More than the margin, and more than chance: of questions that only one of the two indexes answers, each is
        as likely to fall to either if they are equally good. With 64 questions a twentieth is three of them, which
        happens every other time; with five questions nothing but all five says anything."""
        unequal = self.lost + self.won
        tail = sum(comb(unequal, lost) for lost in range(self.lost, unequal + 1)) / 2**unequal
        return self.lost - self.won > _MARGIN * questions and tail <= _CHANCE

    def shown(self, questions: int) -> dict[str, Any]:
        share = max(questions, 1)
        return {"old": round(self.old / share, 3), "new": round(self.new / share, 3), "lost": self.has_lost(questions)}


@dataclass(slots=True)
class _Language:
    samples: list[Sample]
    fused: Tally = field(default_factory=Tally)
    vectors: Tally = field(default_factory=Tally)

    @property
    def has_lost(self) -> bool:
        return self.fused.has_lost(len(self.samples)) or self.vectors.has_lost(len(self.samples))

    def shown(self) -> dict[str, Any]:
        count = len(self.samples)
        return {
            "questions": count,
            "own": sum(sample.own for sample in self.samples),
            "fused": self.fused.shown(count),
            "vectors": self.vectors.shown(count),
        }


def _check(
    base: KnowledgeBase,
    collection: Collection,
    index: Index,
    embedder: Embedder,
    *,
    force: bool,
    stop: Callable[[], None],
) -> None:
    """Compare the index with the one that answers, on the same questions. Raises QualityLost, unless it is forced."""
    probe_if_due(base, index, embedder=embedder)  # it limits what the vectors weigh, as it will after the switch
    found = compare(base, collection, index, stop=stop)
    lost = [language for language, one in found.items() if one.has_lost]
    checked = {
        "at": now().isoformat(),
        "passed": not lost,
        "forced": bool(lost) and force,
        "languages": {language: one.shown() for language, one in found.items()},
    }
    with base.catalog.write() as connection:
        indexes.save_check(connection, index.id, checked)
    if lost and not force:
        figures = "; ".join(_told(language, found[language]) for language in lost)
        raise QualityLost(
            f"The new index of “{collection.name}” finds less than the one that answers: {figures}. "
            "Nothing was switched.",
            remedy="It stays, built: the same command with --force (API: force) switches all the same, and "
            "`attest reindex --confirm` removes it.",
        )


def _told(language: str, found: _Language) -> str:
    shown = found.shown()
    ways = [f"{shown[key]['old']:.0%} → {shown[key]['new']:.0%} {name}" for key, name in _WAYS]
    return f"{language}, {shown['questions']} questions, found among the first five: {', '.join(ways)}"


_WAYS = (("fused", "by words and vectors"), ("vectors", "by vectors alone"))


def compare(
    base: KnowledgeBase, collection: Collection, index: Index, *, stop: Callable[[], None] = lambda: None
) -> dict[str, _Language]:
    """By language, what the active index of the collection finds and what the other one does."""
    new = replace(collection, index_id=index.id, embedder=index.embedder)
    with base.catalog.read() as snapshot:
        found = {language: _Language(some) for language, some in samples(snapshot, collection).items() if some}
        # Of ten chunks, five are no choice.
        k = max(1, min(_AMONG_THE_FIRST, indexes.count_active(snapshot, collection.index_id) // 4))
    for one in found.values():
        for sample in one.samples:
            stop()
            before, after = (_ranks(sample.question, item, base=base, k=k) for item in (collection, new))
            one.fused.count(_has(before[0], sample), _has(after[0], sample))
            one.vectors.count(_has(before[1], sample), _has(after[1], sample))
    return found


def _ranks(question: str, collection: Collection, *, base: KnowledgeBase, k: int) -> tuple[list[Hit], list[Hit]]:
    views = look(question, base=base, collections=[collection])
    with base.caches.gate.look(), base.catalog.read() as snapshot:
        view = limited(views, question, snapshot=snapshot, collections=[collection])[collection.id]
        return rank_in(question, view, base=base, snapshot=snapshot, collection=collection, k=k)


def _has(hits: Sequence[Hit], sample: Sample) -> bool:
    return any(
        (hit.document_id, hit.version) == (document, version) and hit.start < end and start < hit.end
        for hit in hits
        for document, version, start, end in sample.targets
    )


def samples(snapshot: Connection, collection: Collection) -> dict[str, list[Sample]]:
    """By language: questions that were asked and answered, and sentences of the texts where those are few."""
    own: dict[str, list[Sample]] = {language: [] for language in _LANGUAGES}
    for question, answer in indexes.own_questions(snapshot, collection.id, limit=8 * _SAMPLES):
        targets = _targets(snapshot, answer)
        if targets:
            own[language_of(question)].append(Sample(question, targets, own=True))
    texts = indexes.spread(snapshot, collection.index_id, limit=_READ)
    found = {}
    for language in _LANGUAGES:
        chosen = own[language][:_SAMPLES]
        if len(chosen) < _ENOUGH_OWN:
            of_language = [text for text in texts if language_of(text.text) == language]
            for text in evenly(of_language, _SAMPLES - len(chosen)):
                start, end = middle_sentence(text.text)
                target = text.document_id, text.version, text.start + start, text.start + end
                chosen.append(Sample(text.text[start:end], (target,), own=False))
        found[language] = chosen
    return found


def _targets(snapshot: Connection, answer: Mapping[str, Any]) -> tuple[tuple[str, int, int, int], ...]:
    """Where what was cited stands now: documents change, and most quotes stay."""
    found = []
    for citation in answer.get("citations", ()):
        active = indexes.active_text(snapshot, str(citation["document_id"]))
        if active is None:
            continue
        number, text = active
        start, quote = int(citation["start"]), str(citation["quote"])
        if number != citation["version"]:
            start = text.find(quote)
        if start >= 0 and quote:
            found.append((str(citation["document_id"]), number, start, start + len(quote)))
    return tuple(found)
