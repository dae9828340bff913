"""The whole state of one sandbox."""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from feedamp_sandbox import sellers
from feedamp_sandbox.faults import Faults
from feedamp_sandbox.limiter import Limiter
from feedamp_sandbox.oauth import Grants
from feedamp_sandbox.options import Clock, SandboxOptions, utc_now
from feedamp_sandbox.orders import Orders
from feedamp_sandbox.rules import BrokenRules

REQUESTS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One logged request: without headers and body, with secrets in the query masked."""

    at: datetime
    method: str
    path: str
    query: dict[str, str]
    status: int
    seller_id: str | None
    fault: str | None = None


class World:
    """The state behind the endpoints; hold `lock` to read or write more than one part of it consistently."""

    def __init__(
        self, options: SandboxOptions, clock: Clock = utc_now, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.lock = threading.RLock()
        self.options, self.clock, self.monotonic = options, clock, monotonic
        self.sellers = options.seller_list()
        self.rules = BrokenRules()
        self.grants = Grants(options, clock, self.rules)
        self.orders = Orders((seller.seller_id for seller in self.sellers), options.seed)
        self.limiter = Limiter(options, monotonic, self.rules)
        self.faults = Faults(options.seed, monotonic)
        self.requests: deque[LoggedRequest] = deque(maxlen=REQUESTS_KEPT)
        self.requests_seen = 0
        self.cursor_key = secrets.token_bytes(16)

    def act(self, rounds: int = 1) -> None:
        """Lets every simulated seller work for this many rounds."""
        for _ in range(rounds):
            for seller_id in self.orders.seller_ids:
                with self.lock:  # one seller at a time, so that requests need not wait for all sellers
                    now = self.clock()
                    for order in self.orders.of(seller_id):
                        sellers.act(self.options, order, now)

    def log(self, request: LoggedRequest) -> None:
        """Logs the request; beyond 100,000 the oldest ones are dropped."""
        with self.lock:
            self.requests.append(request)
            self.requests_seen += 1
