"""`feedamp reconciliation report`."""

import argparse
import contextlib
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from feedamp.rules.failure_summary import counted
from feedamp.rules.reconciled_days import DAY, NOT_EXTRACTED, Counts, days_between
from feedamp.rules.reconciliation_report import ACTION_REQUIRED, ReportedDay, Status, report_days, status_of
from feedamp.state import ledger, reconciliation_days, sellers
from feedamp.state.retention import CHECKED_DAYS_KEPT
from feedamp_airflow.cli.output import Output, replaced_file, spreadsheet_cell
from feedamp_airflow.cli.running import DONE, REFUSED, opened_resources
from feedamp_airflow.config import Options
from feedamp_airflow.moments import moment

ROWS_SHOWN = 50
LEFT_OUT_SHOWN = 20
FIGURES = ("compared", "found", "repaired", "left", NOT_EXTRACTED, "remaining", "unread")
CSV_COLUMNS = ("day", "seller_id", "status", "run_id", "checked_at", "differences", *FIGURES)


def report(given: argparse.Namespace, out: Output) -> int:
    """Sums a range of days up from the state; returns 1 if differences are left or something was not compared."""
    first, last = days_between(given.first, given.last)
    by_seller: dict[str, Counts] = defaultdict(Counts)
    days_of: Counter[str] = Counter()
    left_out: Counter[str] = Counter()  # days by seller
    by_day: list[dict[str, Any]] = []
    total = Counts()
    with (
        opened_resources() as resources,
        _csv_writer(given.csv) as writer,
        resources.state.read() as connection,
    ):
        now = resources.state.now()
        is_cut = first < (now - CHECKED_DAYS_KEPT).date()
        for day in days_reported(connection, first, last, now=now):
            counts = day.counts
            total.add(counts)
            left_out.update(day.not_checked)
            for found in day.checked:
                by_seller[found.seller_id].add(found.counts)
                days_of[found.seller_id] += 1
            by_day.append(
                {"day": day.day, "status": day.status, "sellers": len(day.checked)}
                | {"not_checked": len(day.not_checked), **figures(counts)}
            )
            writer.writerows(map(spreadsheet_cell, row) for row in _csv_rows(day))
    statuses = Counter(row["status"] for row in by_day)
    half_compared = sum(
        any(row[name] for name in ("remaining", "unread", "not_checked"))
        for row in by_day
        if row["status"] == Status.DIFFERING
    )
    document: dict[str, Any] = {
        "from": first,
        "to": last,
        "days": {
            "total": len(by_day),
            "checked": len(by_day) - statuses[Status.EMPTY] - statuses[Status.NEVER_CHECKED],
            **{status.replace(" ", "_"): statuses[status] for status in Status},
            "incomplete": statuses[Status.INCOMPLETE] + half_compared,  # which may be differing, too
        },
        "orders": {name: figures(total)[name] for name in ("compared", "remaining", "unread")},
        "differences": {name: figures(total)[name] for name in ("found", "repaired", "left", NOT_EXTRACTED)},
        "by_kind": [
            {"kind": kind, "found": count, "repaired": total.repaired[kind], "left": total.left[kind]}
            for kind, count in sorted(total.differences.items())
        ],
        "by_seller": [
            {"seller_id": seller_id, "days": days_of[seller_id], **figures(counts)}
            for seller_id, counts in sorted(
                by_seller.items(), key=lambda item: (-item[1].left.total(), item[0])
            )
        ],
        "left_out": of_most_days(left_out),
        "by_day": by_day,
    }
    if given.json:
        out.document(document)
    else:
        _print(document, total, out)
        if left_out:
            names = ", ".join(row["seller_id"] for row in document["left_out"])
            more = ", and others" if len(left_out) > LEFT_OUT_SHOWN else ""
            out.say("")
            out.say(f"{counted(len(left_out), 'seller')} left out on days with orders: {names}{more}")
    if is_cut and statuses[Status.NEVER_CHECKED]:
        out.complain(
            f"What was checked more than {CHECKED_DAYS_KEPT.days} days ago is only in the warehouse, in "
            "feedamp.reconciliation_days; such days are listed as never checked."
        )
    return REFUSED if any(statuses[status] for status in ACTION_REQUIRED) else DONE


def of_most_days(left_out: Mapping[str, int]) -> list[dict[str, Any]]:
    """The sellers that were left out on most days, and on how many; no more than are named."""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return [{"seller_id": seller_id, "days": days} for seller_id, days in ordered[:LEFT_OUT_SHOWN]]


def figures(counts: Counts) -> dict[str, int]:
    """The numbers of a row, by name."""
    return {
        "compared": counts.compared,
        "found": counts.differences.total(),
        "repaired": counts.repaired.total(),
        "left": counts.left.total(),
        NOT_EXTRACTED: counts.found[NOT_EXTRACTED],
        "remaining": counts.remaining,
        "unread": counts.unread,
    }


def days_reported(connection: Connection, first: date, last: date, *, now: datetime) -> Iterator[ReportedDay]:
    """Every day of the range with what its newest comparison found."""
    known = [ledger.first_day(connection), reconciliation_days.first_day(connection)]
    added_at = sellers.first_added(connection)
    due_since = added_at.date() if added_at else first
    return report_days(
        first,
        last,
        reconciliation_days.between(connection, first, last),
        not_compared=reconciliation_days.not_compared(connection, first, last),
        known_sellers=sellers.ids(connection),
        first_order=min(filter(None, known), default=None),
        due_since=due_since,
        due_before=set(ledger.days_with_orders(connection, first, min(last, due_since - DAY))),
        now=now,
    )


@contextlib.contextmanager
def _csv_writer(path: str | None) -> Iterator[Any]:
    """Writes to a file of `file_mode` that appears once it is complete; without a path, to nowhere."""
    opened = (
        replaced_file(Path(path), mode=Options().file_mode) if path else contextlib.nullcontext(io.BytesIO())
    )
    with opened as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        yield writer
        text.detach()


def _csv_rows(day: ReportedDay) -> Iterator[tuple[object, ...]]:
    """A row for each seller of a day; one without a seller if none was compared."""
    for found in day.checked:
        kinds = msgspec.json.encode(dict(sorted(found.counts.found.items()))).decode()
        status, numbers = status_of(found.counts), figures(found.counts).values()
        yield day.day, found.seller_id, status, found.run_id, moment(found.checked_at), kinds, *numbers
    for seller_id in day.not_checked:
        yield day.day, seller_id, Status.NEVER_CHECKED, *[""] * (len(CSV_COLUMNS) - 3)
    if not day.checked and not day.not_checked:
        yield day.day, "", day.status, *[""] * (len(CSV_COLUMNS) - 3)


def _print(document: dict[str, Any], total: Counts, out: Output) -> None:
    days = document["days"]
    out.say(
        f"{document['from']} to {document['to']}: {counted(days['total'], 'day')}, {days['checked']} checked, "
        f"{days['never_checked']} never checked, {days['empty']} empty"
    )
    checked = (Status.CLEAN, Status.REPAIRED, Status.DIFFERING, Status.INCOMPLETE)
    out.say(f"days checked: {', '.join(f'{days[status]} {status}' for status in checked)}")
    out.say(total.line())
    sellers_off = [row for row in document["by_seller"] if _is_off(row)]
    days_off = [row for row in document["by_day"] if row["status"] in ACTION_REQUIRED or _is_off(row)]
    for columns, rows in (
        (("kind", "found", "repaired", "left"), document["by_kind"]),
        (("seller_id", "days", *FIGURES), sellers_off),
        (("day", "status", "sellers", "not_checked", *FIGURES), days_off),
    ):
        if rows:
            out.say("")
            out.listing(rows[:ROWS_SHOWN], columns, as_json=False)
            if len(rows) > ROWS_SHOWN:
                out.say(f"{len(rows) - ROWS_SHOWN} more; --json lists all, --csv FILE by day and seller")


def _is_off(row: dict[str, Any]) -> bool:
    return any(row[name] for name in ("found", NOT_EXTRACTED, "remaining", "unread"))
