"""Every trouble of the machine in the middle of every step: the next try makes it whole, and nothing is sent twice.

What is compared, with an env that no one disturbed: orders at FeedAMP, ledger, findings, snapshots, every table of lake and
warehouse, what was sent to FeedAMP, and each seller's grant.
"""

from __future__ import annotations

import runpy
from concurrent.futures import Future
from pathlib import Path

import pytest
from postgres import Server
from trouble_plays import TROUBLES, Column, columns

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.timeout(300)
Played = dict[str, Future[Column]]


@pytest.fixture(scope="module")
def played(server: Server) -> Played:
    return columns(server)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_after_a_trouble_of_each_step_everything_is_as_without(played: Played, trouble: str) -> None:
    assert played[trouble].result().differences == []


def test_the_table_of_troubles_in_docs_is_what_its_program_makes_of_the_runs(played: Played) -> None:
    program = runpy.run_path(str(ROOT / "tools" / "fault_table.py"))
    _, title, rest = (ROOT / "docs" / "faults.md").read_text("utf-8").partition(program["TROUBLES_TITLE"])
    found = {trouble: column.result() for trouble, column in played.items()}
    assert title + rest == program["render_troubles"](found), "run: python tools/fault_table.py --write"
