"""Loads in any order into Postgres: what holds for every engine."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("any_order_contract")

from any_order_contract import *  # noqa: E402, F403 - the tests
