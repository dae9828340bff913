"""Keeps every process within the allowed rate of a seller: a turn in the state database for each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from datetime import datetime
from functools import partial

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

    @asynccontextmanager
    async def leaving(self, seller_id: str, room: asyncio.Semaphore) -> AsyncIterator[Callable[[], None]]:
        """A free connection of the pool and then a turn, in this order: the request inside must leave at once.

        A turn that was taken first would wait for the pool, and those of several sellers' requests leave in a burst or
        inside a pause that was asked for meanwhile. What is yielded must be called when the request goes out. Until then no
        other request of this seller gets a turn here: a new connection can take longer than the time between two turns,
        and all requests that were waiting for theirs would leave together.

        Raises:
            ThrottledError: as `acquire`.
        """
        queue = self._queues.setdefault(seller_id, asyncio.Lock())
        with ExitStack() as until_answered, ExitStack() as until_left:
            await queue.acquire()
            until_left.callback(queue.release)
            await self._wait_for_turn(seller_id, room)
            until_answered.callback(room.release)
            yield partial(self._left, seller_id, self._state.now(), until_left)

    async def acquire(self, seller_id: str) -> None:
        """Returns when a request for this seller may leave, and must then leave at once.

        Raises:
            ThrottledError: FeedAMP asked for a longer pause than we wait in a task.
        """
        async with self._queues.setdefault(seller_id, asyncio.Lock()):
            await self._wait_for_turn(seller_id, None)

    async def _wait_for_turn(self, seller_id: str, room: asyncio.Semaphore | None) -> None:
        """Holds `room` when it returns, and not while it sleeps."""
        while True:
            with ExitStack() as until_taken:
                if room is not None:
                    await room.acquire()
                    until_taken.callback(room.release)
                wait_s = self._take(seller_id)
                if wait_s <= 0:
                    until_taken.pop_all()
                    return
            if wait_s > self._patience_s:
                raise ThrottledError(
                    "FeedAMP asked for a pause for this seller.", retry_after_s=wait_s, seller_id=seller_id
                )
            await self._sleep(wait_s)

    def _take(self, seller_id: str) -> float:
        with self._state.begin(alone=False) as connection:
            return request_slots.take(
                connection, seller_id, now=self._state.now(), interval_s=self._interval_s
            )

    def _left(self, seller_id: str, turn: datetime, until_left: ExitStack) -> None:
        """Lets the next request take its turn; moves that turn if this request left long after its own."""
        if (self._state.now() - turn).total_seconds() > LATE:
            self.pause(seller_id, self._interval_s)
        until_left.close()

    def pause(self, seller_id: str, seconds: float) -> None:
        """Obeys Retry-After in all processes."""
        with self._state.begin(alone=False) as connection:
            request_slots.postpone(connection, seller_id, now=self._state.now(), seconds=seconds)
