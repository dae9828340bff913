"""What the orders of one task want of the ledger at the same moment, in one transaction: intents before PUTs, results after.

Nothing is sent before its intent is durable. A result waits for the answers to other orders for `GATHERED_FOR_S` at most: each
transaction costs as much as some dozens of orders. The intent for the next order waits with it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import methodcaller
from typing import NamedTuple

import msgspec
from sqlalchemy.engine import Connection

from feedamp.api.decoding import read_order
from feedamp.api.json_fields import Coercions
from feedamp.codec import encode_body
from feedamp.errors import UnreadableError
from feedamp.lake.flatten import rows_of_placed
from feedamp.models import Order
from feedamp.rules import order_story
from feedamp.rules.cancelling import units_against_cancelling
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import CANCELLED, LedgerOrder, Phase
from feedamp.state import State, leases, ledger, open_orders, order_events, outbox, sellers
from feedamp.state.group_commit import GroupCommit, Wanted
from feedamp.state.leases import Lease
from feedamp.tables import PLACEMENTS, RECORDED_AT, Row

_Key = tuple[str, str]
GATHERED_FOR_S = 0.1


@dataclass(frozen=True)
class Begun:
    """What became of the intent to send an order.

    `order` is to be sent under `lease`. Without an order, `note` says why it is held; None if there is nothing to send.
    `is_busy`: another process holds the lease. `is_paused`: the seller is; nothing was done.
    """

    order: LedgerOrder | None = None
    lease: Lease | None = None
    note: str | None = None
    is_busy: bool = False
    is_paused: bool = False


@dataclass
class _Intent:
    key: _Key
    lease_name: str
    begun: Begun = Begun()


@dataclass
class _Acceptance:
    """A PUT that FeedAMP accepted; `was_placed`: it was not the order's first one."""

    key: _Key
    order: LedgerOrder
    state: str
    sent_at: datetime
    lease: Lease
    was_placed: bool = False


class Recording(NamedTuple):
    """An acceptance that waits for its transaction."""

    acceptance: _Acceptance
    wanted: Wanted[_Intent | _Acceptance]


class LedgerMoments:
    """For all orders that one task places."""

    def __init__(self, state: State, *, run_id: str | None) -> None:
        self._state = state
        self._run_id = run_id
        self._sending = 0  # orders that are being sent
        self._commit = GroupCommit[_Intent | _Acceptance](
            state, self._work, expects_more=lambda: self._sending > 0, lingers_s=GATHERED_FOR_S
        )

    async def begin(self, seller_id: str, mp_order_number: str) -> Begun:
        """Takes an order's lease and records the intent to send it, if it is to be sent; `end` it, whatever happens.

        Raises:
            PausedError: the seller is paused.
        """
        intent = _Intent((seller_id, mp_order_number), leases.of_order("place", seller_id, mp_order_number))
        try:
            await self._commit.do(intent)
            if intent.begun.is_paused:
                raise sellers.paused_error(seller_id)
        except BaseException:
            self._end_lease(intent.begun)
            raise
        self._sending += 1
        return intent.begun

    def end(self, begun: Begun) -> None:
        """Ends the lease of an order that was not accepted."""
        self._sending -= 1
        self._end_lease(begun)

    def _end_lease(self, begun: Begun) -> None:
        if begun.lease is not None:
            self._state.leases.end(begun.lease)

    def accepted(self, order: LedgerOrder, state: str, *, sent_at: datetime, lease: Lease) -> Recording:
        """Begins to record that FeedAMP accepted an order; give what is returned to `recorded`, instead of an `end`.

        What else is to be done at the same moment, as the intent for the next order, then shares its transaction.
        """
        self._sending -= 1  # what is still to come is counted, not what waits
        acceptance = _Acceptance(order.key, order, state, sent_at, lease)
        return Recording(acceptance, self._commit.add(acceptance))

    async def recorded(self, recording: Recording) -> bool:
        """Waits until that is recorded, which releases the lease; returns whether the order was placed before."""
        acceptance, wanted = recording
        try:
            await self._commit.done(wanted, even_if_cancelled=True)
        finally:
            self._state.leases.end(acceptance.lease)
        return acceptance.was_placed

    def _work(
        self, connection: Connection, items: Sequence[_Intent | _Acceptance], asked_at: float
    ) -> Callable[[], None]:
        acceptances = [item for item in items if isinstance(item, _Acceptance)]
        intents = [item for item in items if isinstance(item, _Intent)]
        placed_before = self._record_accepted(connection, acceptances)
        begun = list(self._begin_all(connection, intents, asked_at))

        def committed() -> None:
            for acceptance in acceptances:
                acceptance.lease.is_released = True
                acceptance.was_placed = acceptance.key in placed_before
            for intent, became in zip(intents, begun, strict=True):
                intent.begun = became
            self._state.leases.keep(became.lease for became in begun if became.lease is not None)

        return committed

    def _begin_all(
        self, connection: Connection, intents: Sequence[_Intent], asked_at: float
    ) -> Iterator[Begun]:
        if not intents:
            return
        now = self._state.now()
        paused = sellers.paused_among(connection, {intent.key[0] for intent in intents})
        wanted = [intent for intent in intents if intent.key[0] not in paused]
        names = [intent.lease_name for intent in wanted]
        taken = self._state.leases.take(connection, names, asked_at=asked_at)
        orders = ledger.read_all(connection, [intent.key for intent in wanted if intent.lease_name in taken])
        to_send: dict[_Key, LedgerOrder] = {}
        notes: dict[_Key, str] = {}
        for key, order in orders.items():
            if order.phase == Phase.TO_PLACE:
                note = hold_back(connection, order, run_id=self._run_id, now=now)
                if note is None:
                    to_send[key] = order
                else:
                    notes[key] = note
        ledger.note_puts(connection, to_send.values(), now=now)
        unused = [
            taken[intent.lease_name]
            for intent in wanted
            if intent.lease_name in taken and intent.key not in to_send
        ]
        if unused:
            leases.release(connection, unused)
        for intent in intents:
            lease = taken.get(intent.lease_name)
            if intent.key[0] in paused:
                yield Begun(is_paused=True)
            elif lease is None:
                yield Begun(is_busy=True)
            elif intent.key in to_send:
                yield Begun(to_send[intent.key], lease)
            else:
                yield Begun(note=notes.get(intent.key))

    def _record_accepted(self, connection: Connection, acceptances: Sequence[_Acceptance]) -> set[_Key]:
        """Records PUTs that FeedAMP accepted, and returns which orders it had accepted before."""
        if not acceptances:
            return set()
        now = self._state.now()
        leases.release(connection, [acceptance.lease for acceptance in acceptances])
        changes = ledger.save_accepted(
            connection,
            [
                (
                    acceptance.order,
                    methodcaller("accepted", acceptance.state, sent_at=acceptance.sent_at, now=now),
                )
                for acceptance in acceptances
            ],
        )
        # The ledger no longer has an order that was erased since it was sent; nothing more is recorded of it.
        changed = {after.key: (before, after) for before, after in changes}
        accepted = {acceptance.key: acceptance for acceptance in acceptances if acceptance.key in changed}
        events: list[order_story.Event] = []
        for key, (before, after) in changed.items():
            acceptance = accepted[key]
            events += order_story.of_ledger(before, after, now=now)
            events.append(order_story.placed(after, acceptance.state, sent_at=acceptance.sent_at))
        closed = [key for key, (_, after) in changed.items() if after.phase == Phase.CLOSED]
        open_orders.remove(connection, closed)
        # Decisions made before FeedAMP confirmed the state are made again.
        open_orders.invalidate_validations(connection, changed.keys() - closed)
        placed_before = {key for key, (before, _) in changed.items() if before.placed_at is not None}
        rows: defaultdict[_Key, list[tuple[str, Row]]] = defaultdict(list)
        for table, row in order_events.store(connection, events, run_id=self._run_id):
            rows[row["seller_id"], row["mp_order_number"]].append((table, row))
        first = [acceptance for key, acceptance in accepted.items() if key not in placed_before]
        for acceptance, of_order in zip(first, rows_of_placed(list(map(_placed, first))), strict=True):
            rows[acceptance.key] += of_order  # of others, a read follows
        for key, acceptance in accepted.items():
            rows[key].append((PLACEMENTS.name, self._placement(acceptance)))
        outbox.put_rows(connection, (row for of_order in rows.values() for row in of_order))
        return placed_before

    def _placement(self, acceptance: _Acceptance) -> Row:
        order, sent_at = acceptance.order, acceptance.sent_at
        return {
            "seller_id": order.seller_id,
            "mp_order_number": order.mp_order_number,
            "marketplace_state": acceptance.state,
            "placed_at": sent_at,
            "source": order.source,
            "source_row": order.source_row,
            "run_id": self._run_id,
            RECORDED_AT: sent_at,
        }


def _placed(acceptance: _Acceptance) -> tuple[str, Order, datetime]:
    """What `rows_of_placed` takes."""
    text = msgspec.Raw(encode_body(acceptance.order.put_body(acceptance.state)))
    return acceptance.order.seller_id, read_order(text, Coercions()), acceptance.sent_at


def hold_back(connection: Connection, order: LedgerOrder, *, run_id: str | None, now: datetime) -> str | None:
    """Holds an order that must not be sent, and says why; None if it may be sent."""
    if order.desired_state == CANCELLED and (
        note := hold_if_shipped(connection, order, run_id=run_id, now=now)
    ):
        return note
    if order.has_body:
        return None
    reason = "it has no body to send: deliver it to the inbox as it was placed"
    order_events.save_order(connection, order, order.held_without_body(reason), run_id=run_id, now=now)
    return f"order {order.mp_order_number} is held: {reason}"


def hold_if_shipped(
    connection: Connection, order: LedgerOrder, *, run_id: str | None, now: datetime
) -> str | None:
    """Holds a cancellation, and says so, if the newest snapshot shows that the seller has shipped units."""
    try:
        stored = open_orders.read(connection, *order.key)
    except UnreadableError:
        stored = None  # the order is read before anything is sent
    shipped = None if stored is None else units_against_cancelling(stored.snapshot)
    if shipped is None:
        return None
    reason = f"conflict: CANCELLED came in, but the seller has shipped {counted(shipped, 'unit')}"
    order_events.save_order(connection, order, order.cancellation_held(reason), run_id=run_id, now=now)
    return (
        f"order {order.mp_order_number} is held: the marketplace cancelled it, but the seller has shipped it"
    )
