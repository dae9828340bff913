"""Faults on request: which request is hit, how often, how long, and with what.

Every kind can be asked for while the sandbox runs, for one call, some or all of them, by chance, for a span of time,
and for a method, a path or a seller: `Sandbox.fault(…)` in a test, `POST /_sandbox/faults` from elsewhere. An outage of
five minutes is `{"kind": "error_503", "times": null, "lasts_s": 300}`.
"""

from __future__ import annotations

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
"""Nothing takes effect: 429 with seconds, with an HTTP date, bare; 5xx as HTML; 400, 401 and 500 that repeat the
request with its credential and its body, as careless servers do; 401 for a live token; 400 for a live cursor; the
connection is reset."""

LostKind = Literal["reset_after", "lost_refresh", "cut_body", "slow_drip", "broken_json", "html"]
"""The effect happens, the answer suffers: reset; the same for a token call; cut in the middle; `seconds` long;
200 with half a JSON text; 200 with a page of HTML."""

ContentKind = Literal[
    "repeat_cursor", "empty_page", "null_orders", "misshapen_order", "numbers_as_strings", "unknown_values"
]
"""A well-formed answer with the wrong content: the cursor that was sent comes back; no orders but a new cursor;
`"orders": null`; one order of another shape; every number as a string; fields and enum values no one knows."""

MovingKind = Literal["move_up", "move_down", "shift_pages", "change_after_read"]
"""Orders change while the pages of GET /orders are read: one still to come is updated by its seller and moves to the
front, as in a list with the newest first; one that was read is updated and moves to the end, where it comes again; the
same with an offset for a cursor, so that the first order of this page coercions unchanged onto the page before and is not
shown; one is updated right after the page that shows it."""

TimeKind = Literal["index_lag", "clock_apart"]
"""A right answer of another time: lists show and find what was so `seconds` ago, single orders are up to date; the Date
header and the times that filters compare are those of a clock `seconds` ahead (below zero: behind)."""

Kind = InsteadKind | LostKind | ContentKind | MovingKind | TimeKind

INSTEAD_KINDS, LOST_KINDS, CONTENT_KINDS = get_args(InsteadKind), get_args(LostKind), get_args(ContentKind)
MOVING_KINDS, TIME_KINDS = get_args(MovingKind), get_args(TimeKind)
KINDS = (*INSTEAD_KINDS, *LOST_KINDS, *CONTENT_KINDS, *MOVING_KINDS, *TIME_KINDS)
LIST_KINDS = ("expire_cursor", "repeat_cursor", "empty_page", "null_orders", "index_lag", *MOVING_KINDS)
CURSOR_KINDS = ("expire_cursor", "repeat_cursor", "move_up", "move_down", "shift_pages")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What goes wrong and where. `path` is a regular expression searched in the path below the base URL.

    `times`: how many requests are hit, None without end. `probability`: of each matching request.
    `lasts_s`: how long the fault is in force from when it was asked for, by the sandbox's clock, None without end.
    `seconds`: of `throttle` and `throttle_until` to wait, of `slow_drip` to take, of `index_lag` and `clock_apart` to
    be off.
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
        """Whether the fault is meant for this request, chance left aside."""
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
    """The faults in force, in the order they were asked for. Not locked: the caller holds the sandbox's lock."""

    def __init__(self, seed: int, monotonic: Callable[[], float]) -> None:
        self._rng = random.Random(seed)
        self._monotonic = monotonic
        self._faults: list[Fault] = []
        self._left: list[float] = []
        self._until: list[float] = []

    def add(self, fault: Fault) -> None:
        """Put a fault in force."""
        self._faults.append(fault)
        self._left.append(float("inf") if fault.times is None else fault.times)
        self._until.append(float("inf") if fault.lasts_s is None else self._monotonic() + fault.lasts_s)

    def clear(self) -> None:
        """Take all faults back."""
        self._faults.clear()
        self._left.clear()
        self._until.clear()

    def take(self, call: Call, seller_id: str | None) -> Fault | None:
        """The first fault that hits this request, used up once."""
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
