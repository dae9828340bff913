"""An env of its own for one test of the Airflow side: folders, sandbox, connection, `[feedamp]` options.

Airflow itself (home, database) comes from airflow_home.py and is shared; everything of feedamp is new.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.sdk.log import _secrets_masker
from airflow_home import HOME
from env_fixtures import empty_state, empty_warehouse
from jsonschema import Draft202012Validator
from order_samples import example_order

from crashes.fixtures import plan, run_shard
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import grants, sellers
from feedamp.steps.load import load
from feedamp.steps.place_orders.read_inbox import intake
from feedamp_airflow.wiring import make_resources
from feedamp_sandbox import (
    LoggedRequest,
    Sandbox,
    SandboxOptions,
    running,
)

ROOT = Path(__file__).parents[2]
CONN_ID = "feedamp_default"
FAST = {"requests_per_second": 1000.0, "burst": 1000}


@cache
def dag_bag() -> DagBag:
    """The DAGs, imported once."""
    return DagBag(str(ROOT / "dags"))


def know_dags() -> None:
    """Puts the DAGs into Airflow's database, as the DAG processor does."""
    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    [bundle] = manager.get_all_dag_bundles()
    sync_bag_to_db(dag_bag(), bundle.name, None)


@cache
def bundle_that_is_known() -> str:
    """The list of bundles for `dag.test()`, which reads and stores all files of a bundle before each run, a third of its
    time. Here they are in Airflow's database already, and in the folder for who looks for them, but ignored.
    """
    know_dags()
    folder = HOME / "known-dags"
    shutil.copytree(ROOT / "dags", folder)
    (folder / ".airflowignore").write_text("*.py\n")
    local = {
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder)},
    }
    return json.dumps([{"name": "dags-folder", **local}])


def check_once(schema: Any) -> None:
    """Airflow asks for each param several times a run whether its schema is one, which takes a tenth of the run."""
    if (text := json.dumps(schema)) not in checked:
        check_schema(schema)
        checked.add(text)


checked = set[str]()
check_schema = Draft202012Validator.check_schema


def one_run(dag: Any, **options: Any) -> Any:
    """`dag.test()` without reading all DAG files again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draft202012Validator, "check_schema", check_once)
        patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", bundle_that_is_known())
        return dag.test(**options)


class AirflowEnv:
    """Sandbox, stores and connection of one test, as the tasks of the DAGs find them."""

    def __init__(self, folder: Path, sandbox: Sandbox, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.sandbox, self._patch = folder, sandbox, patch
        self.inbox = folder / "inbox"
        self.inbox.mkdir(parents=True)
        self._choose()

    def _choose(self) -> None:
        """The options and the connection with which each test begins."""
        self.set_options(
            state_url=f"sqlite:///{self.folder / 'state.db'}",
            inbox_url=str(self.inbox),
            lake_url=str(self.folder / "lake"),
            duckdb_path=str(self.folder / "warehouse.duckdb"),
            inbox_settle_s="0",
            sellers_per_task="1",
        )
        self.set_connection()

    @contextmanager
    def changed_by(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """What is set meanwhile is undone with `patch`: an env that several tests share belongs to none of them."""
        _secrets_masker().reset_masker()
        before, self._patch = self._patch, patch
        self._choose()
        yield
        self._patch = before

    def set_options(self, **options: str) -> None:
        """`[feedamp]` options, as the environment gives them."""
        for name, value in options.items():
            self._patch.setenv(f"AIRFLOW__FEEDAMP__{name.upper()}", value)

    def set_connection(self, **fields: Any) -> None:
        """The connection to the sandbox with some fields changed."""
        connection = {
            "conn_type": "feedamp",
            "host": self.sandbox.api,
            "login": self.sandbox.client_id,
            "password": self.sandbox.client_secret,
            "extra": {"requests_per_second": 900},
        }
        self._patch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", json.dumps(connection | fields))

    def resources(self) -> Resources:
        """What a step would be given."""
        return make_resources()

    def make_stores(self) -> None:
        """State and warehouse as the first run leaves them, without waiting for their migrations and tables."""
        for name, empty in {"state.db": empty_state(), "warehouse.duckdb": empty_warehouse()}.items():
            if not (self.folder / name).exists():
                shutil.copy(empty, self.folder / name)

    def connect(self, *seller_ids: str) -> None:
        """Registers sellers (all by default) with their grants."""
        self.make_stores()
        resources = self.resources()
        with resources.state.begin() as connection:
            for seller_id in seller_ids or [seller["seller_id"] for seller in self.sandbox.sellers]:
                now, token = resources.state.now(), self.sandbox.refresh_token(seller_id)
                sellers.add(connection, seller_id, conn_id=CONN_ID, now=now)
                grants.put_grant(connection, resources.cipher, seller_id, CONN_ID, token, now=now)
        resources.state.close()

    def hold(self, seller_id: str, number: str) -> None:
        """Puts an order into the sandbox without a request."""
        world = self.sandbox.world
        with world.lock:
            world.orders.add(seller_id, example_order(number), world.clock())

    def asked(self) -> list[LoggedRequest]:
        """The requests so far, token calls left out."""
        return [r for r in self.sandbox.requests if not r.path.endswith("/access_token")]

    def drop(self, name: str, *rows: dict[str, Any] | str) -> None:
        """An inbox file of `{"seller_id", "order"}`; a row that is text goes in unchanged."""
        lines = [row if isinstance(row, str) else json.dumps(row, default=float) for row in rows]
        path = self.inbox / name
        path.write_text("\n".join(lines) + "\n")
        os.utime(path, (0, 0))

    def take_in(self) -> None:
        """Takes the inbox into the ledger, without Airflow."""
        resources = self.resources()
        intake(resources, Run("feedamp_place_orders", "by hand", resources.state.now()))
        resources.state.close()

    def place(self) -> None:
        """What feedamp_place_orders does, without Airflow: many tests begin with placed orders."""
        self.take_in()
        self._work("feedamp_place_orders", "place")

    def extract(self) -> None:
        """What feedamp_extract_fulfillments does, without Airflow."""
        self._work("feedamp_extract_fulfillments", "extract")

    def _work(self, dag_id: str, step: str) -> None:
        resources = self.resources()
        run = Run(dag_id, "by hand", resources.state.now())
        for shard in plan(resources, step, run):
            run_shard(resources, step, run, shard["sellers"], shard["shard"])
        load(resources, run)
        resources.state.close()

    def run_dag(self, dag_id: str, *, at: datetime | None = None, **params: Any) -> Any:
        """One run by `dag.test()`, retries aside: a second try would come a minute later.

        `at`: the logical date, by default the moment.
        """
        # Read again: a run leaves its params in the DAG.
        dag = DagBag(str(ROOT / "dags" / f"feedamp_{dag_id}.py")).dags[f"feedamp_{dag_id}"]
        for task in dag.tasks:
            task.retries = 0
        return one_run(dag, run_conf=params, **({"logical_date": at} if at else {}))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the warehouse."""
        path = self.folder / "warehouse.duckdb"
        with closing(duckdb.connect(str(path), read_only=True)) as warehouse:
            return warehouse.execute(sql).fetchall()


def task_states(run: Any) -> dict[str, list[str]]:
    """States of a run's task instances by task id, shards in order."""
    states: dict[str, list[str]] = {}
    for ti in sorted(run.get_task_instances(), key=lambda ti: ti.map_index):
        states.setdefault(ti.task_id, []).append(str(ti.state))
    return states


@contextmanager
def open_airflow_env(folder: Path, patch: pytest.MonkeyPatch, **options: Any) -> Iterator[AirflowEnv]:
    """An env against a sandbox with these options; its rate limit is out of the way."""
    observer = options.pop("observer", None)
    # Each new secret costs Airflow more than the one before; a task starts with none.
    _secrets_masker().reset_masker()
    with running(SandboxOptions(**{**FAST, "sellers": 3, **options}), observer=observer) as sandbox:
        yield AirflowEnv(folder, sandbox, patch)
