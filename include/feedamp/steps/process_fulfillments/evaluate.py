"""Evaluates one order by one snapshot: updates its findings and stores what it waits for. Shared by validate and close.

Asks `rules/checks.py` for faults, `rules/follow_up.py` for reports and `rules/closing.py` for closing. What is decided
here: an order that waits for `place`, the end of a conflict, and how an order that is final at FeedAMP was closed.
"""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy.engine import Connection

from feedamp.models import FINAL_STATES, Snapshot
from feedamp.resources import Resources
from feedamp.rules.checks import check_order
from feedamp.rules.closing import (
    Close,
    OpenOrder,
    Wait,
    decide_close,
    unexplained_errors,
)
from feedamp.rules.finding import HELD, TO_REPORT
from feedamp.rules.follow_up import (
    ErrorListing,
    follow_up,
    may_be_listed,
)
from feedamp.rules.order import (
    AWAITING_SHIPMENT,
    CANCELLED,
    COMPLETE,
    PENDING,
    SHIPPED,
    LedgerOrder,
)
from feedamp.rules.shared_tracking import recipient_of, tracking_numbers
from feedamp.rules.units import count_units
from feedamp.state import findings, ledger, open_orders, outbox, tracking
from feedamp.state.open_orders import StoredSnapshot
from feedamp.tables import CLOSURES

log = logging.getLogger(__name__)
_CLOSED = "the order is closed"
CANCELLED_TOO_LATE = "CANCELLED came in, but the seller had shipped: the order is closed as SHIPPED"


def evaluate(
    connection: Connection, resources: Resources, order: LedgerOrder, stored_snapshot: StoredSnapshot
) -> Close | Wait:
    """Stores what the snapshot means for the order, and decides whether the order can be closed.

    Safe to repeat: the same snapshot leads to the same findings.
    """
    snapshot = stored_snapshot.snapshot
    if order.phase == "to_place" and order.desired_state == snapshot.marketplace_state:
        # A PUT arrived, but its answer was lost: `place` repeats it and records the answer (contract 7.5).
        wait = Wait("its PUT is still to be confirmed")
        open_orders.record_validation(
            connection, stored_snapshot, closable=False, waits_for=wait.reason, needs_person=False
        )
        return wait
    if snapshot.marketplace_state in FINAL_STATES or snapshot.status == COMPLETE:
        record_closed(connection, order, snapshot, run_id=None, now=resources.state.now())
        return Wait("closed already")
    order = _follow_remote_state(connection, order, snapshot)
    if order.conflicting_state and not _units_shipped(order, snapshot):
        return _end_conflict(connection, resources, order, stored_snapshot)
    now = resources.state.now()
    stored = findings.of_order(connection, *order.key)
    if not snapshot.is_marketplace_fulfilled:  # otherwise there is no seller to report to
        look = ErrorListing(snapshot.errors, stored_snapshot.read_at, findings.any_ever_listed(connection))
        faults = check_order(
            order.ordered,
            snapshot,
            purchase_date=order.purchase_date,
            today=now.date(),
            shared_numbers=_shared_numbers(connection, resources, order, snapshot),
        )
        changed = follow_up(
            *order.key, faults, stored, look, error_codes=resources.settings.error_codes, now=now
        )
        findings.write(connection, changed, now=now)
        stored = list({finding.finding_id: finding for finding in (*stored, *changed)}.values())
    lingering = unexplained_errors(
        snapshot.errors, [finding.listed_as for finding in stored if may_be_listed(finding)]
    )
    since = (stored_snapshot.error_lingers_since or now) if lingering else None
    decision = decide_close(
        OpenOrder(
            ordered=order.ordered,
            snapshot=snapshot,
            accepted_state=order.accepted_state or order.desired_state,
            has_body=order.has_body,
            open_errors=sum(finding.blocks_closing for finding in stored),
            lingering_errors=len(lingering),
            lingering_too_long=since is not None and now - since >= resources.settings.error_clear,
        )
    )
    open_orders.record_validation(
        connection,
        stored_snapshot,
        closable=isinstance(decision, Close),
        waits_for=None if isinstance(decision, Close) else decision.reason,
        needs_person=isinstance(decision, Wait) and decision.needs_person,
        error_lingers_since=since,
    )
    return decision


def _follow_remote_state(connection: Connection, order: LedgerOrder, snapshot: Snapshot) -> LedgerOrder:
    """Takes over FeedAMP's open state for an adopted order without a body: the system that placed it changes its state."""
    state = snapshot.marketplace_state
    if order.has_body or order.accepted_state == state or state not in (PENDING, AWAITING_SHIPMENT):
        return order
    ledger.change(connection, order, accepted_state=state, desired_state=state)
    return order.but(accepted_state=state, desired_state=state)


def _units_shipped(order: LedgerOrder, snapshot: Snapshot) -> int:
    return sum(line.shipped for line in count_units(order.ordered, snapshot.fulfillments).values())


def _end_conflict(
    connection: Connection, resources: Resources, order: LedgerOrder, stored_snapshot: StoredSnapshot
) -> Wait:
    """Ends a conflict after the seller has withdrawn the shipped units: the next `place` sends the held state."""
    ledger.change(
        connection,
        order,
        phase="to_place",
        desired_state=order.conflicting_state,
        conflicting_state=None,
        reason=None,
        next_try_at=resources.state.now(),
        attempts=0,
    )
    wait = Wait(f"it is to be placed as {order.conflicting_state}")
    open_orders.record_validation(
        connection, stored_snapshot, closable=False, waits_for=wait.reason, needs_person=False
    )
    return wait


def _final_state(order: LedgerOrder, snapshot: Snapshot) -> str:
    """The final state that FeedAMP shows; if it shows none (Q12), the one sent here, or else the one the units imply."""
    if snapshot.marketplace_state in FINAL_STATES:
        return str(snapshot.marketplace_state)
    return order.closing_state or str(SHIPPED if _units_shipped(order, snapshot) else CANCELLED)


def _hold_back_reports(connection: Connection, order: LedgerOrder, *, now: datetime) -> None:
    """Holds findings that were still to be reported: no report is sent for a closed order."""
    stored = findings.of_order(connection, *order.key)
    held = [
        finding.but(state=HELD, intent_at=None, note=_CLOSED)
        for finding in stored
        if finding.state == TO_REPORT
    ]
    findings.write(connection, held, now=now)


def release_reports(connection: Connection, order: LedgerOrder, *, now: datetime) -> None:
    """Releases findings that were held only because the order was closed; call it when the order is open again."""
    stored = findings.of_order(connection, *order.key)
    released = [
        finding.but(state=TO_REPORT, note=None)
        for finding in stored
        if finding.state == HELD and finding.note == _CLOSED
    ]
    findings.write(connection, released, now=now)


def record_closed(
    connection: Connection, order: LedgerOrder, snapshot: Snapshot, *, run_id: str | None, now: datetime
) -> None:
    """Closes an order in the ledger that is final at FeedAMP.

    It was closed by a PUT of `close`, whose answer may be lost, or by another system. Only in the first case, a row of
    `closures` is written.
    """
    state = _final_state(order, snapshot)
    closed_at = order.closing_at if order.closing_state == state else None  # None: not closed by us
    reason = None if closed_at else "closed elsewhere"
    # Intake may have taken, or `place` held, a cancellation since the order was read for closing.
    current = ledger.read(connection, *order.key) or order
    conflicting_state = current.conflicting_state
    if CANCELLED in (current.desired_state, conflicting_state) and state == SHIPPED:
        reason, conflicting_state = CANCELLED_TOO_LATE, str(CANCELLED)
    ledger.change(
        connection,
        order,
        phase="closed",
        accepted_state=state,
        desired_state=state,
        closed_at=closed_at,
        ended_at=closed_at or now,
        reason=reason,
        conflicting_state=conflicting_state,
        next_try_at=None,
    )
    open_orders.remove(connection, *order.key)
    _hold_back_reports(connection, order, now=now)
    if closed_at is None:
        log.info(
            "Order %s of seller %s was closed at FeedAMP by another system; the ledger closes it as well.",
            order.mp_order_number,
            order.seller_id,
        )
        return
    seen = OpenOrder(ordered=order.ordered, snapshot=snapshot, accepted_state=state)
    closure = {
        "seller_id": order.seller_id,
        "mp_order_number": order.mp_order_number,
        "marketplace_state": state,
        "units_shipped": seen.units_shipped,
        "units_cancelled": seen.units_cancelled,
        "closed_at": closed_at,
        "run_id": run_id,
    }
    outbox.put(connection, CLOSURES.name, [closure], recorded_at=closed_at)


def _shared_numbers(
    connection: Connection, resources: Resources, order: LedgerOrder, snapshot: Snapshot
) -> list[str]:
    numbers = {
        resources.cipher.fingerprint("tracking", number): number for number in tracking_numbers(snapshot)
    }
    recipient = resources.cipher.fingerprint("recipient", recipient_of(order.body))
    now = resources.state.now()
    hashes = list(numbers)
    shared = tracking.shared(connection, *order.key, hashes, recipient, now=now)
    tracking.remember(connection, *order.key, hashes, recipient, now=now)
    return [numbers[value] for value in shared]
