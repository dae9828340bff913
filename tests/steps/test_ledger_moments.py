"""The lease of an order ends with the work on it, at whichever moment its task is cancelled."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from env import SELLER, Env

from feedamp.state.group_commit import ROUNDS
from feedamp.state.schema import leases
from feedamp.steps.place_orders.ledger_moments import LedgerMoments


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
