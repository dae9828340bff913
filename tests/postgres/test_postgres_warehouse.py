"""The merge into Postgres: what holds for every engine."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("merge_contract", "value_contract")

from merge_contract import *  # noqa: E402, F403 - the tests
from value_contract import *  # noqa: E402, F403 - the tests
