"""PUT /orders/{n}: places an order, or changes its marketplace_state (contract 3.3, 7.1, 7.4)."""

from typing import Any

from feedamp_sandbox.orders import CLOSED_STATES, StoredOrder
from feedamp_sandbox.shapes import ORDER, RULE_OF, Check, Problem
from feedamp_sandbox.views import order_view
from feedamp_sandbox.wire import Call, Json, Refusal, Reply, decoded
from feedamp_sandbox.world import World

LEGAL = {
    "PENDING": ("AWAITING_SHIPMENT", "CANCELLED"),
    "AWAITING_SHIPMENT": ("SHIPPED", "CANCELLED"),
    "SHIPPED": (),
    "CANCELLED": (),
}


def put_order(world: World, call: Call, seller_id: str, number: str) -> Reply:
    """Stores a new order, or the new state of a known one. Safe to repeat: the same body changes nothing.

    Raises: Refusal 400.
    """
    body = checked_body(world, call, ORDER)
    if body["mp_order_number"] != number:
        world.rules.note("bad_field", f"{call.where}: mp_order_number is not the path's")
        raise Refusal(400, ("FIELD_INVALID_VALUE", "mp_order_number differs from the path"))
    lines = [line["mp_line_number"] for line in body["order_lines"]]
    if len(set(lines)) != len(lines):
        world.rules.note("bad_field", f"{call.where}: order_lines repeat an mp_line_number")
        raise Refusal(400, ("FIELD_INVALID_VALUE", "mp_line_number appears twice"))
    order = world.orders.find(seller_id, number)
    if order is None:
        if body["marketplace_state"] not in ("PENDING", "AWAITING_SHIPMENT"):
            refuse(world, call, "illegal_first_state", "a new order is PENDING or AWAITING_SHIPMENT")
        order = world.orders.add(seller_id, body, world.clock())
    else:
        update(world, call, order, body)
    status = world.options.put_status
    return Reply(status, None if status == 204 else order_view(order, world.options))


def update(world: World, call: Call, order: StoredOrder, body: Json) -> None:
    """Changes the state of a known order if the rest of the body is unchanged and the transition is legal."""
    changed = [
        n for n in {**order.body, **body} if n != "marketplace_state" and order.body.get(n) != body.get(n)
    ]
    if changed:
        world.rules.note("body_changed", f"{call.where}: {', '.join(changed)}")
        raise Refusal(400, ("FIELD_INVALID_VALUE", f"{', '.join(changed)} cannot be updated"))
    before, after = order.marketplace_state, body["marketplace_state"]
    if after == before:
        return
    if after not in LEGAL[before]:
        if before in CLOSED_STATES:
            rule = "closed_twice" if after in CLOSED_STATES else "backward_transition"
        else:
            rule = "backward_transition" if after == "PENDING" else "illegal_transition"
        refuse(world, call, rule, f"{before} to {after}")
    for rule in wrong_close(order, after):
        world.rules.note(rule, f"{call.where}: {after}")
    order.remember(world.clock())
    order.marketplace_state = after


def wrong_close(order: StoredOrder, state: str) -> list[str]:
    """The rules that closing as `state` breaks. The closing is accepted anyway: nothing says that FeedAMP refuses it.

    CANCELLED is always legal before anything is shipped, because the customer may cancel (7.1). SHIPPED is always legal
    for an order that the marketplace ships itself.
    """
    if state not in CLOSED_STATES or (state == "SHIPPED" and order.is_marketplace_fulfilled):
        return []
    nothing_unordered = set(order.ordered) >= {entry["mp_line_number"] for entry in order.fulfillments}
    units_add_up = nothing_unordered and all(quantity == 0 for quantity in order.pending().values())
    broken = []
    if state == "CANCELLED" and order.units_shipped:
        broken.append("closed_as_the_wrong_state")
    if state == "SHIPPED" and not units_add_up:
        broken.append("closed_too_early")
    elif state == "SHIPPED" and not order.units_shipped:
        broken.append("closed_as_the_wrong_state")
    if order.errors and (state == "SHIPPED" or units_add_up):
        broken.append("closed_with_open_error")
    return broken


def checked_body(world: World, call: Call, shape: Check) -> Any:
    """The JSON body, if it has the shape; raises Refusal 400 with every problem."""
    content_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        world.rules.note("bad_body", f"{call.where}: {content_type or 'no content type'}")
        raise Refusal(400, ("INVALID_PAYLOAD", "send application/json"))
    try:
        body = decoded(call.body)
    except Refusal:
        world.rules.note("bad_body", f"{call.where}: not JSON")
        raise
    optional = world.options.optional_fields
    problems = [
        p for p in shape("", body) if not (p.code == "MISSING_REQUIRED_FIELD" and p.field in optional)
    ]
    if problems:
        for problem in problems:
            note(world, call, problem)
        raise Refusal(400, *((code, f"{field or 'body'}: {code}") for code, field in problems[:50]))
    return body


def note(world: World, call: Call, problem: Problem) -> None:
    rule = RULE_OF[problem.code] if problem.field else "bad_body"
    world.rules.note(rule, f"{call.where}: {problem.field or problem.code}")


def refuse(world: World, call: Call, rule: str, message: str) -> None:
    """Counts the broken rule and refuses the call; raises Refusal 400, always."""
    world.rules.note(rule, f"{call.where}: {message}")
    raise Refusal(400, ("FIELD_INVALID_VALUE", f"marketplace_state: {message}"))
