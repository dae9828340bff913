"""What a run is to compare and has compared, by day and seller; the tasks of a run find each other's work here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime

from feedamp.resources import Resources
from feedamp.rules.reconciled_days import ALL_SELLERS, CheckedDay, Counts, days_until
from feedamp.run import Run
from feedamp.state import reconciliation_days, sellers, step_runs
from feedamp.state.statements import in_parts

# Orders to compare: number -> the UTC day of the run that it belongs to, None if it is compared for another reason.
Planned = dict[str, date | None]


def record_plan(
    resources: Resources,
    run: Run,
    start: datetime,
    end: datetime,
    seller_ids: Sequence[str],
    by_seller: Mapping[str, Planned],
) -> None:
    """Records the orders of days from `start` (inclusive) to `end` (exclusive) as not compared yet.

    So a task that never starts leaves no clean day. Days in the future are left out. A run for all sellers adds one row a
    day, whatever their number; sellers that it was asked for by name have rows of their own, also without orders.
    """
    now = resources.state.now()
    planned: dict[tuple[date, str], Counts] = {}
    for seller_id, numbers in by_seller.items():
        for day in filter(None, numbers.values()):
            planned.setdefault((day, seller_id), Counts()).planned += 1
    covered = [ALL_SELLERS]
    if seller_ids:
        with resources.state.read() as connection:
            ready = sellers.workable(connection, seller_ids=list(seller_ids))
        covered = [seller.seller_id for seller in ready]
    for day in days_until(
        start, min(end, now)
    ):  # after the orders: they must not look covered if this task dies
        for seller_id in covered:
            planned.setdefault((day, seller_id), Counts())
    rows = [CheckedDay(*key, run.run_id, now, counts) for key, counts in planned.items()]
    for part in in_parts(rows):
        with resources.state.begin() as connection:
            reconciliation_days.write(connection, part, now=now)


def run_counts(resources: Resources, run: Run, of_shards: Collection[int]) -> Counts:
    """What the newest tries of a run's tasks have found together."""
    total = Counts()
    with resources.state.read() as connection:
        for shard, outcome in step_runs.outcomes(connection, run.key, "reconcile").items():
            if shard in of_shards:
                total.add(Counts.decode(outcome))
    return total
