"""How each table is read: its columns, its key, and the labels that stand for its foreign keys, found by reflection."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingest.sources.database_shapes import (
    Column,
    Reading,
    Reference,
    TableChoice,
    chosen,
    display_name,
    label_columns,
    unknown_name,
)
from rag.errors import InvalidInput

if TYPE_CHECKING:
    from sqlalchemy import Connection, Inspector

_SYSTEM_SCHEMAS = frozenset({"information_schema", "performance_schema", "mysql", "sys"})
_OWN_TABLES = frozenset({"alembic_version", "django_migrations", "schema_migrations"})


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
    names = [reading.name for reading in found]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InvalidInput(f"The source names a table twice: {', '.join(twice)}.", remedy="Name each table once.")
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
            raise unknown_name("None of the tables has a column", name, there)


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
        raise unknown_name("There is no table or view", name, there | set(self._inspector.get_view_names()))

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
                    raise unknown_name(f"The label of table {name!r} names a column that is not there:", column, there)

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
        if not columns or not self._may_read(schema, table) or not self._inspector.has_table(table, schema=schema):
            return False
        primary = self._inspector.get_pk_constraint(table, schema=schema)["constrained_columns"] or ()
        wanted = set(columns)
        return wanted == set(primary) or any(wanted == set(key) for key in self._unique_sets(schema, table))

    def _may_read(self, schema: str | None, table: str) -> bool:
        """Whether the user may select every column; a label is no reason to fail where the row itself can be read."""
        from sqlalchemy import text

        if self._dialect == "postgresql":
            quote = self._connection.dialect.identifier_preparer.quote_identifier
            plain = f"{quote(schema or self._default_schema or 'public')}.{quote(table)}".replace("%%", "%")
            statement = text("SELECT has_table_privilege(:name, 'SELECT')")
            return bool(self._connection.execute(statement, {"name": plain}).scalar())
        if self._dialect in ("mysql", "mariadb"):
            statement = text(
                "SELECT min(find_in_set('select', privileges)) FROM information_schema.columns "
                "WHERE table_schema = coalesce(:schema, database()) AND table_name = :table"
            )
            return bool(self._connection.execute(statement, {"schema": schema, "table": table}).scalar())
        return True


def _options(index: Any) -> list[tuple[str, object]]:
    return list(index.get("dialect_options", {}).items())


def _column(name: str, sql_type: Any, dialect: str) -> Column:
    from sqlalchemy import types

    if isinstance(sql_type, types.Enum):
        return Column(name, "text")
    if isinstance(sql_type, types.String):
        # SQLite's substr() ends a text at its first NUL, and nothing travels over a network there.
        return Column(name, "text", bounded=sql_type.length is not None or dialect == "sqlite")
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
