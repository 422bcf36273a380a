"""Names that chunks give to one thing in two languages. Functions over a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select

from rag.catalog.engine import Catalog, fact, remember
from rag.catalog.tables import activations, aliases, chunk_is_active_at, chunks
from rag.text.glossary import FORMAT, Alias, mine
from rag.text.language import is_han

_BATCH = 2_000  # chunks in one transaction: others want to write meanwhile
_MOST = 5_000  # pairs that one question may find; a name on every page of ten thousand needs no more to be counted
_FACT = "glossary"
# Built once: every question runs them, and building them takes longer than running them.
_NAMES: BindParameter[Any] = bindparam("names", expanding=True)
_NAMED_ZH = select(aliases.c.id).where(aliases.c.zh.in_(_NAMES)).limit(_MOST)
_NAMED_EN = select(aliases.c.id).where(aliases.c.en.in_(_NAMES)).limit(_MOST)


def save(connection: Connection, texts: Iterable[tuple[int, str]]) -> None:
    """What the chunks with these keys spell out."""
    rows = [{"chunk_key": key, "zh": item.zh, "en": item.en} for key, text in texts for item in mine(text)]
    if rows:
        connection.execute(insert(aliases), rows)


def find(
    connection: Connection, names: Sequence[str], index_ids: Sequence[int], *, at: int | None = None
) -> list[tuple[Alias, int]]:
    """Pairs with one of these names, and how many active chunks have each; now, or right after a change."""
    chinese = [name for name in names if is_han(name[0])]
    english = [name for name in names if not is_han(name[0])]
    # Most questions have none: that much is one look into an index, and joins nothing.
    found = [
        row.id
        for query, some in ((_NAMED_ZH, chinese), (_NAMED_EN, english))
        if some
        for row in connection.execute(query, {"names": some})
    ]
    if not found:
        return []
    query = (
        select(aliases.c.zh, aliases.c.en, func.count())
        .join(chunks, chunks.c.key == aliases.c.chunk_key)
        .join(activations, chunk_is_active_at(at))
        .where(aliases.c.id.in_(found), chunks.c.index_id.in_(index_ids))
        .group_by(aliases.c.zh, aliases.c.en)
    )
    return [(Alias(zh, en), count) for zh, en, count in connection.execute(query)]


def is_up_to_date(connection: Connection) -> bool:
    """Whether all that is there was found by this version; not yet, after an upgrade."""
    return fact(connection, _FACT) == str(FORMAT)


def bring_up_to_date(catalog: Catalog, *, stop: Callable[[], bool] = lambda: False) -> None:
    """What another version found in the texts, or did not look for, is found anew. Can be broken off at any point."""
    with catalog.read() as snapshot:
        if is_up_to_date(snapshot):
            return
    with catalog.write() as connection:
        connection.execute(delete(aliases))
    last = 0
    while not stop():
        with catalog.write() as connection:
            rows = connection.execute(
                select(chunks.c.key, chunks.c.text).where(chunks.c.key > last).order_by(chunks.c.key).limit(_BATCH)
            ).all()
            keys = [row.key for row in rows]
            # Chunks that were written meanwhile have brought theirs along.
            connection.execute(delete(aliases).where(aliases.c.chunk_key.in_(keys)))
            save(connection, [(row.key, row.text) for row in rows])
            if len(rows) < _BATCH:
                remember(connection, _FACT, str(FORMAT))
                return
            last = keys[-1]
