"""PURE: decides whether a run repairs, and how to repair an order on which ledger and FeedAMP disagree.

The table is in docs/runbook.md. FeedAMP's value counts. The warehouse needs no decision, because it is updated from FeedAMP's new snapshot.
"""

from dataclasses import dataclass
from enum import StrEnum

from feedamp.models import FINAL_STATES, Order
from feedamp.rules.comparison import CLOSED, MISSING, ORDER, PURCHASED, STATE, Difference
from feedamp.rules.order import AWAITING_SHIPMENT, CANCELLED, PENDING, SHIPPED, LedgerOrder, Phase, may_follow

_OPEN_STATES = (PENDING, AWAITING_SHIPMENT)
_LOST = "FeedAMP no longer has this order"


def run_repairs(asked: bool | None, *, is_scheduled: bool, is_dry_run: bool) -> bool:
    """Whether a reconciliation repairs: as param `repair` says; if empty (None), only scheduled runs do.

    Manual runs and backfills only compare unless they are told to repair. A dry run never repairs.
    """
    return (is_scheduled if asked is None else asked) and not is_dry_run


class Action(StrEnum):
    """What is changed in the ledger, and what is sent."""

    AGREE = "agree"  # nothing: the ledger is right or does not report the field
    CLOSE = "close"  # the ledger's order is closed, as FeedAMP shows it
    REOPEN = "reopen"  # the ledger's order is reopened, as FeedAMP shows it; `process` decides again
    ADOPT = "adopt"  # the ledger takes over FeedAMP's state
    SEND = "send"  # the PUT that waits in the ledger is sent now
    SEND_AGAIN = "send again"  # a state that FeedAMP lost goes back to `to_place` and is sent
    PLACE_AGAIN = "place again"  # an order that FeedAMP lost goes back to `to_place` and is sent
    LEAVE = "leave"  # nothing is changed and action is required; `reason` says why


SENDING = (Action.SEND, Action.SEND_AGAIN, Action.PLACE_AGAIN)


@dataclass(frozen=True)
class Repair:
    """What to do about an order."""

    action: Action
    reason: str | None = None


AGREE = Repair(Action.AGREE)


def _leave(reason: str) -> Repair:
    return Repair(Action.LEAVE, reason)


def decide_repair(
    ledger_order: LedgerOrder | None, remote_order: Order | None, *, seller_has_acted: bool
) -> Repair:
    """Decide how the ledger is brought in line with FeedAMP, or why action is required.

    `remote_order` is the order as FeedAMP returns it, None if FeedAMP does not know it. `seller_has_acted`: the newest stored
    snapshot has units shipped or cancelled.
    """
    repair = _decide(ledger_order, remote_order, seller_has_acted=seller_has_acted)
    if repair.action in SENDING and ledger_order is not None and not ledger_order.has_body:
        return _leave(
            "This order has to be sent to FeedAMP again, but its body was never delivered here. "
            "Deliver it to the inbox as it was placed."
        )
    return repair


def _decide(
    ledger_order: LedgerOrder | None, remote_order: Order | None, *, seller_has_acted: bool
) -> Repair:
    if ledger_order is None:
        if remote_order is not None:
            return AGREE
        return _leave(
            "FeedAMP no longer has this order, which another system placed. It is not placed again and stays in the "
            "warehouse as it was last read. If the seller still has to ship it, ask the owner of that system, or FeedAMP."
        )
    if ledger_order.phase in (Phase.REFUSED, Phase.NEVER_PLACED):
        if remote_order is None:
            return AGREE
        return _leave(
            "FeedAMP has this order, although it was refused, or cancelled before it was placed. "
            "Tell the seller not to ship it, and ask FeedAMP to remove it."
        )
    if remote_order is None:
        return _decide_lost(ledger_order, seller_has_acted=seller_has_acted)
    if remote_order.is_final:
        return _decide_final(ledger_order, remote_order)
    return _decide_open(ledger_order, remote_order)


def _decide_lost(ledger_order: LedgerOrder, *, seller_has_acted: bool) -> Repair:
    if ledger_order.phase == Phase.TO_PLACE and ledger_order.accepted_state is None:
        return AGREE  # not placed yet; `place` sends it
    if ledger_order.phase == Phase.CLOSED or ledger_order.accepted_state in FINAL_STATES:
        return _leave(
            f"{_LOST}, which is closed. It is not placed again, because the seller would take it for a new one. "
            "Ask FeedAMP to restore it."
        )
    if seller_has_acted or ledger_order.closing_state is not None:
        return _leave(
            f"{_LOST}, and the seller has begun to fulfill it. It is not placed again, because it might be shipped twice. "
            "Ask FeedAMP to restore it."
        )
    if ledger_order.phase == Phase.TO_PLACE:
        if ledger_order.desired_state in _OPEN_STATES:
            return Repair(Action.SEND)
        return _leave(
            f"{_LOST}, which is to become {ledger_order.desired_state}. Nothing is sent, because there is nothing to change. "
            "Ask FeedAMP to restore it, or settle it with the seller."
        )
    if ledger_order.phase == Phase.SETTLED:
        return Repair(Action.PLACE_AGAIN)
    return _leave(
        f"{_LOST}, which is held here. It is not placed again. Settle first why it is held: `feedamp orders show`."
    )


def _decide_final(ledger_order: LedgerOrder, remote_order: Order) -> Repair:
    state = remote_order.marketplace_state
    if ledger_order.phase == Phase.TO_PLACE and ledger_order.desired_state == state:
        return Repair(Action.SEND)  # the PUT arrived and its answer was lost; repeating it records it
    if ledger_order.phase == Phase.CLOSED and ledger_order.accepted_state in FINAL_STATES:
        is_same = state not in FINAL_STATES or state == ledger_order.accepted_state
        return Repair(Action.AGREE if is_same else Action.CLOSE)
    return Repair(Action.CLOSE)


def _decide_open(ledger_order: LedgerOrder, remote_order: Order) -> Repair:
    state, known = remote_order.marketplace_state, ledger_order.accepted_state
    if state is None or (state == known and ledger_order.phase != Phase.CLOSED):
        return AGREE
    if ledger_order.phase == Phase.TO_PLACE:
        if known is None:
            return AGREE
        if state == ledger_order.desired_state:
            return Repair(Action.SEND)
        return _leave(
            f"FeedAMP shows this order as {state}, while a change to {ledger_order.desired_state} waits to be sent. "
            "If the next run of feedamp_place_orders does not settle it, ask FeedAMP."
        )
    if state not in _OPEN_STATES:
        return _leave(
            f"FeedAMP shows this order in a state that this version does not know: {state}. Nothing is changed; "
            "ask FeedAMP what it means."
        )
    if ledger_order.phase == Phase.CLOSED or known in FINAL_STATES:
        return Repair(
            Action.SEND_AGAIN if _is_lost_instruction(ledger_order, remote_order) else Action.REOPEN
        )
    if ledger_order.phase == Phase.SETTLED and known is not None and may_follow(state, known):
        return Repair(Action.SEND_AGAIN)  # it was released for shipping, and FeedAMP lost that state
    return Repair(Action.ADOPT)


def _is_lost_instruction(ledger_order: LedgerOrder, remote_order: Order) -> bool:
    """Whether FeedAMP lost a final state that the marketplace requested, and that `process` would not set again."""
    final = ledger_order.accepted_state
    if (
        ledger_order.phase != Phase.CLOSED
        or ledger_order.closed_at is None
        or ledger_order.closing_state == final
        or final is None
    ):
        return False  # closed by `close`, or outside this ledger
    if not may_follow(remote_order.marketplace_state or "", final):
        return False
    return final == CANCELLED or (final == SHIPPED and remote_order.is_marketplace_fulfilled is True)


def is_mended(difference: Difference, *, ledger_follows: bool) -> bool:
    """Whether a difference is resolved once the warehouse has FeedAMP's snapshot.

    `ledger_follows`: the repair also sets the ledger to FeedAMP's state.
    """
    if difference.path == ORDER and difference.feedamp == MISSING:
        return ledger_follows  # it was placed again
    if difference.ledger in (None, difference.feedamp):
        return True
    return ledger_follows and difference.path in (STATE, CLOSED)


def is_about_content(difference: Difference) -> bool:
    """Whether lines or purchase date at FeedAMP differ from the placed ones, which no PUT can change (contract 7.4)."""
    return (len(difference.path) > 1 or difference.path == PURCHASED) and difference.ledger not in (
        None,
        difference.feedamp,
    )
