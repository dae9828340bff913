"""Reads the rows of a warehouse and finds missing ones, with SQL that all engines share."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from feedamp.column_types import Type
from feedamp.tables import (
    CANCELLATIONS,
    ORDER_LINES,
    ORDERS,
    RECORDED_AT,
    SCHEMA,
    SHIPMENTS,
    Column,
    Row,
    Table,
)
from feedamp.warehouse.engine import META, Engine, in_transaction
from feedamp.warehouse.views import LATE_ORDERS, SELLER_SCORECARDS

_PLACE = Column("expected_place", Type.INTEGER, "Position of the row among the expected rows.")
_ORDERS_COMPARED_AT_ONCE = 200_000
_Value = TypeVar("_Value")
ORDERS_PER_QUERY = 500
_HASH_DIGITS = 7  # hexadecimal; so few that the sum over all rows of a table fits a BIGINT


class StoredRows:
    """The rows of an open warehouse, and what is missing in them; every method is a short transaction."""

    def __init__(self, engine: Engine, tables: Mapping[str, Table]) -> None:
        self._engine = engine
        self._tables = tables

    def rows(self, table: str, columns: Sequence[str], keys: Sequence[tuple[str, str]]) -> Iterator[Row]:
        """The named columns of a table with an order key, for orders by (seller_id, mp_order_number)."""
        for part in batched(keys, ORDERS_PER_QUERY):
            places = ", ".join(f"(${2 * at + 1}, ${2 * at + 2})" for at in range(len(part)))
            yield from self._found(
                f"SELECT {', '.join(columns)} FROM {SCHEMA}.{table} "
                f"WHERE (seller_id, mp_order_number) IN ({places})",
                [value for key in part for value in key],
            )

    def purchased(
        self, seller_ids: Sequence[str], start: datetime, end: datetime
    ) -> Iterator[tuple[str, str, date]]:
        """(seller_id, mp_order_number, UTC day) of `orders` purchased from `start` (inclusive) to `end` (exclusive)."""
        for part in batched(seller_ids, ORDERS_PER_QUERY):
            found = self._found(
                f"SELECT seller_id, mp_order_number, purchase_date FROM {SCHEMA}.{ORDERS.name} WHERE purchase_date >= $1 "
                f"AND purchase_date < $2 AND seller_id IN ({_places(part, first=3)}) ORDER BY seller_id, mp_order_number",
                [start, end, *part],
            )
            for row in found:
                yield row["seller_id"], row["mp_order_number"], row["purchase_date"].astimezone(UTC).date()

    def recorded_at(self, table: str, row: Row) -> datetime | None:
        """`recorded_at` of the row that the table has for the key of this one, or of its full snapshot; None without."""
        if self._tables[table].full_snapshot:
            return self.full_snapshots().get(table)
        key = self._tables[table].key
        same = " AND ".join(f"{name} = ${at}" for at, name in enumerate(key, start=1))
        found = self._found(
            f"SELECT {RECORDED_AT} FROM {SCHEMA}.{table} WHERE {same}", [row[name] for name in key]
        )
        return found[0][RECORDED_AT] if found else None

    def absent(self, table: str, rows: Sequence[Row]) -> list[Row]:
        """The given rows that the table lacks; all have the same columns, and null equals null."""
        if not rows:
            return []
        import pyarrow as pa

        declared = self._tables[table]
        columns = tuple(column for column in declared.columns if column.name in rows[0])
        part = Table(f"{table}_expected", "", (), (_PLACE, *columns))
        schema = part.lake_schema
        batch = pa.RecordBatch.from_pylist(
            [{**row, _PLACE.name: place} for place, row in enumerate(rows)], schema=schema
        )
        staged = f"feedamp_expected_{table}"
        same = " AND ".join(
            f"stored.{column.name} {'=' if column.name in declared.key else 'IS NOT DISTINCT FROM'} expected.{column.name}"
            for column in columns
        )

        def lacking() -> list[Row]:
            self._engine.stage(staged, part, pa.RecordBatchReader.from_batches(schema, [batch]))
            found = self._engine.rows(
                f"SELECT expected.{_PLACE.name} AS place FROM {staged} expected "
                f"WHERE NOT EXISTS (SELECT 1 FROM {SCHEMA}.{table} stored WHERE {same})"
            )
            return [rows[place] for place in sorted(row["place"] for row in found)]

        return in_transaction(self._engine, lacking)

    def torn_orders(self, seller_ids: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
        """(table, seller_id, mp_order_number) where the units in a table differ from the totals of the order.

        Only for the named sellers, or for all if none are named.
        """
        sizes = {
            row["seller_id"]: row["orders"]
            for row in self._found(
                f"SELECT seller_id, count(*) AS orders FROM {SCHEMA}.{ORDERS.name} GROUP BY seller_id"
            )
            if not seller_ids or row["seller_id"] in seller_ids
        }
        for some in _seller_batches(sizes):
            for row in self._found(_torn(f"seller_id IN ({_places(some)})"), some):
                for table in (ORDER_LINES.name, SHIPMENTS.name, CANCELLATIONS.name):
                    if row[f"{table}_differ"]:
                        yield table, row["seller_id"], row["mp_order_number"]

    def loaded_manifests(self) -> set[str]:
        """Paths of the merged manifests."""
        return {row["path"] for row in self._found(f"SELECT path FROM {META}.loaded_manifests")}

    def full_snapshots(self) -> dict[str, datetime]:
        """As of when each table that is written as a whole holds its rows."""
        found = self._found(f"SELECT table_name, taken_at FROM {META}.full_snapshots")
        return {row["table_name"]: row["taken_at"] for row in found}

    def digests(self, table: str) -> dict[str, tuple[int, int]]:
        """(number of rows, sum of the hashes of their `row_keys`) by seller; `""` for rows without one.

        Equal digests mean equal keys on any two engines; different ones may also be due to how an engine writes a value
        as text.
        """
        declared = self._tables[table]
        md5 = f"md5(concat_ws(chr(31), {', '.join(_compared(declared))}))"
        digits = (
            f"CAST(strpos('123456789abcdef', substr(hash, {at + 1}, 1)) AS BIGINT) * {16**at}"
            for at in range(_HASH_DIGITS)
        )
        query = (
            f"SELECT seller, count(*) AS found, CAST(sum({' + '.join(digits)}) AS BIGINT) AS hashes "
            f"FROM (SELECT {_seller(declared)} AS seller, {md5} AS hash FROM {SCHEMA}.{table}) hashed GROUP BY seller"
        )
        return {row["seller"]: (row["found"], row["hashes"]) for row in self._found(query)}

    def row_keys(self, table: str, seller_id: str, after: Sequence[Any], limit: int) -> list[Row]:
        """Keys of a seller's rows after a key (exclusive; empty for the first portion), in key order.

        Rows of `orders` have the snapshot hash too. An empty seller means rows without one.
        """
        declared = self._tables[table]
        key = ", ".join(declared.key)
        beyond = f"AND ({key}) > ({_places(after, first=2)})" if after else ""
        query = (
            f"SELECT {', '.join(_compared(declared))} FROM {SCHEMA}.{table} WHERE {_seller(declared)} = $1 {beyond} "
            f"ORDER BY {key} LIMIT {limit}"
        )
        return self._found(query, [seller_id, *after])

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of placed orders (`placed`), closures (`closed`) and `findings`, each by seller."""
        found = {}
        for name, source in (
            ("placed", f"{SCHEMA}.{ORDERS.name} WHERE placed_at IS NOT NULL"),
            ("closed", f"{SCHEMA}.closures"),
            ("findings", f"{SCHEMA}.findings"),
        ):
            rows = self._found(f"SELECT seller_id, count(*) AS found FROM {source} GROUP BY seller_id")
            found[name] = {row["seller_id"]: row["found"] for row in rows}
        return found

    def scorecards(self, columns: Sequence[str], now: datetime) -> list[Row]:
        """The named columns of `seller_scorecards` over 30 days, and `late_orders`, of each seller with orders, as of a moment."""
        moment = f"TIMESTAMP WITH TIME ZONE '{now.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'"
        shown = (
            "coalesce(late_orders, 0) AS late_orders" if name == "late_orders" else f"cards.{name}"
            for name in columns
        )
        return self._found(
            f"SELECT {', '.join(shown)} FROM ({SELLER_SCORECARDS.select(moment)}) cards LEFT JOIN ("
            f"SELECT seller_id, count(*) AS late_orders FROM ({LATE_ORDERS.select(moment)}) late GROUP BY seller_id"
            ") late ON late.seller_id = cards.seller_id WHERE cards.window_days = 30"
        )

    def _found(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return in_transaction(self._engine, lambda: list(self._engine.rows(sql, parameters)))


def _places(values: Sequence[Any], *, first: int = 1) -> str:
    """Placeholders for the values, numbered from `first`."""
    return ", ".join(f"${at}" for at in range(first, first + len(values)))


def batched(values: Sequence[_Value], size: int) -> Iterator[Sequence[_Value]]:
    """The values in portions of at most `size`."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _compared(table: Table) -> tuple[str, ...]:
    return (*table.key, "snapshot_hash") if table.name == ORDERS.name else table.key


def _seller(table: Table) -> str:
    return "coalesce(seller_id, '')" if "seller_id" in table.names else "''"


def _seller_batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    batch: list[str] = []
    orders = 0
    for seller_id in sorted(sizes):
        if batch and (orders + sizes[seller_id] > _ORDERS_COMPARED_AT_ONCE or len(batch) == ORDERS_PER_QUERY):
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
