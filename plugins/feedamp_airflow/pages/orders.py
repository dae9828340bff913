"""`/feedamp/orders`, `/feedamp/findings`, `/feedamp/rejected`: find an order, read its story, see what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from feedamp.rules import finding
from feedamp.rules.order import OPEN_PHASES, Phase
from feedamp.rules.order_story import Kind, together
from feedamp.state import page_lists, rejects, step_runs
from feedamp.state.page_lists import Part
from feedamp.state.rejects import reject_id
from feedamp_airflow.audience import Shown
from feedamp_airflow.cli import orders
from feedamp_airflow.cli.rejected import exported_lines
from feedamp_airflow.pages.page import ROWS, Offset, Reader, Refused, ThisReader, may_change, reading, render

router = APIRouter()
FINDING_STATES = (finding.HELD, finding.TO_REPORT, finding.REPORTED, finding.RESOLVED, finding.WAIVED)
ALL = "all"
REJECT_STAGES = ("inbox", "feedamp", "load")
# The overview counts settled orders apart: those that wait for their seller, and those that can be closed.
SETTLED = {"settled-with-seller": False, "settled-to-close": True}
PHASES = ("open", *Phase, *SETTLED)
PLACING = ("feedamp_place_orders", "feedamp_reconcile_orders")
READING = ("feedamp_extract_fulfillments", "feedamp_reconcile_orders", "feedamp_process_fulfillments")
PROCESSING = ("feedamp_process_fulfillments", "feedamp_reconcile_orders", "feedamp_extract_fulfillments")
# The DAGs that record an event, the likeliest first.
DAGS_OF = {
    Kind.DELIVERED: PLACING,
    Kind.PLACED: PLACING,
    Kind.CHANGED: READING,
    Kind.REPAIRED: ("feedamp_reconcile_orders",),
}
FACTS = {
    "desired_state": "Marketplace wants",
    "accepted_state": "FeedAMP accepted",
    "purchase_date": "Purchased",
    "taken_at": "First delivered",
    "placed_at": "Placed",
    "read_at": "Last read",
    "closed_at": "Closed",
    "missing_since": "Missing since",
    "adopted_at": "Adopted",
}


def _choice(value: str, known: tuple[str, ...], name: str) -> str | None:
    if value and value not in known:
        raise Refused(404, f"There is no such {name}.")
    return value or None


def _phases(wanted: str | None) -> tuple[Phase, ...]:
    if wanted in SETTLED:
        return (Phase.SETTLED,)
    return () if wanted is None else OPEN_PHASES if wanted == "open" else (Phase(wanted),)


@router.get("/orders", response_class=HTMLResponse)
def list_orders(
    request: Request,
    number: str = "",
    seller: str = "",
    phase: str = "",
    offset: Offset = 0,
    reader: Reader = ThisReader,
) -> HTMLResponse:
    """The search for orders."""
    wanted = _choice(phase, PHASES, "phase")
    with reading() as read:
        found = page_lists.list_orders(
            read.connection,
            Part(offset, ROWS),
            number=number.strip(),
            seller_id=seller.strip() or None,
            phases=_phases(wanted),
            is_closable=SETTLED.get(wanted or ""),
        )
        found = reader.counted(read.connection, found)
        registered = read.registered(found.items)
    for order in found.items:
        order["now"] = order["closed_at"] or reader.said(_waits(order), None)
    given = {"number": number, "seller": seller, "phase": phase}
    return render(
        request,
        "orders.html",
        found=found,
        given=given,
        offset=offset,
        phases=PHASES,
        registered=registered,
        reader=reader,
    )


@router.get("/orders/{key:path}", response_class=HTMLResponse)
def show_order(
    request: Request, key: str, seller: str = "", number: str = "", reader: Reader = ThisReader
) -> HTMLResponse:
    """An order's story as a timeline, and where it stands; `seller` and `number` name one that no path can."""
    # Undecoded: a seller id and an order number may have slashes of their own.
    in_path = map(unquote, request.scope["raw_path"].decode().split("/")[-2:])
    seller_id, number = in_path if key else (seller, number)
    named = {"seller_id": seller_id, "mp_order_number": number}
    with reading() as read:
        order = orders.document(read.connection, seller_id, number)
        rejected = reader.rows(
            read.connection,
            [vars(reject) | named for reject in rejects.of_order(read.connection, seller_id, number)],
        )
        if order is None:  # else a guess would be confirmed by the page that it gets
            rejected = Shown(row for row in rejected if row.items() >= named.items())
        else:
            order["events"] = together(order["events"])
            if len(order["lines"]) > ROWS:
                # Last those of which all units were shipped or cancelled, and no more.
                order["lines"].sort(key=lambda line: line["pending"] == 0 and not line["over"])
            if len(order["findings"]) > ROWS:
                order["findings"].sort(key=lambda one: one["state"] not in finding.OPEN)
        runs = {} if order is None else step_runs.keys_of(read.connection, _possible_runs(order["events"]))
        [shown] = reader.rows(read.connection, [order]) if order is not None else [None]
        registered = read.registered([named])
    if order is None and not rejected:
        raise Refused(404, "There is no such order.")
    waits = order and (order["reason"] or order["closing"]["waits_for"] or "can be closed")
    return render(
        request,
        "order.html",
        order=shown,
        waits=reader.said(waits, None),
        key=named,
        facts=FACTS,
        runs=runs,
        rejected=rejected,
        registered=registered,
        reader=reader,
    )


def _waits(order: Mapping[str, Any]) -> str | None:
    """What an order of the list waits for, or why FeedAMP refused it."""
    if order["phase"] == Phase.TO_PLACE:  # it has a reason once a run could not place it
        return order["reason"] or "the next run of feedamp_place_orders"
    return order["reason"] if order["phase"] != Phase.CLOSED else None


def _possible_runs(events: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Event -> names that its run may have in the state: it knows no DAG, and DAGs of one moment have runs of one id."""
    return {
        event["event_id"]: [
            f"{dag_id}/{event['run_id']}" for dag_id in DAGS_OF.get(event["kind"], PROCESSING)
        ]
        for event in events
        if event["run_id"]
    }


@router.get("/findings", response_class=HTMLResponse)
def list_findings(
    request: Request,
    kind: str = "",
    seller: str = "",
    state: str = "",
    offset: Offset = 0,
    reader: Reader = ThisReader,
) -> HTMLResponse:
    """Findings by kind, seller and state; without a state those that are not resolved or waived, which can be waived."""
    wanted = _choice(state, (ALL, *FINDING_STATES), "state")
    states = finding.OPEN if wanted is None else FINDING_STATES if wanted == ALL else (wanted,)
    with reading() as read:
        kinds = page_lists.kinds_of_findings(read.connection, states)
        found = page_lists.list_findings(
            read.connection,
            Part(offset, ROWS),
            kind=kind or None,
            seller_id=seller.strip() or None,
            states=states,
        )
        for item in found.items:
            item["chosen"] = item["finding_id"] if item["state"] in finding.OPEN else None
        found = reader.counted(read.connection, found)
        registered = read.registered(found.items)
    if kind and kind not in dict(kinds):  # the last one may just have been waived
        kinds.append((kind, 0))
    given = {"kind": kind, "seller": seller.strip(), "state": state}
    return render(
        request,
        "findings.html",
        found=found,
        given=given,
        offset=offset,
        kinds=kinds,
        states=(ALL, *FINDING_STATES),
        registered=registered,
        reader=reader,
    )


@router.get("/rejected", response_class=HTMLResponse)
def list_rejects(
    request: Request, stage: str = "", source: str = "", offset: Offset = 0, reader: Reader = ThisReader
) -> HTMLResponse:
    """Open rejects and their reasons."""
    wanted = _choice(stage, REJECT_STAGES, "stage")
    with reading() as read:
        found = page_lists.list_rejects(
            read.connection, Part(offset, ROWS), stage=wanted, source=source.strip() or None
        )
        for item in found.items:
            item["reject_id"] = reject_id(item["source"], item["row_number"], item["row_hash"])
        found = reader.counted(read.connection, found)
        registered = read.registered(found.items)
    given = {"stage": stage, "source": source}
    return render(
        request,
        "rejected.html",
        found=found,
        registered=registered,
        given=given,
        offset=offset,
        stages=REJECT_STAGES,
        reader=reader,
    )


@router.get("/rejected/export", dependencies=[may_change])
def export_rejects() -> Response:
    """The file that `feedamp rejected export` writes, as a download: its rows may hold customer fields."""
    with reading() as read:
        lines = b"".join(exported_lines(read.connection))
    name = {"Content-Disposition": 'attachment; filename="feedamp-rejected.jsonl"'}
    return Response(lines, media_type="application/x-ndjson", headers=name)
