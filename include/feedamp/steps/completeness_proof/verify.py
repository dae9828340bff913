"""Compares state, lake and warehouse; a repair restores missing rows, loads them and compares once more."""

import logging
from dataclasses import dataclass, field

from feedamp.errors import FeedAmpError
from feedamp.resources import Resources
from feedamp.rules.expected_rows import Difference
from feedamp.run import Run
from feedamp.steps.completeness_proof.compare import find_differences
from feedamp.steps.completeness_proof.found_differences import FoundDifferences
from feedamp.steps.completeness_proof.restore import give_up_missing, restore
from feedamp.steps.load import load_what_is_whole

log = logging.getLogger(__name__)


@dataclass
class Verified:
    """What a verification found.

    After a repair, `before` is the number of differences it started with, and the other fields describe what is left.
    `is_finished` is False if a seller, FeedAMP or the warehouse stopped a part of the repair.
    """

    compared: int = 0
    count: int = 0
    counts: list[tuple[str, str | None, int]] = field(default_factory=list)
    first: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before: int | None = None
    orders_read_again: int = 0
    is_finished: bool = True

    @property
    def is_whole(self) -> bool:
        """Nothing is missing, and nothing is left to repair."""
        return self.count == 0 and self.is_finished


async def verify(resources: Resources, run: Run, *, repair: bool = False) -> Verified:
    """Compares state, lake and warehouse; with `repair`, restores missing rows and compares once more.

    If a part of the repair fails because of a seller or FeedAMP, `notes` says so, and everything else is repaired. Safe
    to repeat: existing rows are not changed. Raises a BusyError if another process holds the warehouse.
    """
    with FoundDifferences() as found:
        find_differences(resources, found)
        if not repair:
            return _verified(found)
        before, notes, read_again, is_finished = len(found), [], 0, True
        given_up = give_up_missing(resources, found)
        try:
            result = await restore(resources, run, found)
            notes = [*result.notes, *result.undone]
            read_again, is_finished = result.orders, not result.undone
        except FeedAmpError as error:
            is_finished = False
            notes.append(f"The repair could not be finished: {error}")
        loaded = load_what_is_whole(resources, run)
        if loaded.problem is not None:
            notes.append(loaded.problem)
        elif loaded.busy is not None:
            notes.append(f"The restored rows wait for the next load: {loaded.busy}")
        found.clear()
        find_differences(resources, found)
        verified = _verified(found)
    verified.notes = list(dict.fromkeys([*given_up, *notes, *verified.notes]))
    verified.before, verified.orders_read_again = before, read_again
    verified.is_finished = is_finished and loaded.problem is None and loaded.busy is None
    return verified


def _verified(found: FoundDifferences) -> Verified:
    return Verified(found.compared, len(found), found.counts(), found.first(), list(found.notes))
