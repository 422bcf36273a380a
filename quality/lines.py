"""Reading data that people wrote: every mistake is named by file and line, and says what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rag.errors import InvalidInput, NotFound

Row = Mapping[str, Any]


def read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError as problem:
        raise NotFound(f"There is no file {path}.", remedy="Check the path.") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidInput(f"{path} cannot be read: {problem}.", remedy="It must be a file in UTF-8.") from problem


def json_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, object); blank lines are passed over."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as problem:
            raise bad(path, number, f"is no JSON ({problem})", "Write one JSON object per line.") from problem
        if not isinstance(row, dict):
            raise bad(path, number, "is no JSON object", 'Write one object per line: {"question": "…"}.')
        yield number, row


def whole_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as problem:
        raise InvalidInput(f"{path} is no JSON: {problem}.", remedy="Check the file.") from problem


def text_of(row: Row, *names: str, path: Path, line: int) -> str:
    """The first of these fields that is there, as text; raises InvalidInput where none is, or it is empty."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    raise bad(path, line, f"has no “{names[0]}”", f"Give it a text in the field “{names[0]}”.")


def texts_of(row: Row, name: str, *, path: Path, line: int) -> tuple[str, ...]:
    """A list of texts; one text is a list of one, nothing an empty one. Lists in lists are joined."""
    value = row.get(name)
    if value is None or value == "":
        return ()
    values = value if isinstance(value, list) else [value]
    flat = [item for one in values for item in (one if isinstance(one, list) else [one])]
    if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in flat):
        raise bad(path, line, f"has a “{name}” that is no list of texts", f'Write "{name}": ["…", "…"].')
    return tuple(dict.fromkeys(str(item) for item in flat if str(item).strip()))


def parts_of(row: Row, *, path: Path, line: int) -> tuple[tuple[str, ...], ...]:
    """`answer_parts`: what must all be said, each in any of its wordings."""
    return tuple(texts_of({"part": part}, "part", path=path, line=line) for part in row.get("answer_parts") or ())


def flag_of(row: Row, name: str, *, path: Path, line: int) -> bool | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "是": True, "false": False, "no": False, "0": False, "否": False}
    if str(value).strip().lower() in words:
        return words[str(value).strip().lower()]
    raise bad(path, line, f"says “{value}” for “{name}”", "Write true or false.")


def bad(path: Path, line: int, what: str, remedy: str) -> InvalidInput:
    return InvalidInput(f"Line {line} of {path} {what}.", remedy=remedy)
