"""The sandbox in a process of its own, with sellers who work at random, and a log of what it accepted.

The log is the judge: it knows every state it took, every report, and every cancellation that hit shipped units.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from crashes.clock import Clock
from crashes.forking import CONTEXT
from feedamp_sandbox import (
    Exchange,
    Sandbox,
    SandboxOptions,
    running,
)
from feedamp_sandbox.faults import LOST_KINDS
from feedamp_sandbox.options import utc_now
from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.sellers import act
from feedamp_sandbox.views import full_view

Key = tuple[str, str]
"""(seller_id, mp_order_number)."""

MARKETPLACE_FULFILLED_SHARE = 0.015
READ_JUST_BEFORE_S = 15.0
"""A cancellation follows its read by number within this time, or the read does not count."""

HEARD_OF_WITHIN_S = 1.5
"""So long a pause may take from FeedAMP's answer by way of the state to a process that is about to send."""

STALL_STEP_S, STALLS_COUNT_S = 0.05, 2.0
STALLED_S = 0.25
"""A sandbox that was held up for so long saw requests at once that were sent one after the other."""

BROKEN_KEPT, REQUESTS_SHOWN = 1_000, 6
MOST_MOVES = 8
PATIENCE_S = 120.0
_CANCELLED_OVER = "closed_as_the_wrong_state"


@dataclass(frozen=True)
class Accepted:
    """A state that FeedAMP took; `is_clear` when nothing happened to its answer."""

    marketplace_state: str
    at: datetime
    is_clear: bool


@dataclass(frozen=True)
class CancelledOverShipment:
    """A CANCELLED that was taken for an order with shipped units.

    `read_s_before`: how long before it the client last read the order by its number, None if never; `units_shown`: the
    shipped units it saw there.
    """

    mp_order_number: str
    read_s_before: float | None
    units_shown: int

    @property
    def could_not_be_known(self) -> bool:
        """The seller shipped between the read and the PUT that followed it at once."""
        return (
            self.units_shown == 0
            and self.read_s_before is not None
            and self.read_s_before <= READ_JUST_BEFORE_S
        )


@dataclass(frozen=True)
class Broken:
    """One time that a rule was broken. `requests_s_ago`: the seller's last requests, this one first, by their age.

    `stall_s`: the longest that the sandbox itself was held up in the two seconds before, by a busy machine.
    """

    rule: str
    example: str
    at: datetime
    seller_id: str | None
    requests_s_ago: tuple[tuple[float, str], ...]
    stall_s: float

    @property
    def was_under_way(self) -> bool:
        """Whether another process sent the request before it could learn of the 429 from the state."""
        return self.rule == "retry_after_ignored" and any(
            age_s <= HEARD_OF_WITHIN_S and request.endswith(" 429") for age_s, request in self.requests_s_ago
        )

    @property
    def was_measured_late(self) -> bool:
        """A rate that no one can tell: requests waited in the sandbox's own queue, because the machine was too busy."""
        return self.rule == "rate_exceeded" and self.stall_s >= STALLED_S


@dataclass
class SandboxLog:
    """What the sandbox took, by order number (numbers are unique over all sellers)."""

    requests: Counter[str] = field(default_factory=Counter)
    accepted: dict[str, list[Accepted]] = field(default_factory=dict)
    reports: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    over_shipments: list[CancelledOverShipment] = field(default_factory=list)
    broken_rules: list[tuple[str, int, str]] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)


def is_marketplace_fulfilled(seed: int, number: str) -> bool:
    """Whether the marketplace ships this order itself; the same for everyone who asks."""
    return random.Random(f"fulfilled/{seed}/{number}").random() < MARKETPLACE_FULFILLED_SHARE


class Watch:
    """Sees every exchange on the sandbox's side, and keeps the log."""

    def __init__(self, seed: int, now: Callable[[], datetime]) -> None:
        self.log = SandboxLog()
        self._seed, self._now = seed, now
        self._sandbox: Sandbox | None = None
        self._shown: dict[str, tuple[datetime, int]] = {}
        self._stalls: deque[tuple[float, float]] = deque(maxlen=200)
        self._minding: asyncio.Task[None] | None = None
        self._broken_so_far = 0

    def look_at(self, sandbox: Sandbox) -> None:
        """The sandbox whose observer this is."""
        self._sandbox = sandbox

    def __call__(self, exchange: Exchange) -> None:
        if self._minding is None:
            self._minding = asyncio.create_task(self._mind_stalls())
        self._note_broken()
        path = urlsplit(exchange.url).path.partition("/api/v1")[2]
        number, _, rest = path.removeprefix("/orders/").partition("/") if "/orders/" in path else ("", "", "")
        kind = path if not number else f"/orders/{{n}}{'/' if rest else ''}{rest}"
        self.log.requests[f"{exchange.method} {kind} {exchange.fault or exchange.status}"] += 1
        if exchange.status >= 300:
            return
        number = unquote(number)
        is_by_number = bool(number) or "mp_order_numbers=" in exchange.url
        if exchange.method == "GET" and is_by_number and exchange.fault not in LOST_KINDS:
            self._remember_shown(exchange)
        elif exchange.method == "PUT":
            self._take_put(number, exchange)
        elif exchange.method == "POST" and rest == "errors":
            for error in msgspec.json.decode(exchange.request_body):
                line = str(error.get("mp_line_number"))
                self.log.reports[number, line, error["code"], error["message"]] += 1

    async def _mind_stalls(self) -> None:
        while True:
            wanted = time.monotonic() + STALL_STEP_S
            await asyncio.sleep(STALL_STEP_S)
            self._stalls.append((time.monotonic(), time.monotonic() - wanted))

    def _note_broken(self) -> None:
        if self._sandbox is None or len(self.log.broken) >= BROKEN_KEPT:
            return
        world = self._sandbox.world
        with world.lock:
            new = world.rules.total - self._broken_so_far
            self._broken_so_far += new
            noted = list(world.rules.newest)[-new:] if new else []
        if not noted:
            return
        seller_id, now = world.requests[-1].seller_id, world.requests[-1].at
        own = (request for request in reversed(world.requests) if request.seller_id == seller_id)
        ages = tuple(
            (
                round((now - request.at).total_seconds(), 3),
                f"{request.method} {request.path} {request.status}",
            )
            for request in islice(own, REQUESTS_SHOWN)
        )
        since = time.monotonic() - STALLS_COUNT_S
        stall_s = max((late for at, late in self._stalls if at > since), default=0.0)
        self.log.broken += [Broken(*one, now, seller_id, ages, round(stall_s, 3)) for one in noted]

    def _remember_shown(self, exchange: Exchange) -> None:
        try:
            body = msgspec.json.decode(exchange.response_body)
        except msgspec.DecodeError:
            return
        now = self._now()
        for order in body.get("orders", [body]) or ():
            if "mp_order_number" in order:
                self._shown[order["mp_order_number"]] = now, _shipped(order)

    def _take_put(self, number: str, exchange: Exchange) -> None:
        state = msgspec.json.decode(exchange.request_body)["marketplace_state"]
        taken = self.log.accepted.setdefault(number, [])
        if taken and taken[-1].marketplace_state == state:
            return  # a repeat changes nothing
        taken.append(Accepted(state, self._now(), exchange.fault is None))
        if self._sandbox is None:
            return
        world = self._sandbox.world
        seller_id = str(world.requests[-1].seller_id)
        if len(taken) == 1 and is_marketplace_fulfilled(self._seed, number):
            self._sandbox.set_marketplace_fulfilled(seller_id, number)
        with world.lock:
            has_hit = (_CANCELLED_OVER, f"PUT /orders/{number}: CANCELLED") in world.rules.newest
        if state == "CANCELLED" and has_hit:
            shown = self._shown.get(number)
            before_s = (taken[-1].at - shown[0]).total_seconds() if shown else None
            self.log.over_shipments.append(CancelledOverShipment(number, before_s, shown[1] if shown else 0))


def _shipped(order: dict[str, Any]) -> int:
    shipments = (s for entry in order.get("fulfillments") or () for s in entry.get("shipments") or ())
    return sum(s["quantity"] for s in shipments if isinstance(s.get("quantity"), int) and s["quantity"] > 0)


class Levers:
    """What the soak can do to the sandbox; runs in the sandbox's process."""

    def __init__(self, sandbox: Sandbox, watch: Watch, seed: int) -> None:
        self._sandbox, self._watch = sandbox, watch
        self._draw = random.Random(f"sellers/{seed}")
        self._held: set[str] = set()
        self._hurry = threading.Lock()

    def act(self, share: float) -> None:
        """Lets sellers work on a share of their orders, each chosen by chance."""
        world = self._sandbox.world
        for seller_id in world.orders.seller_ids:
            with world.lock:  # a seller at a time, so that requests need not wait for all of them
                now = world.clock()
                for order in world.orders.of(seller_id):
                    if not order.closed and order.number not in self._held and self._draw.random() < share:
                        act(world.options, order, now)

    def hold(self, number: str) -> None:
        """Makes the seller leave an order alone until `ship`."""
        with self._hurry:
            self._held = self._held | {number}

    def ship(self, number: str) -> bool:
        """Has the seller ship an order now, as far as that seller ever would; True if it has shipped units then."""
        world = self._sandbox.world
        with self._hurry:
            self._held = self._held - {number}
        with world.lock:
            order = self._find(number)
            for _ in range(MOST_MOVES if order else 0):
                if order and not order.units_shipped:
                    act(world.options, order, world.clock())
            return bool(order and order.units_shipped)

    def is_placed(self, number: str) -> bool:
        """Whether FeedAMP has the order."""
        with self._sandbox.world.lock:
            return self._find(number) is not None

    def _find(self, number: str) -> StoredOrder | None:
        orders = self._sandbox.world.orders
        found = (orders.find(seller_id, number) for seller_id in orders.seller_ids)
        return next((order for order in found if order), None)

    def release_all(self) -> None:
        """Holds no order back any more."""
        with self._hurry:
            self._held = set()

    def fault(self, fault: dict[str, Any]) -> None:
        """Puts a fault in force, as `POST /_sandbox/faults` does."""
        self._sandbox.fault(**fault)

    def clear_faults(self) -> None:
        """Takes all faults back."""
        self._sandbox.clear_faults()

    def expire_tokens(self, seller_id: str | None) -> None:
        """Access tokens of a seller, or of all, run out now."""
        self._sandbox.expire_access_tokens(seller_id)

    def figures(self) -> dict[str, Any]:
        """Counts for a line of progress, and a mark that is the same while no order changes."""
        world = self._sandbox.world
        states: Counter[str] = Counter()
        mark = 0
        for seller_id in world.orders.seller_ids:
            with world.lock:
                for order in world.orders.of(seller_id):
                    states[order.marketplace_state] += 1
                    what = order.number, order.marketplace_state, order.seller_updated_at, len(order.errors)
                    mark ^= hash(what)
        log = self._watch.log
        with world.lock:
            broken = sum(rule.times for rule in world.rules.listed())
        return {
            "states": dict(states),
            "mark": mark,
            "requests": log.requests.total(),
            "broken_rules": broken,
            "over_shipments": sum(not one.could_not_be_known for one in log.over_shipments),
            "slipped": sum(one.could_not_be_known for one in log.over_shipments),
            "reported_twice": sum(times > 1 for times in log.reports.values()),
        }

    def truth(self) -> tuple[dict[Key, dict[str, Any]], SandboxLog]:
        """Every order of every seller as FeedAMP holds it, with `seller_updated_at`, and the log."""
        world, held = self._sandbox.world, {}
        for seller_id in world.orders.seller_ids:
            with world.lock:
                for order in world.orders.of(seller_id):
                    view = {**full_view(order), "seller_updated_at": order.seller_updated_at}
                    held[seller_id, order.number] = view
        log = self._watch.log
        log.broken_rules = [tuple(rule) for rule in self._sandbox.broken_rules]
        return held, log


class SandboxProcess:
    """The handle in this process; every method of `Levers` by its name, from any thread."""

    def __init__(self, pipe: Connection, hello: dict[str, Any]) -> None:
        self.api, self.client_id, self.client_secret = hello["api"], hello["id"], hello["secret"]
        self.sellers: dict[str, str] = hello["sellers"]
        self._pipe, self._lock = pipe, threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not hasattr(Levers, name):
            raise AttributeError(name)

        def pull(*arguments: Any) -> Any:
            with self._lock:
                self._pipe.send((name, arguments))
                if not self._pipe.poll(PATIENCE_S):
                    raise RuntimeError(f"the sandbox did not answer to {name}")
                failure, value = self._pipe.recv()
            if failure:
                raise RuntimeError(f"the sandbox failed at {name}: {failure}")
            return value

        return pull


@contextmanager
def sandbox_process(
    options: SandboxOptions, *, seed: int, clock: Clock | None, act_every_s: float, share: float
) -> Iterator[SandboxProcess]:
    """A sandbox whose sellers work on a share of their orders every so often; gone at the end of the block."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(
        target=_serve, args=(options, seed, clock, act_every_s, share, theirs), daemon=True
    )
    process.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE_S):
            raise RuntimeError("the sandbox did not start")
        yield SandboxProcess(ours, ours.recv())
    finally:
        ours.close()  # ends its loop
        process.join(10)
        process.kill()
        process.join()


def _serve(
    options: SandboxOptions,
    seed: int,
    clock: Clock | None,
    act_every_s: float,
    share: float,
    pipe: Connection,
) -> None:
    """The process."""
    watch = Watch(seed, clock.now if clock else utc_now)
    times: dict[str, Any] = {"clock": clock.now, "monotonic": clock.elapsed_s} if clock else {}
    with running(options, observer=watch, **times) as sandbox:
        watch.look_at(sandbox)
        levers = Levers(sandbox, watch, seed)
        tokens = {seller["seller_id"]: seller["refresh_token"] for seller in sandbox.sellers}
        pipe.send(
            {
                "api": sandbox.api,
                "id": sandbox.client_id,
                "secret": sandbox.client_secret,
                "sellers": tokens,
            }
        )
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(act_every_s):
                levers.act(share)

        sellers = threading.Thread(target=work, daemon=True)
        sellers.start()
        try:
            while True:
                name, arguments = pipe.recv()
                try:
                    pipe.send((None, getattr(levers, name)(*arguments)))
                except Exception as error:  # noqa: BLE001  raised again where the lever was pulled
                    pipe.send((f"{type(error).__name__}: {error}", None))
        except EOFError:
            pass
        finally:
            stop.set()
            sellers.join(10)
