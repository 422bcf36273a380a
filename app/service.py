"""Everything a running service holds, put together and taken apart again."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from app.backups import back_up, backup_folder
from app.reindex import ReindexRequest, reindex
from app.schemas.questions import AnswerOut
from ingest.jobs import Jobs, Running, Work
from ingest.readers.options import ReadOptions
from ingest.readers.sandbox import Sandbox
from ingest.schedule import Schedules
from ingest.sources.folder import FolderSource
from ingest.sources.registry import Limits, open_source, read_options
from ingest.sources.uploads import OneUpload, Upload
from ingest.split import fingerprint
from ingest.sync import Plan, Report, Sync, SyncOptions
from ingest.watch import Watchers, watchable
from rag.catalog import aliases, answers, indexes, jobs, knowledge
from rag.catalog.jobs import Job
from rag.errors import AttestError, Conflict, NotAllowed, NotFound, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Collection, SourceRecord
from rag.ports import Embedder, Source
from rag.retrieval.probe import probe_if_due
from rag.settings import Settings
from rag.storage.owner import Owner
from rag.upkeep.backup import remove_leftovers
from rag.upkeep.retention import Retention, finish_purges, tidy
from rag.wiring import allowed_roots, open_assistant, open_knowledge_base

log = logging.getLogger(__name__)

DEFAULT_COLLECTION = "default"
UPLOADS = "uploads"  # the source that a collection's uploads belong to
UPLOAD_KIND = "upload"

_ATTACH_AGAIN_SECONDS = 5.0
_CLOSE_SECONDS = 20.0
_MIB = 1024 * 1024


def _never() -> bool:
    return False


class Service:
    """Owns the data folder from construction to `close`. Raises FolderInUse where another process does."""

    def __init__(
        self, settings: Settings, *, embedder: Embedder | None = None, warm: bool = True, stays: bool = True
    ) -> None:
        self.settings = settings
        self.owner = Owner(settings.data_dir)
        self.token = secrets.token_urlsafe(32)  # lets this user's own commands in, through the owner's note
        try:
            self.base: KnowledgeBase = open_knowledge_base(settings, embedder=embedder)
            self.assistant = open_assistant(settings, self.base)
        except BaseException:
            self.owner.release()
            raise
        self.retention = Retention(
            versions=settings.keep_versions,
            deleted_days=settings.keep_deleted_days,
            answers_days=settings.keep_answers_days,
        )
        self.limits = Limits(
            allowed_roots=allowed_roots(settings),
            max_file_bytes=settings.max_upload_mb * _MIB,
            max_page_bytes=settings.web_max_mb * _MIB,
            delay_seconds=settings.web_delay_seconds,
            private=settings.data_dir,
        )
        self._sandbox, self._upload_sandbox = (
            Sandbox(
                memory_bytes=settings.read_memory_mb * _MIB,
                timeout_seconds=settings.read_timeout_seconds,
                workers=count,
            )
            for count in (2, 1)
        )
        # Somebody waits for an upload: it has a thread and a reading process of its own, and stands behind no sync.
        # A re-index takes long: it has one too, and two of them come one after the other.
        work: dict[str, Work] = {
            "sync": self._sync,
            "upload": self._upload,
            "reindex": partial(reindex, base=self.base),
            "backup": partial(back_up, base=self.base, settings=settings),
        }
        self.jobs = Jobs(self.base.catalog, work, lanes={"upload": 1, "reindex": 1, "backup": 1})
        self.schedules = Schedules(self._sync_when_due)
        self.watchers = Watchers(
            open_folder=self._open_folder, changed=self._sync_after_change, ignore=settings.data_dir
        )
        self._following = threading.Lock()
        self._closing = threading.Event()
        self._attaching = threading.Thread(target=self._attach, name="attach", daemon=True)
        self._warming = threading.Thread(target=self._warm, name="warm", daemon=True)
        # A short-lived service (`warm=False`) loads the embedder and attaches Chroma when something needs them:
        # many commands never do, and it is most of what they would take.
        self._warm_up = warm
        self._stays = warm and stays  # only such a service keeps schedules and watches folders
        self._beginning = threading.Lock()
        self._begun = False
        self.embedder_problem: str | None = "The embedder is loading." if warm else None

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Terms first, so that questions can be answered; embedder, Chroma and old jobs follow in the background."""
        self.base.caches.attach_terms()
        if self._warm_up:
            self._warming.start()
            self.begin()
        self.follow_sources(make_up=True)

    def begin(self) -> None:
        """Attach Chroma and take up jobs, unless that was begun already."""
        with self._beginning:
            if not self._begun:
                self._begun = True
                self._attaching.start()

    def _attach(self) -> None:
        started = False
        while not self._closing.is_set():
            try:
                if started:
                    self.base.caches.catch_up()
                else:
                    self.base.caches.attach()
            except Exception:  # a thread has nobody above it; exact search goes on answering
                log.exception("Chroma could not be attached")
            if not started:
                if self._warming.is_alive():  # a job to resume would keep the first question waiting for the cores
                    self._warming.join()
                if self._closing.is_set():
                    return
                self._complete()
                self._tidy()
                self._complete_glossary()
                self.jobs.start()
                started = True
            while not self._closing.wait(_ATTACH_AGAIN_SECONDS) and not self.base.caches.is_late:
                if self._warm_up:  # others do it at their end
                    self._compact()
                    self._check_recall()

    def _complete(self) -> None:
        """What a kill interrupted: purges, and backups, of which half a copy of everything lies about."""
        try:
            finish_purges(self.base)
            remove_leftovers(self.backup_dir)
        except (AttestError, OSError):  # the next start tries again; questions and jobs need not wait for it
            log.exception("What was interrupted could not be completed")

    def _complete_glossary(self) -> None:
        try:
            aliases.bring_up_to_date(self.base.catalog, stop=self._closing.is_set)
        except AttestError:  # the next start tries again
            log.exception("The glossary could not be completed")

    def _compact(self) -> None:
        try:
            self.base.caches.compact()
        except Exception:  # the old vectors go on answering
            log.exception("Chroma could not be made smaller")

    def _check_recall(self) -> None:
        try:
            self.base.caches.check_recall()
        except Exception:  # what is not known of the recall keeps nobody from asking
            log.exception("The recall of Chroma could not be measured")

    def _warm(self) -> None:
        try:
            self.base.embedder.embed_query("warm")
            self.embedder_problem = None
        except AttestError as problem:
            self.embedder_problem = str(problem)
            log.error("%s", problem)

    def readiness(self) -> dict[str, str]:
        """What each part says of itself: `ok`, or what is missing."""
        caches = self.base.caches
        return {
            "catalog": "ok",
            "terms": "ok" if caches.terms_ready else "being attached",
            "embedder": self.embedder_problem or "ok",
            "chroma": caches.vectors_problem or ("attaching; search is exact" if self._attaching_still() else "ok"),
        }

    def is_ready(self) -> bool:
        return self.base.caches.terms_ready and self.embedder_problem is None

    def _attaching_still(self) -> bool:
        return not self.base.caches.vectors_ready

    def close(self) -> None:
        self._closing.set()
        if self._warm_up:
            self.base.caches.interrupt()
        self.watchers.close()
        self.schedules.close()
        self.jobs.close()
        self._sandbox.close()
        self._upload_sandbox.close()
        for thread in (
            self._warming,
            self._attaching,
        ):  # a model that is still loading crashes an interpreter that ends
            if thread.is_alive():
                thread.join(_CLOSE_SECONDS)
        if self._begun and not self._warm_up and not self._attaching.is_alive():
            self._compact()
        self.base.caches.close()
        self.base.catalog.close()
        self.owner.release()

    # ── collections and sources ───────────────────────────────────────────────────────────────

    def collection(self, name: str) -> Collection:
        """By name or id."""
        with self.base.catalog.read() as snapshot:
            return knowledge.get_collection(snapshot, name)

    def collection_to_fill(self, name: str) -> Collection:
        """By name or id; `default` is made when something is first put into it."""
        try:
            return self.collection(name)
        except NotFound:
            if name != DEFAULT_COLLECTION:
                raise
        try:
            return self.create_collection(name)
        except Conflict:  # somebody else was first
            return self.collection(name)

    def create_collection(self, name: str) -> Collection:
        splitter = fingerprint(target_tokens=self.settings.chunk_tokens)
        return self.base.create_collection(name, splitter=splitter)

    def open(self, record: SourceRecord, *, verify: bool = False) -> Source:
        return open_source(record, limits=self.limits, base=self.base, verify=verify)

    def delete_source(self, record: SourceRecord) -> None:
        """A source and all that came from it, out of every answer at once."""
        self.base.caches.erase(self._collection_of(record), source_id=record.id)
        self.follow_sources()

    def delete_document(self, document_id: str) -> None:
        with self.base.catalog.read() as snapshot:
            document = knowledge.get_document(snapshot, document_id)
            record = knowledge.get_source(snapshot, document.source_id)
        self.base.caches.retire([(document.id, document.version)], collection=self._collection_of(record))

    def _collection_of(self, record: SourceRecord) -> Collection:
        with self.base.catalog.read() as snapshot:
            return knowledge.get_collection(snapshot, record.collection_id)

    def follow_sources(self, *, make_up: bool = False) -> None:
        """After sources were made, changed or deleted: schedules and watched folders are as the catalog has them.

        A short-lived service leaves both to one that stays.
        """
        if not self._stays:
            return
        with self._following:  # who reads later must not be overtaken
            with self.base.catalog.read() as snapshot:
                records = knowledge.list_sources(snapshot)
            self.schedules.follow(records, make_up=make_up)
            self.watchers.follow(records)

    def _open_folder(self, source_id: str) -> FolderSource:
        """A watched source's folder, looked at anew each time: what may be read can change with a link in its path."""
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, source_id)
        return watchable(self.open(record), name=record.name)

    # ── work ──────────────────────────────────────────────────────────────────────────────────

    def submit_sync(
        self,
        record: SourceRecord,
        *,
        allow_deletes: bool = False,
        verify: bool = False,
        only: Sequence[str] | None = None,
    ) -> Job:
        """With `only`, the items with these keys and no others."""
        self.begin()
        asked = {"allow_deletes": allow_deletes, "verify": verify}
        return self.jobs.submit(
            kind="sync",
            collection_id=record.collection_id,
            source_id=record.id,
            request=asked if only is None else {**asked, "only": sorted(set(only))},
        )

    def _sync_when_due(self, source_id: str) -> None:
        """One that waits or runs already will do: a schedule that is quicker than its source piles nothing up."""
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, source_id)
            unfinished = jobs.unfinished_jobs(snapshot)
        if any(job.source_id == source_id and job.kind == "sync" for job in unfinished):
            log.info("The sync of “%s” that is due is left out: one is under way", record.name)
        else:
            self.submit_sync(record)

    def _sync_after_change(self, source_id: str) -> None:
        """Behind one that runs, which may have passed the file already; together with one that waits."""
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, source_id)
        self.submit_sync(record)

    @property
    def backup_dir(self) -> Path:
        return backup_folder(self.settings).resolve()

    def submit_backup(self, path: Path) -> Job:
        """Everything in one file at `path`, made by a job while everything goes on."""
        self.begin()
        return self.jobs.submit(kind="backup", collection_id=None, source_id=None, request={"path": str(path)})

    def submit_upload(self, collection: Collection, data: bytes, upload: Upload) -> Job:
        """Keep the bytes, then read them in a job. `upload.sha256` is filled in here."""
        self.begin()
        with self.base.catalog.write() as connection:
            record = knowledge.find_source(connection, collection, UPLOADS) or knowledge.create_source(
                connection, collection, name=UPLOADS, kind=UPLOAD_KIND, config={}
            )
        request = {
            "key": upload.key,
            "name": upload.name,
            "sha256": self.base.originals.put(data),
            "media_type": upload.media_type,
            "title": upload.title,
            "uri": upload.uri,
            "metadata": dict(upload.metadata),
        }
        return self.jobs.submit(kind="upload", collection_id=collection.id, source_id=record.id, request=request)

    def submit_reindex(
        self,
        collection: Collection,
        *,
        embedder: str | None = None,
        chunk_tokens: int | None = None,
        check: bool = True,
        force: bool = False,
        back: bool = False,
        confirm: bool = False,
    ) -> Job:
        """What is not said is what is configured. Raises NotAllowed for a model outside of the allowed folders."""
        if embedder is not None:
            self._check_embedder(embedder)
        self.begin()
        request = ReindexRequest(
            embedder=embedder or self.base.embedder.spec,
            chunk_tokens=chunk_tokens or self.settings.chunk_tokens,
            check=check,
            force=force,
            back=back,
            confirm=confirm,
        )
        return self.jobs.submit(kind="reindex", collection_id=collection.id, source_id=None, request=asdict(request))

    def _check_embedder(self, spec: str) -> None:
        """Whoever may call is not whoever may read every file of this machine; hub names are looked up by name."""
        folder = Path(spec).expanduser()
        if spec == self.settings.embedder or not (folder.is_absolute() or spec.startswith(".") or folder.exists()):
            return
        if not any(folder.resolve().is_relative_to(root.resolve()) for root in self.limits.allowed_roots):
            raise NotAllowed(
                f"The embedder {spec} lies outside of the folders that this service may read.",
                remedy="Set ATTEST_EMBEDDER to it, or add its folder to ATTEST_ALLOWED_ROOTS.",
            )

    def plan(self, record: SourceRecord, *, allow_deletes: bool = False, verify: bool = False) -> Plan:
        """Everything that a sync would do, each with its reason; touches nothing."""
        run = self._run(record, read_options(record, ocr=self.settings.ocr))
        return run.plan(self.open(record, verify=verify), SyncOptions(allow_deletes=allow_deletes, verify=verify))

    def _sync(self, running: Running) -> Report:
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, str(running.job.source_id))
        request = running.job.request
        only = request.get("only")
        options = SyncOptions(
            allow_deletes=bool(request.get("allow_deletes")),
            verify=bool(request.get("verify")),
            only=None if only is None else frozenset(only),
        )
        run = self._run(record, read_options(record, ocr=self.settings.ocr), running)
        report = run.run(self.open(record, verify=options.verify), options)
        self._probe(report, run)
        self._tidy()
        return report

    def _upload(self, running: Running) -> Report:
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, str(running.job.source_id))
        run = self._run(record, read_options(record, ocr=self.settings.ocr), running, sandbox=self._upload_sandbox)
        upload = Upload(**running.job.request)
        report = run.run(OneUpload(upload, base=self.base), SyncOptions(partial=True))
        self._probe(report, run)
        self._tidy()
        return report

    def _probe(self, report: Report, run: Sync) -> None:
        """Whether the embedder can read what came in, when that is not known yet."""
        if not report.counts.added + report.counts.changed:
            return
        try:
            with self.base.catalog.read() as snapshot:
                index = indexes.active_index(snapshot, run.collection.id)
            probe_if_due(self.base, index, embedder=self.base.embedder_for(index, run.collection.name))
        except AttestError as problem:  # what is not known yet is no reason for a job to fail
            log.error("The embedder could not be probed: %s", problem)

    def _tidy(self) -> None:
        """Old versions and answers go where new ones came: after each job, and at start."""
        try:
            tidy(self.base, self.retention)
        except Unavailable as problem:  # what stays too long is no reason for a job to fail
            log.error("Old versions could not be removed: %s", problem)

    def _run(
        self,
        record: SourceRecord,
        options: ReadOptions,
        running: Running | None = None,
        *,
        sandbox: Sandbox | None = None,
    ) -> Sync:
        collection = self.base.collections([record.collection_id])[0]
        configured = self.base.embedder_of(collection) is self.base.embedder
        if configured and self.embedder_problem and not self._warming.is_alive():
            raise Unavailable(self.embedder_problem)
        return Sync(
            base=self.base,
            collection=collection,
            source=record,
            read=partial((sandbox or self._sandbox).read, stopped=running.stop.is_set if running else _never),
            read_options=options,
            target_tokens=self.settings.chunk_tokens,
            report_items=running.report_items if running else lambda _items: None,
            report_progress=running.report_progress if running else lambda _progress: None,
            cancelled=running.cancelled if running else lambda: False,
            max_delete_share=self.settings.max_delete_share,
        )

    def keep_answer(self, question: str, answer: AnswerOut) -> None:
        """So that it can be looked up, and what it cites outlives retention. A full disk does not lose the answer."""
        if self.settings.keep_answers_days == 0:
            return
        try:
            with self.base.catalog.write() as connection:
                answers.keep_answer(
                    connection,
                    answer.id,
                    question=question,
                    refused=answer.refused,
                    answer=answer.model_dump(mode="json"),
                    cites=[(item.document_id, item.version) for item in answer.citations],
                )
        except Unavailable as problem:
            log.error("Answer %s is not kept: %s", answer.id, problem)

    def job(self, job_id: str) -> Job:
        with self.base.catalog.read() as snapshot:
            return jobs.get_job(snapshot, job_id)
