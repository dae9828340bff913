"""Open orders whose snapshot changed -> findings -> POST errors; decides whether a report arrived whose answer was lost.

Which faults are reported, reported again or resolved: `rules/follow_up.py`.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from feedamp import errors
from feedamp.api.client import Check
from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import read_alone
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.checks import Kind
from feedamp.rules.finding import HELD, REPORTED, TO_REPORT, StoredFinding
from feedamp.rules.follow_up import code_for
from feedamp.run import Run, shards
from feedamp.state import findings, leases, ledger, open_orders, sellers
from feedamp.state.open_orders import StoredSnapshot
from feedamp.state.sellers import Seller
from feedamp.steps.per_order import run_per_order
from feedamp.steps.per_seller import run_per_seller
from feedamp.steps.process_fulfillments.evaluate import evaluate_orders
from feedamp.steps.read_back import store_orders
from feedamp.steps.seller_job import SellerJob
from feedamp.steps.step_result import StepResult, unexpected

log = logging.getLogger(__name__)
ORDERS_PER_TRANSACTION = 500
# These statuses concern the report's content; any other one concerns the endpoint, the network or the client.
REFUSES_THE_REPORT = (400, 409, 413, 422)


def plan_process(resources: Resources, seller_ids: list[str]) -> list[dict[str, Any]]:
    """Shards of sellers with something to validate, report or close, according to the state."""
    with resources.state.read() as connection:
        ready = [seller.seller_id for seller in sellers.workable(connection, seller_ids=seller_ids)]
        work = (
            _to_evaluate(connection, resources, ready).keys()
            | open_orders.closable(connection, ready, now=resources.state.now()).keys()
            | findings.to_report(connection, ready).keys()
        )
    return shards(sorted(work), sellers_per_task=resources.settings.sellers_per_task)


async def validate(resources: Resources, run: Run, shard: int, seller_ids: list[str]) -> StepResult:
    """Evaluates every changed snapshot of some sellers and reports new errors to FeedAMP.

    Safe to repeat: findings have stable ids, and before a report whose answer was lost is sent again, the order is
    read to see whether FeedAMP lists it.
    """
    result = StepResult("validate", shard)
    with resources.state.read() as connection:
        found = sellers.workable(connection, seller_ids=seller_ids) if seller_ids else []
        ready = [seller.seller_id for seller in found]
        changed = _to_evaluate(connection, resources, ready)
        to_report = findings.to_report(connection, ready)
    planned = sum(len(numbers) for numbers in changed.values())
    if run.dry_run:
        for seller_id, numbers in changed.items():
            result.count(seller_id, orders=len(numbers))
        return result

    async def work(seller: Seller, clients: Clients) -> None:
        numbers = changed.get(seller.seller_id, [])
        for start in range(0, len(numbers), ORDERS_PER_TRANSACTION):
            _evaluate_all(
                resources, run, seller.seller_id, numbers[start : start + ORDERS_PER_TRANSACTION], result
            )
        with resources.state.read() as connection:
            waiting = findings.to_report(connection, [seller.seller_id])
        if waiting:
            reporter = _Reporter(resources, run, result, await clients.client(seller))
            busy = await run_per_order(
                seller.seller_id,
                waiting[seller.seller_id],
                result,
                reporter.report,
                watch=partial(resources.state.leases.watch, "report", seller.seller_id),
            )
            for error in busy.values():
                result.record_failure(seller.seller_id, error)

    with_work = [seller for seller in found if seller.seller_id in changed or seller.seller_id in to_report]
    await run_per_seller(resources, run, result, with_work, work, planned=planned)
    return result


def _to_evaluate(connection: Connection, resources: Resources, seller_ids: list[str]) -> dict[str, list[str]]:
    """Orders with a changed snapshot, and unchanged ones whose listed error has lasted for `error_clear_days`, or of
    which `error_codes` has changed the code of a held finding."""
    numbers = open_orders.to_validate(connection, seller_ids)
    before = resources.state.now() - resources.settings.error_clear
    codes = {kind.value: code_for(kind, resources.settings.error_codes) for kind in Kind}
    for more in (
        open_orders.lingering(connection, seller_ids, before=before),
        open_orders.held_under_other_codes(connection, seller_ids, codes),
    ):
        for seller_id, others in more.items():
            numbers[seller_id] = list(dict.fromkeys((*numbers.get(seller_id, ()), *others)))
    return numbers


def _evaluate_all(
    resources: Resources, run: Run, seller_id: str, numbers: Sequence[str], result: StepResult
) -> None:
    """Evaluates orders in one transaction; if that fails, each in one of its own, so that none fails another."""
    try:
        with resources.state.begin(of=[seller_id]) as connection:
            orders = ledger.read_many(connection, seller_id, numbers)
            stored = open_orders.read_all(connection, [order.key for order in orders.values()])
            unread = {
                key: error for key, error in stored.items() if isinstance(error, errors.UnreadableError)
            }
            to_evaluate = [
                (orders[number], snapshot)
                for number in numbers
                if number in orders
                and isinstance(snapshot := stored.get((seller_id, number)), StoredSnapshot)
            ]
            evaluate_orders(connection, resources, to_evaluate, run_id=run.run_id)
            for key in unread:
                open_orders.set_aside(connection, *key)
    except Exception as error:
        if isinstance(error, errors.StoreAwayError | OperationalError):
            raise
        if len(numbers) == 1:
            result.record_failure(seller_id, unexpected(error, numbers[0]), cause=error)
            return
    else:
        for failure in unread.values():
            result.add_warning(seller_id, f"{failure} The next extraction reads the order again.")
        if unread:
            result.count(seller_id, orders_unread=len(unread))
        if to_evaluate:
            result.count(seller_id, orders=len(to_evaluate))
        return
    for number in numbers:  # outside of the handler, whose traceback holds what the transaction had read
        _evaluate_all(resources, run, seller_id, [number], result)


class _Reporter(SellerJob):
    async def report(self, number: str) -> None:
        """Sends all reports of an order in one POST, while holding its lease; BusyError if another process may be doing it."""
        name = leases.of_order("report", self._seller_id, number)
        busy = errors.BusyError(f"Another process is reporting on order {number}.", mp_order_number=number)
        self._resources.read_only.check()
        with self._state.read() as connection:
            sellers.check_pause(connection, self._seller_id)
        with self._state.leases.hold(name) as lease:
            if lease is None:
                raise busy
            await self._report(number, partial(lease.require, busy))

    async def _report(self, number: str, still_held: Check) -> None:
        """Stores an intent before the POST is sent; if an earlier intent has no answer, reads the order first."""
        pending = self._pending(number)
        if any(finding.intent_at for finding in pending):
            pending = await self._check_arrival(number, pending)
        if not pending:
            return
        self._write([f.but(intent_at=self._state.now()) for f in pending])
        try:
            await self._post(number, pending, still_held)
        except errors.UnclearError as error:
            log.info(
                "The answer to a report was lost; order %s is read before the report is repeated.", number
            )
            remaining = await self._check_arrival(number, self._pending(number))
            if remaining:
                self._write([f.but(intent_at=self._state.now()) for f in remaining])
                await self._post(number, remaining, still_held, last_error=error)

    async def _post(
        self,
        number: str,
        pending: list[StoredFinding],
        still_held: Check,
        *,
        last_error: errors.UnclearError | None = None,
    ) -> None:
        codes = list(dict.fromkeys(finding.api_code for finding in pending))
        try:
            reports = list(dict.fromkeys(finding.report for finding in pending))
            sent_at = await self._client.post_errors(number, reports, before_sending=still_held)
        except errors.NotFoundError:
            self._write([f.but(intent_at=None) for f in pending])
            await self._confirm_missing(number)
            return
        except errors.RejectedError as error:
            with self._state.read() as connection:
                order = ledger.read(connection, self._seller_id, number)
            words = self._as_kept(error, {} if order is None else order.body).words
            if error.status not in REFUSES_THE_REPORT:
                note = f"FeedAMP answered {error.status}: {words}"
                self._write([f.but(intent_at=None, note=note) for f in pending])
                raise errors.TransientError(
                    f"{error} Check the connection's Base URL, or whether FeedAMP must allow this address; "
                    "`feedamp findings list` shows what it said."
                ) from error
            if len(codes) == 1:
                self._warn(
                    f"order {number}: FeedAMP refused the error report, so its findings are held; "
                    "`feedamp findings list` shows FeedAMP's message"
                )
                self._write([f.but(state=HELD, intent_at=None, note=words) for f in pending])
                return
            self._write([f.but(intent_at=None) for f in pending])
        except errors.UnclearError:
            if last_error is None:
                raise
            raise last_error from None  # unclear twice: the intent remains, and the next run reads the order first
        except (errors.BusyError, errors.StoreAwayError):
            raise  # the intent is now the other process's; or the report reached FeedAMP before the state was away
        except (errors.TransientError, errors.ReadOnlyError):
            # Throttled, stopped, or the connection was refused: the report did not reach FeedAMP, so no intent remains.
            self._write([f.but(intent_at=None) for f in pending])
            raise
        else:
            self._write([f.but(state=REPORTED, reported_at=sent_at, note=None) for f in pending])
            self._count(reported=len(pending))
            return
        for code in codes:  # a report is refused as a whole, although FeedAMP may know the other codes
            of_code = [finding for finding in pending if finding.api_code == code]
            self._write([f.but(intent_at=self._state.now()) for f in of_code])
            await self._post(number, of_code, still_held, last_error=last_error)

    async def _confirm_missing(self, number: str) -> None:
        """Reads the order alone; only if FeedAMP answers 404 again is it marked as missing."""
        asked_at = self._state.now()
        try:
            await self._client.get_order(number)
        except errors.NotFoundError:
            await self._record_missing([number], asked_at=asked_at)
        except errors.UnreadableError:
            pass  # it cannot be decoded, but it exists
        except errors.TransientError as error:
            self._fail(error)
        else:
            message = f"FeedAMP answered 404 to a report on order {number}, although it has the order."
            self._fail(errors.TransientError(message))

    async def _check_arrival(self, number: str, pending: list[StoredFinding]) -> list[StoredFinding]:
        """Reads the order, marks the reports that have arrived, and evaluates it; returns the findings still to send.

        The evaluation matters: if the seller has corrected a line meanwhile, FeedAMP no longer lists its error, and
        it must not be reported again.
        """
        try:
            read = await read_alone(self._client, number)
        except errors.NotFoundError:
            return pending  # the POST that follows gets a 404, too, and handles it
        if isinstance(read, UnreadableOrder):
            self._record_unreadable(read)
            return []  # the report remains unclear; the next run reads the order again
        order, _ = read
        arrived = await self._arrived(order, pending)
        now = self._state.now()
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
        with self._state.begin(of=[self._seller_id]) as connection:
            store_orders(connection, self._seller_id, [read], run_id=self._run.run_id)
        _evaluate_all(self._resources, self._run, self._seller_id, [number], self._result)
        return self._pending(number)

    async def _arrived(self, order: Order, pending: list[StoredFinding]) -> list[StoredFinding]:
        """The sent findings that FeedAMP has, or may have if it does not list errors."""
        sent = [finding for finding in pending if finding.intent_at is not None]
        if order.errors is not None:
            listed = {(error.code, error.message, error.mp_line_number) for error in order.errors}
            return [finding for finding in sent if finding.listed_as in listed]
        # Without a list of errors (Q12), ask the filter whether there are any; repeat only if it says there are none.
        filters = Filters(mp_order_numbers=(order.mp_order_number,), has_errors=False)
        try:
            page = await self._client.list_orders(filters)
        except (errors.RejectedError, errors.ThrottledError):
            return sent
        has_none = any(found.mp_order_number == order.mp_order_number for found in page.orders)
        return [] if has_none else sent

    def _pending(self, number: str) -> list[StoredFinding]:
        with self._state.read() as connection:
            stored = findings.of_order(connection, self._seller_id, number)
            order = ledger.read(connection, self._seller_id, number)
        if order is None or not order.is_open or order.is_missing(self._state.now()):
            return []
        return [finding for finding in stored if finding.state == TO_REPORT]

    def _write(self, changed: list[StoredFinding]) -> None:
        """Stores the result of a report, except for findings that were waived or erased meanwhile."""
        with self._state.begin(of=[self._seller_id]) as connection:
            current = [(finding, findings.read(connection, finding.finding_id)) for finding in changed]
            to_write = [finding for finding, stored in current if stored and stored.state == TO_REPORT]
            now = self._state.now()
            findings.write(connection, to_write, run_id=self._run.run_id, now=now)
