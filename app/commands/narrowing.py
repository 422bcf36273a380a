"""Filters as they are typed: JSON, or conditions like year>=2021."""

from __future__ import annotations

import json
import re
from typing import Any

import typer

# The longer ones first: >= is not > with a value that begins with =.
_OPERATORS = {"!=": "ne", ">=": "gte", "<=": "lte", "=": "eq", ">": "gt", "<": "lt", "~": "contains"}
_CONDITION = re.compile(r"(?P<field>.+?)\s*(?P<operator>!=|>=|<=|=|>|<|~)\s*(?P<value>.*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?")


def narrowed(where: list[str] | None, filter_json: str | None) -> dict[str, Any] | None:
    """The filter that all of them make together. The service says what is wrong inside of it."""
    parts = [condition(text) for text in where or ()]
    if filter_json is not None:
        parts.append(_read(filter_json))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else {"and": parts}


def condition(text: str) -> dict[str, Any]:
    """One field, operator and value. What looks like a number or a truth value may be one, or a text that looks so;
    what is stored decides. In double quotes it is a text."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None or not match["value"]:
        raise typer.BadParameter(
            f"“{text}” is no condition: it wants a field, one of {' '.join(_OPERATORS)}, and a value.",
            param_hint="--where",
        )
    field, operator, typed = match["field"], _OPERATORS[match["operator"]], match["value"]
    value, as_text = _value(typed)
    if operator == "contains":
        return {"field": field, operator: as_text}
    if operator in ("eq", "ne") and not isinstance(value, str) and not field.startswith("@"):
        either = {"field": field, "in": [value, as_text]}
        return {"not": either} if operator == "ne" else either
    return {"field": field, operator: as_text if field.startswith("@") else value}


def _value(typed: str) -> tuple[str | int | float | bool, str]:
    """What it may be meant as, and the text that it is."""
    if len(typed) > 1 and typed[0] == typed[-1] == '"':
        return typed[1:-1], typed[1:-1]
    if typed in ("true", "false"):
        return typed == "true", typed
    if not _NUMBER.fullmatch(typed):
        return typed, typed
    return (float(typed) if re.search(r"[.eE]", typed) else int(typed)), typed


def _read(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise typer.BadParameter(f"This is not JSON: {problem}.", param_hint="--filter") from problem
    if not isinstance(read, dict):
        raise typer.BadParameter(
            'A filter is an object, like {"field": "department", "eq": "Sales"}.', param_hint="--filter"
        )
    return read
