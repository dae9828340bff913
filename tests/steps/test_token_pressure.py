"""Tokens of many processes under pressure; `python tools/token_pressure.py` does it in full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from orphans import A_DAY_S, orphanage

from feedamp.errors import ClientRefusedError
from token_pressure import press


def test_every_expiry_is_refreshed_exactly_once(tmp_path: Path) -> None:
    outcome = press(tmp_path, url="", processes=4, expiries=10, sellers=5)
    assert (outcome.refreshes, outcome.refused, outcome.broken_rules) == ([11] * 5, 0, [])
    assert outcome.reads == 4 * 5 * 11


def test_with_a_grace_period_a_kill_before_the_store_loses_no_seller(tmp_path: Path) -> None:
    with orphanage(tmp_path, "", grace_s=A_DAY_S) as house:
        house.die_between_answer_and_store()
        assert house.extract("next")["sellers_failed"] == 0
        assert house.waiting() == []


def test_without_one_the_next_run_marks_who_was_lost_and_the_others_go_on(tmp_path: Path) -> None:
    with orphanage(tmp_path, "") as house:
        house.extract("before")
        house.clock.skip(hours=2)
        house.sandbox.fault("error_503", path="access_token", times=None, seller_id="seller-007")
        house.die_between_answer_and_store()
        house.sandbox.clear_faults()
        next_run, run_after = house.extract("next"), house.extract("after")
        lost = house.waiting()
    assert len(lost) >= 1
    assert "seller-007" not in lost
    assert sorted(note.partition(":")[0] for note in next_run["noted"]) == lost
    assert (next_run["undone"], run_after["undone"], run_after["noted"]) == ([], [], [])


def test_a_wrong_client_secret_marks_nobody(tmp_path: Path) -> None:
    with orphanage(tmp_path, "") as house:
        right, house.rooms = house.rooms, replace(house.rooms, client_secret="of-last-year")
        with pytest.raises(ClientRefusedError):
            house.extract("wrong")
        assert house.waiting() == []
        house.rooms = right
        assert house.extract("right")["sellers_failed"] == 0
