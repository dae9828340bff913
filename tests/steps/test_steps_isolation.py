"""Four failing sellers among twenty-four: the others lose nothing and do not wait for them (promise 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from env import OTHER, SELLER, Env, open_env

from feedamp.api import orders_by_number
from feedamp.errors import ClientRefusedError
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.state import grants, sellers
from feedamp.steps.step_result import StepResult

SELLERS = 24
ORDERS_EACH = 2


@pytest.fixture
def env() -> Iterator[Env]:
    with open_env(sellers=SELLERS) as opened:
        yield opened


def everybody(env: Env) -> list[str]:
    return [seller["seller_id"] for seller in env.sandbox.sellers]


def stock(env: Env) -> None:
    """FeedAMP holds orders of every seller."""
    now = env.clock.now()
    with env.sandbox.world.lock:
        for seller_id in everybody(env):
            for number in range(ORDERS_EACH):
                order = env.sandbox.world.orders.add(seller_id, env.body(f"X-{number}"), now)
                order.seller_updated_at = now


def trouble(env: Env) -> dict[str, str]:
    """Four sellers that fail in four ways, and a word by which the run must name each."""
    outage, revoked, throttled, garbage = everybody(env)[:4]
    env.sandbox.fault("error_503", seller_id=outage, path="/orders", times=None)
    env.sandbox.revoke(revoked)
    env.sandbox.fault("throttle", seller_id=throttled, path="/orders", times=None, seconds=3600)
    env.sandbox.fault("broken_json", seller_id=garbage, path="/orders", times=None)
    return {outage: "503", revoked: "authorize again", throttled: "429", garbage: "broken body"}


def requests_of(env: Env, since: int = 0) -> Counter[str | None]:
    return Counter(
        request.seller_id for request in env.sandbox.requests[since:] if request.path.endswith("/orders")
    )


def said_of(result: StepResult, seller_id: str) -> str:
    return " ".join(line for line in (*result.undone, *result.notes) if line.startswith(f"{seller_id}:"))


def test_the_others_are_read_whole_and_the_run_says_who_is_not_and_why(env: Env) -> None:
    stock(env)
    expected = trouble(env)
    result = env.extract()
    env.load()
    assert result.failed_sellers == expected.keys()
    assert {
        seller_id: why in said_of(result, seller_id) for seller_id, why in expected.items()
    } == dict.fromkeys(expected, True)
    others = [seller_id for seller_id in everybody(env) if seller_id not in expected]
    assert len(others) == SELLERS - 4
    assert env.rows("SELECT DISTINCT seller_id FROM orders ORDER BY 1") == [(seller,) for seller in others]
    assert env.rows("SELECT count(*) FROM orders") == [((SELLERS - 4) * ORDERS_EACH,)]
    assert all(env.watermark(seller_id) for seller_id in others)
    assert not any(env.watermark(seller_id) for seller_id in expected)
    assert env.sandbox.broken_rules == []


def test_five_revoked_sellers_first_do_not_blame_the_client(env: Env) -> None:
    stock(env)
    revoked = everybody(env)[:5]
    for seller_id in revoked:
        env.sandbox.revoke(seller_id)
    result = env.extract()
    env.load()
    assert result.failed_sellers == set(revoked)
    assert env.rows("SELECT count(DISTINCT seller_id), count(*) FROM orders") == [
        (SELLERS - 5, (SELLERS - 5) * ORDERS_EACH)
    ]
    assert env.refused_clients == []
    with env.state.read() as connection:
        marked = [s.seller_id for s in sellers.find(connection) if s.grant == sellers.NEEDS_AUTHORIZATION]
    assert marked == revoked


def test_the_next_run_sends_no_requests_for_failing_sellers(env: Env) -> None:
    stock(env)
    outage, revoked, throttled, garbage = trouble(env)
    env.extract()
    env.clock.skip(minutes=15)
    before = len(env.sandbox.requests)
    env.extract()
    asked = requests_of(env, before)
    assert (asked[revoked], asked[throttled]) == (0, 0)
    assert asked[outage] <= 4
    assert asked[garbage] <= 4
    assert env.sandbox.broken_rules == []


def test_once_the_trouble_is_over_nothing_of_theirs_is_missing(env: Env) -> None:
    stock(env)
    expected = trouble(env)
    env.extract()
    env.sandbox.clear_faults()
    env.clock.skip(hours=2)
    env.extract()
    env.load()
    [revoked] = [seller_id for seller_id, why in expected.items() if why == "authorize again"]
    assert env.rows("SELECT count(*), count(DISTINCT seller_id) FROM orders") == [
        ((SELLERS - 1) * ORDERS_EACH, SELLERS - 1)
    ]
    assert env.watermark(revoked) is None


def test_no_seller_waits_for_another_whose_answers_are_slow(env: Env) -> None:
    stock(env)
    slow = everybody(env)[0]
    env.sandbox.fault("slow_drip", seller_id=slow, path="/orders$", seconds=4)
    began = env.clock.elapsed_s()
    env.extract()
    ended = env.clock.elapsed_s()
    noon = env.clock.now().timestamp() - env.clock.elapsed_s()
    last_of_others = max(r.at.timestamp() - noon for r in env.sandbox.requests if r.seller_id != slow)
    assert ended - began >= 3.5  # the last drip is not waited for
    assert last_of_others - began < 3.5


@pytest.fixture
def two_connections() -> Iterator[Env]:
    """An env with two sellers; the client secret of the second one's connection is wrong."""
    with open_env() as opened:
        right = opened.resources.connection("feedamp")
        of_last_year = replace(right.credentials, conn_id="wrong", client_secret="of-last-year")
        wrong = replace(right, credentials=of_last_year)
        opened.resources = replace(
            opened.resources, connection=lambda conn_id: wrong if conn_id == "wrong" else right
        )
        with opened.state.begin() as connection:
            now, token = opened.state.now(), opened.sandbox.refresh_token(OTHER)
            sellers.add(connection, OTHER, conn_id="wrong", now=now)
            grants.put_grant(connection, opened.cipher, OTHER, "wrong", token, now=now)
        yield opened


def test_a_wrong_client_secret_does_not_hide_what_else_was_left_undone(
    two_connections: Env, caplog: pytest.LogCaptureFixture
) -> None:
    two_connections.sandbox.fault("error_503", seller_id=SELLER, path="/orders", times=None)
    with pytest.raises(ClientRefusedError):
        two_connections.extract()
    said = [message for message in caplog.messages if message.startswith(f"{SELLER}:")]
    assert any("503" in message for message in said)
    two_connections.load()
    row = "SELECT sellers, sellers_failed, complete FROM runs WHERE step = 'extract'"
    assert two_connections.rows(row) == [(2, 2, False)]


def test_a_wrong_client_secret_does_not_hide_who_must_authorize_again(
    two_connections: Env, caplog: pytest.LogCaptureFixture
) -> None:
    two_connections.sandbox.revoke(SELLER)
    with pytest.raises(ClientRefusedError):
        two_connections.extract()
    assert any(f"Seller {SELLER} must authorize again" in message for message in caplog.messages)


def test_three_orders_that_cannot_be_read_end_all_lists_of_a_seller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_by_number, "NUMBERS_PER_REQUEST", 2)
    with open_env(fulfillments_in_list="absent") as env:
        env.placed(*(f"M-{number}" for number in range(9)))
        since = len(env.sandbox.requests)
        env.sandbox.fault("error_503", method="GET", path="^/orders/", times=None)
        result = env.reconcile()
        asked = [request.path for request in env.sandbox.requests[since:]]
    assert len({path for path in asked if "/M-" in path}) == FAILURES_THAT_END_A_SELLER
    assert sum(path.endswith("/orders") for path in asked) == 2
    assert result.failed_sellers == {SELLER}
