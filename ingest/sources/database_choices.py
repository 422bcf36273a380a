"""What the owner of a database source wrote: tables, columns and a query."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ingest.sources.database_shapes import TableChoice
from rag.errors import InvalidInput

_TABLE_FIELDS = ("name", "key", "text_columns", "metadata_columns", "title_columns", "updated_at")
# A quoted string or name, a comment, or a character that means something outside of them.
_SQL_PART = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|(\$\w*\$).*?\1|--[^\n]*|/\*(?![!M]).*?\*/|(;)|(/\*)""", re.DOTALL
)


def table_choice(table: str | Mapping[str, object]) -> TableChoice:
    if isinstance(table, str):
        return TableChoice(table)
    unknown = sorted(set(table) - set(_TABLE_FIELDS))
    name, updated_at = table.get("name"), table.get("updated_at")
    if unknown or not isinstance(name, str) or not isinstance(updated_at, str | None):
        raise InvalidInput(
            f"A table of a database source cannot be read: {unknown or 'its name or updated_at is not a text'}.",
            remedy=f"Write a name, or a mapping with {', '.join(_TABLE_FIELDS)}.",
        )
    return TableChoice(
        name=name,
        key=column_names(table.get("key", ()), "key"),
        text_columns=None if table.get("text_columns") is None else column_names(table["text_columns"], "text_columns"),
        metadata_columns=column_names(table.get("metadata_columns", ()), "metadata_columns"),
        title_columns=column_names(table.get("title_columns", ()), "title_columns"),
        updated_at=updated_at,
    )


def column_names(value: object, what: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise InvalidInput(f"{what} must be a column's name or a list of them.")
    return tuple(value)


def one_select(query: str) -> str:
    """The query without its closing semicolon, if it is one that only reads.

    A courtesy with a clear message: the read-only transaction and the drivers, which take one statement, are the guard.
    """
    query = query.strip().rstrip(";").rstrip()
    plain = _SQL_PART.sub(lambda match: match[2] or match[3] or " ", query)
    words = plain.replace("(", " ").split()
    if not words or words[0].upper() not in ("SELECT", "WITH", "VALUES", "TABLE"):
        raise InvalidInput("The query of a database source must be a SELECT.", remedy="Start it with SELECT or WITH.")
    if ";" in plain:
        raise InvalidInput("The query holds more than one statement.", remedy="Give one SELECT, without a semicolon.")
    if "/*" in plain or re.search(r"\bINTO\s+(OUTFILE|DUMPFILE)\b", plain, re.IGNORECASE):
        raise InvalidInput("The query would do more than read.", remedy="Take INTO OUTFILE and `/*!` out of it.")
    return query
