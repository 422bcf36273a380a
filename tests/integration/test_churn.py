"""What is replaced again and again, damaged at rest, or served by a Chroma that stops: room stays bounded, and the
caches end up equal to the catalog. Real catalog, Chroma and Tantivy; an embedder that costs nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from rag.catalog import versions
from rag.knowledge import KnowledgeBase
from rag.models import Collection, SourceRecord
from rag.settings import Settings
from rag.wiring import open_knowledge_base
from tests.bases import found_texts, publish_text, source_in
from tests.fakes import HashEmbedder

_DOCUMENTS, _LINES = 10, 40


def opened(folder: Path, *, server: str | None = None, dimension: int = 64) -> KnowledgeBase:
    folder.mkdir(exist_ok=True)
    settings = Settings(data_dir=folder, chroma_url=server)
    base = open_knowledge_base(settings, embedder=HashEmbedder(dimension=dimension))
    base.caches.attach_terms()
    base.caches.attach_vectors()
    return base


def closed(base: KnowledgeBase) -> None:
    base.caches.close()
    base.catalog.close()


def publish_edition(base: KnowledgeBase, number: int, *, documents: int = _DOCUMENTS, lines: int = _LINES) -> None:
    collection, source = source_in(base)
    for document in range(documents):
        publish_text(
            base,
            collection,
            source,
            f"{document}.txt",
            "\n".join(f"Edition {number}, rule r{line} of document d{document}." for line in range(lines)),
        )


def assert_in_step(base: KnowledgeBase) -> None:
    """Keys both ways, and the vectors themselves."""
    collection, _ = source_in(base)
    assert base.caches.vectors_problem is None
    assert base.caches.is_attached(collection.index_id)
    with base.catalog.read() as snapshot:
        active = versions.active_keys(snapshot, collection.index_id)
        keys, matrix = versions.vectors_of(snapshot, sorted(active))
    assert base.caches.keys(collection) == {"terms": active, "vectors": active}
    stored = base.caches.vectors_in_chroma(collection.index_id, keys)
    np.testing.assert_allclose(np.stack([stored[key] for key in keys]), matrix, atol=1e-5)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for part in ("chroma", "terms") for file in (folder / part).rglob("*"))


def test_replacing_every_document_again_and_again_leaves_no_more_than_twice_of_a_fresh_build(tmp_path: Path) -> None:
    base, fresh = opened(tmp_path / "churned", dimension=384), opened(tmp_path / "fresh", dimension=384)
    publish_edition(fresh, 7)
    renewed = 0
    for number in range(8):
        publish_edition(base, number)
        renewed += base.caches.compact()
        assert not base.caches.compact()  # once is enough
    assert renewed
    assert_in_step(base)
    assert size(tmp_path / "churned") <= 2 * size(tmp_path / "fresh")
    closed(fresh)
    closed(base)
    base = opened(tmp_path / "churned", dimension=384)
    assert_in_step(base)
    assert "Edition 7" in found_texts(base, "What is rule r3 of document d5?")[0]
    closed(base)


def test_questions_and_publishing_go_on_while_vectors_are_renewed(tmp_path: Path) -> None:
    base = opened(tmp_path)
    publish_edition(base, 0)
    done = threading.Event()
    renewing = threading.Thread(target=lambda: (base.caches.renew_vectors(), done.set()))
    renewing.start()
    number = 1
    while not done.is_set() or number < 3:
        publish_edition(base, number, documents=2)
        assert f"Edition {number}" in found_texts(base, "What is rule r3 of document d1?")[0]
        number += 1
    renewing.join()
    assert_in_step(base)
    closed(base)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose index in Chroma has been written (which is every 1,000 vectors)."""
    folder = tmp_path_factory.mktemp("sound")
    base = opened(folder)
    publish_edition(base, 0, documents=4, lines=300)
    publish_edition(base, 1, documents=1, lines=300)
    closed(base)
    return folder


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
@pytest.mark.parametrize(
    "name",
    [
        "chroma.sqlite3",
        "data_level0.bin",
        "header.bin",
        "length.bin",
        "link_lists.bin",
        "index_metadata.pickle",
        "marker.json",
        "meta.json",
        ".managed.json",
        "*.term",
        "*.idx",
        "*.fast",
        "chroma",
        "terms",
    ],
)
def test_whatever_happens_to_a_file_of_the_caches_the_next_start_is_right(
    sound: Path, tmp_path: Path, name: str, damage: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(sound, folder)
    victims = [path for part in ("chroma", "terms") for path in (folder, *(folder / part).rglob("*"))
               for path in ([path] if path.match(name) else [])] or [folder / name]  # fmt: skip
    for victim in victims:
        if victim.is_dir():
            shutil.rmtree(victim)
        elif damage == "gone":
            victim.unlink()
        else:
            data = bytearray(victim.read_bytes())
            middle = len(data) // 2
            if damage == "flipped" and data:
                data[middle] ^= 0x10
            victim.write_bytes(data if damage == "flipped" else data[:middle])
    base = opened(folder)
    assert "Edition 1" in found_texts(base, "What is rule r3 of document d0?")[0]
    if (name, damage) != ("data_level0.bin", "flipped"):  # one number of one vector: the deep check compares those
        assert_in_step(base)
    closed(base)


class Server:
    """A real Chroma server that can be stopped and started again, on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/api/v2/heartbeat").raise_for_status()
                return
            except httpx.HTTPError:
                assert self.process.poll() is None, "the Chroma server ended at once"
                time.sleep(0.1)
        raise AssertionError("the Chroma server does not answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def test_a_chroma_server_may_stop_and_start_in_the_middle(tmp_path: Path, server: Server) -> None:
    base = opened(tmp_path / "data", server=server.url)
    publish_edition(base, 0, documents=5)
    server.stop()
    publish_edition(base, 1, documents=3)
    assert base.caches.vectors_problem is not None
    assert "Edition 1" in found_texts(base, "What is rule r3 of document d1?")[0]
    assert "Edition 0" in found_texts(base, "What is rule r3 of document d4?")[0]
    assert not base.caches.attach_vectors()
    server.start()
    assert base.caches.attach_vectors()
    publish_edition(base, 2, documents=2)
    assert_in_step(base)
    closed(base)


def test_a_server_that_lost_everything_is_filled_again(tmp_path: Path, server: Server) -> None:
    base = opened(tmp_path / "data", server=server.url)
    publish_edition(base, 0, documents=3)
    server.stop()
    shutil.rmtree(server.folder)
    server.start()
    assert "Edition 0" in found_texts(base, "What is rule r3 of document d1?")[0]
    publish_edition(base, 1, documents=2)
    assert base.caches.attach_vectors()
    assert_in_step(base)
    closed(base)


def test_two_knowledge_bases_on_one_server_leave_each_other_alone(tmp_path: Path, server: Server) -> None:
    ours, theirs = (opened(tmp_path / name, server=server.url) for name in ("ours", "theirs"))
    publish_edition(ours, 0, documents=3)
    publish_edition(theirs, 5, documents=2)
    assert ours.caches.renew_vectors()  # on a server: our collections dropped and filled again
    assert_in_step(theirs)
    assert_in_step(ours)
    collection: Collection
    source: SourceRecord
    collection, source = source_in(ours)
    ours.caches.erase(collection, source_id=source.id)
    assert_in_step(theirs)
    closed(ours)
    closed(theirs)
