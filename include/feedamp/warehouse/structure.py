"""Creates and upgrades tables and views to match their declarations; nothing is ever narrowed or dropped.

A new column is added, a narrower number type is widened, and a column that is no longer declared remains.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from feedamp.errors import ConfigurationError
from feedamp.lake.schema_evolution import value_in_extra
from feedamp.tables import CLOSURES, EXTRA, PLACEMENTS, RECORDED_AT, SCHEMA, Column, Merge, Row, Table
from feedamp.warehouse.engine import META, Engine
from feedamp.warehouse.views import View

log = logging.getLogger(__name__)
_META_TABLES = {
    "loaded_manifests": "path VARCHAR PRIMARY KEY",
    # Orders whose snapshot shows no `marketplace_state`: what `orders` has is the state of a decision.
    "unshown_states": "seller_id VARCHAR NOT NULL, mp_order_number VARCHAR NOT NULL",
    "view_definitions": "name VARCHAR PRIMARY KEY, definition VARCHAR NOT NULL",
}
_DECIDED_AT = {PLACEMENTS.name: "placed_at", CLOSURES.name: "closed_at"}
_ROWS_TO_FILL = 5_000
_INTEGERS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19}
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\((\d+), ?(\d+)\)")
_ALSO_CALLED = {
    "VARCHAR": "TEXT",
    "CHARACTER VARYING": "TEXT",
    "DOUBLE PRECISION": "DOUBLE",
    "TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE",
    "HUGEINT": "DECIMAL(38,0)",
}
_MOST_DIGITS = 38


def prepare(engine: Engine, tables: Mapping[str, Table], views: Sequence[View]) -> None:
    """Creates and upgrades tables and views in the caller's transaction. Safe to repeat.

    Raises:
        ConfigurationError: a column's type cannot be widened to the declared one, or another user's view
            prevents it.
    """
    present, remembered = engine.relations(SCHEMA), engine.relations(META)
    if not remembered:
        engine.execute(f"CREATE SCHEMA IF NOT EXISTS {META}")
    for name, columns in _META_TABLES.items():
        if name not in remembered:
            engine.execute(f"CREATE TABLE {META}.{name} ({columns})")
    if not present:
        engine.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    wider = {
        table.name: dict(_wider(engine, table, present.get(table.name, {}))) for table in tables.values()
    }
    if any(wider.values()):
        _drop_views(engine, views, present)
    for table in tables.values():
        if table.name not in present:
            _create(engine, table)
        else:
            _grow(engine, table, present[table.name], wider[table.name])
    if "row_versions" in remembered:
        _take_over_moments(engine, tables)
    _create_views(engine, views, engine.relations(SCHEMA) if any(wider.values()) else present)


def wide_enough(present: str, wanted: str) -> str:
    """A type wide enough for the values of both types: `present` if it is wide enough.

    Raises:
        ConfigurationError: there is no such type.
    """
    there, asked = _normal(present), _normal(wanted)
    if there == asked:
        return present
    one, other = _digits(there), _digits(asked)
    if one is None or other is None:
        raise ConfigurationError(f"it is {present} and should be {wanted}")
    before, after = max(one[0], other[0]), max(one[1], other[1])
    if (before, after) == one:
        return present
    if (before, after) == other:
        return wanted
    if before + after > _MOST_DIGITS:
        raise ConfigurationError(
            f"it is {present} and should be {wanted}, and no decimal type is wide enough for both"
        )
    return f"DECIMAL({before + after},{after})"


def _normal(name: str) -> str:
    upper = name.upper()
    return _ALSO_CALLED.get(upper, upper)


def _digits(name: str) -> tuple[int, int] | None:
    """Digits before and after the decimal point; None for a type that is not an exact number."""
    if name in _INTEGERS:
        return _INTEGERS[name], 0
    if name == "NUMERIC":  # Postgres: without limit
        return 131_072, 16_383
    if found := _DECIMAL.fullmatch(name):
        return int(found[1]) - int(found[2]), int(found[2])
    return None


def _wider(engine: Engine, table: Table, there: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for column in table.columns:
        if column.name in there:
            try:
                target = wide_enough(there[column.name], engine.types[column.type])
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"Column {SCHEMA}.{table.name}.{column.name} cannot be used: {error}. Run "
                    "`feedamp warehouse rebuild`; on Postgres rename the table first."
                ) from error
            if target != there[column.name]:
                yield column.name, target


def _create(engine: Engine, table: Table) -> None:
    columns = ", ".join(
        f"{c.name} {engine.types[c.type]}{' NOT NULL' if c.name in table.key else ''}" for c in table.columns
    )
    engine.execute(f"CREATE TABLE {SCHEMA}.{table.name} ({columns})")
    for statement in engine.index(table):
        engine.execute(statement)


def _grow(engine: Engine, table: Table, there: Mapping[str, str], wider: Mapping[str, str]) -> None:
    for name, target in wider.items():
        if users := engine.users_of(SCHEMA, table.name):
            raise ConfigurationError(
                f"Column {SCHEMA}.{table.name}.{name} must become {target}, and views use the table: "
                f"{', '.join(users)}. Drop the views, run again, and create them again."
            )
        log.info("%s.%s: %s becomes %s", table.name, name, there[name], target)
        engine.execute(f"ALTER TABLE {SCHEMA}.{table.name} ALTER COLUMN {name} TYPE {target}")
    missing = [column for column in table.columns if column.name not in there]
    for column in missing:
        log.info("%s gets column %s", table.name, column.name)
        engine.execute(
            f"ALTER TABLE {SCHEMA}.{table.name} ADD COLUMN {column.name} {engine.types[column.type]}"
        )
    if promoted := tuple(column for column in missing if column.from_extra):
        _fill_from_extra(engine, table, promoted)


def _take_over_moments(engine: Engine, tables: Mapping[str, Table]) -> None:
    """Fills `recorded_at` of rows that an earlier build loaded; it kept the moments in tables of its own, which go."""
    for table in tables.values():
        if table.merge is Merge.SNAPSHOT:
            moment = f"""SELECT coalesce(orders.extracted_at, orders.placed_at) FROM {SCHEMA}.orders
                WHERE orders.seller_id = loaded.seller_id AND orders.mp_order_number = loaded.mp_order_number"""
        elif table.name in _DECIDED_AT:
            moment = f"SELECT loaded.{_DECIDED_AT[table.name]}"
        else:
            moment = f"""SELECT max(known_at) FROM {META}.row_versions WHERE table_name = '{table.name}'
                AND row_key = concat_ws(chr(31), {", ".join(f"loaded.{name}" for name in table.key)})"""
        engine.execute(f"UPDATE {SCHEMA}.{table.name} AS loaded SET {RECORDED_AT} = ({moment})")
    engine.execute(
        f"""INSERT INTO {META}.unshown_states
        SELECT seller_id, mp_order_number FROM {META}.order_versions WHERE NOT shows_state"""
    )
    for name in ("order_versions", "row_versions"):
        engine.execute(f"DROP TABLE {META}.{name}")


def _fill_from_extra(engine: Engine, table: Table, columns: tuple[Column, ...]) -> None:
    """Fills new columns of loaded rows from their `extra`, 5,000 rows at a time."""
    key = ", ".join(table.key)
    part = Table(
        f"{table.name}_filled",
        "",
        table.key,
        (*(c for c in table.columns if c.name in table.key), *columns),
        table.merge,
    )
    schema = part.lake_schema
    after: list[object] = []
    while True:
        places = ", ".join(f"${place}" for place in range(1, len(after) + 1))
        beyond = f"AND ({key}) > ({places})" if after else ""
        found = list(
            engine.rows(
                f"""SELECT {key}, {EXTRA.name} FROM {SCHEMA}.{table.name}
                WHERE {EXTRA.name} IS NOT NULL {beyond} ORDER BY {key} LIMIT {_ROWS_TO_FILL}""",
                after,
            )
        )
        if not found:
            return
        filled = pa.RecordBatch.from_pylist([_filled(row, table, columns) for row in found], schema=schema)
        staged = f"feedamp_filled_{table.name}"
        engine.stage(staged, part, pa.RecordBatchReader.from_batches(schema, [filled]))
        engine.execute(
            f"""UPDATE {SCHEMA}.{table.name} stored
            SET {", ".join(f"{column.name} = filled.{column.name}" for column in columns)}
            FROM {staged} filled
            WHERE {" AND ".join(f"stored.{name} = filled.{name}" for name in table.key)}"""
        )
        after = [found[-1][name] for name in table.key]


def _filled(row: Row, table: Table, columns: tuple[Column, ...]) -> Row:
    return {
        **{name: row[name] for name in table.key},
        **{column.name: value_in_extra(column, row[EXTRA.name]) for column in columns},
    }


def _drop_views(engine: Engine, views: Sequence[View], present: Mapping[str, object]) -> None:
    for view in views:
        if view.name in present:
            engine.execute(f"DROP VIEW {SCHEMA}.{view.name}")
    engine.execute(f"DELETE FROM {META}.view_definitions")


def _create_views(engine: Engine, views: Sequence[View], present: Mapping[str, Mapping[str, str]]) -> None:
    """Creates views that are missing or have another definition, unless another user's view depends on the old one."""
    known = {
        row["name"]: row["definition"]
        for row in engine.rows(f"SELECT name, definition FROM {META}.view_definitions")
    }
    for view in views:
        definition = view.select()
        there = present.get(view.name)
        if there is not None and known.get(view.name) == definition:
            continue
        wanted = [(column.name, _normal(engine.types[column.type])) for column in view.columns]
        if there is not None and wanted[: len(there)] != [(n, _normal(t)) for n, t in there.items()]:
            # Not every engine can replace a view by one with other columns, so it is dropped and created.
            if users := engine.users_of(SCHEMA, view.name):
                log.warning(
                    "View %s.%s keeps its older definition, because it is used by %s.",
                    SCHEMA,
                    view.name,
                    ", ".join(users),
                )
                continue
            engine.execute(f"DROP VIEW {SCHEMA}.{view.name}")
        engine.execute(f"CREATE OR REPLACE VIEW {SCHEMA}.{view.name} AS {definition}")
        engine.execute(f"DELETE FROM {META}.view_definitions WHERE name = $1", [view.name])
        engine.execute(f"INSERT INTO {META}.view_definitions VALUES ($1, $2)", [view.name, definition])
