"""What the catalog knows of the time of documents: the dates among their metadata, and how their texts begin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

from sqlalchemy import select

from rag.catalog.engine import Connection
from rag.catalog.tables import chunks, document_metadata
from rag.filters import day
from rag.models import Hit
from rag.text.periods import Told

_BATCH = 500


def told_of(connection: Connection, hits: Collection[Hit], *, openings: Collection[Hit]) -> dict[str, Told]:
    """By document. Of those that the hits in `openings` are from, also the first chunk of their version, which often
    says since when it is in force."""
    begins = _openings(connection, openings, sorted({hit.document_id for hit in openings}))
    days = _dates(connection, sorted({hit.document_id for hit in hits}))
    return {key: Told(days.get(key, {}), begins.get(key, "")) for key in days.keys() | begins.keys()}


def _dates(connection: Connection, ids: list[str]) -> Mapping[str, Mapping[str, date]]:
    found: dict[str, dict[str, date]] = {}
    own = document_metadata.c
    for start in range(0, len(ids), _BATCH):
        rows = connection.execute(
            select(own.document_id, own.key, own.type, own.text)
            .where(own.document_id.in_(ids[start : start + _BATCH]))
            .order_by(own.edited)  # what was edited comes last, and counts
        )
        for row in rows:
            values = found.setdefault(row.document_id, {})
            values.pop(row.key, None)
            said = day(row.text[:10]) if row.type in ("date", "text") else None
            if said is not None:
                values[row.key] = said
    return found


def _openings(connection: Connection, hits: Collection[Hit], ids: list[str]) -> dict[str, str]:
    versions = {hit.document_id: hit.version for hit in hits}
    found: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        rows = connection.execute(
            select(chunks.c.document_id, chunks.c.version, chunks.c.text).where(
                chunks.c.document_id.in_(ids[start : start + _BATCH]), chunks.c.ordinal == 0
            )
        )
        for row in rows:
            if versions[row.document_id] == row.version:
                found[row.document_id] = row.text
    return found
