"""`feedamp status`: what requires action."""

from __future__ import annotations

import getpass
import re
from datetime import timedelta

import pytest
import sqlalchemy as sa
from console import SELLER

from feedamp.rules.follow_up import ORDER_CLOSED
from feedamp.state import grants, ledger
from feedamp.state.schema import findings, snapshots
from feedamp.state.unfinished_reads import note_unread


def needs(console):
    """The kinds of items that require action, with their counts; and the exit code."""
    done = console.run("status", "--json")
    found = {name: some["count"] for name, some in done.json["needs_person"].items() if some["count"]}
    return done.code, found


def test_an_idle_installation_requires_no_action(feedamp_env):
    assert needs(feedamp_env) == (0, {})
    text = feedamp_env.run("status")
    assert text.code == 0
    assert text.out.endswith("ACTION REQUIRED\n  nothing\n")
    assert "  oldest watermark     none yet; 3 sellers wait for their first reading\n" in text.out


def test_read_only_is_switched_and_said_everywhere(feedamp_env):
    assert feedamp_env.run("status", "--json").json["read_only"] is None
    off = "Read-only is off: the next runs send what is due.\n"
    asked = feedamp_env.run("read-only")
    assert (asked.code, asked.out) == (0, off)
    first = feedamp_env.run("read-only", "on", "--reason", "wrong prices")
    assert (first.code, first.out.startswith("Read-only is on: nothing is sent to FeedAMP")) == (0, True)
    assert first.out.endswith("\nReason: wrong prices\n" + first.out.splitlines(keepends=True)[-1])
    assert first.out.splitlines()[-1].startswith("Tasks under way stop within a second")
    shown = feedamp_env.run("status", "--json").json["read_only"]
    assert shown["by"] == "switch"
    by = f"Read-only was switched on by {getpass.getuser()} at "
    again = feedamp_env.run("read-only", "on", "--reason", "another")
    assert (again.code, again.out.startswith(by)) == (0, True)
    assert again.out.endswith(
        "Reason: wrong prices\nIt was on already; who, when and why stay as they are.\n"
    )
    assert feedamp_env.run("status", "--json").json["read_only"] == shown
    asked = feedamp_env.run("read-only")
    assert (asked.code, asked.out.startswith(by)) == (0, True)
    assert asked.out.endswith("\nReason: wrong prices\n")
    told = feedamp_env.run("status").out.splitlines()
    assert told[0].startswith(f"READ-ONLY: {by.removeprefix('Read-only was ')}")
    assert told[1] == "  Reason: wrong prices"
    [said] = [c for c in feedamp_env.run("doctor", "--json").json["checks"] if c["name"] == "read_only"]
    assert said["says"].startswith(by)
    feedamp_env.env.set_options(read_only="true")
    still = feedamp_env.run("read-only", "off")
    assert (still.code, still.out.startswith("Option read_only is true")) == (1, True)
    assert feedamp_env.run("status", "--json").json["read_only"]["by"] == "option"
    feedamp_env.env.set_options(read_only="false")
    assert feedamp_env.run("read-only", "off").out == off
    assert feedamp_env.run("status", "--json").json["read_only"] is None


def test_orders_are_counted_by_phase_and_reason(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", "M-2")
    feedamp_env.place()
    feedamp_env.run("sellers", "pause", "seller-002")
    feedamp_env.deliver("b.jsonl", "M-3", "M-4", seller="seller-002")
    feedamp_env.plan()
    shown = feedamp_env.run("status", "--json").json
    assert shown["orders"]["to_place"] == {
        "count": 2,
        "reasons": [{"reason": "the seller is paused", "count": 2}],
    }
    assert shown["orders"]["settled"]["count"] == 2
    assert shown["settled_wait_for"] == [{"reason": "not read yet", "count": 2}]
    assert shown["sellers"] == {
        "active": 2,
        "needs_authorization": 0,
        "set_aside": 0,
        "no_grant": 0,
        "paused": 1,
    }
    assert shown["last"]["order_placed"].endswith("Z")
    assert shown["watermarks"]["sellers_never_read_whole"] == 2
    assert shown["on_the_way_to_the_warehouse"]["outbox_rows"] > 0
    assert "the seller is paused" in feedamp_env.run("status").out


def test_a_watermark_has_an_age(feedamp_env):
    feedamp_env.read()
    shown = feedamp_env.run("status", "--json").json["watermarks"]
    assert (shown["sellers"], shown["sellers_never_read_whole"]) == (1, 2)
    assert 600 <= shown["oldest_age_s"] < 700  # overlap_minutes
    [told] = [line for line in feedamp_env.run("status").out.splitlines() if "oldest watermark" in line]
    assert re.search("Z, 1[01] minutes ago; 2 sellers wait for their first reading$", told)


def test_rejected_rows_require_action(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", currency="XXX1")
    assert needs(feedamp_env) == (1, {"rejected_rows": 1})
    assert "a.jsonl" in feedamp_env.run("status").out


def test_rejected_rows_are_shown_newest_first_until_they_are_dismissed(feedamp_env):
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        feedamp_env.deliver(name, f"M-{name}", currency="XXX1")
    items = feedamp_env.run("status", "--json").json["needs_person"]["rejected_rows"]["items"]
    assert [item["source"] for item in items] == ["c.jsonl", "b.jsonl", "a.jsonl"]
    ids = [item["reject_id"] for item in items]
    assert ids[0] in feedamp_env.run("status").out
    assert feedamp_env.run("rejected", "dismiss", *ids, "--reason", "tests").code == 0
    assert needs(feedamp_env) == (0, {})


def test_an_order_that_stays_unreadable_for_a_day_requires_action(feedamp_env):
    state = feedamp_env.resources.state
    with state.begin() as connection:
        for number, days in (("M-1", 2), ("M-2", 0.5)):
            since = state.now() - timedelta(days=days)
            note_unread(connection, SELLER, {number: "order_lines"}, gone=(), now=since)
    assert needs(feedamp_env) == (1, {"unreadable_orders": 1})
    assert "order_lines" in feedamp_env.run("status").out


def test_a_file_that_cannot_be_read_to_its_end_requires_action(feedamp_env):
    (feedamp_env.env.inbox / "orders.xlsx").write_bytes(b"PK")
    feedamp_env.intake()
    assert needs(feedamp_env) == (1, {"faulty_files": 1})
    shown = feedamp_env.run("status").out
    assert "orders.xlsx" in shown
    assert "`feedamp rejected dismiss ID --reason REASON`" in shown
    (feedamp_env.env.inbox / "orders.xlsx").unlink()
    [item] = feedamp_env.run("status", "--json").json["needs_person"]["faulty_files"]["items"]
    feedamp_env.run("rejected", "dismiss", item["reject_id"], "--reason", "sent as CSV")
    assert needs(feedamp_env) == (0, {})


def test_a_refused_grant_requires_action(feedamp_env):
    now = feedamp_env.resources.state.now()
    with feedamp_env.resources.state.begin() as connection:
        grant = grants.read(connection, feedamp_env.resources.cipher, SELLER)
        grants.note_refusal(connection, grant, run_key="run", now=now)
        grants.mark_needs_authorization(connection, [SELLER], now=now)
    assert needs(feedamp_env) == (1, {"sellers_to_connect": 1})
    feedamp_env.run("sellers", "pause", SELLER)
    assert needs(feedamp_env) == (0, {})


def test_sellers_without_a_grant_require_action_once_orders_wait(console):
    console.run("sellers", "add", "S1")
    assert needs(console) == (0, {})
    console.deliver("a.jsonl", "M-1", seller="S1")
    console.deliver("b.jsonl", "M-1", seller="S2")
    assert needs(console) == (1, {"sellers_to_connect": 2})
    items = console.run("status", "--json").json["needs_person"]["sellers_to_connect"]["items"]
    assert [(item["seller_id"], item["reason"], item["waiting_orders"]) for item in items] == [
        ("S1", "the seller has no grant yet", 1),
        ("S2", "the seller is not registered", 1),
    ]


def test_a_held_order_requires_action(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    with feedamp_env.resources.state.begin() as connection:
        order = ledger.read(connection, SELLER, "M-1")
        ledger.write(connection, order.cancellation_held("conflict: …"))
    assert needs(feedamp_env) == (1, {"held_orders": 1})


def test_an_order_that_feedamp_does_not_have_is_listed_with_what_to_do(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    with feedamp_env.resources.state.begin() as connection:
        ledger.mark_missing(connection, SELLER, "M-1", asked_at=feedamp_env.resources.state.now())
    assert needs(feedamp_env) == (1, {"missing_orders": 1})
    done = feedamp_env.run("status")
    assert "repair=true places again" in done.out
    assert f"{SELLER}  M-1" in done.out
    assert feedamp_env.run("status", "--json").json["settled_wait_for"] == [
        {"reason": "FeedAMP does not have it", "count": 1}
    ]


def test_a_shipped_order_that_was_cancelled_is_listed_with_its_units(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    feedamp_env.deliver("b.jsonl", "M-1", marketplace_state="CANCELLED")
    feedamp_env.place()
    assert needs(feedamp_env) == (0, {})
    feedamp_env.fulfill("M-1")
    feedamp_env.read()
    assert needs(feedamp_env) == (1, {"cancelled_but_shipped": 1})
    shown = feedamp_env.run("status").out
    assert "shipped: 2 of line M-1-1" in shown
    assert "    seller_id   mp_order_number  reason\n" in shown


def test_a_cancelled_but_shipped_order_is_acknowledged_until_more_ships(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    feedamp_env.deliver("b.jsonl", "M-1", marketplace_state="CANCELLED")
    feedamp_env.place()
    acknowledge = ("orders", "acknowledge", SELLER, "M-1", "--reason", "the parcel came back")
    assert feedamp_env.run(*acknowledge).code == 1
    assert feedamp_env.run("orders", "acknowledge", SELLER, "M-9", "--reason", "x").code == 1
    feedamp_env.fulfill("M-1", quantity=1)
    feedamp_env.read()
    assert needs(feedamp_env) == (1, {"cancelled_but_shipped": 1})
    assert feedamp_env.run(*acknowledge[:4], "--reason", " ").code == 2
    done = feedamp_env.run(*acknowledge)
    assert (done.code, "if more than 1 unit is shipped" in done.out) == (0, True)
    assert "was acknowledged already" in feedamp_env.run(*acknowledge).out
    assert needs(feedamp_env) == (0, {})
    shown = feedamp_env.run("orders", "show", SELLER, "M-1", "--json").json
    assert (shown["acknowledged_shipped"], shown["acknowledge_reason"]) == (1, "the parcel came back")
    assert shown["acknowledged_at"]
    assert shown["acknowledged_by"] == getpass.getuser()
    feedamp_env.fulfill("M-1", quantity=2)
    feedamp_env.read()
    assert needs(feedamp_env) == (1, {"cancelled_but_shipped": 1})


def test_a_shipped_order_that_was_withdrawn_is_listed_until_it_is_acknowledged(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    feedamp_env.fulfill("M-1", quantity=2)
    feedamp_env.read()
    feedamp_env.process()
    acknowledge = ("orders", "acknowledge", SELLER, "M-1", "--reason", "the buyer was refunded")
    refused = feedamp_env.run(*acknowledge)
    assert (refused.code, "nothing to acknowledge" in refused.err) == (1, True)
    feedamp_env.sandbox.set_fulfillments(SELLER, "M-1", [])
    feedamp_env.read()
    assert needs(feedamp_env) == (1, {"shipped_but_withdrawn": 1})
    assert (
        "no units are shipped although it is SHIPPED" in feedamp_env.run("orders", "show", SELLER, "M-1").out
    )
    assert feedamp_env.run(*acknowledge).code == 0
    assert "was acknowledged already" in feedamp_env.run(*acknowledge).out
    assert needs(feedamp_env) == (0, {})


def test_an_undecodable_snapshot_requires_action(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    feedamp_env.read()
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.update(snapshots).values(snapshot="{"))
    feedamp_env.process()
    assert needs(feedamp_env) == (1, {"stuck_orders": 1})


def test_a_held_error_finding_requires_action_and_a_reported_one_does_not(feedamp_env):
    feedamp_env.ship_wrongly()
    assert needs(feedamp_env) == (0, {})
    feedamp_env.env.set_options(error_codes='{"invalid_tracking": null}')
    feedamp_env.reopen()
    feedamp_env.fulfill("M-1", "1Z999AA10123456786")
    feedamp_env.read()
    feedamp_env.process()
    assert needs(feedamp_env) == (1, {"held_findings": 1})


def test_a_refused_report_requires_another_action_than_a_missing_code(feedamp_env):
    feedamp_env.sandbox.fault("echo_400", method="POST", path="/errors$")
    feedamp_env.ship_wrongly()
    assert needs(feedamp_env) == (1, {"refused_findings": 1})
    said = feedamp_env.run("status").out
    assert "1 error finding whose report FeedAMP refused" in said
    assert "error_codes" not in said


def test_a_finding_held_by_the_end_of_its_order_requires_no_action(feedamp_env):
    feedamp_env.ship_wrongly()
    for note, required in (("400", {"refused_findings": 1}), (ORDER_CLOSED, {})):
        with feedamp_env.resources.state.begin() as connection:
            connection.execute(sa.update(findings).values(state="held", note=note))
        assert needs(feedamp_env)[1] == required


@pytest.mark.parametrize(("days", "expected"), [(2.9, (0, {})), (3.1, (1, {"stuck_orders": 1}))])
def test_an_error_that_stays_listed_requires_action_after_error_clear_days(feedamp_env, days, expected):
    feedamp_env.ship_wrongly()
    since = feedamp_env.resources.state.now() - timedelta(days=days)
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.update(snapshots).values(error_lingers_since=since, waits_for="…"))
    assert needs(feedamp_env) == expected


@pytest.mark.parametrize(
    ("rows", "line"),
    [pytest.param(1, "1 rejected row:", id="one"), pytest.param(2, "2 rejected rows:", id="two")],
)
def test_a_line_of_action_required_agrees_with_its_count(feedamp_env, rows, line):
    feedamp_env.deliver("a.jsonl", *[f"M-{number}" for number in range(rows)], currency="XXX1")
    assert f"  {line} fix the source" in feedamp_env.run("status").out
