"""The Postgres server of state and warehouse ends in the middle of a step: it goes on, and no grant is lost.

`python tools/crashes --engine postgres` does the same a hundred times for each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from postgres import Server

from crashes import trial
from crashes.trial import Trials, rehearsed

pytestmark = pytest.mark.timeout(300)
IN_MEMORY = Path("/dev/shm")  # Linux


@pytest.fixture(scope="module")
def trials(server: Server) -> Iterator[Trials]:
    with TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        with rehearsed(Path(folder), server, rounds=1) as ready:
            yield ready


@pytest.mark.parametrize(("step", "victim"), [("place", "server killed"), ("refresh", "server stopped")])
def test_one_run_after_a_crash_of_the_server_nothing_differs(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, step: str, victim: str
) -> None:
    monkeypatch.setattr(trial, "VICTIMS", (victim,))
    stage = next(stage for stage in trials.stages if stage.step == step)
    result = trials.attempt(stage, random.Random(f"ci/{step}"), to_the_end=False)
    assert result.problems == [], result.deaths
