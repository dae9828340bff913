"""Whatever sellers report: each order closes exactly when it should, as it should, and its faults are told once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from closing_oracle import Fault, closes_as, faults
from exploring import examples
from house import BAD_NUMBER, SELLER
from hypothesis import given
from hypothesis import strategies as st
from order_samples import good_line
from quick_house import open_quick_house
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
    with open_quick_house(sellers=1) as house:

        def blocking(number: str) -> set[Fault]:
            found = faults(house.shown(number), bad_numbers=[BAD_NUMBER])
            return {fault for fault in found if fault.finding_id(SELLER, number) not in waived[number]}

        def closing_now() -> dict[str, str | None]:
            return {number: closes_as(house.shown(number), blocking(number)) for number in by_number}

        bodies = [
            house.body(number, order_lines=story.lines, marketplace_state=story.state)
            for number, story in by_number.items()
        ]
        waived: dict[str, set[str]] = {number: set() for number in by_number}
        house.drop("orders.jsonl", *bodies)
        house.intake()
        house.place()
        for number, story in by_number.items():
            house.sandbox.set_fulfillments(SELLER, number, story.first)
        house.read()
        units_add_up(house)
        house.validate()
        for number, story in by_number.items():
            assert len(house.shown(number)["errors"]) == len(blocking(number)), story
            if story.is_waived:
                house.waive(number)
                waived[number] = {finding.finding_id for finding in house.findings(number)}
        house.validate()

        was_closable = closing_now()
        for number, story in by_number.items():
            if story.then is not None:
                house.sandbox.set_fulfillments(SELLER, number, story.then)
        expected = {n: state if was_closable[n] else None for n, state in closing_now().items()}
        house.close()
        for number, story in by_number.items():
            assert house.shown(number)["marketplace_state"] == (expected[number] or story.state), story

        house.read()
        house.process()
        house.load()
        assert not any(closing_now().values()), "closable, and not closed"
        units_add_up(house)
        shows_the_truth(house, house.sandbox.orders(SELLER))
        overruled = {"closed_with_open_error"} if any(waived.values()) else set()
        assert {broken.rule for broken in house.sandbox.broken_rules} <= overruled
