"""Compares one seller's orders chunk by chunk, and repairs the differences if asked to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.api.orders_by_number import chunks_of_numbers, read_alone
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.api.pagination import OrderPages
from feedamp.codec import content_hash
from feedamp.errors import NotFoundError, ReadOnlyError, RejectedError, UnclearError, UnreadableError
from feedamp.lake.flatten import order_rows
from feedamp.models import Order
from feedamp.rules import order_story
from feedamp.rules.comparison import Difference, compare, feedamp_side, ledger_side, may_be_an_update
from feedamp.rules.order import LedgerOrder, Phase
from feedamp.rules.reconciled_days import NOT_EXTRACTED, CheckedDay, Counts
from feedamp.rules.repair import AGREE, SENDING, Action, Repair, decide_repair, is_about_content, is_mended
from feedamp.rules.retries import FAILURES_THAT_END_A_SELLER
from feedamp.rules.units import count_units
from feedamp.state import (
    ledger,
    manifests,
    open_orders,
    order_events,
    outbox,
    reconciliation_days,
    sellers,
    watermarks,
)
from feedamp.state.open_orders import StoredSnapshot
from feedamp.state.reconciliation_days import DIFFERENCES_KEPT
from feedamp.steps.place_orders.seller_batch import SellerBatch
from feedamp.steps.reconcile_orders.difference_table import DifferenceTable
from feedamp.steps.reconcile_orders.planned_days import Planned
from feedamp.steps.reconcile_orders.repair_ledger import repair_ledger
from feedamp.steps.reconcile_orders.warehouse_lookup import WarehouseReader, WarehouseRow
from feedamp.steps.seller_job import Job, SellerJob
from feedamp.tables import RECONCILIATIONS, Row, Rows

# How an order is recorded that is only not extracted yet: as one row, whatever its seller has changed.
_NEWER_SNAPSHOT = Difference(("snapshot",), None, "newer", "as last extracted")


@dataclass
class _Case:
    """One order as ledger, FeedAMP and warehouse have it; None where they do not have it."""

    number: str
    ledger_order: LedgerOrder | None
    warehouse_row: WarehouseRow
    asked_at: datetime  # FeedAMP was asked at this moment or later
    remote_order: Order | None = None
    read_at: datetime | None = None
    remote_rows: Rows = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    repair: Repair = AGREE
    is_to_be_sent: bool = False
    is_not_extracted: bool = False  # the seller has changed it since the last extraction
    found_at: datetime | None = None


class SellerComparison(SellerJob):
    """Compares the orders of one seller; the differences of a chunk are written before the next chunk is read."""

    def __init__(
        self, *job: *Job, warehouse: WarehouseReader, table: DifferenceTable, repair: bool, began_at: datetime
    ) -> None:
        super().__init__(*job)
        self._warehouse = warehouse
        self._table = table
        self._repair = repair
        self._began_at = began_at
        self._planned: Planned = {}
        self._days: dict[date, Counts] = {}
        self._planned_at: dict[date, datetime | None] = {}
        self._recorded: list[Row] = []  # since the state was last told
        self._room: dict[date, int] = {}  # how many more differences of a day the state keeps
        self._outdated: set[date] = set()  # days whose kept differences are an earlier comparison's

    async def compare(self, planned: Planned) -> None:
        """Compares all these orders.

        Raises:
            BusyError: another process holds the warehouse.
            PausedError: the seller was paused meanwhile; the differences of earlier chunks are written.
        """
        self._planned = planned
        for day in filter(None, planned.values()):
            self._days.setdefault(day, Counts()).planned += 1
        with self._state.read() as connection:
            known = reconciliation_days.known_before(
                connection, self._run.run_id, self._seller_id, self._days
            )
        self._planned_at, self._outdated = known.planned_at, known.kept
        self._room = dict.fromkeys(self._days, DIFFERENCES_KEPT)
        for day, by_kind in known.repaired.items():
            earlier = Counts(found=by_kind, repaired=by_kind)
            self._room[day] -= by_kind.total()
            for counts in (self._days[day], self._table.counts):
                counts.add(earlier)
        # What one request has answered outlives the next one's failure.
        for chunk in chunks_of_numbers(planned):
            await self._compare_chunk(chunk)

    def _counts_of(self, number: str) -> list[Counts]:
        """What counts an order: the sums of the task, and those of its day."""
        day = self._planned[number]
        return [self._table.counts, *([self._days[day]] if day else [])]

    def _count_unreadable(self, *orders: UnreadableOrder) -> None:
        self._record_unreadable(*orders)
        for order in orders:
            for counts in (
                self._counts_of(order.mp_order_number) if order.mp_order_number in self._planned else ()
            ):
                counts.unread += 1

    def _write_days(self, connection: Connection, numbers: Iterable[str]) -> None:
        """Stores what is known so far about the days of these orders."""
        checked = [
            CheckedDay(
                day,
                self._seller_id,
                self._run.run_id,
                self._began_at,
                self._days[day],
                self._planned_at.get(day, self._began_at),
            )
            for day in sorted(set(filter(None, map(self._planned.__getitem__, numbers))))
        ]
        reconciliation_days.write(connection, checked, now=self._state.now())

    def _keep_differences(self, connection: Connection, numbers: Iterable[str]) -> None:
        """Stores for the pages what was recorded of these orders; what is beyond the limit is only counted."""
        outdated = self._outdated.intersection(map(self._planned.__getitem__, numbers))
        if outdated:
            reconciliation_days.drop_differences(
                connection, self._run.run_id, self._seller_id, sorted(outdated), checked_at=self._began_at
            )
            self._outdated -= outdated
        kept = []
        for row in self._recorded:
            if self._room[row["day"]] > 0:
                self._room[row["day"]] -= 1
                kept.append(row)
        reconciliation_days.keep_differences(connection, kept)
        self._recorded = []

    async def _compare_chunk(self, numbers: list[str]) -> None:
        # The ledger is read before FeedAMP, and again before anything is written: an order that has changed in between
        # is left out.
        with self._state.read() as connection:
            sellers.check_pause(connection, self._seller_id)
            ledger_orders = ledger.read_many(connection, self._seller_id, numbers)
        asked_at = self._state.now()
        fresh = await self._ask_for(numbers)
        self._count_unreadable(*fresh.unread)
        warehouse_rows = await self._warehouse.read(self._seller_id, numbers)
        compared: list[str] = []
        remote_orders = {order.mp_order_number: (order, read_at) for order, read_at in fresh.orders}
        cases = []
        for number in numbers:
            if number in remote_orders or number in fresh.missing:
                case = _Case(
                    number,
                    ledger_orders.get(number),
                    warehouse_rows[number],
                    asked_at,
                    *remote_orders.get(number, (None, None)),
                )
                differs = await self._is_confirmed(case) if self._differs(case) else False
                if differs:
                    cases.append(case)
                if differs is not None:
                    compared.append(number)
        await self._find_not_extracted(cases)
        if self._repair:  # an order that `close` works on is not repaired, unless its process is dead
            await self._state.leases.watch("close", self._seller_id, [case.number for case in cases])
        to_send = self._write(numbers, compared, cases)
        if to_send:
            try:
                await self._send(to_send)
            except ReadOnlyError as error:  # `place` sends them later; the comparison only reads
                self._result.stop(error)

    def _differs(self, case: _Case) -> bool:
        """Fills in the case's differences; True if there are any."""
        case.remote_rows = {}
        remote_side = {}
        if case.remote_order is not None and case.read_at is not None:
            case.remote_rows = order_rows(
                self._seller_id, case.remote_order, read_at=case.read_at, is_repair=True
            )
            remote_side = feedamp_side(case.remote_order, case.remote_rows)
        with_lines = case.remote_order is not None and bool(case.remote_order.order_lines)
        extracted_at = case.warehouse_row.extracted_at
        # True if the order was extracted after this step read it: then the warehouse is not compared.
        is_newer = extracted_at is not None and case.read_at is not None and extracted_at > case.read_at
        case.differences = compare(
            ledger_side(case.ledger_order, with_lines=with_lines),
            remote_side,
            None if is_newer else case.warehouse_row.side,
        )
        return bool(case.differences)

    async def _is_confirmed(self, case: _Case) -> bool | None:
        """Whether the difference remains when the order is read alone; None if it could not be read.

        Lists may lag, so an order is read alone before a list's answer may change its ledger row.
        """
        case.repair = self._decide(case)
        if case.remote_order is None or case.repair.action in (Action.AGREE, Action.CLOSE):
            return True
        if len(self._unanswered) >= FAILURES_THAT_END_A_SELLER:
            return None
        try:
            read = await read_alone(self._client, case.number)
        except NotFoundError:
            case.remote_order, case.read_at = None, None
        except UnclearError as error:
            self._record_unanswered(error)  # only this order is affected
            return None
        else:
            if isinstance(read, UnreadableOrder):
                self._count_unreadable(read)
                return None
            case.remote_order, case.read_at = read
        differs = self._differs(case)
        case.repair = self._decide(case)
        return differs

    async def _find_not_extracted(self, cases: Sequence[_Case]) -> None:
        """Marks orders that differ only because their seller has changed them since the last extraction.

        FeedAMP does not report when an order was updated (contract 8.5), so the filter is asked which of these orders
        were updated since the last extraction began. If an extraction began after the update but did not read it, the
        update is lost, and the order stays a difference.
        """
        waiting: dict[datetime, list[_Case]] = {}
        with self._state.read() as connection:
            watermark = watermarks.read(connection, self._seller_id)
            is_loading = manifests.is_loading(connection)
            for case in cases:
                if case.remote_order is None or case.repair.action is not Action.AGREE:
                    continue
                if not may_be_an_update(
                    case.differences, {line.mp_line_number for line in case.remote_order.order_lines}
                ):
                    continue
                stored = self._stored_snapshot(connection, case.number) if is_loading else None
                extracted_at = case.warehouse_row.extracted_at
                began = [watermark + self._resources.settings.overlap] if watermark is not None else []
                began += [extracted_at] if extracted_at is not None else []
                if not began or (
                    stored and stored.snapshot_hash == content_hash(case.remote_order.snapshot())
                ):
                    case.is_not_extracted = True  # never extracted, or extracted and about to be loaded
                else:  # the filter has whole seconds and includes its bound
                    since = max(began).replace(microsecond=0) + timedelta(seconds=1)
                    waiting.setdefault(since, []).append(case)
        for since, candidates in waiting.items():
            updated = await self._updated_since(since, [case.number for case in candidates])
            for case in candidates:
                case.is_not_extracted = case.number in updated

    def _stored_snapshot(self, connection: Connection, number: str) -> StoredSnapshot | None:
        """The snapshot in the state; None if there is none or it cannot be decoded."""
        try:
            return open_orders.read(connection, self._seller_id, number)
        except UnreadableError:
            return None

    async def _updated_since(self, since: datetime, numbers: Sequence[str]) -> set[str]:
        """The orders among `numbers` that their seller has updated at or after a moment."""
        updated: set[str] = set()
        for chunk in chunks_of_numbers(number for number in numbers if "," not in number):
            sweep = OrderPages(
                self._client, Filters(seller_updated_after=since, mp_order_numbers=tuple(chunk))
            )
            try:
                async for page in sweep.pages():
                    updated.update(item.mp_order_number for item in page.items if item.mp_order_number)
            except RejectedError:
                continue  # FeedAMP refuses the two filters together (contract 3.1): the orders stay differences
        return updated

    def _decide(self, case: _Case) -> Repair:
        has_acted = case.warehouse_row.has_units
        if case.remote_order is None and not has_acted:
            with self._state.read() as connection:
                try:
                    stored = open_orders.read(connection, self._seller_id, case.number)
                except UnreadableError:
                    # The seller may have shipped already: a repair must not make it ship twice.
                    stored, has_acted = None, True
            units = count_units({}, stored.snapshot.fulfillments if stored else ()).values()
            has_acted = has_acted or any(line.shipped or line.cancelled for line in units)
        return decide_repair(case.ledger_order, case.remote_order, seller_has_acted=has_acted)

    def _write(self, numbers: list[str], compared: list[str], cases: list[_Case]) -> list[_Case]:
        """Writes a chunk's differences and their repairs in one transaction; returns the orders to be sent."""
        with self._state.begin() as connection:
            keys = [(self._seller_id, number) for number in (None, *(case.number for case in cases))]
            erased = self._resources.erased(connection, keys)
            if erased.has_seller(self._seller_id):
                return []
            # An order that was erased since its day was planned has nothing to be compared any more.
            cases = [case for case in cases if not erased.has(self._seller_id, case.number)]
            current = ledger.read_many(connection, self._seller_id, [case.number for case in cases])
            for case in cases:
                if current.get(case.number) != case.ledger_order:
                    compared.remove(case.number)
                    self._table.changed += 1
                    self._result.complete = False
                    self._warn(
                        f"order {case.number} changed while it was compared, so it is left out; "
                        "the next reconciliation of its day compares it",
                    )
                    continue
                case.found_at = self._state.now()
                if case.is_not_extracted:
                    if self._repair:
                        self._store_remote_order(connection, case)
                    for counts in self._counts_of(case.number):
                        counts.found[NOT_EXTRACTED] += 1
                    self._record(connection, case, [_NEWER_SNAPSHOT], is_repaired=self._repair)
                    continue
                self._table.show(self._seller_id, case.number, case.differences)
                for counts in self._counts_of(case.number):
                    counts.found.update(difference.kind for difference in case.differences)
                repaired = self._apply_repair(connection, case) if self._repair else []
                if case.remote_order is None and case.ledger_order is not None:
                    ledger.mark_missing(connection, *case.ledger_order.key, asked_at=case.asked_at)
                left = [difference for difference in case.differences if difference not in repaired]
                self._record(connection, case, left)
                self._record_repaired(connection, case, repaired)
            for number in compared:
                for counts in self._counts_of(number):
                    counts.compared += 1
            self._keep_differences(connection, numbers)
            self._write_days(connection, numbers)
        differences = sum(
            len(case.differences) for case in cases if case.found_at and not case.is_not_extracted
        )
        self._count(orders=len(compared), differences=differences)
        return [case for case in cases if case.is_to_be_sent]

    def _apply_repair(self, connection: Connection, case: _Case) -> list[Difference]:
        """Sets ledger and (through outbox and lake) warehouse to FeedAMP's state; returns the repaired differences."""
        done = repair_ledger(
            connection, self._resources, self._run, case.ledger_order, case.remote_order, case.repair
        )
        self._store_remote_order(connection, case)
        if case.repair.reason:
            self._warn(f"order {case.number}: {case.repair.reason}")
        elif case.repair.action is Action.PLACE_AGAIN:
            self._warn(
                f"order {case.number}: FeedAMP no longer had this order; it is placed again as it was first accepted",
            )
        if any(is_about_content(difference) for difference in case.differences):
            self._warn(
                f"order {case.number}: FeedAMP has other lines or quantities than were placed, or another day "
                "of purchase, and no PUT can change them. Settle it with the seller or FeedAMP; the warehouse shows what FeedAMP has.",
            )
        case.is_to_be_sent = done and case.repair.action in SENDING
        follows = done and not case.is_to_be_sent
        return [d for d in case.differences if is_mended(d, ledger_follows=follows)]

    def _store_remote_order(self, connection: Connection, case: _Case) -> None:
        """Stores the fresh order in the state, and in the outbox for lake and warehouse."""
        if case.remote_order is not None and case.read_at is not None:
            snapshot = case.remote_order.snapshot()
            run_id = self._run.run_id
            open_orders.keep_open(connection, self._seller_id, [(snapshot, case.read_at)], run_id=run_id)
            outbox.put_all(connection, case.remote_rows, recorded_at=case.read_at)

    def _record_repaired(
        self, connection: Connection, case: _Case, differences: Sequence[Difference]
    ) -> None:
        for counts in self._counts_of(case.number):
            counts.repaired.update(difference.kind for difference in differences)
        self._record(connection, case, differences, is_repaired=True)
        if case.ledger_order is not None:
            run_id, now = self._run.run_id, self._state.now()
            reopened = case.repair.action is Action.REOPEN and case.ledger_order.phase == Phase.CLOSED
            events = order_story.repaired(
                case.ledger_order, differences, reopened=reopened, run_id=run_id, now=now
            )
            order_events.record(connection, events, run_id=run_id)

    def _record(
        self,
        connection: Connection,
        case: _Case,
        differences: Sequence[Difference],
        *,
        is_repaired: bool = False,
    ) -> None:
        now = self._state.now()
        day = self._planned[case.number] or (case.ledger_order and case.ledger_order.purchase_date.date())
        rows: list[dict[str, Any]] = [
            {
                "run_id": self._run.run_id,
                "seller_id": self._seller_id,
                "mp_order_number": case.number,
                "field": difference.field,
                "day": day,
                "kind": NOT_EXTRACTED if difference is _NEWER_SNAPSHOT else difference.kind,
                "ledger_value": difference.ledger,
                "feedamp_value": difference.feedamp,
                "warehouse_value": difference.warehouse,
                "found_at": case.found_at,
                "repaired_at": now if is_repaired else None,
            }
            for difference in differences
        ]
        outbox.put(connection, RECONCILIATIONS.name, rows, recorded_at=now)
        if self._planned[case.number]:  # compared for its day, and not because it is open for long
            self._recorded += [row for row in rows if row["kind"] != NOT_EXTRACTED]

    async def _send(self, cases: Sequence[_Case]) -> None:
        """Sends the orders to be placed, as `place` does, and records which differences that repaired."""
        numbers = [case.number for case in cases]
        try:
            job = (self._resources, self._run, self._result, self._client)
            # They are counted as compared already.
            await SellerBatch(*job, counted_as=("sent", "refused")).send(numbers)
        finally:  # some orders may have been sent before the seller failed
            with self._state.begin() as connection:
                current = ledger.read_many(connection, self._seller_id, numbers)
                for case in cases:
                    if case.number not in current:
                        continue  # erased meanwhile
                    if current[case.number].phase in (Phase.SETTLED, Phase.CLOSED):
                        late = [d for d in case.differences if not is_mended(d, ledger_follows=False)]
                        repaired = [d for d in late if is_mended(d, ledger_follows=True)]
                        self._record_repaired(connection, case, repaired)
                reconciliation_days.mark_repaired(connection, self._recorded)
                self._recorded = []
                self._write_days(connection, numbers)
