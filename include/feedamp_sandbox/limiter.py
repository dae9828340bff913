"""The allowed request rate of each seller (Q5)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from feedamp_sandbox.options import SandboxOptions
from feedamp_sandbox.rules import BrokenRules

UNDER_WAY_S = 0.5
"""A request that arrives this soon after a 429 was already in flight; the client could not know of the 429."""


LATE_S = 2.0
"""A client on a busy machine sends requests that were due during this time all at once. They get 429, but the client has
not planned them too close together, so no rule counts as broken."""


@dataclass(slots=True)
class Bucket:
    """Requests that a seller may still send, and the wait that a 429 demanded; times in seconds, monotonic clock.

    `due`: how many a client that is up to `LATE_S` late may send now.
    """

    left: float
    due: float
    filled_at: float
    throttled_at: float = 0.0
    wait_until: float = 0.0


class Limiter:
    """A token bucket per seller. Not locked: the caller holds the sandbox's lock."""

    def __init__(self, options: SandboxOptions, monotonic: Callable[[], float], rules: BrokenRules) -> None:
        self._rate, self._burst = options.requests_per_second, max(1, options.burst)
        self._monotonic, self._rules = monotonic, rules
        self._buckets: dict[str, Bucket] = {}

    def wait_s(self, seller_id: str, where: str) -> int:
        """0 if the request is allowed, else the whole seconds to wait, at least 1."""
        now, bucket = self._monotonic(), self._bucket(seller_id)
        if bucket.throttled_at + UNDER_WAY_S < now < bucket.wait_until - 0.05:
            self._rules.note("retry_after_ignored", f"{where} for {seller_id}")
        came_due = (now - bucket.filled_at) * self._rate
        bucket.left = min(self._burst, bucket.left + came_due)
        bucket.due = min(self._burst + LATE_S * self._rate, bucket.due + came_due) - 1
        bucket.filled_at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return 0
        if bucket.due < 0:
            bucket.due = 0
            self._rules.note("rate_exceeded", f"{where} for {seller_id}")
        wait_s = max(1, math.ceil((1 - bucket.left) / self._rate))
        self.demand_wait(seller_id, wait_s)
        return wait_s

    def demand_wait(self, seller_id: str, wait_s: float) -> None:
        """Records that an answer told the seller's client to wait this long."""
        now, bucket = self._monotonic(), self._bucket(seller_id)
        bucket.throttled_at, bucket.wait_until = now, now + wait_s

    def _bucket(self, seller_id: str) -> Bucket:
        return self._buckets.setdefault(seller_id, Bucket(self._burst, self._burst, self._monotonic()))
