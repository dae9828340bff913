"""FeedAMP answers 400: kept in its own words, and not repeated until the input changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from env import SELLER, Env, open_env, shipment

from feedamp.lake.privacy import Privacy
from feedamp.order_body import BodyRules
from feedamp.state import open_orders
from feedamp.steps.step_end import finish

PAGE = "<!DOCTYPE html>"
LENIENT = {"body": BodyRules(extra_order_fields=frozenset({"gift_note"}))}


@pytest.fixture
def env() -> Iterator[Env]:
    """An env that lets a field through which FeedAMP refuses."""
    with open_env(rules=LENIENT) as opened:
        yield opened


def test_a_refused_order_is_rejected_with_feedamps_words(env: Env) -> None:
    env.placed("M-1", gift_note="hello")
    [rejected] = env.rejects()
    assert (rejected.stage, rejected.source, rejected.mp_order_number) == ("feedamp", "0001.jsonl", "M-1")
    assert rejected.reasons[0]["code"] == "refused_by_feedamp"
    assert rejected.reasons[0]["field"] == "gift_note"
    assert rejected.reasons[0]["message"] == "UNKNOWN_FIELD_PRESENT: gift_note"
    assert "gift_note" in str(env.order("M-1").reason)


def test_a_refused_order_is_not_sent_again(env: Env) -> None:
    env.placed("M-1", gift_note="hello")
    env.clock.skip(days=30)
    env.placed("M-1", gift_note="hello")
    assert len(env.asked("PUT")) == 1


def test_a_refusal_leaves_the_run_green_with_a_note(env: Env) -> None:
    env.deliver("M-1", gift_note="hello")
    result = env.place()
    assert (result.rejected, result.undone, len(result.notes)) == (1, [], 1)


def test_feedamps_words_are_not_logged(env: Env, caplog: pytest.LogCaptureFixture) -> None:
    """They may repeat a customer field (promise 9)."""
    env.deliver("M-1", gift_note="hello")
    finish(env.place())
    assert "refused by FeedAMP (400)" in caplog.text
    assert "UNKNOWN_FIELD_PRESENT" not in caplog.text
    assert (
        "0001.jsonl row 1, order M-1: gift_note refused_by_feedamp: FeedAMP answered 400" in caplog.messages
    )


def test_one_refused_order_does_not_hinder_the_next(env: Env) -> None:
    env.drop("orders.jsonl", env.body("M-1", gift_note="hello"), env.body("M-2"))
    env.intake()
    env.place()
    assert env.order("M-2").phase == "settled"


def test_a_corrected_order_is_placed_and_its_reject_superseded(env: Env) -> None:
    env.placed("M-1", gift_note="hello")
    env.placed("M-1")
    assert env.order("M-1").phase == "settled"
    assert env.rejects() == []


def test_a_refusal_remains_while_rows_are_added_to_its_file(env: Env) -> None:
    """Promise 1: the row is still there, so is its reject."""
    env.drop("orders.jsonl", env.body("M-1", gift_note="hello"))
    env.intake()
    env.place()
    env.drop("orders.jsonl", env.body("M-1", gift_note="hello"), env.body("M-2"))
    env.intake()
    assert [rejected.stage for rejected in env.rejects()] == ["feedamp"]


def test_a_refused_change_leaves_the_order_open_at_feedamp(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    with env.sandbox.world.lock:
        env.sandbox._order(SELLER, "M-1").marketplace_state = "SHIPPED"
    env.placed("M-1")
    order = env.order("M-1")
    assert (order.phase, order.accepted_state) == ("held", "PENDING")
    assert [(r.stage, r.source) for r in env.rejects()] == [("feedamp", "0002.jsonl")]


def test_what_a_gateway_said_is_the_reason_of_its_order_alone(env: Env) -> None:
    """FeedAMP's words may quote an order: none of the others, no log and no table of the lake has them."""
    env.drop("orders.jsonl", *(env.body(f"M-{number}") for number in range(8)))
    env.intake()
    env.sandbox.fault("error_403", method="PUT")
    result = env.place()
    reasons = {number: str(env.order(f"M-{number}").reason) for number in range(8)}
    [answered] = [number for number, reason in reasons.items() if PAGE in reason]
    assert reasons[answered].startswith(f"FeedAMP answered 403: {PAGE}")
    others = {reason for number, reason in reasons.items() if number != answered}
    assert PAGE not in str(others)
    assert "`feedamp orders list --waiting` shows what it said" in str(result.undone)
    assert PAGE not in str(result.undone)
    env.load()
    assert PAGE not in str(written := env.rows("SELECT DISTINCT reason FROM feedamp.waiting_orders"))
    assert ("FeedAMP answered 403",) in written
    env.clock.skip(minutes=10)
    env.place()
    assert {env.order(f"M-{number}").reason for number in range(8)} == {None}


def stored_words(env: Env) -> str:
    """What the state keeps of FeedAMP's answers."""
    with env.resources.state.read() as connection:
        waits = [open_orders.read(connection, SELLER, number) for number in ("M-1", "M-2")]
    kept = [env.order("M-1").reason, env.rejects(), [one and one.waits_for for one in waits]]
    return repr([*kept, [finding.note for number in ("M-1", "M-2") for finding in env.findings(number)]])


@pytest.mark.parametrize("masks", [True, False], ids=["masked", "kept"])
def test_with_masked_fields_words_are_kept_without_what_they_repeat(masks: bool) -> None:
    with open_env() as env:
        env.resources = replace(env.resources, privacy=Privacy(b"a key" if masks else None))
        notes = "ring for Zorvath Quillmere"
        env.placed("M-2", delivery_notes=notes)
        env.deliver("M-1", delivery_notes=notes)
        env.sandbox.fault("echo_400", method="PUT", path="/M-1$")
        env.place()
        refused = stored_words(env)
        env.fulfill("M-2", shipment(2, "1ZXX3150YW44070024"))
        env.see("M-2")
        env.sandbox.fault("echo_400", method="POST", path="/errors$")
        env.validate()
        reported = stored_words(env)
        env.fulfill("M-2", shipment(2))
        env.see("M-2")
        env.validate()
        env.sandbox.fault("echo_400", method="PUT", path="/M-2$")
        env.close()
        closing = stored_words(env)
    for words in (refused, closing):
        assert ("Quillmere" in words, "*** ***" in words or '"***"' in words) == (not masks, masks)
    assert reported.count("sent ") > refused.count("sent ")  # the report's words are kept, too
    assert closing.count("refused to close it: FIELD_INVALID_VALUE") == 1


def test_a_host_that_knows_no_orders_refuses_no_order(env: Env) -> None:
    env.placed("M-0")  # so that a live token is at hand
    env.deliver("M-1")
    right = env.resources.connection("feedamp")
    wrong = replace(right, endpoint=replace(right.endpoint, base_url=f"{env.sandbox.api}/v9"))
    env.resources = replace(env.resources, connection=lambda conn_id: wrong)
    result = env.place()
    assert result.undone
    assert env.order("M-1").phase == "to_place"
    assert env.rejects() == []
