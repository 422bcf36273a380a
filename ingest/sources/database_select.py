"""The one statement that reads a table with the labels of its foreign keys."""

from __future__ import annotations

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

    base = _aliased(reading.schema, reading.table, [column.name for column in reading.columns], "base")
    selected = [_selected(base, column, most_characters) for column in reading.columns]
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
