"""Manifests as steps publish them, and a warehouse to load them into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import duckdb

from feedamp.lake.flatten import order_rows, placed_rows
from feedamp.lake.manifest import Manifest, SellerProgress
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.lake.writer import LakeWriter
from feedamp.models import Cancellation, LineFulfillment, Order, OrderLine, Shipment
from feedamp.resources import Resources
from feedamp.settings import Settings
from feedamp.state import State
from feedamp.state.token_cipher import TokenCipher
from feedamp.tables import RECORDED_AT, TABLES, Rows, Table
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbEngine
from feedamp.warehouse.engine import Engine
from feedamp.warehouse.session import Session
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS

T0 = datetime(2026, 3, 10, 12, tzinfo=UTC)
KEY = {"seller_id": "S1", "mp_order_number": "M-1"}


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def order(*shipped: int, cancelled: int = 0, **changes: Any) -> Order:
    """M-1, three units of one line; each number is a shipment."""
    shipments = tuple(
        Shipment(quantity=q, carrier="UPS", tracking_number=f"1Z{q}", shipped_date=date(2026, 3, 9))
        for q in shipped
    )
    cancellations = (Cancellation(quantity=cancelled, reason="out_of_stock"),) if cancelled else ()
    fields: dict[str, Any] = {
        "mp_order_number": "M-1",
        "marketplace_state": "AWAITING_SHIPMENT",
        "status": "IN_PROGRESS",
        "purchase_date": datetime(2026, 3, 2, 14, 5, tzinfo=UTC),
        "order_lines": (OrderLine(mp_line_number="A", quantity=3, unit_price=Decimal("25.50")),),
        "fulfillments": (
            LineFulfillment(mp_line_number="A", shipments=shipments, cancellations=cancellations),
        ),
    }
    return Order(**fields | changes)


def snapshot(shown: Order, hours: float) -> Rows:
    """Rows of an order read at an hour."""
    return order_rows("S1", shown, read_at=at(hours))


def placed(hours: float, state: str = "AWAITING_SHIPMENT", **changes: Any) -> Rows:
    """What `place` writes when FeedAMP first accepts M-1."""
    sent = order(fulfillments=None, status=None, marketplace_state=state, **changes)
    rows = placed_rows("S1", sent, placed_at=at(hours))
    return {**rows, **placement(hours, state)}


def placement(hours: float, state: str) -> Rows:
    moment = at(hours)
    row = {**KEY, "marketplace_state": state, "placed_at": moment, "source": "a.jsonl", "source_row": 1}
    return {"placements": [{**row, "run_id": "r", RECORDED_AT: moment}]}


def closure(hours: float, state: str = "SHIPPED") -> Rows:
    moment = at(hours)
    row = {**KEY, "marketplace_state": state, "units_shipped": 3, "units_cancelled": 0, "closed_at": moment}
    return {"closures": [{**row, "run_id": "r", RECORDED_AT: moment}]}


def finding(hours: float, state: str) -> Rows:
    row = {**KEY, "finding_id": "f1", "kind": "invalid_tracking", "state": state, "found_at": T0}
    return {"findings": [{**row, RECORDED_AT: at(hours)}]}


def published(lake: Lake, number: int, *batches: Rows, sweeps: Sequence[SellerProgress] = ()) -> Manifest:
    """The manifest of a run or a backfill, the `number`-th, with all these rows."""
    writer = LakeWriter(lake, f"extract-{number:03}", 0, day=T0.date(), privacy=Privacy(None))
    for rows in batches:
        for table, table_rows in rows.items():
            writer.append(table, table_rows)
    return writer.publish(created_at=at(number), dag_id="d", run_id=f"r{number}", sweeps=sweeps)


def stores(
    state: State, lake: Lake, *, warehouse: Warehouse | None = None, cipher: TokenCipher | None = None
) -> Resources:
    """What a step needs that sends nothing."""
    nothing = cast("Any", None)
    return Resources(
        state, cipher or nothing, lake, warehouse or nothing, Settings(""), Privacy(None), nothing, nothing
    )


class Loader:
    """A lake on disk and a session of a warehouse; by default a DuckDB in memory, where nothing waits for a disk."""

    def __init__(
        self, folder: Path, engine: Engine | None = None, tables: Mapping[str, Table] = TABLES
    ) -> None:
        self.lake = Lake(str(folder / "lake"))
        self._published = 0
        self.engine = engine or in_memory()
        self._made_by_us = engine is None
        with self.engine.transaction():
            prepare(self.engine, tables, VIEWS)
        self.session = Session(self.engine, tables)

    def close(self) -> None:
        if self._made_by_us and isinstance(self.engine, DuckDbEngine):
            self.engine._connection.close()

    def empty(self) -> None:
        """Takes every row out again; much faster than another database."""
        self.session.replace_all(Lake(f"{self.lake.root}-of-nothing"))

    def publish(self, *batches: Rows) -> Manifest:
        """One manifest with all these rows."""
        self._published += 1
        return published(self.lake, self._published, *batches)

    def load(self, *batches: Rows) -> None:
        """A manifest for each of the rows, loaded one after the other."""
        for rows in batches:
            self.session.load(self.lake, self.publish(rows))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query; tables without schema name."""
        with self.engine.transaction():
            return [tuple(row.values()) for row in self.engine.rows(sql)]

    def tables(self) -> dict[str, list[str]]:
        """Every row of every table, sorted."""
        return {
            name: sorted(map(repr, self.query(f"SELECT {', '.join(TABLES[name].names)} FROM {name}")))
            for name in TABLES
        }


def in_memory(*, for_few_rows: bool = False) -> DuckDbEngine:
    """A DuckDB of its own; `for_few_rows`: without what makes only many faster, as a plan costs twice as much as all else."""
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA feedamp; SET search_path = 'feedamp'")
    if for_few_rows:
        kept = ("filter_pushdown", "join_order")  # else a join is a product of all rows
        names = [name for (name,) in connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()]
        disabled = ",".join(name for name in names if name not in kept)
        connection.execute(f"SET disabled_optimizers = '{disabled}'")
    return DuckDbEngine(connection)


def emptied(engine: Engine) -> Callable[[Path], Loader]:
    """Opens one loader after the other on the same database, each time with nothing in it."""

    def opened(folder: Path) -> Loader:
        loader = Loader(folder, engine)
        loader.session.replace_all(Lake(str(folder / "nothing")))
        return loader

    return opened
