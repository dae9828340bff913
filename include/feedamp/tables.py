"""Every table of lake and warehouse, each column declared once: type, unit, meaning.

Arrow schemas, DDL and the data dictionary in docs are made from these declarations. Times are UTC with zone,
money is DECIMAL(18,4) in major units of `currency`, unknown fields of the API stand in `extra` as JSON.
`recorded_at` exists in the lake only: the moment a row became true, which decides between two rows of one
key (promise 4). For the tables of a snapshot that moment is `read_at`, when the request was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any

import pyarrow as pa

from feedamp.errors import MisfitError

SCHEMA = "feedamp"
WRITER_VERSION = 1
RECORDED_AT = "recorded_at"
Row = dict[str, Any]
Rows = dict[str, list[Row]]


class Type(Enum):
    """Logical types; each warehouse names them in its own words."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    MONEY = "money"
    NUMBER = "number"
    TIMESTAMP = "timestamp"
    DATE = "date"
    JSON = "json"

    @property
    def arrow(self) -> pa.DataType:
        """How the type lies in Parquet."""
        return _ARROW[self]

    def fits(self, value: object) -> bool:
        """Whether Arrow takes a value that is not None, whole, as this type."""
        python = type(value)
        # Nearly all values are of these kinds, and asking Arrow about each takes longer than writing them.
        if python is str and value.isascii():  # type: ignore[attr-defined]
            return self in _TEXTS
        if python is int and -_SMALL < value < _SMALL:  # type: ignore[operator]
            return self is Type.INTEGER
        if python is bool:
            return self is Type.BOOLEAN
        if python is datetime:
            return self is Type.TIMESTAMP and value.tzinfo is not None  # type: ignore[attr-defined]
        try:
            # Arrow rounds nothing, but it would take a number for a moment.
            return isinstance(value, _PYTHON[self]) and pa.scalar(value, self.arrow).is_valid
        except (pa.ArrowException, ValueError, OverflowError):
            return False


_ARROW = {
    Type.TEXT: pa.string(),
    Type.INTEGER: pa.int64(),
    Type.BOOLEAN: pa.bool_(),
    Type.MONEY: pa.decimal128(18, 4),
    Type.NUMBER: pa.float64(),
    Type.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Type.DATE: pa.date32(),
    Type.JSON: pa.string(),
}


_PYTHON: dict[Type, type] = {
    Type.TEXT: str,
    Type.INTEGER: int,
    Type.BOOLEAN: bool,
    Type.MONEY: Decimal,
    Type.NUMBER: float,
    Type.TIMESTAMP: datetime,
    Type.DATE: date,
    Type.JSON: str,
}
_TEXTS = (Type.TEXT, Type.JSON)
_SMALL = 1 << 31


class Merge(StrEnum):
    """How a batch of rows goes into the warehouse table."""

    SNAPSHOT = "snapshot"  # replaced per order when the newer snapshot arrives
    LATEST = "latest"  # one row per key, the later recorded row replaces the earlier one


@dataclass(frozen=True)
class Column:
    """One column; `personal` marks what `pii = mask` hides.

    `from_extra` is for a field of the API that gets a column of its own after it was kept in `extra`: the key it
    has there. Older lake files and rows that are loaded already get their values from it.
    """

    name: str
    type: Type
    meaning: str
    personal: bool = False
    from_extra: str = ""


@dataclass(frozen=True)
class Table:
    """One table; `key` columns are never null."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    merge: Merge

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def lake_schema(self) -> pa.Schema:
        """The Arrow schema of a lake file: the columns and `recorded_at`."""
        fields = [pa.field(c.name, c.type.arrow, nullable=c.name not in self.key) for c in self.columns]
        fields.append(pa.field(RECORDED_AT, Type.TIMESTAMP.arrow, nullable=False))
        return pa.schema(fields, metadata={"feedamp_table": self.name, "feedamp_writer": str(WRITER_VERSION)})

    def misfit(self, row: Mapping[str, Any]) -> str | None:
        """Why a row with `recorded_at` cannot stand in a lake file, naming the column but no value; None if it can.

        Asked where a row starts: one that fails later fails with all rows that were written beside it.
        """
        types = self._lake_types
        for name, value in row.items():
            if name not in types:
                return f"{self.name} has no column {name}"
            if value is not None and not types[name].fits(value):
                return f"{self.name}.{name} cannot hold this {type(value).__name__} as {types[name].value}"
        for name in (*self.key, RECORDED_AT):
            if row.get(name) is None:
                return f"{self.name}.{name} is empty"
        return None

    @cached_property
    def _lake_types(self) -> dict[str, Type]:
        return {**{column.name: column.type for column in self.columns}, RECORDED_AT: Type.TIMESTAMP}


def _text(name: str, meaning: str, *, personal: bool = False) -> Column:
    return Column(name, Type.TEXT, meaning, personal)


def _count(name: str, meaning: str) -> Column:
    return Column(name, Type.INTEGER, meaning)


def _time(name: str, meaning: str) -> Column:
    return Column(name, Type.TIMESTAMP, meaning)


SELLER = _text("seller_id", "The marketplace's own id of the seller.")
NUMBER = _text("mp_order_number", "The marketplace's order number, 1-128 characters.")
LINE = _text("mp_line_number", "The marketplace's number of the order line.")
STATE = _text(
    "marketplace_state", "PENDING, AWAITING_SHIPMENT, SHIPPED or CANCELLED: what the marketplace last set."
)
RUN = _text("run_id", "The Airflow run that wrote the row.")
EXTRA = Column("extra", Type.JSON, "Fields of the API that have no column, as one JSON object.")

_ADDRESS = tuple(
    _text(f"shipping_address_{name}", meaning, personal=personal)
    for name, meaning, personal in (
        ("full_name", "Who receives the parcel.", True),
        ("address1", "Street and number.", True),
        ("address2", "Second address line.", True),
        ("address3", "Third address line.", True),
        ("city", "City.", False),
        ("state", "State or province, if the country has one.", False),
        ("postal_code", "Postal code, leading zeros kept.", False),
        ("country_code", "ISO 3166-1 alpha-3.", False),
        ("address_type", "`business` or `residential`, as sent.", False),
        ("phone", "Phone number for the courier.", True),
    )
)
_CUSTOMER = tuple(
    _text(f"customer_{name}", meaning, personal=True)
    for name, meaning in (
        ("full_name", "Name of the customer."),
        ("email", "Mail address of the customer."),
        ("phone", "Phone number of the customer."),
        ("vat", "VAT number of the customer."),
    )
)

ORDERS = Table(
    "orders",
    "One row per order that we placed or FeedAMP showed.",
    ("seller_id", "mp_order_number"),
    (
        SELLER,
        NUMBER,
        _text("sales_channel", "Channel inside the marketplace, usually a region."),
        _time("purchase_date", "When the customer bought."),
        _text("currency", "ISO 4217 code of every amount of the order."),
        _text("status", "FeedAMP's own status (contract 7.1); null until seen."),
        STATE,
        Column("acknowledged", Type.BOOLEAN, "The seller has acknowledged; null until seen."),
        Column("is_marketplace_fulfilled", Type.BOOLEAN, "The marketplace ships it itself; null until seen."),
        _count("units_ordered", "Units ordered over all lines."),
        _count("units_shipped", "Units shipped over all lines, unknown ones included."),
        _count("units_cancelled", "Units cancelled by the seller over all lines."),
        _count("units_pending", "Units still open, never below 0."),
        _count("units_over", "Units shipped or cancelled beyond what was ordered."),
        _time(
            "placed_at",
            "When FeedAMP first accepted our PUT; if a repair placed it again, that moment. Null if we did not place it.",
        ),
        _time("closed_at", "When SHIPPED or CANCELLED was accepted; null while open."),
        _time("extracted_at", "When the request that showed this snapshot was sent; null until seen."),
        _text("snapshot_hash", "Hash of what decides the order's fate; equal hash, equal content."),
        *_CUSTOMER,
        *_ADDRESS,
        _text("delivery_notes", "The customer's wishes for the courier.", personal=True),
        _time("earliest_ship_date", "Not to be shipped before."),
        _time("latest_ship_date", "To be shipped by."),
        _time("earliest_delivery_date", "Not to be delivered before."),
        _time("latest_delivery_date", "To be delivered by."),
        Column(EXTRA.name, EXTRA.type, EXTRA.meaning, personal=True),
    ),
    Merge.SNAPSHOT,
)

ORDER_LINES = Table(
    "order_lines",
    "One row per line of an order, ordered or merely fulfilled.",
    ("seller_id", "mp_order_number", "mp_line_number"),
    (
        SELLER,
        NUMBER,
        LINE,
        _text("sku", "The seller's article number."),
        _text("product_name", "Name of the article."),
        _count("quantity", "Units ordered; 0 for a line that was never ordered."),
        Column("unit_price", Type.MONEY, "Price of one unit without tax, shipping and discount."),
        Column("shipping_price", Type.MONEY, "Shipping total of the line."),
        _count("units_shipped", "Units shipped."),
        _count("units_cancelled", "Units cancelled by the seller."),
        _count("units_pending", "Units still open, never below 0."),
        Column(EXTRA.name, EXTRA.type, EXTRA.meaning, personal=True),
    ),
    Merge.SNAPSHOT,
)

SHIPMENTS = Table(
    "shipments",
    "The shipments of the current snapshot; one can change or vanish (contract 7.5).",
    ("seller_id", "mp_order_number", "mp_line_number", "shipment_index"),
    (
        SELLER,
        NUMBER,
        LINE,
        _count("shipment_index", "Place within the line, from 0, in the order FeedAMP sent them."),
        _count("quantity", "Units in the parcel; null if FeedAMP sent no whole number."),
        _text("carrier", "The carrier as the seller wrote it."),
        _text("carrier_id", "The carrier as we understand it; null if we do not know it."),
        _text("tracking_number", "As the seller wrote it."),
        _text("tracking_check", "valid, invalid or unverified: the number judged against the carrier."),
        Column("shipped_date", Type.DATE, "Day of shipping, without zone."),
        _text("tracking_url", "Where the parcel can be followed."),
    ),
    Merge.SNAPSHOT,
)

CANCELLATIONS = Table(
    "cancellations",
    "The cancellations of the current snapshot.",
    ("seller_id", "mp_order_number", "mp_line_number", "cancellation_index"),
    (
        SELLER,
        NUMBER,
        LINE,
        _count("cancellation_index", "Place within the line, from 0."),
        _count("quantity", "Units cancelled; null if FeedAMP sent no whole number."),
        _text("reason", "Why, in FeedAMP's word."),
    ),
    Merge.SNAPSHOT,
)

PLACEMENTS = Table(
    "placements",
    "One row per state of an order that FeedAMP accepted from the inbox.",
    ("seller_id", "mp_order_number", "marketplace_state"),
    (
        SELLER,
        NUMBER,
        STATE,
        _time("placed_at", "When the PUT was sent that FeedAMP accepted."),
        _text("source", "Inbox file that asked for it."),
        _count("source_row", "Row of that file."),
        RUN,
    ),
    Merge.LATEST,
)

REJECTED_ORDERS = Table(
    "rejected_orders",
    "Rows that were not placed, with every reason.",
    ("source", "row_number", "row_hash"),
    (
        _text("source", "Inbox file."),
        _count("row_number", "Line of a JSONL file; row of a CSV file as a spreadsheet counts it."),
        _text("row_hash", "Hash of the row's content."),
        SELLER,
        NUMBER,
        _text("stage", "`inbox`: our checks; `feedamp`: FeedAMP refused it (400, 409, 413, 422)."),
        Column(
            "reasons",
            Type.JSON,
            "List of {field, code, message}; with `pii = mask` without FeedAMP's own words.",
        ),
        _time("rejected_at", "When."),
        _time(
            "superseded_at",
            "When a new version of the file replaced the row, or it was mended; null until then.",
        ),
        _time("dismissed_at", "When it was said that nothing has to be done about it; null until then."),
        _text("dismiss_reason", "Why nothing has to be done."),
    ),
    Merge.LATEST,
)

FINDINGS = Table(
    "findings",
    "What is wrong with what sellers reported.",
    ("finding_id",),
    (
        _text("finding_id", "Stable id of (order, line, kind, value)."),
        SELLER,
        NUMBER,
        _text("mp_line_number", "The line as the seller reported it, an unknown one too."),
        _text("kind", "See docs/runbook.md."),
        _text("severity", "error blocks closing, warning never does."),
        _text("api_code", "The code sent to FeedAMP; null if it is held back."),
        _text("message", "What the seller reads."),
        _text("state", "held, to_report, reported, resolved or waived."),
        _time("found_at", "When it was first seen."),
        _time("reported_at", "When FeedAMP took the report."),
        _time("resolved_at", "When it was mended or waived."),
    ),
    Merge.LATEST,
)

CLOSURES = Table(
    "closures",
    "Orders closed by us, with the units they were closed on.",
    ("seller_id", "mp_order_number"),
    (
        SELLER,
        NUMBER,
        STATE,
        _count("units_shipped", "Units shipped on the snapshot that closed it."),
        _count("units_cancelled", "Units cancelled on that snapshot."),
        _time("closed_at", "When the PUT was sent that FeedAMP accepted."),
        RUN,
    ),
    Merge.LATEST,
)

RECONCILIATIONS = Table(
    "reconciliations",
    "Differences between ledger, FeedAMP and warehouse.",
    ("run_id", "seller_id", "mp_order_number", "field"),
    (
        RUN,
        SELLER,
        NUMBER,
        _text("field", "What differs, e.g. `marketplace_state` or `order_lines[L-1].units_shipped`."),
        _text("ledger_value", "What our ledger holds."),
        _text("feedamp_value", "What FeedAMP shows."),
        _text("warehouse_value", "What the warehouse holds."),
        _time("repaired_at", "When it was repaired; null while it stands."),
    ),
    Merge.LATEST,
)

RUNS = Table(
    "runs",
    "One row per run, step and shard: what was read and whether it was all.",
    ("run_id", "step", "shard"),
    (
        RUN,
        _text("step", "intake, place, extract, validate, close, reconcile or refresh."),
        _count("shard", "Index of the shard, 0 for a step without shards."),
        _text("dag_id", "The DAG."),
        _time("started_at", "Start of the step."),
        _time("ended_at", "End of the step."),
        _count("sellers", "Sellers looked at."),
        _count("sellers_failed", "Sellers of whom something was left undone."),
        _count("pages", "Pages read."),
        _count("requests", "Requests sent to FeedAMP, token calls included."),
        _count("orders", "Orders (intake: rows) handled."),
        _count("orders_unread", "Orders that could not be read even by themselves."),
        Column("complete", Type.BOOLEAN, "Everything was read or done; false means something is missing."),
    ),
    Merge.LATEST,
)

TABLES = {
    table.name: table
    for table in (
        ORDERS,
        ORDER_LINES,
        SHIPMENTS,
        CANCELLATIONS,
        PLACEMENTS,
        REJECTED_ORDERS,
        FINDINGS,
        CLOSURES,
        RECONCILIATIONS,
        RUNS,
    )
}
CHILDREN = (ORDER_LINES, SHIPMENTS, CANCELLATIONS)

SNAPSHOTS = Table(
    "snapshots",
    "Lake only: what validate and close decide on, one row per order and read; no customer field.",
    ("seller_id", "mp_order_number"),
    (
        SELLER,
        NUMBER,
        _text("snapshot_hash", "Hash of the snapshot."),
        Column("snapshot", Type.JSON, "The snapshot."),
    ),
    Merge.SNAPSHOT,
)
LAKE_TABLES = {**TABLES, SNAPSHOTS.name: SNAPSHOTS}


def refuse_misfit(table: str, row: Mapping[str, Any]) -> None:
    """Checks a row where it starts, so that it costs itself and not the rows that would be written beside it.

    Raises:
        MisfitError: it cannot stand in the table.
    """
    why = LAKE_TABLES[table].misfit(row)
    if why is None:
        return
    seller_id, number = row.get("seller_id"), row.get("mp_order_number")
    named = f"Order {number} of seller {seller_id}" if seller_id and number else "A row"
    raise MisfitError(
        f"{named} cannot be stored in {table}: {why}.", seller_id=seller_id, mp_order_number=number
    )
