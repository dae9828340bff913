"""Live work keeps its pace while work on history asks for requests of the same seller."""

from __future__ import annotations

import heapq
from datetime import timedelta
from itertools import pairwise

import pytest
from wire import S1, S2, take_slot

from crashes.clock import NOON
from feedamp.api.rate_limit import RateLimiter
from feedamp.state import request_slots

INTERVAL_S = 0.5
SLOTS = 50
OVER_S = request_slots.OVER * INTERVAL_S


def take(connection, moment_s, share=None, seller_id=S1):
    now = NOON + timedelta(seconds=moment_s)
    return request_slots.take(
        connection, seller_id, process="one", now=now, interval_s=INTERVAL_S, history_share=share
    ).wait_s


def sent(state, *answered_after_s, history=3, share=0.5, live_ends_s=SLOTS * INTERVAL_S):
    """When live work and history sent requests, in `SLOTS` slots; one worker for each time in which answers come.

    Workers of history are answered after a tenth of a second. Each sends its next request after the last answer.
    """
    workers = [(0.0, f"live {n}", after_s, None) for n, after_s in enumerate(answered_after_s)]
    workers += [(0.0, f"history {n}", 0.1, share) for n in range(history)]
    moments = {"live": [], "history": []}
    with state.begin() as connection:
        while workers and workers[0][0] < SLOTS * INTERVAL_S:
            now, name, after_s, of_rate = heapq.heappop(workers)
            if of_rate is None and now >= live_ends_s:
                continue
            wait_s = take(connection, now, of_rate)
            if wait_s == 0:
                moments[name.split()[0]].append(now)
            heapq.heappush(workers, (now + (wait_s or after_s) + 1e-6, name, after_s, of_rate))
        connection.rollback()
    together = sorted(moments["live"] + moments["history"])
    assert min(after - before for before, after in pairwise(together)) >= INTERVAL_S
    return moments["live"], moments["history"]


@pytest.mark.parametrize(
    "answered_after_s",
    [
        pytest.param([0.02], id="answered at once"),
        pytest.param([0.8], id="answered later than the next slot"),
        pytest.param([5.05], id="answered when history takes its share"),
        pytest.param([0.3, 0.3], id="two processes"),
    ],
)
def test_live_work_gets_a_tenth_slower_at_most(state, answered_after_s):
    alone, _ = sent(state, *answered_after_s, history=0)
    beside, history = sent(state, *answered_after_s)
    assert len(beside) >= len(alone) / 1.1
    assert history


@pytest.mark.parametrize("share", [1.0, 0.1, 0.02])
def test_history_takes_its_share_at_most_while_live_work_goes_on(state, share):
    for after_s in (0.02, 5.05):
        _, history = sent(state, after_s, share=share)
        assert 1 <= len(history) <= 1 + share * SLOTS


def test_history_takes_every_slot_when_no_live_work_wants_one(state):
    _, alone = sent(state)
    assert len(alone) == SLOTS
    _, after = sent(state, 0.02, live_ends_s=10)
    assert [moment for moment in after if moment > 10 + OVER_S] == pytest.approx(
        [after[-1] - n * INTERVAL_S for n in range(int((SLOTS * INTERVAL_S - 10 - OVER_S) / INTERVAL_S))][
            ::-1
        ],
        abs=0.01,
    )


def test_live_work_of_one_seller_does_not_slow_down_the_history_of_others(state):
    with state.begin() as connection:
        assert take(connection, 0.0) == 0
        assert take(connection, 0.0, 0.5, S2) == 0
        assert take(connection, INTERVAL_S, 0.5, S2) == 0


def test_after_a_pause_of_feedamp_live_work_goes_first(state):
    with state.begin() as connection:
        assert take(connection, 0.0, 0.5) == 0
        request_slots.postpone(connection, S1, now=NOON, seconds=6)
        assert take(connection, 0.1, 0.5) == pytest.approx(5.9)
        assert take(connection, 0.1) == pytest.approx(5.9)  # it wants the slot at the end of the pause
        assert take(connection, 6.0, 0.5) > 0
        assert take(connection, 6.1) == 0


def test_a_clock_that_was_ahead_makes_history_give_way_for_a_day_at_most(state):
    with state.begin() as connection:
        take(connection, 400 * 86_400)
        assert take(connection, 0.0, 0.5) == 0


async def test_history_waits_on_where_live_work_makes_it_wait_for_minutes(state, clock):
    """It is no pause that FeedAMP asked for, which a task leaves to a later run."""
    slow = {"requests_per_second": 0.05, "sleep": clock.sleep, "monotonic": clock.elapsed_s}
    live, history = RateLimiter(state, **slow), RateLimiter(state, **slow, history_share=0.5)
    for rate_limiter in (history, live, history):
        await take_slot(rate_limiter, S1)
    assert clock.elapsed_s() > request_slots.QUIET / 0.05
