"""Faults on request: which requests are affected, how often, for how long, and how.

Every kind can be requested while the sandbox runs: for one, some or all requests, with a probability, for a period of
time, and for a method, a path or a seller. Use `Sandbox.fault(…)` in a test and `POST /_sandbox/faults` otherwise. An
outage of five minutes is `{"kind": "error_503", "times": null, "lasts_s": 300}`.
"""

import random
import re
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from feedamp_sandbox.wire import Call

InsteadKind = Literal[
    "throttle",
    "throttle_until",
    "throttle_bare",
    "error_403",
    "error_500",
    "error_502",
    "error_503",
    "echo_400",
    "echo_401",
    "echo_500",
    "refuse_token",
    "expire_cursor",
    "reset_before",
]
"""The request has no effect: 429 with seconds, with an HTTP date, or with neither; 403 and 5xx as HTML; 400, 401 and 500 that
repeat the request with its credential and body, as careless servers do; 401 for a live token; 400 for a live cursor;
a reset connection."""

LostKind = Literal["reset_after", "lost_refresh", "cut_body", "slow_drip", "broken_json", "html"]
"""The request takes effect, but its answer is lost or damaged: connection reset; the same for a token call; cut in the
middle; spread over `seconds`; 200 with half a JSON text; 200 with a page of HTML."""

ContentKind = Literal[
    "repeat_cursor", "empty_page", "null_orders", "misshapen_order", "numbers_as_strings", "unknown_values"
]
"""A well-formed answer with wrong content: the cursor that was sent, once more; no orders but a new cursor;
`"orders": null`; one order of another shape; every number as a string; unknown fields and enum values."""

MovingKind = Literal["move_up", "move_down", "shift_pages", "change_after_read"]
"""Orders change while the pages of GET /orders are read:
- `move_up`: an order of a later page is updated by its seller and moves to the front, as in a list sorted newest first.
- `move_down`: an order that was read is updated and moves to the end, where it appears again.
- `shift_pages`: the same where a cursor is an offset, so that the first order of the next page moves, unchanged, onto
  the page before and does not appear.
- `change_after_read`: an order is updated right after the page that shows it."""

TimeKind = Literal["index_lag", "clock_apart"]
"""A correct answer for another point in time. `index_lag`: lists show and filter the orders as they were `seconds` ago,
while single orders are up to date. `clock_apart`: the Date header and the times that filters compare come from a clock
that is `seconds` ahead (negative: behind)."""

Kind = InsteadKind | LostKind | ContentKind | MovingKind | TimeKind

INSTEAD_KINDS, LOST_KINDS, CONTENT_KINDS = get_args(InsteadKind), get_args(LostKind), get_args(ContentKind)
MOVING_KINDS, TIME_KINDS = get_args(MovingKind), get_args(TimeKind)
KINDS = (*INSTEAD_KINDS, *LOST_KINDS, *CONTENT_KINDS, *MOVING_KINDS, *TIME_KINDS)
LIST_KINDS = ("expire_cursor", "repeat_cursor", "empty_page", "null_orders", "index_lag", *MOVING_KINDS)
CURSOR_KINDS = ("expire_cursor", "repeat_cursor", "move_up", "move_down", "shift_pages")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong, and for which requests.

    `path`: a regular expression that is searched in the path below the base URL.
    `times`: how many requests are affected; None for no limit.
    `probability`: the chance that a matching request is affected.
    `lasts_s`: how long the fault is active after it was added, by the sandbox's clock; None for no limit.
    `seconds`: the wait of `throttle` and `throttle_until`, the duration of `slow_drip`, the offset of `index_lag` and
    `clock_apart`.
    """

    kind: Kind
    method: str | None = None
    path: str | None = None
    seller_id: str | None = None
    times: int | None = 1
    probability: float = 1.0
    lasts_s: float | None = None
    seconds: float = 1.0

    def matches(self, call: Call, seller_id: str | None) -> bool:
        """Whether the fault applies to this request, before its probability is considered."""
        if self.kind == "lost_refresh" and call.path != "/access_token":
            return False
        if self.kind in CONTENT_KINDS and (call.method != "GET" or not call.path.startswith("/orders")):
            return False
        if self.kind in LIST_KINDS and (call.method, call.path) != ("GET", "/orders"):
            return False
        if self.kind in CURSOR_KINDS and not dict(call.query).get("cursor"):
            return False
        return (
            self.method in (None, call.method)
            and self.seller_id in (None, seller_id)
            and (self.path is None or re.search(self.path, call.path) is not None)
        )


class Faults:
    """The active faults, in the order they were added. Not locked: the caller holds the sandbox's lock."""

    def __init__(self, seed: int, monotonic: Callable[[], float]) -> None:
        self._rng = random.Random(seed)
        self._monotonic = monotonic
        self._faults: list[Fault] = []
        self._left: list[float] = []
        self._until: list[float] = []

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)
        self._left.append(float("inf") if fault.times is None else fault.times)
        self._until.append(float("inf") if fault.lasts_s is None else self._monotonic() + fault.lasts_s)

    def clear(self) -> None:
        self._faults.clear()
        self._left.clear()
        self._until.clear()

    def take(self, call: Call, seller_id: str | None) -> Fault | None:
        """The first fault that affects this request; counts as one of its `times`."""
        for at, fault in enumerate(self._faults):
            if (
                self._left[at] > 0
                and self._monotonic() < self._until[at]
                and fault.matches(call, seller_id)
                and self._rng.random() < fault.probability
            ):
                self._left[at] -= 1
                return fault
        return None
