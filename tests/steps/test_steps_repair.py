"""Reconciliation that repairs: each kind of damage alone and all at once, until a second pass finds nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from env import GOOD_NUMBER, OTHER, SELLER, Env, shipment

from feedamp.steps.step_end import finish
from feedamp_sandbox.orders import StoredOrder


def of_feedamp(env: Env, number: str, seller: str = SELLER) -> StoredOrder:
    """The order itself, to be changed unseen: no update of the seller, so no extraction brings it."""
    with env.sandbox.world.lock:
        return env.sandbox._order(seller, number)


def lose(env: Env, *numbers: str, seller: str = SELLER) -> None:
    """FeedAMP loses orders."""
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        for number in numbers:
            orders._sorted[seller].remove(orders._by_number[seller].pop(number))


def in_ledger(env: Env, statement: str) -> None:
    with env.state.begin() as connection:
        connection.exec_driver_sql(statement)


def in_warehouse(env: Env, *statements: str) -> None:
    for statement in statements:
        env.change(statement)


def differences(env: Env) -> list[tuple[Any, ...]]:
    return env.rows(
        "SELECT mp_order_number, field, repaired_at IS NOT NULL FROM reconciliations ORDER BY ALL"
    )


@pytest.fixture
def agreed(env: Env) -> Iterator[Env]:
    """OPEN is new, PART is half shipped, DONE is closed; all three agree on them."""
    env.placed("OPEN", "PART", "DONE")
    env.fulfill("PART", shipment(1))
    env.fulfill("DONE", shipment(2))
    env.read()
    env.process()
    env.load()
    yield env
    assert env.sandbox.broken_rules == []


def lose_open(env: Env) -> None:
    lose(env, "OPEN")


@pytest.mark.parametrize("becomes", ["sent", "refused"])
def test_an_order_that_a_repair_sends_is_counted_once(agreed: Env, becomes: str) -> None:
    lose_open(agreed)
    if becomes == "refused":
        agreed.sandbox.fault("echo_400", method="PUT")
    result = agreed.reconcile(repair=True)
    assert (result.orders, result.rejected, result.extra[becomes]) == (3, 0, 1)


def close_there(env: Env) -> None:
    of_feedamp(env, "OPEN").marketplace_state = "CANCELLED"


def open_there(env: Env) -> None:
    of_feedamp(env, "DONE").marketplace_state = "AWAITING_SHIPMENT"


def withdraw_release(env: Env) -> None:
    of_feedamp(env, "OPEN").marketplace_state = "PENDING"


def change_unseen(env: Env) -> None:
    order = of_feedamp(env, "PART")
    order.fulfillments[0]["shipments"] = [shipment(1, "1Z999AA10123456776")]
    order.fulfillments[0]["cancellations"] = [{"quantity": 1, "reason": "damaged"}]


def forget_state(env: Env) -> None:
    in_ledger(
        env,
        "UPDATE orders SET accepted_state = 'PENDING', desired_state = 'PENDING' WHERE phase = 'settled'",
    )


def forget_closing(env: Env) -> None:
    in_ledger(
        env,
        "UPDATE orders SET phase = 'settled', accepted_state = 'AWAITING_SHIPMENT', closed_at = NULL, "
        "desired_state = 'AWAITING_SHIPMENT' WHERE phase = 'closed'",
    )


def drop_rows(env: Env) -> None:
    in_warehouse(
        env,
        "DELETE FROM feedamp.orders WHERE mp_order_number = 'OPEN'",
        "DELETE FROM feedamp.order_lines WHERE mp_order_number = 'PART'",
        "DELETE FROM feedamp.shipments WHERE mp_order_number = 'DONE'",
    )


def alter_rows(env: Env) -> None:
    in_warehouse(
        env,
        "UPDATE feedamp.orders SET status = 'ORDERED', marketplace_state = 'PENDING'",
        "UPDATE feedamp.order_lines SET units_shipped = 9, quantity = 9",
        "UPDATE feedamp.shipments SET tracking_number = 'X'",
    )


def lose_warehouse(env: Env) -> None:
    (env.folder / "warehouse.duckdb").unlink()


@pytest.mark.parametrize(
    "damages",
    [
        pytest.param((lose_open, open_there, change_unseen), id="FeedAMP lost, opened and changed orders"),
        pytest.param(
            (withdraw_release, forget_closing), id="the records of a release and a closing are lost"
        ),
        pytest.param((close_there, drop_rows), id="closed there, and rows are gone from the warehouse"),
        pytest.param((forget_state, alter_rows), id="ledger and warehouse are altered"),
        pytest.param((lose_warehouse,), id="the warehouse is lost", marks=pytest.mark.warehouse_file),
    ],
)
def test_a_second_pass_finds_nothing(agreed: Env, damages: tuple[Callable[[Env], None], ...]) -> None:
    for damage in damages:
        damage(agreed)
    first = agreed.reconcile(repair=True)
    agreed.load()
    assert first.extra["repaired"] == first.extra["differences"] > 0
    assert all(repaired for *_, repaired in differences(agreed))
    assert agreed.reconcile().extra["differences"] == 0


def test_without_repair_it_is_only_written_down(agreed: Env) -> None:
    for damage in (lose_open, open_there, change_unseen, alter_rows):
        damage(agreed)
    ledger, puts = agreed.order("DONE"), len(agreed.asked("PUT"))
    found = agreed.reconcile().extra["differences"]
    assert agreed.load()["rows"] == found + 3  # and the run's own, and that of its day, before and after
    assert {repaired for *_, repaired in differences(agreed)} == {False}
    assert (agreed.order("DONE"), len(agreed.asked("PUT"))) == (ledger, puts)


def test_every_damage_at_once_is_repaired_in_one_pass(env: Env) -> None:
    numbers = [f"M-{n}" for n in range(8)]
    env.placed(*numbers)
    env.placed("M-9", seller=OTHER)
    for number in numbers[4:]:
        env.fulfill(number, shipment(2))
    env.stock(2)
    env.read()
    env.process()
    env.load()
    lose(env, "M-0", "M-4")  # M-4 is closed: it is left to a person
    of_feedamp(env, "M-1").marketplace_state = "CANCELLED"
    of_feedamp(env, "M-2").marketplace_state = "PENDING"
    of_feedamp(env, "M-5").marketplace_state = "AWAITING_SHIPMENT"
    of_feedamp(env, "M-6").fulfillments[0]["shipments"][0]["carrier"] = "DHL"
    of_feedamp(env, "X-1").acknowledged = True
    in_ledger(env, "UPDATE orders SET accepted_state = 'PENDING' WHERE mp_order_number = 'M-3'")
    in_ledger(env, "UPDATE orders SET phase = 'settled' WHERE mp_order_number = 'M-7'")
    in_warehouse(env, "DELETE FROM feedamp.orders WHERE mp_order_number IN ('M-3', 'M-9')")
    first = env.reconcile(repair=True)
    env.load()
    assert finish(first)["repaired"] == first.extra["differences"] - 1
    second = env.reconcile(repair=True)
    env.load()
    assert (second.extra["differences"], second.extra["repaired"]) == (1, 0)
    assert [(n, f) for n, f, repaired in differences(env) if not repaired] == [("M-4", "order")] * 2
    env.process()
    env.load()
    assert env.shown("M-5")["marketplace_state"] == "SHIPPED"
    assert env.reconcile().extra["differences"] == 1
    assert env.sandbox.broken_rules == []


# Each kind of repair more closely


def test_a_lost_order_is_placed_again_as_it_was(agreed: Env) -> None:
    before = agreed.shown("OPEN")
    lose(agreed, "OPEN")
    agreed.reconcile(repair=True)
    agreed.load()
    assert agreed.shown("OPEN") == before
    assert agreed.order("OPEN").phase == "settled"
    placements = agreed.rows("SELECT placed_at FROM placements WHERE mp_order_number = 'OPEN'")
    assert placements == agreed.rows("SELECT placed_at FROM orders WHERE mp_order_number = 'OPEN'")
    assert placements[0][0] > agreed.order("OPEN").placed_at


@pytest.mark.parametrize("number", ["PART", "DONE"])
def test_what_a_seller_has_worked_on_is_never_placed_again(agreed: Env, number: str) -> None:
    lose(agreed, number)
    result = agreed.reconcile(repair=True)
    agreed.load()
    assert finish(result)["repaired"] == 0
    assert [note for note in result.notes if f"order {number}: FeedAMP no longer has this order" in note]
    assert number not in agreed.sandbox.orders(SELLER)
    assert differences(agreed) == [(number, "order", False)]


def test_a_lost_order_that_cannot_be_placed_yet_is_placed_by_the_next_run(agreed: Env) -> None:
    lose(agreed, "OPEN")
    agreed.sandbox.fault("error_503", method="PUT", times=None)
    result = agreed.reconcile(repair=True)
    agreed.load()
    assert result.failed_sellers == {SELLER}
    assert differences(agreed) == [("OPEN", "order", False)]
    agreed.sandbox.clear_faults()
    agreed.clock.skip(hours=1)
    agreed.place()
    agreed.load()
    assert agreed.reconcile().extra["differences"] == 0


def test_a_closing_whose_record_was_lost_is_recorded_as_ours(agreed: Env) -> None:
    closing_at = agreed.order("DONE").closing_at
    forget_closing(agreed)
    in_warehouse(agreed, "DELETE FROM feedamp.closures")
    agreed.reconcile(repair=True)
    agreed.load()
    assert (agreed.order("DONE").phase, agreed.order("DONE").closed_at) == ("closed", closing_at)
    assert agreed.rows("SELECT mp_order_number, marketplace_state, closed_at FROM closures") == [
        ("DONE", "SHIPPED", closing_at)
    ]


def test_what_was_closed_elsewhere_is_closed_here_and_no_longer_reported(agreed: Env) -> None:
    agreed.fulfill("PART", shipment(2, "1Z"))
    agreed.see("PART")
    agreed.validate()
    agreed.sandbox.clear_errors(SELLER, "PART")
    in_ledger(agreed, "UPDATE findings SET state = 'to_report', reported_at = NULL, intent_at = NULL")
    of_feedamp(agreed, "PART").marketplace_state = "SHIPPED"
    agreed.reconcile(repair=True)
    assert (agreed.order("PART").phase, agreed.order("PART").reason) == ("closed", "closed elsewhere")
    assert agreed.finding_states("PART") == [("invalid_tracking", "held")]
    of_feedamp(agreed, "PART").marketplace_state = "AWAITING_SHIPMENT"
    agreed.reconcile(repair=True)
    assert agreed.order("PART").phase == "settled"
    assert agreed.finding_states("PART") == [("invalid_tracking", "to_report")]


def test_what_is_open_again_at_feedamp_is_closed_by_process_and_not_blindly(agreed: Env) -> None:
    order = of_feedamp(agreed, "DONE")
    order.marketplace_state = "AWAITING_SHIPMENT"
    order.fulfillments[0]["shipments"] = [shipment(1)]
    puts = len(agreed.asked("PUT"))
    agreed.reconcile(repair=True)
    agreed.load()
    agreed.process()
    assert (agreed.order("DONE").phase, len(agreed.asked("PUT"))) == ("settled", puts)
    agreed.fulfill("DONE", shipment(2))
    agreed.read()
    agreed.process()
    agreed.load()
    assert agreed.shown("DONE")["marketplace_state"] == "SHIPPED"
    assert len(agreed.rows("FROM closures WHERE mp_order_number = 'DONE'")) == 1


def test_a_cancellation_that_feedamp_forgot_is_sent_again(agreed: Env) -> None:
    agreed.deliver("OPEN", marketplace_state="CANCELLED")
    agreed.place()
    agreed.load()
    of_feedamp(agreed, "OPEN").marketplace_state = "AWAITING_SHIPMENT"
    agreed.reconcile(repair=True)
    agreed.load()
    assert agreed.shown("OPEN")["marketplace_state"] == "CANCELLED"
    assert agreed.order("OPEN").phase == "closed"
    assert agreed.reconcile().extra["differences"] == 0


def test_a_forgotten_cancellation_of_what_is_shipped_by_now_is_held(agreed: Env) -> None:
    agreed.deliver("OPEN", marketplace_state="CANCELLED")
    agreed.place()
    agreed.load()
    of_feedamp(agreed, "OPEN").marketplace_state = "AWAITING_SHIPMENT"
    agreed.fulfill("OPEN", shipment(1))
    agreed.reconcile(repair=True)
    assert agreed.shown("OPEN")["marketplace_state"] == "AWAITING_SHIPMENT"
    assert agreed.order("OPEN").phase == "held"


def test_a_release_whose_answer_was_lost_is_confirmed(agreed: Env) -> None:
    agreed.placed("LATE", marketplace_state="PENDING")
    agreed.read()
    agreed.sandbox.fault("reset_after", method="PUT", times=None)
    agreed.deliver("LATE", marketplace_state="AWAITING_SHIPMENT")
    agreed.place()
    agreed.sandbox.clear_faults()
    agreed.clock.skip(hours=1)
    assert agreed.order("LATE").accepted_state == "PENDING"
    agreed.reconcile(repair=True)
    agreed.load()
    assert (agreed.order("LATE").phase, agreed.order("LATE").accepted_state) == (
        "settled",
        "AWAITING_SHIPMENT",
    )
    assert len(agreed.rows("FROM placements WHERE mp_order_number = 'LATE'")) == 2
    assert agreed.reconcile().extra["differences"] == 0


def test_other_quantities_than_were_placed_are_left_to_a_person(agreed: Env) -> None:
    of_feedamp(agreed, "OPEN").body["order_lines"][0]["quantity"] = 5
    for _ in range(2):
        result = agreed.reconcile(repair=True)
        agreed.load()
        assert finish(result)["repaired"] == 0
        [note] = result.notes
        assert note.startswith(
            f"{SELLER}: order OPEN: FeedAMP has other lines or quantities than were placed"
        )
    assert set(differences(agreed)) == {("OPEN", "order_lines[OPEN-1].quantity", False)}
    assert agreed.rows("SELECT quantity FROM order_lines WHERE mp_order_number = 'OPEN'") == [(5,)]


def test_foreign_orders_are_compared_and_only_the_warehouse_is_repaired(agreed: Env) -> None:
    agreed.stock(1)
    agreed.read()
    of_feedamp(agreed, "X-0").acknowledged = True
    puts = len(agreed.asked("PUT"))
    assert agreed.reconcile(repair=True).extra["repaired"] == 1
    agreed.load()
    assert agreed.rows("SELECT field, ledger_value, feedamp_value FROM reconciliations") == [
        ("status", None, "IN_PROGRESS")
    ]
    assert len(agreed.asked("PUT")) == puts
    assert agreed.reconcile().extra["differences"] == 0


def test_an_order_that_was_never_placed_but_is_at_feedamp_is_found(agreed: Env) -> None:
    in_ledger(
        agreed,
        "UPDATE orders SET phase = 'never_placed', accepted_state = NULL, placed_at = NULL "
        "WHERE mp_order_number = 'OPEN'",
    )
    in_warehouse(agreed, "DELETE FROM feedamp.orders WHERE mp_order_number = 'OPEN'")
    agreed.reconcile(repair=True)
    agreed.load()
    assert differences(agreed) == [("OPEN", "order", False)]
    assert agreed.rows("SELECT status FROM orders WHERE mp_order_number = 'OPEN'") == [("ORDERED",)]


def test_snapshots_of_open_orders_reach_the_state_too(agreed: Env) -> None:
    change_unseen(agreed)
    agreed.reconcile(repair=True)
    held = agreed.held("PART")
    assert held is not None
    assert [len(line.cancellations) for line in held.snapshot.fulfillments] == [1]


def test_a_dry_run_repairs_nothing(agreed: Env) -> None:
    lose(agreed, "OPEN")
    before = len(agreed.sandbox.requests)
    agreed.reconcile(repair=True, dry_run=True)
    agreed.load()
    assert len(agreed.sandbox.requests) == before
    assert differences(agreed) == []


# The log


def test_the_log_ends_with_a_table_and_names_no_parcel(agreed: Env, caplog: pytest.LogCaptureFixture) -> None:
    alter_rows(agreed)
    lose(agreed, "DONE")
    caplog.set_level(logging.INFO)
    finish(agreed.reconcile(repair=True))
    *table, last = caplog.messages[-9:]
    assert last.startswith("3 orders compared, 9 differences (")
    assert last.endswith("), 8 repaired, 1 left")
    assert table[0].split() == ["field", "found", "repaired", "left"]
    assert table[1].split() == ["marketplace_state", "2", "2", "0"]
    assert table[2].split() == ["order", "1", "0", "1"]
    assert table[-1].split() == ["all", "9", "8", "1"]
    assert "OPEN marketplace_state: ledger AWAITING_SHIPMENT" in caplog.text
    assert "tracking_number: ledger None, FeedAMP (not shown), warehouse (not shown)" in caplog.text
    assert GOOD_NUMBER not in caplog.text
    assert agreed.body("OPEN")["customer"]["full_name"] not in caplog.text


def test_many_differences_are_all_written_and_some_are_logged(
    agreed: Env, caplog: pytest.LogCaptureFixture
) -> None:
    agreed.stock(198)  # with the three a chunk and one more
    agreed.read()
    in_warehouse(agreed, "UPDATE feedamp.orders SET status = 'x' WHERE mp_order_number LIKE 'X-%'")
    caplog.set_level(logging.INFO)
    finish(agreed.reconcile(repair=True))
    agreed.load()
    assert agreed.rows("SELECT count(*), count(repaired_at) FROM reconciliations") == [(198, 198)]
    assert sum(" status: ledger" in line for line in caplog.messages) == 50
    assert agreed.reconcile().extra["differences"] == 0
