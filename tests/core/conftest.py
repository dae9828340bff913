"""A state of the test's own, on its clock; a lake of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crashes.clock import Clock
    from feedamp.lake.store import Lake
    from feedamp.state import State


@pytest.fixture
def state(clock: Clock) -> Iterator[State]:
    from wire import opened_state

    with opened_state(clock) as opened:
        yield opened


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    from feedamp.lake.store import Lake

    return Lake(str(tmp_path / "lake"))
