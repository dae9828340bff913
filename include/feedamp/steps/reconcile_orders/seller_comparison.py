"""One seller's orders compared, chunk by chunk, and brought to FeedAMP's truth where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.api.client import FeedAmpClient
from feedamp.api.pages import Filters, UnreadableOrder
from feedamp.api.pagination import (
    OrderPages,
    chunks_of_numbers,
    fetch_complete,
    read_by_number,
)
from feedamp.codec import content_hash
from feedamp.errors import NotFoundError, RejectedError, UnclearError, UnreadableError
from feedamp.lake.flatten import order_rows
from feedamp.models import Order
from feedamp.resources import Resources
from feedamp.rules.comparison import (
    Difference,
    compare,
    feedamp_side,
    ledger_side,
    may_be_an_update,
)
from feedamp.rules.order import LedgerOrder
from feedamp.rules.repair import (
    AGREE,
    SENDING,
    Action,
    Repair,
    decide_repair,
    is_about_content,
    is_mended,
)
from feedamp.rules.units import count_units
from feedamp.run import Run
from feedamp.state import ledger, manifests, open_orders, outbox, sellers, watermarks
from feedamp.state.open_orders import StoredSnapshot
from feedamp.steps.place_orders.seller_batch import SellerBatch
from feedamp.steps.reconcile_orders.difference_table import DifferenceTable
from feedamp.steps.reconcile_orders.repair_ledger import repair_ledger
from feedamp.steps.reconcile_orders.warehouse_lookup import Stored, WarehouseReader
from feedamp.steps.runner import StepResult
from feedamp.tables import RECONCILIATIONS, Rows

ORDERS_PER_CHUNK = 200


@dataclass
class _Case:
    """One order as all three see it."""

    number: str
    ours: LedgerOrder | None
    stored: Stored
    asked_at: datetime  # FeedAMP, not before this moment
    shown: Order | None = None
    read_at: datetime | None = None
    rows: Rows = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    repair: Repair = AGREE
    is_to_be_sent: bool = False
    is_not_extracted: bool = False  # the seller has changed it since the last extraction


class SellerComparison:
    """The orders of one seller; a chunk's differences are written before the next chunk is read."""

    def __init__(
        self,
        resources: Resources,
        run: Run,
        client: FeedAmpClient,
        warehouse: WarehouseReader,
        result: StepResult,
        table: DifferenceTable,
        *,
        repair: bool,
    ) -> None:
        self._resources = resources
        self._run = run
        self._client = client
        self._seller_id = client.seller_id
        self._warehouse = warehouse
        self._result = result
        self._table = table
        self._repair = repair

    async def compare(self, numbers: Sequence[str]) -> None:
        """Compares all these orders.

        Raises:
            BusyError: another process holds the warehouse.
            PausedError: the seller has been paused meanwhile; what was compared is written.
        """
        for start in range(0, len(numbers), ORDERS_PER_CHUNK):
            await self._compare_chunk(list(numbers[start : start + ORDERS_PER_CHUNK]))

    async def _compare_chunk(self, numbers: list[str]) -> None:
        with self._resources.state.read() as connection:
            sellers.check_pause(connection, self._seller_id)
        # The ledger is read before FeedAMP, and once more before anything is written: an order that moved in between
        # is left out.
        with self._resources.state.read() as connection:
            ours = ledger.read_many(connection, self._seller_id, numbers)
        asked_at = self._resources.state.now()
        fresh = await read_by_number(self._client, numbers)
        for error in fresh.failed:
            self._result.record_failure(self._seller_id, error)
        self._note_unread(fresh.unread)
        stored = await self._warehouse.read(self._seller_id, numbers)
        self._table.compared += len(numbers)
        shown = {order.mp_order_number: (order, read_at) for order, read_at in fresh.orders}
        cases = []
        for number in numbers:
            if number in shown or number in fresh.missing:
                case = _Case(
                    number, ours.get(number), stored[number], asked_at, *shown.get(number, (None, None))
                )
                if self._differs(case) and await self._is_confirmed(case):
                    cases.append(case)
        await self._find_not_extracted(cases)
        to_send = self._write(cases)
        if to_send:
            await self._send(to_send)

    def _differs(self, case: _Case) -> bool:
        case.rows = {}
        shown_side = {}
        if case.shown is not None and case.read_at is not None:
            case.rows = order_rows(self._seller_id, case.shown, read_at=case.read_at)
            shown_side = feedamp_side(case.shown, case.rows)
        with_lines = case.shown is not None and bool(case.shown.order_lines)
        is_newer = case.stored.extracted_at is not None and (
            case.read_at is not None and case.stored.extracted_at > case.read_at
        )  # someone has read the order after us: the warehouse knows better
        case.differences = compare(
            ledger_side(case.ours, with_lines=with_lines),
            shown_side,
            None if is_newer else case.stored.side,
        )
        return bool(case.differences)

    async def _is_confirmed(self, case: _Case) -> bool:
        """Reads an order by itself before its ledger row would change on what a list said: lists may lag."""
        case.repair = self._decide(case)
        if case.shown is None or case.repair.action in (Action.AGREE, Action.CLOSE):
            return True
        try:
            order, read_at = await self._client.get_order(case.number)
            read = await fetch_complete(self._client, order)
        except NotFoundError:
            case.shown, case.read_at = None, None
        except UnclearError as error:
            self._result.record_failure(self._seller_id, error)  # the others are no worse for it
            return False
        except UnreadableError as error:
            self._note_unread([UnreadableOrder(case.number, error.where)])
            return False
        else:
            if isinstance(read, UnreadableOrder):
                self._note_unread([read])
                return False
            case.shown, case.read_at = read[0], read[1] or read_at
        differs = self._differs(case)
        case.repair = self._decide(case)
        return differs

    async def _find_not_extracted(self, cases: Sequence[_Case]) -> None:
        """Marks the orders that differ only by what their seller did after the last extraction: the next one brings it.

        FeedAMP shows no moment of an update (contract 8.5), so it is asked which of these orders were updated since. An
        extraction that began after the update and did not bring it has lost it: such an order stays a difference.
        """
        waiting: dict[datetime, list[_Case]] = {}
        with self._resources.state.read() as connection:
            mark = watermarks.read(connection, self._seller_id)
            is_loading = manifests.is_loading(connection)
            for case in cases:
                if case.shown is None or case.repair.action is not Action.AGREE:
                    continue
                if not may_be_an_update(
                    case.differences, {line.mp_line_number for line in case.shown.order_lines}
                ):
                    continue
                held = self._stored_snapshot(connection, case.number) if is_loading else None
                began = [mark + self._resources.settings.overlap] if mark is not None else []
                began += [case.stored.extracted_at] if case.stored.extracted_at is not None else []
                if not began or (held and held.snapshot_hash == content_hash(case.shown.snapshot())):
                    case.is_not_extracted = True  # never extracted, or extracted and about to be loaded
                else:  # the filter knows whole seconds, and includes its bound
                    since = max(began).replace(microsecond=0) + timedelta(seconds=1)
                    waiting.setdefault(since, []).append(case)
        for since, asked in waiting.items():
            updated = await self._updated_since(since, [case.number for case in asked])
            for case in asked:
                case.is_not_extracted = case.number in updated

    def _stored_snapshot(self, connection: Connection, number: str) -> StoredSnapshot | None:
        """None also where it cannot be decoded: the order is compared as one that the state has not seen."""
        try:
            return open_orders.read(connection, self._seller_id, number)
        except UnreadableError:
            return None

    async def _updated_since(self, since: datetime, numbers: Sequence[str]) -> set[str]:
        """Those of some orders that their seller has updated at or after a moment."""
        updated: set[str] = set()
        for chunk in chunks_of_numbers(number for number in numbers if "," not in number):
            sweep = OrderPages(
                self._client, Filters(seller_updated_after=since, mp_order_numbers=tuple(chunk))
            )
            try:
                async for page in sweep.pages():
                    updated.update(item.mp_order_number for item in page.items if item.mp_order_number)
            except RejectedError:
                continue  # FeedAMP does not take the two filters together (contract 3.1): they count as differences
        return updated

    def _decide(self, case: _Case) -> Repair:
        has_acted = case.stored.has_units
        if case.shown is None and not has_acted:
            with self._resources.state.read() as connection:
                try:
                    held = open_orders.read(connection, self._seller_id, case.number)
                except UnreadableError:
                    # What the seller has done is unknown: a repair must not have it done twice.
                    held, has_acted = None, True
            units = count_units({}, held.snapshot.fulfillments if held else ()).values()
            has_acted = has_acted or any(line.shipped or line.cancelled for line in units)
        return decide_repair(case.ours, case.shown, seller_has_acted=has_acted)

    def _write(self, cases: list[_Case]) -> list[_Case]:
        """Writes a chunk's differences, and what mends them, in one transaction; returns what is to be sent."""
        if cases:
            with self._resources.state.begin() as connection:
                still = ledger.read_many(connection, self._seller_id, [case.number for case in cases])
                for case in cases:
                    if still.get(case.number) != case.ours:
                        self._table.moved += 1
                        self._result.complete = False
                        self._result.add_warning(
                            self._seller_id,
                            f"order {case.number} changed while it was compared, so it is left out; "
                            "the next reconciliation of its day compares it",
                        )
                        continue
                    if case.is_not_extracted:
                        self._table.not_extracted += 1
                        if self._repair:
                            self._follow(connection, case)
                        continue
                    self._table.add(self._seller_id, case.number, case.differences)
                    mended = self._mend(connection, case) if self._repair else []
                    if case.shown is None and case.ours is not None:
                        ledger.mark_missing(connection, *case.ours.key, asked_at=case.asked_at)
                    self._record(connection, case, case.differences, mended)
        return [case for case in cases if case.is_to_be_sent]

    def _mend(self, connection: Connection, case: _Case) -> list[Difference]:
        """Brings the ledger, and by way of the lake the warehouse, to what FeedAMP shows; returns what that mends."""
        done = repair_ledger(connection, self._resources, self._run, case.ours, case.shown, case.repair)
        self._follow(connection, case)
        if case.repair.reason:
            self._result.add_warning(self._seller_id, f"order {case.number}: {case.repair.reason}")
        elif case.repair.action is Action.PLACE_AGAIN:
            self._result.add_warning(
                self._seller_id,
                f"order {case.number}: FeedAMP no longer had it; it is placed again as it was first accepted",
            )
        if any(is_about_content(difference) for difference in case.differences):
            self._result.add_warning(
                self._seller_id,
                f"order {case.number}: FeedAMP has other lines or quantities than were placed, and takes no change of "
                "them. Settle it with the seller or FeedAMP; the warehouse shows what FeedAMP has.",
            )
        case.is_to_be_sent = done and case.repair.action in SENDING
        follows = done and not case.is_to_be_sent
        return [d for d in case.differences if is_mended(d, ledger_follows=follows)]

    def _follow(self, connection: Connection, case: _Case) -> None:
        """Sends the fresh snapshot of an order on its way to state, lake and warehouse."""
        if case.shown is not None and case.read_at is not None:
            open_orders.keep_open(connection, self._seller_id, [(case.shown.snapshot(), case.read_at)])
            outbox.put_all(connection, case.rows, recorded_at=case.read_at)

    def _record(
        self,
        connection: Connection,
        case: _Case,
        differences: Sequence[Difference],
        mended: Sequence[Difference],
    ) -> None:
        now = self._resources.state.now()
        rows: list[dict[str, Any]] = [
            {
                "run_id": self._run.run_id,
                "seller_id": self._seller_id,
                "mp_order_number": case.number,
                "field": difference.field,
                "ledger_value": difference.ledger,
                "feedamp_value": difference.feedamp,
                "warehouse_value": difference.warehouse,
                "repaired_at": now if difference in mended else None,
            }
            for difference in differences
        ]
        outbox.put(connection, RECONCILIATIONS.name, rows, recorded_at=now)
        self._table.mended(mended)

    async def _send(self, cases: Sequence[_Case]) -> None:
        """Sends what the ledger now has to place, as `place` does, and marks what that mended."""
        numbers = [case.number for case in cases]
        try:
            await SellerBatch(self._resources, self._run, self._result, self._client).send(numbers)
        finally:  # a seller in trouble may have got some of them
            with self._resources.state.begin() as connection:
                now = ledger.read_many(connection, self._seller_id, numbers)
                for case in cases:
                    if now[case.number].phase in ("settled", "closed"):
                        late = [d for d in case.differences if not is_mended(d, ledger_follows=False)]
                        mended = [d for d in late if is_mended(d, ledger_follows=True)]
                        self._record(connection, case, mended, mended)

    def _note_unread(self, unread: Sequence[UnreadableOrder]) -> None:
        self._result.orders_unread += len(unread)
        for item in unread:
            self._result.add_warning(self._seller_id, item.sentence)
