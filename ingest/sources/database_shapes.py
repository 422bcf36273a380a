"""What a table is to the database source: columns, key, references, and the columns that name a row."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingest.sources.rows import ColumnKind
from rag.errors import InvalidInput

# What a column that names its row is called, best first; compared without case, blanks and underscores.
_LABEL_NAMES = (
    *("name", "fullname", "displayname", "名称", "名稱", "姓名", "名字", "全名"),
    *("title", "标题", "標題", "题名", "label", "caption", "subject", "headline", "主题"),
)
_FIRST_NAMES = ("firstname", "givenname", "forename", "名")
_LAST_NAMES = ("lastname", "surname", "familyname", "姓")
_LABEL_ENDINGS = ("name", "名称", "名稱", "名字", "姓名", "名", "title", "标题")
_LAST_RESORTS = ("username", "login", "email", "code", "slug", "代码", "编码")


@dataclass(frozen=True, slots=True)
class TableChoice:
    """What the owner says about one table, or about the query; None and () leave it to reflection."""

    name: str
    key: tuple[str, ...] = ()
    text_columns: tuple[str, ...] | None = None
    metadata_columns: tuple[str, ...] = ()
    title_columns: tuple[str, ...] = ()
    updated_at: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: ColumnKind = "other"
    scale: int | None = None
    bounded: bool = True  # False: its text may be of any length


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key whose row can be named: its own columns, the referred table, and that table's label columns."""

    columns: tuple[str, ...]
    schema: str | None
    table: str
    referred_columns: tuple[str, ...]
    labels: tuple[Column, ...]
    beyond: Reference | None = None  # Track → Album → Artist: the one table that the referred one belongs to


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows of one table (or of the query) are read. Without a key, a row is known by its content."""

    name: str
    columns: tuple[Column, ...]
    text_columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    metadata_columns: tuple[str, ...] = ()
    title_columns: tuple[str, ...] = ()
    updated_at: str | None = None
    schema: str | None = None
    table: str = ""
    references: tuple[Reference, ...] = ()
    key_is_unique: bool = True
    query: str | None = None  # instead of a table

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


# ── names ─────────────────────────────────────────────────────────────────────────────────────


def display_name(schema: str | None, table: str) -> str:
    return f"{schema}.{table}" if schema else table


def chosen(reading: Reading, choice: TableChoice) -> Reading:
    """The reading with the owner's columns in it; a column that is not there is an error that names the near ones."""
    there = {column.name for column in reading.columns}
    texts = choice.text_columns if choice.text_columns is not None else reading.text_columns
    updated_at = [choice.updated_at] if choice.updated_at else []
    for name in (*choice.key, *texts, *choice.metadata_columns, *choice.title_columns, *updated_at):
        if name not in there:
            raise unknown_name(f"{reading.name} has no column", name, there)
    return replace(
        reading,
        text_columns=texts,
        key=choice.key,
        metadata_columns=choice.metadata_columns,
        title_columns=choice.title_columns,
        updated_at=choice.updated_at,
    )


def label_columns(table: str, columns: Sequence[Column]) -> tuple[str, ...]:
    """The columns that name a row: `name`, first and last name, `title`, 名称 …; else the only text; else ()."""
    plain = {column.name: _plain(column.name) for column in columns if column.kind in ("text", "other")}
    by_plain = {short: name for name, short in reversed(plain.items())}
    for wanted in _LABEL_NAMES[:8]:
        if wanted in by_plain:
            return (by_plain[wanted],)
    first = next((by_plain[name] for name in _FIRST_NAMES if name in by_plain), None)
    last = next((by_plain[name] for name in _LAST_NAMES if name in by_plain), None)
    if first is not None and last is not None:
        return (last, first) if _plain(last) == "姓" else (first, last)
    own = tuple(f"{_plain(table)}{ending}" for ending in _LABEL_ENDINGS)
    for wanted in (*own, *_LABEL_NAMES[8:]):
        if wanted in by_plain:
            return (by_plain[wanted],)
    ends = [name for ending in _LABEL_ENDINGS for name, short in plain.items() if short.endswith(ending)]
    resorts = [by_plain[name] for name in _LAST_RESORTS if name in by_plain]
    texts = [column.name for column in columns if column.kind == "text"]
    return tuple((ends + resorts + (texts if len(texts) == 1 else []))[:1])


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace(" ", "").replace("-", "")


def unknown_name(what: str, name: str, there: set[str]) -> InvalidInput:
    near = difflib.get_close_matches(name, sorted(there), n=3, cutoff=0.5)
    near += [other for other in sorted(there) if other.casefold() == name.casefold() and other not in near]
    remedy = (
        f"Did you mean {' or '.join(near)}?" if near else f"There is: {', '.join(sorted(there)[:20]) or 'nothing'}."
    )
    return InvalidInput(f"{what} {name!r}.", remedy=remedy)
