"""A real Airflow for the whole session: API server, scheduler and DAG processor as plain processes, and a FeedAMP."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from cryptography.fernet import Fernet

from demo import postgres
from demo.airflow_server import AirflowServer
from demo.programs import Programs, environment, free_port, session_members
from feedamp.state import State, grants, sellers
from feedamp.state.data_key import open_cipher
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)
from feedamp_sandbox.options import Behaviors

CONN_ID = "feedamp_default"
YEARLY = "0 0 1 1 *"  # once, when a DAG is unpaused, and not again
# Airflow imports it when a program starts. Tasks are forks of the scheduler and import what they need, for more than a second
# each, unless it has done so before its first fork, when all of Airflow is there. With LATE_IMPORTS in its environment it goes
# on as Airflow does by itself.
LATE_IMPORTS = "TESTS_IMPORT_LATE"
IMPORTED_BEFORE_TASKS = f"""
import functools, os, sys

@functools.cache
def import_all():
    import importlib, pkgutil
    import aiohttp, duckdb, jinja2.ext, pandas, pyarrow.dataset, pyarrow.parquet
    import feedamp

    for module in pkgutil.walk_packages(feedamp.__path__, "feedamp."):
        importlib.import_module(module.name)
    for name in ("tasks", "dag_settings", "bundle", "telling", "lineage"):
        importlib.import_module("feedamp_airflow." + name)

if sys.argv[1:2] == ["scheduler"] and "{LATE_IMPORTS}" not in os.environ:
    os.register_at_fork(before=import_all)
"""


@dataclass
class Installation:
    """A running Airflow that knows its secrets, the sandbox it works against, and the results below `folder`."""

    airflow: AirflowServer
    programs: Programs
    sandbox: Sandbox
    home: Path
    folder: Path
    metadata_url: str = field(repr=False)
    encryption_key: str = field(repr=False)
    urls: list[str] = field(default_factory=list, repr=False)  # each that is requested of the sandbox

    def connect(self, seller_ids: Sequence[str], *, conn_id: str = CONN_ID) -> None:
        """Sellers of the sandbox with the grant that works now."""
        url = f"sqlite:///{self.folder / 'state.db'}"
        connect_sellers(url, self.encryption_key, self.sandbox, seller_ids, conn_id)

    def add_connection(self, conn_id: str, *, secret: str = "", **extra: Any) -> None:
        """Saves a connection to the sandbox."""
        sandbox = self.sandbox
        address = {"api": sandbox.api, "client_id": sandbox.client_id}
        self.airflow.add_connection(
            address | {"client_secret": secret or sandbox.client_secret}, extra, conn_id
        )

    def move(self) -> None:
        """Starts the scheduler again with state, inbox, lake and warehouse in `folder`; tasks import what they need."""
        places = {
            "state_url": f"sqlite:///{self.folder / 'state.db'}",
            "inbox_url": str(self.folder / "inbox"),
            "lake_url": str(self.folder / "lake"),
            "duckdb_path": str(self.folder / "warehouse.duckdb"),
            "pii": "keep",
        }
        self.programs.stop("scheduler")
        self.airflow.start_program("scheduler", feedamp_env(places) | {LATE_IMPORTS: "yes"})

    def drop(self, name: str, rows: list[dict[str, Any]]) -> None:
        """An inbox file of good orders, old enough to count as settled."""
        path = self.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row, default=float) + "\n" for row in rows))
        os.utime(path, (0, 0))

    def pause(self, *dag_ids: str) -> None:
        """Keeps the scheduler from starting DAGs."""
        for dag_id in dag_ids:
            self.api("PATCH", f"dags/{dag_id}", {"is_paused": True})

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
        """The same, once there are `count` of them and all have ended."""
        query = "SELECT state FROM dag_run WHERE dag_id = %s AND run_type = %s"
        self.look_until(lambda states: have_ended(states, count), query, dag_id, run_type)
        return self.runs(dag_id, run_type)

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 300.0) -> None:
        """Waits until a condition holds; generous, because the machine may be busy."""
        self.airflow._wait(what, done, seconds)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the warehouse, once no task has it open."""
        path = self.folder / "warehouse.duckdb"
        give_up_at = time.monotonic() + 60.0
        while True:
            try:
                with closing(duckdb.connect(str(path), read_only=True)) as warehouse:
                    return warehouse.execute(sql, list(values)).fetchall()
            except duckdb.IOException:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.2)

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> tuple[str, str]:
        """Starts a run by hand; returns the ids of its DAG and itself."""
        started = self.api("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return dag_id, started["dag_run_id"]

    def end_of(self, dag_id: str, run_id: str) -> str:
        """How a run ended."""
        query = "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s"
        [state] = self.look_until(have_ended, query, dag_id, run_id)
        return state

    def run(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Starts a run by hand, waits for its end, returns how it ended."""
        return self.end_of(*self.trigger(dag_id, conf))

    def wait_for_task(self, dag_id: str, run_id: str, task_id: str, states: Collection[str]) -> None:
        """Returns within a moment after a task of a run has come into one of these states."""
        query = "SELECT state FROM task_instance WHERE dag_id = %s AND run_id = %s AND task_id = %s"
        self.look_until(
            lambda found: not set(states).isdisjoint(found), query, dag_id, run_id, task_id, every_s=0.02
        )

    def look_until(
        self, done: Callable[[list[str]], bool], query: str, *values: Any, every_s: float = 0.1
    ) -> list[str]:
        """The first column of a query of Airflow's own database, once it is as wanted; its API takes a hundred times as long."""
        with closing(psycopg.connect(self.metadata_url, autocommit=True)) as database:
            give_up_at = time.monotonic() + 300.0  # generous, because the machine may be busy
            while not done(found := [row[0] for row in database.execute(query, values).fetchall()]):
                self.programs.check()
                assert time.monotonic() < give_up_at, f"{query} {values} finds {found}"
                time.sleep(every_s)
        return found

    def wait_for_work(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Returns when Airflow has prepared a task, and only its own code is still to run."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        give_up_at = time.monotonic() + 60.0
        while not any("::endgroup::" in log.read_text() for log in folder.rglob("attempt=1.log")):
            assert time.monotonic() < give_up_at, f"{dag_id} {task_id} is not prepared"
            time.sleep(0.02)

    @contextmanager
    def state_locked(self) -> Iterator[None]:
        """Nothing can be written to the state in the meantime."""
        with closing(sqlite3.connect(self.folder / "state.db", isolation_level=None)) as state:
            state.execute("BEGIN IMMEDIATE")
            yield

    def kill(self, name: str) -> None:
        """Ends a program and all its children as `kill -9` does."""
        [process] = [process for its_name, process in self.programs._running if its_name == name]
        for pid in session_members(process.pid):
            os.kill(pid, signal.SIGKILL)
        self.programs.stop(name)

    def start(self, name: str) -> None:
        """Starts a program that was ended."""
        self.airflow.start_program(name)
        self.wait("it starts again", self.airflow._log_in)

    def processes(self) -> list[int]:
        """Every process except this one that holds a file of this installation open, regardless of its parent."""
        return [pid for pid in other_processes() if holds_a_file_of(pid, str(self.home.parent))]

    def addresses(self) -> set[str]:
        """The hexadecimal addresses at which its processes take connections."""
        opened: set[str] = set()
        for pid in self.processes():
            with suppress(OSError):  # it has ended
                opened |= {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
        rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
        is_open = (row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in opened)
        return {row[1].rpartition(":")[0] for row in is_open}


def have_ended(states: list[str], count: int = 1) -> bool:
    """Whether there are so many runs, and all in these states have ended."""
    return len(states) >= count and {"success", "failed"}.issuperset(states)


def other_processes() -> list[int]:
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in found if pid != os.getpid()]


def holds_a_file_of(pid: int, folder: str) -> bool:
    try:
        return any(str(entry.readlink()).startswith(folder) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False  # it has ended, or belongs to another user


def feedamp_env(options: Mapping[str, str]) -> dict[str, str]:
    """`[feedamp]` options as the environment gives them."""
    return {f"AIRFLOW__FEEDAMP__{name.upper()}": value for name, value in options.items()}


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The one installation of all modules, because starting one is slow, with `pii = mask`; `move` changes that.

    Its metadata are on Postgres: on SQLite, parallel runs of a backfill lock each other out, and one that is cancelled
    ends the scheduler.
    """
    key, urls = Fernet.generate_key().decode(), list[str]()
    behaviors: Behaviors = (("ship_whole", 6), ("mistype", 4))
    options = SandboxOptions(sellers=16, requests_per_second=200.0, burst=200, behaviors=behaviors)
    schedules = {f"{name}_schedule": YEARLY for name in ("place", "extract", "process", "refresh")}
    feedamp = {"pii": "mask", "encryption_key": key, "extra_order_fields": "location"}
    folder = tmp_path_factory.mktemp("guarded")
    home, data = folder / "airflow", folder / "postgres"
    (home / "config").mkdir(parents=True)
    (home / "config" / "airflow_local_settings.py").write_text(IMPORTED_BEFORE_TASKS)
    port = free_port()
    env = {
        **environment(home, port),
        **feedamp_env(schedules | feedamp),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",  # no DAG file changes while it runs
    }
    with (
        running(options, observer=lambda exchange: urls.append(exchange.url)) as sandbox,
        Programs(folder / "logs", {"PATH": env["PATH"]}) as programs,
    ):
        url = postgres.start(programs, data)
        programs.add_to_environment({**env, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url})
        airflow = AirflowServer(programs, home, port, lambda what: None)
        airflow.start()
        metadata_url = url.replace("+psycopg2", "")
        opened = Installation(airflow, programs, sandbox, home, home / "feedamp", metadata_url, key, urls)
        opened.add_connection(CONN_ID, requests_per_second=100)
        yield opened
    postgres.remove(data)


def connect_sellers(
    url: str, keys: str, sandbox: Sandbox, seller_ids: Sequence[str], conn_id: str = CONN_ID
) -> None:
    state = State(url)
    cipher = open_cipher(state, keys)
    with state.begin() as connection:
        for seller_id in seller_ids:
            now, token = state.now(), sandbox.refresh_token(seller_id)
            sellers.add(connection, seller_id, conn_id=conn_id, now=now)
            grants.put_grant(connection, cipher, seller_id, conn_id, token, now=now)
    state.close()
