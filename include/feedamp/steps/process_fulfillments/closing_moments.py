"""What the orders of one task want of the state at the same moment while they are closed, in one transaction: decisions and
intents before PUTs, results after.

No PUT is sent before its intent is durable; see `group_commit` for how long a result waits for others.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

import msgspec
from sqlalchemy.engine import Connection

from feedamp.errors import UnreadableError
from feedamp.lake.flatten import order_rows
from feedamp.models import COMPLETE, MarketplaceState, Order
from feedamp.resources import Resources
from feedamp.rules.cancelling import is_fresh
from feedamp.rules.closing import Close
from feedamp.rules.order import CANCELLED, LedgerOrder
from feedamp.run import Run
from feedamp.state import leases, ledger, open_orders, outbox, sellers
from feedamp.state.group_commit import GroupCommit
from feedamp.state.leases import Lease
from feedamp.state.open_orders import StoredSnapshot
from feedamp.steps.process_fulfillments.evaluate import evaluate_orders, record_closed
from feedamp.steps.read_back import store_orders


@dataclass
class Closing:
    """An order that was read again, and what was decided by that.

    `order` is to be closed as `state` under `lease`. Without a state it stays open; `note` says why if someone should know.
    Without a lease, another process holds it, or the seller `is_paused`: nothing was done. With a state but without
    `intent_at`, the order is to be read by itself and decided on again before anything is sent.
    """

    seller_id: str
    fresh: Order = field(repr=False)
    read_at: datetime
    order: LedgerOrder | None = None
    state: MarketplaceState | None = None
    lease: Lease | None = None
    note: str | None = None
    is_paused: bool = False
    is_alone: bool = False  # it was read by itself, under the lease
    intent_at: datetime | None = None  # of the intent that was recorded last
    is_unsent: bool = False  # the PUT of that intent was not sent or is refused, and will not be sent again
    sent_at: datetime | None = None  # of the PUT that FeedAMP accepted

    @property
    def key(self) -> tuple[str, str]:
        return self.seller_id, self.fresh.mp_order_number

    @property
    def lease_name(self) -> str:
        return leases.of_order("close", *self.key)


@dataclass(frozen=True)
class _Decided:
    order: LedgerOrder | None = None
    state: MarketplaceState | None = None
    note: str | None = None
    intent_at: datetime | None = None


class ClosingMoments:
    """For all orders that one task closes."""

    def __init__(self, resources: Resources, run: Run) -> None:
        self._resources = resources
        self._state = resources.state
        self._run_id = run.run_id
        self._sending = 0  # orders that are being sent
        self._commit = GroupCommit[Closing](self._state, self._work, expects_more=lambda: self._sending > 0)

    @asynccontextmanager
    async def decided(self, seller_id: str, fresh: Order, read_at: datetime) -> AsyncIterator[Closing]:
        """Takes an order's lease, which ends with the block, and evaluates the order by the snapshot as `validate` does.

        If another process has stored a newer one, that decides. The intent to close is recorded, but not to close as
        CANCELLED, nor by a newer snapshot with another content, nor if the state took so long that the read is too old: see
        `decide_again`.

        Raises:
            PausedError: the seller is paused.
        """
        closing = Closing(seller_id, fresh, read_at)
        try:
            await self._commit.do(closing)
            if closing.is_paused:
                raise sellers.paused_error(seller_id)
            self._sending += 1
            try:
                is_recent = is_fresh(closing.read_at, sent_at=self._state.now())
                if closing.intent_at is not None and not is_recent:
                    await self.not_sent(closing)  # others had the seller, or the commit took long
                yield closing
            finally:
                self._sending -= 1
        finally:
            if closing.lease is not None:
                self._state.leases.end(closing.lease)

    async def decide_again(self, closing: Closing, fresh: Order, read_at: datetime) -> None:
        """Decides once more, by the order as it was read by itself; records the intent whatever the state is.

        But not by a newer snapshot with another content.
        """
        closing.fresh, closing.read_at, closing.is_alone = fresh, read_at, True
        await self._do(closing)

    async def not_sent(self, closing: Closing) -> None:
        """Takes the intent back, because its PUT had no effect: what closes the order now is another system."""
        closing.is_unsent = True
        await self._do(closing, even_if_cancelled=True)
        closing.is_unsent, closing.intent_at = False, None

    async def closed(self, closing: Closing, *, sent_at: datetime) -> None:
        """Records that FeedAMP accepted the PUT, and releases the lease."""
        closing.sent_at = sent_at
        await self._do(closing, even_if_cancelled=True)

    async def _do(self, closing: Closing, *, even_if_cancelled: bool = False) -> None:
        self._sending -= 1  # what is still to come is counted, not what waits
        try:
            await self._commit.do(closing, even_if_cancelled=even_if_cancelled)
        finally:
            self._sending += 1

    def _work(self, connection: Connection, items: Sequence[Closing], asked_at: float) -> Callable[[], None]:
        closed = [item for item in items if item.sent_at is not None]
        if closed:
            self._record(connection, closed)
        unsent = [item for item in items if item.is_unsent]
        if unsent:
            self._take_back(connection, unsent)
        open_ = [item for item in items if item.sent_at is None and not item.is_unsent]
        paused = sellers.paused_among(connection, {item.seller_id for item in open_}) if open_ else set()
        new = [item for item in open_ if item.lease is None and item.seller_id not in paused]
        taken = self._state.leases.take(connection, [item.lease_name for item in new], asked_at=asked_at)
        to_decide = [item for item in open_ if item.lease is not None or item.lease_name in taken]
        decided: dict[tuple[str, str], _Decided] = {}
        for _, of_seller in groupby(
            sorted(to_decide, key=lambda item: item.key), lambda item: item.seller_id
        ):
            decided |= self._decide(connection, list(of_seller))
        unused = [
            lease
            for item in to_decide
            if decided[item.key].state is None and (lease := item.lease or taken[item.lease_name]) is not None
        ]
        # At once, or this and a heartbeat, which locks them in the order of their names, could wait for each other.
        ended = [*unused, *(item.lease for item in closed if item.lease is not None)]
        if ended:
            leases.release(connection, ended)

        def committed() -> None:
            for lease in ended:
                lease.is_released = True
            for item in open_:
                item.is_paused = item.seller_id in paused and item.lease is None
                item.lease = item.lease or taken.get(item.lease_name)
                became = decided.get(item.key, _Decided())
                item.order, item.state, item.note = became.order, became.state, became.note
                item.intent_at = became.intent_at
            self._state.leases.keep(lease for lease in taken.values() if not lease.is_released)

        return committed

    def _decide(self, connection: Connection, items: Sequence[Closing]) -> dict[tuple[str, str], _Decided]:
        """What becomes of orders of one seller, which are evaluated as `validate` does it."""
        seller_id = items[0].seller_id
        orders = ledger.read_all(connection, [item.key for item in items])
        known = [item for item in items if item.key in orders and orders[item.key].is_open]
        store_orders(connection, seller_id, ((i.fresh, i.read_at) for i in known), run_id=self._run_id)
        newest = open_orders.read_all(connection, [item.key for item in known])
        decided = dict.fromkeys((item.key for item in items), _Decided())
        to_evaluate: list[tuple[Closing, StoredSnapshot]] = []
        for item in known:
            stored = newest.get(item.key)
            if isinstance(stored, UnreadableError):
                decided[item.key] = _Decided(note=str(stored))
                open_orders.set_aside(connection, *item.key)
            elif stored is not None:
                to_evaluate.append((item, stored))
        decisions = evaluate_orders(
            connection,
            self._resources,
            [(orders[item.key], stored) for item, stored in to_evaluate],
            run_id=self._run_id,
        )
        now = self._state.now()
        intents = []
        for (item, stored), decision in zip(to_evaluate, decisions, strict=True):
            if isinstance(decision, Close):
                order, state = orders[item.key], decision.marketplace_state
                # Another process may have stored a newer snapshot, of another content, that this one has not read.
                is_newest = stored.read_at <= item.read_at or stored.snapshot == item.fresh.snapshot()
                # The PUT of a process that has been killed meanwhile may have arrived after the read.
                is_newest = is_newest and (order.closing_at is None or order.closing_at < item.read_at)
                is_intent = is_newest and (item.is_alone or state != CANCELLED)
                decided[item.key] = _Decided(order, state, intent_at=now if is_intent else None)
                if is_intent:
                    intents.append((order, order.closing(state, at=now)))
        ledger.save_all(connection, intents)
        return decided

    def _take_back(self, connection: Connection, items: Sequence[Closing]) -> None:
        """Restores the intents of before: an earlier run may have sent its PUT. What others stored since stays."""
        stored = ledger.read_all(connection, [item.key for item in items])
        ledger.save_all(
            connection,
            [
                (order, order.but(closing_state=item.order.closing_state, closing_at=item.order.closing_at))
                for item in items
                if item.order is not None and (order := stored.get(item.key)) is not None
                if order.is_open and order.closing_at == item.intent_at
            ],
        )

    def _record(self, connection: Connection, items: Sequence[Closing]) -> None:
        """Records PUTs that FeedAMP accepted."""
        now = self._state.now()
        final = {
            # A closed order has the status COMPLETE (contract 7.1); the warehouse must not depend on the read that follows.
            item.key: (
                item,
                msgspec.structs.replace(item.fresh, marketplace_state=str(item.state), status=COMPLETE),
            )
            for item in items
        }
        recorded = record_closed(
            connection,
            [
                (item.order.closing(item.state, at=item.sent_at), order.snapshot())
                for item, order in final.values()
                if item.order is not None and item.state is not None and item.sent_at is not None
            ],
            run_id=self._run_id,
            now=now,
        )
        rows = (
            row
            for key in sorted(recorded)
            for item, order in [final[key]]
            if item.sent_at is not None
            for row in outbox.with_moment(
                order_rows(item.seller_id, order, read_at=item.sent_at), item.sent_at
            )
        )
        outbox.put_rows(connection, rows)
