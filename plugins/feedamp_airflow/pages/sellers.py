"""`/feedamp/sellers`: which sellers fail, lag or end soon; and one seller."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from feedamp.errors import ConfigurationError
from feedamp.rules.finding import OPEN
from feedamp.rules.order import OPEN_PHASES, is_blocked
from feedamp.state import overview as state_overview
from feedamp.state import page_lists, request_slots, scorecards, sellers, watermarks
from feedamp.state.grants import REFRESH_TOKEN_LIFE, WARN_BEFORE
from feedamp.state.page_lists import GRANT_STATUS, Part
from feedamp.state.sellers import ACTIVE
from feedamp.warehouse.views import LIMITS
from feedamp_airflow.config import last_but_one_start, schedule
from feedamp_airflow.pages.connect import moved_server
from feedamp_airflow.pages.overview import flow
from feedamp_airflow.pages.page import (
    ROWS,
    Offset,
    Reader,
    Reading,
    Refused,
    ThisReader,
    reading,
    render,
    span,
    whole_days,
)

router = APIRouter()
COLUMNS = {
    "seller_id": "Seller",
    "name": "Name",
    "sales_channel": "Channel",
    "status": "Grant",
    "grant_issued_at": "Grant ends",
    "watermark": "Read up to",
    "open_orders": "Open orders",
    "oldest_open": "Oldest open",
    "findings": "Open findings",
    "late_orders": "Late orders",
    "late_rate": "Shipped late",
    "cancel_rate": "Cancelled",
    "valid_tracking_rate": "Valid tracking",
}
# Whose limit is judged by which flag of the view `seller_scorecards`.
JUDGED_BY = {
    "late_rate": {"Amazon": "amazon_late_ok", "Walmart on time": "walmart_on_time_ok"},
    "cancel_rate": {"Amazon": "amazon_cancel_ok", "Walmart": "walmart_cancel_ok"},
    "valid_tracking_rate": {"Amazon": "amazon_tracking_ok", "Walmart": "walmart_tracking_ok"},
}
LIMITS_SHOWN = {
    rate: ", ".join(f"{who} {LIMITS[flag]}" for who, flag in flags.items())
    for rate, flags in JUDGED_BY.items()
}
# The rates of a seller's day, each with what it is a part of.
PARTS_OF = {"late_rate": "orders_due", "cancel_rate": "orders", "valid_tracking_rate": "shipments_judged"}
DAYS_SHOWN = 30


@router.get("/sellers", response_class=HTMLResponse)
def list_sellers(
    request: Request,
    q: str = "",
    status: Literal["", "active", "needs_authorization", "set_aside", "no_grant", "paused"] = "",
    sort: str = "seller_id",
    down: bool = False,
    offset: Offset = 0,
    reader: Reader = ThisReader,
) -> HTMLResponse:
    """The table of sellers."""
    if sort not in COLUMNS:
        raise Refused(404, "There is no such column to sort by.")
    with reading() as read:
        found = page_lists.list_sellers(
            read.connection,
            Part(offset, ROWS),
            search=q.strip(),
            status=status or None,
            sort=sort,
            descending=down,
        )
        now, measured_at = read.now, scorecards.measured_at(read.connection)
        stale = _stale(read, [item["seller_id"] for item in found.items])
        found = reader.counted(read.connection, found)
    return render(
        request,
        "sellers.html",
        found=found,
        stale=stale,
        columns=COLUMNS,
        limits=LIMITS_SHOWN,
        judged_by=JUDGED_BY,
        measured_at=measured_at,
        statuses=GRANT_STATUS,
        now=now,
        ends_soon=now + WARN_BEFORE,
        given={"q": q, "status": status, "sort": sort, "down": down, "offset": offset},
    )


@router.get("/sellers/{seller_id:path}", response_class=HTMLResponse)
def show_seller(
    request: Request, seller_id: str, seller: str = "", connected: bool = False, reader: Reader = ThisReader
) -> HTMLResponse:
    """One seller: grant, lag, flow, figures, open findings, oldest open orders; `seller` names one that no path can.

    A consent leads here with `connected`, which is then said.
    """
    seller_id = seller_id or seller
    with reading() as read:
        found = next(iter(sellers.find(read.connection, [seller_id])), None)
        if found is None:
            raise Refused(
                404, "There is no such seller, or it was removed or erased; orders of a removed seller stay."
            )
        issued_at, refreshed_at = state_overview.grant_times(read.connection, seller_id).get(
            seller_id, (None, None)
        )
        mark = watermarks.read(read.connection, seller_id)
        is_stale = bool(_stale(read, [seller_id]))
        facts: dict[str, Any] = {
            "Name": found.name,
            "Sales channel": found.sales_channel,
            "Connection": found.conn_id,
            "Grant": found.grant or "none",
            "Grant issued": issued_at,
            "Last refreshed": refreshed_at,
            "Grant ends": issued_at and issued_at + REFRESH_TOKEN_LIFE,
            "Days of grant left": issued_at and whole_days(issued_at + REFRESH_TOKEN_LIFE - read.now),
            "Read up to": mark,
            "Behind by": _behind(read, mark, is_stale=is_stale),
        }
        for _, until in request_slots.long_pauses(read.connection, now=read.now, seller_ids=[seller_id]):
            facts["FeedAMP asked for a pause until"] = until
        shown = {
            "is_stale": is_stale,
            "blocked_by": found.blocked_by
            and reader.said(
                found.blocked_by, "the seller is paused" if found.paused else "its grant cannot be used"
            ),
            "moved": moved_server(read.connection, found.conn_id) if reader.may_change else None,
            "per_day": flow(read, "day", DAYS_SHOWN, seller_id),
            "scores": scorecards.of_seller(read.connection, seller_id, DAYS_SHOWN, now=read.now),
            "measured_at": scorecards.measured_at(read.connection),
            "scored": {name: COLUMNS[name] for name in JUDGED_BY},
            "limits": LIMITS_SHOWN,
            "judged_by": JUDGED_BY,
            "parts_of": PARTS_OF,
            "orders": reader.counted(read.connection, _open_orders(read, seller_id)),
            "findings": reader.counted(
                read.connection,
                page_lists.list_findings(
                    read.connection, Part(0, ROWS), kind=None, seller_id=seller_id, states=OPEN
                ),
            ),
        }
    return render(
        request,
        "seller.html",
        seller=found,
        facts=facts,
        is_told=connected and found.grant == ACTIVE,
        reader=reader,
        **shown,
    )


def _open_orders(read: Reading, seller_id: str) -> state_overview.CountedItems:
    found = state_overview.listed_orders(
        read.connection, phases=OPEN_PHASES, seller_id=seller_id, taken_before=None, limit=ROWS
    )
    for order in found.items:
        if is_blocked(order["phase"], order["reason"]):
            order["next_try_at"] = None
    return found


def _stale(read: Reading, seller_ids: Sequence[str]) -> set[str]:
    """Those of the sellers of whom nothing was read completely for too long, as `status` counts them."""
    if not seller_ids:
        return set()
    before = read.now - read.options.settings.stale_watermark
    found = state_overview.stale_sellers(read.connection, before=before, seller_ids=seller_ids)
    return {one.seller_id for one in found}


def _behind(read: Reading, mark: datetime | None, *, is_stale: bool) -> str | None:
    """How far behind a seller is, if the schedule does not explain it; None while its first complete read is under way.

    A watermark is a read's start minus the overlap, and moves at its end: all is well up to the last but one start.
    """
    if mark is None:
        return (
            "nothing was read completely yet, for longer than `stale_watermark_hours`" if is_stale else None
        )
    lag = span(read.now - mark)
    with suppress(ConfigurationError):  # of the schedule, which `doctor` names
        due = last_but_one_start(schedule("extract_schedule"), read.now) - read.options.settings.overlap
        return "no more than the schedule explains" if mark >= due else lag
    return lag
