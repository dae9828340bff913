"""What every step needs that works on one seller: reads by number, and a PUT right after its read."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from feedamp import errors
from feedamp.api.client import FeedAmpClient
from feedamp.api.orders_by_number import ReadOrders, read_by_number
from feedamp.api.pages import UnreadableOrder
from feedamp.models import ReadOrder
from feedamp.resources import Resources
from feedamp.rules.cancelling import READS_BEFORE_CANCELLED
from feedamp.rules.echoed_values import without_values
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.run import Run
from feedamp.state import ledger
from feedamp.steps.step_result import StepResult

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

    def _as_kept(self, error: errors.RejectedError, body: Mapping[str, Any]) -> errors.RejectedError:
        """A refusal in the words that the state keeps: with `pii = mask`, without the personal values of the body sent."""
        return error if self._resources.privacy.key is None else without_values(error, body)

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
