"""PURE: decides what a delivered order changes in the ledger (docs/rules.md, Intake)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter
from typing import Any

from feedamp.codec import content_hash
from feedamp.models import FINAL_STATES, MarketplaceState
from feedamp.order_body import BadRow, OrderRow, Reason
from feedamp.order_body.reject_reasons import capped
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import (
    AWAITING_SHIPMENT,
    CANCELLED,
    OPEN_PHASES,
    SHIPPED,
    LedgerOrder,
    Phase,
    may_follow,
)
from feedamp.rules.stored_body import FULL, contradictions

MAX_DELIVERIES = 100
_NOT_UPDATABLE = "differs from the placed order; only marketplace_state can change"


@dataclass(frozen=True)
class Admission:
    """What to write: the updated order (None: no change), and the reasons to record for the row.

    `rejected`: nothing of the row was accepted, but possibly its state; False if `reasons` only records how its body differs.
    `note`: why a rejected row requires no action. `body_came`: the order had no body that could be sent, and now has
    one. `before`: the order as it was in the ledger, None if it is new.
    """

    order: LedgerOrder | None = None
    reasons: tuple[Reason, ...] = ()
    rejected: bool = False
    body_came: bool = False
    note: str | None = None
    before: LedgerOrder | None = field(default=None, compare=False)

    @property
    def is_turned_away(self) -> bool:
        """Whether the row was rejected and action may be required."""
        return self.rejected and self.note is None


@dataclass(frozen=True)
class ObservedState:
    """What the newest snapshot shows of an order; the defaults if there is no snapshot."""

    units_shipped: int = 0
    is_marketplace_fulfilled: bool = False


class _Delivery:
    """What a row says of its order: the body without the state, the state, and what recognizes a repeated delivery."""

    def __init__(self, row: OrderRow) -> None:
        self.body = {key: value for key, value in row.body.items() if key != "marketplace_state"}
        self.state = MarketplaceState(row.body["marketplace_state"])
        self.body_hash = content_hash(_by_line(self.body))
        self.hash = content_hash([self.body_hash, self.state])
        # The columns that name the row's source; a later placement or reject refers to them.
        self.origin: dict[str, Any] = {
            "source": row.source,
            "source_row": row.row_number,
            "row_hash": row.row_hash,
        }
        self.with_body: dict[str, Any] = {"body": self.body, "body_hash": self.body_hash, **self.origin}
        self.purchase_date = datetime.fromisoformat(self.body["purchase_date"])

    def has(self, body_hash: str) -> bool:
        """Whether its body has this hash; earlier versions made it of the lines as they came."""
        return body_hash == self.body_hash or body_hash == content_hash(self.body)

    def repeats(self, known: LedgerOrder) -> bool:
        """Whether an earlier delivery said the same, with the hash of its lines sorted or as they came."""
        return (
            self.hash in known.delivered
            or content_hash([content_hash(self.body), self.state]) in known.delivered
        )


def admit(row: OrderRow, known: LedgerOrder | None, seen: ObservedState, *, now: datetime) -> Admission:
    """What one valid inbox row changes in the ledger. Safe to repeat: content that was delivered before changes nothing."""
    new = _Delivery(row)
    if known is None:
        return _first_delivery(row, new, now)
    if not known.has_body and known.phase in OPEN_PHASES:
        return _attach_body(known, new, seen, now)
    if new.repeats(known):
        differs = not new.has(known.body_hash) and not _is_replaceable(known)
        return Admission(None, capped(_body_changed(known, new.body)) if differs else ())
    order = known.but(delivered=_delivered(known, new.hash))
    reasons: tuple[Reason, ...] = ()
    if not new.has(known.body_hash):
        if _is_replaceable(known):
            if known.phase != Phase.REFUSED and row.source != known.source:
                # Recorded because an order split over two files would otherwise silently lose the lines of the first.
                said = f"replaces what {known.source} row {known.source_row} said, which was not sent yet"
                reasons = capped(_differences(_by_line(known.body), _by_line(new.body), said))
            order = order.but(purchase_date=new.purchase_date, **new.with_body)
        else:
            reasons = capped(_body_changed(known, new.body))
    moved = _move(order, known, new.state, seen, now)
    if isinstance(moved, Reason):
        return Admission(None, (*reasons, moved), rejected=True, note=_no_action_note(known, new.state))
    if moved.desired_state != known.desired_state:
        moved = moved.but(**new.origin)
    return Admission(moved, reasons)


def admit_state(row: BadRow, known: LedgerOrder | None, seen: ObservedState, *, now: datetime) -> Admission:
    """What a row with faults changes: at most the state of an order that was sent or is cancelled.

    For nothing but the state of such an order counts (contract 7.4), and a cancellation that waits for a correction comes too late.
    """
    admission = Admission(None, row.reasons, rejected=True)
    if known is None or not row.state or row.state == known.desired_state or not known.has_body:
        return admission
    if row.row_hash in known.delivered or (row.state != CANCELLED and _is_replaceable(known)):
        return admission
    # The order stays one of the row that was accepted. This one has a reject of its own, and its correction is no repeat of it.
    order = known.but(delivered=_delivered(known, row.row_hash))
    moved = _move(order, known, MarketplaceState(row.state), seen, now)
    return admission if isinstance(moved, Reason) else replace(admission, order=moved)


def _attach_body(known: LedgerOrder, new: _Delivery, seen: ObservedState, now: datetime) -> Admission:
    """Adds the delivered body, if it fits, to an open order without one (adopted, or reopened after redaction)."""
    wrong = tuple(contradictions(known.body, new.body))
    if not wrong and known.body_hash and not new.has(known.body_hash):
        wrong = capped(_body_changed(known, new.body))
    if wrong:
        return Admission(None, wrong, rejected=True)
    order = known.but(body_kind=FULL, **new.with_body)
    if new.repeats(known):  # the state of this delivery has been handled before
        return Admission(order, body_came=True)
    moved = _move(order.but(delivered=_delivered(known, new.hash)), known, new.state, seen, now)
    if isinstance(moved, Reason):
        return Admission(None, (moved,), rejected=True)
    return Admission(moved, body_came=True)


def _delivered(known: LedgerOrder, new_hash: str) -> tuple[str, ...]:
    """What recognizes the latest deliveries; a file may deliver one order hundreds of thousands of times."""
    return (*known.delivered, new_hash)[-MAX_DELIVERIES:]


def _first_delivery(row: OrderRow, new: _Delivery, now: datetime) -> Admission:
    if new.state in FINAL_STATES:
        # Contract 7.1: CANCELLED requires an order that was placed before, and the inbox does not close orders.
        why = f"the order was never delivered before, so it cannot come as {new.state}"
        return Admission(None, (_illegal(why),), rejected=True)
    return Admission(
        LedgerOrder(
            seller_id=row.seller_id,
            mp_order_number=row.mp_order_number,
            phase=Phase.TO_PLACE,
            desired_state=new.state,
            accepted_state=None,
            delivered=(new.hash,),
            purchase_date=new.purchase_date,
            taken_at=now,
            **new.with_body,
        )
    )


def _move(
    order: LedgerOrder, known: LedgerOrder, state: MarketplaceState, seen: ObservedState, now: datetime
) -> LedgerOrder | Reason:
    """The order in its new state, or the reason why it cannot change to it."""
    current = known.desired_state
    if state == current:
        # FeedAMP may accept the new content of an order that it has refused.
        return order.requested(state, now=now) if known.phase == Phase.REFUSED else order
    if state == CANCELLED and _is_replaceable(known):
        return order.cancelled_before_placing(now=now)
    if state == SHIPPED and current == AWAITING_SHIPMENT and not seen.is_marketplace_fulfilled:
        return _illegal(
            "only an order that the marketplace fulfills itself may come as SHIPPED; others are closed here"
        )
    if known.phase in (Phase.CLOSED, Phase.NEVER_PLACED) or not may_follow(current, state):
        return _illegal(f"an order in state {current} cannot become {state}")
    if state == CANCELLED and seen.units_shipped:
        reason = (
            f"conflict: CANCELLED came in, but the seller has shipped {counted(seen.units_shipped, 'unit')}"
        )
        return order.cancellation_held(reason, read_back_at=known.read_back_at or known.next_try_at)
    return order.requested(state, now=now)


def _no_action_note(known: LedgerOrder, state: MarketplaceState) -> str | None:
    """Why an illegal state requires no action: a cancellation came after the order was closed. Else None."""
    if state == CANCELLED and known.phase == Phase.CLOSED:
        return f"The cancellation came after the order was closed as {known.desired_state}; nothing can be sent any more."
    return None


def _is_replaceable(known: LedgerOrder) -> bool:
    """Whether a newer body simply replaces the older one: no PUT can have reached FeedAMP yet, or it was refused."""
    return known.phase != Phase.NEVER_PLACED and known.never_reached_feedamp


def _body_changed(known: LedgerOrder, body: Mapping[str, Any]) -> list[Reason]:
    """The fields that differ from the placed body.

    If the placed body is no longer stored, one reason without a field; if there never was one, none.
    """
    if known.has_body:
        return _differences(_by_line(known.body), _by_line(body), _NOT_UPDATABLE)
    if not known.body_hash:
        return []
    message = "differs from the placed order, whose body is no longer stored, so its fields cannot be named"
    return [Reason("", "body_changed", message)]


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], message: str, path: str = ""
) -> list[Reason]:
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, message, f"{path}{key}.")
        else:
            found.append(Reason(f"{path}{key}", "body_changed", message))
    return found


def _by_line(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body with its lines by number, as rows of a file may come in any order."""
    return {**body, "order_lines": sorted(body["order_lines"], key=itemgetter("mp_line_number"))}


def _illegal(message: str) -> Reason:
    return Reason("marketplace_state", "illegal_transition", message)
