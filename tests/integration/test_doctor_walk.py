"""The deep check over a real Chroma, a real Tantivy and a real folder: damage is planted, found, repaired, gone."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.ports import TermEntry
from rag.search.caches import term_space
from rag.settings import Settings
from tests.fakes import HashEmbedder

ROOT = Path(__file__).parents[2]
NOTES = {
    "drill": "The drill weighs two kilograms. Its battery lasts four hours.",
    "saw": "The saw weighs three kilograms. Its blade is changed once a month.",
    "年假": "员工每年有二十五天年假。请提前两周申请。",
}


class Walk:
    """A service with a few notes in it, and ways around everything that guards it."""

    def __init__(self, service: Service, client: TestClient) -> None:
        self.service = service
        self.client = client
        self.caches = service.base.caches
        service.base.caches.attach_vectors()
        client.post("/v1/collections", json={"name": "notes"})
        for title, text in NOTES.items():
            sent = client.post("/v1/collections/notes/documents", json={"title": title, "text": text})
            assert sent.status_code == 202, sent.text
            self.wait(sent.json()["id"])
        self.index_id = service.collection("notes").index_id

    def wait(self, job_id: str) -> None:
        deadline = time.monotonic() + 60
        while self.client.get(f"/v1/jobs/{job_id}").json()["finished_at"] is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/v1/doctor", params={"deep": True}).json()
        return found

    def codes(self) -> set[str]:
        return {item["code"] for item in self.look()["findings"]}

    def ask(self) -> str:
        question = {"question": "How many kilograms does the drill weigh?"}
        return str(self.client.post("/v1/ask", json=question).json()["answer"])

    def sql(self, statement: str) -> None:
        with sqlite3.connect(self.service.settings.data_dir / "catalog.sqlite", isolation_level=None) as connection:
            assert connection.execute(statement).rowcount != 0
        connection.close()

    @property
    def seen(self) -> int:
        seen = self.caches.seen(self.index_id)[1]
        assert seen is not None
        return seen


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    service = Service(Settings(_env_file=None, data_dir=tmp_path / "data", exact_vectors=0), embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        yield Walk(service, client)


def lose_vectors(walk: Walk) -> None:
    walk.caches._vectors.delete(walk.index_id, sorted(walk.caches.held_vectors(walk.index_id))[:1], seen=walk.seen)


def turn_vector(walk: Walk) -> None:
    key = min(walk.caches.held_vectors(walk.index_id))
    walk.caches._vectors.upsert(walk.index_id, [key], np.eye(1, 256, dtype=np.float32), seen=walk.seen)


def add_vector(walk: Walk) -> None:
    walk.caches._vectors.upsert(walk.index_id, [9_999], np.eye(1, 256, dtype=np.float32), seen=walk.seen)


def see_too_much(walk: Walk) -> None:
    walk.caches._vectors.delete(walk.index_id, [9_999], seen=10_000)


def leave_vectors(walk: Walk) -> None:
    walk.caches._vectors.reset(77, catalog_id=walk.service.base.catalog.id, dimension=8)


def lose_terms(walk: Walk) -> None:
    keys = walk.caches.held_terms(walk.index_id)
    walk.caches._terms.apply(term_space(walk.index_id), remove=sorted(keys)[:1], add=[], seen=walk.seen)


def add_terms(walk: Walk) -> None:
    entries = [TermEntry(9_999, "", "drill drill drill")]
    walk.caches._terms.apply(term_space(walk.index_id), remove=[], add=entries, seen=walk.seen)


def double_terms(walk: Walk) -> None:
    terms: Any = walk.caches._terms
    opened = terms._opened(term_space(walk.index_id))
    writer = terms._writer(term_space(walk.index_id), opened)
    from rag.search.terms import _document

    writer.add_document(_document(min(walk.caches.held_terms(walk.index_id)), ("", "drill")))
    writer.commit()
    opened.index.reload()


def leave_terms(walk: Walk) -> None:
    walk.caches._terms.reset("ix-77", catalog_id=walk.service.base.catalog.id)


def flip_bit(walk: Walk) -> None:
    path = next((walk.service.settings.data_dir / "originals").glob("??/*"))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def change_text(walk: Walk) -> None:
    walk.sql("UPDATE chunks SET text = replace(text, 'two kilograms', 'ten kilograms')")


PLANTED: list[tuple[Callable[[Walk], None], str]] = [
    (lose_vectors, "chroma-missing"),
    (turn_vector, "chroma-differs"),
    (add_vector, "chroma-orphan"),
    (see_too_much, "chroma-ahead"),
    (leave_vectors, "chroma-stray"),
    (lose_terms, "terms-missing"),
    (add_terms, "terms-orphan"),
    (double_terms, "terms-twice"),
    (leave_terms, "terms-stray"),
    (flip_bit, "original-damaged"),
    (change_text, "chunk-differs"),
]


def test_what_is_planted_is_found_and_repaired_and_nothing_else_is_found(walk: Walk) -> None:
    """One service for all of them: it is the same one afterwards, and answers as before."""
    assert walk.look()["findings"] == []
    assert "two kilograms" in walk.ask()
    for plant, code in PLANTED:
        plant(walk)
        found = walk.look()
        assert {item["code"] for item in found["findings"]} == {code}, plant.__name__
        assert found["ok"] == (found["findings"][0]["level"] == "note")
        repaired = walk.client.post("/v1/doctor/repair").json()
        assert repaired["ok"], repaired
        assert next(item for item in repaired["findings"] if item["code"] == code)["repaired"]
        left = {"original-lost"} if plant is flip_bit else set()
        assert walk.codes() == left, plant.__name__
        if left:  # what it needs is said, and helps
            for title, text in NOTES.items():
                again = {"title": title, "text": text}
                walk.wait(walk.client.post("/v1/collections/notes/documents", json=again).json()["id"])
        assert "two kilograms" in walk.ask()
    assert walk.codes() <= {"original-lost"}


@pytest.mark.models
@pytest.mark.slow
def test_the_command_line_finds_repairs_and_ends_with_the_code_that_fits(tmp_path: Path) -> None:
    folder = tmp_path / "manuals"
    folder.mkdir()
    (folder / "hours.md").write_text("The Rotterdam office is open from 8:30 to 17:30 on weekdays.")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")}
    paths = {"ATTEST_ALLOWED_ROOTS": str(tmp_path), "ATTEST_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}

    def attest(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app.cli", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=clean | paths, capture_output=True, text=True, timeout=300, check=False
        )

    assert attest("sources", "add", "manuals", "--folder", "manuals").returncode == 0
    assert attest("sync").returncode == 0
    done = attest("doctor", "--deep")
    assert (done.returncode, "agrees" in done.stderr) == (0, True), done.stdout + done.stderr

    with sqlite3.connect(tmp_path / "data" / "catalog.sqlite") as connection:
        connection.execute("UPDATE chunks SET text = 'The office is closed.'")
    connection.close()
    done = attest("doctor", "--deep")
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if line.startswith("chunk-differs"))
    assert line.split("\t")[1] == "problem"
    assert "attest doctor --deep --repair" in line

    done = attest("doctor", "--repair", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(item["code"], item["repaired"]) for item in json.loads(done.stdout)["findings"]] == [
        ("chunk-differs", True)
    ]
    assert attest("doctor", "--deep").returncode == 0
    assert "8:30" in attest("ask", "When does the Rotterdam office open?").stdout
