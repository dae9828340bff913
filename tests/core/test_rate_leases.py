"""A process that holds a seller's request rate paces its requests itself; engines/test_rates_wanted.py has who wants it."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest
import sqlalchemy as sa
from wire import S1, S2, take_slot, wired

from crashes.clock import NOON
from feedamp.api import rate_limit
from feedamp.api.rate_limit import SPACING, RateLimiter
from feedamp.errors import RejectedError, TransientError
from feedamp.state import rate_leases, request_slots
from feedamp.state.leases import Lease
from feedamp.state.schema import slots

RATE = 10


def limiter_of(state, clock):
    return RateLimiter(state, requests_per_second=RATE, sleep=clock.sleep, monotonic=clock.elapsed_s)


def row_of(state):
    with state.read() as connection:
        return connection.execute(sa.select(slots).where(slots.c.seller_id == S1)).one()


MOMENT, CALM_S = NOON.timestamp(), request_slots.CALM_S


@pytest.mark.parametrize(
    ("row", "is_got"),
    [
        pytest.param({"held_by": "other"}, False, id="another process holds it"),
        pytest.param(
            {"used_by": "other", "next_at": MOMENT - CALM_S + 1}, False, id="another used it lately"
        ),
        pytest.param({"used_by": "other", "next_at": MOMENT - CALM_S}, True, id="another used it before"),
        pytest.param({"used_by": "this", "next_at": MOMENT + 1}, True, id="this process used it lately"),
        pytest.param({"shared_at": MOMENT - CALM_S + 1}, False, id="two used it lately"),
        pytest.param({"shared_at": MOMENT - CALM_S}, True, id="two used it before"),
        pytest.param({"turn_of": "other"}, False, id="its next slot is kept for another"),
    ],
)
def test_the_rates_of_many_are_held_unless_another_process_uses_them(state, row, is_got):
    many = [S1, *(f"S-{number}" for number in range(600)), 'quoted " and \\ and é']
    with state.begin() as connection:
        connection.execute(sa.insert(slots), {"seller_id": S1, "next_at": 0.0, **row})
        got = request_slots.hold(connection, [*many, S1], process="this", now=NOON)
    assert sorted(got) == sorted(many if is_got else many[1:])


async def test_no_request_of_a_held_rate_needs_a_transaction(state, clock):
    begun, here = [], threading.current_thread()
    state.rates.hold([S1, S2])

    @sa.event.listens_for(state.engine, "begin")
    def count(_connection):
        if threading.current_thread() is here:  # another thread looks whether the rates are wanted
            begun.append(1)

    limiter = limiter_of(state, clock)
    for _ in range(50):
        async with limiter.leaving(S1, asyncio.Semaphore()) as left:
            left(clock.elapsed_s())
        await take_slot(limiter, S2)
    assert begun == []
    assert clock.elapsed_s() >= 49 / RATE


@pytest.mark.parametrize(
    ("is_answered", "distance"), [(True, 1.002), (False, SPACING)], ids=["answered at once", "not answered"]
)
async def test_after_an_answer_no_jitter_is_allowed_for(state, clock, is_answered, distance):
    limiter, room, is_over = (
        limiter_of(state, clock),
        asyncio.Semaphore(9),
        asyncio.Event(),
    )
    state.rates.hold([S1])
    moments = []

    async def send():
        async with limiter.leaving(S1, room) as left:
            moments.append(clock.elapsed_s())
            left(clock.elapsed_s())
            if not is_answered:
                await is_over.wait()

    sent = [asyncio.ensure_future(send()) for _ in range(4)]
    for _ in range(100):
        await asyncio.sleep(0)
    is_over.set()
    await asyncio.gather(*sent)
    assert [after - before for before, after in pairwise(moments)] == pytest.approx(
        [distance / RATE] * 3, abs=2e-3
    )


async def test_a_pause_is_not_shortened_by_an_answer(state, clock):
    limiter, room = limiter_of(state, clock), asyncio.Semaphore(9)
    state.rates.hold([S1])
    async with limiter.leaving(S1, room) as left:
        left(clock.elapsed_s())
        limiter.pause(S1, 7)
    await take_slot(limiter, S1)
    assert clock.elapsed_s() == pytest.approx(7, abs=0.01)
    assert row_of(state).next_at - NOON.timestamp() == pytest.approx(7, abs=0.01)


async def test_after_a_rate_is_given_back_the_next_request_keeps_its_distance(state, clock):
    limiter = limiter_of(state, clock)
    state.rates.hold([S1])
    await take_slot(limiter, S1)
    state.rates.give_all_back()
    assert (row_of(state).held_by, clock.elapsed_s()) == (None, 0)
    await take_slot(limiter, S1)
    assert clock.elapsed_s() >= 1 / RATE


async def test_no_slot_is_given_to_a_process_that_stood_still_beside_its_lease(state, clock, monkeypatch):
    state.rates.hold([S1])
    is_held = Lease.is_held

    def held_before(lease):
        was_held = is_held(lease)
        clock.skip(seconds=rate_leases.LEAVING_S + 1)
        return was_held

    monkeypatch.setattr(Lease, "is_held", held_before)
    assert state.rates.take(S1, interval_s=1 / RATE) > 0
    monkeypatch.setattr(Lease, "is_held", is_held)
    clock.skip(seconds=1)
    assert state.rates.take(S1, interval_s=1 / RATE) == 0


async def test_a_request_is_not_sent_long_after_it_got_its_slot(monkeypatch):
    monkeypatch.setattr(rate_limit, "SLOT_LASTS_S", 0.05)
    async with wired() as wire:
        client = wire.client()
        with pytest.raises(TransientError, match="stood still"):
            await client.put_order(
                "M-1", {}, right_after=wire.clock.now(), before_sending=lambda: time.sleep(0.1)
            )
        assert wire.asked() == []


async def test_a_request_that_leaves_long_after_its_slot_postpones_the_next_one():
    async with wired() as wire:

        def be_late():
            time.sleep(2 * rate_limit.LATE)
            wire.clock.skip(seconds=1)

        with pytest.raises(RejectedError):  # it has no body
            await wire.client().put_order("M-1", {}, before_sending=be_late)
        assert row_of(wire.state).next_at > wire.clock.now().timestamp()


async def test_one_that_goes_first_gets_the_next_slot(state, clock):
    def take(process, **options):
        with state.begin() as connection:
            return request_slots.take(
                connection, S1, process=process, now=clock.now(), interval_s=0.5, **options
            ).wait_s

    assert take("busy") == 0
    assert take("hook", goes_first=True) == pytest.approx(0.5)
    clock.skip(seconds=0.5)
    assert take("busy") > 0
    assert take("hook", goes_first=True) == 0
    assert take("hook", goes_first=True) == pytest.approx(0.5)
    clock.skip(seconds=0.5 + request_slots.TURN_S)
    assert take("busy") == 0  # it no longer wants the slot that was kept for it
