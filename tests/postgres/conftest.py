"""One Postgres server for the session, and a migrated database for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from postgres import Server
from postgres_server import server  # noqa: F401 - a fixture

from feedamp.state import State


@pytest.fixture
def url(server: Server) -> str:  # noqa: F811
    """A database at the newest schema, with nothing in it."""
    return server.database(server.template)


@pytest.fixture
def state(url: str) -> Iterator[State]:
    with closing(State(url)) as opened:
        yield opened
