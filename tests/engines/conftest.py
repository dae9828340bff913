"""Tests of this folder run once on each engine: warehouses on DuckDB and Postgres, states on SQLite and Postgres.

Where no Postgres can be started, that half is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from completeness import Lives, lived_in, lives  # noqa: F401 - fixtures
from env import SELLER, Env, open_env, shipment
from manifests import Loader, emptied
from memory_warehouse import OpenWarehouse
from postgres import Server
from postgres_server import server  # noqa: F401 - a fixture
from postgres_warehouses import address_of, looking
from processes import Crew, crew

from crashes.clock import Clock
from feedamp.state import State
from feedamp.tables import Table
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.postgres import PostgresEngine, PostgresWarehouse

WAREHOUSES = ("duckdb", "postgres")
STATES = ("sqlite", "postgres")


@pytest.fixture(scope="module", params=WAREHOUSES)
def open_loader(request: pytest.FixtureRequest) -> Iterator[Callable[[Path], Loader]]:
    """Opens a loader on a folder; they share one database, which is emptied for each."""
    if request.param == "duckdb":
        with closing(Loader(Path())) as first:
            yield emptied(first.engine)
        return
    with closing(PostgresEngine(address_of(request.getfixturevalue("server").database()))) as engine:
        with engine.transaction():
            engine.execute("SET search_path = feedamp")
        yield emptied(engine)


@pytest.fixture
def loader(tmp_path: Path, open_loader: Callable[[Path], Loader]) -> Iterator[Loader]:
    with closing(open_loader(tmp_path)) as opened:
        yield opened


@pytest.fixture(params=WAREHOUSES)
def open_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[Mapping[str, Table]], Warehouse]:
    """The one warehouse of a test, with the tables asked for; an engine's own by default."""
    if request.param == "duckdb":
        path = str(tmp_path / "warehouse.duckdb")
        return lambda tables: DuckDbWarehouse(path, lock_wait_s=0.0, tables=tables)
    address = address_of(request.getfixturevalue("server").database())
    return lambda tables: PostgresWarehouse(address, lock_wait_s=0.0, tables=tables)


@pytest.fixture(scope="session")
def open_postgres(server: Server) -> Iterator[OpenWarehouse]:  # noqa: F811
    address = address_of(server.database())
    with closing(PostgresEngine(address)) as engine, looking(address) as reader:
        yield OpenWarehouse(engine, reader)


@pytest.fixture(params=WAREHOUSES)
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    """In memory, on a warehouse that stays open and is emptied for each test."""
    with open_env() as opened:
        if request.param == "postgres":
            warehouse = request.getfixturevalue("open_postgres")
            warehouse.empty()
            opened.use(warehouse)
        yield opened


def _show(env: Env) -> None:
    env.stock(2)
    env.fulfill("X-0", shipment(1), cancelled=1)
    env.placed("R-1", marketplace_state="PENDING")
    env.read()
    with env.sandbox.world.lock:
        env.sandbox.world.orders.get(SELLER, "R-1").marketplace_state = "AWAITING_SHIPMENT"
    env.reconcile(repair=True)
    env.clock.skip(minutes=5)
    env.load()


@pytest.fixture
def shown(env: Env, lives: Lives) -> Iterator[Env]:  # noqa: F811
    """An order that another system placed, shipped in part, and a reconciliation that found one of ours changed."""
    with closing((again := lives(env, _show)).state):
        yield again


@pytest.fixture(params=STATES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database for a state, with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    return str(request.getfixturevalue("server").database())


@pytest.fixture
def state(url: str) -> Iterator[State]:
    """A state at noon, whose clock keeps still."""
    with closing(State(url, clock=Clock(keeps_still=True).now)) as opened:
        yield opened


@pytest.fixture(scope="session")
def four() -> Iterator[Crew]:
    """Four processes."""
    with crew(4) as together:
        yield together
