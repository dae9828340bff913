"""What an account shows while it is read: orders placed for another seller of ours stop both sellers at once.

Where a person took the grant of one of the two with `--force`, they are action required for both and stop neither.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from feedamp.errors import AuthorizationError
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.state import known_orders, sellers
from feedamp.state.known_orders import ForeignOrder
from feedamp.state.sellers import Seller

log = logging.getLogger(__name__)


class AccountWatch:
    """Looks at the pages of one seller's account."""

    def __init__(self, resources: Resources, seller: Seller) -> None:
        self._resources = resources
        self._seller = seller
        with resources.state.read() as connection:
            self._is_first_look = not known_orders.is_marked(connection, seller.seller_id)
        self._is_marked = not self._is_first_look
        self._has_warned = False

    def look(self, shown: Sequence[Order]) -> None:
        """Pauses both sellers if the page proves that the account shows orders placed for another one.

        Which of the two accounts is the wrong one, a person must say: call it before anything of the page is taken. At
        the first look at an account, orders that we did not place are compared with those that other accounts have
        shown; an equal one is action required for both sellers and stops neither. So is, at any look, an order of a
        seller whose grant was taken with `--force`. Safe to repeat.

        Raises:
            AuthorizationError: both sellers are paused.
        """
        if not shown:
            return
        with self._resources.state.read() as connection:
            foreign = known_orders.foreign_order(connection, self._seller, shown)
        if foreign is not None:
            self._note_foreign(foreign)
        if self._is_first_look:
            self._compare_with_other_accounts(shown)

    def _note_foreign(self, foreign: ForeignOrder) -> None:
        if foreign.is_forced and self._has_warned:
            return
        what = "shows orders that were placed for seller"
        words = self._note(foreign, what, is_proven=not foreign.is_forced)
        if not foreign.is_forced:
            raise AuthorizationError(
                f"Both sellers are paused: {words}; `feedamp doctor` names what to do.",
                seller_id=self._seller.seller_id,
            )
        self._warn(words)

    def _compare_with_other_accounts(self, shown: Sequence[Order]) -> None:
        with self._resources.state.read() as connection:
            marked = known_orders.marks_of(connection, self._seller, shown)
        if marked and not self._is_marked:
            # Before others' marks are looked for: of two sellers who are read at once, one meets the other's.
            with self._resources.state.begin() as connection:
                known_orders.keep_marks(connection, self._seller.seller_id, marked)
            self._is_marked = True
        with self._resources.state.read() as connection:
            shared = known_orders.shared_order(connection, self._seller, marked)
        if shared is not None:
            words = self._note(shared, "shows the same orders as that of seller", is_proven=False)
            self._warn(words)
            self._is_first_look = False

    def _warn(self, words: str) -> None:
        log.warning("Two sellers may hold tokens for one account: %s; see `feedamp doctor`.", words)
        self._has_warned = True

    def _note(self, order: ForeignOrder, what: str, *, is_proven: bool) -> str:
        words = (
            f"the account of seller {self._seller.seller_id} {what} {order.other_id} "
            f"(first: {order.mp_order_number})"
        )
        with self._resources.state.begin() as connection:
            sellers.note_mix_up(
                connection, self._seller.seller_id, order.other_id, words=words, is_proven=is_proven
            )
        return words
