"""Which FeedAMP orders are adopted into the ledger, in which phase, and which bodies may be delivered for them later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from order_samples import good_line, good_order

from feedamp.api.decoding import read_order
from feedamp.api.json_fields import Coercions
from feedamp.inbox import OrderRow
from feedamp.rules.adoption import adopt
from feedamp.rules.intake import (
    Admission,
    ObservedState,
    admit,
)
from feedamp.rules.order import LedgerOrder, Phase
from feedamp.rules.stored_body import (
    FULL,
    REDACTED,
    redacted_body,
)

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
EARLIER = datetime(2026, 3, 9, tzinfo=UTC)
NOTHING_SEEN = ObservedState()


def adopted(**changes: Any) -> LedgerOrder | str:
    """The result of adopting the sample order with these fields changed; None omits a field."""
    shown = good_order(
        **{"status": "ORDERED", "is_marketplace_fulfilled": False, "fulfillments": []} | changes
    )
    order = read_order({name: value for name, value in shown.items() if value is not None}, Coercions())
    return adopt("S1", order, now=EARLIER)


def in_ledger(**changes: Any) -> LedgerOrder:
    order = adopted(**changes)
    assert isinstance(order, LedgerOrder)
    return order


def deliver(known: LedgerOrder, seen: ObservedState = NOTHING_SEEN, **changes: Any) -> Admission:
    row = OrderRow("new.jsonl", 7, 1, "hash", "raw", "S1", "M-1", good_order(**changes))
    return admit(row, known, seen, now=NOW)


@pytest.mark.parametrize(
    ("changes", "phase", "state"),
    [
        pytest.param({}, "settled", "AWAITING_SHIPMENT", id="released"),
        pytest.param(
            {"marketplace_state": "PENDING", "status": "PENDING"}, "settled", "PENDING", id="pending"
        ),
        pytest.param({"marketplace_state": "SHIPPED"}, "closed", "SHIPPED", id="shipped"),
        pytest.param({"marketplace_state": "CANCELLED"}, "closed", "CANCELLED", id="cancelled"),
        pytest.param({"status": "COMPLETE"}, "closed", "CANCELLED", id="complete, and nothing was shipped"),
        pytest.param(
            {"marketplace_state": None, "status": "PENDING"},
            "settled",
            "PENDING",
            id="only a status: pending",
        ),
        pytest.param(
            {"marketplace_state": None, "status": "CANCELLED"},
            "settled",
            "AWAITING_SHIPMENT",
            id="only a status: the seller cancelled, the marketplace did not close",
        ),
    ],
)
def test_an_adopted_order_stands_as_feedamp_shows_it(changes, phase, state):
    order = in_ledger(**{"status": "ORDERED"} | changes)
    assert (order.phase, order.desired_state, order.accepted_state) == (phase, state, state)
    assert (order.placed_at, order.adopted_at, order.closed_at) == (EARLIER, EARLIER, None)
    assert order.ended_at == (EARLIER if phase == "closed" else None)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"purchase_date": None}, id="no purchase date"),
        pytest.param({"order_lines": []}, id="no lines"),
        pytest.param({"order_lines": [{"mp_line_number": "1"}]}, id="a line without a quantity"),
        pytest.param({"order_lines": [good_line(quantity=0)]}, id="a line of no units"),
        pytest.param({"order_lines": [good_line(), good_line()]}, id="two lines of one number"),
        pytest.param({"marketplace_state": "ON_HOLD"}, id="a state that is not known"),
        pytest.param(
            {"marketplace_state": None, "status": "PAUSED"}, id="no state, and a status that is not known"
        ),
    ],
)
def test_an_order_that_cannot_be_followed_is_not_adopted(changes):
    assert isinstance(adopted(**changes), str)


def test_units_come_from_what_feedamp_shows():
    assert in_ledger().ordered == {"M-1-1": 4}


def test_what_feedamp_shows_is_never_sent_as_a_body():
    with pytest.raises(ValueError, match="no body"):
        in_ledger().put_body("SHIPPED")


def test_a_closed_one_keeps_no_customer_field():
    assert in_ledger().body["shipping_address"]["full_name"] == "Robin Vale"
    assert "Robin" not in repr(in_ledger(marketplace_state="SHIPPED").body)


def test_a_delivery_equal_to_the_placed_order_becomes_its_body_without_a_put():
    admission = deliver(in_ledger())
    assert admission.order is not None
    assert (admission.reasons, admission.order.phase, admission.order.body_kind) == ((), "settled", FULL)
    assert admission.order.put_body("SHIPPED") == good_order(marketplace_state="SHIPPED")
    assert (admission.order.source, admission.order.source_row) == ("new.jsonl", 7)
    assert deliver(admission.order) == Admission()


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        pytest.param({"currency": "EUR"}, ["currency"], id="currency"),
        pytest.param({"purchase_date": "2026-03-02T14:05:01Z"}, ["purchase_date"], id="purchase date"),
        pytest.param({"sales_channel": "other"}, ["sales_channel"], id="sales channel"),
        pytest.param({"order_lines": [good_line(quantity=3)]}, ["order_lines[0].quantity"], id="quantity"),
        pytest.param(
            {"order_lines": [good_line(mp_line_number="X")]},
            ["order_lines[0].mp_line_number", "order_lines"],
            id="another line",
        ),
        pytest.param(
            {"order_lines": [good_line(), good_line(mp_line_number="X")]},
            ["order_lines[1].mp_line_number"],
            id="a line more",
        ),
        pytest.param(
            {"currency": "EUR", "sales_channel": "other"},
            ["sales_channel", "currency"],
            id="all reasons at once",
        ),
    ],
)
def test_a_body_that_contradicts_feedamp_is_rejected_with_the_fields(changes, fields):
    admission = deliver(in_ledger(), **changes)
    assert (admission.order, admission.rejected) == (None, True)
    assert [(reason.field, reason.code) for reason in admission.reasons] == [
        (f, "body_changed") for f in fields
    ]


def test_what_feedamp_does_not_show_contradicts_nothing():
    assert deliver(in_ledger(currency=None, sales_channel=None)).reasons == ()


@pytest.mark.parametrize(
    ("known", "row", "seen", "phase", "desired"),
    [
        pytest.param(
            {"marketplace_state": "PENDING"},
            {},
            NOTHING_SEEN,
            "to_place",
            "AWAITING_SHIPMENT",
            id="released with its body",
        ),
        pytest.param(
            {},
            {"marketplace_state": "CANCELLED"},
            NOTHING_SEEN,
            "to_place",
            "CANCELLED",
            id="cancelled with its body",
        ),
        pytest.param(
            {},
            {"marketplace_state": "CANCELLED"},
            ObservedState(units_shipped=1),
            "held",
            "AWAITING_SHIPMENT",
            id="cancelled although shipped",
        ),
        pytest.param(
            {},
            {"marketplace_state": "SHIPPED"},
            ObservedState(is_marketplace_fulfilled=True),
            "to_place",
            "SHIPPED",
            id="shipped by the marketplace",
        ),
    ],
)
def test_a_later_legal_state_goes_out_with_the_delivered_body(known, row, seen, phase, desired):
    admission = deliver(in_ledger(**known), seen, **row)
    assert admission.order is not None
    assert (admission.order.phase, admission.order.desired_state) == (phase, desired)
    assert admission.order.has_body


@pytest.mark.parametrize(
    ("known", "row"),
    [
        pytest.param({}, {"marketplace_state": "PENDING"}, id="backward"),
        pytest.param({}, {"marketplace_state": "SHIPPED"}, id="shipped, which is for close to say"),
        pytest.param({"marketplace_state": "SHIPPED"}, {}, id="closed before it was adopted"),
    ],
)
def test_an_illegal_state_is_rejected_and_the_order_waits_on(known, row):
    admission = deliver(in_ledger(**known), **row)
    assert (admission.order, [r.code for r in admission.reasons]) == (None, ["illegal_transition"])


def test_a_reduced_body_keeps_number_day_and_quantities():
    assert redacted_body(good_order()) == {
        "mp_order_number": "M-1",
        "purchase_date": "2026-03-02T14:05:00Z",
        "order_lines": [{"mp_line_number": "M-1-1", "sku": "LAMP-22", "quantity": 4}],
    }


def closed_and_reduced() -> LedgerOrder:
    order = deliver(in_ledger()).order
    assert order is not None
    return replace(
        order,
        phase=Phase.CLOSED,
        desired_state="SHIPPED",
        accepted_state="SHIPPED",
        body=redacted_body(order.body),
        body_kind=REDACTED,
    )


def test_the_same_delivery_after_the_body_was_reduced_changes_nothing():
    assert deliver(closed_and_reduced()) == Admission()


def test_the_same_body_in_another_state_is_recognized_after_it_was_reduced():
    admission = deliver(closed_and_reduced(), marketplace_state="PENDING")
    assert [reason.code for reason in admission.reasons] == ["illegal_transition"]


def test_a_changed_body_after_it_was_reduced_is_recorded_without_names():
    changed = deliver(closed_and_reduced(), currency="EUR")
    [body_changed, _] = changed.reasons
    assert (body_changed.field, body_changed.code) == ("", "body_changed")
    assert "no longer stored" in body_changed.message
