"""The order ledger: what was delivered, what FeedAMP accepted, what is still to be done.

Phases: `to_place` (a PUT is due), `settled` (accepted = desired), `held` (a conflict for a person), `refused`
(FeedAMP answered 400; waits for new input), `never_placed` (cancelled before our first PUT), `closed`.

`next_try_at`: when `place` may try again; where nothing is to be sent, from when on the order is to be read back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.json_fields import decode_json
from feedamp.models import MarketplaceState
from feedamp.rules.stored_body import WHOLE
from feedamp.rules.units import LineUnits
from feedamp.state.schema import orders, snapshots
from feedamp.state.upsert import upsert

_NOTHING_TO_SEND = ("settled", "closed", "held")
# How often an order that FeedAMP does not have is read again.
LOOKS_FOR_MISSING = timedelta(days=1)
_BODY = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True)
class LedgerOrder:
    """One order of ours: placed, or adopted from FeedAMP.

    `body` is the PUT body without `marketplace_state` and holds customer fields; where `body_kind` is not `WHOLE` it
    is only what is known of it, `body_hash` is that of the whole one (empty if none was ever delivered).
    `placed_at` is when FeedAMP first accepted it from us, of an adopted order `adopted_at`.
    `closed_units` is what the newest snapshot of a closed order shows, as line -> (shipped, cancelled); None where it
    is unknown.
    """

    seller_id: str
    mp_order_number: str
    phase: str
    body: dict[str, Any] = field(repr=False)
    body_hash: str
    desired_state: str
    accepted_state: str | None
    delivered: tuple[str, ...]
    purchase_date: datetime
    source: str
    source_row: int
    row_hash: str
    taken_at: datetime
    reason: str | None = None
    conflicting_state: str | None = None
    next_try_at: datetime | None = None
    attempts: int = 0
    first_put_at: datetime | None = None
    placed_at: datetime | None = None
    closing_state: str | None = None
    closing_at: datetime | None = None
    closed_at: datetime | None = None
    body_kind: str = WHOLE
    adopted_at: datetime | None = None
    ended_at: datetime | None = None
    missing_since: datetime | None = None
    closed_units: Mapping[str, tuple[int, int]] | None = None
    closed_units_shipped: int | None = None
    closed_units_at: datetime | None = None
    acknowledged_shipped: int | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    acknowledge_reason: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """(seller_id, mp_order_number)."""
        return self.seller_id, self.mp_order_number

    @property
    def ordered(self) -> dict[str, int]:
        """Units ordered by line: from the placed body, or as FeedAMP shows them if it was adopted without one."""
        return {line["mp_line_number"]: int(line["quantity"]) for line in self.body["order_lines"]}

    @property
    def has_body(self) -> bool:
        """The body is there as it was delivered, so that it can be sent."""
        return self.body_kind == WHOLE

    @property
    def shipped_though_cancelled(self) -> int:
        """Units that the seller shipped of an order that we closed as CANCELLED, acknowledged or not."""
        # How another system ended an order before it was adopted is its own affair.
        is_ours = self.closed_at is not None or self.adopted_at is None
        is_cancelled = self.phase == "closed" and self.accepted_state == MarketplaceState.CANCELLED
        return (self.closed_units_shipped or 0) if is_ours and is_cancelled else 0

    def is_missing(self, now: datetime) -> bool:
        """FeedAMP does not have it, and it is not yet time to look for it again."""
        if self.missing_since is None:
            return False
        return self.phase == "to_place" or self.next_try_at is None or self.next_try_at > now

    def put_body(self, marketplace_state: str) -> dict[str, Any]:
        """The first accepted body with only the state replaced (contract 7.4).

        Raises:
            ValueError: there is no whole body; one that is made up must never be sent.
        """
        if not self.has_body:
            raise ValueError(f"order {self.mp_order_number} has no body that could be sent")
        return {**self.body, "marketplace_state": str(marketplace_state)}

    def but(self, **changes: Any) -> LedgerOrder:
        """The same order with some fields changed."""
        return replace(self, **changes)


def read(connection: Connection, seller_id: str, mp_order_number: str) -> LedgerOrder | None:
    """One order of the ledger."""
    query = sa.select(orders).where(
        orders.c.seller_id == seller_id, orders.c.mp_order_number == mp_order_number
    )
    row = connection.execute(query).first()
    return None if row is None else _order(row)


def read_many(connection: Connection, seller_id: str, numbers: Iterable[str]) -> dict[str, LedgerOrder]:
    """Orders of one seller by number; unknown numbers are left out."""
    found: dict[str, LedgerOrder] = {}
    wanted = list(dict.fromkeys(numbers))
    for start in range(0, len(wanted), 500):
        query = sa.select(orders).where(
            orders.c.seller_id == seller_id, orders.c.mp_order_number.in_(wanted[start : start + 500])
        )
        found.update((row.mp_order_number, _order(row)) for row in connection.execute(query))
    return found


def write(connection: Connection, order: LedgerOrder) -> None:
    """Stores an order as it is. Safe to repeat."""
    upsert(
        connection,
        orders,
        [
            {
                **{name: getattr(order, name) for name in order.__dataclass_fields__},
                "body": encode_body(order.body),
                "delivered": msgspec.json.encode(order.delivered).decode(),
                "closed_units": None if order.closed_units is None else _encode_units(order.closed_units),
            }
        ],
    )


def encode_body(body: Mapping[str, Any]) -> str:
    """A body as the ledger stores it, its decimals exact."""
    return _BODY.encode(body).decode()


def due(connection: Connection, seller_ids: Sequence[str], *, now: datetime) -> dict[str, list[str]]:
    """Numbers to PUT now by seller, oldest purchase first, sellers without any left out."""
    query = (
        sa.select(orders.c.seller_id, orders.c.mp_order_number)
        .where(
            orders.c.phase == "to_place",
            sa.or_(orders.c.next_try_at.is_(None), orders.c.next_try_at <= now),
        )
        .order_by(orders.c.purchase_date, orders.c.mp_order_number)
    )
    wanted = set(seller_ids)
    numbers: dict[str, list[str]] = {}
    for row in connection.execute(query):
        if row.seller_id in wanted:
            numbers.setdefault(row.seller_id, []).append(row.mp_order_number)
    return numbers


def not_due(connection: Connection, seller_ids: Sequence[str], *, now: datetime) -> dict[str, datetime]:
    """When the next order that waits for its next try is due, by seller."""
    query = (
        sa.select(orders.c.seller_id, sa.func.min(orders.c.next_try_at).label("next_try_at"))
        .where(orders.c.phase == "to_place", orders.c.next_try_at > now)
        .group_by(orders.c.seller_id)
    )
    wanted = set(seller_ids)
    return {row.seller_id: row.next_try_at for row in connection.execute(query) if row.seller_id in wanted}


def waiting_sellers(connection: Connection) -> list[str]:
    """Sellers with orders still to be placed."""
    query = sa.select(orders.c.seller_id).where(orders.c.phase == "to_place").distinct()
    return sorted(connection.execute(query).scalars())


def explain_waiting(connection: Connection, seller_id: str, *, reason: str, next_try_at: datetime) -> int:
    """Writes why all waiting orders of a seller wait, and until when; returns how many there are."""
    changed = connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.phase == "to_place",
            # An order's own, longer pause stays, so that others go first.
            sa.or_(orders.c.next_try_at.is_(None), orders.c.next_try_at < next_try_at),
        )
        .values(reason=reason, next_try_at=next_try_at)
    )
    return changed.rowcount


def note_put(connection: Connection, order: LedgerOrder, *, now: datetime) -> None:
    """The intent: from now on a PUT may have reached FeedAMP."""
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == order.seller_id,
            orders.c.mp_order_number == order.mp_order_number,
            orders.c.first_put_at.is_(None),
        )
        .values(first_put_at=now)
    )


def change(connection: Connection, order: LedgerOrder, **values: Any) -> None:
    """Changes columns of one order."""
    connection.execute(
        sa.update(orders)
        .where(orders.c.seller_id == order.seller_id, orders.c.mp_order_number == order.mp_order_number)
        .values(**values)
    )


def keep_closed_units(
    connection: Connection,
    seller_id: str,
    mp_order_number: str,
    units: Mapping[str, LineUnits],
    *,
    read_at: datetime,
) -> None:
    """Writes the units that a snapshot of a closed order shows, unless a newer one was there. Safe to repeat."""
    by_line = {line: (of_line.shipped, of_line.cancelled) for line, of_line in units.items()}
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.mp_order_number == mp_order_number,
            sa.or_(orders.c.closed_units_at.is_(None), orders.c.closed_units_at <= read_at),
        )
        .values(
            closed_units=_encode_units(by_line),
            closed_units_shipped=sum(shipped for shipped, _ in by_line.values()),
            closed_units_at=read_at,
        )
    )


def mark_missing(connection: Connection, seller_id: str, mp_order_number: str, *, asked_at: datetime) -> None:
    """FeedAMP has answered that it does not have an order that it accepted before (404 to a GET of this order alone).

    From then on it counts as missing and is looked for once in `LOOKS_FOR_MISSING`, until FeedAMP shows it or accepts
    it again. One that FeedAMP never accepted is left as it is, and so is one that it has accepted or shown since it was
    asked. Safe to repeat.
    """
    shown_since = sa.exists().where(
        snapshots.c.seller_id == orders.c.seller_id,
        snapshots.c.mp_order_number == orders.c.mp_order_number,
        snapshots.c.read_at > asked_at,
    )
    accepted_since = sa.and_(
        orders.c.phase.in_(_NOTHING_TO_SEND),
        orders.c.missing_since.is_(None),
        orders.c.next_try_at > asked_at,
    )
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.mp_order_number == mp_order_number,
            orders.c.placed_at <= asked_at,
            sa.func.coalesce(orders.c.closed_at <= asked_at, sa.true()),
            sa.func.coalesce(orders.c.closed_units_at <= asked_at, sa.true()),
            ~shown_since,
            ~sa.func.coalesce(accepted_since, sa.false()),
        )
        .values(
            missing_since=sa.func.coalesce(
                orders.c.missing_since, sa.literal(asked_at, orders.c.missing_since.type)
            ),
            next_try_at=sa.case(
                (
                    orders.c.phase.in_(_NOTHING_TO_SEND),
                    sa.literal(asked_at + LOOKS_FOR_MISSING, orders.c.next_try_at.type),
                ),
                else_=orders.c.next_try_at,
            ),
        )
    )


def found_again(connection: Connection, seller_id: str, mp_order_number: str) -> None:
    """FeedAMP has shown an order that was missing. Safe to repeat."""
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.mp_order_number == mp_order_number,
            orders.c.missing_since.is_not(None),
        )
        .values(
            missing_since=None,
            next_try_at=sa.case((orders.c.phase.in_(_NOTHING_TO_SEND), None), else_=orders.c.next_try_at),
        )
    )


def closed_since(
    connection: Connection, seller_id: str, numbers: Iterable[str], moment: datetime
) -> dict[str, datetime]:
    """When FeedAMP took the final state from us, by number, of those orders where that was at a moment or later."""
    query = sa.select(orders.c.mp_order_number, orders.c.closed_at).where(
        orders.c.seller_id == seller_id,
        orders.c.mp_order_number.in_(list(numbers)),
        orders.c.phase == "closed",
        orders.c.closed_at >= moment,
    )
    return {row.mp_order_number: row.closed_at for row in connection.execute(query)}


def read_back_later(connection: Connection, seller_id: str, mp_order_number: str, *, now: datetime) -> None:
    """Has the next extraction read an order by number, for which nothing is to be sent. Safe to repeat."""
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.mp_order_number == mp_order_number,
            orders.c.phase.in_(_NOTHING_TO_SEND),
        )
        .values(next_try_at=now)
    )


def to_read_back(connection: Connection, seller_id: str, *, now: datetime | None = None) -> list[str]:
    """Numbers of orders that are to be read by number: we have changed their state and no one has shown them to the
    warehouse since, or FeedAMP did not have them. With `now` only those whose time has come.
    """
    is_due = sa.true() if now is None else orders.c.next_try_at <= now
    query = (
        sa.select(orders.c.mp_order_number)
        .where(
            orders.c.phase.in_(_NOTHING_TO_SEND),
            orders.c.next_try_at.is_not(None),
            is_due,
            orders.c.seller_id == seller_id,
        )
        .order_by(orders.c.mp_order_number)
    )
    return list(connection.execute(query).scalars())


def was_read(connection: Connection, seller_id: str, mp_order_number: str, *, read_at: datetime) -> None:
    """FeedAMP has shown the order at a moment: with every change of ours that was made before. Safe to repeat."""
    connection.execute(
        sa.update(orders)
        .where(
            orders.c.seller_id == seller_id,
            orders.c.mp_order_number == mp_order_number,
            orders.c.phase.in_(_NOTHING_TO_SEND),
            orders.c.next_try_at <= read_at,
        )
        .values(next_try_at=None)
    )


def by_purchase_day(
    connection: Connection, start: datetime, end: datetime, seller_ids: Sequence[str]
) -> dict[str, list[str]]:
    """Numbers of orders bought from `start` (inclusive) to `end` (exclusive), by seller.

    Those that FeedAMP may hold: placed, or sent without an answer.
    """
    may_be_there = sa.or_(orders.c.placed_at.is_not(None), orders.c.first_put_at.is_not(None))
    query = (
        sa.select(orders.c.seller_id, orders.c.mp_order_number)
        .where(orders.c.purchase_date >= start, orders.c.purchase_date < end, may_be_there)
        .order_by(orders.c.mp_order_number)
    )
    return _by_seller(connection.execute(query).all(), seller_ids)


def open_longer_than(
    connection: Connection, placed_before: datetime, seller_ids: Sequence[str]
) -> dict[str, list[str]]:
    """Numbers of orders placed before a moment and still open, by seller."""
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number).where(
        orders.c.placed_at < placed_before, orders.c.phase.in_(("to_place", "settled", "held"))
    )
    return _by_seller(connection.execute(query).all(), seller_ids)


def phases(connection: Connection) -> dict[str, int]:
    """How many orders stand in each phase."""
    query = sa.select(orders.c.phase, sa.func.count()).group_by(orders.c.phase)
    return {row[0]: row[1] for row in connection.execute(query)}


def is_open(order: LedgerOrder) -> bool:
    """Placed by us, and neither closed nor cancelled by the marketplace."""
    return (
        order.placed_at is not None
        and order.phase != "closed"
        and order.accepted_state not in (MarketplaceState.SHIPPED, MarketplaceState.CANCELLED)
    )


def decode_units(text: str) -> dict[str, tuple[int, int]]:
    """Units of a closed order as its row keeps them: line -> (shipped, cancelled)."""
    return msgspec.json.decode(text, type=dict[str, tuple[int, int]])


def _encode_units(units: Mapping[str, tuple[int, int]]) -> str:
    return msgspec.json.encode(units).decode()


def _by_seller(rows: Sequence[Any], seller_ids: Sequence[str]) -> dict[str, list[str]]:
    wanted = set(seller_ids)
    numbers: dict[str, list[str]] = {}
    for seller_id, number in rows:
        if seller_id in wanted:
            numbers.setdefault(seller_id, []).append(number)
    return numbers


def _order(row: Any) -> LedgerOrder:
    values = dict(row._mapping)
    values["body"] = decode_json(values["body"].encode())
    values["delivered"] = tuple(msgspec.json.decode(values["delivered"]))
    if values["closed_units"] is not None:
        values["closed_units"] = decode_units(values["closed_units"])
    return LedgerOrder(**values)
