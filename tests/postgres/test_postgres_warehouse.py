"""The merge into Postgres: what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from manifests import Loader
from postgres import Server
from postgres_warehouses import address_of

from feedamp.lake import Lake
from feedamp.warehouse.postgres import PostgresEngine

pytest.register_assert_rewrite("merge_contract")

from merge_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture(scope="module")
def open_loader(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Path], Loader]]:
    """One database, emptied for each loader."""
    nothing = Lake(str(tmp_path_factory.mktemp("nothing")))
    with closing(PostgresEngine(address_of(server.database()))) as engine:

        def opened(folder: Path) -> Loader:
            loader = Loader(folder, engine)
            with engine.transaction():
                engine.execute("SET search_path = feedamp")
            loader.session.replace_all(nothing)
            return loader

        yield opened
