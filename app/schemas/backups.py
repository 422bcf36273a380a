"""Backups over the wire."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from app.schemas.common import Strict
from rag.catalog.backups import Backup


class BackupIn(Strict):
    name: Annotated[str, StringConstraints(min_length=1, max_length=150)] | None = Field(
        None, description="A plain file name. Default: one with the time in it."
    )
    path: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^/")] | None = Field(
        None, description="Anywhere on the service's disk: for commands of the user who runs the service."
    )


class BackupOut(BaseModel):
    id: str
    path: str
    change: int = Field(description="The last change of the knowledge base that it holds.")
    bytes: int
    created_at: datetime
    present: bool = Field(description="A file is still where it was put.")

    @classmethod
    def of(cls, backup: Backup) -> BackupOut:
        return cls(
            id=backup.id,
            path=backup.path,
            change=backup.change,
            bytes=backup.bytes,
            created_at=backup.created_at,
            present=Path(backup.path).is_file(),
        )


class BackupList(BaseModel):
    data: list[BackupOut]
    next_cursor: str | None
