"""How large a soak is, how long it takes, and how fast its schedules are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Engine = Literal["duckdb", "postgres"]
ENGINES: tuple[Engine, ...] = ("duckdb", "postgres")
ARRIVING_SHARE = 0.7
"""Orders arrive during the first part of the time."""

LONGEST_PERIOD_S = 60.0
ROUNDS_IN_A_SHORT_SOAK = 30
UNREGISTERED = "seller-unregistered"
RETRIES = 2  # as the DAGs have


@dataclass(frozen=True)
class Settings:
    """One soak. `is_fast` is for tests: the clock jumps where code waits, and no rate is limited.

    `min_period_s`: how often the DAGs start at most. `settle_s`: how long everything may take to come to rest after
    the traffic has stopped.
    """

    folder: Path
    minutes: float = 90.0
    sellers: int = 60
    orders: int = 20_000
    seed: int = 1
    engine: Engine = "duckdb"
    is_fast: bool = False
    has_trouble: bool = True
    min_period_s: float = 3.0

    @property
    def seconds(self) -> float:
        """How long orders arrive and sellers and DAGs work undisturbed by the end."""
        return self.minutes * 60

    @property
    def period_s(self) -> float:
        """Seconds between two scheduled runs of a DAG: a minute, less in a short soak."""
        return min(LONGEST_PERIOD_S, max(self.min_period_s, self.seconds / ROUNDS_IN_A_SHORT_SOAK))

    @property
    def retry_delay_s(self) -> float:
        """As the DAGs have, in proportion to the period."""
        return self.period_s

    @property
    def sellers_per_task(self) -> int:
        """The default of the option; less for few sellers, so that there are two shards."""
        return 50 if self.sellers > 50 else max(1, math.ceil(self.sellers / 2))

    @property
    def settle_s(self) -> float:
        """At least twice what the allowed rate makes of four requests an order, and never less than 15 minutes."""
        if self.is_fast:
            return 120.0
        return max(900.0, 4 * self.orders / self.sellers)
