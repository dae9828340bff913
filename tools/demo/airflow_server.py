"""Airflow as a person uses it: its server, scheduler and REST API."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import requests

from demo.programs import BIN, Programs, http

STARTED_WITHIN_S = 240.0
RUN_WITHIN_S = 900.0  # a busy machine is ten times slower
DAGS = (
    "feedamp_place_orders",
    "feedamp_extract_fulfillments",
    "feedamp_process_fulfillments",
    "feedamp_reconcile_orders",
    "feedamp_refresh_tokens",
)


class AirflowServer:
    """A running Airflow; `tick` is called while waiting, so that a person sees progress."""

    def __init__(self, programs: Programs, home: Path, port: int, tick: Callable[[str], None]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.user = "admin"
        self.password = secrets.token_urlsafe(9)
        self._programs = programs
        self._home = home
        self._tick = tick
        self._token = ""

    def start(self, *more: str) -> None:
        """Starts API server, scheduler, DAG processor and `more`, and waits until the five DAGs are there."""
        airflow = str(BIN / "airflow")
        # Airflow keeps a password that is there, so that it can be told before Airflow is up.
        passwords = self._home / "simple_auth_manager_passwords.json.generated"
        passwords.touch(0o600)
        passwords.write_text(json.dumps({self.user: self.password}))
        self._programs.run(airflow, "db", "migrate")
        for name in ("api-server", "scheduler", "dag-processor", *more):
            self.start_program(name)
        self._wait("Airflow is starting", self._log_in, STARTED_WITHIN_S)
        self._wait("Airflow reads the DAGs", self._has_all_dags, STARTED_WITHIN_S)

    def start_program(self, name: str, env: Mapping[str, str] | None = None) -> None:
        """Starts one of Airflow's programs, `env` on top of what all of them get."""
        # A log server listens on every address of the machine. It is not needed: the API server finds the files of all logs.
        more = ["--skip-serve-logs"] if name in ("scheduler", "triggerer") else []
        self._programs.start(name, str(BIN / "airflow"), name, *more, env=env)

    def add_connection(
        self, sandbox: dict[str, str], extra: dict[str, Any], conn_id: str = "feedamp_default"
    ) -> None:
        """Saves a FeedAMP connection, as the form in the UI does."""
        self._api(
            "POST",
            "connections",
            {
                "connection_id": conn_id,
                "conn_type": "feedamp",
                "host": sandbox["api"],
                "port": 0,  # the form sends 0, and its Test button refuses another port than the saved one
                "login": sandbox["client_id"],
                "password": sandbox["client_secret"],
                "extra": json.dumps(extra),
            },
        )

    def unpause(self) -> None:
        """Lets the scheduler run the DAGs."""
        for dag in DAGS:
            self._api("PATCH", f"dags/{dag}", {"is_paused": False})

    def run(self, dag: str, conf: dict[str, Any] | None = None) -> str:
        """Starts a DAG, waits for its end, returns `success` or `failed`."""
        started = self._api("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return self._end_of(dag, started["dag_run_id"])

    def has_rung(self, dag: str, moment: str) -> bool:
        """Whether the asset of a DAG has had an event since a moment: without changes or work, it has none."""
        found = self._api("GET", f"assets/events?source_dag_id={dag}&order_by=-timestamp&limit=1")
        return any(event["timestamp"] >= moment for event in found["asset_events"])

    def run_started_after(self, dag: str, moment: str) -> str:
        """Waits for a run that an asset started after a moment; returns its end."""
        found: list[str] = []

        def look() -> bool:
            query = "run_type=asset_triggered&order_by=-run_after&limit=10"
            runs = self._api("GET", f"dags/{dag}/dagRuns?{query}")["dag_runs"]
            found[:] = [run["dag_run_id"] for run in runs if run["queued_at"] and run["queued_at"] >= moment]
            return bool(found)

        self._wait(f"{dag} waits for the extraction to start it", look, RUN_WITHIN_S)
        return self._end_of(dag, found[-1])

    def backfill(
        self, days: Sequence[date], conf: dict[str, Any], dag: str = "feedamp_reconcile_orders"
    ) -> list[str]:
        """Runs every day of a range, as the form in the UI does; returns how each ended."""
        body = {
            "dag_id": dag,
            "from_date": f"{days[0]}T00:00:00Z",
            "to_date": f"{days[-1]}T00:00:00Z",
            "reprocess_behavior": "completed",
            "max_active_runs": len(days),
            "run_backwards": False,
            "dag_run_conf": conf,
        }
        self._api("POST", "backfills", body)
        query = "run_type=backfill&order_by=-logical_date&limit=100"
        states: list[str] = []

        def look() -> bool:
            runs = self._api("GET", f"dags/{dag}/dagRuns?{query}")["dag_runs"]
            by_day = {run["logical_date"][:10]: run["state"] for run in runs}
            states[:] = [by_day.get(str(day), "missing") for day in days]
            return set(states) <= {"success", "failed"}

        self._wait(f"{dag} runs {len(days)} days", look, RUN_WITHIN_S + 20 * len(days))
        return states

    def states(self, dag: str) -> list[str]:
        """States of the DAG's runs, newest first."""
        runs = self._api("GET", f"dags/{dag}/dagRuns?order_by=-run_after&limit=50")["dag_runs"]
        return [run["state"] for run in runs]

    def _end_of(self, dag: str, run_id: str) -> str:
        state: list[str] = [""]

        def look() -> bool:
            state[0] = self._api("GET", f"dags/{dag}/dagRuns/{run_id}")["state"]
            return state[0] in ("success", "failed")

        self._wait(f"{dag} runs", look, RUN_WITHIN_S)
        return state[0]

    def _log_in(self) -> bool:
        try:
            answer = http(
                "POST", f"{self.url}/auth/token", {"username": self.user, "password": self.password}
            )
        except requests.RequestException:
            return False
        self._token = answer["access_token"]
        return True

    def _has_all_dags(self) -> bool:
        errors = self._api("GET", "importErrors")["import_errors"]
        if errors:
            raise SystemExit(f"a DAG cannot be imported: {errors[0]['stack_trace']}")
        return {dag["dag_id"] for dag in self._api("GET", "dags")["dags"]} >= set(DAGS)

    def _api(self, method: str, path: str, body: Any = None) -> Any:
        for _ in range(5):
            try:
                return http(method, f"{self.url}/api/v2/{path}", body, self._token)
            except requests.HTTPError as error:
                # Its SQLite file is locked for a moment when many tasks run: nothing has happened.
                if error.response.status_code != 500:
                    raise
                time.sleep(1.0)
        return http(method, f"{self.url}/api/v2/{path}", body, self._token)

    def _wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        give_up_at = time.monotonic() + seconds
        while not done():
            self._programs.check()
            if time.monotonic() >= give_up_at:
                raise SystemExit(
                    f"{what}: not done after {seconds:.0f} s; the logs are in {self._home.parent / 'logs'}"
                )
            self._tick(what)
            time.sleep(0.5)
