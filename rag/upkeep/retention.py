"""What goes: versions that have outlived their use, answers whose time is over, and a document without a trace when
somebody asks for that."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from rag.catalog import answers, backups, history
from rag.catalog.backups import Backup
from rag.catalog.engine import migration_copies, now
from rag.knowledge import KnowledgeBase

log = logging.getLogger(__name__)

_MANY = 200  # versions per transaction: nobody waits long for the writer's lock


@dataclass(frozen=True, slots=True)
class Retention:
    """`versions`: the last so many of each document; a deleted document's for `deleted_days`; answers for
    `answers_days`. Active versions, and those that kept answers cite, always stay."""

    versions: int = 5
    deleted_days: float = 30.0
    answers_days: float = 30.0


@dataclass(frozen=True, slots=True)
class Purged:
    """`backups` hold the document still. `comes_back`: its source is read again, and brings it back if it has it."""

    document_id: str
    backups: tuple[Backup, ...]
    comes_back: bool


def tidy(base: KnowledgeBase, retention: Retention) -> int:
    """Let go of what nobody is promised any more. Returns how many versions went. Cheap where there is nothing."""
    moment = now()
    with base.catalog.write() as connection:
        answers.collect_answers(connection, before=moment - timedelta(days=retention.answers_days))
    removed = 0
    deleted_before = moment - timedelta(days=retention.deleted_days)
    while True:
        with base.catalog.read() as snapshot:
            gone = history.outlived(snapshot, keep=retention.versions, deleted_before=deleted_before, limit=_MANY)
        if not gone:
            return removed
        with base.catalog.write() as connection:
            # Again, now that nobody else writes: an answer may have begun to cite one, a roll-back to want it.
            gone = history.outlived(connection, keep=retention.versions, deleted_before=deleted_before, limit=_MANY)
            originals = history.remove_versions(connection, gone)
        _remove_originals(base, originals)
        removed += len(gone)


def _remove_originals(base: KnowledgeBase, digests: Iterable[str], *, fresh_too: bool = False) -> None:
    with base.catalog.write() as connection:  # nobody begins to want one while this looks
        for digest in history.unreferenced(connection, digests):
            if fresh_too or not base.originals.is_fresh(digest):
                base.originals.remove(digest)


# ── without a trace ───────────────────────────────────────────────────────────────────────────


def purge(base: KnowledgeBase, document_id: str) -> Purged:
    """Remove every trace of a document: text, versions, vectors, terms, originals, answers that quote it.

    When this returns, no file of the data folder holds it, free pages and write-ahead log included. Killed on the way,
    it is finished at the next start. Raises NotFound, and Gone where it was purged before.
    """
    with base.catalog.read() as snapshot:
        traces = history.traces_of(snapshot, document_id)
    base.caches.purge(traces)
    with base.catalog.read() as snapshot:
        made = backups.list_backups(snapshot)  # after the purge: one may have been completed just before it
    _remove_originals(base, traces.originals, fresh_too=True)
    _write_everything_anew(base)
    with base.catalog.write() as connection:
        history.finish_purge(connection, [document_id])
    holding = tuple(item for item in made if item.change >= traces.first_change)
    return Purged(document_id, holding, comes_back=traces.kind != "upload")


def finish_purges(base: KnowledgeBase) -> None:
    """Complete what a kill interrupted: its rows are gone, files may still hold it."""
    with base.catalog.read() as snapshot:
        unfinished = history.unfinished_purges(snapshot)
    if not unfinished:
        return
    log.warning("Completing the purge of %d documents.", len(unfinished))
    _remove_originals(base, list(base.originals.digests()), fresh_too=True)
    _write_everything_anew(base)
    with base.catalog.write() as connection:
        history.finish_purge(connection, unfinished)


def _write_everything_anew(base: KnowledgeBase) -> None:
    base.caches.write_anew()
    for copy in migration_copies(base.catalog.path):
        copy.unlink()
    for torn in base.catalog.path.parent.glob("chroma-torn-*"):
        shutil.rmtree(torn)
    base.catalog.write_anew()
