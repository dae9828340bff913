"""What a reconciliation says about each day and seller, in the state and in the warehouse."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from env import OTHER, SELLER, Env, shipment

from crashes.fixtures import run_shard
from feedamp.rules.reconciled_days import ALL_SELLERS, CheckedDay, Counts
from feedamp.state import page_lists, reconciliation_days, schema, sellers, step_runs
from feedamp.state.page_lists import Part
from feedamp.state.retention import drop_old
from feedamp.state.schema import reconciliation_differences
from feedamp.steps.reconcile_orders import seller_comparison
from feedamp.steps.reconcile_orders.planned_days import run_counts
from feedamp.steps.reconcile_orders.reconcile import plan_reconcile

FIRST, SECOND = date(2026, 3, 2), date(2026, 3, 3)
START, END = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 4, tzinfo=UTC)
CLEAN = (1, {}, 0, 0, 0)


@pytest.fixture
def two_days(env: Env) -> Env:
    """One order of one seller on the first day, one of each seller on the second."""
    env.drop("1.jsonl", env.body("M-1"), env.body("M-2", purchase_date="2026-03-03T23:59:59Z"))
    env.drop("2.jsonl", env.body("O-2", purchase_date="2026-03-03T00:00:00Z"), seller=OTHER)
    env.intake()
    env.place()
    env.read()
    return env


def in_state(env: Env) -> dict[tuple[date, str], tuple[int, dict[str, int], int, int, int]]:
    """(compared, differences, repaired, remaining, unread) by day and seller."""
    with env.state.read() as connection:
        found = list(reconciliation_days.between(connection, date(2000, 1, 1), date(2100, 1, 1)))
    return {
        (day.day, day.seller_id): (c.compared, dict(c.found), c.repaired.total(), c.remaining, c.unread)
        for day in found
        for c in [day.counts]
    }


def in_warehouse(env: Env) -> dict[tuple[date, str], tuple[int, dict[str, int], int, int, int]]:
    env.load()
    rows = env.rows(
        "SELECT day, seller_id, compared, differences, repaired, remaining, unread FROM reconciliation_days"
    )
    return {(row[0], row[1]): (row[2], json.loads(row[3]), *row[4:]) for row in rows}


def lose(env: Env, number: str, seller: str = SELLER) -> None:
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders._sorted[seller].remove(orders._by_number[seller].pop(number))


def test_one_run_over_a_range_has_a_row_for_each_day_and_seller(two_days: Env) -> None:
    two_days.reconcile(START, END)
    rows = {(FIRST, SELLER): CLEAN, (SECOND, SELLER): CLEAN, (SECOND, OTHER): CLEAN}
    assert in_warehouse(two_days) == rows
    covered = {(day, ALL_SELLERS): (0, {}, 0, 0, 0) for day in (FIRST, SECOND)}
    assert in_state(two_days) == rows | covered


def test_a_day_without_orders_is_loaded_without_warehouse_and_arrow(two_days: Env) -> None:
    nobody_bought = datetime(2026, 2, 1, tzinfo=UTC)
    run = two_days.run("reconcile")
    shards = plan_reconcile(
        two_days.resources, run, nobody_bought, nobody_bought + timedelta(days=1), [], with_stale=False
    )
    assert shards == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)  # an import raises ImportError
        patch.setattr(two_days.resources.warehouse, "session", None)
        assert set(two_days.load().values()) == {0}
        assert run_counts(two_days.resources, run, []).planned == 0
    assert in_state(two_days) == {(nobody_bought.date(), ALL_SELLERS): (0, {}, 0, 0, 0)}


@pytest.mark.merges_at_once
def test_a_day_with_orders_is_planned_without_arrow(two_days: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow imports pandas as soon as it converts a value; that takes longer than the rest of `plan`."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    run = two_days.run("reconcile")
    assert plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    assert (SECOND, OTHER) in in_state(two_days)


def test_a_difference_has_day_kind_and_moment(two_days: Env) -> None:
    lose(two_days, "M-2")
    two_days.reconcile(START, END)
    assert in_warehouse(two_days)[SECOND, SELLER] == (1, {"order": 1}, 0, 0, 0)
    [(day, kind, found_at)] = two_days.rows("SELECT day, kind, found_at FROM reconciliations")
    assert (day, kind) == (SECOND, "order")
    assert timedelta(0) <= two_days.state.now() - found_at < timedelta(minutes=5)


COLUMNS = "seller_id, mp_order_number, field, kind, ledger_value, feedamp_value, warehouse_value"
LOST = ("order", "order", "present", "missing", "present")


def kept(env: Env) -> list[tuple[Any, ...]]:
    """What the page lists of both days: `COLUMNS` and whether it is repaired."""
    with env.state.read() as connection:
        return [
            (*(item[name] for name in COLUMNS.split(", ")), item["repaired_at"] is not None)
            for day in (FIRST, SECOND)
            for item in page_lists.list_differences(
                connection, Part(), day=day, seller_id=None, checked_since=START
            ).items
        ]


def of_view(env: Env) -> list[tuple[Any, ...]]:
    """The same from the warehouse."""
    env.load()
    order = "ORDER BY day, seller_id, mp_order_number, field"
    return env.rows(f"SELECT {COLUMNS}, repaired_at IS NOT NULL FROM current_differences {order}")


def statements(env: Env, found: list[str]) -> None:
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.extend([statement] if "reconciliation_differences" in statement else [])

    sa.event.listen(env.state.engine, "before_cursor_execute", note)


def test_the_state_has_the_differences_of_the_newest_comparison_only(two_days: Env) -> None:
    with_differences: list[str] = []
    statements(two_days, with_differences)
    two_days.reconcile(START, END)
    assert [text[:6] for text in with_differences] == ["SELECT"] * 2  # with what is read of the days anyway
    lose(two_days, "M-1")
    lose(two_days, "O-2", OTHER)
    two_days.reconcile(START, END)
    lost = [(SELLER, "M-1", *LOST, False), (OTHER, "O-2", *LOST, False)]
    assert kept(two_days) == of_view(two_days) == lost
    two_days.reconcile(START, END, repair=True)
    assert kept(two_days) == of_view(two_days) == [(*row[:-1], True) for row in lost]
    two_days.reconcile(START, END)
    assert kept(two_days) == of_view(two_days) == []
    with two_days.state.read() as connection:
        assert connection.execute(sa.select(reconciliation_differences)).all() == []


def test_a_difference_that_a_later_try_does_not_find_is_gone(two_days: Env) -> None:
    lose(two_days, "M-1")
    run = two_days.run("reconcile")
    given = {"start": START, "end": END, "with_stale": False}
    plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    shard = [SELLER]
    for repair, expected in ((False, [False]), (True, [True]), (False, [True])):
        run_shard(two_days.resources, "reconcile", run, shard, **given, repair=repair)
        assert [row[-1] for row in kept(two_days)] == expected
    assert kept(two_days) == of_view(two_days)


def test_a_run_that_is_done_again_says_only_what_it_finds_now(two_days: Env) -> None:
    """As a backfill does with a day that has a run: the id is the same. A later try of a task plans nothing."""
    lose(two_days, "M-1")
    lose(two_days, "O-2", OTHER)
    run = two_days.run("reconcile")
    given = {"start": START, "end": END, "with_stale": False, "repair": True}
    for lost, expected in (None, [("M-1", True), ("O-2", True)]), ("O-2", [("O-2", True)]):
        two_days.clock.skip(minutes=1)
        if lost:
            lose(two_days, lost, OTHER)
        plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
        for _ in range(2):
            two_days.clock.skip(minutes=1)
            run_shard(two_days.resources, "reconcile", run, [SELLER, OTHER], **given)
            assert [(row[1], row[-1]) for row in kept(two_days)] == expected
            assert of_view(two_days) == kept(two_days)
            repaired = sum(row[2] for row in in_state(two_days).values())
            assert repaired == len(expected)
    with two_days.state.read() as connection:
        assert len(connection.execute(sa.select(reconciliation_differences)).all()) == 1


def test_a_comparison_that_began_earlier_leaves_those_of_the_newer_one(two_days: Env) -> None:
    lose(two_days, "M-1")
    two_days.reconcile(START, END)
    found = kept(two_days)
    assert found
    for moment, left in ((START, 1), (two_days.state.now(), 0)):
        with two_days.state.begin() as connection:
            reconciliation_days.drop_differences(connection, "another", SELLER, [FIRST], checked_at=moment)
        assert len(kept(two_days)) == left


def test_more_differences_than_are_kept_are_counted(two_days: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seller_comparison, "DIFFERENCES_KEPT", 2)
    two_days.placed("M-3", "M-4")
    two_days.load()
    for number in ("M-1", "M-3", "M-4"):
        lose(two_days, number)
    two_days.reconcile(START, END, repair=True)
    assert [(row[1], row[-1]) for row in kept(two_days)] == [("M-1", True), ("M-3", True)]
    assert in_state(two_days)[FIRST, SELLER][1:3] == ({"order": 3}, 3)


def test_an_order_that_is_placed_again_counts_as_repaired(two_days: Env) -> None:
    lose(two_days, "M-1")
    two_days.reconcile(START, END, repair=True)
    assert in_warehouse(two_days)[FIRST, SELLER] == (1, {"order": 1}, 1, 0, 0)
    [(found_at, repaired_at)] = two_days.rows("SELECT found_at, repaired_at FROM reconciliations")
    assert found_at <= repaired_at
    current = "SELECT day, mp_order_number, field, kind FROM current_differences"
    assert two_days.rows(current) == [(FIRST, "M-1", "order", "order")]
    two_days.reconcile(START, END)
    assert in_warehouse(two_days)[FIRST, SELLER] == CLEAN
    assert two_days.rows(current) == []


def outage(env: Env) -> None:
    env.sandbox.fault("error_503", seller_id=SELLER, times=None)


def misshapen(env: Env) -> None:
    env.sandbox.fault("misshapen_order", seller_id=SELLER, times=None)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(outage, (0, {}, 0, 1, 0), id="the seller fails"),
        pytest.param(misshapen, (0, {}, 0, 0, 1), id="the order cannot be read"),
    ],
)
def test_what_was_not_compared_is_said_of_its_day(
    two_days: Env, spoil: Callable[[Env], None], expected: Any
) -> None:
    spoil(two_days)
    two_days.reconcile(START, END)
    rows = in_state(two_days)
    assert (rows[FIRST, SELLER], rows[SECOND, OTHER]) == (expected, CLEAN)
    assert in_warehouse(two_days)[FIRST, SELLER] == expected


def test_what_was_read_before_the_seller_failed_is_compared(two_days: Env) -> None:
    two_days.placed(*(f"H-{n:02}" for n in range(59)))
    # It changes nothing, so the first list is answered.
    two_days.sandbox.fault("clock_apart", seller_id=SELLER, path="^/orders$", seconds=0.0)
    two_days.sandbox.fault("error_503", seller_id=SELLER, times=None)
    two_days.reconcile(START, END)
    of_seller = [row for (_, seller), row in in_state(two_days).items() if seller == SELLER]
    assert [sum(row[place] for row in of_seller) for place in (0, 3)] == [50, 11]


def test_a_task_that_never_started_leaves_no_clean_day(two_days: Env) -> None:
    run = two_days.run("reconcile_orders")
    plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    assert in_warehouse(two_days)[SECOND, OTHER] == (0, {}, 0, 1, 0)


def test_sellers_that_are_asked_for_have_rows_without_orders(two_days: Env) -> None:
    run = two_days.run("reconcile_orders")
    plan_reconcile(two_days.resources, run, START, END, [OTHER], with_stale=False)
    assert in_state(two_days) == {(FIRST, OTHER): (0, {}, 0, 0, 0), (SECOND, OTHER): (0, {}, 0, 1, 0)}


@pytest.mark.parametrize("is_planned", [False, True])
def test_a_seller_whose_only_order_of_a_day_is_gone_has_nothing_left_there(
    two_days: Env, is_planned: bool
) -> None:
    """Also if it goes between `plan` and `reconcile`."""
    two_days.sandbox.world.orders.add(OTHER, two_days.body("F-1"), two_days.clock.now())
    two_days.sandbox.world.orders._by_number[OTHER]["F-1"].seller_updated_at = two_days.clock.now()
    two_days.read()
    lose(two_days, "F-1", OTHER)
    two_days.reconcile(START, END)
    assert in_warehouse(two_days)[FIRST, OTHER] == (1, {"order": 1}, 0, 0, 0)
    two_days.clock.skip(hours=1)
    run = two_days.run("reconcile_orders")
    if is_planned:
        plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    two_days.change("DELETE FROM feedamp.orders WHERE mp_order_number = 'F-1'")
    if not is_planned:
        plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    run_shard(two_days.resources, "reconcile", run, [SELLER, OTHER], start=START, end=END, with_stale=False)
    gone = (0, {}, 0, 0, 0)
    assert in_state(two_days)[FIRST, OTHER] == in_warehouse(two_days)[FIRST, OTHER] == gone
    assert in_state(two_days)[FIRST, SELLER] == CLEAN
    assert two_days.rows("SELECT mp_order_number FROM current_differences") == []


def test_orders_that_came_after_the_comparison_are_not_compared(two_days: Env) -> None:
    two_days.reconcile(START, END)
    with two_days.state.begin() as connection:
        assert list(reconciliation_days.not_compared(connection, FIRST, SECOND)) == []
        sellers.pause(connection, OTHER, paused=True, now=two_days.state.now())
    two_days.clock.skip(minutes=5)
    two_days.placed("LATE", purchase_date="2026-03-03T23:58:00Z")
    two_days.deliver("WAITS", seller=OTHER, purchase_date="2026-03-02T00:00:00Z")
    two_days.place()
    with two_days.state.read() as connection:
        found = list(reconciliation_days.not_compared(connection, FIRST, SECOND))
        assert list(reconciliation_days.not_compared(connection, FIRST, FIRST)) == found[:1]
    assert found == [(FIRST, OTHER, 1), (SECOND, SELLER, 1)]


def test_a_plan_says_which_days_and_sellers_it_leaves_out(
    two_days: Env, caplog: pytest.LogCaptureFixture
) -> None:
    with two_days.state.begin() as connection:
        sellers.pause(connection, OTHER, paused=True, now=two_days.state.now())
    caplog.set_level("INFO")
    run, month = two_days.run("reconcile_orders"), timedelta(days=30)
    plan_reconcile(two_days.resources, run, START - month, START + month, [], with_stale=False)
    for expected in (
        "2026-03-11 to 2026-03-31 lie in the future",
        "2026-01-31 to 2026-03-01 are before the first order",
        f"1 seller with orders of these days left out, paused or without a grant: {OTHER}",
    ):
        assert expected in caplog.text


def test_days_in_the_future_are_not_said_to_be_checked(two_days: Env) -> None:
    today = two_days.state.now().date()
    days = datetime(today.year, today.month, today.day, tzinfo=UTC)
    two_days.reconcile(days + timedelta(days=1), days + timedelta(days=3))
    assert in_state(two_days) == {}


def test_a_dry_run_says_nothing_about_its_days(two_days: Env) -> None:
    assert two_days.reconcile(START, END, dry_run=True).orders == 3
    assert in_state(two_days) == {}


def test_a_second_try_keeps_what_the_first_one_repaired(two_days: Env) -> None:
    lose(two_days, "M-1")
    run = two_days.run("reconcile_orders")
    task = {"start": START, "end": END, "with_stale": False, "repair": True}
    plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    for _ in range(2):
        run_shard(two_days.resources, "reconcile", run, [SELLER, OTHER], **task)
        assert in_warehouse(two_days)[FIRST, SELLER] == (1, {"order": 1}, 1, 0, 0)
        found = run_counts(two_days.resources, run, {0})
        assert (found.compared, found.differences.total(), found.left.total()) == (3, 1, 0)
    assert run_counts(two_days.resources, run, {1}).compared == 0


def test_a_try_that_does_not_end_adds_nothing_to_the_sums(two_days: Env, caplog: Any) -> None:
    lose(two_days, "M-1")
    run = two_days.run("reconcile_orders")
    task = {"start": START, "end": END, "with_stale": False, "repair": True}
    plan_reconcile(two_days.resources, run, START, END, [], with_stale=False)
    run_shard(two_days.resources, "reconcile", run, [SELLER, OTHER], **task)
    assert run_counts(two_days.resources, run, {0}).compared == 3
    with two_days.state.begin() as connection:
        step_runs.begin_try(connection, run.key, "reconcile", 0)
    assert run_counts(two_days.resources, run, {0}).compared == 0
    assert "without what did not end: reconcile, shard 0" in caplog.text


def test_a_comparison_that_began_earlier_never_replaces_a_newer_one(two_days: Env) -> None:
    now = two_days.state.now()
    newer, older = (
        CheckedDay(FIRST, SELLER, run_id, now - age, Counts(planned=1, compared=compared))
        for run_id, age, compared in (("b", timedelta(0), 1), ("a", timedelta(hours=1), 0))
    )
    for checked in (newer, older):
        with two_days.state.begin() as connection:
            reconciliation_days.write(connection, [checked], now=two_days.state.now())
    assert in_state(two_days)[FIRST, SELLER] == in_warehouse(two_days)[FIRST, SELLER] == CLEAN


def test_an_order_that_the_warehouse_has_on_another_day_belongs_to_the_ledgers(two_days: Env) -> None:
    two_days.change(
        "UPDATE feedamp.orders SET purchase_date = '2026-03-03 10:00:00+00' WHERE mp_order_number = 'M-1'"
    )
    assert two_days.reconcile(START + timedelta(days=1), END).orders == 2
    two_days.reconcile(START, END)
    assert in_state(two_days)[FIRST, SELLER][0] == 1


def test_an_order_that_is_open_too_long_does_not_change_its_day(two_days: Env) -> None:
    two_days.reconcile(START, END)
    before = in_state(two_days)
    two_days.fulfill("M-1", shipment(1))
    two_days.clock.skip(days=30)
    later = END + timedelta(days=20)
    assert two_days.reconcile(later, later + timedelta(days=1), with_stale=True).orders == 3
    assert {key: row for key, row in in_state(two_days).items() if key in before} == before
    two_days.load()
    assert set(two_days.rows("SELECT day FROM reconciliations")) == {(FIRST,)}


def test_the_state_forgets_what_was_compared_400_days_ago(two_days: Env) -> None:
    lose(two_days, "M-1")
    two_days.reconcile(START, END)
    for days, rows in ((399, 5), (2, 0)):
        two_days.clock.skip(days=days)
        with two_days.state.begin() as connection:
            drop_old(connection, schema.reconciliation_days, now=two_days.state.now(), limit=100)
            gone = drop_old(connection, reconciliation_differences, now=two_days.state.now(), limit=100)
            assert gone == (not rows)
        assert len(in_state(two_days)) == rows
    assert len(in_warehouse(two_days)) == 3
