"""Repairs while others work, and repairs that were cut off: nothing newer is overwritten, nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from env import OTHER, SELLER, Env, open_env, shipment
from other_leases import held_elsewhere, leave_lease, use_quick_leases

from feedamp.errors import BusyError, TransientError
from feedamp.run import Run
from feedamp.steps.reconcile_orders.reconcile import reconcile
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.session import Session

DAY = (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))

CLOSE = f"close/{SELLER}"

pytestmark = pytest.mark.warehouse_file


class Interrupted:
    """A warehouse that calls a function before it is opened the second time, when FeedAMP has been read."""

    def __init__(self, inner: Warehouse, meanwhile: Callable[[], object]) -> None:
        self._inner = inner
        self.lock_wait_s = inner.lock_wait_s
        self._meanwhile = meanwhile
        self._opened = 0

    @contextmanager
    def session(self, *, wait_s: float | None = None) -> Iterator[Session]:
        self._opened += 1
        if self._opened == 2:
            self._meanwhile()
        with self._inner.session() as session:
            yield session


def repair(env: Env, *, run: Run | None = None, meanwhile: Callable[[], object] | None = None) -> StepResult:
    """The step on both sellers; `meanwhile` happens between reading FeedAMP and comparing."""
    resources = env.resources
    if meanwhile:
        resources = replace(resources, warehouse=Interrupted(resources.warehouse, meanwhile))
    run = run or env.run("reconcile_orders")
    return asyncio.run(reconcile(resources, run, 0, [SELLER, OTHER], *DAY, with_stale=False, repair=True))


def repair_twice_at_once(env: Env) -> None:
    async def both() -> None:
        path = str(env.folder / "warehouse.duckdb")
        resources = replace(env.resources, warehouse=DuckDbWarehouse(path, lock_wait_s=10.0))
        runs = [env.run("reconcile_orders") for _ in range(2)]
        sellers = [SELLER, OTHER]
        await asyncio.gather(
            *(reconcile(resources, run, 0, sellers, *DAY, with_stale=False, repair=True) for run in runs)
        )

    asyncio.run(both())


def lose(env: Env, number: str) -> None:
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders._sorted[SELLER].remove(orders._by_number[SELLER].pop(number))


def cancel_there(env: Env, number: str) -> None:
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, number).marketplace_state = "CANCELLED"


@pytest.fixture
def agreed(env: Env) -> Iterator[Env]:
    """M-1 and M-2 are open, and all three agree on them."""
    env.placed("M-1", "M-2")
    env.read()
    yield env
    assert env.sandbox.broken_rules == []


def test_an_order_that_moves_while_it_is_compared_is_left_to_the_next_run(agreed: Env) -> None:
    lose(agreed, "M-1")
    cancel_there(agreed, "M-2")

    def meanwhile() -> None:
        with agreed.state.begin() as connection:
            connection.exec_driver_sql("UPDATE orders SET reason = 'x' WHERE mp_order_number = 'M-1'")

    result = repair(agreed, meanwhile=meanwhile)
    assert result.last_lines[-1].endswith("1 order not compared, 1 of them because they changed meanwhile")
    assert "M-1" not in agreed.sandbox.orders(SELLER)
    assert (agreed.order("M-1").phase, agreed.order("M-2").phase) == ("settled", "closed")
    agreed.load()
    assert repair(agreed).extra == {
        "differences": 1,
        "sent": 1,
        "repaired": 1,
        "left": 0,
        "not_extracted_yet": 0,
    }
    assert "M-1" in agreed.sandbox.orders(SELLER)


def test_a_warehouse_that_is_newer_than_the_read_is_right(agreed: Env) -> None:
    def meanwhile() -> None:
        agreed.fulfill("M-1", shipment(2))
        agreed.read()

    assert repair(agreed, meanwhile=meanwhile).extra["differences"] == 0
    agreed.load()
    assert agreed.rows("SELECT units_shipped FROM orders WHERE mp_order_number = 'M-1'") == [(2,)]


def test_a_list_that_lags_reopens_nothing(agreed: Env) -> None:
    """An order that the list returned as open is final when it is read alone."""
    agreed.fulfill("M-1", shipment(2))
    agreed.loop()
    order = agreed.sandbox._order(SELLER, "M-1")
    order.marketplace_state = "AWAITING_SHIPMENT"

    def meanwhile() -> None:
        order.marketplace_state = "SHIPPED"

    assert repair(agreed, meanwhile=meanwhile).extra["differences"] == 0
    assert agreed.order("M-1").phase == "closed"


def test_an_order_that_close_works_on_is_left_to_close(agreed: Env) -> None:
    cancel_there(agreed, "M-1")
    lose(agreed, "M-2")
    use_quick_leases(agreed.state)
    with held_elsewhere(agreed.state, f"{CLOSE}/M-1", f"{CLOSE}/M-2"):
        found = repair(agreed).extra
    assert found == {
        "differences": 3,
        "repaired": 1,
        "left": 2,
        "not_extracted_yet": 0,
    }  # the warehouse's status
    assert (agreed.order("M-1").phase, agreed.order("M-2").phase) == ("settled", "settled")
    leave_lease(agreed.state, f"{CLOSE}/M-1")  # its process has died on another machine
    assert repair(agreed).extra == {
        "differences": 3,
        "sent": 1,
        "repaired": 3,
        "left": 0,
        "not_extracted_yet": 0,
    }
    assert agreed.order("M-1").phase == "closed"
    assert "M-2" in agreed.sandbox.orders(SELLER)


def test_two_repairs_at_once_do_what_one_does(agreed: Env) -> None:
    lose(agreed, "M-1")
    cancel_there(agreed, "M-2")

    repair_twice_at_once(agreed)
    agreed.load()
    assert sorted(agreed.sandbox.orders(SELLER)) == ["M-1", "M-2"]
    assert (agreed.order("M-1").phase, agreed.order("M-2").phase) == ("settled", "closed")
    assert repair(agreed).extra["differences"] == 0


def test_two_repairs_together_keep_to_the_rate_of_a_seller(tmp_path: Path) -> None:
    # The burst is for a busy machine; without any pace it would be spent by one of the two.
    with open_env(tmp_path, requests_per_second=2.0, burst=5) as env:
        allowed = replace(env.resources.connection(""), requests_per_second=2.0)
        env.resources = replace(env.resources, connection=lambda conn_id: allowed)
        env.placed("M-1", "M-2", "M-3", "M-4")
        env.placed("M-5", seller=OTHER)
        env.read()
        for number in ("M-1", "M-2", "M-3"):
            lose(env, number)
        repair_twice_at_once(env)
        assert sorted(env.sandbox.orders(SELLER)) == ["M-1", "M-2", "M-3", "M-4"]
        assert env.sandbox.broken_rules == []


def test_a_retry_of_a_whole_try_doubles_nothing(agreed: Env) -> None:
    lose(agreed, "M-1")
    cancel_there(agreed, "M-2")
    run = agreed.run("reconcile_orders")
    repair(agreed, run=run)
    before = agreed.shown("M-1")
    repair(agreed, run=replace(run, try_number=2))
    agreed.load()
    rows = agreed.rows(
        "SELECT mp_order_number, field, repaired_at IS NOT NULL FROM reconciliations ORDER BY ALL"
    )
    assert rows == [
        ("M-1", "order", True),
        ("M-2", "marketplace_state", True),
        ("M-2", "status", True),
    ]
    assert agreed.shown("M-1") == before


def test_a_retry_finishes_what_a_cut_try_has_begun(agreed: Env) -> None:
    """The order is `to_place` in the ledger when the first try ends."""
    lose(agreed, "M-1")
    run = agreed.run("reconcile_orders")
    agreed.sandbox.fault("reset_before", method="PUT", times=None)
    with pytest.raises(TransientError):
        finish(repair(agreed, run=run))
    assert agreed.order("M-1").phase == "to_place"
    agreed.sandbox.clear_faults()
    agreed.clock.skip(hours=1)
    repair(agreed, run=replace(run, try_number=2))
    agreed.load()
    assert agreed.rows("SELECT field, repaired_at IS NOT NULL FROM reconciliations") == [("order", True)]
    assert agreed.order("M-1").phase == "settled"


def test_one_failing_seller_does_not_keep_another_from_being_repaired(agreed: Env) -> None:
    agreed.placed("M-3", seller=OTHER)
    agreed.read()
    lose(agreed, "M-1")
    agreed.fulfill("M-3", shipment(2), seller=OTHER)
    agreed.sandbox._order(OTHER, "M-3").seller_updated_at = None  # an update that no extraction would bring
    agreed.sandbox.fault("error_503", seller_id=SELLER, times=None)
    result = repair(agreed)
    assert result.failed_sellers == {SELLER}
    assert result.extra["repaired"] == result.extra["differences"] > 0


def test_a_held_warehouse_is_named_and_comes_to_nothing(agreed: Env) -> None:
    lose(agreed, "M-1")
    ledger = agreed.order("M-1")
    with agreed.resources.warehouse.session(), pytest.raises(BusyError):
        repair(agreed)

    async def stale() -> StepResult:
        run = agreed.run("reconcile_orders")
        return await reconcile(agreed.resources, run, 0, [SELLER], None, None, with_stale=True, repair=True)

    agreed.clock.skip(days=8)
    with agreed.resources.warehouse.session():
        result = asyncio.run(stale())
    with pytest.raises(TransientError, match="is being loaded by process"):
        finish(result)
    assert agreed.order("M-1") == ledger
