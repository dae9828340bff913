"""All steps with the state on Postgres: the same env, the same result."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from doc_blocks import blocks
from env import BAD_NUMBER, OTHER, SELLER, open_env, shipment
from postgres import PATIENCE_S

from crashes.fixtures import DAY
from feedamp.api.decoding import read_order
from feedamp.api.json_fields import Coercions
from feedamp.codec import decode_json
from feedamp.rules.closing import REMOVED
from feedamp.state import (
    State,
    action_required,
    ledger,
    order_events,
    overview,
    page_lists,
    read_only,
    reconciliation_days,
    scorecards,
)
from feedamp.state.leases import of_order
from feedamp.state.schema import leases, metadata
from feedamp.steps import depart
from feedamp.steps.place_orders import seller_batch
from feedamp.steps.place_orders.place import place
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.closing_moments import ClosingMoments
from feedamp.steps.step_end import finish

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"


@pytest.mark.parametrize(("step", "ends_as"), [(place, "settled"), (close, "closed")], ids=["place", "close"])
def test_a_seller_of_whom_another_transaction_is_delays_no_other(tmp_path, url, step, ends_as):
    with open_env(tmp_path, state_url=url) as env:
        for seller in (SELLER, OTHER):
            env.placed("M-1", seller=seller)
            env.fulfill("M-1", shipment(2), seller=seller)
            env.see("M-1", seller=seller)
        for seller in (SELLER, OTHER):
            env.deliver("M-2", seller=seller)
        env.validate()
        number = "M-2" if step is place else "M-1"

        def run():
            return asyncio.run(step(env.resources, env.run("process_fulfillments"), 0, [OTHER, SELLER]))

        def wait_until_done():
            give_up_at = time.monotonic() + PATIENCE_S
            while env.order(number).phase != ends_as:
                assert time.monotonic() < give_up_at
                time.sleep(0.02)

        with closing(State(url)) as another, ThreadPoolExecutor(1) as pool:
            with another.begin(of=[OTHER]):
                running = pool.submit(run)
                wait_until_done()
                assert env.order(number, OTHER).phase != ends_as
            assert running.result(timeout=PATIENCE_S).undone == []
        assert env.order(number, OTHER).phase == ends_as


@pytest.mark.parametrize("fault", ["echo_400", "error_500"])
def test_what_fails_of_a_seller_of_whom_another_transaction_is_delays_no_other(tmp_path, url, fault):
    with open_env(tmp_path, state_url=url) as env:
        env.deliver("M-99", seller=OTHER)
        for number in range(12):
            env.deliver(f"M-{number}", seller=SELLER)
        env.sandbox.world.options = replace(env.sandbox.world.options, latency_s=0.3)
        env.sandbox.fault(fault, method="PUT", path="/orders/M-99", times=None)

        def run():
            return asyncio.run(place(env.resources, env.run("place_orders"), 0, [OTHER, SELLER]))

        def wait_until(is_so):
            give_up_at = time.monotonic() + PATIENCE_S
            while not is_so():
                assert time.monotonic() < give_up_at
                time.sleep(0.01)

        with closing(State(url)) as another, ThreadPoolExecutor(1) as pool:
            running = pool.submit(run)
            wait_until(lambda: env.asked("PUT", "/orders/M-99"))
            with another.begin(of=[OTHER]):
                wait_until(lambda: all(env.order(f"M-{n}").phase == "settled" for n in range(12)))
            running.result(timeout=PATIENCE_S)
        assert env.order("M-99", OTHER).reason


@pytest.mark.parametrize("fault", [None, "echo_400"], ids=["it can be cancelled", "it cannot be read"])
def test_a_cancellation_that_waits_for_its_seller_delays_no_other(tmp_path, url, fault, monkeypatch):
    with open_env(tmp_path, state_url=url) as env:
        env.deliver("M-1", seller=OTHER)
        env.deliver("M-1", seller=SELLER)  # so that neither needs a token later
        env.place()
        env.deliver("M-1", seller=OTHER, marketplace_state="CANCELLED")
        env.deliver("M-2", seller=SELLER)
        if fault:
            env.sandbox.fault(fault, method="GET", path="/orders/M-1", times=None)
        read_alone, is_locked = seller_batch.read_alone, threading.Event()
        is_read = threading.Event()

        async def held_up(client, number):
            try:
                return await read_alone(client, number)
            finally:
                is_read.set()
                await asyncio.to_thread(is_locked.wait, PATIENCE_S)

        monkeypatch.setattr(seller_batch, "read_alone", held_up)

        async def place_both():
            is_first = asyncio.create_task(place(env.resources, env.run("place_orders"), 0, [OTHER]))
            await asyncio.to_thread(is_locked.wait, PATIENCE_S)
            await asyncio.sleep(0.1)  # the first one waits for the lock now
            await place(env.resources, env.run("place_orders"), 1, [SELLER])
            return await is_first

        with closing(State(url)) as another, ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: asyncio.run(place_both()))
            assert is_read.wait(PATIENCE_S)
            with another.begin(of=[OTHER]):
                is_locked.set()
                give_up_at = time.monotonic() + PATIENCE_S
                while env.order("M-2").phase != "settled":
                    assert time.monotonic() < give_up_at
                    time.sleep(0.02)
            running.result(timeout=PATIENCE_S)
        order = env.order("M-1", OTHER)
        assert (order.phase, order.accepted_state) == (
            ("held", "AWAITING_SHIPMENT") if fault else ("closed", "CANCELLED")
        )


def test_a_seller_whom_others_use_without_pause_gets_its_turn(tmp_path, url):
    """One of two others always waits for the lock already when it becomes free."""
    with open_env(tmp_path, state_url=url) as env:
        env.deliver("M-1", seller=OTHER)
        ended = threading.Event()

        def use():
            with closing(State(url)) as another:
                while not ended.is_set():
                    with another.begin(of=[OTHER]):
                        ended.wait(0.02)

        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(use) for _ in range(2)]
            try:
                placing = place(env.resources, env.run("place_orders"), 0, [OTHER])
                assert asyncio.run(asyncio.wait_for(placing, PATIENCE_S)).undone == []
            finally:
                ended.set()
            for other in others:
                other.result(timeout=PATIENCE_S)
        assert env.order("M-1", OTHER).phase == "settled"


def test_a_group_that_closes_and_a_heartbeat_never_wait_for_each_other(tmp_path, url):
    """A heartbeat takes the rows of all leases in the order of their names."""
    with open_env(tmp_path, state_url=url) as env:
        env.placed("M-1", "M-2")
        env.fulfill("M-1", cancelled=2)
        env.fulfill("M-2", shipment(2))
        env.see("M-1", "M-2")
        env.validate()
        moments = ClosingMoments(env.resources, env.run("process_fulfillments"))
        names = [of_order("close", SELLER, number) for number in ("M-1", "M-2")]
        are_taken, goes_on = threading.Event(), threading.Event()

        def shown(number):
            return read_order(decode_json(json.dumps(env.shown(number), default=float).encode()), Coercions())

        async def close_one_and_leave_one_open():
            first, second = (
                moments.decided(SELLER, shown(number), env.state.now()) for number in ("M-1", "M-2")
            )
            async with first as left_open, second as closed:
                assert (left_open.state, closed.state) == ("CANCELLED", "SHIPPED")
                env.fulfill("M-1", shipment(1))
                fresh, now = shown("M-1"), env.state.now()
                are_taken.set()
                goes_on.wait(PATIENCE_S)
                await asyncio.gather(
                    moments.decide_again(left_open, fresh, now), moments.closed(closed, sent_at=now)
                )
                assert left_open.state is None

        def row(name):
            return sa.select(leases.c.name).where(leases.c.name == name)

        with ThreadPoolExecutor(1) as pool, env.state.engine.connect() as heartbeat:
            running = pool.submit(lambda: asyncio.run(close_one_and_leave_one_open()))
            assert are_taken.wait(PATIENCE_S)
            heartbeat.execute(row(names[0]).with_for_update()).one()
            goes_on.set()
            give_up_at = time.monotonic() + PATIENCE_S
            while not heartbeat.execute(
                sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            ).scalar_one():
                assert time.monotonic() < give_up_at
                time.sleep(0.02)
            heartbeat.execute(row(names[1]).with_for_update(nowait=True)).one()
            heartbeat.rollback()
            running.result(timeout=PATIENCE_S)
        assert [env.order(number).phase for number in ("M-1", "M-2")] == ["settled", "closed"]


def test_while_the_switch_of_read_only_is_on_or_locked_nothing_is_sent(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env, ThreadPoolExecutor(1) as runs:
        env.deliver("M-1")
        with env.state.begin() as connection:
            read_only.switch(connection, on=True, now=env.state.now())
        assert finish(env.place())["read_only"] is True
        with env.state.begin() as connection:
            connection.execute(sa.text("LOCK TABLE switches IN ACCESS EXCLUSIVE MODE"))
            read_only.switch(connection, on=False, now=env.state.now())
            placing = runs.submit(env.place)
            with pytest.raises(TimeoutError):
                placing.result(0.5)
            assert env.asked("PUT") == []
        assert placing.result(30).orders == 1


def test_missing_and_overtaken_orders_are_told(tmp_path, url):
    with open_env(tmp_path, state_url=url) as env:
        env.placed("M-1", "M-2", "M-3")
        env.fulfill("M-1", shipment(2))
        env.read()
        env.validate()
        with env.sandbox.world.lock:
            orders = env.sandbox.world.orders
            lost = orders._by_number[SELLER].pop("M-1")
            orders._sorted[SELLER].remove(lost)
        env.close()
        env.fulfill("M-2", shipment(1))
        env.placed("M-2", "M-3", marketplace_state="CANCELLED")
        env.fulfill("M-3", shipment(1))
        env.read()
        with env.state.read() as connection:
            lists = (
                action_required.missing_orders,
                action_required.held_orders,
                action_required.cancelled_but_shipped,
            )
            told = [[i["mp_order_number"] for i in some(connection, limit=9).items] for some in lists]
        assert told == [["M-1"], ["M-2"], ["M-3"]]
        env.reconcile()
        with env.state.read() as connection:
            day = DAY[0].date()
            found = [
                (row.seller_id, row.counts.compared)
                for row in reconciliation_days.between(connection, day, day)
            ]
            assert found == [("", 0), (SELLER, 3)]
            assert list(reconciliation_days.not_compared(connection, day, day)) == []
            assert ledger.first_day(connection) == reconciliation_days.first_day(connection) == day
        with env.state.begin() as connection:
            ledger.found_again(connection, SELLER, "M-1")
        assert (env.order("M-1").missing_since, env.order("M-1").read_back_at) == (None, None)
        env.close()
        assert env.order("M-1").missing_since is not None
        depart.remove(env.resources, SELLER)
        with env.state.read() as connection:
            assert overview.waits_of_settled(connection, 1) == [(REMOVED, 1)]


@pytest.fixture
def busy_env(tmp_path):
    """An env on SQLite with rows in every table except those of short-lived state."""
    with open_env(tmp_path) as env:
        env.placed("M-1", "M-2", "M-3", "M-4")
        env.fulfill("M-1", shipment(number=BAD_NUMBER))
        env.fulfill("M-2", shipment(number=None))
        env.fulfill("M-3", shipment())
        env.read()
        env.process()
        env.deliver("M-2", marketplace_state="CANCELLED")
        env.deliver("M-5", order_lines=[])
        env.deliver("M-6")
        env.refresh()
        env.extract()
        yield env


def move_state(old, new, monkeypatch):
    """The runbook's program."""
    [program] = [text for text in blocks(RUNBOOK, "python") if "sorted_tables" in text]
    monkeypatch.setattr(sys, "argv", ["move_state.py", str(old), new])
    found = {}
    exec(program, found)
    for state in (found["old"], found["new"]):
        state.close()


def rows(state):
    """Of every table; marks of commits belong to a server and its processes."""
    tables = [table for table in metadata.sorted_tables if table.name != "commit_marks"]
    with state.read() as connection:
        return {table.name: rows_of(connection, table) for table in tables}


def rows_of(connection, table):
    """Those of the outbox in their order, without the ids, which are given again."""
    found = connection.execute(sa.select(table).order_by(*table.primary_key)).all()
    if table.name == "outbox":
        return [row[1:] for row in found]
    return sorted((tuple(row) for row in found), key=repr)


def answers(state, now):
    """All that `feedamp status` asks."""
    with state.read() as connection:
        return {
            "reasons": sorted(overview.reasons_by_phase(connection), key=repr),
            "waits": sorted(
                overview.waits_of_settled(connection, overview.count_by_phase(connection)["settled"])
            ),
            "waiting": overview.waiting_by_seller(connection),
            "grants": overview.grant_times(connection),
            "watermarks": overview.seller_watermarks(connection),
            "latest": overview.latest(connection),
            "phases": overview.count_by_phase(connection),
            "by grant": overview.count_by_grant(connection),
            "in doubt": overview.in_doubt(connection),
            "to connect": action_required.to_connect(connection, limit=5),
            "oldest watermarks": overview.oldest_watermarks(connection),
            "missing": action_required.missing_orders(connection, limit=5),
            "shipped": action_required.cancelled_but_shipped(connection, limit=5),
            "stages": page_lists.stages(connection),
            "flow": order_events.flow(connection, since=now - timedelta(days=30), by="day"),
            "sellers": [
                page_lists.list_sellers(
                    connection, page_lists.Part(), search="", status=None, sort=name, descending=True
                ).items
                for name in ("seller_id", "open_orders", "findings", "late_orders", "cancel_rate")
            ],
            "figures": scorecards.of_seller(connection, SELLER, 30, now=now),
            "figures read": scorecards.measured_at(connection),
            "on the way": overview.on_the_way(connection),
            "held orders": action_required.held_orders(connection, limit=5),
            **{
                f"held findings, refused: {is_refused}": action_required.held_findings(
                    connection, is_refused=is_refused, limit=5
                )
                for is_refused in (True, False)
            },
            "stuck": action_required.stuck_orders(
                connection, lingering_since=now - timedelta(days=1), limit=5
            ),
            "rejected": action_required.rejected_rows(connection, limit=5),
        }


def test_a_state_that_was_moved_holds_and_answers_the_same_and_goes_on(
    tmp_path, busy_env, url, monkeypatch, capsys
):
    env = busy_env
    before = rows(env.state)
    move_state(env.state.url, url, monkeypatch)
    capsys.readouterr()
    empty = {
        "switches",
        "notices",
        "authorizations",
        "erasures",
        "data_keys",
        "encryption_keys",
        "leases",
        "account_marks",
        "other_grants",
        "reads_left_off",
        "unread_orders",
        "reconciliation_days",
        "reconciliation_differences",
    }
    assert {name for name, found in before.items() if not found} == empty
    with closing(State(url, clock=env.clock.now)) as moved:
        now = env.state.now()
        assert rows(moved) == before
        assert answers(moved, now) == answers(env.state, now)
        env.state = moved
        env.resources = replace(env.resources, state=moved)
        env.loop()
        assert env.phases() == {"settled": 3, "closed": 1, "held": 1}
        assert env.rows("SELECT count(*), count(placed_at), count(closed_at) FROM orders") == [(5, 5, 1)]
