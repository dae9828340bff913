"""`kill -9` in the middle of every step: one run later everything is as in an undisturbed run.

`python tools/crashes` does the same a hundred times for each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from crashes.trial import KILLED, Trials, rehearsed

# Two where FeedAMP may keep half of what the step did.
KILLS = {step: 2 if step in ("place", "close") else 1 for step in KILLED}
TO_THE_END = ("load", "close")  # one trial of each is played to the end; the others check one run ahead
pytestmark = pytest.mark.timeout(300)
IN_MEMORY = Path("/dev/shm")  # Linux


@pytest.fixture(scope="module")
def trials() -> Iterator[Trials]:
    with TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        with rehearsed(Path(folder)) as ready:
            yield ready


@pytest.mark.parametrize(("step", "number"), [(step, n) for step in KILLED for n in range(KILLS[step])])
def test_one_run_after_a_kill_nothing_differs(trials: Trials, step: str, number: int) -> None:
    stages = [stage for stage in trials.stages if stage.step == step]
    rng = random.Random(f"ci/{step}/{number}")
    result = trials.attempt(stages[number % len(stages)], rng, to_the_end=number == 0 and step in TO_THE_END)
    assert result.problems == [], result.deaths
