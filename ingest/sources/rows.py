"""A row of a database becomes text that reads well: a line per column, long text as paragraphs under its column's name.

The same row gives the same text from SQLite, PostgreSQL and MySQL (numbers without trailing zeros, dates in ISO form),
so moving a database embeds nothing again. Knows values and names only; no driver, no connection.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal

from rag.models import Block, MetadataValue, Parsed, Problem
from rag.text.language import canonical

ColumnKind = Literal["text", "number", "decimal", "moment", "yes_no", "json", "binary", "bits", "other"]

LONG_TEXT_CHARACTERS = 200  # a longer value stands as paragraphs of its own
_TITLE_CHARACTERS = 200
_MOMENT = re.compile(r"(\d{4,}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d)?)(\.\d+)?\s*(Z|[+-]\d\d(?::?\d\d)?)?)?")
_WORD_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")
# UUID, MongoDB's id, a digest, ULID.
_MADE_BY_A_MACHINE = re.compile(
    r"\{?[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\}?|[0-9a-f]{24,}|[0-7][0-9a-hjkmnp-tv-z]{25}", re.IGNORECASE
)
_REFERENCE_SUFFIX = re.compile(r"[\s_]*(?:(?<![a-z])id|编号|编码|代码|編號|編碼|代碼)$", re.IGNORECASE)


class Stamp(str):
    """A date or time as the server wrote it in ISO form; drivers refuse years beyond 9999 and `infinity`."""

    __slots__ = ()


class DamagedText(str):
    """Text whose bytes were not what the database says they are; U+FFFD stands for what could not be read."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a row says: what it is called, and its value as text."""

    name: str
    text: str


# ── values ────────────────────────────────────────────────────────────────────────────────────


def value_text(value: object, kind: ColumnKind = "other", scale: int | None = None) -> str:
    """A value as a person writes it; empty for NULL. Of a binary column only the size is selected, and noted."""
    if value is None:
        return ""
    if isinstance(value, int) and kind in ("binary", "yes_no"):
        return _counted(value) if kind == "binary" else {0: "no", 1: "yes"}.get(value, str(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Stamp) or (kind == "moment" and isinstance(value, str)):
        return _moment_text(value)
    if isinstance(value, float | Decimal):
        return _number_text(value, scale if kind == "decimal" else None)
    if isinstance(value, bytes | bytearray | memoryview):
        return _bytes_text(bytes(value), kind)
    if kind == "json":
        return _json_text(value)
    if isinstance(value, datetime | date | time | timedelta):
        return _moment_text(_iso(value))
    if isinstance(value, list | tuple | set | frozenset):
        return _list_text(list(value))
    return _json_text(value) if isinstance(value, Mapping) else str(value).strip()


def metadata_value(value: object, kind: ColumnKind = "other", scale: int | None = None) -> MetadataValue | None:
    """A value with its type kept, for filters. Dates and times become the date, so that all of them compare."""
    if value is None or kind == "binary":
        return None
    if kind == "yes_no" and value in (0, 1):
        return bool(value)
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    text = canonical(value_text(value, kind, scale))
    if kind == "moment" or isinstance(value, Stamp | date):
        try:
            return date.fromisoformat(text[:10])
        except ValueError:
            return text or None
    if isinstance(value, float | Decimal):
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(number) if isinstance(value, Decimal) and number.is_integer() and abs(number) < 2**53 else number
    return text or None


def _counted(size: int) -> str:
    return f"[binary data, {size:,} bytes]"


def _bytes_text(value: bytes, kind: ColumnKind) -> str:
    if kind == "bits":
        return str(int.from_bytes(value, "big"))
    if kind != "binary":  # SQLite keeps bytes in a text column if they were put there
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return _counted(len(value))
        if "\x00" not in text:
            return text.strip()
    return _counted(len(value))


def _number_text(value: float | Decimal, scale: int | None) -> str:
    """Exact, without trailing zeros: SQLite gives 0.99 where PostgreSQL gives 0.9900."""
    if isinstance(value, float):
        if scale is not None and abs(value) < 1e15:
            value = Decimal(f"{value:.{scale}f}")
        elif value != 0 and not 1e-7 < abs(value) < 1e17:
            return repr(value)  # also inf and nan
        else:
            value = Decimal(repr(value))
    if not value.is_finite():
        return str(value)
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _iso(value: date | time | timedelta) -> str:
    if not isinstance(value, timedelta):
        return str(value)
    seconds, microseconds = divmod(abs(value) // timedelta(microseconds=1), 1_000_000)
    fraction = f".{microseconds:06}" if microseconds else ""
    sign = "-" if value < timedelta(0) else ""
    return f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"


def _moment_text(text: str) -> str:
    """`2021-01-01 00:00:00` reads 2021-01-01: many schemas keep plain dates in columns made for times."""
    match = _MOMENT.fullmatch(text.strip())
    if match is None or match[2] is None:
        return text.strip()
    day, clock, fraction, zone = match.groups()
    fraction = (fraction or "").rstrip("0").rstrip(".")
    if zone is None and not fraction and not clock.strip("0:"):
        return day
    zone = " UTC" if zone in ("Z", "+00", "+0000", "+00:00") else zone or ""
    return f"{day} {clock}{fraction}{zone}"


def _json_text(value: object) -> str:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return str(value).strip()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=value_text)


def _list_text(values: Sequence[object]) -> str:
    if any(isinstance(value, Mapping | list | tuple) for value in values):
        return _json_text(values)
    return ", ".join(value_text(value) for value in values if value is not None)


# ── names ─────────────────────────────────────────────────────────────────────────────────────


def readable(name: str) -> str:
    """`SupportRepId` → `Support Rep Id`, `unit_price` → `Unit price`, 客户名称 as it is."""
    words = _WORD_BORDER.sub(" ", name).split()
    text = " ".join(words) or name
    return text[0].upper() + text[1:]


def reference_name(column: str) -> str:
    """What a foreign key refers to: `SupportRepId` → `Support Rep`, 客户编号 → 客户; empty where only `id` is left."""
    return _REFERENCE_SUFFIX.sub("", readable(column)).strip()


def is_code(value: object) -> bool:
    """Whether a key says something to people (TL-1310, NL, a date), unlike a number or a UUID that only counts rows."""
    return isinstance(value, str) and bool(value.strip()) and not _MADE_BY_A_MACHINE.fullmatch(value.strip())


def labelled_code(code: str, label: str) -> str:
    """`TL-1310 (TideLog Cryo)`; one of the two alone where it says the other already."""
    said = re.search(rf"(?<!\w){re.escape(code)}(?!\w)", label, re.IGNORECASE)
    return label if said else f"{code} ({label})"


def key_text(values: Sequence[object], kinds: Sequence[ColumnKind]) -> str | None:
    """A primary key for people and citations (`1, 3402`); None where a part of it is NULL."""
    if any(value is None for value in values):
        return None
    return ", ".join(_key_part(value, kind) for value, kind in zip(values, kinds, strict=True))


def key_path(values: Sequence[object], kinds: Sequence[ColumnKind]) -> str:
    """A primary key as a document's key: two different keys never give the same text."""
    parts = (_key_part(value, kind) for value, kind in zip(values, kinds, strict=True))
    path = ",".join(part.replace("%", "%25").replace(",", "%2C").replace("/", "%2F") for part in parts)
    return path if len(path) <= 200 else f"{path[:120]}~{hashlib.sha256(path.encode()).hexdigest()[:32]}"


def _key_part(value: object, kind: ColumnKind) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    # A text key is kept to the letter: " a" and "a" are two rows.
    return canonical(value) if type(value) is str and kind != "moment" else value_text(value, kind)


# ── a row ─────────────────────────────────────────────────────────────────────────────────────


def row_parsed(table: str, row: str, fields: Iterable[Field], *, problems: Sequence[Problem] = ()) -> Parsed:
    """The row's text and blocks: short values as `name: value` lines first, then each long one under its name."""
    writer = _Writer(table, row)
    long_fields = []
    for field in fields:
        text = canonical(field.text).strip()
        if len(text) > LONG_TEXT_CHARACTERS:
            long_fields.append(Field(field.name, text))
        elif text:
            writer.line(f"{field.name}: {' '.join(text.split())}")
    for field in long_fields:
        writer.long(field)
    text = "".join(writer.parts)
    return Parsed(text, tuple(writer.blocks), status="ok" if text else "empty", problems=tuple(problems))


def short_title(text: str) -> str:
    text = " ".join(canonical(text).split())
    return text if len(text) <= _TITLE_CHARACTERS else text[: _TITLE_CHARACTERS - 1].rstrip() + "…"


class _Writer:
    """Text and blocks that grow together, so that offsets are right by construction."""

    def __init__(self, table: str, row: str) -> None:
        self.parts: list[str] = []
        self.blocks: list[Block] = []
        self._section = (table,)
        self._row = row
        self._length = 0

    def line(self, text: str) -> None:
        self._separate("\n")
        start, end = self._append(text)
        self.blocks.append(Block("table_row", start, end, self._section, row=self._row))

    def long(self, field: Field) -> None:
        section = (*self._section, field.name)
        self._separate("\n\n")
        start, end = self._append(field.name)
        self.blocks.append(Block("heading", start, end, section, level=2, row=self._row))
        for number, paragraph in enumerate(re.split(r"\n\s*\n", field.text)):
            self._separate("\n\n" if number else "\n")
            start, end = self._append(paragraph.strip())
            self.blocks.append(Block("paragraph", start, end, section, row=self._row))

    def _separate(self, separator: str) -> None:
        if self.parts:
            self._append(separator)

    def _append(self, text: str) -> tuple[int, int]:
        start = self._length
        self.parts.append(text)
        self._length += len(text)
        return start, self._length
