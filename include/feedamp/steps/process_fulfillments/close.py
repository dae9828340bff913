"""Closable orders -> read again -> decided again by the fresh snapshot -> PUT SHIPPED or CANCELLED.

Whether an order can be closed, and as what: `rules/closing.py`.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from feedamp import errors
from feedamp.api.client import Check
from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import NUMBERS_PER_REQUEST, chunks_of_numbers, read_alone
from feedamp.api.pages import UnreadableOrder
from feedamp.models import Order, ReadOrder
from feedamp.resources import Resources
from feedamp.rules.cancelling import STILL_FRESH_S
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import CANCELLED, LedgerOrder
from feedamp.run import Run
from feedamp.state import ledger, open_orders, sellers
from feedamp.state.leases import Lease
from feedamp.state.sellers import Seller
from feedamp.steps.per_order import ORDERS_AT_ONCE, run_per_order
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.process_fulfillments.closing_moments import Closing, ClosingMoments
from feedamp.steps.read_back import read_back
from feedamp.steps.seller_job import Job, SellerJob
from feedamp.steps.step_result import StepResult

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

    moments = ClosingMoments(resources, run)
    busy: dict[tuple[str, str], errors.BusyError] = {}

    def judge_busy() -> None:
        """Records as undone what other processes were closing, unless they have closed it meanwhile."""
        if busy:
            with resources.state.read() as connection:
                orders = ledger.read_all(connection, busy)
            for key, error in busy.items():
                if key in orders and orders[key].is_open:
                    result.record_failure(key[0], error)

    async def work(seller: Seller, clients: Clients) -> None:
        client = await clients.client(seller)
        closer = _Closer(resources, run, result, client, moments=moments, busy=busy)
        # One list request at a time, so that memory does not grow with the orders (promise 11), and of no more orders than
        # can be closed while it is fresh.
        at_most = client.requests_in(STILL_FRESH_S)
        try:
            for numbers in chunks_of_numbers(closable[seller.seller_id], at_most=at_most):
                await closer.close(numbers)
        finally:
            await closer.read_back(at_least=1)

    with_work = [seller for seller in found if seller.seller_id in closable]
    planned = sum(len(numbers) for numbers in closable.values())
    await run_per_seller(resources, run, result, with_work, work, at_end=judge_busy, planned=planned)
    return result


class _Closer(SellerJob):
    def __init__(
        self, *job: *Job, moments: ClosingMoments, busy: dict[tuple[str, str], errors.BusyError]
    ) -> None:
        super().__init__(*job)
        self._moments = moments
        self._busy = busy  # orders that other processes were still closing when they were tried the last time
        self._closed: list[str] = []  # and not read back yet

    async def close(self, numbers: list[str]) -> None:
        self._resources.read_only.check()
        with self._state.read() as connection:
            sellers.check_pause(connection, self._seller_id)
        orders = {read.order.mp_order_number: read for read in await self._read_by_number(numbers)}

        async def one(number: str) -> None:
            if number in orders and await self._close_alone(*orders[number]):
                self._closed.append(number)

        async def watch(busy: Sequence[str]) -> None:
            await self._state.leases.watch("close", self._seller_id, busy)
            orders.clear()  # a process that died may have sent its PUT
            orders.update((read.order.mp_order_number, read) for read in await self._read_by_number(busy))

        left = await run_per_order(
            self._seller_id, list(orders), self._result, one, watch=watch, at_once=ORDERS_AT_ONCE
        )
        self._busy.update(((self._seller_id, number), error) for number, error in left.items())
        await self.read_back(at_least=NUMBERS_PER_REQUEST)

    async def read_back(self, *, at_least: int) -> None:
        """Reads what was closed back, if it is so many: at a low rate, portions of a few orders share a request.

        Nothing of a seller who was paused meanwhile: the warehouse has what was sent, and does not depend on this.
        """
        while len(self._closed) >= at_least:
            with self._state.read() as connection:
                if sellers.paused_among(connection, [self._seller_id]):
                    return
            numbers, self._closed = self._closed[:NUMBERS_PER_REQUEST], self._closed[NUMBERS_PER_REQUEST:]
            await read_back(self._resources, self._client, numbers, run_id=self._run.run_id)

    async def _close_alone(self, fresh: Order, read_at: datetime) -> bool:
        """Closes an order while holding its lease; False if it stays open. BusyError if another process may be closing it."""
        number = fresh.mp_order_number
        busy = errors.BusyError(f"Another process is closing order {number}.", mp_order_number=number)
        self._resources.read_only.check()
        async with self._moments.decided(self._seller_id, fresh, read_at) as closing:
            if closing.lease is None:
                raise busy
            try:
                sent_at = await self._send(closing, closing.lease, busy)
            except errors.StaleReadError as error:
                self._fail(error)
                return False
            if closing.note is not None:
                self._warn(closing.note)
            if sent_at is None or closing.state is None:
                return False
            self._count(orders=1, **{closing.state.lower(): 1})
            await self._moments.closed(closing, sent_at=sent_at)
            return True

    async def _send(self, closing: Closing, lease: Lease, busy: errors.BusyError) -> datetime | None:
        """Sends what was decided, if that is not too long ago; else the order is read by itself and decided on again.

        Returns as `_put`. Raises StaleReadError if CANCELLED could not be sent in time.
        """
        put = partial(self._put, closing, partial(lease.require, busy))
        decide = partial(self._decide_again, closing, lease, busy)
        if closing.state is not None and closing.intent_at is None:
            # The list may lag and was read some time ago, and units shipped since then must not be cancelled.
            return await self._right_after_reading(decide, put)
        try:
            return await put(waiting_since=closing.read_at)
        except errors.StaleReadError:
            # At so low a rate, SHIPPED may be as late after this read as well: it is sent nevertheless.
            read_at = await decide()
            return read_at and await put(right_after=read_at if closing.state == CANCELLED else None)

    async def _decide_again(self, closing: Closing, lease: Lease, busy: errors.BusyError) -> datetime | None:
        """Reads the order by itself and decides by that; returns when it was read, None if it stays open."""
        read = await self._read_alone(closing.fresh.mp_order_number)
        if read is None:
            return None
        if not lease.renew():
            raise busy
        await self._moments.decide_again(closing, *read)
        return None if closing.state is None else closing.read_at

    async def _read_alone(self, number: str) -> ReadOrder | None:
        asked_at = self._state.now()
        try:
            read = await read_alone(self._client, number)
        except errors.NotFoundError:
            await self._record_missing([number], asked_at=asked_at)
            return None
        if isinstance(read, UnreadableOrder):
            self._record_unreadable(read)
            return None
        return read

    async def _put(self, closing: Closing, still_held: Check, **moments: datetime | None) -> datetime | None:
        """Closes the order as was decided; returns when that was sent, None if it stays open."""
        order, state = closing.order, closing.state
        if order is None or state is None:
            return None
        if closing.intent_at is None:
            raise errors.StaleReadError(
                f"Another process read a newer snapshot of order {order.mp_order_number} each time it was read to be closed."
            )
        try:
            return await self._client.put_order(
                order.mp_order_number, order.put_body(state), before_sending=still_held, **moments
            )
        except errors.FeedAmpError as error:
            if not error.may_have_arrived:
                await self._moments.not_sent(closing)
            if not isinstance(error, errors.RejectedError):
                raise
            await self._take_refusal(order, error)
            return None

    async def _take_refusal(self, order: LedgerOrder, error: errors.RejectedError) -> None:
        if isinstance(error, errors.NotFoundError):
            if await self._read_alone(order.mp_order_number) is not None:
                message = f"FeedAMP answered 404 to the closing of order {order.mp_order_number}, although it has the order."
                self._fail(errors.TransientError(message))
            return
        kept = self._as_kept(error, order.body)
        if error.status not in REFUSES_THE_CLOSING:
            await self._state.change(
                self._seller_id,
                lambda connection: open_orders.explain_closable(
                    connection, *order.key, f"FeedAMP answered {error.status}: {kept.words}"
                ),
            )
            raise errors.TransientError(
                f"{error} Check the connection's Base URL, or whether FeedAMP must allow this address; "
                "`feedamp orders list --open` shows what it said."
            ) from error
        await self._record_refused(order, kept)

    async def _record_refused(self, order: LedgerOrder, error: errors.RejectedError) -> None:
        """Stores the refusal; the order is not closed again before its snapshot changes."""
        self._warn(
            f"order {order.mp_order_number}: FeedAMP refused to close it; "
            "`feedamp orders show` shows FeedAMP's message. It is not sent again before the seller changes the order"
        )
        reason = f"FeedAMP refused to close it: {error.words}"
        await self._state.change(
            self._seller_id, lambda connection: open_orders.refuse_closing(connection, *order.key, reason)
        )
