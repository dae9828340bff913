"""Open orders whose snapshot changed -> findings -> POST errors; mended findings are resolved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.api.pagination import read_alone
from feedamp.errors import (
    BusyError,
    NotFoundError,
    RejectedError,
    ThrottledError,
    TransientError,
    UnclearError,
    UnreadableError,
)
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.finding import HELD, REPORTED, TO_REPORT, StoredFinding
from feedamp.run import Run, shards
from feedamp.state import findings, leases, ledger, open_orders, sellers
from feedamp.state.sellers import Seller
from feedamp.steps.process_fulfillments.evaluate import evaluate
from feedamp.steps.read_back import keep_read
from feedamp.steps.runner import (
    StepResult,
    missing_order,
    record_run,
    run_per_order,
    run_per_seller,
    unexpected,
)

log = logging.getLogger(__name__)
ORDERS_PER_TRANSACTION = 50


def plan_process(resources: Resources, seller_ids: list[str]) -> list[dict[str, Any]]:
    """Shards of sellers with something to validate, to report or to close: what the state says, no event."""
    with resources.state.read() as connection:
        ready = [seller.seller_id for seller in sellers.workable(connection, seller_ids=seller_ids)]
        work = (
            _to_judge(connection, resources, ready).keys()
            | open_orders.closable(connection, ready, now=resources.state.now()).keys()
            | findings.to_report(connection, ready).keys()
        )
    return shards(sorted(work), sellers_per_task=resources.settings.sellers_per_task)


async def validate(resources: Resources, run: Run, shard: int, seller_ids: list[str]) -> StepResult:
    """Judges every changed snapshot of some sellers and sends what is to be reported.

    Safe to repeat: findings have stable ids, and a report whose answer was lost is looked up before it is sent
    again.
    """
    started_at = resources.state.now()
    result = StepResult("validate", shard)
    with resources.state.read() as connection:
        found = sellers.workable(connection, seller_ids=seller_ids) if seller_ids else []
        changed = _to_judge(connection, resources, [seller.seller_id for seller in found])
    if run.dry_run:
        result.orders = sum(len(numbers) for numbers in changed.values())
        return result
    async with resources.clients(run) as clients:

        async def work(seller: Seller) -> None:
            numbers = changed.get(seller.seller_id, [])
            for start in range(0, len(numbers), ORDERS_PER_TRANSACTION):
                _judge_all(
                    resources, seller.seller_id, numbers[start : start + ORDERS_PER_TRANSACTION], result
                )
            with resources.state.read() as connection:
                waiting = findings.to_report(connection, [seller.seller_id])
            if waiting:
                reporter = _Reporter(resources, await clients.client(seller), result)
                await run_per_order(seller.seller_id, waiting[seller.seller_id], result, reporter.report)

        try:
            await run_per_seller(clients, found, result, work)
        finally:
            record_run(resources, run, result, started_at)
    return result


def _to_judge(connection: Connection, resources: Resources, seller_ids: list[str]) -> dict[str, list[str]]:
    """Changed snapshots, and those whose listed error has waited `error_clear_days` without any change."""
    numbers = open_orders.to_validate(connection, seller_ids)
    before = resources.state.now() - resources.settings.error_clear
    for seller_id, lingering in open_orders.lingering(connection, seller_ids, before=before).items():
        numbers[seller_id] = list(dict.fromkeys((*numbers.get(seller_id, ()), *lingering)))
    return numbers


def _judge_all(resources: Resources, seller_id: str, numbers: Sequence[str], result: StepResult) -> None:
    with resources.state.begin() as connection:
        ours = ledger.read_many(connection, seller_id, numbers)
        for number in numbers:
            if number not in ours:
                continue
            try:
                held = open_orders.read(connection, seller_id, number)
                if held is None:
                    continue
                with connection.begin_nested():
                    evaluate(connection, resources, ours[number], held)
            except UnreadableError as error:
                result.orders_unread += 1
                result.add_warning(seller_id, f"{error} The next extraction reads the order again.")
                open_orders.set_aside(connection, seller_id, number)
            except Exception as error:  # noqa: BLE001 - logged with its traceback at the end of the step
                result.record_failure(seller_id, unexpected(error, number), cause=error)
            else:
                result.orders += 1


class _Reporter:
    """Sends the reports of one seller's orders."""

    def __init__(self, resources: Resources, client: FeedAmpClient, result: StepResult) -> None:
        self._resources = resources
        self._client = client
        self._result = result

    async def report(self, number: str) -> None:
        """One POST with all reports of an order, sent by one process at a time.

        Raises:
            BusyError: another process is at it.
            PausedError: the seller has been paused since the step began.
        """
        name = leases.of_order("report", self._client.seller_id, number)
        with self._resources.state.begin() as connection:
            sellers.check_pause(connection, self._client.seller_id)
            lease = leases.take(connection, name, now=self._resources.state.now())
        if lease is None:
            raise BusyError(f"Another process is reporting on order {number}.", mp_order_number=number)
        try:
            await self._report(number)
        finally:
            with self._resources.state.begin() as connection:
                leases.release(connection, name, lease)

    async def _report(self, number: str) -> None:
        """An intent is stored before the POST leaves."""
        pending = self._pending(number)
        if any(finding.intent_at for finding in pending):
            pending = await self._sort_out(number, pending)
        if not pending:
            return
        self._write([f.but(intent_at=self._resources.state.now()) for f in pending])
        try:
            await self._post(number, pending)
        except UnclearError as error:
            log.info("The answer to a report was lost; order %s is read before anything is repeated.", number)
            left = await self._sort_out(number, self._pending(number))
            if left:
                self._write([f.but(intent_at=self._resources.state.now()) for f in left])
                await self._post(number, left, last_error=error)

    async def _post(
        self, number: str, pending: list[StoredFinding], *, last_error: UnclearError | None = None
    ) -> None:
        try:
            reports = list(dict.fromkeys(finding.report for finding in pending))
            sent_at = await self._client.post_errors(number, reports)
        except NotFoundError:
            self._write([f.but(intent_at=None) for f in pending])
            await self._confirm_missing(number)
        except RejectedError as error:
            words = "; ".join(": ".join(filter(None, pair)) for pair in error.reasons) or str(error)
            # FeedAMP's words may repeat a customer field: they are stored, not logged.
            self._result.add_warning(
                self._client.seller_id,
                f"order {number}: FeedAMP refused the error report, so its findings are held; "
                "`feedamp findings list` shows its words",
            )
            self._write([f.but(state=HELD, intent_at=None, note=words) for f in pending])
        except UnclearError:
            if last_error is None:
                raise
            raise last_error from None  # unclear twice: the intent stays, the next run reads the order first
        except TransientError:
            # A throttle or a refused connection: nothing reached FeedAMP, so nothing is unclear.
            self._write([f.but(intent_at=None) for f in pending])
            raise
        else:
            self._write([f.but(state=REPORTED, reported_at=sent_at, note=None) for f in pending])
            self._result.extra["reported"] = self._result.extra.get("reported", 0) + len(pending)

    async def _confirm_missing(self, number: str) -> None:
        """Reads the order by itself: only what FeedAMP says then makes it a missing one."""
        seller_id = self._client.seller_id
        asked_at = self._resources.state.now()
        try:
            await self._client.get_order(number)
        except NotFoundError:
            self._result.add_warning(seller_id, missing_order(number))
            with self._resources.state.begin() as connection:
                ledger.mark_missing(connection, seller_id, number, asked_at=asked_at)
        except UnreadableError:
            pass  # whatever its shape, it is there
        except TransientError as error:
            self._result.record_failure(seller_id, error)
        else:
            message = f"FeedAMP answered 404 to a report on order {number}, which it has."
            self._result.record_failure(seller_id, TransientError(message))

    async def _sort_out(self, number: str, pending: list[StoredFinding]) -> list[StoredFinding]:
        """Reads the order, marks what has arrived and judges what was read; returns what is to be sent then.

        The seller may have mended the line meanwhile: its error is listed no longer, and is not reported again.
        """
        try:
            read = await read_alone(self._client, number)
        except NotFoundError:
            return pending  # the POST that follows says so to the person
        if isinstance(read, UnreadableOrder):
            self._result.orders_unread += 1
            self._result.add_warning(self._client.seller_id, read.sentence)
            return []  # its report stays unclear: the next run reads the order again
        order, read_at = read
        arrived = await self._arrived(order, pending)
        now = self._resources.state.now()
        self._write(
            [
                f.but(
                    state=REPORTED,
                    reported_at=f.intent_at or now,
                    listed_at=now if order.errors is not None else None,
                    note=None if order.errors is not None else "arrival not certain",
                )
                for f in arrived
            ]
        )
        with self._resources.state.begin() as connection:
            keep_read(connection, self._client.seller_id, order, read_at)
        _judge_all(self._resources, self._client.seller_id, [number], self._result)
        return self._pending(number)

    async def _arrived(self, order: Order, pending: list[StoredFinding]) -> list[StoredFinding]:
        sent = [finding for finding in pending if finding.intent_at is not None]
        if order.errors is not None:
            listed = {(e.code, e.message, e.mp_line_number) for e in order.errors}
            return [finding for finding in sent if finding.listed_as in listed]
        # No list of errors (Q12): the filter tells whether there is any. Only a plain "none" permits a repeat.
        filters = Filters(mp_order_numbers=(order.mp_order_number,), has_errors=False)
        try:
            page = await self._client.list_orders(filters)
        except (RejectedError, ThrottledError):
            return sent
        has_none = any(found.mp_order_number == order.mp_order_number for found in page.orders)
        return [] if has_none else sent

    def _pending(self, number: str) -> list[StoredFinding]:
        with self._resources.state.read() as connection:
            stored = findings.of_order(connection, self._client.seller_id, number)
            order = ledger.read(connection, self._client.seller_id, number)
        if order is None or not ledger.is_open(order) or order.is_missing(self._resources.state.now()):
            return []
        return [finding for finding in stored if finding.state == TO_REPORT]

    def _write(self, changed: list[StoredFinding]) -> None:
        """Stores how a report came out, unless a person has waived the finding meanwhile."""
        with self._resources.state.begin() as connection:
            current = [(f, findings.read(connection, f.finding_id)) for f in changed]
            still = [f for f, stored in current if stored is None or stored.state == TO_REPORT]
            findings.write(connection, still, now=self._resources.state.now())
