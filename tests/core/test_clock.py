"""When the clock of an installation is refused, and when it is only doubted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from feedamp.rules.clock import doubt_of

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
REFUSED, DOUBTED, TRUSTED = True, False, None


@pytest.mark.parametrize(
    ("server_days", "newest_days", "verdict"),
    [
        pytest.param(0, 0, TRUSTED, id="both agree"),
        pytest.param(-0.9, -0.9, TRUSTED, id="both differ by less than a day"),
        pytest.param(-400, -400, REFUSED, id="both say that it is ahead"),
        pytest.param(400, 400, REFUSED, id="both say that it is behind"),
        pytest.param(-400, -403, REFUSED, id="it is ahead, after three idle days"),
        pytest.param(0, -3, DOUBTED, id="three idle days"),
        pytest.param(0, 400, DOUBTED, id="an earlier run had a wrong clock"),
        pytest.param(-400, 0, DOUBTED, id="a wrong Date"),
        pytest.param(-400, -3, DOUBTED, id="a Date before the newest moment, after three idle days"),
        pytest.param(400, -3, DOUBTED, id="a Date ahead, after three idle days"),
        pytest.param(None, 0, TRUSTED, id="no Date"),
        pytest.param(None, -400, DOUBTED, id="no Date, and the state contradicts"),
        pytest.param(-400, None, DOUBTED, id="a new installation"),
    ],
)
def test_a_clock_is_refused_only_if_both_witnesses_contradict_it(
    server_days: float | None, newest_days: float | None, verdict: bool | None
) -> None:
    server, newest = (
        None if days is None else NOW + timedelta(days=days) for days in (server_days, newest_days)
    )
    doubt = doubt_of(NOW, server_time=server, newest=newest)
    assert (doubt.is_refused if doubt else None) is verdict
