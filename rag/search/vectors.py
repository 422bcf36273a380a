"""The door to Chroma: approximate nearest neighbours, embedded in a folder or on a server.

`python -m rag.search.vectors FOLDER` checks an embedded folder and ends with 0 when it is sound (see `probe`).

Chroma 1.5.9 never gives back what was deleted, neither vectors nor whole collections, neither disk nor memory nor file
descriptors. So the folder holds numbered folders, each a Chroma of its own: a successor is built beside the one in use
(`successor`), then takes its place (`wipe` of the old one). Of several that a kill may leave, the lowest counts: the
others were not finished.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from rag.errors import InvalidInput, Unavailable
from rag.ports import Vectors

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

FORMAT = 1
_GONE = "gone-"  # before the name of a folder that is being deleted
_BATCH = 1_000  # one flush of Chroma's index; get_max_batch_size() is 5,461 on the smallest SQLite
_PAGE = 10_000
_SERVER_TIMEOUT_SECONDS = 30.0
_LAST_CALLS_SECONDS = 10.0  # `close` waits so long for calls that are still inside Chroma
# What a fresh build takes, fitted to 0–20,000 vectors of 64 and 384 numbers (within 6 %, link lists included): an empty
# SQLite; each row in it; the queue of the last 1,000 writes; and the index, which is written every 1,000 rows, and is
# small and empty until then.
_EMPTY_BYTES, _ROW_BYTES, _LINK_BYTES, _QUEUED = 190_000, 125, 181, 1_000
_BLOATED = 1.7  # times as large as a fresh build: 1 to 2 while documents are replaced, and a rebuild for as many writes
_SPARED_BYTES = 1_000_000  # less than that is not worth a rebuild
_HEAPS = 2
_M_ARENA_MAX = -8  # of malloc.h
# With the default of 100 recall@10 is .99 at 100,000 vectors and .70 at 500,000.
_EF_SEARCH = ((500_000, 500), (200_000, 300), (50_000, 200), (0, 100))
_MOST_EF_SEARCH = 2_000
_EF_SEARCH_ON_SERVER = 300  # from the first: a raise is searched with only after the server was started again


@dataclass(slots=True)
class _Space:
    collection: Collection
    catalog_id: str
    dimension: int
    seen: int
    size: int  # upper bound, for ef_search
    ef_search: int


class ChromaIndex:
    """A VectorIndex in a folder (`path`, owned by this process alone) or on a Chroma server (`url`)."""

    def __init__(self, *, path: Path | None = None, url: str | None = None, number: int | None = None) -> None:
        """`number`: a certain one of the folders in `path`; the one in use by default."""
        if (path is None) == (url is None):
            raise InvalidInput("Chroma is either a folder or a server.", remedy="Give exactly one of path and url.")
        self._path = path
        self._number = number
        self._tidied = path is None or number is not None  # whoever names a folder leaves the others alone
        self._server = None if url is None else _server_address(url)
        self._where = str(path) if url is None else url
        self._client: ClientAPI | None = None
        self._catalog_id: str | None = None
        self._spaces: dict[int, _Space] = {}
        self._connecting = threading.Lock()
        self._calls = threading.Condition()
        self._inside = 0  # calls that are using the client
        self._writing = threading.RLock()

    def open(self, index_id: int, *, catalog_id: str, dimension: int) -> int | None:
        with self._writing, self._chroma() as client:
            from chromadb.errors import NotFoundError

            self._catalog_id = catalog_id
            self._spaces.pop(index_id, None)
            try:
                collection = client.get_collection(self._name(index_id, catalog_id), embedding_function=None)
            except NotFoundError:
                return None
            marker, hnsw = dict(collection.metadata or {}), (collection.configuration_json or {}).get("hnsw") or {}
            seen = marker.get("seen")
            if not isinstance(seen, int) or hnsw.get("space") != "cosine":
                return None
            if marker != _marker(catalog_id, dimension, seen):
                return None
            ef_search = int(hnsw.get("ef_search") or 0)
            self._spaces[index_id] = _Space(collection, catalog_id, dimension, seen, collection.count(), ef_search)
            return seen

    def upsert(self, index_id: int, keys: Sequence[int], vectors: Vectors, *, seen: int) -> None:
        with self._writing:
            space = self._opened(index_id)
            _check(vectors, len(keys), space.dimension)
            rows = {key: row for row, key in enumerate(keys)}  # a key given twice counts once, with its last vector
            names, order = [str(key) for key in rows], list(rows.values())
            with self._chroma(connect=False) as client:
                self._admit(space, seen)
                step = min(_BATCH, client.get_max_batch_size())
                for start in range(0, len(names), step):
                    chosen = vectors[order[start : start + step]]
                    space.collection.upsert(ids=names[start : start + step], embeddings=np.ascontiguousarray(chosen))
                space.size += len(names)
                wanted = next(ef_search for size, ef_search in _EF_SEARCH if space.size >= size)
                reopen = self._search_as_wide_as(space, wanted)
            if reopen:
                self._reopen()

    def delete(self, index_id: int, keys: Sequence[int], *, seen: int) -> None:
        with self._writing:
            space = self._opened(index_id)
            names = list(dict.fromkeys(map(str, keys)))
            with self._chroma(connect=False):
                self._admit(space, seen)
                for start in range(0, len(names), _BATCH):
                    space.collection.delete(ids=names[start : start + _BATCH])

    def search(self, index_id: int, vector: Vectors, *, k: int) -> list[tuple[int, float]]:
        space = self._opened(index_id)
        _check(vector[None], 1, space.dimension)
        if k < 1:
            return []
        with self._chroma(connect=False):
            found = space.collection.query(query_embeddings=[vector], n_results=k, include=["distances"])
        names, distances = found["ids"][0], (found["distances"] or [[]])[0]
        hits = [(int(name), 1.0 - float(distance)) for name, distance in zip(names, distances, strict=True)]
        return sorted(hits, key=lambda hit: -hit[1])

    def keys(self, index_id: int) -> set[int]:
        space, found = self._opened(index_id), set[int]()
        with self._writing, self._chroma(connect=False):  # pages must not shift between two calls
            while True:
                page = space.collection.get(include=[], limit=_PAGE, offset=len(found))["ids"]
                found.update(map(int, page))
                if len(page) < _PAGE:
                    return found

    def vectors(self, index_id: int, keys: Sequence[int]) -> dict[int, Vectors]:
        space, found = self._opened(index_id), dict[int, Vectors]()
        with self._chroma(connect=False):
            for start in range(0, len(keys), _BATCH):
                names = [str(key) for key in keys[start : start + _BATCH]]
                page = space.collection.get(ids=names, include=["embeddings"])
                rows = np.asarray(page["embeddings"], dtype=np.float32)
                found.update(zip(map(int, page["ids"]), rows, strict=True))
        return found

    def seen(self, index_id: int) -> int | None:
        name = self._opened(index_id).collection.name
        with self._chroma(connect=False) as client:
            seen = (client.get_collection(name, embedding_function=None).metadata or {}).get("seen")
        return seen if isinstance(seen, int) else None

    def spaces(self) -> set[int]:
        prefix = self._name(0, self._catalog_id).removesuffix("0")
        with self._chroma() as client:
            names = [listed.name for listed in client.list_collections()]
        found = (re.match(rf"{re.escape(prefix)}(\d+)", name) for name in names)
        return {int(match.group(1)) for match in found if match}

    def reset(self, index_id: int, *, catalog_id: str, dimension: int) -> None:
        with self._writing:
            self._catalog_id = catalog_id
            self.drop(index_id)
            marker, ef_search = _marker(catalog_id, dimension, 0), _EF_SEARCH[-1][1]
            if self._server is not None:
                ef_search = max(ef_search, _EF_SEARCH_ON_SERVER)
            with self._chroma() as client:
                collection = client.create_collection(
                    self._name(index_id, catalog_id),
                    embedding_function=None,
                    metadata=marker,
                    configuration={"hnsw": {"space": "cosine", "ef_search": ef_search}},
                )
            self._spaces[index_id] = _Space(collection, catalog_id, dimension, 0, 0, ef_search)

    def drop(self, index_id: int) -> None:
        with self._writing, self._chroma() as client:
            from chromadb.errors import NotFoundError

            self._spaces.pop(index_id, None)
            try:
                client.delete_collection(self._name(index_id, self._catalog_id))
            except NotFoundError:
                return

    def bloated(self) -> bool:
        folder = self._folder()
        if folder is None or self._client is None:
            return False
        used = sum(size for file in folder.rglob("*") if (size := _size(file)))
        with self._chroma(connect=False):
            needed = _EMPTY_BYTES + sum(
                _needed_bytes(space.collection.count(), space.dimension) for space in list(self._spaces.values())
            )
        return used > _BLOATED * needed and used - needed > _SPARED_BYTES

    def successor(self) -> ChromaIndex | None:
        if self._path is None:
            return None
        with self._chroma():  # the folder in use has been made
            number = max(_numbers(self._path)) + 1
        return ChromaIndex(path=self._path, number=number)

    def wipe(self) -> None:
        with self._writing:
            if self._path is None:
                for index_id in self.spaces():
                    self.drop(index_id)
                return
            folder = self._folder()
            self.close()
            if folder is not None and not self._tidied:
                _tidy(folder.parent, keep=folder.name)
            _give_back_memory()
            self._number, self._tidied = None, True
            if folder is None or not folder.exists():
                return
            gone = folder.with_name(f"{_GONE}{folder.name}")
            try:
                folder.rename(gone)  # at once: half a folder must not look whole
                shutil.rmtree(gone)
            except OSError as error:
                raise self._unavailable(error) from error

    def close(self) -> None:
        """Let go of the folder or the connection. The next call opens it again; spaces must be opened anew."""
        with self._writing, self._connecting:
            self._spaces.clear()
            with self._calls:
                # One that hangs is left behind; it goes on in what it holds, and its answer is an error or is not used.
                self._calls.wait_for(lambda: not self._inside, _LAST_CALLS_SECONDS)
            client, self._client = self._client, None
            if client is not None:
                client.close()
                for session in _sessions(client):  # Chroma leaves its connections open
                    session.close()

    def _folder(self) -> Path | None:
        """The one in use or to be used; None on a server."""
        if self._path is None:
            return None
        if self._number is None:
            self._number = min(_numbers(self._path), default=1)
        return self._path / str(self._number)

    def _name(self, index_id: int, catalog_id: str | None) -> str:
        if self._server is None:
            return f"ix-{index_id}"
        if catalog_id is None:
            raise Unavailable(
                f"Which collections on {self._where} are ours is not known yet.", remedy="Open or reset one first."
            )
        # Several catalogs may share one server.
        return f"{re.sub(r'[^A-Za-z0-9]', '', catalog_id)[:12] or 'attest'}-ix-{index_id}"

    def _opened(self, index_id: int) -> _Space:
        space = self._spaces.get(index_id)
        if space is None:
            raise Unavailable(f"The vectors of index {index_id} are not open.", remedy="They are rebuilt at start.")
        return space

    def _admit(self, space: _Space, seen: int) -> None:
        # Before the write: a cache may admit a change that it has not got (the catalog redoes what is pending),
        # but never hold one that it does not admit.
        if seen != space.seen:
            space.collection.modify(metadata=_marker(space.catalog_id, space.dimension, seen))
            space.seen = seen

    def widen(self, index_id: int) -> bool:
        with self._writing:
            space = self._opened(index_id)
            before = space.ef_search
            with self._chroma(connect=False):
                reopen = self._search_as_wide_as(space, min(2 * before, _MOST_EF_SEARCH))
            if reopen:
                self._reopen()
            return space.ef_search > before

    def _search_as_wide_as(self, space: _Space, wanted: int) -> bool:
        """Whether the folder must be opened anew for it."""
        if wanted <= space.ef_search:
            return False
        with warnings.catch_warnings():
            # Chroma calls a collection without an embedding function "legacy" when its configuration changes.
            warnings.simplefilter("ignore", DeprecationWarning)
            space.collection.modify(configuration={"hnsw": {"ef_search": wanted}})
        space.ef_search = wanted
        return self._server is None

    def _reopen(self) -> None:
        """The folder, opened anew: only then does Chroma search as widely as it was told to (60,000 random vectors of
        128 numbers, told 400 instead of 100: recall@10 .39 before, .77 after)."""
        with self._connecting, self._calls:
            if self._client is None or not self._calls.wait_for(lambda: not self._inside, _LAST_CALLS_SECONDS):
                return
            self._client.close()
            try:
                self._client = client = self._connect()
                for space in self._spaces.values():
                    space.collection = client.get_collection(space.collection.name, embedding_function=None)
            except Exception as error:  # whatever Chroma raises, the question goes on without it
                self._spaces.clear()
                raise self._unavailable(error) from error

    @contextmanager
    def _chroma(self, *, connect: bool = True) -> Iterator[ClientAPI]:
        """The client, and its errors as ours. Chroma raises its own, ValueError, httpx's, and panics. Calls that use an
        opened space do not `connect`: closed meanwhile, it is gone."""
        try:
            with self._connecting:
                client = self._client
                if client is None:
                    if not connect:
                        raise Unavailable(f"Chroma at {self._where} was closed.", remedy="It is opened again shortly.")
                    client = self._client = self._connect()
                with self._calls:
                    self._inside += 1
            try:
                yield client
            finally:
                with self._calls:
                    self._inside -= 1
                    self._calls.notify_all()
        except (Unavailable, InvalidInput):
            raise
        except Exception as error:  # whatever Chroma raises, the question goes on without it
            raise self._unavailable(error) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise self._unavailable(error) from error

    def _connect(self) -> ClientAPI:
        if self._server is None:
            folder = self._folder()
            assert folder is not None
            if not self._tidied:
                _tidy(folder.parent, keep=folder.name)
                self._tidied = True
            return _open_folder(folder)
        import chromadb

        ssl, host, port = self._server
        client = chromadb.HttpClient(host=host, port=port, ssl=ssl, settings=_chroma_settings())
        # Chroma waits for ever by default, and a server with a torn index never answers.
        for session in _sessions(client):
            session.timeout = _SERVER_TIMEOUT_SECONDS
        return client

    def _unavailable(self, error: BaseException) -> Unavailable:
        remedy = (
            "The index is rebuilt from the catalog when the service starts."
            if self._server is None
            else "Check that the server runs and that ATTEST_CHROMA_URL names it."
        )
        reason = str(error).strip().rstrip(".").splitlines() or [type(error).__name__]
        return Unavailable(f"Chroma at {self._where} failed: {reason[0][:300]}.", remedy=remedy)


def _sessions(client: ClientAPI) -> list[Any]:
    """The httpx clients inside a Chroma client of a server (it makes a second one to look up its database)."""
    parts = (client, getattr(client, "_admin_client", None))
    sessions = [getattr(getattr(part, "_server", None), "_session", None) for part in parts]
    return [session for session in sessions if session is not None]


def probe(path: Path, *, timeout_seconds: float = 60.0) -> bool:
    """Whether the one in use in an embedded folder can be opened, read and searched. True where there is none.

    A process killed while Chroma rewrote its index leaves files that hang or crash whoever opens them, so a child
    process tries first. After False: move the folder aside and rebuild from the catalog.
    """
    folder = path / str(min(_numbers(path), default=1))
    if not (folder / "chroma.sqlite3").exists():
        return not folder.exists() or not any(folder.iterdir())
    # The child finds our package where we did, installed or not.
    search_path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *filter(None, sys.path)])
    try:
        child = subprocess.run(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "rag.search.vectors", str(folder)],
            env={**os.environ, "PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return child.returncode == 0


def _sound(path: Path) -> bool:
    client = _open_folder(path)
    for listed in client.list_collections():
        collection = client.get_collection(listed.name, embedding_function=None)
        size, asked, found = collection.count(), 0, 0
        for part in range(4):
            sample = collection.get(limit=5, offset=part * size // 4, include=["embeddings"])
            for name, vector in zip(sample["ids"], np.asarray(sample["embeddings"]), strict=True):
                nearest = collection.query(query_embeddings=[vector], n_results=min(10, size), include=["distances"])
                asked += 1
                found += name in nearest["ids"][0] or min(nearest["distances"][0], default=1.0) < 1e-4
        # The index is approximate: it may miss a vector here and there, but a torn one misses most.
        if found < 0.8 * asked or (size and not asked):
            return False
    client.close()
    return True


def _numbers(path: Path) -> list[int]:
    return [int(entry.name) for entry in path.glob("*") if re.fullmatch("[1-9][0-9]{0,8}", entry.name)]


def _tidy(path: Path, *, keep: str) -> None:
    """What earlier processes left: successors that were not finished, folders half deleted, a Chroma of before there
    were numbers. All of it is made again from the catalog where it is needed."""
    for entry in list(path.glob("*")):
        if entry.name == keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name.startswith("chroma.sqlite3"):
            entry.unlink(missing_ok=True)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # Chroma removes files as it goes
        return 0


def _needed_bytes(count: int, dimension: int) -> int:
    """Of `count` vectors in a collection that never held others."""
    indexed = max(count, 100) if count >= _QUEUED else 100
    queued = min(count, _QUEUED) * (5 * dimension + 250)  # vectors stand there in a wider form
    return count * _ROW_BYTES + indexed * (4 * dimension + _LINK_BYTES) + queued


def _few_heaps() -> None:
    """Each Chroma that is opened has new threads, and glibc gives threads heaps of their own, which keep what was freed
    in them: 31 rounds of 2,000 vectors and 15 successors went from 125 to 276 MB, and with two heaps from 119 to 178,
    flat from round 24 on. Embedding is as quick (192 passages in 2.0 s against 2.1, a question in 7.8 ms against 7.7).
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)
    except (AttributeError, OSError):  # another C library
        return


def _give_back_memory() -> None:
    """What was freed goes back to the system: about 50 MB after a Chroma of 2,000 to 6,000 vectors was closed."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):  # another C library
        return


def _open_folder(path: Path) -> ClientAPI:
    import chromadb

    _few_heaps()
    path.mkdir(parents=True, exist_ok=True)
    try:
        return chromadb.PersistentClient(path=path, settings=_chroma_settings())
    except BaseException:
        # Chroma 1.5.9 keeps what it could not start (the disk is full, say) and gives it to whoever opens the folder
        # next, for ever: 'RustBindingsAPI' object has no attribute 'bindings'.
        from chromadb.api.shared_system_client import SharedSystemClient

        if str(path) not in SharedSystemClient._identifier_to_refcount:
            SharedSystemClient._identifier_to_system.pop(str(path), None)
        raise


def _chroma_settings() -> Any:
    from chromadb.config import Settings

    # Given outright, because Chroma would read the rest from its own environment variables and from any .env file:
    # nothing calls home, and nothing but our own settings chooses the server.
    return Settings(
        _env_file=None,
        anonymized_telemetry=False,
        chroma_otel_collection_endpoint="",
        chroma_server_host=None,
        chroma_server_http_port=None,
        allow_reset=False,
    )


def _server_address(url: str) -> tuple[bool, str, int]:
    try:
        parts = urlsplit(url)
        ssl, host, port = parts.scheme == "https", parts.hostname, parts.port
    except ValueError:
        parts, ssl, host, port = urlsplit(""), False, None, None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/"):
        raise InvalidInput(f"{url!r} is not the address of a Chroma server.", remedy="Write it as http://host:port.")
    return ssl, host, port or (443 if ssl else 8000)


def _marker(catalog_id: str, dimension: int, seen: int) -> dict[str, str | int]:
    return {"catalog_id": catalog_id, "format": FORMAT, "dimension": dimension, "seen": seen}


def _check(vectors: Vectors, count: int, dimension: int) -> None:
    # Chroma takes NaN, zero and infinite vectors without a word and then finds them everywhere or nowhere.
    if vectors.shape != (count, dimension):
        raise InvalidInput(f"Expected {count} vectors of {dimension} numbers, got an array of {vectors.shape}.")
    if not np.isfinite(vectors).all() or not (vectors != 0).any(axis=1).all():
        raise InvalidInput("A vector is zero or has numbers that are not finite.")


if __name__ == "__main__":
    sys.exit(0 if _sound(Path(sys.argv[1])) else 1)
