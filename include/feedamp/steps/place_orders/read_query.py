"""Query rows -> ledger; decides which rejects are superseded because the query no longer returns their row.

The query returns many rows again in each run; only new and changed rows are written.
"""

import logging
from dataclasses import asdict, replace

from sqlalchemy.engine import Connection

from feedamp.inbox import BadRow, OrderQuery, OrderRow, read_query
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.run import Run
from feedamp.state import inbox_files, rejects
from feedamp.steps.place_orders.ingest_row import RowBatch, batches, note_rejected
from feedamp.steps.step_result import StepResult

log = logging.getLogger(__name__)


def take_query(resources: Resources, run: Run, query: OrderQuery, result: StepResult) -> None:
    """Takes every row that the query returns.

    `result.orders` and `result.rejected` count only new and changed rows; `result.extra["query_rows"]` counts all.
    Safe to repeat: a row that was taken before changes nothing. Raises what `OrderQuery.rows` raises; the rows before
    that are taken.
    """
    query_pass = _QueryPass(resources, run, query, result)
    try:
        progress = Progress(query.source, "rows", note=lambda: f"{query_pass.rejected} rejected")
        for batch in batches(read_query(query, resources.settings.body), lambda row: row.raw):
            query_pass.take(batch)
            progress.at(query_pass.rows)
        query_pass.finish()
    finally:
        result.count(
            query.source, orders=query_pass.changed, rejected=query_pass.rejected, query_rows=query_pass.rows
        )
        if not run.dry_run:
            with resources.state.begin() as connection:
                now = resources.state.now()
                inbox_files.take_query(
                    connection,
                    query.source,
                    rows_read=query_pass.changed,
                    rows_rejected=query_pass.rejected,
                    since=run.started_at,
                    now=now,
                )
        log.info(
            "%s: %s, %d new or changed, %d rejected",
            query.source,
            counted(query_pass.rows, "row"),
            query_pass.changed,
            query_pass.rejected,
        )


class _QueryPass:
    def __init__(self, resources: Resources, run: Run, query: OrderQuery, result: StepResult) -> None:
        self._resources = resources
        self._run = run
        self._result = result
        self._source = query.source
        self.rows = self.changed = self.rejected = 0
        with resources.state.read() as connection:
            open_rejects = rejects.not_superseded(connection, query.source)
        self._rejected_hashes = {reject.row_hash for reject in open_rejects}
        self._unmatched = set(self._rejected_hashes)  # those that the query has not returned; see `finish`

    def take(self, batch: list[OrderRow | BadRow]) -> None:
        begin = self._resources.state.read if self._run.dry_run else self._resources.state.begin
        with begin() as connection:
            rows = RowBatch(connection, self._resources, batch, run_id=self._run.run_id)
            for row in rows.rows:
                self.rows += 1
                self._ingest_row(connection, rows, row)
            if not self._run.dry_run:
                rows.write_all()

    def finish(self) -> None:
        """Supersedes outdated rejects among those whose row the query no longer returns.

        A reject without seller id or order number is outdated, because no delivery could ever supersede it. One with
        both is outdated only if this pass has rejected another row of the same order; otherwise it stays open until its
        order is delivered again.
        """
        if self._run.dry_run or not self._unmatched:
            return
        with self._resources.state.begin() as connection:
            now = self._resources.state.now()
            open_rejects = rejects.not_superseded(connection, self._source)
            rejected_again = {
                (reject.seller_id, reject.mp_order_number)
                for reject in open_rejects
                if reject.row_hash not in self._unmatched
            }
            for reject in open_rejects:
                key = (reject.seller_id, reject.mp_order_number)
                if reject.row_hash in self._unmatched and (None in key or key in rejected_again):
                    rejects.supersede_row(connection, reject, now=now)

    def _ingest_row(self, connection: Connection, rows: RowBatch, row: OrderRow | BadRow) -> None:
        admission = rows.evaluate(row)
        self._unmatched.discard(row.row_hash)
        is_known = row.row_hash in self._rejected_hashes
        before = rejects.of_content(connection, row.source, row.row_hash) if is_known else None
        if before is not None:
            if admission.order is None and before.reasons == tuple(map(asdict, admission.reasons)):
                return  # rejected before, for the same reasons
            row = replace(row, row_number=before.row_number)  # the same row, possibly at another position
        if admission.order is None and not admission.rejected:
            return
        self.changed += 1
        self.rejected += admission.rejected
        if admission.is_turned_away:
            note_rejected(self._result, row, admission.reasons)
        if admission.reasons:
            self._rejected_hashes.add(row.row_hash)
        if not self._run.dry_run:
            rows.write(row, admission)
