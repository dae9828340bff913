"""PURE: what a snapshot means for an open order: its findings, whether it can be closed, or what it waits for.

Asks `rules/checks.py` for faults, `rules/follow_up.py` for reports and `rules/closing.py` for closing. Decided here: an
order that waits for `place`, the end of a conflict, and an order that is final at FeedAMP.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from feedamp.models import Snapshot
from feedamp.rules.checks import check_order
from feedamp.rules.closing import Close, OpenOrder, Wait, decide_close, final_state, unexplained_errors
from feedamp.rules.finding import StoredFinding
from feedamp.rules.follow_up import ErrorListing, follow_up, hold_back, may_be_listed
from feedamp.rules.order import AWAITING_SHIPMENT, PENDING, LedgerOrder, Phase
from feedamp.rules.units import count_units, units_shipped


# Structs of msgspec, not dataclasses: each order needs several, and to make a frozen dataclass takes ten times as long.
class ReadSnapshot(msgspec.Struct, frozen=True):
    """A snapshot, when it was read, and since when it lists an error that no finding explains."""

    snapshot: Snapshot
    read_at: datetime
    error_lingers_since: datetime | None


class Evaluation(msgspec.Struct, frozen=True):
    """What to save: the order, the findings that have changed, and the decision with its times."""

    order: LedgerOrder
    decision: Close | Wait
    findings: Sequence[StoredFinding] = ()
    error_lingers_since: datetime | None = None


def evaluate(
    order: LedgerOrder,
    read: ReadSnapshot,
    findings: Sequence[StoredFinding],
    shared_tracking: Collection[str],
    *,
    listing_works: bool,
    error_codes: Mapping[str, str | None],
    error_clear: timedelta,
    untracked: Collection[str] = (),
    now: datetime,
) -> Evaluation:
    """Evaluates an order by one snapshot; the same snapshot always leads to the same findings.

    Args:
        findings: all stored findings of the order.
        shared_tracking: its tracking numbers that another recipient's order has, too.
        listing_works: FeedAMP has listed a reported error on some order before (`ErrorListing`).
        error_codes: option `error_codes`; `error_clear`: option `error_clear_days`.
        untracked: the seller's `untracked_services`.
    """
    snapshot = read.snapshot
    if _waits_for_its_put(order, snapshot):
        wait = Wait("its PUT is still to be confirmed")
        return Evaluation(order, wait, error_lingers_since=read.error_lingers_since)
    if snapshot.is_final:
        closed = order.closed(final_state(snapshot, sent=order.closing_state), now=now)
        return Evaluation(closed, Wait("closed already"), hold_back(findings))
    order = _follow_remote_state(order, snapshot)
    if _is_conflict_over(order, snapshot):
        wanted = order.conflict_ended(now=now)
        return Evaluation(wanted, _placed_first(wanted), error_lingers_since=read.error_lingers_since)
    changed: list[StoredFinding] = []
    ordered = order.ordered
    units = count_units(ordered, snapshot.fulfillments)
    if not snapshot.is_marketplace_fulfilled:  # otherwise there is no seller to report to
        faults = check_order(
            ordered,
            units,
            snapshot,
            purchase_date=order.purchase_date,
            today=now.date(),
            shared_numbers=shared_tracking,
            untracked=untracked,
        )
        if faults or findings:
            look = ErrorListing(snapshot.errors, read.read_at, listing_works)
            changed = follow_up(*order.key, faults, findings, look, error_codes=error_codes, now=now)
    current: Collection[StoredFinding] = ()
    if findings or changed:
        current = {finding.finding_id: finding for finding in (*findings, *changed)}.values()
    lingering = 0
    if snapshot.errors:
        explained = [finding.listed_as for finding in current if may_be_listed(finding)]
        lingering = len(unexplained_errors(snapshot.errors, explained))
    since = (read.error_lingers_since or now) if lingering else None
    decision = decide_close(
        OpenOrder(
            ordered=ordered,
            units=units,
            snapshot=snapshot,
            accepted_state=order.accepted_state or order.desired_state,
            has_body=order.has_body,
            open_errors=sum([finding.blocks_closing for finding in current]),
            lingering_errors=lingering,
            lingering_too_long=since is not None and now - since >= error_clear,
        )
    )
    return Evaluation(order, decision, changed, since)


def is_checked(order: LedgerOrder, snapshot: Snapshot) -> bool:
    """Whether `evaluate` looks for faults in the snapshot, so that it needs `shared_tracking`."""
    return not (
        _waits_for_its_put(order, snapshot)
        or snapshot.is_final
        or _is_conflict_over(order, snapshot)
        or snapshot.is_marketplace_fulfilled
    )


def _waits_for_its_put(order: LedgerOrder, snapshot: Snapshot) -> bool:
    """Whether a PUT arrived but its answer was lost: `place` repeats it and records the answer (contract 7.5)."""
    return order.phase == Phase.TO_PLACE and order.desired_state == snapshot.marketplace_state


def _follow_remote_state(order: LedgerOrder, snapshot: Snapshot) -> LedgerOrder:
    """Takes over FeedAMP's open state for an adopted order without a body: the system that placed it changes its state."""
    state = snapshot.marketplace_state
    if order.has_body or order.accepted_state == state or state not in (PENDING, AWAITING_SHIPMENT):
        return order
    return order.followed(state)


def _placed_first(order: LedgerOrder) -> Wait:
    return Wait(f"it is to be placed as {order.desired_state}")


def _is_conflict_over(order: LedgerOrder, snapshot: Snapshot) -> bool:
    """Whether the seller has withdrawn the shipped units because of which a state was held."""
    return order.conflicting_state is not None and not units_shipped(snapshot.fulfillments)
