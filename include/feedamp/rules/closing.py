"""PURE: whether an order can be closed, as what, or what it still waits for (contract 7.1)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from feedamp.models import FINAL_STATES, ListedError, MarketplaceState, Snapshot
from feedamp.rules.order import AWAITING_SHIPMENT, CANCELLED, COMPLETE, SHIPPED
from feedamp.rules.units import LineUnits, count_units


@dataclass(frozen=True)
class Close:
    """The order can be closed as this state."""

    marketplace_state: MarketplaceState


@dataclass(frozen=True)
class Wait:
    """The order stays open, and why; `needs_person` when time alone will not help."""

    reason: str
    needs_person: bool = False


@dataclass(frozen=True)
class OpenOrder:
    """An order of ours as close sees it: what was ordered by the ledger, the rest by a snapshot.

    `has_body` is false for one that was adopted and whose body was not delivered yet: closing sends it.
    """

    ordered: Mapping[str, int]
    snapshot: Snapshot
    accepted_state: str
    has_body: bool = True
    open_errors: int = 0
    lingering_errors: int = 0
    lingering_too_long: bool = False

    @property
    def units(self) -> dict[str, LineUnits]:
        """Units by line."""
        return count_units(self.ordered, self.snapshot.fulfillments)

    @property
    def marketplace_state(self) -> str:
        """As FeedAMP shows it; what it last accepted from us where it shows none."""
        return self.snapshot.marketplace_state or self.accepted_state

    @property
    def units_shipped(self) -> int:
        """Units shipped over all lines."""
        return sum(line.shipped for line in self.units.values())

    @property
    def units_cancelled(self) -> int:
        """Units cancelled over all lines."""
        return sum(line.cancelled for line in self.units.values())


def decide_close(order: OpenOrder) -> Close | Wait:
    """Say whether an order can be closed, as what, or what it still waits for.

    SHIPPED needs at least one shipped unit; CANCELLED means every unit was cancelled (contract 7.1). Ordered
    units come from the body we placed, the rest from the snapshot.
    """
    if order.snapshot.is_marketplace_fulfilled:
        return Wait("the marketplace ships this order itself")
    if order.snapshot.is_marketplace_fulfilled is None:
        return Wait("FeedAMP does not say who ships this order")
    if order.marketplace_state in FINAL_STATES or order.snapshot.status == COMPLETE:
        return Wait("closed already")
    if not order.has_body:
        return Wait(
            "the order's body was never delivered here: deliver it to the inbox as it was placed",
            needs_person=True,
        )
    if order.marketplace_state != AWAITING_SHIPMENT:
        return Wait("not released for shipping")
    if order.open_errors:
        return Wait("an error finding is still open")
    if order.lingering_errors:
        reason = "FeedAMP still lists an error that looks mended"
        return Wait(reason, needs_person=order.lingering_too_long)
    if not order.ordered or not all(line.settled for line in order.units.values()):
        return Wait("units do not add up yet")
    return Close(SHIPPED if order.units_shipped else CANCELLED)


def unexplained_errors(
    listed: Collection[ListedError] | None, explained: Collection[tuple[str, str, str | None]]
) -> list[ListedError]:
    """Errors that FeedAMP lists beyond those given as (code, message, line)."""
    return [
        error for error in listed or () if (error.code, error.message, error.mp_line_number) not in explained
    ]
