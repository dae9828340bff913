"""What the daily proof of completeness says, and how much it compares."""

from __future__ import annotations

import pytest
from env import SELLER, Env

from feedamp.errors import BusyError
from feedamp.steps.completeness_proof import compare
from feedamp.steps.completeness_proof.compare import find_quickly, prove_completeness
from feedamp.steps.completeness_proof.found_differences import FoundDifferences


def test_the_proof_names_what_is_missing_and_the_way_out(lived_in: Env) -> None:
    assert prove_completeness(lived_in.resources) == []
    lived_in.change("DELETE FROM feedamp.placements")
    [problem] = prove_completeness(lived_in.resources)
    assert "9 in placements" in problem
    assert f"{SELLER} S-1: the warehouse has no row of it" in problem
    assert "`feedamp lake verify --repair`" in problem


def test_a_busy_warehouse_proves_nothing_and_says_so(lived_in: Env, caplog: pytest.LogCaptureFixture) -> None:
    lived_in.change("DELETE FROM feedamp.placements")
    with lived_in.resources.warehouse.session():
        assert prove_completeness(lived_in.resources) == []
        with pytest.raises(BusyError), FoundDifferences() as found:
            find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
    assert "The warehouse could not be checked for missing rows" in caplog.text


def test_a_large_ledger_is_counted_and_only_sellers_that_differ_are_compared(
    lived_in: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "ORDERS_COMPARED_QUICKLY", 3)
    with FoundDifferences() as found:
        words = find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
        assert ("counted by seller, not compared" in words, len(found), found.compared) == (True, 0, 0)
        lived_in.change("DELETE FROM feedamp.closures WHERE mp_order_number = 'S-1'")
        find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
        assert (found.counts(), found.compared) == ([("closures", SELLER, 1)], 7)
        monkeypatch.setattr(compare, "SELLERS_COMPARED_QUICKLY", 0)
        words = find_quickly(lived_in.resources, lived_in.resources.warehouse, found)
        assert "fewer rows than the state for 1 seller," in words


def test_the_daily_proof_counts_a_large_ledger(
    lived_in: Env, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "ORDERS_COMPARED_QUICKLY", 3)
    with caplog.at_level("INFO"):
        assert prove_completeness(lived_in.resources) == []
    assert "9 orders were counted by seller" in caplog.text
