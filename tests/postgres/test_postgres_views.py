"""The views in Postgres: what holds for every engine."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("view_contract", "scorecard_contract")

from scorecard_contract import *  # noqa: E402, F403 - the tests
from view_contract import *  # noqa: E402, F403 - the tests
