"""A seller's request rate, counted over all processes that share the state, and pauses that all of them obey."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
import sqlalchemy as sa
from wire import S1, S2, opened_state, take_slot

from crashes.clock import NOON
from feedamp.api.rate_limit import SPACING, RateLimiter
from feedamp.errors import ThrottledError
from feedamp.state.schema import slots


@pytest.fixture
def state(clock):
    with opened_state(clock) as opened:
        with opened.begin() as connection:  # a pause answers a request, which had a slot
            connection.execute(sa.insert(slots).values(seller_id=S1, next_at=0.0))
        yield opened


@pytest.fixture
def rate_limiters(state, clock):
    """Two limiters of two requests a second in one process."""
    return [
        RateLimiter(state, requests_per_second=2, sleep=clock.sleep, monotonic=clock.elapsed_s)
        for _ in range(2)
    ]


async def departures(rate_limiters, clock, count, seller_id=S1):
    """Seconds after noon at which requests leave; the rate limiters are used alternately."""
    left = []
    for n in range(count):
        await take_slot(rate_limiters[n % len(rate_limiters)], seller_id)
        left.append((clock.now() - NOON).total_seconds())
    return left


async def test_the_first_request_leaves_at_once(rate_limiters, clock):
    await take_slot(rate_limiters[0], S1)
    assert clock.slept == []


async def test_two_rate_limiters_together_stay_within_the_rate(rate_limiters, clock):
    left = await departures(rate_limiters, clock, 8)
    assert left == pytest.approx([n * 0.5 * SPACING for n in range(8)], abs=1e-3)
    assert SPACING > 1  # the network's jitter must not bring two requests too close


async def test_sellers_do_not_wait_for_each_other(rate_limiters, clock):
    await take_slot(rate_limiters[0], S1)
    await take_slot(rate_limiters[1], S2)
    assert clock.slept == []


async def test_unused_slots_are_not_saved_up(rate_limiters, clock):
    await take_slot(rate_limiters[0], S1)
    clock.skip(seconds=3600)
    left = await departures(rate_limiters, clock, 3)
    assert left[2] - left[0] == pytest.approx(2 * 0.5 * SPACING, abs=1e-3)


async def test_requests_that_wait_together_leave_one_by_one(rate_limiters, clock):
    left = []

    async def leave(rate_limiter):
        await take_slot(rate_limiter, S1)
        left.append(clock.now().timestamp())

    await asyncio.gather(*(leave(rate_limiter) for rate_limiter in rate_limiters * 4))
    assert min(after - before for before, after in pairwise(left)) >= 0.5


async def test_an_urgent_request_goes_before_all_that_wait(rate_limiters, clock):
    left = []

    async def leave(name):
        is_urgent = name == "urgent"
        async with rate_limiters[0].leaving(S1, asyncio.Semaphore(), is_urgent=is_urgent) as has_left:
            has_left(clock.elapsed_s())
            left.append(name)

    async with rate_limiters[0].leaving(S1, asyncio.Semaphore()) as has_left:
        waiting = [asyncio.create_task(leave(name)) for name in ("a", "b", "c", "urgent", "d")]
        await asyncio.sleep(0)
        has_left(clock.elapsed_s())
    await asyncio.gather(*waiting)
    assert left == ["urgent", "a", "b", "c", "d"]


async def test_a_slot_is_reserved_at_departure_and_never_in_advance(state, rate_limiters, clock):
    async def held_up(seconds):
        await clock.sleep(seconds + 10)

    await take_slot(rate_limiters[0], S1)
    await take_slot(RateLimiter(state, requests_per_second=2, sleep=held_up), S1)
    left = [10 + 0.5 * SPACING, *await departures(rate_limiters, clock, 2)]
    assert min(after - before for before, after in pairwise(left)) >= 0.5


async def test_a_pause_holds_for_both_rate_limiters_and_then_the_rate_applies(rate_limiters, clock):
    rate_limiters[0].pause(S1, 10)
    left = await departures(rate_limiters, clock, 3)
    assert left == pytest.approx([10, 10 + 0.5 * SPACING, 10 + SPACING], abs=1e-3)


async def test_a_pause_holds_only_for_its_seller(rate_limiters, clock):
    rate_limiters[0].pause(S1, 10)
    await take_slot(rate_limiters[0], S2)
    assert clock.slept == []


async def test_a_shorter_pause_does_not_end_a_longer_one(rate_limiters, clock):
    rate_limiters[0].pause(S1, 10)
    rate_limiters[1].pause(S1, 2)
    assert await departures(rate_limiters, clock, 1) == [pytest.approx(10, abs=1e-3)]


def test_a_pause_for_a_seller_that_was_erased_meanwhile_leaves_no_row(state, rate_limiters):
    rate_limiters[0].pause(S2, 10)
    with state.read() as connection:
        assert connection.execute(sa.select(slots.c.seller_id)).scalars().all() == [S1]


async def test_a_pause_that_has_ended_costs_nothing(rate_limiters, clock):
    rate_limiters[0].pause(S1, 10)
    clock.skip(seconds=11)
    await take_slot(rate_limiters[1], S1)
    assert clock.slept == []


async def test_a_pause_holds_for_requests_that_already_wait(state, rate_limiters, clock):
    async def a_429_comes_meanwhile(seconds):
        if not clock.slept:
            rate_limiters[0].pause(S1, 10)
        await clock.sleep(seconds)

    waiting = RateLimiter(state, requests_per_second=2, sleep=a_429_comes_meanwhile)
    await take_slot(rate_limiters[0], S1)
    await take_slot(waiting, S1)
    assert (clock.now() - NOON).total_seconds() == pytest.approx(10, abs=2e-3)


async def test_a_request_that_wakes_too_early_waits_for_the_rest(state, rate_limiters, clock):
    async def wakes_early(seconds):
        await clock.sleep(max(seconds - 0.1, 0.001))

    rate_limiters[0].pause(S1, 10)
    await take_slot(RateLimiter(state, requests_per_second=2, sleep=wakes_early), S1)
    assert 10 <= (clock.now() - NOON).total_seconds() < 10.01


@pytest.mark.parametrize("seconds", [59.9, 60])
async def test_a_pause_of_up_to_a_minute_is_waited_for(rate_limiters, clock, seconds):
    rate_limiters[0].pause(S1, seconds)
    await take_slot(rate_limiters[1], S1)
    assert sum(clock.slept) == pytest.approx(seconds, abs=1e-3)


async def test_a_longer_pause_is_left_to_a_later_run(state, rate_limiters, clock):
    rate_limiters[0].pause(S1, 61)
    with pytest.raises(ThrottledError) as caught:
        await take_slot(rate_limiters[1], S1)
    assert (caught.value.seller_id, caught.value.retry_after_s) == (S1, pytest.approx(61, abs=1e-3))
    assert clock.slept == []
    clock.skip(seconds=61)
    await take_slot(rate_limiters[1], S1)  # the abandoned request has not used up a slot
    assert clock.slept == []


async def test_a_longer_pause_ends_the_wait_of_requests_that_already_wait(state, rate_limiters, clock):
    async def a_429_comes_meanwhile(seconds):
        rate_limiters[0].pause(S1, 600)
        await clock.sleep(seconds)

    await take_slot(rate_limiters[0], S1)
    with pytest.raises(ThrottledError):
        await take_slot(RateLimiter(state, requests_per_second=2, sleep=a_429_comes_meanwhile), S1)
    assert len(clock.slept) == 1


async def test_a_slot_is_reserved_only_once_the_pool_has_a_connection(state, rate_limiters, clock):
    """Requests of one seller that waited for the pool together must not leave together."""
    pool, left = asyncio.Semaphore(1), []

    async def leave(rate_limiter):
        async with rate_limiter.leaving(S1, pool) as has_left:
            left.append(clock.elapsed_s())
            has_left(clock.elapsed_s())

    async with pool:
        waiting = [asyncio.ensure_future(leave(rate_limiter)) for rate_limiter in rate_limiters * 2]
        for _ in range(10):
            await asyncio.sleep(0)
        clock.skip(seconds=10)  # someone's answer is slow
        assert left == []
    await asyncio.gather(*waiting)
    assert len(left) == 4
    assert min(after - before for before, after in pairwise(left)) >= 0.5


async def test_a_request_that_waits_for_a_slot_leaves_its_connection_to_others(state, rate_limiters, clock):
    pool, order = asyncio.Semaphore(1), []

    async def sleep(seconds):
        async with asyncio.timeout(1), rate_limiters[1].leaving(S2, pool):
            order.append(S2)
        await clock.sleep(seconds)

    waiting = RateLimiter(state, requests_per_second=2, sleep=sleep)
    await take_slot(rate_limiters[0], S1)
    async with waiting.leaving(S1, pool):
        order.append(S1)
    assert order == [S2, S1]
    assert not pool.locked()
    rate_limiters[1].pause(S1, 3600)
    with pytest.raises(ThrottledError):
        async with waiting.leaving(S1, pool):
            pytest.fail("it must not leave")
    assert not pool.locked()


async def test_requests_that_wait_for_new_connections_do_not_leave_together(rate_limiters, clock):
    """Three requests at once, and each new connection takes longer than the time between two slots."""
    pool, is_connected, connecting, left = asyncio.Semaphore(3), asyncio.Semaphore(0), [], []

    async def leave(name):
        async with rate_limiters[0].leaving(S1, pool) as has_left:
            connecting.append(name)
            await is_connected.acquire()
            left.append(clock.elapsed_s())
            has_left(clock.elapsed_s())

    waiting = [asyncio.ensure_future(leave(name)) for name in "abc"]
    for connections in range(1, 4):
        for _ in range(20):
            await asyncio.sleep(0)
        assert connecting == list("abc")[:connections]
        clock.skip(seconds=1.5)
        is_connected.release()
    await asyncio.gather(*waiting)
    assert min(after - before for before, after in pairwise(left)) >= 1.5


async def test_the_next_request_leaves_before_the_last_one_is_answered(rate_limiters, clock):
    pool, is_answered = asyncio.Semaphore(2), asyncio.Event()

    async def slow():
        async with rate_limiters[0].leaving(S1, pool) as has_left:
            has_left(clock.elapsed_s())
            await is_answered.wait()

    waiting = asyncio.ensure_future(slow())
    await asyncio.sleep(0)
    async with asyncio.timeout(1), rate_limiters[0].leaving(S1, pool):
        assert not waiting.done()
    is_answered.set()
    await waiting


async def test_a_request_that_was_never_sent_blocks_no_other(rate_limiters):
    pool = asyncio.Semaphore(1)
    with pytest.raises(OSError, match="refused"):
        async with rate_limiters[0].leaving(S1, pool):
            raise OSError("refused")
    async with asyncio.timeout(1), rate_limiters[0].leaving(S1, pool):
        assert pool.locked()
    assert not pool.locked()


@pytest.mark.parametrize("then", ["a request", "another pause"])
async def test_a_clock_that_was_ahead_silences_a_seller_for_a_day_at_most(state, rate_limiters, clock, then):
    clock.skip(seconds=400 * 86_400)
    rate_limiters[0].pause(S1, 60)
    clock.skip(seconds=-400 * 86_400)
    if then == "another pause":
        rate_limiters[1].pause(S1, 5)
    await take_slot(rate_limiters[1], S1)
    assert clock.slept == ([pytest.approx(5, abs=0.01)] if then == "another pause" else [])


async def test_a_slot_that_the_state_granted_late_postpones_the_next_one(state, clock, monkeypatch):
    take = state.rates.take

    def stalled(*given, **options):
        wait_s = take(*given, **options)
        clock.skip(seconds=2)  # the commit was answered late
        return wait_s

    def now():
        return clock.now().timestamp()

    with monkeypatch.context() as patched:
        patched.setattr(state.rates, "take", stalled)
        async with RateLimiter(state, requests_per_second=2, sleep=clock.sleep, monotonic=now).leaving(
            S1, asyncio.Semaphore(1)
        ) as has_left:
            has_left(now())
    left_at = now()
    async with RateLimiter(state, requests_per_second=2, sleep=clock.sleep, monotonic=now).leaving(
        S1, asyncio.Semaphore(1)
    ):
        assert now() - left_at >= 0.5
