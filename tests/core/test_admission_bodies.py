"""What the ledger stores of a delivered row: bodies, sources, reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from deliveries import EARLIER, NOTHING_SEEN, NOW, TWO_SHIPPED, placed, row, taken
from order_samples import good_line, good_order

from feedamp.codec import content_hash
from feedamp.order_body import BadRow, Reason
from feedamp.rules.intake import (
    MAX_DELIVERIES,
    Admission,
    admit,
    admit_state,
)
from feedamp.rules.order import (
    AWAITING_SHIPMENT,
    CANCELLED,
    PENDING,
    SHIPPED,
    LedgerOrder,
)
from feedamp.rules.stored_body import REDACTED

PUT_SENT = {"first_put_at": EARLIER}


NEW_BODY = {"currency": "EUR"}


def test_the_first_accepted_body_is_kept_when_another_comes() -> None:
    known = placed(PENDING)
    order = admit(row(**NEW_BODY), known, NOTHING_SEEN, now=NOW).order
    assert order is not None
    assert order.body == known.body


def test_a_body_that_replaces_one_of_another_file_is_recorded() -> None:
    """An order split over two files must not lose the lines of the first without a record (promise 1)."""
    admission = admit(row(**NEW_BODY), taken(), NOTHING_SEEN, now=NOW)
    assert not admission.rejected
    assert [(reason.field, reason.code) for reason in admission.reasons] == [("currency", "body_changed")]
    assert "old.jsonl row 7" in admission.reasons[0].message


def test_a_body_that_corrects_a_refused_one_is_not_recorded_as_a_change() -> None:
    refused = taken(phase="refused", **PUT_SENT)
    assert admit(row(**NEW_BODY), refused, NOTHING_SEEN, now=NOW).reasons == ()


def test_a_newer_body_replaces_one_that_was_never_sent() -> None:
    order = admit(row(**NEW_BODY), taken(), NOTHING_SEEN, now=NOW).order
    assert order is not None
    assert (order.body["currency"], order.source) == ("EUR", "new.jsonl")


def test_the_ledger_keeps_the_state_out_of_the_body() -> None:
    assert "marketplace_state" not in taken().body


def test_a_corrected_order_starts_without_the_old_reason_and_backoff() -> None:
    refused = taken(phase="refused", reason="no such currency", attempts=3, **PUT_SENT)
    order = admit(row(**NEW_BODY), refused, NOTHING_SEEN, now=NOW).order
    assert order is not None
    assert (order.reason, order.attempts, order.next_try_at) == (None, 0, NOW)


def test_a_change_of_state_names_the_row_that_asked_for_it() -> None:
    order = admit(row(CANCELLED), placed(), NOTHING_SEEN, now=NOW).order
    assert order is not None
    assert (order.source, order.source_row, order.row_hash) == ("new.jsonl", 7, "hash of new.jsonl")


def test_a_conflict_says_how_many_units_are_shipped() -> None:
    order = admit(row(CANCELLED), placed(), TWO_SHIPPED, now=NOW).order
    assert order is not None
    assert "shipped 2 units" in str(order.reason)


def test_every_changed_field_of_a_body_is_named() -> None:
    address = good_order()["shipping_address"] | {"city": "Salem"}
    admission = admit(row(currency="EUR", shipping_address=address), placed(), NOTHING_SEEN, now=NOW)
    assert [reason.field for reason in admission.reasons] == ["currency", "shipping_address.city"]


@pytest.mark.parametrize("known", [taken, placed])
def test_lines_in_another_order_are_no_difference(known: Callable[..., LedgerOrder]) -> None:
    lines = [good_line(mp_line_number=number, quantity=at) for at, number in enumerate("abc", 1)]
    before = known(body={**taken().body, "order_lines": lines})
    assert admit(row(order_lines=lines[::-1]), before, NOTHING_SEEN, now=NOW).reasons == ()
    for differing in (
        lines[:2],
        [*lines[::-1], good_line(mp_line_number="d")],
        [lines[1], lines[1], lines[2]],
    ):
        [reason] = admit(row(order_lines=differing), before, NOTHING_SEEN, now=NOW).reasons
        assert (reason.field, reason.code) == ("order_lines", "body_changed")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"phase": "refused"}, id="of an order that FeedAMP refused"),
        pytest.param({"phase": "closed", "body_kind": REDACTED}, id="of an order whose body is removed"),
        pytest.param({"phase": "settled", "body_kind": REDACTED}, id="of an order that waits for its body"),
    ],
)
def test_lines_in_another_order_are_a_repeat(change: dict[str, Any]) -> None:
    lines = [good_line(mp_line_number=number) for number in "ab"]
    order = admit(row(order_lines=lines), None, NOTHING_SEEN, now=EARLIER).order
    assert order is not None
    known = replace(order, first_put_at=EARLIER, **change)
    same, turned = (admit(row(order_lines=ls), known, NOTHING_SEEN, now=NOW) for ls in (lines, lines[::-1]))
    assert not same.reasons
    assert (turned.rejected, turned.reasons, turned.order is None) == (False, (), same.order is None)


def test_an_extra_field_named_as_the_lines_is_compared_as_any_other() -> None:
    customer = good_order()["customer"] | {"order_lines": 5}
    [reason] = admit(row(customer=customer), placed(), NOTHING_SEEN, now=NOW).reasons
    assert reason.field == "customer.order_lines"


def test_a_hash_of_unsorted_lines_by_an_earlier_version_is_recognized() -> None:
    lines = [good_line(mp_line_number=number) for number in "ba"]
    body = {**taken().body, "order_lines": lines}
    for phase in ("settled", "closed"):
        known = placed(body=body, body_hash=content_hash(body), body_kind=REDACTED, phase=phase, delivered=())
        admission = admit(row(order_lines=lines), known, NOTHING_SEEN, now=NOW)
        assert (admission.rejected, admission.reasons) == (False, ())


@pytest.mark.parametrize("change", [{}, {"phase": "settled", "body_kind": REDACTED}])
def test_a_repeat_of_unsorted_lines_of_an_earlier_version_asks_for_no_state(change: dict[str, Any]) -> None:
    lines = [good_line(mp_line_number=number) for number in "ba"]
    body = {**taken().body, "order_lines": lines}
    body_hash = content_hash(body)
    delivered = tuple(content_hash([body_hash, state]) for state in (PENDING, AWAITING_SHIPMENT))
    known = replace(placed(body=body, body_hash=body_hash, delivered=delivered), **change)
    admission = admit(row(PENDING, order_lines=lines), known, NOTHING_SEEN, now=NOW)
    assert (admission.rejected, admission.reasons) == (False, ())
    assert admission.body_came == (admission.order is not None) == bool(change)


def test_a_repeat_of_an_older_delivery_changes_nothing() -> None:
    released = admit(row(), placed(PENDING), NOTHING_SEEN, now=NOW).order
    assert admit(row(PENDING), released, NOTHING_SEEN, now=NOW) == Admission()


def test_only_the_latest_deliveries_are_remembered_however_many_come() -> None:
    order = taken()
    for at in range(2 * MAX_DELIVERIES):
        changed = admit(row(delivery_notes=f"note {at}"), order, NOTHING_SEEN, now=NOW).order
        assert changed is not None
        order = changed
    assert len(order.delivered) == MAX_DELIVERIES
    assert admit(row(delivery_notes=f"note {at}"), order, NOTHING_SEEN, now=NOW) == Admission()


def test_differences_of_a_body_are_listed_up_to_a_hundred() -> None:
    extras = {f"key{at}": at for at in range(250)}
    admission = admit(row(**extras), placed(), NOTHING_SEEN, now=NOW)
    assert [reason.code for reason in admission.reasons] == ["body_changed"] * 99 + ["too_large"]


TOO_SHORT = Reason("shipping_address.postal_code", "spreadsheet_damage", "a zero is lost")


@pytest.mark.parametrize(
    ("known", "state", "became"),
    [
        pytest.param(placed(), CANCELLED, ("to_place", "CANCELLED"), id="a placed order is cancelled"),
        pytest.param(placed(PENDING), AWAITING_SHIPMENT, ("to_place", AWAITING_SHIPMENT), id="released"),
        pytest.param(taken(), CANCELLED, ("never_placed", "CANCELLED"), id="cancelled before it was sent"),
        pytest.param(taken(PENDING), AWAITING_SHIPMENT, None, id="released before it was sent"),
        pytest.param(placed(), PENDING, None, id="an earlier state"),
        pytest.param(placed(), AWAITING_SHIPMENT, None, id="the same state"),
        pytest.param(placed(), SHIPPED, None, id="closing is not the inbox's"),
        pytest.param(placed(), None, None, id="the state or the number is at fault, too"),
        pytest.param(placed(body_kind=REDACTED), CANCELLED, None, id="without a body to send"),
        pytest.param(None, CANCELLED, None, id="an unknown order"),
    ],
)
def test_a_row_with_faults_changes_at_most_the_state_of_its_order(
    known: LedgerOrder | None, state: str | None, became: tuple[str, str] | None
) -> None:
    bad = BadRow("new.jsonl", 7, 1, "hash", "raw", "S1", "M-1", (TOO_SHORT,), state=state)
    admission = admit_state(bad, known, NOTHING_SEEN, now=NOW)
    assert (admission.reasons, admission.rejected) == ((TOO_SHORT,), True)
    after = admission.order
    assert (after and (after.phase, after.desired_state)) == became
    if after is not None and known is not None:
        assert (after.body, after.source, after.row_hash) == (known.body, known.source, known.row_hash)


def test_a_row_with_faults_holds_an_order_once() -> None:
    bad = BadRow("new.jsonl", 7, 1, "hash", "raw", "S1", "M-1", (TOO_SHORT,), state=CANCELLED)
    held = admit_state(bad, placed(), TWO_SHIPPED, now=NOW).order
    assert held is not None
    assert (held.phase, held.conflicting_state) == ("held", CANCELLED)
    assert admit_state(bad, held, TWO_SHIPPED, now=NOW).order is None
