"""The views in DuckDB: what holds for every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from manifests import Loader, emptied

pytest.register_assert_rewrite("view_contract", "scorecard_contract")

from scorecard_contract import *  # noqa: E402, F403 - the tests
from view_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture(scope="module")
def open_loader() -> Iterator[Callable[[Path], Loader]]:
    """One database in memory, emptied for each loader."""
    with closing(Loader(Path())) as first:
        yield emptied(first.engine)
