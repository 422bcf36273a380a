"""What the catalog knows of the time of documents: the dates among their metadata, and how their texts begin."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

from sqlalchemy import BindParameter, bindparam, select

from rag.catalog.engine import Connection
from rag.catalog.tables import chunks, document_metadata
from rag.catalog.versions import Chunk
from rag.filters import day
from rag.text.periods import Told

_BATCH = 500

# Built once: every question runs them, and building them takes longer than running them.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_METADATA = (
    select(document_metadata.c.document_id, document_metadata.c.key, document_metadata.c.type, document_metadata.c.text)
    .where(document_metadata.c.document_id.in_(_IDS))
    .order_by(document_metadata.c.edited)  # what was edited comes last, and counts
)
_FIRST = select(chunks.c.document_id, chunks.c.version, chunks.c.text).where(
    chunks.c.document_id.in_(_IDS), chunks.c.ordinal == 0
)


def told_of(connection: Connection, hits: Collection[Chunk], *, openings: Collection[Chunk]) -> dict[str, Told]:
    """By document. Of those that the hits in `openings` are from, also the first chunk of their version, which often
    says since when it is in force."""
    begins = _openings(connection, openings, sorted({hit.document_id for hit in openings}))
    days = _dates(connection, sorted({hit.document_id for hit in hits}))
    return {key: Told(days.get(key, {}), begins.get(key, "")) for key in days.keys() | begins.keys()}


def _dates(connection: Connection, ids: list[str]) -> Mapping[str, Mapping[str, date]]:
    found: dict[str, dict[str, date]] = {}
    for start in range(0, len(ids), _BATCH):
        for row in connection.execute(_METADATA, {"ids": ids[start : start + _BATCH]}).all():
            values = found.setdefault(row.document_id, {})
            values.pop(row.key, None)
            said = day(row.text[:10]) if row.type in ("date", "text") else None
            if said is not None:
                values[row.key] = said
    return found


def _openings(connection: Connection, hits: Collection[Chunk], ids: list[str]) -> dict[str, str]:
    versions = {hit.document_id: hit.version for hit in hits}
    found: dict[str, str] = {}
    for start in range(0, len(ids), _BATCH):
        for row in connection.execute(_FIRST, {"ids": ids[start : start + _BATCH]}).all():
            if versions[row.document_id] == row.version:
                found[row.document_id] = row.text
    return found
