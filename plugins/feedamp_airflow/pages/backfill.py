"""`/feedamp/reconciliation/backfill`: compare a range of days again, with the expected minutes first."""

from __future__ import annotations

import math
from datetime import date, datetime
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from feedamp.api.account import REQUESTS_PER_SECOND
from feedamp.api.orders_by_number import NUMBERS_PER_REQUEST
from feedamp.api.rate_limit import SPACING
from feedamp.errors import FeedAmpError
from feedamp.rules.reconciled_days import DAY, midnight
from feedamp.state import ledger, sellers
from feedamp_airflow.account import read_account
from feedamp_airflow.cli.running import DONE, REFUSED
from feedamp_airflow.connections import connection_by_id
from feedamp_airflow.pages import airflow_api
from feedamp_airflow.pages.actions import Answer
from feedamp_airflow.pages.page import Reader, Refused, ThisReader, counted, may_change, reading, render

DAG_ID = "feedamp_reconcile_orders"
DAYS_AT_ONCE = 4
LONGEST_RANGE_DAYS = 366
# Until this installation has runs of its own: Airflow's scheduler takes most of it, between the four tasks.
SECONDS_A_DAY = 10.0
RUNS_LOOKED_AT = 30

router = APIRouter(dependencies=[may_change])
changing = APIRouter()  # for those who may change connections

Again = Literal["completed", "failed", "none"]


class Range(NamedTuple):
    """UTC days, both included, and what is done with them."""

    first: date
    last: date
    repair: bool
    again: Again

    @property
    def days(self) -> int:
        """How many days the range has."""
        return (self.last - self.first).days + 1

    def body(self) -> dict[str, Any]:
        """What Airflow is asked for."""
        return {
            "dag_id": DAG_ID,
            "from_date": midnight(self.first).isoformat(),
            "to_date": midnight(self.last).isoformat(),
            "max_active_runs": DAYS_AT_ONCE,
            "reprocess_behavior": self.again,
            "dag_run_conf": {"repair": self.repair},
        }


class Expected(NamedTuple):
    """How long a backfill takes, in minutes, and the sentences that say why."""

    minutes: int
    based_on: list[str]


@router.get("/reconciliation/backfill", response_class=HTMLResponse)
async def expect(
    request: Request,
    first: Annotated[str, Query(alias="from")] = "",
    last: Annotated[str, Query(alias="to")] = "",
    repair: bool = False,
    again: Again = "completed",
    reader: Reader = ThisReader,
) -> Response:
    """What the backfill would do and how long it takes; nothing is started."""
    if not first and not last:
        return RedirectResponse(f"{request.scope['root_path']}/reconciliation", 303)
    typed = {"from": first, "to": last, "repair": repair, "again": again}
    try:
        asked, orders, rate = await run_in_threadpool(_look_at, first, last, repair, again)
    except Refused as error:
        said = {"asked": None, "refused": error.detail, "given": typed}
        return render(request, "backfill.html", status_code=error.status_code, **said)
    listed = await airflow_api.ask(request, "POST", "/backfills/dry_run", asked.body())
    dag = await airflow_api.ask(request, "GET", f"/dags/{DAG_ID}")
    newest = await airflow_api.ask(request, "GET", f"/backfills?dag_id={DAG_ID}&order_by=-id&limit=1")
    return render(
        request,
        "backfill.html",
        asked=asked,
        expected=_expected(asked.days, orders, rate, await _seconds_of_runs(request)),
        given=typed,
        refused=None if listed.is_good else f"{airflow_api.refusal(listed, DAG_ID)} Nothing was started.",
        runs=listed.body["total_entries"] if listed.is_good else 0,
        # Airflow lets a DAG have one at a time.
        is_running=newest.is_good and any(one["completed_at"] is None for one in newest.body["backfills"]),
        is_paused=dag.is_good and dag.body["is_paused"],
        at_once=DAYS_AT_ONCE,
        token=reader.token,
    )


@changing.post("/reconciliation/backfill", response_class=HTMLResponse)
async def start(
    request: Request,
    first: Annotated[str, Form(alias="from")],
    last: Annotated[str, Form(alias="to")],
    repair: Annotated[bool, Form()] = False,
    again: Annotated[Again, Form()] = "completed",
) -> HTMLResponse:
    """Has Airflow create the backfill, if it lets this user."""
    asked, _, _ = await run_in_threadpool(_look_at, first, last, repair, again)
    answered = await airflow_api.ask(request, "POST", "/backfills", asked.body())
    if answered.is_good:
        days = f"{asked.first} to {asked.last}" if asked.days > 1 else f"{asked.first}"
        lines = [
            f"The backfill of {days} was started, {'with' if repair else 'without'} repair.",
            "The calendar of the page Reconciliation shows each day when its run has ended; until then it is incomplete.",
            f"The page of the DAG {DAG_ID} in Airflow can hold or stop the backfill.",
        ]
        return render(request, "said.html", said=Answer(DONE, lines))
    lines = [airflow_api.refusal(answered, DAG_ID), "Nothing was started."]
    return render(request, "said.html", said=Answer(REFUSED, lines), status_code=409)


def _look_at(first: str, last: str, repair: bool, again: Again) -> tuple[Range, dict[str, int], float]:
    """The range that was asked for, its orders by seller who can be read, and the allowed requests a second of each.

    Raises:
        Refused: the range is none, too long, or not over yet.
    """
    with reading() as read:
        asked = Range(_day(first), _day(last), repair, again)
        yesterday = read.now.date() - DAY
        if asked.last < asked.first:
            raise Refused(400, "The last day is before the first; nothing was started.")
        if asked.last > yesterday:
            raise Refused(
                400, f"A day is compared once it is over: choose days up to {yesterday}. Nothing was started."
            )
        if asked.days > LONGEST_RANGE_DAYS:
            raise Refused(
                400,
                f"These are {counted(asked.days, 'day')}, and one backfill takes at most {LONGEST_RANGE_DAYS}: "
                "choose a part of them, then the next. Nothing was started.",
            )
        orders = ledger.count_purchased(read.connection, midnight(asked.first), midnight(asked.last + DAY))
        ready = {one.seller_id: one.conn_id for one in sellers.workable(read.connection)}
    of_ready = {seller_id: count for seller_id, count in orders.items() if seller_id in ready}
    return (
        asked,
        of_ready,
        min(map(_rate, {ready[seller_id] for seller_id in of_ready}), default=REQUESTS_PER_SECOND),
    )


async def _seconds_of_runs(request: Request) -> list[float]:
    """How long the newest runs of one day each took here, as Airflow has it; empty if there are none to see."""
    query = "state=success&run_type=scheduled&run_type=backfill&order_by=-run_after"
    answered = await airflow_api.ask(request, "GET", f"/dags/{DAG_ID}/dagRuns?{query}&limit={RUNS_LOOKED_AT}")
    runs = answered.body["dag_runs"] if answered.is_good else []
    return [run["duration"] for run in runs if run["duration"] is not None]


def _expected(days: int, orders: dict[str, int], rate: float, runs: list[float]) -> Expected:
    """The larger of two: what the runs of the days take beside one another, and what the request rate allows."""
    a_day = median(runs) if runs else SECONDS_A_DAY
    # Sellers are read beside one another; each day of a seller has a request that is not full.
    requests = max(
        (-(-count // NUMBERS_PER_REQUEST) + min(count, days) - 1 for count in orders.values()), default=0
    )
    own = (
        f"The last {len(runs)} green runs of {DAG_ID} here took {a_day:.0f} seconds each (median)"
        if len(runs) > 1
        else f"The last green run of {DAG_ID} here took {a_day:.0f} seconds"
        if runs
        else f"No green run of {DAG_ID} is known here yet, so {a_day:.0f} seconds are assumed for each day"
    )
    based_on = [
        f"{own}; {DAYS_AT_ONCE} days run at a time.",
        f"The ledger has {counted(sum(orders.values()), 'order')} of these days, of {counted(len(orders), 'seller')}.",
        f"The seller with most orders needs {counted(requests, 'request')}, at {rate:g} a second.",
        "Live work goes first, so it can take longer.",
    ]
    rounds = math.ceil(days / DAYS_AT_ONCE)
    seconds = max(rounds * a_day, requests * SPACING / rate)
    return Expected(max(1, math.ceil(seconds / 60)), based_on)


def _rate(conn_id: str) -> float:
    """Allowed requests a second."""
    try:
        return read_account(connection_by_id(conn_id)).requests_per_second
    except FeedAmpError:  # the run itself will say so
        return REQUESTS_PER_SECOND


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day of UTC
    except ValueError:
        raise Refused(400, "Give the first and the last day as in 2026-03-01; nothing was started.") from None
