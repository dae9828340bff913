"""The allowed request rate of each seller (Q5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from feedamp_sandbox.options import SandboxOptions
from feedamp_sandbox.rules import BrokenRules

UNDER_WAY_S = 0.5
"""A request that arrives this soon after a 429 was already in flight; the client could not know of the 429."""


@dataclass(slots=True)
class Bucket:
    """Requests that a seller may still send, and the wait that a 429 demanded; times in seconds, monotonic clock."""

    left: float
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
        now = self._monotonic()
        bucket = self._buckets.setdefault(seller_id, Bucket(self._burst, now))
        if bucket.throttled_at + UNDER_WAY_S < now < bucket.wait_until - 0.05:
            self._rules.note("retry_after_ignored", f"{where} for {seller_id}")
        bucket.left = min(self._burst, bucket.left + (now - bucket.filled_at) * self._rate)
        bucket.filled_at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return 0
        self._rules.note("rate_exceeded", f"{where} for {seller_id}")
        wait_s = max(1, math.ceil((1 - bucket.left) / self._rate))
        self.demand_wait(seller_id, wait_s)
        return wait_s

    def demand_wait(self, seller_id: str, wait_s: float) -> None:
        """Records that an answer told the seller's client to wait this long."""
        now = self._monotonic()
        bucket = self._buckets.setdefault(seller_id, Bucket(self._burst, now))
        bucket.throttled_at, bucket.wait_until = now, now + wait_s
