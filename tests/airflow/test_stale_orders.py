"""Only a scheduled reconciliation adds the orders that have been open for long."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


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
