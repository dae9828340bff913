"""Error reports: what is accepted, what counts as a mistake, and how the seller's corrections clear them."""

from __future__ import annotations

import pytest
from order_samples import example_order
from probe import Probe, rules

from feedamp_sandbox import SandboxOptions, running

SELLER = "seller-001"
ERROR = {"code": "INVALID_TRACKING_NUMBER", "message": "not a UPS number", "mp_line_number": "M-1-1"}


def shipped_with(tracking_number):
    shipment = {
        "quantity": 2,
        "carrier": "UPS",
        "tracking_number": tracking_number,
        "shipped_date": "2026-03-04",
    }
    return [{"mp_line_number": "M-1-1", "shipments": [shipment], "cancellations": []}]


@pytest.fixture
def sandbox():
    with running(SandboxOptions(sellers=1, requests_per_second=1000, burst=1000)) as started:
        yield started


@pytest.fixture
def probe(sandbox):
    client = Probe(sandbox)
    client.place("M-1")
    sandbox.set_fulfillments(SELLER, "M-1", shipped_with("wrong"))
    yield client
    client.close()


def errors(sandbox):
    return sandbox.orders(SELLER)["M-1"]["errors"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([ERROR], id="with a line"),
        pytest.param([{"code": ERROR["code"], "message": "no such line"}], id="without a line"),
        pytest.param([{**ERROR, "debug": [{"found": 1}]}], id="with debug maps"),
    ],
)
def test_a_report_of_the_contract_is_taken_and_shown(sandbox, probe, body):
    answer = probe.call("POST", "/orders/M-1/errors", body)
    assert (answer.status, answer.json, errors(sandbox), sandbox.broken_rules) == (200, {}, body, [])


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        pytest.param({"errors": [ERROR]}, "bad_body", id="wrapped in an object"),
        pytest.param([], "bad_body", id="empty"),
        pytest.param([{**ERROR, "severity": "high"}], "unknown_field", id="an unknown field"),
        pytest.param([{"code": ERROR["code"]}], "missing_field", id="no message"),
        pytest.param([{**ERROR, "message": ""}], "bad_field", id="an empty message"),
        pytest.param([{**ERROR, "code": "BAD_CARRIER"}], "bad_field", id="an unknown code"),
        pytest.param([{**ERROR, "mp_line_number": "M-1-9"}], "bad_field", id="a line that was not ordered"),
        pytest.param([{**ERROR, "debug": {"a": 1}}], "bad_field", id="debug as a map"),
    ],
)
def test_a_report_outside_the_contract_is_refused_and_counted(sandbox, probe, body, rule):
    assert probe.call("POST", "/orders/M-1/errors", body).status == 400
    assert (rules(sandbox), errors(sandbox)) == ({rule: 1}, [])


def test_an_error_for_an_order_that_is_not_there_is_not_found(probe):
    assert probe.call("POST", "/orders/M-9/errors", [ERROR]).status == 404


def test_the_same_error_while_it_is_listed_is_a_duplicate(sandbox, probe):
    for _ in range(2):
        probe.call("POST", "/orders/M-1/errors", [ERROR])
    assert (rules(sandbox), len(errors(sandbox))) == ({"duplicate_error_report": 1}, 2)


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(
            lambda s: s.set_fulfillments(SELLER, "M-1", shipped_with("wrong again")), id="the line changed"
        ),
        pytest.param(lambda s: s.clear_errors(SELLER, "M-1"), id="FeedAMP no longer lists it"),
    ],
)
def test_reporting_again_is_right_when(sandbox, probe, then):
    probe.call("POST", "/orders/M-1/errors", [ERROR])
    then(sandbox)
    assert errors(sandbox) == []
    probe.call("POST", "/orders/M-1/errors", [ERROR])
    assert (sandbox.broken_rules, errors(sandbox)) == ([], [ERROR])


@pytest.mark.parametrize(
    ("tracking_number", "left"),
    [pytest.param("wrong", 2, id="the same snapshot again"), pytest.param("right", 0, id="another number")],
)
def test_errors_with_and_without_line_go_when_the_line_changes(sandbox, probe, tracking_number, left):
    without_line = {"code": ERROR["code"], "message": "no such line"}
    probe.call("POST", "/orders/M-1/errors", [ERROR, without_line])
    sandbox.set_fulfillments(SELLER, "M-1", shipped_with(tracking_number))
    assert len(errors(sandbox)) == left


def test_correcting_one_line_leaves_the_errors_of_another(sandbox, probe):
    line = example_order("M-2")["order_lines"][0]
    probe.place("M-2", order_lines=[line, {**line, "mp_line_number": "M-2-2"}])
    probe.call("POST", "/orders/M-2/errors", [{**ERROR, "mp_line_number": "M-2-2"}])
    sandbox.set_fulfillments(
        SELLER, "M-2", [{"mp_line_number": "M-2-1", "shipments": [], "cancellations": []}]
    )
    assert len(sandbox.orders(SELLER)["M-2"]["errors"]) == 1


def test_an_open_error_opens_a_finished_order_again_and_must_not_be_closed(sandbox, probe):
    assert probe.call("GET", "/orders/M-1").json["status"] == "FULFILLED"
    probe.call("POST", "/orders/M-1/errors", [ERROR])
    assert probe.call("GET", "/orders/M-1").json["status"] == "IN_PROGRESS"
    probe.place("M-1", marketplace_state="SHIPPED")
    assert rules(sandbox) == {"closed_with_open_error": 1}


def test_a_closed_order_is_not_reported_any_more(sandbox, probe):
    probe.place("M-1", marketplace_state="SHIPPED")
    probe.call("POST", "/orders/M-1/errors", [ERROR])
    assert rules(sandbox) == {"error_on_closed_order": 1}


def test_a_report_about_a_shipment_without_number_is_taken(sandbox, probe):
    line = {"mp_line_number": "M-1-1", "shipments": [{"quantity": 2, "carrier": "UPS"}], "cancellations": []}
    sandbox.set_fulfillments(SELLER, "M-1", [line])
    sandbox.world.orders.get(
        SELLER, "M-1"
    ).by_hand = False  # so that it is compared with the simulated seller's
    assert probe.call("POST", "/orders/M-1/errors", [ERROR]).status == 200
    sandbox.act()
    assert rules(sandbox) == {"error_on_valid_shipment": 1}


def test_a_report_about_a_right_shipment_of_a_simulated_seller_is_counted():
    options = SandboxOptions(sellers=1, requests_per_second=1000, burst=1000, behaviors=(("ship_whole", 1),))
    with running(options) as sandbox:
        probe = Probe(sandbox)
        probe.place("M-1")
        sandbox.act(4)
        probe.call("POST", "/orders/M-1/errors", [ERROR])
        assert rules(sandbox) == {"error_on_valid_shipment": 1}
        probe.close()
