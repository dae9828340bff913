"""Finds rows that are missing in a warehouse, with SQL that all engines share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from feedamp.tables import (
    CANCELLATIONS,
    ORDER_LINES,
    ORDERS,
    SCHEMA,
    SHIPMENTS,
    Column,
    Row,
    Table,
    Type,
)
from feedamp.warehouse.engine import META, Engine, in_transaction

_PLACE = Column("expected_place", Type.INTEGER, "Position of the row among the expected rows.")
_ORDERS_COMPARED_AT_ONCE = 200_000
_HASH_DIGITS = 7  # hexadecimal; so few that the sum over all rows of a table fits a BIGINT


def absent(engine: Engine, table: Table, rows: Sequence[Row]) -> list[Row]:
    """The given rows that the table lacks; all have the same columns, and null equals null."""
    if not rows:
        return []
    columns = tuple(column for column in table.columns if column.name in rows[0])
    part = Table(f"{table.name}_expected", "", (), (_PLACE, *columns))
    schema = part.lake_schema
    batch = pa.RecordBatch.from_pylist(
        [{**row, _PLACE.name: place} for place, row in enumerate(rows)], schema=schema
    )
    staged = f"feedamp_expected_{table.name}"
    same = " AND ".join(
        f"stored.{column.name} {'=' if column.name in table.key else 'IS NOT DISTINCT FROM'} expected.{column.name}"
        for column in columns
    )

    def lacking() -> list[Row]:
        engine.stage(staged, part, pa.RecordBatchReader.from_batches(schema, [batch]))
        found = engine.rows(
            f"SELECT expected.{_PLACE.name} AS place FROM {staged} expected "
            f"WHERE NOT EXISTS (SELECT 1 FROM {SCHEMA}.{table.name} stored WHERE {same})"
        )
        return [rows[place] for place in sorted(row["place"] for row in found)]

    return in_transaction(engine, lacking)


def torn_orders(engine: Engine, seller_ids: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(table, seller_id, mp_order_number) where the units in a table differ from the totals of the order.

    Only for the named sellers, or for all if none are named.
    """
    sizes = {
        row["seller_id"]: row["orders"]
        for row in _found(
            engine, f"SELECT seller_id, count(*) AS orders FROM {SCHEMA}.{ORDERS.name} GROUP BY seller_id"
        )
        if not seller_ids or row["seller_id"] in seller_ids
    }
    for some in _seller_batches(sizes):
        places = ", ".join(f"${at + 1}" for at in range(len(some)))
        for row in _found(engine, _torn(f"seller_id IN ({places})"), some):
            for table in (ORDER_LINES.name, SHIPMENTS.name, CANCELLATIONS.name):
                if row[f"{table}_differ"]:
                    yield table, row["seller_id"], row["mp_order_number"]


def loaded_manifests(engine: Engine) -> set[str]:
    """Paths of the merged manifests."""
    return {row["path"] for row in _found(engine, f"SELECT path FROM {META}.loaded_manifests")}


def digests(engine: Engine, table: Table) -> dict[str, tuple[int, int]]:
    """(number of rows, sum of the hashes of their `row_keys`) by seller; `""` for rows without one.

    Equal digests mean equal keys on any two engines; different ones may also be due to how an engine writes a value
    as text.
    """
    md5 = f"md5(concat_ws(chr(31), {', '.join(_compared(table))}))"
    digits = (
        f"CAST(strpos('123456789abcdef', substr(hash, {at + 1}, 1)) AS BIGINT) * {16**at}"
        for at in range(_HASH_DIGITS)
    )
    query = (
        f"SELECT seller, count(*) AS found, CAST(sum({' + '.join(digits)}) AS BIGINT) AS hashes "
        f"FROM (SELECT {_seller(table)} AS seller, {md5} AS hash FROM {SCHEMA}.{table.name}) hashed GROUP BY seller"
    )
    return {row["seller"]: (row["found"], row["hashes"]) for row in _found(engine, query)}


def row_keys(engine: Engine, table: Table, seller_id: str, after: Sequence[Any], limit: int) -> list[Row]:
    """Keys of a seller's rows after a key (exclusive; empty for the first portion), in key order.

    Rows of `orders` have the snapshot hash too. An empty seller means rows without one.
    """
    key = ", ".join(table.key)
    places = ", ".join(f"${at + 2}" for at in range(len(after)))
    beyond = f"AND ({key}) > ({places})" if after else ""
    query = (
        f"SELECT {', '.join(_compared(table))} FROM {SCHEMA}.{table.name} WHERE {_seller(table)} = $1 {beyond} "
        f"ORDER BY {key} LIMIT {limit}"
    )
    return _found(engine, query, [seller_id, *after])


def _found(engine: Engine, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    return in_transaction(engine, lambda: list(engine.rows(sql, parameters)))


def _compared(table: Table) -> tuple[str, ...]:
    return (*table.key, "snapshot_hash") if table.name == ORDERS.name else table.key


def _seller(table: Table) -> str:
    return "coalesce(seller_id, '')" if "seller_id" in table.names else "''"


def counts(engine: Engine) -> dict[str, dict[str, int]]:
    """Numbers of placed orders (`placed`), closures (`closed`) and `findings`, each by seller."""
    found = {}
    for name, source in (
        ("placed", f"{SCHEMA}.{ORDERS.name} WHERE placed_at IS NOT NULL"),
        ("closed", f"{SCHEMA}.closures"),
        ("findings", f"{SCHEMA}.findings"),
    ):
        rows = _found(engine, f"SELECT seller_id, count(*) AS found FROM {source} GROUP BY seller_id")
        found[name] = {row["seller_id"]: row["found"] for row in rows}
    return found


def _seller_batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    orders = 0
    for seller_id in sorted(sizes):
        if batch and (orders + sizes[seller_id] > _ORDERS_COMPARED_AT_ONCE or len(batch) == 500):
            yield batch
            batch, orders = [], 0
        batch.append(seller_id)
        orders += sizes[seller_id]
    if batch:
        yield batch


def _torn(which: str) -> str:
    """The query for orders whose units differ. As in units.py, only quantities above zero count."""
    units = "sum(CASE WHEN quantity > 0 THEN quantity ELSE 0 END)"

    def by_order(table: Table, sums: str) -> str:
        return (
            f"(SELECT seller_id, mp_order_number, {sums} FROM {SCHEMA}.{table.name} "
            f"WHERE {which} GROUP BY seller_id, mp_order_number)"
        )

    lines = by_order(
        ORDER_LINES,
        "sum(quantity) AS ordered, sum(units_shipped) AS shipped, sum(units_cancelled) AS cancelled",
    )
    return f"""
    SELECT * FROM (
        SELECT orders.seller_id, orders.mp_order_number,
               coalesce(lines.ordered, 0) <> coalesce(orders.units_ordered, 0)
               OR coalesce(lines.shipped, 0) <> coalesce(orders.units_shipped, 0)
               OR coalesce(lines.cancelled, 0) <> coalesce(orders.units_cancelled, 0) AS {ORDER_LINES.name}_differ,
               coalesce(shipped.units, 0) <> coalesce(orders.units_shipped, 0) AS {SHIPMENTS.name}_differ,
               coalesce(cancelled.units, 0) <> coalesce(orders.units_cancelled, 0) AS {CANCELLATIONS.name}_differ
        FROM (SELECT * FROM {SCHEMA}.{ORDERS.name} WHERE {which}) orders
        LEFT JOIN {lines} lines
               ON lines.seller_id = orders.seller_id AND lines.mp_order_number = orders.mp_order_number
        LEFT JOIN {by_order(SHIPMENTS, f"{units} AS units")} shipped
               ON shipped.seller_id = orders.seller_id AND shipped.mp_order_number = orders.mp_order_number
        LEFT JOIN {by_order(CANCELLATIONS, f"{units} AS units")} cancelled
               ON cancelled.seller_id = orders.seller_id AND cancelled.mp_order_number = orders.mp_order_number
    ) compared
    WHERE {ORDER_LINES.name}_differ OR {SHIPMENTS.name}_differ OR {CANCELLATIONS.name}_differ"""
