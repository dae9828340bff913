"""Keeps the requests of all processes within a seller's rate: each one reserves a slot in the state database."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from feedamp.errors import ThrottledError
from feedamp.state import State, request_slots

Sleep = Callable[[float], Awaitable[None]]
# Slots are evenly spaced, but requests reach FeedAMP with network jitter: 10 % more distance keeps them within the rate.
SPACING = 1.1
QUICK_RETRIES = 3  # within a task, of a request that is safe to repeat
LATE = 0.02  # seconds; how long after its slot a request may be sent without postponing the next slot


def quick_pause_s(attempt: int) -> float:
    """Seconds before the next quick retry if FeedAMP named none: 0.5 s, doubled each time; `attempt` counts from 0."""
    return 0.5 * 2.0**attempt * random.uniform(0.8, 1.2)


class RateLimiter:
    """Hands out request slots. Waits at most `patience_s` for one; if it takes longer, a later run does the work.

    A slot is reserved at the moment of sending, never ahead of it: a process that is delayed between the two would
    send all its reserved requests in one burst.

    `history_share` makes it give way to live work; see `request_slots.take`.
    """

    def __init__(
        self,
        state: State,
        *,
        requests_per_second: float,
        sleep: Sleep,
        history_share: float | None = None,
        patience_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._interval_s = SPACING / requests_per_second
        self._sleep = sleep
        self._history_share = history_share
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._queues: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def leaving(
        self, seller_id: str, room: asyncio.Semaphore
    ) -> AsyncIterator[Callable[[float], None]]:
        """Reserves a free connection of the pool and then a request slot; send the request immediately inside.

        `room` counts the pool's free connections. In the reverse order, slots would be reserved while requests wait for
        the pool; the requests would then be sent in a burst, or during a pause that FeedAMP asked for meanwhile.

        Call the yielded function with the `time.monotonic()` at which the request was sent. Until then this process reserves no other slot for the
        seller: opening a connection can take longer than the distance between two slots, and the requests waiting for it
        would all be sent together.

        Raises:
            ThrottledError: the slot is more than `patience_s` away, because FeedAMP asked for a pause.
        """
        queue = self._queues.setdefault(seller_id, asyncio.Lock())
        with ExitStack() as until_answered, ExitStack() as until_left:
            await queue.acquire()
            until_left.callback(queue.release)
            slot_at = await self._wait_for_slot(seller_id, room)
            until_answered.callback(room.release)
            yield partial(self._left, seller_id, slot_at, until_left)

    async def _wait_for_slot(self, seller_id: str, room: asyncio.Semaphore) -> float:
        """Waits for a slot and returns its monotonic time. Holds a connection of `room` then, but not while it sleeps."""
        while True:
            with ExitStack() as until_taken:
                await room.acquire()
                until_taken.callback(room.release)
                # Before the slot is taken: the next one is counted from then, even if the state answers late.
                asked_at = self._monotonic()
                wait_s = self._take(seller_id)
                if wait_s <= 0:
                    until_taken.pop_all()
                    return asked_at
            if wait_s > self._patience_s:
                raise ThrottledError(
                    "FeedAMP asked for a pause for this seller.", retry_after_s=wait_s, seller_id=seller_id
                )
            await self._sleep(wait_s)

    def _take(self, seller_id: str) -> float:
        with self._state.begin(alone=False) as connection:
            return request_slots.take(
                connection,
                seller_id,
                now=self._state.now(),
                interval_s=self._interval_s,
                history_share=self._history_share,
            )

    def _left(self, seller_id: str, slot_at: float, until_left: ExitStack, left_at: float) -> None:
        """Lets the next request reserve a slot; postpones that slot if this request was sent late."""
        if left_at - slot_at > LATE:
            self.pause(seller_id, self._interval_s)
        until_left.close()

    def pause(self, seller_id: str, seconds: float) -> None:
        """Postpones the seller's next slot in all processes, as Retry-After demands."""
        with self._state.begin(alone=False) as connection:
            request_slots.postpone(connection, seller_id, now=self._state.now(), seconds=seconds)
