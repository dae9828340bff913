"""Opaque, signed page cursors that remember the filters they belong to (contract 7.3)."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import NoReturn

Refuse = Callable[[str, str], NoReturn]

NOT_FILTERS = ("cursor", "page_size")


class Cursors:
    """Makes and reads the cursors of one seller and one set of filters."""

    def __init__(self, key: bytes, seller_id: str, query: tuple[tuple[str, str], ...]) -> None:
        self._key = key
        filters = sorted(pair for pair in query if pair[0] not in NOT_FILTERS)
        self._filters = hashlib.sha256(repr((seller_id, filters)).encode()).hexdigest()[:12]

    def issue(self, position: str) -> str:
        """A cursor for the page after `position`; each call returns a different text."""
        payload = f"{position}.{self._filters}.{secrets.token_hex(3)}"
        return base64.urlsafe_b64encode(f"{payload}.{self._signature(payload)}".encode()).decode()

    def position(self, cursor: str, refuse: Refuse) -> str:
        """The position after which the page starts.

        Calls `refuse` for a cursor that is unknown or belongs to other filters.
        """
        try:
            payload, _, signature = base64.urlsafe_b64decode(cursor.encode()).decode("ascii").rpartition(".")
        except (binascii.Error, ValueError):
            refuse("unknown_cursor", "cursor")
        if not hmac.compare_digest(signature, self._signature(payload)):
            refuse("unknown_cursor", "cursor")
        position, filters, _ = payload.split(".")
        if filters != self._filters:
            refuse("cursor_with_other_filters", "cursor")
        return position

    def again(self, cursor: str | None) -> str:
        """A new cursor for the same position as `cursor`, which this class has issued; None is the start."""
        return self.issue(
            base64.urlsafe_b64decode(cursor.encode()).decode().partition(".")[0] if cursor else ""
        )

    def _signature(self, payload: str) -> str:
        return hmac.new(self._key, payload.encode(), hashlib.sha256).hexdigest()[:16]
