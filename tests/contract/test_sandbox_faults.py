"""Every kind of fault the sandbox can inject, and which requests it affects."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from order_samples import good_line
from probe import Probe

from feedamp_sandbox import (
    Exchange,
    SandboxOptions,
    running,
)

SELLER = "seller-001"
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def sandbox():
    with running(
        SandboxOptions(sellers=2, requests_per_second=1000, burst=1000), clock=lambda: NOW
    ) as started:
        yield started


@pytest.fixture
def probe(sandbox):
    client = Probe(sandbox)
    for n in range(12):
        client.place(f"M-{n}")
    yield client
    client.close()


def first_page(probe):
    return probe.call("GET", "/orders", page_size="10").json


@pytest.mark.parametrize(
    ("kind", "status", "retry_after"),
    [
        pytest.param("throttle", 429, "7", id="429 with seconds"),
        pytest.param("throttle_until", 429, "Wed, 01 Jul 2026 12:00:07 GMT", id="429 with a date"),
        pytest.param("throttle_bare", 429, None, id="429 without a header"),
        pytest.param("error_403", 403, None, id="403"),
        pytest.param("error_500", 500, None, id="500"),
        pytest.param("error_502", 502, None, id="502"),
        pytest.param("error_503", 503, None, id="503"),
        pytest.param("refuse_token", 401, None, id="401 for a live token"),
    ],
)
def test_a_refusal_has_no_effect_and_strikes_once(sandbox, probe, kind, status, retry_after):
    sandbox.fault(kind, method="PUT", seconds=7)
    answer = probe.place("M-99")
    assert (answer.status, answer.headers.get("retry-after")) == (status, retry_after)
    assert "M-99" not in sandbox.orders(SELLER)
    is_html = kind.startswith("error_")
    assert answer.headers["content-type"].startswith("text/html" if is_html else "application/json")
    assert probe.place("M-99").status == 200


@pytest.mark.parametrize("status", [400, 401, 500])
def test_an_echo_repeats_the_credential_and_the_body_and_has_no_effect(sandbox, probe, status):
    sandbox.fault(f"echo_{status}", method="PUT")
    answer = probe.place("M-99")
    assert answer.status == status
    assert b"Bearer at-" in answer.body
    assert b"M-99" in answer.body
    assert "M-99" not in sandbox.orders(SELLER)


def test_a_retry_date_is_a_date_other_programs_read(sandbox, probe):
    sandbox.fault("throttle_until", seconds=7)
    answer = probe.call("GET", "/orders")
    assert (parsedate_to_datetime(answer.headers["retry-after"]) - NOW).total_seconds() == 7


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        pytest.param("reset_before", False, id="before the effect"),
        pytest.param("reset_after", True, id="after the effect"),
    ],
)
def test_a_reset_connection(sandbox, probe, kind, effect):
    sandbox.fault(kind, method="PUT")
    with pytest.raises(ConnectionError):
        probe.place("M-99")
    assert ("M-99" in sandbox.orders(SELLER)) == effect


def test_a_cut_body_is_shorter_than_it_says(sandbox, probe):
    sandbox.fault("cut_body")
    with pytest.raises(http.client.IncompleteRead):
        probe.call("GET", "/orders")


def test_a_slow_answer_is_complete_in_the_end(sandbox, probe):
    sandbox.fault("slow_drip", seconds=0.3)
    started = time.monotonic()
    assert len(first_page(probe)["orders"]) == 10
    assert time.monotonic() - started >= 0.25


def test_broken_json_comes_as_200(sandbox, probe):
    sandbox.fault("broken_json")
    answer = probe.call("GET", "/orders")
    assert answer.status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)


def test_a_page_of_html_comes_as_200(sandbox, probe):
    sandbox.fault("html")
    answer = probe.call("GET", "/orders")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.startswith(b"<!DOCTYPE html>")


def test_a_lost_refresh_leaves_order_calls_alone(sandbox, probe):
    sandbox.fault("lost_refresh")
    assert probe.call("GET", "/orders").status == 200
    with pytest.raises(ConnectionError):
        probe.token()


def test_an_expired_cursor_strikes_only_requests_with_a_cursor(sandbox, probe):
    sandbox.fault("expire_cursor")
    cursor = first_page(probe)["next_cursor"]
    answer = probe.call("GET", "/orders", page_size="10", cursor=cursor)
    assert (answer.status, answer.codes) == (400, ["INVALID_QUERY_PARAM"])
    assert sandbox.broken_rules == []


def test_a_repeated_cursor_is_the_one_that_was_sent(sandbox, probe):
    cursor = first_page(probe)["next_cursor"]
    sandbox.fault("repeat_cursor")
    assert probe.call("GET", "/orders", page_size="10", cursor=cursor).json["next_cursor"] == cursor
    assert probe.call("GET", "/orders", page_size="10", cursor=cursor).json["next_cursor"] is None


@pytest.mark.parametrize("page", [pytest.param(1, id="the first page"), pytest.param(2, id="the last page")])
def test_an_empty_page_leads_to_the_orders_it_held_back(sandbox, probe, page):
    query = {"page_size": "10"}
    if page == 2:
        query["cursor"] = first_page(probe)["next_cursor"]
    right = probe.call("GET", "/orders", **query).json["orders"]
    sandbox.fault("empty_page")
    empty = probe.call("GET", "/orders", **query).json
    assert (empty["orders"], empty["next_cursor"] != query.get("cursor")) == ([], True)
    assert probe.call("GET", "/orders", page_size="10", cursor=empty["next_cursor"]).json["orders"] == right


def test_the_orders_can_be_null(sandbox, probe):
    sandbox.fault("null_orders")
    assert first_page(probe)["orders"] is None


def test_one_order_of_another_shape_stands_among_good_ones(sandbox, probe):
    sandbox.fault("misshapen_order")
    shapes = [type(order["order_lines"]) for order in first_page(probe)["orders"]]
    assert (shapes.count(str), shapes.count(list)) == (1, 9)
    assert all(type(order["order_lines"]) is list for order in first_page(probe)["orders"])


def test_numbers_can_be_text(sandbox, probe):
    probe.place("N-1", order_lines=[good_line(quantity=2, shipping_price=6)])
    sandbox.fault("numbers_as_strings")
    order = probe.call("GET", "/orders/N-1").json
    line = order["order_lines"][0]
    assert (line["quantity"], line["unit_price"], line["shipping_price"]) == ("2", "25.5", "6")
    assert order["acknowledged"] is False


def test_unknown_fields_and_values_can_come(sandbox, probe):
    sandbox.fault("unknown_values")
    orders = first_page(probe)["orders"]
    assert {order["status"] for order in orders} == {"AWAITING_PICKUP"}
    assert all("gift_wrap" in order for order in orders)


@pytest.mark.parametrize(
    ("where", "hit"),
    [
        pytest.param({}, True, id="everywhere"),
        pytest.param({"method": "GET"}, True, id="the method"),
        pytest.param({"method": "PUT"}, False, id="another method"),
        pytest.param({"path": r"/orders$"}, True, id="the path"),
        pytest.param({"path": r"/fulfillments$"}, False, id="another path"),
        pytest.param({"seller_id": "seller-001"}, True, id="the seller"),
        pytest.param({"seller_id": "seller-002"}, False, id="another seller"),
        pytest.param({"probability": 0.0}, False, id="no chance"),
        pytest.param({"times": 0}, False, id="no time left"),
    ],
)
def test_a_fault_strikes_where_it_was_asked_for(sandbox, probe, where, hit):
    sandbox.fault("error_500", **where)
    assert probe.call("GET", "/orders").status == (500 if hit else 200)


def test_a_fault_without_end_ends_when_it_is_taken_back(sandbox, probe):
    sandbox.fault("error_500", times=None)
    assert [probe.call("GET", "/orders").status for _ in range(3)] == [500] * 3
    sandbox.clear_faults()
    assert probe.call("GET", "/orders").status == 200


def test_chance_is_the_same_for_the_same_seed():
    def statuses():
        options = SandboxOptions(sellers=1, requests_per_second=1000, burst=1000, seed=3)
        with running(options) as sandbox:
            probe = Probe(sandbox)
            probe.call("GET", "/orders")
            sandbox.fault("error_500", times=None, probability=0.5)
            seen = [probe.call("GET", "/orders").status for _ in range(20)]
            probe.close()
        return seen

    first = statuses()
    assert set(first) == {200, 500}
    assert first == statuses()


def test_a_fault_of_the_token_call_knows_its_seller(sandbox, probe):
    sandbox.fault("error_503", path="^/access_token$", seller_id="seller-002")
    other = Probe(sandbox, "seller-002")
    assert (probe.token().status, other.token().status, other.token().status) == (200, 503, 200)
    other.close()


def test_the_log_names_the_fault(sandbox, probe):
    sandbox.fault("error_500")
    probe.call("GET", "/orders", has_errors="true")
    last = sandbox.requests[-1]
    assert (last.method, last.path, last.query, last.status, last.seller_id, last.fault) == (
        "GET",
        "/api/v1/orders",
        {"has_errors": "true"},
        500,
        SELLER,
        "error_500",
    )


def test_faults_can_be_asked_for_over_http(sandbox, probe):
    def lever(method, body=None):
        request = urllib.request.Request(f"{sandbox.root}/_sandbox/faults", data=body, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    lever("POST", b'{"kind": "error_502", "times": null}')
    assert probe.call("GET", "/orders").status == 502
    lever("DELETE")
    assert probe.call("GET", "/orders").status == 200
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        lever("POST", b'{"kind": "made_up"}')
    refused.value.close()


def test_an_observer_sees_every_exchange_and_its_error_is_raised_at_the_end():
    seen: list[Exchange] = []

    def observer(exchange):
        seen.append(exchange)
        if exchange.status == 404:
            raise AssertionError("no 404 wanted")

    def run():
        with running(SandboxOptions(sellers=1), observer=observer) as sandbox:
            probe = Probe(sandbox)
            probe.call("GET", "/orders/M-1")
            probe.close()

    with pytest.raises(AssertionError, match="no 404 wanted"):
        run()
    token, order = seen
    assert (token.method, token.status) == ("POST", 200)
    assert token.request_body.startswith(b"grant_type=refresh_token&")
    assert order.url.endswith("/api/v1/orders/M-1")
    assert order.request_headers["Authorization"].startswith("Bearer at-")
    assert json.loads(order.response_body)[0]["code"] == "NOT_FOUND"
    assert "Bearer" not in repr(order)
