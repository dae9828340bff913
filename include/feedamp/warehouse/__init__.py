"""The warehouse, which analytics reads: one protocol, and one module per engine.

`merge.py` holds the SQL that the engines share, `engine.py` the protocol that it needs. An engine that cannot run this
SQL implements `Warehouse` and a session with the methods of `session.Session` (docs/warehouse.md).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from feedamp.lake.store import Lake
from feedamp.warehouse.session import Session, SetAside, ignore

if TYPE_CHECKING:
    import pyarrow as pa


class Warehouse(Protocol):
    """A warehouse with the tables of `tables.py` in schema `feedamp`."""

    @property
    def shown(self) -> str:
        """Its location, without secrets, for messages."""

    @property
    def lineage_name(self) -> tuple[str, str]:
        """Namespace and database, without secrets, as OpenLineage and its dbt integration name them."""

    @property
    def is_there(self) -> bool:
        """Whether its file or its server has been made; opening it makes the rest."""

    lock_wait_s: float
    """How long to wait for another process before `BusyError` is raised."""

    def session(self, *, wait_s: float | None = None) -> AbstractContextManager[Session]:
        """Opens the warehouse and creates or upgrades its schema; waits at most `wait_s`, or `lock_wait_s`, for others.

        Raises:
            BusyError: another process uses it; the message names that process.
        """

    def read(self, sql: str) -> pa.Table:
        """The rows of one SELECT, which can write nothing; waits at most `lock_wait_s` for others.

        Raises:
            BusyError: another process uses it; the message names that process.
            ConfigurationError: it cannot be opened, or refuses the statement.
        """

    def rebuild(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """Rebuilds the warehouse from all manifests of the lake; returns how many.

        The old content remains until the new one is complete. Safe to repeat.

        Raises:
            BusyError: another process uses it; the message names that process.
            IncompleteError: a file of the lake is missing or cannot be read; nothing was changed.
        """

    def erase(self, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
        """Deletes the rows of an order, or without a number of a seller, and what the engine keeps of deleted rows.

        Returns the deleted rows by table. Safe to kill and to repeat: a repeat also removes what is kept of rows that were
        deleted before.

        Raises:
            BusyError: another process uses it; the message names that process.
        """

    def left_by_erasing(self) -> str:
        """What `erase` cannot take out of the engine's files, with the remedy; empty if there is nothing."""
