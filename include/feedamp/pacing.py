"""Keeps every process within the allowed rate of a seller: a slot in the state database for each request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from feedamp.errors import ThrottledError
from feedamp.state import State, slots

Sleep = Callable[[float], Awaitable[None]]
# Requests leave evenly spaced, but reach FeedAMP with the network's jitter: a little air keeps them apart.
SPACING = 1.04


class Pacer:
    """Hands out slots; waits for them at most `patience_s`, beyond that the work waits for a later run."""

    def __init__(
        self, state: State, *, requests_per_second: float, sleep: Sleep, patience_s: float = 60.0
    ) -> None:
        self._state = state
        self._interval_s = SPACING / requests_per_second
        self._sleep = sleep
        self._patience_s = patience_s

    async def turn(self, seller_id: str) -> None:
        """Returns when a request for this seller may leave.

        Raises:
            ThrottledError: FeedAMP asked for a longer pause than we wait in a task.
        """
        with self._state.begin() as connection:
            now = self._state.now()
            ahead_s = slots.wait_s(connection, seller_id, now=now)
            if ahead_s > self._patience_s:
                raise ThrottledError(
                    "FeedAMP asked for a pause for this seller.", retry_after_s=ahead_s, seller_id=seller_id
                )
            wait_s = slots.reserve(connection, seller_id, now=now, interval_s=self._interval_s)
        if wait_s > 0:
            await self._sleep(wait_s)

    def pause(self, seller_id: str, seconds: float) -> None:
        """Obeys Retry-After in all processes."""
        with self._state.begin() as connection:
            slots.postpone(connection, seller_id, now=self._state.now(), seconds=seconds)
