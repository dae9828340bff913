"""Creates tables and views as they are declared; nothing is ever narrowed or dropped.

A new column is added, null in the rows that are there, and a changed view is replaced. Then all are commented. Any other change of a table needs
`feedamp warehouse rebuild`. A column that is no longer declared remains.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence

from feedamp.errors import ConfigurationError
from feedamp.tables import (
    CHILDREN,
    CLOSURES,
    MADE_BY,
    ORDERS,
    PLACEMENTS,
    RECORDED_AT,
    SCHEMA,
    SHIPMENTS,
    Table,
)
from feedamp.warehouse.engine import META, Engine
from feedamp.warehouse.views import View, judged

log = logging.getLogger(__name__)
# The check of each shipment when FeedAMP first showed it.
FIRST_REPORTS = (
    "seller_id TEXT NOT NULL, mp_order_number TEXT NOT NULL, mp_line_number TEXT NOT NULL, "
    "shipment_index BIGINT NOT NULL, tracking_check TEXT, reported_at TIMESTAMP WITH TIME ZONE, snapshot_hash TEXT"
)
_COMMENTS = "comments"  # in place of a view's name
_META_TABLES = {
    "first_reports": FIRST_REPORTS,
    "loaded_manifests": "path VARCHAR PRIMARY KEY",
    # By what code rows of `orders` were made, and of each the latest of them.
    MADE_BY: f"{MADE_BY} VARCHAR NOT NULL, latest TIMESTAMP WITH TIME ZONE NOT NULL",
    # Orders whose snapshot shows no `marketplace_state`: what `orders` has is the state of a decision.
    "unshown_states": "seller_id VARCHAR NOT NULL, mp_order_number VARCHAR NOT NULL",
    "view_definitions": "name VARCHAR PRIMARY KEY, definition VARCHAR NOT NULL",
    # As of when the table holds all its rows, also if there are none.
    "full_snapshots": "table_name VARCHAR PRIMARY KEY, taken_at TIMESTAMP WITH TIME ZONE NOT NULL",
}
_SNAPSHOTS = {table.name for table in (ORDERS, *CHILDREN)}
_DECIDED_AT = {PLACEMENTS.name: "placed_at", CLOSURES.name: "closed_at"}


def prepare(engine: Engine, tables: Mapping[str, Table], views: Sequence[View]) -> None:
    """Creates and upgrades tables and views in the caller's transaction; ConfigurationError if a type differs. Safe to repeat."""
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
    if "first_reports" not in remembered:
        _begin_first_reports(engine)
    if MADE_BY not in remembered:  # in a warehouse of an earlier build, no one knows who made its rows
        engine.execute(
            f"""INSERT INTO {META}.{MADE_BY} SELECT '', max(extracted_at) FROM {SCHEMA}.{ORDERS.name}
            HAVING max(extracted_at) IS NOT NULL"""
        )
    if not views:  # of a scratch, which no one looks into
        return
    known = {
        row["name"]: row["definition"]
        for row in engine.rows(f"SELECT name, definition FROM {META}.view_definitions")
    }
    current = _create_views(engine, views, present, known)
    comments = list(_comments(tables, current))
    # All comments are set again, because some engines drop those of a view that is replaced.
    digest = hashlib.sha256("\n".join((*comments, *(view.sql for view in current))).encode()).hexdigest()
    if known.get(_COMMENTS) != digest or not tables.keys() <= present.keys():
        engine.execute_all(comments)
        _remember(engine, _COMMENTS, digest)


def erasable(tables: Mapping[str, Table], columns: Sequence[str]) -> list[str]:
    """The tables, with their schema, that have these columns: those by which rows of a seller or an order are found."""
    wanted = set(columns)
    remembered = [
        f"{META}.{name}" for name, declared in _META_TABLES.items() if wanted <= {*declared.split()}
    ]
    return [f"{SCHEMA}.{table.name}" for table in tables.values() if wanted <= {*table.names}] + remembered


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


def _begin_first_reports(engine: Engine) -> None:
    """In a warehouse of an earlier build, the current snapshot is the oldest that is known without a rebuild."""
    table = f"{META}.first_reports"
    for statement in engine.index(SHIPMENTS):
        engine.execute(statement.replace(f"{SCHEMA}.{SHIPMENTS.name}", table))
    engine.execute(
        f"INSERT INTO {table} SELECT {', '.join(SHIPMENTS.key)}, {judged()}, {RECORDED_AT}, '' "
        f"FROM {SCHEMA}.{SHIPMENTS.name}"
    )


def _comments(tables: Mapping[str, Table], views: Sequence[View]) -> Iterator[str]:
    declared = [("TABLE", table) for table in tables.values()] + [("VIEW", view) for view in views]
    for kind, one in declared:
        yield f"COMMENT ON {kind} {SCHEMA}.{one.name} IS {_quoted(one.meaning)}"
        for column in one.columns:
            yield f"COMMENT ON COLUMN {SCHEMA}.{one.name}.{column.name} IS {_quoted(column.meaning)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _remember(engine: Engine, name: str, definition: str) -> None:
    engine.execute(f"DELETE FROM {META}.view_definitions WHERE name = $1", [name])
    engine.execute(f"INSERT INTO {META}.view_definitions VALUES ($1, $2)", [name, definition])


def _create_views(
    engine: Engine, views: Sequence[View], present: Mapping[str, Mapping[str, str]], known: Mapping[str, str]
) -> list[View]:
    """Creates missing and changed views, unless another user's view depends on the old one; returns those as declared."""
    current = list(views)
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
                current.remove(view)
                continue
            engine.execute(f"DROP VIEW {SCHEMA}.{view.name}")
        engine.execute(f"CREATE OR REPLACE VIEW {SCHEMA}.{view.name} AS {definition}")
        _remember(engine, view.name, definition)
    return current
