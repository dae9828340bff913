"""Inbox files -> ledger, bad rows -> rejected_orders with every reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice

from sqlalchemy.engine import Connection

from feedamp.admission import Admission, Seen, admit
from feedamp.errors import FeedAmpError
from feedamp.inbox import BadRow, InboxFile, OrderRow, Reason, discover, read_rows
from feedamp.models import FINAL_STATES
from feedamp.parts import Parts, Run
from feedamp.state import ledger, open_orders, progress, rejects
from feedamp.steps.edge import Tally, record_run
from feedamp.units import count_units

log = logging.getLogger(__name__)
ROWS_PER_TRANSACTION = 200


def intake(parts: Parts, run: Run) -> Tally:
    """Takes every new or changed file of the inbox, in name order.

    `tally.orders` counts rows read, `tally.rejected` rows turned away. Safe to repeat: a file is remembered once
    all its rows are in the ledger or rejected; a row that comes again changes nothing.
    """
    started_at = parts.state.now()
    tally = Tally("intake")
    with parts.state.read() as connection:
        seen = progress.taken_files(connection)
    found = discover(parts.rules.inbox_url, now=started_at, settle_s=parts.rules.inbox_settle_s, seen=seen)
    if not found.exists:
        log.warning("There is no inbox at %s yet.", parts.rules.inbox_url)
    for name in found.waiting:
        log.info("%s is still being written; the next run takes it.", name)
    for name, why in found.unreadable.items():
        tally.leave(name, FeedAmpError(why))
    known = {taken.name for taken in seen}
    for file in found.files:
        try:
            _take(parts, run, file, tally, is_changed=file.name in known)
        except FeedAmpError as error:
            tally.leave(file.name, error)
    tally.extra["files"] = len(found.files)
    if not run.dry_run:
        record_run(parts, run, tally, started_at)
    return tally


def _take(parts: Parts, run: Run, file: InboxFile, tally: Tally, *, is_changed: bool) -> None:
    rows = read_rows(file, parts.rules.body)
    read = rejected = 0
    if is_changed and not run.dry_run:
        with parts.state.begin() as connection:
            rejects.supersede_file(connection, file.name, now=parts.state.now())
    for batch in _batches(rows):
        read += sum(row.rows for row in batch)
        if run.dry_run:
            rejected += sum(row.rows for row in batch if isinstance(row, BadRow))
            continue
        with parts.state.begin() as connection:
            rejected += sum(row.rows for row in batch if not take_row(connection, parts, row))
    if not run.dry_run:
        with parts.state.begin() as connection:
            progress.take_file(
                connection, file, rows_read=read, rows_rejected=rejected, now=parts.state.now()
            )
    log.info("%s: %d rows read, %d rejected", file.name, read, rejected)
    tally.orders += read
    tally.rejected += rejected


def take_row(connection: Connection, parts: Parts, row: OrderRow | BadRow) -> bool:
    """Writes one row into the ledger or `rejected_orders`; False if it was turned away. Safe to repeat."""
    admission = judge_row(connection, parts, row)
    write_row(connection, parts, row, admission)
    return not admission.rejected


def judge_row(connection: Connection, parts: Parts, row: OrderRow | BadRow) -> Admission:
    """What a row means for the ledger as it stands; writes nothing."""
    if isinstance(row, BadRow):
        return Admission(None, row.reasons, rejected=True)
    known = ledger.read(connection, row.seller_id, row.mp_order_number)
    is_final = row.body["marketplace_state"] in FINAL_STATES
    seen = seen_units(connection, row.seller_id, row.mp_order_number) if is_final else Seen()
    return admit(row, known, seen, now=parts.state.now())


def write_row(connection: Connection, parts: Parts, row: OrderRow | BadRow, admission: Admission) -> None:
    """Writes what `judge_row` found. Safe to repeat."""
    order = admission.order
    if order is not None:
        ledger.write(connection, order)
        if order.adopted_at is not None:  # it may have waited for nothing but this row
            open_orders.look_again(connection, *order.key)
        if not admission.reasons:
            rejects.supersede_order(connection, *order.key, now=parts.state.now())
    if admission.reasons:
        _reject(connection, parts, row, admission.reasons)


def seen_units(connection: Connection, seller_id: str, mp_order_number: str) -> Seen:
    """What the newest snapshot of an order says."""
    held = open_orders.read(connection, seller_id, mp_order_number)
    if held is None:
        return Seen()
    units = count_units({}, held.snapshot.fulfillments)
    return Seen(
        units_shipped=sum(line.shipped for line in units.values()),
        is_marketplace_fulfilled=bool(held.snapshot.is_marketplace_fulfilled),
    )


def _reject(
    connection: Connection, parts: Parts, row: OrderRow | BadRow, reasons: tuple[Reason, ...]
) -> None:
    now = parts.state.now()
    rejects.write(
        connection,
        rejects.Rejected(
            source=row.source,
            row_number=row.row_number,
            row_hash=row.row_hash,
            seller_id=row.seller_id,
            mp_order_number=row.mp_order_number,
            stage=rejects.INBOX,
            reasons=tuple(asdict(reason) for reason in reasons),
            raw=row.raw,
            rejected_at=now,
        ),
        now=now,
    )


def _batches(rows: Iterator[OrderRow | BadRow]) -> Iterator[list[OrderRow | BadRow]]:
    while batch := list(islice(rows, ROWS_PER_TRANSACTION)):
        yield batch
