"""Knowledge bases of datasets, made once and kept in a cache folder, for `attest eval`."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingest.readers import registry
from ingest.readers.options import ReadOptions
from ingest.split import fingerprint
from ingest.sync import Progress, Sync, SyncOptions
from quality.models import Dataset, Document
from quality.subject import AssistantSubject
from rag.catalog import indexes, knowledge
from rag.catalog.jobs import JobItem
from rag.errors import InvalidInput
from rag.knowledge import KnowledgeBase
from rag.models import Item, Original
from rag.ports import Embedder
from rag.retrieval.probe import probe_if_due
from rag.settings import Settings
from rag.storage.owner import Owner
from rag.wiring import open_assistant, open_embedder, open_knowledge_base

log = logging.getLogger(__name__)

COLLECTION = "dataset"
_FORMAT = 1  # raise it when the same documents would be stored otherwise
_COMPLETE = "complete.json"
_STATED = Callable[[int, int | None], None]


@dataclass
class DatasetBases:
    """Opens the knowledge base of a dataset's documents; what was made once is found again by what it was made of:
    documents, embedder, splitter. Each folder can be deleted at any time."""

    cache: Path
    settings: Settings
    embedder: Embedder | None = None  # loaded once for all of them

    @contextmanager
    def open(self, dataset: Dataset, *, moved: _STATED = lambda _done, _total: None) -> Iterator[AssistantSubject]:
        """Ready to be asked. `moved` hears how many documents were read, where they have to be.

        Raises FolderInUse where another evaluation works with the same documents.
        """
        assert dataset.documents is not None
        embedder = self._embedder()
        folder = self._folder(dataset, embedder)
        owner = Owner(folder)
        try:
            fresh = not (folder / _COMPLETE).is_file()
            if fresh:
                _empty(folder)  # one that was begun and broken off
            settings = self.settings.model_copy(update={"data_dir": folder, "chroma_url": None})
            base = open_knowledge_base(settings, embedder=embedder)
            try:
                base.caches.attach_terms()
                base.caches.attach()
                if fresh:
                    _fill(base, dataset.documents, target_tokens=self.settings.chunk_tokens, moved=moved)
                    about = {"dataset": dataset.name, "documents": len(dataset.documents), "embedder": embedder.name}
                    (folder / _COMPLETE).write_text(json.dumps(about, ensure_ascii=False) + "\n", "utf-8")
                yield AssistantSubject(base, open_assistant(settings, base), COLLECTION, settings.top_k)
            finally:
                base.caches.close()
                base.catalog.close()
        finally:
            owner.release()

    def _folder(self, dataset: Dataset, embedder: Embedder) -> Path:
        """That of the same documents, by whatever name the dataset went then."""
        digest = _digest(dataset.documents or (), embedder, self.settings.chunk_tokens)
        known = sorted(self.cache.glob(f"*-{digest}"))
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset.name).strip("-")[:40] or "dataset"
        return known[0] if known else self.cache / f"{name}-{digest}"

    def about(self) -> dict[str, str]:
        embedder = self._embedder()
        return {"name": embedder.name, "identity": embedder.identity}

    def _embedder(self) -> Embedder:
        if self.embedder is None:
            shared = self.settings.model_cache or self.cache / "models"
            self.embedder = open_embedder(self.settings.model_copy(update={"model_cache": shared}))
        return self.embedder


def _digest(documents: Sequence[Document], embedder: Embedder, chunk_tokens: int) -> str:
    made_of = hashlib.sha256()
    for part in (str(_FORMAT), embedder.identity, fingerprint(target_tokens=chunk_tokens)):
        made_of.update(f"{part}\0".encode())
    for document in documents:
        made_of.update(f"{document.id}\0{document.title}\0{document.text}\0".encode("utf-8", "surrogatepass"))
    return made_of.hexdigest()[:16]


def _empty(folder: Path) -> None:
    """All but the lock that is held in it."""
    for item in folder.iterdir():
        if item.name.startswith("owner."):
            continue
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def _fill(base: KnowledgeBase, documents: Sequence[Document], *, target_tokens: int, moved: _STATED) -> None:
    """As uploads of plain text would be read, split and embedded, but many at once and in this process: the texts come
    from a file that the person who evaluates chose to read."""
    collection = base.create_collection(COLLECTION, splitter=fingerprint(target_tokens=target_tokens))
    with base.catalog.write() as connection:
        source = knowledge.create_source(connection, collection, name="documents", kind="upload", config={})
    failed: list[JobItem] = []

    def report(items: list[JobItem]) -> None:
        failed.extend(item for item in items if item.state == "failed")

    def progress(at: Progress) -> None:
        moved(at.done, at.total)

    Sync(
        base=base,
        collection=collection,
        source=source,
        read=registry.read,
        read_options=ReadOptions(ocr=False),
        target_tokens=target_tokens,
        report_items=report,
        report_progress=progress,
        cancelled=lambda: False,
    ).run(_Listing(documents), SyncOptions())
    if failed:
        first = failed[0]
        what = first.problem.detail if first.problem else "no reason was given"
        raise InvalidInput(
            f"{len(failed)} of {len(documents)} documents could not be read; “{first.key}”: {what}",
            remedy="Take them out of the dataset, with the questions about them.",
        )
    with base.catalog.read() as snapshot:
        index = indexes.active_index(snapshot, collection.id)
    probe_if_due(base, index, embedder=base.embedder)  # as after any upload: it limits what the vectors weigh


@dataclass(frozen=True, slots=True)
class _Listing:
    """The documents as a source; each goes by its id."""

    documents: Sequence[Document]

    def items(self, known: Mapping[str, Mapping[str, str]]) -> Iterator[Item]:  # noqa: ARG002  # the port's
        for document in self.documents:
            if document.text.strip():  # BEIR has documents without a text
                yield _item(document)


def _item(document: Document) -> Item:
    def load() -> Original:
        data = document.text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
        return Original(data, f"{document.id}.txt", "text/plain; charset=utf-8", document.title or None)

    return Item(document.id, document.id, {"id": document.id}, load)
