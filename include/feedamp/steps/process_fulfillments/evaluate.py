"""Evaluates one order: loads what is known of it, asks `rules/evaluation.py`, saves the answer. For validate and close."""

import logging
from datetime import datetime

from sqlalchemy.engine import Connection

from feedamp.models import Snapshot
from feedamp.resources import Resources
from feedamp.rules.closing import Close, Wait, closure_row, final_state
from feedamp.rules.evaluation import Evaluation, evaluate, is_checked
from feedamp.rules.follow_up import hold_back
from feedamp.rules.order import LedgerOrder, Phase
from feedamp.rules.shared_tracking import recipient_of, tracking_numbers
from feedamp.state import findings, ledger, open_orders, order_events, outbox, tracking
from feedamp.state.open_orders import StoredSnapshot
from feedamp.tables import CLOSURES

log = logging.getLogger(__name__)


def evaluate_order(
    connection: Connection,
    resources: Resources,
    order: LedgerOrder,
    stored: StoredSnapshot,
    *,
    run_id: str | None,
) -> Close | Wait:
    """Stores what the snapshot means for the order, and returns whether the order can be closed. Safe to repeat.

    `order` was read in the same transaction.
    """
    is_to_be_checked = is_checked(order, stored.snapshot)
    now = resources.state.now()
    evaluation = evaluate(
        order,
        stored,
        findings.of_order(connection, *order.key),
        _shared_tracking(connection, resources, order, stored.snapshot, now=now) if is_to_be_checked else (),
        listing_works=is_to_be_checked and findings.any_ever_listed(connection),
        error_codes=resources.settings.error_codes,
        error_clear=resources.settings.error_clear,
        untracked=resources.settings.untracked_for(order.seller_id),
        now=now,
    )
    if evaluation.order.phase == Phase.CLOSED:
        _save_closed(connection, order, evaluation, stored.snapshot, run_id=run_id, now=now)
    else:
        order_events.save_order(connection, order, evaluation.order, run_id=run_id, now=now)
        findings.write(connection, evaluation.findings, run_id=run_id, now=now)
        wait = None if isinstance(evaluation.decision, Close) else evaluation.decision
        open_orders.record_validation(
            connection,
            stored,
            closable=wait is None,
            waits_for=None if wait is None else wait.reason,
            needs_person=wait is not None and wait.needs_person,
            error_lingers_since=evaluation.error_lingers_since,
        )
    return evaluation.decision


def record_closed(
    connection: Connection, order: LedgerOrder, snapshot: Snapshot, *, run_id: str | None, now: datetime
) -> None:
    """Closes an order in the ledger that is final at FeedAMP; `order` may hold a newer `closing_at` than is stored.

    It was closed by a PUT of `close`, whose answer may be lost, or by another system. Only in the first case, a row of
    `closures` is written.
    """
    current = ledger.read(connection, *order.key) or order
    closing = current.but(closing_state=order.closing_state, closing_at=order.closing_at)
    closed = closing.closed(final_state(snapshot, sent=order.closing_state), now=now)
    held = hold_back(findings.of_order(connection, *order.key))
    evaluation = Evaluation(closed, Wait("closed already"), held)
    _save_closed(connection, current, evaluation, snapshot, run_id=run_id, now=now)


def _save_closed(
    connection: Connection,
    before: LedgerOrder,
    evaluation: Evaluation,
    snapshot: Snapshot,
    *,
    run_id: str | None,
    now: datetime,
) -> None:
    closed = evaluation.order
    order_events.save_order(connection, before, closed, run_id=run_id, now=now)
    open_orders.remove(connection, *closed.key)
    findings.write(connection, evaluation.findings, run_id=run_id, now=now)
    if closed.closed_at is None:
        log.info(
            "Order %s of seller %s was closed at FeedAMP by another system; the ledger closes it as well.",
            closed.mp_order_number,
            closed.seller_id,
        )
    else:
        row = closure_row(closed, snapshot, run_id=run_id)
        outbox.put(connection, CLOSURES.name, [row], recorded_at=closed.closed_at)


def _shared_tracking(
    connection: Connection, resources: Resources, order: LedgerOrder, snapshot: Snapshot, *, now: datetime
) -> list[str]:
    """The order's tracking numbers that another recipient's order has, too; remembers all of them."""
    numbers = {
        resources.cipher.fingerprint("tracking", number): number for number in tracking_numbers(snapshot)
    }
    recipient = resources.cipher.fingerprint("recipient", recipient_of(order.body))
    shared = tracking.shared(connection, *order.key, list(numbers), recipient, now=now)
    tracking.remember(connection, *order.key, list(numbers), recipient, now=now)
    return [numbers[value] for value in shared]
