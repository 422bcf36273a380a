"""A service that keeps syncing a folder that keeps changing, to be killed; and the one who kills it.

`python -m tests.crash FOLDER DOCUMENTS` is the victim. It loads its libraries, waits for a line on stdin, starts the
whole service (real catalog, Chroma, Tantivy, reading processes; a fast embedder), checks what the last kill left before
any job runs, and then syncs edition after edition. What it prints: `up`, `sound` with the number of torn folders found,
`syncing`, `done` with the edition, `finished`; or `broken` with what it found wrong, and it ends.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

import ingest.sync
from app.service import Service
from rag.answer import Question
from rag.catalog import knowledge, versions
from rag.catalog.engine import quick_check
from rag.catalog.jobs import unfinished_jobs
from rag.catalog.tables import activations, chunks
from rag.catalog.versions import sha256
from rag.errors import NotFound
from rag.knowledge import KnowledgeBase
from rag.models import Collection, SourceRecord
from rag.ports import Vectors
from rag.settings import Settings
from tests.bases import assert_sound
from tests.fakes import HashEmbedder

ROOT = Path(__file__).parents[1]
RULES = 5
FINAL = 1_000_003  # the edition that everything ends with
AIMS = ("random", "index", "flip", "terms", "start", "rebuild", "compact")

_PATIENCE_SECONDS = 120.0
_AIM_SECONDS = 30.0  # after which an aimed kill has missed and is one at random


def edition(number: int, *, documents: int) -> dict[str, str]:
    """File name → text. A third of the documents changes with each edition; some come, go and change their names."""
    found = {}
    for key in range(documents):
        if (key + number) % 17:
            moved = (key + number // 2) % 11 == 0
            found[f"{key:03}-moved.txt" if moved else f"{key:03}.txt"] = _text(key, _revision(key, number))
    return found


def _revision(key: int, number: int) -> int:
    """The last edition that changed the text of this document."""
    return number - (key + number) % 3


def _text(key: int, revision: int) -> str:
    return "\n\n".join(
        f"Rule {rule} of valve V-{key:03} as of {revision}: its limit is {_limit(key, rule, revision)} bar, the shift "
        f"leader alone opens it, and each reading of {revision} goes into the log before the valve is closed again."
        for rule in range(RULES)
    )


def _limit(key: int, rule: int, revision: int) -> int:
    return 10 + (7 * key + 13 * rule + 29 * revision) % 90


def assert_nothing_is_left(base: KnowledgeBase) -> None:
    """The deep check is clean. It holds back while jobs wait to go on, so: what was staged went at the start."""
    assert_sound(base)
    with base.catalog.read() as snapshot:
        assert quick_check(snapshot) == "ok"
        assert versions.pending_flips(snapshot) == []
        never = ~select(activations.c.id).where(
            activations.c.document_id == chunks.c.document_id, activations.c.version == chunks.c.version
        ).exists()  # fmt: skip
        assert snapshot.execute(select(func.count()).select_from(chunks).where(never)).scalar() == 0


# ── the victim ────────────────────────────────────────────────────────────────────────────────


class _Embedder(HashEmbedder):
    """Refuses what is finished: a text that was active when the service started has its vector and needs no other."""

    finished: frozenset[str] = frozenset()
    repeated: str | None = None

    def embed_passages(self, texts: Sequence[str], *, urgent: bool = False) -> Vectors:
        self.repeated = next((text for text in texts if sha256(text) in self.finished), self.repeated)
        self.embedded.clear()  # a long run would remember them all
        return super().embed_passages(texts, urgent=urgent)


def settings_in(folder: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=folder / "data",
        allowed_roots=str(folder),
        llm="none",
        chunk_tokens=48,
        exact_vectors=0,  # Chroma is what a kill may tear
    )


class Victim:
    """One life of the service."""

    def __init__(self, folder: Path, *, documents: int, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._documents = documents
        self._say = say
        self.embedder = _Embedder()
        self.service = Service(settings_in(folder), embedder=self.embedder)
        self.base = self.service.base
        self._checked = threading.Event()
        self._problem: BaseException | None = None
        start = self.service.jobs.start

        def checked() -> None:
            """Chroma is attached, and no job has begun."""
            try:
                self.check()
            except BaseException as problem:  # noqa: BLE001  # the main thread raises it
                self._problem = problem
            self._checked.set()
            if self._problem is None:
                start()

        self.service.jobs.start = checked  # type: ignore[method-assign]

    def start(self) -> None:
        """Returns when what is there has been found sound."""
        self.service.start()
        assert self._checked.wait(_PATIENCE_SECONDS), "the service does not start"
        if self._problem is not None:
            raise self._problem
        torn = list((self.folder / "data").glob("chroma-torn-*"))
        self._say(f"sound {len(torn)}")
        for found in torn:
            shutil.rmtree(found)

    @property
    def done(self) -> int:
        """The last edition whose sync was reported as finished."""
        path = self.folder / "edition"
        return int(path.read_text()) if path.exists() else 0

    def edition(self, number: int) -> dict[str, str]:
        return edition(number, documents=self._documents)

    def check(self) -> None:
        """Everything in step, each document whole, and in its edition of the last finished sync or of the next one."""
        assert self.base.caches.vectors_attached
        assert_nothing_is_left(self.base)
        with self.base.catalog.read() as snapshot:
            keys = [
                key
                for index_id, _, _ in versions.all_indexes(snapshot)
                for key in versions.active_keys(snapshot, index_id)
            ]
            active = versions.read_chunks(snapshot, keys)
        self.embedder.finished = frozenset(sha256(_embedded(hit.heading, hit.text)) for hit in active.values())
        found = self.texts()
        before, after = self.edition(self.done) if self.done else {}, self.edition(self.done + 1)
        for key, text in found.items():
            assert text in (before.get(key), after.get(key)), f"{key} is neither of edition {self.done} nor of the next"
        lost = (before.keys() & after.keys()) - found.keys()
        assert not lost, f"{sorted(lost)} were there after edition {self.done}, and are gone"
        self._check_searching(sorted(active))
        of: dict[str, list[str]] = {}
        for hit in sorted(active.values(), key=lambda hit: hit.start):
            of.setdefault(hit.document_id, []).append(hit.text)
        assert sorted("".join(texts) for texts in of.values()) == sorted(found.values()), "a document is not whole"

    def _check_searching(self, keys: Sequence[int]) -> None:
        """Chroma holds the keys of a torn index as well: its vectors must be found."""
        if not keys:
            return
        index_id = self.collection().index_id
        with self.base.catalog.read() as snapshot:
            sample = keys[:: max(1, len(keys) // 50)]
            found, vectors = versions.vectors_of(snapshot, sample)
            best = [self.base.caches.search_vectors(snapshot, index_id, vector, k=5)[0][1] for vector in vectors]
        assert self.base.caches.is_attached(index_id)
        missed = sum(score < 0.999 for score in best)
        assert missed <= 0.05 * len(found), f"{missed} of {len(found)} vectors are not found in Chroma"

    def texts(self) -> dict[str, str]:
        """The active text of each document, by its key."""
        with self.base.catalog.read() as snapshot:
            return {
                known.key: versions.version_row(snapshot, known.document_id, known.version).text
                for source in knowledge.list_sources(snapshot)
                for known in knowledge.known_documents(snapshot, source.id).values()
                if known.version is not None
            }

    def run(self, *, renewing: bool) -> None:
        """Sync edition after edition, for ever; with Chroma's folder being made anew again and again, if wanted."""
        if renewing:
            threading.Thread(target=self._renew, daemon=True).start()
        self._say("syncing")
        while True:
            self.sync(self.done + 1)

    def _renew(self) -> None:
        while True:
            assert self.base.caches.renew_vectors()
            time.sleep(0.2)

    def sync(self, number: int) -> None:
        self._resume()
        _write(self.folder / "files", self.edition(number))
        job = self.service.jobs.wait(self.service.submit_sync(self.source(), allow_deletes=True).id, poll_seconds=0.02)
        assert job.state == "succeeded", job.problem
        assert self.embedder.repeated is None, f"embedded again: {self.embedder.repeated}"
        _put(self.folder / "edition", str(number))
        self._say(f"done {number}")

    def _resume(self) -> None:
        """Jobs that the last life did not finish come first."""
        with self.base.catalog.read() as snapshot:
            left = unfinished_jobs(snapshot)
        for job in left:
            assert self.service.jobs.wait(job.id, poll_seconds=0.02).state == "succeeded"

    def collection(self) -> Collection:
        return self.service.collection_to_fill("valves")

    def source(self) -> SourceRecord:
        try:
            collection = self.service.collection("valves")
        except NotFound:
            collection = self.service.create_collection("valves")
        with self.base.catalog.write() as connection:
            return knowledge.find_source(connection, collection, "files") or knowledge.create_source(
                connection, collection, name="files", kind="folder", config={"path": str(self.folder / "files")}
            )

    def finish(self) -> dict[str, Any]:
        """The last edition, a check, and all that there is to see of it."""
        self.sync(FINAL)
        self._checks_after()
        with self.base.catalog.read() as snapshot:
            documents = {
                known.document_id: known.key for known in knowledge.known_documents(snapshot, self.source().id).values()
            }
            keys = sorted(versions.active_keys(snapshot, self.collection().index_id))
            hits = versions.read_chunks(snapshot, keys).values()
        answers = []
        for key in (12, 61, 113):
            for rule in (0, 4):
                question = f"What is the limit in rule {rule} of valve V-{key:03}?"
                answer = self.service.assistant.answer(Question(question))
                cited = [(documents[citation.document_id], citation.quote) for citation in answer.citations]
                answers.append([question, answer.answer, cited])
        again = self.service.jobs.wait(self.service.submit_sync(self.source()).id)
        return {
            "texts": self.texts(),
            "chunks": sorted([documents[hit.document_id], hit.start, hit.end, hit.heading, hit.text] for hit in hits),
            "answers": answers,
            "unchanged": again.counts.unchanged,
        }

    def _checks_after(self) -> None:
        assert_nothing_is_left(self.base)
        assert self.texts() == self.edition(FINAL)


def _embedded(heading: str, text: str) -> str:
    return f"{heading}\n{text}" if heading else text


def _write(folder: Path, files: dict[str, str]) -> None:
    """Exactly these files. Those that say the same already are left alone."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            _put(path, text)


def _put(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(text)
    part.replace(path)


def live(folder: Path, documents: int) -> None:
    """What the process does."""
    ingest.sync._BATCH_DOCUMENTS = 12  # many flips, so many instants to hit
    say("up")
    order = sys.stdin.readline().strip()
    if not order:  # nobody is there to kill it
        return
    threading.Thread(target=_end_with_the_killer, daemon=True).start()
    try:
        victim = Victim(folder, documents=documents, say=say)
        victim.start()
        if order == "finish":
            (folder / "state.json").write_text(json.dumps(victim.finish()))
            victim.service.close()
            say("finished")
            return
        victim.run(renewing=order == "renew")
    except BaseException:  # noqa: BLE001  # said, and then this process is over
        traceback.print_exc()
        say(f"broken {traceback.format_exc().strip().splitlines()[-1]}")
        os._exit(1)


def _end_with_the_killer() -> None:
    sys.stdin.read()
    os._exit(1)


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  # how the two of them talk


# ── the one who kills ─────────────────────────────────────────────────────────────────────────


class Life:
    """The process of one victim, seen from outside. Its libraries load while the one before is still at work."""

    def __init__(self, folder: Path, *, documents: int) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self._log = (folder / "victim.log").open("a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash", str(folder), str(documents)],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("ATTEST_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._said: list[str] = []
        self._heard = threading.Condition()
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self._said.append(line.strip())
                self._heard.notify_all()
        with self._heard:
            self._said.append("ended")
            self._heard.notify_all()

    def order(self, what: str) -> None:
        self.until("up")
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()

    def has_said(self, word: str) -> bool:
        return any(line.split(" ")[0] in (word, "broken", "ended") for line in self._said)

    def until(self, word: str) -> str:
        """The line that begins with this word."""
        with self._heard:
            assert self._heard.wait_for(lambda: self.has_said(word), _PATIENCE_SECONDS), f"never said “{word}”"
        self.assert_well()
        return next(line for line in self._said if line.split(" ")[0] == word)

    def assert_well(self) -> None:
        broken = [line for line in self._said if line.startswith("broken")]
        assert not broken, f"{broken[0]}\n{(self.folder / 'victim.log').read_text()[-4000:]}"

    def finished(self) -> dict[str, Any]:
        """All that there is to see after the last edition, which was ordered before."""
        self.until("finished")
        self.end()
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def torn(self) -> int:
        """Torn folders that this life found when it started, if it came as far as that."""
        return sum(int(line.split(" ")[1]) for line in self._said if line.startswith("sound"))

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> None:
        """Returns when all it said has been heard."""
        self._process.wait()
        self._listening.join()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


class Killer:
    """Kills one life after the other, each with an aim. `hits` counts the kills that met what they were aimed at."""

    def __init__(self, folder: Path, *, documents: int, seed: int) -> None:
        self.folder = folder
        self._documents = documents
        self.random = random.Random(seed)
        self.kills = dict.fromkeys(AIMS, 0)
        self.hits = dict.fromkeys(AIMS, 0)
        self.torn = 0
        self._next = Life(folder, documents=documents)

    def begin(self) -> None:
        """One edition without a kill, so that there is something to lose."""
        life = self._advance()
        life.order("go")
        life.until("done")
        life.kill()
        life.assert_well()

    def _advance(self) -> Life:
        life, self._next = self._next, Life(self.folder, documents=self._documents)
        return life

    def kill(self, aim: str) -> None:
        life = self._advance()
        if aim == "rebuild":
            # A cache that is gone, or was torn, is written anew from the catalog: a process may die of that as well.
            for cache in self.random.choice((("chroma",), ("terms",), ("chroma", "terms"))):
                shutil.rmtree(self.folder / "data" / cache, ignore_errors=True)
        life.order("renew" if aim == "compact" else "go")
        hit = {
            "random": self._at_random,
            "index": self._at_the_index,
            "flip": self._at_the_flip,
            "terms": self._at_the_terms,
            "start": self._at_start,
            "rebuild": self._at_rebuild,
            "compact": self._at_compacting,
        }[aim](life)
        life.kill()
        life.assert_well()
        self.kills[aim] += 1
        self.hits[aim] += hit
        self.torn += life.torn()

    def finish(self) -> dict[str, Any]:
        """What the survivor makes of it."""
        self._next.order("finish")
        state = self._next.finished()
        self.torn += self._next.torn()
        return state

    def close(self) -> None:
        self._next.kill()

    def summary(self) -> str:
        parts = [f"{aim} {self.kills[aim]} ({self.hits[aim]} hit)" for aim in AIMS if self.kills[aim]]
        return f"{sum(self.kills.values())} kills: {', '.join(parts)}; {self.torn} torn folders found and rebuilt"

    # Each waits for its instant and says whether it came.

    def _at_random(self, life: Life) -> bool:
        life.until("syncing")
        time.sleep(self.random.uniform(0.0, 2.5))
        return True

    def _at_the_index(self, life: Life) -> bool:
        """Chroma rewrites its index files in place, one after the other."""
        life.until("syncing")
        return self._watch(self._index_files, self.random.choice((1, 1, 2, 3)))

    def _at_the_flip(self, life: Life) -> bool:
        """The commits there are: staging, the flip, progress, the clearing of notes. At one of them, or just after."""
        life.until("syncing")
        hit = self._watch(self._log_file, self.random.randint(1, 40))
        time.sleep(self.random.choice((0.0, self.random.uniform(0.0, 0.01))))
        return hit

    def _at_the_terms(self, life: Life) -> bool:
        """Their marker is written between the catalog's flip and their own commit."""
        life.until("syncing")
        return self._watch(self._term_markers, self.random.randint(1, 6))

    def _at_start(self, life: Life) -> bool:
        time.sleep(self.random.uniform(0.0, 2.5))
        return not life.has_said("sound")

    def _at_rebuild(self, life: Life) -> bool:
        watched = self.random.choice((self._index_files, self._term_markers))
        return self._watch(watched, self.random.choice((1, 2)), give_up=lambda: life.has_said("syncing"))

    def _at_compacting(self, life: Life) -> bool:
        """A folder of Chroma's that has grown is written anew beside the old one, which then goes."""
        life.until("syncing")
        hit = self._watch(self._chroma_folders, self.random.randint(1, 3))
        time.sleep(self.random.choice((0.0, self.random.uniform(0.0, 0.5))))
        return hit

    def _watch(
        self, files: Callable[[], Iterator[Path]], changes: int, *, give_up: Callable[[], bool] = lambda: False
    ) -> bool:
        """Until these files have changed so many times, as seen by somebody who looks without pause."""
        deadline = time.monotonic() + _AIM_SECONDS
        before = _stamps(files)
        while time.monotonic() < deadline and not give_up():
            now = _stamps(files)
            if now != before:
                before, changes = now, changes - 1
                if not changes:
                    return True
        return False

    def _index_files(self) -> Iterator[Path]:
        return (self.folder / "data" / "chroma").rglob("*.bin")

    def _chroma_folders(self) -> Iterator[Path]:
        return (self.folder / "data" / "chroma").glob("*")

    def _log_file(self) -> Iterator[Path]:
        return iter([self.folder / "data" / "catalog.sqlite-wal"])

    def _term_markers(self) -> Iterator[Path]:
        return (self.folder / "data" / "terms").glob("*/marker.json*")


def _stamps(files: Callable[[], Iterator[Path]]) -> dict[str, tuple[int, int] | None]:
    """When each was written, and its size; of folders, that they are there."""
    found: dict[str, tuple[int, int] | None] = {}
    with suppress(OSError):
        for path in files():
            with suppress(OSError):
                stat = path.stat()
                found[str(path)] = None if path.is_dir() else (stat.st_mtime_ns, stat.st_size)
    return found


if __name__ == "__main__":
    live(Path(sys.argv[1]), int(sys.argv[2]))
