"""What can be seen of an env from outside: ledger, findings, FeedAMP, warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from env_fixtures import SELLER
from memory_warehouse import OpenWarehouse

from feedamp.resources import Resources
from feedamp.rules.finding import StoredFinding
from feedamp.rules.order import LedgerOrder
from feedamp.state import State, findings, ledger, open_orders, overview, rejects, watermarks
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp_sandbox import LoggedRequest, Sandbox
from feedamp_sandbox.views import full_view


class Views:
    """Looks; only `change` changes anything."""

    folder: Path
    resources: Resources
    state: State
    sandbox: Sandbox

    def order(self, number: str, seller: str = SELLER) -> LedgerOrder:
        """The order in the ledger."""
        with self.state.read() as connection:
            found = ledger.read(connection, seller, number)
        if found is None:
            raise KeyError(number)
        return found

    def phases(self) -> dict[str, int]:
        """How many orders of the ledger are in each phase."""
        with self.state.read() as connection:
            return overview.count_by_phase(connection)

    def held(self, number: str, seller: str = SELLER) -> open_orders.Held | None:
        """The newest snapshot in the state."""
        with self.state.read() as connection:
            return open_orders.read(connection, seller, number)

    def findings(self, number: str, seller: str = SELLER) -> list[StoredFinding]:
        with self.state.read() as connection:
            return findings.of_order(connection, seller, number)

    def finding_states(self, number: str) -> list[tuple[str, str]]:
        return [(finding.kind, finding.state) for finding in self.findings(number)]

    def rejects(self, *, everything: bool = False) -> list[rejects.Rejected]:
        with self.state.read() as connection:
            return rejects.read_open(connection, everything=everything)

    def reject_codes(self) -> list[tuple[str, str]]:
        """(stage, code) of every reason of current rejects."""
        return [(r.stage, reason["code"]) for r in self.rejects() for reason in r.reasons]

    def watermark(self, seller: str = SELLER) -> datetime | None:
        with self.state.read() as connection:
            return watermarks.read(connection, seller)

    def shown(self, number: str, seller: str = SELLER) -> dict[str, Any]:
        """What FeedAMP holds of an order."""
        with self.sandbox.world.lock:
            return full_view(self.sandbox._order(seller, number))

    def asked(self, method: str, path: str = "/orders") -> list[LoggedRequest]:
        """Requests of a method whose path contains `path`."""
        return [r for r in self.sandbox.requests if r.method == method and path in r.path]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the warehouse; tables without schema name."""
        with self._warehouse(read_only=True) as connection:
            return list(connection.execute(query).fetchall())

    def change(self, statement: str) -> None:
        """Loses or spoils rows of the warehouse."""
        with self._warehouse(read_only=False) as connection:
            connection.execute(statement)

    @contextmanager
    def _warehouse(self, *, read_only: bool) -> Iterator[Any]:
        """The driver's connection to the warehouse, DuckDB's or Postgres's."""
        warehouse: Any = self.resources.warehouse
        if isinstance(warehouse, OpenWarehouse):
            yield warehouse.connection
            return
        if not isinstance(warehouse, DuckDbWarehouse):
            from postgres_warehouses import looking  # its driver is an extra

            with looking(warehouse.address) as connection:
                yield connection
            return
        with closing(duckdb.connect(str(warehouse.path), read_only=read_only)) as connection:
            connection.execute("SET TimeZone = 'UTC'; SET search_path = 'feedamp'")
            yield connection
