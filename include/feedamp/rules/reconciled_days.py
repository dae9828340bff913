"""PURE: which UTC days a reconciliation compares, and what its newest run says about a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from feedamp.errors import ConfigurationError

DAY = timedelta(days=1)
LONGEST_RANGE = timedelta(days=3_660)


def midnight(day: date) -> datetime:
    """The moment at which a UTC day begins."""
    return datetime.combine(day, time(), UTC)


def asked_days(params: Mapping[str, Any], *, has_own_day: bool) -> tuple[date, date] | None:
    """First and last day (inclusive) that params `day`, or `from` and `to`, ask for; None if they are empty.

    `has_own_day`: scheduled runs and backfills compare the day of each run.

    Raises:
        ConfigurationError: a param is not a day, they contradict each other, or the run has its own day.
    """
    asked = {name: str(params[name]) for name in ("day", "from", "to") if params.get(name)}
    if not asked:
        return None
    names = " and ".join(f"`{name}`" for name in asked)
    if has_own_day:
        raise ConfigurationError(
            f"Param {names} is for runs started by hand; each run of a schedule or backfill compares its own day. "
            "Leave it empty, and give the days of a backfill as its From and To."
        )
    if asked.keys() not in ({"day"}, {"from", "to"}):
        raise ConfigurationError(f"Only param {names} is given: give either `day`, or both `from` and `to`.")
    return days_between(asked.get("day") or asked["from"], asked.get("day") or asked["to"])


def days_between(first: str, last: str) -> tuple[date, date]:
    """Two days from their text, both inclusive.

    Raises:
        ConfigurationError: one is not a day, the second is before the first, or they are ten years apart.
    """
    try:
        begin, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError as error:
        raise ConfigurationError(
            f"{first!r} or {last!r} is not a day; write it like 2026-03-01; it is a UTC day."
        ) from error
    if end < begin:
        raise ConfigurationError(f"The range ends before it begins: from {begin} to {end}.")
    if end - begin > LONGEST_RANGE or end.year >= date.max.year:
        raise ConfigurationError(
            f"From {begin} to {end} is too long; a range has at most {LONGEST_RANGE.days} days."
        )
    return begin, end
