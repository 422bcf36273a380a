"""JSON and JSON Lines: records that are documents read as documents, all others as rows that name their fields."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from ingest.readers.blocks import Blocks
from ingest.readers.options import ReadOptions
from ingest.readers.rows import show_value
from ingest.readers.tables import MAX_ROWS
from ingest.readers.text import decode, note_encoding
from rag.errors import DocumentError
from rag.models import Parsed
from rag.text.language import canonical

_TITLE_FIELDS = ("title", "headline", "subject", "question", "name", "标题", "問題", "问题", "名称")
_TEXT_FIELDS = ("text", "content", "body", "answer", "description", "summary", "正文", "内容", "答案", "摘要")
_MAX_DEPTH = 6  # of headings; what is nested deeper is flattened into its row


def read_json(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:
    text, _ = decode(data)  # JSON is UTF-8 whatever is declared (RFC 8259), and sometimes it is not
    if not text.strip():
        return Blocks().parsed()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and "\n" in text.strip():
            return read_jsonl(data, options=options, media_type=media_type)
        detail = f"This is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise DocumentError("corrupt", detail, remedy="Export it again.") from error
    except RecursionError as error:
        raise DocumentError("too_large", "This JSON nests its values too deeply to be read.") from error
    blocks = Blocks()
    note_encoding(blocks, text)
    left_out = _add_value(blocks, value, depth=1)
    title = value.get("title") if isinstance(value, dict) else None
    return _finished(blocks, left_out, title=title if isinstance(title, str) else None)


def read_jsonl(data: bytes, *, options: ReadOptions, media_type: str | None = None) -> Parsed:  # noqa: ARG001  # every reader is called alike
    text, _ = decode(data)
    blocks = Blocks()
    note_encoding(blocks, text)
    bad: list[int] = []
    left_out = _add_records(blocks, _lines(canonical(text), bad), depth=1)
    if bad and not len(blocks):
        raise DocumentError("corrupt", "No line of this file is valid JSON.", remedy="Export it again.")
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (" …" if len(bad) > 5 else "")
        blocks.problem(
            "lines-left-out", f"{len(bad):,} lines are not valid JSON: {shown}.", remedy="Export them again."
        )
    return _finished(blocks, left_out, partial=bool(bad))


def _lines(text: str, bad: list[int]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                bad.append(number)


def _finished(blocks: Blocks, left_out: int, *, title: str | None = None, partial: bool = False) -> Parsed:
    if left_out:
        remedy = "Split the file, or load it into a database and add that as a source."
        blocks.problem(
            "rows-left-out", f"{left_out:,} records past the first {MAX_ROWS:,} were not read.", remedy=remedy
        )
    return blocks.parsed(title=title, status="partial" if left_out or partial else "ok")


def _add_value(blocks: Blocks, value: Any, *, depth: int) -> int:
    """Adds any value; returns how many records were left out."""
    if isinstance(value, list):
        return _add_records(blocks, enumerate(value, start=1), depth=depth)
    if not isinstance(value, dict):
        blocks.add("paragraph", _show(value))
        return 0
    if _is_document(value):
        _add_document(blocks, value, depth=depth, row=None)
        return 0
    left_out = 0
    for name, inner in value.items():
        nested = isinstance(inner, dict) or (isinstance(inner, list) and any(isinstance(each, dict) for each in inner))
        if nested and inner and depth < _MAX_DEPTH:
            blocks.heading(name, level=depth)
            left_out += _add_value(blocks, inner, depth=depth + 1)
            blocks.leave(depth)
        else:
            blocks.add("paragraph", _row_text({name: inner}))
    return left_out


def _add_records(blocks: Blocks, records: Iterable[tuple[int, Any]], *, depth: int) -> int:
    records = iter(records)
    for number, record in islice(records, MAX_ROWS):
        if isinstance(record, dict) and _is_document(record):
            _add_document(blocks, record, depth=depth, row=str(number))
        elif isinstance(record, dict):
            blocks.add("table_row", _row_text(record), row=str(number))
        else:
            blocks.add("list_item", _show(record))
    return sum(1 for _ in records)


def _is_document(record: Mapping[str, Any]) -> bool:
    """A title, and a text that is more than a label."""
    text = _first(record, _TEXT_FIELDS)
    return (
        _first(record, _TITLE_FIELDS) is not None
        and text is not None
        and (len(record[text]) > 80 or "\n" in record[text])
    )


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    known = {name.lower(): name for name, value in record.items() if isinstance(value, str) and value.strip()}
    return next((known[name] for name in names if name in known), None)


def _add_document(blocks: Blocks, record: Mapping[str, Any], *, depth: int, row: str | None) -> None:
    title, text = _first(record, _TITLE_FIELDS), _first(record, _TEXT_FIELDS)
    assert title is not None
    assert text is not None
    blocks.heading(record[title], level=depth)
    others = {name: value for name, value in record.items() if name not in (title, text)}
    for name, value in _flat(others):
        blocks.add("paragraph", f"{name}: {value}", row=row)
    for paragraph in canonical(record[text]).split("\n\n"):
        blocks.add("paragraph", paragraph, row=row)
    blocks.leave(depth)


def _row_text(record: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in _flat(record))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every field that has a value, nested ones as `address.city`, lists of plain values in one line."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for index, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{name}[{index}]")
    else:
        shown = ", ".join(map(_show, value)) if isinstance(value, list) else _show(value)
        if shown:
            yield name, shown


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return _row_text(value) if isinstance(value, dict) else ", ".join(map(_show, value))
    return show_value(value)
