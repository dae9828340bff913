"""Watches for accounts that belong to another seller: both sellers are paused as soon as orders prove it.

If the grant of one of the two was accepted with `--force`, such orders are listed as action required and pause neither.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from sqlalchemy.engine import Connection

from feedamp.errors import AuthorizationError
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.state import known_orders, seller_facts, sellers
from feedamp.state.known_orders import MARKS_PER_SELLER, ForeignOrder
from feedamp.state.seller_facts import SellerFacts
from feedamp.state.sellers import Seller

log = logging.getLogger(__name__)


class Evidence(NamedTuple):
    """Of the orders of pages, those that the ledger does not have as the seller's own, one that is another seller's, and one
    that another account has shown."""

    facts: SellerFacts
    strangers: Mapping[str, Order]
    foreign: ForeignOrder | None
    shared: ForeignOrder | None


class AccountWatch:
    def __init__(self, resources: Resources, seller: Seller, *, is_marked: bool) -> None:
        """`is_marked` says whether marks of orders in the seller's account are stored."""
        self._resources = resources
        self._seller = seller
        self._is_first_check = not is_marked
        self._is_marked = is_marked
        self._has_warned = False

    def look(self, connection: Connection, remote_orders: Sequence[Order]) -> Evidence:
        """What the state knows of the orders of pages; give it to `judge` before any of them is stored.

        Raises a PausedError if the seller is paused, or was removed since the work began.
        """
        facts = seller_facts.read(connection, self._seller.seller_id)
        if not facts.is_served:
            raise sellers.paused_error(self._seller.seller_id)
        strangers = known_orders.strangers_among(
            connection, self._resources.cipher, facts, self._seller.seller_id, remote_orders
        )
        return Evidence(
            facts,
            strangers,
            known_orders.foreign_order(connection, facts, self._seller, strangers),
            # Without marks of its own it could be that neither of two sellers finds the other's: first they are kept.
            known_orders.shared_order(connection, facts, self._seller, strangers)
            if self._is_first_check and self._is_marked
            else None,
        )

    def judge(self, seen: Evidence) -> None:
        """Pauses both sellers if pages contain an order that was placed for another seller.

        Someone has to decide which of the two accounts is wrong.

        When an account is read for the first time, the orders that this ledger did not place are also compared with
        those that other accounts have shown. A match is listed as action required for both sellers and pauses neither.
        The same holds, on any page, for an order of another seller if a grant was accepted with `--force`. Safe to
        repeat. Raises an AuthorizationError if both sellers are paused.
        """
        if seen.foreign is not None:
            self._handle_foreign(seen.foreign)
        if self._is_first_check and seen.strangers:
            shared = seen.shared if self._is_marked else self._shared_of_first(seen)
            if shared is not None:
                evidence = self._record_mix_up(
                    shared, "shows the same orders as that of seller", is_proven=False
                )
                self._warn(evidence)
                self._is_first_check = False

    def _handle_foreign(self, foreign: ForeignOrder) -> None:
        if foreign.is_forced and self._has_warned:
            return
        evidence = self._record_mix_up(
            foreign, "shows orders that were placed for seller", is_proven=not foreign.is_forced
        )
        if not foreign.is_forced:
            raise AuthorizationError(
                f"Both sellers are paused: {evidence}; `feedamp doctor` says what to do.",
                seller_id=self._seller.seller_id,
            )
        self._warn(evidence)

    def _shared_of_first(self, seen: Evidence) -> ForeignOrder | None:
        """Stores the marks before those of other sellers are read, so that of two sellers read at the same time, at least one
        finds the other's marks. Orders that were erased meanwhile are left out."""
        marked = list(islice(known_orders.marks_of(seen.strangers.values()), MARKS_PER_SELLER))
        if not marked:
            return None
        seller_id = self._seller.seller_id
        with self._resources.state.begin() as connection:
            erased = self._resources.erased(connection)
            strangers = {
                number: order for number, order in seen.strangers.items() if not erased.has(seller_id, number)
            }
            kept = [one for one in marked if one[1] in strangers]
            known_orders.keep_marks(connection, seller_id, kept)
        self._is_marked = True
        with self._resources.state.read() as connection:
            return known_orders.shared_order(connection, seen.facts, self._seller, strangers)

    def _warn(self, evidence: str) -> None:
        log.warning("Two sellers may hold tokens for one account: %s; see `feedamp doctor`.", evidence)
        self._has_warned = True

    def _record_mix_up(self, order: ForeignOrder, finding: str, *, is_proven: bool) -> str:
        evidence = (
            f"the account of seller {self._seller.seller_id} {finding} {order.other_id} "
            f"(first: {order.mp_order_number})"
        )
        with self._resources.state.begin() as connection:
            sellers.note_mix_up(
                connection,
                self._seller.seller_id,
                order.other_id,
                words=evidence,
                is_proven=is_proven,
                now=self._resources.state.now(),
            )
        return evidence
