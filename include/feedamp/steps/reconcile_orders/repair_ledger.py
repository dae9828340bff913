"""The ledger of one order brought to what FeedAMP shows, in the transaction of the caller."""

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
    ours: LedgerOrder | None,
    shown: Order | None,
    repair: Repair,
) -> bool:
    """Changes the row that `ours` was read from; False if nothing was to be done, or `close` is at the order just now.

    The caller has seen that the row is still the same.
    """
    if ours is None or repair.action in (Action.AGREE, Action.LEAVE, Action.SEND):
        return repair.action is Action.SEND
    now = resources.state.now()
    name = leases.of_order("close", *ours.key)
    lease = leases.take(connection, name, now=now)
    if lease is None:
        return False
    leases.release(connection, name, lease)  # no one else writes before this transaction ends
    if repair.action is Action.CLOSE:
        if shown is not None:
            record_closed(connection, ours, shown.snapshot(), run_id=run.run_id, now=now)
        return True
    ledger.change(connection, ours, **_changes(ours, shown, repair), next_try_at=now, attempts=0)
    open_orders.invalidate_validation(connection, *ours.key)
    if repair.action is Action.REOPEN:
        release_reports(connection, ours, now=now)
    return True


def _changes(ours: LedgerOrder, shown: Order | None, repair: Repair) -> dict[str, Any]:
    state = shown.marketplace_state if shown is not None else ours.accepted_state
    if repair.action is Action.ADOPT:
        is_settled = ours.phase == "settled" or (ours.desired_state == state and not ours.conflicting_state)
        if not is_settled:
            return {"accepted_state": state}
        return {"phase": "settled", "accepted_state": state, "desired_state": state, "reason": None}
    if repair.action is Action.REOPEN:
        return {
            "phase": "settled",
            "accepted_state": state,
            "desired_state": state,
            "placed_at": ours.placed_at or ours.first_put_at or ours.taken_at,
            "closed_at": None,
            "reason": "reopened: FeedAMP shows it open",
        }
    # What is to be sent is what FeedAMP had accepted before it lost it. It was never only our own closing.
    wanted = ours.accepted_state
    reason = "FeedAMP has lost it" if shown is None else f"FeedAMP shows {state} again"
    return {
        "phase": "to_place",
        "accepted_state": state,
        "desired_state": wanted,
        "closed_at": None,
        "reason": reason,
    }
