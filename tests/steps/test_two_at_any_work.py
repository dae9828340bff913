"""The steps of two processes on one state file, interleaved in any order, have the result of sequential runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from closing_oracle import closes_as, faults
from env import BAD_NUMBER, GOOD_NUMBER, SELLER, Env, open_env, shipment
from exploring import examples
from hypothesis import given
from hypothesis import strategies as st
from warehouse_units import FINAL, shows_the_truth, units_add_up

from feedamp.resources import Resources
from feedamp.state import State
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.steps.load import load
from feedamp.steps.place_orders.place import place
from feedamp.steps.place_orders.read_inbox import intake
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.validate import validate

NUMBERS = ("M-1", "M-2", "M-3")
ASYNC = {"place": place, "extract": extract, "validate": validate, "close": close}
STEPS = st.sampled_from(["intake", "load", *ASYNC, *ASYNC])
SHIPPED = st.builds(
    shipment, st.sampled_from([1, 2, 2, 2, 3]), st.sampled_from([GOOD_NUMBER, GOOD_NUMBER, BAD_NUMBER])
)
AT_ONCE = ("validate", "close")  # both begin with a report and a closing that only one may send
# What is delivered, and what sellers write, between two steps of one of them.
NEWS = st.tuples(
    st.sampled_from(NUMBERS),
    st.one_of(st.sampled_from(["PENDING", "AWAITING_SHIPMENT"]), st.lists(SHIPPED, max_size=1)),
)
SCRIPTS = st.lists(st.one_of(STEPS, STEPS, NEWS), min_size=4, max_size=10)


async def one_process(env: Env, resources: Resources, script: Sequence[Any]) -> None:
    """The steps of a script; while one waits for FeedAMP, those of the other process go on."""
    for step in script:
        await asyncio.sleep(0)
        if step == "intake":
            intake(resources, env.run("place_orders"))
        elif step == "load":
            load(resources, env.run("load"))
        elif isinstance(step, str):
            await ASYNC[step](resources, env.run(step), 0, [SELLER])
        else:
            tell(env, *step)


def tell(env: Env, number: str, news: Any) -> None:
    order = env.sandbox.orders(SELLER).get(number)
    if isinstance(news, str):
        env._files += 1
        env.drop(f"{env._files:04d}.jsonl", env.body(number, marketplace_state=news))
    elif order is not None and order["marketplace_state"] not in FINAL:
        env.fulfill(number, *news)


@examples(6)
@given(one=SCRIPTS, other=SCRIPTS)
def test_steps_of_two_processes_in_any_order_end_as_one_after_the_other(
    one: list[Any], other: list[Any]
) -> None:
    with open_env(sellers=1) as env:
        env.placed("M-1", "M-2")
        env.fulfill("M-1", shipment(2))
        env.fulfill("M-2", shipment(2, BAD_NUMBER))
        env.read()
        with closing(State(f"sqlite:///{env.folder / 'state.db'}", clock=env.clock.now)) as second:
            resources = replace(env.resources, state=second)

            async def both() -> None:
                await asyncio.gather(
                    one_process(env, env.resources, [*AT_ONCE, *one]),
                    one_process(env, resources, [*AT_ONCE, *other]),
                )

            asyncio.run(both())
        for _ in range(2):
            env.clock.skip(hours=26)
            env.loop()

        truth = env.sandbox.orders(SELLER)
        for number, order in truth.items():
            found = set(faults(order, bad_numbers=[BAD_NUMBER]))
            assert closes_as(order, found) is None, f"{number} is not closed"
            assert (env.order(number).phase == "closed") == (order["marketplace_state"] in FINAL)
            if order["marketplace_state"] not in FINAL:
                assert len(order["errors"]) == len(found)
            closings = list(env.rows(f"SELECT * FROM closures WHERE mp_order_number = '{number}'"))
            assert len(closings) == (order["marketplace_state"] in FINAL)
        units_add_up(env)
        shows_the_truth(env, truth)
        assert env.sandbox.broken_rules == []
