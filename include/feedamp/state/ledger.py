"""The order ledger: stores delivered bodies, states that FeedAMP accepted, and pending work.

What a delivery changes is decided in `rules/intake.py`, what may be sent in `rules/order.py`, how long an order waits in
`rules/retries.py`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from operator import attrgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json, encode_body
from feedamp.rules.order import (
    ACCEPTED_BY,
    CHANGED_BY_ACCEPTED,
    NOTHING_TO_SEND,
    OPEN_PHASES,
    LedgerOrder,
    Phase,
)
from feedamp.rules.reconciled_days import DAY, midnight
from feedamp.rules.retries import LONGEST_ORDER_WAIT, MISSING_WAIT
from feedamp.rules.stored_body import FULL
from feedamp.rules.units import LineUnits
from feedamp.state.columns import columns_of, decoded
from feedamp.state.many_rows import execute_many
from feedamp.state.schema import orders, rejected_orders, snapshots
from feedamp.state.statements import (
    by_seller,
    change_order,
    change_orders,
    count_by,
    in_parts,
    is_any_order,
    is_order,
    is_same_order,
    of_sellers,
    upsert,
)

_IS_ONE = is_order(orders, sa.bindparam("of_seller"), sa.bindparam("of_number"))
_ONE = sa.select(orders).where(_IS_ONE)
_KNOWN = sa.select(orders.c.mp_order_number).where(
    orders.c.seller_id == sa.bindparam("of_seller"),
    orders.c.mp_order_number.in_(sa.bindparam("numbers", expanding=True)),
)
_WAS_READ = (
    sa.update(orders)
    .where(
        _IS_ONE,
        # No IN: a list of parameters cannot be executed for several rows at once.
        sa.or_(*(orders.c.phase == phase for phase in NOTHING_TO_SEND)),
        orders.c.read_back_at <= sa.bindparam("at"),
    )
    .values(read_back_at=None)
)

_SAVE_ACCEPTED = (
    sa.update(orders)
    .where(
        _IS_ONE, *(orders.c[name].is_not_distinct_from(sa.bindparam(f"was_{name}")) for name in ACCEPTED_BY)
    )
    .values({name: sa.bindparam(name) for name in CHANGED_BY_ACCEPTED})
)
_SAVED = (*CHANGED_BY_ACCEPTED, *(f"was_{name}" for name in ACCEPTED_BY), "of_seller", "of_number")
_changed, _was = attrgetter(*CHANGED_BY_ACCEPTED), attrgetter(*ACCEPTED_BY)


def read(connection: Connection, seller_id: str, mp_order_number: str) -> LedgerOrder | None:
    """One order of the ledger, or None."""
    row = connection.execute(_ONE, {"of_seller": seller_id, "of_number": mp_order_number}).first()
    return None if row is None else _order(row)


def known(connection: Connection, seller_id: str, numbers: Iterable[str]) -> set[str]:
    """Those of the numbers that the ledger has."""
    found: set[str] = set()
    for part in in_parts(numbers):
        found.update(connection.execute(_KNOWN, {"of_seller": seller_id, "numbers": part}).scalars())
    return found


def read_many(connection: Connection, seller_id: str, numbers: Iterable[str]) -> dict[str, LedgerOrder]:
    """Orders of one seller, by number; unknown numbers are left out."""
    found = read_all(connection, ((seller_id, number) for number in numbers))
    return {number: order for (_, number), order in found.items()}


def read_all(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], LedgerOrder]:
    """Orders of any sellers, by seller and number; unknown ones are left out."""
    found: dict[tuple[str, str], LedgerOrder] = {}
    for part in in_parts(dict.fromkeys(keys)):
        found.update((order.key, order) for order in _orders(columns_of(connection, orders, part)))
    return found


def row_hashes(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Of which row each order is as it stands, by seller and number.

    Orders that wait for a body are left out, and those whose row differs in other fields than the state: that is on record.
    """
    waits_for_body = sa.and_(orders.c.body_kind != FULL, orders.c.phase.in_(OPEN_PHASES))
    differs = sa.exists().where(
        rejected_orders.c.source == orders.c.source,
        rejected_orders.c.row_number == orders.c.source_row,
        rejected_orders.c.row_hash == orders.c.row_hash,
    )
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number, orders.c.row_hash)
    query = query.where(~waits_for_body, ~differs)
    return {
        (row.seller_id, row.mp_order_number): row.row_hash
        for part in in_parts(keys)
        for row in connection.execute(query.where(is_any_order(orders, part)))
    }


def to_acknowledge(connection: Connection, condition: str) -> list[LedgerOrder]:
    """Orders of `CANCELLED_BUT_SHIPPED` or of `SHIPPED_BUT_WITHDRAWN`, without acknowledged ones."""
    query = sa.select(orders).where(sa.text(condition))
    ordered = query.order_by(orders.c.seller_id, orders.c.mp_order_number)
    return [order for order in map(_order, connection.execute(ordered)) if order.is_to_acknowledge]


def write(connection: Connection, order: LedgerOrder) -> None:
    """Stores an order as it is. Safe to repeat."""
    write_all(connection, [order])


def write_all(connection: Connection, to_write: Iterable[LedgerOrder]) -> None:
    """Stores orders as they are. Safe to repeat."""
    rows = [{name: _encoded(order, name) for name in order.__dataclass_fields__} for order in to_write]
    upsert(connection, orders, rows)


def save(connection: Connection, before: LedgerOrder, after: LedgerOrder) -> None:
    """Stores what a transition changed; `before` was read in the same transaction."""
    save_all(connection, [(before, after)])


def save_all(connection: Connection, changes: Iterable[tuple[LedgerOrder, LedgerOrder]]) -> None:
    """Stores what transitions of several orders changed, each from its order before, read in the same transaction."""
    changed = [
        (after.key, {name: _encoded(after, name) for name in names})
        for before, after in changes
        if (names := [n for n in after.__dataclass_fields__ if getattr(before, n) != getattr(after, n)])
    ]
    change_orders(connection, orders, changed)


def save_accepted(
    connection: Connection, sent: Sequence[tuple[LedgerOrder, Callable[[LedgerOrder], LedgerOrder]]]
) -> list[tuple[LedgerOrder, LedgerOrder]]:
    """Stores the transition `accepted` of orders, each as it was read before its PUT, with what makes the transition of it.

    What decides it is compared by the statement that stores it, so that the orders are not read once more. Where one differs
    because another process has changed it since, the transition is made of the stored order.

    Returns:
        Each order as it was before and after; one that is no longer in the ledger is left out.
    """
    changes = [(order, accept(order)) for order, accept in sent]
    rows = [
        dict(zip(_SAVED, (*_changed(after), *_was(before), *after.key), strict=True))
        for before, after in changes
    ]
    if execute_many(connection, _SAVE_ACCEPTED, rows) == len(rows):
        return changes
    stored = read_all(connection, [order.key for order, _ in sent])
    saved, late = [], []
    for (before, after), (_, accept) in zip(changes, sent, strict=True):
        current = stored.get(after.key)
        if current is None:
            continue
        if all(getattr(current, name) == getattr(after, name) for name in CHANGED_BY_ACCEPTED):
            saved.append((before, after))
        else:
            late.append((current, accept(current)))
    save_all(connection, late)
    return saved + late


def due(connection: Connection, seller_ids: Sequence[str], *, now: datetime) -> dict[str, list[str]]:
    """Order numbers to PUT now, by seller, oldest purchase first; sellers without any are left out."""
    query = (
        sa.select(orders.c.seller_id, orders.c.mp_order_number)
        .where(orders.c.phase == Phase.TO_PLACE, of_sellers(orders))
        .where(sa.or_(orders.c.next_try_at.is_(None), sa.not_(_waits(now))))
        .order_by(orders.c.purchase_date, orders.c.mp_order_number)
    )
    return by_seller(connection, query, seller_ids)


def _waits(now: datetime) -> sa.ColumnElement[bool]:
    """Whether an order waits for its next try; a try that is too far away does not count."""
    return sa.and_(orders.c.next_try_at > now, orders.c.next_try_at <= now + LONGEST_ORDER_WAIT)


def not_due(connection: Connection, seller_ids: Sequence[str], *, now: datetime) -> dict[str, datetime]:
    """The earliest next try of waiting orders, by seller; sellers without any are left out."""
    query = (
        sa.select(orders.c.seller_id, sa.func.min(orders.c.next_try_at).label("next_try_at"))
        .where(orders.c.phase == Phase.TO_PLACE, _waits(now))
        .group_by(orders.c.seller_id)
    )
    return {
        row.seller_id: row.next_try_at
        for part in in_parts(dict.fromkeys(seller_ids))
        for row in connection.execute(query.where(orders.c.seller_id.in_(part)))
    }


def waiting_sellers(connection: Connection) -> list[str]:
    """Sellers with orders still to be placed."""
    query = sa.select(orders.c.seller_id).where(orders.c.phase == Phase.TO_PLACE).distinct()
    return sorted(connection.execute(query).scalars())


def explain_waiting(connection: Connection, seller_id: str, *, reason: str, next_try_at: datetime) -> int:
    """Writes the reason and the next try to a seller's waiting orders; returns how many were changed."""
    # A longer pause of a single order remains, so that other orders go first.
    is_earlier = sa.or_(orders.c.next_try_at.is_(None), orders.c.next_try_at < next_try_at)
    waiting = sa.and_(orders.c.seller_id == seller_id, orders.c.phase == Phase.TO_PLACE, is_earlier)
    changed = sa.update(orders).where(waiting).values(reason=reason, next_try_at=next_try_at)
    return connection.execute(changed).rowcount


def note_puts(connection: Connection, to_send: Iterable[LedgerOrder], *, now: datetime) -> None:
    """Records the intent to PUT orders: from then on, FeedAMP may have them. Only the first is stored. Safe to repeat.

    The orders were read in the same transaction.
    """
    first = [order.key for order in to_send if order.first_put_at is None]
    change_orders(connection, orders, ((key, {"first_put_at": now}) for key in first))


def keep_closed_units(
    connection: Connection,
    seller_id: str,
    mp_order_number: str,
    units: Mapping[str, LineUnits],
    *,
    read_at: datetime,
) -> None:
    """Stores the units in a snapshot of a closed order, unless units of a newer one are stored. Safe to repeat."""
    by_line = {line: (of_line.shipped, of_line.cancelled) for line, of_line in units.items()}
    change_order(
        connection,
        orders,
        seller_id,
        mp_order_number,
        sa.or_(orders.c.closed_units_at.is_(None), orders.c.closed_units_at <= read_at),
        closed_units=msgspec.json.encode(by_line).decode(),
        closed_units_shipped=sum(shipped for shipped, _ in by_line.values()),
        closed_units_at=read_at,
    )


def mark_missing(connection: Connection, seller_id: str, mp_order_number: str, *, asked_at: datetime) -> None:
    """Marks an accepted order as missing: FeedAMP answered 404 to a GET by order number, sent at `asked_at`.

    A missing order is read again once in `MISSING_WAIT`, until FeedAMP returns it or accepts it again. Nothing
    changes for an order that FeedAMP never accepted, or that it has accepted or returned since `asked_at`. Safe to
    repeat.
    """
    returned_since = sa.exists().where(is_same_order(snapshots, orders), snapshots.c.read_at > asked_at)
    accepted_since = sa.and_(
        orders.c.phase.in_(NOTHING_TO_SEND),
        orders.c.missing_since.is_(None),
        orders.c.read_back_at > asked_at,
    )
    change_order(
        connection,
        orders,
        seller_id,
        mp_order_number,
        orders.c.placed_at <= asked_at,
        sa.func.coalesce(orders.c.closed_at <= asked_at, sa.true()),
        sa.func.coalesce(orders.c.closed_units_at <= asked_at, sa.true()),
        ~returned_since,
        ~sa.func.coalesce(accepted_since, sa.false()),
        missing_since=sa.func.coalesce(
            orders.c.missing_since, sa.literal(asked_at, orders.c.missing_since.type)
        ),
        read_back_at=sa.case(
            (
                orders.c.phase.in_(NOTHING_TO_SEND),
                sa.literal(asked_at + MISSING_WAIT, orders.c.read_back_at.type),
            )
        ),
    )


def found_again(connection: Connection, seller_id: str, mp_order_number: str) -> None:
    """Ends the mark of a missing order, because FeedAMP has returned it. Safe to repeat."""
    is_marked = orders.c.missing_since.is_not(None)
    ended = {"missing_since": None, "read_back_at": None}
    change_order(connection, orders, seller_id, mp_order_number, is_marked, **ended)


# As an expression, or SQLite would search by phase and read all orders of the seller.
_PHASE_OF_FEW = sa.func.coalesce(orders.c.phase, "")
# Asked for each group of pages: to build it takes as long as to run it.
_CLOSED_SINCE = sa.select(orders.c.mp_order_number, orders.c.closed_at).where(
    orders.c.seller_id == sa.bindparam("of"),
    orders.c.mp_order_number.in_(sa.bindparam("numbers", expanding=True)),
    _PHASE_OF_FEW == Phase.CLOSED,
    orders.c.closed_at >= sa.bindparam("since"),
)


# To find out that there are none takes much less than to look for hundreds of orders by number.
OF_SELLER = sa.exists().where(orders.c.seller_id == sa.bindparam("of"))
OF_ANOTHER = sa.or_(
    sa.exists().where(orders.c.seller_id < sa.bindparam("of")),
    sa.exists().where(orders.c.seller_id > sa.bindparam("of")),
)
_HAS_ORDERS = sa.select(OF_SELLER)


def has_orders(connection: Connection, seller_id: str) -> bool:
    """Whether the ledger has any order of the seller."""
    return bool(connection.execute(_HAS_ORDERS, {"of": seller_id}).scalar_one())


def closed_since(
    connection: Connection, seller_id: str, numbers: Iterable[str], moment: datetime
) -> dict[str, datetime]:
    """Closing time by number, for those of the orders that this installation closed since a moment (inclusive)."""
    wanted = {"of": seller_id, "numbers": list(numbers), "since": moment}
    return {row.mp_order_number: row.closed_at for row in connection.execute(_CLOSED_SINCE, wanted)}


def read_back_later(connection: Connection, seller_id: str, mp_order_number: str, *, now: datetime) -> None:
    """Makes the next extraction read an order by number, unless the order still has something to send. Safe to repeat."""
    has_nothing_to_send = orders.c.phase.in_(NOTHING_TO_SEND)
    change_order(connection, orders, seller_id, mp_order_number, has_nothing_to_send, read_back_at=now)


def read_back_ended_since(connection: Connection, moment: datetime, *, now: datetime) -> None:
    """Makes the next extraction read by number the orders of all sellers that were closed since a moment. Safe to repeat."""
    was_accepted = orders.c.accepted_state.is_not(None)
    ended = sa.and_(orders.c.phase == Phase.CLOSED, orders.c.ended_at >= moment, was_accepted)
    connection.execute(sa.update(orders).where(ended).values(read_back_at=now))


_TO_READ_BACK = (
    sa.select(orders.c.seller_id, orders.c.mp_order_number)
    .where(_PHASE_OF_FEW.in_(NOTHING_TO_SEND), orders.c.read_back_at.is_not(None), of_sellers(orders))
    .order_by(orders.c.seller_id, orders.c.mp_order_number)
)
# Only those that are due.
DUE_TO_READ_BACK = _TO_READ_BACK.where(orders.c.read_back_at <= sa.bindparam("now"))


def to_read_back(connection: Connection, seller_ids: Collection[str]) -> dict[str, list[str]]:
    """Numbers of orders to be read by number, by seller, whether or not they are due.

    A PUT changed their state, or their last answer was stale or unreadable, or FeedAMP did not have them.
    """
    return by_seller(connection, _TO_READ_BACK, seller_ids)


def were_read(connection: Connection, seller_id: str, read_at: Mapping[str, datetime]) -> None:
    """Records that FeedAMP returned orders, by number: every change sent before the moment is in it. Safe to repeat."""
    if read_at:
        rows = [{"of_seller": seller_id, "of_number": number, "at": at} for number, at in read_at.items()]
        connection.execute(_WAS_READ, rows)


# Orders that FeedAMP may have: placed, or sent without an answer.
_MAY_EXIST = sa.or_(orders.c.placed_at.is_not(None), orders.c.first_put_at.is_not(None))
# Those that are to be sent, too: their day is not checked before they have been compared.
TO_COMPARE = sa.or_(_MAY_EXIST, orders.c.phase.in_((Phase.TO_PLACE, Phase.HELD)))


def purchased(
    connection: Connection, start: datetime, end: datetime, seller_ids: Sequence[str]
) -> Iterator[tuple[str, str, date]]:
    """(seller_id, mp_order_number, UTC day) of orders purchased from `start` (inclusive) to `end` (exclusive).

    Only orders that FeedAMP may have.
    """
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number, orders.c.purchase_date).where(
        orders.c.purchase_date >= start, orders.c.purchase_date < end, _MAY_EXIST
    )
    wanted = set(seller_ids)
    if len(wanted) <= 500:
        query = query.where(orders.c.seller_id.in_(wanted))
    for row in connection.execute(query.order_by(orders.c.purchase_date, orders.c.mp_order_number)):
        if row.seller_id in wanted:
            yield row.seller_id, row.mp_order_number, row.purchase_date.date()


def count_purchased(connection: Connection, start: datetime, end: datetime) -> dict[str, int]:
    """How many orders `purchased` has, by seller."""
    is_of_days = sa.and_(orders.c.purchase_date >= start, orders.c.purchase_date < end)
    return count_by(connection, orders.c.seller_id, is_of_days, _MAY_EXIST)


def days_of(connection: Connection, seller_id: str, numbers: Iterable[str]) -> dict[str, date]:
    """UTC day of purchase by number, of those of the orders that the ledger has and FeedAMP may have."""
    query = sa.select(orders.c.mp_order_number, orders.c.purchase_date).where(
        orders.c.seller_id == seller_id, _MAY_EXIST
    )
    return {
        row.mp_order_number: row.purchase_date.date()
        for part in in_parts(numbers)
        for row in connection.execute(query.where(orders.c.mp_order_number.in_(part)))
    }


def first_day(connection: Connection, since: date | None = None) -> date | None:
    """UTC day of the earliest purchase, on that day or later, of an order that FeedAMP may have or is to get."""
    query = sa.select(orders.c.purchase_date).where(TO_COMPARE).order_by(orders.c.purchase_date).limit(1)
    if since:
        query = query.where(orders.c.purchase_date >= midnight(since))
    first: datetime | None = connection.execute(query).scalar()
    return first.date() if first is not None else None


def days_with_orders(connection: Connection, first: date, last: date) -> Iterator[date]:
    """UTC days from `first` to `last`, both inclusive, on which such an order was purchased; asks once for each of them."""
    while first <= last and (found := first_day(connection, first)) is not None and found <= last:
        yield found
        first = found + DAY


def open_longer_than(
    connection: Connection, placed_before: datetime, seller_ids: Sequence[str]
) -> dict[str, list[str]]:
    """Numbers of open orders that were placed before a moment (exclusive), by seller."""
    query = sa.select(orders.c.seller_id, orders.c.mp_order_number).where(
        orders.c.placed_at < placed_before, orders.c.phase.in_(OPEN_PHASES), of_sellers(orders)
    )
    return by_seller(connection, query, seller_ids)


def decode_units(text: str) -> dict[str, tuple[int, int]]:
    """The stored units of a closed order: line -> (shipped, cancelled)."""
    return msgspec.json.decode(text, type=dict[str, tuple[int, int]])


def _encoded(order: LedgerOrder, name: str) -> Any:
    value = getattr(order, name)
    if name == "body":
        return encode_body(value).decode()
    if name in ("delivered", "closed_units") and value is not None:
        return msgspec.json.encode(value).decode()
    return value


def _order(row: sa.Row[Any]) -> LedgerOrder:
    return _orders({name: (value,) for name, value in row._mapping.items()})[0]


def _orders(columns: Mapping[str, Sequence[Any]]) -> list[LedgerOrder]:
    values = {
        **columns,
        "phase": decoded(columns["phase"], Phase),
        "body": [decode_json(body.encode()) for body in columns["body"]],
        "delivered": decoded(columns["delivered"], msgspec.json.Decoder(tuple[str, ...]).decode),
        "closed_units": [units and decode_units(units) for units in columns["closed_units"]],
    }
    return LedgerOrder.of(values, zip(*values.values(), strict=True))
