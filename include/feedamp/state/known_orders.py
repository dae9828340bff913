"""What the ledger knows of an account's orders: the seller's own, those placed for other sellers, and marks of others.

Other sellers are those of the same connection: another connection is another FeedAMP account of the marketplace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json
from feedamp.models import Order
from feedamp.rules.account_evidence import (
    KnownOrder,
    mark,
    proves,
)
from feedamp.state.schema import account_marks, grants, orders, sellers
from feedamp.state.sellers import Seller
from feedamp.state.upsert import insert

MARKS_PER_SELLER = 20
_IDS_PER_QUERY = 500
# FeedAMP has accepted it, and has not answered since that it does not have it.
_IS_KNOWN = sa.and_(orders.c.placed_at.is_not(None), orders.c.missing_since.is_(None))


@dataclass(frozen=True)
class ForeignOrder:
    """An order that a seller's account shows and that belongs to another seller, or is in that account as well.

    `is_forced`: a person took the grant of one of the two with `--force`.
    """

    other_id: str
    mp_order_number: str
    is_forced: bool = False


def newest(connection: Connection, seller_id: str, *, limit: int) -> list[KnownOrder]:
    """Orders of a seller that FeedAMP has accepted, the latest first."""
    query = _known().where(orders.c.seller_id == seller_id, _IS_KNOWN)
    latest = query.order_by(orders.c.placed_at.desc(), orders.c.mp_order_number).limit(limit)
    return [_order(row) for row in connection.execute(latest)]


def others_are_known(connection: Connection, seller: Seller) -> bool:
    """Whether orders are known by which another seller's account would be recognized."""
    placed = sa.exists().where(orders.c.seller_id == sellers.c.seller_id, _IS_KNOWN)
    query = sa.select(sa.literal(1)).where(_is_other(seller), placed).limit(1)
    return connection.execute(query).first() is not None


def to_compare(connection: Connection, seller_ids: Collection[str]) -> dict[str, bool]:
    """Those of some sellers whose account is still to be compared: whether they have orders to compare it with."""
    has_orders = sa.exists().where(orders.c.seller_id == grants.c.seller_id, _IS_KNOWN)
    found: dict[str, bool] = {}
    ids = sorted(seller_ids)
    for start in range(0, len(ids), _IDS_PER_QUERY):
        query = sa.select(grants.c.seller_id, has_orders).where(
            grants.c.seller_id.in_(ids[start : start + _IDS_PER_QUERY]), grants.c.account_checked_at.is_(None)
        )
        found.update((row[0], bool(row[1])) for row in connection.execute(query))
    return found


def nothing_to_compare(connection: Connection) -> list[str]:
    """Sellers with a grant of whose account nothing is known: no order was placed, and it has shown none."""
    placed = sa.exists().where(orders.c.seller_id == grants.c.seller_id, _IS_KNOWN)
    marked = sa.exists().where(account_marks.c.seller_id == grants.c.seller_id)
    query = sa.select(grants.c.seller_id).where(~placed, ~marked).order_by(grants.c.seller_id)
    return list(connection.execute(query).scalars())


def foreign_order(connection: Connection, seller: Seller, shown: Sequence[Order]) -> ForeignOrder | None:
    """The first order of a seller's account that was placed for another seller, proven by its date and lines.

    One of a seller for whom no person used `--force` goes first. What was placed before a person resumed this seller
    does not count.
    """
    grant = _grant(connection, seller)
    if grant is None:
        return None
    forced: ForeignOrder | None = None
    strangers = _strangers(connection, seller.seller_id, shown)
    for known, is_forced in _of_others(connection, seller, strangers):
        is_news = grant.others_known_until is None or known.placed_at > grant.others_known_until
        if is_news and proves(strangers[known.mp_order_number], known):
            if not (is_forced or grant.account_forced):
                return ForeignOrder(known.seller_id, known.mp_order_number)
            forced = forced or ForeignOrder(known.seller_id, known.mp_order_number, is_forced=True)
    return forced


def shared_order(connection: Connection, seller: Seller, marked: Mapping[str, str]) -> ForeignOrder | None:
    """The first of some orders by mark, as `marks_of` gives them, that another seller's account has shown as well.

    None where a person has resumed the seller.
    """
    grant = _grant(connection, seller)
    if not marked or grant is None or grant.others_known_until is not None:
        return None
    query = (
        sa.select(account_marks)
        .join(sellers, sellers.c.seller_id == account_marks.c.seller_id)
        .where(account_marks.c.mark.in_(list(marked)), _is_other(seller))
        .order_by(account_marks.c.seller_id, account_marks.c.mp_order_number)
    )
    row = connection.execute(query).first()
    return None if row is None else ForeignOrder(row.seller_id, row.mp_order_number)


def _grant(connection: Connection, seller: Seller) -> Any:
    query = sa.select(grants.c.account_forced, grants.c.others_known_until)
    return connection.execute(query.where(grants.c.seller_id == seller.seller_id)).first()


def _of_others(
    connection: Connection, seller: Seller, shown: Mapping[str, Order]
) -> Iterator[tuple[KnownOrder, bool]]:
    """Orders of other sellers with the number and purchase date of shown ones, and whether `--force` was used."""
    dates = {
        number: order.purchase_date.replace(microsecond=0)
        for number, order in shown.items()
        if order.purchase_date is not None
    }
    if not dates:
        return
    # A range, not a list of dates: two lists would be looked up as all their pairs.
    query = (
        sa.select(
            orders.c.seller_id, orders.c.mp_order_number, orders.c.purchase_date, grants.c.account_forced
        )
        .join(sellers, sellers.c.seller_id == orders.c.seller_id)
        .outerjoin(grants, grants.c.seller_id == sellers.c.seller_id)
        .where(
            _is_other(seller),
            orders.c.mp_order_number.in_(list(dates)),
            orders.c.purchase_date.between(min(dates.values()), max(dates.values())),
            _IS_KNOWN,
        )
        .order_by(orders.c.mp_order_number, orders.c.seller_id)
    )
    for row in connection.execute(query).all():
        if row.purchase_date == dates[row.mp_order_number]:
            one = _known().where(
                orders.c.seller_id == row.seller_id, orders.c.mp_order_number == row.mp_order_number
            )
            yield _order(connection.execute(one).one()), bool(row.account_forced)


def marks_of(connection: Connection, seller: Seller, shown: Sequence[Order]) -> dict[str, str]:
    """Numbers by mark of those shown orders that we did not place for the seller."""
    strangers = _strangers(connection, seller.seller_id, shown)
    return {digest: number for number, order in strangers.items() if (digest := mark(order)) is not None}


def keep_marks(connection: Connection, seller_id: str, marked: Mapping[str, str]) -> None:
    """Remembers 20 of the orders that a seller's account shows, as `marks_of` gives them. Safe to repeat."""
    rows = [
        {"mark": digest, "seller_id": seller_id, "mp_order_number": number}
        for digest, number in list(marked.items())[:MARKS_PER_SELLER]
    ]
    connection.execute(insert(connection, account_marks).on_conflict_do_nothing(), rows)


def is_marked(connection: Connection, seller_id: str) -> bool:
    """Whether orders of the seller's account are remembered."""
    query = sa.select(account_marks.c.mark).where(account_marks.c.seller_id == seller_id).limit(1)
    return connection.execute(query).first() is not None


def _strangers(connection: Connection, seller_id: str, shown: Iterable[Order]) -> dict[str, Order]:
    """Those of some shown orders, by number, that the ledger does not have as the seller's own."""
    strangers = {order.mp_order_number: order for order in shown}
    query = sa.select(orders.c.mp_order_number, orders.c.purchase_date).where(
        orders.c.seller_id == seller_id, orders.c.mp_order_number.in_(list(strangers))
    )
    for row in connection.execute(query):
        purchased_at = strangers[row.mp_order_number].purchase_date
        if purchased_at is None or purchased_at.replace(microsecond=0) == row.purchase_date:
            del strangers[row.mp_order_number]
    return strangers


def _is_other(seller: Seller) -> sa.ColumnElement[bool]:
    return sa.and_(sellers.c.conn_id == seller.conn_id, sellers.c.seller_id != seller.seller_id)


def _known() -> sa.Select[Any]:
    return sa.select(
        orders.c.seller_id,
        orders.c.mp_order_number,
        orders.c.purchase_date,
        orders.c.body,
        orders.c.placed_at,
    )


def _order(row: Any) -> KnownOrder:
    body = decode_json(row.body.encode())
    lines = {line["mp_line_number"]: line.get("sku") for line in body["order_lines"]}
    return KnownOrder(row.seller_id, row.mp_order_number, row.purchase_date, lines, row.placed_at)
