"""A process that holds a seller's request rate paces its requests itself, and gives the rate up when others want it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import closing
from itertools import pairwise

import pytest
import sqlalchemy as sa
from other_leases import ELSEWHERE, QUICK, leave_lease, use_quick_leases
from wire import S1, S2, take_slot, wired

from crashes.clock import NOON
from feedamp.api import rate_limit
from feedamp.api.rate_limit import SPACING, RateLimiter
from feedamp.errors import RejectedError, TransientError
from feedamp.state import State, rate_leases, request_slots
from feedamp.state.lease_owner import new_owner
from feedamp.state.leases import Lease
from feedamp.state.schema import leases, slots

RATE = 10
_machine, _pid, _began, _ = new_owner().split(".")
DEAD = f"{_machine}.{_pid}.{int(_began) + 1}.0"  # a process of this machine that has ended


@pytest.fixture
def two(tmp_path):
    """The states of two processes on one database, in real time."""
    url = f"sqlite:///{tmp_path}/state.db"
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


def held(state, *seller_ids, live_at=0.0):
    """Another process holds these rates."""
    with state.begin() as connection:
        connection.execute(
            sa.insert(slots),
            [
                {
                    "seller_id": s,
                    "next_at": 0.0,
                    "held_by": "rate/other",
                    "used_by": "rate/other",
                    "live_at": live_at,
                }
                for s in seller_ids
            ],
        )


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

    limiter = limiter_of(state, sleep=clock.sleep, monotonic=clock.elapsed_s)
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
        limiter_of(state, sleep=clock.sleep, monotonic=clock.elapsed_s),
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
    limiter, room = limiter_of(state, sleep=clock.sleep, monotonic=clock.elapsed_s), asyncio.Semaphore(9)
    state.rates.hold([S1])
    async with limiter.leaving(S1, room) as left:
        left(clock.elapsed_s())
        limiter.pause(S1, 7)
    await take_slot(limiter, S1)
    assert clock.elapsed_s() == pytest.approx(7, abs=0.01)
    assert row_of(state).next_at - NOON.timestamp() == pytest.approx(7, abs=0.01)


async def test_after_a_rate_is_given_back_the_next_request_keeps_its_distance(state, clock):
    limiter = limiter_of(state, sleep=clock.sleep, monotonic=clock.elapsed_s)
    state.rates.hold([S1])
    await take_slot(limiter, S1)
    state.rates.give_all_back()
    assert (row_of(state).held_by, clock.elapsed_s()) == (None, 0)
    await take_slot(limiter, S1)
    assert clock.elapsed_s() >= 1 / RATE


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


async def test_a_pause_that_another_process_hears_ends_the_hold(two, looks_often):
    one, other = two
    one.rates.hold([S1])
    limiter = limiter_of(one, patience_s=0.5)
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
    held(state, S1)
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
