"""Refused grants: whether client or seller is at fault, what is tried first, and that a seller is marked once."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import datetime

import pytest
from wire import CONN, S1, S2, Wire, add_seller, run_from, wired

from feedamp.errors import AuthorizationError, ClientRefusedError, UnclearError
from feedamp.run import Run
from feedamp.state import departures, grants, sellers
from feedamp.steps.refused_grants import decide_refusals

FIVE = [f"seller-{n:03d}" for n in range(1, 6)]


@pytest.fixture
async def wire():
    async with wired(sellers=8) as connected:
        yield connected


async def refused(tokens, *seller_ids):
    """The errors raised when these sellers' tokens are requested."""
    errors = []
    for seller_id in seller_ids:
        with pytest.raises(AuthorizationError) as caught:
            await tokens.live(seller_id)
        errors.append(caught.value)
    return errors


def marked(wire: Wire) -> list[str]:
    with wire.state.read() as connection:
        return [s.seller_id for s in sellers.find(connection) if s.grant == sellers.NEEDS_AUTHORIZATION]


def newly_marked(wire: Wire, *, since: datetime | None = None) -> list[str]:
    """The sellers that the end of a run marks; the run started at `since`, by default now.

    Raises:
        ClientRefusedError: the client is at fault.
    """
    before = marked(wire)
    if problems := decide_refusals(wire.state, run_from(since or wire.clock.now())):
        raise ClientRefusedError(problems[0])
    return [seller_id for seller_id in marked(wire) if seller_id not in before]


async def test_a_refused_seller_is_marked_once_at_the_end_of_the_run(wire):
    wire.sandbox.revoke(S1)
    (error,) = await refused(wire.tokens, S1)
    assert (type(error), error.seller_id, marked(wire)) == (AuthorizationError, S1, [])
    assert (newly_marked(wire), marked(wire)) == ([S1], [S1])
    assert newly_marked(wire) == []


async def test_everyone_else_goes_on(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1)
    assert (await wire.tokens.live(S2)).value


async def test_a_refused_grant_is_asked_for_once_a_run(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1, S1, S1)
    assert wire.refreshes == 1


async def test_a_marked_seller_costs_the_next_run_no_request(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1)
    newly_marked(wire)
    later = wire.other_tokens()
    await refused(later, S1)
    assert (newly_marked(wire), wire.refreshes) == ([], 1)


async def test_renew_asks_for_a_marked_seller_again_and_frees_it(wire):
    wire.sandbox.fault("refuse_token", path="access_token")
    await refused(wire.tokens, S1)
    newly_marked(wire)
    later = wire.other_tokens()
    await later.renew(S1)
    assert (newly_marked(wire), marked(wire)) == ([], [])


async def test_renew_of_a_seller_that_stays_refused_reports_nothing_new(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1)
    newly_marked(wire)
    later = wire.other_tokens()
    with pytest.raises(AuthorizationError):
        await later.renew(S1)
    assert (newly_marked(wire), marked(wire), wire.refreshes) == ([], [S1], 2)


async def test_a_grant_that_a_person_gives_frees_the_seller_at_once(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1)
    newly_marked(wire)
    wire.new_consent("rt-new")
    wire.give_grant("rt-new")
    assert marked(wire) == []
    await wire.tokens.live(S1)


def added_again(wire: Wire, refresh_token: str) -> None:
    """The seller is removed and added with a grant of its own, whose generations begin again at 1."""
    with wire.state.begin() as connection:
        departures.drop_registration(connection, S1)
    add_seller(wire.state, wire.cipher, S1, refresh_token)
    wire.new_consent(refresh_token)


async def test_what_is_known_of_a_removed_grant_does_not_count_for_the_one_after_it(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1)
    before = wire.grant()
    added_again(wire, "rt-new")
    assert wire.grant().generation == before.generation
    stale = await wire.tokens.live(S1)

    added_again(wire, "rt-newer")
    newer = await wire.other_tokens().live(S1)
    assert stale.version[1] == newer.version[1]
    asked = wire.refreshes
    assert (await wire.tokens.replace(S1, stale)).value == newer.value
    assert wire.refreshes == asked


async def test_a_refusal_does_not_reach_a_seller_that_was_added_again_meanwhile():
    def is_added_again(exchange):
        if not done:
            done.append(added_again(wire, "rt-new"))

    done: list[None] = []
    async with wired(observer=is_added_again) as wire:
        wire.sandbox.revoke(S1)
        assert await wire.tokens.live(S1)
        assert (newly_marked(wire), wire.grant().refused_at) == ([], None)


async def test_an_outage_marks_no_seller(wire):
    wire.sandbox.fault("error_503", path="access_token", times=None)
    with pytest.raises(UnclearError):
        await wire.tokens.live(S1)
    assert (newly_marked(wire), marked(wire)) == ([], [])


async def test_a_lost_answer_of_a_server_without_a_grace_period_requires_action(wire):
    wire.sandbox.fault("lost_refresh")
    await refused(wire.tokens, S1)
    assert newly_marked(wire) == [S1]


async def test_the_token_before_is_the_last_resort(wire):
    working, before = wire.sandbox.refresh_token(S1), wire.grant()
    with wire.state.begin() as connection:  # the newest token never became valid
        grants.store_tokens(
            connection,
            wire.cipher,
            before,
            used_token=working,
            refresh_token="rt-never-in-force",
            access_token="at-over",
            expires_in_s=1,
            now=wire.clock.now(),
        )
    wire.clock.skip(seconds=1)
    await wire.tokens.live(S1)
    grant = wire.grant()
    assert (grant.refresh_token, grant.previous_refresh_token) == (wire.sandbox.refresh_token(S1), working)
    assert (newly_marked(wire), wire.refreshes) == ([], 2)


async def test_a_refusal_after_another_process_was_first_takes_what_it_stored():
    def another_process_is_first(exchange):
        with wire.state.begin() as connection:
            grants.store_tokens(
                connection,
                wire.cipher,
                grants.read(connection, wire.cipher, S1),
                used_token="rt-spent",
                refresh_token="rt-other",
                access_token="at-other",
                expires_in_s=3600,
                now=wire.clock.now(),
            )

    async with wired(observer=another_process_is_first) as wire:
        wire.sandbox.revoke(S1)
        assert (await wire.tokens.live(S1)).value == "at-other"
        assert (newly_marked(wire), wire.refreshes, wire.grant().refused_at) == ([], 1, None)


@pytest.mark.parametrize("old_grant", ["refused", "still good"])
async def test_a_grant_that_a_person_gives_during_a_refresh_wins(old_grant):
    def a_person_is_first(exchange):
        if not given:
            given.append(wire.give_grant("rt-new"))
            wire.new_consent("rt-new")

    given = []
    async with wired(observer=a_person_is_first) as wire:
        if old_grant == "refused":
            wire.sandbox.revoke(S1)
        token = await wire.tokens.live(S1)
        wire.place("M-1")
        await wire.client().get_order("M-1")
        grant = wire.grant()
        assert (grant.access_token, grant.previous_refresh_token) == (token.value, "rt-new")
        assert (newly_marked(wire), wire.refreshes) == ([], 2)


async def test_a_refusal_that_names_the_client_marks_no_seller(wire):
    wire.sandbox.revoke("seller-003")
    await refused(wire.tokens, "seller-003")
    tokens = wire.other_tokens(client_secret="of-last-year")
    errors = await refused(tokens, S1, S2, S1)
    assert [type(error) for error in errors] == [ClientRefusedError] * 3
    assert wire.refreshes == 2
    with pytest.raises(ClientRefusedError):
        tokens.newly_lost()
    assert newly_marked(wire) == []
    await wire.tokens.live(S1)  # the lease was released, and the grant is unchanged


async def test_five_sellers_refused_and_none_accepted_blames_the_client(wire):
    for seller_id in FIVE:
        wire.sandbox.revoke(seller_id)
    await refused(wire.tokens, *FIVE)
    for _ in range(2):  # the same refusals lead to the same answer
        with pytest.raises(ClientRefusedError, match=CONN):
            newly_marked(wire)
    assert marked(wire) == []


async def test_five_refused_first_do_not_stop_the_others_and_are_marked(wire):
    for seller_id in FIVE:
        wire.sandbox.revoke(seller_id)
    errors = await refused(wire.tokens, *FIVE)
    assert {type(error) for error in errors} == {AuthorizationError}
    assert (await wire.tokens.live("seller-006")).value
    assert newly_marked(wire) == FIVE


async def test_four_refused_sellers_do_not_blame_the_client(wire):
    for seller_id in FIVE[:4]:
        wire.sandbox.revoke(seller_id)
    await refused(wire.tokens, *FIVE[:4])
    assert newly_marked(wire) == FIVE[:4]


async def test_a_grant_is_asked_for_once_a_run_by_all_its_tasks(wire):
    wire.sandbox.revoke(S1)
    await refused(wire.tokens, S1)
    await refused(wire.other_tokens(), S1)
    assert wire.refreshes == 1


async def test_a_task_that_is_tried_again_asks_once_more(wire):
    wire.sandbox.fault("refuse_token", path="access_token")
    await refused(wire.tokens, S1)
    assert (await wire.other_tokens(run=run_from(wire.clock.now(), try_number=2)).live(S1)).value


async def test_one_seller_refused_again_and_again_is_one_seller(wire):
    wire.sandbox.revoke(S1)
    for _ in range(6):
        await refused(wire.other_tokens(run=run_from(wire.clock.now(), try_number=2)), S1)
    assert (wire.refreshes, newly_marked(wire)) == (6, [S1])


async def test_a_success_of_the_run_before_proves_nothing(wire):
    await wire.tokens.live("seller-006")
    wire.clock.skip(seconds=1)
    for seller_id in FIVE:
        wire.sandbox.revoke(seller_id)
    await refused(wire.other_tokens(), *FIVE)
    with pytest.raises(ClientRefusedError):
        newly_marked(wire)


async def test_refusals_of_the_run_before_count_no_more(wire):
    for seller_id in FIVE:
        wire.sandbox.revoke(seller_id)
    await refused(wire.tokens, *FIVE[:4])
    wire.clock.skip(seconds=1)
    await refused(wire.other_tokens(), FIVE[4])
    assert newly_marked(wire) == [FIVE[4]]


async def test_refusals_of_all_processes_of_a_run_count_together(wire):
    for seller_id in FIVE:
        wire.sandbox.revoke(seller_id)
    await refused(wire.other_tokens(), *FIVE[:3])
    await refused(wire.other_tokens(), *FIVE[3:])
    with pytest.raises(ClientRefusedError):
        newly_marked(wire)
    assert marked(wire) == []


async def test_a_run_leaves_the_refusals_of_an_overlapping_run_to_that_one(wire):
    for seller_id in FIVE:
        wire.sandbox.revoke(seller_id)
    await refused(
        wire.other_tokens(run=Run("feedamp_place_orders", "manual__1", wire.clock.now())), *FIVE[:4]
    )
    await refused(wire.other_tokens(), FIVE[4])
    assert newly_marked(wire) == [FIVE[4]]
    assert marked(wire) == [FIVE[4]]


async def test_no_database_wait_is_on_the_event_loop(wire):
    """Other sellers' answers are read while the state does not answer."""
    ticks = 0
    with closing(sqlite3.connect(wire.state.url.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(wire.tokens.live(S1))
        while ticks < 20:
            await asyncio.sleep(0.005)
            ticks += 1
        assert not waiting.done()
        other.execute("ROLLBACK")
    assert (await waiting).value
