"""A disk that is full: the job says so, questions are answered, and when there is room again everything is made up for.

A file system of a few MB in memory is mounted for it, which takes root.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.service import Service
from rag.catalog import versions
from rag.catalog.engine import Catalog, next_change
from rag.disk import free_bytes
from rag.errors import DiskFull
from rag.models import Item
from rag.search.terms import TantivyIndex
from rag.search.vectors import ChromaIndex
from rag.settings import Settings
from rag.storage.originals import Originals
from rag.upkeep.backup import create, verify
from tests.bases import Bases, file, found_texts, runs_in
from tests.fakes import HashEmbedder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")

_SIZE_MB = 40


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE_MB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, *, leave_kb: int = 0) -> Path:
    """Take all of the disk but so much. Deleting the file that is returned gives it back."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        while True:
            wanted = min(free_bytes(disk) - leave_kb * 1024, 1024 * 1024)
            if wanted <= 0:
                return ballast
            try:
                file.write(bytes(wanted))
            except OSError:
                return ballast


def finished(client: TestClient, job: dict[str, Any], *, seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job['id']}").json()
        if found["finished_at"]:
            return found
        time.sleep(0.05)
    raise AssertionError(f"the job did not end: {found}")


def assert_caches_equal_the_catalog(service: Service) -> None:
    base = service.base
    deadline = time.monotonic() + 60
    while base.caches.is_late and time.monotonic() < deadline:
        time.sleep(0.1)
    [collection] = base.collections([])
    with base.catalog.read() as snapshot:
        wanted = versions.active_keys(snapshot, collection.index_id)
        keys, matrix = versions.active_vectors(snapshot, collection.index_id)
        assert versions.pending_flips(snapshot) == []
    assert base.caches.keys(collection) == {"terms": wanted, "vectors": wanted}
    for row in range(0, len(keys), max(1, len(keys) // 20)):  # what the keys do not show: whether Chroma finds them
        with base.catalog.read() as snapshot:
            found = base.caches.search_vectors(snapshot, collection.index_id, matrix[row].astype("float32"), k=10)
        assert found[0][1] > 0.999


def write_documents(folder: Path, *, count: int, edition: int) -> None:
    for number in range(count):
        text = "\n\n".join(
            f"Valve {number}-{part} of edition {edition} closes at {number + part} bar." for part in range(60)
        )
        (folder / f"valve-{number}.txt").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("leave_kb", [0, 40, 200, 600, 1500, 3000])
def test_a_sync_on_a_full_disk_fails_with_that_reason_and_is_made_up_for_later(
    disk: Path, tmp_path: Path, leave_kb: int
) -> None:
    """With different room left, it is another part that meets the end of the disk first."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "hours.txt").write_text("The Rotterdam office is open from 8:30 to 17:30 on weekdays.")
    settings = Settings(_env_file=None, data_dir=disk / "data", allowed_roots=str(tmp_path), exact_vectors=0)
    service = Service(settings, embedder=HashEmbedder())
    with TestClient(create_app(service), base_url="http://localhost", raise_server_exceptions=False) as client:
        client.post("/v1/collections", json={"name": "manuals"}).raise_for_status()
        source = client.post(
            "/v1/collections/manuals/sources", json={"name": "docs", "kind": "folder", "config": {"path": str(docs)}}
        ).json()

        def sync() -> dict[str, Any]:
            response = client.post(f"/v1/sources/{source['id']}/sync", json={})
            if (
                response.status_code == 507
            ):  # not a page was left; the reserve that this gives back lets the next one in
                assert response.json()["type"] == "/problems/disk-full"
                response = client.post(f"/v1/sources/{source['id']}/sync", json={})
            assert response.status_code == 202, response.text
            return finished(client, response.json())

        assert sync()["state"] == "succeeded"
        write_documents(docs, count=150, edition=1)
        ballast = fill(disk, leave_kb=leave_kb)
        failed = sync()
        assert failed["state"] in ("failed", "partial"), failed
        assert failed["problem"]["code"] == "disk-full", failed["problem"]
        assert str(disk / "data") in failed["problem"]["detail"]
        assert "Free some space" in failed["problem"]["remedy"]

        answer = client.post("/v1/ask", json={"question": "When is the Rotterdam office open?"})
        assert answer.status_code == 200, answer.text
        assert "8:30" in answer.json()["answer"]
        upload = client.post("/v1/collections/manuals/documents", json={"title": "big", "text": "word " * 200_000})
        if upload.status_code != 202:
            assert (upload.status_code, upload.json()["type"]) == (507, "/problems/disk-full")

        ballast.unlink()
        if upload.status_code == 202:
            finished(client, upload.json())
        again = sync()
        assert again["state"] == "succeeded", again
        documents = client.get("/v1/collections/manuals/documents", params={"limit": 500}).json()["data"]
        assert {item["status"] for item in documents} == {"ok"}
        assert len([item for item in documents if item["uri"].endswith("txt")]) >= 151
        assert_caches_equal_the_catalog(service)
        answer = client.post("/v1/ask", json={"question": "At how many bar does valve 77-13 close?"}).json()
        assert "90 bar" in answer["answer"]
        assert sync()["counts"]["unchanged"] == 151


def test_a_catalog_on_a_full_disk_says_so_is_whole_and_goes_on_later(disk: Path) -> None:
    catalog = Catalog(disk / "catalog.sqlite")
    ballast = fill(disk)

    def write_much() -> None:
        with catalog.write() as connection:
            next_change(connection)
            connection.exec_driver_sql("INSERT INTO facts (name, value) VALUES ('big', hex(randomblob(2000000)))")

    with pytest.raises(DiskFull, match="disk is full"):
        write_much()
    with catalog.read() as snapshot:
        assert snapshot.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    with catalog.write() as connection:  # what was kept in reserve lets a small one through
        change = next_change(connection)
    ballast.unlink()
    with catalog.write() as connection:
        assert next_change(connection) == change + 1
    catalog.close()


@pytest.mark.slow
@pytest.mark.parametrize("leave_kb", [0, 8, 30, 100, 300])
def test_caches_on_a_full_disk_fall_behind_answer_all_the_same_and_catch_up(
    disk: Path, tmp_path: Path, leave_kb: int
) -> None:
    """Only they are on it, so that Chroma and Tantivy meet its end and not the catalog."""
    bases = Bases(tmp_path, vectors=ChromaIndex(path=disk / "chroma"), terms=TantivyIndex(path=disk / "terms"))
    runs = runs_in(bases.open())
    caches = runs.base.caches

    def edition(number: int) -> list[Item]:
        return [
            file(
                f"{key}.txt",
                "\n\n".join(f"Rule {key}-{part} of edition {number} says {key * part}." for part in range(20)),
            )
            for key in range(60)
        ]

    runs.sync(*edition(1))
    assert not caches.is_late
    ballast = fill(disk, leave_kb=leave_kb)
    for number in (2, 3):
        with suppress(DiskFull):
            runs.sync(*edition(number), allow_deletes=True)
        texts = found_texts(runs.base, "What does rule 17-5 say?")
        assert texts
        assert len({text.partition("edition ")[2][0] for text in texts}) == 1, "two editions in one answer"
    assert (caches.is_late, caches.catch_up()) == (True, False)

    ballast.unlink()
    assert (caches.catch_up(), caches.is_late) == (True, False)
    runs.sync(*edition(3), allow_deletes=True)
    with runs.base.catalog.read() as snapshot:
        wanted = versions.active_keys(snapshot, runs.collection.index_id)
        keys, matrix = versions.active_vectors(snapshot, runs.collection.index_id)
        assert versions.pending_flips(snapshot) == []
        for row in range(0, len(keys), 7):
            found = caches.search_vectors(snapshot, runs.collection.index_id, matrix[row].astype("float32"), k=10)
            assert found[0][1] > 0.999
    assert caches.keys(runs.collection) == {"terms": wanted, "vectors": wanted}
    assert "edition 3" in found_texts(runs.base, "What does rule 17-5 say?")[0]
    caches.close()
    bases.close()


def test_an_original_on_a_full_disk_is_whole_or_not_there(disk: Path) -> None:
    originals = Originals(disk / "originals")
    originals.put(b"small")
    ballast = fill(disk, leave_kb=50)
    with pytest.raises(DiskFull, match="originals"):
        originals.put(b"x" * 200_000)
    assert list(originals.digests()) == [originals.put(b"small")]
    assert not list(disk.rglob("*.part"))
    ballast.unlink()
    originals.put(b"x" * 200_000)


@pytest.mark.parametrize("leave_kb", [0, 100, 300])
def test_a_backup_on_a_full_disk_leaves_nothing_behind(disk: Path, tmp_path: Path, leave_kb: int) -> None:
    catalog, originals = Catalog(tmp_path / "catalog.sqlite"), Originals(tmp_path / "originals")
    ballast = fill(disk, leave_kb=leave_kb)
    with pytest.raises(DiskFull, match="disk is full"):
        create(catalog, originals, disk / "b.tar", settings={})
    assert list(disk.iterdir()) == [ballast]
    ballast.unlink()
    create(catalog, originals, disk / "b.tar", settings={})
    assert verify(disk / "b.tar").ok
    catalog.close()
