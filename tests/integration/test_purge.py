"""A purged document is in no byte of the data folder: catalog, its log, caches, originals, answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.settings import Settings
from tests.fakes import HashEmbedder

PLANTED = "quibblewort"  # in the text, lower case as the terms have it
TITLE = "Zanzibarian ledger"
PLACES = ("manual", "catalogue", "wiki", "policy", "roster")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=[0, 20_000], ids=["chroma", "exact"])
def client(request: pytest.FixtureRequest, data: Path) -> Iterator[TestClient]:
    service = Service(Settings(_env_file=None, data_dir=data, exact_vectors=request.param), embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost") as client:
        deadline = time.monotonic() + 60
        while client.get("/readyz").json()["parts"]["chroma"] != "ok" and time.monotonic() < deadline:
            time.sleep(0.05)
        yield client


def add(client: TestClient, title: str, text: str, **more: Any) -> str:
    job = client.post("/v1/collections/default/documents", json={"title": title, "text": text, **more}).json()
    while not job["finished_at"]:
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job
    return str(job["items"][0]["document_id"])


def files_with(folder: Path, planted: str) -> list[str]:
    """Names of the files in which some letters of it stand, in any case and in either encoding that a store may use."""
    needles = [planted.lower().encode(encoding) for encoding in ("utf-8", "utf-16-le")]
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes().lower() for needle in needles)
    )


def test_after_a_purge_no_file_of_the_data_folder_holds_a_planted_word(client: TestClient, data: Path) -> None:
    for place in PLACES:
        add(client, place, f"The {place} is kept on shelf {len(place)}. " * 20)
    key = "planted.txt"
    document_id = add(client, TITLE, f"The {PLANTED} opens at noon.", key=key, metadata={"owner": f"{PLANTED}-owner"})
    again = add(client, TITLE, f"The {PLANTED} opens at one.\n\nIt closes at six.", key=key)
    assert again == document_id
    client.patch(f"/v1/documents/{document_id}", json={"tags": [f"{PLANTED}-tag"]}).raise_for_status()
    answered = client.post("/v1/ask", json={"question": f"When does the {PLANTED} open?"}).json()
    assert [item["document_id"] for item in answered["citations"]] == [document_id]
    said = {"answer_id": answered["id"], "helpful": True, "expected": f"The {PLANTED} opens at noon."}
    assert client.post("/v1/feedback", json=said).status_code == 201
    past = client.post("/v1/ask", json={"question": "What opens?", "as_of": answered_at(client, answered["id"])})
    assert past.status_code == 200
    assert files_with(data, PLANTED)

    purged = client.post(f"/v1/documents/{document_id}/purge").json()

    assert purged == {"document_id": document_id, "backups": [], "comes_back": False}
    assert files_with(data, PLANTED) == []
    assert files_with(data, TITLE) == []
    assert client.get(f"/v1/answers/{answered['id']}").status_code == 404
    assert client.get("/v1/feedback").json()["data"] == []
    for call in ("", "/text", "/versions", "/original", "/chunks", "/text?version=1"):
        gone = client.get(f"/v1/documents/{document_id}{call}")
        assert (gone.status_code, gone.json()["type"]) == (410, "/problems/gone"), call
    # … and what stays is whole, and answers.
    found = client.post("/v1/search", json={"question": "Where is the roster kept?"}).json()["hits"]
    assert found[0]["title"] == "roster"
    assert client.get("/v1/doctor", params={"deep": True}).json()["ok"]


def answered_at(client: TestClient, answer_id: str) -> str:
    return str(client.get(f"/v1/answers/{answer_id}").json()["created_at"])


def test_a_purge_names_the_backups_that_still_hold_the_document(client: TestClient) -> None:
    document_id = add(client, TITLE, f"The {PLANTED} opens at noon.")
    job = client.post("/v1/backup").json()
    while not job["finished_at"]:
        time.sleep(0.02)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "succeeded", job
    later = add(client, "later", "This came after the backup.")
    assert client.post(f"/v1/documents/{later}/purge").json()["backups"] == []
    holding = client.post(f"/v1/documents/{document_id}/purge").json()["backups"]
    assert [Path(item["path"]).is_file() for item in holding] == [True]


def test_questions_are_answered_while_a_purge_writes_the_files_anew(client: TestClient) -> None:
    import threading

    for number in range(30):
        add(client, f"note {number}", f"Shelf {number} holds the folder of case {number}.")
    victim = add(client, TITLE, f"The {PLANTED} opens at noon.")
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            response = client.post("/v1/search", json={"question": "Which shelf holds case 7?"})
            statuses.append(response.status_code)
            assert response.json()["hits"][0]["title"] == "note 7"

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert client.post(f"/v1/documents/{victim}/purge").status_code == 200
    finally:
        over.set()
        asking.join()
    assert statuses
    assert set(statuses) == {200}
