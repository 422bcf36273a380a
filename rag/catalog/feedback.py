"""What people said of answers: right or wrong, and what it should have been. Functions over a connection.

Feedback outlives the answer that it was given on, so it remembers which documents that answer showed: a purge of one of
them takes it along.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, cast, delete, func, insert, literal, or_, select, tuple_

from rag.catalog.engine import new_id, now
from rag.catalog.tables import UtcDateTime, documents, feedback, sources
from rag.errors import NotFound


@dataclass(frozen=True, slots=True)
class Judgement:
    """What somebody says. None and nothing: it was not said.

    `helpful`: the answer was right, or rightly none; `evidence`: the passages shown were the right ones; `expected`:
    the answer as it should have been; `documents`: ids of those that have it.
    """

    helpful: bool | None = None
    evidence: bool | None = None
    expected: str | None = None
    documents: tuple[str, ...] = ()
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer that it is about, as it was then. `cited` and `closest` are document ids; `refused` is None where no
    answer is named."""

    answer_id: str | None = None
    refused: bool | None = None
    cited: tuple[str, ...] = ()
    closest: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Judged:
        """Of an answer as the HTTP interface showed it."""
        refusal = answer.get("refusal") or {}
        closest = [*(refusal.get("closest") or ()), *(refusal.get("readings") or ())]
        return cls(
            answer["id"],
            bool(answer["refused"]),
            _once(item["document_id"] for item in answer["citations"]),
            _once(item["document_id"] for item in closest),
        )


@dataclass(frozen=True, slots=True)
class Feedback:
    id: str
    question: str  # as it stands alone
    collections: tuple[str, ...]  # ids; none: it is not known
    judgement: Judgement
    judged: Judged
    created_at: datetime


def add_feedback(
    connection: Connection, judgement: Judgement, *, question: str, collections: Iterable[str], judged: Judged
) -> Feedback:
    """Kept until somebody removes it, or purges a document that it has to do with."""
    made = Feedback(new_id("fb"), question, _once(collections), judgement, judged, now())
    shown = {
        "named": list(judgement.documents),
        "evidence": judgement.evidence,
        "refused": judged.refused,
        "cited": list(judged.cited),
        "closest": list(judged.closest),
    }
    connection.execute(
        insert(feedback).values(
            id=made.id,
            answer_id=judged.answer_id,
            question=question,
            collections=list(made.collections),
            helpful=judgement.helpful,
            expected=judgement.expected,
            documents=shown,
            comment=judgement.comment,
            created_at=made.created_at,
        )
    )
    return made


def get_feedback(connection: Connection, feedback_id: str) -> Feedback:
    """Raises NotFound."""
    row = connection.execute(select(feedback).where(feedback.c.id == feedback_id)).first()
    if row is None:
        raise NotFound(f"There is no feedback {feedback_id}.", remedy="GET /v1/feedback lists what there is.")
    return _feedback(row)


def list_feedback(
    connection: Connection,
    *,
    collection: str | None = None,
    helpful: bool | None = None,
    answer: str | None = None,
    since: datetime | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[Feedback]:
    """Newest first; those after the one with the id `after`, where it is given. Feedback of which it is not known what
    was asked counts for every collection."""
    query = select(feedback).order_by(feedback.c.created_at.desc(), feedback.c.id.desc()).limit(limit)
    if after is not None:
        last = get_feedback(connection, after)
        place = tuple_(literal(last.created_at, UtcDateTime()), literal(last.id))
        query = query.where(tuple_(feedback.c.created_at, feedback.c.id) < place)
    if collection is not None:
        asked = func.json_array_length(feedback.c.collections)
        query = query.where(or_(asked == 0, _names(feedback.c.collections, collection)))
    if helpful is not None:
        query = query.where(feedback.c.helpful == helpful)
    if answer is not None:
        query = query.where(feedback.c.answer_id == answer)
    if since is not None:
        query = query.where(feedback.c.created_at >= since)
    return [_feedback(row) for row in connection.execute(query)]


def remove_feedback(connection: Connection, feedback_id: str) -> None:
    """Raises NotFound."""
    get_feedback(connection, feedback_id)
    connection.execute(delete(feedback).where(feedback.c.id == feedback_id))


def purge_feedback(connection: Connection, document_id: str) -> None:
    """All that names the document, and all on an answer that showed it: people quote what they read."""
    connection.execute(delete(feedback).where(_names(feedback.c.documents, document_id)))


def collections_of(connection: Connection, document_ids: Sequence[str]) -> tuple[str, ...]:
    """Ids of the collections that the documents are in."""
    query = (
        select(sources.c.collection_id)
        .join(documents, documents.c.source_id == sources.c.id)
        .where(documents.c.id.in_(document_ids))
        .distinct()
    )
    return tuple(connection.execute(query).scalars())


def _names(column: Any, wanted: str) -> ColumnElement[bool]:
    """Whether an id stands in a column of JSON. Ids are opaque and end in sixteen random digits."""
    return func.instr(cast(column, Text), f'"{wanted}"') > 0


def _once(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids))


def _feedback(row: Row[Any]) -> Feedback:
    shown = row.documents
    return Feedback(
        row.id,
        row.question,
        tuple(row.collections),
        Judgement(row.helpful, shown["evidence"], row.expected, tuple(shown["named"]), row.comment),
        Judged(row.answer_id, shown["refused"], tuple(shown["cited"]), tuple(shown["closest"])),
        row.created_at,
    )
