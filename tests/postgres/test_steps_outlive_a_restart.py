"""Promise 14: a crash of the database server in the middle of any step costs time only, and nothing is sent twice."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from env import BAD_NUMBER, OTHER, SELLER, open_env, shipment
from postgres import Server
from postgres_warehouses import address_of

from feedamp.state import State, overview
from feedamp.steps.compact import compact
from feedamp.steps.completeness_proof.verify import verify
from feedamp.steps.step_result import StepResult
from feedamp.warehouse.postgres import PostgresWarehouse

AWAY_S = 0.3


class Outages:
    """Crashes the server just before a statement of the state, and starts it again a moment later."""

    def __init__(self, server: Server, state: State) -> None:
        self._server = server
        self._pattern: re.Pattern[str] | None = None
        self._return = threading.Thread()
        sa.event.listen(state.engine, "before_cursor_execute", self._look)

    @contextmanager
    def at(self, pattern: str) -> Iterator[None]:
        """At the first statement that matches the pattern; there must be one in the block."""
        self._pattern = re.compile(pattern, re.DOTALL)
        yield
        assert self._pattern is None, f"no statement matched {pattern}"
        self._return.join()

    def _look(self, *arguments: Any) -> None:
        if self._pattern is not None and self._pattern.match(arguments[2]):
            self._pattern = None
            self._server.crash()
            self._return = threading.Thread(target=self._start)
            self._return.start()

    def _start(self) -> None:
        time.sleep(AWAY_S)
        self._server.start()


def test_every_step_outlives_a_crash_of_state_and_warehouse(server: Server, tmp_path: Path) -> None:
    with open_env(tmp_path, state_url=server.lasting_database()) as env:
        warehouse = PostgresWarehouse(address_of(server.lasting_database()), lock_wait_s=5.0)
        env.resources = replace(env.resources, warehouse=warehouse)
        outages = Outages(server, env.state)

        def whole(pattern: str, step: Callable[[], StepResult]) -> StepResult:
            with outages.at(pattern):
                result = step()
            assert (result.undone, result.complete) == ([], True), pattern
            return result

        for seller in (SELLER, OTHER):
            env.drop(f"{seller}.jsonl", *(env.body(f"M-{n}") for n in range(3)), seller=seller)
        env.intake()
        whole("INSERT INTO outbox", env.place)  # after FeedAMP accepted an order
        with outages.at("DELETE FROM outbox"):  # the first of several manifests is in the warehouse
            env.load()
        env.fulfill("M-0", shipment())
        env.fulfill("M-1", shipment(number=BAD_NUMBER))
        env.fulfill("M-2", cancelled=2)
        env.clock.skip(minutes=2)
        whole("INSERT INTO manifests", env.extract)
        env.load()
        whole("UPDATE findings|INSERT INTO findings", env.validate)
        whole("INSERT INTO outbox", env.close)  # after FeedAMP accepted a final state
        whole("INSERT INTO outbox", env.reconcile)
        env.clock.skip(days=31)
        whole("UPDATE grants", env.refresh)
        env.read()
        with outages.at("SELECT .*FROM orders"):
            proof = asyncio.run(verify(env.resources, env.run("verify")))
        assert proof.is_whole
        with outages.at("INSERT INTO manifests"):
            compact(env.resources, env.run("compact"), before=(env.state.now() + timedelta(days=1)).date())

        sent = Counter(r.path.rpartition("orders/")[2] for r in env.asked("PUT") + env.asked("POST"))
        # Two sellers placed each order; one of them closed two and reported on one.
        assert sent == {"M-0": 3, "M-1": 2, "M-2": 3, "M-1/errors": 1}
        with env.state.read() as connection:
            assert overview.count_by_phase(connection) == {"closed": 2, "settled": 4}
        assert env.sandbox.broken_rules == []
