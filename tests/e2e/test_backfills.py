"""Backfills of the reconciliation through the scheduler, started as people do: by the form's own calls and by CLI."""

from __future__ import annotations

from itertools import pairwise

import pytest
import requests
from backfills import AUTUMN, EDGES, NOBODY_BOUGHT, RECONCILE, SPRING, Backfills, at_once, order_rows

BUSY = ("is being loaded by process", "is held by")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def env(guarded) -> Backfills:
    """Everything is placed; then FeedAMP returns a quantity that differs from the placed one on every day of the range."""
    *sellers, lonely = [seller["seller_id"] for seller in guarded.sandbox.sellers][:4]
    guarded.connect([*sellers, lonely])
    placed = list(order_rows(sellers, lonely))
    guarded.drop("backfills.jsonl", placed)
    guarded.unpause("feedamp_place_orders")
    [run] = guarded.ended("feedamp_place_orders", "scheduled")
    assert run["state"] == "success"
    for row in placed:
        number = row["order"]["mp_order_number"]
        if number[2:12] in SPRING and number.endswith("-00"):
            with guarded.sandbox.world.lock:
                held = guarded.sandbox._order(row["seller_id"], number)
                held.by_hand = True  # its simulated seller leaves it alone
                held.body["order_lines"][0]["quantity"] += 3
    return Backfills(guarded, placed, lonely)


@pytest.fixture(scope="module")
def three_at_once(env):
    """Three days in one backfill, three runs at once, while the DAG's own scheduled run is under way, too."""
    before = len(env.guarded.sandbox.requests)
    planned = env.backfill(SPRING, dry_run=True)
    env.backfill(SPRING)
    with pytest.raises(requests.HTTPError) as refusal:
        env.backfill(AUTUMN)
    env.guarded.unpause(RECONCILE)
    runs = env.runs(SPRING)
    [live] = env.guarded.ended(RECONCILE, "scheduled")
    sent = env.guarded.sandbox.requests[before:]
    assert {r.method for r in sent if not r.path.endswith("/access_token")} == {"GET"}
    return planned, runs, env.differences(), refusal.value.response, live


def test_the_dry_run_names_each_day_once(three_at_once):
    planned, runs, *_ = three_at_once
    assert [entry["logical_date"][:10] for entry in planned["backfills"]] == SPRING
    assert sorted(runs) == SPRING


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        pytest.param("2026-03-01T00:00:00Z", "2026-03-31T00:00:00Z", 31, id="March is 31 days"),
        pytest.param("2026-03-06T05:00:00Z", "2026-03-10T04:00:00Z", 4, id="New York's midnights lose a day"),
        pytest.param("2026-03-06T00:00:00-05:00", "2026-03-06T23:00:00-05:00", 1, id="a day in New York"),
    ],
)
def test_a_range_covers_the_utc_days_that_begin_in_it(env, start, end, days):
    everything = {"reprocess_behavior": "completed", "from_date": start, "to_date": end}
    planned = env.backfill(NOBODY_BOUGHT, dry_run=True, **everything)
    named = [entry["logical_date"] for entry in planned["backfills"]]
    assert len(set(named)) == len(named) == days
    assert all(moment.endswith("T00:00:00Z") for moment in named)


def test_parallel_runs_each_take_exactly_one_utc_day_across_a_clock_change(env, three_at_once):
    _, runs, *_ = three_at_once
    assert {run["state"] for run in runs.values()} == {"success"}
    midnights = [f"{day}T00:00:00Z" for day in (*SPRING, "2026-03-10")]
    assert [env.interval(runs[day]) for day in SPRING] == list(pairwise(midnights))
    assert [env.compared(runs[day]) for day in SPRING] == [len(EDGES)] * len(SPRING)
    assert at_once(runs) > 1


def test_the_dags_own_run_goes_on_beside_a_backfill(three_at_once):
    *_, live = three_at_once
    assert live["state"] == "success"


def test_a_second_backfill_is_refused_while_one_is_under_way(three_at_once):
    refusal = three_at_once[3]
    assert refusal.status_code == 409
    assert "running backfill" in refusal.text


def test_a_sequential_backfill_finds_exactly_what_parallel_runs_found(env, three_at_once):
    _, earlier, found, *_ = three_at_once
    assert {row[0][2:12] for row in found} == set(SPRING)
    env.forget_differences(SPRING[:2])
    env.backfill(SPRING, reprocess_behavior="completed", run_backwards=True, max_active_runs=1)
    runs = env.runs(SPRING)
    assert {run["state"] for run in runs.values()} == {"success"}
    assert [run["dag_run_id"] for run in runs.values()] == [run["dag_run_id"] for run in earlier.values()]
    assert sorted(runs, key=lambda day: runs[day]["start_date"]) == SPRING[::-1]
    assert env.differences() == found


def test_a_day_without_orders_ends_green_with_nothing_compared(env, three_at_once):
    env.backfill(NOBODY_BOUGHT)
    [run] = env.runs(NOBODY_BOUGHT).values()
    assert (run["state"], env.compared(run)) == ("success", 0)


@pytest.fixture(scope="module")
def one_failed(env):
    """Three days across the change of clocks in autumn; FeedAMP is out for the only seller of the second."""
    env.guarded.unpause(RECONCILE)
    env.guarded.sandbox.fault("error_503", seller_id=env.lonely, times=None)
    env.backfill(AUTUMN)

    run_id = env.seen(AUTUMN)[AUTUMN[1]]["dag_run_id"]
    env.guarded.wait_for_task(RECONCILE, run_id, "reconcile", {"up_for_retry"})  # the outage is met
    # An operator who does not wait for the retries marks the task as failed; this is the call behind it.
    where = f"dags/{RECONCILE}/dagRuns/{run_id}/taskInstances/reconcile/0"
    env.guarded.api("PATCH", where, {"new_state": "failed"})
    runs = env.runs(AUTUMN)
    env.guarded.sandbox.clear_faults()
    return runs


def test_reprocess_failed_by_the_command_line_runs_only_the_day_that_failed(env, one_failed):
    assert [run["state"] for run in one_failed.values()] == ["success", "failed", "success"]
    env.backfill_by_command_line(AUTUMN, "--reprocess-behavior", "failed")
    runs = env.runs(AUTUMN)
    assert [run["state"] for run in runs.values()] == ["success", "success", "success"]
    again = [day for day in AUTUMN if runs[day]["end_date"] != one_failed[day]["end_date"]]
    assert again == [AUTUMN[1]]
    assert [env.compared(runs[day]) for day in AUTUMN] == [len(EDGES)] * len(AUTUMN)
    midnights = [f"{day}T00:00:00Z" for day in (*AUTUMN, "2025-11-04")]
    assert [env.interval(runs[day]) for day in AUTUMN] == list(pairwise(midnights))


def test_a_backfill_beside_the_live_dags_is_not_disturbed_and_does_not_disturb(env, one_failed):
    guarded = env.guarded
    days = AUTUMN[:2]
    env.backfill(days, reprocess_behavior="completed")
    guarded.unpause("feedamp_extract_fulfillments", "feedamp_process_fulfillments", "feedamp_refresh_tokens")
    guarded.api("POST", "dags/feedamp_place_orders/dagRuns", {"logical_date": None, "conf": {}})
    runs = env.runs(days)
    live = [
        *guarded.ended("feedamp_extract_fulfillments", "scheduled"),
        *guarded.ended("feedamp_process_fulfillments", "scheduled"),
        *guarded.ended("feedamp_refresh_tokens", "scheduled"),
        *guarded.ended("feedamp_place_orders", "manual"),
    ]
    assert [run["state"] for run in (*runs.values(), *live)] == ["success"] * (len(days) + 4)
    assert [env.compared(run) for run in runs.values()] == [len(EDGES)] * len(days)
    assert not [word for word in BUSY if word in env.task_logs()]
    assert guarded.sandbox.broken_rules == []


def test_a_backfill_of_placing_is_refused(env):
    guarded = env.guarded
    days = {"from_date": "2026-03-01T00:00:00Z", "to_date": "2026-03-03T00:00:00Z"}
    with pytest.raises(requests.HTTPError) as refusal:
        guarded.api(
            "POST",
            "backfills",
            {"dag_id": "feedamp_place_orders", **days, "run_backwards": False, "dag_run_conf": {}},
        )
    assert 400 <= refusal.value.response.status_code < 500
    assert "backfill" in refusal.value.response.text.lower()
    assert guarded.runs("feedamp_place_orders", "backfill") == []


def test_the_test_button_knows_that_the_credentials_are_proven(env):
    guarded, sandbox = env.guarded, env.guarded.sandbox
    fields = {"conn_type": "feedamp", "host": sandbox.api, "login": sandbox.client_id, "extra": "{}"}
    body = {"connection_id": "feedamp_default", **fields, "password": sandbox.client_secret}
    said = guarded.api("POST", "connections/test", body)
    assert said["status"]
    assert "credentials are proven by a refresh" in said["message"]
