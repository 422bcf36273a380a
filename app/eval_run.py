"""A run of `attest eval`: each dataset asked where it belongs, every record kept as soon as it is there."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.client import Client
from app.eval_bases import DatasetBases
from app.eval_service import ServiceSubject
from quality import datasets
from quality.journal import FILE, Journal
from quality.models import Dataset
from quality.questions import from_feedback
from quality.report import Report, summarise
from quality.run import Record, run
from quality.subject import Subject
from rag.errors import InvalidInput
from rag.settings import Settings

FEEDBACK = "feedback"  # the dataset that is made of it
Moved = Callable[[int, int | None], None]

# What of the settings bears on quality; paths and addresses of this machine are nobody's business.
_SETTINGS = ("embedder", "llm", "llm_max_tokens", "llm_window", "top_k", "chunk_tokens")


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to each dataset before it is asked. The same numbers do the same every time."""

    limit: int | None
    seed: int
    held_out: float | None

    def __call__(self, dataset: Dataset) -> Dataset:
        if self.held_out is not None:
            dataset = datasets.hold_out(dataset, self.held_out, seed=self.seed)
        return datasets.sample(dataset, self.limit, seed=self.seed)


@dataclass
class Run:
    """`records` and `report` can be had at any time, also of a run that was broken off.

    `service` opens the way to the service that has the user's own collections, `moving` a bar on the terminal. With a
    folder `out`, records are written there as they come, and `resume` goes on with those of a run that was broken off.
    """

    prepare: Preparation
    settings: Settings
    cache: Path
    collection: str | None
    service: Callable[[], AbstractContextManager[Client]]
    moving: Callable[[str, int], AbstractContextManager[Moved]]
    out: Path | None = None
    resume: bool = False
    feedback: bool = False
    records: list[Record] = field(default_factory=list)
    _told: list[dict[str, Any]] = field(default_factory=list)
    _asked_of: dict[str, Any] = field(default_factory=dict)
    _embedder: dict[str, str] = field(default_factory=dict)
    _journal: Journal | None = None

    def measure(self, chosen: Sequence[Dataset]) -> None:
        own = [one for one in chosen if self.collection is not None or one.documents is None]
        others = [one for one in chosen if one not in own]
        try:
            self._measure(own, others)
        except BaseException:
            if self._journal is not None:
                self._journal.close(complete=False)
            raise
        if self._journal is not None:
            self._journal.close(complete=True)

    def _measure(self, own: list[Dataset], others: Sequence[Dataset]) -> None:
        with ExitStack() as stack:
            subject = None
            if own or self.feedback:
                client = stack.enter_context(self.service())
                client.wait_until_ready()
                subject = ServiceSubject(client, self.collection or "default")
                self._asked_of = _about_service(client, subject)
                if self.feedback:
                    own.append(feedback_dataset(client, subject.collection))
            self._begin([*own, *others])
            for dataset in own:
                assert subject is not None
                self._ask_service(dataset, subject)
        for dataset in others:
            self._ask_base(self.prepare(dataset))

    def report(self, *, complete: bool = True) -> Report:
        made = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "attest": version("attest"),
            "python": platform.python_version(),
            "seed": self.prepare.seed,
            "limit": self.prepare.limit,
            "held_out": self.prepare.held_out,
            "complete": complete,
            "settings": _settings(self.settings),
            "embedder": self._embedder,
            "service": self._asked_of,
        }
        return Report(made, self._told, summarise(self.records, seed=self.prepare.seed), self.records)

    # ── one dataset ───────────────────────────────────────────────────────────────────────────

    def _ask_service(self, dataset: Dataset, subject: ServiceSubject) -> None:
        if self.prepare.held_out is None:
            self._ask(self.prepare(dataset), subject, documents=len(subject.documents))
            return
        # Documents are taken out of a copy of the collection, never of the collection itself.
        dataset = replace(dataset, documents=None)
        with self.moving(f"{dataset.name}: texts of the collection", len(subject.documents)) as moved:
            copy = subject.copied(dataset, moved=lambda done: moved(done, None))
        self._ask_base(self.prepare(copy))

    def _ask_base(self, dataset: Dataset) -> None:
        assert dataset.documents is not None
        bases = DatasetBases(self.cache, self.settings)
        self._embedder = bases.about()
        with (
            self.moving(f"{dataset.name}: documents", len(dataset.documents)) as moved,
            bases.open(dataset, moved=moved) as subject,
        ):
            self._ask(dataset, subject, documents=len(dataset.documents))

    def _ask(self, dataset: Dataset, subject: Subject, *, documents: int) -> None:
        self._told.append(
            {
                "name": dataset.name,
                "documents": documents,
                "questions": len(dataset.questions),
                "answerable": sum(question.answerable for question in dataset.questions),
            }
        )
        known = self._journal.known.get(dataset.name, {}) if self._journal is not None else {}
        self.records += [known[question.id] for question in dataset.questions if question.id in known]
        done = sum(question.id in known for question in dataset.questions)
        with self.moving(f"{dataset.name}: questions", len(dataset.questions)) as moved:

            def asked(record: Record) -> None:
                nonlocal done
                self.records.append(record)
                if self._journal is not None:
                    self._journal.add(record)
                done += 1
                moved(done, len(dataset.questions))

            run(dataset, subject, asked=asked, known=known)

    def _begin(self, chosen: Sequence[Dataset]) -> None:
        if self.out is None:
            return
        same = hashlib.sha256()  # what would be asked otherwise is another run
        for dataset in chosen:
            for question in dataset.questions:
                same.update(f"{dataset.name}\0{question.id}\0{question.text}\0".encode("utf-8", "surrogatepass"))
        about = {
            "questions": same.hexdigest(),
            "seed": self.prepare.seed,
            "limit": self.prepare.limit,
            "held_out": self.prepare.held_out,
            "collection": self.collection,
            "settings": _settings(self.settings),
        }
        self._journal = Journal(self.out / FILE, about, resume=self.resume)


def _settings(settings: Settings) -> dict[str, Any]:
    told = settings.without_secrets()
    return {name: told[name] for name in _SETTINGS}


def _about_service(client: Client, subject: ServiceSubject) -> dict[str, Any]:
    chosen = client.collection(subject.collection)
    return {"collection": chosen["name"], "documents": chosen["documents"], "chunks": chosen["chunks"]}


def feedback_dataset(client: Client, collection: str) -> Dataset:
    given = list(client.pages("/v1/feedback", collection=collection, limit=500))
    questions = from_feedback(given)
    if not questions:
        raise InvalidInput(
            f"No feedback says how a question to “{collection}” should be answered.",
            remedy="attest feedback ANSWER_ID --right, or --wrong --expected “…”, gives some.",
        )
    return Dataset(FEEDBACK, questions)
