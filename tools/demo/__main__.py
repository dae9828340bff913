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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demo import postgres, report
from demo.airflow_server import AirflowServer
from demo.play import SELLERS, backfilled, play, write_accounts
from demo.programs import (
    BIN,
    REPOSITORY,
    Programs,
    end_leftovers,
    environment,
    free_port,
    http,
    only_one,
    write_shell_file,
)
from feedamp.state import State

FOLDER = REPOSITORY / ".demo"
RATE = 10
STORY = "seller-002 DEMO-00016"  # of a mistyped tracking number


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
    if home.exists():
        progress.say(f"Removing what the last demo left in {_shown(folder)} ...")
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    (home / "feedamp" / "inbox").mkdir(parents=True)
    port = free_port()
    ok = True
    with _metadata(folder, progress) as (programs, metadata):
        env = {**environment(home, port), **metadata}
        programs.add_to_environment(env)
        airflow = AirflowServer(programs, home, port, progress.tick)
        shell_file = folder / "env"
        try:
            if stay:
                write_shell_file(shell_file, env)
                print(f"The UI, once it is up:     {airflow.url}/plugin/feedamp")
                print(f"                           user {airflow.user}, password {airflow.password}")
                print(
                    f"In any other shell, then:  source {_shown(shell_file)} && feedamp doctor\n", flush=True
                )
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
            shell_file.unlink(missing_ok=True)
    if stay:
        progress.say(
            f"All programs have ended; {_shown(folder)} keeps logs and data until the next demo removes them."
        )
    else:
        progress.say("All programs have ended; `make up` does the same and leaves them running.")
    return 0 if ok else 1


@contextmanager
def _metadata(folder: Path, progress: Progress) -> Iterator[tuple[Programs, dict[str, str]]]:
    """Programs for an Airflow with its metadata on Postgres, or on SQLite if there is none; and the option that says so."""
    data = folder / "postgres"
    # Postgres sees no secret of Airflow.
    env = {"PATH": os.environ.get("PATH", "")}
    try:
        with Programs(folder / "logs", env) as programs:
            metadata = {}
            try:
                metadata["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = postgres.start(programs, data)
            except postgres.NoServerError as error:
                progress.say(
                    f"WARNING: Airflow's metadata are on SQLite; backfills can end the demo. {error}"
                )
            yield programs, metadata
    finally:
        postgres.remove(data)


@dataclass
class Demo:
    """The installation that the play is played on; `states` are how its runs ended."""

    airflow: AirflowServer
    home: Path
    control: str
    states: list[str] = field(default_factory=list)

    @property
    def inbox(self) -> Path:
        return self.home / "feedamp" / "inbox"

    def state(self) -> State:
        return State(f"sqlite:///{self.home / 'feedamp' / 'state.db'}")

    def place(self) -> str:
        self.states.append(self.airflow.run("feedamp_place_orders"))
        return self.states[-1]

    def extract_and_process(self) -> None:
        moment = datetime.now(UTC).isoformat()
        self.states.append(self.airflow.run("feedamp_extract_fulfillments"))
        if self.airflow.has_rung("feedamp_extract_fulfillments", moment):
            self.states.append(self.airflow.run_started_after("feedamp_process_fulfillments", moment))

    def execute(self, sql: str) -> None:
        with report.opened(self.home) as warehouse:
            warehouse.execute(sql)

    def backfill(self, days: Sequence[date]) -> str:
        ended = self.airflow.backfill(days, {"repair": True})
        self.states += ended
        return ", ".join(sorted(set(ended)))


def _loop(programs: Programs, airflow: AirflowServer, home: Path, progress: Progress, *, stay: bool) -> bool:
    progress.say(f"Starting a FeedAMP sandbox with {SELLERS} sellers, and one who has not consented yet ...")
    write_accounts(home / "sandbox-accounts.jsonl")
    options = ["--sellers-file", str(home / "sandbox-accounts.jsonl"), "--requests-per-second", str(RATE)]
    # Left running, its sellers go on by themselves.
    sandbox = programs.start_sandbox(*options, *(["--pace", "60"] if stay else []))
    progress.say("Starting Airflow ...")
    # No task needs a triggerer, but the home page of the UI calls an Airflow without one unhealthy.
    airflow.start(*(["triggerer"] if stay else []))
    callback_url = f"{airflow.url}/feedamp/callback"
    airflow.add_connection(sandbox, {"requests_per_second": RATE, "callback_url": callback_url})
    airflow.unpause()
    progress.say("Airflow is up; its scheduler runs everything from here on")
    if stay:
        progress.say(f"Watch it in the UI: {airflow.url}/plugin/feedamp (the pages fill within minutes)")
    imported = programs.run(str(BIN / "feedamp"), "sellers", "import", sandbox["sellers_file"])
    progress.say(f"Sellers: {imported.strip().splitlines()[-1]}")
    demo = Demo(airflow, home, sandbox["api"].removesuffix("/api/v1") + "/_sandbox")
    # The first reading of a seller lists every order, a later one only those that the seller has touched. A scheduled run
    # may or may not have been the first; this one makes the report the same each time.
    demo.extract_and_process()
    progress.say(
        f"The orders of the sellers were read for the first time: {demo.states[-1]}; there are none yet"
    )
    today = datetime.now(UTC).date()
    for line in play(demo, today):
        progress.say(line)
    days = [str(day) for day in backfilled(today)]
    print("\n" + programs.run(sys.executable, report.__file__, str(home), demo.control, days[0], days[-1]))
    python = BIN.relative_to(REPOSITORY) if BIN.is_relative_to(REPOSITORY) else BIN
    warehouse = home / "feedamp" / "warehouse.duckdb"
    print("Look into the warehouse (if a lock is held, a task has it open: try again):")
    print(
        f"    {python}/python -c \"import duckdb; duckdb.connect('{warehouse}', read_only=True)"
        ".sql('FROM feedamp.orders LIMIT 10').show()\""
    )
    print("Tell the story of an order:")
    print(f"    AIRFLOW_HOME={home} {python}/feedamp orders show {STORY}")
    if stay:
        print(f"Open the UI: {_address(airflow)}\n")
    else:
        print("Open the UI: `make up` does the same, leaves it running and prints address and password\n")
    return not http("GET", f"{demo.control}/report")["broken_rules"] and set(demo.states) == {"success"}


def _shown(path: Path) -> Path:
    """A path as one types it in this folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _address(airflow: AirflowServer) -> str:
    return f"{airflow.url}/plugin/feedamp, user {airflow.user}, password {airflow.password}"


def _stay(programs: Programs, airflow: AirflowServer, home: Path, progress: Progress) -> None:
    print("Pages:")
    for page in (
        "feedamp/",
        "feedamp/reconciliation",
        "dags",
        "dags/feedamp_place_orders",
        "dags/feedamp_reconcile_orders",
        "connections",
        "assets",
    ):
        print(f"    {airflow.url}/{page}")
    print(f"Drop order files into {home / 'feedamp' / 'inbox'}; the sellers act once a minute.")
    print("Keep copies: the next demo begins from nothing.\n")
    progress.say("Running until Ctrl-C. The DAGs go on by their schedules.")
    while True:
        programs.check()
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
