"""Stores tracking numbers and their recipients, by seller and as keyed hashes.

How long, and for which recipient, a number counts as shared: `rules/shared_tracking.py`.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from feedamp.rules.shared_tracking import SHARED_WITHIN
from feedamp.state.columns import columns_of
from feedamp.state.schema import tracking_uses
from feedamp.state.statements import in_parts, is_any_of, upsert


class TrackingUses:
    """What is stored of the tracking numbers that some orders of a seller use now, or used before; `hashes` are of those.

    An order sees what orders before it have remembered. `write_all` comes last.
    """

    def __init__(
        self, connection: Connection, seller_id: str, numbers: Iterable[str], hashes: Iterable[str]
    ) -> None:
        self._connection = connection
        self._seller_id = seller_id
        self._by_hash: dict[str, dict[str, tuple[str, datetime]]] = {}
        self._by_number: dict[str, set[str]] = {}
        self._changed: set[tuple[str, str]] = set()
        for name, values in (("mp_order_number", numbers), ("tracking_hash", hashes)):
            for part in in_parts((seller_id, value) for value in dict.fromkeys(values)):
                of_part = columns_of(connection, tracking_uses, part, by=("seller_id", name))
                uses = zip(of_part["recipient_hash"], of_part["seen_at"], strict=True)
                for number, tracking_hash, use in zip(
                    of_part["mp_order_number"], of_part["tracking_hash"], uses, strict=True
                ):
                    self._set(number, tracking_hash, use)

    def _set(self, number: str, tracking_hash: str, use: tuple[str, datetime]) -> None:
        self._by_hash.setdefault(tracking_hash, {})[number] = use
        self._by_number.setdefault(number, set()).add(tracking_hash)

    def shared(
        self, mp_order_number: str, hashes: Iterable[str], recipient_hash: str, *, now: datetime
    ) -> set[str]:
        """Those of the hashes that another order of the seller used for another recipient within `SHARED_WITHIN`."""
        since = now - SHARED_WITHIN
        return {
            tracking_hash
            for tracking_hash in hashes
            if (uses := self._by_hash.get(tracking_hash))
            for number, (recipient, seen_at) in uses.items()
            if number != mp_order_number and recipient != recipient_hash and seen_at >= since
        }

    def remember(
        self, mp_order_number: str, hashes: Collection[str], recipient_hash: str, *, now: datetime
    ) -> None:
        """Records the tracking numbers that an order uses now, and removes those it no longer uses."""
        for tracking_hash in self._by_number.get(mp_order_number, set()).difference(hashes):
            del self._by_hash[tracking_hash][mp_order_number]
            self._by_number[mp_order_number].remove(tracking_hash)
            self._changed.add((mp_order_number, tracking_hash))
        for tracking_hash in hashes:
            self._set(mp_order_number, tracking_hash, (recipient_hash, now))
            self._changed.add((mp_order_number, tracking_hash))

    def write_all(self) -> None:
        """Writes what orders remember. Safe to repeat."""
        rows, gone = [], []
        for number, tracking_hash in sorted(self._changed):
            use = self._by_hash[tracking_hash].get(number)
            if use is None:
                gone.append((self._seller_id, number, tracking_hash))
            else:
                rows.append(
                    {
                        "seller_id": self._seller_id,
                        "mp_order_number": number,
                        "tracking_hash": tracking_hash,
                        "recipient_hash": use[0],
                        "seen_at": use[1],
                    }
                )
        for part in in_parts(gone):
            same = is_any_of(tuple(tracking_uses.primary_key), part)
            self._connection.execute(sa.delete(tracking_uses).where(same))
        upsert(self._connection, tracking_uses, rows)
        self._changed.clear()
