"""The edge of a step: one seller's failure is recorded and the rest goes on (promise 8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feedamp.errors import (
    AuthorizationError,
    BusyError,
    ClientRefusedError,
    FeedAmpError,
    IncompleteError,
    ThrottledError,
    TransientError,
)
from feedamp.parts import Clients, Parts, Run
from feedamp.state import outbox, step_runs
from feedamp.state.sellers import Seller
from feedamp.state.step_runs import Done
from feedamp.tables import RUNS

log = logging.getLogger(__name__)
SELLERS_AT_ONCE = 64
FAILURES_THAT_END_A_SELLER = 3


@dataclass
class Tally:
    """What a step has done. `undone` is work that a retry or the next run may still do (red);
    `notes` is what needs a person, or merely should be known (green); `last_lines` ends the log."""

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

    def leave(self, seller_id: str, error: Exception) -> None:
        """Records work left undone that could still succeed by itself."""
        self.failed_sellers.add(seller_id)
        self.complete = False
        self.undone.append(f"{seller_id}: {error}")
        after = getattr(error, "retry_after_s", None)
        if after is not None:
            self.retry_after_s = min(after, self.retry_after_s or after)

    def note(self, seller_id: str, text: str) -> None:
        """Records what needs a person, or should be known."""
        self.notes.append(f"{seller_id}: {text}")

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


async def each_seller(
    clients: Clients,
    sellers: Sequence[Seller],
    tally: Tally,
    work: Callable[[Seller], Awaitable[None]],
) -> None:
    """Runs `work` for all sellers at once; records what fails and lets the others go on.

    Raises:
        ClientRefusedError: nobody of that connection can be worked for; the others were.
    """
    gate = asyncio.Semaphore(SELLERS_AT_ONCE)
    of_grants: set[str] = set()

    async def guarded(seller: Seller) -> None:
        async with gate:
            try:
                await work(seller)
            except ClientRefusedError as error:
                tally.leave(seller.seller_id, error)
            except AuthorizationError as error:
                tally.failed_sellers.add(seller.seller_id)
                tally.complete = False
                tally.note(seller.seller_id, str(error))
                of_grants.add(tally.notes[-1])
            except FeedAmpError as error:
                tally.leave(seller.seller_id, error)
            except Exception as error:
                log.exception("seller %s: unexpected %s", seller.seller_id, type(error).__name__)
                tally.leave(seller.seller_id, RuntimeError(f"unexpected {type(error).__name__}, see the log"))

    tally.sellers = len(sellers)
    await asyncio.gather(*(guarded(seller) for seller in sellers))
    tally.pages = clients.counts.pages
    try:
        newly, blamed = clients.settle()
    finally:
        tally.requests = clients.requests
    for seller_id in newly:
        log.warning("Seller %s must authorize again: FeedAMP refuses the grant.", seller_id)
    if blamed is not None:
        # Nobody comes to `finish`. What the refused client was to blame for, or may have been, is not said again.
        notes = [line for line in tally.notes if line not in of_grants]
        _log_lines(notes, [line for line in tally.undone if not line.endswith(f": {blamed}")])
        raise blamed


async def each_order(
    seller_id: str, numbers: Iterable[str], tally: Tally, work: Callable[[str], Awaitable[None]]
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
                tally.leave(seller_id, error)
                if failures >= FAILURES_THAT_END_A_SELLER:
                    raise


def record_run(parts: Parts, run: Run, tally: Tally, started_at: datetime) -> None:
    """Puts the step's row for `runs` in the outbox; what earlier tries of the task did is added up."""
    ended_at = parts.state.now()
    this_try = Done(started_at, pages=tally.pages, requests=tally.requests, orders=tally.orders)
    with parts.state.begin() as connection:
        done = step_runs.add_up(connection, f"{run.dag_id}/{run.run_id}", tally.step, tally.shard, this_try)
        row = {
            "run_id": run.run_id,
            "step": tally.step,
            "shard": tally.shard,
            "dag_id": run.dag_id,
            "started_at": done.started_at,
            "ended_at": ended_at,
            "sellers": tally.sellers,
            "sellers_failed": len(tally.failed_sellers),
            "pages": done.pages,
            "requests": done.requests,
            "orders": done.orders,
            "orders_unread": tally.orders_unread,
            "complete": tally.complete and not tally.orders_unread,
        }
        outbox.put(connection, RUNS.name, [row], recorded_at=ended_at)


def _log_lines(notes: Sequence[str], undone: Sequence[str]) -> None:
    for line in notes[:100]:
        log.warning("%s", line)
    for line in undone[:100]:
        log.error("%s", line)


def finish(tally: Tally) -> dict[str, Any]:
    """Logs the summary and returns the counts.

    Raises:
        TransientError: something was left undone that could still succeed by itself.
    """
    log.info("%s", ", ".join(f"{name} {value}" for name, value in tally.summary().items()))
    _log_lines(tally.notes, tally.undone)
    for line in tally.last_lines:
        log.info("%s", line)
    if tally.undone:
        kind = IncompleteError if tally.step in ("extract", "reconcile") else TransientError
        raise kind(
            f"{tally.step}: {len(tally.failed_sellers)} of {tally.sellers} sellers have work left; "
            f"first: {tally.undone[0]}",
            retry_after_s=tally.retry_after_s,
        )
    return tally.summary()
