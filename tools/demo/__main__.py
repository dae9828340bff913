"""`make demo`: Airflow and a FeedAMP sandbox on this machine, the whole loop once, then a report.

`--stay` (`make up`) leaves both running until Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import orders, postgres, report
from demo.airflow_server import AirflowServer
from demo.programs import BIN, REPOSITORY, Programs, end_leftovers, environment, free_port, http, only_one

FOLDER = REPOSITORY / ".demo"
SELLERS = 12
ORDERS = 240
CSV_ORDERS = 60
ROUNDS = 5
DAYS = 5  # of the backfill
RATE = 10


class Progress:
    """Says what happens, with the seconds since the start; dots on a terminal while it waits."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._waiting_for = ""
        self._said_at = 0.0

    def say(self, text: str) -> None:
        """One line."""
        self._end_line()
        print(f"[{time.monotonic() - self._started:4.0f} s] {text}", flush=True)

    def tick(self, what: str) -> None:
        """A sign of life every two seconds."""
        now = time.monotonic()
        if what != self._waiting_for:
            self._end_line()
            print(f"         {what} ", end="", flush=True)
            self._waiting_for, self._said_at = what, now
        elif now - self._said_at >= 2:
            print(".", end="", flush=True)
            self._said_at = now

    def _end_line(self) -> None:
        if self._waiting_for:
            print(flush=True)
            self._waiting_for = ""


def main() -> int:
    """Runs the demo; 0 when no rule was broken and every run was green."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the demo keeps its files")
    args = parser.parse_args()
    _on_end(signal.default_int_handler)  # set for SIGINT, too, which a shell's background job would ignore
    progress = Progress()
    try:
        with only_one(args.folder):
            return _run(args.folder, progress, stay=args.stay)
    except SystemExit as stopped:
        progress.say(f"The demo stopped: {stopped}")
        return 1
    except KeyboardInterrupt:
        progress.say("Interrupted; all programs have ended.")
        return 130


def _on_end(handler: Any) -> None:
    """What Ctrl-C, a closed terminal and SIGTERM do."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, handler)


def _run(folder: Path, progress: Progress, *, stay: bool) -> int:
    home = folder / "airflow"
    end_leftovers(folder / "logs")
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    (home / "feedamp" / "inbox").mkdir(parents=True)
    port = free_port()
    ok = True
    with _metadata(folder, progress) as programs:
        programs.add_to_environment(environment(home, port))
        airflow = AirflowServer(programs, home, port, progress.tick)
        try:
            ok = _loop(programs, airflow, home, progress, stay=stay)
            if stay:
                _stay(programs, airflow, home, progress)
        except (requests.RequestException, SystemExit) as error:
            time.sleep(1.0)
            programs.check()  # a program that has ended is the reason, whoever noticed first
            raise SystemExit(str(error)) from error
        except KeyboardInterrupt:
            if not stay:
                raise
            progress.say("Ending all programs; this takes some seconds ...")
        finally:
            _on_end(signal.SIG_IGN)  # a second Ctrl-C would leave programs behind
    if not stay:
        progress.say("All programs have ended; `make up` does the same and leaves them running.")
    return 0 if ok else 1


@contextmanager
def _metadata(folder: Path, progress: Progress) -> Iterator[Programs]:
    """Programs for an Airflow with its metadata on Postgres, or on SQLite if there is none."""
    data = folder / "postgres"
    # Postgres sees no secret of Airflow.
    env = {"PATH": os.environ.get("PATH", "")}
    try:
        with Programs(folder / "logs", env) as programs:
            try:
                url = postgres.start(programs, data)
                programs.add_to_environment({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url})
            except postgres.NoServerError as error:
                progress.say(
                    f"WARNING: Airflow's metadata are on SQLite; backfills can end the demo. {error}"
                )
            yield programs
    finally:
        postgres.remove(data)


def _loop(programs: Programs, airflow: AirflowServer, home: Path, progress: Progress, *, stay: bool) -> bool:
    progress.say(f"Starting a FeedAMP sandbox with {SELLERS} sellers ...")
    options = ["--sellers", str(SELLERS), "--requests-per-second", str(RATE)]
    # Left running, its sellers go on by themselves.
    sandbox = programs.start_sandbox(*options, *(["--pace", "60"] if stay else []))
    control = sandbox["api"].removesuffix("/api/v1") + "/_sandbox"
    progress.say("Starting Airflow ...")
    airflow.start()
    airflow.add_connection(sandbox, {"requests_per_second": RATE})
    airflow.unpause()
    progress.say("Airflow is up; its scheduler runs everything from here on")
    imported = programs.run(str(BIN / "feedamp"), "sellers", "import", sandbox["sellers_file"])
    progress.say(f"Sellers: {imported.strip().splitlines()[-1]}")
    _fill_inbox(home / "feedamp" / "inbox", progress)
    states = [airflow.run("feedamp_place_orders")]
    progress.say(f"feedamp_place_orders: {states[-1]}; {_count(control)}")
    before = ""
    for n in range(1, ROUNDS + 1):
        # In the first round sellers acknowledge and begin to ship.
        http("POST", f"{control}/act?rounds={2 if n == 1 else 1}")
        moment = datetime.now(UTC).isoformat()
        states.append(airflow.run("feedamp_extract_fulfillments"))
        states.append(airflow.run_started_after("feedamp_process_fulfillments", moment))
        progress.say(f"Round {n}, sellers acted, extracted and processed: {_count(control)}")
        if _count(control) == before:
            break  # no seller did anything in this round
        before = _count(control)
    last = datetime.now(UTC).date() - timedelta(days=1)
    days = [last - timedelta(days=n) for n in reversed(range(DAYS))]
    lost = report.lose_orders(home, days[DAYS // 2])
    progress.say(
        f"{lost} orders of {days[DAYS // 2]} are deleted in the warehouse; now a backfill of {DAYS} days"
    )
    states += airflow.backfill(days, {"repair": True})
    progress.say(f"feedamp_reconcile_orders, {days[0]} to {last}: {', '.join(sorted(set(states[-DAYS:])))}")
    truth = http("GET", f"{control}/report")
    print("\n" + "\n".join(report.lines(home, truth, days)) + "\n")
    python = BIN.relative_to(REPOSITORY) if BIN.is_relative_to(REPOSITORY) else BIN
    warehouse = home / "feedamp" / "warehouse.duckdb"
    print("Look into the warehouse:")
    print(
        f"    {python}/python -c \"import duckdb; duckdb.connect('{warehouse}', read_only=True)"
        ".sql('FROM feedamp.orders LIMIT 10').show()\""
    )
    if stay:
        print(f"Open the UI: {airflow.url}, user {airflow.user}, password {airflow.password}\n")
    else:
        print("Open the UI: `make up` does the same, leaves it running and prints address and password\n")
    return not truth["broken_rules"] and set(states) == {"success"}


def _fill_inbox(inbox: Path, progress: Progress) -> None:
    now = datetime.now(UTC)
    sellers = [f"seller-{n:03d}" for n in range(1, SELLERS + 1)]
    rows = orders.make_orders(sellers, ORDERS + CSV_ORDERS, now=now)
    rows[5]["seller_id"] = "seller-not-yet-registered"
    bad = orders.spoil(rows[:7])
    orders.write_jsonl(inbox / "orders-1.jsonl", rows[:ORDERS], bad)
    orders.write_csv(inbox / "orders-2.csv", rows[ORDERS:])
    progress.say(
        f"Inbox: {len(rows)} good orders (JSONL and CSV), {len(bad)} bad rows, 1 of an unknown seller"
    )


def _count(control: str) -> str:
    counts = http("GET", f"{control}/report")["orders"]
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no orders"


def _stay(programs: Programs, airflow: AirflowServer, home: Path, progress: Progress) -> None:
    print("Pages:")
    for page in (
        "dags",
        "dags/feedamp_place_orders",
        "dags/feedamp_reconcile_orders",
        "connections",
        "assets",
    ):
        print(f"    {airflow.url}/{page}")
    print(f"Drop order files into {home / 'feedamp' / 'inbox'}; the sellers act once a minute.\n")
    progress.say("Running until Ctrl-C. The DAGs go on by their schedules.")
    while True:
        programs.check()
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
