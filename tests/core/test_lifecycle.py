"""Legal changes of marketplace_state, and the closing rules as a table (docs/rules.md, Closing)."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from feedamp.models import Cancellation, LineFulfillment, ListedError, MarketplaceState, Shipment, Snapshot
from feedamp.rules.closing import (
    Close,
    OpenOrder,
    Wait,
    decide_close,
    unexplained_errors,
)
from feedamp.rules.order import (
    AWAITING_SHIPMENT,
    CANCELLED,
    PENDING,
    SHIPPED,
    may_follow,
)
from feedamp.rules.units import count_units

Line = tuple[int, int]  # shipped, cancelled
ADD_UP = Wait("units do not add up yet")


def open_order(
    ordered: dict[str, int], done: dict[str, Line], *, state: str | None = AWAITING_SHIPMENT, **changes: Any
) -> OpenOrder:
    """An order that FeedAMP shows with these units done; `changes` are fields of the order or the snapshot."""
    of_order = {name: changes.pop(name) for name in list(changes) if name in OpenOrder.__struct_fields__}
    fulfillments = tuple(
        LineFulfillment(
            mp_line_number=line,
            shipments=(Shipment(quantity=shipped),) if shipped else (),
            cancellations=(Cancellation(quantity=cancelled),) if cancelled else (),
        )
        for line, (shipped, cancelled) in done.items()
    )
    snapshot = Snapshot(
        mp_order_number="M-1",
        marketplace_state=state,
        fulfillments=fulfillments,
        **{"is_marketplace_fulfilled": False} | changes,
    )
    units = count_units(ordered, fulfillments)
    fields = {"ordered": ordered, "units": units, "snapshot": snapshot, "accepted_state": "AWAITING_SHIPMENT"}
    return OpenOrder(**fields | of_order)


ONE, TWO = {"A": 2}, {"A": 2, "B": 1}
WHOLE = {"A": (2, 0)}


@pytest.mark.parametrize(
    ("order", "decision"),
    [
        pytest.param(open_order(ONE, WHOLE), Close(SHIPPED), id="everything shipped"),
        pytest.param(open_order(ONE, {"A": (1, 1)}), Close(SHIPPED), id="part shipped, the rest cancelled"),
        pytest.param(
            open_order(TWO, {"A": (2, 0), "B": (0, 1)}), Close(SHIPPED), id="one line shipped, one cancelled"
        ),
        pytest.param(open_order(ONE, {"A": (0, 2)}), Close(CANCELLED), id="everything cancelled"),
        pytest.param(open_order(ONE, {}), ADD_UP, id="nothing done"),
        pytest.param(open_order(TWO, WHOLE), ADD_UP, id="one line still open"),
        pytest.param(open_order(ONE, {"A": (3, 0)}), ADD_UP, id="more shipped than ordered"),
        pytest.param(open_order(ONE, {"A": (2, 1)}), ADD_UP, id="more accounted for than ordered"),
        pytest.param(
            open_order(TWO, {"A": (3, 0)}), ADD_UP, id="as many units as ordered, but on the wrong line"
        ),
        pytest.param(
            open_order(ONE, {"A": (2, 0), "X": (1, 0)}), ADD_UP, id="a line shipped that was not ordered"
        ),
        pytest.param(open_order({}, {}), ADD_UP, id="an order without lines"),
        pytest.param(
            open_order(ONE, WHOLE, is_marketplace_fulfilled=True),
            Wait("the marketplace ships this order itself"),
            id="the marketplace ships it",
        ),
        pytest.param(
            open_order(ONE, WHOLE, is_marketplace_fulfilled=None),
            Wait("FeedAMP does not say who ships this order"),
            id="not known who ships it",
        ),
        pytest.param(
            open_order(ONE, WHOLE, state=PENDING), Wait("not released for shipping"), id="not released"
        ),
        pytest.param(open_order(ONE, WHOLE, state=SHIPPED), Wait("closed already"), id="closed as SHIPPED"),
        pytest.param(
            open_order(ONE, WHOLE, state=CANCELLED), Wait("closed already"), id="closed as CANCELLED"
        ),
        pytest.param(
            open_order(ONE, WHOLE, state="ON_HOLD"),
            Wait("FeedAMP shows a marketplace_state that is not known", needs_person=True),
            id="an unknown state",
        ),
        pytest.param(
            open_order(ONE, WHOLE, state=None), Close(SHIPPED), id="no state shown, we placed it released"
        ),
        pytest.param(
            open_order(ONE, WHOLE, state=None, accepted_state="PENDING"),
            Wait("not released for shipping"),
            id="no state shown, we placed it pending",
        ),
        pytest.param(
            open_order(ONE, WHOLE, open_errors=1),
            Wait("an error finding is still open"),
            id="an error finding is open",
        ),
        pytest.param(
            open_order(ONE, WHOLE, lingering_errors=1),
            Wait("FeedAMP still lists an error that looks resolved"),
            id="FeedAMP still lists an error",
        ),
        pytest.param(
            open_order(ONE, WHOLE, lingering_errors=1, lingering_too_long=True),
            Wait("FeedAMP still lists an error that looks resolved", needs_person=True),
            id="FeedAMP has listed it too long",
        ),
    ],
)
def test_an_order_closes_only_when_every_unit_is_accounted_for(
    order: OpenOrder, decision: Close | Wait
) -> None:
    assert decide_close(order) == decision


LEGAL = {
    (PENDING, AWAITING_SHIPMENT),
    (PENDING, CANCELLED),
    (AWAITING_SHIPMENT, SHIPPED),
    (AWAITING_SHIPMENT, CANCELLED),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(MarketplaceState, MarketplaceState)))
def test_only_steps_forward_are_legal(before: MarketplaceState, after: MarketplaceState) -> None:
    assert may_follow(before, after) is ((before, after) in LEGAL)


OURS = ListedError(code="C", message="wrong number", mp_line_number="A")


@pytest.mark.parametrize(
    ("listed", "left"),
    [
        pytest.param(None, [], id="no list at all"),
        pytest.param((), [], id="an empty list"),
        pytest.param((OURS,), [], id="the error that we reported"),
        pytest.param(
            (OURS, ListedError(code="C", message="wrong number")),
            [ListedError(code="C", message="wrong number")],
            id="the same words without a line",
        ),
        pytest.param(
            (ListedError(code="D", message="theirs"),),
            [ListedError(code="D", message="theirs")],
            id="an error of someone else",
        ),
    ],
)
def test_errors_beyond_our_own_are_unexplained(
    listed: tuple[ListedError, ...] | None, left: list[ListedError]
) -> None:
    assert unexplained_errors(listed, [("C", "wrong number", "A")]) == left
