"""Adopting orders that another system placed: found, validated, and closed once their body was delivered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from house import BAD_NUMBER, OTHER, SELLER, House, shipment
from house_rooms import NOON

from feedamp.errors import BusyError
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.rules.order import AWAITING_SHIPMENT
from feedamp.state import ledger, overview
from feedamp.steps import adopt as _adopt
from feedamp.steps.runner import StepResult

SINCE = NOON - timedelta(days=60)
BODY_MISSING = "the order's body was never delivered here: deliver it to the inbox as it was placed"


def hold(
    house: House,
    number: str,
    *,
    seller: str = SELLER,
    imported_at: datetime = NOON - timedelta(days=30),
    touched_at: datetime | None = None,
    by_marketplace: bool = False,
    **changes: Any,
) -> None:
    """FeedAMP holds an order that some other system placed; its seller has not touched it unless said."""
    world = house.sandbox.world
    with world.lock:
        order = world.orders.add(seller, house.body(number, **changes), imported_at)
        order.seller_updated_at, order.by_hand = touched_at, True
        order.is_marketplace_fulfilled = by_marketplace


def adopt(
    house: House, *sellers: str, since: datetime = SINCE, dry_run: bool = False, load: bool = True
) -> StepResult:
    run = house.run("adopt", dry_run=dry_run)
    result = asyncio.run(_adopt.adopt(house.resources, run, list(sellers), since=since))
    if load and not dry_run:
        house.load()
    return result


def counts(result: StepResult) -> tuple[int, ...]:
    return tuple(result.extra[name] for name in _adopt.COUNTED)


def waits_for(house: House, number: str) -> tuple[str | None, bool]:
    held = house.held(number)
    assert held is not None
    return held.waits_for, held.needs_person


@pytest.mark.parametrize(
    ("imported_at", "touched_at", "is_found"),
    [
        pytest.param(SINCE + timedelta(days=1), None, True, id="imported since, never touched by the seller"),
        pytest.param(SINCE, None, True, id="imported at that very moment"),
        pytest.param(
            SINCE - timedelta(days=1), SINCE + timedelta(days=1), True, id="older, but worked on since"
        ),
        pytest.param(SINCE - timedelta(days=1), None, False, id="older and never touched"),
    ],
)
def test_orders_imported_or_changed_since_are_found(house, imported_at, touched_at, is_found):
    hold(house, "X-1", imported_at=imported_at, touched_at=touched_at)
    assert counts(adopt(house)) == (int(is_found), 0, 0, 0)
    assert house.rows("SELECT mp_order_number FROM orders") == ([("X-1",)] if is_found else [])


def test_an_order_that_both_filters_bring_counts_once(house):
    hold(house, "X-1", touched_at=NOON - timedelta(days=1))
    assert counts(adopt(house, dry_run=True)) == (1, 0, 0, 0)
    assert counts(adopt(house)) == (1, 0, 0, 0)


@pytest.mark.parametrize("count", [0, 1, 50, 51])
def test_every_order_of_every_page_is_adopted(house, count):
    for number in range(count):
        hold(house, f"X-{number}")
    assert counts(adopt(house)) == (count, 0, 0, 0)
    assert house.rows("SELECT count(*), count(placed_at) FROM orders") == [(count, 0)]


class Dying(Lake):
    """A lake whose process ends at its second publication."""

    published = 0

    def publish(self, manifest: Manifest) -> None:
        self.published += 1
        if self.published == 2:
            raise KeyboardInterrupt
        super().publish(manifest)


def test_a_process_that_dies_leaves_no_order_that_only_the_ledger_knows(house):
    for number in range(_adopt.ORDERS_PER_PORTION + 100):
        hold(house, f"X-{number}")
    lake = house.resources.lake
    house.resources = replace(house.resources, lake=Dying(lake.root))
    with pytest.raises(KeyboardInterrupt):
        adopt(house, SELLER, load=False)
    house.resources = replace(house.resources, lake=lake)
    house.load()
    with house.state.read() as connection:
        in_ledger = sum(ledger.phases(connection).values())
    assert house.rows("SELECT count(*) FROM orders") == [(in_ledger,)]
    assert 0 < in_ledger < _adopt.ORDERS_PER_PORTION + 100
    adopt(house, SELLER)
    assert house.rows("SELECT count(*) FROM orders") == [(_adopt.ORDERS_PER_PORTION + 100,)]


def test_a_dry_run_counts_and_writes_nothing(house):
    hold(house, "X-1")
    before = list(house.folder.glob("lake/**/*"))
    assert counts(adopt(house, dry_run=True)) == (1, 0, 0, 0)
    assert list(house.folder.glob("lake/**/*")) == before
    with house.state.read() as connection:
        assert ledger.phases(connection) == {}
        assert overview.on_the_way(connection) == {"manifests": 0, "outbox_rows": 0}


def test_adopting_again_changes_nothing(house):
    hold(house, "X-1")
    adopt(house)
    before = house.order("X-1")
    assert counts(adopt(house)) == (0, 0, 1, 0)
    assert house.order("X-1") == before


def test_an_order_of_ours_stays_as_it_is(house):
    house.placed("M-1")
    before = house.order("M-1")
    assert counts(adopt(house)) == (0, 0, 1, 0)
    assert house.order("M-1") == before


def test_adopting_sends_nothing_and_moves_no_watermark(house):
    hold(house, "X-1")
    adopt(house)
    assert house.asked("PUT") == house.asked("POST", "/errors") == []
    assert house.watermark() is None


def test_an_extraction_since_a_moment_adopts_nothing(house):
    hold(house, "X-1", touched_at=NOON)
    house.extract(since=SINCE)
    house.load()
    with house.state.read() as connection:
        assert ledger.phases(connection) == {}
    assert house.rows("SELECT count(*) FROM orders") == [(1,)]


def test_only_the_sellers_that_are_named_are_read(house):
    hold(house, "X-1")
    hold(house, "X-2", seller=OTHER)
    adopt(house, OTHER)
    assert house.order("X-2", OTHER).adopted_at is not None
    with pytest.raises(KeyError):
        house.order("X-1")


def test_one_sellers_trouble_does_not_stop_another(house):
    hold(house, "X-1")
    hold(house, "X-2", seller=OTHER)
    house.sandbox.fault("error_500", path="/orders", seller_id=SELLER, times=None)
    result = adopt(house)
    assert result.failed_sellers == {SELLER}
    assert len(result.undone) == 1
    assert house.order("X-2", OTHER).adopted_at is not None


def test_findings_of_an_adopted_order_are_reported_like_the_rest(house):
    hold(house, "X-1")
    adopt(house)
    house.fulfill("X-1", shipment(number=BAD_NUMBER))
    house.read()
    house.process()
    assert house.finding_states("X-1") == [("invalid_tracking", "reported")]
    assert waits_for(house, "X-1") == (BODY_MISSING, True)


def test_it_waits_for_its_body_and_a_person_is_told(house):
    hold(house, "X-1")
    adopt(house)
    house.fulfill("X-1", shipment())
    house.read()
    house.process()
    assert waits_for(house, "X-1") == (BODY_MISSING, True)
    assert house.asked("PUT") == []
    with house.state.read() as connection:
        stuck = overview.stuck_orders(connection, lingering_since=NOON - timedelta(days=3), limit=5)
    assert [item["reason"] for item in stuck.items] == [BODY_MISSING]


def test_once_its_body_was_delivered_it_is_closed_like_any_other(house):
    hold(house, "X-1")
    adopt(house)
    house.fulfill("X-1", shipment())
    house.read()
    house.process()
    house.deliver("X-1")
    house.place()
    assert house.asked("PUT") == []  # FeedAMP has it in this state already
    house.process()
    house.load()
    assert house.shown("X-1")["marketplace_state"] == "SHIPPED"
    assert house.sandbox.broken_rules == []
    assert house.rows("SELECT marketplace_state, units_shipped FROM closures") == [("SHIPPED", 2)]
    assert house.rows("SELECT marketplace_state, placed_at, closed_at IS NOT NULL FROM orders") == [
        ("SHIPPED", None, True)
    ]


def test_a_body_delivered_before_the_seller_is_done_is_kept_until_then(house):
    hold(house, "X-1")
    adopt(house)
    house.process()
    house.deliver("X-1")
    house.process()
    assert waits_for(house, "X-1") == ("units do not add up yet", False)
    house.fulfill("X-1", cancelled=2)
    house.read()
    house.process()
    assert house.shown("X-1")["marketplace_state"] == "CANCELLED"
    assert house.sandbox.broken_rules == []


def test_a_body_that_contradicts_feedamp_is_rejected_and_the_order_waits(house):
    hold(house, "X-1")
    adopt(house)
    house.process()
    house.deliver("X-1", units=3)
    [rejected] = house.rejects()
    assert [(r["field"], r["code"]) for r in rejected.reasons] == [
        ("order_lines[0].quantity", "body_changed")
    ]
    house.process()
    assert waits_for(house, "X-1") == (BODY_MISSING, True)
    house.deliver("X-1")
    assert house.rejects() == []
    assert house.order("X-1").has_body


def test_a_pending_one_is_released_with_the_delivered_body(house):
    hold(house, "X-1", marketplace_state="PENDING")
    adopt(house)
    house.deliver("X-1")
    house.place()
    assert house.shown("X-1")["marketplace_state"] == "AWAITING_SHIPMENT"
    assert house.sandbox.broken_rules == []
    assert house.order("X-1").phase == "settled"


def test_a_state_that_its_own_system_sets_is_followed_until_the_body_is_here(house):
    hold(house, "X-1", marketplace_state="PENDING")
    adopt(house)
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "X-1").marketplace_state = "AWAITING_SHIPMENT"
    house.see("X-1")
    house.process()
    assert house.order("X-1").accepted_state == AWAITING_SHIPMENT
    house.deliver("X-1")
    house.place()
    assert house.asked("PUT") == []


def test_one_that_the_marketplace_ships_itself_is_never_closed(house):
    hold(house, "X-1", by_marketplace=True)
    adopt(house)
    house.fulfill("X-1", shipment())
    house.deliver("X-1")
    house.read()
    house.process()
    assert waits_for(house, "X-1") == ("the marketplace ships this order itself", False)
    assert house.asked("PUT") == []


def test_one_that_was_closed_before_is_known_as_closed_and_never_placed_anew(house):
    hold(house, "X-1")
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "X-1").marketplace_state = "SHIPPED"
    assert counts(adopt(house)) == (0, 1, 0, 0)
    assert house.order("X-1").phase == "closed"
    house.deliver("X-1")
    house.place()
    assert house.asked("PUT") == []
    assert house.reject_codes() == [("inbox", "illegal_transition")]


def test_its_own_system_may_close_it(house):
    hold(house, "X-1")
    adopt(house)
    house.fulfill("X-1", shipment())
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "X-1").marketplace_state = "SHIPPED"
    house.read()
    house.process()
    order = house.order("X-1")
    assert (order.phase, order.reason, order.closed_at) == ("closed", "closed elsewhere", None)
    assert order.ended_at is not None


def test_reconciliation_compares_it_on_the_day_of_its_purchase(house):
    hold(house, "X-1")
    adopt(house)
    result = house.reconcile()
    assert (result.orders, result.extra["differences"]) == (1, 0)


def test_days_that_it_is_open_count_from_its_adoption(house):
    hold(house, "X-1")
    adopt(house)
    with house.state.read() as connection:
        assert ledger.open_longer_than(connection, NOON, [SELLER]) == {}
        assert ledger.open_longer_than(connection, NOON + timedelta(hours=1), [SELLER]) == {SELLER: ["X-1"]}


def test_a_busy_warehouse_loses_nothing(house):
    hold(house, "X-1")
    adopt(house, load=False)
    with house.resources.warehouse.session(), pytest.raises(BusyError):
        house.load()
    assert house.order("X-1").adopted_at is not None
    house.load()
    assert house.rows("SELECT count(*) FROM orders") == [(1,)]


def test_an_order_without_quantities_goes_to_the_lake_alone_and_is_named(house):
    hold(house, "X-1")
    with house.sandbox.world.lock:
        house.sandbox._order(SELLER, "X-1").body["order_lines"][0]["quantity"] = 0
    result = adopt(house)
    assert counts(result) == (0, 0, 0, 1)
    assert "X-1" in result.notes[0]
    assert house.rows("SELECT count(*) FROM orders") == [(1,)]
