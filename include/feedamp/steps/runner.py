"""The edge of a step: one seller's failure is recorded and the rest goes on (promise 8)."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feedamp.api.clients import Clients
from feedamp.errors import (
    AuthorizationError,
    BusyError,
    ClientRefusedError,
    FeedAmpError,
    IncompleteError,
    PausedError,
    ThrottledError,
    TransientError,
)
from feedamp.resources import Resources
from feedamp.rules.troubles import (
    LONGEST_REASON,
    Reason,
    Told,
    Trouble,
    Troubles,
    named,
    noun_of,
    reasons_of,
    sentence,
    together,
)
from feedamp.run import Run
from feedamp.state import outbox, step_runs
from feedamp.state.sellers import Seller
from feedamp.state.step_runs import Done
from feedamp.tables import RUNS

log = logging.getLogger(__name__)
SELLERS_AT_ONCE = 64
FAILURES_THAT_END_A_SELLER = 3
LINES_SHOWN = 100
NEXT = "The next run takes up what is left."
# A day is compared again only when it is asked for.
NEXT_OF = {
    "intake": "Mend, rename or remove these; the next run reads them.",
    "reconcile": "Clear the task, or start the day again as a backfill.",
}


@dataclass
class StepResult:
    """What a step has done. `undone` is work that a retry or the next run may still do (red);
    `notes` is what requires action, or merely should be known (green); `last_lines` ends the log.

    `left` and `noted` are the same put together by reason, which is how they are logged. `said_before` holds what
    other tasks of the run, and earlier tries of this one, have logged already; `blamed` ended the step.
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
    left: Troubles = field(default_factory=Troubles)
    noted: Troubles = field(default_factory=Troubles)
    said_before: Mapping[str, Sequence[Reason]] = field(default_factory=dict)
    blamed: ClientRefusedError | None = None

    def record_failure(self, seller_id: str, error: Exception, *, cause: Exception | None = None) -> None:
        """Records work left undone that could still succeed by itself.

        `cause` is an error that no one expected; its traceback is logged once a step, whomever it struck.
        """
        self.failed_sellers.add(seller_id)
        self.complete = False
        self.undone.append(f"{seller_id}: {error}")
        number = getattr(error, "mp_order_number", None)
        self.left.add(seller_id, str(error), mp_order_number=number, cause=cause)
        after = getattr(error, "retry_after_s", None)
        if after is not None:
            self.retry_after_s = min(after, self.retry_after_s or after)

    def add_warning(self, seller_id: str, text: str, *, is_logged: bool = True) -> None:
        """Records what requires action, or should be known; without `is_logged` another line of the log says it."""
        self.notes.append(f"{seller_id}: {text}")
        if is_logged:
            self.noted.add(seller_id, text)

    def told(self) -> Told | None:
        """What the state keeps of work left undone, for `gate`; None if there is none."""
        if not self.undone:
            return None
        return Told(reasons_of(self.left), failed=len(self.failed_sellers))

    def summary(self) -> dict[str, Any]:
        """Counts only, fit for an XCom."""
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
            **self.extra,
        }


async def run_per_seller(
    clients: Clients,
    sellers: Sequence[Seller],
    result: StepResult,
    work: Callable[[Seller], Awaitable[None]],
    *,
    refusal_is_failure: bool = True,
) -> None:
    """Runs `work` for all sellers at once; records what fails and lets the others go on.

    A refused grant is a note; without `refusal_is_failure` the step is complete all the same.

    Raises:
        ClientRefusedError: no one of that connection can be worked for; the others were.
    """
    gate = asyncio.Semaphore(SELLERS_AT_ONCE)
    refused: dict[str, str] = {}

    async def guarded(seller: Seller) -> None:
        async with gate:
            try:
                await work(seller)
            except ClientRefusedError as error:
                result.record_failure(seller.seller_id, error)
            except PausedError as error:
                result.complete = False
                result.add_warning(seller.seller_id, str(error))
            except AuthorizationError as error:
                if refusal_is_failure:
                    result.failed_sellers.add(seller.seller_id)
                    result.complete = False
                result.add_warning(seller.seller_id, str(error), is_logged=False)
                refused[seller.seller_id] = str(error)
            except FeedAmpError as error:
                result.record_failure(seller.seller_id, error)
            except Exception as error:  # noqa: BLE001 - logged with its traceback at the end of the step
                result.record_failure(seller.seller_id, unexpected(error), cause=error)

    result.sellers = len(sellers)
    await asyncio.gather(*(guarded(seller) for seller in sellers))
    result.pages = clients.counts.pages
    try:
        newly, blamed = clients.settle()
    finally:
        result.requests = clients.requests
    if newly:
        whose = f"Seller {newly[0]}" if len(newly) == 1 else f"Sellers {named(newly)}"
        log.warning("%s must authorize again: FeedAMP refuses the grant.", whose)
    if blamed is not None:
        # What the refused client was to blame for, or may have been, is not said of each seller again.
        result.blamed = blamed
        raise blamed
    for seller_id, text in refused.items():
        if seller_id not in newly:
            result.noted.add(seller_id, text)


def unexpected(error: Exception, mp_order_number: str | None = None) -> FeedAmpError:
    """What to record of an error that no one expected: its kind, for its words may hold anything."""
    what = "the work" if mp_order_number is None else f"the work on order {mp_order_number}"
    return FeedAmpError(
        f"An unexpected {type(error).__name__} ended {what}; its traceback is in the log.",
        mp_order_number=mp_order_number,
    )


def missing_order(mp_order_number: str) -> str:
    """What to note of an order that FeedAMP answered 404 to."""
    return (
        f"order {mp_order_number} is not in the seller's FeedAMP account any more; "
        "start feedamp_reconcile_orders for the day of its purchase"
    )


async def run_per_order(
    seller_id: str, numbers: Iterable[str], result: StepResult, work: Callable[[str], Awaitable[None]]
) -> None:
    """Runs `work` for one order after the other; one that cannot be done is left, the others go on.

    One that another process is at comes once more after all others: by then it is done, or free. If it is neither,
    its process may be dead, and the order is work left.

    Raises:
        TransientError: FeedAMP throttles, or so many fail that the seller as a whole is in trouble.
    """
    failures = 0
    again: list[str] = []
    for turn, is_last in ((numbers, False), (again, True)):
        for number in turn:
            try:
                await work(number)
            except ThrottledError:
                raise
            except TransientError as error:
                is_busy = isinstance(error, BusyError) and error.mp_order_number is not None
                if is_busy and not is_last:
                    again.append(number)
                    continue
                failures += not is_busy  # another process tells nothing about the seller
                result.record_failure(seller_id, error)
                if failures >= FAILURES_THAT_END_A_SELLER:
                    raise


def record_run(resources: Resources, run: Run, result: StepResult, started_at: datetime) -> None:
    """Puts the step's row for `runs` in the outbox; what earlier tries of the task did is added up.

    What was left undone, and why, stays in the state for `gate`.
    """
    ended_at = resources.state.now()
    this_try = Done(started_at, pages=result.pages, requests=result.requests, orders=result.orders)
    key = (f"{run.dag_id}/{run.run_id}", result.step, result.shard)
    with resources.state.begin() as connection:
        told_before = step_runs.told_by(connection, key[0]).values()
        done = step_runs.add_up(connection, *key, this_try)
        step_runs.tell(connection, *key, result.told(), sellers=result.sellers, now=ended_at)
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
    said_before: dict[str, list[Reason]] = {}
    for told, _ in told_before:
        for reason in told.reasons if told else ():
            said_before.setdefault(reason.text, []).append(reason)
    result.said_before = said_before
    if sys.exception() is not None:
        _log_troubles(result)  # something ends the step, so no one comes to `finish`


def _log_troubles(result: StepResult) -> None:
    """One line for each reason, whomever it concerns; what this run has said already is no news."""
    noun = noun_of(result.step)
    _log_lines(logging.WARNING, list(result.noted), noun)
    said: list[Trouble] = []
    news: list[Trouble] = []
    for trouble in result.left:
        if result.blamed is not None and trouble.text == str(result.blamed):
            continue
        before = result.said_before.get(trouble.text[:LONGEST_REASON], ())
        (said if any(reason.covers(trouble) for reason in before) else news).append(trouble)
    _log_lines(logging.ERROR, news, noun)
    _log_lines(logging.INFO, said, noun)


def _log_lines(level: int, troubles: Sequence[Trouble], noun: str) -> None:
    for trouble in troubles[:LINES_SHOWN]:
        log.log(level, "%s", trouble.line(noun), exc_info=trouble.cause)
    if len(troubles) > LINES_SHOWN:
        log.log(level, "%d more reasons are not shown.", len(troubles) - LINES_SHOWN)


def finish(result: StepResult) -> dict[str, Any]:
    """Logs the summary and returns the counts.

    Raises:
        TransientError: something was left undone that could still succeed by itself.
    """
    log.info("%s", ", ".join(f"{name} {value}" for name, value in result.summary().items()))
    _log_troubles(result)
    for line in result.last_lines:
        log.info("%s", line)
    told = result.told()
    if told is not None:
        kind = IncompleteError if result.step in ("extract", "reconcile") else TransientError
        what = sentence(result.step, told.failed, result.sellers, together(told.reasons))
        raise kind(f"{what} {NEXT_OF.get(result.step, NEXT)}", retry_after_s=result.retry_after_s)
    return result.summary()
