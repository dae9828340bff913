"""Control requests below `/_sandbox/`, outside the API: read the sandbox's state, move sellers, set faults."""

from collections import Counter
from collections.abc import Callable
from urllib.parse import parse_qsl

import msgspec

from feedamp_sandbox.faults import Fault
from feedamp_sandbox.rules import RULES
from feedamp_sandbox.views import full_view
from feedamp_sandbox.wire import Json, Refusal, Reply
from feedamp_sandbox.world import World

PREFIX = "/_sandbox/"
Query = dict[str, str]


def answer(world: World, method: str, path: str, query: str, body: bytes) -> Reply:
    """The answer to one control request; 404 for an unknown one."""
    endpoint = ENDPOINTS.get((method, path.removeprefix(PREFIX)))
    if endpoint is None:
        return Refusal(404, ("NOT_FOUND", "control requests: report, orders, act, faults")).reply()
    try:
        return endpoint(world, dict(parse_qsl(query)), body)
    except msgspec.DecodeError as error:
        return Refusal(400, ("INVALID_PAYLOAD", str(error))).reply()


def report(world: World, _query: Query, _body: bytes) -> Reply:
    """GET report: orders by status, broken rules, requests by method and status."""
    statuses: Counter[str] = Counter()
    for seller_id in world.orders.seller_ids:
        with world.lock:
            statuses.update(order.status for order in world.orders.of(seller_id))
    with world.lock:
        requests = Counter(f"{logged.method} {logged.status}" for logged in world.requests)
        figures = {
            "sellers": len(world.sellers),
            "orders": dict(sorted(statuses.items())),
            "requests": {"total": world.requests_seen, **dict(sorted(requests.items()))},
            "broken_rules": [
                {"rule": rule, "count": count, "example": example, "right": RULES[rule]}
                for rule, count, example in world.rules.listed()
            ],
        }
    return Reply(200, figures)


def orders(world: World, query: Query, _body: bytes) -> Reply:
    """GET orders: all orders of the sandbox, by seller and number; `?seller_id=` for one seller."""
    wanted = query.get("seller_id")
    found: dict[str, Json] = {}
    for seller_id in world.orders.seller_ids:
        if wanted in (None, seller_id):
            with world.lock:
                found[seller_id] = {order.number: full_view(order) for order in world.orders.of(seller_id)}
    return Reply(200, found)


def act(world: World, query: Query, _body: bytes) -> Reply:
    """POST act: lets all sellers work for one round, or for `?rounds=`."""
    rounds = query.get("rounds", "1")
    if not (rounds.isascii() and rounds.isdigit() and int(rounds) <= 1000):
        return Refusal(400, ("INVALID_QUERY_PARAM", "rounds is a whole number up to 1000")).reply()
    world.act(int(rounds))
    return Reply(200, {"rounds": int(rounds)})


def add_fault(world: World, _query: Query, body: bytes) -> Reply:
    """POST faults: adds one fault; the fields are those of `Fault`, only `kind` is required."""
    fault = msgspec.json.decode(body, type=Fault)
    with world.lock:
        world.faults.add(fault)
    return Reply(200, msgspec.to_builtins(fault))


def clear_faults(world: World, _query: Query, _body: bytes) -> Reply:
    """DELETE faults: removes all faults."""
    with world.lock:
        world.faults.clear()
    return Reply(200, {})


ENDPOINTS: dict[tuple[str, str], Callable[[World, Query, bytes], Reply]] = {
    ("GET", "report"): report,
    ("GET", "orders"): orders,
    ("POST", "act"): act,
    ("POST", "faults"): add_fault,
    ("DELETE", "faults"): clear_faults,
}
