"""What simulated sellers do with an order; depends only on the seed, the order number and its lines."""

import copy
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from feedamp_sandbox.options import Behaviors, SandboxOptions
from feedamp_sandbox.orders import StoredOrder
from feedamp_sandbox.tracking import Parcel, parcel
from feedamp_sandbox.wire import Json

REASONS = ("out_of_stock", "customer_cancelled", "unable_to_ship", "price_error", "other")


@dataclass(frozen=True, slots=True)
class Move:
    """What a seller adds in one round: units by line, shipped in one parcel or (parcel None) cancelled for `reason`."""

    units: dict[str, int]
    parcel: Parcel | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a seller will do with an order: acknowledge it in round `starts`, then make one move per round."""

    behavior: str
    starts: int
    moves: tuple[Move, ...]


def plan(options: SandboxOptions, order: StoredOrder) -> Plan:
    """The plan for an order; always the same for the same seed, number and lines."""
    return make_plan(options.seed, options.behaviors, order.number, tuple(order.ordered.items()))


@lru_cache(maxsize=100_000)
def make_plan(seed: int, behaviors: Behaviors, number: str, lines: tuple[tuple[str, int], ...]) -> Plan:
    """The plan for an order of these lines and units."""
    rng = random.Random(f"{seed}:{number}")
    names, weights = zip(*behaviors, strict=True)
    behavior = rng.choices(names, weights)[0]
    starts = rng.randint(1, 2)
    units = dict(lines)
    if behavior == "never":
        return Plan(behavior, starts, ())
    if behavior == "cancel_all":
        return Plan(behavior, starts, (Move(units, reason=rng.choice(REASONS)),))
    moves: list[Move] = []
    total = sum(units.values())
    if behavior == "cancel_some" and total > 1:
        shuffled = dict(rng.sample(lines, len(lines)))
        cancelled, units = split(shuffled, rng.randint(1, total - 1))
        moves.append(Move(cancelled, reason=rng.choice(REASONS)))
    parts = min(sum(units.values()), rng.randint(2, 3)) if behavior == "ship_in_parts" else 1
    for still_to_send in range(parts, 0, -1):
        shipped, units = split(units, sum(units.values()) // still_to_send)
        moves.append(Move(shipped, parcel(rng, mistyped=behavior == "mistype")))
    return Plan(behavior, starts, tuple(moves))


def split(units: dict[str, int], count: int) -> tuple[dict[str, int], dict[str, int]]:
    """The first `count` units by line, and the rest."""
    taken: dict[str, int] = {}
    rest: dict[str, int] = {}
    for line, quantity in units.items():
        first = min(quantity, count)
        count -= first
        if first:
            taken[line] = first
        if quantity > first:
            rest[line] = quantity - first
    return taken, rest


def act(options: SandboxOptions, order: StoredOrder, now: datetime) -> None:
    """Plays one round of the seller on one order: corrects reported errors, else acknowledges, else makes a move."""
    if order.by_hand or order.marketplace_state != "AWAITING_SHIPMENT" or order.is_marketplace_fulfilled:
        return
    purchased_at = datetime.fromisoformat(order.body["purchase_date"])
    if purchased_at.date() > now.astimezone(UTC).date():
        return  # nothing can be shipped before it was purchased
    planned = plan(options, order)
    if planned.behavior == "never":
        return
    if order.errors:
        corrected = correct(order, planned)
        if corrected != order.fulfillments:
            order.write_fulfillments(corrected, now)
        return
    order.rounds += 1
    if order.rounds < planned.starts:
        return
    if not order.acknowledged:
        order.updated_by_seller(now)
    elif order.moves_done < len(planned.moves):
        move = planned.moves[order.moves_done]
        shipped_on = min(
            purchased_at.date() + timedelta(days=1 + order.moves_done), now.astimezone(UTC).date()
        )
        order.write_fulfillments(applied(order, move, shipped_on.isoformat()), now)
        order.moves_done += 1


def applied(order: StoredOrder, move: Move, shipped_date: str) -> list[Json]:
    """The snapshot with the move added."""
    entries = copy.deepcopy(order.fulfillments)
    written = {entry["mp_line_number"]: entry for entry in entries}
    for line, quantity in move.units.items():
        entry = written.get(line)
        if entry is None:
            entry = {"mp_line_number": line, "shipments": [], "cancellations": []}
            entries.append(entry)
        if move.parcel is None:
            entry["cancellations"].append({"quantity": quantity, "reason": move.reason})
        else:
            number = move.parcel.typed_tracking_number
            entry["shipments"].append(
                {
                    "quantity": quantity,
                    "carrier": move.parcel.typed_carrier,
                    "tracking_number": number,
                    "shipped_date": shipped_date,
                    "tracking_url": f"https://track.example/{number}",
                }
            )
    return entries


def correct(order: StoredOrder, planned: Plan) -> list[Json]:
    """The snapshot with all mistyped parcels corrected on the lines that open errors name, or on all lines."""
    named = {error.get("mp_line_number") for error in order.errors}
    parcels = {
        (move.parcel.typed_carrier, move.parcel.typed_tracking_number): move.parcel
        for move in planned.moves
        if move.parcel
    }
    entries = copy.deepcopy(order.fulfillments)
    for entry in entries:
        for shipment in entry["shipments"] if named & {entry["mp_line_number"], None} else ():
            known = parcels.get((shipment.get("carrier"), shipment.get("tracking_number")))
            if known:
                shipment["carrier"], shipment["tracking_number"] = known.carrier, known.tracking_number
                shipment["tracking_url"] = f"https://track.example/{known.tracking_number}"
    return entries


def mistyped_lines(options: SandboxOptions, order: StoredOrder) -> set[str]:
    """The lines with a mistyped parcel that is not corrected."""
    mistyped = {
        (move.parcel.typed_carrier, move.parcel.typed_tracking_number)
        for move in plan(options, order).moves
        if move.parcel and move.parcel.mistyped
    }
    return {
        entry["mp_line_number"]
        for entry in order.fulfillments
        for shipment in entry.get("shipments") or ()
        if (shipment.get("carrier"), shipment.get("tracking_number")) in mistyped
    }
