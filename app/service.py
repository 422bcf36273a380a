"""Everything a running service holds, put together and taken apart again."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping

from ingest.jobs import Jobs, Running
from ingest.readers.options import ReadOptions
from ingest.readers.sandbox import Sandbox
from ingest.sources.registry import Limits, open_source, read_options
from ingest.sources.uploads import OneUpload, Upload
from ingest.split import fingerprint
from ingest.sync import Report, Sync, SyncOptions
from rag.catalog import jobs, knowledge
from rag.catalog.jobs import Job
from rag.errors import AttestError, Conflict, NotFound, Unavailable
from rag.knowledge import KnowledgeBase
from rag.models import Collection, SourceRecord
from rag.owner import Owner
from rag.ports import Embedder, Source
from rag.settings import Settings
from rag.wiring import allowed_roots, open_assistant, open_knowledge_base

log = logging.getLogger(__name__)

DEFAULT_COLLECTION = "default"
UPLOADS = "uploads"  # the source that a collection's uploads belong to
UPLOAD_KIND = "upload"

_ATTACH_AGAIN_SECONDS = 5.0
_CLOSE_SECONDS = 20.0
_MIB = 1024 * 1024


class Service:
    """Owns the data folder from construction to `close`. Raises FolderInUse where another process does."""

    def __init__(self, settings: Settings, *, embedder: Embedder | None = None, warm: bool = True) -> None:
        self.settings = settings
        self.owner = Owner(settings.data_dir)
        self.token = secrets.token_urlsafe(32)  # lets this user's own commands in, through the owner's note
        try:
            self.base: KnowledgeBase = open_knowledge_base(settings, embedder=embedder)
            self.assistant = open_assistant(settings, self.base)
        except BaseException:
            self.owner.release()
            raise
        self.limits = Limits(
            allowed_roots=allowed_roots(settings),
            max_file_bytes=settings.max_upload_mb * _MIB,
            max_page_bytes=settings.web_max_mb * _MIB,
            delay_seconds=settings.web_delay_seconds,
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
        self.jobs = Jobs(self.base.catalog, {"sync": self._sync, "upload": self._upload}, lanes={"upload": 1})
        self._closing = threading.Event()
        self._attaching = threading.Thread(target=self._attach, name="attach", daemon=True)
        self._warming = threading.Thread(target=self._warm, name="warm", daemon=True)
        # A short-lived service (`warm=False`) loads the embedder and attaches Chroma when something needs them:
        # many commands never do, and it is most of what they would take.
        self._warm_up = warm
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
                self.base.caches.attach_vectors()
            except Exception:  # a thread has nobody above it; exact search goes on answering
                log.exception("Chroma could not be attached")
            if not started:
                if self._warming.is_alive():  # a job to resume would keep the first question waiting for the cores
                    self._warming.join()
                if self._closing.is_set():
                    return
                self.jobs.start()
                started = True
            while not self._closing.wait(_ATTACH_AGAIN_SECONDS) and self.base.caches.vectors_problem is None:
                pass

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
        return not self.base.caches.vectors_attached

    def close(self) -> None:
        self._closing.set()
        self.jobs.close()
        self._sandbox.close()
        self._upload_sandbox.close()
        for thread in (
            self._warming,
            self._attaching,
        ):  # a model that is still loading crashes an interpreter that ends
            if thread.is_alive():
                thread.join(_CLOSE_SECONDS)
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

    def open(self, record: SourceRecord) -> Source:
        return open_source(record, limits=self.limits, base=self.base)

    def delete_source(self, record: SourceRecord) -> None:
        """A source and all that came from it, out of every answer at once."""
        self.base.caches.erase(self._collection_of(record), source_id=record.id)

    def delete_document(self, document_id: str) -> None:
        with self.base.catalog.read() as snapshot:
            document = knowledge.get_document(snapshot, document_id)
            record = knowledge.get_source(snapshot, document.source_id)
        self.base.caches.retire([(document.id, document.version)], collection=self._collection_of(record))

    def _collection_of(self, record: SourceRecord) -> Collection:
        with self.base.catalog.read() as snapshot:
            return knowledge.get_collection(snapshot, record.collection_id)

    # ── work ──────────────────────────────────────────────────────────────────────────────────

    def submit_sync(self, record: SourceRecord, *, allow_deletes: bool = False, verify: bool = False) -> Job:
        self.begin()
        return self.jobs.submit(
            kind="sync",
            collection_id=record.collection_id,
            source_id=record.id,
            request={"allow_deletes": allow_deletes, "verify": verify},
        )

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

    def plan(self, record: SourceRecord, *, verify: bool = False) -> list[tuple[str, str, str]]:
        """(state, key, uri) of everything a sync would do, by what the source says without reading; touches nothing."""
        run = self._run(record, ReadOptions(ocr=self.settings.ocr))
        return run.plan(self.open(record), SyncOptions(verify=verify))

    def _sync(self, running: Running) -> Report:
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, str(running.job.source_id))
        request: Mapping[str, bool] = running.job.request
        options = SyncOptions(allow_deletes=request["allow_deletes"], verify=request["verify"])
        run = self._run(record, read_options(record, ocr=self.settings.ocr), running)
        return run.run(self.open(record), options)

    def _upload(self, running: Running) -> Report:
        with self.base.catalog.read() as snapshot:
            record = knowledge.get_source(snapshot, str(running.job.source_id))
        run = self._run(record, read_options(record, ocr=self.settings.ocr), running, sandbox=self._upload_sandbox)
        upload = Upload(**running.job.request)
        return run.run(OneUpload(upload, base=self.base), SyncOptions(partial=True))

    def _run(
        self,
        record: SourceRecord,
        options: ReadOptions,
        running: Running | None = None,
        *,
        sandbox: Sandbox | None = None,
    ) -> Sync:
        collection = self.base.collections([record.collection_id])[0]
        if self.embedder_problem and not self._warming.is_alive():
            raise Unavailable(self.embedder_problem)
        return Sync(
            base=self.base,
            collection=collection,
            source=record,
            read=(sandbox or self._sandbox).read,
            read_options=options,
            target_tokens=self.settings.chunk_tokens,
            report_items=running.report_items if running else lambda _items: None,
            report_progress=running.report_progress if running else lambda _progress: None,
            cancelled=running.cancelled if running else lambda: False,
        )

    def job(self, job_id: str) -> Job:
        with self.base.catalog.read() as snapshot:
            return jobs.get_job(snapshot, job_id)
