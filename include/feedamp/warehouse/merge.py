"""The merge as DuckDB SQL: one manifest, one transaction, any order of arrival, the same result.

`orders` and its children follow the newest snapshot (by `recorded_at`, the moment the request was sent; of two
of one moment the one with the greater hash); a row that `place` wrote gives way to any snapshot. What the marketplace itself decided (placed_at, closed_at, and a
`marketplace_state` set after the snapshot was read) follows `placements` and `closures`. So a late, older
manifest changes nothing that is newer, and a rebuild from the lake ends with the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feedamp.tables import CHILDREN, CLOSURES, ORDERS, PLACEMENTS, RECORDED_AT, SCHEMA, TABLES, Merge, Table

META = "feedamp_meta"
META_TABLES = (
    f"CREATE TABLE IF NOT EXISTS {META}.loaded_manifests (path VARCHAR PRIMARY KEY)",
    f"""CREATE TABLE IF NOT EXISTS {META}.order_versions (
        seller_id VARCHAR NOT NULL, mp_order_number VARCHAR NOT NULL, read_at TIMESTAMP WITH TIME ZONE)""",
    f"""CREATE TABLE IF NOT EXISTS {META}.row_versions (
        table_name VARCHAR NOT NULL, row_key VARCHAR NOT NULL, known_at TIMESTAMP WITH TIME ZONE NOT NULL)""",
    # Null in rows of an older file: there the state is taken for one that FeedAMP showed.
    f"ALTER TABLE {META}.order_versions ADD COLUMN IF NOT EXISTS shows_state BOOLEAN",
)
# What we decided is as old as its own column says; rows of these many need no version of their own.
_FACTS = {PLACEMENTS.name: "placed_at", CLOSURES.name: "closed_at"}
Execute = Callable[..., Any]
_ORDER_KEY = "seller_id, mp_order_number"


def merge_manifest(execute: Execute, path: str, files: Mapping[str, Sequence[str]]) -> bool:
    """Merges the Parquet files of one manifest, given by table; False if it was merged before."""
    seen = execute(f"SELECT 1 FROM {META}.loaded_manifests WHERE path = ?", [path]).fetchone()
    if seen:
        return False
    execute("CREATE OR REPLACE TEMP TABLE touched (seller_id VARCHAR, mp_order_number VARCHAR)")
    for table in TABLES.values():
        if table.merge is Merge.LATEST and table.name in files:
            _merge_latest(execute, table, files[table.name])
    if ORDERS.name in files:
        _merge_snapshots(execute, files)
    _apply_own_decisions(execute)
    execute(f"INSERT INTO {META}.loaded_manifests VALUES (?)", [path])
    return True


def _read(table: Table, files: Sequence[str]) -> str:
    """Rows of some files; a column that an older version did not write yet is null."""
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    return (
        f"(SELECT * FROM {SCHEMA}.{table.name} WHERE false UNION ALL BY NAME "
        f"SELECT * FROM read_parquet([{names}], union_by_name = true, hive_partitioning = false))"
    )


def _columns(table: Table, prefix: str = "") -> str:
    return ", ".join(prefix + name for name in table.names)


def _merge_latest(execute: Execute, table: Table, files: Sequence[str]) -> None:
    key = ", ".join(table.key)
    if moment := _FACTS.get(table.name):
        known = (
            f"(SELECT concat_ws(chr(31), {key}) AS row_key, {moment} AS known_at FROM {SCHEMA}.{table.name})"
        )
    else:
        known = f"(FROM {META}.row_versions WHERE table_name = '{table.name}')"
    execute(
        f"""CREATE OR REPLACE TEMP TABLE batch AS
        WITH newest AS (
            SELECT *, concat_ws(chr(31), {key}) AS row_key FROM {_read(table, files)}
            QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {RECORDED_AT} DESC) = 1)
        SELECT newest.* FROM newest
        LEFT JOIN {known} v USING (row_key)
        WHERE v.known_at IS NULL OR newest.{RECORDED_AT} >= v.known_at"""
    )
    execute(f"DELETE FROM {SCHEMA}.{table.name} WHERE ({key}) IN (SELECT ({key}) FROM batch)")
    execute(f"INSERT INTO {SCHEMA}.{table.name} ({_columns(table)}) SELECT {_columns(table)} FROM batch")
    if table.name in _FACTS:
        execute(f"INSERT INTO touched SELECT {_ORDER_KEY} FROM batch")
        return
    execute(
        f"""DELETE FROM {META}.row_versions
        WHERE table_name = '{table.name}' AND row_key IN (SELECT row_key FROM batch)"""
    )
    execute(f"INSERT INTO {META}.row_versions SELECT '{table.name}', row_key, {RECORDED_AT} FROM batch")


def _merge_snapshots(execute: Execute, files: Mapping[str, Sequence[str]]) -> None:
    execute(
        f"""CREATE OR REPLACE TEMP TABLE won AS
        WITH newest AS (
            SELECT * FROM {_read(ORDERS, files[ORDERS.name])}
            QUALIFY row_number() OVER (
                PARTITION BY {_ORDER_KEY}
                ORDER BY extracted_at IS NOT NULL DESC, {RECORDED_AT} DESC, snapshot_hash DESC) = 1)
        SELECT newest.* FROM newest LEFT JOIN {META}.order_versions v USING ({_ORDER_KEY})
        LEFT JOIN {SCHEMA}.{ORDERS.name} known USING ({_ORDER_KEY})
        WHERE v.seller_id IS NULL
           OR (newest.extracted_at IS NOT NULL AND (
               v.read_at IS NULL OR newest.{RECORDED_AT} > v.read_at
               OR (newest.{RECORDED_AT} = v.read_at AND newest.snapshot_hash > known.snapshot_hash)))"""
    )
    for table in (ORDERS, *CHILDREN):
        execute(
            f"""DELETE FROM {SCHEMA}.{table.name}
            WHERE ({_ORDER_KEY}) IN (SELECT ({_ORDER_KEY}) FROM won)"""
        )
    execute(f"INSERT INTO {SCHEMA}.{ORDERS.name} ({_columns(ORDERS)}) SELECT {_columns(ORDERS)} FROM won")
    for child in CHILDREN:
        if child.name in files:
            key = ", ".join(f"b.{name}" for name in child.key)
            execute(
                f"""INSERT INTO {SCHEMA}.{child.name} ({_columns(child)})
                SELECT {_columns(child, "b.")} FROM {_read(child, files[child.name])} b
                JOIN won USING ({_ORDER_KEY}, {RECORDED_AT})
                QUALIFY row_number() OVER (PARTITION BY {key}) = 1"""
            )
    execute(f"DELETE FROM {META}.order_versions WHERE ({_ORDER_KEY}) IN (SELECT ({_ORDER_KEY}) FROM won)")
    execute(
        f"""INSERT INTO {META}.order_versions ({_ORDER_KEY}, read_at, shows_state)
        SELECT {_ORDER_KEY}, CASE WHEN extracted_at IS NOT NULL THEN {RECORDED_AT} END,
               marketplace_state IS NOT NULL
        FROM won"""
    )
    execute(f"INSERT INTO touched SELECT {_ORDER_KEY} FROM won")


def _apply_own_decisions(execute: Execute) -> None:
    execute(
        f"""UPDATE {SCHEMA}.orders o
        SET placed_at = d.placed_at, closed_at = d.closed_at,
            marketplace_state = CASE
                WHEN d.state IS NOT NULL AND (d.decided_at > d.read_at OR d.read_at IS NULL
                                              OR NOT d.shows_state OR o.marketplace_state IS NULL)
                THEN d.state ELSE o.marketplace_state END
        FROM (
            SELECT t.seller_id, t.mp_order_number, any_value(v.read_at) AS read_at,
                   any_value(v.shows_state) AS shows_state,
                   min(e.decided_at) FILTER (WHERE e.placing) AS placed_at,
                   coalesce(min(e.decided_at) FILTER (WHERE NOT e.placing),
                            min(e.decided_at) FILTER (WHERE e.final)) AS closed_at,
                   max(e.decided_at) AS decided_at, arg_max(e.state, e.decided_at) AS state
            FROM (SELECT DISTINCT {_ORDER_KEY} FROM touched) t
            LEFT JOIN {META}.order_versions v USING ({_ORDER_KEY})
            LEFT JOIN (
                SELECT {_ORDER_KEY}, marketplace_state AS state, placed_at AS decided_at, true AS placing,
                       marketplace_state IN ('SHIPPED', 'CANCELLED') AS final
                FROM {SCHEMA}.placements
                UNION ALL
                SELECT {_ORDER_KEY}, marketplace_state, closed_at, false, true FROM {SCHEMA}.closures
            ) e USING ({_ORDER_KEY})
            GROUP BY ALL
        ) d
        WHERE o.seller_id = d.seller_id AND o.mp_order_number = d.mp_order_number"""
    )
