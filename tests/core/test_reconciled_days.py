"""Which UTC days a reconciliation compares."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from feedamp.errors import ConfigurationError
from feedamp.rules.reconciled_days import asked_days

MARCH_1, MARCH_31 = date(2026, 3, 1), date(2026, 3, 31)


@pytest.mark.parametrize(
    ("params", "days"),
    [
        pytest.param({}, None, id="nothing is asked for"),
        pytest.param({"day": None, "from": "", "to": None}, None, id="the form sends empty fields"),
        pytest.param({"day": "2026-03-01"}, (MARCH_1, MARCH_1), id="a day"),
        pytest.param({"from": "2026-03-01", "to": "2026-03-31"}, (MARCH_1, MARCH_31), id="a range"),
        pytest.param({"from": "2026-03-01", "to": "2026-03-01"}, (MARCH_1, MARCH_1), id="a range of one day"),
    ],
)
def test_a_run_by_hand_compares_the_days_that_it_is_asked_for(params: dict[str, Any], days: Any) -> None:
    assert asked_days(params, has_own_day=False) == days


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param(
            {"day": "2026-03-01", "from": "2026-03-01"}, "either `day`", id="a day and half a range"
        ),
        pytest.param(
            {"day": "2026-03-01", "from": "2026-03-01", "to": "2026-03-02"}, "either", id="all three"
        ),
        pytest.param({"from": "2026-03-01"}, "`from` is given", id="a range without an end"),
        pytest.param({"to": "2026-03-01"}, "`to` is given", id="a range without a start"),
        pytest.param({"from": "2026-03-02", "to": "2026-03-01"}, "ends before", id="backwards"),
        pytest.param({"day": "2026-02-30"}, "not a day", id="no such day"),
        pytest.param({"day": "2026-03-01T00:00:00Z"}, "not a day", id="a moment"),
        pytest.param({"from": "2016-01-01", "to": "2026-03-01"}, "too long", id="more than ten years"),
        pytest.param({"day": "9999-12-31"}, "too long", id="the last day of the calendar"),
    ],
)
def test_days_that_cannot_be_meant_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        asked_days(params, has_own_day=False)


@pytest.mark.parametrize("params", [{"day": "2026-03-01"}, {"from": "2026-03-01", "to": "2026-03-02"}])
def test_a_run_with_a_day_of_its_own_refuses_another(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="started by hand"):
        asked_days(params, has_own_day=True)
    assert asked_days({"day": None}, has_own_day=True) is None
