"""Whatever is done to a knowledge base, in whatever order: what it finds is what a plain dictionary says.

Real catalog, caches in memory that live through a crash as folders would. `make soak` tries more and longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import ingest.sync
from app.reindex import ReindexRequest, reindex
from ingest.jobs import Running
from rag.catalog import indexes, jobs, knowledge, versions
from rag.catalog.engine import now
from rag.catalog.versions import sha256
from rag.embedding.embedders import Embedders
from rag.errors import Conflict, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Item
from rag.retrieval.retrieve import retrieve
from rag.upkeep.retention import Retention, tidy
from rag.upkeep.revisions import edit, roll_back
from tests.bases import Bases, Runs, assert_sound, file, runs_in
from tests.fakes import HashEmbedder, MemoryTerms, MemoryVectors
from tests.shelf import Shelf

pytestmark = pytest.mark.slow

_SOAK = "ATTEST_SOAK" in os.environ

_KEYS = st.sampled_from([f"{letter}.txt" for letter in "abcdef"])
_WORDS = ("pressure", "relief", "gasket", "flange", "sensor")
# Short enough that a change keeps some of a document's chunks, long enough that most have several.
_TEXTS = st.lists(st.tuples(st.sampled_from(_WORDS), st.integers(1, 4)), min_size=1, max_size=4).map(
    lambda parts: "\n\n".join(
        f"The valve has a {word} of grade {grade}, which the shift leader reads from the lower edge of its label and "
        f"writes into the log together with the {word} of the line before it, every morning at seven."
        for word, grade in parts
    )
)
# Where a process may die between the first and the last thing that publishing does.
_DEATHS = st.sampled_from(["embedding", "flip", "_add_vectors", "_follow_terms", "_clear_pending", "_remove_vectors"])
_TIMES = st.sampled_from([1, 1, 1, 2, 3])
_DEATHS_OF_A_REINDEX = st.sampled_from(["embedding", "prepare", "switch", "activate"])


class Killed(BaseException):
    """Nobody catches it, as nobody catches SIGKILL."""


class KnowledgeMachine(RuleBasedStateMachine):
    """`files` is the source, `seen` what its documents were when they were last read, `active` what must be found."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.vectors, self.terms = MemoryVectors(), MemoryTerms()
        self.bases = Bases(Path(self._folder.name), vectors=self.vectors, terms=self.terms)
        self.other = HashEmbedder(name="other", dimension=64)
        self.open()
        self.files: dict[str, str] = {}
        self.seen: dict[str, str] = {}
        self.active: dict[str, str] = {}
        self.disabled: set[str] = set()
        self.past: list[tuple[datetime, dict[str, str]]] = []  # what was active at some moments
        self.has_let_go = False  # of versions

    def open(self) -> None:
        base = self.bases.open()
        shelf = Embedders(Shelf(self.bases.embedder, self.other).load)
        self.runs: Runs = runs_in(KnowledgeBase(base.catalog, base.caches, base.originals, base.embedder, shelf))

    def teardown(self) -> None:
        self.bases.close()
        self._folder.cleanup()

    @property
    def base(self) -> KnowledgeBase:
        return self.runs.base

    def reopen(self) -> None:
        """As a new process does. The old one's objects are dropped as they are."""
        self.runs.base.catalog.close()
        self.open()

    def id_of(self, key: str) -> str:
        with self.base.catalog.read() as snapshot:
            return knowledge.known_documents(snapshot, self.runs.source.id)[key].document_id

    def embedded(self) -> int:
        return len(self.bases.embedder.embedded) + len(self.other.embedded)

    def items(self) -> list[Item]:
        return [file(key, text) for key, text in sorted(self.files.items())]

    # ── the source changes ────────────────────────────────────────────────────────────────────

    @rule(key=_KEYS, text=_TEXTS)
    def write(self, key: str, text: str) -> None:
        self.files[key] = text

    @precondition(lambda self: self.files)
    @rule(data=st.data(), to=_KEYS)
    def rename(self, data: st.DataObject, to: str) -> None:
        self.files[to] = self.files.pop(data.draw(st.sampled_from(sorted(self.files))))

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        del self.files[data.draw(st.sampled_from(sorted(self.files)))]

    # ── and is synced, well or badly ──────────────────────────────────────────────────────────

    @rule()
    def sync(self) -> None:
        report = self.runs.sync(*self.items(), allow_deletes=True)
        assert (report.problem, report.counts.failed) == (None, 0)
        self._read(set(self.files))
        for key in self.seen.keys() - self.files.keys():
            self._forget(key)

    @rule(first=st.integers(0, 4))
    def sync_of_a_listing_that_breaks_off(self, first: int) -> None:
        report = self.runs.sync(*self.items(), fails_after=min(first, len(self.files)))
        assert report.problem is not None
        self._read(set(sorted(self.files)[:first]))

    @rule(changes=st.dictionaries(_KEYS, _TEXTS, min_size=2, max_size=5), death=_DEATHS, number=_TIMES)
    def sync_and_die(self, changes: dict[str, str], death: str, number: int) -> None:
        """Each document is as it was or as it is now, whole; the next sync brings the rest."""
        self.files |= changes
        before = dict(self.active)
        try:
            with self._dying(death, number):
                self.runs.sync(*self.items(), allow_deletes=True)
        except Killed:
            self.reopen()
        self._recover(before)

    def _recover(self, before: dict[str, str]) -> None:
        found = self.found(also_disabled=True)
        for key in before.keys() | self.files.keys() | found.keys():
            assert found.get(key) in (before.get(key), self.files.get(key)), f"{key} is something else"
        self.active = found
        with self.base.catalog.read() as snapshot:
            known = knowledge.known_documents(snapshot, self.runs.source.id)
        # Which of the two texts was read last cannot be told from outside where both are the same.
        self.seen = {
            key: next(
                text
                for text in (self.files.get(key), self.seen.get(key))
                if text and sha256(text) == item.content_sha256
            )
            for key, item in known.items()
        }

    def _read(self, keys: set[str]) -> None:
        for key in keys:
            if self.seen.get(key) != self.files[key]:  # else a version that somebody went back to stays
                self.active[key] = self.files[key]
            self.seen[key] = self.files[key]

    def _forget(self, key: str) -> None:
        del self.seen[key], self.active[key]

    @contextmanager
    def _dying(self, death: str, number: int) -> Iterator[None]:
        """The process dies when it does this for the n-th time, before it has done it."""
        left = number
        on: Any = {"embedding": HashEmbedder, "flip": versions, "activate": indexes}.get(death, self.base.caches)
        name = {"embedding": "embed_passages"}.get(death, death)
        original: Callable[..., Any] = getattr(on, name)

        def die(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return original(*args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(on, name, die)
            yield

    # ── somebody decides ──────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """By hand, whatever the source has; the next sync brings it back if it is there still."""
        key = data.draw(st.sampled_from(sorted(self.active)))
        self.base.caches.retire([(self.id_of(key), None)], collection=self.runs.collection)
        self._forget(key)

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.active)))
        document_id = self.id_of(key)
        embedded = self.embedded()
        with self.base.catalog.read() as snapshot:
            kept = [version.number for version in versions.list_versions(snapshot, document_id)]
        number = data.draw(st.sampled_from(sorted(kept)))
        roll_back(self.base, document_id, number)
        assert self.embedded() == embedded
        with self.base.catalog.read() as snapshot:
            self.active[key] = versions.version_row(snapshot, document_id, number).text

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.active)))
        edit(self.base, self.id_of(key), enabled=key in self.disabled)
        self.disabled ^= {key}

    # ── the index is made anew ────────────────────────────────────────────────────────────────

    @rule(embedder=st.sampled_from(["hash", "other"]), tokens=st.sampled_from([32, 64]))
    def reindex(self, embedder: str, tokens: int) -> None:
        self._reindex(embedder=embedder, chunk_tokens=tokens)

    @rule(embedder=st.sampled_from(["hash", "other"]), death=_DEATHS_OF_A_REINDEX, number=_TIMES)
    def reindex_and_die(self, embedder: str, death: str, number: int) -> None:
        """Nobody who asks can tell; doing it again goes on from there."""
        try:
            with self._dying(death, number):
                self._reindex(embedder=embedder, chunk_tokens=48)
        except Killed:
            self.reopen()

    @rule()
    def go_back_to_the_index_before(self) -> None:
        with suppress(Conflict):  # there is none
            self._reindex(back=True)

    @rule()
    def confirm_the_index(self) -> None:
        self._reindex(confirm=True)

    def _reindex(self, *, embedder: str = "hash", chunk_tokens: int = 40, **asked: bool) -> None:
        # The quality check is not what this is about: these texts are all alike.
        request = asdict(ReindexRequest(embedder=embedder, chunk_tokens=chunk_tokens, check=False, **asked))
        with self.base.catalog.write() as connection:
            job = jobs.create_job(
                connection, kind="reindex", collection_id=self.runs.collection.id, source_id=None, request=request
            )
        try:
            reindex(Running(job, self.base.catalog, threading.Event()), base=self.base)
        finally:
            with self.base.catalog.write() as connection:
                jobs.finish_job(connection, job.id, state="succeeded", problem=None)
        self.runs = runs_in(self.base)  # with the collection as it is now

    # ── what time and accidents do ────────────────────────────────────────────────────────────

    @rule()
    def restart(self) -> None:
        self.reopen()

    @rule(which=st.sampled_from(["vectors", "terms"]))
    def lose_a_cache(self, which: str) -> None:
        embedded = self.embedded()
        (self.vectors if which == "vectors" else self.terms)._spaces.clear()
        self.reopen()
        assert self.embedded() == embedded

    @rule(keep=st.integers(1, 3))
    def let_go_of_old_versions(self, keep: int) -> None:
        self.has_let_go |= tidy(self.base, Retention(versions=keep, deleted_days=0.0)) > 0

    @rule()
    def remember(self) -> None:
        self.past.append((now(), dict(self.active)))

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def ask_as_of_then(self, data: st.DataObject) -> None:
        moment, then = data.draw(st.sampled_from(self.past))
        found = self.found(as_of=moment)
        expected = {key: text for key, text in then.items() if key not in self.disabled}
        assert found.items() <= expected.items()
        assert self.has_let_go or found == expected

    @rule(method=st.sampled_from(["upsert", "delete", "search"]))
    def sync_while_chroma_is_away(self, method: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.vectors, method, _unavailable)
            self.sync()
            self.finds_what_the_dictionary_says()
        assert self.base.caches.attach_vectors()

    @rule()
    def sync_while_the_terms_fail(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.terms, "apply", _unavailable)
            self.sync()
            self.finds_what_the_dictionary_says()
        self.base.caches.attach_terms()

    # ── and always ────────────────────────────────────────────────────────────────────────────

    @invariant()
    def finds_what_the_dictionary_says(self) -> None:
        assert self.found() == {key: text for key, text in self.active.items() if key not in self.disabled}

    @invariant()
    def is_sound(self) -> None:
        assert_sound(self.base)

    def found(self, *, also_disabled: bool = False, as_of: datetime | None = None) -> dict[str, str]:
        """All that a question finds, put together document by document."""
        parts: dict[str, list[tuple[int, str]]] = {}
        hits = retrieve("valve", base=self.base, collections=self.base.collections([]), k=500, as_of=as_of).hits
        with self.base.catalog.read() as snapshot:
            for place in [place for hit in hits for place in (hit, *hit.also)]:  # what says the same comes once
                text = versions.version_row(snapshot, place.document_id, place.version).text[place.start : place.end]
                parts.setdefault(place.uri.removeprefix("files/"), []).append((place.start, text))
        found = {key: "".join(text for _, text in sorted(several)) for key, several in parts.items()}
        if also_disabled:
            hidden = self.disabled & self.runs.documents().keys()
            with self.base.catalog.read() as snapshot:
                known = knowledge.known_documents(snapshot, self.runs.source.id)
                for key in hidden:
                    with suppress(KeyError):
                        item = known[key]
                        found[key] = versions.version_row(snapshot, item.document_id, item.version).text
        return found


def _unavailable(*_args: object, **_options: object) -> None:
    raise Unavailable("It is away.")


def test_what_is_found_is_what_a_plain_dictionary_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.sync, "_BATCH_DOCUMENTS", 2)
    run_state_machine_as_test(
        KnowledgeMachine,
        settings=settings(
            max_examples=600 if _SOAK else 25,
            stateful_step_count=40 if _SOAK else 20,
            derandomize=not _SOAK,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
