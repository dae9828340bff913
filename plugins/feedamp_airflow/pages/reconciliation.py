"""`/feedamp/reconciliation`: a calendar of days, and what a day's newest comparison found."""

from __future__ import annotations

from calendar import Calendar
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from feedamp.rules.reconciled_days import DAY, midnight
from feedamp.rules.reconciliation_report import ReportedDay
from feedamp.state import ledger, page_lists
from feedamp.state.overview import CountedItems
from feedamp.state.page_lists import Part
from feedamp_airflow.cli.reconciliation import days_reported, figures, of_most_days
from feedamp_airflow.pages.page import (
    ROWS,
    Offset,
    Reader,
    Reading,
    Refused,
    ThisReader,
    counted,
    reading,
    render,
)

router = APIRouter()
NOT_OVER = "not over"
FIRST_YEAR = 2000  # of which there are pages


@router.get("/reconciliation", response_class=HTMLResponse)
def calendar(
    request: Request,
    month: str = "",
    day: str = "",
    seller: str = "",
    offset: Offset = 0,
    reader: Reader = ThisReader,
) -> HTMLResponse:
    """The days of a month, that of `day` or the newest if none is named; with `day`, also that day by seller and its differences, of all
    sellers or of one. Their values can be a seller's own words: they are for who reads words."""
    seller = seller.strip()
    with reading() as read:
        first = _date(f"{month}-01") if month else (_date(day) if day else read.now.date()).replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        today = read.now.date()
        days, days_without = {}, Counter[str]()
        for reported in _reported(read, first, last):
            days[reported.day] = _day(reported, today)
            days_without.update(reported.not_checked)
        without = reader.rows(read.connection, of_most_days(days_without))
        chosen = next(iter(_reported(read, _date(day), _date(day)))) if day else None
        found, left_out = _differences(read, chosen, seller, offset) if chosen else (CountedItems(0, []), 0)
        found = reader.counted(read.connection, found)
        rows = reader.rows(read.connection, [] if chosen is None else _by_seller(chosen))
        registered = read.registered([*rows, *found.items, *without])
        oldest = ledger.first_day(read.connection, date(FIRST_YEAR, 1, 1))
    weeks = Calendar().monthdatescalendar(first.year, first.month)
    return render(
        request,
        "reconciliation.html",
        first=first,
        oldest=oldest.replace(day=1) if oldest else None,
        earlier=f"{first - timedelta(days=1):%Y-%m}",
        later=f"{last + timedelta(days=1):%Y-%m}",
        dates=[date for week in weeks for date in week],
        of_month=days,
        without=without,
        more_without=len(days_without) - len(without),
        chosen=chosen,
        status=_day(chosen, today)["status"] if chosen else None,
        missing=[] if chosen is None else list(_missing(chosen)),
        rows=rows,
        registered=registered,
        found=found,
        left_out=left_out,
        given={"month": month, "seller": seller},
        offset=offset,
        reader=reader,
        backfill=_range(chosen.day, chosen.day)
        if reader.may_change and chosen
        else _range(min(first, today - DAY), min(last, today - DAY))
        if reader.may_change
        else None,
    )


def _range(first: date, last: date) -> dict[str, str | bool]:
    """What the form of a backfill begins with."""
    return {"from": first.isoformat(), "to": last.isoformat(), "repair": False, "again": "completed"}


def _date(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = date.min
    if not FIRST_YEAR <= found.year <= 2200:
        raise Refused(404, "There is no such day.")
    return found


def _reported(read: Reading, first: date, last: date) -> Iterator[ReportedDay]:
    return days_reported(read.connection, first, last, now=read.now)


def _day(reported: ReportedDay, today: date) -> dict[str, Any]:
    """What the calendar says of a day: as in the report, but that one that is not over has not been found empty."""
    status = NOT_OVER if reported.day >= today else str(reported.status)
    return {"status": status, **figures(reported.counts)}


def _differences(read: Reading, chosen: ReportedDay, seller: str, offset: int) -> tuple[CountedItems, int]:
    """A part of the day's differences, and how many more were counted than the state keeps."""
    found = page_lists.list_differences(
        read.connection,
        Part(offset, ROWS),
        day=chosen.day,
        seller_id=seller or None,
        checked_since=midnight(chosen.day + DAY),
    )
    counted = (one.counts.differences.total() for one in chosen.checked if seller in ("", one.seller_id))
    return found, max(0, sum(counted) - found.count)


def _missing(reported: ReportedDay) -> Iterator[str]:
    """Why a day is not whole, as sentences."""
    counts = reported.counts
    for count, noun, rest in (
        (len(reported.not_checked), "seller", "not checked"),
        (counts.remaining, "order", "not compared"),
        (counts.unread, "order", "not readable"),
    ):
        if count:
            yield f"{counted(count, noun, 'were')} {rest}."


def _by_seller(reported: ReportedDay) -> Iterator[dict[str, Any]]:
    for seller_id in reported.not_checked:  # first: the day is incomplete for them
        unknown = ("checked_at", "run_id", "compared", "repaired", "left")
        yield {"seller_id": seller_id, "kinds": "not checked", **dict.fromkeys(unknown)}
    for checked in reported.checked:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(checked.counts.differences.items()))
        yield {
            "seller_id": checked.seller_id,
            "checked_at": checked.checked_at,
            "run_id": checked.run_id,
            "kinds": kinds,
            **figures(checked.counts),
        }
