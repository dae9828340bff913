"""The whole env, for tests of steps; see tests/support/env.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from completeness import lived_in, lives  # noqa: F401 - fixtures
from env import BAD_NUMBER, Env, open_env, shipment


@pytest.fixture
def env(request: pytest.FixtureRequest) -> Iterator[Env]:
    """In memory, unless a test is about the file of the warehouse, or about a merge that fails, and says so by its mark."""
    needs_file = request.node.get_closest_marker("warehouse_file")
    folder: Path | None = request.getfixturevalue("tmp_path") if needs_file else None
    at_once = request.node.get_closest_marker("merges_at_once") is not None
    with open_env(folder, merges_at_once=at_once) as opened:
        yield opened


@pytest.fixture
def no_rule_is_broken(env: Env) -> Iterator[None]:
    yield
    assert env.sandbox.broken_rules == []


@pytest.fixture
def placed(env: Env) -> Env:
    """M-1 is placed and partly shipped since."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(1))
    return env


@pytest.fixture
def mistyped(env: Env) -> Iterator[Env]:
    """M-1 is shipped whole under a tracking number that cannot be right."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(2, BAD_NUMBER))
    env.see("M-1")
    yield env
    assert env.sandbox.broken_rules == []


@pytest.fixture
def shipped(env: Env) -> Iterator[Env]:
    """M-1 is shipped whole, seen and validated: it can be closed."""
    env.placed("M-1")
    env.fulfill("M-1", shipment(2))
    env.see("M-1")
    env.validate()
    yield env
    assert env.sandbox.broken_rules == []
