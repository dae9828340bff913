"""A state that we set reaches lake and warehouse even if the read that follows it fails or never comes."""

from __future__ import annotations

import pytest
from env import Env


def status(env: Env, number: str) -> tuple[str, str]:
    [row] = env.rows(f"SELECT marketplace_state, status FROM orders WHERE mp_order_number = '{number}'")
    return row


def changed(env: Env, state: str) -> None:
    """An order that FeedAMP and the warehouse knew as PENDING is set to a state, and cannot be read back at once."""
    env.placed("M-1", marketplace_state="PENDING")
    env.see("M-1")
    env.read()
    env.drop("later.jsonl", env.body("M-1", marketplace_state=state))
    env.intake()
    env.sandbox.fault("error_500", method="GET", path="/orders$", times=None)
    env.place()
    env.sandbox.clear_faults()
    env.load()


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        pytest.param("AWAITING_SHIPMENT", "ORDERED", id="an order that is released"),
        pytest.param("CANCELLED", "COMPLETE", id="an order that the marketplace cancels"),
    ],
)
def test_the_next_extraction_reads_what_could_not_be_read_back(env: Env, state: str, shown: str) -> None:
    changed(env, state)
    assert env.order("M-1").read_back_at is not None
    env.read()
    assert status(env, "M-1") == (state, shown)
    assert env.order("M-1").read_back_at is None


def test_an_order_that_was_read_back_is_not_read_again(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.placed("M-1")
    env.load()
    env.read()
    before = len(env.asked("GET"))
    env.clock.skip(hours=1)
    env.read()
    assert [r.query for r in env.asked("GET")[before:] if "mp_order_numbers" in r.query] == []


def test_an_older_read_does_not_count(env: Env) -> None:
    env.placed("M-1", marketplace_state="PENDING")
    env.extract()  # read before the change, loaded after it
    env.drop("later.jsonl", env.body("M-1"))
    env.intake()
    env.sandbox.fault("error_500", method="GET", times=None)
    env.place()
    env.sandbox.clear_faults()
    env.load()
    assert env.order("M-1").read_back_at is not None
    env.read()
    assert status(env, "M-1") == ("AWAITING_SHIPMENT", "ORDERED")
