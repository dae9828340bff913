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

from cryptography.fernet import Fernet
from processes import Crew

from crashes import picture
from crashes.killing import Watch
from crashes.orders import B, C, act, deliver
from crashes.picture import Picture
from crashes.rooms import EXTRACT_DAG, LOOP, PLACE_DAG, PROCESS_DAG, Rooms, run_step
from feedamp.lake.store import Lake
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)
from feedamp_sandbox.limiter import Limiter

REPAIR_DAG = ("repair", "load")
TRIES, RETRY_S = 8, 1.0
RATE, BURST = 2.0, 2
PATIENCE_S = 90.0
Steps = tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """Two runs, the world they start from, and what comes after both before anybody looks."""

    runs: tuple[Steps, Steps]
    prepare: Callable[[House], None]
    then: Steps = ()


@dataclass
class House:
    """A house of files and what FeedAMP was sent from it."""

    rooms: Rooms
    sandbox: Sandbox
    watch: Watch

    def hand_over(self, round_number: int) -> None:
        deliver(self.rooms.folder / "inbox", round_number, modified_at=time.time() - 60)

    def run(self, *steps: str) -> None:
        do(self.rooms, steps, f"before__{time.monotonic_ns()}")

    def keep_to(self, requests_per_second: float, burst: int) -> None:
        """From now on FeedAMP allows no more."""
        options = SandboxOptions(requests_per_second=requests_per_second, burst=burst)
        with self.sandbox.world.lock:
            self.sandbox.world.limiter = Limiter(options, time.monotonic, self.sandbox.world.rules)

    def look(self) -> Picture:
        """Everything that can be seen from outside, less moments and run ids."""
        lake = Lake(str(self.rooms.folder / "lake"))
        with closing(self.rooms.open_state()) as state:
            seen = picture.state_rows(state)
        seen |= picture.warehouse_rows(self.rooms.folder / "warehouse.duckdb") | picture.lake_rows(lake)
        for seller in self.sandbox.sellers:
            seen[f"FeedAMP {seller['seller_id']}"] = dict(self.sandbox.orders(seller["seller_id"]))
        return seen | {"sent": {"/".join(key): times for key, times in self.watch.sent.items()}}


def do(rooms: Rooms, steps: Sequence[str], run_id: str) -> list[str]:
    """Runs steps, and again what was left undone, as Airflow would; returns what was left in spite of that."""
    resources = rooms.resources()
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


def work(number: int, rooms: Rooms, runs: Sequence[Steps]) -> tuple[list[str], float, float]:
    """One process: what was left undone, and from when to when it was at work."""
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    left = do(rooms, runs[number], f"manual__{number}")
    return left, began, time.monotonic()


@contextmanager
def prepared(folder: Path, url: str, case: Case) -> Iterator[House]:
    """The world before the two runs."""
    folder.mkdir()
    watch = Watch()
    options = SandboxOptions(sellers=3, requests_per_second=1e6, burst=10**6, behaviors=(("never", 1),))
    with running(options, observer=watch) as sandbox:
        watch.look_at(sandbox)
        key = Fernet.generate_key().decode()
        rooms = Rooms(folder, sandbox.api, sandbox.client_id, key, sandbox.client_secret, state_url=url)
        rooms.register({seller["seller_id"]: seller["refresh_token"] for seller in sandbox.sellers})
        house = House(rooms, sandbox, watch)
        house.hand_over(0)
        case.prepare(house)
        yield house


@dataclass
class Outcome:
    """What differs from one after the other, work left undone, rules of FeedAMP that were broken."""

    differences: list[str]
    left: list[str]
    broken_rules: list[object]


def at_once(both: Crew, folder: Path, url: str, case: Case) -> Outcome:
    """Plays the case in two processes at once at two requests a second, and one after the other at leisure."""
    one, *other = _one_after_the_other(case)
    with prepared(folder / "at-once", url, case) as house:
        before = len(house.sandbox.requests)
        house.keep_to(RATE, BURST)
        rooms = replace(house.rooms, requests_per_second=RATE)
        done = both.run(work, rooms, case.runs, patience_s=PATIENCE_S)
        asked = Counter(r.seller_id for r in house.sandbox.requests[before:] if "/orders" in r.path)
        # A case in which nothing meets, or the rate costs no one a wait, would say nothing.
        assert max(began for _, began, _ in done) < min(ended for _, _, ended in done)
        assert max(asked.values()) > BURST
        broken_rules = list(house.sandbox.broken_rules)
        house.keep_to(1e6, 10**6)
        house.run(*case.then)
        found = house.look()
        wanted = picture.either(one, *other, found) if other else one  # an order at a time: it meets no other
        return Outcome(
            picture.differences(wanted, found),
            [line for left, _, _ in done for line in left],
            broken_rules,
        )


@cache
def _one_after_the_other(case: Case) -> list[Picture]:
    """What each run leaves that comes after the other, on SQLite."""
    pictures = []
    for runs in sorted({case.runs, case.runs[::-1]}):
        with TemporaryDirectory() as folder, prepared(Path(folder) / "after", "", case) as house:
            for steps in (*runs, case.then):
                house.run(*steps)
            pictures.append(house.look())
    return pictures


def _sellers_have_acted(house: House) -> None:
    house.run(*PLACE_DAG)
    act(house.sandbox, 0)


def _fulfillments_are_read(house: House) -> None:
    _sellers_have_acted(house)
    house.run(*EXTRACT_DAG)


def _feedamp_has_lost_and_cancelled_orders(house: House) -> None:
    """While sellers go on with the second round."""
    _fulfillments_are_read(house)
    house.run(*PROCESS_DAG)
    house.hand_over(1)
    house.run(*PLACE_DAG)
    act(house.sandbox, 1)
    with house.sandbox.world.lock:
        orders = house.sandbox.world.orders
        orders.get(C, "late").marketplace_state = "CANCELLED"
        orders._sorted[B].remove(orders._by_number[B].pop("never-touched"))


CASES = {
    "two placings": Case((PLACE_DAG, PLACE_DAG), lambda house: None),
    "two extractions": Case((EXTRACT_DAG * 2, EXTRACT_DAG * 2), _sellers_have_acted),
    "two runs that report and close": Case((PROCESS_DAG, PROCESS_DAG), _fulfillments_are_read),
    # Which of the two has seen an error listed that one of them reported is for the next reading to settle.
    "a backfill that repairs, and all that is live": Case(
        (REPAIR_DAG, LOOP), _feedamp_has_lost_and_cancelled_orders, (*EXTRACT_DAG, *PROCESS_DAG)
    ),
}
