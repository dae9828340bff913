"""The whole env, for tests of steps; see tests/support/env.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from completeness import lived_in, lives  # noqa: F401 - fixtures
from env import Env, open_env


@pytest.fixture
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    """In memory, unless a test is about the file of the warehouse, or about a merge that fails, and says so by its mark."""
    needs_file = request.node.get_closest_marker("warehouse_file")
    folder: Path | None = request.getfixturevalue("tmp_path") if needs_file else None
    at_once = request.node.get_closest_marker("merges_at_once") is not None
    with open_env(folder, merges_at_once=at_once) as opened:
        yield opened
