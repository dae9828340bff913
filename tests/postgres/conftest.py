"""One Postgres server for the session, and a migrated database for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest
from postgres import NoServerError, Server, serving
from processes import Crew, crew

from feedamp.state import State


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    try:
        with serving() as running:
            yield running
    except NoServerError as error:
        if os.environ.get("CI"):
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        pytest.skip(
            str(error)
        )  # said aloud at the end of the run; CI installs the server and fails without it


@pytest.fixture
def url(server: Server) -> str:
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
