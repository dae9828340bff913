"""`feedamp status`: orders by phase, sellers by grant, what requires action and so exits with 1, when work was last done.

Which orders, findings, files and rows require action: `state/action_required.py`; which sellers: here and `cli/accounts.py`.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.rules.failure_summary import counted
from feedamp.rules.order import Phase
from feedamp.settings import Settings
from feedamp.state import action_required, notices, overview, read_only, request_slots, sellers
from feedamp.state.grants import WARN_BEFORE
from feedamp.state.overview import CountedItems
from feedamp.state.sellers import ACTIVE, NEEDS_AUTHORIZATION, SET_ASIDE
from feedamp_airflow.audience import EDITOR, ELSEWHERE, Audience, without_answers
from feedamp_airflow.cli.accounts import unclear
from feedamp_airflow.cli.output import Output, cell
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources

SHOWN = 20
UNREAD_FOR = timedelta(days=1)  # by then FeedAMP may have corrected it by itself
TITLES = {
    "held_orders": "order{s} held by a conflict, a refused change or a missing body: `feedamp orders show` gives the reason",
    "missing_orders": (
        "order{s} that FeedAMP does not have: a reconciliation with repair=true places again those that the seller has not "
        "touched; for the others, ask FeedAMP to restore them"
    ),
    "cancelled_but_shipped": (
        "order{s} closed as CANCELLED although the seller shipped: resolve it with the seller, then run "
        "`feedamp orders acknowledge`"
    ),
    "shipped_but_withdrawn": (
        "order{s} closed as SHIPPED although FeedAMP shows no shipped units any more: resolve it with the seller, then run "
        "`feedamp orders acknowledge`"
    ),
    "held_findings": "error finding{s} whose kind has no code: give it one (`error_codes`), or waive them",
    "refused_findings": (
        "error finding{s} whose report FeedAMP refused, as the reason says: waive those that the seller need not correct; "
        "a change of the shipment is reported again"
    ),
    "stuck_orders": "order{s} that will not close without action",
    "unreadable_orders": (
        "order{s} unreadable for more than a day: ask FeedAMP to correct what the reason names; the watermarks of "
        "their sellers wait"
    ),
    "stale_watermarks": (
        "seller{s} of whom nothing was read completely for too long (`stale_watermark_hours`): the log of "
        "`feedamp_extract_fulfillments` says why"
    ),
    "sellers_mixed_up": "seller{s} whose account is not clear: `feedamp doctor` prints the steps",
    "sellers_to_connect": "seller{s} to connect or register",
    "faulty_files": (
        "inbox file{s} that could not be read to the end: replace each with a complete file of the same name; if you "
        "cannot, run `feedamp rejected dismiss ID --reason REASON`"
    ),
    "refused_by_warehouse": (
        "row{s} that the warehouse cannot hold: `feedamp rejected list` gives the reason, `feedamp lake retry` loads them "
        "once it can; to leave them in the lake only, dismiss them"
    ),
    "rejected_rows": "rejected row{s}: fix the source or an option, then deliver a new file, replay or dismiss them",
}


def show(given: argparse.Namespace, out: Output) -> int:
    """Prints the current state; returns 1 if anything requires action."""
    with opened_resources(is_looking=True) as resources, resources.state.read() as connection:
        now = resources.state.now()
        shown = document(connection, resources.settings, now, out.reader)
    if resources.privacy.key is not None:
        shown = _masked(shown)
        out.complain(ELSEWHERE)
    if given.json:
        out.document(shown)
    else:
        _print(shown, out)
    return REFUSED if any(some["count"] for some in shown["needs_person"].values()) else DONE


def _masked(shown: dict[str, Any]) -> dict[str, Any]:
    """The document without what FeedAMP wrote; equal reasons are added up again."""
    shown = without_answers(shown)
    for entry in [*shown["orders"].values(), shown]:
        name = "settled_wait_for" if entry is shown else "reasons"
        counts: Counter[str] = Counter()
        for one in entry[name]:
            counts[one["reason"]] += one["count"]
        entry[name] = _top(counts.most_common())
    # All of it may be FeedAMP's, or a value that it sent.
    for name in ("held_findings", "refused_findings", "unreadable_orders"):
        for item in shown["needs_person"][name]["items"]:
            item["reason"] = None
    return shown


def document(
    connection: Connection, settings: Settings, now: datetime, reader: Audience = EDITOR
) -> dict[str, Any]:
    """Everything that the command prints for a reader."""
    counts = overview.count_by_phase(connection)
    waits = overview.waits_of_settled(connection, counts.get(Phase.SETTLED, 0))
    first = {
        "now": now,
        "orders": _orders(connection, counts, reader),
        "settled_wait_for": _top(reader.waits(Phase.SETTLED, waits)),
    }
    return first | summary(connection, settings, now, reader)


def summary(
    connection: Connection, settings: Settings, now: datetime, reader: Audience = EDITOR
) -> dict[str, Any]:
    """What the pages show of it to a reader. Reads indexes and the tables of sellers, never all orders."""
    lingering_since = now - settings.error_clear
    needed = {
        "held_orders": action_required.held_orders(connection, limit=SHOWN),
        "missing_orders": action_required.missing_orders(connection, limit=SHOWN),
        "cancelled_but_shipped": action_required.cancelled_but_shipped(connection, limit=SHOWN),
        "shipped_but_withdrawn": action_required.shipped_but_withdrawn(connection, limit=SHOWN),
        "held_findings": action_required.held_findings(connection, is_refused=False, limit=SHOWN),
        "refused_findings": action_required.held_findings(connection, is_refused=True, limit=SHOWN),
        "stuck_orders": action_required.stuck_orders(
            connection, lingering_since=lingering_since, limit=SHOWN
        ),
        "unreadable_orders": action_required.unreadable_orders(
            connection, unread_since=now - UNREAD_FOR, limit=SHOWN
        ),
        "stale_watermarks": _stale(connection, before=now - settings.stale_watermark),
        "sellers_mixed_up": _mixed_up(connection),
        "sellers_to_connect": _to_connect(connection),
        "faulty_files": action_required.faulty_files(connection, limit=SHOWN),
        "refused_by_warehouse": action_required.refused_by_warehouse(connection, limit=SHOWN),
        "rejected_rows": action_required.rejected_rows(connection, limit=SHOWN),
    }
    stop = read_only.current(connection, by_option=settings.read_only)
    return {
        "read_only": stop
        and {
            "by": "option" if stop.since is None else "switch",
            **asdict(stop),
            "reason": reader.said(stop.reason, None),
            "sentence": stop.sentence,
        },
        "sellers": _sellers(connection),
        "grants_ending": _ending(connection, now),
        "pauses_of_feedamp": _pauses(connection, now),
        "needs_person": {
            name: {"count": some.count, "items": reader.rows(connection, some.items)}
            for name, some in needed.items()
        },
        "last": overview.latest(connection),
        "watermarks": _watermarks(connection, now),
        "on_the_way_to_the_warehouse": overview.on_the_way(connection),
    }


def _orders(connection: Connection, counts: Mapping[str, int], reader: Audience) -> dict[str, Any]:
    reasons: dict[str, list[tuple[str, int]]] = {phase: [] for phase in (*Phase, *counts)}
    for phase, reason, count in overview.reasons_by_phase(connection):
        reasons.setdefault(phase, []).append((reason, count))
    return {
        phase: {"count": counts.get(phase, 0), "reasons": _top(reader.waits(phase, by_reason))}
        for phase, by_reason in reasons.items()
    }


def _top(reasons: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """The most frequent reasons; the rest, such as FeedAMP's messages about single orders, are added up."""
    top = [{"reason": reason, "count": count} for reason, count in reasons[:SHOWN]]
    rest = sum(count for _, count in reasons[SHOWN:])
    return [*top, {"reason": counted(len(reasons) - SHOWN, "other reason"), "count": rest}] if rest else top


def _sellers(connection: Connection) -> dict[str, int]:
    counts = Counter(overview.count_by_grant(connection))
    return {name: counts[name] for name in (ACTIVE, NEEDS_AUTHORIZATION, SET_ASIDE, "no_grant", "paused")}


def _ending(connection: Connection, now: datetime) -> dict[str, Any]:
    """Sellers whose grant soon ends or has ended, the first to end first: an authorization in time keeps their orders going."""
    found = notices.ending_grants(connection, before=now + WARN_BEFORE)
    items = [{"seller_id": one, "grant_ends_at": found[one]} for one in sorted(found, key=found.__getitem__)]
    return {"count": len(found), "items": items[:SHOWN]}


def _pauses(connection: Connection, now: datetime) -> dict[str, Any]:
    """Sellers for whom FeedAMP asked for a longer pause, by `Retry-After`; it requires no action."""
    found = request_slots.long_pauses(connection, now=now)
    items = [{"seller_id": seller_id, "until": until} for seller_id, until in found[:SHOWN]]
    return {"count": len(found), "items": items}


def _stale(connection: Connection, *, before: datetime) -> CountedItems:
    """Sellers whose watermark does not move, or who have had none for as long."""
    found = overview.stale_sellers(connection, before=before)
    return CountedItems(len(found), [stale._asdict() for stale in found[:SHOWN]])


def _mixed_up(connection: Connection) -> CountedItems:
    """Sellers whose account shows another seller's orders, and those whose grant was set aside for that."""
    in_doubt = overview.in_doubt(connection)
    found = list(unclear(sellers.find(connection, in_doubt) if in_doubt else []).items())
    return CountedItems(len(found), [{"seller_id": s, "reason": reason} for s, reason in found[:SHOWN]])


def _to_connect(connection: Connection) -> CountedItems:
    found = action_required.to_connect(connection, limit=SHOWN)
    ids = [item["seller_id"] for item in found.items if item["is_registered"]]
    reasons = {one.seller_id: one.blocked_by for one in sellers.find(connection, ids)} if ids else {}
    items = [
        {
            "seller_id": item["seller_id"],
            "reason": reasons.get(item["seller_id"], "the seller is not registered"),
            "waiting_orders": item["waiting_orders"],
        }
        for item in found.items
    ]
    return CountedItems(found.count, items)


def _watermarks(connection: Connection, now: datetime) -> dict[str, Any]:
    """How far back the next extraction starts, over sellers that are not blocked."""
    known, marked, oldest, newest = overview.oldest_watermarks(connection)
    return {
        "sellers": marked,
        "sellers_never_read_whole": known - marked,
        "oldest": oldest,
        "oldest_age_s": None if oldest is None else round((now - oldest).total_seconds()),
        "newest": newest,
    }


def columns(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of what requires action; whether the ledger has an order is for the links of the pages."""
    return list(dict.fromkeys(name for item in items for name in item if name != "is_known"))


def _print(document: dict[str, Any], out: Output) -> None:
    if stop := document["read_only"]:
        out.say(f"READ-ONLY: {stop['sentence'].removeprefix('Read-only was ')}")
        if stop["reason"]:
            out.say(f"  Reason: {stop['reason']}")
    out.say("ORDERS")
    for phase, entry in document["orders"].items():
        out.say(f"  {phase:14}{entry['count']:>9}")
        waits = document["settled_wait_for"] if phase == Phase.SETTLED else entry["reasons"]
        for wait in waits:
            out.say(f"    {wait['count']:>9}  {cell(wait['reason'])}")
    out.say("SELLERS")
    for name, count in document["sellers"].items():
        out.say(f"  {name:20}{count:>7}")
    if (ending := document["grants_ending"])["count"]:
        out.say(
            f"  grant ends soon     {ending['count']:>7}  (within {WARN_BEFORE.days} days: connect each again before)"
        )
        for one in ending["items"]:
            out.say(f"    {one['seller_id']} on {cell(one['grant_ends_at'])}")
        if ending["count"] > len(ending["items"]):
            out.say(f"    … and {ending['count'] - len(ending['items'])} more")
    if (pauses := document["pauses_of_feedamp"])["count"]:
        out.say(f"  pause of FeedAMP    {pauses['count']:>7}  (FeedAMP asked for it by Retry-After)")
        for pause in pauses["items"]:
            out.say(f"    {pause['seller_id']} until {cell(pause['until'])}")
    out.say("LAST")
    for name, value in document["last"].items():
        out.say(f"  {name:20} {cell(value)}")
    marks = document["watermarks"]
    said = "none yet"
    if marks["oldest"] is not None:
        said = f"{cell(marks['oldest'])}, {counted(marks['oldest_age_s'] // 60, 'minute')} ago"
    if first := marks["sellers_never_read_whole"]:
        wait = "waits for its" if first == 1 else "wait for their"
        said += f"; {counted(first, 'seller')} {wait} first reading"
    out.say(f"  oldest watermark     {said}")
    way = document["on_the_way_to_the_warehouse"]
    manifests, rows = counted(way["manifests"], "manifest"), counted(way["outbox_rows"], "row")
    out.say(f"  to be loaded         {manifests}, {rows} of the outbox")
    out.say("ACTION REQUIRED")
    some = {name: entry for name, entry in document["needs_person"].items() if entry["count"]}
    if not some:
        out.say("  nothing")
    for name, entry in some.items():
        out.say(f"  {entry['count']} {TITLES[name].format(s='' if entry['count'] == 1 else 's')}")
        names = columns(entry["items"])
        out.table(names, [[item.get(name) for name in names] for item in entry["items"]], indent=4)
        if entry["count"] > len(entry["items"]):
            out.say(f"    … and {entry['count'] - len(entry['items'])} more")
