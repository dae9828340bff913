"""What must hold when two processes do the same thing at the same moment, each with its own connections."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
from processes import PATIENCE_S, ask_after_each_expiry, crew, make_key, open_state, take_turns
from wire import KEY, add_seller

from feedamp.pacing import SPACING
from feedamp.sandbox import SandboxOptions, running
from feedamp.sandbox.probe import example_order
from feedamp.state import HEAD, State
from feedamp.vault import Vault


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
    # A process may be held up between its turn and its clock, so the whole is measured and not each gap.
    assert came[-1] - came[0] >= (len(came) - 2) * least_s


def test_each_expiry_is_refreshed_exactly_once(both, url):
    rounds, options = (
        4,
        SandboxOptions(sellers=3, requests_per_second=10_000, burst=10_000, revoke_on_reuse=True),
    )
    with running(options) as sandbox, closing(State(url)) as state:
        for seller in sandbox.sellers:
            add_seller(state, Vault(KEY), seller["seller_id"], seller["refresh_token"])
            for number in range(both.count):
                sandbox.world.orders.add(seller["seller_id"], example_order(f"M-{number}"), state.now())
        sellers = [seller["seller_id"] for seller in sandbox.sellers]

        def let_tokens_end_after_each_round():
            for _ in range(rounds):
                both.meeting.wait(PATIENCE_S)
                both.meeting.wait(PATIENCE_S)
                sandbox.expire_access_tokens()

        credentials = ("feedamp_default", sandbox.client_id, sandbox.client_secret)
        read = both.run(
            ask_after_each_expiry,
            url,
            KEY,
            sandbox.api,
            credentials,
            sellers,
            rounds,
            rounds=let_tokens_end_after_each_round,
        )
        refreshes = Counter(r.seller_id for r in sandbox.requests if r.path.endswith("/access_token"))
        assert read == [rounds * len(sellers)] * both.count
        assert refreshes == dict.fromkeys(sellers, rounds)
        assert sandbox.broken_rules == []
