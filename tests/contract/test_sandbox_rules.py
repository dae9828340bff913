"""Mistakes in headers, URLs and request rate that the sandbox counts, and correct behavior that it does not."""

from __future__ import annotations

from contextlib import closing

import pytest
from order_samples import example_order
from probe import Probe

from feedamp_sandbox import (
    RULES,
    SandboxOptions,
    running,
)


@pytest.fixture
def sandbox(clock):
    with running(
        SandboxOptions(sellers=2, requests_per_second=2, burst=2), monotonic=clock.elapsed_s
    ) as started:
        yield started


@pytest.fixture
def probe(sandbox):
    client = Probe(sandbox)
    client.access_token = client.token().json["access_token"]
    yield client
    client.close()


def rules(sandbox):
    return {rule: count for rule, count, _ in sandbox.broken_rules}


def bearer(token, **more):
    return {"Authorization": f"Bearer {token}", **more}


@pytest.mark.parametrize(
    ("send", "status", "rule"),
    [
        pytest.param(lambda p: p.send("GET", "/orders"), 401, "no_token", id="no token"),
        pytest.param(
            lambda p: p.send("GET", "/orders", headers=bearer("at-made-up")),
            401,
            "unknown_token",
            id="a made-up token",
        ),
        pytest.param(
            lambda p: p.send("GET", "/orders", headers={"Authorization": "Basic bWt0OnNlY3JldA=="}),
            401,
            "basic_auth",
            id="basic auth",
        ),
        pytest.param(
            lambda p: p.send("GET", "/orders", headers=bearer(p.access_token, extra=p.sandbox.client_secret)),
            200,
            "secret_in_header",
            id="the client secret in a header",
        ),
        pytest.param(
            lambda p: p.send("GET", "/orders", headers=bearer(p.sandbox.refresh_token(p.seller_id))),
            401,
            "secret_in_header",
            id="a refresh token as bearer",
        ),
        pytest.param(
            lambda p: p.send("GET", "/orders", query={"access_token": p.access_token}),
            400,
            "secret_in_url",
            id="an access token in the query",
        ),
        pytest.param(
            lambda p: p.send("GET", f"/orders/{p.access_token}"),
            400,
            "secret_in_url",
            id="an access token in the path",
        ),
        pytest.param(
            lambda p: p.send("POST", "/access_token", query={"client_secret": p.sandbox.client_secret}),
            400,
            "secret_in_url",
            id="the client secret in the query",
        ),
        pytest.param(lambda p: p.send("GET", "/../login"), 401, "no_token", id="a path beside the API"),
    ],
)
def test_a_mistake_is_counted_and_its_example_holds_no_secret(sandbox, probe, send, status, rule):
    secrets = {probe.access_token, sandbox.client_secret, sandbox.refresh_token(probe.seller_id)}
    assert send(probe).status == status
    assert rule in rules(sandbox)
    shown = repr(sandbox.broken_rules) + repr(sandbox.requests) + repr(sandbox)
    assert not [secret for secret in secrets if secret in shown]


def test_a_bearer_header_on_the_token_call_is_counted_but_answered(sandbox, probe):
    body = f"grant_type=refresh_token&refresh_token={sandbox.refresh_token(probe.seller_id)}"
    body += f"&client_id={sandbox.client_id}&client_secret={sandbox.client_secret}"
    headers = bearer(probe.access_token, **{"Content-Type": "application/x-www-form-urlencoded"})
    assert probe.send("POST", "/access_token", body, headers).status == 200
    assert rules(sandbox) == {"bearer_on_token_call": 1}


def test_an_example_holds_no_customer_field(sandbox, probe):
    customer = {"full_name": "Robin Vale", "email": 7, "phone": "5555550123", "shoe_size": "44"}
    probe.place("M-1", customer=customer)
    assert [(rule, example) for rule, _, example in sandbox.broken_rules] == [
        ("bad_field", "PUT /orders/M-1: customer.email"),
        ("unknown_field", "PUT /orders/M-1: customer.shoe_size"),
    ]


def test_two_requests_at_once_and_two_a_second_are_allowed(sandbox, probe, clock):
    statuses = [probe.call("GET", "/orders").status for _ in range(2)]
    for _ in range(6):
        clock.skip(seconds=0.5)
        statuses.append(probe.call("GET", "/orders").status)
    assert (statuses, sandbox.broken_rules) == ([200] * 8, [])


def test_one_request_more_is_told_to_wait(sandbox, probe, clock):
    answers = [probe.call("GET", "/orders") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (answers[2].headers["retry-after"], rules(sandbox)) == ("1", {"rate_exceeded": 1})
    clock.skip(seconds=1)
    assert probe.call("GET", "/orders").status == 200
    assert rules(sandbox) == {"rate_exceeded": 1}


@pytest.mark.parametrize(
    ("late_s", "requests", "counted"),
    [
        pytest.param(1.2, 4, {}, id="what was due while the client was late"),
        pytest.param(1.2, 5, {"rate_exceeded": 1}, id="one more than was due"),
        pytest.param(60.0, 8, {"rate_exceeded": 2}, id="a minute of requests at once"),
    ],
)
def test_a_client_that_is_late_is_told_to_wait_but_not_counted(
    sandbox, probe, clock, late_s, requests, counted
):
    probe.call("GET", "/orders")
    probe.call("GET", "/orders")
    clock.skip(seconds=late_s + 0.9)
    statuses = [probe.call("GET", "/orders").status for _ in range(requests)]
    assert statuses == [200, 200, *[429] * (requests - 2)]
    assert rules(sandbox) == counted


def test_a_test_of_the_connection_breaks_no_rule(sandbox, probe):
    probe.send("GET", "/orders", query={"page_size": "10"})
    assert sandbox.broken_rules == []
    probe.send("GET", "/orders", query={"page_size": "10", "has_errors": "true"})
    assert rules(sandbox) == {"no_token": 1}


def test_one_seller_does_not_use_up_the_rate_of_another(sandbox, probe):
    for _ in range(3):
        probe.call("GET", "/orders")
    other = Probe(sandbox, "seller-002")
    assert other.call("GET", "/orders").status == 200
    other.close()


@pytest.mark.parametrize(
    ("waited_s", "counted"),
    [
        pytest.param(0.1, {}, id="under way already"),
        pytest.param(2.0, {"retry_after_ignored": 1}, id="too early"),
        pytest.param(5.0, {}, id="in time"),
    ],
)
def test_retry_after_is_to_be_waited_for(sandbox, probe, clock, waited_s, counted):
    sandbox.fault("throttle", seconds=5)
    assert probe.call("GET", "/orders").headers["retry-after"] == "5"
    clock.skip(seconds=waited_s)
    probe.call("GET", "/orders")
    assert rules(sandbox) == counted


def test_a_wait_on_the_token_call_does_not_bind_who_holds_a_token(sandbox, probe, clock):
    sandbox.fault("throttle", path="access_token", seconds=5)
    assert probe.token().status == 429
    clock.skip(seconds=2)
    assert (probe.call("GET", "/orders").status, sandbox.broken_rules) == (200, [])


def test_the_same_request_with_the_token_that_was_refused_is_counted(sandbox, probe):
    sandbox.expire_access_tokens()
    answers = [probe.call("GET", "/orders").status for _ in range(2)]
    assert (answers, rules(sandbox)) == ([401, 401], {"dead_access_token_reused": 1})


@pytest.mark.parametrize(
    ("processes", "counted"),
    [
        pytest.param(4, {}, id="as many as work at once"),
        pytest.param(6, {"dead_access_token_reused": 2}, id="more: one client that connects again each time"),
    ],
)
def test_a_refused_token_from_several_processes(sandbox, probe, processes, counted):
    """Each process got the token while it was valid, and each learns from its own 401 that it has ended."""
    token = probe.token().json["access_token"]
    sandbox.expire_access_tokens()
    for _ in range(processes):
        with closing(Probe(sandbox)) as other:
            other.access_token = token
            assert other.call("GET", "/orders").status == 401
    assert rules(sandbox) == counted


@pytest.mark.parametrize(
    ("waited_s", "counted"),
    [
        pytest.param(0.0, {}, id="under way already"),
        pytest.param(1.5, {"dead_access_token_reused": 1}, id="long after the 401"),
    ],
)
def test_another_request_with_a_refused_token(sandbox, probe, clock, waited_s, counted):
    sandbox.expire_access_tokens()
    probe.call("GET", "/orders/M-1")
    clock.skip(seconds=waited_s)
    probe.call("GET", "/orders/M-2")
    assert rules(sandbox) == counted


def test_the_same_request_with_a_fresh_token_is_right(sandbox, probe):
    sandbox.expire_access_tokens()
    assert probe.call("GET", "/orders").status == 401
    probe.access_token = ""
    assert (probe.call("GET", "/orders").status, sandbox.broken_rules) == (200, [])


def test_a_put_repeated_after_a_lost_answer_is_right(sandbox, probe):
    sandbox.fault("reset_after", method="PUT")
    with pytest.raises(ConnectionError):
        probe.place("M-1")
    assert list(sandbox.orders(probe.seller_id)) == ["M-1"]
    assert (probe.place("M-1").status, sandbox.broken_rules) == (200, [])


def test_every_counter_has_a_sentence_and_no_other_name_is_taken(sandbox):
    with pytest.raises(KeyError):
        sandbox.world.rules.note("made_up", "x")
    assert all(sentence.strip() for sentence in RULES.values())


def test_the_example_order_is_itself_without_fault(sandbox, probe):
    assert probe.call("PUT", "/orders/M-1", example_order("M-1")).status == 200
    assert sandbox.broken_rules == []
