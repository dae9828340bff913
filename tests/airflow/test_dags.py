"""The DAG files as Airflow sees them; what their tasks do is tested in test_loop.py."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys

import pendulum
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import Asset
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from airflow_env import ROOT, dag_bag
from sources import imports_of, packaged, tree_of

from feedamp.errors import ConfigurationError
from feedamp_airflow import tasks
from feedamp_airflow.retries import FeedAmpRetryPolicy

TASKS = {
    "feedamp_place_orders": ["intake", "plan", "place", "load", "gate"],
    "feedamp_extract_fulfillments": ["plan", "extract", "load", "gate"],
    "feedamp_process_fulfillments": ["plan", "validate", "close", "load", "gate"],
    "feedamp_reconcile_orders": ["plan", "reconcile", "load", "gate"],
    "feedamp_refresh_tokens": ["plan", "refresh", "load", "gate"],
}
PARAMS = {
    "feedamp_extract_fulfillments": ["since"],
    "feedamp_reconcile_orders": ["day", "fail_above", "from", "repair", "to"],
}
OUTLETS = {
    "feedamp_place_orders": "feedamp_orders_placed",
    "feedamp_extract_fulfillments": "feedamp_fulfillments",
    "feedamp_process_fulfillments": "feedamp_orders_closed",
}
FILES = sorted((ROOT / "dags").glob("*.py"))

every_dag = pytest.mark.parametrize("dag_id", TASKS)


@pytest.fixture(scope="module")
def dags(airflow_home):
    return dag_bag().dags


def test_all_are_imported_without_error_and_nothing_else_is(dags):
    assert dag_bag().import_errors == {}
    assert sorted(dags) == sorted([*TASKS, "feedamp_admin"])
    assert [file.stem for file in FILES] == sorted(dags)


def test_dag_and_task_code_imports_nothing_of_airflow_but_its_sdk():
    """Anything else is the server's own code, which a worker may not have."""
    plugin = ROOT / "plugins" / "feedamp_airflow"
    of_tasks = [
        plugin / f"{name}.py" for name in ("tasks", "admin", "dag_settings", "assets", "red_runs", "retries")
    ]
    imported = {name for path in (*FILES, *of_tasks) for node in imports_of(path) for name in names_of(node)}
    assert {
        name for name in imported if name.split(".")[0] == "airflow" and not name.startswith("airflow.sdk")
    } == set()
    assert "airflow.sdk" in imported


def names_of(node):
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


READ = """
import importlib, json, sys, time
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
began = time.process_time()
dags = DagBag(sys.argv[1]).dags
seconds = time.process_time() - began
heavy = sorted({"pandas", "pyarrow", "duckdb", "aiohttp", "feedamp_airflow.cli.commands"} & set(sys.modules))
print(json.dumps({"seconds": seconds, "heavy": heavy, "dags": {name: DagSerialization.to_dict(dag) for name, dag in dags.items()}}))
"""


@pytest.fixture(scope="module")
def read_elsewhere(airflow_home):
    """The files as a separate process reads them."""
    command = [sys.executable, "-c", READ, str(ROOT / "dags")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_they_are_read_in_a_moment(read_elsewhere):
    """The DAG processor parses them repeatedly; the import of Airflow itself is not counted."""
    assert read_elsewhere["seconds"] < 5
    assert read_elsewhere["heavy"] == []


def test_reading_the_files_twice_gives_the_same_dags(read_elsewhere):
    """Anything else would make a new DAG version with every parse."""
    here = {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in dag_bag().dags.items()}
    assert read_elsewhere["dags"] == json.loads(json.dumps(here))


@every_dag
def test_the_task_ids_are_those_of_the_interface_in_their_order(dag_id, dags):
    assert [task.task_id for task in dags[dag_id].topological_sort()] == TASKS[dag_id]


@every_dag
def test_only_load_has_an_asset(dag_id, dags):
    outlets = {task.task_id: task.outlets for task in dags[dag_id].tasks if task.outlets}
    expected = {"load": [Asset(OUTLETS[dag_id])]} if dag_id in OUTLETS else {}
    assert outlets == expected


@every_dag
def test_load_and_gate_run_whatever_happened_and_the_gate_is_the_only_leaf(dag_id, dags):
    dag = dags[dag_id]
    assert {dag.get_task(name).trigger_rule for name in ("load", "gate")} == {"all_done"}
    assert [task.task_id for task in dag.leaves] == ["gate"]


@every_dag
def test_no_task_reads_what_mapped_tasks_have_returned(dag_id, dags):
    """If a plan of a cleared run is shorter, the surplus instances are removed, but what they returned stays."""
    calls = [n for path in packaged() for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)]
    pulled = [ast.unparse(call) for call in calls if getattr(call.func, "attr", "") == "xcom_pull"]
    assert pulled == ["ti.xcom_pull(task_ids='load')"]
    dag = dags[dag_id]
    for task in dag.tasks:
        if task.is_mapped:
            assert {of.task_id for of, _ in task.op_kwargs_expand_input.iter_references()} == {"plan"}
        else:
            assert {**task.op_kwargs, "positional": list(task.op_args)} == {"positional": []}
    assert not dag.get_task("load").is_mapped


def test_the_admin_dag_runs_one_command_by_hand_and_never_repeats_it(dags):
    dag = dags["feedamp_admin"]
    assert (set(dag.allowed_run_types), dag.timetable.can_be_scheduled) == ({"manual"}, False)
    assert (sorted(dag.params), dag.is_paused_upon_creation) == (["action", "arguments"], False)
    assert [(task.task_id, task.retries) for task in dag.tasks] == [("act", 0)]


@every_dag
def test_one_run_at_a_time_and_none_of_the_past(dag_id, dags):
    assert (dags[dag_id].max_active_runs, dags[dag_id].catchup) == (1, False)


@every_dag
def test_only_reconcile_offers_a_backfill(dag_id, dags):
    types = dags[dag_id].allowed_run_types
    assert (types is None or "backfill" in types) == (dag_id == "feedamp_reconcile_orders")
    assert types is None or "manual" in types


@every_dag
def test_the_params_are_those_of_the_interface(dag_id, dags):
    params = dags[dag_id].params
    assert sorted(params) == sorted(["dry_run", "sellers", *PARAMS.get(dag_id, [])])
    assert (params["sellers"], params["dry_run"]) == ([], False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_docstring_is_the_runbook_and_the_ui_shows_a_part_with_links(file, dags):
    runbook, shown = ast.get_docstring(tree_of(file)), dags[file.stem].doc_md
    for word in ("**Backfill**", "**Red**", *(f"`{name}`" for name in dags[file.stem].params)):
        assert word in runbook
    for word in (runbook.split("\n\n")[1], "**Backfill**", "**Red**", "(/feedamp/)"):
        assert word in shown
    assert ("|" in shown, shown.startswith("# ")) == (False, True)
    section = re.search(r"section `(.+)`", shown)[1]
    assert re.search(rf"^#+ {section}$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)


@every_dag
def test_every_task_is_retried_by_what_went_wrong(dag_id, dags):
    """The gate too: Airflow's API server may be away when it starts. Its verdict itself is not tried again."""
    for task in dags[dag_id].tasks:
        assert isinstance(task.retry_policy, FeedAmpRetryPolicy)
        assert task.retries == 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_dag_file_is_wiring_and_no_more(file):
    assert 30 <= len(file.read_text().splitlines()) <= 70


# Schedules


def days(dag, first, last):
    """Data intervals of a backfill from `first` to `last`."""
    timetable = coerce_to_core_timetable(dag.timetable)
    restriction = TimeRestriction(pendulum.parse(first), pendulum.parse(last), catchup=True)
    found, info = [], None
    while True:
        info = timetable.next_dagrun_info(
            last_automated_data_interval=info and info.data_interval, restriction=restriction
        )
        if info is None:
            return [(str(interval.start), str(interval.end)) for interval in found]
        found.append(info.data_interval)


def test_reconcile_gives_march_its_31_days(dags):
    march = days(dags["feedamp_reconcile_orders"], "2026-03-01", "2026-03-31")
    midnight = pendulum.datetime(2026, 3, 1)
    assert march == [(str(midnight.add(days=n)), str(midnight.add(days=n + 1))) for n in range(31)]


def test_processing_is_started_by_the_fulfillments_or_by_time(dags):
    dag = dags["feedamp_process_fulfillments"]
    [asset] = serialized_timetable(dag)["asset_condition"]["objects"]
    assert asset["name"] == "feedamp_fulfillments"
    assert sorted(dag.allowed_run_types) == ["asset_triggered", "manual", "scheduled"]


def timetable_of(dag):
    """The one that goes by time, as the scheduler reads it from the database."""
    timetable = serialized_timetable(dag)
    return timetable.get("timetable", {}).get("__var", timetable)


def serialized_timetable(dag):
    return json.loads(json.dumps(DagSerialization.to_dict(dag)))["dag"]["timetable"]["__var"]


SCHEDULES = [
    pytest.param("place", "feedamp_place_orders", "*/10 * * * *", id="place_schedule"),
    pytest.param("extract", "feedamp_extract_fulfillments", "*/15 * * * *", id="extract_schedule"),
    pytest.param("process", "feedamp_process_fulfillments", "30 * * * *", id="process_schedule"),
    pytest.param("refresh", "feedamp_refresh_tokens", "0 2 * * *", id="refresh_schedule"),
]


@pytest.mark.parametrize(("name", "dag_id", "cron"), SCHEDULES)
def test_a_schedule_is_its_option_in_utc(name, dag_id, cron, dags, monkeypatch):
    assert (timetable_of(dags[dag_id])["expression"], timetable_of(dags[dag_id])["timezone"]) == (cron, "UTC")
    monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{name.upper()}_SCHEDULE", "7 * * * *")
    read_again = DagBag(str(ROOT / "dags" / f"{dag_id}.py")).dags[dag_id]
    assert timetable_of(read_again)["expression"] == "7 * * * *"


def test_another_hour_for_reconcile_is_an_import_error_that_says_why(airflow_home, monkeypatch):
    monkeypatch.setenv("AIRFLOW__FEEDAMP__RECONCILE_SCHEDULE", "30 3 * * *")
    bag = DagBag(str(ROOT / "dags" / "feedamp_reconcile_orders.py"))
    assert bag.dags == {}
    [error] = bag.import_errors.values()
    assert "reconcile_schedule" in error


@pytest.mark.parametrize(
    "since", ["2026-03-01T00:00:00", "2026-03-01", "2026-03-01 00:00", "yesterday", "1772323200"]
)
def test_plan_refuses_a_since_without_a_zone_where_no_validator_has(since, monkeypatch):
    monkeypatch.setattr(tasks, "get_current_context", lambda: {"params": {"since": since}})
    with pytest.raises(ConfigurationError, match="Param since"):
        inspect.unwrap(tasks.plan_extraction)()


def test_tasks_of_backfills_wait_for_all_others(dags):
    weights = {
        (dag_id, task.priority_weight, task.weight_rule) for dag_id, dag in dags.items() for task in dag.tasks
    }
    history = {weight for weight in weights if weight[0] == "feedamp_reconcile_orders"}
    assert history == {("feedamp_reconcile_orders", 0, "absolute")}
    assert all(weight > 0 for _, weight, _ in weights - history)
