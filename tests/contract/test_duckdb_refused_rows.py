"""Rows that DuckDB refuses: what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from manifests import Loader

from feedamp.lake.store import Lake
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.session import Session, SetAside

pytest.register_assert_rewrite("refused_contract")

from refused_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture
def open_loader() -> Callable[[Path], Loader]:
    return Loader


@pytest.fixture
def open_rebuilt(tmp_path: Path) -> Callable[[Lake, SetAside], AbstractContextManager[Session]]:
    @contextmanager
    def rebuilt(lake: Lake, set_aside: SetAside) -> Iterator[Session]:
        warehouse = DuckDbWarehouse(str(tmp_path / "w.duckdb"))
        warehouse.rebuild(lake, set_aside)
        with warehouse.session() as session:
            yield session

    return rebuilt
