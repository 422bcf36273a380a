"""Who is asked: a knowledge base in this process, or a service over HTTP (in `app`). One small port for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Protocol

from quality.models import Cited, Found, Question, Ranks, Told, Twin
from rag import answer as answering
from rag.answer import EXTRACTIVE, Assistant
from rag.answering.evidence import evidence
from rag.catalog import knowledge, versions
from rag.errors import NotFound
from rag.knowledge import KnowledgeBase
from rag.models import Answer, Citation, Hit, file_stem

DEPTH = 30  # passages kept of each question. Up to here more of them change no score: `retrieve` asks each arm for 60
EXTRACTED_FROM = 5  # passages whose sentences the answerer without a model looks at (`rag.answering.extract`)
_DEEPEST = 1000  # passages among which a gold one is looked for that did not come up

Matches = Callable[[Found], bool]


class Subject(Protocol):
    def ask(self, question: Question) -> Told:
        """What is found and what is answered. Raises AttestError where that fails."""

    def ranks(self, question: Question, matches: Matches) -> Ranks:
        """Where the first passage that matches stands, looked for as deep as can be looked."""

    def text(self, document_id: str, version: int) -> str | None:
        """The stored text, for checking quotes; None where it is no longer kept."""

    def holds(self, document: str) -> bool:
        """Whether there is a document of this name."""


@dataclass
class AssistantSubject:
    """A knowledge base whose documents have their names in the dataset as uri."""

    base: KnowledgeBase
    assistant: Assistant
    collection: str
    top_k: int
    _uris: set[str] | None = field(default=None, init=False)

    def ask(self, question: Question) -> Told:
        asked = answering.Question(question.text, (self.collection,), question.history, self.top_k)
        began = time.perf_counter()
        answer = self.assistant.answer(asked)
        milliseconds = (time.perf_counter() - began) * 1000
        # Of a follow-up, what was looked up is the question that it stands for.
        found = self.assistant.search(
            answering.Question(answer.standalone_question, (self.collection,), top_k=max(DEPTH, self.top_k))
        )
        return Told(
            hits=tuple(found_of(hit) for hit in found.hits),
            text=" ".join(sentence.text for sentence in answer.sentences) or answer.answer,
            refused=answer.refused,
            reason=answer.refusal.reason if answer.refusal else "",
            citations=tuple(_cited(answer)),
            evidence=evidence(found),
            shown=shown(answer.model, top_k=self.top_k, found=len(found.hits), left_out=answer.left_out),
            milliseconds=milliseconds,
            degraded=answer.degraded,
            first=answer.sentences[0].text if answer.sentences else "",
            sentences=len(answer.sentences),
            short=answer.short_answer.text if answer.short_answer else None,
        )

    def ranks(self, question: Question, matches: Matches) -> Ranks:
        found = self.assistant.search(answering.Question(question.text, (self.collection,), top_k=_DEEPEST))
        hits = [found_of(hit) for hit in found.hits]
        return Ranks(
            _DEEPEST, rank_of(hits, matches), _arm_rank(hits, "vectors", matches), _arm_rank(hits, "terms", matches)
        )

    def text(self, document_id: str, version: int) -> str | None:
        with self.base.catalog.read() as snapshot:
            try:
                return str(versions.version_row(snapshot, document_id, version).text)
            except NotFound:
                return None

    def holds(self, document: str) -> bool:
        if self._uris is None:  # nobody adds to it while it is measured
            with self.base.catalog.read() as snapshot:
                collection = knowledge.get_collection(snapshot, self.collection)
                self._uris = {item.uri for item in knowledge.list_documents(snapshot, collection, limit=10**9)}
        return document in self._uris


def shown(model: str, *, top_k: int, found: int, left_out: int) -> int:
    """How many of the best passages the answerer was given."""
    if model == EXTRACTIVE:
        return min(EXTRACTED_FROM, top_k, found)
    return max(min(top_k, found) - left_out, 0)  # any of them may be cut; what a model saw besides is not counted


def rank_of(hits: list[Found], matches: Matches) -> int | None:
    return next((rank for rank, hit in enumerate(hits, 1) if matches(hit)), None)


def _arm_rank(hits: list[Found], arm: str, matches: Matches) -> int | None:
    found = sorted((hit for hit in hits if arm in hit.arms), key=lambda hit: -hit.arms[arm])
    return rank_of(found, matches)


def names_of(document_id: str, *, key: str, title: str, uri: str) -> frozenset[str]:
    """All that a document of one's own may be called by where questions name it."""
    uri = uri.rstrip("/")
    file = uri.rpartition("/")[2]
    return frozenset(
        name for name in (document_id, key, title, uri, file, PurePosixPath(file).stem, file_stem(uri)) if name
    )


def found_of(hit: Hit, names: Mapping[str, frozenset[str]] = MappingProxyType({})) -> Found:
    """`names` that documents go by, by their ids; others go by their uri."""
    places = [place for _, place in hit.places]
    return Found(
        document_id=hit.document_id,
        version=hit.version,
        names=names.get(hit.document_id, frozenset((hit.uri,))),
        title=hit.title,
        uri=hit.uri,
        start=hit.start,
        end=hit.end,
        text=hit.text,
        score=hit.score,
        arms=dict(hit.arms),
        pages=frozenset(place.page for place in places if place.page is not None),
        rows=frozenset(place.row for place in places if place.row is not None),
        also=_twins(hit, names),
    )


def _twins(item: Hit | Citation, names: Mapping[str, frozenset[str]] = MappingProxyType({})) -> tuple[Twin, ...]:
    return tuple(twin(names.get(also.document_id, (also.uri,)), also.place.page, also.place.row) for also in item.also)


def twin(names: Iterable[str], page: int | None, row: str | None) -> Twin:
    return Twin(frozenset(names), frozenset(() if page is None else (page,)), frozenset(() if row is None else (row,)))


def _cited(answer: Answer) -> list[Cited]:
    return [
        Cited(
            document_id=item.document_id,
            version=item.version,
            names=frozenset((item.uri,)),
            title=item.title,
            uri=item.uri,
            start=item.start,
            end=item.end,
            quote=item.quote,
            support=item.support,
            page=item.place.page,
            row=item.place.row,
            also=_twins(item),
        )
        for item in answer.citations
    ]
