"""Every phase of the ledger against what FeedAMP shows: what a repair does, and when it requires action."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from feedamp.models import Order
from feedamp.rules.comparison import Difference
from feedamp.rules.order import LedgerOrder
from feedamp.rules.repair import (
    Action,
    decide_repair,
    is_about_content,
    is_mended,
)
from feedamp.rules.stored_body import OBSERVED

MOMENT = datetime(2026, 3, 2, tzinfo=UTC)
P, A, S, C = "PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED"


def ours(phase: str, accepted: str | None, desired: str | None = None, **changes: Any) -> LedgerOrder:
    fields: dict[str, Any] = {
        "seller_id": "S1",
        "mp_order_number": "M-1",
        "phase": phase,
        "body": {"order_lines": [{"mp_line_number": "A", "quantity": 2}]},
        "body_hash": "h",
        "desired_state": desired or accepted or A,
        "accepted_state": accepted,
        "delivered": (),
        "purchase_date": MOMENT,
        "source": "a.jsonl",
        "source_row": 1,
        "row_hash": "h",
        "taken_at": MOMENT,
    }
    return LedgerOrder(**fields | changes)


def shown(state: str | None, status: str | None = "IN_PROGRESS", **changes: Any) -> Order:
    return Order(**{"mp_order_number": "M-1", "marketplace_state": state, "status": status} | changes)


CLOSED_BY_US = {"closing_state": S, "closing_at": MOMENT, "closed_at": MOMENT}
FROM_INBOX = {"closed_at": MOMENT}

LOST = [
    pytest.param(None, Action.LEAVE, id="not in the ledger"),
    pytest.param(ours("to_place", None), Action.AGREE, id="not placed yet"),
    pytest.param(ours("to_place", P, A), Action.SEND, id="its release is on its way"),
    pytest.param(ours("to_place", A, C), Action.LEAVE, id="its cancellation is on its way"),
    pytest.param(ours("settled", P), Action.PLACE_AGAIN, id="pending"),
    pytest.param(ours("settled", A), Action.PLACE_AGAIN, id="released"),
    pytest.param(ours("settled", A, closing_state=S), Action.LEAVE, id="its closing may have been sent"),
    pytest.param(ours("held", A), Action.LEAVE, id="held for a person"),
    pytest.param(ours("refused", None), Action.AGREE, id="refused"),
    pytest.param(ours("never_placed", None), Action.AGREE, id="never placed"),
    pytest.param(ours("closed", S, **CLOSED_BY_US), Action.LEAVE, id="closed by us"),
    pytest.param(ours("closed", C, **FROM_INBOX), Action.LEAVE, id="cancelled by the marketplace"),
    pytest.param(ours("settled", S), Action.LEAVE, id="final by its state, whatever its phase says"),
]


@pytest.mark.parametrize(("order", "action"), LOST)
def test_what_feedamp_lost(order: LedgerOrder | None, action: Action) -> None:
    assert decide_repair(order, None, seller_has_acted=False).action is action


@pytest.mark.parametrize("phase", ["to_place", "settled", "held", "closed"])
def test_what_the_seller_has_begun_to_fulfill_is_never_placed_again(phase: str) -> None:
    assert decide_repair(ours(phase, A), None, seller_has_acted=True).action is Action.LEAVE


FINAL = [
    pytest.param(None, shown(S), Action.AGREE, id="not in the ledger"),
    pytest.param(ours("to_place", None), shown(S), Action.CLOSE, id="not confirmed as placed"),
    pytest.param(ours("to_place", A, C), shown(C), Action.SEND, id="as the change on its way wants it"),
    pytest.param(ours("to_place", A, C), shown(S), Action.CLOSE, id="another than the change on its way"),
    pytest.param(ours("settled", A), shown(S), Action.CLOSE, id="shipped there, open here"),
    pytest.param(ours("settled", A), shown(None, "COMPLETE"), Action.CLOSE, id="complete there, open here"),
    pytest.param(ours("settled", S), shown(S), Action.CLOSE, id="only the phase is wrong"),
    pytest.param(ours("held", A), shown(C), Action.CLOSE, id="held"),
    pytest.param(ours("refused", None), shown(S), Action.LEAVE, id="refused"),
    pytest.param(ours("never_placed", None), shown(C), Action.LEAVE, id="never placed"),
    pytest.param(ours("closed", S), shown(S), Action.AGREE, id="closed as the same"),
    pytest.param(ours("closed", S), shown(None, "COMPLETE"), Action.AGREE, id="closed, and complete there"),
    pytest.param(ours("closed", S), shown(C), Action.CLOSE, id="closed as something else"),
    pytest.param(ours("closed", A), shown(S), Action.CLOSE, id="closed with the state of an open order"),
]


@pytest.mark.parametrize(("order", "feedamp", "action"), FINAL)
def test_what_is_final_at_feedamp(order: LedgerOrder | None, feedamp: Order, action: Action) -> None:
    assert decide_repair(order, feedamp, seller_has_acted=True).action is action


OPEN = [
    pytest.param(None, shown(A), Action.AGREE, id="not in the ledger"),
    pytest.param(ours("to_place", None), shown(A), Action.AGREE, id="not confirmed as placed"),
    pytest.param(ours("to_place", P, A), shown(P), Action.AGREE, id="a change is on its way"),
    pytest.param(ours("to_place", P, A), shown(A), Action.SEND, id="a change has arrived unconfirmed"),
    pytest.param(ours("to_place", A, C), shown(P), Action.LEAVE, id="neither before nor after the change"),
    pytest.param(ours("settled", A), shown(A), Action.AGREE, id="as the ledger has it"),
    pytest.param(ours("settled", A), shown(None), Action.AGREE, id="no state shown"),
    pytest.param(ours("settled", P), shown(A), Action.ADOPT, id="ahead of the ledger"),
    pytest.param(ours("settled", A), shown(P), Action.SEND_AGAIN, id="behind the ledger"),
    pytest.param(ours("settled", A), shown("FROZEN"), Action.LEAVE, id="a state we do not know"),
    pytest.param(ours("settled", S), shown(A), Action.REOPEN, id="open, with a final state in the ledger"),
    pytest.param(ours("held", P), shown(A), Action.ADOPT, id="held"),
    pytest.param(ours("refused", None), shown(A), Action.LEAVE, id="refused"),
    pytest.param(ours("never_placed", None), shown(A), Action.LEAVE, id="never placed"),
    pytest.param(ours("closed", S, **CLOSED_BY_US), shown(A), Action.REOPEN, id="closed by us"),
    pytest.param(ours("closed", S), shown(A), Action.REOPEN, id="closed elsewhere"),
    pytest.param(
        ours("closed", C, **FROM_INBOX), shown(A), Action.SEND_AGAIN, id="cancelled by the marketplace"
    ),
    pytest.param(
        ours("closed", S, **FROM_INBOX),
        shown(A, is_marketplace_fulfilled=True),
        Action.SEND_AGAIN,
        id="shipped by the marketplace itself",
    ),
    pytest.param(
        ours("closed", S, **FROM_INBOX),
        shown(A, is_marketplace_fulfilled=False),
        Action.REOPEN,
        id="shipped by the inbox, but not the marketplace's to ship",
    ),
    pytest.param(ours("closed", A), shown(A), Action.REOPEN, id="only the phase is wrong"),
]


@pytest.mark.parametrize(("order", "feedamp", "action"), OPEN)
def test_what_is_open_at_feedamp(order: LedgerOrder | None, feedamp: Order, action: Action) -> None:
    assert decide_repair(order, feedamp, seller_has_acted=False).action is action


@pytest.mark.parametrize(
    ("order", "feedamp"),
    [
        pytest.param(ours("settled", A, body_kind=OBSERVED), None, id="lost"),
        pytest.param(ours("settled", A, body_kind=OBSERVED), shown(P), id="its release lost"),
    ],
)
def test_an_order_without_a_body_of_ours_is_not_sent(order: LedgerOrder, feedamp: Order | None) -> None:
    assert decide_repair(order, feedamp, seller_has_acted=False).action is Action.LEAVE


def test_whatever_is_left_to_a_person_says_why_and_nothing_else_does() -> None:
    cases = [(p.values[0], None) for p in LOST] + [p.values[:2] for p in (*FINAL, *OPEN)]
    for order, feedamp in cases:
        repair = decide_repair(order, feedamp, seller_has_acted=False)
        assert (repair.reason is not None) == (repair.action is Action.LEAVE)


STATE = ("marketplace_state",)
QUANTITY = ("order_lines", "A", "quantity")


@pytest.mark.parametrize(
    ("difference", "alone", "followed"),
    [
        pytest.param(Difference(STATE, "a", "b", "b"), False, True, id="the ledger's state"),
        pytest.param(Difference(STATE, "a", "b", "a"), False, True, id="the state of ledger and warehouse"),
        pytest.param(Difference(STATE, "b", "b", "a"), True, True, id="the warehouse's state"),
        pytest.param(Difference(("closed",), "no", "yes", None), False, True, id="the closing"),
        pytest.param(
            Difference(("order",), "present", "present", "missing"), True, True, id="lost by the warehouse"
        ),
        pytest.param(
            Difference(("order",), "present", "missing", "present"), False, True, id="lost by FeedAMP"
        ),
        pytest.param(
            Difference(("order",), "missing", "present", "present"), False, False, id="never placed"
        ),
        pytest.param(Difference(QUANTITY, "1", "2", "2"), False, False, id="what was ordered"),
        pytest.param(Difference(QUANTITY, "2", "2", "1"), True, True, id="the warehouse's quantity"),
    ],
)
def test_a_difference_is_gone_when_all_agree_with_feedamp(
    difference: Difference, alone: bool, followed: bool
) -> None:
    assert is_mended(difference, ledger_follows=False) is alone
    assert is_mended(difference, ledger_follows=True) is followed


def test_only_lines_that_were_placed_are_about_content() -> None:
    assert is_about_content(Difference(QUANTITY, "1", "2", "2"))
    assert not is_about_content(Difference(QUANTITY, "2", "2", "1"))
    assert not is_about_content(Difference(STATE, "a", "b", "b"))
