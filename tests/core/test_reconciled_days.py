"""Which UTC days a reconciliation compares, and what a report says of them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

import pytest

from feedamp.errors import ConfigurationError
from feedamp.rules.reconciled_days import (
    ALL_SELLERS,
    NOT_EXTRACTED,
    CheckedDay,
    Counts,
    asked_days,
    too_many_left,
)
from feedamp.rules.reconciliation_report import ReportedDay, report_days

MARCH_1, MARCH_31 = date(2026, 3, 1), date(2026, 3, 31)


@pytest.mark.parametrize(
    ("params", "days"),
    [
        pytest.param({}, None, id="nothing is asked for"),
        pytest.param({"day": None, "from": "", "to": None}, None, id="the form sends empty fields"),
        pytest.param({"day": "2026-03-01"}, (MARCH_1, MARCH_1), id="a day"),
        pytest.param({"from": "2026-03-01", "to": "2026-03-31"}, (MARCH_1, MARCH_31), id="a range"),
        pytest.param({"from": "2026-03-01", "to": "2026-03-01"}, (MARCH_1, MARCH_1), id="a range of one day"),
    ],
)
def test_a_run_by_hand_compares_the_days_that_it_is_asked_for(params: dict[str, Any], days: Any) -> None:
    assert asked_days(params, has_own_day=False) == days


@pytest.mark.parametrize(
    ("params", "message"),
    [
        pytest.param(
            {"day": "2026-03-01", "from": "2026-03-01"},
            "Params `day`, `from` are given: give either `day`",
            id="a day and half a range",
        ),
        pytest.param(
            {"day": "2026-03-01", "from": "2026-03-01", "to": "2026-03-02"}, "either", id="all three"
        ),
        pytest.param({"from": "2026-03-01"}, "^Param `from` is given", id="a range without an end"),
        pytest.param({"to": "2026-03-01"}, "`to` is given", id="a range without a start"),
        pytest.param({"from": "2026-03-02", "to": "2026-03-01"}, "ends before", id="backwards"),
        pytest.param({"day": "2026-02-30"}, "^'2026-02-30' is not a day", id="no such day"),
        pytest.param({"day": "2026-03-01T00:00:00Z"}, "not a day", id="a moment"),
        pytest.param({"from": "2016-01-01", "to": "2026-03-01"}, "too long", id="more than ten years"),
        pytest.param({"day": "9999-12-31"}, "too long", id="the last day of the calendar"),
    ],
)
def test_days_that_cannot_be_meant_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        asked_days(params, has_own_day=False)


@pytest.mark.parametrize("params", [{"day": "2026-03-01"}, {"from": "2026-03-01", "to": "2026-03-02"}])
def test_a_run_with_a_day_of_its_own_refuses_another(params: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="started by hand"):
        asked_days(params, has_own_day=True)
    assert asked_days({"day": None}, has_own_day=True) is None


# What a report says of a day

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY_1, DAY_2 = date(2026, 3, 1), date(2026, 3, 2)


def checked(
    seller_id: str, counts: Counts | None = None, *, at: datetime = NOON, day: date = DAY_1
) -> CheckedDay:
    return CheckedDay(day, seller_id, "run", at, counts or Counts(planned=1, compared=1))


def counts(found: int = 0, repaired: int = 0, kind: str = "status", **more: int) -> Counts:
    return Counts(
        **{"planned": 1, "compared": 1, **more},
        found=Counter({kind: found}),
        repaired=Counter({kind: repaired}),
    )


ALL = checked(ALL_SELLERS, Counts())


@pytest.mark.parametrize(
    ("rows", "status", "left_out"),
    [
        pytest.param([], "never checked", [], id="no run"),
        pytest.param([ALL, checked("S1"), checked("S2")], "clean", [], id="a run for all"),
        pytest.param(
            [ALL, *(checked(one, Counts()) for one in ("S1", "S2"))], "empty", [], id="orders that are gone"
        ),
        pytest.param(
            [ALL, checked("S1")], "incomplete", ["S2"], id="a run for all while a seller was paused"
        ),
        pytest.param(
            [checked("S1"), checked("S2")], "incomplete", ["S3"], id="a run for two of three sellers"
        ),
        pytest.param([checked(name) for name in ("S1", "S2", "S3")], "clean", [], id="a run for each seller"),
        pytest.param(
            [ALL, checked("S1", counts(2, 1)), checked("S2")], "differing", [], id="a difference is left"
        ),
        pytest.param(
            [ALL, checked("S1", counts(2, 2)), checked("S2")], "repaired", [], id="all are repaired"
        ),
        pytest.param(
            [ALL, checked("S1", counts(compared=0)), checked("S2")], "incomplete", [], id="not compared"
        ),
        pytest.param(
            [ALL, checked("S1", counts(compared=0, unread=1)), checked("S2")],
            "incomplete",
            [],
            id="unreadable",
        ),
        pytest.param(
            [ALL, checked("S1", counts(1, kind=NOT_EXTRACTED)), checked("S2")], "clean", [], id="newer"
        ),
        pytest.param(
            [checked(name, at=NOON.replace(day=1)) for name in (ALL_SELLERS, "S1", "S2")],
            "never checked",
            [],
            id="compared before the day was over",
        ),
    ],
)
def test_a_day_is_what_its_newest_comparisons_say(
    rows: list[CheckedDay], status: str, left_out: list[str]
) -> None:
    [day] = reported(DAY_1, DAY_1, rows)
    assert (day.status, day.not_checked) == (status, left_out)


def test_orders_that_came_after_a_comparison_make_its_day_incomplete() -> None:
    late = [(DAY_1, "S1", 2), (DAY_2, "S2", 1)]
    rows = [ALL, checked("S1"), checked("S2"), checked(ALL_SELLERS, Counts(), day=DAY_2)]
    days = list(
        report_days(DAY_1, DAY_2, rows, not_compared=late, known_sellers=[], first_order=DAY_1, now=NOON)
    )
    assert [(day.status, day.counts.remaining, day.not_checked) for day in days] == [
        ("incomplete", 2, []),
        ("incomplete", 0, ["S2"]),
    ]


def reported(
    first: date, last: date, rows: list[CheckedDay], first_order: date | None = DAY_1
) -> list[ReportedDay]:
    with_rows = {(row.day, row.seller_id) for row in rows}
    days = sorted({row.day for row in rows})
    late = [(day, name, 1) for day in days for name in ("S1", "S2") if (day, name) not in with_rows]
    return list(
        report_days(
            first,
            last,
            rows,
            not_compared=late,
            known_sellers=["S1", "S2", "S3"],
            first_order=first_order,
            now=NOON,
        )
    )


def test_a_day_whose_only_seller_was_erased_is_empty_not_clean() -> None:
    [day] = report_days(
        DAY_1, DAY_1, [ALL], not_compared=[], known_sellers=["S1"], first_order=DAY_1, now=NOON
    )
    assert (day.status, day.checked, day.not_checked) == ("empty", [], [])


def test_days_before_the_first_order_and_in_the_future_are_empty_not_clean() -> None:
    rows = [
        checked(name, day=day) for day in (date(2026, 2, 28), DAY_2) for name in (ALL_SELLERS, "S1", "S2")
    ]
    days = reported(date(2026, 2, 27), date(2026, 3, 11), rows)
    assert [day.status for day in days] == ["empty"] * 2 + ["never checked", "clean"] + [
        "never checked"
    ] * 7 + ["empty"] * 2
    assert {day.status for day in reported(DAY_1, DAY_2, [], first_order=None)} == {"empty"}


def test_of_the_days_before_the_first_seller_only_those_with_orders_are_due() -> None:
    days = report_days(
        DAY_1,
        date(2026, 3, 6),
        [checked(name, day=date(2026, 3, 3)) for name in (ALL_SELLERS, "S1")],
        not_compared=[],
        known_sellers=["S1"],
        first_order=DAY_1,
        due_since=date(2026, 3, 5),
        due_before={DAY_1},
        now=NOON,
    )
    assert [day.status for day in days] == ["never checked", "empty", "clean", "empty"] + [
        "never checked"
    ] * 2


@pytest.mark.parametrize(("fail_above", "is_red"), [(None, False), (0, True), (1, True), (2, False)])
def test_a_run_is_red_above_the_differences_it_may_leave(fail_above: int | None, is_red: bool) -> None:
    found = counts(3, 1)
    found.found[NOT_EXTRACTED] = 5
    assert bool(too_many_left(found, fail_above)) is is_red
