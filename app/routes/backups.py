"""One file that restores everything, made while everything goes on."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Body, Header, status

from app.dependencies import ServiceDep
from app.schemas.backups import BackupIn, BackupList, BackupOut
from app.schemas.jobs import JobOut
from app.service import Service
from rag.catalog import backups
from rag.errors import Conflict, InvalidInput, NotAllowed
from rag.upkeep.backup import default_name

router = APIRouter(prefix="/backup", tags=["service"])

_NAME = re.compile(r"\w[\w.-]{0,150}")  # of a file in the service's own folder: nothing that leads out of it


@router.post("", status_code=status.HTTP_202_ACCEPTED)
def make_backup(
    service: ServiceDep,
    request: Annotated[BackupIn | None, Body()] = None,
    authorization: Annotated[str, Header(include_in_schema=False)] = "",
) -> JobOut:
    """A job; its item's `uri` is the file, in ATTEST_BACKUP_DIR of the service."""
    path = _target(request or BackupIn(), service, authorization)
    if path.exists():
        raise Conflict(f"There is a file at {path} already.", remedy="Choose another name, or move that file away.")
    return JobOut.of(service.submit_backup(path))


@router.get("")
def list_backups(service: ServiceDep) -> BackupList:
    """Those that were made of this knowledge base, newest first."""
    with service.base.catalog.read() as snapshot:
        found = backups.list_backups(snapshot)
    return BackupList(data=[BackupOut.of(item) for item in found], next_cursor=None)


def _target(request: BackupIn, service: Service, authorization: str) -> Path:
    if request.path is not None:
        # Whoever holds the token of the owner's note may read that note, is the same user, and may write there anyway.
        own = secrets.compare_digest(authorization.encode(), f"Bearer {service.token}".encode())
        if not own:
            raise NotAllowed(
                "Only commands of the user who runs the service may say where on its disk a backup goes.",
                remedy="Give a `name`: the file goes into ATTEST_BACKUP_DIR. Or use attest backup create PATH there.",
            )
        path = Path(request.path)
        return path / default_name() if path.is_dir() else path
    name = request.name or default_name()
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"“{name[:100]}” is no plain file name.", remedy="Use letters, digits, `-`, `_` and dots.")
    return service.backup_dir / name
