"""Live access tokens: refreshed in time, stored before they are used, never refreshed twice (promise 7)."""

from __future__ import annotations

import asyncio
import time
from threading import get_ident

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from other_leases import QUICK, leave_lease, use_quick_leases
from scripted import answer, scripted, token_answer
from wire import S1, S2, take_slot, wired

from crashes.clock import NOON
from feedamp.api import tokens as tokens_module
from feedamp.api.rate_limit import QUICK_RETRIES
from feedamp.api.transport import Endpoint, Transport
from feedamp.errors import (
    AuthorizationError,
    BusyError,
    ConfigurationError,
    ThrottledError,
    TransientError,
    UnclearError,
)
from feedamp.state import leases, schema
from feedamp.state.leases import Leases
from feedamp.state.token_cipher import TokenCipher


@pytest.fixture
async def wire():
    async with wired() as connected:
        yield connected
        assert connected.sandbox.broken_rules == []


async def test_the_first_token_is_refreshed_and_both_are_stored(wire):
    token = await wire.tokens.live(S1)
    grant = wire.grant()
    assert (grant.access_token, grant.version) == (token.value, token.version)
    assert grant.refresh_token == wire.sandbox.refresh_token(S1)
    assert (grant.refreshed_at, grant.issued_at, grant.expires_in_s) == (NOON, NOON, 3600)


@pytest.mark.parametrize("again", ["the same run", "another process"])
@pytest.mark.parametrize(
    ("lifetime_s", "margin_s"),
    [
        pytest.param(3600, 120, id="an hour: 120 s before its end"),
        pytest.param(600, 120, id="ten minutes: 120 s, which is 20 %"),
        pytest.param(300, 60, id="five minutes: 20 %"),
        pytest.param(10, 2, id="ten seconds: 20 %"),
    ],
)
async def test_a_token_is_refreshed_with_little_of_its_life_left(lifetime_s, margin_s, again):
    async with wired(token_lifetime_s=lifetime_s) as wire:
        first = await wire.tokens.live(S1)
        tokens = wire.tokens if again == "the same run" else wire.other_tokens()
        wire.clock.skip(seconds=lifetime_s - margin_s - 1)
        assert (await tokens.live(S1)).value == first.value
        wire.clock.skip(seconds=1)
        assert (await tokens.live(S1)).value != first.value
        assert wire.refreshes == 2


async def test_the_pair_is_stored_before_its_access_token_is_used():
    stored = []

    def look(exchange):
        if "/orders" in exchange.url:
            grant = wire.grant()
            stored.append(exchange.request_headers["Authorization"] == f"Bearer {grant.access_token}")
            stored.append(grant.refresh_token == wire.sandbox.refresh_token(S1))

    async with wired(observer=look) as wire:
        wire.place("M-1")
        await wire.client().get_order("M-1")
        wire.sandbox.expire_access_tokens()
        await wire.client().get_order("M-1")
    assert stored == [True] * 2 * 3  # the first use, the one that met a 401, and its repeat


async def test_the_token_that_worked_is_kept_until_the_next_has_worked(wire):
    await wire.tokens.live(S1)
    second = wire.grant().refresh_token
    await wire.tokens.renew(S1)
    assert wire.grant().previous_refresh_token == second


async def test_a_server_that_does_not_rotate_leaves_the_year_running(wire):
    async with scripted(token_answer()) as script, Transport(Endpoint(script.url)) as transport:
        wire.give_grant("rt-1")
        wire.clock.skip(seconds=60)
        await wire.other_tokens(transport=transport).live(S1)
    grant = wire.grant()
    assert (grant.previous_refresh_token, grant.issued_at) == (None, NOON)
    assert (grant.ends_at - NOON).days == 365


async def test_a_refresh_token_without_an_access_token_is_stored_and_sent_next(wire):
    only_refresh = answer(b'{"refresh_token":"rt-1","access_tok')
    async with (
        scripted(only_refresh, token_answer(2)) as script,
        Transport(Endpoint(script.url)) as transport,
    ):
        tokens = wire.other_tokens(transport=transport)
        with pytest.raises(UnclearError, match="its refresh token is stored"):
            await tokens.live(S1)
        assert wire.grant().refresh_token == "rt-1"
        assert (await tokens.live(S1)).value == "at-2"
    assert b"refresh_token=rt-1&" in script.requests[1]


async def test_a_grant_that_is_missing_is_looked_for_outside_the_event_loop(wire):
    asked_in = []
    sa.event.listen(wire.state.engine, "before_cursor_execute", lambda *_: asked_in.append(get_ident()))
    found = await asyncio.gather(wire.tokens.live("S-8"), wire.tokens.live("S-9"), return_exceptions=True)
    assert [error.message for error in found] == ["The seller has no grant yet."] * 2
    assert asked_in
    assert get_ident() not in asked_in


async def test_sellers_who_wait_together_get_an_error_each(wire):
    with wire.state.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE grants RENAME TO away")
    one, other = await asyncio.gather(wire.tokens.live(S1), wire.tokens.live(S2), return_exceptions=True)
    assert type(one) is type(other)
    assert one is not other


async def test_many_coroutines_make_one_refresh(wire):
    tokens = await asyncio.gather(*(wire.tokens.live(S1) for _ in range(10)))
    assert (len({token.value for token in tokens}), wire.refreshes) == (1, 1)
    stale = tokens[0]
    tokens = await asyncio.gather(*(wire.tokens.replace(S1, stale) for _ in range(10)))
    assert (len({token.value for token in tokens}), wire.refreshes) == (1, 2)


async def test_two_runs_at_once_make_one_refresh(wire):
    others = [wire.other_tokens() for _ in range(4)]
    tokens = await asyncio.gather(*(run.live(S1) for run in others))
    assert (len({token.value for token in tokens}), wire.refreshes) == (1, 1)
    tokens = await asyncio.gather(*(run.replace(S1, tokens[0]) for run in others))
    assert (len({token.value for token in tokens}), wire.refreshes) == (1, 2)


async def test_each_seller_has_a_token_of_its_own(wire):
    tokens = await asyncio.gather(wire.tokens.live(S1), wire.tokens.live(S2))
    assert (tokens[0].value != tokens[1].value, wire.refreshes) == (True, 2)


@pytest.mark.parametrize("given", ["a new refresh token", "the one that was sent", "none"])
async def test_an_access_token_of_another_seller_is_not_used(wire, given):
    before = wire.grant(S2).refresh_token
    refresh_token = {"a new refresh token": "rt-of-2", "the one that was sent": before}.get(given)
    pairs = [{"access_token": "at-of-1", "refresh_token": rt} for rt in ("rt-of-1", refresh_token)]
    pairs.append({"access_token": "at-of-2", "refresh_token": "rt-of-2-then"})
    async with (
        scripted(*(answer(pair) for pair in pairs)) as script,
        Transport(Endpoint(script.url, timeout_s=5)) as transport,
    ):
        tokens = wire.other_tokens(transport=transport)
        await tokens.live(S1)
        with pytest.raises(UnclearError, match=f"the access token of seller {S1}"):
            await tokens.live(S2)
        newest = "rt-of-2" if given == "a new refresh token" else before
        assert wire.grant(S2).refresh_token == newest
        assert (await tokens.live(S2)).value == "at-of-2"
    assert newest.encode() in script.requests[-1]


async def test_a_token_that_another_process_has_replaced_is_taken_from_the_store(wire):
    stale = await wire.tokens.live(S1)
    newer = await wire.other_tokens().replace(S1, stale)
    assert await wire.tokens.replace(S1, stale) == newer
    assert wire.refreshes == 2


async def test_renew_refreshes_whatever_is_left(wire):
    first = await wire.tokens.live(S1)
    assert (await wire.tokens.renew(S1)).value != first.value
    assert wire.refreshes == 2


async def test_a_seller_without_a_grant_requires_action(wire):
    with pytest.raises(AuthorizationError) as caught:
        await wire.tokens.live("no one")
    assert caught.value.seller_id == "no one"


async def test_the_refresh_lease_of_a_dead_process_is_free_after_a_while(wire):
    use_quick_leases(wire.state)
    leave_lease(wire.state, leases.of_refresh(S1))
    began = time.monotonic()
    await wire.tokens.live(S1)
    assert time.monotonic() - began > QUICK.free_after_s


async def test_a_lease_that_never_ends_is_not_waited_for_without_end(wire, monkeypatch):
    monkeypatch.setattr(tokens_module, "_WAIT_AT_MOST_S", 20.0)
    monkeypatch.setattr(tokens_module, "elapsed_s", wire.clock.elapsed_s)
    leave_lease(wire.state, leases.of_refresh(S1))
    with pytest.raises(BusyError) as caught:
        await wire.tokens.live(S1)
    assert (caught.value.seller_id, wire.refreshes) == (S1, 0)
    slept = wire.clock.slept  # the clock also goes on by itself
    assert slept == [0.05, 0.1, 0.2, 0.4, *[0.5] * len(slept)][: len(slept)]
    assert 0 < sum(slept) < 20.0 + 0.5


async def test_a_refresh_that_takes_long_keeps_its_lease():
    loop, under_way = asyncio.get_running_loop(), asyncio.Event()

    def look(exchange):
        loop.call_soon_threadsafe(under_way.set)

    async with wired(look) as wire:
        use_quick_leases(wire.state)
        others = Leases(wire.state.begin, wire.state.now, QUICK)
        wire.sandbox.fault("slow_drip", path="access_token", seconds=1.5 * QUICK.free_after_s)
        refresh = asyncio.create_task(wire.tokens.live(S1))
        await under_way.wait()
        until = loop.time() + 1.2 * QUICK.free_after_s
        while loop.time() < until:
            await asyncio.sleep(QUICK.look_every_s)
            with others.hold(leases.of_refresh(S1)) as lease:
                assert lease is None or wire.grant().access_token is not None
        await refresh
        assert wire.refreshes == 1


async def test_a_failed_refresh_gives_the_lease_back(wire):
    wire.sandbox.fault("error_503", path="access_token", times=QUICK_RETRIES + 1)
    with pytest.raises(UnclearError):
        await wire.tokens.live(S1)
    pauses = len(wire.clock.slept)
    await wire.other_tokens().live(S1)
    assert len(wire.clock.slept) == pauses == QUICK_RETRIES


def wait_for_token(wire):
    give_up_at = time.monotonic() + 10
    while wire.grant().access_token is None and time.monotonic() < give_up_at:
        time.sleep(0.01)


async def test_a_cancelled_refresh_still_stores_what_feedamp_answers():
    loop, under_way = asyncio.get_running_loop(), asyncio.Event()

    def look(exchange):
        loop.call_soon_threadsafe(under_way.set)

    async with wired(look, refresh_grace_s=60) as wire:
        wire.sandbox.fault("slow_drip", path="access_token", seconds=0.2)
        refresh = asyncio.create_task(wire.tokens.live(S1))
        await under_way.wait()
        refresh.cancel()
        with pytest.raises(asyncio.CancelledError):
            await refresh
        await asyncio.to_thread(wait_for_token, wire)
        await wire.other_tokens().live(S1)
        assert wire.refreshes == 1


async def test_lost_answers_are_asked_for_again_with_the_same_token():
    async with wired(refresh_grace_s=60) as wire:
        wire.sandbox.fault("lost_refresh", times=QUICK_RETRIES)
        await wire.tokens.live(S1)
        assert wire.refreshes == QUICK_RETRIES + 1
        assert wire.grant().refresh_token == wire.sandbox.refresh_token(S1)
        assert wire.sandbox.broken_rules == []


@pytest.mark.parametrize(
    ("after", "slept"), [pytest.param("7", [7], id="7 s"), pytest.param("90", [], id="more than a minute")]
)
async def test_a_refresh_is_repeated_when_a_5xx_says_so(wire, after, slept):
    answers = [answer(status=503, Retry_After=after), token_answer()]
    async with scripted(*answers) as script, Transport(Endpoint(script.url)) as transport:
        tokens = wire.other_tokens(transport=transport)
        if slept:
            await tokens.live(S1)
        else:
            with pytest.raises(UnclearError) as caught:
                await tokens.live(S1)
            assert caught.value.retry_after_s == 90
    assert wire.clock.slept == slept


@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_of_a_token_call_holds_in_every_process_of_that_seller(wire, status):
    answers = [answer(status=status, Retry_After="90"), token_answer()]
    async with scripted(*answers) as script, Transport(Endpoint(script.url)) as transport:
        with pytest.raises(TransientError) as asked:
            await wire.other_tokens(transport=transport).live(S1)
        assert asked.value.retry_after_s == 90
        wire.clock.skip(seconds=20)
        with pytest.raises(ThrottledError) as told:
            await wire.other_tokens(transport=transport).live(S1)
        assert told.value.retry_after_s == pytest.approx(70, abs=0.1)
        await take_slot(wire.rate_limiter, S1)  # what needs no token call goes on
        assert len(script.requests) == 1
        assert wire.clock.slept == []

        wire.clock.skip(seconds=20)
        await wire.other_tokens(transport=transport).live(S1)  # less than a minute is waited for
        assert sum(wire.clock.slept) == pytest.approx(50, abs=0.1)
        assert len(script.requests) == 2


async def test_a_lost_answer_is_asked_for_although_its_pause_cannot_be_stored(wire):
    with wire.state.begin() as connection:
        full = "CREATE TRIGGER full BEFORE INSERT ON slots BEGIN SELECT RAISE(ABORT, 'full'); END"
        connection.execute(sa.text(full))
    answers = [answer(status=503, Retry_After="2"), token_answer()]
    async with scripted(*answers) as script, Transport(Endpoint(script.url)) as transport:
        assert (await wire.other_tokens(transport=transport).live(S1)).value
        assert len(script.requests) == 2
    assert wire.clock.slept == [2]


async def test_a_pause_of_a_token_call_holds_for_its_seller_only(wire):
    wire.sandbox.fault("throttle", path="access_token", seconds=90)
    with pytest.raises(ThrottledError):
        await wire.tokens.live(S1)
    await wire.other_tokens().live(S2)
    assert wire.clock.slept == []


@pytest.mark.parametrize("pause_s", [0, 86_000])
async def test_neither_the_distance_nor_a_pause_of_requests_delays_a_refresh(wire, pause_s):
    await take_slot(wire.rate_limiter, S1)
    wire.rate_limiter.pause(S1, pause_s)
    await wire.tokens.live(S1)
    assert wire.clock.slept == []


async def test_answers_that_stay_lost_leave_the_grant_as_it_was(wire):
    before = wire.grant()
    wire.sandbox.fault("reset_before", path="access_token", times=None)
    with pytest.raises(UnclearError):
        await wire.tokens.live(S1)
    assert (wire.grant(), wire.refreshes) == (before, QUICK_RETRIES + 1)


async def test_a_lost_answer_is_not_asked_for_again_after_a_minute(wire, monkeypatch):
    monkeypatch.setattr(tokens_module, "UNCLEAR_REPEATED_FOR_S", 0.0)
    wire.sandbox.fault("reset_before", path="access_token", times=None)
    with pytest.raises(UnclearError):
        await wire.tokens.live(S1)
    assert wire.refreshes == 1


async def test_without_a_listening_server_no_refresh_is_tried_again(wire):
    async with Transport(Endpoint("http://127.0.0.1:9/api/v1")) as transport:
        with pytest.raises(TransientError):
            await wire.other_tokens(transport=transport).live(S1)
        assert transport.requests == 1


async def test_every_secret_is_told_to_who_masks_them(wire):
    told = []
    token = await wire.other_tokens(on_secret=told.append).live(S1)
    assert set(told) == {token.value, wire.grant().refresh_token}


async def test_a_stored_token_is_told_to_who_masks_them(wire):
    token, told = await wire.tokens.live(S1), []
    await wire.other_tokens(on_secret=told.append).live(S1)
    assert told == [token.value]


async def test_a_lost_key_of_a_refresh_token_matters_once_that_is_sent(wire):
    token = await wire.tokens.live(S1)
    sealed = TokenCipher(Fernet.generate_key().decode()).encrypt(wire.grant().refresh_token)
    with wire.state.begin() as connection:
        connection.execute(sa.update(schema.grants).values(refresh_token=sealed))
    assert await wire.other_tokens().live(S1) == token
    wire.clock.skip(hours=1)
    for _ in range(2):  # the second time, too: the lease is free
        with pytest.raises(ConfigurationError, match=rf"seller {S1} .* NEW,FORMER"):
            await wire.tokens.live(S1)
    assert wire.refreshes == 1


async def test_a_generation_that_was_replaced_is_not_refreshed(wire, monkeypatch):
    """Between its read of the grant and its lease, another process may have refreshed the token."""
    late = wire.other_tokens()
    hold = wire.state.leases.hold

    def after_the_others(name, **options):
        monkeypatch.undo()
        asyncio.run(refreshed_elsewhere())
        return hold(name, **options)

    async def refreshed_elsewhere():
        async with Transport(wire.transport.endpoint) as transport:
            await wire.other_tokens(transport=transport).live(S1)

    monkeypatch.setattr(wire.state.leases, "hold", after_the_others)
    token = await late.live(S1)
    assert (wire.refreshes, token.value) == (1, wire.grant().access_token)


async def test_a_grant_that_was_removed_meanwhile_is_not_refreshed(wire, monkeypatch):
    hold = wire.state.leases.hold

    def after_the_removal(name, **options):
        monkeypatch.undo()
        with wire.state.begin() as connection:
            connection.execute(sa.delete(schema.grants))
        return hold(name, **options)

    monkeypatch.setattr(wire.state.leases, "hold", after_the_removal)
    with pytest.raises(AuthorizationError, match="no grant yet"):
        await wire.tokens.live(S1)
    assert wire.refreshes == 0


async def test_a_lost_key_of_one_access_token_stops_no_other_seller(wire):
    token = await wire.tokens.live(S2)
    await wire.tokens.live(S1)
    sealed = TokenCipher(Fernet.generate_key().decode()).encrypt("at")
    with wire.state.begin() as connection:
        of_one = schema.grants.c.seller_id == S1
        connection.execute(sa.update(schema.grants).where(of_one).values(access_token=sealed))
    live = wire.other_tokens().live
    lost, served = await asyncio.gather(live(S1), live(S2), return_exceptions=True)
    assert (type(lost), served) == (ConfigurationError, token)
