"""How many units are ordered, shipped, cancelled, open or too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedamp.models import Cancellation, LineFulfillment, Shipment
from feedamp.rules.units import LineUnits, count_units

LINES = st.sampled_from(["L-1", "L-2", "L-3"])
QUANTITIES = st.one_of(st.none(), st.integers(-3, 9))
ENTRIES = st.builds(
    LineFulfillment,
    mp_line_number=LINES,
    shipments=st.lists(st.builds(Shipment, quantity=QUANTITIES), max_size=3).map(tuple),
    cancellations=st.lists(st.builds(Cancellation, quantity=QUANTITIES), max_size=2).map(tuple),
)
ORDERED = st.dictionaries(LINES, st.integers(0, 9), max_size=3)


@given(ordered=ORDERED, entries=st.lists(ENTRIES, max_size=5))
def test_shipped_cancelled_and_open_less_the_surplus_are_the_ordered_units(
    ordered: dict[str, int], entries: list[LineFulfillment]
) -> None:
    for line, units in count_units(ordered, entries).items():
        assert units.shipped + units.cancelled + units.pending - units.over == ordered.get(line, 0)
        assert min(units.shipped, units.cancelled, units.pending, units.over) >= 0


@given(ordered=ORDERED, entries=st.lists(ENTRIES, max_size=5))
def test_no_line_is_lost(ordered: dict[str, int], entries: list[LineFulfillment]) -> None:
    counted = count_units(ordered, entries)
    assert counted.keys() == ordered.keys() | {entry.mp_line_number for entry in entries}


@given(
    ordered=ORDERED,
    pair=st.lists(ENTRIES, max_size=5).flatmap(lambda e: st.tuples(st.just(e), st.permutations(e))),
)
def test_the_order_of_entries_does_not_matter(
    ordered: dict[str, int], pair: tuple[list[LineFulfillment], list[LineFulfillment]]
) -> None:
    assert count_units(ordered, pair[0]) == count_units(ordered, pair[1])


@pytest.mark.parametrize(
    ("units", "settled"),
    [
        pytest.param(LineUnits(2, 2, 0), True, id="all shipped"),
        pytest.param(LineUnits(2, 0, 2), True, id="all cancelled"),
        pytest.param(LineUnits(2, 1, 1), True, id="one of each"),
        pytest.param(LineUnits(2, 1, 0), False, id="one still open"),
        pytest.param(LineUnits(2, 2, 1), False, id="one too many"),
        pytest.param(LineUnits(0, 1, 0), False, id="shipped without being ordered"),
    ],
)
def test_a_line_is_settled_by_exactly_the_ordered_units(units: LineUnits, settled: bool) -> None:
    assert units.settled is settled


@pytest.mark.parametrize(
    "quantity", [pytest.param(0, id="zero"), pytest.param(-2, id="negative"), pytest.param(None, id="broken")]
)
def test_a_bad_quantity_is_no_unit(quantity: int | None) -> None:
    entry = LineFulfillment(
        mp_line_number="L-1", shipments=(Shipment(quantity=quantity), Shipment(quantity=1))
    )
    assert count_units({"L-1": 2}, [entry])["L-1"].shipped == 1
