"""Creates tables and views as they are declared; nothing is ever narrowed or dropped.

A new column is added, null in the rows that are there, and a changed view is replaced. Any other change of a table needs
`feedamp warehouse rebuild`. A column that is no longer declared remains.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from feedamp.errors import ConfigurationError
from feedamp.tables import CHILDREN, CLOSURES, ORDERS, PLACEMENTS, RECORDED_AT, SCHEMA, Table
from feedamp.warehouse.engine import META, Engine
from feedamp.warehouse.views import View

log = logging.getLogger(__name__)
_META_TABLES = {
    "loaded_manifests": "path VARCHAR PRIMARY KEY",
    # Orders whose snapshot shows no `marketplace_state`: what `orders` has is the state of a decision.
    "unshown_states": "seller_id VARCHAR NOT NULL, mp_order_number VARCHAR NOT NULL",
    "view_definitions": "name VARCHAR PRIMARY KEY, definition VARCHAR NOT NULL",
    # As of when the table holds all its rows, also if there are none.
    "full_snapshots": "table_name VARCHAR PRIMARY KEY, taken_at TIMESTAMP WITH TIME ZONE NOT NULL",
}
_SNAPSHOTS = {table.name for table in (ORDERS, *CHILDREN)}
_DECIDED_AT = {PLACEMENTS.name: "placed_at", CLOSURES.name: "closed_at"}


def prepare(engine: Engine, tables: Mapping[str, Table], views: Sequence[View]) -> None:
    """Creates and upgrades tables and views in the caller's transaction. Safe to repeat.

    Raises:
        ConfigurationError: a column has another type than declared.
    """
    present, remembered = engine.relations(SCHEMA), engine.relations(META)
    if not remembered:
        engine.execute(f"CREATE SCHEMA IF NOT EXISTS {META}")
    for name, columns in _META_TABLES.items():
        if name not in remembered:
            engine.execute(f"CREATE TABLE {META}.{name} ({columns})")
    if not present:
        engine.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    for table in tables.values():
        if table.name not in present:
            _create(engine, table)
        else:
            _grow(engine, table, present[table.name])
    if "row_versions" in remembered:
        _take_over_moments(engine, tables)
    _create_views(engine, views, present)


def _create(engine: Engine, table: Table) -> None:
    columns = ", ".join(
        f"{c.name} {engine.types[c.type]}{' NOT NULL' if c.name in table.key else ''}" for c in table.columns
    )
    engine.execute(f"CREATE TABLE {SCHEMA}.{table.name} ({columns})")
    for statement in engine.index(table):
        engine.execute(statement)


def _grow(engine: Engine, table: Table, there: Mapping[str, str]) -> None:
    for column in table.columns:
        wanted = engine.types[column.type]
        if column.name not in there:
            log.info("%s gets column %s", table.name, column.name)
            engine.execute(f"ALTER TABLE {SCHEMA}.{table.name} ADD COLUMN {column.name} {wanted}")
        elif there[column.name] != wanted:
            raise ConfigurationError(
                f"Column {SCHEMA}.{table.name}.{column.name} is {there[column.name]} and should be {wanted}. Run "
                "`feedamp warehouse rebuild`; on Postgres rename the table first."
            )


def _take_over_moments(engine: Engine, tables: Mapping[str, Table]) -> None:
    """Fills `recorded_at` of rows that an earlier build loaded; it kept the moments in tables of its own, which go."""
    for table in tables.values():
        if table.name in _SNAPSHOTS:
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
        wanted = [(column.name, engine.types[column.type]) for column in view.columns]
        if there is not None and wanted[: len(there)] != list(there.items()):
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
