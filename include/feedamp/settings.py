"""The `[feedamp]` options that steps use."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from feedamp.order_body import BodyRules


@dataclass(frozen=True)
class Settings:
    """The `[feedamp]` options that steps use; defaults as in docs/configuration.md."""

    inbox_url: str
    inbox_settle_s: float = 10.0
    body: BodyRules = field(default_factory=BodyRules)
    max_rejected_ratio: float = 0.05
    max_unread_ratio: float = 0.05
    sellers_per_task: int = 50
    shard_time: timedelta = timedelta(minutes=60)
    page_size: int = 50
    overlap: timedelta = timedelta(minutes=10)
    error_codes: Mapping[str, str | None] = field(default_factory=dict)
    error_clear: timedelta = timedelta(days=3)
    # By seller; "": every seller.
    untracked_services: Mapping[str, frozenset[str]] = field(default_factory=dict)
    stale_after: timedelta = timedelta(days=7)
    reconcile_rate_share: float = 0.5
    closed_body_kept: timedelta | None = None  # None: forever
    read_only: bool = False
    stale_watermark: timedelta = timedelta(hours=24)

    def untracked_for(self, seller_id: str) -> frozenset[str]:
        """Carriers and services of a seller for which a missing tracking number is no fault."""
        return self.untracked_services.get(seller_id, self.untracked_services.get("", frozenset()))
