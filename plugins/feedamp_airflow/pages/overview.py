"""`/feedamp/`: the whole loop on one page. And `/feedamp/health` for a monitor."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from feedamp.rules.failure_summary import noun_of, sentence, together
from feedamp.rules.order import Phase
from feedamp.state import order_events, page_lists
from feedamp.state import overview as state_overview
from feedamp.state.page_lists import LastRun
from feedamp_airflow.audience import Audience, Shown
from feedamp_airflow.cli import status
from feedamp_airflow.pages import airflow_api, charts
from feedamp_airflow.pages.page import Reader, Reading, ThisReader, ago, counted, reading, render, span

router = APIRouter()
HEADINGS = {"seller_id": "Seller", "mp_order_number": "Order", "reject_id": "Id", "finding_id": "Id"}
NEWEST_RUNS = 20  # of each DAG; the newest that recorded something is among them, unless many failed since
ROWS_OF_EACH = 5  # of each kind of required action; the page behind it lists all
MORE = {
    "held_orders": "orders?phase=held",
    "held_findings": "findings?state=held",
    "refused_findings": "findings?state=held",
    "stale_watermarks": "sellers",
    "sellers_mixed_up": "sellers",
    "sellers_to_connect": "sellers?status=needs_authorization",
    "faulty_files": "rejected",
    "refused_by_warehouse": "rejected?stage=load",
    "rejected_rows": "rejected",
}


@dataclass(frozen=True)
class Stage:
    """A box of an order's way: the page that its number leads to, and what is written below it. An aside is no next stage."""

    title: str
    count: int
    page: str
    below: str
    is_aside: bool = False


@router.get("/", response_class=HTMLResponse)
async def overview(request: Request, reader: Reader = ThisReader) -> HTMLResponse:
    """The loop with live counts, what requires action, the flow, the last runs; how these ended, Airflow is asked as the user."""
    shown = await run_in_threadpool(_look_at, request, reader)
    shown["runs"] = await _with_states(request, shown["runs"])
    return render(request, "overview.html", reader=reader, **shown)


def _look_at(request: Request, reader: Reader) -> dict[str, Any]:
    """What the state has for the page."""
    with reading() as read:
        document = status.summary(read.connection, read.options.settings, read.now, reader)
        shown = {
            "now": read.now,
            "stages": _stages(read, document),
            "per_hour": flow(read, "hour", 24),
            "per_day": flow(read, "day", 30),
            "runs": _last_runs(page_lists.last_runs(read.connection), reader),
        }
        named = (row for some in document["needs_person"].values() for row in some["items"][:ROWS_OF_EACH])
        ending = document["grants_ending"]["items"][:ROWS_OF_EACH]
        registered = read.registered([*ending, *(row for row in named if "seller_id" in row)])
    base = request.scope.get("root_path", "")

    def connect_link(row: Mapping[str, Any]) -> str:
        return f"{base}/connect?{urlencode({'seller': row['seller_id']})}"

    needed = [
        {
            "text": f"{some['count']:,} {status.TITLES[name].format(s='' if some['count'] == 1 else 's')}",
            "columns": [
                (name, HEADINGS.get(name, name.replace("_", " ").capitalize()))
                for name in reader.columns(status.columns(some["items"]))
            ],
            "rows": Shown(some["items"][:ROWS_OF_EACH]),
            "to_connect": connect_link if name == "sellers_to_connect" else None,
            "more": MORE.get(name) if some["count"] > ROWS_OF_EACH else None,
            "left_out": some["count"] - len(some["items"][:ROWS_OF_EACH]),
        }
        for name, some in document["needs_person"].items()
        if some["count"]
    ]
    on_the_way = document["on_the_way_to_the_warehouse"]
    return shown | {
        "document": document,
        "registered": registered,
        "needed": needed,
        "ending": ending,
        "more_ending": document["grants_ending"]["count"] - len(ending),
        "stop": document["read_only"],
        "marks": _marks(document, read.now),
        "to_load": on_the_way["manifests"] + on_the_way["outbox_rows"],
    }


def _marks(document: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    """How far all sellers were read, as the large and the small words of a card."""
    marks = document["watermarks"]
    read, unread = marks["sellers"], marks["sellers_never_read_whole"]
    if not read and not unread:
        is_any = any(document["sellers"].values())
        return "–", "no seller can be read now" if is_any else "no seller is registered yet"
    wait = "waits for its first reading" if unread == 1 else "wait for their first reading"
    if not read:
        return "not yet", f"{counted(unread, 'seller')} {wait}"
    more = f"; {unread:,} more {wait}" if unread else ""
    return ago(marks["oldest"], now), f"oldest watermark of {counted(read, 'seller')}{more}"


async def _with_states(request: Request, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs with their states in words, and those of DAGs of which the state has no run: a first task may have failed."""
    dags = await airflow_api.ask(request, "GET", "/dags?dag_id_pattern=feedamp_%25&limit=20")
    by_dag: dict[str, dict[str, Any]] = (
        {one["dag_id"]: {} for one in dags.body["dags"]} if dags.is_good else {}
    )
    by_dag |= {run["dag_id"]: run for run in runs}
    newest = f"dagRuns?order_by=-run_after&limit={NEWEST_RUNS}"
    asked = (airflow_api.ask(request, "GET", f"/dags/{quote(dag_id, safe='')}/{newest}") for dag_id in by_dag)
    answers = dict(zip(by_dag, await asyncio.gather(*asked), strict=True))
    shown = []
    for dag_id, run in sorted(by_dag.items()):
        known = answers[dag_id].body["dag_runs"] if answers[dag_id].is_good else []
        last = next(iter(known), None)
        if last and not run:
            began = last["start_date"] and datetime.fromisoformat(last["start_date"])
            run = {
                "dag_id": dag_id,
                "run": f"{dag_id}/{last['dag_run_id']}",
                "started_at": began,
                "result": _unrecorded(dag_id, last["state"]),
            }
        if run:
            states = {f"{dag_id}/{one['dag_run_id']}": one["state"] for one in known}
            state = states.get(run["run"], "not known")
            later = f"; a newer run: {last['state']}" if last and last["state"] != state else ""
            shown.append(run | {"state": f"{state}{later}", "is_bad": "failed" in f"{state}{later}"})
    return shown


def _unrecorded(dag_id: str, state: str) -> str:
    """What a run did that left no run of a step."""
    if dag_id == "feedamp_admin":
        return "see its log"
    return "nothing to do" if state == "success" else "nothing recorded"


@router.api_route("/health", methods=["GET", "HEAD"])
def health() -> JSONResponse:
    """Counts for a monitor: 200 while the state can be read; nothing of it names an order or a person."""
    with reading() as read:
        document = status.summary(read.connection, read.options.settings, read.now)
        phases = state_overview.count_by_phase(read.connection)
    marks = document["watermarks"]
    return JSONResponse(
        {
            "status": "action required"
            if any(s["count"] for s in document["needs_person"].values())
            else "ok",
            "read_only": document["read_only"] is not None,
            "action_required": {name: some["count"] for name, some in document["needs_person"].items()},
            "orders": {phase: phases.get(phase, 0) for phase in Phase},
            "sellers": document["sellers"],
            "oldest_watermark_age_s": marks["oldest_age_s"],
            "to_be_loaded": document["on_the_way_to_the_warehouse"],
        }
    )


def flow(read: Reading, by: Literal["hour", "day"], count: int, seller_id: str | None = None) -> Any:
    """A chart of placed orders, units shown as shipped and closed orders, of the last `count` hours or days (UTC)."""
    step = timedelta(hours=1) if by == "hour" else timedelta(days=1)
    end = read.now.replace(minute=0, second=0, microsecond=0)
    end = end if by == "hour" else end.replace(hour=0)
    moments = [end - step * back for back in reversed(range(count))]
    found: dict[str, dict[datetime, int]] = defaultdict(dict)
    for entry in order_events.flow(read.connection, since=moments[0], by=by, seller_id=seller_id):
        found[entry.kind][entry.began_at] = entry.units if entry.kind == "shipped" else entry.events
    series = {name: [found[name].get(moment, 0) for moment in moments] for name in charts.BAR_SERIES}
    labels = [f"{moment:%H:%M}" if by == "hour" else f"{moment:%m-%d}" for moment in moments]
    return charts.bars(labels, series, by=by)


def _stages(read: Reading, document: dict[str, Any]) -> list[Stage]:
    known = page_lists.stages(read.connection)

    def stage(title: str, name: str, page: str, *, is_aside: bool = False) -> Stage:
        count, oldest = known.get(name, (0, None))
        below = "none waits" if oldest is None else f"oldest {span(read.now - oldest)}"
        return Stage(title, count, page, below, is_aside)

    closed = state_overview.count_by_phase(read.connection).get(Phase.CLOSED, 0)
    last = document["last"]["order_closed"]
    return [
        stage("To place", "to_place", "orders?phase=to_place"),
        stage("Settled, with the seller", "placed", "orders?phase=settled-with-seller"),
        stage("Settled, to close", "to_close", "orders?phase=settled-to-close"),
        Stage(
            "Closed",
            closed,
            "orders?phase=closed",
            f"last {span(read.now - last)} ago" if last else "none yet",
        ),
        stage("Held", "held", "orders?phase=held", is_aside=True),
    ]


def _last_runs(steps: list[LastRun], reader: Audience) -> list[dict[str, Any]]:
    """The newest run of each DAG, with what each of its steps did."""
    by_dag: dict[str, list[LastRun]] = defaultdict(list)
    for step in steps:
        by_dag[step.run.partition("/")[0]].append(step)
    shown = []
    for dag_id, found in sorted(by_dag.items()):
        newest = max(found, key=lambda step: step.started_at).run
        of_newest = [step for step in found if step.run == newest]
        shown.append(
            {
                "dag_id": dag_id,
                "run": newest,
                "started_at": min(step.started_at for step in of_newest),
                "result": "; ".join(f"{step.step}: {_did(step, reader)}" for step in of_newest),
            }
        )
    return shown


def _did(run: LastRun, reader: Audience) -> str:
    reasons = together(reason for told in run.told for reason in told.reasons)
    failed = sum(told.failed for told in run.told)
    errors = list(dict.fromkeys(told.error for told in run.told if told.error))
    said = f"{counted(run.orders, 'row' if run.step == 'intake' else 'order')}, {counted(run.requests, 'request')}"
    if failed:
        left = f"{said}; {counted(failed, noun_of(run.step))} with work left"
        said = reader.said(sentence(run.step, failed, run.sellers, reasons), left)
    if errors:
        said = f"{said.rstrip('.')}; failed" + reader.said(f": {errors[0]}", "")
    return said.rstrip(".")
