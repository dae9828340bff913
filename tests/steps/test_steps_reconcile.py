"""One day of orders compared in ledger, FeedAMP and warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from env import OTHER, SELLER, Env, shipment

from feedamp.api.rate_limit import SPACING
from feedamp.state import watermarks
from feedamp.steps.reconcile_orders.reconcile import plan_reconcile
from feedamp.steps.step_end import finish
from feedamp.steps.step_result import StepResult

DAY = datetime(2026, 3, 2, tzinfo=UTC)
NEXT_DAY = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture
def agreed(env: Env) -> Iterator[Env]:
    """M-1 of March 2nd is the same in all three places."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    env.read()
    yield env
    assert env.sandbox.broken_rules == []


def change_ledger(env: Env) -> None:
    with env.state.begin() as connection:
        connection.exec_driver_sql("UPDATE orders SET accepted_state = 'PENDING'")


def change_feedamp(env: Env) -> None:
    """Without an update of the seller, so that no extraction brings it."""
    env.fulfill("M-1", shipment(2))
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").seller_updated_at = None


def move_at_feedamp(env: Env) -> None:
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").body["purchase_date"] = "2026-03-03T00:00:00Z"


def change_warehouse(env: Env) -> None:
    env.change("UPDATE feedamp.order_lines SET units_shipped = 0")


def lose_from_warehouse(env: Env) -> None:
    env.change("DELETE FROM feedamp.orders; DELETE FROM feedamp.order_lines")


def lose_from_feedamp(env: Env) -> None:
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders._sorted[SELLER].remove(orders._by_number[SELLER].pop("M-1"))


SHIPPED = "order_lines[M-1-1].units_shipped"


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        pytest.param(lambda env: None, [], id="all three agree"),
        pytest.param(
            change_ledger,
            [("marketplace_state", "PENDING", "AWAITING_SHIPMENT", "AWAITING_SHIPMENT")],
            id="the ledger differs",
        ),
        pytest.param(
            change_feedamp,
            [
                ("order_lines[M-1-1].shipments[0].quantity", None, "2", "1"),
                (SHIPPED, None, "2", "1"),
                ("status", None, "FULFILLED", "IN_PROGRESS"),
            ],
            id="FeedAMP differs",
        ),
        pytest.param(
            move_at_feedamp,
            [("purchase_date", "2026-03-02", "2026-03-03", "2026-03-02")],
            id="FeedAMP has it on another day",
        ),
        pytest.param(change_warehouse, [(SHIPPED, None, "1", "0")], id="the warehouse differs"),
        pytest.param(
            lose_from_warehouse, [("order", "present", "present", "missing")], id="the warehouse lost it"
        ),
        pytest.param(
            lose_from_feedamp, [("order", "present", "missing", "present")], id="FeedAMP does not know it"
        ),
    ],
)
def test_a_planted_difference_is_found(agreed: Env, plant: Any, expected: list[tuple[Any, ...]]) -> None:
    plant(agreed)
    result = agreed.reconcile()
    agreed.load()
    found = agreed.rows(
        "SELECT field, ledger_value, feedamp_value, warehouse_value FROM reconciliations ORDER BY field"
    )
    assert found == expected
    assert result.extra["differences"] == len(expected)


def test_a_difference_is_a_finding_not_a_failure(agreed: Env) -> None:
    change_ledger(agreed)
    assert finish(agreed.reconcile())["differences"] == 1


def test_two_runs_on_a_quiet_day_write_nothing_new(agreed: Env) -> None:
    before = agreed.order("M-1")
    agreed.reconcile()
    agreed.reconcile()
    agreed.load()
    assert agreed.rows("FROM reconciliations") == []
    assert agreed.order("M-1") == before


@pytest.mark.parametrize(
    ("purchased", "taken"),
    [
        pytest.param("2026-03-02T00:00:00Z", True, id="the first second of the day"),
        pytest.param("2026-03-02T23:59:59Z", True, id="the last second of the day"),
        pytest.param("2026-03-03T00:00:00Z", False, id="the first second of the next day"),
        pytest.param("2026-03-01T23:59:59Z", False, id="the last second of the day before"),
    ],
)
def test_an_order_belongs_to_the_utc_day_of_its_purchase(env: Env, purchased: str, taken: bool) -> None:
    env.placed("M-1", purchase_date=purchased)
    assert env.reconcile(DAY, NEXT_DAY, dry_run=True).orders == int(taken)


def test_scheduled_runs_add_orders_that_are_open_too_long(env: Env) -> None:
    env.placed("M-1", purchase_date="2026-01-01T00:00:00Z")
    assert env.reconcile(with_stale=True, dry_run=True).orders == 0
    env.clock.skip(days=8)
    assert env.reconcile(with_stale=True, dry_run=True).orders == 1
    assert env.reconcile(with_stale=False, dry_run=True).orders == 0


def test_an_order_that_was_never_placed_is_nothing_to_reconcile(env: Env) -> None:
    env.deliver("M-1")
    assert env.reconcile().orders == 0


def test_no_watermark_moves_and_nothing_is_written_to_feedamp(agreed: Env) -> None:
    mark, before = agreed.watermark(), len(agreed.asked("PUT"))
    change_feedamp(agreed)
    agreed.reconcile()
    agreed.load()
    assert agreed.watermark() == mark
    assert (len(agreed.asked("PUT")), len(agreed.asked("POST", "/errors"))) == (before, 0)


def test_one_sellers_outage_does_not_delay_another(agreed: Env) -> None:
    agreed.placed("M-2", seller=OTHER)
    agreed.sandbox.fault("error_503", seller_id=SELLER, times=None)
    result = agreed.reconcile()
    agreed.load()
    assert result.failed_sellers == {SELLER}
    assert agreed.rows("SELECT complete, sellers_failed FROM runs WHERE step = 'reconcile'") == [(False, 1)]


def test_an_unreadable_order_is_counted_not_compared(agreed: Env) -> None:
    agreed.sandbox.fault("misshapen_order", times=None)
    result = agreed.reconcile()
    assert (result.orders_unread, result.extra["differences"]) == (1, 0)


@pytest.mark.warehouse_file
def test_a_dry_run_creates_no_warehouse(agreed: Env) -> None:
    file = agreed.folder / "warehouse.duckdb"
    file.unlink()
    assert agreed.reconcile(dry_run=True).orders == 1
    assert not file.exists()


def test_a_dry_run_asks_and_writes_nothing(agreed: Env) -> None:
    change_feedamp(agreed)
    before = len(agreed.sandbox.requests)
    assert agreed.reconcile(dry_run=True).orders == 1
    agreed.load()
    assert len(agreed.sandbox.requests) == before
    assert agreed.rows("FROM reconciliations") == []


def test_the_plan_of_a_dry_run_tells_orders_requests_and_minutes(env: Env, caplog: Any) -> None:
    env.placed(*(f"M-{n}" for n in range(51)))
    env.placed("M-51", seller=OTHER)
    env.stock(1)  # of another system: only the warehouse knows it
    env.read()
    caplog.set_level("INFO")
    [shard] = plan_reconcile(env.resources, env.run("r", dry_run=True), DAY, NEXT_DAY, [], with_stale=False)
    per_request = SPACING / env.resources.connection("feedamp_default").requests_per_second / 60
    assert shard["expected"] == {"orders": 53, "requests": 3, "minutes": round(2 * per_request, 2)}
    assert [record.message.partition(", at least")[0] for record in caplog.records[-3:]] == [
        f"Seller {SELLER}: 52 orders, 2 requests",
        f"Seller {OTHER}: 1 order, 1 request",
        "All sellers: 53 orders, 3 requests",
    ]


# Orders that their sellers have changed since the last extraction


def ship_the_rest(env: Env) -> None:
    env.clock.skip(minutes=5)
    env.fulfill("M-1", shipment(2))
    env.clock.skip(minutes=5)


def counted(result: StepResult) -> tuple[int, int]:
    return result.extra["differences"], result.extra["not_extracted_yet"]


def test_what_the_next_extraction_brings_is_no_difference(agreed: Env) -> None:
    ship_the_rest(agreed)
    result = agreed.reconcile()
    agreed.load()
    assert (counted(result), finish(result)["not_extracted_yet"]) == ((0, 1), 1)
    assert result.last_lines == [
        "1 order compared, 0 differences, 0 repaired, 0 left, 1 order not extracted yet"
    ]
    recorded = "SELECT kind, field, ledger_value, repaired_at IS NULL FROM reconciliations"
    assert agreed.rows(recorded) == [("not_extracted_yet", "snapshot", None, True)]
    agreed.read()
    assert counted(agreed.reconcile()) == (0, 0)


def test_a_repair_brings_it_at_once_and_counts_no_difference(agreed: Env) -> None:
    ship_the_rest(agreed)
    assert counted(agreed.reconcile(repair=True)) == (0, 1)
    agreed.load()
    assert agreed.rows("SELECT kind, repaired_at IS NULL FROM reconciliations") == [
        ("not_extracted_yet", False)
    ]
    assert agreed.rows("SELECT status, units_shipped FROM orders") == [("FULFILLED", 2)]
    assert counted(agreed.reconcile()) == (0, 0)


def test_an_update_that_an_extraction_has_lost_is_a_difference(agreed: Env) -> None:
    ship_the_rest(agreed)
    order = agreed.sandbox._order(SELLER, "M-1")
    updated_at, order.seller_updated_at = order.seller_updated_at, None
    agreed.read()  # complete, and begun after the update, which the list did not show
    order.seller_updated_at = updated_at
    agreed.clock.skip(minutes=5)
    assert counted(agreed.reconcile()) == (3, 0)


def test_an_extraction_that_was_not_complete_has_lost_nothing(agreed: Env) -> None:
    ship_the_rest(agreed)
    agreed.sandbox.fault("error_503", path="/orders", times=None)
    agreed.read()
    agreed.sandbox.clear_faults()
    agreed.clock.skip(minutes=5)
    assert counted(agreed.reconcile()) == (0, 1)


def test_what_no_extraction_has_ever_read_is_not_extracted_yet(env: Env) -> None:
    env.placed("M-1")
    env.load()
    env.fulfill("M-1", shipment(1))
    assert counted(env.reconcile()) == (0, 1)


def test_an_order_in_which_the_ledger_is_wrong_as_well_is_compared_as_ever(agreed: Env) -> None:
    ship_the_rest(agreed)
    change_ledger(agreed)
    assert counted(agreed.reconcile()) == (4, 0)


def test_a_row_that_was_changed_after_it_was_extracted_is_a_difference(agreed: Env) -> None:
    ship_the_rest(agreed)
    agreed.read()
    change_warehouse(agreed)
    with agreed.state.begin() as connection:  # as if that extraction had not been complete
        connection.exec_driver_sql("UPDATE watermarks SET watermark = '2026-03-10 12:00:00'")
    assert counted(agreed.reconcile()) == (1, 0)


def test_what_is_extracted_and_waits_to_be_loaded_is_no_difference(agreed: Env) -> None:
    ship_the_rest(agreed)
    agreed.extract()
    agreed.see("M-1")
    with (
        agreed.state.begin() as connection
    ):  # its manifest is taken into the state, and the warehouse is held by another
        connection.exec_driver_sql("UPDATE manifests SET taken_at = planned_at")
        watermarks.move(connection, SELLER, agreed.state.now(), now=agreed.state.now())
    agreed.clock.skip(minutes=5)
    assert counted(agreed.reconcile()) == (0, 1)
    agreed.load()
    assert counted(agreed.reconcile()) == (0, 0)


def test_an_undecodable_snapshot_costs_no_other_order_its_comparison(env: Env) -> None:
    env.placed("M-1", "M-2")
    env.read()
    env.clock.skip(minutes=5)
    for number in ("M-1", "M-2"):
        env.fulfill(number, shipment(2))
    env.extract()
    with env.state.begin() as connection:
        connection.exec_driver_sql("UPDATE manifests SET taken_at = planned_at")
        connection.exec_driver_sql("UPDATE snapshots SET snapshot = '{' WHERE mp_order_number = 'M-1'")
    result = env.reconcile()
    assert result.undone == []
    assert result.extra["not_extracted_yet"] + result.extra["differences"] >= 2


def test_many_orders_are_asked_about_in_one_request(env: Env) -> None:
    env.placed(*(f"M-{number}" for number in range(20)))
    env.read()
    env.clock.skip(minutes=5)
    for number in range(20):
        env.fulfill(f"M-{number}", shipment(1))
    before = len(env.asked("GET"))
    assert counted(env.reconcile()) == (0, 20)
    asked = env.asked("GET")[before:]
    assert ["seller_updated_after" in request.query for request in asked] == [False, True]


def test_only_a_reconciliation_gives_way_to_other_requests(agreed: Env) -> None:
    def history_at() -> Any:
        with agreed.state.read() as connection:
            return connection.exec_driver_sql("SELECT max(history_at) FROM slots").scalar_one()

    agreed.validate()
    agreed.close()
    assert history_at() == pytest.approx(0, abs=1e-3)  # never
    agreed.reconcile(repair=True)
    assert history_at() == pytest.approx(agreed.clock.now().timestamp(), abs=3600)
