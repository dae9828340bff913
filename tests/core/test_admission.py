"""What a delivered order means for the ledger: docs/rules.md, Intake, as a table."""

from __future__ import annotations

import pytest
from deliveries import EARLIER, NOTHING_SEEN, NOW, TWO_SHIPPED, placed, row, taken

from feedamp.inbox import OrderRow
from feedamp.rules.intake import (
    Admission,
    ObservedState,
    admit,
)
from feedamp.rules.order import (
    CANCELLED,
    PENDING,
    SHIPPED,
    LedgerOrder,
)

SHIPS_ITSELF = ObservedState(is_marketplace_fulfilled=True)


def outcome(admission: Admission) -> tuple[str | None, str | None, list[str], bool]:
    """Phase and desired state of the order to write, the codes to record, and whether the row was rejected."""
    order = admission.order
    codes = [reason.code for reason in admission.reasons]
    return order and order.phase, order and order.desired_state, codes, admission.rejected


PUT_SENT = {"first_put_at": EARLIER}


CLOSED = {"phase": "closed", "accepted_state": SHIPPED, "desired_state": SHIPPED}


NEW_BODY = {"currency": "EUR"}


@pytest.mark.parametrize(
    ("known", "came", "seen", "expected"),
    [
        pytest.param(
            None, row(), NOTHING_SEEN, ("to_place", "AWAITING_SHIPMENT", [], False), id="first seen, released"
        ),
        pytest.param(
            None, row(PENDING), NOTHING_SEEN, ("to_place", "PENDING", [], False), id="first seen, pending"
        ),
        pytest.param(
            None,
            row(SHIPPED),
            NOTHING_SEEN,
            (None, None, ["illegal_transition"], True),
            id="first seen as SHIPPED",
        ),
        pytest.param(
            None,
            row(CANCELLED),
            NOTHING_SEEN,
            (None, None, ["illegal_transition"], True),
            id="first seen as CANCELLED",
        ),
        pytest.param(placed(), row(), NOTHING_SEEN, (None, None, [], False), id="the same again"),
        pytest.param(
            placed(**CLOSED), row(), NOTHING_SEEN, (None, None, [], False), id="the same again, closed since"
        ),
        pytest.param(
            placed(PENDING),
            row(),
            NOTHING_SEEN,
            ("to_place", "AWAITING_SHIPMENT", [], False),
            id="pending is released",
        ),
        pytest.param(
            placed(PENDING),
            row(CANCELLED),
            NOTHING_SEEN,
            ("to_place", "CANCELLED", [], False),
            id="pending is cancelled",
        ),
        pytest.param(
            placed(),
            row(CANCELLED),
            NOTHING_SEEN,
            ("to_place", "CANCELLED", [], False),
            id="released is cancelled",
        ),
        pytest.param(
            placed(),
            row(**NEW_BODY),
            NOTHING_SEEN,
            ("settled", "AWAITING_SHIPMENT", ["body_changed"], False),
            id="other body, same state",
        ),
        pytest.param(
            placed(PENDING),
            row(**NEW_BODY),
            NOTHING_SEEN,
            ("to_place", "AWAITING_SHIPMENT", ["body_changed"], False),
            id="other body, released",
        ),
        pytest.param(
            placed(),
            row(PENDING, **NEW_BODY),
            NOTHING_SEEN,
            (None, None, ["body_changed", "illegal_transition"], True),
            id="other body and backward: both reasons at once",
        ),
        pytest.param(
            placed(),
            row(PENDING),
            NOTHING_SEEN,
            (None, None, ["illegal_transition"], True),
            id="backward to PENDING",
        ),
        pytest.param(
            placed(**CLOSED),
            row(CANCELLED),
            NOTHING_SEEN,
            (None, None, ["illegal_transition"], True),
            id="cancelled after it was closed",
        ),
        pytest.param(
            placed(),
            row(SHIPPED),
            NOTHING_SEEN,
            (None, None, ["illegal_transition"], True),
            id="SHIPPED from the inbox for an order that the seller ships",
        ),
        pytest.param(
            placed(),
            row(SHIPPED),
            SHIPS_ITSELF,
            ("to_place", "SHIPPED", [], False),
            id="SHIPPED from the inbox for an order that the marketplace ships",
        ),
        pytest.param(
            placed(PENDING),
            row(SHIPPED),
            SHIPS_ITSELF,
            (None, None, ["illegal_transition"], True),
            id="SHIPPED before it was released",
        ),
        pytest.param(
            placed(),
            row(CANCELLED),
            TWO_SHIPPED,
            ("held", "AWAITING_SHIPMENT", [], False),
            id="cancelled while units are shipped",
        ),
        pytest.param(
            taken(),
            row(CANCELLED),
            NOTHING_SEEN,
            ("never_placed", "CANCELLED", [], False),
            id="cancelled before the first PUT",
        ),
        pytest.param(
            taken(**PUT_SENT),
            row(CANCELLED),
            NOTHING_SEEN,
            ("to_place", "CANCELLED", [], False),
            id="cancelled after a PUT without answer",
        ),
        pytest.param(
            taken(phase="refused", **PUT_SENT),
            row(CANCELLED),
            NOTHING_SEEN,
            ("never_placed", "CANCELLED", [], False),
            id="cancelled after FeedAMP refused it",
        ),
        pytest.param(
            taken(phase="never_placed", desired_state=CANCELLED),
            row(PENDING),
            NOTHING_SEEN,
            (None, None, ["illegal_transition"], True),
            id="pending again after it was cancelled unplaced",
        ),
        pytest.param(
            taken(phase="refused", **PUT_SENT),
            row(),
            NOTHING_SEEN,
            (None, None, [], False),
            id="refused, the same again: nothing is repeated",
        ),
        pytest.param(
            taken(phase="refused", reason="no such currency", attempts=3, **PUT_SENT),
            row(**NEW_BODY),
            NOTHING_SEEN,
            ("to_place", "AWAITING_SHIPMENT", [], False),
            id="refused, then corrected",
        ),
        pytest.param(
            taken(),
            row(**NEW_BODY),
            NOTHING_SEEN,
            ("to_place", "AWAITING_SHIPMENT", ["body_changed"], False),
            id="other body before the first PUT",
        ),
        pytest.param(
            taken(**PUT_SENT),
            row(**NEW_BODY),
            NOTHING_SEEN,
            ("to_place", "AWAITING_SHIPMENT", ["body_changed"], False),
            id="other body after a PUT without answer",
        ),
    ],
)
def test_a_delivered_row_is_taken_or_turned_away(
    known: LedgerOrder | None,
    came: OrderRow,
    seen: ObservedState,
    expected: tuple[str | None, str | None, list[str], bool],
) -> None:
    assert outcome(admit(came, known, seen, now=NOW)) == expected


@pytest.mark.parametrize(
    ("known", "came", "is_note"),
    [
        pytest.param(placed(**CLOSED), row(CANCELLED), True, id="cancelled after it was closed"),
        pytest.param(placed(**CLOSED), row(CANCELLED, **NEW_BODY), True, id="and with another body"),
        pytest.param(placed(**CLOSED), row(PENDING), False, id="pending after it was closed"),
        pytest.param(placed(), row(PENDING), False, id="backward to PENDING"),
        pytest.param(None, row(CANCELLED), False, id="first seen as CANCELLED"),
    ],
)
def test_a_cancellation_after_the_end_requires_no_action(
    known: LedgerOrder | None, came: OrderRow, is_note: bool
) -> None:
    admission = admit(came, known, NOTHING_SEEN, now=NOW)
    assert admission.rejected
    assert (admission.note is not None, admission.is_turned_away) == (is_note, not is_note)
