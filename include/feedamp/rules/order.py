"""PURE: an order's life: its phases, every change between them, and the legal changes of `marketplace_state` (contract 7.1).

| change | from | to | what it means |
|---|---|---|---|
| `requested` | to_place, settled, held, refused | to_place | The marketplace wants this state: it is sent at the next run of `place`. |
| `cancelled_before_placing` | to_place, held, refused | never_placed | It was cancelled, and FeedAMP does not have it: nothing is sent. |
| `cancellation_held` | to_place, settled, held | held | CANCELLED is not sent before a newer snapshot shows no shipped units. |
| `conflict_ended` | to_place, settled, held | to_place | The seller has withdrawn the shipped units: the state that was held is sent. |
| `held_without_body` | to_place | held | It has no body that could be sent. |
| `postponed` | to_place | to_place | No usable answer to a PUT: it is tried again later. |
| `refused` | to_place, held | refused, held | FeedAMP refused the PUT; an order that it had accepted before stays open and is held. |
| `accepted` | to_place, settled, held, closed | to_place, settled, closed | FeedAMP accepted a PUT with this state; a state that is wanted meanwhile is sent next. |
| `followed` | to_place, settled, held | to_place, settled, held | The system that placed it has changed its state; only for an adopted order without a body. |
| `closing` | to_place, settled, held | to_place, settled, held | `close` sends this final state. |
| `closed` | to_place, settled, held, closed | closed | It is final at FeedAMP, by the PUT of `close` or by another system. |
| `adopted` | settled, held | settled, held | A repair takes over the open state that FeedAMP shows; a conflict stays held. |
| `reopened` | settled, held, closed | settled | A repair opens it again, because FeedAMP shows it open. |
| `sent_again` | settled, held, closed | to_place | A repair sends the state that FeedAMP had accepted and lost; `state` is what it shows, None if nothing. |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast

from feedamp.models import FINAL_STATES, MarketplaceState
from feedamp.rules.stored_body import FULL

PENDING = MarketplaceState.PENDING
AWAITING_SHIPMENT = MarketplaceState.AWAITING_SHIPMENT
SHIPPED = MarketplaceState.SHIPPED
CANCELLED = MarketplaceState.CANCELLED
CANCELLED_TOO_LATE = "CANCELLED came in, but the seller had shipped: the order is closed as SHIPPED"


class Phase(StrEnum):
    """Where an order stands in the ledger."""

    TO_PLACE = "to_place"  # a PUT is due
    SETTLED = "settled"  # FeedAMP has accepted the state that the marketplace wants
    HELD = "held"  # a conflict: nothing is sent until someone acts
    REFUSED = "refused"  # FeedAMP refused it before it ever accepted it; waits for new input
    NEVER_PLACED = "never_placed"  # cancelled before the first PUT
    CLOSED = "closed"


# The phases in which the order can still change, and those in which nothing is due to be sent.
OPEN_PHASES = (Phase.TO_PLACE, Phase.SETTLED, Phase.HELD)
NOTHING_TO_SEND = (Phase.SETTLED, Phase.HELD, Phase.CLOSED)


def is_blocked(phase: str, reason: str | None) -> bool:
    """Whether an order is sent in the first run after its seller was registered, connected or resumed.

    Its next try is only when `place` looks again; see `Seller.blocked_by`.
    """
    return phase == Phase.TO_PLACE and (reason or "").startswith("the seller")


# Contract Q25: which other changes FeedAMP permits is unknown, so none of them is requested.
LEGAL = frozenset(
    {
        (PENDING, AWAITING_SHIPMENT),
        (PENDING, CANCELLED),
        (AWAITING_SHIPMENT, SHIPPED),
        (AWAITING_SHIPMENT, CANCELLED),
    }
)


def may_follow(before: str, after: str) -> bool:
    """Whether the change from one state to another is legal. PENDING reaches SHIPPED only through AWAITING_SHIPMENT."""
    return (before, after) in LEGAL


# What `LedgerOrder.accepted` goes by, and what it may change.
ACCEPTED_BY = ("phase", "desired_state", "placed_at")
CHANGED_BY_ACCEPTED = (
    *("phase", "accepted_state", "placed_at", "closed_at", "ended_at", "reason", "next_try_at"),
    *("read_back_at", "attempts", "missing_since"),
)


class IllegalTransitionError(ValueError):
    """A change that an order in this phase cannot make."""


@dataclass(frozen=True)
class Transition:
    """A change of an order: its name, and the phases in which it may begin and end."""

    name: str
    before: tuple[Phase, ...]
    after: tuple[Phase, ...]
    meaning: str


TRANSITIONS: list[Transition] = []
_Arguments = ParamSpec("_Arguments")
_Change = Callable[Concatenate["LedgerOrder", _Arguments], "LedgerOrder"]


def _transition(
    *before: Phase, to: tuple[Phase, ...]
) -> Callable[[_Change[_Arguments]], _Change[_Arguments]]:
    """Declares a change of an order and makes it raise `IllegalTransitionError` in any other phase."""

    def declare(change: _Change[_Arguments]) -> _Change[_Arguments]:
        meaning = (change.__doc__ or "").partition("\n")[0]
        TRANSITIONS.append(Transition(change.__name__, before, to, meaning))

        @wraps(change)
        def checked(self: LedgerOrder, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> LedgerOrder:
            changed = change(self, *args, **kwargs) if self.phase in before else None
            if changed is None or changed.phase not in to:
                raise IllegalTransitionError(
                    f"order {self.mp_order_number} is {self.phase}, which does not allow `{change.__name__}`"
                )
            return changed

        return cast("_Change[_Arguments]", checked)

    return declare


@dataclass(frozen=True)
class LedgerOrder:
    """One order of the ledger, placed from here or adopted from FeedAMP.

    `body` is the PUT body without `marketplace_state`; it holds customer fields. If `body_kind` is not `FULL`, `body`
    holds only part of it. `body_hash` is always the hash of the full body, and empty if none was ever delivered.
    `placed_at` is when FeedAMP first accepted the order; for an adopted order it equals `adopted_at`.
    `closed_units` holds line -> (shipped, cancelled) from the newest snapshot of a closed order; None if unknown.
    `next_try_at` is when `place` may try an order to be placed again; `read_back_at` is when the next extraction reads the
    order by number.
    """

    seller_id: str
    mp_order_number: str
    phase: Phase
    body: dict[str, Any] = field(repr=False)
    body_hash: str
    desired_state: str
    accepted_state: str | None
    delivered: tuple[str, ...]
    purchase_date: datetime
    source: str
    source_row: int
    row_hash: str
    taken_at: datetime
    reason: str | None = None
    conflicting_state: str | None = None
    next_try_at: datetime | None = None
    read_back_at: datetime | None = None
    attempts: int = 0
    first_put_at: datetime | None = None
    placed_at: datetime | None = None
    closing_state: str | None = None
    closing_at: datetime | None = None
    closed_at: datetime | None = None
    body_kind: str = FULL
    adopted_at: datetime | None = None
    ended_at: datetime | None = None
    missing_since: datetime | None = None
    closed_units: Mapping[str, tuple[int, int]] | None = None
    closed_units_shipped: int | None = None
    closed_units_at: datetime | None = None
    acknowledged_shipped: int | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    acknowledge_reason: str | None = None

    @classmethod
    def of(cls, names: Collection[str], rows: Iterable[Iterable[Any]]) -> list[LedgerOrder]:
        """Orders with all of these fields. To set each of them as a frozen dataclass does takes ten times as long.

        Raises:
            TypeError: these are not all fields, or not only fields.
        """
        if set(names) != cls.__dataclass_fields__.keys():
            raise TypeError("an order of the ledger has other fields")
        orders = []
        for row in rows:
            order = object.__new__(cls)
            order.__dict__.update(zip(names, row, strict=True))
            orders.append(order)
        return orders

    @property
    def key(self) -> tuple[str, str]:
        return self.seller_id, self.mp_order_number

    @property
    def ordered(self) -> dict[str, int]:
        """Ordered units by line, from the placed body or, for an order adopted without one, as FeedAMP shows them."""
        return {line["mp_line_number"]: int(line["quantity"]) for line in self.body["order_lines"]}

    @property
    def has_body(self) -> bool:
        """The full body is stored, so it can be sent."""
        return self.body_kind == FULL

    @property
    def shipped_though_cancelled(self) -> int:
        """Units that the seller shipped although the order was closed as CANCELLED, acknowledged or not."""
        # Does not count an order that another system had closed before it was adopted.
        was_closed_here = self.closed_at is not None or self.adopted_at is None
        is_cancelled = self.phase == Phase.CLOSED and self.accepted_state == CANCELLED
        return (self.closed_units_shipped or 0) if was_closed_here and is_cancelled else 0

    @property
    def is_withdrawn(self) -> bool:
        """Whether `close` closed it as SHIPPED and FeedAMP shows no shipped units of it any more, acknowledged or not."""
        is_shipped = self.phase == Phase.CLOSED and self.closing_state == self.accepted_state == SHIPPED
        return is_shipped and self.closed_units_shipped == 0

    @property
    def is_to_acknowledge(self) -> bool:
        """Whether a person has yet to acknowledge that it was withdrawn, or that so many units were shipped though cancelled."""
        if self.is_withdrawn:
            return self.acknowledged_shipped != 0
        return self.shipped_though_cancelled > (self.acknowledged_shipped or 0)

    @property
    def next_state(self) -> str:
        """The state to send next. An order that FeedAMP has as PENDING is sent as AWAITING_SHIPMENT before SHIPPED."""
        is_released = self.accepted_state not in (None, PENDING)
        return (
            str(AWAITING_SHIPMENT)
            if self.desired_state == SHIPPED and not is_released
            else self.desired_state
        )

    @property
    def is_open(self) -> bool:
        """Whether it is placed, not closed, and accepted neither as SHIPPED nor as CANCELLED."""
        return (
            self.placed_at is not None
            and self.phase != Phase.CLOSED
            and self.accepted_state not in FINAL_STATES
        )

    @property
    def never_reached_feedamp(self) -> bool:
        """Whether FeedAMP cannot have it: no PUT was sent, or FeedAMP refused it."""
        return self.accepted_state is None and (self.first_put_at is None or self.phase == Phase.REFUSED)

    def is_missing(self, now: datetime) -> bool:
        """Whether FeedAMP did not have the order when last asked, and the order waits for a PUT or its next read."""
        if self.missing_since is None:
            return False
        return self.phase == Phase.TO_PLACE or self.read_back_at is None or self.read_back_at > now

    def put_body(self, marketplace_state: str) -> dict[str, Any]:
        """The first accepted body with only the state replaced (contract 7.4).

        Raises:
            ValueError: the full body is not stored; an incomplete one must never be sent.
        """
        if not self.has_body:
            raise ValueError(f"order {self.mp_order_number} has no body that could be sent")
        return {**self.body, "marketplace_state": str(marketplace_state)}

    def but(self, **changes: Any) -> LedgerOrder:
        """The same order with some fields changed, but not its phase."""
        if "phase" in changes:
            raise IllegalTransitionError("a phase is changed by a transition only")
        return self._with(changes)

    @_transition(*OPEN_PHASES, Phase.REFUSED, to=(Phase.TO_PLACE,))
    def requested(self, state: str, *, now: datetime) -> LedgerOrder:
        """The marketplace wants this state: it is sent at the next run of `place`."""
        return self._to(Phase.TO_PLACE, desired_state=str(state), reason=None, next_try_at=now, attempts=0)

    @_transition(Phase.TO_PLACE, Phase.HELD, Phase.REFUSED, to=(Phase.NEVER_PLACED,))
    def cancelled_before_placing(self, *, now: datetime) -> LedgerOrder:
        """It was cancelled, and FeedAMP does not have it: nothing is sent."""
        reason = "cancelled before it was placed"
        return self._to(Phase.NEVER_PLACED, desired_state=str(CANCELLED), reason=reason, ended_at=now)

    @_transition(*OPEN_PHASES, to=(Phase.HELD,))
    def cancellation_held(self, reason: str, *, read_back_at: datetime | None = None) -> LedgerOrder:
        """CANCELLED is not sent before a newer snapshot shows no shipped units."""
        was_wanted = self.accepted_state if self.desired_state == CANCELLED else None
        return self._to(
            Phase.HELD,
            desired_state=was_wanted or self.desired_state,
            conflicting_state=str(CANCELLED),
            reason=reason,
            read_back_at=read_back_at,
        )

    @_transition(*OPEN_PHASES, to=(Phase.TO_PLACE,))
    def conflict_ended(self, *, now: datetime) -> LedgerOrder:
        """The seller has withdrawn the shipped units: the state that was held is sent."""
        return self._to(
            Phase.TO_PLACE,
            desired_state=self.conflicting_state or self.desired_state,
            conflicting_state=None,
            reason=None,
            next_try_at=now,
            attempts=0,
        )

    @_transition(Phase.TO_PLACE, to=(Phase.HELD,))
    def held_without_body(self, reason: str) -> LedgerOrder:
        """It has no body that could be sent."""
        return self._to(Phase.HELD, reason=reason, read_back_at=self.next_try_at)

    @_transition(Phase.TO_PLACE, to=(Phase.TO_PLACE,))
    def postponed(self, reason: str, *, until: datetime) -> LedgerOrder:
        """No usable answer to a PUT: it is tried again later."""
        return self.but(reason=reason, next_try_at=until, attempts=self.attempts + 1)

    @_transition(Phase.TO_PLACE, Phase.HELD, to=(Phase.REFUSED, Phase.HELD))
    def refused(self, reason: str) -> LedgerOrder:
        """FeedAMP refused the PUT; an order that it had accepted before stays open and is held."""
        if self.accepted_state is None:
            return self._to(Phase.REFUSED, reason=reason)
        return self._to(Phase.HELD, reason=reason, read_back_at=self.read_back_at or self.next_try_at)

    @_transition(*OPEN_PHASES, Phase.CLOSED, to=(Phase.TO_PLACE, Phase.SETTLED, Phase.CLOSED))
    def accepted(self, state: str, *, sent_at: datetime, now: datetime) -> LedgerOrder:
        """FeedAMP accepted a PUT with this state; a state that is wanted meanwhile is sent next."""
        is_final = state in FINAL_STATES
        is_done = is_final or self.desired_state == state
        return self._to(
            Phase.CLOSED if is_final else Phase.SETTLED if is_done else Phase.TO_PLACE,
            accepted_state=state,
            placed_at=self.placed_at or sent_at,
            closed_at=sent_at if is_final else None,
            ended_at=sent_at if is_final else None,
            reason=None,
            read_back_at=now if is_done and self.placed_at is not None else None,
            attempts=0,
            missing_since=None,
        )

    @_transition(*OPEN_PHASES, to=OPEN_PHASES)
    def followed(self, state: str) -> LedgerOrder:
        """The system that placed it has changed its state; only for an adopted order without a body."""
        return self.but(accepted_state=state, desired_state=state)

    @_transition(*OPEN_PHASES, to=OPEN_PHASES)
    def closing(self, state: str, *, at: datetime) -> LedgerOrder:
        """`close` sends this final state."""
        return self.but(closing_state=str(state), closing_at=at)

    @_transition(*OPEN_PHASES, Phase.CLOSED, to=(Phase.CLOSED,))
    def closed(self, state: str, *, now: datetime) -> LedgerOrder:
        """It is final at FeedAMP, by the PUT of `close` or by another system."""
        closed_at = self.closing_at if self.closing_state == state else None
        reason, conflicting_state = None if closed_at else "closed elsewhere", self.conflicting_state
        if CANCELLED in (self.desired_state, conflicting_state) and state == SHIPPED:
            # Intake may have taken, or `place` held, a cancellation since the order was read for closing.
            reason, conflicting_state = CANCELLED_TOO_LATE, str(CANCELLED)
        return self._to(
            Phase.CLOSED,
            accepted_state=state,
            desired_state=state,
            closed_at=closed_at,
            ended_at=closed_at or now,
            reason=reason,
            conflicting_state=conflicting_state,
        )

    @_transition(Phase.SETTLED, Phase.HELD, to=(Phase.SETTLED, Phase.HELD))
    def adopted(self, state: str | None, *, now: datetime) -> LedgerOrder:
        """A repair takes over the open state that FeedAMP shows; a conflict stays held."""
        is_settled = self.phase == Phase.SETTLED or (
            self.desired_state == state and not self.conflicting_state
        )
        changes = {"desired_state": state, "reason": None} if is_settled else {}
        phase = Phase.SETTLED if is_settled else Phase.HELD
        return self._to(phase, accepted_state=state, read_back_at=now, attempts=0, **changes)

    @_transition(Phase.SETTLED, Phase.HELD, Phase.CLOSED, to=(Phase.SETTLED,))
    def reopened(self, state: str | None, *, now: datetime) -> LedgerOrder:
        """A repair opens it again, because FeedAMP shows it open."""
        return self._to(
            Phase.SETTLED,
            accepted_state=state,
            desired_state=state,
            placed_at=self.placed_at or self.first_put_at or self.taken_at,
            closed_at=None,
            reason="reopened: FeedAMP shows it open",
            read_back_at=now,
            attempts=0,
        )

    @_transition(Phase.SETTLED, Phase.HELD, Phase.CLOSED, to=(Phase.TO_PLACE,))
    def sent_again(self, state: str | None, *, now: datetime) -> LedgerOrder:
        """A repair sends the state that FeedAMP had accepted and lost; `state` is what it shows, None if nothing."""
        reason = "FeedAMP has lost it" if state is None else f"FeedAMP shows {state} again"
        return self._to(
            Phase.TO_PLACE,
            accepted_state=self.accepted_state if state is None else state,
            desired_state=self.accepted_state,
            closed_at=None,
            reason=reason,
            next_try_at=now,
            attempts=0,
        )

    def _to(self, phase: Phase, **changes: Any) -> LedgerOrder:
        """The order in a phase; times to try and to read back end with the phase before, unless they are given."""
        ended = {"next_try_at": None, "read_back_at": None}
        return self._with({"phase": phase, **ended, **changes})

    def _with(self, changes: Mapping[str, Any]) -> LedgerOrder:
        if not changes.keys() <= self.__dataclass_fields__.keys():
            raise TypeError("an order of the ledger has other fields")
        order = object.__new__(LedgerOrder)
        order.__dict__.update(self.__dict__, **changes)
        return order
