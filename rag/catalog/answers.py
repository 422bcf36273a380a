"""Answers, kept for a while: what they cite can be looked up as long as they are. Functions over a connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from rag.catalog.engine import now
from rag.catalog.tables import answer_citations, answers
from rag.errors import NotFound


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    id: str
    question: str
    answer: Mapping[str, Any]  # as the HTTP interface showed it
    created_at: datetime


def keep_answer(
    connection: Connection,
    answer_id: str,
    *,
    question: str,
    refused: bool,
    answer: Mapping[str, Any],
    cites: Iterable[tuple[str, int]],
) -> None:
    """`cites`: the (document, version) pairs that outlive retention as long as this answer is kept."""
    connection.execute(
        insert(answers).values(id=answer_id, question=question, refused=refused, answer=dict(answer), created_at=now())
    )
    rows = [{"answer_id": answer_id, "document_id": document, "version": version} for document, version in set(cites)]
    if rows:
        connection.execute(insert(answer_citations), rows)


def get_answer(connection: Connection, answer_id: str) -> KeptAnswer:
    """Raises NotFound, also for one whose time is over."""
    row = connection.execute(select(answers).where(answers.c.id == answer_id)).first()
    if row is None:
        raise NotFound(
            f"There is no answer {answer_id}.",
            remedy="Answers are kept for ATTEST_KEEP_ANSWERS_DAYS, and none that quotes a purged document.",
        )
    return KeptAnswer(row.id, row.question, row.answer, row.created_at)


def collect_answers(connection: Connection, *, before: datetime) -> int:
    """Let go of answers older than that. Returns how many."""
    return connection.execute(delete(answers).where(answers.c.created_at < before)).rowcount
