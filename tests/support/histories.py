"""Lives of orders as manifests tell them: snapshots, placements, closures and findings, with their moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hypothesis import strategies as st
from manifests import at, closure, finding, order, placed, placement, snapshot

from feedamp.codec import encode
from feedamp.models import Customer, Order
from feedamp.tables import Rows

NUMBERS = ("M-1", "M-2")
STATES = ("PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED")


@dataclass(frozen=True)
class Event:
    """Something that became true of one order at an hour; `shown` is the order a snapshot was made of."""

    hour: float
    number: str
    rows: Rows
    shown: Order | None = None

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For Hypothesis: what tells one event from another, in a line."""
        snapshot = self.shown and encode(self.shown.snapshot()).decode()
        decided = {t: rows for t, rows in self.rows.items() if t in ("placements", "closures", "findings")}
        printer.text(f"<{self.hour} {self.number} {snapshot} {decided}>")

    @property
    def read_at(self) -> datetime:
        return at(self.hour)


def _of(number: str, rows: Rows) -> Rows:
    return {
        table: [
            row
            | {"mp_order_number": number}
            | ({"finding_id": f"{number}-{row['finding_id']}"} if table == "findings" else {})
            for row in table_rows
        ]
        for table, table_rows in rows.items()
    }


@st.composite
def shown_orders(draw: st.DrawFn, number: str, names: tuple[str, ...]) -> Order:
    """What FeedAMP may show of an order of three units."""
    shipped = draw(st.lists(st.integers(0, 4), max_size=3))
    changes: dict[str, Any] = {
        "mp_order_number": number,
        "marketplace_state": draw(st.sampled_from((None, *STATES))),
        "status": draw(st.sampled_from((None, "ORDERED", "IN_PROGRESS", "COMPLETE"))),
        "customer": Customer(full_name=draw(st.sampled_from(names))),
    }
    if draw(st.booleans()):
        changes["fulfillments"] = ()
    return order(*shipped, cancelled=draw(st.integers(0, 2)), **changes)


@st.composite
def snapshots(
    draw: st.DrawFn,
    hours: st.SearchStrategy[float],
    numbers: tuple[str, ...] = NUMBERS,
    names: tuple[str, ...] = ("Robin Vale", "Kim Vale"),
) -> Event:
    number = draw(st.sampled_from(numbers))
    hour, shown = draw(hours), draw(shown_orders(number, names))
    return Event(hour, number, snapshot(shown, hour), shown)


@st.composite
def decisions(draw: st.DrawFn, hours: st.SearchStrategy[float]) -> Event:
    """A row of the outbox: a placement, a closure or a finding; two processes may write the same one twice."""
    hour, number = draw(hours), draw(st.sampled_from(NUMBERS))
    rows = draw(
        st.one_of(
            st.sampled_from(STATES).map(lambda state: placement(hour, state)),
            st.sampled_from(STATES[2:]).map(lambda state: closure(hour, state)),
            st.sampled_from(("to_report", "reported", "resolved")).map(lambda state: finding(hour, state)),
        )
    )
    return Event(hour, number, _of(number, rows))


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events in the order they happened in, each at a moment of its own; a placed order's first row is its PUT."""
    count = draw(st.integers(2, 6))
    events = [
        draw(st.one_of(snapshots(st.just(float(hour))), decisions(st.just(float(hour)))))
        for hour in range(1, count + 1)
    ]
    first = [
        Event(0.25 * i, n, _of(n, placed(0.25 * i))) for i, n in enumerate(NUMBERS) if draw(st.booleans())
    ]
    return [*first, *events]
