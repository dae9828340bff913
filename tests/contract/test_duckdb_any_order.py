"""Loads in any order into DuckDB: what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from manifests import Loader

pytest.register_assert_rewrite("any_order_contract")

from any_order_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture(scope="module")
def open_loader() -> Callable[[Path], Loader]:
    return Loader
