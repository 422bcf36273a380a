"""How each table is read: its columns, its key, and the labels that stand for its foreign keys, found by reflection."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingest.sources.rows import ColumnKind
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import Connection, Inspector, Select

# What a column that names its row is called, best first; compared without case, blanks and underscores.
_LABEL_NAMES = (
    *("name", "fullname", "displayname", "名称", "名稱", "姓名", "名字", "全名"),
    *("title", "标题", "標題", "题名", "label", "caption", "subject", "headline", "主题"),
)
_FIRST_NAMES = ("firstname", "givenname", "forename", "名")
_LAST_NAMES = ("lastname", "surname", "familyname", "姓")
_LABEL_ENDINGS = ("name", "名称", "名稱", "名字", "姓名", "名", "title", "标题")
_LAST_RESORTS = ("username", "login", "email", "code", "slug", "代码", "编码")
_SYSTEM_SCHEMAS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
_OWN_TABLES = frozenset({"alembic_version", "django_migrations", "schema_migrations"})


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

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


# ── which tables ──────────────────────────────────────────────────────────────────────────────


def readings(
    connection: Connection,
    choices: Sequence[TableChoice] | None,
    *,
    common: TableChoice,
    labels: Mapping[str, tuple[str, ...]],
) -> list[Reading]:
    """How each chosen table is read, or each there is. `common` holds where a table has columns of these names."""
    from sqlalchemy.exc import SAWarning

    with warnings.catch_warnings():
        # "Did not recognize type": a column of an unknown type is read as the driver gives it.
        warnings.simplefilter("ignore", SAWarning)
        catalog = _Catalog(connection, labels)
        if choices is None:
            found = [catalog.reading(*place, _where_it_fits(common, catalog, *place)) for place in catalog.all_tables()]
        else:
            found = []
            for choice in choices:
                place = catalog.find(choice.name)
                found.append(catalog.reading(*place, _merged(choice, _where_it_fits(common, catalog, *place))))
        catalog.check_labels()
    _check_common(common, found)
    return found


def _where_it_fits(common: TableChoice, catalog: _Catalog, schema: str | None, table: str) -> TableChoice:
    names = {column.name for column in catalog.columns(schema, table)}
    wanted = common.text_columns or ()
    return TableChoice(
        name=table,
        key=common.key if set(common.key) <= names else (),
        text_columns=tuple(name for name in wanted if name in names) or None,
        metadata_columns=tuple(name for name in common.metadata_columns if name in names),
        title_columns=tuple(name for name in common.title_columns if name in names),
        updated_at=common.updated_at if common.updated_at in names else None,
    )


def _merged(choice: TableChoice, common: TableChoice) -> TableChoice:
    return TableChoice(
        name=choice.name,
        key=choice.key or common.key,
        text_columns=choice.text_columns if choice.text_columns is not None else common.text_columns,
        metadata_columns=choice.metadata_columns or common.metadata_columns,
        title_columns=choice.title_columns or common.title_columns,
        updated_at=choice.updated_at or common.updated_at,
    )


def _check_common(common: TableChoice, found: Sequence[Reading]) -> None:
    there = {column.name for reading in found for column in reading.columns}
    names = (*common.key, *(common.text_columns or ()), *common.metadata_columns, *common.title_columns)
    for name in (*names, *([common.updated_at] if common.updated_at else [])):
        if name not in there:
            raise _unknown("None of the tables has a column", name, there)


def _unknown(what: str, name: str, there: set[str]) -> InvalidInput:
    near = difflib.get_close_matches(name, sorted(there), n=3, cutoff=0.5)
    near += [other for other in sorted(there) if other.casefold() == name.casefold() and other not in near]
    remedy = (
        f"Did you mean {' or '.join(near)}?" if near else f"There is: {', '.join(sorted(there)[:20]) or 'nothing'}."
    )
    return InvalidInput(f"{what} {name!r}.", remedy=remedy)


# ── one table ─────────────────────────────────────────────────────────────────────────────────


class _Catalog:
    """What reflection finds, remembered for one reading."""

    def __init__(self, connection: Connection, labels: Mapping[str, tuple[str, ...]]) -> None:
        from sqlalchemy import inspect

        self._connection = connection
        self._dialect = connection.dialect.name
        self._inspector: Inspector = inspect(connection)
        self._labels = labels
        self._columns: dict[tuple[str | None, str], tuple[Column, ...]] = {}
        self._default_schema = self._inspector.default_schema_name

    def all_tables(self) -> Iterator[tuple[str | None, str]]:
        hidden = self._hidden_tables()
        for schema in self._schemas():
            for table in sorted(self._inspector.get_table_names(schema=schema)):
                if (schema or self._default_schema, table) not in hidden and table not in _OWN_TABLES:
                    yield schema, table

    def find(self, name: str) -> tuple[str | None, str]:
        """The table or view of this name: in the default schema, else as `schema.table`."""
        schema, _, table = name.partition(".")
        for place in ((None, name), *([(schema, table)] if table else [])):
            if self._inspector.has_table(place[1], schema=place[0]):
                return None if place[0] == self._default_schema else place[0], place[1]
        there = {display_name(schema, table) for schema, table in self.all_tables()}
        raise _unknown("There is no table or view", name, there | set(self._inspector.get_view_names()))

    def columns(self, schema: str | None, table: str) -> tuple[Column, ...]:
        place = (schema, table)
        if place not in self._columns:
            found = self._inspector.get_columns(table, schema=schema)
            self._columns[place] = tuple(
                _column(entry["name"], entry["type"], self._dialect)
                for entry in found
                if entry["type"].__visit_name__ != "TSVECTOR"  # a search index of other columns, not something to read
            )
        return self._columns[place]

    def reading(self, schema: str | None, table: str, choice: TableChoice) -> Reading:
        columns = self.columns(schema, table)
        names = [column.name for column in columns]
        reading = Reading(
            name=display_name(schema, table),
            columns=columns,
            text_columns=tuple(name for name in names if name != choice.updated_at),
            schema=schema,
            table=table,
        )
        own_key = self._unique_key(schema, table)
        return replace(
            chosen(reading, choice),
            key=choice.key or own_key,
            key_is_unique=not choice.key or choice.key == own_key,
            title_columns=choice.title_columns or self._label(schema, table),
            # In the order of the columns: servers list foreign keys each in an order of its own.
            references=tuple(sorted(self._references(schema, table), key=lambda found: names.index(found.columns[0]))),
        )

    def check_labels(self) -> None:
        for name, columns in self._labels.items():
            there = {column.name for column in self.columns(*self.find(name))}
            for column in columns:
                if column not in there:
                    raise _unknown(f"The label of table {name!r} names a column that is not there:", column, there)

    def _schemas(self) -> list[str | None]:
        if self._dialect != "postgresql":
            return [None]  # of MySQL and SQLite, the database that the URL names
        others = [
            schema
            for schema in self._inspector.get_schema_names()
            if schema not in _SYSTEM_SCHEMAS and not schema.startswith("pg_") and schema != self._default_schema
        ]
        return [None, *sorted(others)]

    def _hidden_tables(self) -> set[tuple[str | None, str]]:
        """Tables whose rows stand elsewhere too: partitions of another table, and SQLite's full-text indexes."""
        if self._dialect == "postgresql":
            statement = (
                "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c "
                "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relispartition"
            )
        elif self._dialect == "sqlite":
            statement = "SELECT schema, name FROM pragma_table_list WHERE type IN ('shadow', 'virtual')"
        else:
            return set()
        return {(schema, table) for schema, table in self._connection.exec_driver_sql(statement)}

    def _unique_key(self, schema: str | None, table: str) -> tuple[str, ...]:
        """The primary key, else the shortest unique constraint or index without NULLs; () where there is none."""
        primary = tuple(self._inspector.get_pk_constraint(table, schema=schema)["constrained_columns"] or ())
        if primary:
            return primary
        nullable = self._nullable(schema, table)
        unique = [key for key in self._unique_sets(schema, table) if not nullable & set(key)]
        return min(unique, key=lambda key: (len(key), key), default=())

    def _unique_sets(self, schema: str | None, table: str) -> list[tuple[str, ...]]:
        constraints = self._inspector.get_unique_constraints(table, schema=schema)
        indexes = self._inspector.get_indexes(table, schema=schema)
        found = [tuple(constraint["column_names"]) for constraint in constraints]
        for index in indexes:
            partial = any("where" in option and value is not None for option, value in _options(index))
            names = [name for name in index["column_names"] if name is not None]
            # An index over an expression, or over some of the rows, proves nothing about the rows.
            if index["unique"] and not partial and len(names) == len(index["column_names"]):
                found.append(tuple(names))
        return found

    # ── labels ────────────────────────────────────────────────────────────────────────────────

    def _label(self, schema: str | None, table: str) -> tuple[str, ...]:
        configured = self._labels.get(display_name(schema, table))
        return configured if configured is not None else label_columns(table, self.columns(schema, table))

    def _references(self, schema: str | None, table: str, *, hops: int = 2) -> Iterator[Reference]:
        """The foreign keys that can be labelled; of a referred table only the one that it belongs to is followed."""
        taken: set[tuple[str, ...]] = set()
        for key in self._inspector.get_foreign_keys(table, schema=schema):
            columns = tuple(key["constrained_columns"])
            place = (key["referred_schema"], key["referred_table"])
            place = (None if place[0] == self._default_schema else place[0], place[1])
            referred = tuple(key["referred_columns"])
            if columns in taken or not self._joins_one_row(*place, referred):
                continue
            taken.add(columns)
            names = self._label(*place)
            if not names:
                continue
            labels = tuple(column for name in names for column in self.columns(*place) if column.name == name)
            beyond = self._owner(*place) if hops > 1 and place != (schema, table) else None
            yield Reference(columns, *place, referred, labels, beyond)

    def _owner(self, schema: str | None, table: str) -> Reference | None:
        """Where a row must have exactly one other: an album's artist, a city's country; not a customer's agent."""
        found = list(self._references(schema, table, hops=1))
        keys = self._inspector.get_foreign_keys(table, schema=schema)
        if len(found) != 1 or len(keys) != 1 or found[0].table == table:
            return None
        return None if self._nullable(schema, table) & set(found[0].columns) else found[0]

    def _nullable(self, schema: str | None, table: str) -> set[str]:
        return {entry["name"] for entry in self._inspector.get_columns(table, schema=schema) if entry["nullable"]}

    def _joins_one_row(self, schema: str | None, table: str, columns: tuple[str, ...]) -> bool:
        """Whether the referred table is there, may be read, and holds each key once (MySQL does not insist)."""
        if not columns or not self._inspector.has_table(table, schema=schema) or not self._may_read(schema, table):
            return False
        primary = self._inspector.get_pk_constraint(table, schema=schema)["constrained_columns"] or ()
        wanted = set(columns)
        return wanted == set(primary) or any(wanted == set(key) for key in self._unique_sets(schema, table))

    def _may_read(self, schema: str | None, table: str) -> bool:
        if self._dialect != "postgresql":
            return True  # MySQL shows only what may be read, SQLite has no rights
        from sqlalchemy import text

        quoted = self._connection.dialect.identifier_preparer
        name = f"{quoted.quote(schema or self._default_schema or 'public')}.{quoted.quote(table)}"
        statement = text("SELECT has_table_privilege(:name, 'SELECT')")
        return bool(self._connection.execute(statement, {"name": name}).scalar())


def _options(index: Any) -> list[tuple[str, object]]:
    return list(index.get("dialect_options", {}).items())


def _column(name: str, sql_type: Any, dialect: str) -> Column:
    from sqlalchemy import types

    if isinstance(sql_type, types.Enum):
        return Column(name, "text")
    if isinstance(sql_type, types.String):
        return Column(name, "text", bounded=sql_type.length is not None and dialect != "sqlite")
    if isinstance(sql_type, types.Boolean) or _is_small_flag(sql_type):
        return Column(name, "yes_no")  # MySQL's BOOLEAN is TINYINT(1)
    if isinstance(sql_type, types.Float):
        return Column(name, "number")
    if isinstance(sql_type, types.Numeric):
        return Column(name, "decimal", sql_type.scale)
    if isinstance(sql_type, types.Integer):
        return Column(name, "number")
    if isinstance(sql_type, types.Date | types.DateTime | types.Time | types.Interval):
        return Column(name, "moment")
    if isinstance(sql_type, types.JSON):
        return Column(name, "json")
    if isinstance(sql_type, types._Binary):
        return Column(name, "binary")
    return Column(name, "bits" if sql_type.__visit_name__ == "BIT" else "other")


def _is_small_flag(sql_type: Any) -> bool:
    return sql_type.__visit_name__ == "TINYINT" and getattr(sql_type, "display_width", None) == 1


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
            raise _unknown(f"{reading.name} has no column", name, there)
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


# ── the SELECT ────────────────────────────────────────────────────────────────────────────────


def select_rows(reading: Reading, *, most_characters: int | None) -> Select[Any]:
    """One statement for the whole table: its columns in order, then the label columns of each reference.

    LEFT JOINs rather than a map held in memory: a label is as fresh as the row, and a referred table may be large.
    Columns carry no type, so that values come as the driver has them and one odd value spoils no row but its own.
    """
    import sqlalchemy as sa

    base = _aliased(reading.schema, reading.table, [column.name for column in reading.columns], "base")
    selected = [_selected(base, column, most_characters) for column in reading.columns]
    source: Any = base
    for number, reference in enumerate(reading.references):
        here, depth = base, 0
        step: Reference | None = reference
        while step is not None:
            needed = {*step.referred_columns, *(c.name for c in step.labels)}
            needed |= set(step.beyond.columns) if step.beyond else set()
            there = _aliased(step.schema, step.table, sorted(needed), f"ref_{number}_{depth}")
            pairs = zip(step.columns, step.referred_columns, strict=True)
            matches = sa.and_(*(here.c[own] == there.c[other] for own, other in pairs))
            source = source.outerjoin(there, matches)
            selected += [_selected(there, column, most_characters) for column in step.labels]
            here, step, depth = there, step.beyond, depth + 1
    labelled = [column.label(f"c{number}") for number, column in enumerate(selected)]
    return sa.select(*labelled).select_from(source)


def _aliased(schema: str | None, table: str, columns: Sequence[str], alias: str) -> Any:
    import sqlalchemy as sa

    return sa.table(table, *(sa.column(name) for name in columns), schema=schema).alias(alias)


def _selected(table: Any, column: Column, most_characters: int | None) -> Any:
    """A picture is worth its size only, and no more of a text is fetched than shows that it is too long.

    Without a limit (a dialect whose functions we have not tried) both come whole.
    """
    import sqlalchemy as sa

    if most_characters is None:
        return table.c[column.name]
    if column.kind == "binary":
        return sa.func.length(table.c[column.name])
    if column.kind == "text" and not column.bounded:
        return sa.func.substr(table.c[column.name], 1, most_characters + 1)
    return table.c[column.name]
