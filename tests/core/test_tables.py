"""Every column is declared once, as documented for the warehouse."""

from __future__ import annotations

import pyarrow as pa
import pytest

from feedamp.column_types import Type
from feedamp.models import Address, Customer
from feedamp.tables import CHILDREN, LAKE_TABLES, ORDERS, RECORDED_AT, TABLES, Table

ORDER = "seller_id mp_order_number"
# What queries rely on (docs/data-dictionary.md): key, then the columns besides it and `recorded_at`.
PROMISED = {
    "orders": (
        ORDER,
        """sales_channel purchase_date currency status marketplace_state acknowledged is_marketplace_fulfilled
        units_ordered units_shipped units_cancelled units_pending units_over placed_at closed_at extracted_at
        snapshot_hash extra""",
    ),
    "order_lines": (
        f"{ORDER} mp_line_number",
        "sku product_name quantity unit_price shipping_price units_shipped units_cancelled units_pending extra",
    ),
    "shipments": (
        f"{ORDER} mp_line_number shipment_index",
        "quantity carrier carrier_id tracking_number tracking_check shipped_date tracking_url",
    ),
    "cancellations": (f"{ORDER} mp_line_number cancellation_index", "quantity reason"),
    "order_taxes": (f"{ORDER} mp_line_number tax_index", "name amount extra"),
    "order_discounts": (f"{ORDER} mp_line_number discount_index", "name amount extra"),
    "placements": (f"{ORDER} marketplace_state", "placed_at source source_row run_id"),
    "rejected_orders": (
        "source row_number row_hash",
        "seller_id mp_order_number stage reasons rejected_at superseded_at dismissed_at dismiss_reason",
    ),
    "findings": (
        "finding_id",
        """seller_id mp_order_number mp_line_number kind severity api_code carrier tracking_number message state found_at reported_at
        resolved_at""",
    ),
    "closures": (ORDER, "marketplace_state units_shipped units_cancelled closed_at run_id"),
    "reconciliations": (
        "run_id seller_id mp_order_number field",
        "day kind ledger_value feedamp_value warehouse_value found_at repaired_at",
    ),
    "reconciliation_days": (
        "day seller_id",
        "run_id compared differences repaired remaining unread checked_at planned_at",
    ),
    "waiting_orders": (ORDER, "ledger_phase reason since next_try_at"),
    "sellers": (
        "seller_id",
        "name sales_channel status grant_status grant_ends_at watermark paused_at",
    ),
    "order_events": (f"{ORDER} event_id", "occurred_at kind details run_id"),
    "runs": (
        "run_id step shard",
        "dag_id started_at ended_at sellers sellers_failed pages requests orders orders_unread complete",
    ),
}


def test_the_tables_are_those_of_the_interface() -> None:
    assert TABLES.keys() == PROMISED.keys()


@pytest.mark.parametrize("name", PROMISED)
def test_a_table_has_the_key_of_the_interface(name: str) -> None:
    assert TABLES[name].key == tuple(PROMISED[name][0].split())


@pytest.mark.parametrize("name", sorted(PROMISED.keys() - {"orders"}))
def test_a_table_has_exactly_the_columns_of_the_interface(name: str) -> None:
    assert set(TABLES[name].names) == {*" ".join(PROMISED[name]).split(), RECORDED_AT}


def test_orders_has_the_interface_columns_plus_customer_and_address() -> None:
    customer = {f"customer_{field}" for field in Customer.__struct_fields__}
    address = {f"shipping_address_{field}" for field in Address.__struct_fields__}
    wishes = {"delivery_notes"} | {
        f"{end}_{what}_date" for end in ("earliest", "latest") for what in ("ship", "delivery")
    }
    promised = {*" ".join(PROMISED["orders"]).split(), RECORDED_AT}
    assert set(ORDERS.names) == promised | customer | address | wishes


@pytest.mark.parametrize("table", LAKE_TABLES.values(), ids=LAKE_TABLES)
def test_every_key_is_a_column_and_no_column_stands_twice(table: Table) -> None:
    assert set(table.key) <= set(table.names)
    assert len(set(table.names)) == len(table.names)


@pytest.mark.parametrize("table", LAKE_TABLES.values(), ids=LAKE_TABLES)
def test_every_column_says_what_it_means(table: Table) -> None:
    assert [column.name for column in table.columns if not column.meaning.endswith((".", "e.g."))] == []


@pytest.mark.parametrize("table", LAKE_TABLES.values(), ids=LAKE_TABLES)
def test_a_lake_file_holds_the_columns_and_every_row_has_key_and_moment(table: Table) -> None:
    of_the_lake = ["made_by"] if table is ORDERS else ["snapshot_hash"] if table in CHILDREN else []
    assert table.lake_schema.names == [*table.names, *of_the_lake]
    for name in (*table.key, RECORDED_AT):
        assert not table.lake_schema.field(name).nullable


def test_times_are_utc_and_money_is_decimal_in_the_lake() -> None:
    assert Type.TIMESTAMP.arrow == pa.timestamp("us", tz="UTC")
    assert Type.MONEY.arrow == pa.decimal128(18, 4)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_columns_that_rank_rows_are_columns(table: Table) -> None:
    assert RECORDED_AT in table.rank
    assert set(table.rank) <= set(table.names)


def test_what_names_a_person_is_marked_personal() -> None:
    personal = {column.name for table in TABLES.values() for column in table.columns if column.personal}
    address = {
        f"shipping_address_{name}" for name in ("full_name", "address1", "address2", "address3", "phone")
    }
    customer = {f"customer_{field}" for field in Customer.__struct_fields__}
    assert personal == address | customer | {"delivery_notes", "extra", "name"}  # of taxes and discounts
