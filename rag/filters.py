"""What a question may be narrowed to: a filter's grammar, and its reading from JSON.

    {"field": "department", "eq": "Sales"}                      a condition: a field and exactly one operator
    {"and": [ … ]}   {"or": [ … ]}   {"not": { … }}             filters made of filters

A condition is true or false of a document, never unknown. It is false of one that lacks the field, so that `ne`, which
is the opposite of `eq`, and `not` are true of it. docs/filters.md tells it to users.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal, get_args

from rag.errors import InvalidFilter

Operator = Literal["eq", "ne", "in", "contains", "gt", "gte", "lt", "lte", "between", "exists"]
Value = str | bool | int | float | date | datetime

OPERATORS: tuple[Operator, ...] = get_args(Operator)
COMPARING: frozenset[Operator] = frozenset({"gt", "gte", "lt", "lte", "between"})

# What every document has, beside its metadata. No key of metadata is meant by a name with one @.
TEXT_FIELDS = ("@id", "@title", "@uri", "@name", "@media_type", "@source", "@kind", "@collection", "@tag")
TIME_FIELDS = ("@created_at", "@updated_at")

MAX_DEPTH = 8
MAX_CONDITIONS = 64
MAX_VALUES = 1_000  # of one `in`
MAX_CHARS = 1_000  # of a field's name or a text

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Condition:
    """`values`: one; two of `between`; one or more of `in`. A text that stands for a day or a time is one already where
    it is compared; where it may be equal to either, it is still a text. `pointer`: where it stood, for errors."""

    field: str
    operator: Operator
    values: tuple[Value, ...]
    pointer: str = dataclasses.field(default="", compare=False)

    @property
    def key(self) -> str | None:
        """The key of metadata that is meant, or None for what every document has. “@@x” means the key “@x”."""
        if self.field.startswith("@@"):
            return self.field[1:]
        return None if self.field.startswith("@") else self.field


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter


Filter = Condition | And | Or | Not


def parse(data: object, *, pointer: str = "") -> Filter:
    """A filter from what JSON made of it. Raises InvalidFilter, whose `pointer` leads to the wrong part."""
    return _Reader().filter(data, pointer, depth=1)


def conditions(what: Filter) -> list[Condition]:
    """All of them, from left to right."""
    match what:
        case Condition():
            return [what]
        case Not():
            return conditions(what.part)
        case And() | Or():
            return [found for part in what.parts for found in conditions(part)]


def day(text: str) -> date | None:
    """The day that is written so (2023-05-01), if one is."""
    if not _DAY.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


class _Reader:
    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, data: object, pointer: str, *, depth: int) -> Filter:
        if not isinstance(data, Mapping):
            raise InvalidFilter(f"A filter is an object; this is {_kind(data)}.", pointer=pointer, remedy=_REMEDY)
        if depth > MAX_DEPTH:
            raise InvalidFilter(
                f"Filters may stand in one another {MAX_DEPTH} deep; this goes deeper.",
                pointer=pointer,
                remedy="Write it flatter: an “and” inside of an “and” is one “and”.",
            )
        if "field" in data:
            return self._condition(data, pointer)
        names = [name for name in ("and", "or", "not") if name in data]
        if len(names) != 1 or len(data) != 1:
            raise InvalidFilter(
                f"A filter has a “field” and one operator, or only “and”, “or” or “not”; this has {_names(data)}.",
                pointer=pointer,
                remedy=_REMEDY,
            )
        name = names[0]
        below = f"{pointer}/{name}"
        if name == "not":
            return Not(self.filter(data["not"], below, depth=depth + 1))
        parts = data[name]
        if not isinstance(parts, list | tuple) or not parts:
            what = "an empty list" if isinstance(parts, list | tuple) else _kind(parts)
            raise InvalidFilter(
                f"“{name}” wants a list of one filter or more; this is {what}.", pointer=below, remedy=_REMEDY
            )
        read = tuple(self.filter(part, f"{below}/{at}", depth=depth + 1) for at, part in enumerate(parts))
        return And(read) if name == "and" else Or(read)

    def _condition(self, data: Mapping[object, object], pointer: str) -> Condition:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidFilter(
                f"A filter may have {MAX_CONDITIONS} conditions; this is one more.",
                pointer=pointer,
                remedy="Several values of one field are one condition with “in”.",
            )
        name = _field(data["field"], f"{pointer}/field")
        others = [key for key in data if key != "field"]
        operator = next((known for known in OPERATORS if known in others), None)
        if operator is None or len(others) != 1:
            said = _names(others) if others else "none"
            raise InvalidFilter(
                f"A condition has exactly one operator; the one on “{name}” has {said}.",
                pointer=pointer,
                remedy=f"Operators are {', '.join(OPERATORS)}.",
            )
        below = f"{pointer}/{operator}"
        found = Condition(name, operator, _values(operator, data[operator], below), pointer)
        if found.key is None:
            return _built_in(found)
        if any(isinstance(value, datetime) for value in found.values):
            raise InvalidFilter(
                f"“{name}” is metadata, whose dates are days; this is a time.",
                pointer=below,
                remedy="Write the day alone: 2023-05-01.",
            )
        return found


_REMEDY = '{"field": "department", "eq": "Sales"} is a filter; docs/filters.md has the grammar.'


def _field(value: object, pointer: str) -> str:
    name = _text(value, pointer, what="A field's name")
    if not name:
        raise InvalidFilter("A field's name is empty.", pointer=pointer, remedy=_REMEDY)
    if name.startswith("@") and not name.startswith("@@") and name not in TEXT_FIELDS + TIME_FIELDS:
        raise InvalidFilter(
            f"There is no “{name}”.",
            pointer=pointer,
            remedy=f"Every document has {', '.join(TEXT_FIELDS + TIME_FIELDS)}; a key of metadata that begins with @ "
            f"is written with two: “@{name}”.",
        )
    return name


def _values(operator: Operator, value: object, pointer: str) -> tuple[Value, ...]:
    match operator:
        case "exists":
            if not isinstance(value, bool):
                raise InvalidFilter(f"“exists” wants true or false; this is {_kind(value)}.", pointer=pointer)
            return (value,)
        case "in":
            if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_VALUES:
                this = f"has {len(value)}" if isinstance(value, list | tuple) else f"is {_kind(value)}"
                raise InvalidFilter(f"“in” wants a list of 1 to {MAX_VALUES} values; this {this}.", pointer=pointer)
            return tuple(_scalar(one, f"{pointer}/{at}") for at, one in enumerate(value))
        case "between":
            if not isinstance(value, list | tuple) or len(value) != 2:
                raise InvalidFilter("“between” wants a list of two values, both of them included.", pointer=pointer)
            low, high = (_comparable(one, operator, f"{pointer}/{at}") for at, one in enumerate(value))
            _check_order(low, high, pointer)
            return low, high
        case "contains":
            if not isinstance(value, str):
                raise InvalidFilter(f"“contains” looks for a text; this is {_kind(value)}.", pointer=pointer)
            if not (text := _text(value, pointer, what="A text")).strip():
                raise InvalidFilter("“contains” looks for a text; this one is empty.", pointer=pointer)
            return (text,)
        case "eq" | "ne":
            return (_scalar(value, pointer),)
        case "gt" | "gte" | "lt" | "lte":
            return (_comparable(value, operator, pointer),)


def _scalar(value: object, pointer: str) -> Value:
    """A text, a number or a truth value, as JSON has them; from Python also a date."""
    if isinstance(value, bool | date):
        return value
    if isinstance(value, int | float):
        return _number(value, pointer)
    if isinstance(value, str):
        return _text(value, pointer, what="A text")
    remedy = "“exists”: false finds the documents that lack a field." if value is None else ""
    raise InvalidFilter(
        f"A text, a number, true or false is wanted; this is {_kind(value)}.", pointer=pointer, remedy=remedy
    )


def _comparable(value: object, operator: Operator, pointer: str) -> Value:
    """A number, a day or a time."""
    if isinstance(value, date):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, pointer)
    if isinstance(value, str):
        found = day(_text(value, pointer, what="A text")) or _moment(value)
        if found is not None:
            return found
        raise InvalidFilter(
            f"“{operator}” compares numbers and dates; “{value[:40]}” is a text.",
            pointer=pointer,
            remedy="A date is written 2023-05-01; a number stands without quotes.",
        )
    raise InvalidFilter(f"“{operator}” compares numbers and dates; this is {_kind(value)}.", pointer=pointer)


def _check_order(low: Value, high: Value, pointer: str) -> None:
    if isinstance(low, int | float) and isinstance(high, int | float):
        backwards = low > high
    elif isinstance(low, date) and isinstance(high, date):
        backwards = _first_instant(low) > _first_instant(high)
    else:
        raise InvalidFilter("“between” wants two numbers or two dates, not one of each.", pointer=pointer)
    if backwards:
        raise InvalidFilter("The first value of “between” is larger than the second.", pointer=pointer)


def _first_instant(value: date) -> datetime:
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


def _number(value: float, pointer: str) -> int | float:
    # JSON has no NaN, but Python's reader takes it; and a database keeps no integer of a thousand digits.
    try:
        finite = math.isfinite(float(value))
    except OverflowError:
        finite = False
    if not finite:
        raise InvalidFilter("This number is too large, or none.", pointer=pointer)
    return value


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _text(value: object, pointer: str, *, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidFilter(f"{what} is a text; this is {_kind(value)}.", pointer=pointer, remedy=_REMEDY)
    if len(value) > MAX_CHARS:
        raise InvalidFilter(f"{what} has at most {MAX_CHARS} characters; this has {len(value)}.", pointer=pointer)
    if any("\ud800" <= character <= "\udfff" for character in value):  # no database can be asked for half a character
        raise InvalidFilter(f"{what} has half a character in it (a lone surrogate).", pointer=pointer)
    return value


def _built_in(found: Condition) -> Condition:
    """The condition, its texts read as times where the field is one. Raises InvalidFilter where they do not fit."""
    name, operator = found.field, found.operator
    if operator == "exists":
        return found
    below = f"{found.pointer}/{operator}"
    if name in TEXT_FIELDS:
        if operator in COMPARING:
            raise InvalidFilter(
                f"“{name}” is a text, and “{operator}” compares numbers and dates.",
                pointer=below,
                remedy="“eq”, “in” and “contains” look into texts.",
            )
        _each(found, below, lambda value: isinstance(value, str), f"“{name}” is a text")
        return found
    if operator == "contains":
        raise InvalidFilter(f"“{name}” is a time, and “contains” looks into texts.", pointer=below)
    read = tuple((day(value) or _moment(value) or value) if isinstance(value, str) else value for value in found.values)
    found = Condition(name, operator, read, found.pointer)
    _each(
        found, below, lambda value: isinstance(value, date), f"“{name}” is a time, like 2023-05-01T12:00:00Z or a day"
    )
    return found


def _each(found: Condition, below: str, fits: Callable[[Value], bool], want: str) -> None:
    for at, value in enumerate(found.values):
        if not fits(value):
            pointer = f"{below}/{at}" if found.operator in ("in", "between") else below
            raise InvalidFilter(f"{want}; this is {_kind(value)}: {str(value)[:40]}.", pointer=pointer)


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", tuple: "a list", date: "a date", datetime: "a time"}
    return names.get(type(value), "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}")


def _names(keys: object) -> str:
    listed = [f"“{str(key)[:40]}”" for key in keys] if isinstance(keys, Mapping | list) else []
    shown = ", ".join(listed[:5])
    return f"{shown} …" if len(listed) > 5 else shown or "nothing"
