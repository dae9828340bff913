"""The tables of lake and warehouse, with every column declared once: type, unit, meaning.

Arrow schemas, DDL and the data dictionary in docs are generated from these declarations. Times are UTC with
zone, money is DECIMAL(18,4) in major units of `currency`, and API fields without a column are in `extra` as
JSON. Of two rows with the same key the one that is greater by `rank` of its table wins (promise 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from feedamp.column_types import Type
from feedamp.errors import MisfitError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "feedamp"
WRITER_VERSION = 1
RECORDED_AT = "recorded_at"
SNAPSHOT_HASH = "snapshot_hash"
MADE_BY = "made_by"
Row = dict[str, Any]
Rows = dict[str, list[Row]]


@dataclass(frozen=True)
class Column:
    """One column; `personal` marks columns that `pii = mask` hides."""

    name: str
    type: Type
    meaning: str
    personal: bool = False


@dataclass(frozen=True)
class Table:
    """One table; `key` columns are never null.

    Of all rows with one key, the one that is greater in the columns of `rank` counts: the first column in which two rows
    differ decides, and null is lowest. Rows that are equal in all of them count as equal; the one merged last stays.
    """

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    rank: tuple[str, ...] = (RECORDED_AT,)
    lake_only: tuple[Column, ...] = ()  # columns that the merge needs and the warehouse does not keep
    # Written as a whole: of all manifests the newest counts, even if it has no row.
    full_snapshot: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def lake_columns(self) -> tuple[Column, ...]:
        """Columns of a lake file, in order."""
        return (*self.columns, *self.lake_only)

    @cached_property
    def lake_schema(self) -> pa.Schema:
        """The Arrow schema of a lake file."""
        import pyarrow as pa

        fields = [
            pa.field(column.name, column.type.arrow, nullable=column.name not in self._required)
            for column in self.lake_columns
        ]
        return pa.schema(fields, metadata={"feedamp_table": self.name, "feedamp_writer": str(WRITER_VERSION)})

    def misfit(self, row: Mapping[str, Any]) -> str | None:
        """Why a row cannot be written to a lake file, naming the column but no value; None if it can.

        Call it where the row is made: a row that fails when the file is written fails the whole file.
        """
        types, texts = self._types, self._texts
        for name, value in row.items():
            if type(value) is str and name in texts and value.isascii():
                continue  # as `fits` says, which takes longer; most values are such
            if name not in types:
                return f"{self.name} has no column {name}"
            if value is not None and not types[name].fits(value):
                return f"{self.name}.{name} cannot hold this {type(value).__name__} as {types[name].label}"
        for name in self._required:
            if row.get(name) is None:
                return f"{self.name}.{name} is empty"
        return None

    def surely_hold(self, rows: Sequence[Row]) -> bool:
        """Whether all rows are seen to fit by their columns, in a fraction of the time that `misfit` takes; else ask that."""
        names = tuple(rows[0])
        if not self._types.keys() >= {*names} >= {*self._required} or any(
            tuple(row) != names for row in rows
        ):
            return False
        columns = zip(names, zip(*(row.values() for row in rows), strict=True), strict=True)
        return all(self._types[name].surely_fit(values, name in self._required) for name, values in columns)

    def batch(self, columns: Mapping[str, Sequence[Any] | pa.Array], rows: int) -> pa.RecordBatch:
        """Columns of so many values as they are written to a lake file; those that are not given are null.

        A column may be an array of the column's type already.

        Raises:
            MisfitError: a value does not fit its column, so that `misfit` of its row says why.
        """
        import pyarrow as pa

        arrays = []
        for column in self.lake_columns:
            values = columns.get(column.name)
            if isinstance(values, pa.Array):
                arrays.append(values)
                continue
            if values is None:
                if column.name in self._required:
                    raise MisfitError(f"{self.name}.{column.name} is missing.")
                arrays.append(pa.nulls(rows, column.type.arrow))
                continue
            try:
                arrays.append(column.type.array(values, is_required=column.name in self._required))
            except (pa.ArrowException, ValueError, OverflowError) as error:
                raise MisfitError(f"{self.name}.{column.name} cannot hold one of its values.") from error
        return pa.RecordBatch.from_arrays(arrays, schema=self.lake_schema)

    @cached_property
    def _required(self) -> tuple[str, ...]:
        return (*self.key, RECORDED_AT)

    @cached_property
    def _texts(self) -> frozenset[str]:
        return frozenset(name for name, kind in self._types.items() if kind.fits(""))

    @cached_property
    def _types(self) -> dict[str, Type]:
        return {column.name: column.type for column in self.lake_columns}


def _text(name: str, meaning: str, *, personal: bool = False) -> Column:
    return Column(name, Type.TEXT, meaning, personal)


def count(name: str, meaning: str) -> Column:
    """A column of whole numbers."""
    return Column(name, Type.INTEGER, meaning)


def _flag(name: str, meaning: str) -> Column:
    return Column(name, Type.BOOLEAN, meaning)


def _date(name: str, meaning: str) -> Column:
    return Column(name, Type.DATE, meaning)


def _time(name: str, meaning: str) -> Column:
    return Column(name, Type.TIMESTAMP, meaning)


SELLER = _text("seller_id", "The marketplace's id of the seller.")
NUMBER = _text("mp_order_number", "The marketplace's order number, 1-128 characters.")
LINE = _text("mp_line_number", "The marketplace's number of the order line.")
STATE = _text(
    "marketplace_state", "PENDING, AWAITING_SHIPMENT, SHIPPED or CANCELLED, as last set by the marketplace."
)
RUN = _text("run_id", "The Airflow run that wrote the row.")
EXTRA = Column(
    "extra", Type.JSON, "Fields of the API that have no column, as one JSON object.", personal=True
)
RECORDED = _time(
    RECORDED_AT,
    "From when the row is valid. In snapshot tables, when the request was sent that returned the order, or that placed it.",
)
_READ_WITH = _text(
    SNAPSHOT_HASH,
    "`snapshot_hash` of the order that the row was read with, empty if it was placed; null in files of earlier builds.",
)

_ADDRESS = tuple(
    _text(f"shipping_address_{name}", meaning, personal=personal)
    for name, meaning, personal in (
        ("full_name", "Name of the recipient.", True),
        ("address1", "Street and number.", True),
        ("address2", "Second address line.", True),
        ("address3", "Third address line.", True),
        ("city", "City.", False),
        ("state", "State or province, if the country has one.", False),
        ("postal_code", "Postal code, with leading zeros.", False),
        ("country_code", "ISO 3166-1 alpha-3.", False),
        ("address_type", "`business` or `residential`, as sent.", False),
        ("phone", "Phone number for the courier.", True),
    )
)
_CUSTOMER = tuple(
    _text(f"customer_{name}", meaning, personal=True)
    for name, meaning in (
        ("full_name", "Name of the customer."),
        ("email", "Email address of the customer."),
        ("phone", "Phone number of the customer."),
        ("vat", "VAT number of the customer."),
    )
)


def _table(name: str, meaning: str, key: tuple[Column, ...], *columns: Column, **more: Any) -> Table:
    return Table(name, meaning, tuple(column.name for column in key), (*key, *columns, RECORDED), **more)


ORDERS = _table(
    "orders",
    "One row per order that was placed from here or that FeedAMP returned.",
    (SELLER, NUMBER),
    _text("sales_channel", "Channel inside the marketplace, usually a region."),
    _time("purchase_date", "When the customer placed the order."),
    _text("currency", "ISO 4217 code of every amount of the order."),
    _text("status", "FeedAMP's own status (contract 7.1); null until the order was read from FeedAMP."),
    STATE,
    _flag("acknowledged", "The seller has acknowledged the order; null until it was read from FeedAMP."),
    _flag(
        "is_marketplace_fulfilled",
        "The marketplace ships the order itself; null until the order was read from FeedAMP.",
    ),
    count(
        "units_ordered",
        "Units ordered, over all lines; null if FeedAMP showed no lines, as the units open or too many are.",
    ),
    count("units_shipped", "Units shipped, over all lines, including lines that were not ordered."),
    count("units_cancelled", "Units cancelled by the seller, over all lines."),
    count("units_pending", "Units still open, never below 0."),
    count("units_over", "Units shipped or cancelled beyond what was ordered."),
    _time(
        "placed_at",
        "When FeedAMP first accepted the PUT, or the PUT of a repair that placed it again. Null if not placed from here.",
    ),
    _time(
        "closed_at",
        "When FeedAMP accepted SHIPPED or CANCELLED from here; null while open, and if it was closed elsewhere.",
    ),
    _time(
        "extracted_at",
        "When the request that returned this snapshot was sent; null until the order was read from FeedAMP.",
    ),
    _text(
        SNAPSHOT_HASH,
        "Hash of the whole order as it was read; equal content gives an equal hash. Null until the order was read.",
    ),
    *_CUSTOMER,
    *_ADDRESS,
    _text("delivery_notes", "The customer's instructions for the courier.", personal=True),
    _time("earliest_ship_date", "The order must not ship before this time."),
    _time("latest_ship_date", "The order must ship by this time."),
    _time("earliest_delivery_date", "The order must not be delivered before this time."),
    _time("latest_delivery_date", "The order must be delivered by this time."),
    EXTRA,
    rank=("extracted_at", RECORDED_AT, SNAPSHOT_HASH),
    lake_only=(
        _text(
            MADE_BY,
            "Hash of the code that made the row of what was read: the same code makes equal rows of orders with one "
            "`snapshot_hash`. Null if the order was placed, in a repair, and in files of earlier builds.",
        ),
    ),
)

ORDER_LINES = _table(
    "order_lines",
    "One row per line of an order, including lines that were fulfilled but never ordered.",
    (SELLER, NUMBER, LINE),
    _text("sku", "The seller's SKU."),
    _text("product_name", "Name of the product."),
    count(
        "quantity",
        "Units ordered; 0 for a line that was never ordered, null if FeedAMP shows no lines of the order.",
    ),
    Column("unit_price", Type.MONEY, "Price of one unit, without tax, shipping and discount."),
    Column("shipping_price", Type.MONEY, "Shipping total of the line."),
    count("units_shipped", "Units shipped."),
    count("units_cancelled", "Units cancelled by the seller."),
    count("units_pending", "Units still open, never below 0; null as `quantity`."),
    EXTRA,
    lake_only=(_READ_WITH,),
)

SHIPMENTS = _table(
    "shipments",
    "The shipments of the current snapshot; a shipment can change or disappear (contract 7.5).",
    (
        SELLER,
        NUMBER,
        LINE,
        count("shipment_index", "Position within the line, from 0, in the order in which FeedAMP sent them."),
    ),
    count("quantity", "Units in the parcel; null if FeedAMP did not send a whole number."),
    _text("carrier", "The carrier as the seller wrote it."),
    _text("carrier_id", "Id of the recognized carrier; null if it is not known for certain."),
    _text("tracking_number", "As the seller wrote it."),
    _text("tracking_check", "valid, invalid or unverified: the number checked against the carrier."),
    Column("shipped_date", Type.DATE, "Day of shipping, without time zone."),
    _text("tracking_url", "Where the parcel can be followed."),
    lake_only=(_READ_WITH,),
)

CANCELLATIONS = _table(
    "cancellations",
    "The cancellations of the current snapshot.",
    (SELLER, NUMBER, LINE, count("cancellation_index", "Position within the line, from 0.")),
    count("quantity", "Units cancelled; null if FeedAMP did not send a whole number."),
    _text("reason", "The reason, as FeedAMP sent it."),
    lake_only=(_READ_WITH,),
)


def _amounts(name: str, index: str, one: str, meaning: str) -> Table:
    return _table(
        name,
        meaning,
        (SELLER, NUMBER, LINE, count(index, f"Position of the {one} within the line, from 0.")),
        _text(
            "name",
            f"`name` of the {one} as FeedAMP shows it, otherwise its `type`, e.g. `SHIPPING`.",
            personal=True,  # a voucher may be named after the customer
        ),
        Column("amount", Type.MONEY, "The amount in `currency` of the order; null if it is not a number."),
        EXTRA,
        lake_only=(_READ_WITH,),
    )


ORDER_TAXES = _amounts(
    "order_taxes",
    "tax_index",
    "tax",
    "One row per tax of an order line, of the line as a whole and not of each unit.",
)
ORDER_DISCOUNTS = _amounts(
    "order_discounts",
    "discount_index",
    "discount",
    "One row per discount of an order line, likewise of the whole line.",
)

PLACEMENTS = _table(
    "placements",
    "One row per order and state that came from the inbox and that FeedAMP accepted.",
    (SELLER, NUMBER, STATE),
    _time("placed_at", "When the accepted PUT was sent."),
    _text("source", "Inbox file that delivered the order in this state."),
    count("source_row", "Row in that file."),
    RUN,
    rank=(RECORDED_AT, "source", "run_id"),
)

REJECTED_ORDERS = _table(
    "rejected_orders",
    "Inbox rows that were rejected, each with all its reasons.",
    (
        _text("source", "Inbox file; with stage `load`, the manifest."),
        count(
            "row_number",
            "Line of a JSONL file; row of a CSV file as a spreadsheet counts it; with stage `load`, position of the row in "
            "its table's files of the manifest, from 1.",
        ),
        _text("row_hash", "Hash of the row's content."),
    ),
    SELLER,
    NUMBER,
    _text(
        "stage",
        "`inbox`: rejected by the checks here; `feedamp`: refused by FeedAMP (400, 409, 413, 422); `load`: a row of the "
        "lake that the warehouse cannot hold.",
    ),
    Column(
        "reasons",
        Type.JSON,
        "List of {field, code, message}; with `pii = mask`, messages written by FeedAMP are left out.",
    ),
    _time("rejected_at", "When the row was rejected."),
    _time(
        "superseded_at",
        "When a new version of the file replaced the row, or the reject was resolved; null until then.",
    ),
    _time("dismissed_at", "When the reject was dismissed as needing no action; null until then."),
    _text("dismiss_reason", "Why no action is required."),
    rank=(RECORDED_AT, "dismissed_at", "superseded_at", "stage"),
)

FINDINGS = _table(
    "findings",
    "Faults in the shipments and cancellations that sellers reported.",
    (_text("finding_id", "Stable id of (order, line, kind, value)."),),
    SELLER,
    NUMBER,
    _text("mp_line_number", "The line as the seller reported it, even if it is unknown."),
    _text("kind", "See docs/runbook.md."),
    _text("severity", "An error blocks closing; a warning never does."),
    _text("api_code", "The code sent to FeedAMP; null if the finding is not reported."),
    _text("carrier", "The carrier as the seller wrote it; null if the finding is not about a shipment."),
    _text("tracking_number", "The tracking number as the seller wrote it; likewise."),
    _text("message", "The message for the seller."),
    _text("state", "held, to_report, reported, resolved or waived."),
    _time("found_at", "When it was first seen."),
    _time("reported_at", "When FeedAMP accepted the report."),
    _time("resolved_at", "When it was resolved or waived."),
    rank=(RECORDED_AT, "resolved_at", "reported_at", "state"),
)

CLOSURES = _table(
    "closures",
    "Orders closed from here, with the unit counts at closing.",
    (SELLER, NUMBER),
    STATE,
    count("units_shipped", "Units shipped in the snapshot on which it was closed."),
    count("units_cancelled", "Units cancelled in that snapshot."),
    _time("closed_at", "When the accepted PUT was sent."),
    RUN,
    rank=(RECORDED_AT, "marketplace_state", "run_id"),
)

RECONCILIATIONS = _table(
    "reconciliations",
    "Differences between ledger, FeedAMP and warehouse.",
    (
        RUN,
        SELLER,
        NUMBER,
        _text(
            "field",
            "The field that differs, e.g. `marketplace_state` or `order_lines[L-1].units_shipped`; `snapshot` where the kind "
            "is `not_extracted_yet`.",
        ),
    ),
    _date("day", "UTC day of the order's purchase; null in rows of versions before this column."),
    _text(
        "kind",
        "The field without line numbers and indexes, e.g. `order_lines[].units_shipped`. `not_extracted_yet`: FeedAMP is newer "
        "than the last extraction, which is no difference. Null in rows of versions before this column.",
    ),
    _text("ledger_value", "The value in the ledger."),
    _text("feedamp_value", "The value at FeedAMP."),
    _text("warehouse_value", "The value in the warehouse."),
    _time("found_at", "When it was found; null in rows of versions before this column."),
    _time("repaired_at", "When it was repaired; null while the difference remains."),
    rank=(RECORDED_AT, "repaired_at"),
)

ORDER_EVENTS = _table(
    "order_events",
    "What happened to an order that is in the ledger, append only. A snapshot is an event if it differs from the one before.",
    (
        SELLER,
        NUMBER,
        _text("event_id", "Id of the event within the order; a repeated load gives the same one."),
    ),
    _time("occurred_at", "When it happened; of a snapshot, when the request was sent that returned it."),
    _text(
        "kind",
        "delivered, placed, changed, finding, reported, resolved, waived, conflict, closed or repaired; what each says "
        "in `details` is in docs/warehouse.md.",
    ),
    Column("details", Type.JSON, "What happened, without customer fields."),
    _text("run_id", "The Airflow run that did or read it; null by hand."),
)

RECONCILIATION_DAYS = _table(
    "reconciliation_days",
    "One row per UTC day of purchases and seller that a reconciliation covered, also without a difference; the run that began "
    "its comparison last counts.",
    (_date("day", "The UTC day."), SELLER),
    RUN,
    count("compared", "Orders compared."),
    Column(
        "differences",
        Type.JSON,
        "Found differences by `kind` of `reconciliations`. `not_extracted_yet` counts orders, and is no difference.",
    ),
    count("repaired", "Those of the differences that this run repaired."),
    count("remaining", "Orders not compared, because the run stopped or the seller failed."),
    count("unread", "Orders that could not be read."),
    _time("checked_at", "When the comparison began; FeedAMP was asked at this moment or later."),
    _time(
        "planned_at",
        "When the run was planned; a later try of the comparison leaves it, and a run that is done again has a new one.",
    ),
    rank=("checked_at", RECORDED_AT),
)

RUNS = _table(
    "runs",
    "One row per run, step and shard: how much was read, and whether it was complete.",
    (
        RUN,
        _text(
            "step",
            "intake, place, extract, validate, close, reconcile or refresh; load if it set rows aside.",
        ),
        count("shard", "Index of the shard, 0 for a step without shards."),
    ),
    _text("dag_id", "The DAG."),
    _time("started_at", "Start of the step."),
    _time("ended_at", "End of the step."),
    count("sellers", "Sellers processed."),
    count("sellers_failed", "Sellers whose work was not finished."),
    count("pages", "Pages read."),
    count("requests", "Requests sent to FeedAMP, token calls included."),
    count("orders", "Orders (intake: rows) handled."),
    count("orders_unread", "Orders that could not be read, not even one at a time; of load: rows set aside."),
    _flag("complete", "Everything was read or done; false means something is missing."),
)

WAITING_ORDERS = _table(
    "waiting_orders",
    "Orders that wait: a PUT is due or held. As of the last load; orders that FeedAMP refused are in `rejected_orders`.",
    (SELLER, NUMBER),
    _text("ledger_phase", "`to_place`: a PUT is due; `held`: a conflict that requires action."),
    _text("reason", "Why it waits, without FeedAMP's own words; null if it is sent with the next run."),
    _time("since", "When the marketplace first delivered the order."),
    _time("next_try_at", "When it is tried again; null if it is held."),
    full_snapshot=True,
)

SELLERS = _table(
    "sellers",
    "The registered sellers as of the last load.",
    (SELLER,),
    _text("name", "Name of the seller."),
    _text("sales_channel", "Channel inside the marketplace."),
    _text("status", "active, paused, or why nothing is sent: no_grant, needs_authorization or set_aside."),
    _text("grant_status", "active, needs_authorization or set_aside; null without a grant."),
    _time(
        "grant_ends_at", "When the seller must have authorized again: a year after the grant was last issued."
    ),
    _time("watermark", "From when the next extraction reads; null if everything is still to be read."),
    _time("paused_at", "Since when it is paused; null if it is not, or was paused by an earlier version."),
    full_snapshot=True,
)

# Their rows come and go with the row of `orders` that they were read with, and not by rank.
CHILDREN = (ORDER_LINES, SHIPMENTS, CANCELLATIONS, ORDER_TAXES, ORDER_DISCOUNTS)
_OUTBOX = (PLACEMENTS, REJECTED_ORDERS, FINDINGS, CLOSURES, RECONCILIATIONS, ORDER_EVENTS)
_OF_RUNS = (RECONCILIATION_DAYS, RUNS, WAITING_ORDERS, SELLERS)
TABLES = {table.name: table for table in (ORDERS, *CHILDREN, *_OUTBOX, *_OF_RUNS)}

SNAPSHOTS = _table(
    "snapshots",
    "Lake only: the part of an order that validate and close decide on, one row per order and read; no customer field.",
    (SELLER, NUMBER),
    _text("snapshot_hash", "Hash of the snapshot."),
    Column("snapshot", Type.JSON, "The snapshot."),
)
LAKE_TABLES = {**TABLES, SNAPSHOTS.name: SNAPSHOTS}


def refuse_misfits(table: str, rows: Sequence[Row]) -> None:
    """Raises a MisfitError, which names the first row that the table cannot hold, if there is one."""
    if rows and not LAKE_TABLES[table].surely_hold(rows):
        for row in rows:
            refuse_misfit(table, row)


def refuse_misfit(table: str, row: Mapping[str, Any]) -> None:
    """Raises a MisfitError if the table cannot hold a row: here it fails alone, in a file all of its rows would."""
    why = LAKE_TABLES[table].misfit(row)
    if why is None:
        return
    seller_id, number = row.get("seller_id"), row.get("mp_order_number")
    named = f"Order {number} of seller {seller_id}" if seller_id and number else "A row"
    raise MisfitError(
        f"{named} cannot be stored in {table}: {why}.", seller_id=seller_id, mp_order_number=number
    )
