"""Nothing is missing in lake and warehouse, or it is named and comes back: on DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from house import House

pytest.register_assert_rewrite("completeness_contract")

from completeness_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture
def lose(house: House) -> Callable[[str], None]:
    def run(statement: str) -> None:
        with duckdb.connect(str(house.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    return run


@pytest.fixture
def read_rows(house: House) -> Callable[[str], list[tuple[Any, ...]]]:
    return house.rows
