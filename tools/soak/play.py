"""A soak from the first file to the last comparison."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import Fernet

from crashes.clock import Clock
from crashes.fixtures import Fixtures
from feedamp.state import schema
from feedamp_sandbox import SandboxOptions
from soak.chain import EXTRACT, PLACE, PROCESS, RECONCILE, REFRESH, Figures, Scheduler
from soak.comparing import Differences, Evidence, compare, compare_warehouse
from soak.reading import Room, room, state_rows, warehouse_rows
from soak.sandbox_process import Broken, SandboxProcess, sandbox_process
from soak.settings import UNREGISTERED, Settings
from soak.traffic import Traffic
from soak.trouble import Trouble

SAYS_EVERY_S = 30.0
STEP_S = 0.2
SELLERS_ACT_IN_A_PERIOD = 4
ACTING_SHARE = 0.3
RECONCILES_EVERY = 6  # periods
DAYS_OF_ORDERS = 6  # demo.orders: purchased within the last five days
ROUNDS_AT_REST = 2
LONGEST_PAUSE_S = 90.0
SHOWN = 3
REFRESH_GRACE_S = 86_400.0  # a refresh that dies after FeedAMP's answer is not today's question
FAST_RATE = 1e6
Say = Callable[[str], None]


@dataclass
class Outcome:
    """The result of a soak. `stages`: all differences at the end; those of the warehouse after each of rebuild,
    compaction, rebuild."""

    settings: Settings
    stages: dict[str, Differences] = field(default_factory=dict)
    fixtures: dict[str, Room] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    trouble: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    evidence: Evidence | None = None


class Soak:
    """One soak in a folder of its own."""

    def __init__(
        self,
        settings: Settings,
        fixtures: Fixtures,
        sandbox: SandboxProcess,
        say: Say,
    ) -> None:
        self._settings, self._fixtures, self._sandbox, self._say = settings, fixtures, sandbox, say
        self._scheduler = Scheduler(fixtures, settings)
        self._began = time.monotonic()
        self._stopping = threading.Event()
        self._extracted = threading.Event()
        self._first_is_placed = threading.Event()
        self._trouble = Trouble(settings, fixtures, self._scheduler, sandbox, self.now)
        self._traffic = Traffic(
            settings,
            fixtures.folder / "inbox",
            sorted(sandbox.sellers),
            now=self.now(),
            hold=sandbox.hold,
            ship=sandbox.ship,
            is_placed=sandbox.is_placed,
        )
        self._scheduler.before_placing = self._traffic.before_placing
        self._state = fixtures.open_state()
        self._outcome = Outcome(settings, figures=self._scheduler.figures)

    def now(self) -> datetime:
        """The current time, by the clock that the whole soak uses."""
        return self._fixtures.clock.now() if self._fixtures.clock else datetime.now(UTC)

    def play(self) -> Outcome:
        """Traffic and trouble, then rest, then the comparisons."""
        with closing(self._state):
            self._go_on()
            self._come_to_rest()
            self._compare_all()
        self._outcome.seconds = time.monotonic() - self._began
        self._outcome.trouble = dict(self._trouble.happened)
        return self._outcome

    # Traffic and trouble

    def _go_on(self) -> None:
        period_s = self._settings.period_s
        threads = [
            threading.Thread(target=self._keep_running, args=(PLACE, period_s, 0.0)),
            threading.Thread(target=self._keep_running, args=(EXTRACT, period_s, period_s / 2)),
            threading.Thread(target=self._process),
            threading.Thread(
                target=self._keep_running, args=(RECONCILE, RECONCILES_EVERY * period_s, 3.3 * period_s)
            ),
            threading.Thread(target=self._refresh_once),
        ]
        if self._settings.has_trouble:
            threads.append(threading.Thread(target=self._make_trouble))
        self._traffic.step(0.0)
        for thread in threads:
            thread.start()
        try:
            while not self._first_is_placed.wait(SAYS_EVERY_S):
                self._say(self._progress())
            began = said = time.monotonic()
            while time.monotonic() - began < self._settings.seconds:
                self._traffic.step(time.monotonic() - began)
                self._scheduler.orders_so_far = len(self._traffic.delivered)
                if time.monotonic() - said >= SAYS_EVERY_S:
                    said = time.monotonic()
                    self._say(self._progress())
                time.sleep(STEP_S)
        finally:
            self._stopping.set()
            self._first_is_placed.set()
            self._extracted.set()
            self._trouble.stop()
            self._say("Traffic and trouble have stopped; runs that are at work end.")
            for thread in threads:
                thread.join()

    def _keep_running(self, dag_id: str, every_s: float, first_s: float) -> None:
        """A DAG by its schedule, one run at a time.

        Everything else waits for the first placing, so that whole batches of rows come to its load.
        """
        if dag_id != PLACE:
            self._first_is_placed.wait()
        due_s, number = first_s, 0
        while not self._stopping.wait(max(0.0, due_s - (time.monotonic() - self._began))):
            number += 1
            self._run(dag_id, f"scheduled__{number}", number)
            self._first_is_placed.set()
            # A run that was due while the one before was at work starts at once; only the newest does.
            due_s = max(due_s + every_s, time.monotonic() - self._began)

    def _run(self, dag_id: str, run_id: str, number: int = 0) -> list[str]:
        params = {}
        if dag_id == RECONCILE:
            midnight = self.now().replace(hour=0, minute=0, second=0, microsecond=0)
            start = midnight - timedelta(days=number % DAYS_OF_ORDERS)
            params = {"start": start, "end": start + timedelta(days=1)}
        result = self._scheduler.run(dag_id, run_id, **params)
        if dag_id == EXTRACT and result.loaded:
            self._extracted.set()
        return result.problems

    def _process(self) -> None:
        """Started by the asset that an extraction's load updates."""
        number = 0
        while self._extracted.wait() and not self._stopping.is_set():
            self._extracted.clear()
            number += 1
            self._run(PROCESS, f"asset_triggered__{number}")

    def _make_trouble(self) -> None:
        self._first_is_placed.wait()
        self._trouble.go_on()

    def _refresh_once(self) -> None:
        self._first_is_placed.wait()
        if not self._stopping.wait(self._settings.seconds / 2):
            self._run(REFRESH, "scheduled__1")

    def _progress(self) -> str:
        figures = self._sandbox.figures()
        with self._state.read() as connection:
            query = sa.select(schema.orders.c.phase, sa.func.count()).group_by(schema.orders.c.phase)
            phases = {row[0]: row[1] for row in connection.execute(query)}
        states, runs = figures["states"], self._scheduler.figures
        so_far = figures["broken_rules"] + figures["over_shipments"] + figures["reported_twice"]
        return (
            f"[{time.monotonic() - self._began:5.0f} s] delivered {len(self._traffic.delivered)}, at FeedAMP "
            f"{sum(states.values())}, closed {phases.get('closed', 0)}, waiting {phases.get('to_place', 0)}, "
            f"held {phases.get('held', 0)}; runs {runs.runs.total()}, red {runs.red.total()}, killed "
            f"{runs.killed.total()}; requests {figures['requests']}; differences so far {so_far} (rules broken "
            f"{figures['broken_rules']}, cancelled over shipments {figures['over_shipments']} and "
            f"{figures['slipped']} that no read could show, reported twice {figures['reported_twice']})"
        )

    # Rest

    def _come_to_rest(self) -> None:
        """Rounds of everything until nothing moves any more; the last ones must be green."""
        self._sandbox.release_all()
        give_up_at = time.monotonic() + self._settings.settle_s
        still, mark, number, problems = 0, object(), 0, list[str]()
        while still < ROUNDS_AT_REST and time.monotonic() < give_up_at:
            number += 1
            self._sandbox.act(1.0)
            problems = [
                line for dag in (PLACE, EXTRACT, PROCESS) for line in self._run(dag, f"manual__rest_{number}")
            ]
            before, mark = mark, (self._sandbox.figures()["mark"], self._ledger_mark())
            wait_s = self._wait_s()
            still = still + 1 if mark == before and not problems and wait_s is None else 0
            if number % 3 == 1 or still:
                self._say(self._progress())
                for line in problems[:SHOWN]:
                    self._say(f"not green: {line[:300]}")
            if wait_s is not None and mark == before:
                self._scheduler.pause(min(LONGEST_PAUSE_S, wait_s + 0.5))
        self._outcome.counts["rounds until nothing moved"] = number
        self._unrest = problems if still < ROUNDS_AT_REST else []
        if still < ROUNDS_AT_REST:
            self._unrest.append(f"not at rest after {number} rounds")

    def _ledger_mark(self) -> Any:
        with self._state.read() as connection:
            orders, snapshots = schema.orders.c, schema.snapshots.c
            first = sa.select(orders.phase, orders.accepted_state, sa.func.count()).group_by(
                orders.phase, orders.accepted_state
            )
            second = sa.select(
                snapshots.validated_hash.is_(None), snapshots.closable, sa.func.count()
            ).group_by(snapshots.validated_hash.is_(None), snapshots.closable)
            found = [sorted(map(str, connection.execute(query).all())) for query in (first, second)]
            left = sa.select(sa.func.count()).select_from(schema.outbox)
            return found, connection.execute(left).scalar_one()

    def _wait_s(self) -> float | None:
        """Seconds until the next order is due, of those who wait for a next try; None if none does."""
        orders = schema.orders.c
        query = sa.select(sa.func.min(orders.next_try_at)).where(
            orders.phase == "to_place", orders.seller_id != UNREGISTERED
        )
        with self._state.read() as connection:
            due = connection.execute(query).scalar_one()
        return None if due is None else max(0.0, (due - self._state.now()).total_seconds())

    # Comparisons

    def _compare_all(self) -> None:
        self._outcome.fixtures["at the end"] = room(self._fixtures)
        self._compare("at the end", is_last_word=True)
        self._scheduler.task("rebuild", "manual__rebuild_1")
        self._compare("after a rebuild")
        before = (self._state.now() + timedelta(days=2)).date()
        counts = self._scheduler.task("compact", "manual__compact_1", before=before)
        again = self._scheduler.task("compact", "manual__compact_2", before=before)
        self._outcome.counts["compaction"] = {**counts, "removed": again["removed"]}
        self._outcome.fixtures["after compaction"] = room(self._fixtures)
        self._compare("after compaction")
        self._scheduler.task("rebuild", "manual__rebuild_2")
        self._compare("after compaction and a rebuild")
        self._outcome.fixtures["after compaction and a rebuild"] = room(self._fixtures)

    def _compare(self, stage: str, *, is_last_word: bool = False) -> None:
        feedamp, log = self._sandbox.truth()
        evidence = Evidence(
            self._traffic.delivered,
            self._traffic.bad,
            feedamp,
            log,
            state_rows(self._fixtures),
            warehouse_rows(self._fixtures),
            self._scheduler.figures.placing_killed_at,
        )
        found = compare(evidence) if is_last_word else compare_warehouse(evidence)
        if is_last_word and self._unrest:
            found["the last runs were not green"] = self._unrest
        self._outcome.stages[stage] = found
        if is_last_word:
            self._outcome.evidence = evidence
            self._outcome.broken = log.broken
            self._count(evidence)
        total = sum(map(len, found.values()))
        self._say(f"Compared {stage}: {total} differences{' in ' + ', '.join(found) if found else ''}")

    def _count(self, evidence: Evidence) -> None:
        log, orders = evidence.log, evidence.delivered.values()
        self._outcome.counts |= {
            "orders delivered": len(evidence.delivered),
            "files": self._traffic.files,
            "bad rows": len(evidence.bad),
            "cancellations delivered": sum("CANCELLED" in order.states for order in orders),
            "of them while the seller shipped": sum(order.is_racing for order in orders),
            "orders at FeedAMP": len(evidence.feedamp),
            "lines": len(evidence.warehouse["order_lines"]),
            "shipments": len(evidence.warehouse["shipments"]),
            "placements": len(evidence.warehouse["placements"]),
            "closures": len(evidence.warehouse["closures"]),
            "findings": len(evidence.warehouse["findings"]),
            "errors reported": log.reports.total(),
            "cancellations over shipments": sum(not one.could_not_be_known for one in log.over_shipments),
            "cancellations that met a shipment after their read": sum(
                one.could_not_be_known for one in log.over_shipments
            ),
            "requests under way during a 429": sum(broken.was_under_way for broken in log.broken),
            "requests seen together by a sandbox that was held up": sum(
                broken.was_measured_late for broken in log.broken
            ),
            "requests": dict(sorted(log.requests.items())),
            "requests an order": round(log.requests.total() / max(1, len(evidence.feedamp)), 2),
        }


def soak(settings: Settings, say: Say) -> Outcome:
    """Plays a soak; the folder stays as it is in the end."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(settings.folder / "clock") if settings.is_fast else None
    limits = {"requests_per_second": FAST_RATE, "burst": int(FAST_RATE)} if settings.is_fast else {}
    options = SandboxOptions(
        sellers=settings.sellers, seed=settings.seed, refresh_grace_s=REFRESH_GRACE_S, **limits
    )
    act_every_s = settings.period_s / SELLERS_ACT_IN_A_PERIOD
    with sandbox_process(
        options, seed=settings.seed, clock=clock, act_every_s=act_every_s, share=ACTING_SHARE
    ) as sandbox:
        with _databases(settings) as databases:
            fixtures = Fixtures(
                settings.folder,
                sandbox.api,
                sandbox.client_id,
                Fernet.generate_key().decode(),
                sandbox.client_secret,
                clock,
                requests_per_second=FAST_RATE if settings.is_fast else 2.0,
                timeout_s=30.0,
                lock_wait_s=120.0,
                sellers_per_task=settings.sellers_per_task,
                **databases,
            )
            fixtures.register(sandbox.sellers)
            return Soak(settings, fixtures, sandbox, say).play()


@contextmanager
def _databases(settings: Settings) -> Iterator[dict[str, Any]]:
    """State and warehouse on a Postgres server of their own, if that is the engine."""
    if settings.engine == "duckdb":
        yield {}
        return
    import sys

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
    from postgres import serving
    from postgres_warehouses import address_of

    with serving() as server:
        yield {"state_url": server.database(), "postgres": address_of(server.database())}
