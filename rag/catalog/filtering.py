"""Which documents a filter leaves. Functions over a connection, which is the question's own snapshot.

What is said of a document is what is said of it today, also where a question is about the past.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, false, func, literal, not_, or_, select, true, union_all

from rag.catalog.tables import (
    activations,
    chunk_is_active_at,
    chunks,
    collections,
    document_metadata,
    documents,
    sources,
)
from rag.errors import InvalidFilter
from rag.filters import And, Condition, Filter, Not, Or, Value, conditions, day

_MANY = 500  # values in one IN (…)

_HOLDS = {"text": "texts", "number": "numbers", "boolean": "true or false", "date": "dates"}


def check(connection: Connection, what: Filter, collection_ids: Sequence[str]) -> None:
    """Raises InvalidFilter where a condition can never be true because the field's values are of another type.

    A field that nothing has in these collections is no error: it may come to be there.
    """
    for condition in conditions(what):
        if condition.key is None or condition.operator == "exists":
            continue
        fitting = {kind for value in condition.values for kind in _types(condition, value)}
        if _has_type(connection, condition.key, collection_ids, fitting):
            continue
        held = [name for name in _HOLDS if _has_type(connection, condition.key, collection_ids, {name})]
        if held:
            value = condition.values[0]
            raise InvalidFilter(
                f"“{condition.field}” holds {' and '.join(_HOLDS[name] for name in held)}, and “{condition.operator}” "
                f"with {value.isoformat() if isinstance(value, date) else repr(value)} looks for "
                f"{' or '.join(_HOLDS[name] for name in _HOLDS if name in fitting)}.",
                pointer=f"{condition.pointer}/{condition.operator}",
                remedy="Texts stand in quotes, numbers, true and false without, dates as 2023-05-01.",
            )


def document_ids(
    connection: Connection, what: Filter, *, collection_id: str, index_id: int, at: int | None
) -> set[str]:
    """Those that a question could find, now (None) or right after a change, and that pass the filter."""
    _teach(connection)
    version: ColumnElement[bool] = activations.c.to_change.is_(None)
    if at is not None:
        version = and_(activations.c.from_change <= at, or_(version, activations.c.to_change > at))
    has_chunks = (
        select(chunks.c.key)
        .where(
            chunks.c.document_id == documents.c.id,
            chunks.c.version == activations.c.version,
            _index_is(index_id),
        )
        .exists()
    )
    query = (
        select(documents.c.id)
        .join(sources, sources.c.id == documents.c.source_id)
        .join(collections, collections.c.id == sources.c.collection_id)
        .join(activations, activations.c.document_id == documents.c.id)
        .where(collections.c.id == collection_id, documents.c.enabled, version, _holds(what), has_chunks)
    )
    return set(connection.execute(query).scalars())


def chunk_keys(
    connection: Connection, ids: Collection[str], *, index_id: int, at: int | None, at_most: int | None = None
) -> list[int] | None:
    """Keys of these documents' chunks, ascending, as far as a question could find them; None where they are more than
    `at_most`, or surely will be."""
    keys: list[int] = []
    wanted = sorted(ids)
    for start in range(0, len(wanted), _MANY):
        query = (
            select(chunks.c.key)
            .join(activations, chunk_is_active_at(at))
            .where(chunks.c.document_id.in_(wanted[start : start + _MANY]), _index_is(index_id))
        )
        keys.extend(connection.execute(query).scalars())
        share = min(1.0, (start + _MANY) / len(wanted))
        # Twice as many as allowed, if the rest is like these: reading on would cost more than it tells.
        if at_most is not None and (len(keys) > at_most or len(keys) > 2 * at_most * share):
            return None
    return sorted(keys)


def documents_of(connection: Connection, keys: Sequence[int]) -> dict[int, str]:
    """The document of each chunk that is still kept."""
    found: dict[int, str] = {}
    for start in range(0, len(keys), _MANY):
        query = select(chunks.c.key, chunks.c.document_id).where(chunks.c.key.in_(keys[start : start + _MANY]))
        found.update((row.key, row.document_id) for row in connection.execute(query))
    return found


def fold(text: str) -> str:
    """As `contains` sees it: without regard to case and width."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _teach(connection: Connection) -> None:
    """SQLite folds the case of ASCII alone, so it is given our own way to. PostgreSQL has lower(normalize(…, NFKC))."""
    driver: Any = connection.connection.driver_connection
    driver.create_function("attest_fold", 1, fold, deterministic=True)


def _index_is(index_id: int) -> ColumnElement[bool]:
    # The sum keeps SQLite from walking through all chunks of the index instead of those of the document (90 ms for 7
    # documents of 20,000, and 0.3 without it).
    return chunks.c.index_id + 0 == index_id


# ── a filter as SQL ───────────────────────────────────────────────────────────────────────────


def _holds(what: Filter) -> ColumnElement[bool]:
    """True or false of each document, never null."""
    match what:
        case And():
            return and_(true(), *map(_holds, what.parts))
        case Or():
            return or_(false(), *map(_holds, what.parts))
        case Not():
            return not_(_holds(what.part))
        case Condition(operator="ne"):
            return not_(_holds(Condition(what.field, "eq", what.values)))
        case Condition(operator="exists", values=(False,)):
            return not_(_holds(Condition(what.field, "exists", (True,))))
        case Condition(key=str(key)):
            return documents.c.id.in_(_having(key, _metadata_is(what)))
        case Condition(field="@tag"):
            return _tagged(what)
        case Condition(field="@created_at" | "@updated_at"):
            return _time_is(documents.c[what.field[1:]], what)
    return or_(false(), *(_text_is(column, what) for column in _columns(what.field)))


def _having(key: str, holds: ColumnElement[bool]) -> Any:
    """Documents whose value under this key is such. What somebody edited goes before what the source says."""
    edited = document_metadata.alias()
    of_somebody = select(document_metadata.c.document_id).where(
        document_metadata.c.key == key, document_metadata.c.edited == true(), holds
    )
    replaced = select(edited.c.document_id).where(edited.c.key == key, edited.c.edited == true())
    of_source = select(document_metadata.c.document_id).where(
        document_metadata.c.key == key,
        document_metadata.c.edited == false(),
        holds,
        document_metadata.c.document_id.not_in(replaced),
    )
    return union_all(of_somebody, of_source)


def _metadata_is(what: Condition) -> ColumnElement[bool]:
    kind, text, number = document_metadata.c.type, document_metadata.c.text, document_metadata.c.number
    match what.operator:
        case "exists":
            return kind != "none"
        case "contains":
            return and_(kind == "text", func.instr(func.attest_fold(text), fold(str(what.values[0]))) > 0)
        case "eq" | "in":
            return or_(*_equal_by_type(what))
    numbers = [_as_number(value) for value in what.values]
    is_date = isinstance(what.values[0], date)
    return and_(kind == ("date" if is_date else "number"), _compared(number, what.operator, numbers))


def _equal_by_type(what: Condition) -> Iterable[ColumnElement[bool]]:
    kind, text, number = document_metadata.c.type, document_metadata.c.text, document_metadata.c.number
    texts = [value for value in what.values if isinstance(value, str)]
    days = [_as_number(found) for value in what.values if (found := _day_of(value))]
    truths = [float(value) for value in what.values if isinstance(value, bool)]
    numbers = [float(value) for value in what.values if isinstance(value, int | float) and not isinstance(value, bool)]
    yield and_(kind == "text", text.in_(texts)) if texts else false()
    for name, values in (("date", days), ("boolean", truths), ("number", numbers)):
        yield and_(kind == name, number.in_(values)) if values else false()


def _compared(column: ColumnElement[float], operator: str, values: Sequence[float]) -> ColumnElement[bool]:
    first, last = values[0], values[-1]
    match operator:
        case "gt":
            return column > first
        case "gte":
            return column >= first
        case "lt":
            return column < first
        case "lte":
            return column <= first
    return and_(column >= first, column <= last)


def _tagged(what: Condition) -> ColumnElement[bool]:
    tag = func.json_each(documents.c.tags).table_valued("value")
    own = select(literal(1)).select_from(tag)
    if what.operator == "exists":
        return own.exists()
    if what.operator == "contains":  # a whole tag, and no part of one
        return own.where(func.attest_fold(tag.c.value) == fold(str(what.values[0]))).exists()
    return own.where(tag.c.value.in_(what.values)).exists()


def _columns(name: str) -> list[ColumnElement[Any]]:
    """A document's own texts; a condition is true of one that it is true of any of them."""
    columns: dict[str, list[ColumnElement[Any]]] = {
        "@id": [documents.c.id],
        "@title": [func.coalesce(documents.c.edited_title, documents.c.title)],
        "@uri": [documents.c.uri],
        "@name": [documents.c.name],
        "@media_type": [documents.c.media_type],
        "@source": [sources.c.name, sources.c.id],
        "@kind": [sources.c.kind],
        "@collection": [collections.c.name, collections.c.id],
    }
    return columns[name]


def _text_is(column: ColumnElement[Any], what: Condition) -> ColumnElement[bool]:
    present = and_(column.is_not(None), column != "")
    match what.operator:
        case "exists":
            return present
        case "contains":
            return and_(present, func.instr(func.attest_fold(column), fold(str(what.values[0]))) > 0)
    return and_(column.is_not(None), column.in_(what.values))


def _time_is(column: ColumnElement[Any], what: Condition) -> ColumnElement[bool]:
    """A day is all of its instants, in UTC: later than a day is after its end."""
    match what.operator:
        case "exists":
            return true()
        case "eq" | "in":
            return or_(*(and_(column >= _begin(value), column <= _end(value)) for value in what.values))
        case "between":
            return and_(column >= _begin(what.values[0]), column <= _end(what.values[1]))
        case "gt":
            return column > _end(what.values[0])
        case "gte":
            return column >= _begin(what.values[0])
        case "lt":
            return column < _begin(what.values[0])
    return column <= _end(what.values[0])


def _begin(value: Value) -> datetime:
    assert isinstance(value, date)
    return value if isinstance(value, datetime) else datetime.combine(value, time.min, UTC)


def _end(value: Value) -> datetime:
    """The last microsecond, which is as finely as the catalog keeps time."""
    assert isinstance(value, date)
    return value if isinstance(value, datetime) else datetime.combine(value, time.max, UTC)


# ── types ─────────────────────────────────────────────────────────────────────────────────────


def _types(what: Condition, value: Value) -> set[str]:
    """Of metadata that this value can be compared with."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number"}
    if isinstance(value, date):
        return {"date"}
    return {"text", "date"} if what.operator != "contains" and day(value) else {"text"}


def _has_type(connection: Connection, key: str, collection_ids: Sequence[str], types: set[str]) -> bool:
    query = (
        select(document_metadata.c.document_id)
        .join(documents, documents.c.id == document_metadata.c.document_id)
        .join(sources, sources.c.id == documents.c.source_id)
        .where(
            document_metadata.c.key == key,
            document_metadata.c.edited.in_([False, True]),
            document_metadata.c.type.in_(types),
            sources.c.collection_id.in_(collection_ids),
        )
        .limit(1)
    )
    return connection.execute(query).first() is not None


def _day_of(value: Value) -> date | None:
    if isinstance(value, str):
        return day(value)
    return value if isinstance(value, date) else None


def _as_number(value: Value | None) -> float:
    if isinstance(value, date):
        return float(value.toordinal())
    assert isinstance(value, int | float)
    return float(value)
