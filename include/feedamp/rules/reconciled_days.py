"""PURE: which UTC days the params of a reconciliation ask for, and what its newest run says about a day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec

from feedamp.errors import ConfigurationError
from feedamp.rules.failure_summary import counted

DAY = timedelta(days=1)
LONGEST_RANGE = timedelta(days=3_660)
# The kind of an order that its seller has changed since the last extraction: recorded, but not a difference.
NOT_EXTRACTED = "not_extracted_yet"


@dataclass
class Counts:
    """What the comparison of some orders has found; `found` and `repaired` are counts by kind of difference."""

    planned: int = 0
    compared: int = 0
    unread: int = 0
    found: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)

    @property
    def remaining(self) -> int:
        """Orders that were not compared, because the run stopped or the seller failed."""
        return max(0, self.planned - self.compared - self.unread)

    def without_remaining(self) -> Counts:
        """The same if orders that were not compared are gone."""
        return replace(self, planned=self.compared + self.unread)

    @property
    def differences(self) -> Counter[str]:
        """What was found, without orders that are only not extracted yet."""
        return Counter({kind: count for kind, count in self.found.items() if kind != NOT_EXTRACTED})

    @property
    def left(self) -> Counter[str]:
        """Differences that are not repaired."""
        return self.differences - self.repaired

    def add(self, other: Counts) -> None:
        """Adds what the comparison of other orders has found."""
        self.planned += other.planned
        self.compared += other.compared
        self.unread += other.unread
        if other.found or other.repaired:  # an addition looks at all that is in it already
            self.found += other.found
            self.repaired += other.repaired

    def line(self) -> str:
        """Everything in one line for a log."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.differences.items()))
        others = {
            "not extracted yet": self.found[NOT_EXTRACTED],
            "unreadable": self.unread,
            "not compared": self.remaining,
        }
        return (
            f"{counted(self.compared, 'order')} compared, {counted(self.differences.total(), 'difference')}"
            f"{f' ({kinds})' if kinds else ''}, {self.repaired.total()} repaired, {self.left.total()} left"
            + "".join(f", {counted(count, 'order')} {what}" for what, count in others.items() if count)
        )

    def encode(self) -> str:
        """As JSON, for the state."""
        return msgspec.json.encode(vars(self)).decode()

    @classmethod
    def decode(cls, text: str) -> Counts:
        """From what `encode` returned."""
        values = msgspec.json.decode(text)
        return cls(**{**values, "found": Counter(values["found"]), "repaired": Counter(values["repaired"])})


# The seller id of the row that says that a run covered all sellers it could read, also those without orders.
ALL_SELLERS = ""


@dataclass(frozen=True)
class CheckedDay:
    """What one run found for a day and seller; the newest `checked_at`, when the comparison began, counts.

    `planned_at` is when the run was planned: a later try of the comparison leaves it, a run that is done again has a new
    one. None if an earlier version has planned it.
    """

    day: date
    seller_id: str
    run_id: str
    checked_at: datetime
    counts: Counts = field(default_factory=Counts)
    planned_at: datetime | None = None


def too_many_left(counts: Counts, fail_above: int | None) -> list[str]:
    """The reason to turn a run red whose param `fail_above` is exceeded; empty if it is not, or not given."""
    left = counts.left
    if fail_above is None or left.total() <= fail_above:
        return []
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(left.items()))
    sentence = (
        f"{counted(left.total(), 'difference')} left ({kinds}), more than fail_above ({fail_above}). "
        "The log of `reconcile` names the orders and what to do; `feedamp reconciliation report` sums the days up."
    )
    return [sentence]


def midnight(day: date) -> datetime:
    """The moment at which a UTC day begins."""
    return datetime.combine(day, time(), UTC)


def days_until(start: datetime, end: datetime) -> list[date]:
    """UTC days that begin from `start` (inclusive) to `end` (exclusive)."""
    first = start.date()
    return [first + n * DAY for n in range(max(0, -(-(end - start) // DAY)))]


def asked_days(params: Mapping[str, Any], *, has_own_day: bool) -> tuple[date, date] | None:
    """First and last day (inclusive) that params `day`, or `from` and `to`, ask for; None if they are empty.

    `has_own_day`: scheduled runs and backfills compare the day of each run.

    Raises:
        ConfigurationError: a param is not a day, they contradict each other, or the run has its own day.
    """
    asked = {name: str(params[name]) for name in ("day", "from", "to") if params.get(name)}
    if not asked:
        return None
    names = ", ".join(f"`{name}`" for name in asked)
    given = f"Param {names} is" if len(asked) == 1 else f"Params {names} are"
    if has_own_day:
        raise ConfigurationError(
            f"{given} for runs started by hand; each run of a schedule or backfill compares its own day. "
            f"Leave {'it' if len(asked) == 1 else 'them'} empty, and give the days of a backfill as its From and To."
        )
    if asked.keys() not in ({"day"}, {"from", "to"}):
        raise ConfigurationError(f"{given} given: give either `day`, or both `from` and `to`.")
    return days_between(asked.get("day") or asked["from"], asked.get("day") or asked["to"])


def days_between(first: str, last: str) -> tuple[date, date]:
    """Two days from their text, both inclusive.

    Raises:
        ConfigurationError: one is not a day, the second is before the first, or they are ten years apart.
    """
    begin, end = _day(first), _day(last)
    if end < begin:
        raise ConfigurationError(f"The range ends before it begins: from {begin} to {end}.")
    if end - begin > LONGEST_RANGE or end.year >= date.max.year:
        raise ConfigurationError(
            f"From {begin} to {end} is too long; a range has at most {LONGEST_RANGE.days} days."
        )
    return begin, end


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is not a day; write it like 2026-03-01; it is a UTC day."
        ) from error
