"""An installation with something on each page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from console import BAD_NUMBER, SELLER, Console
from env import shipment
from order_samples import example_order

from crashes.fixtures import run_whole
from feedamp.run import Run

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
        "postal_code": "97299",
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
    "97299",
    "Montescue",
    "Gwendolyn",
    "Ashgrove",
)


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
