"""Sends one seller's orders to FeedAMP; decides what each answer, or none, means for the order and the seller's others.

How long an order waits: `rules/retries.py`. Whether CANCELLED may be sent: `rules/cancelling.py`.
"""

import asyncio
from collections.abc import Awaitable
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy.engine import Connection

from feedamp import errors
from feedamp.api.orders_by_number import read_alone
from feedamp.api.pages import UnreadableOrder
from feedamp.models import Order
from feedamp.order_body import named_field
from feedamp.order_body.reject_reasons import MAX_REASONS
from feedamp.rules.order import CANCELLED, LedgerOrder, Phase
from feedamp.rules.retries import BLOCKED_WAIT, wait_behind_others, wait_of_unanswered
from feedamp.state import ledger, order_events, rejects, sellers
from feedamp.state.leases import Lease
from feedamp.steps.per_order import ORDERS_AT_ONCE
from feedamp.steps.place_orders.ledger_moments import LedgerMoments, Recording, hold_if_shipped
from feedamp.steps.read_back import read_back, store_orders
from feedamp.steps.seller_job import Job, SellerJob
from feedamp.steps.step_result import unexpected

_Done = TypeVar("_Done")
ORDERS_PER_CHUNK = 200
FAILURES_THAT_END_A_BATCH = 2
# These statuses concern the order's content; any other 4xx concerns the endpoint, the network or the client.
REFUSES_THE_ORDER = (400, 409, 413, 422)


class SellerBatch(SellerJob):
    """Sends the orders of one seller; stops after two failures. `moments` are those of its task, if that has other sellers.

    `counted_as`: the names under which accepted and refused orders are counted.
    """

    def __init__(
        self,
        *job: *Job,
        moments: LedgerMoments | None = None,
        counted_as: tuple[str, str] = ("orders", "rejected"),
    ) -> None:
        super().__init__(*job)
        self._accepted, self._refused = counted_as
        self._moments = moments or LedgerMoments(self._state, run_id=self._run.run_id)
        self._failures = 0
        self._stopped: errors.FeedAmpError | None = None
        self._changed: list[str] = []
        self._said: dict[str, str] = {}  # by order number, what FeedAMP said that stopped the seller

    async def send(self, numbers: list[str]) -> None:
        for start in range(0, len(numbers), ORDERS_PER_CHUNK):
            busy = await self._send_all(numbers[start : start + ORDERS_PER_CHUNK])
            # The other process has sent these orders, or it is known whether it is alive.
            await self._state.leases.watch("place", self._seller_id, busy)
            for number in await self._send_all(busy):
                self._fail(_busy(number))
            await read_back(self._resources, self._client, self._changed, run_id=self._run.run_id)
            self._changed.clear()
            if isinstance(self._stopped, errors.PausedError):
                break
        if self._stopped is not None:
            # By a wrong clock, "until when" is wrong too; the end of an emergency stop is the next run's to see.
            if not isinstance(self._stopped, errors.ConfigurationError | errors.ReadOnlyError):
                await self._postpone_rest(self._stopped)
            raise self._stopped

    async def _send_all(self, numbers: list[str]) -> list[str]:
        """Sends the orders and returns those that another process is working on."""
        busy: list[str] = []
        left = iter(numbers)  # one task for each order would cost more than what it waits for

        async def take() -> None:
            # An accepted order is recorded in the transaction of the next one's intent.
            last: tuple[str, Recording] | None = None
            try:
                for number in left:
                    if self._stopped is not None:
                        break
                    before, last = last, None
                    try:
                        recording = await self._guarded(number, self._place_alone(number, busy))
                        last = recording and (number, recording)
                    finally:
                        await self._ended(before)
            finally:
                await self._ended(last)

        await asyncio.gather(*(take() for _ in range(min(ORDERS_AT_ONCE, len(numbers)))))
        return busy

    async def _guarded(self, number: str, work: Awaitable[_Done]) -> _Done | None:
        """Contains unexpected errors of the work on an order, so that the other orders are still sent and recorded."""
        try:
            return await work
        except (errors.PausedError, errors.ConfigurationError) as error:
            self._stopped = self._stopped or error
        except Exception as error:  # noqa: BLE001 - logged with its traceback at the end of the step
            self._fail(unexpected(error, number), cause=error)
        return None

    async def _place_alone(self, number: str, busy: list[str]) -> Recording | None:
        """Sends an order while holding its lease; adds it to `busy` if another process holds that.

        Without the lease, a PUT that another process decided on earlier but sends later would undo a newer one. An order that
        FeedAMP accepted keeps it until that is recorded.
        """
        self._resources.read_only.check()
        begun = await self._moments.begin(self._seller_id, number)
        recording = None
        try:
            if begun.note is not None:
                self._warn(begun.note)
            if begun.is_busy:
                busy.append(number)
            if begun.order is not None and begun.lease is not None:
                recording = await self._place(begun.order, begun.lease)
        finally:
            if recording is None:
                self._moments.end(begun)
        return recording

    async def _place(self, order: LedgerOrder, lease: Lease) -> Recording | None:
        try:
            sent_at = await self._send(order, lease)
        except errors.RejectedError as error:
            if error.status in REFUSES_THE_ORDER:
                await self._record_refused(order, error)
            else:
                self._stop_at_refusal(order, error)
        except errors.AuthorizationError as error:
            self._stopped = self._stopped or error
        except errors.TransientError as error:
            if isinstance(error, errors.BusyError) and error.mp_order_number:
                # The order is now another process's.
                self._fail(error)
            else:
                await self._postpone(order, error)
        else:
            if sent_at is not None:
                return self._record_accepted(order, order.next_state, sent_at, lease)
        return None

    async def _send(self, order: LedgerOrder, lease: Lease) -> datetime | None:
        """PUTs the order and returns when it was sent; None if it is to be cancelled but CANCELLED must not be sent."""
        number, body = order.mp_order_number, order.put_body(order.next_state)

        def still_held() -> None:
            if not lease.is_held():
                raise _busy(number)

        put = partial(self._client.put_order, number, body, before_sending=still_held)
        if order.desired_state != CANCELLED:
            return await put()
        return await self._right_after_reading(partial(self._may_cancel, order, lease), put)

    async def _may_cancel(self, order: LedgerOrder, lease: Lease) -> datetime | None:
        """Reads an order alone just before it is cancelled; returns when, or None if CANCELLED must not be sent.

        It must not be sent if units are shipped, if the order cannot be read, or if FeedAMP does not have it
        (CANCELLED is for placed orders only, contract 7.1). Shipments that the seller adds after this read are found by
        the read after the PUT.
        """
        number = order.mp_order_number
        asked_at = self._state.now()
        try:
            read = await read_alone(self._client, number)
        except errors.NotFoundError:
            if order.accepted_state is None:
                await self._record_never_placed(order)
            else:
                await self._hold_missing(order, asked_at)
        except errors.RejectedError as error:
            if error.status in REFUSES_THE_ORDER:
                await self._hold_unreadable(order, f"FeedAMP answered GET with {error.status}")
            else:
                self._stop_at_refusal(order, error)
        except errors.AuthorizationError as error:
            self._stopped = self._stopped or error
        except errors.TransientError as error:
            await self._postpone(order, error, f"CANCELLED is sent once the order can be read: {error}")
        else:
            if not isinstance(read, UnreadableOrder):
                return read[1] if await self._is_free_to_cancel(order, lease, *read) else None
            await self._hold_unreadable(order, read.where or "no field named")
        return None

    async def _is_free_to_cancel(
        self, order: LedgerOrder, lease: Lease, remote_order: Order, read_at: datetime
    ) -> bool:
        """Stores the order that was read, and decides on the newest snapshot."""
        is_held = lease.renew()  # the read may have taken very long

        def store(connection: Connection) -> tuple[bool, str | None]:
            store_orders(connection, order.seller_id, [(remote_order, read_at)], run_id=self._run.run_id)
            current = _still_to_cancel(connection, order)
            if current is None or not is_held:
                return current is not None, None
            return True, hold_if_shipped(connection, current, run_id=self._run.run_id, now=self._state.now())

        is_wanted, note = await self._state.change(self._seller_id, store)
        if note is not None:
            self._warn(note)
        elif is_wanted and not is_held:
            self._fail(_busy(order.mp_order_number))
        return is_wanted and is_held and note is None

    async def _hold_unreadable(self, order: LedgerOrder, where: str) -> None:
        self._count(orders_unread=1)
        number = order.mp_order_number
        self._warn(f"order {number} cannot be read ({where}), so CANCELLED was not sent")
        reason = (
            f"CANCELLED was not sent: the order cannot be read ({where}); the next extraction reads it again"
        )

        def hold(connection: Connection) -> None:
            current = _still_to_cancel(connection, order)
            if current is not None:
                held = current.cancellation_held(reason, read_back_at=self._state.now())
                self._save(connection, current, held)

        await self._state.change(self._seller_id, hold)

    async def _hold_missing(self, order: LedgerOrder, asked_at: datetime) -> None:
        self._warn(f"FeedAMP does not have order {order.mp_order_number}, so CANCELLED was not sent")

        def hold(connection: Connection) -> None:
            current = _still_to_cancel(connection, order)
            if current is not None:
                reason = "CANCELLED was not sent: FeedAMP does not have the order"
                self._save(connection, current, current.cancellation_held(reason))
                ledger.mark_missing(connection, *order.key, asked_at=asked_at)

        await self._state.change(self._seller_id, hold)

    def _stop_at_refusal(self, order: LedgerOrder, error: errors.RejectedError) -> None:
        """Stops the seller: this refusal concerns the endpoint, the network or the client, and so affects all orders."""
        self._said[order.mp_order_number] = (
            f"FeedAMP answered {error.status}: {self._as_kept(error, order.body).words}"
        )
        self._stopped = self._stopped or errors.TransientError(
            f"{error} Check the connection's Base URL, or whether FeedAMP must allow this address; "
            "`feedamp orders list --waiting` shows what it said."
        )

    def _record_accepted(self, order: LedgerOrder, state: str, sent_at: datetime, lease: Lease) -> Recording:
        self._count(**{self._accepted: 1})
        return self._moments.accepted(order, state, sent_at=sent_at, lease=lease)

    async def _ended(self, last: tuple[str, Recording] | None) -> None:
        """Waits until an accepted order is recorded."""
        if last is not None:
            number, recording = last
            if await self._guarded(number, self._moments.recorded(recording)):
                self._changed.append(number)

    async def _record_refused(self, order: LedgerOrder, error: errors.RejectedError) -> None:
        """Stores FeedAMP's reasons; the order is not sent again until it is delivered changed or replayed."""
        self._count(**{self._refused: 1})
        now = self._state.now()
        # FeedAMP's words may repeat a customer field, so they are stored but not logged.
        told = [
            (
                named_field(message, self._resources.settings.body),
                "refused_by_feedamp",
                f"FeedAMP answered {error.status}",
            )
            for _, message in error.reasons[:MAX_REASONS] or (("", ""),)
        ]
        kept = self._as_kept(error, order.body)
        self._result.rejected_rows.add(order.source, order.source_row, order.mp_order_number, told)
        self._warn(
            f"order {order.mp_order_number} was refused by FeedAMP ({error.status}); "
            "`feedamp rejected list` shows the reasons"
        )

        def store(connection: Connection) -> None:
            current = ledger.read(connection, *order.key)
            if current is None:
                return  # erased meanwhile
            if current.phase in (Phase.TO_PLACE, Phase.HELD):  # not closed meanwhile by another process
                reason = f"FeedAMP answered {error.status}: {kept.words}"
                self._save(connection, current, current.refused(reason))
            rejects.write(
                connection,
                rejects.Rejected(
                    source=order.source,
                    row_number=order.source_row,
                    row_hash=order.row_hash,
                    seller_id=order.seller_id,
                    mp_order_number=order.mp_order_number,
                    stage=rejects.FEEDAMP,
                    reasons=tuple(
                        {"field": field, "code": refused, "message": ": ".join(filter(None, words))}
                        for (field, refused, _), words in zip(
                            told, kept.reasons[:MAX_REASONS] or (("", kept.words),), strict=True
                        )
                    ),
                    raw="",
                    rejected_at=now,
                ),
                now=now,
            )

        await self._state.change(self._seller_id, store)

    async def _record_never_placed(self, order: LedgerOrder) -> None:
        def end(connection: Connection) -> None:
            current = _still_to_cancel(connection, order)
            if current is not None:
                never_placed = current.cancelled_before_placing(now=self._state.now())
                ledger.save(connection, current, never_placed)

        await self._state.change(self._seller_id, end)

    async def _postpone(
        self, order: LedgerOrder, error: errors.TransientError, reason: str | None = None
    ) -> None:
        """Schedules the order's next try with a backoff, so that other orders go first in the next run."""
        self._failures += 1
        wait = wait_of_unanswered(order.attempts, asked_s=error.retry_after_s)
        if isinstance(error, errors.ThrottledError) or self._failures >= FAILURES_THAT_END_A_BATCH:
            self._stopped = error

        def store(connection: Connection) -> None:
            current = ledger.read(connection, *order.key)
            if current is not None and current.phase == Phase.TO_PLACE:
                until = self._state.now() + wait
                ledger.save(connection, current, current.postponed(reason or str(error), until=until))

        await self._state.change(self._seller_id, store)
        self._fail(error)

    def _save(self, connection: Connection, before: LedgerOrder, after: LedgerOrder) -> None:
        now = self._state.now()
        order_events.save_order(connection, before, after, run_id=self._run.run_id, now=now)

    async def _postpone_rest(self, error: errors.FeedAmpError) -> None:
        """Records why the seller's remaining orders wait, and until when.

        FeedAMP's words may quote an order, so they become the reason of none but the order that they answer.
        """
        # A refused grant is marked at the end of the step; from then on `plan_place` records why the orders wait.
        wait = wait_behind_others(asked_s=getattr(error, "retry_after_s", None))
        reason, said = str(error), self._said
        if isinstance(error, errors.PausedError):  # the same reason that `plan_place` records
            wait, reason, said = BLOCKED_WAIT, sellers.PAUSED, {}

        def explain(connection: Connection) -> None:
            now = self._state.now()
            ledger.explain_waiting(connection, self._seller_id, reason=reason, next_try_at=now + wait)
            for number, order in ledger.read_many(connection, self._seller_id, list(said)).items():
                if order.phase == Phase.TO_PLACE:
                    ledger.save(connection, order, order.but(reason=said[number]))

        await self._state.change(self._seller_id, explain)


def _busy(number: str) -> errors.BusyError:
    return errors.BusyError(f"Another process is placing order {number}.", mp_order_number=number)


def _still_to_cancel(connection: Connection, order: LedgerOrder) -> LedgerOrder | None:
    """The order's current ledger row; None if another process has changed it so that it is no longer to be cancelled."""
    current = ledger.read(connection, *order.key)
    if current is None or (current.phase, current.desired_state) != (Phase.TO_PLACE, CANCELLED):
        return None
    return current
