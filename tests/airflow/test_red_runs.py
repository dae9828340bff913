"""What a red run reports: which sellers have work left and why, and which task died without a message."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow_env import ROOT, one_run
from cryptography.fernet import Fernet
from order_samples import good_line, good_order

from feedamp.rules.failure_summary import Reason, Told
from feedamp_airflow.red_runs import why_red

FIRST, SECOND, THIRD = "seller-001", "seller-002", "seller-003"


def row(seller_id, number):
    lines = [good_line(mp_line_number=f"{number}-1")]
    return {"seller_id": seller_id, "order": good_order(mp_order_number=number, order_lines=lines)}


@pytest.fixture
def env(airflow_env):
    airflow_env.connect()
    return airflow_env


@pytest.fixture
def said_at_the_end(capfd):
    """The message of the last gate that failed."""

    def read():
        printed = capfd.readouterr().out
        [*_, message] = [line for line in printed.splitlines() if "AirflowFailException" in line] or [printed]
        return message

    return read


def kept(env):
    """What the tasks have stored in the state, by step and shard."""
    with closing(sqlite3.connect(env.folder / "state.db")) as state:
        query = "SELECT step, shard, problems FROM step_runs WHERE problems IS NOT NULL ORDER BY 1, 2"
        return {(step, shard): Told.decode(text) for step, shard, text in state.execute(query)}


def test_a_red_placing_names_its_sellers_and_the_reason(env, said_at_the_end):
    env.drop("orders.jsonl", *(row(seller, f"M-{seller}") for seller in (FIRST, SECOND, THIRD)))
    for seller in (FIRST, THIRD):
        env.sandbox.fault("error_503", method="PUT", seller_id=seller, times=None)
    assert env.run_dag("place_orders").state == "failed"
    assert (
        f"place: 2 of 3 sellers have work left. {FIRST}: FeedAMP answered 503 (2 sellers). "
        "The next run takes up what is left."
    ) in said_at_the_end()


def test_a_red_extraction_names_each_reason(env, said_at_the_end):
    env.drop("orders.jsonl", *(row(seller, f"M-{seller}") for seller in (FIRST, SECOND, THIRD)))
    env.place()
    env.sandbox.fault("throttle", path="/orders", seller_id=SECOND, times=None, seconds=300)
    env.sandbox.fault("broken_json", path="/orders", seller_id=THIRD, times=None)
    assert env.run_dag("extract_fulfillments").state == "failed"
    said = said_at_the_end()
    assert "extract: 2 of 3 sellers have work left. " in said
    assert f"{SECOND}: FeedAMP answered 429" in said
    assert f"{THIRD}: FeedAMP answered 2xx with a broken body" in said


def test_a_green_retry_clears_what_was_said(env):
    env.drop("orders.jsonl", row(FIRST, "M-1"))
    env.place()
    env.sandbox.fault("error_503", path="^/orders", seller_id=FIRST, times=4)  # one try of a task
    dag = DagBag(str(ROOT / "dags" / "feedamp_extract_fulfillments.py")).dags["feedamp_extract_fulfillments"]
    for task in dag.tasks:
        task.retries, task.retry_delay = 1, timedelta(0)
    run = one_run(dag)
    tries = {ti.map_index: ti.try_number for ti in run.get_task_instances() if ti.task_id == "extract"}
    assert (run.state, tries) == ("success", {0: 2, 1: 1, 2: 1})
    assert kept(env) == {}


def test_a_task_that_ends_before_its_step_begins_says_why(env, said_at_the_end):
    assert env.run_dag("place_orders", sellers=["no one"]).state == "failed"
    said = said_at_the_end()
    assert (
        "plan: Param sellers: not registered: no one. Not started, because of a task before it: place."
        in said
    )


def test_an_error_that_no_one_expected_is_told_by_its_kind_alone(env, said_at_the_end):
    env.drop("orders.jsonl", row(FIRST, "M-1"))
    (env.folder / "warehouse.duckdb").unlink(missing_ok=True)
    (env.folder / "warehouse.duckdb").mkdir()
    assert env.run_dag("place_orders").state == "failed"
    assert "load: An unexpected IOException ended the task; see its log." in said_at_the_end()


DIES = """
from airflow.sdk import DAG, task
from feedamp_airflow import tasks

def killed():
    raise SystemExit(9)

with DAG("feedamp_place_orders", params={"dry_run": False}):
    task(killed, task_id="place")() >> task(tasks.gate, trigger_rule="all_done")()
"""


def test_a_task_that_dies_without_a_word_is_named(env, tmp_path, said_at_the_end):
    (tmp_path / "dies.py").write_text(DIES)
    run = one_run(DagBag(str(tmp_path / "dies.py")).dags["feedamp_place_orders"])
    assert run.state == "failed"
    assert "place ended without a word; see its log." in said_at_the_end()


def test_a_dry_run_that_fails_leaves_nothing_in_the_state(env, said_at_the_end):
    assert env.run_dag("place_orders", sellers=["no one"], dry_run=True).state == "failed"
    assert "plan ended without a word; see its log." in said_at_the_end()
    assert kept(env) == {}


def told(*reasons, **fields):
    return Told(tuple(Reason(text, (seller,), count) for seller, text, count in reasons), **fields)


def test_shards_are_told_together_and_only_those_of_this_time():
    """A cleared run may have left the message of a shard that no longer exists."""
    said = {
        ("place", 0): (told(("S1", "No answer.", 2), failed=2), 50),
        ("place", 1): (None, 50),
        ("place", 2): (told(("S9", "No answer.", 1), failed=1), 10),
        ("place", 3): (told(("S99", "Of last week.", 7), failed=7), 50),
    }
    states = {
        "intake": "success",
        "place_0": "failed",
        "place_1": "success",
        "place_2": "failed",
        "load": "success",
    }
    assert why_red({**states, "place_3": "removed"}, said) == [
        "place: 3 of 110 sellers have work left. S1: No answer (3 sellers). The next run takes up what is left."
    ]


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({}, id="killed in its first try"),
        pytest.param(
            {("extract", 4): (told(("S1", "No answer.", 1), failed=1, has_ended=False), 5)},
            id="killed in its second try, after the first has said something",
        ),
    ],
)
def test_a_killed_task_is_named_by_its_id(said):
    assert why_red({"extract_4": "failed"}, said) == ["extract_4 ended without a word; see its log."]


def test_a_day_that_is_red_is_to_be_started_again():
    said = {("reconcile", 0): (told(("S1", "No answer.", 1), failed=1), 5)}
    [text] = why_red({"reconcile_0": "failed"}, said)
    assert text.endswith("Clear the task, or start the day again as a backfill.")


def test_the_run_id_of_a_day_keeps_its_words_apart(env, said_at_the_end):
    env.drop("orders.jsonl", row(FIRST, "M-1"))
    env.place()
    env.sandbox.fault("error_503", path="/orders", seller_id=FIRST, times=None)
    assert env.run_dag("reconcile_orders", at=datetime(2026, 3, 3, tzinfo=UTC)).state == "failed"
    env.sandbox.clear_faults()
    said_at_the_end()
    assert env.run_dag("reconcile_orders", at=datetime(2026, 3, 4, tzinfo=UTC)).state == "success"
    assert [step for step, _ in kept(env)] == ["reconcile"]


AWAY = """
from airflow.sdk import DAG, task
from feedamp_airflow import tasks

with DAG("feedamp_place_orders", params={"dry_run": False, "sellers": []}):
    task(tasks.plan_orders, task_id="plan")()
"""


def test_a_task_whose_state_is_away_waits_for_it_once(env, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("feedamp_airflow.wiring.STORE_AWAY_S", 0.3)
    env.set_options(
        state_url="postgresql+psycopg://us:sesame@127.0.0.1:1/feedamp",
        encryption_key=Fernet.generate_key().decode(),
    )
    (tmp_path / "away.py").write_text(AWAY)
    run = one_run(DagBag(str(tmp_path / "away.py")).dags["feedamp_place_orders"])
    said = [record.getMessage() for record in caplog.records]
    assert run.state == "failed"
    assert sum("waiting for it" in line for line in said) == 1
    assert (
        sum("Why this task failed could not be stored in the state (StoreAwayError)" in line for line in said)
        == 1
    )
