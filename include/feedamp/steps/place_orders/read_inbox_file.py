"""One inbox file -> ledger; what the file said before is superseded once all of it was read."""

from __future__ import annotations

import logging
from dataclasses import asdict
from itertools import islice

from sqlalchemy.engine import Connection

from feedamp.inbox import BadRow, InboxFile, OrderRow, read_rows
from feedamp.inbox.reading import OTHER_KIND
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.state import inbox_files, rejects
from feedamp.state.rejects import Rejected
from feedamp.steps.place_orders.ingest_row import judge_row, write_row
from feedamp.steps.runner import StepResult

log = logging.getLogger(__name__)
ROWS_PER_TRANSACTION = 200
BODY_CHANGED = "body_changed"


def take_file(resources: Resources, run: Run, file: InboxFile, result: StepResult) -> None:
    """Takes every row of a file, then remembers the file and supersedes the rejects that this version replaced.

    Safe to repeat: a file whose pass broke off is not remembered, and the next pass finishes it. A row that comes again
    changes nothing, and its reject stays as it is. A file that cannot be read to its end supersedes nothing but its own
    earlier fault.

    Raises:
        TransientError: the store failed while the file was read; what came before stands, read it again.
    """
    taking = _Taking(resources, file, is_dry_run=run.dry_run)
    rows = read_rows(file, resources.settings.body)
    while batch := list(islice(rows, ROWS_PER_TRANSACTION)):
        taking.take(batch)
    taking.end()
    log.info("%s: %d rows read, %d rejected", file.name, taking.read, taking.rejected)
    result.orders += taking.read
    result.rejected += taking.rejected
    for note in taking.notes:
        result.add_warning(*note)
    if taking.fault:
        what_to_do = (
            "Save it as one of these"
            if taking.fault == OTHER_KIND
            else "The rows before that are through; replace the file by a whole one"
        )
        result.add_warning(file.name, f"{taking.fault}. {what_to_do}.")


class _Taking:
    """One pass over the rows of a file."""

    def __init__(self, resources: Resources, file: InboxFile, *, is_dry_run: bool) -> None:
        self._resources = resources
        self._file = file
        self._is_dry_run = is_dry_run
        self.read = self.rejected = 0
        self.fault: str | None = None
        self.notes: list[tuple[str, str]] = []
        with resources.state.read() as connection:
            standing = rejects.standing_of(connection, file.name)
        # Of earlier versions, or of an earlier pass that broke off; those not met again are replaced.
        self._unmet = {(r.row_number, r.row_hash): r for r in standing}
        self._turned_away: set[tuple[str, str]] = set()

    def take(self, batch: list[OrderRow | BadRow]) -> None:
        for row in batch:
            self.read += row.rows
            if isinstance(row, BadRow) and row.file_fault:
                self.fault = row.file_fault
        if self._is_dry_run:
            self.rejected += sum(row.rows for row in batch if isinstance(row, BadRow))
            return
        with self._resources.state.begin() as connection:
            for row in batch:
                self._take_row(connection, row)

    def end(self) -> None:
        """After the last row; one transaction, so that a pass that was killed before it is done again as a whole."""
        if self.fault and not self.rejected:
            self.read, self.rejected = self.read + 1, 1  # no one knows how many: the file counts as one
        if self._is_dry_run:
            return
        with self._resources.state.begin() as connection:
            now = self._resources.state.now()
            for rejected in self._unmet.values():
                if self.fault is None or rejected.row_number == 0:
                    rejects.supersede_row(connection, rejected, now=now)
            inbox_files.take_file(
                connection,
                self._file,
                rows_read=self.read,
                rows_rejected=self.rejected,
                fault=self.fault,
                now=now,
            )

    def _take_row(self, connection: Connection, row: OrderRow | BadRow) -> None:
        admission = judge_row(connection, self._resources, row)
        before = self._unmet.pop((row.row_number, row.row_hash), None)
        is_dismissed = before is not None and before.dismissed_at is not None
        if admission.is_turned_away and not is_dismissed:
            self.rejected += row.rows
        if admission.rejected:
            if row.seller_id and row.mp_order_number:
                self._turned_away.add((row.seller_id, row.mp_order_number))
            if admission.note and row.seller_id and before is None:
                self.notes.append((row.seller_id, f"order {row.mp_order_number}: {admission.note}"))
        if before is not None and admission.order is None:
            if tuple(asdict(reason) for reason in admission.reasons) == before.reasons:
                return  # the same reject
            if not admission.reasons and _is_record(before):
                return  # the order was taken with this difference, which is still on record
        write_row(connection, self._resources, row, admission)
        if admission.reasons:
            return
        now = self._resources.state.now()
        if before is not None:
            rejects.supersede_row(connection, before, now=now)
        if isinstance(row, OrderRow) and (row.seller_id, row.mp_order_number) in self._turned_away:
            rejects.supersede_earlier(
                connection, row.source, row.seller_id, row.mp_order_number, row.row_number, now=now
            )


def _is_record(rejected: Rejected) -> bool:
    """Whether it only records how a delivery differed, and turned nothing away."""
    return all(reason["code"] == BODY_CHANGED for reason in rejected.reasons)
