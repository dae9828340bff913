"""What a seller may write as the fulfillments of an order: something right, something wrong, or nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from env import BAD_NUMBER, GOOD_NUMBER
from hypothesis import strategies as st

Entry = dict[str, Any]
# Days far off are warnings: no one is told, nothing waits.
DAYS = st.sampled_from(["2026-03-09", "2026-03-09", "2026-03-09", "2026-02-01", "2031-01-01", None])
SHIPMENTS = st.fixed_dictionaries(
    {
        "quantity": st.sampled_from([1, 1, 2, 2, 3, 5, 0, -1, 1.5, None]),
        "carrier": st.sampled_from(["UPS", "UPS", "UPS", "Pony Express", None]),
        "tracking_number": st.sampled_from([GOOD_NUMBER, GOOD_NUMBER, BAD_NUMBER, None]),
        "shipped_date": DAYS,
    }
).filter(lambda s: s["carrier"] == "UPS" or s["tracking_number"] != BAD_NUMBER)
CANCELLATIONS = st.fixed_dictionaries(
    {"quantity": st.sampled_from([1, 1, 2, 3, 0, -2]), "reason": st.just("out_of_stock")}
)


RIGHT, MISTYPED, TOO_MANY, ANYTHING, NOTHING = "right", "mistyped", "too many", "anything", "nothing"
KINDS = (RIGHT, RIGHT, MISTYPED, TOO_MANY, ANYTHING, ANYTHING, NOTHING)


@st.composite
def settled(draw: st.DrawFn, line: Mapping[str, Any], number: str) -> Entry:
    """Every unit of the line is shipped or cancelled."""
    shipped = draw(st.integers(0 if number == GOOD_NUMBER else 1, line["quantity"]), label="shipped")
    parcel = {"quantity": shipped, "carrier": "UPS", "tracking_number": number, "shipped_date": draw(DAYS)}
    left = {"quantity": line["quantity"] - shipped, "reason": "out_of_stock"}
    return {
        "mp_line_number": line["mp_line_number"],
        "shipments": [parcel] if shipped else [],
        "cancellations": [left] if left["quantity"] else [],
    }


@st.composite
def moves(draw: st.DrawFn, order: Mapping[str, Any], kind: str = "") -> list[Entry]:
    """The whole snapshot again; of any kind if none is named."""
    kind = kind or draw(st.sampled_from(KINDS))
    if kind == NOTHING:
        return []
    if kind != ANYTHING:
        number, more = BAD_NUMBER if kind == MISTYPED else GOOD_NUMBER, kind == TOO_MANY
        lines = [{**line, "quantity": line["quantity"] + more} for line in order["order_lines"]]
        return [draw(settled(line, number)) for line in lines]
    names = [line["mp_line_number"] for line in order["order_lines"]]
    names += draw(st.sampled_from([[], [], [], ["never-ordered"]]))
    return [
        {
            "mp_line_number": name,
            "shipments": draw(st.lists(SHIPMENTS, max_size=2)),
            "cancellations": draw(st.lists(CANCELLATIONS, max_size=1)),
        }
        for name in draw(st.lists(st.sampled_from(names), unique=True))
    ]
