"""What goes wrong on the way: kills, outages, lost answers, expired tokens, readers of the warehouse, two at once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from crashes.fixtures import Fixtures
from crashes.forking import CONTEXT
from soak.chain import EXTRACT, Scheduler
from soak.sandbox_process import SandboxProcess
from soak.settings import Settings

WEIGHTS = {
    "a task killed": 40,
    "503 to every call": 12,
    "answers lost or cut": 12,
    "requests lost": 6,
    "429": 12,
    "tokens expired": 5,
    "the warehouse held by a reader": 7,
    "two extractions at once": 6,
}
PERIODS_BETWEEN = (0.3, 1.2)


class Trouble:
    """One trouble after the other, chosen by the seed, until `stop`."""

    def __init__(
        self,
        settings: Settings,
        fixtures: Fixtures,
        scheduler: Scheduler,
        sandbox: SandboxProcess,
        now: Callable[[], datetime],
    ) -> None:
        self.happened: Counter[str] = Counter()
        self._settings, self._fixtures, self._scheduler = settings, fixtures, scheduler
        self._sandbox, self._now = sandbox, now
        self._draw = random.Random(f"trouble/{settings.seed}")
        self._stopping = threading.Event()
        self._reader: Any = None
        self._others: list[threading.Thread] = []

    def go_on(self) -> None:
        """Makes trouble until it is stopped; for a thread."""
        period_s = self._settings.period_s
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        while not self._stopping.wait(self._draw.uniform(*PERIODS_BETWEEN) * period_s):
            self._make(self._draw.choices(kinds, weights)[0], period_s)

    def stop(self) -> None:
        """Ends all trouble, and waits for what it started."""
        self._stopping.set()
        if self._reader is not None:
            self._reader.kill()
            self._reader.join()
        for thread in self._others:
            thread.join()
        self._sandbox.clear_faults()

    def _make(self, kind: str, period_s: float) -> None:
        draw = self._draw
        if kind == "a task killed":
            if self._scheduler.kill_one(draw, self._now()) is None:
                return
        elif kind == "503 to every call":
            self._fault("error_503", lasts_s=draw.uniform(0.2, 0.7) * period_s)
        elif kind == "answers lost or cut":
            for fault in ("reset_after", "cut_body"):
                self._fault(fault, probability=0.15, lasts_s=0.4 * period_s)
        elif kind == "requests lost":
            self._fault("reset_before", probability=0.3, lasts_s=0.4 * period_s)
        elif kind == "429":
            self._fault("throttle", probability=0.2, seconds=2, lasts_s=0.4 * period_s)
        elif kind == "tokens expired":
            self._sandbox.expire_tokens(None)
        elif kind == "the warehouse held by a reader":
            if self._reader is not None and self._reader.is_alive():
                return
            seconds = draw.uniform(1, 2) * period_s
            self._reader = CONTEXT.Process(target=_read, args=(self._fixtures, seconds), daemon=True)
            self._reader.start()
        else:
            run_id = f"manual__beside_{self.happened[kind] + 1}"
            beside = threading.Thread(target=self._scheduler.run, args=(EXTRACT, run_id))
            beside.start()
            self._others = [thread for thread in self._others if thread.is_alive()] + [beside]
        self.happened[kind] += 1

    def _fault(self, kind: str, **more: Any) -> None:
        self._sandbox.fault({"kind": kind, "times": None, **more})


def _read(fixtures: Fixtures, seconds: float) -> None:
    """A reader who opens the warehouse, and takes a look at leisure."""
    if fixtures.postgres is not None:
        import psycopg

        with psycopg.connect(fixtures.postgres.conninfo) as connection:
            connection.execute("SELECT count(*) FROM feedamp.orders")
            time.sleep(seconds)
        return
    import duckdb

    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with suppress(duckdb.Error):  # held by a load
            with duckdb.connect(str(fixtures.folder / "warehouse.duckdb"), read_only=True) as reader:
                reader.execute("SELECT count(*) FROM feedamp.orders")
                time.sleep(seconds)
                return
        time.sleep(0.1)
