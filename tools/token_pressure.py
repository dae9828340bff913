"""`python tools/token_pressure.py`: many processes, many sellers, access tokens of three seconds that end again and
again, refresh tokens that work once. Every expiry must be refreshed exactly once, and no refresh refused.

By default all processes share a clock that stands still while they read and jumps past the tokens' end between two
rounds; with `--real` it is the machine's, and they read without a pause for three seconds a round.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from order_samples import example_order

from crashes.clock import Clock
from crashes.fixtures import Fixtures
from crashes.forking import CONTEXT
from feedamp.run import Run
from feedamp_sandbox import SandboxOptions, running

LIFE_S = 3
MARGIN_S = 0.2 * LIFE_S
PATIENCE_S = 120.0


@dataclass
class Outcome:
    """The result; `shortest_gap_s` is the shortest time between two refreshes of one seller."""

    seconds: float
    reads: int
    refreshes: list[int]
    refused: int
    shortest_gap_s: float
    broken_rules: list[Any]


def press(
    folder: Path, *, url: str, processes: int, expiries: int, sellers: int, real: bool = False
) -> Outcome:
    """Lets so many processes read an order of every seller in every round; after each round all tokens have ended."""
    clock = Clock(folder / "clock", keeps_still=True)
    options = SandboxOptions(
        sellers=sellers,
        token_lifetime_s=LIFE_S,
        revoke_on_reuse=True,
        requests_per_second=1e9,
        burst=10**9,
    )
    times: dict[str, Any] = {} if real else {"clock": clock.now}
    with running(options, **times) as sandbox:
        ours = None if real else clock
        fixtures = Fixtures.of(folder, sandbox, ours, state_url=url, requests_per_second=1e9, timeout_s=60.0)
        seller_ids = [seller["seller_id"] for seller in sandbox.sellers]
        for seller_id in seller_ids:
            sandbox.world.orders.add(seller_id, example_order("M-1"), clock.now())
        started = time.monotonic()
        reads = _read_together(fixtures, processes, expiries + 1, clock, real=real)
        asked: dict[str, list[datetime]] = defaultdict(list)
        refused = 0
        for request in sandbox.requests:
            if request.path.endswith("/access_token"):
                asked[str(request.seller_id)].append(request.at)
                refused += request.status != 200
        gaps = [(b - a).total_seconds() for moments in asked.values() for a, b in pairwise(sorted(moments))]
        counts = [len(asked[seller_id]) for seller_id in seller_ids]
        seconds = time.monotonic() - started
        return Outcome(seconds, reads, counts, refused, min(gaps, default=0.0), sandbox.broken_rules)


def _read_together(fixtures: Fixtures, processes: int, rounds: int, clock: Clock, *, real: bool) -> int:
    barrier, counted = CONTEXT.Barrier(processes + 1), CONTEXT.Queue()
    work = [
        CONTEXT.Process(target=_read, args=(fixtures, rounds, real, barrier, counted), daemon=True)
        for _ in range(processes)
    ]
    for process in work:
        process.start()
    try:
        for _ in range(rounds):
            barrier.wait(PATIENCE_S)
            barrier.wait(PATIENCE_S)
            clock.skip(seconds=LIFE_S)
        reads = sum(counted.get(timeout=PATIENCE_S) for _ in work)
    finally:
        for process in work:
            process.join(1.0)
            process.kill()
            process.join()
    return reads


def _read(fixtures: Fixtures, rounds: int, real: bool, barrier: Any, counted: Any) -> None:
    """One process."""
    logging.disable(logging.CRITICAL)
    resources = fixtures.resources()
    run = Run("feedamp_extract_fulfillments", "manual__1", resources.state.now())

    async def work() -> int:
        reads = 0
        async with resources.clients(run) as clients:
            with resources.state.read() as connection:
                found = [s.seller_id for s in _workable(connection)]
            sellers = [await clients.for_seller(seller_id) for seller_id in found]
            for _ in range(rounds):
                barrier.wait(PATIENCE_S)
                ends_at = time.monotonic() + (LIFE_S if real else 0)
                while True:
                    reads += len(await asyncio.gather(*(seller.get_order("M-1") for seller in sellers)))
                    if time.monotonic() >= ends_at:
                        break
                    await asyncio.sleep(0.5)
                barrier.wait(PATIENCE_S)
        return reads

    try:
        counted.put(asyncio.run(work()))
    except BaseException:
        barrier.abort()
        raise
    finally:
        resources.state.close()


def _workable(connection: Any) -> Any:
    from feedamp.state import sellers

    return sellers.workable(connection)


def main() -> int:
    """Prints the figures; 0 if they are as they must be."""
    parser = argparse.ArgumentParser(prog="python tools/token_pressure.py", description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--expiries", type=int, default=50)
    parser.add_argument("--sellers", type=int, default=20)
    parser.add_argument("--state-url", default="", help="an empty database; by default a SQLite file")
    parser.add_argument("--real", action="store_true", help="by the machine's clock: three seconds a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="feedamp-tokens-") as folder:
        outcome = press(
            Path(folder),
            url=args.state_url,
            processes=args.processes,
            expiries=args.expiries,
            sellers=args.sellers,
            real=args.real,
        )
    wanted = args.expiries + 1
    print(
        f"{args.processes} processes, {args.sellers} sellers, {args.expiries} expiries: {outcome.seconds:.1f} s"
    )
    print(f"orders read            {outcome.reads}")
    print(
        f"refreshes              {sum(outcome.refreshes)} ({min(outcome.refreshes)}-{max(outcome.refreshes)} a seller)"
    )
    print(f"refused                {outcome.refused}")
    print(f"shortest time between  {outcome.shortest_gap_s:.2f} s")
    print(f"rules broken           {outcome.broken_rules}")
    once = outcome.shortest_gap_s >= LIFE_S - MARGIN_S if args.real else set(outcome.refreshes) == {wanted}
    return 0 if once and not outcome.refused and not outcome.broken_rules else 1


if __name__ == "__main__":
    sys.exit(main())
