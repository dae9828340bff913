"""POST /orders/{n}/errors: reports errors in a shipment or cancellation (contract 3.5, 7.5, 7.6)."""

from feedamp_sandbox.placing import checked_body
from feedamp_sandbox.sellers import mistyped_lines
from feedamp_sandbox.shapes import error_list
from feedamp_sandbox.wire import Call, Refusal, Reply
from feedamp_sandbox.world import World


def post_errors(world: World, call: Call, seller_id: str, number: str) -> Reply:
    """Adds errors to lines, which stay until the seller changes the lines. A repeat adds the error again (Q28).

    Raises: Refusal 400 or 404.
    """
    order = world.orders.get(seller_id, number)
    reported = checked_body(world, call, error_list(world.options.error_codes))
    ordered = order.ordered
    for error in reported:
        line = error.get("mp_line_number")
        if line is not None and line not in ordered:
            world.rules.note("bad_field", f"{call.where}: mp_line_number was not ordered")
            raise Refusal(400, ("FIELD_INVALID_VALUE", "mp_line_number: no such line"))
    order.remember(world.clock())
    mistyped = mistyped_lines(world.options, order)
    listed = {(e.get("mp_line_number"), e["code"], e["message"]) for e in order.errors}
    for error in reported:
        line = error.get("mp_line_number")
        key = (line, error["code"], error["message"])
        if key in listed:
            world.rules.note("duplicate_error_report", f"{call.where}: line {line}")
        if order.closed:
            world.rules.note("error_on_closed_order", call.where)
        if not order.by_hand and not (mistyped if line is None else line in mistyped):
            world.rules.note("error_on_valid_shipment", f"{call.where}: line {line}")
        listed.add(key)
        order.errors.append(error)
    return Reply(200, {})
