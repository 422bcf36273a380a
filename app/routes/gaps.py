"""Questions without an answer, for whoever looks after the knowledge."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Query, status
from pydantic import AwareDatetime

from app.dependencies import ServiceDep
from app.schemas.gaps import GapList, GapOut
from app.service import Service
from rag.catalog import answers
from rag.errors import InvalidInput, NotFound
from rag.gaps import Gap, gaps_of

router = APIRouter(prefix="/gaps", tags=["questions"])

_NOT_KEPT = "Answers are not kept (ATTEST_KEEP_ANSWERS_DAYS=0), so nothing is known of questions without one."


@router.get("")
def list_gaps(
    service: ServiceDep,
    collection: Annotated[str | None, Query(description="Only what this one was asked; name or id.")] = None,
    since: Annotated[AwareDatetime | date | None, Query(description="Only what was asked since then.")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> GapList:
    """Questions that the sources did not answer, as long as answers are kept: most often asked first. The same question
    in other words is one gap. Refused questions count, and answers of a model that no source supports."""
    if service.settings.keep_answers_days == 0:
        return GapList(data=[], next_cursor=None, note=_NOT_KEPT)
    found = _gaps(service, collection=collection, since=since)
    start = 0
    if cursor is not None:
        ids = [gap.id for gap in found]
        if cursor not in ids:
            raise InvalidInput("The list has changed under this cursor.", remedy="List the gaps from the beginning.")
        start = ids.index(cursor) + 1
    page = found[start : start + limit]
    with service.base.catalog.read() as snapshot:
        last = answers.kept_as(snapshot, [gap.asked[-1].id for gap in page])
    return GapList(
        data=[GapOut.of(gap, last.get(gap.asked[-1].id, {})) for gap in page],
        next_cursor=page[-1].id if len(found) > start + limit else None,
    )


@router.delete("/{gap_id}", status_code=status.HTTP_204_NO_CONTENT)
def delete_gap(gap_id: str, service: ServiceDep) -> None:
    """Hide a gap: what is kept of its askings is removed. Asked once more without an answer, it is there again."""
    gap = next((gap for gap in _gaps(service) if gap.id == gap_id), None)
    if gap is None:
        raise NotFound(f"There is no gap {gap_id}.", remedy="GET /v1/gaps lists those there are.")
    with service.base.catalog.write() as connection:
        answers.forget_answers(connection, [item.id for item in gap.asked])


def _gaps(service: Service, *, collection: str | None = None, since: datetime | date | None = None) -> list[Gap]:
    if since is not None and not isinstance(since, datetime):
        since = datetime.combine(since, time.min, UTC)
    with service.base.catalog.read() as snapshot:
        asked = answers.asked_since(snapshot, since)
    if collection is not None:
        name = service.collection(collection).name
        asked = [item for item in asked if not item.gap or name in item.searched]
    return gaps_of(asked)
