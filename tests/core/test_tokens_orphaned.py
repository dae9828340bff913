"""A process that dies before it stores FeedAMP's answer: only its sellers must authorize again."""

from __future__ import annotations

import pytest
from other_leases import DEAD, leave_lease, use_quick_leases
from wire import S1, S2, run_from, wired

from crashes.clock import NOON
from feedamp.api.rate_limit import QUICK_RETRIES
from feedamp.errors import AuthorizationError, ThrottledError
from feedamp.state import leases
from feedamp.state.sellers import ACTIVE, NEEDS_AUTHORIZATION
from feedamp.steps.refused_grants import decide_refusals

SIX = [f"seller-{number:03d}" for number in range(1, 7)]
HOUR_S = 3600


async def die_with_the_answers(wire, *seller_ids):
    """What a killed process leaves: its leases, and tokens that FeedAMP has exchanged but that were not stored."""
    for seller_id in seller_ids:
        grant = wire.grant(seller_id)
        leave_lease(wire.state, leases.of_refresh(seller_id), DEAD)
        with wire.sandbox.world.lock:
            wire.sandbox.world.grants.exchange_refresh_token(grant.refresh_token)
            wire.sandbox.world.grants.answer_was_lost(grant.refresh_token)
    wire.clock.skip(seconds=HOUR_S)


async def ask(tokens, *seller_ids):
    errors = []
    for seller_id in seller_ids:
        try:
            await tokens.live(seller_id)
        except AuthorizationError as error:
            errors.append((seller_id, type(error)))
    return errors


def statuses(wire, *seller_ids):
    return [wire.grant(seller_id).status for seller_id in seller_ids]


async def test_all_sellers_of_a_dead_process_are_marked_and_the_client_is_not_blamed():
    async with wired(sellers=6, revoke_on_reuse=True) as wire:
        await die_with_the_answers(wire, *SIX)
        tokens = wire.other_tokens()
        assert await ask(tokens, *SIX) == [(seller_id, AuthorizationError) for seller_id in SIX]
        assert (tokens.newly_lost(), tokens.newly_lost()) == (SIX, [])
        assert decide_refusals(wire.state, run_from(wire.clock.now())) == []
        assert statuses(wire, *SIX) == [NEEDS_AUTHORIZATION] * 6
        assert wire.sandbox.broken_rules == []


async def test_what_a_dead_process_left_is_known_after_a_pause_too():
    async with wired(sellers=1, revoke_on_reuse=True) as wire:
        use_quick_leases(wire.state)
        await die_with_the_answers(wire, S1)
        wire.state.rates.pause_token_calls(S1, 90)
        tokens = wire.other_tokens()
        with pytest.raises(ThrottledError):
            await tokens.live(S1)
        wire.clock.skip(seconds=90)
        with pytest.raises(AuthorizationError):
            await tokens.live(S1)
        assert tokens.newly_lost() == [S1]


async def test_with_a_grace_period_no_seller_of_a_dead_process_is_lost():
    async with wired(sellers=6, refresh_grace_s=24 * HOUR_S) as wire:
        await die_with_the_answers(wire, *SIX)
        tokens = wire.other_tokens()
        assert (await ask(tokens, *SIX), tokens.newly_lost()) == ([], [])
        assert [wire.grant(s).refresh_token for s in SIX] == [wire.sandbox.refresh_token(s) for s in SIX]


async def test_a_refused_client_takes_the_marks_of_this_run_back():
    async with wired(sellers=6) as wire:
        await die_with_the_answers(wire, S1)
        for seller_id in SIX[1:]:
            wire.sandbox.revoke(seller_id)
        tokens = wire.other_tokens()
        await ask(tokens, *SIX)
        assert statuses(wire, S1) == [NEEDS_AUTHORIZATION]
        [problem] = decide_refusals(wire.state, run_from(wire.clock.now()))
        assert "client id or secret refused" in problem
        assert statuses(wire, *SIX) == [ACTIVE] * 6


async def test_sellers_marked_before_do_not_blame_the_client():
    async with wired(sellers=7) as wire:
        await wire.tokens.live("seller-007")
        for seller_id in SIX:
            wire.sandbox.revoke(seller_id)
        await ask(wire.tokens, *SIX)
        decide_refusals(wire.state, run_from(NOON))
        wire.clock.skip(seconds=24 * HOUR_S)
        tomorrow = wire.other_tokens()
        for seller_id in SIX:
            with pytest.raises(AuthorizationError) as caught:
                await tomorrow.renew(seller_id)
            assert type(caught.value) is AuthorizationError
        assert decide_refusals(wire.state, run_from(wire.clock.now())) == []


async def test_a_refresh_that_merely_failed_leaves_no_such_mark():
    async with wired() as wire:
        wire.sandbox.fault("error_503", path="access_token", times=QUICK_RETRIES + 1)
        await ask_and_fail(wire.tokens)
        with wire.state.leases.hold(leases.of_refresh(S2)) as lease:
            assert not lease.was_left


async def ask_and_fail(tokens):
    with pytest.raises(Exception, match="token"):
        await tokens.live(S2)
