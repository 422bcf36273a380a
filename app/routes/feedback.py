"""What people say of answers."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Query, status
from pydantic import AwareDatetime

from app.dependencies import ServiceDep
from app.schemas.feedback import FeedbackIn, FeedbackList, FeedbackOut
from rag.catalog import answers, feedback, knowledge
from rag.catalog.engine import Connection
from rag.catalog.feedback import Judged, Judgement
from rag.errors import NotFound

router = APIRouter(prefix="/feedback", tags=["questions"])


@router.post("", status_code=status.HTTP_201_CREATED)
def give_feedback(request: FeedbackIn, service: ServiceDep) -> FeedbackOut:
    """Say whether an answer was right, whether its evidence was, and what it should have been; or what a question
    should be answered with. It outlives the answer, until it is removed or one of its documents is purged. Given twice,
    the later one counts when questions are made of it (`attest eval --feedback`)."""
    names = [request.collection] if isinstance(request.collection, str) else request.collection or []
    said = Judgement(
        request.helpful, request.evidence, request.expected, tuple(dict.fromkeys(request.documents)), request.comment
    )
    with service.base.catalog.write() as connection:
        judged, question, searched = Judged(), request.question, ()
        if request.answer_id is not None:
            kept = answers.get_answer(connection, request.answer_id).answer
            judged, question = Judged.of(kept), request.question or str(kept["standalone_question"])
            searched = tuple((kept.get("refusal") or {}).get("searched") or ())
        for document in said.documents:
            knowledge.get_document(connection, document)
        assert question is not None  # the schema wants one of the two
        named = [knowledge.get_collection(connection, name).id for name in names]
        return FeedbackOut.of(
            feedback.add_feedback(
                connection,
                said,
                question=question,
                collections=named or _searched(connection, judged, searched),
                judged=judged,
            )
        )


def _searched(connection: Connection, judged: Judged, names: tuple[str, ...]) -> list[str]:
    """A refusal names what was searched; of an answer it is known by what it cites."""
    found = list(feedback.collections_of(connection, judged.cited))
    for name in names:
        try:
            found.append(knowledge.get_collection(connection, name).id)
        except NotFound:  # renamed or removed since
            continue
    return found


@router.get("")
def list_feedback(
    service: ServiceDep,
    collection: Annotated[str | None, Query(description="Only what this one was asked; name or id.")] = None,
    helpful: Annotated[bool | None, Query(description="Only what was said to be right, or to be wrong.")] = None,
    answer_id: Annotated[str | None, Query(description="Only on this answer.")] = None,
    since: Annotated[AwareDatetime | date | None, Query(description="Only what was said since then.")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> FeedbackList:
    """Newest first."""
    if since is not None and not isinstance(since, datetime):
        since = datetime.combine(since, time.min, UTC)
    asked = service.collection(collection).id if collection is not None else None
    with service.base.catalog.read() as snapshot:
        found = feedback.list_feedback(
            snapshot, collection=asked, helpful=helpful, answer=answer_id, since=since, after=cursor, limit=limit + 1
        )
    page = found[:limit]
    return FeedbackList(
        data=[FeedbackOut.of(item) for item in page], next_cursor=page[-1].id if len(found) > limit else None
    )


@router.get("/{feedback_id}")
def get_feedback(feedback_id: str, service: ServiceDep) -> FeedbackOut:
    with service.base.catalog.read() as snapshot:
        return FeedbackOut.of(feedback.get_feedback(snapshot, feedback_id))


@router.delete("/{feedback_id}", status_code=status.HTTP_204_NO_CONTENT)
def remove_feedback(feedback_id: str, service: ServiceDep) -> None:
    with service.base.catalog.write() as connection:
        feedback.remove_feedback(connection, feedback_id)
