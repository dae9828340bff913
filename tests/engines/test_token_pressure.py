"""Many processes that refresh tokens; `python tools/token_pressure.py` runs it at full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from orphans import A_DAY_S, orphanage

from feedamp.errors import ClientRefusedError
from token_pressure import press


def test_every_expiry_is_refreshed_exactly_once(tmp_path: Path, url: str) -> None:
    outcome = press(tmp_path, url=url, processes=4, expiries=10, sellers=5)
    assert (outcome.refreshes, outcome.refused, outcome.broken_rules) == ([11] * 5, 0, [])
    assert outcome.reads == 4 * 5 * 11


def test_with_a_grace_period_a_kill_before_the_store_loses_no_seller(tmp_path: Path, url: str) -> None:
    with orphanage(tmp_path, url, grace_s=A_DAY_S) as env:
        env.die_between_answer_and_store()
        assert env.extract("next")["sellers_failed"] == 0
        assert env.waiting() == []


def test_without_one_the_next_run_marks_lost_sellers_and_others_continue(tmp_path: Path, url: str) -> None:
    with orphanage(tmp_path, url) as env:
        env.extract("before")
        env.clock.skip(hours=2)
        env.sandbox.fault("error_503", path="access_token", times=None, seller_id="seller-007")
        env.die_between_answer_and_store()
        env.sandbox.clear_faults()
        next_run, run_after = env.extract("next"), env.extract("after")
        lost = env.waiting()
    assert len(lost) >= 1
    assert "seller-007" not in lost
    assert sorted(note.partition(":")[0] for note in next_run["noted"]) == lost
    assert (next_run["undone"], run_after["undone"], run_after["noted"]) == ([], [], [])


def test_a_wrong_client_secret_marks_no_seller(tmp_path: Path, url: str) -> None:
    with orphanage(tmp_path, url) as env:
        right, env.fixtures = env.fixtures, replace(env.fixtures, client_secret="of-last-year")
        with pytest.raises(ClientRefusedError):
            env.extract("wrong")
        assert env.waiting() == []
        env.fixtures = right
        assert env.extract("right")["sellers_failed"] == 0
