"""What becomes of a rate that one process holds, in real time, when another wants it, has died or has stood still."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from itertools import pairwise

import pytest
import sqlalchemy as sa
from other_leases import DEAD, ELSEWHERE, QUICK, leave_lease, use_quick_leases
from wire import S1, S2, take_slot

from feedamp.api import rate_limit
from feedamp.api.rate_limit import RateLimiter
from feedamp.errors import TransientError
from feedamp.state import State, rate_leases, request_slots
from feedamp.state.schema import leases, slots

RATE = 10


@pytest.fixture
def two(url):
    """The states of two processes on one database, in real time."""
    with closing(State(url)) as one, closing(State(url)) as other:
        yield one, other


@pytest.fixture
def looks_often(monkeypatch):
    """A holder soon sees that its rate is wanted."""
    monkeypatch.setattr(rate_leases, "LOOK_EVERY_S", 0.05)


def limiter_of(state, **options):
    return RateLimiter(state, **{"requests_per_second": RATE, "sleep": asyncio.sleep, **options})


def row_of(state, seller_id=S1):
    with state.read() as connection:
        return connection.execute(sa.select(slots).where(slots.c.seller_id == seller_id)).one()


async def test_a_held_rate_is_given_up_within_a_second_and_the_distance_is_kept(two):
    one, _ = two
    one.rates.hold([S1, S2])
    first, second = (limiter_of(state) for state in two)
    moments, is_under_way, is_over = [], asyncio.Event(), asyncio.Event()

    async def busy():
        while not is_over.is_set():
            async with first.leaving(S1, asyncio.Semaphore()) as left:
                moments.append(time.monotonic())
                left(moments[-1])
            if len(moments) == 2:
                is_under_way.set()

    working = asyncio.ensure_future(busy())
    await asyncio.wait_for(is_under_way.wait(), 20)
    wanted_at = time.monotonic()
    async with asyncio.timeout(20), second.leaving(S1, asyncio.Semaphore()) as left:
        moments.append(time.monotonic())
        left(moments[-1])
    assert time.monotonic() - wanted_at < 1 + 3  # three seconds for a machine that is busy
    is_over.set()
    await working
    assert len(moments) >= 3
    assert min(after - before for before, after in pairwise(sorted(moments))) >= 1 / RATE
    assert row_of(one).held_by is None
    assert row_of(one, S2).held_by is not None  # no one wants that one


async def test_a_pause_that_another_process_hears_ends_the_hold(two, looks_often, monkeypatch):
    monkeypatch.setattr(rate_limit, "LONGEST_SLOT_WAIT_S", 0.5)
    one, other = two
    one.rates.hold([S1])
    limiter = limiter_of(one)
    await take_slot(limiter, S1)
    other.rates.pause(S1, 30)
    await asyncio.sleep(2 * rate_leases.LOOK_EVERY_S)
    with pytest.raises(TransientError):
        await take_slot(limiter, S1)


async def test_a_rate_that_was_given_back_is_held_again_once_the_other_has_stopped(
    two, looks_often, monkeypatch
):
    monkeypatch.setattr(request_slots, "CALM_S", 0.3)
    one, other = two
    one.rates.hold([S1])
    await take_slot(limiter_of(other), S1)
    mine = limiter_of(one)
    async with asyncio.timeout(5):
        while row_of(one).held_by is None:
            await take_slot(mine, S1)
    one.rates.give_all_back()
    assert row_of(one).held_by is None
    with one.read() as connection:
        assert connection.execute(sa.select(leases)).all() == []


@pytest.mark.parametrize("owner", [DEAD, ELSEWHERE, None], ids=["dead", "silent, on another machine", "gone"])
async def test_the_rate_of_a_dead_process_is_taken_one_distance_after_its_end(two, owner):
    state, _ = two
    with state.begin() as connection:
        row = {
            "seller_id": S1,
            "next_at": 0.0,
            "held_by": "rate/other",
            "used_by": "rate/other",
            "live_at": 0.0,
        }
        connection.execute(sa.insert(slots), row)
    use_quick_leases(state)
    if owner is not None:
        leave_lease(state, "rate/other", owner)
    began = time.monotonic()
    await take_slot(limiter_of(state), S1)
    waited_s = time.monotonic() - began
    assert waited_s >= 1 / RATE + (QUICK.free_after_s if owner == ELSEWHERE else 0)
    assert waited_s < 3


async def test_a_live_process_keeps_what_it_holds_until_it_gives_it_back(two):
    """Also when it is taken for dead, as one that was stopped: it finds out before it sends."""
    one, other = two
    one.rates.hold([S1])
    mine, theirs = limiter_of(one), limiter_of(other)
    await take_slot(mine, S1)
    with one.begin() as connection:  # what another process does after a long silence
        connection.execute(sa.delete(leases))
    one.rates._lease.renewed_at -= one.leases._times.free_after_s
    await take_slot(theirs, S1)
    # Not counted from here: a busy machine may come here long after the slot was taken.
    may_leave_at = row_of(other).next_at
    await take_slot(mine, S1)
    assert one.now().timestamp() >= may_leave_at


async def test_history_gives_up_the_rate_that_live_work_wants(two, looks_often):
    one, other = two
    rate = {"requests_per_second": 3 * RATE}
    history, live = limiter_of(one, history_share=0.5, **rate), limiter_of(other, **rate)
    one.rates.hold([S1])
    await take_slot(history, S1)
    await take_slot(live, S1)
    began = time.monotonic()
    await take_slot(history, S1)
    assert time.monotonic() - began >= (request_slots.QUIET - 1) / (3 * RATE)
