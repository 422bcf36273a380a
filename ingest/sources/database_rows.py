"""One row of a reading, put into words: key, title, fields, metadata, and the Item that offers them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ingest.sources.database_shapes import Reading, Reference
from ingest.sources.database_stamps import Stamps
from ingest.sources.rows import (
    DamagedText,
    Field,
    is_code,
    key_path,
    key_text,
    labelled_code,
    metadata_value,
    readable,
    reference_name,
    row_parsed,
    short_title,
    value_text,
)
from rag.models import Item, MetadataValue, Original, Problem


class DatabaseRow:
    """One row, named and put into words. Kept small: what an Item holds on to is its finished text."""

    def __init__(self, reading: Reading, values: Sequence[Any]) -> None:
        self._reading = reading
        self._raw = tuple(values)
        self._values = dict(zip((column.name for column in reading.columns), values, strict=False))
        self._columns = {column.name: column for column in reading.columns}
        rest = iter(values[len(reading.columns) :])
        self._labels = {reference.columns: self._referred(reference, rest) for reference in reading.references}
        key = [self._values[name] for name in reading.key]
        kinds = [self._columns[name].kind for name in reading.key]
        text = key_text(key, kinds) if key else None
        self.by_content = text is None
        self.path = f"~{self._content_hash()[:20]}" if text is None else key_path(key, kinds)
        self.key = f"{reading.name}/{self.path}"
        self._key_text = text if text is not None else self.path[:9]
        self._cited_as = f"{reading.name} / {self._key_text}"

    @property
    def characters(self) -> int:
        texts = (self._values[name] for name in self._reading.text_columns)
        return sum(len(value) for value in texts if isinstance(value, str | bytes))

    def item(self, uri: str, stamps: Stamps | None = None) -> Item:
        # An item holds the bare values and finds its words again when it is loaded: a plan may hold all items at once,
        # and with text and blocks in it an item takes 2.0 KB where it takes 1.1 so (Chinook, mean of 15,607 rows).
        reading, values = self._reading, self._raw
        state = self.state(stamps)
        # A mark that no listing has, so the state that is kept differs from the next one.
        kept = state | {"unsettled": "1"} if stamps is not None and stamps.unsettled(state) else state
        return Item(self.key, uri, state, lambda: DatabaseRow(reading, values).original(kept))

    def state(self, stamps: Stamps | None) -> dict[str, str]:
        """A hash of what the row says; and its stamp, with what else decides, where the next listing may go by them."""
        original = self.original({})
        assert original.parsed is not None
        said = repr((original.parsed.text, original.title, sorted(original.metadata.items())))
        state = {"sha256": hashlib.sha256(said.encode("utf-8", "backslashreplace")).hexdigest()}
        if stamps is not None:
            return state | stamps.state(self._raw)
        if self._reading.updated_at:
            state["updated_at"] = self._text(self._reading.updated_at)
        return state

    def original(self, state: Mapping[str, str]) -> Original:
        parsed = row_parsed(self._reading.name, self._cited_as, self.fields(), problems=self._problems())
        title, metadata = self.title(), self.metadata()
        name = f"{self._reading.name}-{self.path}.txt".replace("/", "-")
        return Original(
            parsed.text.encode(), name, "text/plain", title=title, metadata=metadata, state=state, parsed=parsed
        )

    def fields(self) -> Iterator[Field]:
        """The text columns in order; a foreign key once, as what it refers to."""
        said: set[str] = set()
        for name in self._reading.text_columns:
            reference = self._reference(name)
            if name in said:
                continue
            if reference is None:
                yield Field(readable(name), self._text(name))
            else:
                said.update(reference.columns)
                yield Field(_reference_field(reference), self._labels[reference.columns])

    def title(self) -> str:
        words = [self._text(name) for name in self._reading.title_columns]
        label = _joined([word for word in words if word])
        if not label and self._reading.references:
            link = {name for reference in self._reading.references for name in reference.columns}
            if link >= set(self._reading.key):  # a table that only links others is named by what it links
                label = ", ".join(text for text in self._labels.values() if text)
        return short_title(f"{readable(self._reading.name)}: {label or self._key_text}")

    def metadata(self) -> dict[str, MetadataValue]:
        found: dict[str, MetadataValue] = {}
        if self._reading.updated_at:
            column = self._columns[self._reading.updated_at]
            value = metadata_value(self._values[column.name], "moment")
            found |= {"date": value} if value is not None else {}
        for name in self._reading.metadata_columns:
            reference, column = self._reference(name), self._columns[name]
            value = metadata_value(self._values[name], column.kind, column.scale)
            if reference is not None and not self._is_code(reference):  # a code is what people filter by
                value = self._labels[reference.columns]
            found |= {name: value} if value is not None else {}
        return found

    def _referred(self, reference: Reference, values: Iterator[Any]) -> str:
        """What a foreign key reads as: the label of its row, behind the key where that is a code; empty without label.

        The row's owner tells namesakes apart (two albums called “Greatest Hits”); a code needs no such help.
        """
        label, owner = _label_text(reference, values)
        if not label or not self._is_code(reference):
            return f"{label} ({owner})" if label and owner else label
        return labelled_code(", ".join(self._text(name) for name in reference.columns), label)

    def _is_code(self, reference: Reference) -> bool:
        return any(is_code(self._values[name]) for name in reference.columns)

    def _reference(self, column: str) -> Reference | None:
        """The labelled reference that this column is shown by: its own before one that it is only a part of."""
        found = [r for r in self._reading.references if column in r.columns and self._labels[r.columns]]
        return min(found, key=lambda reference: len(reference.columns), default=None)

    def _text(self, name: str) -> str:
        column = self._columns[name]
        return value_text(self._values[name], column.kind, column.scale)

    def _problems(self) -> list[Problem]:
        damaged = [name for name in self._reading.text_columns if isinstance(self._values[name], DamagedText)]
        return [
            Problem(
                "undecodable-text",
                f"The text of column {name!r} is not UTF-8; what could not be read stands as U+FFFD.",
                "Store the column as UTF-8.",
            )
            for name in damaged
        ]

    def _content_hash(self) -> str:
        said = [(field.name, field.text) for field in self.fields()]
        return hashlib.sha256(repr(said).encode("utf-8", "backslashreplace")).hexdigest()


def _label_text(reference: Reference, values: Iterator[Any]) -> tuple[str, str]:
    """The label of the referred row, and `Artist: Queen` for the one that it belongs to; empty where there is none."""
    own = list(islice(values, len(reference.labels)))
    words = [value_text(value, column.kind, column.scale) for column, value in zip(reference.labels, own, strict=True)]
    label = " ".join(_joined([word for word in words if word]).split())[:200]
    beyond, _ = _label_text(reference.beyond, values) if reference.beyond else ("", "")
    return label, f"{_reference_field(reference.beyond)}: {beyond}" if beyond and reference.beyond else ""


def _joined(words: Sequence[str]) -> str:
    """Han names stand together (王小明), others apart (Jane Peacock)."""
    han = all("\u3400" <= character <= "\u9fff" for word in words for character in word)
    return ("" if han else " ").join(words)


def _reference_field(reference: Reference) -> str:
    if len(reference.columns) > 1:
        return readable(reference.table)
    column = reference.columns[0]
    compact = column.casefold().replace("_", "")
    if compact == f"{reference.table.casefold().replace('_', '')}id":  # `customerid` of PostgreSQL, which folds names
        return readable(reference.table)
    return reference_name(column) or readable(reference.table)
