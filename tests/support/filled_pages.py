"""An installation with something on each page."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

import duckdb
import sqlalchemy as sa
from console import BAD_NUMBER, SELLER, Console
from env import fulfillments, shipment
from order_samples import example_order

from crashes.fixtures import run_whole
from feedamp.rules.failure_summary import Told
from feedamp.rules.reconciled_days import CheckedDay, Counts
from feedamp.run import Run
from feedamp.state import read_only, reconciliation_days, schema, sellers, step_runs

NEW_SELLER = "seller-003"
# As long as Airflow names a run that new fulfillments started.
ASSET_RUN = "asset_triggered__2026-03-02T04:05:06.789012+00:00_a1B2c3D4"
# What no one but the customer and the seller should know, and what FeedAMP's own words may say of it.
PERSON, SAID = "Xaveria Quillfeather", "Van of Gwendolyn Ashgrove"
PERSONAL = {
    "customer": {"full_name": PERSON, "email": "xaveria@quill.example", "phone": "+1 555 0142 7781"},
    "shipping_address": {
        "full_name": "Household Brackenridge",
        "address1": "77 Gallowglass Lane",
        "city": "Tumbledown",
        "state": "OR",
        "postal_code": "97299-0142",
        "country_code": "USA",
        "phone": "+1 555 0142 7782",
    },
    "delivery_notes": "Ring at Montescue twice",
}
PRIVATE = (
    "Xaveria",
    "Quill",
    "555 0142",
    "Brackenridge",
    "Gallowglass",
    "Tumbledown",
    "97299-0142",  # no shorter number: the digits of a random id may hold five in a row
    "Montescue",
    "Gwendolyn",
    "Ashgrove",
)
# Of these, what words for those who may edit the connection hold.
SAID_TO_EDITORS = ("Xaveria", "Quill", "Gwendolyn", "Ashgrove")


def fill(console: Console) -> None:
    """Orders in each phase, findings, rejected rows and a week of reconciled days."""
    sellers = [seller for seller in console.sandbox.sellers if seller["seller_id"] != NEW_SELLER]
    assert console.import_rows(*sellers).code == 0
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for n in range(60):
        purchased = (today - timedelta(days=n % 6, hours=3)).isoformat().replace("+00:00", "Z")
        console.env.drop(
            f"orders-{n}.jsonl",
            {"seller_id": SELLER, "order": example_order(f"M-{n}", purchase_date=purchased, **PERSONAL)},
        )
    rows = [
        {"seller_id": SELLER, "order": example_order("R-1", quantity=-1, **PERSONAL)},
        {"seller_id": SELLER, "order": example_order("R-2", **PERSONAL) | {PERSON: 1}},
        {"seller_id": SELLER, "order": example_order(f"{PERSON} 12")},
        {"seller_id": "seller-unknown", "order": example_order("R-3", **PERSONAL)},
    ]
    console.env.drop("rejected.jsonl", *rows)
    console.intake()
    console.place()
    console.read()
    for n in range(20):
        console.fulfill(f"M-{n}")
    for n in range(20, 24):
        console.fulfill(f"M-{n}", BAD_NUMBER)
    for n in range(24, 26):
        lines = [
            {
                "mp_line_number": f"M-{n}-1",
                "shipments": [shipment(2, "of no carrier", SAID)],
                "cancellations": [],
            }
        ]
        console.sandbox.set_fulfillments(SELLER, f"M-{n}", lines)
    console.read()
    processing = Run("feedamp_process_fulfillments", ASSET_RUN, datetime.now(UTC))
    for step in ("validate", "close"):
        run_whole(console.resources, step, processing)
    lost = console.sandbox.world.orders
    with console.sandbox.world.lock:
        lost._sorted[SELLER].remove(lost._by_number[SELLER].pop("M-40"))
    for n in (1, 2, 3, 4):
        start = today - timedelta(days=n)
        run = Run("feedamp_reconcile_orders", f"backfill__{start.date()}", datetime.now(UTC))
        run_whole(
            console.resources,
            "reconcile",
            run,
            start=start,
            end=start + timedelta(days=1),
            with_stale=False,
            repair=n != 4,
        )
    console.load()


# Where a word of others can lie, each with one that only it has.
PLANTED = {
    "the seller of a refused row": "Alder Ashgrove",
    "the number of a refused row": "Birch Ashgrove",
    "a field of a refused row": "Cedar Ashgrove",
    "a refused placing": "Elder Ashgrove",
    "a refused closing": "Hazel Ashgrove",
    "a held finding": "Juniper Ashgrove",
    "the line of a finding": "Larch Ashgrove",
    "an order that cannot be read": "Maple Ashgrove",
    "why it cannot be read": "Oakley Ashgrove",
    "the order of a difference": "Poplar Ashgrove",
    "the line of a difference": "Rowan Ashgrove",
    "what the ledger has": "Sallow Ashgrove",
    "what FeedAMP has": "Spruce Ashgrove",
    "what the warehouse has": "Sumac Ashgrove",
    "why everything was stopped": "Tamarind Ashgrove",
    "why accounts are mixed up": "Walnut Ashgrove",
    "what failed": "Willow Ashgrove",
    "an order that is not adoptable": "Yewtree Ashgrove",
    "a line number that is too long": "Zelkova Ashgrove",
}
UNREPEATED = ("a line number that is too long",)  # neither to a viewer nor to an editor


def plant(console: Console) -> str:
    """Puts every word of `PLANTED` where it belongs; returns the day that has differences."""
    word = PLANTED
    console.deliver("a.jsonl", "M-1", "M-2", "M-3")
    order = example_order(word["the number of a refused row"]) | {word["a field of a refused row"]: 1}
    console.env.drop("b.jsonl", {"seller_id": word["the seller of a refused row"], "order": order})
    console.intake()
    console.place()
    [known] = fulfillments("M-1", shipment(1, BAD_NUMBER))
    lines = [known, known | {"mp_line_number": word["the line of a finding"]}]
    console.sandbox.set_fulfillments(SELLER, "M-1", lines)
    console.env.hold(SELLER, word["an order that is not adoptable"])
    with console.sandbox.world.lock:
        held = console.sandbox.world.orders._by_number[SELLER][word["an order that is not adoptable"]]
        held.body["order_lines"][0]["quantity"] = 0
    console.env.hold(SELLER, "H-2")
    with console.sandbox.world.lock:
        line = console.sandbox.world.orders._by_number[SELLER]["H-2"].body["order_lines"][0]
        line["mp_line_number"] = word["a line number that is too long"] + " x" * 100
    console.read()
    console.process()
    now = datetime.now(UTC)
    day = (now - timedelta(days=3)).date()
    difference = {
        "seller_id": SELLER,
        "day": day,
        "run_id": "r",
        "kind": "order_lines[].quantity",
        "ledger_value": word["what the ledger has"],
        "feedamp_value": word["what FeedAMP has"],
        "warehouse_value": word["what the warehouse has"],
        "found_at": now,
        "repaired_at": None,
    }
    found = [
        difference | {"mp_order_number": number, "field": f"order_lines[{line}].quantity"}
        for number, line in (
            (word["the order of a difference"], "1"),
            ("M-1", word["the line of a difference"]),
        )
    ]
    unread = {
        "seller_id": SELLER,
        "mp_order_number": word["an order that cannot be read"],
        "reason": word["why it cannot be read"],
        "since": now - timedelta(days=9),
    }
    refused = {"phase": "held", "reason": f"FeedAMP answered 400: {word['a refused placing']}"}
    unclosed = f"FeedAMP refused to close it: {word['a refused closing']}"
    other = next(s["seller_id"] for s in console.sandbox.sellers if s["seller_id"] != SELLER)
    with console.resources.state.begin() as connection:
        reconciliation_days.keep_differences(connection, found)
        counts = Counts(2, 2, found=Counter({difference["kind"]: 2}))
        reconciliation_days.write(connection, [CheckedDay(day, SELLER, "r", now, counts)], now=now)
        connection.execute(sa.insert(schema.unread_orders), [unread])
        second = schema.orders.c.mp_order_number == "M-2"
        connection.execute(sa.update(schema.orders).where(second).values(refused))
        connection.execute(sa.update(schema.snapshots).values(waits_for=unclosed, needs_person=True))
        connection.execute(
            sa.update(schema.findings).values(
                state="held", severity="error", note=word["a held finding"], message=word["a held finding"]
            )
        )
        sellers.note_mix_up(
            connection, SELLER, other, words=word["why accounts are mixed up"], is_proven=False, now=now
        )
        told = Told(failed=1, error=word["what failed"])
        step_runs.tell(connection, "feedamp_load/r", "load", 0, told, sellers=1, now=now)
        read_only.switch(connection, on=True, now=now, reason=word["why everything was stopped"])
    # What the warehouse lost of a refused row is named by its key.
    with closing(duckdb.connect(str(console.folder / "warehouse.duckdb"))) as warehouse:
        warehouse.execute("DELETE FROM feedamp.rejected_orders")
    return day.isoformat()
