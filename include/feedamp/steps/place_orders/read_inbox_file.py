"""One inbox file -> ledger; decides which rejects are superseded because their row was corrected or left the file."""

import logging
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from feedamp.errors import StoreAwayError
from feedamp.inbox import BadRow, InboxFile, OrderRow, read_rows
from feedamp.inbox.reading import OTHER_KIND
from feedamp.progress import Progress
from feedamp.resources import Resources
from feedamp.rules.failure_summary import counted
from feedamp.rules.intake import Admission
from feedamp.run import Run
from feedamp.state import inbox_files, ledger, rejects
from feedamp.state.rejects import Rejected
from feedamp.steps.place_orders.ingest_row import ErasedRow, RowBatch, batches, note_rejected
from feedamp.steps.step_result import StepResult

log = logging.getLogger(__name__)
BODY_CHANGED = "body_changed"
MAX_REJECTED_ROWS = 20_000  # of one file; a small packed file can hold millions
MAX_KEPT_WHOLE = 64 << 20  # of the rejected rows of one file together, so that they can be replayed
# By a dry run, which cannot find in the ledger what the file has delivered before.
ORDERS_REMEMBERED = 200_000
CHARS_BEYOND = 4_000  # of each further rejected row
CUT_MARK = "… (cut: the whole row is in the file)"


def take_file(
    resources: Resources, run: Run, file: InboxFile, result: StepResult, *, since: datetime
) -> None:
    """Takes every row of a file, then marks the file as taken and supersedes the rejects that this version replaces.

    A file that cannot be read to its end supersedes only the reject of its earlier file fault. Safe to repeat: a file
    whose pass was interrupted is not marked as taken, and the next pass finishes it. A row that was taken before changes
    nothing, and its reject stays unchanged; in another place of the file it has a new one, dismissed if those of the same
    text were. A file that another run has taken `since` this one began is counted there. If more than `MAX_REJECTED_ROWS` are rejected, the rest of the file is not read.
    Rejected rows are stored whole up to `MAX_KEPT_WHOLE` characters together, then only their beginnings.

    Raises:
        TransientError: the file store, or the state, failed while the file was read. The rows before that are taken; read
            the file again.
    """
    file_pass = _FilePass(resources, run, file, result, since=since)

    def enough() -> str | None:
        if file_pass.bad_rows <= MAX_REJECTED_ROWS:
            return None
        return f"more than {MAX_REJECTED_ROWS} rows of the file are rejected, and the rest was not read: correct the file"

    progress = Progress(
        file.name,
        "bytes",
        file.size,
        note=lambda: f"{counted(file_pass.read, 'row')}, {file_pass.rejected} rejected",
    )

    def hashes(keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
        try:
            with resources.state.read() as connection:
                return ledger.row_hashes(connection, keys)
        except SQLAlchemyError as error:
            # As any other error while the file is read, it would count as a fault of the file.
            raise StoreAwayError("The state database could not be read.") from error

    rows = read_rows(file, resources.settings.body, enough, progress.add, hashes)
    for batch in batches(rows, lambda row: row.raw):
        file_pass.take(batch)
        progress.add(0)  # the rows of some kinds come only after all bytes were read
    file_pass.finish()
    erased = f", {file_pass.erased} of erased orders, not taken" if file_pass.erased else ""
    log.info(
        "%s: %s read, %d rejected%s", file.name, counted(file_pass.read, "row"), file_pass.rejected, erased
    )
    result.count(file.name, orders=file_pass.read, rejected=file_pass.rejected)
    for note in file_pass.notes:
        result.add_warning(*note)
    if file_pass.fault:
        what_to_do = (
            "Save it as one of these"
            if file_pass.fault == OTHER_KIND
            else "The rows before the fault are taken; replace the file with a complete one"
        )
        result.add_warning(file.name, f"{file_pass.fault}. {what_to_do}.")


class _FilePass:
    def __init__(
        self, resources: Resources, run: Run, file: InboxFile, result: StepResult, *, since: datetime
    ) -> None:
        self._resources = resources
        self._run = run
        self._file = file
        self._result = result
        self._kept_left = MAX_KEPT_WHOLE
        self._since = since
        self.read = self.rejected = self.bad_rows = self.erased = 0
        self.fault: str | None = None
        self.notes: list[tuple[str, str]] = []
        with resources.state.read() as connection:
            open_rejects = rejects.not_superseded(connection, file.name)
        # From earlier versions or an interrupted pass. Rejects whose row this pass does not find are superseded at its end.
        self._unmatched = {(reject.row_number, reject.row_hash): reject for reject in open_rejects}
        # By content, since a row has another number once one before it is removed; not if one of the same text is open.
        is_open = {reject.row_hash for reject in open_rejects if reject.dismissed_at is None}
        self._dismissed = {r.row_hash: r for r in open_rejects if r.row_hash not in is_open}
        # Differences that are on record, by content; and where a row stands that repeats one and changes nothing.
        self._differences = {r.row_hash for r in open_rejects if _is_a_difference(r)}
        self._repeats: dict[str, int] = {}
        self._rejected_orders: set[tuple[str, str]] = set()
        self._seen: set[int] = set()  # of a dry run: hashes of the orders that the file has delivered

    def take(self, batch: list[OrderRow | BadRow]) -> None:
        for row in batch:
            self.read += row.rows
            self.bad_rows += isinstance(row, BadRow)
            if isinstance(row, BadRow) and row.file_fault:
                self.fault = row.file_fault
        if self._run.dry_run:
            self._only_evaluate(batch)
            return
        with self._resources.state.begin() as connection:
            rows = RowBatch(connection, self._resources, batch, run_id=self._run.run_id)
            for row in rows.rows:
                self._ingest_row(connection, rows, row)
            rows.write_all()

    def _only_evaluate(self, batch: list[OrderRow | BadRow]) -> None:
        """Counts what would be rejected. A row whose order this file has delivered before is not compared with the ledger."""
        with self._resources.state.read() as connection:
            rows = RowBatch(connection, self._resources, batch, run_id=None)
            for row in rows.rows:
                if isinstance(row, OrderRow):
                    key = hash((row.seller_id, row.mp_order_number))
                    if key in self._seen or len(self._seen) >= ORDERS_REMEMBERED:
                        continue
                    self._seen.add(key)
                admission = rows.evaluate(row)
                before = self._unmatched.get((row.row_number, row.row_hash))
                self._note(row, admission, before or self._dismissed_like(row, admission))

    def _dismissed_like(self, row: OrderRow | BadRow, admission: Admission) -> Rejected | None:
        """A dismissed reject of the same text with the same faults; with others, a person has not seen it yet."""
        found = self._dismissed.get(row.row_hash)
        return found if found is not None and found.reasons == _reasons(admission) else None

    def _note(self, row: OrderRow | BadRow, admission: Admission, before: Rejected | None) -> None:
        """Counts a row that was rejected, unless a reject of the same text was dismissed before."""
        self.erased += row.rows if isinstance(row, ErasedRow) else 0
        if admission.is_turned_away and (before is None or before.dismissed_at is None):
            self.rejected += row.rows
            note_rejected(self._result, row, admission.reasons)

    def finish(self) -> None:
        """Supersedes replaced rejects and marks the file as taken, in one transaction: a killed pass starts over."""
        if self.fault and not self.rejected:
            # The number of lost rows is unknown, so the fault counts as one row.
            self.read, self.rejected = self.read + 1, 1
        if self._run.dry_run:
            return
        with self._resources.state.begin() as connection:
            now = self._resources.state.now()
            for rejected in self._unmatched.values():
                if self.fault is None or rejected.row_number == 0:
                    ended = rejects.supersede_row(connection, rejected, now=now)
                    if ended and (place := self._repeats.get(rejected.row_hash)):
                        rejects.record_elsewhere(connection, rejected, place, now=now)
            version = (self._file.name, self._file.size, self._file.checksum, self._file.stamp)
            if inbox_files.is_taken(connection, version, since=self._since):
                log.info("%s: another run has taken it meanwhile, and counts its rows.", self._file.name)
                self.read = self.rejected = self.erased = 0
                return
            inbox_files.take_file(
                connection,
                version,
                rows_read=self.read,
                rows_rejected=self.rejected,
                fault=self.fault,
                now=now,
            )

    def _ingest_row(self, connection: Connection, rows: RowBatch, row: OrderRow | BadRow) -> None:
        admission = rows.evaluate(row)
        is_repeat = admission.order is None and not admission.rejected
        if (
            is_repeat
            and admission.reasons
            and row.row_hash not in self._differences
            and not rejects.is_recorded(connection, row.source, row.seller_id, row.mp_order_number)
        ):
            # Each day's file may hold the order: its difference is on record of the one where it was found.
            admission = replace(admission, reasons=())
        before = self._unmatched.pop((row.row_number, row.row_hash), None)
        dismissed = self._dismissed_like(row, admission) if before is None else None
        self._note(row, admission, before or dismissed)
        if admission.reasons:
            # Also of a row that is stored already: an interrupted pass must not double what is kept.
            self._kept_left -= len(row.raw)
            if self._kept_left < 0 and len(row.raw) > CHARS_BEYOND:
                row = replace(row, raw=row.raw[:CHARS_BEYOND] + CUT_MARK)
        if admission.rejected:
            self.bad_rows += isinstance(row, OrderRow)
            if row.seller_id and row.mp_order_number:
                self._rejected_orders.add((row.seller_id, row.mp_order_number))
            if admission.note and row.seller_id and before is None:
                self.notes.append((row.seller_id, f"order {row.mp_order_number}: {admission.note}"))
        if before is not None and admission.order is None:
            if _reasons(admission) == before.reasons:
                return  # the same reject
            if is_repeat and _is_a_difference(before):
                return  # the order was taken with this difference, which is recorded already
        elif is_repeat and row.row_hash in self._differences:
            self._repeats.setdefault(row.row_hash, row.row_number)
            return
        rows.write(row, admission)
        now = self._resources.state.now()
        if admission.reasons:
            if dismissed is not None:
                rejects.hand_on(connection, dismissed, (row.source, row.row_number, row.row_hash), now=now)
            return
        if before is not None:
            rejects.supersede_row(connection, before, now=now)
        if isinstance(row, OrderRow) and (row.seller_id, row.mp_order_number) in self._rejected_orders:
            rejects.supersede_earlier(
                connection, row.source, row.seller_id, row.mp_order_number, row.row_number, now=now
            )


def _is_a_difference(reject: Rejected) -> bool:
    """Whether the row was taken, or said nothing but what differs."""
    return all(reason["code"] == BODY_CHANGED for reason in reject.reasons)


def _reasons(admission: Admission) -> tuple[dict[str, Any], ...]:
    """The reasons as a stored reject has them."""
    return tuple(asdict(reason) for reason in admission.reasons)
