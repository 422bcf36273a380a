"""A filter costs no recall in Chroma and Tantivy themselves, and means the same whatever a document was read from."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import docx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from pypdf import PdfReader, PdfWriter
from reportlab.pdfgen.canvas import Canvas

from app.main import create_app
from app.service import Service
from rag.catalog import filtering, knowledge, versions
from rag.catalog.engine import Connection
from rag.filters import parse
from rag.knowledge import KnowledgeBase
from rag.models import Collection, MetadataValue
from rag.retrieval.retrieve import look, retrieve
from rag.search import caches
from rag.search.arms import Exact, Sieved
from rag.search.terms import TantivyIndex
from rag.search.vectors import ChromaIndex
from rag.settings import Settings
from tests.bases import Bases, publish_text, source_in
from tests.fakes import HashEmbedder

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


# ── dates, whatever a document was read from ──────────────────────────────────────────────────

SAID = "The warranty of the lamp was changed."


def markdown(day: date) -> bytes:
    return f"---\ndate: {day}\n---\n\n{SAID}\n".encode()


def html(day: date) -> bytes:
    head = f'<title>Lamp</title><meta property="article:published_time" content="{day}T09:30:00Z">'
    return f"<html lang=en><head>{head}</head><body><main><p>{SAID}</p></main></body></html>".encode()


def word(day: date) -> bytes:
    document, buffer = docx.Document(), BytesIO()
    document.add_paragraph(SAID)
    document.core_properties.created = document.core_properties.modified = datetime(day.year, day.month, day.day)
    document.save(buffer)
    return buffer.getvalue()


def pdf(day: date) -> bytes:
    page, buffer = BytesIO(), BytesIO()
    canvas = Canvas(page)
    canvas.drawString(72, 760, SAID)
    canvas.save()
    writer = PdfWriter(clone_from=PdfReader(page))
    writer.add_metadata({"/CreationDate": f"D:{day:%Y%m%d}093000+01'00'"})
    writer.write(buffer)
    return buffer.getvalue()


MADE: dict[str, Callable[[date], bytes]] = {"md": markdown, "html": html, "docx": word, "pdf": pdf}
OLD, NEW = date(2021, 5, 3), date(2023, 2, 28)


def database(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE change (id INTEGER PRIMARY KEY, note TEXT, date DATE)")
        connection.executemany("INSERT INTO change (note, date) VALUES (?, ?)", [(SAID, str(OLD)), (SAID, str(NEW))])
    connection.close()
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A folder with an old and a new file of each format, and a table with an old and a new row."""
    folder: Path = tmp_path_factory.mktemp("dated")
    (folder / "files").mkdir()
    for suffix, made in MADE.items():
        (folder / "files" / f"old.{suffix}").write_bytes(made(OLD))
        (folder / "files" / f"new.{suffix}").write_bytes(made(NEW))
    (folder / "files" / "undated.txt").write_text(SAID)
    settings: Any = {"data_dir": folder / "data", "allowed_roots": str(folder)}
    service = Service(Settings(_env_file=None, **settings), embedder=HashEmbedder())
    rows = {"url_env": "ATTEST_DB_CHANGES", "tables": ["change"], "metadata_columns": ["date"]}
    with pytest.MonkeyPatch.context() as patch, TestClient(create_app(service), base_url="http://localhost") as client:
        patch.setenv("ATTEST_DB_CHANGES", database(folder / "changes.sqlite"))
        client.post("/v1/collections", json={"name": "lamps"}).raise_for_status()
        for kind, config in (("folder", {"path": str(folder / "files")}), ("database", rows)):
            body = {"name": kind, "kind": kind, "config": config}
            made_source = client.post("/v1/collections/lamps/sources", json=body)
            assert made_source.status_code < 300, made_source.text
            client.post(f"/v1/sources/{made_source.json()['id']}/sync", json={}).raise_for_status()
        deadline = time.monotonic() + 60
        while any(job["state"] in ("queued", "running") for job in client.get("/v1/jobs").json()["data"]):
            assert time.monotonic() < deadline, "the jobs do not end"
            time.sleep(0.05)
        yield client


def passing(client: TestClient, filters: object) -> set[str]:
    """What is found, twins among it: the names of files, and the keys of rows."""
    body = {"question": "warranty of the lamp", "filters": filters, "top_k": 50}
    response = client.post("/v1/search", json=body)
    assert response.status_code == 200, response.text
    return {one["uri"].rpartition("/")[2] for hit in response.json()["hits"] for one in (hit, *hit["also"])}


def test_a_filter_on_date_means_the_same_for_files_of_every_format_and_for_rows(client: TestClient) -> None:
    old, new = ({*(f"{age}.{suffix}" for suffix in MADE), row} for age, row in (("old", "1"), ("new", "2")))
    assert passing(client, None) == {*old, *new, "undated.txt"}
    for filters, expected in (
        ({"field": "date", "between": ["2021-01-01", "2021-12-31"]}, old),
        ({"field": "date", "between": ["2021-05-03", "2021-05-03"]}, old),  # both days included
        ({"field": "date", "between": ["2021-05-04", "2023-02-27"]}, set()),
        ({"field": "date", "gt": "2021-05-03"}, new),
        ({"field": "date", "exists": False}, {"undated.txt"}),
        ({"not": {"field": "date", "lte": "2021-05-03"}}, {*new, "undated.txt"}),
    ):
        assert passing(client, filters) == expected, filters
