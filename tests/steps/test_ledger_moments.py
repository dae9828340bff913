"""The lease of an order ends with the work on it and its result is kept, at whichever moment its task is cancelled."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from env import SELLER, Env

from feedamp.state import sellers
from feedamp.state.group_commit import ROUNDS
from feedamp.state.schema import leases
from feedamp.steps.place_orders.ledger_moments import LedgerMoments
from feedamp.steps.place_orders.seller_batch import SellerBatch
from feedamp.steps.step_result import StepResult


def leased(env: Env) -> list[str]:
    with env.state.read() as connection:
        return list(connection.execute(sa.select(leases.c.name)).scalars())


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
        task = asyncio.create_task(work())
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

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
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    assert env.order("M-1").accepted_state is not None
    assert leased(env) == []
    assert (moments._sending, env.state.leases._held) == (0, {})


@pytest.mark.parametrize("rounds", range(0, 3 * ROUNDS, 2))
def test_what_a_cancelled_seller_has_counted_is_in_the_ledger(env: Env, rounds: int) -> None:
    numbers = [f"M-{number}" for number in range(20)]
    for number in numbers:
        env.deliver(number)
    resources, run, result = env.resources, env.run("place_orders"), StepResult("place", 0)

    async def send() -> None:
        with env.state.read() as connection:
            [seller] = sellers.workable(connection, seller_ids=[SELLER])
        async with resources.clients(run) as clients:
            await SellerBatch(resources, run, result, await clients.client(seller)).send(numbers)

    async def cancel() -> None:
        some_are_accepted = asyncio.Event()
        result.on_count = lambda: some_are_accepted.set() if result.orders == 5 else None
        task = asyncio.create_task(send())
        await some_are_accepted.wait()
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancel())
    accepted = [number for number in numbers if env.order(number).accepted_state is not None]
    assert 5 <= len(accepted) == result.orders < len(numbers)
    assert (leased(env), env.state.leases._held) == ([], {})
