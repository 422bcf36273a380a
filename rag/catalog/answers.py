"""Answers, kept for a while: what they cite can be looked up as long as they are. Functions over a connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Text, and_, cast, delete, func, insert, or_, select

from rag.catalog.engine import now
from rag.catalog.tables import answer_citations, answers
from rag.errors import NotFound
from rag.gaps import Asked

_BATCH = 500  # SQLite takes so many values and more


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


# ── what was asked in vain ────────────────────────────────────────────────────────────────────


def asked_since(connection: Connection, since: datetime | None = None) -> list[Asked]:
    """Every kept question since then. One has no answer where it was refused, or where no source supports a sentence
    of what a model said. Questions that were too vague to be looked up, or whose filter left nothing to search, are no
    gaps of the knowledge."""
    told = cast(answers.c.answer, Text)
    unsupported = and_(
        func.instr(told, '"support":"supported"') == 0, func.instr(told, '"support":"weak"') == 0, ~answers.c.refused
    )
    vague = func.coalesce(func.json_array_length(answers.c.answer, "$.refusal.readings"), 0) > 0
    filtered_out = func.coalesce(func.json_extract(answers.c.answer, "$.refusal.kind"), "") == "filtered_out"
    query = select(
        answers.c.id,
        answers.c.question,
        func.json_extract(answers.c.answer, "$.standalone_question").label("standalone"),
        func.json_extract(answers.c.answer, "$.refusal.searched").label("searched"),
        or_(answers.c.refused, unsupported).label("gap"),
        answers.c.created_at,
    ).where(~vague, ~filtered_out)
    if since is not None:
        query = query.where(answers.c.created_at >= since)
    return [
        Asked(
            row.id,
            row.standalone or row.question,
            row.created_at,
            bool(row.gap),
            frozenset(json.loads(row.searched) if row.searched else ()),
        )
        for row in connection.execute(query)
    ]


def kept_as(connection: Connection, ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Answers as the HTTP interface showed them, by id; those that are still kept."""
    query = select(answers.c.id, answers.c.answer).where(answers.c.id.in_(list(ids)))
    return {row.id: row.answer for row in connection.execute(query)}


def forget_answers(connection: Connection, ids: Iterable[str]) -> None:
    wanted = list(ids)
    for start in range(0, len(wanted), _BATCH):
        connection.execute(delete(answers).where(answers.c.id.in_(wanted[start : start + _BATCH])))
