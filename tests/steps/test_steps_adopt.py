"""Adopting orders that another system placed: found, validated, and closed once their body was delivered."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from env import BAD_NUMBER, OTHER, SELLER, Env, shipment

from crashes.clock import NOON
from feedamp.errors import BusyError
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.rules.order import AWAITING_SHIPMENT
from feedamp.state import action_required, ledger, overview
from feedamp.steps import adopt as _adopt
from feedamp.steps.step_result import StepResult

SINCE = NOON - timedelta(days=60)
BODY_MISSING = "the order's body was never delivered here: deliver it to the inbox as it was placed"


def hold(
    env: Env,
    number: str,
    *,
    seller: str = SELLER,
    imported_at: datetime = NOON - timedelta(days=30),
    touched_at: datetime | None = None,
    by_marketplace: bool = False,
    **changes: Any,
) -> None:
    """FeedAMP holds an order that some other system placed; its seller has not touched it unless said."""
    world = env.sandbox.world
    with world.lock:
        order = world.orders.add(seller, env.body(number, **changes), imported_at)
        order.seller_updated_at, order.by_hand = touched_at, True
        order.is_marketplace_fulfilled = by_marketplace


def adopt(
    env: Env, *sellers: str, since: datetime = SINCE, dry_run: bool = False, load: bool = True
) -> StepResult:
    run = env.run("adopt", dry_run=dry_run)
    result = asyncio.run(_adopt.adopt(env.resources, run, list(sellers), since=since))
    if load and not dry_run:
        env.load()
    return result


def counts(result: StepResult) -> tuple[int, ...]:
    return tuple(result.extra[name] for name in _adopt.COUNTED)


def waits_for(env: Env, number: str) -> tuple[str | None, bool]:
    held = env.held(number)
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
def test_orders_imported_or_changed_since_are_found(env, imported_at, touched_at, is_found):
    hold(env, "X-1", imported_at=imported_at, touched_at=touched_at)
    assert counts(adopt(env)) == (int(is_found), 0, 0, 0)
    assert env.rows("SELECT mp_order_number FROM orders") == ([("X-1",)] if is_found else [])


def test_an_order_that_both_filters_bring_counts_once(env):
    hold(env, "X-1", touched_at=NOON - timedelta(days=1))
    assert counts(adopt(env, dry_run=True)) == (1, 0, 0, 0)
    assert counts(adopt(env)) == (1, 0, 0, 0)


@pytest.mark.parametrize("count", [0, 1, 50, 51])
def test_every_order_of_every_page_is_adopted(env, count):
    for number in range(count):
        hold(env, f"X-{number}")
    assert counts(adopt(env)) == (count, 0, 0, 0)
    assert env.rows("SELECT count(*), count(placed_at) FROM orders") == [(count, 0)]


class Dying(Lake):
    """A lake whose process dies at its second publication."""

    published = 0

    def publish(self, manifest: Manifest) -> None:
        self.published += 1
        if self.published == 2:
            raise KeyboardInterrupt
        super().publish(manifest)


def test_a_process_that_dies_leaves_no_order_that_only_the_ledger_knows(env):
    for number in range(_adopt.ORDERS_PER_BATCH + 100):
        hold(env, f"X-{number}")
    lake = env.resources.lake
    env.resources = replace(env.resources, lake=Dying(lake.root))
    with pytest.raises(KeyboardInterrupt):
        adopt(env, SELLER, load=False)
    env.resources = replace(env.resources, lake=lake)
    env.load()
    with env.state.read() as connection:
        in_ledger = sum(overview.count_by_phase(connection).values())
    assert env.rows("SELECT count(*) FROM orders") == [(in_ledger,)]
    assert 0 < in_ledger < _adopt.ORDERS_PER_BATCH + 100
    adopt(env, SELLER)
    assert env.rows("SELECT count(*) FROM orders") == [(_adopt.ORDERS_PER_BATCH + 100,)]


def test_a_dry_run_counts_and_writes_nothing(env):
    hold(env, "X-1")
    before = list(env.folder.glob("lake/**/*"))
    assert counts(adopt(env, dry_run=True)) == (1, 0, 0, 0)
    assert list(env.folder.glob("lake/**/*")) == before
    with env.state.read() as connection:
        assert overview.count_by_phase(connection) == {}
        assert overview.on_the_way(connection) == {"manifests": 0, "outbox_rows": 0}


def test_adopting_again_changes_nothing(env):
    hold(env, "X-1")
    adopt(env)
    before = env.order("X-1")
    assert counts(adopt(env)) == (0, 0, 1, 0)
    assert env.order("X-1") == before


def test_an_order_of_ours_stays_as_it_is(env):
    env.placed("M-1")
    before = env.order("M-1")
    assert counts(adopt(env)) == (0, 0, 1, 0)
    assert env.order("M-1") == before


def test_adopting_sends_nothing_and_moves_no_watermark(env):
    hold(env, "X-1")
    adopt(env)
    assert env.asked("PUT") == env.asked("POST", "/errors") == []
    assert env.watermark() is None


def test_an_extraction_since_a_moment_adopts_nothing(env):
    hold(env, "X-1", touched_at=NOON)
    env.extract(since=SINCE)
    env.load()
    with env.state.read() as connection:
        assert overview.count_by_phase(connection) == {}
    assert env.rows("SELECT count(*) FROM orders") == [(1,)]


def test_only_the_sellers_that_are_named_are_read(env):
    hold(env, "X-1")
    hold(env, "X-2", seller=OTHER)
    adopt(env, OTHER)
    assert env.order("X-2", OTHER).adopted_at is not None
    with pytest.raises(KeyError):
        env.order("X-1")


def test_one_failing_seller_does_not_stop_another(env):
    hold(env, "X-1")
    hold(env, "X-2", seller=OTHER)
    env.sandbox.fault("error_500", path="/orders", seller_id=SELLER, times=None)
    result = adopt(env)
    assert result.failed_sellers == {SELLER}
    assert len(result.undone) == 1
    assert env.order("X-2", OTHER).adopted_at is not None


def test_findings_of_an_adopted_order_are_reported_like_the_rest(env):
    hold(env, "X-1")
    adopt(env)
    env.fulfill("X-1", shipment(number=BAD_NUMBER))
    env.read()
    env.process()
    assert env.finding_states("X-1") == [("invalid_tracking", "reported")]
    assert waits_for(env, "X-1") == (BODY_MISSING, True)


def test_it_waits_for_its_body_and_a_person_is_told(env):
    hold(env, "X-1")
    adopt(env)
    env.fulfill("X-1", shipment())
    env.read()
    env.process()
    assert waits_for(env, "X-1") == (BODY_MISSING, True)
    assert env.asked("PUT") == []
    with env.state.read() as connection:
        stuck = action_required.stuck_orders(connection, lingering_since=NOON - timedelta(days=3), limit=5)
    assert [item["reason"] for item in stuck.items] == [BODY_MISSING]


def test_once_its_body_was_delivered_it_is_closed_like_any_other(env):
    hold(env, "X-1")
    adopt(env)
    env.fulfill("X-1", shipment())
    env.read()
    env.process()
    env.deliver("X-1")
    env.place()
    assert env.asked("PUT") == []  # FeedAMP has it in this state already
    env.process()
    env.load()
    assert env.shown("X-1")["marketplace_state"] == "SHIPPED"
    assert env.sandbox.broken_rules == []
    assert env.rows("SELECT marketplace_state, units_shipped FROM closures") == [("SHIPPED", 2)]
    assert env.rows("SELECT marketplace_state, placed_at, closed_at IS NOT NULL FROM orders") == [
        ("SHIPPED", None, True)
    ]


def test_a_body_delivered_before_the_seller_is_done_is_kept_until_then(env):
    hold(env, "X-1")
    adopt(env)
    env.process()
    env.deliver("X-1")
    env.process()
    assert waits_for(env, "X-1") == ("units do not add up yet", False)
    env.fulfill("X-1", cancelled=2)
    env.read()
    env.process()
    assert env.shown("X-1")["marketplace_state"] == "CANCELLED"
    assert env.sandbox.broken_rules == []


def test_a_body_that_contradicts_feedamp_is_rejected_and_the_order_waits(env):
    hold(env, "X-1")
    adopt(env)
    env.process()
    env.deliver("X-1", units=3)
    [rejected] = env.rejects()
    assert [(r["field"], r["code"]) for r in rejected.reasons] == [
        ("order_lines[0].quantity", "body_changed")
    ]
    env.process()
    assert waits_for(env, "X-1") == (BODY_MISSING, True)
    env.deliver("X-1")
    assert env.rejects() == []
    assert env.order("X-1").has_body


def test_a_pending_one_is_released_with_the_delivered_body(env):
    hold(env, "X-1", marketplace_state="PENDING")
    adopt(env)
    env.deliver("X-1")
    env.place()
    assert env.shown("X-1")["marketplace_state"] == "AWAITING_SHIPMENT"
    assert env.sandbox.broken_rules == []
    assert env.order("X-1").phase == "settled"


def test_a_state_that_its_own_system_sets_is_followed_until_the_body_is_here(env):
    hold(env, "X-1", marketplace_state="PENDING")
    adopt(env)
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "X-1").marketplace_state = "AWAITING_SHIPMENT"
    env.see("X-1")
    env.process()
    assert env.order("X-1").accepted_state == AWAITING_SHIPMENT
    env.deliver("X-1")
    env.place()
    assert env.asked("PUT") == []


def test_one_that_the_marketplace_ships_itself_is_never_closed(env):
    hold(env, "X-1", by_marketplace=True)
    adopt(env)
    env.fulfill("X-1", shipment())
    env.deliver("X-1")
    env.read()
    env.process()
    assert waits_for(env, "X-1") == ("the marketplace ships this order itself", False)
    assert env.asked("PUT") == []


def test_an_order_closed_before_adoption_stays_closed_and_is_never_placed(env):
    hold(env, "X-1")
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "X-1").marketplace_state = "SHIPPED"
    assert counts(adopt(env)) == (0, 1, 0, 0)
    assert env.order("X-1").phase == "closed"
    env.deliver("X-1")
    env.place()
    assert env.asked("PUT") == []
    assert env.reject_codes() == [("inbox", "illegal_transition")]


def test_its_own_system_may_close_it(env):
    hold(env, "X-1")
    adopt(env)
    env.fulfill("X-1", shipment())
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "X-1").marketplace_state = "SHIPPED"
    env.read()
    env.process()
    order = env.order("X-1")
    assert (order.phase, order.reason, order.closed_at) == ("closed", "closed elsewhere", None)
    assert order.ended_at is not None


def test_reconciliation_compares_it_on_the_day_of_its_purchase(env):
    hold(env, "X-1")
    adopt(env)
    result = env.reconcile()
    assert (result.orders, result.extra["differences"]) == (1, 0)


def test_days_that_it_is_open_count_from_its_adoption(env):
    hold(env, "X-1")
    adopt(env)
    with env.state.read() as connection:
        assert ledger.open_longer_than(connection, NOON, [SELLER]) == {}
        assert ledger.open_longer_than(connection, NOON + timedelta(hours=1), [SELLER]) == {SELLER: ["X-1"]}


def test_a_busy_warehouse_loses_nothing(env):
    hold(env, "X-1")
    adopt(env, load=False)
    with env.resources.warehouse.session(), pytest.raises(BusyError):
        env.load()
    assert env.order("X-1").adopted_at is not None
    env.load()
    assert env.rows("SELECT count(*) FROM orders") == [(1,)]


def test_an_order_without_quantities_goes_to_the_lake_alone_and_is_named(env):
    hold(env, "X-1")
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "X-1").body["order_lines"][0]["quantity"] = 0
    result = adopt(env)
    assert counts(result) == (0, 0, 0, 1)
    assert re.search(r"\b1 order cannot be adopted: .*; first: X-1$", result.notes[0])
    assert env.rows("SELECT count(*) FROM orders") == [(1,)]
