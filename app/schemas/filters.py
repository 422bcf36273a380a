"""A filter over the wire. Its form is written down here for the OpenAPI; `rag.filters` reads it."""

from __future__ import annotations

from typing import Any

from pydantic import GetJsonSchemaHandler, RootModel
from pydantic.json_schema import JsonSchemaValue

from rag.filters import (
    MAX_CHARS,
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_VALUES,
    TEXT_FIELDS,
    TIME_FIELDS,
    Filter,
    parse,
)

EXAMPLES: list[dict[str, Any]] = [
    {"field": "department", "eq": "Sales"},
    {
        "and": [
            {"field": "year", "between": [2021, 2023]},
            {"or": [{"field": "@tag", "in": ["contract", "合同"]}, {"field": "@title", "contains": "warranty"}]},
            {"not": {"field": "published", "lt": "2023-05-01"}},
        ]
    },
]

_TEXT = {"type": "string", "maxLength": MAX_CHARS}
_SCALAR = {"anyOf": [_TEXT, {"type": "number"}, {"type": "boolean"}]}
_COMPARED = {
    "anyOf": [{"type": "number"}, {"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]
}
_OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "eq": ("Exactly this text, number, truth value or day (`2023-05-01`).", _SCALAR),
    "ne": ("The opposite of `eq`: true also of a document that lacks the field.", _SCALAR),
    "in": ("Any of these.", {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": MAX_VALUES}),
    "contains": ("A text with this in it, whatever its case and width. Of `@tag`: a whole tag.", _TEXT),
    "gt": ("Greater, or later: numbers, days, and of what is a time also times with their zone.", _COMPARED),
    "gte": ("Greater or equal.", _COMPARED),
    "lt": ("Less, or earlier.", _COMPARED),
    "lte": ("Less or equal.", _COMPARED),
    "between": (
        "From the first to the second, both included.",
        {"type": "array", "items": _COMPARED, "minItems": 2, "maxItems": 2},
    ),
    "exists": ("Whether the document has the field at all.", {"type": "boolean"}),
}
_FIELD = {
    "type": "string",
    "maxLength": MAX_CHARS,
    "description": "A key of the metadata, or what every document has: "
    f"{', '.join(f'`{name}`' for name in TEXT_FIELDS + TIME_FIELDS)}. A key of metadata that itself begins with @ is "
    "written with two.",
    "examples": ["department", "@updated_at"],
}


class FilterIn(RootModel[dict[str, Any]]):
    """A condition on a field, or `and`, `or` and `not` of filters."""

    def read(self, *, pointer: str) -> Filter:
        """Raises InvalidFilter, whose pointer begins with the given one."""
        return parse(self.root, pointer=pointer)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # A filter stands in a filter: pydantic turns its own name for this definition into the document's.
        return _form(handler({"type": "definition-ref", "schema_ref": schema["ref"]}))


def _form(itself: dict[str, Any]) -> dict[str, Any]:
    several = {"type": "array", "items": itself, "minItems": 1}
    forms = [
        _object(f"Condition ({name})", {"field": _FIELD, name: {**form, "description": said}})
        for name, (said, form) in _OPERATORS.items()
    ]
    forms += [
        _object("All of these", {"and": several}),
        _object("One of these", {"or": several}),
        _object("Not this", {"not": itself}),
    ]
    return {
        "title": "Filter",
        "description": "Which documents are searched: a condition, which is a field with exactly one operator, or "
        f"`and`, `or`, `not` of filters; up to {MAX_DEPTH} deep and {MAX_CONDITIONS} conditions. A condition is true "
        "or false of a document, never unknown: false of one that lacks the field. It narrows what is searched before "
        "anything is ranked, so nothing that passes is missed.",
        "oneOf": forms,
        "examples": EXAMPLES,
    }


def _object(title: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
