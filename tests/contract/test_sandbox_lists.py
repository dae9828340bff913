"""GET /orders of the sandbox: pages, cursors, filters and times."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from order_samples import example_order
from probe import Probe, rules

from crashes.clock import NOON
from feedamp_sandbox import SandboxOptions, running

SELLER = "seller-001"


@pytest.fixture
def sandbox(clock):
    with running(SandboxOptions(sellers=2, requests_per_second=1000, burst=1000), clock=clock.now) as started:
        yield started


@pytest.fixture
def probe(sandbox):
    client = Probe(sandbox)
    yield client
    client.close()


def numbers(answer):
    return {order["mp_order_number"] for order in answer.json["orders"]}


@pytest.mark.parametrize(
    ("orders", "pages"),
    [
        pytest.param(0, [0], id="no order"),
        pytest.param(1, [1], id="one order"),
        pytest.param(10, [10], id="exactly a page"),
        pytest.param(11, [10, 1], id="a page and one"),
        pytest.param(30, [10, 10, 10], id="three full pages"),
    ],
)
def test_every_order_is_on_exactly_one_page(sandbox, probe, orders, pages):
    for n in range(orders):
        probe.place(f"M-{n}")
    seen, sizes, more = [], [], {}
    while True:
        page = probe.call("GET", "/orders", page_size="10", **more).json
        seen += [order["mp_order_number"] for order in page["orders"]]
        sizes.append(len(page["orders"]))
        if page["next_cursor"] is None:
            break
        more = {"cursor": page["next_cursor"]}
    assert (sizes, sorted(seen)) == (pages, sorted(f"M-{n}" for n in range(orders)))
    assert sandbox.broken_rules == []


def test_the_order_of_a_list_tells_nothing(probe):
    placed = [f"M-{n}" for n in range(10)]
    for number in placed:
        probe.place(number)
    listed = [order["mp_order_number"] for order in probe.call("GET", "/orders").json["orders"]]
    assert listed not in (placed, placed[::-1])


@pytest.mark.parametrize(
    ("last_cursor", "shown"),
    [
        pytest.param("null", {"orders": [], "next_cursor": None}, id="null"),
        pytest.param("absent", {"orders": []}, id="absent"),
        pytest.param("empty", {"orders": [], "next_cursor": ""}, id="empty"),
    ],
)
def test_the_last_page_can_be_marked_in_three_ways(last_cursor, shown):
    with running(SandboxOptions(last_cursor=last_cursor)) as sandbox:
        probe = Probe(sandbox)
        assert probe.call("GET", "/orders").json == shown
        probe.close()


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        pytest.param({"page_size": "9"}, "page_size_out_of_bounds", id="a page of 9"),
        pytest.param({"page_size": "51"}, "page_size_out_of_bounds", id="a page of 51"),
        pytest.param({"page_size": "ten"}, "page_size_out_of_bounds", id="a page size in letters"),
        pytest.param({"limit": "10"}, "unknown_query_parameter", id="an unknown parameter"),
        pytest.param(
            {"imported_before": "2026-03-10T12:00:00Z"}, "unknown_query_parameter", id="an upper bound"
        ),
        pytest.param({"has_errors": "1"}, "bad_query_value", id="a boolean as 1"),
        pytest.param({"fulfillment_status": "PENDING"}, "bad_query_value", id="a status of another enum"),
        pytest.param({"imported_after": "2026-07-01"}, "bad_query_value", id="a bare date"),
        pytest.param({"imported_after": "2026-02-30T00:00:00Z"}, "bad_query_value", id="30 February"),
        pytest.param({"mp_order_numbers": "a,,b"}, "bad_query_value", id="an empty order number"),
        pytest.param(
            {"mp_order_numbers": ",".join("abcdefghij" * 5) + ",k"},
            "too_many_order_numbers",
            id="51 order numbers",
        ),
        pytest.param({"cursor": "p2-9920"}, "unknown_cursor", id="a cursor of elsewhere"),
        pytest.param({"cursor": ""}, "unknown_cursor", id="an empty cursor"),
    ],
)
def test_a_query_outside_the_contract_is_refused_and_counted(sandbox, probe, query, rule):
    answer = probe.call("GET", "/orders", **query)
    assert (answer.status, answer.codes, rules(sandbox)) == (400, ["INVALID_QUERY_PARAM"], {rule: 1})


def test_a_plus_sign_that_was_not_encoded_is_refused(probe):
    probe.call("GET", "/orders")
    headers = {"Authorization": f"Bearer {probe.access_token}"}
    answer = probe.send("GET", "/orders", None, headers, "imported_after=2026-03-10T12:00:00+00:00")
    assert answer.status == 400


def test_a_list_spread_over_two_parameters_is_refused(sandbox, probe):
    probe.call("GET", "/orders")
    headers = {"Authorization": f"Bearer {probe.access_token}"}
    answer = probe.send("GET", "/orders", None, headers, "mp_order_numbers=a&mp_order_numbers=b")
    assert (answer.status, rules(sandbox)) == (400, {"repeated_query_parameter": 1})


def test_a_url_of_more_than_8_kb_is_too_long(sandbox, probe):
    answer = probe.call("GET", "/orders", mp_order_numbers=",".join(["x" * 128] * 70))
    assert (answer.status, rules(sandbox)) == (414, {"too_many_order_numbers": 1})


@pytest.mark.parametrize(
    ("changed", "status", "rule"),
    [
        pytest.param({}, 200, None, id="the same filters"),
        pytest.param({"page_size": "20"}, 200, None, id="another page size, which is no filter"),
        pytest.param({"has_errors": "true"}, 400, "cursor_with_other_filters", id="another filter"),
    ],
)
def test_a_cursor_belongs_to_its_filters(sandbox, probe, changed, status, rule):
    for n in range(11):
        probe.place(f"M-{n}")
    query = {"page_size": "10", "has_errors": "false"}
    cursor = probe.call("GET", "/orders", **query).json["next_cursor"]
    assert probe.call("GET", "/orders", **{**query, **changed, "cursor": cursor}).status == status
    assert rules(sandbox) == ({rule: 1} if rule else {})


def test_a_cursor_of_another_seller_is_refused(sandbox, probe):
    for n in range(11):
        probe.place(f"M-{n}")
    cursor = probe.call("GET", "/orders", page_size="10").json["next_cursor"]
    other = Probe(sandbox, "seller-002")
    assert other.call("GET", "/orders", page_size="10", cursor=cursor).status == 400
    other.close()


@pytest.mark.parametrize(
    ("text", "found", "naive"),
    [
        pytest.param("2026-03-10T12:00:00Z", True, 0, id="the very second"),
        pytest.param("2026-03-10T12:00:01Z", False, 0, id="a second later"),
        pytest.param("2026-03-10T14:00:00+02:00", True, 0, id="the same second with an offset"),
        pytest.param(
            "2026-03-10T08:00:00", True, 1, id="no zone: New York in summer time, four hours behind"
        ),
        pytest.param("2026-03-10T08:00:01", False, 1, id="no zone, a second later"),
    ],
)
@pytest.mark.parametrize("name", ["imported_after", "seller_updated_after"])
def test_a_bound_is_inclusive_and_naive_times_are_new_yorks(sandbox, probe, name, text, found, naive):
    probe.place("M-1")
    sandbox.set_fulfillments(SELLER, "M-1", [])
    assert numbers(probe.call("GET", "/orders", **{name: text})) == ({"M-1"} if found else set())
    assert rules(sandbox) == ({"naive_time_in_query": 1} if naive else {})


def test_new_york_is_five_hours_behind_in_winter(clock, probe):
    clock.jump_to((datetime(2026, 1, 10, 12, tzinfo=UTC) - NOON).total_seconds(), back=True)
    probe.place("M-1")
    assert numbers(probe.call("GET", "/orders", imported_after="2026-01-10T07:00:00")) == {"M-1"}
    assert numbers(probe.call("GET", "/orders", imported_after="2026-01-10T07:00:01")) == set()


def test_an_order_no_seller_touched_has_no_seller_update(probe):
    probe.place("M-1")
    assert numbers(probe.call("GET", "/orders", seller_updated_after="2000-01-01T00:00:00Z")) == set()


@pytest.mark.parametrize(
    ("status", "found"),
    [
        pytest.param("UNFULFILLED", {"open"}, id="nothing supplied"),
        pytest.param("PARTIALLY_FULFILLED", {"part", "done"}, id="something supplied, even all of it"),
        pytest.param("COMPLETE", {"closed"}, id="all supplied and closed"),
        pytest.param("UNFULFILLED,COMPLETE", {"open", "closed"}, id="two values"),
    ],
)
def test_the_fulfillment_filter_is_read_literally(sandbox, probe, status, found):
    for number in ("pending", "open", "part", "done", "closed", "withdrawn"):
        probe.place(number, marketplace_state="PENDING" if number == "pending" else "AWAITING_SHIPMENT")
    for number, quantity in (("part", 1), ("done", 2), ("closed", 2)):
        shipment = {"quantity": quantity, "carrier": "UPS", "tracking_number": "1Z5R89390357567127"}
        line = {"mp_line_number": f"{number}-1", "shipments": [shipment], "cancellations": []}
        sandbox.set_fulfillments(SELLER, number, [line])
    probe.place("closed", marketplace_state="SHIPPED")
    probe.place("withdrawn", marketplace_state="CANCELLED")
    assert numbers(probe.call("GET", "/orders", fulfillment_status=status)) == found


def test_named_orders_come_in_pages_too(probe):
    named = [f"M-{n}" for n in range(12)]
    for number in named:
        probe.place(number)
    query = {"page_size": "10", "mp_order_numbers": ",".join(named)}
    first = probe.call("GET", "/orders", **query)
    second = probe.call("GET", "/orders", **query, cursor=first.json["next_cursor"])
    assert (len(numbers(first)), len(numbers(second))) == (10, 2)
    assert numbers(first) | numbers(second) == set(named)


def test_filters_narrow_together(sandbox, probe):
    for number in ("M-1", "M-2", "M-3"):
        probe.place(number)
        sandbox.set_fulfillments(SELLER, number, [])
    probe.call("POST", "/orders/M-2/errors", [{"code": "INVALID_TRACKING_NUMBER", "message": "x"}])
    assert numbers(probe.call("GET", "/orders", has_errors="true")) == {"M-2"}
    assert numbers(probe.call("GET", "/orders", has_errors="false")) == {"M-1", "M-3"}
    assert numbers(probe.call("GET", "/orders", has_errors="false", mp_order_numbers="M-2,M-3,M-9")) == {
        "M-3"
    }


def test_the_date_header_shows_the_servers_clock(probe):
    assert probe.call("GET", "/orders").headers["date"] == "Tue, 10 Mar 2026 12:00:00 GMT"


def test_a_page_with_an_order_of_3000_lines_comes_at_once(sandbox, probe):
    line = example_order("M-1")["order_lines"][0]
    lines = [{**line, "mp_line_number": str(number)} for number in range(3000)]
    assert probe.place("M-1", order_lines=lines).status == 200
    touched = [
        {"mp_line_number": str(number), "shipments": [], "cancellations": []} for number in range(3000)
    ]
    sandbox.set_fulfillments(SELLER, "M-1", touched)
    began = time.process_time()
    [order] = probe.call("GET", "/orders").json["orders"]
    assert len(order["fulfillments"]) == 3000
    assert len(probe.call("GET", "/orders/M-1/fulfillments").json["fulfillments"]) == 3000
    assert time.process_time() - began < 2


def test_two_entries_of_one_line_are_shown_and_counted_as_two(sandbox, probe):
    probe.place("M-1")
    shipment = {"quantity": 1, "carrier": "UPS", "tracking_number": "1Z999AA10123456784"}
    entry = {"mp_line_number": "M-1-1", "shipments": [shipment], "cancellations": []}
    sandbox.set_fulfillments(SELLER, "M-1", [entry, entry])
    for shown in (
        probe.call("GET", "/orders").json["orders"][0],
        probe.call("GET", "/orders/M-1/fulfillments").json,
    ):
        assert [(e["shipments"], e["pending"]) for e in shown["fulfillments"]] == [
            ([shipment], {"quantity": 0})
        ] * 2
    assert probe.call("GET", "/orders/M-1").json["status"] == "FULFILLED"
