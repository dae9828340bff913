"""Levers and gauges outside the API, below `/_sandbox/`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

import msgspec

from feedamp_sandbox.faults import Fault
from feedamp_sandbox.rules import RULES
from feedamp_sandbox.views import full_view
from feedamp_sandbox.wire import (
    Json,
    Refusal,
    Reply,
)
from feedamp_sandbox.world import World

PREFIX = "/_sandbox/"


@dataclass(frozen=True, slots=True)
class Ask:
    """One pull at a lever."""

    world: World
    query: dict[str, str]
    body: bytes


def answer(world: World, method: str, path: str, query: str, body: bytes) -> Reply:
    """The answer of one lever; 404 for a lever that does not exist."""
    lever = LEVERS.get((method, path.removeprefix(PREFIX)))
    if lever is None:
        return Refusal(404, ("NOT_FOUND", "levers: report, orders, act, faults")).reply()
    try:
        return lever(Ask(world, {name: values[-1] for name, values in parse_qs(query).items()}, body))
    except msgspec.DecodeError as error:
        return Refusal(400, ("INVALID_PAYLOAD", str(error))).reply()


def report(ask: Ask) -> Reply:
    """GET report: orders by status, broken rules, requests by method and status."""
    return Reply(200, summary(ask.world))


def summary(world: World) -> Json:
    """The figures of the report."""
    statuses: Counter[str] = Counter()
    for seller_id in world.orders.seller_ids:
        with world.lock:
            statuses.update(order.status for order in world.orders.of(seller_id))
    with world.lock:
        requests = Counter(f"{request.method} {request.status}" for request in world.requests)
        return {
            "sellers": len(world.sellers),
            "orders": dict(sorted(statuses.items())),
            "requests": {"total": world.requests_seen, **dict(sorted(requests.items()))},
            "broken_rules": [
                {"rule": rule, "count": count, "example": example, "right": RULES[rule]}
                for rule, count, example in world.rules.listed()
            ],
        }


def orders(ask: Ask) -> Reply:
    """GET orders: what FeedAMP holds, by seller and number; `?seller_id=` for one seller."""
    world, wanted = ask.world, ask.query.get("seller_id")
    truth: dict[str, Json] = {}
    for seller_id in world.orders.seller_ids:
        if wanted in (None, seller_id):
            with world.lock:
                truth[seller_id] = {order.number: full_view(order) for order in world.orders.of(seller_id)}
    return Reply(200, truth)


def act(ask: Ask) -> Reply:
    """POST act: one round of all sellers, or `?rounds=`."""
    rounds = ask.query.get("rounds", "1")
    if not (rounds.isascii() and rounds.isdigit() and int(rounds) <= 1000):
        return Refusal(400, ("INVALID_QUERY_PARAM", "rounds is a whole number up to 1000")).reply()
    ask.world.act(int(rounds))
    return Reply(200, {"rounds": int(rounds)})


def add_fault(ask: Ask) -> Reply:
    """POST faults: put one fault in force; the fields are those of `Fault`, only `kind` is required."""
    fault = msgspec.json.decode(ask.body, type=Fault)
    with ask.world.lock:
        ask.world.faults.add(fault)
    return Reply(200, msgspec.to_builtins(fault))


def clear_faults(ask: Ask) -> Reply:
    """DELETE faults: take all back."""
    with ask.world.lock:
        ask.world.faults.clear()
    return Reply(200, {})


LEVERS: dict[tuple[str, str], Callable[[Ask], Reply]] = {
    ("GET", "report"): report,
    ("GET", "orders"): orders,
    ("POST", "act"): act,
    ("POST", "faults"): add_fault,
    ("DELETE", "faults"): clear_faults,
}
