"""`feedamp orders show|list|acknowledge`: the status of orders, and a person's acknowledgment. No customer field."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.errors import FeedAmpError, UnreadableError
from feedamp.rules.closing import REMOVED, waits_for
from feedamp.rules.failure_summary import counted
from feedamp.rules.order import OPEN_PHASES, LedgerOrder, Phase, is_blocked
from feedamp.rules.order_story import DELIVER_AGAIN, Kind, next_step, sentence, together
from feedamp.rules.units import LineUnits, count_units
from feedamp.state import erasures, findings, ledger, open_orders, order_events, overview, rejects, sellers
from feedamp.state.open_orders import StoredSnapshot
from feedamp.state.rejects import Rejected
from feedamp.tables import Row
from feedamp_airflow.audience import ELSEWHERE, without_answers
from feedamp_airflow.cli.findings import finding_row
from feedamp_airflow.cli.output import Output, cell
from feedamp_airflow.cli.rejected import reject_row
from feedamp_airflow.cli.running import DONE, REFUSED, given_reason, opened_resources, user_of
from feedamp_airflow.moments import moment

LEDGER = (
    "seller_id", "mp_order_number", "phase", "reason", "next_try_at", "read_back_at", "attempts", "desired_state",
    "accepted_state", "purchase_date", "source", "source_row", "taken_at", "first_put_at", "placed_at",
    "closing_state", "closing_at", "closed_at", "missing_since", "adopted_at", "body_kind", "acknowledged_shipped",
    "acknowledged_at", "acknowledged_by", "acknowledge_reason",
)  # fmt: skip
# The ledger keeps when the order was first delivered, and which delivery was the last to change it.
OF_DELIVERY = {"source": "newest source", "source_row": "newest source_row", "taken_at": "first taken_at"}
LISTED = ("seller_id", "mp_order_number", "phase", "reason", "next_try_at", "purchase_date", "taken_at")
SNAPSHOT = ("status", "marketplace_state", "acknowledged", "is_marketplace_fulfilled")
UNITS = ("shipped", "cancelled", "pending", "over")
LINE = ("mp_line_number", "sku", "ordered", *UNITS)
FINDING = ("finding_id", "mp_line_number", "kind", "severity", "state", "message")


def show_all(given: argparse.Namespace, out: Output) -> int:
    """Lists orders of the ledger and what each waits for; says on stderr if there are more than `--limit`."""
    phases = (Phase.TO_PLACE,) if given.waiting else OPEN_PHASES if given.open else tuple(Phase)
    with opened_resources() as resources, resources.state.read() as connection:
        before = None
        if given.older_than is not None:
            before = resources.state.now() - timedelta(days=given.older_than)
        found = overview.listed_orders(
            connection,
            phases=phases,
            seller_id=given.seller,
            taken_before=before,
            limit=min(max(0, given.limit), sys.maxsize),
        )
    rows = found.items if given.json else [_told(item) for item in found.items]
    out.listing(rows, LISTED, as_json=given.json)
    if found.count > len(found.items):
        out.complain(f"The first {len(found.items)} of {counted(found.count, 'order')}; --limit shows more.")
    return DONE


def show(given: argparse.Namespace, out: Output) -> int:
    """Tells the story of an order, and prints everything else the state knows about it."""
    with opened_resources() as resources, resources.state.read() as connection:
        rejected = rejects.of_order(connection, given.seller, given.number)
        shown = document(connection, given.seller, given.number)
        erased = None
        if shown is None:
            erased = erasures.of_order(connection, resources.cipher, given.seller, given.number)
    if resources.privacy.key is not None:
        shown = without_answers(shown)
        rejected = [replace(one, reasons=without_answers(one.reasons)) for one in rejected]
        out.complain(ELSEWHERE)
    if shown is None:
        was_erased = ""
        if erased:
            what = "it" if erased.kind == "order" else "the seller"
            was_erased = f": {what} was erased on {moment(erased.asked_at)}"
        out.complain(f"The ledger has no order {given.number} of seller {given.seller}{was_erased}.")
        for reject in rejected:
            out.complain(f"rejected at {reject.source}:{reject.row_number}: {_reasons(reject)}")
        if rejected:
            out.complain(f"Next: {DELIVER_AGAIN}")
        return REFUSED
    if given.json:
        out.document({**shown, "rejected": [reject_row(reject) for reject in rejected]})
    else:
        _print(shown, out)
        for reject in rejected:
            out.say(f"rejected at {reject.source}:{reject.row_number}: {_reasons(reject)}")
    return DONE


def document(connection: Connection, seller_id: str, number: str) -> dict[str, Any] | None:
    """An order's story and what else the state knows about it, without customer fields; None if it has none."""
    order = ledger.read(connection, seller_id, number)
    if order is None:
        return None
    stored, unreadable = _stored_snapshot(connection, seller_id, number)
    events = order_events.of_order(connection, seller_id, number)
    since = order_events.recorded_since(connection)
    is_registered = bool(sellers.find(connection, [seller_id]))
    closing = _closing(order, stored, unreadable, is_registered=is_registered)
    return {
        "events": [{**event, "text": sentence(event["kind"], event["details"])} for event in events],
        "events_recorded_since": since,
        "events_in_warehouse": _is_dropped(order, events, since),
        "next": next_step(
            order,
            "can be closed" if closing["can_be_closed"] else closing["waits_for"],
            needs_person=closing["needs_person"],
        ),
        **{name: getattr(order, name) for name in LEDGER},
        # Its snapshot goes when it is closed; the units and their time are kept.
        "read_at": stored.read_at if stored is not None else order.closed_units_at,
        "snapshot": _snapshot(stored),
        "lines": _lines(order, stored),
        "closing": closing,
        "findings": [finding_row(finding) for finding in findings.of_order(connection, seller_id, number)],
    }


def acknowledge(given: argparse.Namespace, out: Output) -> int:
    """Acknowledges an order that was closed as CANCELLED or SHIPPED against its units. Safe to repeat."""
    reason = given_reason(given, "order")
    what = f"order {given.number} of seller {given.seller}"
    with opened_resources() as resources, resources.state.begin() as connection:
        order = ledger.read(connection, given.seller, given.number)
        shipped = order.shipped_though_cancelled if order is not None else 0
        if order is None or not (shipped or order.is_withdrawn):
            units = "neither cancelled with shipped units nor closed as SHIPPED without any"
            raise FeedAmpError(f"There is nothing to acknowledge: {what} is {units}.")
        is_news = order.is_to_acknowledge
        if is_news:
            acknowledged = order.but(
                acknowledged_shipped=shipped,
                acknowledged_at=resources.state.now(),
                acknowledged_by=user_of(out),
                acknowledge_reason=reason,
            )
            ledger.save(connection, order, acknowledged)
    again = (
        f"; action is required again if more than {counted(shipped, 'unit')} is shipped" if shipped else ""
    )
    out.say(f"{what}: {f'acknowledged{again}' if is_news else 'was acknowledged already'}")
    return DONE


def _stored_snapshot(
    connection: Connection, seller_id: str, number: str
) -> tuple[StoredSnapshot | None, str | None]:
    """The stored snapshot, or why it cannot be read."""
    try:
        return open_orders.read(connection, seller_id, number), None
    except UnreadableError as error:
        return None, str(error)


def _snapshot(stored: StoredSnapshot | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    shown = {name: getattr(stored.snapshot, name) for name in SNAPSHOT}
    return {"read_at": stored.read_at, **shown, "errors": stored.snapshot.errors}


def _lines(order: LedgerOrder, stored: StoredSnapshot | None) -> list[dict[str, Any]]:
    """Units by line, from the snapshot or, for a closed order, as FeedAMP last showed them; else only ordered units."""
    skus = {line["mp_line_number"]: line.get("sku") for line in order.body["order_lines"]}
    if order.phase == Phase.CLOSED and order.closed_units is not None:
        shown, is_known = order.closed_units, True
        units = {
            line: LineUnits(order.ordered.get(line, 0), *shown.get(line, (0, 0)))
            for line in dict.fromkeys((*order.ordered, *shown))
        }
    else:
        units, is_known = (
            count_units(order.ordered, stored.snapshot.fulfillments if stored else ()),
            stored is not None,
        )
    return [
        {
            "mp_line_number": number,
            "sku": skus.get(number),
            "ordered": line.ordered,
            **{name: getattr(line, name) if is_known else None for name in UNITS},
        }
        for number, line in units.items()
    ]


def _closing(
    order: LedgerOrder, stored: StoredSnapshot | None, unreadable: str | None, *, is_registered: bool
) -> dict[str, Any]:
    """Whether the order can be closed, or what it waits for, as the last validation decided (`rules/closing.py`)."""
    decision: dict[str, Any] = {
        "can_be_closed": False,
        "waits_for": None,
        "needs_person": False,
        "error_lingers_since": None,
    }
    if order.phase in (Phase.CLOSED, Phase.NEVER_PLACED):
        ended = "closed" if order.phase == Phase.CLOSED else "never placed"
        return {**decision, "waits_for": f"nothing: it is {ended}"}
    if order.placed_at is None:
        return {**decision, "waits_for": "not placed yet"}
    if not is_registered:
        return {**decision, "waits_for": REMOVED}
    is_missing = order.missing_since is not None and order.phase != Phase.TO_PLACE
    if unreadable is not None and not is_missing:
        return {**decision, "waits_for": open_orders.UNDECODABLE, "needs_person": True}
    is_validated = stored is not None and stored.validated_hash == stored.snapshot_hash
    if stored is None or is_missing or not is_validated:
        wait = waits_for(is_registered, is_missing, stored is not None, is_validated, None)
        return {**decision, "waits_for": wait, "needs_person": is_missing}
    return {
        "can_be_closed": stored.closable,
        **{name: getattr(stored, name) for name in ("waits_for", "needs_person", "error_lingers_since")},
    }


def _reasons(reject: Rejected) -> str:
    return "; ".join(f"{r['field'] or 'row'}: {r['message']}" for r in reject.reasons)


def _is_dropped(order: LedgerOrder, events: Sequence[Row], since: datetime | None) -> bool:
    """Whether the state no longer has how the order's story began or, for one older than the upgrade, how it ended."""
    kinds = {event["kind"] for event in events}
    if since is not None and order.taken_at < since:
        has_ended_since = order.ended_at is not None and order.ended_at >= since
        return has_ended_since and not kinds & {Kind.CLOSED, Kind.DELIVERED}
    if order.adopted_at is not None:
        return not kinds & {Kind.CLOSED, Kind.DELIVERED} and not any(
            e["details"].get("first") for e in events
        )
    return Kind.DELIVERED not in kinds


def _tell(shown: dict[str, Any], out: Output) -> None:
    """The story, oldest first; where its beginning is, if it is not in the state; and how it goes on."""
    since = shown["events_recorded_since"]
    if since is not None and shown["taken_at"] < since:
        out.say(f"Events are recorded since {moment(since)}; the order is older.")
    if shown["events_in_warehouse"]:
        out.say("Its events are in the warehouse: table order_events.")
    elif shown["adopted_at"]:
        out.say(f"{moment(shown['adopted_at'])}  It was adopted: another system had placed it.")
    for event in together(shown["events"]):
        out.say(f"{moment(event['occurred_at'])}  {event['text']}  [{event['run_id'] or 'by hand'}]")
    waits_for = None if shown["phase"] == Phase.CLOSED else shown["closing"]["waits_for"] or "can be closed"
    out.say("; ".join(filter(None, (f"Now: {shown['phase']}", shown["reason"] or waits_for))))
    out.say(f"Next: {shown['next']}")
    out.say("")


def _told(order: dict[str, Any]) -> dict[str, Any]:
    """Without a next try that is none: an order whose seller is blocked is sent in the first run after that has ended."""
    return order | ({"next_try_at": None} if is_blocked(order["phase"], order["reason"]) else {})


def _print(shown: dict[str, Any], out: Output) -> None:
    _tell(shown, out)
    shown = _told(shown)
    snapshot = {**(shown["snapshot"] or {}), "read_at": shown["read_at"]}
    facts = {OF_DELIVERY.get(name, name): shown[name] for name in LEDGER}
    facts |= {f"feedamp {name}": value for name, value in snapshot.items() if name != "errors"}
    facts |= {f"closing {name}": value for name, value in shown["closing"].items()}
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None or name in ("phase", "reason", "feedamp read_at", "closing waits_for"):
            out.say(f"{name.ljust(width)}  {cell(value)}")
    for error in snapshot.get("errors") or ():
        out.say(f"feedamp lists {error.code} on line {error.mp_line_number or '-'}: {error.message}")
    out.say("")
    # The order was closed by an earlier version, which did not store its units.
    unknown = "unknown" if shown["phase"] == Phase.CLOSED else None
    out.table(
        LINE,
        [
            [unknown if name in UNITS and line[name] is None else line[name] for name in LINE]
            for line in shown["lines"]
        ],
    )
    if shown["findings"]:
        out.say("")
        out.table(FINDING, [[finding[name] for name in FINDING] for finding in shown["findings"]])
