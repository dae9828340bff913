"""Closable orders -> read again -> decided again by the fresh snapshot -> PUT SHIPPED or CANCELLED.

Whether an order can be closed, and as what: `rules/closing.py`.
"""

from datetime import datetime
from functools import partial

import msgspec

from feedamp import errors
from feedamp.api.client import Check
from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import chunks_of_numbers, read_alone
from feedamp.api.pages import UnreadableOrder
from feedamp.lake.flatten import order_rows
from feedamp.models import COMPLETE, MarketplaceState, Order, ReadOrder
from feedamp.resources import Resources
from feedamp.rules.closing import Close
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import CANCELLED, LedgerOrder
from feedamp.run import Run
from feedamp.state import leases, ledger, open_orders, outbox, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.process_fulfillments.evaluate import evaluate_order, record_closed
from feedamp.steps.read_back import read_back, store_order
from feedamp.steps.runner import SellerJob, StepResult, run_per_order, run_per_seller

REFUSES_THE_CLOSING = (400, 409, 422)


async def close(resources: Resources, run: Run, shard: int, seller_ids: list[str]) -> StepResult:
    """Closes the closable orders of some sellers (promise 6).

    Safe to repeat: an order whose closing PUT was sent but not recorded is final when it is read again.
    """
    result = StepResult("close", shard)
    with resources.state.read() as connection:
        found = sellers.workable(connection, seller_ids=seller_ids) if seller_ids else []
        ready = [seller.seller_id for seller in found]
        closable = open_orders.closable(connection, ready, now=resources.state.now())
        missing = open_orders.closable_but_missing(connection, ready)
    for seller_id, numbers in missing.items():
        result.add_warning(
            seller_id,
            f"FeedAMP does not have {counted(len(numbers), 'order')} that could be closed; it is asked once a day. "
            f"See `feedamp status`; first: {numbers[0]}",
        )
    if run.dry_run:
        for seller_id, numbers in closable.items():
            result.count(seller_id, orders=len(numbers))
        return result

    async def work(seller: Seller, clients: Clients) -> None:
        closer = _Closer(resources, run, result, await clients.client(seller))
        # One list request at a time, so that memory does not grow with the orders (promise 11).
        for numbers in chunks_of_numbers(closable[seller.seller_id]):
            await closer.close(numbers)

    with_work = [seller for seller in found if seller.seller_id in closable]
    planned = sum(len(numbers) for numbers in closable.values())
    await run_per_seller(resources, run, result, with_work, work, planned=planned)
    return result


class _Closer(SellerJob):
    async def close(self, numbers: list[str]) -> None:
        self._resources.read_only.check()
        with self._state.read() as connection:
            sellers.check_pause(connection, self._seller_id)
        orders = {read.order.mp_order_number: read for read in await self._read_by_number(numbers)}
        closed: list[str] = []

        async def one(number: str) -> None:
            if await self._close_alone(*orders[number]):
                closed.append(number)

        try:
            watch = partial(self._state.leases.watch, "close", self._seller_id)
            await run_per_order(self._seller_id, orders, self._result, one, watch=watch)
        finally:
            await read_back(self._resources, self._client, closed, run_id=self._run.run_id)

    async def _close_alone(self, fresh: Order, read_at: datetime) -> bool:
        """Closes an order while holding its lease; False if it stays open. BusyError if another process may be closing it."""
        number = fresh.mp_order_number
        name = leases.of_order("close", self._seller_id, number)
        busy = errors.BusyError(f"Another process is closing order {number}.", mp_order_number=number)
        self._resources.read_only.check()
        with self._state.read() as connection:
            sellers.check_pause(connection, self._seller_id)
        with self._state.leases.hold(name) as lease:
            if lease is None:
                raise busy
            decided = self._decide(fresh, read_at)
            if decided is not None and decided[1] == CANCELLED:
                # The list may lag and was read some time ago, and units shipped since then must not be cancelled.
                read = await self._read_alone(number)
                if read is None:
                    return False
                fresh, read_at = read
                if not lease.renew():
                    raise busy
                decided = self._decide(fresh, read_at, is_alone=True)
            still_held = partial(lease.require, busy)
            return decided is not None and await self._put(decided[0], fresh, read_at, decided[1], still_held)

    async def _read_alone(self, number: str) -> ReadOrder | None:
        asked_at = self._state.now()
        try:
            read = await read_alone(self._client, number)
        except errors.NotFoundError:
            self._record_missing([number], asked_at=asked_at)
            return None
        if isinstance(read, UnreadableOrder):
            self._record_unreadable(read)
            return None
        return read

    def _decide(
        self, fresh: Order, read_at: datetime, *, is_alone: bool = False
    ) -> tuple[LedgerOrder, MarketplaceState] | None:
        """Evaluates the fresh snapshot as `validate` does; returns the order and its final state, None if it stays open.

        Only this snapshot decides. The intent to close is recorded, for CANCELLED only if the order was read alone.
        """
        with self._state.begin(of=[self._seller_id]) as connection:
            order = ledger.read(connection, self._seller_id, fresh.mp_order_number)
            if order is None or not order.is_open:
                return None
            store_order(connection, order.seller_id, fresh, read_at, run_id=self._run.run_id)
            try:
                stored = open_orders.read(connection, *order.key)
            except errors.UnreadableError as error:
                self._warn(str(error))
                open_orders.set_aside(connection, *order.key)
                return None
            if stored is None or stored.read_at > read_at:
                return None  # a newer snapshot has been stored meanwhile; the next run decides by it
            run_id = self._run.run_id
            decision = evaluate_order(connection, self._resources, order, stored, run_id=run_id)
            if not isinstance(decision, Close):
                return None
            state = decision.marketplace_state
            if state != CANCELLED or is_alone:
                ledger.save(connection, order, order.closing(state, at=self._state.now()))
        return order, state

    async def _put(
        self, order: LedgerOrder, fresh: Order, read_at: datetime, state: MarketplaceState, still_held: Check
    ) -> bool:
        right_after = read_at if state == CANCELLED else None
        try:
            sent_at = await self._client.put_order(
                order.mp_order_number,
                order.put_body(state),
                right_after=right_after,
                before_sending=still_held,
            )
        except errors.StaleReadError as error:
            self._fail(error)
            return False
        except errors.NotFoundError:
            if await self._read_alone(order.mp_order_number) is not None:
                message = f"FeedAMP answered 404 to the closing of order {order.mp_order_number}, although it has the order."
                self._fail(errors.TransientError(message))
            return False
        except errors.RejectedError as error:
            if error.status not in REFUSES_THE_CLOSING:
                raise errors.TransientError(f"{error} Check the connection's Base URL.") from error
            self._record_refused(order, error)
            return False
        self._count(orders=1, **{state.lower(): 1})
        # A closed order has the status COMPLETE (contract 7.1); the warehouse must not depend on the read that follows.
        final = msgspec.structs.replace(fresh, marketplace_state=str(state), status=COMPLETE)
        with self._state.begin(of=[self._seller_id]) as connection:
            closing = order.closing(state, at=sent_at)
            now = self._state.now()
            record_closed(connection, closing, final.snapshot(), run_id=self._run.run_id, now=now)
            if ledger.has(connection, *order.key):
                rows = order_rows(order.seller_id, final, read_at=sent_at)
                outbox.put_all(connection, rows, recorded_at=sent_at)
        return True

    def _record_refused(self, order: LedgerOrder, error: errors.RejectedError) -> None:
        """Stores the refusal; the order is not closed again before its snapshot changes."""
        self._warn(
            f"order {order.mp_order_number}: FeedAMP refused to close it; "
            "`feedamp orders show` shows FeedAMP's message. It is not sent again before the seller changes the order"
        )
        with self._state.begin(of=[self._seller_id]) as connection:
            open_orders.refuse_closing(connection, *order.key, f"FeedAMP refused to close it: {error.words}")
