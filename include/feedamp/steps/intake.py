"""Inbox files and the rows of a query -> ledger, bad rows -> rejected_orders with every reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice

from feedamp.errors import ConfigurationError, FeedAmpError
from feedamp.inbox import BadRow, InboxFile, OrderRow, discover, read_rows
from feedamp.parts import Parts, Run
from feedamp.state import progress, rejects
from feedamp.steps.admitting import take_row
from feedamp.steps.edge import Tally, record_run
from feedamp.steps.intake_query import take_query

log = logging.getLogger(__name__)
ROWS_PER_TRANSACTION = 200


def intake(parts: Parts, run: Run) -> Tally:
    """Takes every new or changed file of the inbox, in name order, then what the query returns, if there is one.

    `tally.orders` counts rows read, `tally.rejected` rows turned away. Safe to repeat: a file is remembered once
    all its rows are in the ledger or rejected; a row that comes again changes nothing.
    """
    started_at = parts.state.now()
    tally = Tally("intake")
    with parts.state.read() as connection:
        seen = progress.taken_files(connection)
    found = discover(parts.inbox, now=started_at, settle_s=parts.rules.inbox_settle_s, seen=seen)
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
    try:
        if parts.order_query is not None:
            take_query(parts, run, parts.order_query, tally)
    except ConfigurationError:
        tally.complete = False
        raise  # trying again cannot help; the files are taken all the same
    except FeedAmpError as error:
        tally.leave("inbox_sql", error)
    finally:
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


def _batches(rows: Iterator[OrderRow | BadRow]) -> Iterator[list[OrderRow | BadRow]]:
    while batch := list(islice(rows, ROWS_PER_TRANSACTION)):
        yield batch
