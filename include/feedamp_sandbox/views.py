"""Orders as the API returns them (contract 3.2, 3.4)."""

from __future__ import annotations

from feedamp_sandbox.options import SandboxOptions
from feedamp_sandbox.orders import StoredOrder, by_line
from feedamp_sandbox.wire import Json


def order_view(order: StoredOrder, options: SandboxOptions) -> Json:
    """The Order of GET /orders and GET /orders/{n}, in the shape the options ask for."""
    view = full_view(order, sparse=options.sparse_fulfillments)
    if options.fulfillments_in_list == "absent":
        del view["fulfillments"]
    elif options.fulfillments_in_list == "flat":
        view["fulfillments"] = [item for entry in order.fulfillments for item in flat(entry)]
    if not options.show_errors:
        del view["errors"]
    return view


def full_view(order: StoredOrder, *, sparse: bool = False) -> Json:
    """The Order with all fields that the sandbox has."""
    touched = [line_view(order, n, sparse) for n in by_line(order.fulfillments)]
    return {
        **order.body,
        "marketplace_state": order.marketplace_state,
        "fulfillments": touched,
        "acknowledged": order.acknowledged,
        "status": order.status,
        "is_marketplace_fulfilled": order.is_marketplace_fulfilled,
        "errors": [dict(error) for error in order.errors],
    }


def fulfillments_view(order: StoredOrder, options: SandboxOptions) -> Json:
    """The answer of GET /orders/{n}/fulfillments: one entry per order line, and any line that was not ordered."""
    numbers = dict.fromkeys([*order.ordered, *by_line(order.fulfillments)])
    if order.all_units_in:
        status = "COMPLETE"
    else:
        status = "PARTIALLY_FULFILLED" if order.fulfillments else "PENDING"
    return {
        "status": status,
        "is_marketplace_fulfilled": order.is_marketplace_fulfilled,
        "fulfillments": [line_view(order, n, options.sparse_fulfillments) for n in numbers],
    }


def line_view(order: StoredOrder, mp_line_number: str, sparse: bool) -> Json:
    """One line's shipments and cancellations; `pending` is at least 0, and absent for a line that was not ordered."""
    entry = by_line(order.fulfillments).get(mp_line_number, {})
    shipments, cancellations = list(entry.get("shipments") or ()), list(entry.get("cancellations") or ())
    open_units = order.pending().get(mp_line_number)
    if open_units is None or open_units <= 0:
        status = "COMPLETE"
    else:
        status = "PARTIALLY_FULFILLED" if shipments or cancellations else "PENDING"
    view: Json = {**entry, "mp_line_number": mp_line_number, "shipments": shipments}
    view |= {"cancellations": cancellations, "status": status}
    if open_units is not None:
        view["pending"] = {"quantity": max(0, open_units)}
    if sparse:
        view.pop("pending", None)
        view = {name: value for name, value in view.items() if value != []}
    return view


def flat(entry: Json) -> list[Json]:
    """One item per shipment or cancellation, a shape that sister APIs use."""
    parts = [*(entry.get("shipments") or ()), *(entry.get("cancellations") or ())]
    return [{"mp_line_number": entry["mp_line_number"], **part} for part in parts]
