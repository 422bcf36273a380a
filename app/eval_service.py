"""A running service as what `attest eval` asks: a user's own collection, over the same HTTP interface as all else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from app.client import Client, Json, Refused, part
from quality.models import Cited, Dataset, Document, Found, Gold, Question, Ranks, Told, Twin
from quality.subject import DEPTH, Matches, names_of, rank_of, shown, twin

_DEEPEST = 50  # passages that a search gives at most
_GONE = frozenset({404, 410})


@dataclass
class ServiceSubject:
    """One collection of the service. A gold document may be named by id, key, title, uri or file name."""

    client: Client
    collection: str
    top_k: int | None = None  # as the service is configured
    _names: dict[str, frozenset[str]] = field(default_factory=dict)  # document id → what it may be called
    _texts: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen = self.client.collection(self.collection)
        self.documents = list(self.client.pages(f"/v1/collections/{part(chosen['id'])}/documents"))
        self._names = {
            item["id"]: names_of(item["id"], key=item["key"], title=item["title"], uri=str(item["uri"]))
            for item in self.documents
            if item["enabled"]
        }

    def ask(self, question: Question) -> Told:
        # What is asked to measure is nobody's question: it is not kept, and no gap.
        body: dict[str, Any] = {"question": question.text, "collection": self.collection, "keep": False}
        if question.history:
            body["history"] = [{"role": turn.role, "content": turn.content} for turn in question.history]
        if self.top_k is not None:
            body["top_k"] = self.top_k
        began = time.perf_counter()
        answer = self.client.post("/v1/ask", body)
        milliseconds = (time.perf_counter() - began) * 1000
        found = self._search(answer["standalone_question"], DEPTH)
        sentences = [sentence["text"] for sentence in answer["sentences"]]
        hits = [self._found(hit) for hit in found["hits"]]
        return Told(
            hits=tuple(hits),
            text=" ".join(sentences) or answer["answer"],
            refused=answer["refused"],
            reason=answer["refusal"]["reason"] if answer["refusal"] else "",
            citations=tuple(self._cited(item) for item in answer["citations"]),
            evidence=found.get("evidence"),
            # How many the service looks for by itself is its own setting; the default, where it was not said here.
            shown=shown(answer["model"], top_k=self.top_k or 8, found=len(hits), left_out=answer.get("left_out", 0)),
            milliseconds=milliseconds,
            degraded=answer["degraded"],
            first=sentences[0] if sentences else "",
            sentences=len(sentences),
            short=(answer.get("short_answer") or {}).get("text"),
        )

    def ranks(self, question: Question, matches: Matches) -> Ranks:
        """As deep as a search goes. Ranks within one arm are not told over HTTP."""
        hits = [self._found(hit) for hit in self._search(question.text, _DEEPEST)["hits"]]
        return Ranks(_DEEPEST, rank_of(hits, matches))

    def text(self, document_id: str, version: int) -> str | None:
        key = document_id, version
        if key not in self._texts:
            try:
                told = self.client.get(f"/v1/documents/{part(document_id)}/text", version=version)
                self._texts[key] = told["text"]
            except Refused as problem:
                if problem.status not in _GONE:
                    raise
                self._texts[key] = None
        return self._texts[key]

    def holds(self, document: str) -> bool:
        return any(document in names for names in self._names.values())

    def copied(self, dataset: Dataset, *, moved: Callable[[int], None] = lambda _done: None) -> Dataset:
        """The dataset with the texts of this collection as its documents, so that some can be taken out of the copy.
        Pages and rows are not kept: a gold place is its whole document there."""
        documents = []
        for number, item in enumerate(self.documents, 1):
            if item["enabled"] and item["version"] is not None:
                documents.append(Document(item["id"], item["title"], self.text(item["id"], item["version"]) or ""))
            moved(number)
        return replace(
            dataset,
            questions=tuple(self._by_id(question) for question in dataset.questions),
            documents=tuple(documents),
        )

    def _by_id(self, question: Question) -> Question:
        found = [name for gold in question.gold for name, names in self._names.items() if gold.document in names]
        gold = tuple(Gold(name) for name in dict.fromkeys(found))
        return replace(question, gold=gold or tuple(Gold(one.document) for one in question.gold))

    def _search(self, text: str, k: int) -> Json:
        body: dict[str, Any] = {"question": text, "collection": self.collection, "top_k": k}
        found: Json = self.client.post("/v1/search", body)
        return found

    def _named(self, item: Json) -> frozenset[str]:
        return self._names.get(item["document_id"], frozenset()) | {item["document_id"], item["uri"], item["title"]}

    def _found(self, hit: Json) -> Found:
        return Found(
            document_id=hit["document_id"],
            version=hit["version"],
            names=self._named(hit),
            title=hit["title"],
            uri=hit["uri"],
            start=hit["start"],
            end=hit["end"],
            text=hit["text"],
            score=hit["score"],
            arms=hit["arms"],
            pages=frozenset() if hit["page"] is None else frozenset((hit["page"],)),
            rows=frozenset() if hit["row"] is None else frozenset((hit["row"],)),
            also=self._twins(hit),
        )

    def _cited(self, item: Json) -> Cited:
        return Cited(
            document_id=item["document_id"],
            version=item["version"],
            names=self._named(item),
            title=item["title"],
            uri=item["uri"],
            start=item["start"],
            end=item["end"],
            quote=item["quote"],
            support=item["support"],
            page=item["page"],
            row=item["row"],
            also=self._twins(item),
        )

    def _twins(self, item: Json) -> tuple[Twin, ...]:
        return tuple(twin(self._named(also), also["page"], also["row"]) for also in item["also"])
