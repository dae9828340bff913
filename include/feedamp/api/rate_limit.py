"""Keeps every process within the allowed rate of a seller: a turn in the state database for each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from feedamp.errors import ThrottledError
from feedamp.state import State, request_slots

Sleep = Callable[[float], Awaitable[None]]
# Turns are evenly spaced, but requests reach FeedAMP with the network's jitter: a little air keeps them apart.
SPACING = 1.1
LATE = 0.02  # seconds between a turn and its request that no one can help


class RateLimiter:
    """Hands out turns; waits for one at most `patience_s`, beyond that the work waits for a later run.

    A turn is taken at the moment of leaving, never booked ahead: a process that was held up between the two
    would send its booked requests in one burst.
    """

    def __init__(
        self, state: State, *, requests_per_second: float, sleep: Sleep, patience_s: float = 60.0
    ) -> None:
        self._state = state
        self._interval_s = SPACING / requests_per_second
        self._sleep = sleep
        self._patience_s = patience_s
        self._queues: dict[str, asyncio.Lock] = {}
        self._turns: dict[str, float] = {}

    @asynccontextmanager
    async def leaving(self, seller_id: str, room: asyncio.Semaphore) -> AsyncIterator[None]:
        """A free connection of the pool and then a turn, in this order: the request inside must leave at once.

        A turn that was taken first would wait for the pool, and those of several sellers' requests leave in a burst or
        inside a pause that was asked for meanwhile. Raises as `turn` does.
        """
        await self.acquire(seller_id, room)
        try:
            yield
        finally:
            room.release()

    async def acquire(self, seller_id: str, room: asyncio.Semaphore | None = None) -> None:
        """Returns when a request for this seller may leave, and must then leave at once; holds `room` then.

        Raises:
            ThrottledError: FeedAMP asked for a longer pause than we wait in a task.
        """
        async with self._queues.setdefault(seller_id, asyncio.Lock()):
            while True:
                async with AsyncExitStack() as until_taken:
                    if room is not None:
                        await room.acquire()
                        until_taken.callback(room.release)
                    wait_s = self._take(seller_id)
                    if wait_s <= 0:
                        until_taken.pop_all()
                        return
                if wait_s > self._patience_s:
                    raise ThrottledError(
                        "FeedAMP asked for a pause for this seller.",
                        retry_after_s=wait_s,
                        seller_id=seller_id,
                    )
                await self._sleep(wait_s)

    def _take(self, seller_id: str) -> float:
        with self._state.begin(alone=False) as connection:
            wait_s = request_slots.take(
                connection, seller_id, now=self._state.now(), interval_s=self._interval_s
            )
        if wait_s <= 0:
            self._turns[seller_id] = self._state.now().timestamp()
        return wait_s

    def left(self, seller_id: str) -> None:
        """Says that the request has gone out; if that was long after its turn, the next turn moves by as much."""
        late_s = self._state.now().timestamp() - self._turns.get(seller_id, 0.0)
        if late_s > LATE:
            self.pause(seller_id, self._interval_s)

    def pause(self, seller_id: str, seconds: float) -> None:
        """Obeys Retry-After in all processes."""
        with self._state.begin(alone=False) as connection:
            request_slots.postpone(connection, seller_id, now=self._state.now(), seconds=seconds)
