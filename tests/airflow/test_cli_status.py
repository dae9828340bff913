"""`feedamp status` and `doctor`: what requires action, and what is wrong with the installation."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import stat
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from airflow_env import ROOT
from console import BAD_NUMBER, SELLER
from scripted import answer, serving

from feedamp.errors import FeedAmpError
from feedamp.rules.follow_up import ORDER_CLOSED
from feedamp.state import HEAD, grants, ledger, watermarks
from feedamp.state.schema import findings, snapshots
from feedamp.state.unfinished_reads import note_unread
from feedamp_airflow import cli
from feedamp_airflow.cli import doctor, running
from feedamp_airflow.cli.output import Output


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


def shipped_wrong(console):
    console.deliver("a.jsonl", "M-1")
    console.place()
    console.fulfill("M-1", BAD_NUMBER)
    console.read()
    console.process()


def test_a_held_error_finding_requires_action_and_a_reported_one_does_not(feedamp_env):
    shipped_wrong(feedamp_env)
    assert needs(feedamp_env) == (0, {})
    feedamp_env.env.set_options(error_codes='{"invalid_tracking": null}')
    feedamp_env.reopen()
    feedamp_env.fulfill("M-1", "1Z999AA10123456786")
    feedamp_env.read()
    feedamp_env.process()
    assert needs(feedamp_env) == (1, {"held_findings": 1})


def test_a_refused_report_requires_another_action_than_a_missing_code(feedamp_env):
    feedamp_env.sandbox.fault("echo_400", method="POST", path="/errors$")
    shipped_wrong(feedamp_env)
    assert needs(feedamp_env) == (1, {"refused_findings": 1})
    said = feedamp_env.run("status").out
    assert "1 error finding whose report FeedAMP refused" in said
    assert "error_codes" not in said


def test_a_finding_held_by_the_end_of_its_order_requires_no_action(feedamp_env):
    shipped_wrong(feedamp_env)
    for note, required in (("400", {"refused_findings": 1}), (ORDER_CLOSED, {})):
        with feedamp_env.resources.state.begin() as connection:
            connection.execute(sa.update(findings).values(state="held", note=note))
        assert needs(feedamp_env)[1] == required


@pytest.mark.parametrize(("days", "expected"), [(2.9, (0, {})), (3.1, (1, {"stuck_orders": 1}))])
def test_an_error_that_stays_listed_requires_action_after_error_clear_days(feedamp_env, days, expected):
    shipped_wrong(feedamp_env)
    since = feedamp_env.resources.state.now() - timedelta(days=days)
    with feedamp_env.resources.state.begin() as connection:
        connection.execute(sa.update(snapshots).values(error_lingers_since=since, waits_for="…"))
    assert needs(feedamp_env) == expected


# A terminal


class Terminal(io.StringIO):
    """What a person sees in 60 columns."""

    def isatty(self):
        return True

    @property
    def lines(self):
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())
        return [line.rstrip() for line in plain.splitlines()]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


SENTENCE = "the order [b]was[/b] never delivered before, so it cannot come as shipped"


def test_a_terminal_wraps_sentences_and_never_an_id(terminal):
    Output(terminal, terminal).table(("id", "mix_up", "message"), [("d645fcb27ea75f8b", None, SENTENCE)] * 2)
    assert terminal.lines[0] == "id                message"
    assert terminal.lines[1].startswith("d645fcb27ea75f8b  the order [b]was[/b]")
    assert max(map(len, terminal.lines)) <= 60
    assert len(terminal.lines) == 5


def test_a_row_that_is_too_wide_becomes_a_block_of_lines(terminal):
    names = ("reject_id", "rejected_at", "mp_order_number", "message")
    row = ("d645fcb27ea75f8b", datetime(2026, 11, 28, tzinfo=UTC), "DEMO-BAD-7", SENTENCE)
    Output(terminal, terminal).table(names, [row, row], indent=4)
    assert terminal.lines[0] == "    reject_id        d645fcb27ea75f8b"
    assert terminal.lines[1] == "    rejected_at      2026-11-28T00:00:00Z"
    assert max(map(len, terminal.lines)) <= 60
    assert terminal.lines.count("") == 1


def test_a_terminal_shows_what_the_doctor_does_and_finds(feedamp_env, terminal, monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    assert cli.main(["doctor"]) == 0
    assert "ok    options: can be used" in terminal.lines
    assert any("checking warehouse ..." in line for line in terminal.lines)
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h")  # the cursor


# doctor


def examined(console):
    done = console.run("doctor", "--json")
    return done.code, {check["name"]: (check["state"], check["says"]) for check in done.json["checks"]}


def test_the_doctor_finds_a_sound_env_sound(feedamp_env):
    code, checks = examined(feedamp_env)
    assert {name: state for name, (state, _) in checks.items()} == {
        "options": "ok",
        "time zone": "ok",
        "state": "ok",
        "encryption key": "ok",
        "token journal": "ok",
        "connection feedamp_default": "ok",
        "read_only": "ok",
        "erasures": "ok",
        "clock": "ok",
        "accounts": "ok",
        "inbox": "ok",
        "lake": "ok",
        "warehouse": "ok",
        "file modes": "ok",
        "completeness": "ok",
        "rows set aside": "ok",
        "notifier": "ok",
        "DAG files": "ok",
    }
    assert code == 0
    assert feedamp_env.sandbox.refresh_token(SELLER) == feedamp_env.sandbox.sellers[0]["refresh_token"]
    assert list((feedamp_env.folder / "lake").iterdir()) == []
    text = feedamp_env.run("doctor")
    assert (text.code, text.out.count("ok  ")) == (0, 18)
    assert feedamp_env.sandbox.broken_rules == []


def test_the_doctor_names_files_that_are_more_open_than_allowed(feedamp_env):
    lake, warehouse = feedamp_env.folder / "lake", feedamp_env.folder / "warehouse.duckdb"
    lake.mkdir()
    lake.chmod(0o755)
    (lake / "orders").mkdir(mode=0o750)
    (lake / "orders" / "left.parquet").touch(mode=0o640)
    warehouse.chmod(0o644)
    code, checks = examined(feedamp_env)
    state, says = checks["file modes"]
    assert (code, state) == (1, "problem")
    assert f"3 paths of the lake {lake}, such as {lake}, can be used by more users" in says
    assert f"such as {warehouse}" in says
    assert f"chmod -R u=rwX,g=,o= {lake}`" in says

    journal = lake / "_journal"
    journal.mkdir(mode=0o700)
    (journal / "one.pair").touch(mode=0o600)
    feedamp_env.env.set_options(file_mode="0640", journal_url=str(journal))
    _, says = examined(feedamp_env)[1]["file modes"]
    assert f"1 path of the lake {lake}, such as {lake}," in says
    for command in re.findall(r"`((?:chmod|find) .+?)`", says):
        subprocess.run(command, shell=True, check=True)  # as a person would
    assert examined(feedamp_env)[1]["file modes"] == ("ok", "no file is more open than 0640")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (lake, *lake.rglob("*"))}
    assert modes == {
        "lake": 0o750,
        "orders": 0o750,
        "left.parquet": 0o640,
        "_journal": 0o700,
        "one.pair": 0o600,
    }


@pytest.mark.parametrize(
    ("option", "value", "check", "code", "words"),
    [
        pytest.param("page_size", "500", "options", 2, "page_size", id="an option out of range"),
        pytest.param("pagesize", "50", "options", 2, "no option pagesize", id="an option misspelt"),
        pytest.param("reconcile_schedule", "30 3 * * *", "options", 2, "reconcile_schedule", id="a schedule"),
        pytest.param(
            "encryption_key", "abc", "stores and key", 2, "not a valid key", id="a key that is not valid"
        ),
        pytest.param("inbox_url", "/nowhere/inbox", "inbox", 1, "create it", id="no inbox"),
        pytest.param("inbox_url", "nostore://x", "inbox", 2, "store", id="an unknown store"),
        pytest.param("lake_url", "nostore://x", "lake", 2, "nostore", id="an unknown lake"),
        pytest.param(
            "lake_url", "/proc/lake", "lake", 1, "[feedamp] lake_url", id="a lake that cannot be written"
        ),
        pytest.param(
            "lake_url", "gs://x/y", "lake", 2, 'pip install "airflow-provider-feedamp[gcs]"', id="no extra"
        ),
        pytest.param("duckdb_memory_limit", "lots", "warehouse", 1, "duckdb_memory_limit", id="no number"),
        pytest.param("state_url", "mysql://h/db", "state", 2, "[feedamp] state_url", id="another database"),
        pytest.param("state_url", "sqlite:////proc/x/state.db", "state", 1, "state_url", id="no folder"),
    ],
)
def test_the_doctor_names_what_is_wrong(feedamp_env, option, value, check, code, words):
    feedamp_env.env.set_options(**{option: value})
    found, checks = examined(feedamp_env)
    assert found == code
    assert checks[check][0] == ("configuration" if code == 2 else "problem")
    assert {"inbox", "lake", "warehouse"} <= checks.keys()
    assert words in checks[check][1]
    assert len({says for _, says in checks.values()}) == len(checks)  # each fault is named once


def test_the_doctor_names_every_faulty_option_and_store_at_once(feedamp_env):
    faulty = {
        "page_size": "500",
        "pii": "hide",
        "order_number_pattern": "[A-Z",
        "extra_order_fields": "fulfillments",
        "place_schedule": "often",
        "reconcile_schedule": "30 3 * * *",
        "pagesize": "1",
    }
    feedamp_env.env.set_options(**faulty, inbox_url="/nowhere/inbox", lake_url="/proc/lake")
    code, checks = examined(feedamp_env)
    assert code == 2
    assert [name for name in faulty if f"[feedamp] {name}" not in checks["options"][1]] == ["pagesize"]
    assert "no option pagesize; did you mean page_size?" in checks["options"][1]
    failed = {name for name, (state, _) in checks.items() if state != "ok"}
    assert failed == {"options", "inbox", "lake", "DAG files"}


@pytest.mark.parametrize(
    ("rows", "line"),
    [pytest.param(1, "1 rejected row:", id="one"), pytest.param(2, "2 rejected rows:", id="two")],
)
def test_a_line_of_action_required_agrees_with_its_count(feedamp_env, rows, line):
    feedamp_env.deliver("a.jsonl", *[f"M-{number}" for number in range(rows)], currency="XXX1")
    assert f"  {line} fix the source" in feedamp_env.run("status").out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("utc", "Airflow reads dates as UTC", id="UTC"),
        pytest.param("Europe/London", "is Europe/London, not UTC: write the dates", id="UTC in winter only"),
        pytest.param("Asia/Shanghai", "with a Z, as in 2026-03-01T00:00:00Z", id="another zone"),
    ],
)
def test_the_doctor_names_a_time_zone_in_which_a_backfill_loses_a_day(monkeypatch, name, words):
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", name)
    assert words in doctor._time_zone()


def test_the_doctor_says_which_key_is_wrong(feedamp_env):
    feedamp_env.env.set_options(encryption_key="A" * 43 + "=")
    code, checks = examined(feedamp_env)
    assert (code, "former key" in checks["encryption key"][1]) == (2, True)


def test_the_doctor_blames_no_key_for_a_lake_that_is_a_file(feedamp_env, tmp_path):
    lake = tmp_path / "a-file"
    lake.touch()
    feedamp_env.env.set_options(lake_url=str(lake), journal_url=str(lake / "_journal"))
    code, checks = examined(feedamp_env)
    assert (code, checks["encryption key"][0]) == (1, "ok")
    for check, option in (("lake", "lake_url"), ("token journal", "journal_url")):
        assert (checks[check][0], f"[feedamp] {option}" in checks[check][1]) == ("problem", True)


def test_the_doctor_tells_a_wrong_connection_from_one_that_fails(feedamp_env):
    feedamp_env.env.set_connection(login="")
    code, checks = examined(feedamp_env)
    assert (code, "Client ID" in checks["connection feedamp_default"][1]) == (2, True)
    feedamp_env.env.set_connection(password="wrong")
    code, checks = examined(feedamp_env)
    assert (code, "refuses client id or secret" in checks["connection feedamp_default"][1]) == (1, True)


@pytest.mark.parametrize(
    ("server_days", "state_days", "state"),
    [
        pytest.param(-400, -400, "configuration", id="FeedAMP and the state"),
        pytest.param(-400, 0, "problem", id="only FeedAMP"),
        pytest.param(0, -400, "ok", id="only the state"),
    ],
)
def test_the_doctor_says_what_contradicts_the_clock(feedamp_env, server_days, state_days, state):
    """The clock is right, but FeedAMP's and what is stored are of another time."""
    now = feedamp_env.resources.state.now()
    with feedamp_env.resources.state.begin() as connection:
        watermarks.move(connection, SELLER, now + timedelta(days=state_days), now=now)
    date = format_datetime(now + timedelta(days=server_days), usegmt=True)
    with serving(*[answer([], status=401, Date=date)] * 3) as scripted:
        feedamp_env.env.set_connection(host=scripted.url)
        _, checks = examined(feedamp_env)
    assert checks["clock"][0] == state
    assert "The state database's clock shows" in checks["clock"][1]


def test_the_doctor_names_who_holds_the_warehouse(feedamp_env, start_holder):
    holder = start_holder(feedamp_env.folder / "warehouse.duckdb")
    code, checks = examined(feedamp_env)
    assert (code, f"process {holder.pid}" in checks["warehouse"][1]) == (1, True)


def test_a_load_at_work_is_no_fault_to_the_doctor(feedamp_env, monkeypatch):
    monkeypatch.setattr(doctor, "LOAD_WAIT_S", 0.1)
    with feedamp_env.resources.warehouse.session():
        _, checks = examined(feedamp_env)
    for name in ("warehouse", "completeness"):
        assert (checks[name][0], "not checked: " in checks[name][1]) == ("ok", True), name
        assert f"is being loaded by process {os.getpid()}" in checks[name][1]


def test_a_rebuild_waits_until_the_warehouse_is_free(feedamp_env, start_holder):
    feedamp_env.env.set_options(duckdb_lock_wait_s="0")
    holder = start_holder(feedamp_env.folder / "warehouse.duckdb")
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, f"process {holder.pid}" in done.err, done.out) == (1, True, "")


def test_the_doctor_misses_dag_files(feedamp_env, monkeypatch, tmp_path):
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path / "dags"))
    code, checks = examined(feedamp_env)
    assert (code, "feedamp init" in checks["DAG files"][1]) == (1, True)
    assert feedamp_env.run("init", tmp_path / "dags").code == 0
    (tmp_path / "dags" / "feedamp_place_orders.py").write_text("import nothing_of_that_name  # airflow dag\n")
    code, checks = examined(feedamp_env)
    assert (code, "nothing_of_that_name" in checks["DAG files"][1]) == (1, True)


def test_the_doctor_finds_dag_files_in_the_bundle_of_init_and_twice(feedamp_env, monkeypatch, tmp_path):
    option = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
    value = feedamp_env.run("init").out
    monkeypatch.setenv(option, value)
    assert feedamp_env.run("init").out == value  # not added twice
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    assert doctor._dag_files() == f"6 in {ROOT}/dags (bundle feedamp) can be imported"
    (tmp_path / "feedamp_admin.py").write_text("# airflow dag\n")
    with pytest.raises(FeedAmpError, match=r"feedamp_admin\.py is there more than once"):
        doctor._dag_files()


# stores


def warehouse_rows(console):
    with closing(duckdb.connect(str(console.folder / "warehouse.duckdb"), read_only=True)) as warehouse:
        tables = warehouse.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'feedamp'"
        ).fetchall()
        return {t: sorted(map(repr, warehouse.execute(f"FROM feedamp.{t}").fetchall())) for (t,) in tables}


def test_a_rebuilt_warehouse_is_the_same_to_the_row(feedamp_env):
    shipped_wrong(feedamp_env)
    feedamp_env.fulfill("M-1")
    feedamp_env.read()
    feedamp_env.process()
    feedamp_env.load()
    before = warehouse_rows(feedamp_env)
    assert all(before[name] for name in ("orders", "shipments", "findings", "closures", "placements"))
    count = len(list(feedamp_env.resources.lake.manifests()))
    (feedamp_env.folder / "warehouse.duckdb").unlink()
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, done.out) == (0, f"rebuilt from {count} manifests\n")
    assert warehouse_rows(feedamp_env) == before


def test_a_lake_that_is_suddenly_empty_does_not_empty_the_warehouse(feedamp_env):
    feedamp_env.read()
    feedamp_env.load()
    before = warehouse_rows(feedamp_env)
    (feedamp_env.folder / "lake").rename(feedamp_env.folder / "moved")
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, "lake_url" in done.err) == (2, True)
    assert warehouse_rows(feedamp_env) == before


def test_a_rebuild_without_a_manifest_that_was_loaded_must_be_forced(feedamp_env):
    feedamp_env.read()
    feedamp_env.load()
    before = warehouse_rows(feedamp_env)
    first, *rest = feedamp_env.resources.lake.manifests()
    path = Path(feedamp_env.resources.lake.absolute(first.path))
    content = path.read_bytes()
    path.unlink()
    done = feedamp_env.run("warehouse", "rebuild")
    assert (done.code, first.path in done.err) == (1, True)
    assert "from a backup; if there is none, run `feedamp lake verify --repair` first" in done.err
    assert warehouse_rows(feedamp_env) == before
    forced = feedamp_env.run("warehouse", "rebuild", "--force")
    assert (forced.code, forced.out) == (0, f"rebuilt from {len(rest)} manifests\n")
    path.write_bytes(content)
    assert feedamp_env.run("warehouse", "rebuild").code == 0
    assert warehouse_rows(feedamp_env) == before


def test_the_state_database_is_upgraded_and_its_revision_told(airflow_env):
    from console import Console

    console = Console(airflow_env)
    before = console.run("db", "current")
    assert (before.code, before.out) == (1, "none\n")
    assert console.run("db", "upgrade").out == f"upgraded from nothing to {HEAD}\n"
    assert console.run("db", "upgrade").out == f"at {HEAD} already\n"
    assert (console.run("db", "current").code, console.run("db", "current").out) == (0, f"{HEAD}\n")


def test_a_state_of_a_newer_version_is_a_matter_of_configuration(console):
    with console.resources.state.begin() as connection:
        connection.execute(sa.text("UPDATE feedamp_alembic_version SET version_num = '9999'"))
    assert console.run("db", "current").out == "9999\n"
    done = console.run("sellers", "list")
    assert (done.code, "newer version" in done.err, done.out) == (2, True, "")
    assert json.loads(console.run("doctor", "--json").out)["ok"] is False


def test_who_only_looks_does_not_wait_long_for_a_locked_state(state_on_postgres, monkeypatch):
    monkeypatch.setattr(running, "LOOK_WAIT_S", 0.2)
    console = state_on_postgres
    with console.resources.state.engine.connect() as holder:
        holder.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = '30s'"))
        holder.execute(sa.text("LOCK TABLE sellers, feedamp_alembic_version"))
        began = time.monotonic()
        status = console.run("status")
        checks = {check["name"]: check["says"] for check in console.run("doctor", "--json").json["checks"]}
        assert time.monotonic() - began < 25
    assert (status.code, "lock timeout" in status.err) == (2, True)
    assert "lock timeout" in checks["state"]
