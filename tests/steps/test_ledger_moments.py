"""The lease of an order ends with the work on it and its result is kept, at whichever moment its task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from env import SELLER, Env
from sqlalchemy.engine import Connection

from feedamp.state import sellers
from feedamp.state.group_commit import ROUNDS
from feedamp.state.schema import leases
from feedamp.steps.place_orders import seller_batch
from feedamp.steps.place_orders.ledger_moments import LedgerMoments
from feedamp.steps.place_orders.seller_batch import SellerBatch
from feedamp.steps.step_result import StepResult


def leased(env: Env) -> list[str]:
    with env.state.read() as connection:
        return list(connection.execute(sa.select(leases.c.name)).scalars())


async def cancelled(task: asyncio.Task[None], rounds: int) -> None:
    """Lets the event loop go round so many times, cancels the task, and waits for its end."""
    for _ in range(rounds):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("rounds", range(1, ROUNDS + 4))
def test_no_lease_outlives_a_task_that_is_cancelled(env: Env, rounds: int) -> None:
    env.deliver("M-1")
    moments = LedgerMoments(env.state, run_id="r")
    held: list[list[str]] = []

    async def work() -> None:
        begun = await moments.begin(SELLER, "M-1")
        try:
            held.append(leased(env))
            await asyncio.Event().wait()
        finally:
            moments.end(begun)

    async def cancel() -> None:
        await cancelled(asyncio.create_task(work()), rounds)

    asyncio.run(cancel())
    assert held == [[f"place/{SELLER}/M-1"]] * (rounds > ROUNDS + 2)
    assert leased(env) == []
    assert (moments._sending, env.state.leases._held) == (0, {})


async def place_two(env: Env, moments: LedgerMoments, answered: asyncio.Event) -> None:
    """FeedAMP has accepted M-1, and M-2 is begun."""
    begun = await moments.begin(SELLER, "M-1")
    assert begun.order is not None
    assert begun.lease is not None
    recording = moments.accepted(
        begun.order, begun.order.next_state, sent_at=env.state.now(), lease=begun.lease
    )
    answered.set()
    try:
        moments.end(await moments.begin(SELLER, "M-2"))
    finally:
        await moments.recorded(recording)


def test_a_result_and_the_next_intent_share_a_transaction(env: Env) -> None:
    env.deliver("M-1")
    env.deliver("M-2")
    commits: list[object] = []
    sa.event.listen(env.state.engine, "commit", commits.append)
    asyncio.run(place_two(env, LedgerMoments(env.state, run_id="r"), asyncio.Event()))
    assert len(commits) == 3  # the intent before, both, and the end of the second lease


@pytest.mark.parametrize("rounds", range(ROUNDS + 4))
def test_a_result_is_kept_if_its_task_is_cancelled_in_the_next_intent(env: Env, rounds: int) -> None:
    env.deliver("M-1")
    env.deliver("M-2")
    moments = LedgerMoments(env.state, run_id="r")

    async def cancel() -> None:
        answered = asyncio.Event()
        task = asyncio.create_task(place_two(env, moments, answered))
        await answered.wait()
        await cancelled(task, rounds)

    asyncio.run(cancel())
    assert env.order("M-1").accepted_state is not None
    assert leased(env) == []
    assert (moments._sending, env.state.leases._held) == (0, {})


async def send(
    env: Env, numbers: list[str], result: StepResult, moments: LedgerMoments | None = None
) -> None:
    run = env.run("place_orders")
    with env.state.read() as connection:
        [seller] = sellers.workable(connection, seller_ids=[SELLER])
    async with env.resources.clients(run) as clients:
        client = await clients.client(seller)
        await SellerBatch(env.resources, run, result, client, moments=moments).send(numbers)


@pytest.mark.parametrize("rounds", range(0, 3 * ROUNDS, 2))
def test_what_a_cancelled_seller_has_counted_is_in_the_ledger(env: Env, rounds: int) -> None:
    numbers = [f"M-{number}" for number in range(20)]
    for number in numbers:
        env.deliver(number)
    result = StepResult("place", 0)

    async def cancel() -> None:
        some_are_accepted = asyncio.Event()
        result.on_count = lambda: some_are_accepted.set() if result.orders == 5 else None
        task = asyncio.create_task(send(env, numbers, result))
        await some_are_accepted.wait()
        await cancelled(task, rounds)

    asyncio.run(cancel())
    accepted = [number for number in numbers if env.order(number).accepted_state is not None]
    assert 5 <= len(accepted) == result.orders < len(numbers)
    assert (leased(env), env.state.leases._held) == ([], {})


def test_an_order_keeps_its_lease_until_its_result_is_recorded(env: Env) -> None:
    env.deliver("M-1")
    result, moments = StepResult("place", 0), LedgerMoments(env.state, run_id="r")
    held: list[list[str]] = []

    def look_once_it_waits() -> None:
        asyncio.get_running_loop().call_soon(lambda: held.append(leased(env)))

    result.on_count = look_once_it_waits
    asyncio.run(send(env, ["M-1"], result, moments))
    assert held == [[f"place/{SELLER}/M-1"]]
    assert env.order("M-1").accepted_state is not None
    assert (leased(env), moments._sending, env.state.leases._held) == ([], 0, {})


def test_an_order_waits_for_one_transaction(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ["M-1", "M-2", "M-3"]
    for number in numbers:
        env.deliver(number)
    monkeypatch.setattr(seller_batch, "ORDERS_AT_ONCE", 1)
    moments = LedgerMoments(env.state, run_id="r")
    done: list[list[str]] = []
    work = moments._work

    def look(connection: Connection, items: Sequence[Any], asked_at: float) -> Callable[[], None]:
        done.append([item.key[1] for item in items])
        return work(connection, items, asked_at)

    monkeypatch.setattr(moments._commit, "_work", look)
    asyncio.run(send(env, numbers, StepResult("place", 0), moments))
    assert done == [["M-1"], ["M-1", "M-2"], ["M-2", "M-3"], ["M-3"]]


def test_a_result_that_cannot_be_recorded_fails_its_order_alone(env: Env) -> None:
    for number in ("M-1", "M-2", "M-3"):
        env.deliver(number)
    with env.state.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuses BEFORE UPDATE ON orders WHEN new.mp_order_number = 'M-1' AND "
            "new.accepted_state IS NOT NULL BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    result = env.place()
    why = "An unexpected IntegrityError ended the work on order M-1; its traceback is in the log."
    assert result.undone == [f"{SELLER}: {why}"]
    states = [env.order(number).accepted_state is not None for number in ("M-1", "M-2", "M-3")]
    assert states == [False, True, True]
    assert (leased(env), env.state.leases._held) == ([], {})
