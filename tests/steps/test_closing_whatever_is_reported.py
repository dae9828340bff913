"""Whatever sellers report, each order closes exactly when and as it should, and its faults are reported once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from closing_oracle import Fault, closes_as, faults
from env import BAD_NUMBER, SELLER, open_env
from exploring import examples
from hypothesis import given
from hypothesis import strategies as st
from order_samples import good_line
from seller_moves import ANYTHING, MISTYPED, NOTHING, RIGHT, TOO_MANY, moves
from warehouse_units import shows_the_truth, units_add_up

# What becomes of the orders of one example, (first report, waived, changed once more); a step costs hardly more for
# all of them than for one.
FATES = (
    (RIGHT, False, False),
    (RIGHT, False, True),
    (RIGHT, False, True),
    (MISTYPED, False, False),
    (MISTYPED, True, False),
    (TOO_MANY, False, False),
    (TOO_MANY, True, False),
    (NOTHING, False, True),
    (ANYTHING, False, False),
    (ANYTHING, True, False),
    (ANYTHING, True, False),
    (ANYTHING, True, True),
)


@dataclass(frozen=True)
class Story:
    """One order: what was ordered, what its seller reports, whether a person overrules what is found, what changes."""

    lines: list[dict[str, Any]]
    is_pending: bool
    first: list[dict[str, Any]]
    is_waived: bool
    then: list[dict[str, Any]] | None

    @property
    def state(self) -> str:
        return "PENDING" if self.is_pending else "AWAITING_SHIPMENT"


@st.composite
def stories(draw: st.DrawFn, kind: str, is_waived: bool, changes: bool) -> Story:
    units = draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
    lines = [good_line(mp_line_number=f"line-{i}", quantity=quantity) for i, quantity in enumerate(units, 1)]
    order = {"order_lines": lines}
    return Story(
        lines,
        draw(st.sampled_from([False, False, False, True])),
        draw(moves(order, kind)),
        is_waived,
        draw(moves(order)) if changes else None,
    )


@examples(5)
@given(told=st.tuples(*(stories(*fate) for fate in FATES)))
def test_an_order_closes_exactly_when_its_fresh_snapshot_says_so(told: tuple[Story, ...]) -> None:
    by_number = {f"M-{i}": story for i, story in enumerate(told, 1)}
    with open_env(sellers=1) as env:

        def blocking(number: str) -> set[Fault]:
            found = faults(env.shown(number), bad_numbers=[BAD_NUMBER])
            return {fault for fault in found if fault.finding_id(SELLER, number) not in waived[number]}

        def closing_now() -> dict[str, str | None]:
            return {number: closes_as(env.shown(number), blocking(number)) for number in by_number}

        bodies = [
            env.body(number, order_lines=story.lines, marketplace_state=story.state)
            for number, story in by_number.items()
        ]
        waived: dict[str, set[str]] = {number: set() for number in by_number}
        env.drop("orders.jsonl", *bodies)
        env.intake()
        env.place()
        for number, story in by_number.items():
            env.sandbox.set_fulfillments(SELLER, number, story.first)
        env.read()
        units_add_up(env)
        env.validate()
        for number, story in by_number.items():
            assert len(env.shown(number)["errors"]) == len(blocking(number)), story
            if story.is_waived:
                env.waive(number)
                waived[number] = {finding.finding_id for finding in env.findings(number)}
        env.validate()

        was_closable = closing_now()
        for number, story in by_number.items():
            if story.then is not None:
                env.sandbox.set_fulfillments(SELLER, number, story.then)
        expected = {n: state if was_closable[n] else None for n, state in closing_now().items()}
        env.close()
        for number, story in by_number.items():
            assert env.shown(number)["marketplace_state"] == (expected[number] or story.state), story

        env.read()
        env.process()
        env.load()
        assert not any(closing_now().values()), "closable, and not closed"
        units_add_up(env)
        shows_the_truth(env, env.sandbox.orders(SELLER))
        overruled = {"closed_with_open_error"} if any(waived.values()) else set()
        assert {broken.rule for broken in env.sandbox.broken_rules} <= overruled
