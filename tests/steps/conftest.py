"""The whole env, for tests of steps; see tests/support/env.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from completeness import live
from env import Env, open_env


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    with open_env(tmp_path) as opened:
        yield opened


@pytest.fixture
def lived_in(env: Env) -> Env:
    """Orders of two sellers in every state, everything loaded; see tests/support/completeness.py."""
    live(env)
    return env
