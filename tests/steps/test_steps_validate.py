"""Snapshots -> findings -> POST errors: promise 5 against a strict server."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from env import BAD_NUMBER, GOOD_NUMBER, SELLER, Env, open_env, shipment

from feedamp.state import open_orders, schema

CODE = "INVALID_TRACKING_NUMBER"


def posts(env: Env) -> int:
    return len(env.asked("POST", "/errors"))


def test_an_error_is_reported_with_code_words_and_line(mistyped: Env) -> None:
    mistyped.validate()
    [error] = mistyped.shown("M-1")["errors"]
    assert (error["code"], error["mp_line_number"]) == (CODE, "M-1-1")
    assert BAD_NUMBER in error["message"]
    [finding] = mistyped.findings("M-1")
    assert finding.state == "reported"
    assert finding.reported_at is not None


def test_a_finding_is_reported_once(mistyped: Env) -> None:
    mistyped.validate()
    mistyped.see("M-1")
    mistyped.validate()
    assert posts(mistyped) == 1


def test_a_finding_is_reported_again_when_the_line_changed(mistyped: Env) -> None:
    mistyped.validate()
    mistyped.fulfill("M-1", shipment(1, BAD_NUMBER))
    mistyped.see("M-1")
    mistyped.validate()
    assert posts(mistyped) == 2


def test_a_finding_is_reported_again_when_feedamp_lists_it_no_longer(mistyped: Env) -> None:
    mistyped.validate()
    mistyped.see("M-1")
    mistyped.validate()
    mistyped.sandbox.clear_errors(SELLER, "M-1")
    mistyped.see("M-1")
    mistyped.validate()
    assert posts(mistyped) == 2
    assert len(mistyped.shown("M-1")["errors"]) == 1


def test_a_finding_dropped_before_it_was_seen_listed_is_reported_again(env: Env) -> None:
    """What FeedAMP shows then is what it showed before the report; the fault remains all the same."""
    env.placed("M-1", "M-2")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.read()
    env.validate()
    env.read()  # FeedAMP is seen to list errors
    env.validate()
    env.fulfill("M-2", shipment(2, BAD_NUMBER))
    env.read()
    env.validate()
    env.sandbox.clear_errors(SELLER, "M-2")
    env.read()
    env.validate()
    assert len([request for request in env.asked("POST") if "M-2" in request.path]) == 2
    env.read()
    env.validate()
    assert len([request for request in env.asked("POST") if "M-2" in request.path]) == 2


@pytest.mark.parametrize("dropped", ["M-1", "M-2"])
def test_what_is_dropped_before_any_error_was_seen_listed_is_reported_again(env: Env, dropped: str) -> None:
    """That FeedAMP lists errors is seen on the other order, in the same run."""
    env.placed("M-1", "M-2")
    for number in ("M-1", "M-2"):
        env.fulfill(number, shipment(2, BAD_NUMBER))
    env.read()
    env.validate()
    env.sandbox.clear_errors(SELLER, dropped)
    for _ in range(3):
        env.read()
        env.validate()
    sent = [request.path for request in env.asked("POST")]
    assert (len(sent), len([path for path in sent if dropped in path])) == (3, 2)


def test_a_report_lets_only_its_own_order_be_validated_once_more(env: Env) -> None:
    env.placed("M-1", "M-2")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.fulfill("M-2", shipment(1))
    env.read()
    env.validate()
    env.read()
    with env.state.read() as connection:
        assert open_orders.to_validate(connection, [SELLER]) == {SELLER: ["M-1"]}


def test_faults_of_one_order_go_out_in_one_request(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(3, BAD_NUMBER), shipment(0, None))
    env.see("M-1")
    env.validate()
    assert posts(env) == 1
    assert len(env.shown("M-1")["errors"]) == len(env.findings("M-1")) == 4


def test_a_line_that_was_never_ordered_is_reported_without_its_number(env: Env) -> None:
    env.placed("M-1")
    line = {"mp_line_number": "X", "shipments": [shipment(1)], "cancellations": []}
    env.sandbox.set_fulfillments(SELLER, "M-1", [line])
    env.see("M-1")
    env.validate()
    [error] = env.shown("M-1")["errors"]
    assert "mp_line_number" not in error
    assert "Line X" in error["message"]


@pytest.mark.parametrize("stored_hash", [None, "0" * 32], ids=["by this version", "by an earlier version"])
@pytest.mark.parametrize("show_errors", [True, False], ids=["listed", "not listed"])
def test_a_member_that_an_answer_leaves_out_sends_no_report_again(
    tmp_path: Path, stored_hash: str | None, show_errors: bool
) -> None:
    wrong = shipment(2, BAD_NUMBER)
    with open_env(tmp_path, show_errors=show_errors) as env:
        env.placed("M-1")
        env.fulfill("M-1", {**wrong, "tracking_url": "https://track.example/1"})
        env.see("M-1")
        env.validate()
        if stored_hash is not None:
            with env.state.begin() as connection:
                connection.execute(sa.update(schema.findings).values(line_hash=stored_hash))
        env.fulfill("M-1", {name: value for name, value in wrong.items() if name != "shipped_date"})
        env.see("M-1")
        env.validate()
        assert (posts(env), env.finding_states("M-1")) == (1, [("invalid_tracking", "reported")])


def test_a_corrected_fault_resolves_its_finding(mistyped: Env) -> None:
    mistyped.validate()
    mistyped.fulfill("M-1", shipment(2))
    mistyped.see("M-1")
    mistyped.validate()
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "resolved")]


def test_a_warning_is_kept_but_not_sent(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", {**shipment(1), "shipped_date": "2026-01-01"})
    env.see("M-1")
    env.validate()
    assert env.finding_states("M-1") == [("shipped_before_purchase", "held")]
    assert posts(env) == 0


def test_an_error_without_a_code_is_held_back(mistyped: Env) -> None:
    mistyped.set_rules(error_codes={"invalid_tracking": None})
    mistyped.validate()
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "held")]
    assert posts(mistyped) == 0


def test_one_number_for_two_recipients_is_a_warning_on_the_later_order(env: Env) -> None:
    address = env.body("M-2")["shipping_address"] | {"full_name": "Kim Reyes"}
    env.placed("M-1")
    env.placed("M-2", shipping_address=address)
    for number in ("M-1", "M-2"):
        env.fulfill(number, shipment(1))
        env.see(number)
        env.validate()
    assert (env.finding_states("M-1"), env.finding_states("M-2")) == ([], [("shared_tracking", "held")])


def test_one_number_for_two_orders_of_one_recipient_is_right(env: Env) -> None:
    env.placed("M-1", "M-2")
    for number in ("M-1", "M-2"):
        env.fulfill(number, shipment(1, GOOD_NUMBER))
        env.see(number)
    env.validate()
    assert env.findings("M-2") == []


def test_an_order_that_the_marketplace_ships_has_no_findings(mistyped: Env) -> None:
    mistyped.sandbox.set_marketplace_fulfilled(SELLER, "M-1")
    mistyped.see("M-1")
    mistyped.validate()
    assert mistyped.findings("M-1") == []


def test_a_closed_order_is_never_reported(mistyped: Env) -> None:
    mistyped.set_rules(error_codes={"invalid_tracking": None})
    mistyped.validate()
    with mistyped.sandbox.world.lock:
        mistyped.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    mistyped.see("M-1")
    mistyped.set_rules(error_codes={})
    mistyped.validate()
    assert (posts(mistyped), mistyped.order("M-1").phase) == (0, "closed")


def test_a_dry_run_sends_and_writes_nothing(mistyped: Env) -> None:
    assert mistyped.validate(dry_run=True).orders == 1
    assert (posts(mistyped), mistyped.findings("M-1")) == (0, [])


def test_findings_reach_the_warehouse_in_their_last_state(mistyped: Env) -> None:
    mistyped.validate()
    mistyped.load()
    [(kind, severity, code, state, reported_at)] = mistyped.rows(
        "SELECT kind, severity, api_code, state, reported_at FROM findings"
    )
    assert (kind, severity, code, state) == ("invalid_tracking", "error", CODE, "reported")
    assert reported_at == mistyped.findings("M-1")[0].reported_at is not None


def test_no_message_and_no_summary_holds_a_customer_field(mistyped: Env) -> None:
    text = json.dumps(mistyped.validate().summary()) + mistyped.findings("M-1")[0].message
    assert not any(word in text for word in ("Robin", "Harbor"))


def test_nothing_to_do_is_no_run_at_all(env: Env) -> None:
    assert env.validate().sellers == 0


def test_an_error_that_no_finding_explains_keeps_its_order_open(env: Env) -> None:
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").errors = [{"code": "LATE", "message": "m", "mp_line_number": None}]
    env.see("M-1")
    env.validate()
    held = env.held("M-1")
    assert held is not None
    assert (held.closable, held.waits_for) == (False, "FeedAMP still lists an error that looks resolved")


def test_an_error_listed_too_long_requires_action_although_nothing_changes(mistyped: Env) -> None:
    mistyped.validate()
    errors = mistyped.shown("M-1")["errors"]
    mistyped.fulfill("M-1", shipment(2))
    with mistyped.sandbox.world.lock:
        mistyped.sandbox._order(SELLER, "M-1").errors = errors
    mistyped.see("M-1")
    mistyped.validate()
    held = mistyped.held("M-1")
    assert held is not None
    assert (held.waits_for, held.needs_person) == ("FeedAMP still lists an error that looks resolved", False)
    mistyped.clock.skip(seconds=timedelta(days=3).total_seconds())
    mistyped.validate()
    held = mistyped.held("M-1")
    assert held is not None
    assert held.needs_person
