"""`feedamp orders show`, `findings` and `rejected`: what people look up and override."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from console import BAD_NUMBER, SELLER

from feedamp.rules.order_story import sentence
from feedamp.state import ledger, open_orders, outbox, rejects
from feedamp.state.schema import snapshots
from feedamp_airflow.audience import ELSEWHERE
from feedamp_airflow.cli import orders
from feedamp_airflow.cli.output import Output

PERSONAL = ("Robin", "Vale", "12 Harbor Way")


def show(console, number="M-1", seller=SELLER):
    return console.run("orders", "show", seller, number, "--json").json


def codes(done):
    return sorted((r["stage"], reason["code"]) for r in done.json for reason in r["reasons"])


@pytest.fixture
def placed(feedamp_env):
    """Places M-1 at FeedAMP."""
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.place()
    return feedamp_env


@pytest.fixture
def faulty(placed):
    """M-1 is fully shipped, with an invalid tracking number."""
    placed.fulfill("M-1", BAD_NUMBER)
    placed.read()
    placed.process()
    return placed


def test_an_order_that_waits_for_its_first_put(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    shown = show(feedamp_env)
    assert (shown["phase"], shown["closing"]["waits_for"], shown["snapshot"]) == (
        "to_place",
        "not placed yet",
        None,
    )
    assert [(line["ordered"], line["shipped"]) for line in shown["lines"]] == [(2, None)]


def test_an_order_along_its_way(placed):
    assert show(placed)["closing"]["waits_for"] == "not read yet"
    placed.fulfill("M-1", quantity=1)
    placed.read()
    assert show(placed)["closing"]["waits_for"] == "not validated yet"
    placed.process()
    shown = show(placed)
    assert shown["closing"]["waits_for"] == "units do not add up yet"
    [line] = shown["lines"]
    assert (line["mp_line_number"], line["ordered"], line["shipped"], line["pending"]) == ("M-1-1", 2, 1, 1)
    placed.fulfill("M-1", quantity=2)
    placed.read()
    placed.process()
    assert (show(placed)["phase"], show(placed)["accepted_state"]) == ("closed", "SHIPPED")


def test_a_closed_order_shows_its_shipped_and_cancelled_units(placed):
    placed.fulfill("M-1", quantity=1, cancelled=1)
    placed.read()
    placed.process()
    shown = show(placed)
    assert shown["phase"] == "closed"
    assert [(line["ordered"], line["shipped"], line["cancelled"]) for line in shown["lines"]] == [(2, 1, 1)]
    lines = placed.run("orders", "show", SELLER, "M-1").out.splitlines()
    assert (lines[-1].split()[0], lines[-1].split()[2:]) == ("M-1-1", ["2", "1", "1", "0", "0"])
    [read_at] = [line.split()[-1] for line in lines if line.startswith("feedamp read_at")]
    assert read_at == f"{shown['read_at'][:19]}Z"


def test_the_text_says_which_of_two_deliveries_it_means(placed):
    placed.deliver("b.jsonl", "M-1", marketplace_state="CANCELLED")
    placed.place()
    lines = placed.run("orders", "show", SELLER, "M-1").out.splitlines()
    facts = {line[:20].strip(): line.split()[-1] for line in lines if line.startswith(("newest", "first"))}
    assert (facts["newest source"], facts["newest source_row"]) == ("b.jsonl", "1")
    assert facts["first taken_at"] == f"{show(placed)['taken_at'][:19]}Z"


def test_the_units_of_an_order_closed_by_an_earlier_version_are_unknown(placed):
    placed.fulfill("M-1")
    placed.read()
    placed.process()
    with placed.resources.state.begin() as connection:
        order = ledger.read(connection, SELLER, "M-1")
        unknown = order.but(closed_units=None, closed_units_shipped=None, closed_units_at=None)
        ledger.write(connection, unknown)
    assert [line["shipped"] for line in show(placed)["lines"]] == [None]
    row = placed.run("orders", "show", SELLER, "M-1").out.splitlines()[-1].split()
    assert row[2:] == ["2", *["unknown"] * 4]


def test_an_order_that_feedamp_does_not_have_says_so(placed):
    placed.read()
    with placed.resources.state.begin() as connection:
        ledger.mark_missing(connection, SELLER, "M-1", asked_at=placed.resources.state.now())
    shown = show(placed)
    assert (shown["closing"]["needs_person"], shown["missing_since"][-1]) == (True, "Z")
    assert "FeedAMP does not have it" in placed.run("orders", "show", SELLER, "M-1").out


def test_an_order_with_an_undecodable_stored_snapshot_is_still_shown(placed):
    placed.read()
    with placed.resources.state.begin() as connection:
        connection.execute(sa.update(snapshots).values(snapshot="{"))
    shown = show(placed)
    assert shown["closing"]["waits_for"] == open_orders.UNDECODABLE
    assert [(line["ordered"], line["shipped"]) for line in shown["lines"]] == [(2, None)]


def test_an_order_with_a_finding_shows_it_and_no_customer_field(faulty):
    shown = show(faulty)
    assert [(f["kind"], f["state"]) for f in shown["findings"]] == [("invalid_tracking", "reported")]
    assert shown["closing"]["waits_for"] == "an error finding is still open"
    text = faulty.run("orders", "show", SELLER, "M-1")
    assert text.code == 0
    assert "invalid_tracking" in text.out
    assert shown["placed_at"].endswith("Z")
    assert not [word for word in PERSONAL if word in text.out + json.dumps(shown)]


def test_an_unknown_order_is_not_found_but_its_rejects_are_named(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-2", currency="XXX1")
    done = feedamp_env.run("orders", "show", SELLER, "M-2", "--json")
    assert (done.code, done.out) == (1, "")
    assert "rejected at a.jsonl:1: currency" in done.err
    assert done.err.endswith("correct it and deliver it again; `feedamp rejected list` has all reasons.\n")


def test_an_order_that_was_cancelled_in_time_waits_for_nothing(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1")
    feedamp_env.deliver("b.jsonl", "M-1", marketplace_state="CANCELLED")
    assert show(feedamp_env)["closing"]["waits_for"] == "nothing: it is never placed"
    said = feedamp_env.run("orders", "show", SELLER, "M-1").out
    assert "Now: never_placed; cancelled before it was placed\nNext: Nothing.\n" in said


def test_findings_are_listed_by_state_and_seller(faulty):
    [found] = faulty.run("findings", "list", "--json").json
    assert (found["kind"], found["seller_id"], found["mp_order_number"]) == (
        "invalid_tracking",
        SELLER,
        "M-1",
    )
    assert faulty.run("findings", "list", "--state", "held", "--json").json == []
    assert faulty.run("findings", "list", "--seller", "seller-002", "--json").json == []
    assert len(faulty.run("findings", "list", "--state", "reported", "--seller", SELLER, "--json").json) == 1
    assert found["finding_id"] in faulty.run("findings", "list").out
    assert faulty.run("findings", "list", "--state", "nonsense").code == 2


def test_a_list_of_open_findings_says_that_there_are_others(faulty):
    listed = faulty.run("findings", "list", "--json")
    assert (len(listed.json), listed.err) == (1, "")
    faulty.run("findings", "waive", listed.json[0]["finding_id"], "--reason", "it is right")
    listed = faulty.run("findings", "list", "--json")
    assert (listed.json, listed.err) == (
        [],
        "feedamp: Open findings only; --state all lists 1 more finding.\n",
    )
    assert len(faulty.run("findings", "list", "--state", "all", "--json").json) == 1


def test_a_waived_finding_no_longer_blocks_the_order(faulty):
    faulty.load()
    [found] = faulty.run("findings", "list", "--json").json
    done = faulty.run("findings", "waive", found["finding_id"], "--reason", "label seen")
    assert done.code == 0, done.err
    [waived] = faulty.run("findings", "list", "--state", "waived", "--json").json
    assert (waived["note"], waived["resolved_at"][-1]) == ("label seen", "Z")
    with faulty.resources.state.begin() as connection:
        outbox.claim(connection, "a-test")
    rows = list(outbox.claimed_rows(faulty.resources.state.read, "a-test"))
    with faulty.resources.state.begin() as connection:
        outbox.unclaim(connection, "a-test")
    assert [(table, row["kind" if table == "order_events" else "state"]) for table, row in rows] == [
        ("order_events", "waived"),
        ("findings", "waived"),
    ]
    assert show(faulty)["closing"]["waits_for"] == "not validated yet"
    faulty.process()
    assert show(faulty)["phase"] == "closed"


def test_waiving_twice_and_waiving_nothing(faulty):
    [found] = faulty.run("findings", "list", "--json").json
    faulty.run("findings", "waive", found["finding_id"], "--reason", "label seen")
    again = faulty.run("findings", "waive", found["finding_id"], "--reason", "other")
    assert (again.code, "waived already" in again.out) == (0, True)
    assert faulty.run("findings", "list", "--state", "all", "--json").json[0]["note"] == "label seen"
    assert faulty.run("findings", "waive", "0" * 32, "--reason", "x").code == 1
    assert faulty.run("findings", "waive", found["finding_id"], "--reason", " ").code == 2
    assert faulty.run("findings", "waive", found["finding_id"]).code == 2


def test_all_open_findings_of_a_kind_and_a_seller_are_waived(faulty):
    [found] = faulty.run("findings", "list", "--json").json
    waive = ("findings", "waive", "--reason", "x")
    assert faulty.run(*waive).code == 2
    assert faulty.run(*waive, found["finding_id"], "--kind", found["kind"]).code == 2
    assert "0 findings waived" in faulty.run(*waive, "--kind", found["kind"], "--seller", "other").out
    assert (
        "1 finding waived" in faulty.run(*waive, "--kind", found["kind"], "--seller", found["seller_id"]).out
    )
    assert faulty.run(*waive, "--kind", found["kind"]).out == "0 findings waived: no such finding is open\n"
    mistyped = faulty.run(*waive, "--kind", "invalid-tracking")
    assert (mistyped.code, "the kinds are unknown_line, " in mistyped.err) == (2, True)


def test_a_resolved_finding_cannot_be_waived(faulty):
    [found] = faulty.run("findings", "list", "--json").json
    faulty.fulfill("M-1")
    faulty.read()
    faulty.process()
    done = faulty.run("findings", "waive", found["finding_id"], "--reason", "x")
    assert (done.code, "is resolved" in done.err) == (1, True)


def test_rejected_rows_are_listed_with_every_reason_and_nothing_personal(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", currency="XXX1", purchase_date="yesterday")
    done = feedamp_env.run("rejected", "list", "--json")
    assert done.code == 0
    assert len(codes(done)) == 2
    assert "raw" not in done.json[0]
    text = feedamp_env.run("rejected", "list").out
    assert not [word for word in PERSONAL if word in text + done.out]
    feedamp_env.deliver("b.jsonl", "M-1")
    assert feedamp_env.run("rejected", "list", "--json").json == []
    [old] = feedamp_env.run("rejected", "list", "--all", "--json").json
    assert old["superseded_at"].endswith("Z")


def test_orders_are_listed_by_what_they_wait_for(placed):
    placed.run("sellers", "pause", "seller-002")
    placed.deliver("b.jsonl", "M-2", "M-3", seller="seller-002")
    placed.plan()

    def listed(*options):
        done = placed.run("orders", "list", "--json", *options)
        assert done.code == 0, done.err
        return [(row["mp_order_number"], row["phase"], row["reason"]) for row in done.json]

    waiting = [(number, "to_place", "the seller is paused") for number in ("M-2", "M-3")]
    assert listed("--open") == listed() == [("M-1", "settled", "not read yet"), *waiting]
    assert listed("--waiting") == listed("--seller", "seller-002") == waiting
    rows = placed.run("orders", "list", "--waiting").out.splitlines()[1:]
    assert [row.split("paused")[1].split()[0] for row in rows] == ["-", "-"]  # no next try
    told = placed.run("orders", "show", "seller-002", "M-2").out
    assert ("in the first run after that has ended" in told, "next_try_at" in told) == (True, False)
    assert (listed("--older-than", "1"), len(listed("--older-than", "0"))) == ([], 3)
    placed.fulfill("M-1")
    placed.read()
    placed.process()
    assert listed("--open") == waiting
    assert listed("--seller", SELLER) == [("M-1", "closed", None)]
    some = placed.run("orders", "list", "--limit", "2")
    assert (len(some.out.splitlines()), some.err) == (
        3,
        "feedamp: The first 2 of 3 orders; --limit shows more.\n",
    )
    assert not [word for word in PERSONAL if word in some.out]
    assert len(placed.run("orders", "list", "--limit", "9" * 25).out.splitlines()) == 4
    assert placed.run("orders", "list", "--older-than", "soon").code == 2
    assert placed.run("orders", "list", "--seller", "nobody").out == "There are none.\n"
    said = placed.run("orders", "show", SELLER, "M-1").out
    assert "\nNow: closed\nNext: Nothing.\n" in said


def test_a_change_is_told_without_blanks_where_a_value_is_empty():
    sides = [("", "UPS"), ("UPS", ""), (None, "UPS"), ("UPS", None), (None, ""), ("", None), ("UPS", "DHL")]
    changes = [{"field": "carrier", "old": old, "new": new} for old, new in sides]
    changes.append({"field": "shipment", "old": None, "new": {"carrier": "", "quantity": 1}})
    said = (
        sentence("changed", {"changes": changes}).removeprefix("FeedAMP showed a change: ").removesuffix(".")
    )
    assert said.split("; ") == [
        "carrier set to UPS",
        "carrier was UPS, and is empty",
        "carrier is UPS",
        "carrier was UPS, and is gone",
        "carrier is empty",
        "carrier is gone",
        "carrier from UPS to DHL",
        "shipment is 1",
    ]


def test_rejected_rows_are_exported_as_they_were_delivered(refused):
    refused.deliver("c.jsonl", "M-2", currency="XXX1")
    refused.env.drop("broken.jsonl", "{ not JSON")
    header = "sep=;\nseller_id;mp_order_number;order_lines.unit_price\n"
    refused.env.drop("flat.csv", f"{header}seller-001;M-3;1.000\n")
    refused.intake()
    file = refused.folder / "rejected.jsonl"
    file.write_text("from before")
    done = refused.run("rejected", "export", file)
    assert (done.code, done.out) == (0, f"{file}: 4 rejected rows\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    rows = {row["source"]: row for row in map(json.loads, file.read_text().splitlines())}
    assert [rows[name]["reasons"] != [] for name in ("c.jsonl", "broken.jsonl", "flat.csv")] == [True] * 3
    assert rows["c.jsonl"]["row"]["order"]["currency"] == "XXX1"
    assert rows["broken.jsonl"]["row"] == "{ not JSON"
    cells = {"seller_id": "seller-001", "mp_order_number": "M-3", "order_lines.unit_price": "1.000"}
    assert rows["flat.csv"]["row"] == [cells]
    [at_feedamp] = [row for row in rows.values() if row["stage"] == "feedamp"]
    assert at_feedamp["row"]["order"]["mp_order_number"] == at_feedamp["mp_order_number"]
    assert at_feedamp["row"]["order"]["marketplace_state"] == "AWAITING_SHIPMENT"
    assert isinstance(
        at_feedamp["row"]["order"]["order_lines"][0]["unit_price"], float
    )  # no text, for the inbox


@pytest.mark.parametrize(
    ("written", "exported"),
    [
        pytest.param('{"a": 99999999999999.99, "b": 0.1000}', None, id="amounts of many digits"),
        pytest.param('{"a": 1E+400, "b": 12345678901234567890123}', None, id="numbers beyond a double"),
        pytest.param('{"a": "cut \\ud83d", "b": NaN}', '{"a": "cut \ufffd"}', id="half an emoji, NaN"),
        pytest.param('[{"a": "cut \\ud83d"}]', ..., id="half an emoji in a list"),
        pytest.param('{"a": [NaN]}', ..., id="NaN in a list"),
        pytest.param('{"a": 1E+9999999999999999999}', ..., id="a number beyond a decimal"),
        pytest.param("[" * 3_000, ..., id="nested without end"),
        pytest.param('{"a":' + "[" * 3_000 + "]" * 3_000 + "}", ..., id="nested too deep"),
    ],
)
def test_an_odd_row_is_exported_as_it_was_delivered(feedamp_env, written, exported):
    """`exported`: the row, if its content is not as written; ... for its text."""
    feedamp_env.env.drop("odd.jsonl", "{}", written)
    feedamp_env.intake()
    done = feedamp_env.run("rejected", "export", feedamp_env.folder / "rejected.jsonl")
    assert (done.code, done.err) == (0, "")
    lines = (feedamp_env.folder / "rejected.jsonl").read_text().splitlines()
    rows = {
        one["row_number"]: one["row"]
        for line in lines
        if (one := json.loads(line, parse_float=str, parse_int=str))
    }
    row = written if exported is ... else json.loads(exported or written, parse_float=str, parse_int=str)
    assert rows == {"1": {}, "2": row}


def test_replay_takes_what_todays_options_allow(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", gift_note="x")
    feedamp_env.deliver("b.jsonl", "M-2", gift_note="x")
    assert (
        feedamp_env.run("rejected", "replay").out
        == "accepted 0, to place again 0, still rejected 2, skipped 0\n"
    )
    feedamp_env.env.set_options(extra_order_fields="gift_note")
    wrong = feedamp_env.run("rejected", "replay", "--source", "b.json")
    assert (wrong.code, "did you mean b.jsonl" in wrong.err, "?." in wrong.err) == (2, True, False)
    one = feedamp_env.run("rejected", "replay", "--source", "b.jsonl")
    assert (one.code, one.out) == (0, "accepted 1, to place again 0, still rejected 0, skipped 0\n")
    assert show(feedamp_env, "M-2")["phase"] == "to_place"
    assert [r["source"] for r in feedamp_env.run("rejected", "list", "--json").json] == ["a.jsonl"]
    assert feedamp_env.run("rejected", "replay").out.startswith("accepted 1")
    assert (
        feedamp_env.run("rejected", "replay").out
        == "accepted 0, to place again 0, still rejected 0, skipped 0\n"
    )


def test_a_reject_is_dismissed_by_the_id_that_the_list_shows(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", gift_note="x")
    feedamp_env.deliver("b.jsonl", "M-2", gift_note="x")
    first, second = feedamp_env.run("rejected", "list", "--json").json
    assert first["reject_id"] in feedamp_env.run("rejected", "list").out
    done = feedamp_env.run("rejected", "dismiss", first["reject_id"], "--reason", "a test order")
    assert (done.code, "dismissed" in done.out) == (0, True)
    assert [r["reject_id"] for r in feedamp_env.run("rejected", "list", "--json").json] == [
        second["reject_id"]
    ]
    old = feedamp_env.run("rejected", "list", "--all", "--json").json[0]
    assert (old["dismiss_reason"], old["dismissed_at"][-1]) == ("a test order", "Z")
    assert "inbox, dismissed" in feedamp_env.run("rejected", "list", "--all").out
    again = feedamp_env.run("rejected", "dismiss", first["reject_id"], "--reason", "again")
    assert (again.code, "already" in again.out) == (0, True)
    feedamp_env.env.set_options(extra_order_fields="gift_note")
    assert feedamp_env.run("rejected", "replay").out.startswith("accepted 1,")


def test_others_write_while_ids_are_looked_up(feedamp_env, monkeypatch):
    feedamp_env.deliver("a.jsonl", "M-1", currency="Dollars")
    [row] = feedamp_env.run("rejected", "list", "--json").json
    wrote = []

    def hashed(*key):
        if not wrote:
            with closing(sqlite3.connect(feedamp_env.folder / "state.db", timeout=0.1)) as other:
                other.execute("BEGIN IMMEDIATE")
                wrote.append(key)
        return rejects_reject_id(*key)

    rejects_reject_id = rejects.reject_id
    monkeypatch.setattr(rejects, "reject_id", hashed)
    assert feedamp_env.run("rejected", "dismiss", row["reject_id"], "--reason", "a test").code == 0
    assert wrote


def test_what_cannot_be_dismissed_is_named_and_the_rest_is_done(feedamp_env):
    feedamp_env.deliver("a.jsonl", "M-1", currency="XXX1")
    feedamp_env.deliver("b.jsonl", "M-2", currency="XXX1")
    first, second = (r["reject_id"] for r in feedamp_env.run("rejected", "list", "--json").json)
    assert feedamp_env.run("rejected", "dismiss", first, "--reason", " ").code == 2
    feedamp_env.deliver("c.jsonl", "M-1")
    assert show(feedamp_env)["rejected"] == []  # its own is superseded, and the open one is of another order
    done = feedamp_env.run("rejected", "dismiss", "0123", first, second, "--reason", "tests")
    assert done.code == 1
    assert "There is no reject 0123" in done.err
    assert "superseded" in done.err
    assert feedamp_env.run("rejected", "list", "--json").json == []


@pytest.fixture
def refused(feedamp_env):
    """M-1 holds a field that FeedAMP does not know."""
    feedamp_env.env.set_options(extra_order_fields="gift_note")
    feedamp_env.reopen()
    feedamp_env.deliver("a.jsonl", "M-1", gift_note="x")
    feedamp_env.place()
    assert show(feedamp_env)["phase"] == "refused"
    return feedamp_env


def test_replay_sends_an_order_that_feedamp_refused_once_more(refused, monkeypatch):
    assert codes(refused.run("rejected", "list", "--json")) == [("feedamp", "refused_by_feedamp")]
    done = refused.run("rejected", "replay")
    assert (done.code, done.out) == (0, "accepted 0, to place again 1, still rejected 0, skipped 0\n")
    assert (show(refused)["phase"], show(refused)["reason"]) == ("to_place", None)
    assert refused.run("rejected", "list", "--json").json == []
    refused.place()  # FeedAMP still refuses it
    assert show(refused)["phase"] == "refused"
    assert codes(refused.run("rejected", "list", "--json")) == [("feedamp", "refused_by_feedamp")]


def test_replay_ignores_a_reject_whose_order_was_redelivered_correctly(refused):
    refused.deliver("b.jsonl", "M-1")
    refused.place()
    assert (
        refused.run("rejected", "replay").out == "accepted 0, to place again 0, still rejected 0, skipped 0\n"
    )
    assert show(refused)["phase"] == "settled"


def test_a_reject_that_only_says_what_differs_is_left(placed):
    placed.deliver("b.jsonl", "M-1", currency="EUR")
    assert codes(placed.run("rejected", "list", "--json")) == [("inbox", "body_changed")]
    assert (
        placed.run("rejected", "replay").out == "accepted 0, to place again 0, still rejected 0, skipped 1\n"
    )
    assert codes(placed.run("rejected", "list", "--json")) == [("inbox", "body_changed")]
    assert placed.run("status").code == 0


SINCE = datetime(2026, 3, 9, tzinfo=UTC)
BEFORE, AFTER = SINCE - timedelta(days=1), SINCE + timedelta(days=1)
DROPPED, ADOPTED, OLDER = "Its events are in the warehouse", "It was adopted", "the order is older"


@pytest.mark.parametrize(
    ("since", "taken_at", "adopted_at", "ended_at", "kept", "said"),
    [
        pytest.param(None, AFTER, AFTER, None, {"first": True}, {ADOPTED}, id="adopted"),
        pytest.param(None, AFTER, AFTER, AFTER, None, {DROPPED}, id="adopted and dropped"),
        pytest.param(SINCE, BEFORE, None, AFTER, None, {OLDER, DROPPED}, id="older, ended since"),
        pytest.param(SINCE, BEFORE, None, BEFORE, None, {OLDER}, id="older, ended before"),
        pytest.param(SINCE, AFTER, None, AFTER, None, {DROPPED}, id="dropped"),
    ],
)
def test_a_story_says_where_its_beginning_is(since, taken_at, adopted_at, ended_at, kept, said):
    order = SimpleNamespace(taken_at=taken_at, adopted_at=adopted_at, ended_at=ended_at)
    event = {"kind": "changed", "occurred_at": AFTER, "details": kept, "text": "", "run_id": "r"}
    events = [event] if kept else []
    shown = {
        "taken_at": taken_at,
        "adopted_at": adopted_at,
        "events": events,
        "events_recorded_since": since,
        "phase": "closed",
        "reason": None,
        "closing": {"waits_for": "x"},
        "next": "x",
        "events_in_warehouse": orders._is_dropped(order, events, since),
    }
    out = io.StringIO()
    orders._tell(shown, Output(out, out))
    assert {words for words in (DROPPED, ADOPTED, OLDER) if words in out.getvalue()} == said


def test_masked_stories_and_status_leave_out_what_feedamp_wrote(
    feedamp_env,
):
    feedamp_env.deliver("a.jsonl", "M-1", "M-2", delivery_notes="ring for Zorvath Quillmere")
    feedamp_env.sandbox.fault("echo_400", method="PUT", path="/M-1$")
    feedamp_env.place()
    feedamp_env.fulfill("M-2", BAD_NUMBER)
    feedamp_env.read()
    feedamp_env.sandbox.fault("echo_400", method="POST", path="/errors$")
    feedamp_env.process()
    asked = [("orders", "show", SELLER, number) for number in ("M-1", "M-2")] + [("status",)]

    def told():
        done = [feedamp_env.run(*argv, *more) for argv in asked for more in ((), ("--json",))]
        return "\n".join(one.out for one in done), {one.err for one in done}

    open_words, _ = told()
    assert open_words.count("Zorvath Quillmere") >= 5
    assert open_words.count("sent {") > open_words.count("Zorvath")  # also what answered the report

    feedamp_env.env.set_options(pii="mask")
    masked, said = told()
    assert "Zorvath" not in masked
    assert "sent {" not in masked
    assert "FeedAMP answered 400: FIELD_INVALID_VALUE" in masked
    assert said == {f"feedamp: {ELSEWHERE}\n"}
    assert "Zorvath" in feedamp_env.run("orders", "list", "--json").out  # as the sentence says
    assert "Zorvath" in feedamp_env.run("rejected", "list", "--json").out


@pytest.mark.parametrize(
    "command", ["rejected export", "reconciliation report --from 2026-03-01 --to 2026-03-02 --csv"]
)
def test_a_file_that_cannot_be_written_is_named_as_it_was_given(feedamp_env, tmp_path, command):
    (tmp_path / "file").touch()
    for file, why in (
        (tmp_path / "missing" / "f.jsonl", "No such file or directory"),
        (tmp_path / "file" / "f.jsonl", "Not a directory"),
        (tmp_path / ("f" * 230), "File name too long"),
        (tmp_path, "Is a directory"),
    ):
        done = feedamp_env.run(*command.split(), file)
        assert (done.code, done.err) == (2, f"feedamp: {file} cannot be used: {why}.\n")


def test_an_export_to_a_pipe_leaves_it_one(feedamp_env, tmp_path):
    feedamp_env.deliver("a.jsonl", "M-1", gift_note="no such field")
    feedamp_env.place()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        done = feedamp_env.run("rejected", "export", pipe)
        assert (done.code, done.out) == (0, f"{pipe}: 1 rejected row\n")
        assert json.loads(reader.read())["row"]["order"]["mp_order_number"] == "M-1"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
