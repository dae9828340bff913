"""A small soak passes, and the comparison at its end detects every kind of loss.

`python tools/soak` plays large ones.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest

from crashes.clock import NOON
from crashes.fixtures import Fixtures
from soak.chain import Memory
from soak.comparing import Evidence, compare
from soak.play import Outcome, soak
from soak.reading import state_rows, warehouse_rows
from soak.report import as_json, as_markdown, verdict
from soak.sandbox_process import Broken, CancelledOverShipment, SandboxLog
from soak.settings import Settings
from soak.traffic import Delivered, Traffic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
IN_MEMORY = Path("/dev/shm")  # Linux
WAREHOUSE, STATE = "warehouse.duckdb", "state.db"


@pytest.fixture(scope="module")
def played() -> Iterator[Outcome]:
    with TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        settings = Settings(
            Path(folder), minutes=0.1, sellers=3, orders=280, seed=3, is_fast=True, min_period_s=0.8
        )
        yield soak(settings, print)


def test_a_small_soak_with_all_its_trouble_is_right(played: Outcome) -> None:
    assert verdict(played) == [], as_markdown(played)
    assert played.counts["orders delivered"] == 280
    assert played.counts["bad rows"] > 0
    assert played.counts["of them while the seller shipped"] > 0
    assert '"is_right": true' in as_json(played)


@pytest.mark.parametrize(
    ("file", "damage", "kind"),
    [
        pytest.param(
            WAREHOUSE,
            "DELETE FROM feedamp.orders WHERE mp_order_number = 'SOAK-00007'",
            "warehouse orders: missing",
            id="an order",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.orders SET units_shipped = units_shipped + 1 WHERE mp_order_number = 'SOAK-00007'",
            "warehouse orders: units_shipped",
            id="units of an order",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.orders SET placed_at = NULL WHERE mp_order_number = 'SOAK-00007'",
            "warehouse orders: placed_at",
            id="the moment an order was placed",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.orders SET marketplace_state = 'PENDING' WHERE mp_order_number = 'SOAK-00007'",
            "warehouse orders: marketplace_state",
            id="the state of an order",
        ),
        pytest.param(
            WAREHOUSE,
            "INSERT INTO feedamp.orders SELECT * FROM feedamp.orders LIMIT 1",
            "warehouse orders: a key twice",
            id="an order that is there twice",
        ),
        pytest.param(
            WAREHOUSE,
            "DELETE FROM feedamp.order_lines WHERE mp_order_number = 'SOAK-00007'",
            "warehouse order_lines: missing",
            id="a line",
        ),
        pytest.param(
            WAREHOUSE,
            "DELETE FROM feedamp.shipments WHERE mp_order_number = "
            "(SELECT min(mp_order_number) FROM feedamp.shipments)",
            "warehouse shipments: missing",
            id="a shipment",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.shipments SET tracking_number = 'X' WHERE mp_order_number = "
            "(SELECT min(mp_order_number) FROM feedamp.shipments)",
            "warehouse shipments: tracking_number",
            id="a tracking number",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.cancellations SET reason = 'x' WHERE mp_order_number = "
            "(SELECT min(mp_order_number) FROM feedamp.cancellations)",
            "warehouse cancellations: reason",
            id="the reason of a cancellation",
        ),
        pytest.param(
            WAREHOUSE,
            "DELETE FROM feedamp.placements WHERE mp_order_number = 'SOAK-00007'",
            "warehouse placements: missing",
            id="a placement",
        ),
        pytest.param(
            WAREHOUSE,
            "DELETE FROM feedamp.closures WHERE mp_order_number = "
            "(SELECT min(mp_order_number) FROM feedamp.closures)",
            "a final state without placement or closure",
            id="a closure",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.closures SET units_shipped = units_shipped + 1 WHERE mp_order_number = "
            "(SELECT min(mp_order_number) FROM feedamp.closures)",
            "warehouse closures: units",
            id="the units of a closure",
        ),
        pytest.param(
            WAREHOUSE,
            "DELETE FROM feedamp.rejected_orders",
            "warehouse rejected_orders: missing",
            id="a rejected row",
        ),
        pytest.param(
            WAREHOUSE,
            "UPDATE feedamp.findings SET state = 'reported', resolved_at = NULL WHERE finding_id = "
            "(SELECT min(finding_id) FROM feedamp.findings WHERE state = 'resolved')",
            "warehouse findings: state",
            id="the end of a finding",
        ),
        pytest.param(
            STATE,
            "DELETE FROM orders WHERE mp_order_number = 'SOAK-00007'",
            "delivered, but neither in the ledger nor rejected",
            id="an order of the ledger",
        ),
        pytest.param(
            STATE,
            "UPDATE orders SET accepted_state = 'PENDING' WHERE mp_order_number = 'SOAK-00007'",
            "state of ledger and FeedAMP",
            id="a state of the ledger",
        ),
        pytest.param(
            STATE,
            "UPDATE orders SET phase = 'to_place', reason = NULL WHERE mp_order_number = 'SOAK-00007'",
            "waits without a reason or a next try",
            id="the reason why an order waits",
        ),
        pytest.param(
            STATE,
            "DELETE FROM rejected_orders",
            "a bad row is not rejected once",
            id="a reject of the state",
        ),
    ],
)
def test_what_is_lost_or_changed_is_found(
    played: Outcome, tmp_path: Path, file: str, damage: str, kind: str
) -> None:
    for name in (WAREHOUSE, STATE):
        shutil.copy(played.settings.folder / name, tmp_path)
    if file == STATE:
        with closing(sqlite3.connect(tmp_path / STATE)) as state:
            assert state.execute(damage).rowcount > 0
            state.commit()
    else:
        with duckdb.connect(str(tmp_path / WAREHOUSE)) as warehouse:
            changed = warehouse.execute(damage).fetchone()
            assert changed is not None
            assert changed[0] > 0
    fixtures = Fixtures(tmp_path, "", "", "", "")
    assert kind in compare(
        replace(evidence(played), state=state_rows(fixtures), warehouse=warehouse_rows(fixtures))
    )


def lost_order(seen: Evidence) -> Evidence:
    order = Delivered("seller-001", "SOAK-LOST", {}, ["AWAITING_SHIPMENT"])
    return replace(seen, delivered={**seen.delivered, order.number: order})


def lost_at_feedamp(seen: Evidence) -> Evidence:
    return replace(seen, feedamp={k: v for k, v in seen.feedamp.items() if k[1] != "SOAK-00007"})


def other_units(seen: Evidence) -> Evidence:
    order = seen.delivered["SOAK-00007"]
    lines = {n: (sku, units + 1, *prices) for n, (sku, units, *prices) in order.lines.items()}
    return replace(seen, delivered={**seen.delivered, order.number: replace(order, lines=lines)})


def left_open(seen: Evidence) -> Evidence:
    [key] = [key for key in seen.feedamp if key[1] == "SOAK-00007"]
    held = {**seen.feedamp[key], "marketplace_state": "AWAITING_SHIPMENT", "is_marketplace_fulfilled": False}
    gone = {n: q for n, (_, q, *_) in seen.delivered[key[1]].lines.items()}
    held["fulfillments"] = [
        {"mp_line_number": n, "shipments": [], "cancellations": [{"quantity": q, "reason": "other"}]}
        for n, q in gone.items()
    ]
    return replace(seen, feedamp={**seen.feedamp, key: {**held, "errors": []}})


def left_in(table: str, row: dict[str, Any]) -> Callable[[Evidence], Evidence]:
    return lambda seen: replace(seen, state={**seen.state, table: [*seen.state[table], row]})


NOT_LOADED = {"path": "_manifests/x.json", "loaded_at": None, "is_published": True}


def logged(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda seen: replace(seen, log=replace(seen.log, **changes))


IGNORED = ("retry_after_ignored", 1, "GET /orders for seller-001")
RATE = ("rate_exceeded", 1, "GET /orders")


def too_soon(age_s: float) -> Broken:
    """A request that came so long after a 429."""
    requests = ((0.0, "GET /orders 200"), (age_s, "PUT /orders/M-1 429"))
    return Broken(IGNORED[0], IGNORED[2], NOON, "seller-001", requests, 0.0)


def twice(log: SandboxLog) -> Any:
    return log.reports + log.reports


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        pytest.param(lost_order, "delivered, but neither in the ledger nor rejected", id="an order is lost"),
        pytest.param(lost_at_feedamp, "placed by the ledger, but not at FeedAMP", id="FeedAMP lost one"),
        pytest.param(other_units, "lines as delivered and at FeedAMP", id="other units than delivered"),
        pytest.param(left_open, "all units are in, but the order is open", id="an order is left open"),
        pytest.param(
            left_in("manifests", NOT_LOADED), "a manifest that was never loaded", id="a manifest is left"
        ),
        pytest.param(
            left_in("outbox", {"table_name": "orders"}), "rows left in the outbox", id="a row is left"
        ),
        pytest.param(
            logged(over_shipments=[CancelledOverShipment("SOAK-00007", None, 0)]),
            "CANCELLED was sent over a shipment",
            id="a cancellation over a shipment that was not read",
        ),
        pytest.param(
            logged(over_shipments=[CancelledOverShipment("SOAK-00007", 1.0, 2)]),
            "CANCELLED was sent over a shipment",
            id="a cancellation over a shipment that was read",
        ),
        pytest.param(
            logged(over_shipments=[CancelledOverShipment("SOAK-00007", 1.0, 0)]),
            "no one is told of a cancellation that met a shipment",
            id="a cancellation that met a shipment",
        ),
        pytest.param(
            lambda seen: replace(seen, log=replace(seen.log, reports=twice(seen.log))),
            "an error was reported twice",
            id="a report sent twice",
        ),
        pytest.param(
            logged(broken_rules=[IGNORED], broken=[too_soon(1.6)]),
            "a rule of FeedAMP was broken",
            id="a pause ignored",
        ),
        pytest.param(
            logged(broken_rules=[RATE], broken=[replace(too_soon(0), rule=RATE[0], stall_s=0.1)]),
            "a rule of FeedAMP was broken",
            id="a rate exceeded",
        ),
    ],
)
def test_what_no_database_shows_is_found(
    played: Outcome, change: Callable[[Evidence], Evidence], kind: str
) -> None:
    assert kind in compare(change(evidence(played)))


def test_a_request_that_was_under_way_during_a_429_is_no_difference(played: Outcome) -> None:
    seen = evidence(played)
    changed = replace(seen.log, broken_rules=[IGNORED], broken=[too_soon(0.8)])
    assert compare(replace(seen, log=changed)) == {}


def test_a_rate_that_a_stalled_sandbox_measured_is_no_difference(played: Outcome) -> None:
    seen = evidence(played)
    held_up = replace(too_soon(0), rule=RATE[0], stall_s=0.9)
    changed = replace(seen.log, broken_rules=[RATE], broken=[held_up])
    assert compare(replace(seen, log=changed)) == {}


def test_memory_beyond_what_is_promised_and_memory_that_grows_are_not_right(played: Outcome) -> None:
    much = [*played.figures.memory, Memory("extract", 100, 400, 101)]
    growing = [Memory("place", orders, 200, orders / 10) for orders in range(0, 1_000, 50)]
    figures = replace(played.figures, memory=[*much, *growing])
    problems = verdict(replace(played, figures=figures))
    assert [p for p in problems if p.startswith("extract took 101 MB")]
    assert [p for p in problems if p.startswith("place grew")]


@pytest.mark.parametrize("orders", [1, 2, 7, 249, 250, 251, 499, 500, 501, 1_000, 2_600])
def test_traffic_of_any_size_delivers_each_order(tmp_path: Path, orders: int) -> None:
    settings = Settings(tmp_path, minutes=1, sellers=2, orders=orders)
    traffic = Traffic(
        settings,
        tmp_path / "inbox",
        ["seller-001", "seller-002"],
        now=NOON,
        hold=lambda number: None,
        ship=lambda number: None,
        is_placed=lambda number: True,
    )
    for second in range(200):
        traffic.step(second)
    assert traffic.is_done
    assert sorted(traffic.delivered) == [f"SOAK-{n:05d}" for n in range(1, orders + 1)]


def evidence(played: Outcome) -> Evidence:
    assert played.evidence is not None
    return played.evidence
