"""A real Airflow for the whole session: API server, scheduler and DAG processor as plain processes, and a FeedAMP."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from demo.airflow_server import AirflowServer
from demo.programs import Programs, environment, free_port
from feedamp.sandbox import Sandbox, SandboxOptions, running
from feedamp.state import State, grants, sellers
from feedamp.vault import Vault, key_beside

CONN_ID = "feedamp_default"
YEARLY = "0 0 1 1 *"  # once, when a DAG is unpaused, and not again


@dataclass
class Installation:
    """A running Airflow, the sandbox it works against, and what came of it."""

    airflow: AirflowServer
    programs: Programs
    sandbox: Sandbox
    home: Path

    def drop(self, name: str, rows: list[dict[str, Any]]) -> None:
        """An inbox file of good orders; so old that nobody waits for it to settle."""
        path = self.home / "feedamp" / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.utime(path, (0, 0))

    def unpause(self, *dag_ids: str) -> None:
        """Lets the scheduler start DAGs; one with a schedule then runs at once for the last moment that has passed."""
        for dag_id in dag_ids:
            self.api("PATCH", f"dags/{dag_id}", {"is_paused": False})

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Airflow's REST API, by its administrator."""
        return self.airflow._api(method, path, body)

    def runs(self, dag_id: str, run_type: str) -> list[dict[str, Any]]:
        """The runs of a DAG of one type, oldest logical date first."""
        found = self.api("GET", f"dags/{dag_id}/dagRuns?run_type={run_type}&limit=50")["dag_runs"]
        return sorted(found, key=lambda run: run["logical_date"] or run["run_after"])

    def ended(self, dag_id: str, run_type: str, count: int = 1) -> list[dict[str, Any]]:
        """The same, once there are so many and all have ended."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = self.runs(dag_id, run_type)
            return len(found) >= count and all(run["state"] in ("success", "failed") for run in found)

        self.airflow._wait(f"{dag_id} runs", look, 150.0)
        return found

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the warehouse."""
        path = self.home / "feedamp" / "warehouse.duckdb"
        with closing(duckdb.connect(str(path), read_only=True)) as warehouse:
            return warehouse.execute(sql, list(values)).fetchall()

    def processes(self) -> list[int]:
        """Every process but ours that holds a file of this installation open, whoever its parent is."""
        return [pid for pid in other_processes() if holds_a_file_of(pid, str(self.home.parent))]


def other_processes() -> list[int]:
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in found if pid != os.getpid()]


def holds_a_file_of(pid: int, folder: str) -> bool:
    try:
        return any(str(entry.readlink()).startswith(folder) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False  # gone meanwhile, or not ours


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("e2e") / "airflow"
    home.mkdir()
    port = free_port()
    env = environment(home, port) | {
        f"AIRFLOW__FEEDAMP__{name}_SCHEDULE": YEARLY for name in ("PLACE", "EXTRACT", "REFRESH")
    }
    behaviors = (("ship_whole", 8), ("cancel_all", 2))
    options = SandboxOptions(sellers=4, requests_per_second=200.0, burst=200, behaviors=behaviors)
    with running(options) as sandbox, Programs(home.parent / "logs", env) as programs:
        airflow = AirflowServer(programs, home, port, lambda what: None)
        airflow.start()
        address = {
            "api": sandbox.api,
            "client_id": sandbox.client_id,
            "client_secret": sandbox.client_secret,
        }
        airflow.add_connection(address, {"requests_per_second": 100})
        connect_sellers(home, sandbox)
        yield Installation(airflow, programs, sandbox, home)


def connect_sellers(home: Path, sandbox: Sandbox) -> None:
    """Every seller of the sandbox with a grant, in the state where the programs find it."""
    file = home / "feedamp" / "state.db"
    state, vault = State(f"sqlite:///{file}"), Vault(key_beside(str(file)))
    with state.begin() as connection:
        for seller in sandbox.sellers:
            seller_id, now = seller["seller_id"], state.now()
            sellers.add(connection, seller_id, conn_id=CONN_ID, now=now)
            grants.put_grant(connection, vault, seller_id, CONN_ID, seller["refresh_token"], now=now)
    state.close()
