"""`feedamp reconciliation report`: what reconciliations of a range of days found, from the state alone."""

from __future__ import annotations

import csv
import stat
from datetime import UTC, date, datetime

import pytest
import sqlalchemy as sa
from console import SELLER, Console

from crashes.fixtures import run_whole
from feedamp.rules.reconciled_days import CheckedDay, Counts
from feedamp.run import Run
from feedamp.state import schema
from feedamp.state.reconciliation_days import write
from feedamp.state.schema import reconciliation_days

DAYS = ("2026-03-01", "2026-03-06")
RANGE = ("--from", DAYS[0], "--to", DAYS[1])


@pytest.fixture
def compared(feedamp_env: Console) -> Console:
    """The second and third of March are compared; on the third FeedAMP lacks an order of two. The fifth has an order."""
    env = feedamp_env
    env.deliver("a.jsonl", "M-2", purchase_date="2026-03-02T10:00:00Z")
    env.deliver("b.jsonl", "M-3", "L-3", purchase_date="2026-03-03T10:00:00Z")
    env.deliver("c.jsonl", "M-5", purchase_date="2026-03-05T10:00:00Z")
    env.place()
    env.read()
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders._sorted[SELLER].remove(orders._by_number[SELLER].pop("L-3"))
    reconcile(env)
    return env


def reconcile(env: Console, *, repair: bool = False) -> None:
    days = {"start": datetime(2026, 3, 2, tzinfo=UTC), "end": datetime(2026, 3, 4, tzinfo=UTC)}
    run = Run("feedamp_reconcile_orders", f"manual__{repair}", datetime.now(UTC))
    run_whole(env.resources, "reconcile", run, **days, with_stale=False, repair=repair)


def test_a_report_counts_days_kinds_and_sellers(compared, start_holder, tmp_path):
    start_holder(compared.resources.warehouse.path)
    file = tmp_path / "days.csv"
    done = compared.run("reconciliation", "report", *RANGE, "--json", "--csv", file)
    assert (done.code, stat.S_IMODE(file.stat().st_mode)) == (1, 0o600)
    found = done.json
    assert {name: count for name, count in found["days"].items() if count} == {
        "total": 6,
        "checked": 2,
        "never_checked": 1,
        "empty": 3,
        "clean": 1,
        "differing": 1,
    }
    assert found["differences"] == {"found": 1, "repaired": 0, "left": 1, "not_extracted_yet": 0}
    assert found["orders"] == {"compared": 3, "remaining": 0, "unread": 0}
    assert found["by_kind"] == [{"kind": "order", "found": 1, "repaired": 0, "left": 1}]
    assert [(row["seller_id"], row["days"], row["left"]) for row in found["by_seller"]] == [(SELLER, 2, 1)]
    # Its seller was registered long after that time, in which no run could have compared days without orders.
    by_day = ["empty", "clean", "differing", "empty", "never checked", "empty"]
    assert [row["status"] for row in found["by_day"]] == by_day
    with file.open(newline="") as lines:
        rows = [(row["day"], row["seller_id"], row["status"], row["left"]) for row in csv.DictReader(lines)]
    assert rows == [
        ("2026-03-01", "", "empty", ""),
        ("2026-03-02", SELLER, "clean", "0"),
        ("2026-03-03", SELLER, "differing", "1"),
        ("2026-03-04", "", "empty", ""),
        ("2026-03-05", "", "never checked", ""),
        ("2026-03-06", "", "empty", ""),
    ]


@pytest.mark.parametrize(
    ("added_on", "fourth"),
    [(4, "never checked"), (5, "empty"), (6, "empty")],  # the last: the day before has an order
)
def test_since_its_first_seller_each_day_is_to_be_checked(compared, added_on, fourth):
    added_at = datetime(2026, 3, added_on, 9, tzinfo=UTC)
    is_first = schema.sellers.c.seller_id == SELLER  # of several
    with compared.resources.state.begin() as connection:
        connection.execute(sa.update(schema.sellers).where(is_first).values(added_at=added_at))
    found = compared.run("reconciliation", "report", *RANGE, "--json").json
    assert [row["status"] for row in found["by_day"]][2:] == [
        "differing",
        fourth,
        "never checked",
        "never checked",
    ]


def test_a_spreadsheet_runs_no_cell_of_a_csv_file(feedamp_env, tmp_path):
    shown = {
        "=1+1": "'=1+1",
        "+1": "'+1",
        "-1": "'-1",
        "@SUM(A1)": "'@SUM(A1)",
        "'=1": "''=1",
        "\uff1d1": "'\uff1d1",
        "shop;=1": "shop;'=1",  # where a semicolon divides cells
        "a-b=c+d@e.example; f's": "a-b=c+d@e.example; f's",
    }
    now = datetime.now(UTC)
    rows = [CheckedDay(date(2026, 3, 2), one, "+1", now, Counts(1, 1)) for one in shown]
    with feedamp_env.resources.state.begin() as connection:
        write(connection, rows, now=now)
    file, day = tmp_path / "days.csv", ("--from", "2026-03-02", "--to", "2026-03-02")
    feedamp_env.run("reconciliation", "report", *day, "--csv", file)
    with file.open(newline="", encoding="utf-8") as lines:
        cells = [(row["seller_id"], row["run_id"]) for row in csv.DictReader(lines) if row["run_id"]]
    assert sorted(cells) == sorted((one, "'+1") for one in shown.values())


def test_a_difference_that_a_later_run_repairs_is_not_left(compared):
    days = ("--from", "2026-03-02", "--to", "2026-03-03")
    text = compared.run("reconciliation", "report", *days)
    assert text.err == ""
    assert (text.code, "1 difference (order 1), 0 repaired, 1 left" in text.out) == (1, True)
    reconcile(compared, repair=True)
    text = compared.run("reconciliation", "report", *days)
    assert (text.code, "1 difference (order 1), 1 repaired, 0 left" in text.out) == (0, True)


def test_a_seller_that_was_left_out_is_named(compared):
    done = compared.run("reconciliation", "report", *RANGE, "--json")
    assert done.json["left_out"] == []
    with compared.resources.state.begin() as connection:
        connection.execute(sa.delete(reconciliation_days).where(reconciliation_days.c.seller_id == SELLER))
    done = compared.run("reconciliation", "report", *RANGE, "--json")
    assert done.json["left_out"] == [{"seller_id": SELLER, "days": 2}]
    assert (
        f"1 seller left out on days with orders: {SELLER}"
        in compared.run("reconciliation", "report", *RANGE).out
    )


@pytest.mark.parametrize(
    ("days", "message"),
    [
        pytest.param(("--from", "2026-03-04", "--to", "2026-03-01"), "ends before it begins", id="backwards"),
        pytest.param(("--from", "2026-02-30", "--to", "2026-03-01"), "not a day", id="no such day"),
        pytest.param(("--from", "2026-03-01"), "--to", id="half a range"),
    ],
)
def test_days_that_cannot_be_meant_are_a_usage_error(console, days, message):
    done = console.run("reconciliation", "report", *days)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
