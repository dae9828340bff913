"""What a day of a backfill costs, measured through Airflow's scheduler.

python benchmarks/backfill.py                        365 days over 50 sellers; ten of them have an order of each seller
python benchmarks/backfill.py --days N --filled N    others
python benchmarks/backfill.py --beside               also what it does to the live DAGs, with 30 days

Starts Postgres, Airflow and the FeedAMP sandbox as `make demo` does, in a temporary folder and on free ports, and backfills
by the REST API: the days, then as many days (40 at most) of a DAG with three tasks that do nothing, so that Airflow's
own share is known. Seconds of CPU, which other work on the machine changes less than the time: of each task, from the
fork of its process to its end, and of each program with all its children. Exit 1 when a day was not green.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from demo import orders, postgres
from demo.airflow_server import AirflowServer
from demo.programs import BIN, REPOSITORY, Programs, environment, free_port

RECONCILE, PEER = "feedamp_reconcile_orders", "three_empty_tasks"
LIVE = ("feedamp_place_orders", "feedamp_extract_fulfillments", "feedamp_process_fulfillments")
TASKS = "tasks.jsonl"
SELLERS, RATE = 50, 20
PEER_DAYS, BESIDE_DAYS, ACTIVE, LIVE_ROUNDS = 40, 30, 4, 3
PEER_DAG = f"""
from datetime import UTC, datetime
from airflow.sdk import DAG, task
from airflow.timetables.interval import CronDataIntervalTimetable

def nothing():
    pass

with DAG("{PEER}", schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
         start_date=datetime(2010, 1, 1, tzinfo=UTC), catchup=False):
    plan, load, gate = (task(nothing, task_id=name)() for name in ("plan", "load", "gate"))
    plan >> load >> gate
"""
# Runs at the end of a task, in its process.
LISTENER = """
import json, os, resource, sys
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

class Measure:
    @hookimpl
    def on_task_instance_success(self, previous_state, task_instance):
        used = resource.getrusage(resource.RUSAGE_SELF)
        row = {"dag": task_instance.dag_id, "task": task_instance.task_id, "run": task_instance.run_id,
               "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024,
               "imported": [name for name in ("pyarrow", "duckdb", "pandas", "aiohttp") if name in sys.modules]}
        with open(os.path.join(os.environ["AIRFLOW_HOME"], "tasks.jsonl"), "a") as file:
            file.write(json.dumps(row) + "\\n")

class MeasurePlugin(AirflowPlugin):
    name = "measure"
    listeners = [Measure()]
"""


class Backfills(AirflowServer):
    """An Airflow whose backfills are measured."""

    def pause(self, *dags: str, paused: bool = True) -> None:
        for dag in dags:
            self._api("PATCH", f"dags/{dag}", {"is_paused": paused})

    def start_backfill(self, dag: str, first: date, last: date, active: int) -> None:
        """Every day from `first` to `last`, both included."""
        body = {
            "dag_id": dag,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T00:00:00Z",
            "reprocess_behavior": "completed",
            "max_active_runs": active,
            "run_backwards": False,
            "dag_run_conf": {},
        }
        self._api("POST", "backfills", body)

    def count(self, dag: str, *states: str, kind: str = "backfill") -> int:
        """How many runs of a kind are in one of these states."""
        query = "&".join([f"run_type={kind}", "limit=1", *(f"state={state}" for state in states)])
        return int(self._api("GET", f"dags/{dag}/dagRuns?{query}")["total_entries"])

    def wait_for(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        self._wait(what, done, seconds)

    def queued_s(self, dag: str, run_id: str) -> list[float]:
        """How long each task of a run waited from the moment at which it could start until it ran."""
        found = self._api("GET", f"dags/{dag}/dagRuns/{run_id}/taskInstances")["task_instances"]
        moments = [(ti["scheduled_when"], ti["start_date"]) for ti in found if ti["start_date"]]
        return [
            (datetime.fromisoformat(start) - datetime.fromisoformat(due)).total_seconds()
            for due, start in moments
            if due
        ]

    def trigger(self, dag: str) -> str:
        return str(self._api("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": {}})["dag_run_id"])

    def end_of(self, dag: str, run_id: str) -> str:
        return self._end_of(dag, run_id)


@contextmanager
def started(home: Path) -> Iterator[tuple[Programs, Backfills, dict[str, str]]]:
    """Airflow with metadata on Postgres, the DAGs of this package and the peer, and a sandbox."""
    (home / "feedamp" / "inbox").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "dags", home / "dags")
    (home / "dags" / "peer.py").write_text(PEER_DAG)
    (home / "plugins").mkdir()
    (home / "plugins" / "measure.py").write_text(LISTENER)
    port = free_port()
    try:
        with Programs(home.parent / "logs", {}) as programs:
            programs.add_to_environment(environment(home, port))
            programs.add_to_environment(
                {
                    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.start(programs, home.parent / "postgres"),
                    "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
                    "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
                    # Without bytecode, as some images have it, each task compiles every module that it imports.
                    "PYTHONDONTWRITEBYTECODE": "",
                    "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
                }
            )
            sandbox = programs.start_sandbox("--sellers", str(SELLERS), "--requests-per-second", str(RATE))
            airflow = Backfills(programs, home, port, lambda what: None)
            airflow.start()
            airflow.add_connection(sandbox, {"requests_per_second": RATE})
            yield programs, airflow, sandbox
    finally:
        postgres.remove(home.parent / "postgres")


def deliver(home: Path, days: list[date], prefix: str) -> int:
    """One order of each seller on each of the days, into the inbox."""
    rows = []
    for n in range(1, SELLERS + 1):
        made = orders.make_orders(
            [f"seller-{n:03d}"], len(days), now=datetime.now(UTC), prefix=f"{prefix}{n}-"
        )
        for row, day in zip(made, days, strict=True):
            row["order"] |= {
                "purchase_date": f"{day}T12:00:00Z",
                "latest_ship_date": f"{day + timedelta(days=3)}T12:00:00Z",
            }
            rows.append(row)
    orders.write_jsonl(home / "feedamp" / "inbox" / f"{prefix}.jsonl", rows)
    return len(rows)


def measured(
    programs: Programs, airflow: Backfills, home: Path, dag: str, first: date, last: date, filled: set[str]
) -> bool:
    """Backfills the days and prints what they cost; whether all are green."""
    count = (last - first).days + 1
    already = (home / TASKS).read_text().count("\n") if (home / TASKS).exists() else 0
    before, began = programs.cpu_seconds(), time.monotonic()
    airflow.start_backfill(dag, first, last, ACTIVE)
    airflow.wait_for(
        f"{dag} runs {count} days", lambda: airflow.count(dag, "success", "failed") >= count, 300 + 60 * count
    )
    wall_s, after = time.monotonic() - began, programs.cpu_seconds()
    rows = [json.loads(line) for line in (home / TASKS).read_text().splitlines()[already:]]
    rows = [row for row in rows if row["dag"] == dag]
    print(f"\n{dag}, {count} days, {ACTIVE} at a time: {wall_s:.0f} s, {wall_s / count:.2f} s a day")
    per_program = {name: (after[name] - before[name]) / count for name in after}
    total = sum(per_program.values())
    print(f"  CPU seconds a day, by program: {_named(per_program)}; together {total:.2f}")
    of_tasks = sum(row["cpu_s"] for row in rows) / count
    print(f"  of those, in the tasks' own processes: {of_tasks:.2f}")
    by_task: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        # A run is named after the end of its day.
        day = str(datetime.fromisoformat(row["run"].partition("__")[2]).date() - timedelta(days=1))
        by_task["with orders" if day in filled else "empty", row["task"]].append(row)
    for (kind, task), of_task in sorted(by_task.items()):
        cpu = [row["cpu_s"] for row in of_task]
        imported = sorted({name for row in of_task for name in row["imported"]})
        peak = max(row["peak_mb"] for row in of_task)
        print(
            f"  {kind:11} {task:9} {len(cpu):4} tasks, median {median(cpu):.2f} CPU s, most {max(cpu):.2f}, "
            f"{peak:.0f} MB; imported {', '.join(imported) or 'none of the large libraries'}"
        )
    sys.stdout.flush()
    return airflow.count(dag, "success") == count


def _named(figures: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.2f}" for name, value in sorted(figures.items(), key=lambda one: -one[1])
    )


def live_rounds(airflow: Backfills, home: Path, prefix: str) -> tuple[list[float], list[float]]:
    """Rounds of the live DAGs with a new order of each seller: seconds of each round, and seconds each task waited."""
    rounds_s, waited_s = [], []
    for n in range(LIVE_ROUNDS):
        deliver(home, [datetime.now(UTC).date() - timedelta(days=1)], f"{prefix}{n}")
        time.sleep(2)
        began = time.monotonic()
        for dag in LIVE:
            run_id = airflow.trigger(dag)
            if airflow.end_of(dag, run_id) != "success":
                raise SystemExit(f"{dag} {run_id} is red")
            waited_s += airflow.queued_s(dag, run_id)
        rounds_s.append(time.monotonic() - began)
    return rounds_s, waited_s


def beside(airflow: Backfills, home: Path, first: date) -> bool:
    """The live DAGs alone, then beside a backfill with one day more at a time than there are slots."""
    airflow.pause(*LIVE, paused=False)
    live_rounds(airflow, home, "W")  # the DAGs' own scheduled runs, which unpausing starts
    alone = live_rounds(airflow, home, "A")
    last = first + timedelta(days=BESIDE_DAYS - 1)
    done = airflow.count(RECONCILE, "success", "failed")
    airflow.start_backfill(RECONCILE, first, last, ACTIVE + 1)
    airflow.wait_for("the backfill runs", lambda: airflow.count(RECONCILE, "running") > ACTIVE, 120)
    together = live_rounds(airflow, home, "B")
    is_beside = airflow.count(RECONCILE, "queued", "running") > 0
    airflow.wait_for(
        "the rest of the backfill",
        lambda: airflow.count(RECONCILE, "success", "failed") >= done + BESIDE_DAYS,
        1800,
    )
    print(
        f"\nThe live DAGs, {LIVE_ROUNDS} rounds, {ACTIVE} slots; {BESIDE_DAYS} days, {ACTIVE + 1} at a time, beside them"
    )
    for name, (rounds_s, waited_s) in {"alone": alone, "beside a backfill": together}.items():
        print(
            f"  {name}: a round takes {median(rounds_s):.1f} s; a task waits {median(waited_s):.2f} s, "
            f"{max(waited_s):.2f} s at most"
        )
    if not is_beside:
        print("  The backfill had ended before the last round.")
    return airflow.count(RECONCILE, "failed") == 0


def main() -> int:
    """0 when every day was green, 1 when not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--filled", type=int, default=10, help="days with an order of each seller")
    parser.add_argument("--beside", action="store_true", help="also measure the live DAGs beside a backfill")
    parser.add_argument(
        "--folder", help="an empty folder to keep what was written, instead of a temporary one"
    )
    args = parser.parse_args()
    last = datetime.now(UTC).date() - timedelta(days=30)
    first = last - timedelta(days=args.days - 1)
    step = max(1, args.days // max(1, args.filled))
    filled = [first + timedelta(days=step * n) for n in range(args.filled)]
    before = first - timedelta(days=BESIDE_DAYS)
    more = [before + timedelta(days=n) for n in range(BESIDE_DAYS)] if args.beside else []
    with TemporaryDirectory(prefix="feedamp-backfill-") as name:
        home = Path(args.folder or name) / "airflow"
        with started(home) as (programs, airflow, sandbox):
            programs.run(str(BIN / "feedamp"), "sellers", "import", sandbox["sellers_file"])
            delivered = deliver(home, filled + more, "D")
            airflow.pause(*LIVE[:2], RECONCILE, PEER, paused=False)
            time.sleep(2)
            for dag in (*LIVE[:2], RECONCILE):  # the last brings what the two have written into the warehouse
                if airflow.run(dag) != "success":
                    raise SystemExit(f"{dag} is red; with --folder its logs are in {home / 'logs'}")
            airflow.pause(*LIVE[:2])
            own = {
                dag: airflow.count(dag, "queued", "running", kind="scheduled") for dag in (RECONCILE, PEER)
            }
            airflow.wait_for("scheduled runs", lambda: not _running(airflow), 300)
            print(f"{SELLERS} sellers, {delivered} orders placed; scheduled runs that were waited for: {own}")
            days = {str(day) for day in filled}
            ok = measured(programs, airflow, home, RECONCILE, first, last, days)
            peer_last = first + timedelta(days=min(args.days, PEER_DAYS) - 1)
            ok &= measured(programs, airflow, home, PEER, first, peer_last, set())
            if args.beside:
                ok &= beside(airflow, home, before)
    return 0 if ok else 1


def _running(airflow: Backfills) -> int:
    dags = (*LIVE, RECONCILE, PEER)
    return sum(airflow.count(dag, "queued", "running", kind="scheduled") for dag in dags)


if __name__ == "__main__":
    raise SystemExit(main())
