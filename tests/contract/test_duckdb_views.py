"""The views in DuckDB: what holds for every engine."""

from __future__ import annotations

import pytest
from manifests import Loader

pytest.register_assert_rewrite("view_contract")

from view_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture(scope="module")
def open_loader() -> type[Loader]:
    return Loader
