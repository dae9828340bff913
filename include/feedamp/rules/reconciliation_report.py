"""PURE: what the newest reconciliations say about a range of days; `feedamp reconciliation report` prints it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby

from feedamp.rules.reconciled_days import ALL_SELLERS, DAY, CheckedDay, Counts, midnight


class Status(StrEnum):
    """What is known of a day, or of a seller's day."""

    EMPTY = "empty"
    NEVER_CHECKED = "never checked"
    DIFFERING = "differing"
    INCOMPLETE = "incomplete"
    REPAIRED = "repaired"
    CLEAN = "clean"


ACTION_REQUIRED = (Status.NEVER_CHECKED, Status.DIFFERING, Status.INCOMPLETE)


def status_of(counts: Counts, *, is_whole: bool = True) -> Status:
    """The status of what was compared; `is_whole`: no seller was left out."""
    if counts.left:
        return Status.DIFFERING
    if counts.remaining or counts.unread or not is_whole:
        return Status.INCOMPLETE
    return Status.REPAIRED if counts.differences else Status.CLEAN


@dataclass(frozen=True)
class ReportedDay:
    """One day of a report; `not_checked` are sellers with orders that no comparison has covered since the day was over."""

    day: date
    status: Status
    checked: list[CheckedDay] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counts:
        """The sums over its sellers."""
        return together(found.counts for found in self.checked)


def report_days(
    first: date,
    last: date,
    checked: Iterable[CheckedDay],
    *,
    ordered_by: Callable[[date], Collection[str]],
    known_sellers: Collection[str],
    first_order: date | None,
    now: datetime,
) -> Iterator[ReportedDay]:
    """Every day from `first` to `last` (inclusive).

    `checked` is in the order of its days; `ordered_by` names the sellers with orders on a day. A comparison that began
    before its day was over counts for nothing. Without a run for all sellers, each known seller must have been asked for.
    """
    groups = groupby(checked, key=lambda found: found.day)
    next_day, group = next(groups, (None, iter(())))
    for day in (first + n * DAY for n in range((last - first).days + 1)):
        found: list[CheckedDay] = []
        if next_day == day:
            found = [one for one in group if one.checked_at >= midnight(day + DAY)]
            next_day, group = next(groups, (None, iter(())))
        if first_order is None or day < first_order or midnight(day + DAY) > now:
            yield ReportedDay(day, Status.EMPTY)
            continue
        if not found:
            yield ReportedDay(day, Status.NEVER_CHECKED)
            continue
        rows = [one for one in found if one.seller_id != ALL_SELLERS]
        expected = ordered_by(day) if len(rows) < len(found) else known_sellers
        left_out = sorted(set(expected) - {one.seller_id for one in rows})
        status = status_of(together(one.counts for one in rows), is_whole=not left_out)
        yield ReportedDay(day, status, rows, left_out)


def together(counts: Iterable[Counts]) -> Counts:
    """The sum."""
    total = Counts()
    for one in counts:
        total.add(one)
    return total
