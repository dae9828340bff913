"""Orders as the API returns them (contract 3.2, 3.4)."""

from feedamp_sandbox.options import SandboxOptions
from feedamp_sandbox.orders import StoredOrder
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
    pending = order.pending()
    return {
        **order.body,
        "marketplace_state": order.marketplace_state,
        "fulfillments": [line_view(entry, pending, sparse) for entry in order.fulfillments],
        "acknowledged": order.acknowledged,
        "status": order.status,
        "is_marketplace_fulfilled": order.is_marketplace_fulfilled,
        "errors": [dict(error) for error in order.errors],
    }


def fulfillments_view(order: StoredOrder, options: SandboxOptions) -> Json:
    """The answer of GET /orders/{n}/fulfillments: an entry for each order line, and any line that was not ordered."""
    pending, touched = order.pending(), {entry["mp_line_number"] for entry in order.fulfillments}
    untouched = [{"mp_line_number": number} for number in order.ordered if number not in touched]
    if order.all_units_in:
        status = "COMPLETE"
    else:
        status = "PARTIALLY_FULFILLED" if order.fulfillments else "PENDING"
    return {
        "status": status,
        "is_marketplace_fulfilled": order.is_marketplace_fulfilled,
        "fulfillments": [
            line_view(entry, pending, options.sparse_fulfillments)
            for entry in [*order.fulfillments, *untouched]
        ],
    }


def line_view(entry: Json, pending: dict[str, int], sparse: bool) -> Json:
    """One entry's shipments and cancellations; `pending` is the line's, at least 0, and absent if it was not ordered."""
    shipments, cancellations = list(entry.get("shipments") or ()), list(entry.get("cancellations") or ())
    open_units = pending.get(entry["mp_line_number"])
    if open_units is None or open_units <= 0:
        status = "COMPLETE"
    else:
        status = "PARTIALLY_FULFILLED" if shipments or cancellations else "PENDING"
    view: Json = {**entry, "shipments": shipments, "cancellations": cancellations, "status": status}
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
