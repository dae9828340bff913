"""`feedamp adopt`: what it prints, its exit codes, and an adopted order in the other commands."""

from __future__ import annotations

import pytest
from console import SELLER
from order_samples import good_line, good_order

SINCE = ("--since", "2026-01-01T00:00:00Z")


@pytest.fixture
def joined(feedamp_env):
    """FeedAMP holds X-1, which another system placed."""
    feedamp_env.env.hold(SELLER, "X-1")
    return feedamp_env


def body(console, number):
    """The order as FeedAMP holds it, in the form of a delivery."""
    held = console.sandbox.orders(SELLER)[number]
    return {name: held[name] for name in good_order() if name in held}


def test_orders_are_adopted_and_counted(joined):
    done = joined.run("adopt", *SINCE, "--json")
    assert (done.code, done.err) == (0, "")
    assert {name: done.json[name] for name in ("adopted", "known", "orders_read", "in_warehouse")} == {
        "adopted": 1,
        "known": 0,
        "orders_read": 1,
        "in_warehouse": True,
    }
    assert joined.env.query("SELECT mp_order_number FROM feedamp.orders") == [("X-1",)]
    assert joined.run("adopt", *SINCE, "--json").json["known"] == 1


def test_a_dry_run_says_what_would_be_and_does_nothing(joined):
    done = joined.run("adopt", *SINCE, "--dry-run")
    assert "would be adopted 1" in done.out
    assert joined.run("orders", "show", SELLER, "X-1").code == 1


def test_people_are_told_what_closing_needs(joined):
    assert "deliver it to the inbox as it was placed" in joined.run("adopt", *SINCE).out
    joined.process()
    shown = joined.run("orders", "show", SELLER, "X-1", "--json").json
    assert (shown["phase"], shown["body_kind"], shown["closing"]["needs_person"]) == ("settled", "seen", True)
    assert "never delivered here" in shown["closing"]["waits_for"]
    assert shown["lines"][0]["ordered"] > 0
    status = joined.run("status", "--json")
    [stuck] = status.json["needs_person"]["stuck_orders"]["items"]
    assert (status.code, stuck["mp_order_number"]) == (1, "X-1")
    assert status.json["last"]["order_placed"] is None


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        pytest.param(["--since", "2026-01-01T00:00:00"], "zone", id="a moment without a zone"),
        pytest.param(["--since", "yesterday"], "date-time", id="not a moment"),
        pytest.param(
            ["--since", "0001-01-01T00:00:00+14:00"], "date-time", id="a moment before the calendar"
        ),
        pytest.param([*SINCE, "seller-999"], "seller-999", id="an unknown seller"),
    ],
)
def test_a_wrong_command_line_is_refused_and_reads_nothing(joined, argv, says):
    before = len(joined.env.asked())
    done = joined.run("adopt", *argv)
    assert (done.code, says in done.err) == (2, True)
    assert len(joined.env.asked()) == before


def test_since_must_be_given(joined):
    assert joined.run("adopt").code == 2


def test_a_paused_seller_is_named_and_the_others_are_read(joined):
    joined.run("sellers", "pause", "seller-002")
    done = joined.run("adopt", *SINCE, "--json")
    assert (done.code, done.json["adopted"]) == (1, 1)
    assert (done.json["sellers"], done.json["sellers_failed"]) == (3, 1)
    assert "seller-002: skipped: the seller is paused" in done.err


def test_a_busy_warehouse_is_said_with_what_to_do(joined, start_holder):
    joined.env.set_options(duckdb_lock_wait_s="0")
    joined.load()
    start_holder(joined.folder / "warehouse.duckdb")
    done = joined.run("adopt", *SINCE, "--json")
    assert (done.code, done.json["adopted"], done.json["in_warehouse"]) == (1, 1, False)
    assert "the next `load` of any DAG loads them" in done.err


def test_no_customer_field_is_printed(joined):
    held = joined.sandbox.orders(SELLER)["X-1"]
    done = joined.run("adopt", *SINCE)
    shown = joined.run("orders", "show", SELLER, "X-1")
    assert held["customer"]["full_name"] not in done.out + done.err + shown.out + shown.err


def test_a_delivered_row_that_contradicts_it_is_shown_as_rejected(joined):
    joined.run("adopt", *SINCE)
    joined.env.drop(
        "a.jsonl",
        {
            "seller_id": SELLER,
            "order": {**body(joined, "X-1"), "order_lines": [good_line(mp_line_number="Z")]},
        },
    )
    joined.intake()
    reasons = [r["code"] for found in joined.run("rejected", "list", "--json").json for r in found["reasons"]]
    assert set(reasons) == {"body_changed"}
    assert joined.run("orders", "show", SELLER, "X-1", "--json").json["body_kind"] == "seen"
