"""The work of a job that makes a backup."""

from __future__ import annotations

from pathlib import Path

from ingest.jobs import Running
from ingest.sync import Cancelled, Progress, Report
from rag.catalog.jobs import Counts, JobItem
from rag.knowledge import KnowledgeBase
from rag.settings import Settings
from rag.upkeep.backup import create


def backup_folder(settings: Settings) -> Path:
    return settings.backup_dir or settings.data_dir / "backups"


def back_up(running: Running, *, base: KnowledgeBase, settings: Settings) -> Report:
    """The item of the job says where the file is."""

    def check() -> None:
        if running.cancelled():
            raise Cancelled

    made = create(
        base.catalog,
        base.originals,
        Path(running.job.request["path"]),
        settings=settings.without_secrets(),
        check=check,
        progress=lambda done, of: running.report_progress(Progress(done, of, Counts())),
    )
    running.report_items([JobItem(made.id, made.path, "added")])
    return Report(Counts(added=1))
