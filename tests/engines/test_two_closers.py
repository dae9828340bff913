"""Two processes close the orders of one seller, who changes units between their reads: each is closed once, none is lost."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import pytest
from env import SELLER, open_env, shipment
from warehouse_units import FINAL

from feedamp.state import State
from feedamp.steps.process_fulfillments.close import _Closer, close

NUMBERS = [f"M-{number}" for number in range(12)]


@pytest.mark.parametrize("taken_back", [NUMBERS[::2], NUMBERS], ids=["of half the orders", "of all"])
def test_units_that_change_between_two_reads_close_no_order_twice(url, taken_back, monkeypatch):
    with open_env(sellers=1, state_url=url) as env:
        env.placed(*NUMBERS)
        for number in NUMBERS:
            env.fulfill(number, shipment(2))
        env.see(*NUMBERS)
        env.validate()
        placed = len(env.asked("PUT"))
        # So slow that both have decided on an order before either has closed it.
        env.sandbox.world.options = replace(env.sandbox.world.options, latency_s=0.4)
        # Each on its own: the first reads, then the seller takes units back, then the second reads, and both go on.
        read, turns, both = _Closer._read_by_number, iter((1, 2)), threading.Barrier(2, timeout=60)
        first_has_read = threading.Event()

        async def in_turn(self, numbers):
            if self not in closers:
                closers[self] = next(turns)
            if closers[self] == 2 and not first_has_read.is_set():
                await asyncio.to_thread(first_has_read.wait, 60)
            found = await read(self, numbers)
            if closers[self] == 1 and not first_has_read.is_set():
                for number in taken_back:
                    env.fulfill(number, shipment(1))
                first_has_read.set()
            if self not in met:
                met.add(self)
                await asyncio.to_thread(both.wait)
            return found

        closers, met = {}, set()
        with monkeypatch.context() as patch, closing(State(str(url), clock=env.clock.now)) as other:
            patch.setattr(_Closer, "_read_by_number", in_turn)

            def work(state: State) -> list[str]:
                resources, run = replace(env.resources, state=state), env.run("process_fulfillments")
                return asyncio.run(close(resources, run, 0, [SELLER])).undone

            with ThreadPoolExecutor(2) as threads:
                left = list(threads.map(work, (env.state, other)))
        assert (left, len(met)) == ([[], []], 2)
        for number in taken_back:
            if env.shown(number)["marketplace_state"] not in FINAL:
                env.fulfill(number, shipment(2))
        env.read()
        env.process()
        env.load()
        closings = Counter(request.path.rpartition("/")[2] for request in env.asked("PUT")[placed:])
        assert closings == dict.fromkeys(NUMBERS, 1)
        assert {env.order(number).phase for number in NUMBERS} == {"closed"}
        found = env.rows("SELECT mp_order_number FROM closures ORDER BY ALL")
        assert [number for (number,) in found] == sorted(NUMBERS)
