"""Rows missing in lake or warehouse are named and restored, with the warehouse on DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from env import Env

pytest.register_assert_rewrite("completeness_contract")

from completeness_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture
def lose(env: Env) -> Callable[[str], None]:
    def run(statement: str) -> None:
        with duckdb.connect(str(env.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    return run


@pytest.fixture
def read_rows(env: Env) -> Callable[[str], list[tuple[Any, ...]]]:
    return env.rows
