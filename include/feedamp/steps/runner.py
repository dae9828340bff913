"""Runs a step for each seller and order: a failure is recorded and the others go on (promise 8)."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from feedamp import errors
from feedamp.api.client import FeedAmpClient
from feedamp.api.clients import Clients
from feedamp.api.orders_by_number import ReadOrders, read_by_number
from feedamp.api.pages import UnreadableOrder
from feedamp.models import ReadOrder
from feedamp.progress import EVERY_S, Progress
from feedamp.resources import Resources
from feedamp.rules.cancelling import READS_BEFORE_CANCELLED
from feedamp.rules.failure_summary import (
    LONGEST_REASON,
    Reason,
    Told,
    Trouble,
    Troubles,
    counted,
    named,
    noun_of,
    reasons_of,
    sentence,
    together,
)
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.run import Run
from feedamp.state import ledger, outbox, step_runs
from feedamp.state.sellers import Seller
from feedamp.state.step_runs import Done
from feedamp.steps.garbage import collected_seldom
from feedamp.steps.step_log import RejectedRows, SellerCounts
from feedamp.tables import RUNS

log = logging.getLogger(__name__)
SELLERS_AT_ONCE = 64
ORDERS_AT_ONCE = 4  # of a seller, where each has requests of its own
LINES_SHOWN = 100
NEXT = "The next run takes up what is left."
# Later runs of reconcile compare other days, so a day is compared again only on request.
NEXT_OF = {
    "intake": "Fix, rename or remove them; the next run reads them.",
    "reconcile": "Clear the task, or start the day again as a backfill.",
}


@dataclass
class StepResult:
    """What a step has done: counts, failures and warnings.

    `undone` lists work that a retry or the next run can still do; it turns the task red. `notes` lists what requires
    action or should be known; the task stays green. `last_lines` are logged at the end.

    `failures` and `warnings` hold the same sentences grouped by reason, which is how they are logged.
    `logged_before` holds the reasons that other tasks of the run, or earlier tries of this one, have logged already.
    `by_seller`, `requests_of` (by seller) and `rejected_rows` are what the log tells; `on_count` is called after each count.
    `refused_client` is the error that ended the step because FeedAMP refused a client, None if that did not happen.
    """

    step: str
    shard: int = 0
    sellers: int = 0
    orders: int = 0
    orders_unread: int = 0
    rejected: int = 0
    pages: int = 0
    requests: int = 0
    failed_sellers: set[str] = field(default_factory=set)
    undone: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    retry_after_s: float | None = None
    complete: bool = True
    extra: dict[str, int] = field(default_factory=dict)
    last_lines: list[str] = field(default_factory=list)
    failures: Troubles = field(default_factory=Troubles)
    warnings: Troubles = field(default_factory=Troubles)
    logged_before: Mapping[str, Sequence[Reason]] = field(default_factory=dict)
    refused_client: errors.ClientRefusedError | None = None
    by_seller: SellerCounts = field(default_factory=SellerCounts)
    requests_of: Mapping[str, int] = field(default_factory=dict)
    rejected_rows: RejectedRows = field(default_factory=RejectedRows)
    on_count: Callable[[], None] = lambda: None
    is_read_only: bool = False
    outcome: str | None = None  # what `gate` should know besides, as JSON

    def count(self, seller_id: str, **counts: int) -> None:
        """Adds to the counts of a seller (of a file in `intake`) and of the step; those without a field are in `extra`."""
        self.by_seller.add(seller_id, counts)
        for name, count in counts.items():
            if name in ("orders", "orders_unread", "rejected"):
                setattr(self, name, getattr(self, name) + count)
            else:
                self.extra[name] = self.extra.get(name, 0) + count
        self.on_count()

    def record_failure(self, seller_id: str, error: Exception, *, cause: Exception | None = None) -> None:
        """Records work that was left undone and can still succeed without anyone's action.

        `cause` is an unexpected error; its traceback is logged once per step, however many sellers it affects.
        """
        self.failed_sellers.add(seller_id)
        self.complete = False
        self.undone.append(f"{seller_id}: {error}")
        number = getattr(error, "mp_order_number", None)
        self.failures.add(seller_id, str(error), mp_order_number=number, cause=cause)
        after = getattr(error, "retry_after_s", None)
        if after is not None:
            self.retry_after_s = min(after, self.retry_after_s or after)

    def add_warning(self, seller_id: str, text: str) -> None:
        """Records what requires action or should be known."""
        self.notes.append(f"{seller_id}: {text}")
        self.warnings.add(seller_id, text)

    def stop(self, error: errors.ReadOnlyError) -> None:
        """Records, once, that the emergency stop kept the step from sending; what was to be sent stays due."""
        if not self.is_read_only:
            log.warning("%s", error)
            self.notes.append(str(error))
        self.is_read_only = True

    def report(self) -> Told | None:
        """What the state stores of undone work, for `gate` to read; None if nothing was left undone."""
        if not self.undone:
            return None
        return Told(reasons_of(self.failures), failed=len(self.failed_sellers))

    def table(self) -> Iterator[str]:
        """The table at the end of the log: what was done for each seller that had work."""
        yield from self.by_seller.table(
            noun_of(self.step),
            self.failed_sellers,
            self.requests_of,
            sellers=self.sellers,
            sent=self.requests,
        )

    def summary(self) -> dict[str, Any]:
        """Counts only, safe to put into an XCom."""
        return {
            "step": self.step,
            "shard": self.shard,
            "sellers": self.sellers,
            "sellers_failed": len(self.failed_sellers),
            "orders": self.orders,
            "orders_unread": self.orders_unread,
            "rejected": self.rejected,
            "requests": self.requests,
            "complete": self.complete,
            "notes": len(self.notes),
            **({"read_only": True} if self.is_read_only else {}),
            **self.extra,
        }


Work = Callable[[Seller, Clients], Awaitable[None]]


async def run_per_seller(
    resources: Resources,
    run: Run,
    result: StepResult,
    sellers: Sequence[Seller],
    work: Work,
    *,
    refusal_is_failure: bool = True,
    at_end: Callable[[], None] = lambda: None,
    is_recorded: bool = True,
    gives_way: bool = False,
    planned: int | None = None,
) -> None:
    """Runs `work` for up to 64 sellers at the same time, records what failed, lets the others go on, and records the run.

    A refused grant is a warning. The seller also counts as failed and the step as incomplete, unless
    `refusal_is_failure` is False. Who is at fault is decided at the end of the run: `decide_refusals`. `at_end` is called
    after the last seller, whatever happened, before the run is recorded; a part of another step is not `is_recorded`.
    With `gives_way`, its requests leave room for live work. `planned` is the number of orders, if it is known.

    Raises:
        ClientRefusedError: FeedAMP refused the client of a connection, so none of its sellers could be served; the
            sellers of other connections were.
        ConfigurationError: sellers could not be served because of a connection, such as one that leads to another server
            than before, or of a wrong clock; the other sellers were.
    """
    started_at = resources.state.now()
    with collected_seldom():
        async with resources.clients(run, gives_way=gives_way) as clients:
            try:
                clients.hold_rates([seller.seller_id for seller in sellers])
                await _run_all(
                    clients, sellers, result, work, refusal_is_failure=refusal_is_failure, planned=planned
                )
            finally:
                try:
                    at_end()
                except BaseException:
                    result.complete = False
                    raise
                finally:
                    if is_recorded:
                        record_run(resources, run, result, started_at)
            if clients.counts.coercions:
                log.info(
                    "FeedAMP sent values of another JSON type than documented; they were converted: %s",
                    dict(clients.counts.coercions),
                )


async def _run_all(
    clients: Clients,
    sellers: Sequence[Seller],
    result: StepResult,
    work: Work,
    *,
    refusal_is_failure: bool,
    planned: int | None,
) -> None:
    gate = asyncio.Semaphore(SELLERS_AT_ONCE)
    misconfigured: list[errors.ConfigurationError] = []
    ended = 0
    result.requests_of = clients.counts.requests

    def note() -> str:
        sellers_ended = "" if planned is None else f"{ended} of {counted(len(sellers), 'seller')}, "
        orders = f"{counted(result.orders, 'order')}, " if planned is None else ""
        return f"{sellers_ended}{orders}{counted(clients.requests, 'request')}"

    progress = Progress(
        result.step,
        "sellers" if planned is None else "orders",
        len(sellers) if planned is None else planned,
        note=note,
    )

    def look() -> None:
        progress.at(ended if planned is None else result.orders + result.rejected)

    async def look_often() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            look()

    async def guarded(seller: Seller) -> None:
        nonlocal ended
        async with gate:
            try:
                await work(seller, clients)
            except errors.ClientRefusedError as error:
                result.record_failure(seller.seller_id, error)
            except errors.ReadOnlyError as error:
                result.complete = False
                result.stop(error)
            except errors.PausedError as error:
                result.complete = False
                result.add_warning(seller.seller_id, str(error))
            except errors.AuthorizationError as error:
                if refusal_is_failure:
                    result.failed_sellers.add(seller.seller_id)
                    result.complete = False
                result.add_warning(seller.seller_id, str(error))
            except errors.ConfigurationError as error:
                result.record_failure(seller.seller_id, error)
                misconfigured.append(error)
            except errors.FeedAmpError as error:
                result.record_failure(seller.seller_id, error)
            except Exception as error:  # noqa: BLE001 - logged with its traceback at the end of the step
                result.record_failure(seller.seller_id, unexpected(error), cause=error)
            finally:
                ended += 1
                line = result.by_seller.line(
                    seller.seller_id, requests=result.requests_of.get(seller.seller_id, 0)
                )
                if line is not None:
                    log.info("%s", line)

    result.sellers = len(sellers)
    result.on_count = look
    looking = asyncio.create_task(look_often())
    try:
        await asyncio.gather(*(guarded(seller) for seller in sellers))
    finally:
        looking.cancel()
    result.pages = clients.counts.pages
    try:
        lost, refused_client = clients.newly_lost()
    finally:
        result.requests = clients.requests
    if lost:
        warn_of_refused(lost)
    if refused_client is not None:
        # The refused client may explain the sellers' failures, so they are not logged one by one.
        result.refused_client = refused_client
        raise refused_client
    if misconfigured:  # a retry cannot help
        raise misconfigured[0]


def warn_of_refused(seller_ids: Sequence[str]) -> None:
    """Logs, once for each newly marked seller, who must authorize again."""
    subject = f"Seller {seller_ids[0]}" if len(seller_ids) == 1 else f"Sellers {named(seller_ids)}"
    log.warning("%s must authorize again: FeedAMP refuses the grant.", subject)


def unexpected(error: Exception, mp_order_number: str | None = None) -> errors.FeedAmpError:
    """What to record of an unexpected error: only its type, because its message may hold customer fields or secrets."""
    work = "the work" if mp_order_number is None else f"the work on order {mp_order_number}"
    return errors.FeedAmpError(
        f"An unexpected {type(error).__name__} ended {work}; its traceback is in the log.",
        mp_order_number=mp_order_number,
    )


Job = tuple[Resources, Run, StepResult, FeedAmpClient]  # what every `SellerJob` is made with


class SellerJob:
    """What a step does for one seller; holds what all steps need for that, and records what they all may find."""

    def __init__(self, resources: Resources, run: Run, result: StepResult, client: FeedAmpClient) -> None:
        self._resources = resources
        self._run = run
        self._result = result
        self._client = client
        self._state = resources.state
        self._seller_id = client.seller_id
        self._unanswered: list[errors.TransientError] = []  # reads of single orders that failed

    def _count(self, **counts: int) -> None:
        self._result.count(self._seller_id, **counts)

    def _warn(self, text: str) -> None:
        self._result.add_warning(self._seller_id, text)

    def _fail(self, error: Exception, *, cause: Exception | None = None) -> None:
        self._result.record_failure(self._seller_id, error, cause=cause)

    async def _read_by_number(self, numbers: Sequence[str]) -> list[ReadOrder]:
        """The orders that FeedAMP has and that can be read; records the others. Raises as `_ask_for`."""
        asked_at = self._state.now()
        fresh = await self._ask_for(numbers)
        await self._record_missing(fresh.missing, asked_at=asked_at)
        self._record_unreadable(*fresh.unread)
        return fresh.orders

    async def _ask_for(self, numbers: Sequence[str]) -> ReadOrders:
        """As `read_by_number`; records the requests that failed.

        Raises:
            TransientError: three requests of single orders had failed before, so that the seller is left to the next run.
        """
        patience = FAILURES_THAT_END_A_SELLER - len(self._unanswered)
        if patience <= 0:
            raise self._unanswered[-1]
        fresh = await read_by_number(self._client, numbers, patience=patience)
        self._record_unanswered(*fresh.failed)
        return fresh

    def _record_unanswered(self, *failed: errors.TransientError) -> None:
        for error in failed:
            self._fail(error)
        self._unanswered += failed

    async def _right_after_reading(
        self,
        read: Callable[[], Awaitable[datetime | None]],
        put: Callable[..., Awaitable[datetime | None]],
    ) -> datetime | None:
        """Sends a PUT `right_after` a read on which it was decided; returns what that returns, or None if the read does.

        If the rate limit delays the PUT too long, the order is read again.

        Raises:
            StaleReadError: that happened after the last of `READS_BEFORE_CANCELLED` reads.
        """
        reads = 1
        while (read_at := await read()) is not None:
            try:
                return await put(right_after=read_at)
            except errors.StaleReadError:
                if reads == READS_BEFORE_CANCELLED:
                    raise
                reads += 1
        return None

    async def _record_missing(self, numbers: Sequence[str], *, asked_at: datetime) -> None:
        """Records orders that FeedAMP does not have: it answered 404 when it was asked for them at `asked_at`."""
        if not numbers:
            return  # no empty transaction for each list that was read

        def mark(connection: Connection) -> None:
            for number in numbers:
                ledger.mark_missing(connection, self._seller_id, number, asked_at=asked_at)

        await self._state.change(self._seller_id, mark)
        for number in numbers:
            self._warn(
                f"order {number} is no longer in the seller's FeedAMP account; "
                "start feedamp_reconcile_orders for the day of its purchase"
            )

    def _record_unreadable(self, *orders: UnreadableOrder) -> None:
        for order in orders:
            self._count(orders_unread=1)
            self._warn(order.sentence)


async def run_per_order(
    seller_id: str,
    numbers: Sequence[str],
    result: StepResult,
    work: Callable[[str], Awaitable[None]],
    *,
    watch: Callable[[Sequence[str]], Awaitable[None]],
    at_once: int = 1,
) -> dict[str, errors.BusyError]:
    """Runs `work` for each order, `at_once` at a time; an order that fails is recorded, and the others go on.

    An order that another process is working on is tried once more after all others; `watch` waits before that until
    its process has shown whether it is alive. Returns the errors of those that are still busy then, by number.

    What ends the work for the seller is raised once the orders that are under way have ended; no other is begun. If these
    end it in other ways, too, a pause comes last, and the others are recorded.

    Raises:
        TransientError: FeedAMP throttles, or three orders of the seller have failed.
    """
    failures = 0
    busy: dict[str, errors.BusyError] = {}
    ends: list[Exception] = []

    async def one(number: str) -> None:
        nonlocal failures
        try:
            await work(number)
        except Exception as error:  # noqa: BLE001 - recorded, or raised after the others
            if isinstance(error, errors.BusyError) and error.mp_order_number is not None:
                busy[number] = error  # which does not mean that the seller fails
                return
            if isinstance(error, errors.TransientError) and not isinstance(error, errors.ThrottledError):
                failures += 1
                result.record_failure(seller_id, error)
                if failures < FAILURES_THAT_END_A_SELLER:
                    return
            ends.append(error)

    async def take(left: Iterator[str]) -> None:
        for number in left:
            if ends:
                return
            await one(number)

    async def try_all(attempt: Sequence[str]) -> None:
        left = iter(attempt)  # one task for each order would take more memory the more orders there are
        await asyncio.gather(*(take(left) for _ in range(at_once)))
        if ends:
            raise _worst(ends, seller_id, result)

    await try_all(numbers)
    if busy:
        again = list(busy)
        await watch(again)
        busy.clear()
        await try_all(again)
    return busy


def _worst(ends: Sequence[Exception], seller_id: str, result: StepResult) -> Exception:
    """Of what ended the work for a seller, what says most; the others are recorded, unless a pause explains them."""
    worst = min(ends, key=_says_most)
    for error in ends:
        is_recorded = isinstance(error, errors.TransientError) and not isinstance(
            error, errors.ThrottledError
        )
        if type(error) is type(worst) or is_recorded or isinstance(error, errors.PausedError):
            continue
        if isinstance(error, errors.AuthorizationError):
            result.add_warning(seller_id, str(error))
        elif isinstance(error, errors.FeedAmpError):
            result.record_failure(seller_id, error)
        else:
            result.record_failure(seller_id, unexpected(error), cause=error)
    return worst


def _says_most(error: Exception) -> tuple[bool, bool, bool]:
    """The least comes first: what no retry can help, then what is unexpected, and a pause last."""
    return (
        isinstance(error, errors.PausedError),
        not isinstance(error, errors.ConfigurationError),
        isinstance(error, errors.FeedAmpError),
    )


def record_run(resources: Resources, run: Run, result: StepResult, started_at: datetime) -> None:
    """Puts the step's row for `runs` into the outbox; its counts include those of the task's earlier tries.

    Stores in the state what was left undone and why, for `gate`.
    """
    ended_at = resources.state.now()
    this_try = Done(started_at, pages=result.pages, requests=result.requests, orders=result.orders)
    key = (run.key, result.step, result.shard)
    with resources.state.begin() as connection:
        reported_before = step_runs.told_by(connection, key[0]).values()
        done = step_runs.add_up(connection, *key, this_try)
        step_runs.tell(
            connection, *key, result.report(), sellers=result.sellers, now=ended_at, outcome=result.outcome
        )
        row = {
            "run_id": run.run_id,
            "step": result.step,
            "shard": result.shard,
            "dag_id": run.dag_id,
            "started_at": done.started_at,
            "ended_at": ended_at,
            "sellers": result.sellers,
            "sellers_failed": len(result.failed_sellers),
            "pages": done.pages,
            "requests": done.requests,
            "orders": done.orders,
            "orders_unread": result.orders_unread,
            "complete": result.complete and not result.orders_unread,
        }
        outbox.put(connection, RUNS.name, [row], recorded_at=ended_at)
    logged_before: dict[str, list[Reason]] = {}
    for report, _ in reported_before:
        for reason in report.reasons if report else ():
            logged_before.setdefault(reason.text, []).append(reason)
    result.logged_before = logged_before
    if sys.exception() is not None:
        _log_troubles(result)  # an exception ends the step, so `finish` is not called


def _log_troubles(result: StepResult) -> None:
    """Logs rejected rows, one line per reason with all sellers it concerns, and the table of sellers.

    New failures are logged as errors, those that this run has logged before as information only.
    """
    for line in result.rejected_rows.lines():
        log.warning("%s", line)
    noun = noun_of(result.step)
    _log_lines(logging.WARNING, list(result.warnings), noun)
    known: list[Trouble] = []
    new: list[Trouble] = []
    for trouble in result.failures:
        if result.refused_client is not None and trouble.text == str(result.refused_client):
            continue
        before = result.logged_before.get(trouble.text[:LONGEST_REASON], ())
        (known if any(reason.covers(trouble) for reason in before) else new).append(trouble)
    _log_lines(logging.ERROR, new, noun)
    _log_lines(logging.INFO, known, noun)
    for line in result.table():
        log.info("%s", line)


def _log_lines(level: int, troubles: Sequence[Trouble], noun: str) -> None:
    for trouble in troubles[:LINES_SHOWN]:
        log.log(level, "%s", trouble.line(noun), exc_info=trouble.cause)
    if len(troubles) > LINES_SHOWN:
        log.log(level, "%d more reasons are not shown.", len(troubles) - LINES_SHOWN)


def finish(result: StepResult) -> dict[str, Any]:
    """Logs the summary and returns the counts; TransientError if a retry or the next run can do what is left."""
    log.info("%s", ", ".join(f"{name} {value}" for name, value in result.summary().items()))
    _log_troubles(result)
    for line in result.last_lines:
        log.info("%s", line)
    report = result.report()
    if report is not None:
        kind = errors.IncompleteError if result.step in ("extract", "reconcile") else errors.TransientError
        summary = sentence(result.step, report.failed, result.sellers, together(report.reasons))
        raise kind(f"{summary} {NEXT_OF.get(result.step, NEXT)}", retry_after_s=result.retry_after_s)
    return result.summary()
