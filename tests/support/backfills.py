"""Backfills of the reconciliation against a running Airflow, started by the calls that the UI's form makes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import requests
from order_samples import example_order

from demo.programs import BIN

RECONCILE = "feedamp_reconcile_orders"
SPRING = ["2026-03-07", "2026-03-08", "2026-03-09"]  # New York's clocks go forward on the 8th
AUTUMN = ["2025-11-01", "2025-11-02", "2025-11-03"]  # and back on the 2nd
NOBODY_BOUGHT = ["2026-01-10"]
EDGES = ("00:00:00", "23:59:59")  # of a day in UTC; both are another day in New York


def order_rows(sellers: list[str], lonely: str) -> Iterator[dict[str, Any]]:
    """Two orders at the first and last moment of each day, one on either side of the range, and one day only for `lonely`."""
    moments = [f"{day}T{clock}Z" for day in (*SPRING, *AUTUMN) for clock in EDGES]
    for n, moment in enumerate([*moments, "2026-03-06T23:59:59Z", "2026-03-10T00:00:00Z"]):
        number = f"B-{moment[:10]}-{moment[11:13]}"
        seller_id = lonely if moment.startswith(AUTUMN[1]) else sellers[n % len(sellers)]
        yield {"seller_id": seller_id, "order": example_order(number, purchase_date=moment)}


class Backfills:
    """The shared Airflow with the orders of these tests placed."""

    def __init__(self, guarded: Any, placed: list[dict[str, Any]], lonely: str) -> None:
        self.guarded, self.placed, self.lonely = guarded, placed, lonely

    def backfill(self, days: list[str], *, dry_run: bool = False, **options: Any) -> Any:
        """What the form sends; from the first to the last day, both included."""
        body = {
            "dag_id": RECONCILE,
            "from_date": f"{days[0]}T00:00:00Z",
            "to_date": f"{days[-1]}T00:00:00Z",
            "run_backwards": False,
            "dag_run_conf": {},
            "reprocess_behavior": "none",
            "max_active_runs": 3,
            **options,
        }
        if dry_run:
            return self.guarded.api("POST", "backfills/dry_run", body)
        return self._once_not_locked(lambda: self.guarded.api("POST", "backfills", body))

    def backfill_by_command_line(self, days: list[str], *options: str) -> None:
        command = [str(BIN / "airflow"), "backfill", "create", "--dag-id", RECONCILE]
        command += ["--from-date", days[0], "--to-date", days[-1], *options]
        self._once_not_locked(lambda: self.guarded.programs.run(*command))

    def _once_not_locked(self, create: Callable[[], Any]) -> Any:
        """Airflow's own SQLite file may be locked by its scheduler, and the half-made backfill is in the way of the next."""
        for _ in range(5):
            try:
                return create()
            except (requests.HTTPError, SystemExit) as error:
                if not says_locked(error):
                    raise
                self.finish()
                time.sleep(1.0)
        raise AssertionError("Airflow's database is locked permanently")

    def unfinished(self) -> list[int]:
        found = self.guarded.api("GET", f"backfills?dag_id={RECONCILE}")["backfills"]
        return [backfill["id"] for backfill in found if backfill["completed_at"] is None]

    def runs(self, days: list[str]) -> dict[str, dict[str, Any]]:
        """The runs of the backfill of these days by day, once all have ended."""
        query = """SELECT state FROM dag_run WHERE dag_id = %s AND run_type = 'backfill'
                   AND to_char(logical_date AT TIME ZONE 'UTC', 'YYYY-MM-DD') = ANY(%s)"""

        def have_ended(states: list[str]) -> bool:
            return len(states) == len(days) and {"success", "failed"}.issuperset(states)

        self.guarded.look_until(have_ended, query, RECONCILE, days)
        self.finish()
        return self.seen(days)

    def finish(self) -> None:
        """The scheduler notices only every half minute that a backfill is done; nothing is left to cancel by now."""
        for backfill in self.unfinished():
            try:
                self.guarded.api("PUT", f"backfills/{backfill}/cancel")
            except requests.HTTPError as error:
                if error.response.status_code not in (404, 409):  # it is gone, or has just been noticed
                    raise

    def seen(self, days: list[str]) -> dict[str, dict[str, Any]]:
        found = {run["logical_date"][:10]: run for run in self.guarded.runs(RECONCILE, "backfill")}
        return {day: found[day] for day in days}

    def interval(self, run: dict[str, Any]) -> tuple[str, str]:
        return run["data_interval_start"], run["data_interval_end"]

    def compared(self, run: dict[str, Any]) -> int:
        """Orders that the last try of a run compared."""
        [summary] = self.summaries(run) or [{"orders": 0}]
        return int(summary["orders"])

    def summaries(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        where = f"dags/{RECONCILE}/dagRuns/{run['dag_run_id']}/taskInstances"
        shards = self.guarded.api("GET", f"{where}/reconcile/listMapped")["task_instances"]
        values = [
            self.guarded.api("GET", f"{where}/reconcile/xcomEntries/return_value?map_index={ti['map_index']}")
            for ti in shards
            if ti["map_index"] >= 0
        ]
        found = [value["value"] for value in values]
        return [value if isinstance(value, dict) else json.loads(value) for value in found]

    def differences(self) -> list[tuple[Any, ...]]:
        """Every row of `reconciliations` less its run, by order number, which names the day."""
        sql = """SELECT mp_order_number, field, ledger_value, feedamp_value, warehouse_value, repaired_at
                 FROM feedamp.reconciliations WHERE mp_order_number LIKE 'B-%' ORDER BY ALL"""
        return self.guarded.query(sql)

    def forget_differences(self, days: list[str]) -> None:
        path = self.guarded.home / "feedamp" / "warehouse.duckdb"
        with closing(duckdb.connect(str(path))) as warehouse:
            for day in days:
                sql = "DELETE FROM feedamp.reconciliations WHERE mp_order_number LIKE ?"
                warehouse.execute(sql, [f"B-{day}-%"])

    def task_logs(self) -> str:
        files = (self.guarded.home / "logs" / f"dag_id={RECONCILE}").rglob("*.log")
        return "".join(file.read_text(errors="replace") for file in files)


def says_locked(error: requests.HTTPError | SystemExit) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code == 503
    log = Path(str(error).rpartition("see ")[2])
    return "database is locked" in log.read_text()


def at_once(runs: dict[str, dict[str, Any]]) -> int:
    """The most runs that were under way at one moment."""
    moments = [(run["start_date"], 1) for run in runs.values()] + [
        (run["end_date"], -1) for run in runs.values()
    ]
    count = most = 0
    for _, step in sorted(moments):
        count += step
        most = max(most, count)
    return most
