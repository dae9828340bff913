"""The soak runs the DAGs without Airflow; its description of them must match the DAG files."""

from __future__ import annotations

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow_env import dag_bag

from feedamp.errors import (
    AuthorizationError,
    BusyError,
    ClientRefusedError,
    ConfigurationError,
    IncompleteError,
    RejectedError,
    ThrottledError,
    TransientError,
)
from feedamp_airflow.retries import FeedAmpRetryPolicy
from soak import chain
from soak.settings import RETRIES


def test_the_soak_knows_each_dag_its_tasks_and_their_trigger_rules(airflow_home):
    for dag_id, specs in chain.DAGS.items():
        dag = dag_bag().dags[dag_id]
        found = [
            (task.task_id, task.is_mapped, task.trigger_rule == "all_done") for task in dag.topological_sort()
        ]
        assert found == [*((s.name, s.is_mapped, s.runs_always) for s in specs), ("gate", False, True)]
        assert {task.retries for task in dag.tasks} == {RETRIES}
    assert sorted(chain.DAGS) == sorted(set(dag_bag().dags) - {"feedamp_admin"})


@pytest.mark.parametrize(
    "error",
    [
        TransientError("x"),
        TransientError("x", retry_after_s=7),
        TransientError("x", retry_after_s=0.2),
        ThrottledError("x", retry_after_s=181),
        BusyError("x", retry_after_s=180),
        IncompleteError("x"),
        AuthorizationError("x"),
        ClientRefusedError("x"),
        RejectedError("x", status=400),
        ConfigurationError("x"),
        RuntimeError("x"),
    ],
    ids=repr,
)
def test_the_soak_tries_again_what_airflow_tries_again(error):
    decision = FeedAmpRetryPolicy().evaluate(error, 1, 3)
    may_retry, after_s = chain.may_retry(error)
    assert may_retry == (decision.action is not RetryAction.FAIL)
    if may_retry:
        assert after_s == (decision.retry_delay and decision.retry_delay.total_seconds())
