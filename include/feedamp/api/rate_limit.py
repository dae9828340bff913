"""Keeps the requests of all processes within a seller's rate; who may send the next one is agreed on in the state database."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from feedamp.errors import ThrottledError, TransientError
from feedamp.state import State
from feedamp.state.leases import elapsed_s
from feedamp.state.request_slots import LONGEST_SLOT_WAIT_S

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

log = logging.getLogger(__name__)
Sleep = Callable[[float], Awaitable[None]]
# Slots are evenly spaced, but requests reach FeedAMP with network jitter: 10 % more distance keeps them within the rate.
SPACING = 1.1
# After an answer, FeedAMP has had the request: no jitter can bring the next one closer, so only the clocks may differ.
SPACING_AFTER_ANSWER = 1.002
QUICK_RETRIES = 3  # within a task, of a request that is safe to repeat
LATE = 0.02  # seconds; how long after its slot a request may be sent without postponing the next slot
WORTH_TELLING_S = 5.0  # a longer wait is logged
SLOT_LASTS_S = 2.0  # a request that is about to be sent so long after it got its slot is not: others may have sent meanwhile


def quick_pause_s(attempt: int) -> float:
    """Seconds before the next quick retry if FeedAMP named none: 0.5 s, doubled each time; `attempt` counts from 0."""
    return 0.5 * 2.0**attempt * random.uniform(0.8, 1.2)


class Departure:
    """A request that is to leave: with `async with`, it has its slot. Call it with the `time.monotonic()` at which it was sent."""

    def __init__(
        self, limiter: RateLimiter, seller_id: str, room: asyncio.Semaphore, queues: tuple[asyncio.Lock, ...]
    ) -> None:
        self._limiter = limiter
        self._seller_id = seller_id
        self._room = room
        self._queues = queues
        self._held = 0  # of the queues, the first so many
        self._has_left = False
        self._after_last: float | None = None

    async def __aenter__(self) -> Self:
        try:
            for queue in self._queues:
                await queue.acquire()
                self._held += 1
            self._slot_at = await self._limiter.wait_for_slot(self._seller_id, self._room)
        except BaseException:
            self._let_next()
            raise
        self._granted_at = elapsed_s()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._has_left:
                self._limiter.not_left(self._seller_id)
            elif kind is None and self._after_last is not None:
                self._limiter.answered(self._seller_id, self._after_last)
        finally:
            self._let_next()
            self._room.release()

    def __call__(self, left_at: float) -> None:
        if not self.tell_at_once(left_at):
            self._limiter.postpone_next(self._seller_id)
            self._let_next()

    def tell_at_once(self, left_at: float) -> bool:
        """As a call, in a callback of the event loop; False if it must be called, because that waits for the state."""
        if not self._has_left:
            self._has_left = True
            self._after_last = self._limiter.left(self._seller_id, left_at)
        if self._after_last is None and left_at - self._slot_at > LATE:
            return False
        self._let_next()
        return True

    def _let_next(self) -> None:
        while self._held:
            self._held -= 1
            self._queues[self._held].release()

    def require_prompt(self) -> None:
        """Call this in any thread immediately before the request is sent.

        Raises:
            TransientError: this process was stopped since it got the slot.
        """
        if elapsed_s() - self._granted_at > SLOT_LASTS_S:
            raise TransientError("This process stood still before a request could be sent; nothing was sent.")


class RateLimiter:
    """Hands out request slots. Waits at most `LONGEST_SLOT_WAIT_S` for one; if it takes longer, a later run does the work.

    A slot is taken at the moment of sending, never ahead of it: a process that is delayed between the two would
    send all its slots' requests in one burst. See `rate_leases` for where a slot comes from.

    `history_share` makes it give way to live work, and one that `goes_first` gets the next slot; see `request_slots.take`.
    """

    def __init__(
        self,
        state: State,
        *,
        requests_per_second: float,
        sleep: Sleep,
        history_share: float | None = None,
        goes_first: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = state.rates
        self._interval_s = SPACING / requests_per_second
        self._shortest_s = SPACING_AFTER_ANSWER / requests_per_second
        self._sleep = sleep
        self._history_share = history_share
        self._goes_first = goes_first
        self._monotonic = monotonic
        self._queues: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._patient: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def requests_in(self, seconds: float) -> int:
        """How many requests for one seller leave within so many seconds, if no other work has any; at least one."""
        return max(1, int(seconds / self._interval_s))

    def leaving(self, seller_id: str, room: asyncio.Semaphore, *, is_urgent: bool = False) -> Departure:
        """Reserves a free connection of the pool and then a request slot; send the request immediately inside.

        `room` counts the pool's free connections. In the reverse order, slots would be reserved while requests wait for
        the pool; the requests would then be sent in a burst, or during a pause that FeedAMP asked for meanwhile.

        Call what is yielded with the `time.monotonic()` at which the request was sent. Until then this process reserves no other slot for the
        seller: opening a connection can take longer than the distance between two slots, and the requests waiting for it
        would all be sent together. Of the other requests of this process for the seller, at most one is before one that `is_urgent`.

        Raises:
            ThrottledError: the slot is more than `LONGEST_SLOT_WAIT_S` away, because FeedAMP asked for a pause.
        """
        queues = (self._queues,) if is_urgent else (self._patient, self._queues)
        return Departure(self, seller_id, room, tuple(queue[seller_id] for queue in queues))

    async def wait_for_slot(self, seller_id: str, room: asyncio.Semaphore) -> float:
        """Waits for a slot and returns its monotonic time. Holds a connection of `room` then, but not while it sleeps."""
        while True:
            await room.acquire()
            is_taken = False
            try:
                # Before the slot is taken: the next one is counted from then, even if the state answers late.
                asked_at = self._monotonic()
                wait_s = self._rates.take(
                    seller_id,
                    interval_s=self._interval_s,
                    history_share=self._history_share,
                    goes_first=self._goes_first,
                )
                is_taken = wait_s <= 0
            finally:
                if not is_taken:
                    room.release()
            if is_taken:
                return asked_at
            await self.wait_out(seller_id, wait_s)

    async def wait_out(self, seller_id: str, wait_s: float) -> None:
        """Sleeps, unless that is too long.

        Raises:
            ThrottledError: it is longer than `LONGEST_SLOT_WAIT_S`.
        """
        if wait_s > LONGEST_SLOT_WAIT_S:
            raise ThrottledError(
                "FeedAMP asked for a pause for this seller.", retry_after_s=wait_s, seller_id=seller_id
            )
        if wait_s > WORTH_TELLING_S:
            log.info("FeedAMP asked for a pause for seller %s; waiting for %.0f s.", seller_id, wait_s)
        await self._sleep(wait_s)

    def left(self, seller_id: str, left_at: float) -> float | None:
        """Tells when a request was sent; what `answered` takes, None if the rate is not held here."""
        ago_s = max(0.0, self._monotonic() - left_at)
        return self._rates.left(
            seller_id,
            self._rates.elapsed_s() - ago_s,
            interval_s=self._interval_s,
            shortest_s=self._shortest_s,
        )

    def postpone_next(self, seller_id: str) -> None:
        """Postpones the next slot, since a request was sent long after its own."""
        self.pause(seller_id, self._interval_s)

    def not_left(self, seller_id: str) -> None:
        """Tells that a request that had a slot was not sent."""
        self._rates.not_left(seller_id)

    def answered(self, seller_id: str, after_last: float) -> None:
        """Tells that the answer to a request has come; see `left`."""
        self._rates.answered(seller_id, after_last, shortest_s=self._shortest_s)

    def token_pause_left_s(self, connection: Connection, seller_id: str) -> float:
        """Seconds left of a pause that FeedAMP asked for in answer to a token call."""
        return self._rates.token_pause_left_s(connection, seller_id)

    def pause_token_calls(self, seller_id: str, seconds: float) -> None:
        """Postpones the seller's next token call in all processes, as its Retry-After demands."""
        self._rates.pause_token_calls(seller_id, seconds)

    def pause(self, seller_id: str, seconds: float) -> None:
        """Postpones the seller's next slot in all processes, as Retry-After demands."""
        self._rates.pause(seller_id, seconds)
