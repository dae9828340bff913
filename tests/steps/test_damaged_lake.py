"""Damaged files of the lake with DuckDB as the warehouse: what holds for every engine."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("damage_contract")

from damage_contract import *  # noqa: E402, F403 - the tests
