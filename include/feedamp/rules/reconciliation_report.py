"""PURE: what the newest reconciliations say about a range of days; `feedamp reconciliation report` prints it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby
from typing import TypeVar

from feedamp.rules.reconciled_days import ALL_SELLERS, DAY, CheckedDay, Counts, midnight

T = TypeVar("T")


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
    """The status of what was compared; `is_whole`: no seller was left out.

    Without an order, nothing was found to be right: such a day is empty, also if it had orders that were erased since.
    """
    if counts.left:
        return Status.DIFFERING
    if counts.remaining or counts.unread or not is_whole:
        return Status.INCOMPLETE
    if not counts.compared and not counts.found:
        return Status.EMPTY
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
    not_compared: Iterable[tuple[date, str, int]],
    known_sellers: Collection[str],
    first_order: date | None,
    due_since: date | None = None,
    due_before: Collection[date] = (),
    now: datetime,
) -> Iterator[ReportedDay]:
    """Every day from `first` to `last` (inclusive).

    `checked` and `not_compared` are in the order of their days; the second one has (day, seller, orders) that came after the
    newest comparison of their seller, or without one. A comparison that began before its day was over counts for nothing.
    Without a run for all sellers, each known seller must have been asked for. Days before `due_since`, when no run could have
    compared any, are empty unless they are in `due_before` or were compared.
    """
    checked_of = _by_day(checked, lambda found: found.day)
    not_compared_of = _by_day(not_compared, lambda found: found[0])
    for day in (first + n * DAY for n in range((last - first).days + 1)):
        stored = checked_of(day)
        late = {seller_id: orders for _, seller_id, orders in not_compared_of(day)}
        found = [one for one in stored if one.checked_at >= midnight(day + DAY)]
        if first_order is None or day < first_order or midnight(day + DAY) > now:
            yield ReportedDay(day, Status.EMPTY)
            continue
        if not found:
            is_due = due_since is None or day >= due_since or day in due_before
            yield ReportedDay(day, Status.NEVER_CHECKED if is_due else Status.EMPTY)
            continue
        rows = [_with_late(one, late) for one in found if one.seller_id != ALL_SELLERS]
        too_early = {one.seller_id for one in stored if one.counts.planned} - {one.seller_id for one in found}
        expected = too_early | late.keys() if len(rows) < len(found) else known_sellers
        left_out = sorted(set(expected) - {one.seller_id for one in rows})
        status = status_of(together(one.counts for one in rows), is_whole=not left_out)
        yield ReportedDay(day, status, rows, left_out)


def _by_day(rows: Iterable[T], day_of: Callable[[T], date]) -> Callable[[date], list[T]]:
    """Hands out the rows of one day after the other."""
    groups = groupby(rows, key=day_of)
    waiting = [next(groups, None)]

    def of_day(day: date) -> list[T]:
        if waiting[0] is None or waiting[0][0] != day:
            return []
        found = list(waiting[0][1])
        waiting[0] = next(groups, None)
        return found

    return of_day


def _with_late(found: CheckedDay, late: Mapping[str, int]) -> CheckedDay:
    """The same with the orders that came after it, as not compared."""
    if not (count := late.get(found.seller_id)):  # of the 100,000 rows of a month nearly all
        return found
    return replace(found, counts=replace(found.counts, planned=found.counts.planned + count))


def together(counts: Iterable[Counts]) -> Counts:
    """The sum."""
    total = Counts()
    for one in counts:
        total.add(one)
    return total
