"""Repairs the ledger row of one order so that it agrees with FeedAMP, in the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.engine import Connection

from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.follow_up import release
from feedamp.rules.order import LedgerOrder
from feedamp.rules.repair import Action, Repair
from feedamp.run import Run
from feedamp.state import findings, leases, ledger, open_orders
from feedamp.steps.process_fulfillments.evaluate import record_closed


def repair_ledger(
    connection: Connection,
    resources: Resources,
    run: Run,
    ledger_order: LedgerOrder | None,
    remote_order: Order | None,
    repair: Repair,
) -> bool:
    """Applies a repair to the order's ledger row.

    The caller has checked in this transaction that the row still equals `ledger_order`.

    Returns:
        True if the row was changed, or is right and the order only has to be sent; False if there was nothing to do, or
        `close` is working on the order.
    """
    if ledger_order is None or repair.action in (Action.AGREE, Action.LEAVE, Action.SEND):
        return repair.action is Action.SEND
    now = resources.state.now()
    if not resources.state.leases.clear(connection, leases.of_order("close", *ledger_order.key)):
        return False
    if repair.action is Action.CLOSE:
        if remote_order is not None:
            final = [(ledger_order, remote_order.snapshot())]
            record_closed(connection, final, run_id=run.run_id, now=now)
        return True
    ledger.save(connection, ledger_order, _repaired(ledger_order, remote_order, repair, now=now))
    open_orders.invalidate_validation(connection, *ledger_order.key)
    if repair.action is Action.REOPEN:
        released = release(findings.of_order(connection, *ledger_order.key))
        findings.write(connection, released, run_id=run.run_id, now=now)
    return True


def _repaired(
    ledger_order: LedgerOrder, remote_order: Order | None, repair: Repair, *, now: datetime
) -> LedgerOrder:
    state = remote_order.marketplace_state if remote_order is not None else None
    if repair.action is Action.ADOPT:
        return ledger_order.adopted(state, now=now)
    if repair.action is Action.REOPEN:
        return ledger_order.reopened(state, now=now)
    # Send the state that FeedAMP had accepted and lost. A state that only `close` had set is not sent (`decide_repair`).
    return ledger_order.sent_again(state, now=now)
