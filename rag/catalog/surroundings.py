"""What stands around a chunk in its own version, whether that is the active one or not."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, select

from rag.catalog.tables import chunks
from rag.models import Hit, Place

_MANY = 500  # values in one IN (…)

_own, _beside = chunks.alias("own"), chunks.alias("beside")
_NEAR = select(_beside.c.key).join_from(
    _own,
    _beside,
    and_(
        _beside.c.document_id == _own.c.document_id,
        _beside.c.version == _own.c.version,
        _beside.c.index_id == _own.c.index_id,
    ),
)
_COLUMNS = select(
    chunks.c.key,
    chunks.c.document_id,
    chunks.c.version,
    chunks.c.start,
    chunks.c.end,
    chunks.c.text,
    chunks.c.heading,
    chunks.c.tokens,
    chunks.c.places,
)


def read_around(connection: Connection, hits: Sequence[Hit], *, reach: int) -> list[Hit]:
    """The chunks up to `reach` before and behind each hit, of the same version and index, the hits themselves left out;
    each once. They were not found, so they have no scores. One query for 500 hits.

    Versions never change, so the snapshot may be another than the one that the hits are from. Of a version that
    retention or a purge has taken since, nothing comes.
    """
    by_version = {(hit.document_id, hit.version): hit for hit in hits}
    keys = [hit.chunk_id for hit in hits]
    found: dict[int, Hit] = {}
    for first in range(0, len(keys), _MANY):
        some = _NEAR.where(
            _own.c.key.in_(keys[first : first + _MANY]),
            _beside.c.ordinal.between(_own.c.ordinal - reach, _own.c.ordinal + reach),
        )
        query = _COLUMNS.where(chunks.c.key.in_(some), chunks.c.key.not_in(keys))
        for key, document_id, version, start, end, text, heading, tokens, places in connection.execute(query):
            hit = by_version[document_id, version]
            found[key] = Hit(
                chunk_id=key,
                collection_id=hit.collection_id,
                document_id=document_id,
                version=version,
                title=hit.title,
                uri=hit.uri,
                places=tuple((place[0], Place(*place[1:])) for place in places),
                start=start,
                end=end,
                text=text,
                heading=heading,
                tokens=tokens,
                score=0.0,
                arms={},
            )
    return list(found.values())
