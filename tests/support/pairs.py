"""Two whole runs at the same moment, each in a process of its own, on the rate that one seller allows; and the same two
one after the other.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from processes import Crew

from crashes import observed
from crashes.fixtures import EXTRACT_DAG, LOOP, PLACE_DAG, PROCESS_DAG, Fixtures, run_step
from crashes.killing import Watch
from crashes.observed import Observed
from crashes.orders import B, C, act, deliver
from feedamp.lake.store import Lake
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)
from feedamp_sandbox.limiter import Limiter

REPAIR_DAG = ("repair", "load")
TRIES, RETRY_S = 8, 1.0
RATE, BURST = 4.0, 2
PATIENCE_S = 90.0
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Two runs, the env they start from, and the steps that follow both before the comparison."""

    runs: tuple[Steps, Steps]
    prepare: Callable[[Pair], None]
    then: Steps = ()


@dataclass
class Pair:
    """What two processes work on, and what FeedAMP was sent from it."""

    fixtures: Fixtures
    sandbox: Sandbox
    watch: Watch

    def hand_over(self, round_number: int) -> None:
        deliver(self.fixtures.folder / "inbox", round_number, modified_at=time.time() - 60)

    def run(self, *steps: str) -> None:
        do(self.fixtures, steps, f"before__{time.monotonic_ns()}")

    def keep_to(self, requests_per_second: float, burst: int) -> None:
        """From now on FeedAMP allows no more."""
        options = SandboxOptions(requests_per_second=requests_per_second, burst=burst)
        with self.sandbox.world.lock:
            self.sandbox.world.limiter = Limiter(options, time.monotonic, self.sandbox.world.rules)

    def look(self) -> Observed:
        """Everything visible from outside, without times and run ids."""
        lake = Lake(str(self.fixtures.folder / "lake"))
        with closing(self.fixtures.open_state()) as state:
            seen = observed.state_rows(state)
        seen |= observed.warehouse_rows(self.fixtures.folder / "warehouse.duckdb") | observed.lake_rows(lake)
        for name in [name for name in seen if "order_events" in name]:
            # Which of the two saw a change first, and so whether it was a repair, is a matter of moments.
            stories = seen[name].items()
            seen[name] = {order: [e for e in told if e["kind"] != "repaired"] for order, told in stories}
        for seller in self.sandbox.sellers:
            seen[f"FeedAMP {seller['seller_id']}"] = dict(self.sandbox.orders(seller["seller_id"]))
        return seen | {"sent": {"/".join(key): times for key, times in self.watch.sent.items()}}


def do(fixtures: Fixtures, steps: Sequence[str], run_id: str) -> list[str]:
    """Runs steps, and again what was left undone, as Airflow would; returns what was left in spite of that."""
    resources = fixtures.resources()
    left: list[str] = []
    with closing(resources.state):
        for step in steps:
            undone: list[str] = []
            for try_number in range(1, TRIES + 1):
                undone = run_step(resources, step, run_id, try_number=try_number).get("undone", [])
                if not undone:
                    break
                time.sleep(RETRY_S)
            left += [f"{step}: {line}" for line in undone]
    return left


def work(number: int, fixtures: Fixtures, runs: Sequence[Steps]) -> tuple[list[str], float, float]:
    """One process: what was left undone, and from when to when it was at work."""
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    left = do(fixtures, runs[number], f"manual__{number}")
    return left, began, time.monotonic()


@contextmanager
def prepared(folder: Path, url: str, case: Case) -> Iterator[Pair]:
    """The world before the two runs."""
    folder.mkdir()
    watch = Watch()
    options = SandboxOptions(sellers=3, requests_per_second=1e6, burst=10**6, behaviors=(("never", 1),))
    with running(options, observer=watch) as sandbox:
        watch.look_at(sandbox)
        env = Pair(Fixtures.of(folder, sandbox, state_url=url), sandbox, watch)
        env.hand_over(0)
        case.prepare(env)
        yield env


@dataclass
class Outcome:
    """What differs from one after the other, work left undone, rules of FeedAMP that were broken."""

    differences: list[str]
    left: list[str]
    broken_rules: list[object]


def at_once(both: Crew, folder: Path, url: str, case: Case) -> Outcome:
    """Plays the case in two processes at once at two requests a second, and one after the other at leisure."""
    one, *other = _one_after_the_other(case)
    with prepared(folder / "at-once", url, case) as env:
        before = len(env.sandbox.requests)
        env.keep_to(RATE, BURST)
        fixtures = replace(env.fixtures, requests_per_second=RATE)
        done = both.run(work, fixtures, case.runs, patience_s=PATIENCE_S)
        asked = Counter(r.seller_id for r in env.sandbox.requests[before:] if "/orders" in r.path)
        # A case in which nothing meets, or the rate costs no one a wait, would say nothing.
        assert max(began for _, began, _ in done) < min(ended for _, _, ended in done)
        assert max(asked.values()) > BURST
        broken_rules = list(env.sandbox.broken_rules)
        env.keep_to(1e6, 10**6)
        env.run(*case.then)
        found = env.look()
        wanted = (
            observed.either(one, *other, found) if other else one
        )  # an order at a time: it meets no other
        return Outcome(
            observed.differences(wanted, found),
            [line for left, _, _ in done for line in left],
            broken_rules,
        )


@cache
def _one_after_the_other(case: Case) -> list[Observed]:
    """What each run leaves that comes after the other, on SQLite."""
    pictures = []
    for runs in sorted({case.runs, case.runs[::-1]}):
        with TemporaryDirectory() as folder, prepared(Path(folder) / "after", "", case) as env:
            for steps in (*runs, case.then):
                env.run(*steps)
            pictures.append(env.look())
    return pictures


def _sellers_have_acted(env: Pair) -> None:
    env.run(*PLACE_DAG)
    act(env.sandbox, 0)


def _fulfillments_are_read(env: Pair) -> None:
    _sellers_have_acted(env)
    env.run(*EXTRACT_DAG)


def _feedamp_has_lost_and_cancelled_orders(env: Pair) -> None:
    """While sellers go on with the second round."""
    _fulfillments_are_read(env)
    env.run(*PROCESS_DAG)
    env.hand_over(1)
    env.run(*PLACE_DAG)
    act(env.sandbox, 1)
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders.get(C, "late").marketplace_state = "CANCELLED"
        orders._sorted[B].remove(orders._by_number[B].pop("never-touched"))


CASES = {
    "two placings": Case((PLACE_DAG, PLACE_DAG), lambda env: None),
    "two extractions": Case((EXTRACT_DAG * 2, EXTRACT_DAG * 2), _sellers_have_acted),
    "two runs that report and close": Case((PROCESS_DAG, PROCESS_DAG), _fulfillments_are_read),
    # Which of the two has seen an error listed that one of them reported is for the next reading to settle.
    "a backfill that repairs, and all that is live": Case(
        (REPAIR_DAG, LOOP), _feedamp_has_lost_and_cancelled_orders, (*EXTRACT_DAG, *PROCESS_DAG)
    ),
}
