"""Watches for accounts that belong to another seller: both sellers are paused as soon as orders prove it.

If the grant of one of the two was accepted with `--force`, such orders are listed as action required and pause neither.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.engine import Connection

from feedamp.errors import AuthorizationError
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.state import known_orders, sellers
from feedamp.state.known_orders import ForeignOrder
from feedamp.state.sellers import Seller

log = logging.getLogger(__name__)


class Evidence(NamedTuple):
    """Of the orders of pages, those that the ledger does not have as the seller's own, and one that is another seller's."""

    strangers: Mapping[str, Order]
    foreign: ForeignOrder | None


class AccountWatch:
    def __init__(self, resources: Resources, seller: Seller, *, is_marked: bool) -> None:
        """`is_marked` says whether marks of orders in the seller's account are stored."""
        self._resources = resources
        self._seller = seller
        self._is_first_check = not is_marked
        self._is_marked = is_marked
        self._has_warned = False

    def look(self, connection: Connection, remote_orders: Sequence[Order]) -> Evidence:
        """What the state knows of the orders of pages; give it to `judge` before any of them is stored."""
        strangers = known_orders.strangers_among(
            connection, self._resources.cipher, self._seller.seller_id, remote_orders
        )
        return Evidence(strangers, known_orders.foreign_order(connection, self._seller, strangers))

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
            self._compare_with_other_accounts(seen.strangers)

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

    def _compare_with_other_accounts(self, strangers: Mapping[str, Order]) -> None:
        marked = None if self._is_marked else self._keep_marks(known_orders.marks_of(strangers))
        with self._resources.state.read() as connection:
            if not known_orders.others_are_marked(connection, self._seller):
                return  # the marks of a page take a third as long as to decode it
            if marked is None:
                marked = known_orders.marks_of(strangers)
            shared = known_orders.shared_order(connection, self._seller, marked)
        if shared is not None:
            evidence = self._record_mix_up(shared, "shows the same orders as that of seller", is_proven=False)
            self._warn(evidence)
            self._is_first_check = False

    def _keep_marks(self, marked: Mapping[str, str]) -> Mapping[str, str]:
        """Stores the marks before those of other sellers are read, so that of two sellers read at the same time, at least one
        finds the other's marks. Returns those of orders that were not erased."""
        if not marked:
            return marked
        with self._resources.state.begin() as connection:
            erased = self._resources.erased(connection)
            marked = {
                digest: number
                for digest, number in marked.items()
                if not erased.has(self._seller.seller_id, number)
            }
            known_orders.keep_marks(connection, self._seller.seller_id, marked)
        self._is_marked = True
        return marked

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
