"""Kinds of reconciliation: whose days, who adds long-open orders, and who repairs without being asked."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pendulum
import pytest

from feedamp.rules.reconciled_days import days_until


@pytest.mark.parametrize(
    ("name", "adds"),
    [
        pytest.param("SCHEDULED", True, id="a scheduled run"),
        pytest.param("MANUAL", False, id="a run started by hand"),
        pytest.param("BACKFILL", False, id="a backfill"),
    ],
)
def test_only_a_scheduled_run_adds_stale_orders(airflow_home, name, adds):
    from airflow.sdk.api.datamodels._generated import DagRunType
    from airflow.sdk.execution_time.context import set_current_context

    from feedamp_airflow import tasks

    with set_current_context({"dag_run": SimpleNamespace(run_type=DagRunType[name])}):
        assert tasks._is_scheduled() is adds


@pytest.mark.parametrize(
    ("name", "params", "repairs"),
    [
        pytest.param("SCHEDULED", {"repair": None}, True, id="a scheduled run"),
        pytest.param("MANUAL", {"repair": None}, False, id="a run started by hand"),
        pytest.param("BACKFILL", {"repair": None}, False, id="a backfill"),
        pytest.param("SCHEDULED", {"repair": False}, False, id="a scheduled run with repair off"),
        pytest.param("MANUAL", {"repair": True}, True, id="a manual run with repair on"),
        pytest.param("BACKFILL", {"repair": True}, True, id="a backfill with repair on"),
        pytest.param("MANUAL", {"repair": True, "dry_run": True}, False, id="a dry run with repair on"),
        pytest.param("SCHEDULED", {"dry_run": True}, False, id="a scheduled dry run"),
    ],
)
def test_a_run_repairs_as_it_is_told_or_as_its_kind_says(airflow_home, name, params, repairs):
    from airflow.sdk.api.datamodels._generated import DagRunType
    from airflow.sdk.execution_time.context import set_current_context

    from feedamp_airflow import tasks

    context = {"dag_run": SimpleNamespace(run_type=DagRunType[name]), "params": params}
    with set_current_context(context):
        assert tasks._repairs() is repairs


def test_the_day_of_a_scheduler_run_is_its_data_interval(airflow_home):
    from airflow.sdk.execution_time.context import set_current_context

    from feedamp_airflow import tasks

    interval = {
        f"data_interval_{end}": pendulum.datetime(2026, 3, day) for end, day in (("start", 6), ("end", 7))
    }
    with set_current_context({"dag_run": SimpleNamespace(run_type="backfill"), "params": {}, **interval}):
        assert days_until(*tasks._days()) == [date(2026, 3, 6)]
