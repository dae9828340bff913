"""The allowed request rate of each seller (Q5)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from feedamp_sandbox.options import SandboxOptions
from feedamp_sandbox.rules import BrokenRules

UNDER_WAY_S = 0.5
"""A request that comes so soon after a 429 was under way already; the client could not know."""


@dataclass(slots=True)
class Bucket:
    """Requests a seller may still send, and the wait a 429 asked for; seconds of the monotonic clock."""

    left: float
    filled_at: float
    told_at: float = 0.0
    wait_until: float = 0.0


class Limiter:
    """A token bucket per seller. Not locked: the caller holds the sandbox's lock."""

    def __init__(self, options: SandboxOptions, monotonic: Callable[[], float], rules: BrokenRules) -> None:
        self._rate, self._burst = options.requests_per_second, max(1, options.burst)
        self._monotonic, self._rules = monotonic, rules
        self._buckets: dict[str, Bucket] = {}

    def wait_s(self, seller_id: str, where: str) -> int:
        """0 if the request may pass, else the whole seconds to wait, from 1 up."""
        now = self._monotonic()
        bucket = self._buckets.setdefault(seller_id, Bucket(self._burst, now))
        if bucket.told_at + UNDER_WAY_S < now < bucket.wait_until - 0.05:
            self._rules.note("retry_after_ignored", f"{where} for {seller_id}")
        bucket.left = min(self._burst, bucket.left + (now - bucket.filled_at) * self._rate)
        bucket.filled_at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return 0
        self._rules.note("rate_exceeded", f"{where} for {seller_id}")
        wait_s = max(1, math.ceil((1 - bucket.left) / self._rate))
        self.told_to_wait(seller_id, wait_s)
        return wait_s

    def told_to_wait(self, seller_id: str, wait_s: float) -> None:
        """Note that an answer asked the seller's client to wait so long."""
        now = self._monotonic()
        bucket = self._buckets.setdefault(seller_id, Bucket(self._burst, now))
        bucket.told_at, bucket.wait_until = now, now + wait_s
