"""What an account shows while it is read: orders of another seller of ours stop both sellers at once."""

from __future__ import annotations

from collections.abc import Sequence

from feedamp.errors import AuthorizationError
from feedamp.models import Order
from feedamp.parts import Parts
from feedamp.state import known_orders, sellers
from feedamp.state.sellers import Seller


class AccountWatch:
    """Looks at the pages of one seller's account."""

    def __init__(self, parts: Parts, seller: Seller) -> None:
        self._parts = parts
        self._seller = seller
        with parts.state.read() as connection:
            self._is_first_look = not known_orders.is_marked(connection, seller.seller_id)
        self._is_marked = not self._is_first_look

    def look(self, shown: Sequence[Order]) -> None:
        """Pauses both sellers if the page proves that the account shows another seller's orders. Safe to repeat.

        Call it before anything of the page is taken: which of the two accounts is the wrong one, a person must say.

        Raises:
            AuthorizationError: both sellers are paused.
        """
        if not shown:
            return
        if not self._is_marked:
            self._keep_marks(shown)
        with self._parts.state.read() as connection:
            foreign = known_orders.foreign_order(
                connection, self._seller, shown, is_first_look=self._is_first_look
            )
        if foreign is None:
            return
        reason = f"the account of seller {self._seller.seller_id} shows {foreign}"
        with self._parts.state.begin() as connection:
            for one, other in (
                (self._seller.seller_id, foreign.other_id),
                (foreign.other_id, self._seller.seller_id),
            ):
                sellers.pause_mixed(connection, one, other, reason=reason)
        raise AuthorizationError(
            f"Both sellers are paused: {reason}; `feedamp doctor` names what to do.",
            seller_id=self._seller.seller_id,
        )

    def _keep_marks(self, shown: Sequence[Order]) -> None:
        """Before others' marks are looked for: of two sellers who are read at once, one meets the other's."""
        with self._parts.state.read() as connection:
            marked = known_orders.marks_of(connection, self._seller, shown)
        if marked:
            with self._parts.state.begin() as connection:
                known_orders.keep_marks(connection, self._seller.seller_id, marked)
                self._is_marked = known_orders.is_marked(connection, self._seller.seller_id)
