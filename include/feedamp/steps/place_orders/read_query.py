"""Rows of a query -> ledger: the same rows come again and again, and only what is new about them is written."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from itertools import islice

from sqlalchemy.engine import Connection

from feedamp.inbox import BadRow, OrderQuery, OrderRow, read_query
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import inbox_files, rejects
from feedamp.steps.place_orders.ingest_row import judge_row, write_row
from feedamp.steps.runner import StepResult

log = logging.getLogger(__name__)
ROWS_PER_TRANSACTION = 200


def take_query(resources: Resources, run: Run, query: OrderQuery, result: StepResult) -> None:
    """Takes every row that the query returns now.

    `result.orders` and `result.rejected` count rows with news, not those seen in an earlier run; `result.extra` all
    of them. Safe to repeat: a row that comes again changes nothing. Raises as `OrderQuery.rows`; what came before
    stands.
    """
    taking = _Taking(resources, query, is_dry_run=run.dry_run)
    try:
        rows = read_query(query, resources.settings.body)
        while batch := list(islice(rows, ROWS_PER_TRANSACTION)):
            taking.take(batch)
        taking.end()
    finally:
        result.orders += taking.news
        result.rejected += taking.rejected
        result.extra["query_rows"] = taking.rows
        if not run.dry_run:
            with resources.state.begin() as connection:
                now = resources.state.now()
                inbox_files.take_query(
                    connection,
                    query.source,
                    rows_read=taking.news,
                    rows_rejected=taking.rejected,
                    since=run.started_at,
                    now=now,
                )
        log.info(
            "%s: %d rows, %d with news, %d rejected", query.source, taking.rows, taking.news, taking.rejected
        )


class _Taking:
    """One pass over the rows of a query."""

    def __init__(self, resources: Resources, query: OrderQuery, *, is_dry_run: bool) -> None:
        self._resources = resources
        self._source = query.source
        self._is_dry_run = is_dry_run
        self.rows = self.news = self.rejected = 0
        with resources.state.read() as connection:
            self._standing = {r.row_hash for r in rejects.standing_of(connection, query.source)}
        self._unmet = set(self._standing)  # those that this pass does not meet again are judged at its end

    def take(self, batch: list[OrderRow | BadRow]) -> None:
        begin = self._resources.state.read if self._is_dry_run else self._resources.state.begin
        with begin() as connection:
            for row in batch:
                self.rows += 1
                self._take_row(connection, row)

    def end(self) -> None:
        """After the last row: a reject whose row the query no longer returns may have been mended."""
        if self._is_dry_run or not self._unmet:
            return
        with self._resources.state.begin() as connection:
            now = self._resources.state.now()
            standing = rejects.standing_of(connection, self._source)
            judged_anew = {
                (r.seller_id, r.mp_order_number) for r in standing if r.row_hash not in self._unmet
            }
            for rejected in standing:
                key = (rejected.seller_id, rejected.mp_order_number)
                # Without its ids no one could ever tell; with them it stands until its order comes in again.
                if rejected.row_hash in self._unmet and (None in key or key in judged_anew):
                    rejects.supersede_row(connection, rejected, now=now)

    def _take_row(self, connection: Connection, row: OrderRow | BadRow) -> None:
        admission = judge_row(connection, self._resources, row)
        self._unmet.discard(row.row_hash)
        is_known = row.row_hash in self._standing
        standing = rejects.of_content(connection, row.source, row.row_hash) if is_known else None
        if standing is not None:
            if admission.rejected and standing.reasons == tuple(asdict(r) for r in admission.reasons):
                return  # turned away before, for the same reasons
            row = replace(
                row, row_number=standing.row_number
            )  # its place may have changed, it is the same row
        if admission.order is None and not admission.rejected:
            return
        self.news += 1
        self.rejected += admission.rejected
        if admission.reasons:
            self._standing.add(row.row_hash)
        if not self._is_dry_run:
            write_row(connection, self._resources, row, admission)
