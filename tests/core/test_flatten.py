"""Orders become rows of the lake tables."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import feedamp
from feedamp.codec import content_hash, content_hashes
from feedamp.lake.flatten import order_columns, order_rows, placed_rows
from feedamp.lake.made_by import SOURCES, made_by
from feedamp.lake.privacy import REFUSED, Privacy
from feedamp.models import (
    Address,
    Cancellation,
    Customer,
    LineFulfillment,
    Order,
    OrderLine,
    ReadOrder,
    Shipment,
    decode_snapshot,
)
from feedamp.tables import LAKE_TABLES

READ_AT = datetime(2026, 3, 10, 12, tzinfo=UTC)
PARCEL = Shipment(
    quantity=1, carrier="ups", tracking_number="1Z999AA10123456784", shipped_date=date(2026, 3, 9)
)


def order(*fulfillments: LineFulfillment, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "mp_order_number": "M-1",
        "customer": Customer(full_name="Robin Vale", email="robin@buyer.example"),
        "shipping_address": Address(full_name="Robin Vale", city="Portland", postal_code="01201"),
        "order_lines": (
            OrderLine(mp_line_number="A", quantity=2, unit_price=Decimal("25.50")),
            OrderLine(mp_line_number="B", quantity=1),
        ),
        "fulfillments": fulfillments,
    }
    return Order(**fields | changes)


def rows_of(table: str, *fulfillments: LineFulfillment, **changes: Any) -> list[dict[str, Any]]:
    return order_rows("S1", order(*fulfillments, **changes), read_at=READ_AT)[table]


DONE = LineFulfillment(
    mp_line_number="A", shipments=(PARCEL,), cancellations=(Cancellation(quantity=1, reason="out_of_stock"),)
)


def test_rows_of_thousands_of_lines_take_no_time_for_each_pair():
    numbers = [str(n) for n in range(8_000)]
    parcels = (LineFulfillment(mp_line_number=n, shipments=(PARCEL,)) for n in numbers)
    large = order(*parcels, order_lines=tuple(OrderLine(mp_line_number=n) for n in numbers))
    began = time.process_time()
    assert len(order_rows("S1", large, read_at=READ_AT)["shipments"]) == 8_000
    assert time.process_time() - began < 1.5


def test_unknown_fields_without_end_are_left_out():
    large = order(extra={"a": "x" * 100_000}, order_lines=(OrderLine(mp_line_number="A", extra={"b": "y"}),))
    rows = order_rows("S1", large, read_at=READ_AT)
    assert json.loads(rows["orders"][0]["extra"]) == {"left_out": "1 fields of 100008 bytes"}
    assert json.loads(rows["order_lines"][0]["extra"]) == {"b": "y"}


def test_hashes_of_many_orders_are_those_of_each() -> None:
    several = [order(extra={"a": "x" * 100_000}), order(DONE), order()]
    assert content_hashes(several) == [content_hash(one) for one in several]


def test_what_was_ordered_is_unknown_of_an_order_that_shows_no_lines() -> None:
    read = [ReadOrder(order(DONE, order_lines=()), READ_AT), ReadOrder(order(DONE), READ_AT)]
    tables = order_columns(["S1"] * len(read), read).tables
    columns, lines = tables["orders"], tables["order_lines"]
    names = ("units_ordered", "units_pending", "units_over", "units_shipped", "units_cancelled")
    assert {name: columns[name] for name in names} == {
        "units_ordered": [None, 3],
        "units_pending": [None, 1],
        "units_over": [None, 0],
        "units_shipped": [1, 1],
        "units_cancelled": [1, 1],
    }
    assert lines["mp_line_number"] == ["A", "A", "B"]
    assert (lines["quantity"], lines["units_pending"]) == ([None, 2, 1], [None, 0, 1])
    assert (lines["units_shipped"], lines["units_cancelled"]) == ([1, 1, 0], [1, 1, 0])


@pytest.mark.parametrize("table", ["orders", "order_lines", "shipments", "cancellations", "snapshots"])
def test_every_row_has_declared_columns_only(table: str) -> None:
    for row in rows_of(table, DONE):
        assert row.keys() <= set(LAKE_TABLES[table].lake_schema.names)
        assert all(row[name] is not None for name in LAKE_TABLES[table].key)


def test_an_order_row_counts_units_over_all_lines() -> None:
    [row] = rows_of("orders", DONE)
    units = {name[6:]: row[name] for name in row if name.startswith("units_")}
    assert units == {"ordered": 3, "shipped": 1, "cancelled": 1, "pending": 1, "over": 0}


def test_a_surplus_on_one_line_does_not_hide_what_is_open_on_another() -> None:
    [row] = rows_of("orders", LineFulfillment(mp_line_number="A", shipments=(Shipment(quantity=3),)))
    assert (row["units_pending"], row["units_over"]) == (1, 1)


def test_units_count_on_their_lines_and_of_a_line_shown_twice_the_last_holds() -> None:
    rows = order_rows(
        "S1",
        order(
            LineFulfillment("B", cancellations=(Cancellation(1),)),
            LineFulfillment("A", shipments=(Shipment(2), Shipment(1)), cancellations=(Cancellation(2),)),
            order_lines=(OrderLine("A", quantity=9), OrderLine("B", quantity=1), OrderLine("A", quantity=2)),
        ),
        read_at=READ_AT,
    )
    of_line = ("mp_line_number", "quantity", "units_shipped", "units_cancelled", "units_pending")
    assert [[row[name] for name in of_line] for row in rows["order_lines"]] == [
        ["A", 2, 3, 2, 0],
        ["B", 1, 0, 1, 0],
    ]
    [row] = rows["orders"]
    units = {name[6:]: row[name] for name in row if name.startswith("units_")}
    assert units == {"ordered": 3, "shipped": 3, "cancelled": 3, "pending": 0, "over": 3}


def test_a_line_that_was_merely_fulfilled_has_a_row_too() -> None:
    lines = rows_of("order_lines", LineFulfillment(mp_line_number="X", shipments=(Shipment(quantity=1),)))
    [unknown] = [row for row in lines if row["mp_line_number"] == "X"]
    assert (unknown["quantity"], unknown["units_shipped"], unknown["sku"]) == (0, 1, None)


def test_money_stays_decimal() -> None:
    line = rows_of("order_lines")[0]
    assert line["unit_price"] == Decimal("25.50")
    assert isinstance(line["unit_price"], Decimal)


def test_shipments_of_a_line_in_two_entries_keep_keys_of_their_own() -> None:
    entry = LineFulfillment(mp_line_number="A", shipments=(PARCEL,))
    other_line = LineFulfillment(mp_line_number="B", shipments=(PARCEL,))
    keys = [
        (row["mp_line_number"], row["shipment_index"])
        for row in rows_of("shipments", entry, other_line, entry)
    ]
    assert keys == [("A", 0), ("B", 0), ("A", 1)]


def test_cancellations_of_a_line_in_two_entries_keep_keys_of_their_own() -> None:
    entry = LineFulfillment(
        mp_line_number="A", cancellations=(Cancellation(quantity=1), Cancellation(quantity=1))
    )
    assert [row["cancellation_index"] for row in rows_of("cancellations", entry, entry)] == [0, 1, 2, 3]


def test_a_shipment_shows_the_carrier_as_sent_and_as_understood() -> None:
    [row] = rows_of("shipments", LineFulfillment(mp_line_number="A", shipments=(PARCEL,)))
    assert (row["carrier"], row["carrier_id"], row["tracking_check"]) == ("ups", "ups", "valid")


def test_unknown_fields_are_kept_as_json() -> None:
    [row] = rows_of("orders", extra={"gift_wrap": {"price": Decimal("1.25")}})
    assert json.loads(row["extra"]) == {"gift_wrap": {"price": 1.25}}


def test_no_unknown_field_is_null_not_an_empty_object() -> None:
    assert rows_of("orders")[0]["extra"] is None


def test_the_snapshot_row_holds_no_customer_field() -> None:
    [row] = rows_of("snapshots", DONE)
    assert "Robin" not in row["snapshot"]
    assert decode_snapshot(row["snapshot"]) == order(DONE).snapshot()


def test_equal_content_has_an_equal_hash_whenever_it_is_read() -> None:
    later = order_rows("S1", order(DONE), read_at=datetime(2026, 3, 11, tzinfo=UTC))
    assert later["orders"][0]["snapshot_hash"] == rows_of("orders", DONE)[0]["snapshot_hash"]


def test_an_order_that_was_only_placed_counts_as_not_seen() -> None:
    rows = placed_rows("S1", order(fulfillments=None), placed_at=READ_AT)
    assert rows.keys() == {"orders", "order_lines", "order_taxes", "order_discounts"}
    assert rows["orders"][0].get("extracted_at") is None
    assert [rows[table][0].get("snapshot_hash") for table in ("orders", "order_lines")] == [None, ""]


MASK = Privacy(b"a key")


def test_masking_hides_every_personal_text_behind_a_pseudonym() -> None:
    [row] = rows_of("orders", delivery_notes="ring twice", extra={"gift": "to Robin"})
    hidden = MASK.hide("orders", row)
    text = json.dumps(hidden, default=str)
    assert not any(word in text for word in ("Robin", "robin", "ring twice"))
    assert (hidden["shipping_address_city"], hidden["extra"]) == ("Portland", None)


def test_the_same_person_has_the_same_pseudonym_under_one_key_only() -> None:
    [row] = rows_of("orders")
    name = MASK.hide("orders", row)["customer_full_name"]
    assert name == MASK.hide("orders", row)["shipping_address_full_name"]
    assert name != Privacy(b"another key").hide("orders", row)["customer_full_name"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        pytest.param(
            "FIELD_INVALID_VALUE: no such person: Robin Vale", "FIELD_INVALID_VALUE", id="a code and text"
        ),
        pytest.param("no such person: Robin Vale", "", id="text alone"),
        pytest.param("ROBIN: VALE", "", id="a name that looks like a code"),
    ],
)
def test_masking_keeps_only_feedamps_code_of_a_refusal(said: str, kept: str) -> None:
    ours = {"field": "currency", "code": "out_of_range", "message": "is no currency"}
    theirs = {"field": "", "code": "refused_by_feedamp", "message": said}
    unknown = {"field": "customer.Robin Vale", "code": "unknown_field", "message": "no such field"}
    hidden = MASK.hide("rejected_orders", {"source": "a.csv", "reasons": json.dumps([ours, theirs, unknown])})
    first, second, third = json.loads(hidden["reasons"])
    assert first == ours
    assert third == unknown | {"field": "customer"}
    assert second == theirs | {"message": f"{kept}: {REFUSED}" if kept else REFUSED}


def test_masking_leaves_what_is_absent_absent() -> None:
    [row] = rows_of("orders")
    assert MASK.hide("orders", row)["customer_phone"] is None


def test_without_a_key_nothing_is_hidden() -> None:
    [row] = rows_of("orders")
    assert Privacy(None).hide("orders", row) == row


def test_a_masked_hash_is_keyed_and_still_joins_an_order_with_its_lines() -> None:
    rows = order_rows("S1", order(DONE), read_at=READ_AT)
    masked = {table: MASK.hide(table, rows[table][0]) for table in ("orders", "order_lines")}
    hashes = {row["snapshot_hash"] for row in masked.values()}
    assert len(hashes) == 1
    assert hashes != {rows["orders"][0]["snapshot_hash"]}


@pytest.mark.parametrize(
    ("item", "row"),
    [
        pytest.param(
            {"type": "SHIPPING", "amount": Decimal("1.25")}, ("SHIPPING", Decimal("1.25"), None), id="a tax"
        ),
        pytest.param(
            {"name": "SPRING", "type": "ITEM", "amount": 2},
            ("SPRING", Decimal(2), {"type": "ITEM"}),
            id="a discount",
        ),
        pytest.param({"type": "GIFT", "amount": 0}, ("GIFT", Decimal(0), None), id="nothing"),
        pytest.param({"amount": "3.50 "}, (None, Decimal("3.50"), None), id="an amount as text"),
        pytest.param(
            {"amount": Decimal("0.33333")},
            (None, Decimal("0.3333"), {"amount": 0.33333}),
            id="too many decimals",
        ),
        pytest.param({"amount": "sNaN"}, (None, None, {"amount": "sNaN"}), id="no number"),
        pytest.param({"amount": [1], "type": 7}, (None, None, {"amount": [1], "type": 7}), id="rubbish"),
    ],
)
def test_taxes_and_discounts_are_rows_of_their_line(item: dict[str, Any], row: tuple[Any, ...]) -> None:
    line = OrderLine(mp_line_number="A", extra={"taxes": ["no object", item], "discounts": [item]})
    rows = order_rows("S1", order(order_lines=(line, OrderLine(mp_line_number="B"))), read_at=READ_AT)
    [tax], [discount] = rows["order_taxes"], rows["order_discounts"]
    assert (tax["tax_index"], discount["discount_index"], tax["mp_line_number"]) == (1, 0, "A")
    for made in (tax, discount):
        assert (made["name"], made.get("amount"), made["extra"] and json.loads(made["extra"])) == row


def test_the_hash_of_the_code_covers_all_that_makes_the_rows_of_an_order():
    code = "import feedamp.lake.flatten, sys; print(*(m.__file__ for m in list(sys.modules.values()) if m.__name__.startswith('feedamp')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    package = Path(feedamp.__file__).parent
    for file in map(Path, loaded.split()):
        name = file.relative_to(package)
        is_hashed = not SOURCES.isdisjoint(map(str, (name, *name.parents)))
        assert is_hashed or file.name in ("__init__.py", "made_by.py"), name


def test_code_that_is_replaced_while_it_runs_is_not_named_as_what_replaced_it(tmp_path: Path):
    shutil.copytree(Path(feedamp.__file__).parent, tmp_path / "feedamp")
    code = f"""
from pathlib import Path
from feedamp.lake import flatten, made_by, privacy
from feedamp.models import Order
hashes = [made_by.made_by.__wrapped__()]
for source in (Path(flatten.__file__), Path(privacy.__file__)):
    assert source.is_relative_to({str(tmp_path)!r})
    source.write_text(source.read_text() + "# another build")
    hashes.append(made_by.made_by.__wrapped__())
[row] = flatten.order_rows("S1", Order(mp_order_number="M-1"), read_at=None)["orders"]
assert len(set(hashes)) == 3 and row["made_by"] == hashes[0]
"""
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, check=True)


def test_a_row_that_was_read_says_what_code_made_it():
    [read] = rows_of("orders", DONE)
    [placed] = placed_rows("S1", order(), placed_at=READ_AT)["orders"]
    assert read["made_by"] == made_by()
    assert len(made_by() or "") == 16
    assert placed.get("made_by") is None
    [repaired] = order_rows("S1", order(), read_at=READ_AT, is_repair=True)["orders"]
    assert repaired.get("made_by") is None
