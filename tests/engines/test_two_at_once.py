"""Two simultaneous runs in separate processes on one state have the result of two sequential runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pairs import CASES, Outcome, all_at_once
from processes import Crew, crew


@pytest.fixture(scope="module")
def both() -> Iterator[Crew]:
    with crew(2) as together:
        yield together


def test_two_at_once_do_what_one_after_the_other_does(both: Crew, tmp_path: Path, url: str) -> None:
    assert all_at_once(both, tmp_path, url) == dict.fromkeys(CASES, Outcome([], [], []))
