"""Reporting with lost answers: the order is read before anything is repeated (promises 5 and 8)."""

from __future__ import annotations

import re

import pytest
from env import BAD_NUMBER, OTHER, SELLER, Env, open_env, shipment

from feedamp.errors import TransientError
from feedamp.steps.process_fulfillments.validate import plan_process
from feedamp.steps.step_end import finish
from feedamp_sandbox.faults import Kind


def posts(env: Env) -> int:
    return len(env.asked("POST", "/errors"))


def test_a_lost_answer_is_looked_up_and_not_repeated(mistyped: Env) -> None:
    mistyped.sandbox.fault("reset_after", path="/errors")
    mistyped.validate()
    assert posts(mistyped) == 1
    assert mistyped.asked("GET", "/orders/M-1")
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "reported")]


@pytest.mark.parametrize("kind", ["reset_before", "error_500", "error_503"])
def test_a_report_that_never_arrived_is_repeated_after_the_order_was_read(mistyped: Env, kind: Kind) -> None:
    mistyped.sandbox.fault(kind, path="/errors")
    mistyped.validate()
    later = [r.method for r in mistyped.sandbox.requests if "/orders/M-1" in r.path][-3:]
    assert later == ["POST", "GET", "POST"]
    assert len(mistyped.shown("M-1")["errors"]) == 1


def test_a_throttled_report_is_repeated(mistyped: Env) -> None:
    mistyped.sandbox.fault("throttle", path="/errors")
    mistyped.validate()
    assert len(mistyped.shown("M-1")["errors"]) == 1


def test_a_lost_answer_is_looked_up_by_the_next_run_if_this_one_could_not(mistyped: Env) -> None:
    mistyped.sandbox.fault("reset_after", path="/errors")
    mistyped.sandbox.fault("error_503", method="GET", path="/orders/M-1", times=4)
    with pytest.raises(TransientError):
        finish(mistyped.validate())
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "to_report")]
    mistyped.validate()
    assert posts(mistyped) == 1
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "reported")]


@pytest.fixture
def unclear(mistyped: Env) -> Env:
    """The report on M-1 has arrived, but neither its answer came back nor that to the read that followed."""
    mistyped.sandbox.fault("reset_after", path="/errors")
    mistyped.sandbox.fault("error_503", method="GET", path="/orders/M-1", times=4)
    mistyped.validate()
    return mistyped


def test_a_report_with_a_lost_answer_is_not_repeated_for_a_corrected_line(unclear: Env) -> None:
    unclear.fulfill("M-1", shipment(2))
    unclear.validate()
    assert posts(unclear) == 1
    assert unclear.finding_states("M-1") == [("invalid_tracking", "resolved")]
    unclear.close()
    assert unclear.shown("M-1")["marketplace_state"] == "SHIPPED"


def test_an_unreadable_order_leaves_its_report_unclear_and_others_are_sent(unclear: Env) -> None:
    unclear.placed("M-2")
    unclear.fulfill("M-2", shipment(2, BAD_NUMBER))
    unclear.see("M-2")
    unclear.sandbox.fault("misshapen_order", method="GET", path="/orders/M-1", times=None)
    result = unclear.validate()
    assert unclear.finding_states("M-1") == [("invalid_tracking", "to_report")]
    assert unclear.finding_states("M-2") == [("invalid_tracking", "reported")]
    assert finish(result)["orders_unread"] == 1


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        pytest.param("reset_after", 1, id="it had arrived: not repeated"),
        pytest.param("reset_before", 2, id="has_errors says none: repeated"),
    ],
)
def test_where_orders_show_no_errors_the_filter_decides(kind: Kind, sent: int) -> None:
    with open_env(show_errors=False) as env:
        env.placed("M-1")
        env.fulfill("M-1", shipment(2, BAD_NUMBER))
        env.see("M-1")
        env.sandbox.fault(kind, path="/errors")
        env.validate()
        assert posts(env) == sent
        assert len(env.shown("M-1")["errors"]) == 1
        assert any("has_errors" in r.query for r in env.asked("GET"))
        assert env.sandbox.broken_rules == []


def test_where_orders_show_no_errors_nothing_is_reported_again() -> None:
    with open_env(show_errors=False) as env:
        env.placed("M-1")
        env.fulfill("M-1", shipment(2, BAD_NUMBER))
        for _ in range(2):
            env.see("M-1")
            env.validate()
            env.sandbox.set_marketplace_fulfilled(SELLER, "M-1", False)
        assert posts(env) == 1


def test_a_report_that_feedamp_refuses_is_held_with_its_words(env: Env) -> None:
    env.set_rules(error_codes={"invalid_tracking": "NO_SUCH_CODE"})
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    result = env.validate()
    [finding] = env.findings("M-1")
    assert finding.state == "held"
    assert finding.note
    assert finish(result)["notes"] == 1
    env.validate()
    assert posts(env) == 1


@pytest.mark.parametrize("code", ["NO_SUCH_CODE", None], ids=["a code that FeedAMP refuses", "no code"])
def test_a_held_report_is_sent_once_its_code_is_corrected(env: Env, code: str | None) -> None:
    env.set_rules(error_codes={"invalid_tracking": code})
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    env.validate()
    assert env.finding_states("M-1") == [("invalid_tracking", "held")]
    assert plan_process(env.resources, []) == []
    env.set_rules(error_codes={})
    assert [shard["sellers"] for shard in plan_process(env.resources, [])] == [[SELLER]]
    env.validate()
    assert env.finding_states("M-1") == [("invalid_tracking", "reported")]
    assert len(env.shown("M-1")["errors"]) == 1
    assert plan_process(env.resources, []) == []


def test_a_refused_code_holds_back_no_finding_with_another_code(env: Env) -> None:
    env.set_rules(error_codes={"over_fulfilled": "NO_SUCH_CODE"})
    env.placed("M-1")
    env.fulfill("M-1", shipment(5, BAD_NUMBER))
    env.see("M-1")
    env.validate()
    assert dict(env.finding_states("M-1")) == {"invalid_tracking": "reported", "over_fulfilled": "held"}
    env.set_rules(error_codes={})
    env.validate()
    assert dict(env.finding_states("M-1")) == {"invalid_tracking": "reported", "over_fulfilled": "reported"}
    assert len(env.shown("M-1")["errors"]) == 2


def test_a_corrected_code_gives_no_work_where_the_marketplace_ships(env: Env) -> None:
    env.set_rules(error_codes={"invalid_tracking": None})
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    env.validate()
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1", True)
    env.see("M-1")
    env.validate()
    env.set_rules(error_codes={})
    assert plan_process(env.resources, []) == []
    env.sandbox.set_marketplace_fulfilled(SELLER, "M-1", False)
    env.see("M-1")
    env.validate()
    assert env.finding_states("M-1") == [("invalid_tracking", "reported")]


def test_a_report_that_a_gateway_refuses_is_sent_by_the_next_run(mistyped: Env) -> None:
    mistyped.sandbox.fault("error_403", path="/errors")
    with pytest.raises(TransientError, match="FeedAMP answered 403 to POST"):
        finish(mistyped.validate())
    [finding] = mistyped.findings("M-1")
    assert (finding.state, finding.intent_at) == ("to_report", None)
    assert finding.note is not None
    assert re.fullmatch("FeedAMP answered 403: .+", finding.note)
    mistyped.validate()
    assert mistyped.findings("M-1")[0].note is None
    assert mistyped.finding_states("M-1") == [("invalid_tracking", "reported")]
    assert mistyped.asked("GET", "/orders/M-1") == []  # no request was unclear, so none was looked up


@pytest.mark.parametrize("trouble", ["an outage", "a revoked grant"])
def test_one_failing_seller_does_not_delay_another(mistyped: Env, trouble: str) -> None:
    mistyped.placed("M-2", seller=OTHER)
    mistyped.fulfill("M-2", shipment(2, BAD_NUMBER), seller=OTHER)
    mistyped.see("M-2", seller=OTHER)
    if trouble == "an outage":
        mistyped.sandbox.fault("error_503", seller_id=SELLER, times=None)
    else:
        mistyped.sandbox.revoke(SELLER)
    mistyped.validate()
    assert [f.state for f in mistyped.findings("M-1")] == ["to_report"]
    assert [f.state for f in mistyped.findings("M-2", OTHER)] == ["reported"]


def test_a_fault_on_a_line_that_was_never_ordered_delays_no_other_report(env: Env) -> None:
    env.placed("M-1")
    lines = [
        {"mp_line_number": line, "shipments": [shipment(2, BAD_NUMBER)], "cancellations": []}
        for line in ("M-1-1", "never-ordered")
    ]
    env.sandbox.set_fulfillments(SELLER, "M-1", lines)
    env.see("M-1")
    env.validate()
    assert {state for _, state in env.finding_states("M-1")} == {"reported"}
    listed = [(error.get("mp_line_number"), error["message"]) for error in env.shown("M-1")["errors"]]
    assert sorted(line or "" for line, _ in listed) == ["", "", "M-1-1"]
    assert all("never-ordered" in message for line, message in listed if line is None)
    assert env.sandbox.broken_rules == []
