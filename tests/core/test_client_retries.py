"""What the client does when a request fails: repeat it where that is safe, raise an error where it is not."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest
from order_samples import example_order
from scripted import answer
from wire import S1, S2, Wire, speaking, take_slot, wired

from crashes.clock import NOON
from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import Filters
from feedamp.api.rate_limit import QUICK_RETRIES, RateLimiter
from feedamp.errors import (
    AuthorizationError,
    NotFoundError,
    RejectedError,
    StaleReadError,
    ThrottledError,
    TransientError,
    UnclearError,
)
from feedamp.models import ErrorReport

REPORT = ErrorReport(code="INVALID_TRACKING_NUMBER", message="unknown to UPS", mp_line_number="M-1-1")
Call = Callable[[FeedAmpClient], Awaitable[object]]


async def get_one(client):
    return await client.get_order("M-1")


async def get_page(client):
    return await client.list_orders(Filters())


async def put(client):
    return await client.put_order("M-1", example_order("M-1"))


async def post(client):
    return await client.post_errors("M-1", [REPORT])


SAFE = [
    pytest.param(get_one, id="GET one"),
    pytest.param(get_page, id="GET page"),
    pytest.param(put, id="PUT"),
]
ALL = [*SAFE, pytest.param(post, id="POST")]


@pytest.fixture
async def wire():
    async with wired() as connected:
        connected.place("M-1")
        connected.ship("M-1")
        yield connected


def broken(wire: Wire) -> list[str]:
    return [rule.rule for rule in wire.sandbox.broken_rules]


async def test_what_is_sent_right_after_a_read_is_sent_at_once_or_not_at_all(wire):
    client = wire.client()
    with pytest.raises(StaleReadError, match="read more than 10 s before"):
        await client.put_order(
            "M-1", example_order("M-1"), right_after=wire.clock.now() - timedelta(seconds=11)
        )
    assert wire.asked() == []
    wire.sandbox.fault("error_503", path="/orders", times=1)
    with pytest.raises(TransientError, match="503"):
        await client.put_order("M-1", example_order("M-1"), right_after=wire.clock.now())
    assert len(wire.asked()) == 1
    await client.put_order("M-1", example_order("M-1"), right_after=wire.clock.now())
    assert len(wire.asked()) == 2


async def test_what_waited_too_long_is_not_sent_and_what_was_sent_is_repeated(wire):
    def put(waited_s: float) -> Awaitable[datetime]:
        since = wire.clock.now() - timedelta(seconds=waited_s)
        return wire.client().put_order("M-1", example_order("M-1"), waiting_since=since)

    with pytest.raises(StaleReadError, match="read more than 10 s before"):
        await put(11)
    assert (wire.asked(), wire.clock.slept) == ([], [])
    wire.sandbox.fault("error_503", path="/orders", times=3)
    await put(9.9)
    assert (len(wire.asked()), sum(wire.clock.slept) > 1) == (4, True)
    wire.sandbox.fault("throttle", path="/orders", seconds=2)
    with pytest.raises(StaleReadError) as late:
        await put(9.9)
    assert (len(wire.asked()), late.value.may_have_arrived) == (5, False)


@pytest.mark.parametrize("kind", ["error_500", "error_502", "error_503", "reset_before", "reset_after"])
@pytest.mark.parametrize("call", SAFE)
async def test_a_get_or_put_that_fails_is_repeated_until_it_works(wire, call, kind):
    wire.sandbox.fault(kind, path="/orders", times=QUICK_RETRIES)
    await call(wire.client())
    assert len(wire.asked()) == QUICK_RETRIES + 1
    assert (
        len(wire.clock.slept) == QUICK_RETRIES
    )  # every repeat waits: all repeats are made by the client itself


@pytest.mark.parametrize("call", SAFE)
async def test_a_get_or_put_that_keeps_failing_is_unclear_at_last(wire, call):
    wire.sandbox.fault("error_503", path="/orders", times=None)
    with pytest.raises(UnclearError) as caught:
        await call(wire.client())
    assert (caught.value.seller_id, caught.value.status) == (S1, 503)
    assert len(wire.asked()) == QUICK_RETRIES + 1


async def test_the_waits_between_repeats_grow(wire):
    wire.sandbox.fault("error_500", path="/orders", times=None)
    with pytest.raises(UnclearError):
        await get_one(wire.client())
    first, second, third = wire.clock.slept
    assert 0.4 <= first <= 0.6 < 0.8 <= second <= 1.2 < 1.6 <= third <= 2.4


@pytest.mark.parametrize("kind", ["error_500", "error_503", "reset_before", "reset_after", "cut_body"])
async def test_a_post_whose_answer_is_lost_is_never_repeated(wire, kind):
    wire.sandbox.fault(kind, method="POST", path="errors")
    with pytest.raises(UnclearError) as caught:
        await post(wire.client())
    assert caught.value.seller_id == S1
    assert len(wire.asked()) == 1


@pytest.mark.parametrize("kind", ["broken_json", "html"])
async def test_the_body_of_a_post_answer_is_ignored(wire, kind):
    wire.sandbox.fault(kind, method="POST", path="errors")
    await post(wire.client())
    assert len(wire.asked()) == 1


async def test_a_post_that_was_throttled_had_no_effect_and_is_repeated(wire):
    wire.sandbox.fault("throttle", method="POST", path="errors", seconds=3)
    await post(wire.client())
    assert [status for _, _, status in wire.asked()] == [429, 200]
    assert len(wire.sandbox.orders(S1)["M-1"]["errors"]) == 1


async def test_a_post_for_which_no_token_could_be_had_never_left(wire):
    wire.sandbox.fault("error_503", path="access_token", times=None)
    with pytest.raises(TransientError) as caught:
        await post(wire.client())
    assert not isinstance(caught.value, UnclearError)
    assert wire.asked() == []


@pytest.mark.parametrize("call", SAFE[:2])
@pytest.mark.parametrize("kind", ["broken_json", "html", "cut_body"])
async def test_a_broken_body_on_a_get_is_asked_for_again(wire, call, kind):
    wire.sandbox.fault(kind, path="/orders", times=QUICK_RETRIES)
    await call(wire.client())
    assert len(wire.asked()) == QUICK_RETRIES + 1


@pytest.mark.parametrize("call", SAFE[:2])
@pytest.mark.parametrize("kind", ["broken_json", "html", "cut_body"])
async def test_a_body_that_stays_broken_is_never_an_empty_success(wire, call, kind):
    wire.sandbox.fault(kind, path="/orders", times=None)
    with pytest.raises(UnclearError):
        await call(wire.client())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (403, RejectedError),
        (404, NotFoundError),
        (409, RejectedError),
        (422, RejectedError),
    ],
)
async def test_a_refusal_for_good_is_not_repeated(status, kind):
    async with speaking(answer([{"code": "C", "message": "m"}], status)) as (client, script):
        with pytest.raises(kind) as caught:
            await put(client)
    assert (caught.value.status, caught.value.reasons, len(script.requests)) == (status, (("C", "m"),), 2)


@pytest.mark.parametrize("call", ALL)
async def test_a_401_is_answered_with_a_new_token_and_one_repeat(wire, call):
    wire.sandbox.fault("refuse_token", path="/orders")
    await call(wire.client())
    assert [status for _, _, status in wire.asked()] == [401, 200]
    assert wire.refreshes == 2  # the first token, and the one after the 401
    assert broken(wire) == []


async def test_access_tokens_that_ran_out_early_are_replaced_in_mid_run(wire):
    client = wire.client()
    await get_one(client)
    wire.sandbox.expire_access_tokens()
    await get_one(client)
    assert [status for _, _, status in wire.asked()] == [200, 401, 200]
    assert broken(wire) == []


async def test_requests_that_waited_while_a_token_died_leave_with_the_new_one(wire):
    """With a second between two slots, the last requests leave long after the first has learned that the token is dead."""

    async def sleep(seconds):
        wire.clock.skip(seconds=seconds)
        await asyncio.sleep(0.02)  # answers come meanwhile

    client = wire.client()
    await get_one(client)
    client._rate_limiter = RateLimiter(wire.state, requests_per_second=1, sleep=sleep)
    wire.place(*(numbers := [f"M-{n}" for n in range(2, 10)]))
    wire.sandbox.expire_access_tokens()
    await asyncio.gather(*(client.get_order(number) for number in numbers))
    assert [status for _, _, status in wire.asked()].count(401) <= 2  # of 8; a slow machine may send a second
    assert wire.refreshes == 2
    assert broken(wire) == []


@pytest.mark.parametrize("call", ALL)
async def test_a_401_for_the_new_token_as_well_requires_action(wire, call):
    wire.sandbox.fault("refuse_token", path="/orders", times=None)
    with pytest.raises(AuthorizationError) as caught:
        await call(wire.client())
    assert caught.value.seller_id == S1
    assert [status for _, _, status in wire.asked()] == [401, 401]


async def test_one_sellers_401_leaves_another_alone(wire):
    wire.place("M-1", seller_id=S2)
    wire.sandbox.revoke(S1)
    with pytest.raises(AuthorizationError):
        await get_one(wire.client(S1))
    await get_one(wire.client(S2))


@pytest.mark.parametrize("kind", ["throttle", "throttle_until"])
async def test_retry_after_is_obeyed_to_the_letter(wire, kind):
    wire.sandbox.fault(kind, path="/orders", seconds=7)
    await get_one(wire.client())
    assert wire.clock.now() == wire.sandbox.requests[-1].at
    assert (wire.clock.now() - NOON).total_seconds() == pytest.approx(7, abs=0.1)
    assert broken(wire) == []


async def put_right_after_a_read(client):
    return await client.put_order("M-1", example_order("M-1"), right_after=NOON)


@pytest.mark.parametrize("call", [get_one, put_right_after_a_read])
async def test_a_429_pauses_every_process_of_that_seller_and_no_other(call, wire):
    wire.sandbox.fault("throttle", path="/orders", seconds=30)
    with pytest.raises(ThrottledError) as caught:
        await call(wire.client())
    assert (caught.value.retry_after_s, caught.value.seller_id, wire.clock.slept) == (30, S1, [])
    await take_slot(wire.rate_limiter, S2)
    assert wire.clock.slept == []
    await take_slot(wire.rate_limiter, S1)  # as another process would, through the same state
    assert wire.clock.slept == [pytest.approx(30, abs=0.1)]


async def test_a_429_without_retry_after_backs_off(wire):
    wire.sandbox.fault("throttle_bare", path="/orders", times=2)
    await get_one(wire.client())
    assert len(wire.clock.slept) == 2


@pytest.mark.parametrize(
    "after", ["0", "Thu, 01 Jan 2026 00:00:00 GMT"], ids=["0 seconds", "a moment that is over"]
)
async def test_a_retry_after_that_is_over_still_backs_off(after):
    throttled = answer([], 429, Retry_After=after)
    async with speaking(throttled, throttled, answer({"orders": []})) as (client, script):
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        client._sleep = sleep
        await client.list_orders(Filters())
    assert len(script.requests) == 1 + 3
    assert [0.3 < pause < 2.5 for pause in slept] == [True, True]


async def test_a_429_for_ever_is_told_with_its_pause():
    async with speaking(answer([], 429, Retry_After="2")) as (client, script):
        with pytest.raises(ThrottledError) as caught:
            await get_one(client)
    assert caught.value.retry_after_s == 2
    assert len(script.requests) == 1 + QUICK_RETRIES + 1


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
async def test_no_request_leaves_uncounted_where_a_kept_connection_is_dropped(wire, kind):
    client = wire.client()
    await get_one(client)
    wire.sandbox.fault(kind, path="/orders")
    await get_one(client)
    assert (client.counts.requests.total(), wire.transport.requests) == (3, 4)
    assert len(wire.sandbox.requests) == 4


async def test_a_503_with_a_long_retry_after_is_left_to_a_later_run():
    async with speaking(answer(b"", 503, Retry_After="600")) as (client, script):
        with pytest.raises(UnclearError) as caught:
            await get_one(client)
    assert (caught.value.retry_after_s, len(script.requests)) == (600, 2)


@pytest.mark.parametrize("fault", ["error_500", "reset_before", "refuse_token", "html", "throttle"])
async def test_no_error_holds_a_token_or_a_customer_field(wire, fault):
    wire.sandbox.fault(fault, path="/orders", times=None, seconds=300)
    with pytest.raises((TransientError, AuthorizationError)) as caught:
        await get_one(wire.client())
    grant, text = wire.grant(), "".join(traceback.format_exception(caught.value))
    secrets = (grant.refresh_token, grant.access_token, wire.credentials.client_secret, "robin@buyer.example")
    assert not [secret for secret in secrets if secret in text + str(vars(caught.value))]


@pytest.mark.parametrize("status", [403, 409, 413, 422])
async def test_a_refused_token_call_says_nothing_about_an_order(status):
    refused = f"HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    async with speaking(*[refused] * 3, token=refused) as (client, script):
        with pytest.raises(TransientError) as caught:
            await client.put_order("M-1", {})
    assert not isinstance(caught.value, RejectedError)
    assert f"token call with {status}" in str(caught.value)
    assert {head.split()[1] for head in script.heads} == {"/api/v1/access_token"}
