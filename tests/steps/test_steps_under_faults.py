"""Every fault of the sandbox at every step where it matters: complete or honest, and whole with the next run.

What is compared, with a seller of the same env who was left alone: orders at FeedAMP, ledger, findings, snapshots,
and every table of the warehouse, but for times and ids; and the warehouse with what FeedAMP holds.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from fault_cases import CASES, OUTAGE, PLACES, Case
from fault_plays import outcomes

ROOT = Path(__file__).parents[2]
LAST_RESORT = "refresh_token_reused"  # a refused token with an older one still kept: that one is tried
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_a_disturbed_run_is_complete_or_says_what_is_missing(case: Case) -> None:
    outcome = outcomes(case.place)[case]
    assert outcome.recorded_complete is outcome.complete  # `runs` and the task say the same
    if outcome.complete:
        assert outcome.words == []
        assert outcome.was_whole or case.fault.late
    else:
        assert outcome.words != []
        assert not outcome.mark_moved


@every_case
def test_the_next_run_makes_it_whole_and_nothing_is_doubled(case: Case) -> None:
    outcome = outcomes(case.place)[case]
    needs_a_person = case.place == "dead token"
    if outcome.complete:
        runs = 0 if outcome.was_whole else 1
    else:
        runs = 2 if case.fault == OUTAGE or needs_a_person else 1
    assert (outcome.runs_until_whole, outcome.needed_a_person) == (runs, needs_a_person)
    assert outcome.differs_at_the_end == []
    assert [broken.rule for broken in outcome.broken_rules] == ([LAST_RESORT] if needs_a_person else [])


@pytest.mark.parametrize("place", [place for place in PLACES if place != "dead token"])
def test_a_whole_run_of_refusals_is_never_called_complete(place: str) -> None:
    hard = ("error_503", "reset_before", "throttle", "refuse_token")
    said = {
        str(case): outcome.complete
        for case, outcome in outcomes(place).items()
        if case.times is None and case.fault.kind in hard
    }
    assert len(said) >= 3
    assert [case for case, complete in said.items() if complete] == []


@pytest.mark.timeout(400)  # all faults at all places, some in real time
def test_the_fault_table_in_docs_is_what_its_program_makes_of_the_runs() -> None:
    program = runpy.run_path(str(ROOT / "tools" / "fault_table.py"))
    says = "run: python tools/fault_table.py --write"
    faults, _, _ = (ROOT / "docs" / "faults.md").read_text("utf-8").partition(program["TROUBLES_TITLE"])
    assert faults == program["render_faults"](), says
