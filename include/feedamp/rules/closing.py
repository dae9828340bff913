"""PURE: decides whether an order can be closed, in which state, or what it is waiting for (contract 7.1)."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from feedamp.models import FINAL_STATES, ListedError, MarketplaceState, Snapshot
from feedamp.rules.order import AWAITING_SHIPMENT, CANCELLED, PENDING, SHIPPED, LedgerOrder
from feedamp.rules.units import LineUnits, count_units, units_shipped

MISSING = "FeedAMP does not have it"
REMOVED = "the seller was removed: no one reads it"
BY_MARKETPLACE = "the marketplace ships this order itself"


class Close(msgspec.Struct, frozen=True):
    """The order can be closed in this state."""

    marketplace_state: MarketplaceState


class Wait(msgspec.Struct, frozen=True):
    """The order stays open for this reason; `needs_person`: it stays open until someone acts."""

    reason: str
    needs_person: bool = False


class OpenOrder(msgspec.Struct, frozen=True):
    """The input of `decide_close`: ordered units and accepted state from the ledger, a snapshot, and counts of errors.

    `units` is the result of `count_units` for the ordered ones and the snapshot. `has_body` is false if the full body is not
    stored. Closing sends the body, so such an order waits until its body is delivered. `open_errors` counts findings that
    block closing. `lingering_errors` counts errors that FeedAMP still lists although no finding explains them.
    """

    ordered: Mapping[str, int]
    units: Mapping[str, LineUnits]
    snapshot: Snapshot
    accepted_state: str
    has_body: bool = True
    open_errors: int = 0
    lingering_errors: int = 0
    lingering_too_long: bool = False

    @property
    def marketplace_state(self) -> str:
        """The state that FeedAMP shows or, if it shows none, the state that it accepted last."""
        return self.snapshot.marketplace_state or self.accepted_state


def decide_close(order: OpenOrder) -> Close | Wait:
    """Decide whether an order can be closed, in which state, or what it is waiting for.

    SHIPPED requires at least one shipped unit; CANCELLED means that every unit was cancelled (contract 7.1). Ordered
    units come from the placed body, shipped and cancelled units from the snapshot.
    """
    if order.snapshot.is_marketplace_fulfilled:
        return Wait(BY_MARKETPLACE)
    if order.snapshot.is_marketplace_fulfilled is None:
        return Wait("FeedAMP does not say who ships this order")
    state = order.marketplace_state
    if state in FINAL_STATES or order.snapshot.is_final:
        return Wait("closed already")
    if not order.has_body:
        return Wait(
            "the order's body was never delivered here: deliver it to the inbox as it was placed",
            needs_person=True,
        )
    if state != AWAITING_SHIPMENT:
        if state == PENDING:
            return Wait("not released for shipping")
        return Wait("FeedAMP shows a marketplace_state that is not known", needs_person=True)
    if order.open_errors:
        return Wait("an error finding is still open")
    if order.lingering_errors:
        reason = "FeedAMP still lists an error that looks resolved"
        return Wait(reason, needs_person=order.lingering_too_long)
    lines = order.units.values()
    if not order.ordered or not all(line.settled for line in lines):
        return Wait("units do not add up yet")
    return Close(SHIPPED if any(line.shipped for line in lines) else CANCELLED)


def waits_for(
    is_registered: bool, is_missing: bool, is_read: bool, is_validated: bool | None, reason: str | None
) -> str:
    """What an open order waits for, as `status` and `orders show` say it.

    `is_registered`: its seller is; `reason` is that of the last validation.
    """
    if not is_registered:
        return REMOVED
    if is_missing:
        return MISSING
    if not is_read:
        return "not read yet"
    return (reason or "can be closed") if is_validated else "not validated yet"


def final_state(snapshot: Snapshot, *, sent: str | None = None) -> MarketplaceState:
    """In which state an order is final: as FeedAMP shows it, else (Q12) as it was `sent`, else as its units imply."""
    if snapshot.marketplace_state in FINAL_STATES:
        return MarketplaceState(snapshot.marketplace_state)
    return MarketplaceState(sent) if sent else SHIPPED if units_shipped(snapshot.fulfillments) else CANCELLED


def closure_row(order: LedgerOrder, snapshot: Snapshot, *, run_id: str | None) -> dict[str, Any]:
    """The row of `closures` for an order that `close` has closed."""
    units = count_units(order.ordered, snapshot.fulfillments).values()
    return {
        "seller_id": order.seller_id,
        "mp_order_number": order.mp_order_number,
        "marketplace_state": order.accepted_state,
        "units_shipped": sum(line.shipped for line in units),
        "units_cancelled": sum(line.cancelled for line in units),
        "closed_at": order.closed_at,
        "run_id": run_id,
    }


def unexplained_errors(
    listed: Collection[ListedError] | None, explained: Collection[tuple[str, str, str | None]]
) -> list[ListedError]:
    """Errors that FeedAMP lists and no finding explains; `explained` holds (code, message, line) of findings."""
    return [
        error for error in listed or () if (error.code, error.message, error.mp_line_number) not in explained
    ]
