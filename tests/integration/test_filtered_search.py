"""A filter costs no recall in Chroma and Tantivy themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from rag import caches
from rag.arms import Exact, Sieved
from rag.catalog import filtering, knowledge, versions
from rag.catalog.engine import Connection
from rag.filters import parse
from rag.knowledge import KnowledgeBase
from rag.models import Collection, MetadataValue
from rag.retrieve import look, retrieve
from rag.terms import TantivyIndex
from rag.vectors import ChromaIndex
from tests.bases import Bases, publish_text, source_in

DOCUMENTS, LINES = 150, 12
WORDS = [*(f"word{number}" for number in range(40)), "保修", "价格", "电机", "warranty", "price"]
QUESTIONS = ("warranty price word3 word17", "保修 价格", "word1 word2 word5 motor")
FILTERS = (
    {"field": "department", "eq": "Sales"},
    {"field": "year", "lt": 2002},
    {"field": "year", "gte": 2001},
    {"not": {"field": "published", "gt": "2003-01-01"}},
    {"or": [{"field": "@title", "eq": "7.md"}, {"field": "@title", "eq": "8.md"}]},
    {"field": "nobody", "exists": True},
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[KnowledgeBase, Collection]]:
    folder: Path = tmp_path_factory.mktemp("library")
    terms = TantivyIndex(path=folder / "terms")
    bases = Bases(folder, vectors=ChromaIndex(path=folder / "chroma"), terms=terms)
    base = bases.open()
    collection, source = source_in(base)
    chosen = np.random.default_rng(7)
    for number in range(DOCUMENTS):
        text = "\n".join(" ".join(chosen.choice(WORDS, 8)) for _ in range(LINES))
        document_id, _, _ = publish_text(base, collection, source, f"{number}.md", text)
        metadata: dict[str, MetadataValue] = {"year": 2000 + number % 5, "published": date(2000 + number % 7, 1, 1)}
        if number % 10 == 0:
            metadata["department"] = "Sales"
        with base.catalog.write() as connection:
            knowledge.set_metadata(connection, document_id, metadata)
    yield base, collection
    base.caches.close()
    bases.close()


def plain(snapshot: Connection, base: KnowledgeBase, collection: Collection, ids: set[str]) -> list[int]:
    keys = sorted(base.caches.held_terms(collection.index_id))
    documents = filtering.documents_of(snapshot, keys)
    return [key for key in keys if documents[key] in ids]


@pytest.mark.parametrize("few", [20_000, 0], ids=["exact", "sieved"])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("data", FILTERS)
def test_both_arms_find_what_an_unlimited_search_of_everything_leaves(
    library: tuple[KnowledgeBase, Collection], monkeypatch: pytest.MonkeyPatch, data: object, question: str, few: int
) -> None:
    base, collection = library
    monkeypatch.setattr(caches, "_FEW", few)
    what = parse(data)
    assert base.caches.is_attached(collection.index_id)
    vector = look(question, base=base, collections=[collection])[collection.id].vector
    with base.caches.gate.look(), base.catalog.read() as snapshot:
        ids = filtering.document_ids(snapshot, what, collection_id=collection.id, index_id=collection.index_id, at=None)
        arms = base.caches.arms(snapshot, collection, filters=what)
        assert isinstance(arms, Sieved if few == 0 and ids else Exact)
        allowed = plain(snapshot, base, collection, ids)
        assert len(allowed) == LINES * len(ids)
        every = base.caches.search_terms(collection.index_id, question, k=10_000)
        left = [hit for hit in every if hit[0] in set(allowed)]
        found = arms.search_terms(question, k=60)
        assert [score for _, score in found] == [score for _, score in left[:60]]
        assert set(found) <= set(left)
        keys, matrix = versions.vectors_of(snapshot, allowed)
        best = sorted((matrix @ vector).tolist(), reverse=True)[:60] if keys else []
        near = arms.search_vectors(vector, k=60)
        scores = [score for _, score in near]
        if few:
            assert scores == pytest.approx(best, abs=2e-3)  # Chroma's are not of the same float16
        else:  # HNSW itself misses one or two of the farthest
            assert len(scores) == len(best)
            assert scores[:20] == pytest.approx(best[:20], abs=2e-3)
            assert sum(score >= best[-1] - 2e-3 for score in scores) >= 0.95 * len(best)
        assert {key for key, _ in near} <= set(allowed)
    hits = retrieve(question, base=base, collections=[collection], k=8, filters=what).hits
    assert len(hits) == min(8, len(allowed))
    assert {hit.document_id for hit in hits} <= ids
