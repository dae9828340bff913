"""Merges a manifest with SQL that all engines share; manifests give the same result in any order.

- `orders` and its children follow the newest snapshot by `recorded_at`, the moment the request was sent. Of two
  snapshots of the same moment, the one with the greater hash wins. Any snapshot replaces a row that `place` wrote.
- `placed_at`, `closed_at`, and a `marketplace_state` set after the snapshot was read follow `placements` and
  `closures`. An order that is open again has no `closed_at`, even if `closures` has a row for it.

So an older manifest that arrives late changes nothing newer, and a rebuild from the lake gives the same rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from feedamp.lake.schema_evolution import LakeFiles
from feedamp.tables import CHILDREN, CLOSURES, ORDERS, PLACEMENTS, RECORDED_AT, SCHEMA, Merge, Table
from feedamp.warehouse.engine import META, Engine

log = logging.getLogger(__name__)
# Rows of these tables have the moment of the decision in a column, so they need no row in `row_versions`.
_DECIDED_AT = {PLACEMENTS.name: "placed_at", CLOSURES.name: "closed_at"}
_ORDER_KEY = ("seller_id", "mp_order_number")
_ORDER = ", ".join(_ORDER_KEY)
_TOUCHED = "feedamp_touched"
_NEWER = "feedamp_newer"


def merge_manifest(engine: Engine, tables: Mapping[str, Table], path: str, files: LakeFiles) -> bool:
    """Merges the files of one manifest in the caller's transaction; False if it was merged before. Safe to repeat."""
    if list(engine.rows(f"SELECT path FROM {META}.loaded_manifests WHERE path = $1", [path])):
        return False
    engine.scratch(_TOUCHED, "seller_id VARCHAR, mp_order_number VARCHAR")
    for table in tables.values():
        if table.merge is Merge.LATEST and table.name in files:
            _merge_latest(engine, table, files)
    if ORDERS.name in files:
        _merge_snapshots(engine, tables, files)
    elif orphaned := [child.name for child in CHILDREN if child.name in files]:
        # Builds before 0.1.0 published such manifests; if they were refused, no rebuild could ever succeed.
        log.warning(
            "Manifest %s has rows of %s without their orders; `feedamp lake verify --repair` reads the orders again.",
            path,
            ", ".join(orphaned),
        )
    _apply_decisions(engine)
    engine.execute(f"INSERT INTO {META}.loaded_manifests VALUES ($1)", [path])
    return True


def _merge_latest(engine: Engine, table: Table, files: LakeFiles) -> None:
    """For each key, keeps the row recorded last, among the manifest's rows and the rows already loaded."""
    newer = _scratch(engine, table, ", row_key VARCHAR")
    key = ", ".join(table.key)
    columns = _columns(table)
    if moment := _DECIDED_AT.get(table.name):
        known, known_at = (
            f"{SCHEMA}.{table.name} known ON {_same(table.key, 'known', 'incoming')}",
            f"known.{moment}",
        )
    else:
        known = (
            f"{META}.row_versions known "
            f"ON known.table_name = '{table.name}' AND known.row_key = incoming.row_key"
        )
        known_at = "known.known_at"
    engine.execute(
        f"""INSERT INTO {newer} ({columns}, row_key)
        SELECT {_columns(table, "incoming.")}, incoming.row_key FROM (
            SELECT {columns}, concat_ws(chr(31), {key}) AS row_key,
                   row_number() OVER (PARTITION BY {key} ORDER BY {RECORDED_AT} DESC) AS place
            FROM {_staged(engine, table, files)}
        ) incoming
        LEFT JOIN {known}
        WHERE incoming.place = 1 AND ({known_at} IS NULL OR incoming.{RECORDED_AT} >= {known_at})"""
    )
    _replace(engine, table, newer, table.key)
    if table.name in _DECIDED_AT:
        engine.execute(f"INSERT INTO {_TOUCHED} SELECT {_ORDER} FROM {newer}")
        return
    engine.execute(
        f"""DELETE FROM {META}.row_versions known USING {newer} newer
        WHERE known.table_name = '{table.name}' AND known.row_key = newer.row_key"""
    )
    engine.execute(
        f"INSERT INTO {META}.row_versions SELECT '{table.name}', row_key, {RECORDED_AT} FROM {newer}"
    )


def _merge_snapshots(engine: Engine, tables: Mapping[str, Table], files: LakeFiles) -> None:
    """Replaces an order and all its children by a newer snapshot; a row that `place` wrote replaces nothing."""
    orders = tables[ORDERS.name]
    newer = _scratch(engine, orders)
    columns = _columns(orders)
    engine.execute(
        f"""INSERT INTO {newer} ({columns})
        SELECT {_columns(orders, "incoming.")} FROM (
            SELECT {columns},
                   row_number() OVER (
                       PARTITION BY {_ORDER}
                       ORDER BY extracted_at IS NOT NULL DESC, {RECORDED_AT} DESC, snapshot_hash DESC) AS place
            FROM {_staged(engine, orders, files)}
        ) incoming
        LEFT JOIN {META}.order_versions version ON {_same(_ORDER_KEY, "version", "incoming")}
        LEFT JOIN {SCHEMA}.{orders.name} known ON {_same(_ORDER_KEY, "known", "incoming")}
        WHERE incoming.place = 1
          AND (version.seller_id IS NULL
               OR (incoming.extracted_at IS NOT NULL AND (
                   version.read_at IS NULL OR incoming.{RECORDED_AT} > version.read_at
                   OR (incoming.{RECORDED_AT} = version.read_at
                       AND incoming.snapshot_hash > known.snapshot_hash))))"""
    )
    if not list(engine.rows(f"SELECT 1 AS found FROM {newer} LIMIT 1")):
        return
    _replace(engine, orders, newer, _ORDER_KEY)
    for child in _children(tables):
        engine.execute(
            f"DELETE FROM {SCHEMA}.{child.name} known USING {newer} newer "
            f"WHERE {_same(_ORDER_KEY, 'known', 'newer')}"
        )
        if child.name in files:
            engine.execute(
                f"""INSERT INTO {SCHEMA}.{child.name} ({_columns(child)})
                SELECT {_columns(child)} FROM (
                    SELECT {_columns(child, "staged.")},
                           row_number() OVER (
                               PARTITION BY {_columns_of(child.key, "staged.")}
                               ORDER BY staged.{RECORDED_AT}) AS place
                    FROM {_staged(engine, child, files)} staged
                    JOIN {newer} newer ON {_same((*_ORDER_KEY, RECORDED_AT), "newer", "staged")}
                ) incoming WHERE place = 1"""
            )
    engine.execute(
        f"DELETE FROM {META}.order_versions known USING {newer} newer "
        f"WHERE {_same(_ORDER_KEY, 'known', 'newer')}"
    )
    engine.execute(
        f"""INSERT INTO {META}.order_versions ({_ORDER}, read_at, shows_state)
        SELECT {_ORDER}, CASE WHEN extracted_at IS NOT NULL THEN {RECORDED_AT} END,
               marketplace_state IS NOT NULL
        FROM {newer}"""
    )
    engine.execute(f"INSERT INTO {_TOUCHED} SELECT {_ORDER} FROM {newer}")


def _apply_decisions(engine: Engine) -> None:
    """Updates touched orders with the placement and closing times and states in `placements` and `closures`."""
    state = """CASE
                WHEN decisions.state IS NOT NULL
                     AND (decisions.decided_at > decisions.read_at OR decisions.read_at IS NULL
                          OR NOT decisions.shows_state OR orders.marketplace_state IS NULL)
                THEN decisions.state ELSE orders.marketplace_state END"""
    engine.execute(
        f"""UPDATE {SCHEMA}.orders
        SET placed_at = decisions.placed_at, marketplace_state = {state},
            closed_at = CASE WHEN {state} IN ('PENDING', 'AWAITING_SHIPMENT')
                        THEN NULL ELSE decisions.closed_at END
        FROM (
            SELECT touched.seller_id, touched.mp_order_number, max(version.read_at) AS read_at,
                   bool_and(version.shows_state) AS shows_state,
                   min(decision.decided_at) FILTER (WHERE decision.placing) AS placed_at,
                   coalesce(min(decision.decided_at) FILTER (WHERE NOT decision.placing),
                            min(decision.decided_at) FILTER (WHERE decision.final)) AS closed_at,
                   max(decision.decided_at) AS decided_at,
                   (array_agg(decision.state ORDER BY decision.decided_at DESC NULLS LAST,
                                                      decision.placing, decision.state))[1] AS state
            FROM (SELECT DISTINCT {_ORDER} FROM {_TOUCHED}) touched
            LEFT JOIN {META}.order_versions version ON {_same(_ORDER_KEY, "version", "touched")}
            LEFT JOIN (
                SELECT {_ORDER}, marketplace_state AS state, placed_at AS decided_at, true AS placing,
                       marketplace_state IN ('SHIPPED', 'CANCELLED') AS final
                FROM {SCHEMA}.placements
                UNION ALL
                SELECT {_ORDER}, marketplace_state, closed_at, false, true FROM {SCHEMA}.closures
            ) decision ON {_same(_ORDER_KEY, "decision", "touched")}
            GROUP BY touched.seller_id, touched.mp_order_number
        ) decisions
        WHERE {_same(_ORDER_KEY, "orders", "decisions")}"""
    )


def _replace(engine: Engine, table: Table, newer: str, key: tuple[str, ...]) -> None:
    engine.execute(
        f"DELETE FROM {SCHEMA}.{table.name} known USING {newer} newer WHERE {_same(key, 'known', 'newer')}"
    )
    engine.execute(
        f"INSERT INTO {SCHEMA}.{table.name} ({_columns(table)}) SELECT {_columns(table)} FROM {newer}"
    )


def _scratch(engine: Engine, table: Table, more: str = "") -> str:
    """An empty temporary table with the columns of a table."""
    name = f"{_NEWER}_{table.name}"
    columns = ", ".join(f"{column.name} {engine.types[column.type]}" for column in table.columns)
    engine.scratch(name, f"{columns}{more}")
    return name


def _staged(engine: Engine, table: Table, files: LakeFiles) -> str:
    """A relation with the manifest's rows of a table; can be read once."""
    name = f"feedamp_staged_{table.name}"
    engine.stage(name, table, files.reader(table))
    return name


def _children(tables: Mapping[str, Table]) -> Iterator[Table]:
    return (tables[child.name] for child in CHILDREN)


def _columns(table: Table, prefix: str = "") -> str:
    return _columns_of(table.names, prefix)


def _columns_of(names: tuple[str, ...], prefix: str) -> str:
    return ", ".join(prefix + name for name in names)


def _same(key: tuple[str, ...], one: str, other: str) -> str:
    return " AND ".join(f"{one}.{name} = {other}.{name}" for name in key)
