"""Several processes on one state, all at the same moment: its creation, its key, the rate and the refreshes."""

from __future__ import annotations

import asyncio
from contextlib import closing
from itertools import pairwise

import pytest
from expiries import SELLERS, Outcome, read_through_expiries
from processes import hash_with_data_key, make_key, open_state, take_turns
from wire import KEY, S1, take_slot

from crashes.clock import NOON, Clock
from feedamp.api.rate_limit import SPACING, RateLimiter
from feedamp.state import HEAD, State, upgrade
from feedamp.state.token_cipher import TokenCipher


@pytest.mark.parametrize("attempt", range(3))
def test_an_empty_database_is_brought_to_the_head_by_all_at_once(four, url, attempt):
    assert four.run(open_state, url) == [HEAD] * four.count


@pytest.mark.parametrize("attempt", range(3))
def test_all_end_up_with_the_one_key_that_was_made(four, tmp_path, attempt):
    keys = four.run(make_key, str(tmp_path / "state.db"))
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.db.key"]


@pytest.mark.parametrize("is_earlier", [False, True], ids=["a new state", "a state of an earlier version"])
def test_all_end_up_with_one_data_key(four, url, is_earlier):
    if is_earlier:
        with closing(State(url)) as state, state.begin() as connection:
            upgrade._derive_the_data_key(connection)
    found = set(four.run(hash_with_data_key, url, KEY))
    assert len(found) == 1
    assert (TokenCipher(KEY).fingerprint("token", "rt-1") in found) == is_earlier


def test_all_processes_together_keep_to_the_rate(four, url):
    State(url).close()
    came = sorted(moment for moments in four.run(take_turns, url, 4) for moment in moments)
    assert len(came) == 4 * four.count
    # A process may be delayed between its slot and its clock, so the total is measured and not each gap.
    assert came[-1] - came[0] >= (len(came) - four.count) * 0.1 * SPACING


def test_each_expiry_is_refreshed_exactly_once(four, url):
    outcome = read_through_expiries(four, url, rounds=3)
    assert outcome == Outcome([3 * SELLERS] * four.count, [3] * SELLERS, [])


async def test_two_rate_limiters_of_one_process_stay_within_the_rate(url):
    clock, left = Clock(keeps_still=True), []
    with closing(State(url, clock=clock.now)) as one, closing(State(url, clock=clock.now)) as other:
        rate_limiters = [
            RateLimiter(state, requests_per_second=2, sleep=clock.sleep) for state in (one, other)
        ]

        async def leave(rate_limiter):
            await take_slot(rate_limiter, S1)
            left.append((clock.now() - NOON).total_seconds())

        for _ in range(4):
            await asyncio.gather(*(leave(rate_limiter) for rate_limiter in rate_limiters))
        rate_limiters[0].pause(S1, 10)
        paused_at = left[-1]
        await leave(rate_limiters[1])
    assert min(after - before for before, after in pairwise(left)) >= 0.5
    assert left[7] == pytest.approx(7 * 0.5 * SPACING, abs=0.02)
    assert left[8] - paused_at == pytest.approx(10, abs=0.01)
