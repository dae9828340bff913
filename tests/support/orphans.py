"""A process that is killed after it received new tokens and before it can store them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from crashes.clock import Clock
from crashes.fixtures import Fixtures, run_step
from crashes.forking import CONTEXT
from feedamp.api.pair_storage import PairStorage
from feedamp.state import sellers
from feedamp_sandbox import (
    Sandbox,
    SandboxOptions,
    running,
)

PATIENCE_S = 60.0
SELLERS = 7
A_DAY_S = 86_400.0


@dataclass
class Orphanage:
    """Sellers whose access tokens have just ended, and one extraction after the other."""

    fixtures: Fixtures
    clock: Clock
    sandbox: Sandbox

    def extract(self, run_id: str) -> dict[str, Any]:
        self.clock.skip(minutes=15)
        resources = self.fixtures.resources()
        with closing(resources.state):
            return run_step(resources, "extract", run_id)

    def die_between_answer_and_store(self) -> None:
        """`kill -9` for an extraction at the moment at which it has got a seller's new tokens."""
        ours, theirs = CONTEXT.Pipe()
        victim = CONTEXT.Process(target=_extract_and_stop, args=(self.fixtures, theirs))
        victim.start()
        assert ours.poll(PATIENCE_S)
        time.sleep(0.1)  # FeedAMP has answered the others by now
        victim.kill()
        victim.join(PATIENCE_S)

    def waiting(self) -> list[str]:
        """Sellers who must authorize again."""
        with closing(self.fixtures.open_state()) as state, state.read() as connection:
            return [seller.seller_id for seller in sellers.find(connection) if seller.blocked_by]


def _extract_and_stop(fixtures: Fixtures, pipe: Connection) -> None:
    logging.disable(logging.CRITICAL)

    async def stop(*_given: Any) -> bool:
        pipe.send("it has the answer")
        await asyncio.sleep(PATIENCE_S)
        return False

    PairStorage.store = stop  # type: ignore[method-assign]  # only in this process, which is killed
    run_step(fixtures.resources(), "extract", "killed")


@contextmanager
def orphanage(folder: Path, url: str, *, grace_s: float = 0.0) -> Iterator[Orphanage]:
    clock = Clock(folder / "clock")
    options = SandboxOptions(
        sellers=SELLERS,
        requests_per_second=1e6,
        burst=10**6,
        refresh_grace_s=grace_s,
        revoke_on_reuse=not grace_s,
    )
    with running(options, clock=clock.now, monotonic=clock.elapsed_s) as sandbox:
        yield Orphanage(Fixtures.of(folder, sandbox, clock, state_url=url), clock, sandbox)
