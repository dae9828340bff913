"""A state of the test's own, on its clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crashes.clock import Clock
    from feedamp.state import State


@pytest.fixture
def state(clock: Clock) -> Iterator[State]:
    from wire import opened_state

    with opened_state(clock) as opened:
        yield opened
