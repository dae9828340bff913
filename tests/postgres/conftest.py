"""One Postgres server for the session, and a migrated database for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from manifests import Loader, emptied
from postgres import Server
from postgres_server import server  # noqa: F401 - a fixture
from postgres_warehouses import address_of
from processes import Crew, crew

from feedamp.state import State
from feedamp.warehouse.postgres import PostgresEngine


@pytest.fixture
def url(server: Server) -> str:  # noqa: F811
    """A database at the newest schema, with nothing in it."""
    return server.database(server.template)


@pytest.fixture
def state(url: str) -> Iterator[State]:
    with closing(State(url)) as opened:
        yield opened


@pytest.fixture(scope="session")
def four() -> Iterator[Crew]:
    """Four processes."""
    with crew(4) as together:
        yield together


@pytest.fixture(scope="module")
def open_loader(server: Server) -> Iterator[Callable[[Path], Loader]]:  # noqa: F811
    """One database, emptied for each loader."""
    with closing(PostgresEngine(address_of(server.database()))) as engine:
        with engine.transaction():
            engine.execute("SET search_path = feedamp")
        yield emptied(engine)
