"""The warehouse, which analytics reads: one protocol, and one module per engine.

`merge.py` holds the SQL that the engines share, `engine.py` the protocol that it needs. An engine that cannot run this
SQL implements `Warehouse` and `LoadSession` directly (docs/warehouse.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake


class LoadSession(Protocol):
    """An open warehouse; no other process can load it meanwhile."""

    def load(self, lake: Lake, manifest: Manifest) -> bool:
        """Merges a manifest's files in one transaction; newer snapshots win.

        Returns:
            False if the manifest was loaded before. Safe to repeat.

        Raises:
            IncompleteError: one of its files is missing or cannot be read; nothing was changed.
        """

    def load_again(self, lake: Lake, tables: Collection[str]) -> None:
        """Merges every manifest with rows of the named tables again, oldest first, which restores missing rows.

        Safe to repeat.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; earlier manifests are loaded.
        """

    def rows(
        self, table: str, columns: Sequence[str], keys: Sequence[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """The named columns of a table with an order key, for orders by (seller_id, mp_order_number)."""

    def purchased(
        self, seller_ids: Sequence[str], start: datetime, end: datetime
    ) -> Iterator[tuple[str, str]]:
        """(seller_id, mp_order_number) of `orders` purchased from `start` (inclusive) to `end` (exclusive)."""

    def absent(self, table: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The given rows that the table lacks; all have the same columns, and null equals null."""

    def torn_orders(self, seller_ids: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
        """(table, seller_id, mp_order_number) where the units in a table differ from the totals of the order."""

    def loaded_manifests(self) -> set[str]:
        """Paths of the merged manifests."""

    def digests(self, table: str) -> dict[str, tuple[int, int]]:
        """(number of rows, sum of the hashes of their `row_keys`) of a table, by seller; `""` for rows without one.

        Equal on two engines if all keys are equal (`missing_rows.digests`).
        """

    def row_keys(self, table: str, seller_id: str, after: Sequence[Any], limit: int) -> list[dict[str, Any]]:
        """Keys of a seller's rows after a key, in key order; for `orders`, with the snapshot hash.

        `after` is exclusive, and empty for the first portion; an empty seller means rows without one.
        """

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of placed orders (`placed`), closures (`closed`) and `findings`, each by seller."""


class Warehouse(Protocol):
    """A warehouse with the tables of `tables.py` in schema `feedamp`."""

    @property
    def shown(self) -> str:
        """Its location, without secrets, for messages."""

    lock_wait_s: float
    """How long to wait for another process before `BusyError` is raised."""

    def session(self, *, wait_s: float | None = None) -> AbstractContextManager[LoadSession]:
        """Opens the warehouse and creates or upgrades its schema; waits at most `wait_s`, or `lock_wait_s`, for others.

        Raises:
            BusyError: another process uses it; the message names that process.
        """

    def rebuild(self, lake: Lake) -> int:
        """Rebuilds the warehouse from all manifests of the lake; returns how many.

        The old content remains until the new one is complete. Safe to repeat.

        Raises:
            BusyError: another process uses it; the message names that process.
            IncompleteError: a file of the lake is missing or cannot be read; nothing was changed.
        """
