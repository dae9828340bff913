"""The fixed set: what comes into the inbox and what sellers do with it, round by round."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from order_samples import example_order, good_line

from feedamp_sandbox import Sandbox

A, B, C = "seller-001", "seller-002", "seller-003"
ROUNDS = 3
UPS = "1Z999AA10123456784"  # its check digit is right
MISTYPED = ("1Z999AA10123456785", "1Z999AA10123456786")
Lines = tuple[int, ...]


@dataclass(frozen=True)
class Story:
    """An order with so many units on each line, the states it comes in with, and its seller's moves, by round.

    A move gives each line's shipments as (units, tracking number) and the units cancelled; None leaves the order alone.
    """

    seller: str
    number: str
    lines: Lines
    moves: tuple[tuple[tuple[list[tuple[int, str | None]], int], ...] | None, ...]
    states: tuple[str | None, ...] = ("AWAITING_SHIPMENT",)


def _sent(
    *units: int, number: str | None = UPS, cancelled: int = 0
) -> tuple[list[tuple[int, str | None]], int]:
    return [(count, number) for count in units], cancelled


NOTHING = _sent()
WAITS = ("PENDING", "AWAITING_SHIPMENT")
STORIES = (
    Story(A, "ship-whole", (2,), ((_sent(2),),)),
    Story(A, "ship-in-parts", (2, 3), ((_sent(2), NOTHING), (_sent(2), _sent(1, 2)))),
    Story(A, "cancel-all", (2, 1), ((_sent(cancelled=2), _sent(cancelled=1)),)),
    Story(A, "mixed", (3,), ((_sent(2, cancelled=1),),)),
    Story(A, "mistyped", (2,), ((_sent(2, number=MISTYPED[0]),), (_sent(2),))),
    Story(B, "over-fulfilled", (2,), ((_sent(3),), (_sent(2),))),
    Story(B, "released-late", (1,), (None, None, (_sent(1),)), WAITS),
    Story(
        B, "two-faults", (1, 2), ((_sent(1, number=MISTYPED[0]), _sent(2, number=None)), (_sent(1), _sent(2)))
    ),
    Story(B, "never-touched", (1,), ()),
    Story(C, "cancelled-by-us", (1,), (), ("PENDING", "CANCELLED")),
    Story(C, "ship-whole", (1,), ((_sent(1),),)),  # the number of another seller's order
    Story(
        C,
        "mistyped-twice",
        (1,),
        ((_sent(1, number=MISTYPED[0]),), (_sent(1, number=MISTYPED[1]),), (_sent(1),)),
    ),
    Story(C, "late", (2,), (None, (_sent(1, cancelled=1),))),
    Story(C, "came-later", (1,), (None, None, (_sent(1),)), (None, "AWAITING_SHIPMENT")),
)
CLOSED_AS = {
    (A, "ship-whole"): "SHIPPED",
    (A, "ship-in-parts"): "SHIPPED",
    (A, "cancel-all"): "CANCELLED",
    (A, "mixed"): "SHIPPED",
    (A, "mistyped"): "SHIPPED",
    (B, "over-fulfilled"): "SHIPPED",
    (B, "released-late"): "SHIPPED",
    (B, "two-faults"): "SHIPPED",
    (C, "cancelled-by-us"): "CANCELLED",
    (C, "ship-whole"): "SHIPPED",
    (C, "mistyped-twice"): "SHIPPED",
    (C, "late"): "SHIPPED",
    (C, "came-later"): "SHIPPED",
}


def deliver(inbox: Path, round_number: int, *, modified_at: float) -> None:
    """Writes what the marketplace delivers in a round, including one bad row."""
    bodies = [
        (story.seller, _body(story, state))
        for story in STORIES
        if round_number < len(story.states) and (state := story.states[round_number])
    ]
    if round_number == 0:
        bodies.append(
            (A, {**_body(STORIES[0], "AWAITING_SHIPMENT"), "mp_order_number": "bad", "currency": "?"})
        )
    if not bodies:
        return
    inbox.mkdir(exist_ok=True)
    path = inbox / f"orders-{round_number}.jsonl"
    path.write_text(
        "".join(json.dumps({"seller_id": s, "order": body}, default=float) + "\n" for s, body in bodies)
    )
    os.utime(path, (modified_at, modified_at))


def act(sandbox: Sandbox, round_number: int) -> None:
    """Lets every seller write this round's snapshots."""
    for story in STORIES:
        move = story.moves[round_number] if round_number < len(story.moves) else None
        if move is not None:
            lines = [
                {
                    "mp_line_number": f"{story.number}-{at}",
                    "shipments": [_shipment(*sent) for sent in shipments],
                    "cancellations": [{"quantity": cancelled, "reason": "out_of_stock"}] if cancelled else [],
                }
                for at, (shipments, cancelled) in enumerate(move)
                if shipments or cancelled
            ]
            sandbox.set_fulfillments(story.seller, story.number, lines)


def _shipment(quantity: int, tracking_number: str | None) -> dict[str, Any]:
    return {
        "quantity": quantity,
        "carrier": "UPS",
        "tracking_number": tracking_number,
        "shipped_date": "2026-03-09",
    }


def _body(story: Story, marketplace_state: str) -> dict[str, Any]:
    lines = [
        good_line(mp_line_number=f"{story.number}-{at}", sku=f"SKU-{at}", quantity=units)
        for at, units in enumerate(story.lines)
    ]
    return example_order(story.number, order_lines=lines, marketplace_state=marketplace_state)
