"""A stored snapshot that this version cannot decode affects only its order, until the next extraction replaces it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from env import SELLER, Env, shipment

from feedamp.errors import UnreadableError
from feedamp.state import action_required, open_orders, schema
from feedamp.state.open_orders import UNDECODABLE, decode_stored
from feedamp.steps.step_end import finish

NUMBERS = [f"M-{n:02d}" for n in range(10)]  # all are validated in one transaction
BROKEN = "M-07"
DAMAGES = [
    pytest.param("{", id="cut off"),
    pytest.param('{"mp_order_number": 7}', id="of another shape"),
    pytest.param("", id="empty"),
]


def damage(env: Env, number: str = BROKEN, text: str = "{") -> None:
    snapshots = schema.snapshots
    with env.state.begin() as connection:
        connection.execute(
            sa.update(snapshots).where(snapshots.c.mp_order_number == number).values(snapshot=text)
        )


def orders_that_require_action(env: Env) -> list[tuple[str, str]]:
    with env.state.read() as connection:
        stuck = action_required.stuck_orders(connection, lingering_since=env.state.now(), limit=20)
    return [(item["mp_order_number"], item["reason"]) for item in stuck.items]


@pytest.fixture
def shipped(env: Env) -> Env:
    """All orders are shipped whole, and were seen."""
    env.placed(*NUMBERS)
    for number in NUMBERS:
        env.fulfill(number, shipment(2))
    env.read()
    return env


@pytest.mark.parametrize("text", DAMAGES)
def test_an_undecodable_snapshot_is_named_and_all_others_close(shipped: Env, text: str) -> None:
    damage(shipped, text=text)
    result = shipped.validate()
    assert finish(result)["orders_unread"] == 1
    shipped.load()
    assert shipped.rows("SELECT orders_unread, complete FROM runs WHERE step = 'validate'") == [(1, False)]
    assert [note for note in result.notes if f"order {BROKEN}" in note]
    finish(shipped.close())
    assert {shipped.order(n).phase for n in NUMBERS if n != BROKEN} == {"closed"}
    assert orders_that_require_action(shipped) == [(BROKEN, UNDECODABLE)]


def test_the_next_extraction_reads_it_again_and_it_closes(shipped: Env) -> None:
    shipped.clock.skip(hours=1)
    shipped.read()  # from here on no overlap reaches back to the seller's update
    damage(shipped)
    shipped.process()
    shipped.clock.skip(minutes=15)
    shipped.read()
    shipped.process()
    assert shipped.order(BROKEN).phase == "closed"
    assert orders_that_require_action(shipped) == []


def test_closing_continues_beside_a_snapshot_damaged_after_validation(shipped: Env) -> None:
    shipped.validate()
    damage(shipped)
    finish(shipped.close())
    assert {shipped.order(n).phase for n in NUMBERS} == {"closed"}  # each is read again before it is closed


@pytest.mark.parametrize("when", ["read later still", "refused"])
def test_a_closing_that_meets_an_undecodable_snapshot_costs_that_order_alone(shipped: Env, when: str) -> None:
    shipped.validate()
    damage(shipped)
    if when == "refused":
        with shipped.sandbox.world.lock:
            shipped.sandbox._order(SELLER, BROKEN).body["currency"] = "EUR"
    else:
        snapshots = schema.snapshots
        with shipped.state.begin() as connection:
            moment = shipped.state.now().replace(year=2027)
            connection.execute(
                sa.update(snapshots).where(snapshots.c.mp_order_number == BROKEN).values(read_at=moment)
            )
    finish(shipped.close())
    assert {shipped.order(n).phase for n in NUMBERS if n != BROKEN} == {"closed"}
    assert shipped.order(BROKEN).phase == "settled"
    assert [number for number, _ in orders_that_require_action(shipped)] == [BROKEN]


@pytest.mark.parametrize("is_shipped", [True, False])
def test_a_cancellation_with_an_undecodable_snapshot_follows_feedamp(env: Env, is_shipped: bool) -> None:
    env.placed("M-1")
    env.see("M-1")
    damage(env, "M-1")
    env.deliver("M-1", marketplace_state="CANCELLED")
    if is_shipped:
        env.fulfill("M-1", shipment(1))
    finish(env.place())
    assert env.order("M-1").phase == ("held" if is_shipped else "closed")
    assert env.sandbox.broken_rules == []


def test_a_lost_order_whose_snapshot_is_undecodable_is_not_placed_again(env: Env) -> None:
    env.placed("M-1")
    env.read()
    damage(env, "M-1")
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders._sorted[SELLER].remove(orders._by_number[SELLER].pop("M-1"))
    finish(env.reconcile(repair=True))
    assert "M-1" not in env.sandbox.orders(SELLER)


@pytest.mark.parametrize("text", DAMAGES)
def test_one_row_is_decoded_or_named(text: Any) -> None:
    with pytest.raises(
        UnreadableError, match=r"snapshot of order M-1 of seller S1 cannot be decoded"
    ) as info:
        decode_stored("S1", "M-1", text)
    assert (info.value.seller_id, info.value.mp_order_number) == ("S1", "M-1")


def test_reading_one_names_its_order(shipped: Env) -> None:
    damage(shipped)
    with shipped.state.read() as connection, pytest.raises(UnreadableError, match=BROKEN):
        open_orders.read(connection, SELLER, BROKEN)


def test_an_order_whose_body_cannot_be_read_fails_no_other(env: Env) -> None:
    numbers = NUMBERS[:3]
    env.placed(*numbers)
    for number in numbers:
        env.fulfill(number, shipment(2))
    env.read()
    with env.state.begin() as connection:  # as a disk may do it
        orders = schema.orders
        connection.execute(sa.update(orders).where(orders.c.mp_order_number == numbers[1]).values(body="{"))
    result = env.validate()
    assert result.orders == 2
    assert [numbers[1] in undone for undone in result.undone] == [True]
