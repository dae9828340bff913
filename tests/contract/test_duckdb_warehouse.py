"""The merge into DuckDB: what holds for every engine."""

from __future__ import annotations

import pytest
from manifests import Loader

pytest.register_assert_rewrite("merge_contract")

from merge_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture(scope="module")
def open_loader() -> type[Loader]:
    return Loader
