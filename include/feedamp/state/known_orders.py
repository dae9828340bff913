"""Finds out whose orders an account shows: the seller's own, those of other sellers, or those of another account.

Orders placed here are compared with the ledger. Other orders are compared by their mark, a digest of number, purchase
date and lines, with the marks of orders that other accounts have shown.

"Other sellers" are those of the same connection: another connection is another FeedAMP account of the marketplace.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.codec import decode_json
from feedamp.models import Order
from feedamp.rules.account_evidence import KnownOrder, mark, proves
from feedamp.state import erasures
from feedamp.state.schema import account_marks, grants, orders, sellers
from feedamp.state.seller_facts import SellerFacts
from feedamp.state.sellers import Seller
from feedamp.state.statements import as_list_of_texts, in_parts, insert, is_order, listed_texts
from feedamp.state.token_cipher import TokenCipher

MARKS_PER_SELLER = 20
# FeedAMP has accepted the order and has not since answered that it does not have it.
_IS_KNOWN = sa.and_(orders.c.placed_at.is_not(None), orders.c.missing_since.is_(None))
_KNOWN = sa.select(
    *(orders.c[name] for name in ("seller_id", "mp_order_number", "purchase_date", "body", "placed_at"))
)
# Asked for each page of an extraction: to build them each time takes longer than to run them.
_NUMBERS: sa.BindParameter[list[str]] = sa.bindparam("numbers", expanding=True)
_SELLER_ID: sa.BindParameter[str] = sa.bindparam("seller_id")
_IS_OTHER = sa.and_(sellers.c.conn_id == sa.bindparam("conn_id"), sellers.c.seller_id != _SELLER_ID)
_OWN = sa.select(orders.c.mp_order_number, orders.c.purchase_date).where(
    orders.c.seller_id == _SELLER_ID, orders.c.mp_order_number.in_(_NUMBERS)
)
_OF_OTHERS = (
    sa.select(orders.c.seller_id, orders.c.mp_order_number, orders.c.purchase_date, grants.c.account_forced)
    .join(sellers, sellers.c.seller_id == orders.c.seller_id)
    .outerjoin(grants, grants.c.seller_id == sellers.c.seller_id)
    .where(
        _IS_OTHER,
        orders.c.mp_order_number.in_(_NUMBERS),
        # A date range, not a list: with two lists, the database would look up every combination.
        orders.c.purchase_date.between(sa.bindparam("earliest"), sa.bindparam("latest")),
        _IS_KNOWN,
    )
    .order_by(orders.c.mp_order_number, orders.c.seller_id)
)
_SHARED = (
    sa.select(account_marks)
    .join(sellers, sellers.c.seller_id == account_marks.c.seller_id)
    .where(account_marks.c.mark.in_(sa.bindparam("marks", expanding=True)), _IS_OTHER)
    .order_by(account_marks.c.seller_id, account_marks.c.mp_order_number)
)
# Each number once, however many sellers have marks of an order with it.
_LISTED = listed_texts()
_MARKED_NUMBERS = sa.select(_LISTED.c.value).where(
    sa.exists().where(
        account_marks.c.mp_order_number == _LISTED.c.value,
        account_marks.c.seller_id == sellers.c.seller_id,
        _IS_OTHER,
    )
)


@dataclass(frozen=True)
class ForeignOrder:
    """An order in a seller's account that belongs to another seller, or that another seller's account has shown as well.

    `is_forced`: a person took the grant of one of the two sellers with `--force`.
    """

    other_id: str
    mp_order_number: str
    is_forced: bool = False


def newest(connection: Connection, seller_id: str, *, limit: int) -> list[KnownOrder]:
    """Orders of a seller that FeedAMP has accepted, latest first."""
    query = _KNOWN.where(orders.c.seller_id == seller_id, _IS_KNOWN)
    latest = query.order_by(orders.c.placed_at.desc(), orders.c.mp_order_number).limit(limit)
    return [_order(row) for row in connection.execute(latest)]


def others_are_known(connection: Connection, seller: Seller) -> bool:
    """Whether orders of other sellers are known, by which their accounts would be recognized."""
    placed = sa.exists().where(orders.c.seller_id == sellers.c.seller_id, _IS_KNOWN)
    query = sa.select(sa.literal(1)).where(_IS_OTHER, placed).limit(1)
    return connection.execute(query, _named(seller)).first() is not None


def to_compare(connection: Connection, seller_ids: Collection[str]) -> dict[str, bool]:
    """Those of the sellers whose account is still to be compared, each with whether it has orders to compare with."""
    has_orders = sa.exists().where(orders.c.seller_id == grants.c.seller_id, _IS_KNOWN)
    found: dict[str, bool] = {}
    query = sa.select(grants.c.seller_id, has_orders).where(grants.c.account_checked_at.is_(None))
    for part in in_parts(sorted(seller_ids)):
        of_part = query.where(grants.c.seller_id.in_(part))
        found.update((row[0], bool(row[1])) for row in connection.execute(of_part))
    return found


def nothing_to_compare(connection: Connection) -> list[str]:
    """Sellers whose account cannot be compared: they have a grant, but no placed order and no mark of an order."""
    placed = sa.exists().where(orders.c.seller_id == grants.c.seller_id, _IS_KNOWN)
    marked = sa.exists().where(account_marks.c.seller_id == grants.c.seller_id)
    query = sa.select(grants.c.seller_id).where(~placed, ~marked).order_by(grants.c.seller_id)
    return list(connection.execute(query).scalars())


def foreign_order(
    connection: Connection, facts: SellerFacts, seller: Seller, strangers: Mapping[str, Order]
) -> ForeignOrder | None:
    """The first order in a seller's account that was placed for another seller, proven by its date and lines.

    `strangers` is the result of `strangers_among`. If there are several, an order for which `--force` was used for neither
    of the two sellers takes precedence. Orders that were placed before a person resumed this seller do not count.
    """
    if not (facts.has_grant and facts.others_have_orders):
        return None
    forced: ForeignOrder | None = None
    for known, is_forced in _of_others(connection, seller, strangers):
        is_new = facts.others_known_until is None or known.placed_at > facts.others_known_until
        if is_new and proves(strangers[known.mp_order_number], known):
            if not (is_forced or facts.account_forced):
                return ForeignOrder(known.seller_id, known.mp_order_number)
            forced = forced or ForeignOrder(known.seller_id, known.mp_order_number, is_forced=True)
    return forced


def shared_order(
    connection: Connection, facts: SellerFacts, seller: Seller, strangers: Mapping[str, Order]
) -> ForeignOrder | None:
    """The first order that another seller's account has shown as well; `strangers` is the result of `strangers_among`.

    None if a person has resumed the seller.
    """
    if not facts.has_grant or facts.others_known_until is not None:
        return None
    # The number is part of a mark, and found in much less time than a mark is made.
    wanted = {**_named(seller), "listed": as_list_of_texts(strangers)}
    numbers = connection.execute(_MARKED_NUMBERS, wanted).scalars().all()
    marks = [digest for digest, _ in marks_of(strangers[number] for number in numbers)]
    if not marks:
        return None
    row = connection.execute(_SHARED, {**_named(seller), "marks": marks}).first()
    return None if row is None else ForeignOrder(row.seller_id, row.mp_order_number)


def _of_others(
    connection: Connection, seller: Seller, shown: Mapping[str, Order]
) -> Iterator[tuple[KnownOrder, bool]]:
    """Other sellers' orders with the same number and purchase date, and whether `--force` was used for that seller."""
    dates = {
        number: order.purchase_date.replace(microsecond=0)
        for number, order in shown.items()
        if order.purchase_date is not None
    }
    if not dates:
        return
    wanted = {
        **_named(seller),
        "numbers": list(dates),
        "earliest": min(dates.values()),
        "latest": max(dates.values()),
    }
    for row in connection.execute(_OF_OTHERS, wanted).all():
        if row.purchase_date == dates[row.mp_order_number]:
            one = _KNOWN.where(is_order(orders, row.seller_id, row.mp_order_number))
            yield _order(connection.execute(one).one()), bool(row.account_forced)


def marks_of(shown: Iterable[Order]) -> Iterator[tuple[str, str]]:
    """Mark and number of those of the orders that show enough of themselves."""
    return ((digest, order.mp_order_number) for order in shown if (digest := mark(order)) is not None)


def keep_marks(connection: Connection, seller_id: str, marked: Iterable[tuple[str, str]]) -> None:
    """Stores marks of orders in a seller's account; `marked` is of `marks_of`. Safe to repeat."""
    rows = [{"mark": digest, "seller_id": seller_id, "mp_order_number": number} for digest, number in marked]
    if rows:
        connection.execute(insert(connection, account_marks).on_conflict_do_nothing(), rows)


def strangers_among(
    connection: Connection, cipher: TokenCipher, facts: SellerFacts, seller_id: str, shown: Iterable[Order]
) -> dict[str, Order]:
    """Those of the orders, by number, that the ledger does not have as the seller's own; of erased ones it says nothing."""
    strangers = {order.mp_order_number: order for order in shown}
    own = {"seller_id": seller_id, "numbers": list(strangers)}
    for row in connection.execute(_OWN, own) if facts.has_orders else ():
        purchased_at = strangers[row.mp_order_number].purchase_date
        if purchased_at is None or purchased_at.replace(microsecond=0) == row.purchase_date:
            del strangers[row.mp_order_number]
    if not facts.is_any_erased:
        return strangers
    erased = erasures.load(connection, cipher, ((seller_id, number) for number in strangers))
    return {number: order for number, order in strangers.items() if not erased.has(seller_id, number)}


def _named(seller: Seller) -> dict[str, Any]:
    return {"conn_id": seller.conn_id, "seller_id": seller.seller_id}


def _order(row: Any) -> KnownOrder:
    body = decode_json(row.body.encode())
    lines = {line["mp_line_number"]: line.get("sku") for line in body["order_lines"]}
    return KnownOrder(row.seller_id, row.mp_order_number, row.purchase_date, lines, row.placed_at)
