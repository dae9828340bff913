"""What a soak leaves behind: rows of the state, rows of the warehouse, and how much space they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from crashes.fixtures import Fixtures
from feedamp.lake.store import Lake
from feedamp.state import State, schema
from feedamp.tables import SCHEMA, TABLES

Rows = list[dict[str, Any]]
STATE_TABLES = (
    schema.orders,
    schema.snapshots,
    schema.findings,
    schema.rejected_orders,
    schema.outbox,
    schema.manifests,
)
NOT_READ = {"body", "raw", "payload", "delivered"}  # large, and not compared
WAREHOUSE_TABLES = (
    "orders",
    "order_lines",
    "shipments",
    "cancellations",
    "placements",
    "closures",
    "rejected_orders",
    "findings",
)


def state_rows(fixtures: Fixtures) -> dict[str, Rows]:
    """Ledger, snapshots, findings, rejects, what is still to be loaded.

    A manifest that is not loaded also has `is_published`: one of a writer that was killed may never be.
    """
    found: dict[str, Rows] = {}
    lake = Lake(str(fixtures.folder / "lake"))
    with closing(fixtures.open_state()) as state, state.read() as connection:
        for table in STATE_TABLES:
            columns = [column for column in table.columns if column.name not in NOT_READ]
            found[table.name] = [dict(row._mapping) for row in connection.execute(sa.select(*columns))]
    for row in found[schema.manifests.name]:
        row["is_published"] = row["loaded_at"] is not None or lake.read_manifest(row["path"]) is not None
    return found


def warehouse_rows(fixtures: Fixtures) -> dict[str, Rows]:
    """Rows of the tables that are compared; JSON as text, moments with zone."""
    found: dict[str, Rows] = {}
    with _warehouse(fixtures) as execute:
        for name in WAREHOUSE_TABLES:
            names = TABLES[name].names
            rows = execute(f"SELECT {', '.join(names)} FROM {SCHEMA}.{name}")
            found[name] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


@contextmanager
def _warehouse(fixtures: Fixtures) -> Iterator[Any]:
    if fixtures.postgres is not None:
        import psycopg

        with psycopg.connect(fixtures.postgres.conninfo) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield lambda sql: connection.execute(sql).fetchall()
        return
    with duckdb.connect(str(fixtures.folder / "warehouse.duckdb"), read_only=True) as file:
        file.execute("SET TimeZone = 'UTC'")
        yield lambda sql: file.execute(sql).fetchall()


@dataclass(frozen=True)
class Room:
    """What is stored, in bytes, files and rows."""

    state_bytes: int
    lake_bytes: int
    lake_files: int
    manifests: int
    manifests_that_count: int
    warehouse_bytes: int
    open_outbox_rows: int


def room(fixtures: Fixtures) -> Room:
    """How much space everything takes now."""
    lake = Lake(str(fixtures.folder / "lake"))
    files = [path for path in (fixtures.folder / "lake").rglob("*") if path.is_file()]
    published = lake.published()
    with closing(fixtures.open_state()) as state:
        with state.read() as connection:
            waiting = connection.execute(sa.select(sa.func.count()).select_from(schema.outbox)).scalar_one()
        state_bytes = _database_bytes(state)
    return Room(
        state_bytes=state_bytes,
        lake_bytes=sum(path.stat().st_size for path in files),
        lake_files=sum(path.suffix == ".parquet" for path in files),
        manifests=len(published),
        manifests_that_count=sum(1 for _ in lake.manifests()),
        warehouse_bytes=_warehouse_bytes(fixtures),
        open_outbox_rows=waiting,
    )


def _database_bytes(state: State) -> int:
    if state.url.get_backend_name() == "sqlite":
        files = [Path(f"{state.url.database}{ending}") for ending in ("", "-wal")]
        return sum(file.stat().st_size for file in files if file.exists())
    with state.read() as connection:
        size: int = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
        return size


def _warehouse_bytes(fixtures: Fixtures) -> int:
    if fixtures.postgres is None:
        path = fixtures.folder / "warehouse.duckdb"
        return path.stat().st_size if path.exists() else 0
    with _warehouse(fixtures) as execute:
        return int(execute("SELECT pg_database_size(current_database())")[0][0])
