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
    """Two runs, what happens before them, and the steps that follow both before the comparison."""

    runs: tuple[Steps, Steps]
    prepare: Callable[[Pair], None] = lambda env: None
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


def work(number: int, fixtures: Fixtures, case: str, runs: Sequence[Steps]) -> tuple[list[str], float, float]:
    """One process: what was left undone, and from when to when it was at work."""
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    left = do(fixtures, runs[number], f"{case}__{number}")
    return left, began, time.monotonic()


@contextmanager
def opened(folder: Path, url: str) -> Iterator[Pair]:
    """The world before the first case."""
    folder.mkdir()
    watch = Watch()
    options = SandboxOptions(sellers=3, requests_per_second=1e6, burst=10**6, behaviors=(("never", 1),))
    with running(options, observer=watch) as sandbox:
        watch.look_at(sandbox)
        env = Pair(Fixtures.of(folder, sandbox, state_url=url), sandbox, watch)
        env.hand_over(0)
        yield env


@dataclass
class Outcome:
    """What differs from one after the other, work left undone, rules of FeedAMP that were broken."""

    differences: list[str]
    left: list[str]
    broken_rules: list[object]


def all_at_once(both: Crew, folder: Path, url: str) -> dict[str, Outcome]:
    """Plays each case in two processes at once at four requests a second, and one after the other at leisure.

    One installation goes through all of them, each begins where the one before ended.
    """
    outcomes = {}
    with opened(folder / "at-once", url) as env:
        for name, case in CASES.items():
            case.prepare(env)
            outcomes[name] = _at_once(both, env, name, case)
    return outcomes


def _at_once(both: Crew, env: Pair, name: str, case: Case) -> Outcome:
    before = len(env.sandbox.requests)
    env.keep_to(RATE, BURST)
    fixtures = replace(env.fixtures, requests_per_second=RATE)
    done = both.run(work, fixtures, name, case.runs, patience_s=PATIENCE_S)
    asked = Counter(r.seller_id for r in env.sandbox.requests[before:] if "/orders" in r.path)
    # A case in which nothing meets, or the rate costs no one a wait, would say nothing.
    assert max(began for _, began, _ in done) < min(ended for _, _, ended in done)
    assert max(asked.values()) > BURST
    broken_rules = list(env.sandbox.broken_rules)
    env.keep_to(1e6, 10**6)
    env.run(*case.then)
    found = env.look()
    one, other = (pictures[name] for pictures in _one_after_the_other())
    wanted = observed.either(one, other, found)  # an order at a time: it meets no other
    return Outcome(
        observed.differences(wanted, found),
        [line for left, _, _ in done for line in left],
        broken_rules,
    )


@cache
def _one_after_the_other() -> tuple[dict[str, Observed], dict[str, Observed]]:
    """What each case leaves on SQLite if its first run comes first, and if its second does."""
    first, second = (_turned(is_turned=is_turned) for is_turned in (False, True))
    return first, second


def _turned(*, is_turned: bool) -> dict[str, Observed]:
    pictures = {}
    with TemporaryDirectory() as folder, opened(Path(folder) / "after", "") as env:
        for name, case in CASES.items():
            case.prepare(env)
            for steps in (*case.runs[:: -1 if is_turned else 1], case.then):
                env.run(*steps)
            pictures[name] = env.look()
    return pictures


def _sellers_act(env: Pair) -> None:
    act(env.sandbox, 0)


def _feedamp_loses_and_cancels_orders(env: Pair) -> None:
    """While sellers go on with the second round."""
    env.hand_over(1)
    env.run(*PLACE_DAG)
    act(env.sandbox, 1)
    with env.sandbox.world.lock:
        orders = env.sandbox.world.orders
        orders.get(C, "late").marketplace_state = "CANCELLED"
        orders._sorted[B].remove(orders._by_number[B].pop("never-touched"))


CASES = {
    "two placings": Case((PLACE_DAG, PLACE_DAG)),
    "two extractions": Case((EXTRACT_DAG * 2, EXTRACT_DAG * 2), _sellers_act),
    "two runs that report and close": Case((PROCESS_DAG, PROCESS_DAG)),
    # Which of the two has seen an error listed that one of them reported is for the next reading to settle.
    "a backfill that repairs, and all that is live": Case(
        (REPAIR_DAG, LOOP), _feedamp_loses_and_cancels_orders, (*EXTRACT_DAG, *PROCESS_DAG)
    ),
}
