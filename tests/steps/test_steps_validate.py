"""Snapshots -> findings -> POST errors: promise 5 against a strict server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from house import BAD_NUMBER, GOOD_NUMBER, SELLER, House, shipment

CODE = "INVALID_TRACKING_NUMBER"


@pytest.fixture
def mistyped(house: House) -> Iterator[House]:
    """M-1 is shipped whole under a tracking number that cannot be right."""
    house.placed("M-1")
    house.fulfill("M-1", shipment(2, BAD_NUMBER))
    house.see("M-1")
    yield house
    assert house.sandbox.broken_rules == []


def posts(house: House) -> int:
    return len(house.asked("POST", "/errors"))


def test_an_error_is_reported_with_code_words_and_line(mistyped: House) -> None:
    mistyped.validate()
    [error] = mistyped.shown("M-1")["errors"]
    assert (error["code"], error["mp_line_number"]) == (CODE, "M-1-1")
    assert BAD_NUMBER in error["message"]
    [finding] = mistyped.findings("M-1")
    assert finding.state == "reported"
    assert finding.reported_at is not None


def test_a_finding_is_reported_once(mistyped: House) -> None:
    mistyped.validate()
    mistyped.see("M-1")
    mistyped.validate()
    assert posts(mistyped) == 1


def test_a_finding_is_reported_again_when_the_line_changed(mistyped: House) -> None:
    mistyped.validate()
    mistyped.fulfill("M-1", shipment(1, BAD_NUMBER))
    mistyped.see("M-1")
    mistyped.validate()
    assert posts(mistyped) == 2


def test_a_finding_is_reported_again_when_feedamp_lists_it_no_longer(mistyped: House) -> None:
    mistyped.validate()
    mistyped.see("M-1")
    mistyped.validate()
    mistyped.sandbox.clear_errors(SELLER, "M-1")
    mistyped.see("M-1")
    mistyped.validate()
    assert posts(mistyped) == 2
    assert len(mistyped.shown("M-1")["errors"]) == 1


def test_a_finding_that_feedamp_dropped_before_anybody_looked_is_reported_again(house: House) -> None:
    """What FeedAMP shows then is what it showed before the report; the fault remains all the same."""
    house.placed("M-1", "M-2")
    house.fulfill("M-1", shipment(2, BAD_NUMBER))
    house.read()
    house.validate()
    house.read()  # FeedAMP is seen to list errors
    house.validate()
    house.fulfill("M-2", shipment(2, BAD_NUMBER))
    house.read()
    house.validate()
    house.sandbox.clear_errors(SELLER, "M-2")
    house.read()
    house.validate()
    assert len([request for request in house.asked("POST") if "M-2" in request.path]) == 2
    house.read()
    house.validate()
    assert len([request for request in house.asked("POST") if "M-2" in request.path]) == 2


def test_faults_of_one_order_go_out_in_one_request(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", shipment(3, BAD_NUMBER), shipment(0, None))
    house.see("M-1")
    house.validate()
    assert posts(house) == 1
    assert len(house.shown("M-1")["errors"]) == len(house.findings("M-1")) == 4


def test_a_line_that_was_never_ordered_is_reported_without_its_number(house: House) -> None:
    house.placed("M-1")
    line = {"mp_line_number": "X", "shipments": [shipment(1)], "cancellations": []}
    house.sandbox.set_fulfillments(SELLER, "M-1", [line])
    house.see("M-1")
    house.validate()
    [error] = house.shown("M-1")["errors"]
    assert "mp_line_number" not in error
    assert "Line X" in error["message"]


def test_a_mended_finding_is_resolved(mistyped: House) -> None:
    mistyped.validate()
    mistyped.fulfill("M-1", shipment(2))
    mistyped.see("M-1")
    mistyped.validate()
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "resolved")]


def test_a_warning_is_kept_but_not_sent(house: House) -> None:
    house.placed("M-1")
    house.fulfill("M-1", {**shipment(1), "shipped_date": "2026-01-01"})
    house.see("M-1")
    house.validate()
    assert house.finding_states("M-1") == [("shipped_before_purchase", "held")]
    assert posts(house) == 0


def test_an_error_without_a_code_is_held_back(mistyped: House) -> None:
    mistyped.set_rules(error_codes={"invalid_tracking": None})
    mistyped.validate()
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "held")]
    assert posts(mistyped) == 0


def test_one_number_for_two_recipients_is_a_warning_on_the_later_order(house: House) -> None:
    address = house.body("M-2")["shipping_address"] | {"full_name": "Kim Reyes"}
    house.placed("M-1")
    house.placed("M-2", shipping_address=address)
    for number in ("M-1", "M-2"):
        house.fulfill(number, shipment(1))
        house.see(number)
        house.validate()
    assert (house.finding_states("M-1"), house.finding_states("M-2")) == ([], [("shared_tracking", "held")])


def test_one_number_for_two_orders_of_one_recipient_is_right(house: House) -> None:
    house.placed("M-1", "M-2")
    for number in ("M-1", "M-2"):
        house.fulfill(number, shipment(1, GOOD_NUMBER))
        house.see(number)
    house.validate()
    assert house.findings("M-2") == []


def test_an_order_that_the_marketplace_ships_has_no_findings(mistyped: House) -> None:
    mistyped.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    mistyped.see("M-1")
    mistyped.validate()
    assert mistyped.findings("M-1") == []


def test_a_closed_order_is_never_reported(mistyped: House) -> None:
    mistyped.set_rules(error_codes={"invalid_tracking": None})
    mistyped.validate()
    mistyped.set_rules(error_codes={})
    mistyped.placed("M-1", marketplace_state="CANCELLED")
    mistyped.validate()
    assert posts(mistyped) == 0


def test_a_dry_run_sends_and_writes_nothing(mistyped: House) -> None:
    assert mistyped.validate(dry_run=True).orders == 1
    assert (posts(mistyped), mistyped.findings("M-1")) == (0, [])


def test_findings_reach_the_warehouse_in_their_last_state(mistyped: House) -> None:
    mistyped.validate()
    mistyped.load()
    [(kind, severity, code, state, reported_at)] = mistyped.rows(
        "SELECT kind, severity, api_code, state, reported_at FROM findings"
    )
    assert (kind, severity, code, state) == ("invalid_tracking", "error", CODE, "reported")
    assert reported_at == mistyped.findings("M-1")[0].reported_at


def test_no_message_and_no_summary_holds_a_customer_field(mistyped: House) -> None:
    text = json.dumps(mistyped.validate().summary()) + mistyped.findings("M-1")[0].message
    assert not any(word in text for word in ("Robin", "Harbor"))


def test_nothing_to_do_is_no_run_at_all(house: House) -> None:
    assert house.validate().sellers == 0


def test_an_error_that_lingers_too_long_needs_a_person_although_nothing_changes(mistyped: House) -> None:
    mistyped.validate()
    errors = mistyped.shown("M-1")["errors"]
    mistyped.fulfill("M-1", shipment(2))
    with mistyped.sandbox.world.lock:
        mistyped.sandbox._order(SELLER, "M-1").errors = errors
    mistyped.see("M-1")
    mistyped.validate()
    held = mistyped.held("M-1")
    assert held is not None
    assert (held.waits_for, held.needs_person) == ("FeedAMP still lists an error that looks mended", False)
    mistyped.clock.skip(seconds=timedelta(days=3).total_seconds())
    mistyped.validate()
    held = mistyped.held("M-1")
    assert held is not None
    assert held.needs_person
