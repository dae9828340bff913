"""Which fault strikes which request of which step, and what it is called in docs/faults.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from feedamp_sandbox import Sandbox

ONCE, WHOLE_RUN = "once", "the whole run"
UNREACHABLE = "unreachable"
"""No kind of the sandbox's faults: it does not listen."""


@dataclass(frozen=True)
class Place:
    """A request that a fault can strike, and the stage of the work that sends it."""

    stage: str
    title: str
    method: str | None
    path: str | None = "^/orders"
    refresh_grace_s: float = 7200.0


PLACES = {
    "place": Place("place", "place: PUT of an order", "PUT"),
    "token": Place("extract", "any step: refresh of a token", "POST", "^/access_token"),
    "dead token": Place(
        "extract", "any step: refresh of a token", "POST", "^/access_token", refresh_grace_s=0.0
    ),
    "extract": Place("extract", "extract: pages of GET orders", "GET"),
    "report": Place("report", "validate: POST of errors", "POST"),
    "reread": Place("close", "close: GET of the orders to close", "GET"),
    "close": Place("close", "close: PUT of the final state", "PUT"),
    "reconcile": Place("reconcile", "reconcile: GET by number", "GET"),
}


@dataclass(frozen=True)
class Fault:
    """A kind of the sandbox, and its words.

    `late`: the run calls itself complete on what it was shown, which is not yet what FeedAMP holds.
    """

    words: str
    kind: Any
    seconds: float = 1.0
    late: bool = False


LONG_THROTTLE = Fault("429 with more seconds than a task waits", "throttle", 60)
ONCE_OR_LONGER = (
    Fault("429 with seconds", "throttle", 3),
    Fault("429 with a date", "throttle_until", 3),
    Fault("429 without a header", "throttle_bare"),
    Fault("503 with HTML", "error_503"),
    Fault("connection reset before the effect", "reset_before"),
    Fault("connection reset after the effect", "reset_after"),
    Fault("body cut off", "cut_body"),
    Fault("200 with broken JSON", "broken_json"),
    Fault("200 with HTML", "html"),
)
LONGER = (Fault("500 with HTML", "error_500"), Fault("502 with HTML", "error_502"))
LIVE_TOKEN = Fault("401 for a live token", "refuse_token")
SLOW = Fault("body in slow drips", "slow_drip", 0.05)
LOST_REFRESH = Fault("answer lost, the old token still works", "lost_refresh")
DEAD_REFRESH = Fault("answer lost, the old token is dead", "lost_refresh")
LAGS = {
    "extract": Fault("index 5 min behind", "index_lag", 300, late=True),
    "reread": Fault("index 30 s behind", "index_lag", 30, late=True),
    "reconcile": Fault("index 30 s behind", "index_lag", 30, late=True),
}
CONTENT = (
    Fault('`"orders": null`', "null_orders"),
    Fault("an order of the wrong shape among good ones", "misshapen_order"),
    Fault("numbers as strings", "numbers_as_strings"),
    Fault("unknown fields and enum values", "unknown_values", late=True),
    Fault("FeedAMP's clock 90 s ahead", "clock_apart", 90),
    Fault("FeedAMP's clock 90 s behind", "clock_apart", -90),
)
PAGES = (
    Fault("empty page with a next cursor", "empty_page"),
    Fault("cursor expired (400)", "expire_cursor"),
    Fault("cursor that repeats", "repeat_cursor"),
    Fault("an order is updated and moves to a page already read", "move_up", late=True),
    Fault("an order is updated and moves to the end", "move_down"),
    Fault("an order slips unchanged to a page already read", "shift_pages", late=True),
    Fault("an order is updated after its page was read", "change_after_read", late=True),
)
OUTAGE = Fault("503 to every call for 20 minutes", "error_503")
REFUSED = Fault("connections refused", UNREACHABLE)


@dataclass(frozen=True)
class Case:
    """One fault at one place. `times` None: every request of the run; `lasts_s`: and longer than the run."""

    place: str
    fault: Fault
    times: int | None = None
    lasts_s: float | None = None

    @property
    def stage(self) -> str:
        return PLACES[self.place].stage

    @property
    def strength(self) -> str:
        return "" if self.lasts_s else ONCE if self.times == 1 else WHOLE_RUN

    def __str__(self) -> str:
        return ", ".join(filter(None, (PLACES[self.place].title, self.fault.words, self.strength)))

    @contextmanager
    def strikes(self, sandbox: Sandbox, seller_id: str) -> Iterator[None]:
        """The fault in force for one seller's calls."""
        if self.fault.kind == UNREACHABLE:
            with sandbox.unreachable():
                yield
            return
        where = PLACES[self.place]
        sandbox.fault(
            self.fault.kind,
            method=None if self.lasts_s else where.method,
            path=None if self.lasts_s else where.path,
            seller_id=seller_id,
            times=self.times,
            lasts_s=self.lasts_s,
            seconds=self.fault.seconds,
        )
        yield
        if not self.lasts_s:
            sandbox.clear_faults()


def cases(place: str) -> Iterator[Case]:
    """Every case of one place. An index that lags comes first, while the changes are fresh; an outage last."""
    if place == "dead token":
        yield Case(place, DEAD_REFRESH, 1)
        return
    if PLACES[place].method == "GET":
        for fault in (LAGS[place], *CONTENT):
            yield Case(place, fault)
        yield Case(place, PAGES[0], 1)
    for fault in ONCE_OR_LONGER:
        if place in ("extract", "report", "close"):
            yield Case(place, fault, 1)
        yield Case(place, fault)
    yield Case(place, LONG_THROTTLE)
    if place in ("place", "extract", "report", "close"):
        for fault in (SLOW, *LONGER):
            yield Case(place, fault)
    if place == "token":
        yield Case(place, LOST_REFRESH, 1)
        return
    yield Case(place, LIVE_TOKEN, 1)
    yield Case(place, LIVE_TOKEN)
    if place == "extract":
        for fault in PAGES[1:]:
            yield Case(place, fault, 1)
        yield Case(place, PAGES[1])
    if place in ("place", "extract", "report"):
        yield Case(place, REFUSED)
        yield Case(place, OUTAGE, lasts_s=1200)


CASES = [case for place in PLACES for case in cases(place)]
