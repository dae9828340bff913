"""Where analytics read: one protocol, one file per engine.

`merge.py` is the SQL that engines share, `engine.py` what it asks of one; an engine of another kind implements
`Warehouse` and `LoadSession` by itself (docs/warehouse.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake


class LoadSession(Protocol):
    """The warehouse, held by this process alone."""

    def load(self, lake: Lake, manifest: Manifest) -> bool:
        """Merges a manifest's files in one transaction; newer snapshots win.

        Returns:
            False if the manifest was loaded before. Safe to repeat.

        Raises:
            IncompleteError: a file of it is missing or cannot be read; nothing was changed.
        """

    def load_again(self, lake: Lake, tables: Collection[str], orders: Sequence[tuple[str, str]]) -> None:
        """Merges every manifest with rows of some tables once more, oldest first: what is missing comes back.

        Of `orders`, by (seller_id, mp_order_number), the newest snapshot in the lake replaces what is there.
        Safe to repeat.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; what came before it is loaded.
        """

    def rows(
        self, table: str, columns: Sequence[str], keys: Sequence[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Some columns of a table with an order's key, of orders by (seller_id, mp_order_number)."""

    def purchased(
        self, seller_ids: Sequence[str], start: datetime, end: datetime
    ) -> Iterator[tuple[str, str]]:
        """(seller_id, mp_order_number) of `orders` purchased from `start` (inclusive) to `end` (exclusive)."""

    def absent(self, table: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those rows whose values no row of a table has; all rows name the same columns, and null equals null."""

    def torn_orders(self, seller_ids: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
        """(table, seller_id, mp_order_number) where a table holds other units than the order counts."""

    def loaded_manifests(self) -> set[str]:
        """Paths of the manifests that have been merged."""

    def digests(self, table: str) -> dict[str, tuple[int, int]]:
        """(rows, sum over a hash of what `row_keys` gives) of a table by seller; `""` where a row names none.

        Equal to those of another engine where all keys are equal (`missing_rows.digests`).
        """

    def row_keys(self, table: str, seller_id: str, after: Sequence[Any], limit: int) -> list[dict[str, Any]]:
        """Keys of a seller's rows beyond a key, in their order; of orders with the hash of their snapshot.

        `after` is exclusive, and empty to begin; an empty seller means rows that name none.
        """

    def counts(self) -> dict[str, dict[str, int]]:
        """How many orders with a placement (`placed`), closures (`closed`) and `findings` there are, by seller."""


class Warehouse(Protocol):
    """A warehouse with the tables of `tables.py` in schema `feedamp`."""

    @property
    def shown(self) -> str:
        """Where it is, in words that may stand in a message."""

    lock_wait_s: float
    """How long whoever needs the warehouse waits for it; longer is a fault."""

    def session(self, *, wait_s: float | None = None) -> AbstractContextManager[LoadSession]:
        """Opens the warehouse, its schema made if needed; waits at most `wait_s`, or `lock_wait_s`, for others.

        Raises:
            BusyError: another process holds it; the message names the holder.
        """

    def rebuild(self, lake: Lake) -> int:
        """Rebuilds the warehouse from all manifests of the lake; returns how many.

        The one before stays as it is until the new one is whole. Safe to repeat.

        Raises:
            BusyError: another process holds it; the message names the holder.
            IncompleteError: a file of the lake is missing or cannot be read; nothing was changed.
        """
