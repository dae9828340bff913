"""Later versions on a DuckDB file: what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from feedamp.tables import Table
from feedamp.warehouse.duckdb import DuckDbWarehouse

pytest.register_assert_rewrite("growth_contract")

from growth_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture
def open_warehouse(tmp_path: Path) -> Callable[[Mapping[str, Table]], DuckDbWarehouse]:
    return lambda tables: DuckDbWarehouse(str(tmp_path / "warehouse.duckdb"), tables=tables)
