"""One order on one snapshot: findings brought up to date, closing decided. Shared by validate and close."""

from __future__ import annotations

import logging
from datetime import datetime

from sqlalchemy.engine import Connection

from feedamp.models import FINAL_STATES, Snapshot
from feedamp.resources import Resources
from feedamp.rules.checks import check_order, tracking_numbers
from feedamp.rules.closing import (
    Close,
    OpenOrder,
    Wait,
    decide_close,
    unexplained_errors,
)
from feedamp.rules.finding import HELD, TO_REPORT
from feedamp.rules.follow_up import (
    Look,
    follow_up,
    is_standing,
)
from feedamp.rules.order import (
    AWAITING_SHIPMENT,
    CANCELLED,
    COMPLETE,
    PENDING,
    SHIPPED,
    LedgerOrder,
)
from feedamp.rules.units import count_units
from feedamp.state import findings, ledger, open_orders, outbox, tracking
from feedamp.state.open_orders import StoredSnapshot
from feedamp.tables import CLOSURES

log = logging.getLogger(__name__)
_CLOSED = "the order is closed"
CANCELLED_TOO_LATE = "CANCELLED came in, but the seller had shipped: the order is closed as SHIPPED"
_RECIPIENT = ("full_name", "address1", "address2", "postal_code", "city", "country_code")


def evaluate(
    connection: Connection, resources: Resources, order: LedgerOrder, held: StoredSnapshot
) -> Close | Wait:
    """Writes what the snapshot means for the order, and says whether it can be closed on it.

    Safe to repeat: the same snapshot leads to the same findings.
    """
    snapshot = held.snapshot
    if order.phase == "to_place" and order.desired_state == snapshot.marketplace_state:
        # Our PUT arrived without an answer: `place` repeats it and records it as ours (contract 7.5).
        wait = Wait("its PUT is still to be confirmed")
        open_orders.record_validation(
            connection, held, closable=False, waits_for=wait.reason, needs_person=False
        )
        return wait
    if snapshot.marketplace_state in FINAL_STATES or snapshot.status == COMPLETE:
        record_closed(connection, order, snapshot, run_id=None, now=resources.state.now())
        return Wait("closed already")
    order = _follow(connection, order, snapshot)
    if order.conflicting_state and not _units_shipped(order, snapshot):
        return _end_conflict(connection, resources, order, held)
    now = resources.state.now()
    stored = findings.of_order(connection, *order.key)
    if not snapshot.is_marketplace_fulfilled:  # no one to report to: the marketplace ships it itself
        look = Look(snapshot.errors, held.read_at, findings.any_ever_listed(connection))
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
        stored = list({f.finding_id: f for f in (*stored, *changed)}.values())
    lingering = unexplained_errors(snapshot.errors, [f.listed_as for f in stored if is_standing(f)])
    since = (held.error_lingers_since or now) if lingering else None
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
        held,
        closable=isinstance(decision, Close),
        waits_for=None if isinstance(decision, Close) else decision.reason,
        needs_person=isinstance(decision, Wait) and decision.needs_person,
        error_lingers_since=since,
    )
    return decision


def _follow(connection: Connection, order: LedgerOrder, snapshot: Snapshot) -> LedgerOrder:
    """An adopted order whose body we lack is moved by whoever placed it: its state is what FeedAMP shows."""
    shown = snapshot.marketplace_state
    if order.has_body or order.accepted_state == shown or shown not in (PENDING, AWAITING_SHIPMENT):
        return order
    ledger.change(connection, order, accepted_state=shown, desired_state=shown)
    return order.but(accepted_state=shown, desired_state=shown)


def _units_shipped(order: LedgerOrder, snapshot: Snapshot) -> int:
    return sum(line.shipped for line in count_units(order.ordered, snapshot.fulfillments).values())


def _end_conflict(
    connection: Connection, resources: Resources, order: LedgerOrder, held: StoredSnapshot
) -> Wait:
    """The seller has withdrawn what contradicted the marketplace's state: it goes out with the next placing."""
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
    open_orders.record_validation(connection, held, closable=False, waits_for=wait.reason, needs_person=False)
    return wait


def _final_state(order: LedgerOrder, snapshot: Snapshot) -> str:
    """What it was closed as; where FeedAMP shows only that it is (Q12), what we set or what the units say."""
    if snapshot.marketplace_state in FINAL_STATES:
        return str(snapshot.marketplace_state)
    return order.closing_state or str(SHIPPED if _units_shipped(order, snapshot) else CANCELLED)


def _hold_back_reports(connection: Connection, order: LedgerOrder, *, now: datetime) -> None:
    """A closed order is never reported."""
    waiting = [f for f in findings.of_order(connection, *order.key) if f.state == TO_REPORT]
    held = [f.but(state=HELD, intent_at=None, note=_CLOSED) for f in waiting]
    findings.write(connection, held, now=now)


def release_reports(connection: Connection, order: LedgerOrder, *, now: datetime) -> None:
    """Lets reports go out that were held back only because the order was closed, which it is no longer."""
    held = [f for f in findings.of_order(connection, *order.key) if f.state == HELD]
    waiting = [f.but(state=TO_REPORT, note=None) for f in held if f.note == _CLOSED]
    findings.write(connection, waiting, now=now)


def record_closed(
    connection: Connection, order: LedgerOrder, snapshot: Snapshot, *, run_id: str | None, now: datetime
) -> None:
    """The order is final at FeedAMP: by our own PUT, whose answer may have been lost, or by someone else's."""
    state = _final_state(order, snapshot)
    ours = order.closing_at if order.closing_state == state else None
    reason = None if ours else "closed elsewhere"
    # `place` may have taken or held a cancellation since the order was read for closing.
    current = ledger.read(connection, *order.key) or order
    conflicting_state = current.conflicting_state
    if (
        CANCELLED in (current.desired_state, conflicting_state) and state == SHIPPED
    ):  # it came in too late to be sent
        reason, conflicting_state = CANCELLED_TOO_LATE, str(CANCELLED)
    ledger.change(
        connection,
        order,
        phase="closed",
        accepted_state=state,
        desired_state=state,
        closed_at=ours,
        ended_at=ours or now,
        reason=reason,
        conflicting_state=conflicting_state,
        next_try_at=None,
    )
    open_orders.forget(connection, *order.key)
    _hold_back_reports(connection, order, now=now)
    if ours is None:
        log.info(
            "Order %s of seller %s was closed at FeedAMP, and not by this installation; it is closed here as well.",
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
        "closed_at": ours,
        "run_id": run_id,
    }
    outbox.put(connection, CLOSURES.name, [closure], recorded_at=ours)


def _shared_numbers(
    connection: Connection, resources: Resources, order: LedgerOrder, snapshot: Snapshot
) -> list[str]:
    numbers = {
        resources.cipher.fingerprint("tracking", number): number for number in tracking_numbers(snapshot)
    }
    address = order.body.get("shipping_address") or {}
    recipient = resources.cipher.fingerprint(
        "recipient", "\x1f".join(str(address.get(name) or "").strip().casefold() for name in _RECIPIENT)
    )
    now = resources.state.now()
    hashes = list(numbers)
    shared = tracking.shared(connection, *order.key, hashes, recipient, now=now)
    tracking.remember(connection, *order.key, hashes, recipient, now=now)
    return [numbers[value] for value in shared]
