"""The statements that read a table with the labels of its foreign keys, whole or by keys; or what a query gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ingest.sources.database_shapes import Column, Reading, Reference

if TYPE_CHECKING:
    from sqlalchemy import Select


def select_rows(reading: Reading, *, most_characters: int | None) -> Select[Any]:
    """One statement for the whole table: its columns in order, then the label columns of each reference.

    LEFT JOINs rather than a map held in memory: a label is as fresh as the row, and a referred table may be large.
    Columns carry no type, so that values come as the driver has them and one odd value spoils no row but its own.
    """
    import sqlalchemy as sa

    base = _base(reading)
    as_they_are = {*reading.key, reading.updated_at}
    selected = [
        base.c[column.name] if column.name in as_they_are else _selected(base, column, most_characters)
        for column in reading.columns
    ]
    source: Any = base
    for number, reference in enumerate(reading.references):
        here, depth = base, 0
        step: Reference | None = reference
        while step is not None:
            needed = {*step.referred_columns, *(c.name for c in step.labels)}
            needed |= set(step.beyond.columns) if step.beyond else set()
            there = _aliased(step.schema, step.table, sorted(needed), f"ref_{number}_{depth}")
            pairs = zip(step.columns, step.referred_columns, strict=True)
            matches = sa.and_(*(here.c[own] == there.c[other] for own, other in pairs))
            source = source.outerjoin(there, matches)
            selected += [_selected(there, column, most_characters) for column in step.labels]
            here, step, depth = there, step.beyond, depth + 1
    labelled = [column.label(f"c{number}") for number, column in enumerate(selected)]
    return sa.select(*labelled).select_from(source)


def select_keyed(reading: Reading, keys: Sequence[Sequence[Any]], *, most_characters: int | None) -> Select[Any]:
    """The rows with these keys, no part of which is NULL."""
    import sqlalchemy as sa

    statement = select_rows(reading, most_characters=most_characters)
    base = statement.get_final_froms()[0]
    while isinstance(base, sa.Join):
        base = base.left

    def bound(value: Any) -> Any:
        # Without a type, so that the server compares as its column does: cast to text it equals no date and no UUID.
        return sa.bindparam(None, str(value) if isinstance(value, str) else value, type_=sa.types.NullType())

    if len(reading.key) == 1:
        return statement.where(base.c[reading.key[0]].in_([bound(key[0]) for key in keys]))
    pairs = (zip(reading.key, key, strict=True) for key in keys)
    return statement.where(sa.or_(*(sa.and_(*(base.c[name] == bound(value) for name, value in key)) for key in pairs)))


def select_nothing(query: str) -> Select[Any]:
    """No row of the query: its columns, and whether it can stand inside of another one."""
    import sqlalchemy as sa

    return sa.select(sa.text("*")).select_from(_as_written(query).columns().subquery("base")).where(sa.text("1 = 0"))


def _base(reading: Reading) -> Any:
    import sqlalchemy as sa

    names = [column.name for column in reading.columns]
    if reading.query is None:
        return _aliased(reading.schema, reading.table, names, "base")
    return _as_written(reading.query).columns(*(sa.column(name) for name in names)).subquery("base")


def _as_written(query: str) -> Any:
    """The query as SQLAlchemy's text, in which a colon would begin a parameter. Its last line may be a comment."""
    import sqlalchemy as sa

    return sa.text(re.sub(r"(?=:)", r"\\", query) + "\n")


def _aliased(schema: str | None, table: str, columns: Sequence[str], alias: str) -> Any:
    import sqlalchemy as sa

    return sa.table(table, *(sa.column(name) for name in columns), schema=schema).alias(alias)


def _selected(table: Any, column: Column, most_characters: int | None) -> Any:
    """A picture is worth its size only, and no more of a text is fetched than shows that it is too long.

    Without a limit (a dialect whose functions we have not tried) both come whole.
    """
    import sqlalchemy as sa

    if most_characters is None:
        return table.c[column.name]
    if column.kind == "binary":
        return sa.func.length(table.c[column.name])
    if column.kind == "text" and not column.bounded:
        return sa.func.substr(table.c[column.name], 1, most_characters + 1)
    return table.c[column.name]
