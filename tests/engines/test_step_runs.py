"""What the tasks of a run tell `gate`, on both engines: each by step and shard, until its next try begins."""

from __future__ import annotations

from datetime import timedelta

import pytest

from crashes.clock import NOON
from feedamp.rules.failure_summary import Told
from feedamp.state import step_runs
from feedamp.state.step_runs import RETENTION, Done

RUN, OTHER = "manual__1", "manual__2"
FAILED = Told(failed=1, error="why")
TASKS = ((RUN, "extract", 0), (RUN, "extract", 1), (RUN, "load", 0), (OTHER, "extract", 0))


@pytest.mark.parametrize("told", [FAILED, None])
def test_a_next_try_takes_back_what_its_own_task_told(state, told):
    with state.begin() as connection:
        step_runs.first_seen(connection, RUN, now=NOON)
        for task in TASKS:
            step_runs.tell(connection, *task, told, sellers=2, now=NOON, outcome="{}")
        step_runs.begin_try(connection, *TASKS[0])
    unended = told and told.but(has_ended=False)
    with state.read() as connection:
        found = step_runs.told_by(connection, RUN)
        outcomes = step_runs.outcomes(connection, RUN, "extract")
    assert found == {("extract", 0): (unended, 2), ("extract", 1): (told, 2), ("load", 0): (told, 2)}
    assert outcomes == {1: "{}"}


def test_a_run_was_first_seen_when_its_first_task_began(state):
    for run, hours, seen in ((RUN, 0, 0), (OTHER, 1, 1), (RUN, 2, 0)):
        with state.begin() as connection:
            first = step_runs.first_seen(connection, run, now=NOON + timedelta(hours=hours))
        assert first == NOON + timedelta(hours=seen)


def record(state, shard, started_at, told=None, *, run=RUN, outcome=None):
    done = Done(started_at, pages=1, requests=2, orders=3)
    with state.begin() as connection:
        return step_runs.record(connection, run, "reconcile", shard, done, told, sellers=2, outcome=outcome)


def test_a_next_try_adds_its_work_and_replaces_what_was_told(state):
    record(state, 1, NOON, FAILED, outcome="{}")
    assert record(state, 1, NOON + timedelta(hours=1)) == Done(NOON, pages=2, requests=4, orders=6)
    with state.read() as connection:
        assert step_runs.told_by(connection, RUN) == {("reconcile", 1): (None, 2)}
        assert step_runs.outcomes(connection, RUN, "reconcile") == {1: "{}"}
        assert step_runs.orders_of(connection, RUN) == 6


@pytest.mark.parametrize(("shard", "left"), [(0, {"reconcile"}), (1, {"extract", "reconcile"})])
def test_the_first_task_of_a_run_deletes_what_is_old(state, shard, left):
    with state.begin() as connection:
        step_runs.tell(connection, RUN, "extract", 0, FAILED, sellers=2, now=NOON)
    record(state, shard, NOON + RETENTION + timedelta(seconds=1))
    with state.read() as connection:
        assert {step for step, _ in step_runs.told_by(connection, RUN)} == left
