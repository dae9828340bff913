"""Changes answers as a fault demands (for the kinds see `faults`)."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from email.utils import format_datetime
from html import escape
from typing import Any

from feedamp_sandbox.cursors import Cursors
from feedamp_sandbox.faults import Fault
from feedamp_sandbox.wire import Call, Json, Refusal, Reply
from feedamp_sandbox.world import World

HTML = b"<!DOCTYPE html><html><head><title>%d</title></head><body><h1>Something went wrong</h1></body></html>"
HTML_TYPE = {"Content-Type": "text/html; charset=utf-8"}


def instead(fault: Fault, world: World, call: Call, seller_id: str | None) -> Reply:
    """The answer to a request that has no effect; `seller_id` is the seller that a wait applies to."""
    if fault.kind.startswith("echo_"):
        return echo(int(fault.kind.removeprefix("echo_")), call)
    if fault.kind.startswith("error_"):
        status = int(fault.kind.removeprefix("error_"))
        return Reply(status, headers=dict(HTML_TYPE), raw=HTML % status)
    if fault.kind == "refuse_token":
        return Refusal(401, ("invalid_token", "the access token is not accepted")).reply()
    if fault.kind == "expire_cursor":
        return Refusal(400, ("INVALID_QUERY_PARAM", "the cursor has expired")).reply()
    headers = {}
    if fault.kind == "throttle":
        headers["Retry-After"] = f"{max(1, round(fault.seconds))}"
    elif fault.kind == "throttle_until":
        until = world.clock() + timedelta(seconds=fault.seconds)
        headers["Retry-After"] = format_datetime(until, usegmt=True)
    if headers and seller_id is not None:
        # An HTTP date has whole seconds, so the client may come up to one second early.
        world.limiter.demand_wait(seller_id, fault.seconds - (fault.kind == "throttle_until"))
    return Refusal(429, ("TOO_MANY_REQUESTS", "slow down"), headers=headers).reply()


def echo(status: int, call: Call) -> Reply:
    """An answer that repeats the request: as a refusal in JSON, or in a page of HTML."""
    sent = f"{call.headers.get('authorization', 'no token')} sent {call.body.decode('utf-8', 'replace')}"
    if status < 500:
        code = "invalid_token" if status == 401 else "FIELD_INVALID_VALUE"
        return Refusal(status, (code, sent)).reply()
    page = HTML.replace(b"</h1>", b"</h1><pre>%s</pre>") % (status, escape(sent).encode())
    return Reply(status, headers=dict(HTML_TYPE), raw=page)


def spoiled(fault: Fault, world: World, call: Call, seller_id: str | None, reply: Reply) -> Reply:
    """The damaged answer to a request that took effect; refusals, and answers the fault does not fit, are unchanged."""
    if reply.status >= 400:
        return reply
    if fault.kind == "html":
        return Reply(200, headers=dict(HTML_TYPE), raw=HTML % 200)
    if fault.kind == "broken_json":
        body = reply.encoded() or b"{}"
        return Reply(200, headers=reply.headers, raw=body[: max(1, len(body) * 2 // 3)])
    if isinstance(reply.payload, dict):
        if "orders" in reply.payload and seller_id is not None:
            spoil_page(fault, world, call, seller_id, reply.payload)
        if fault.kind == "numbers_as_strings":
            reply.payload = changed(reply.payload, number_as_string)
        elif fault.kind in SPOIL_ORDER:
            orders = reply.payload.get("orders", [reply.payload]) or []
            for order in orders if fault.kind == "unknown_values" else orders[:1]:
                SPOIL_ORDER[fault.kind](order)
    return reply


def spoil_page(fault: Fault, world: World, call: Call, seller_id: str, payload: Json) -> None:
    """Puts wrong lists and cursors into a page; a cursor that comes without orders leads to the page it replaces."""
    sent = dict(call.query).get("cursor")
    if fault.kind == "repeat_cursor":
        payload["next_cursor"] = sent
    elif fault.kind == "null_orders":
        payload["orders"] = None
    elif fault.kind == "empty_page":
        cursors = Cursors(world.cursor_key, seller_id, call.query)
        payload["orders"], payload["next_cursor"] = [], cursors.again(sent)


def misshape(order: Json) -> None:
    """Puts values of impossible types into an order."""
    order["order_lines"], order["purchase_date"] = "none", {"day": 3}


def add_unknown(order: Json) -> None:
    """Adds fields and enum values that the contract does not have."""
    order["gift_wrap"] = {"paper": "red", "price": Decimal("1.25")}
    order["status"] = "AWAITING_PICKUP"
    for entry in order.get("fulfillments") or ():
        entry["warehouse"] = "north"


SPOIL_ORDER: dict[str, Callable[[Json], None]] = {"misshapen_order": misshape, "unknown_values": add_unknown}


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` applied to every leaf."""
    if isinstance(value, dict):
        return {name: changed(member, change) for name, member in value.items()}
    if isinstance(value, list):
        return [changed(member, change) for member in value]
    return change(value)


def number_as_string(value: Any) -> Any:
    """A number as a string; any other value unchanged."""
    return str(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else value
