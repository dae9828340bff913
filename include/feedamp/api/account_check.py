"""Checks that a new grant is for the seller's own account, before the grant is used to read or send orders.

The orders in the account are compared with orders that FeedAMP has accepted for the seller. If the consent was given
while signed in as another seller, this seller's orders would otherwise be sent into that account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from feedamp.api.client import FeedAmpClient
from feedamp.api.orders_by_number import chunks_of_numbers
from feedamp.api.pages import Filters, OrderPage
from feedamp.api.pagination import OrderPages
from feedamp.errors import (
    AuthorizationError,
    ClientRefusedError,
    FeedAmpError,
    NotFoundError,
    RejectedError,
    TransientError,
    UnreadableError,
)
from feedamp.rules.account_evidence import KnownOrder, contradicts
from feedamp.state import State, consents, known_orders, seller_facts
from feedamp.state.sellers import Seller
from feedamp.state.token_cipher import TokenCipher

if TYPE_CHECKING:
    from feedamp.api.clients import Clients

KNOWN_ORDERS = 20
ACCOUNTS_AT_ONCE = 16
_UNREACHABLE_AFTER = 3
_PAGE_SIZE = 50


class Verdict(StrEnum):
    """The result of the check of a grant."""

    RIGHT = "right"
    NOTHING_TO_COMPARE = "nothing_to_compare"
    SET_ASIDE = "set_aside"
    KEPT_BEFORE = "kept_before"  # set aside, and the previous grant is in use again
    COMPARED_BEFORE = "compared_before"


@dataclass(frozen=True)
class AccountCheck:
    """A verdict and, if the grant is set aside, the reason."""

    verdict: Verdict
    reason: str = ""

    @property
    def is_set_aside(self) -> bool:
        """Whether the new grant is set aside and therefore not used."""
        return self.verdict in (Verdict.SET_ASIDE, Verdict.KEPT_BEFORE)


async def check_account(
    state: State, cipher: TokenCipher, client: FeedAmpClient, seller: Seller
) -> AccountCheck:
    """Checks the account of a seller's new grant and stores the verdict. No transaction is open during a request.

    Sends one request for the seller's newest known orders and, if orders of other sellers are known, one for a page of
    the account; no request if no orders are known. A number that the list answer lacks is requested alone before it
    counts as missing. Safe to repeat.

    Raises:
        AuthorizationError: FeedAMP refuses the grant, and there is no previous one.
        FeedAmpError: the account could not be read; it still has to be checked.
    """
    with state.read() as connection:
        consent = consents.to_compare(connection, seller.seller_id)
        known = known_orders.newest(connection, seller.seller_id, limit=KNOWN_ORDERS)
        others = known_orders.others_are_known(connection, seller)
    if consent is None:
        return AccountCheck(Verdict.COMPARED_BEFORE)
    try:
        reason, other_id = await _what_is_wrong(state, cipher, client, seller, known, others_are_known=others)
    except ClientRefusedError:
        raise
    except AuthorizationError:
        with state.read() as connection:
            if not consents.has_replaced(connection, seller.seller_id):
                raise
        reason, other_id = consents.REFUSED_BY_FEEDAMP, None
    with state.begin() as connection:
        now = state.now()
        if reason is not None:
            is_before_kept = consents.set_aside(
                connection, seller.seller_id, consent, reason=reason, shows_orders_of=other_id, now=now
            )
            return AccountCheck(Verdict.KEPT_BEFORE if is_before_kept else Verdict.SET_ASIDE, reason)
        consents.confirm(connection, seller.seller_id, consent, shows_own_orders=bool(known), now=now)
    return AccountCheck(Verdict.RIGHT if known or others else Verdict.NOTHING_TO_COMPARE)


async def check_accounts(
    clients: Clients, sellers: Sequence[Seller]
) -> dict[str, AccountCheck | FeedAmpError]:
    """Checks the accounts of many sellers, 16 at a time; the result or the error by seller. Safe to repeat.

    If three sellers fail because FeedAMP cannot be reached, before any succeeds, the others are not tried: their
    accounts still have to be checked.
    """
    gate = asyncio.Semaphore(ACCOUNTS_AT_ONCE)
    found: dict[str, AccountCheck | FeedAmpError] = {}
    unreachable: list[TransientError] = []
    reached = False

    async def check(seller: Seller) -> None:
        nonlocal reached
        async with gate:
            if len(unreachable) >= _UNREACHABLE_AFTER and not reached:
                found[seller.seller_id] = unreachable[-1]
                return
            try:
                found[seller.seller_id] = await clients.check_account(seller)
                reached = True
            except TransientError as error:
                unreachable.append(error)
                found[seller.seller_id] = error
            except FeedAmpError as error:
                found[seller.seller_id] = error

    await asyncio.gather(*(check(seller) for seller in sellers))
    return found


async def _what_is_wrong(
    state: State,
    cipher: TokenCipher,
    client: FeedAmpClient,
    seller: Seller,
    known: Sequence[KnownOrder],
    *,
    others_are_known: bool,
) -> tuple[str | None, str | None]:
    """Why the account cannot be the seller's (None if nothing contradicts it), and the seller whose orders it shows."""
    what, other_id = [], None
    if known and not await _shows_any(client, known):
        count = (
            "the order that was" if len(known) == 1 else f"any of the {len(known)} latest orders that were"
        )
        what.append(f"does not show {count} placed for this seller (first: {known[0].mp_order_number})")
    if others_are_known:
        page = await _first_page(client, Filters(page_size=_PAGE_SIZE))
        with state.read() as connection:
            facts = seller_facts.read(connection, seller.seller_id)
            strangers = known_orders.strangers_among(connection, cipher, facts, seller.seller_id, page.orders)
            foreign = known_orders.foreign_order(connection, facts, seller, strangers)
        if foreign is not None and not foreign.is_forced:
            other_id = foreign.other_id
            what.append(
                f"shows orders that were placed for seller {other_id} (first: {foreign.mp_order_number})"
            )
    return (f"its account {', and '.join(what)}" if what else None), other_id


async def _shows_any(client: FeedAmpClient, known: Sequence[KnownOrder]) -> bool:
    by_number = {order.mp_order_number: order for order in known}
    left = dict(by_number)
    for numbers in chunks_of_numbers(number for number in by_number if "," not in number):
        try:
            page = await _first_page(client, Filters(mp_order_numbers=tuple(numbers), page_size=_PAGE_SIZE))
        except NotFoundError:
            raise
        except RejectedError as error:
            if error.status not in (400, 414):
                raise
            continue  # the list is refused; the orders are requested one by one below
        if any(item.mp_order_number in by_number for item in page.unread):
            return True  # the account has the order, although it cannot be read
        for order in page.orders:
            wanted = left.pop(order.mp_order_number, None)
            if wanted is not None and not contradicts(order, wanted):
                return True
    for number, wanted in left.items():
        try:
            order, _ = await client.get_order(number)
        except NotFoundError:
            continue
        except UnreadableError:
            return True
        if not contradicts(order, wanted):
            return True
    return False


async def _first_page(client: FeedAmpClient, filters: Filters) -> OrderPage:
    async with aclosing(OrderPages(client, filters).pages()) as pages:
        return await anext(pages)
