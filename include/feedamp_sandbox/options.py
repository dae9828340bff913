"""How a sandbox behaves: sellers, limits, token lifetimes, and switches for what the contract leaves open."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

Clock = Callable[[], datetime]
"""Returns the current time in UTC, with time zone."""

Behavior = Literal["ship_whole", "ship_in_parts", "cancel_some", "cancel_all", "mistype", "never"]
Behaviors = tuple[tuple[Behavior, int], ...]

DEFAULT_BEHAVIORS: Behaviors = (
    ("ship_whole", 45),
    ("ship_in_parts", 20),
    ("cancel_some", 10),
    ("cancel_all", 8),
    ("mistype", 12),
    ("never", 5),
)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Seller:
    """One seller account; without a refresh token it has not consented yet (see GET /authorize)."""

    seller_id: str
    name: str
    refresh_token: str = field(default="", repr=False)


def made_up_sellers(count: int, seed: int) -> tuple[Seller, ...]:
    """`count` sellers, the same for the same seed."""
    digests = (hashlib.sha256(f"{seed}:seller-{n:03d}".encode()).hexdigest() for n in range(1, count + 1))
    return tuple(
        Seller(f"seller-{n:03d}", f"Seller {n:03d}", f"rt-{digest[:32]}")
        for n, digest in enumerate(digests, start=1)
    )


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """All settings of a sandbox; the defaults are the contract's figures or the safest assumptions.

    `burst`: requests a seller may send without a pause before `requests_per_second` applies.
    `refresh_grace_s`: how long the refresh token before the newest still works (Q10).
    `revoke_on_reuse`: using a refresh token twice ends the whole grant, as some servers do (Q10).
    `keep_older_grants`: a new consent of a seller does not end the earlier grants.
    `optional_fields`: required fields of PUT that may be missing, dotted (which are required is inferred, 3.6).
    `last_cursor`: what the last page has as `next_cursor` (Q26). `show_errors`: whether orders have `errors` (Q12).
    `fulfillments_in_list`: shape of `fulfillments` in GET /orders and GET /orders/{n}, which is only inferred (3.2).
    `sparse_fulfillments`: leaves out empty lists and `pending` (Q15). `put_status`: the status of a PUT (Q7).
    `behaviors`: what simulated sellers do, with weights. `latency_s`: delay before every answer, in seconds.
    `pace_s`: simulated sellers act every so many seconds; 0: only when told to.
    """

    sellers: int | Sequence[Seller] = 3
    seed: int = 7
    client_id: str = "mkt-sandbox"
    client_secret: str = field(default="", repr=False)
    requests_per_second: float = 2.0
    burst: int = 2
    token_lifetime_s: int = 3600
    refresh_grace_s: float = 0.0
    revoke_on_reuse: bool = False
    keep_older_grants: bool = False
    pace_s: float = 0.0
    latency_s: float = 0.0
    page_default: int = 20
    max_order_numbers: int = 50
    last_cursor: Literal["null", "absent", "empty"] = "null"
    show_errors: bool = True
    fulfillments_in_list: Literal["contract", "absent", "flat"] = "contract"
    sparse_fulfillments: bool = False
    put_status: Literal[200, 201, 204] = 200
    optional_fields: tuple[str, ...] = ()
    error_codes: tuple[str, ...] = ("INVALID_TRACKING_NUMBER",)
    behaviors: Behaviors = DEFAULT_BEHAVIORS

    def seller_list(self) -> tuple[Seller, ...]:
        """The sellers, made up from the seed if only a number was given."""
        if isinstance(self.sellers, int):
            return made_up_sellers(self.sellers, self.seed)
        return tuple(self.sellers)
