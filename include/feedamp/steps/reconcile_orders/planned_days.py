"""What a run is to compare and has compared, by day and seller; the tasks of a run find each other's work here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime

from feedamp.resources import Resources
from feedamp.rules.reconciled_days import ALL_SELLERS, CheckedDay, Counts, days_until
from feedamp.run import Run
from feedamp.state import reconciliation_days, sellers, step_runs
from feedamp.state.statements import in_parts

log = logging.getLogger(__name__)
# Orders to compare: number -> the UTC day of the run that it belongs to, None if it is compared for another reason.
Planned = dict[str, date | None]


def record_plan(
    resources: Resources,
    run: Run,
    start: datetime,
    end: datetime,
    seller_ids: Sequence[str],
    by_seller: Mapping[str, Planned],
    *,
    began_at: datetime,
) -> None:
    """Records the orders of days from `start` (inclusive) to `end` (exclusive) as not compared yet.

    So a task that never starts leaves no clean day. Days in the future are left out. A run for all sellers adds one row a
    day, whatever their number; sellers that it was asked for by name have rows of their own, also without orders. So has a
    seller that an earlier run found orders of: they are gone, and what that run says of them must not stay.
    """
    planned: dict[tuple[date, str], Counts] = {}
    for seller_id, numbers in by_seller.items():
        for day in filter(None, numbers.values()):
            planned.setdefault((day, seller_id), Counts()).planned += 1
    days = days_until(start, min(end, began_at))
    with resources.state.read() as connection:
        ready = [seller.seller_id for seller in sellers.workable(connection, seller_ids=list(seller_ids))]
        earlier = list(reconciliation_days.keys_of(connection, days)) if not seller_ids else []
    can_be_read = set(ready)
    for day, seller_id in earlier:
        if seller_id in can_be_read:
            planned.setdefault((day, seller_id), Counts())
    for day in days:  # after the orders: they must not look covered if this task dies
        for seller_id in ready if seller_ids else [ALL_SELLERS]:
            planned.setdefault((day, seller_id), Counts())
    rows = [CheckedDay(*key, run.run_id, began_at, counts, began_at) for key, counts in planned.items()]
    _write(resources, rows)


def record_gone(
    resources: Resources,
    run: Run,
    start: datetime,
    end: datetime,
    seller_ids: Collection[str],
    by_seller: Mapping[str, Planned],
    *,
    began_at: datetime,
) -> None:
    """Ends what this run has planned for days of these sellers that have no order to compare any longer."""
    with resources.state.read() as connection:
        unfinished = reconciliation_days.unfinished(connection, run.run_id, seller_ids, start, end)
    gone = [
        replace(found, checked_at=began_at, counts=found.counts.without_remaining())
        for found in unfinished
        if found.day not in by_seller.get(found.seller_id, {}).values()
    ]
    _write(resources, gone)


def _write(resources: Resources, days: Sequence[CheckedDay]) -> None:
    """Stores days, but none of a seller that was erased meanwhile."""
    for part in in_parts(days):
        with resources.state.begin() as connection:
            erased = resources.erased(connection)
            left = [day for day in part if not erased.has_seller(day.seller_id)]
            reconciliation_days.write(connection, left, now=resources.state.now())


def run_counts(resources: Resources, run: Run, of_shards: Collection[int]) -> Counts:
    """What the newest tries of a run's tasks have found together; a try that did not end adds nothing, and is named in the log."""
    total = Counts()
    with resources.state.read() as connection:
        found = step_runs.outcomes(connection, run.key, "reconcile")
    for shard in of_shards:
        if shard in found:
            total.add(Counts.decode(found[shard]))
    if silent := sorted(set(of_shards) - found.keys()):
        shards = ", ".join(str(shard) for shard in silent)
        log.warning("The sums of the run are without what did not end: reconcile, shard %s.", shards)
    return total
