"""The demo's play without Airflow, with a clock that does not wait: for tests, and for pictures of the pages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from crashes.clock import Clock
from crashes.fixtures import EXTRACT_DAG, PLACE_DAG, PROCESS_DAG, Fixtures, run_step, run_whole
from demo.play import play
from feedamp.run import Run
from feedamp.state import State
from feedamp.steps.load import load
from feedamp_sandbox import Sandbox


class Played:
    """The installation on which it was played; `pause` passes before each round of the sellers."""

    def __init__(self, folder: Path, sandbox: Sandbox, clock: Clock, pause: timedelta = timedelta()) -> None:
        self.sandbox, self.today = sandbox, clock.now().date()
        self.clock, self.pause = clock, pause
        self.fixtures = Fixtures.of(folder, sandbox, clock)
        self.resources = self.fixtures.resources()
        self.inbox, self.control = folder / "inbox", f"{sandbox.root}/_sandbox"
        self._runs = 0
        with closing(self.resources.state):
            self.said = list(play(self, self.today))

    def state(self) -> State:
        return self.fixtures.open_state()

    def place(self) -> str:
        return self._run(*PLACE_DAG)

    def extract_and_process(self) -> None:
        self.clock.skip(seconds=self.pause.total_seconds())
        self._run(*EXTRACT_DAG)
        self._run(*PROCESS_DAG)

    def execute(self, sql: str) -> None:
        with self.resources.warehouse.session() as session:
            engine = session._engine  # noqa: SLF001 - what a person does who has the file open
            with engine.transaction():
                engine.execute(sql)

    def backfill(self, days: Sequence[date]) -> str:
        for day in days:
            start = datetime.combine(day, time(), UTC)
            run = Run("feedamp_reconcile_orders", f"backfill__{day}", self.resources.state.now())
            span = {"start": start, "end": start + timedelta(days=1), "with_stale": False}
            run_whole(self.resources, "reconcile", run, **span, repair=True)
            load(self.resources, run)
        return ""

    def _run(self, *steps: str) -> str:
        self._runs += 1
        for step in steps:
            run_step(self.resources, step, f"manual__{self._runs}")
        return ""
