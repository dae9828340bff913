"""What must hold when two processes do the same thing at the same moment, each with its own connections."""

from __future__ import annotations

import pytest
from expiries import SELLERS, Outcome, read_through_expiries
from processes import crew, make_key, open_state, take_turns

from feedamp.api.rate_limit import SPACING
from feedamp.state import HEAD, State


@pytest.fixture(scope="module")
def both():
    with crew(2) as together:
        yield together


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/state.db"


@pytest.mark.parametrize("attempt", range(3))
def test_a_fresh_file_is_opened_by_both_at_once(both, url, attempt):
    assert both.run(open_state, url) == [HEAD] * both.count


@pytest.mark.parametrize("attempt", range(3))
def test_both_end_up_with_the_one_key_that_was_made(both, tmp_path, attempt):
    keys = both.run(make_key, str(tmp_path / "state.db"))
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.db.key"]


def test_both_together_keep_to_the_rate(both, url):
    State(url).close()
    came = sorted(moment for moments in both.run(take_turns, url, 8) for moment in moments)
    least_s = 0.01 * SPACING
    # A process may be delayed between its slot and its clock, so the total is measured and not each gap.
    assert came[-1] - came[0] >= (len(came) - 2) * least_s


def test_each_expiry_is_refreshed_exactly_once(both, url):
    outcome = read_through_expiries(both, url, rounds=4)
    assert outcome == Outcome([4 * SELLERS] * both.count, [4] * SELLERS, [])
