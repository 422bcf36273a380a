"""What every VectorIndex promises: the fake, Chroma in a folder, Chroma on a server; exact search agrees with them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from rag.errors import InvalidInput, Unavailable
from rag.ports import VectorIndex, Vectors
from rag.search.exact import ExactIndex
from rag.search.vectors import ChromaIndex, probe
from tests.fakes import MemoryVectors

DIMENSION = 16
Reopen = Callable[[], VectorIndex]


def unit_vectors(count: int, *, seed: int = 1, dimension: int = DIMENSION) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Chroma server on a free port of loopback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = Path(sys.executable).with_name("chroma")
    folder = tmp_path_factory.mktemp("chroma-server")
    process = subprocess.Popen(
        [str(command), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/api/v2/heartbeat").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the Chroma server ended at once"
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


@pytest.fixture(params=["memory", "folder", "server"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Calling it closes the index and gives the one that a new process would see."""
    made: list[VectorIndex] = []

    def make() -> VectorIndex:
        if request.param == "memory":
            return made[-1] if made else MemoryVectors()
        if request.param == "folder":
            return ChromaIndex(path=tmp_path / "chroma")
        return ChromaIndex(url=request.getfixturevalue("server"))

    def again() -> VectorIndex:
        if made:
            made[-1].close()
        made.append(make())
        return made[-1]

    yield again
    made[-1].close()


@pytest.fixture
def index(reopen: Reopen) -> VectorIndex:
    opened = reopen()
    opened.reset(1, catalog_id="catalog-a", dimension=DIMENSION)
    return opened


class TestVectorIndex:
    def test_a_missing_space_has_seen_nothing(self, reopen: Reopen) -> None:
        assert reopen().open(77, catalog_id="catalog-a", dimension=DIMENSION) is None

    def test_an_empty_space_has_seen_change_zero_and_finds_nothing(self, index: VectorIndex) -> None:
        assert index.open(1, catalog_id="catalog-a", dimension=DIMENSION) == 0
        assert index.search(1, unit_vectors(1)[0], k=5) == []
        assert index.keys(1) == set()

    def test_the_nearest_come_first_with_their_cosine(self, index: VectorIndex) -> None:
        vectors = unit_vectors(50)
        index.upsert(1, range(100, 150), vectors, seen=1)
        found = index.search(1, vectors[7], k=10)
        assert found[0][0] == 107
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        for key, score in found:
            assert score == pytest.approx(float(vectors[key - 100] @ vectors[7]), abs=1e-5)

    def test_asking_for_more_than_there_is_gives_what_there_is(self, index: VectorIndex) -> None:
        index.upsert(1, [1, 2, 3], unit_vectors(3), seen=1)
        assert {key for key, _ in index.search(1, unit_vectors(1)[0], k=100)} == {1, 2, 3}
        assert index.search(1, unit_vectors(1)[0], k=0) == []

    def test_writing_twice_is_once_and_the_last_vector_counts(self, index: VectorIndex) -> None:
        old, new = unit_vectors(4, seed=2), unit_vectors(4, seed=3)
        index.upsert(1, [1, 2, 3, 4], old, seen=1)
        index.upsert(1, [1, 2, 3, 4], old, seen=1)
        index.upsert(1, [2], new[1:2], seen=2)
        assert index.keys(1) == {1, 2, 3, 4}
        assert len(index.search(1, old[0], k=10)) == 4
        [(key, score)] = index.search(1, new[1], k=1)
        assert (key, round(score, 4)) == (2, 1.0)

    def test_what_is_deleted_is_not_found_and_deleting_nothing_is_fine(self, index: VectorIndex) -> None:
        vectors = unit_vectors(5)
        index.upsert(1, range(5), vectors, seen=1)
        index.delete(1, [3, 999], seen=2)
        index.delete(1, [3], seen=3)
        index.delete(1, [], seen=4)
        assert index.keys(1) == {0, 1, 2, 4}
        assert 3 not in {key for key, _ in index.search(1, vectors[3], k=10)}

    def test_it_says_what_it_has_seen_and_which_spaces_it_has(self, reopen: Reopen, index: VectorIndex) -> None:
        index.upsert(1, [5], unit_vectors(1), seen=7)
        assert index.seen(1) == 7
        index.reset(2, catalog_id="catalog-a", dimension=DIMENSION)
        assert index.spaces() >= {1, 2}
        index.drop(2)
        assert 2 not in index.spaces()

    def test_more_than_a_batch_is_written_read_and_deleted(self, index: VectorIndex) -> None:
        vectors = unit_vectors(2_500)
        index.upsert(1, range(2_500), vectors, seen=1)
        assert index.keys(1) == set(range(2_500))
        index.delete(1, range(2_400), seen=2)
        assert index.keys(1) == set(range(2_400, 2_500))
        assert len(index.search(1, vectors[2_450], k=100)) == 100

    def test_a_reset_space_is_empty(self, index: VectorIndex) -> None:
        index.upsert(1, [1], unit_vectors(1), seen=5)
        index.reset(1, catalog_id="catalog-a", dimension=8)
        assert index.open(1, catalog_id="catalog-a", dimension=8) == 0
        assert index.keys(1) == set()
        index.upsert(1, [9], unit_vectors(1, dimension=8), seen=6)
        assert index.keys(1) == {9}

    def test_a_dropped_space_is_gone_and_may_be_dropped_again(self, index: VectorIndex) -> None:
        index.drop(1)
        index.drop(1)
        assert index.open(1, catalog_id="catalog-a", dimension=DIMENSION) is None
        with pytest.raises(Unavailable):
            index.search(1, unit_vectors(1)[0], k=1)

    def test_spaces_do_not_see_each_other(self, index: VectorIndex) -> None:
        index.reset(2, catalog_id="catalog-a", dimension=DIMENSION)
        index.upsert(1, [1], unit_vectors(1), seen=1)
        index.upsert(2, [2], unit_vectors(1), seen=1)
        assert (index.keys(1), index.keys(2)) == ({1}, {2})
        index.drop(2)

    def test_what_was_written_and_seen_survives_closing(self, reopen: Reopen, index: VectorIndex) -> None:
        vectors = unit_vectors(10)
        index.upsert(1, range(10), vectors, seen=41)
        index.delete(1, [0], seen=42)
        again = reopen()
        assert again.open(1, catalog_id="catalog-a", dimension=DIMENSION) == 42
        assert again.keys(1) == set(range(1, 10))
        assert again.search(1, vectors[5], k=1)[0][0] == 5

    def test_another_catalog_or_dimension_has_seen_nothing(self, reopen: Reopen, index: VectorIndex) -> None:
        index.upsert(1, [1], unit_vectors(1), seen=3)
        again = reopen()
        assert again.open(1, catalog_id="catalog-b", dimension=DIMENSION) is None
        assert again.open(1, catalog_id="catalog-a", dimension=DIMENSION + 1) is None
        assert again.open(1, catalog_id="catalog-a", dimension=DIMENSION) == 3

    def test_stored_vectors_are_read_back(self, index: VectorIndex) -> None:
        vectors = unit_vectors(1_200)
        index.upsert(1, range(1_200), vectors, seen=1)
        index.delete(1, [3], seen=2)
        found = index.vectors(1, [1_199, 7, 3, 99_999])
        assert set(found) == {7, 1_199}
        np.testing.assert_allclose(found[7], vectors[7], atol=1e-6)
        assert index.vectors(1, []) == {}

    def test_a_wiped_place_is_empty_and_can_be_used_again(self, index: VectorIndex) -> None:
        index.upsert(1, [1, 2], unit_vectors(2), seen=1)
        index.wipe()
        with pytest.raises(Unavailable):
            index.search(1, unit_vectors(1)[0], k=1)
        assert index.open(1, catalog_id="catalog-a", dimension=DIMENSION) is None
        index.reset(1, catalog_id="catalog-a", dimension=DIMENSION)
        assert index.keys(1) == set()
        assert not index.bloated()

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_vectors_that_are_not_finite_are_refused(self, index: VectorIndex, value: float) -> None:
        broken = unit_vectors(2)
        broken[1, 0] = value
        with pytest.raises(InvalidInput):
            index.upsert(1, [1, 2], broken, seen=1)
        assert index.keys(1) == set()

    def test_vectors_of_another_dimension_are_refused(self, index: VectorIndex) -> None:
        with pytest.raises(InvalidInput):
            index.upsert(1, [1], unit_vectors(1, dimension=DIMENSION * 2), seen=1)
        with pytest.raises(InvalidInput):
            index.search(1, unit_vectors(1, dimension=DIMENSION * 2)[0], k=1)

    def test_threads_may_read_and_write_together(self, index: VectorIndex) -> None:
        vectors = unit_vectors(400)

        def work(part: int) -> None:
            for start in range(part * 100, part * 100 + 100, 20):
                index.upsert(1, range(start, start + 20), vectors[start : start + 20], seen=start)
                assert index.search(1, vectors[start], k=3)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert index.keys(1) == set(range(400))

    def test_exact_search_agrees(self, index: VectorIndex) -> None:
        vectors, questions = unit_vectors(300), unit_vectors(20, seed=9)
        index.upsert(1, range(300), vectors, seen=1)
        exact = ExactIndex()
        exact.load(1, range(300), vectors.astype(np.float16))
        shared = [
            len({key for key, _ in index.search(1, q, k=10)} & {key for key, _ in exact.search(1, q, k=10)})
            for q in questions
        ]
        assert sum(shared) >= 195  # of 200: one is approximate, the other holds half precision


class TestChroma:
    def test_a_server_that_is_down_is_unavailable_with_a_remedy(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(Unavailable, match="ATTEST_CHROMA_URL"):
                ChromaIndex(url=url).open(1, catalog_id="c", dimension=4)

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://host:port", "http://host/v2", "http://"])
    def test_an_address_that_is_none_is_refused_at_once(self, url: str) -> None:
        with pytest.raises(InvalidInput, match="http://host:port"):
            ChromaIndex(url=url)

    def test_two_catalogs_share_a_server(self, server: str) -> None:
        ours, theirs = ChromaIndex(url=server), ChromaIndex(url=server)
        ours.reset(5, catalog_id="first-catalog", dimension=4)
        theirs.reset(5, catalog_id="other-catalog", dimension=4)
        ours.upsert(5, [1], unit_vectors(1, dimension=4), seen=1)
        assert theirs.keys(5) == set()
        theirs.drop(5)
        assert ours.keys(5) == {1}
        ours.close()
        theirs.close()

    def test_ef_search_grows_with_the_collection(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rag.search.vectors._EF_SEARCH", ((20, 250), (0, 100)))
        index = ChromaIndex(path=tmp_path)
        index.reset(1, catalog_id="c", dimension=DIMENSION)
        index.upsert(1, range(30), unit_vectors(30), seen=4)
        configured = index._spaces[1].collection._client.get_collection("ix-1").configuration_json["hnsw"]
        assert (configured["ef_search"], configured["space"]) == (250, "cosine")
        assert index.open(1, catalog_id="c", dimension=DIMENSION) == 4
        index.close()

    def test_a_wider_search_is_used_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("rag.search.vectors._EF_SEARCH", ((4_000, 400), (0, 1)))
        vectors, asked = unit_vectors(4_000, dimension=64), unit_vectors(50, seed=3, dimension=64)
        index, exact = ChromaIndex(path=tmp_path), ExactIndex()
        index.reset(1, catalog_id="c", dimension=64)
        exact.load(1, range(4_000), vectors)

        def recall() -> float:
            shared = [{key for key, _ in index.search(1, one, k=10)} & {key for key, _ in exact.search(1, one, k=10)}
                      for one in asked]  # fmt: skip
            return sum(map(len, shared)) / 500

        index.upsert(1, range(3_999), vectors[:3_999], seen=1)
        narrow = recall()
        index.upsert(1, [3_999], vectors[3_999:], seen=1)
        assert recall() > max(0.98, narrow)
        assert index.keys(1) == set(range(4_000))
        index.close()

    def test_it_searches_twice_as_widely_as_before_also_after_a_restart(self, tmp_path: Path) -> None:
        index = ChromaIndex(path=tmp_path)
        index.reset(1, catalog_id="c", dimension=DIMENSION)
        index.upsert(1, range(20), unit_vectors(20), seen=1)
        widths = [index._spaces[1].ef_search]
        while index.widen(1):
            widths.append(index._spaces[1].ef_search)
        assert widths == [100, 200, 400, 800, 1600, 2000]
        assert len(index.search(1, unit_vectors(1)[0], k=5)) == 5
        index.close()
        again = ChromaIndex(path=tmp_path)
        assert again.open(1, catalog_id="c", dimension=DIMENSION) == 1
        assert again._spaces[1].ef_search == 2000
        again.close()

    def test_what_is_replaced_again_and_again_is_bloated_and_a_successor_is_not(self, tmp_path: Path) -> None:
        index, vectors = ChromaIndex(path=tmp_path), unit_vectors(1_000, dimension=384)
        index.reset(1, catalog_id="c", dimension=384)
        index.upsert(1, range(1_000), vectors, seen=1)
        assert not index.bloated()
        for turn in range(1, 4):
            index.upsert(1, range(turn * 1_000, turn * 1_000 + 1_000), vectors, seen=1)
            index.delete(1, range(turn * 1_000 - 1_000, turn * 1_000), seen=1)
        assert index.bloated()
        successor = index.successor()
        assert successor is not None
        successor.reset(1, catalog_id="c", dimension=384)
        successor.upsert(1, range(3_000, 4_000), vectors, seen=1)
        assert index.search(1, vectors[7], k=1)[0][0] == 3_007  # it goes on
        index.wipe()
        assert not successor.bloated()
        assert successor.search(1, vectors[7], k=1)[0][0] == 3_007
        successor.close()
        again = ChromaIndex(path=tmp_path)
        assert again.open(1, catalog_id="c", dimension=384) == 1
        assert [entry.name for entry in tmp_path.iterdir()] == ["2"]
        again.close()

    def test_a_successor_that_was_not_finished_is_forgotten_and_the_old_one_counts(self, tmp_path: Path) -> None:
        fill(tmp_path)
        killed = ChromaIndex(path=tmp_path)
        successor = killed.successor()
        assert successor is not None
        successor.reset(1, catalog_id="c", dimension=DIMENSION)
        successor.close()
        killed.close()
        (tmp_path / "gone-1").mkdir()
        (tmp_path / "chroma.sqlite3").write_bytes(b"of before folders had numbers")
        assert probe(tmp_path)
        index = ChromaIndex(path=tmp_path)
        assert index.open(1, catalog_id="c", dimension=DIMENSION) == 1
        assert len(index.keys(1)) == 2_100
        assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
        index.close()

    def test_a_sound_folder_passes_the_probe(self, tmp_path: Path) -> None:
        assert probe(tmp_path / "nothing-yet")
        fill(tmp_path)
        assert probe(tmp_path, timeout_seconds=60)

    @pytest.mark.parametrize("name", ["data_level0.bin", "link_lists.bin", "index_metadata.pickle", "chroma.sqlite3"])
    def test_a_torn_folder_fails_the_probe(self, tmp_path: Path, name: str) -> None:
        fill(tmp_path)
        for file in tmp_path.rglob(name):
            os.truncate(file, file.stat().st_size // 3)
        sound = probe(tmp_path, timeout_seconds=30)
        assert not sound or name == "link_lists.bin"  # small graphs have no upper layers to lose

    def test_a_probe_that_takes_too_long_is_a_failure(self, tmp_path: Path) -> None:
        fill(tmp_path)
        assert not probe(tmp_path, timeout_seconds=0.05)


def fill(folder: Path) -> None:
    """More than one flush of Chroma's index, which is written every 1,000 rows."""
    index = ChromaIndex(path=folder)
    index.reset(1, catalog_id="c", dimension=DIMENSION)
    index.upsert(1, range(2_100), unit_vectors(2_100), seen=1)
    index.close()
