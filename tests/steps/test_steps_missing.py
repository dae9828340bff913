"""An order that FeedAMP does not have is marked, requires action, and is not tried again in every run."""

from __future__ import annotations

import asyncio
import bisect
from datetime import datetime
from typing import Any

import pytest
from env import BAD_NUMBER, SELLER, Env, shipment

from feedamp.rules.closing import MISSING
from feedamp.rules.order import Phase
from feedamp.state import action_required, ledger, overview
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.step_end import finish
from feedamp_sandbox.orders import StoredOrder


def lose(env: Env, number: str = "M-1") -> StoredOrder:
    """FeedAMP loses the order."""
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        order: StoredOrder = orders._by_number[SELLER].pop(number)
        orders._sorted[SELLER].remove(order)
        return order


def bring_back(env: Env, order: StoredOrder) -> None:
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders._by_number[SELLER][order.body["mp_order_number"]] = order
        bisect.insort(orders._sorted[SELLER], order, key=lambda stored: stored.sort_key)


def missing(env: Env) -> list[str]:
    with env.state.read() as connection:
        found = action_required.missing_orders(connection, limit=20)
    return [item["mp_order_number"] for item in found.items]


def waits(env: Env) -> dict[str, int]:
    with env.state.read() as connection:
        settled = overview.count_by_phase(connection).get(Phase.SETTLED, 0)
        return dict(overview.waits_of_settled(connection, settled))


def alone(env: Env) -> int:
    return len(env.asked("GET", "/orders/M-1"))


@pytest.fixture
def closable(env: Env) -> Env:
    """M-1 could be closed."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.read()
    env.validate()
    return env


def test_close_marks_what_feedamp_does_not_have(closable: Env) -> None:
    lose(closable)
    result = closable.close()
    assert finish(result)["notes"] == 1
    assert missing(closable) == ["M-1"]
    assert waits(closable) == {MISSING: 1}


def test_close_tries_a_missing_order_once_a_day_and_says_so(closable: Env) -> None:
    closable.placed("M-2")
    closable.fulfill("M-2", shipment(2))
    closable.see("M-2")
    closable.validate()
    lose(closable)
    closable.close()
    before = len(closable.sandbox.requests)
    assert closable.close().sellers == 0
    assert len(closable.sandbox.requests) == before
    closable.placed("M-3")
    closable.fulfill("M-3", shipment(2))
    closable.see("M-3")
    closable.validate()
    asked = alone(closable)
    result = closable.close()
    assert closable.order("M-3").phase == "closed"
    assert "FeedAMP does not have 1 order that could be closed" in result.notes[0]
    assert alone(closable) == asked
    closable.clock.skip(hours=25)
    closable.close()
    assert alone(closable) == asked + 1


def test_an_order_that_shows_again_is_missing_no_longer_and_closes(closable: Env) -> None:
    order = lose(closable)
    closable.close()
    closable.clock.skip(hours=25)
    closable.read()
    assert missing(closable) == ["M-1"]
    bring_back(closable, order)
    closable.clock.skip(hours=25)
    closable.read()
    assert (missing(closable), closable.order("M-1").read_back_at) == ([], None)
    closable.process()
    assert closable.order("M-1").phase == "closed"


def test_extractions_look_for_a_missing_order_once_a_day(closable: Env) -> None:
    lose(closable)
    closable.close()
    asked = alone(closable)
    for _ in range(4):
        closable.clock.skip(minutes=15)
        closable.read()
    assert alone(closable) == asked
    closable.clock.skip(days=1)
    closable.read()
    assert alone(closable) == asked + 1


def test_a_report_on_an_order_that_feedamp_does_not_have_marks_it(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.read()
    lose(env)
    finish(env.validate())
    assert missing(env) == ["M-1"]
    posts = len(env.asked("POST", "/errors"))
    finish(env.validate())
    assert len(env.asked("POST", "/errors")) == posts
    env.clock.skip(hours=25)
    finish(env.validate())
    assert len(env.asked("POST", "/errors")) == posts + 1


def test_a_cancellation_of_an_order_that_feedamp_does_not_have_is_held(env: Env) -> None:
    env.placed("M-1")
    env.read()
    order = lose(env)
    env.deliver("M-1", marketplace_state="CANCELLED")
    finish(env.place())
    assert (missing(env), env.sandbox.orders(SELLER)) == (["M-1"], {})
    assert "does not have the order" in str(env.order("M-1").reason)
    bring_back(env, order)
    env.clock.skip(hours=25)
    env.read()
    env.process()
    env.place()
    assert (env.order("M-1").phase, env.order("M-1").accepted_state) == ("closed", "CANCELLED")


def test_a_read_back_marks_what_feedamp_lost_right_after_the_change(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.deliver("M-1")
    env.sandbox.fault("error_500", method="GET", path="/orders", times=None)
    env.place()
    env.sandbox.clear_faults()
    lose(env)
    env.read()  # what could not be read back is read by number
    assert missing(env) == ["M-1"]


def test_a_repair_places_a_missing_order_again_and_the_mark_goes(env: Env) -> None:
    env.placed("M-1")
    env.read()
    lose(env)
    env.reconcile()
    assert missing(env) == ["M-1"]
    env.reconcile(repair=True)
    assert (missing(env), env.order("M-1").phase) == ([], "settled")
    assert env.order("M-1").missing_since is None
    assert "M-1" in env.sandbox.orders(SELLER)


def test_a_missing_order_with_work_by_its_seller_stays_marked_after_a_repair(closable: Env) -> None:
    lose(closable)
    closable.reconcile(repair=True)
    assert missing(closable) == ["M-1"]


def test_an_order_that_never_arrived_is_not_missing(env: Env) -> None:
    env.sandbox.fault("reset_before", method="PUT", times=4)
    env.placed("M-1")
    env.reconcile()
    assert (missing(env), env.order("M-1").missing_since) == ([], None)


def test_since_when_it_is_missing_stays_the_first_moment(closable: Env) -> None:
    lose(closable)
    closable.close()
    first: Any = closable.order("M-1").missing_since
    closable.clock.skip(hours=25)
    closable.close()
    assert closable.order("M-1").missing_since == first


def mark_as_asked(env: Env, asked_at: datetime, number: str = "M-1") -> None:
    """What a process stores that got a 404 earlier and writes late."""
    with env.state.begin() as connection:
        ledger.mark_missing(connection, SELLER, number, asked_at=asked_at)


def test_an_old_answer_does_not_mark_what_was_placed_again_since(env: Env) -> None:
    env.placed("M-1")
    env.read()
    lose(env)
    asked_at = env.clock.now()
    env.clock.skip(minutes=5)
    env.reconcile(repair=True)
    assert "M-1" in env.sandbox.orders(SELLER)
    mark_as_asked(env, asked_at)
    assert (missing(env), env.order("M-1").missing_since) == ([], None)
    mark_as_asked(env, env.clock.now())
    assert missing(env) == ["M-1"]


def test_an_old_answer_does_not_mark_what_was_accepted_again_and_not_yet_read(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.read()
    asked_at = env.clock.now()
    env.clock.skip(minutes=5)
    env.deliver("M-1")
    env.sandbox.fault("error_500", method="GET", path="/orders", times=None)
    env.place()
    assert env.order("M-1").accepted_state == "AWAITING_SHIPMENT"
    mark_as_asked(env, asked_at)
    assert missing(env) == []


def test_an_old_answer_does_not_mark_what_was_closed_since(closable: Env) -> None:
    asked_at = closable.clock.now()
    closable.clock.skip(minutes=5)
    closable.close()
    mark_as_asked(closable, asked_at)
    assert closable.order("M-1").missing_since is None


def test_a_repair_of_the_lake_marks_what_feedamp_does_not_have(env: Env) -> None:
    env.placed("M-1")
    lose(env)
    env.load()
    found = asyncio.run(verify(env.resources, env.run("lake"), repair=True))
    assert any("is no longer in the seller's FeedAMP account" in note for note in found.notes)
    assert missing(env) == ["M-1"]
