"""Repairs the ledger row of one order so that it agrees with FeedAMP, in the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection

from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.order import LedgerOrder
from feedamp.rules.repair import Action, Repair
from feedamp.run import Run
from feedamp.state import leases, ledger, open_orders
from feedamp.steps.process_fulfillments.evaluate import record_closed, release_reports


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
            record_closed(connection, ledger_order, remote_order.snapshot(), run_id=run.run_id, now=now)
        return True
    ledger.change(
        connection, ledger_order, **_changes(ledger_order, remote_order, repair), next_try_at=now, attempts=0
    )
    open_orders.invalidate_validation(connection, *ledger_order.key)
    if repair.action is Action.REOPEN:
        release_reports(connection, ledger_order, now=now)
    return True


def _changes(ledger_order: LedgerOrder, remote_order: Order | None, repair: Repair) -> dict[str, Any]:
    state = remote_order.marketplace_state if remote_order is not None else ledger_order.accepted_state
    if repair.action is Action.ADOPT:
        is_settled = ledger_order.phase == "settled" or (
            ledger_order.desired_state == state and not ledger_order.conflicting_state
        )
        if not is_settled:
            return {"accepted_state": state}
        return {"phase": "settled", "accepted_state": state, "desired_state": state, "reason": None}
    if repair.action is Action.REOPEN:
        return {
            "phase": "settled",
            "accepted_state": state,
            "desired_state": state,
            "placed_at": ledger_order.placed_at or ledger_order.first_put_at or ledger_order.taken_at,
            "closed_at": None,
            "reason": "reopened: FeedAMP shows it open",
        }
    # Send the state that FeedAMP had accepted and lost. A state that only `close` had set is not sent (`decide_repair`).
    desired_state = ledger_order.accepted_state
    reason = "FeedAMP has lost it" if remote_order is None else f"FeedAMP shows {state} again"
    return {
        "phase": "to_place",
        "accepted_state": state,
        "desired_state": desired_state,
        "closed_at": None,
        "reason": reason,
    }
