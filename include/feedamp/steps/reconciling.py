"""One seller's orders compared, chunk by chunk, and brought to FeedAMP's truth where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from feedamp.client import FeedAmpClient
from feedamp.comparing import Difference, compare, feedamp_side, ledger_side
from feedamp.errors import NotFoundError, UnclearError, UnreadableError
from feedamp.flatten import Rows, order_rows
from feedamp.models import Order
from feedamp.pages import Unread
from feedamp.parts import Parts, Run
from feedamp.repairing import AGREE, SENDING, Action, Repair, decide_repair, is_about_content, is_mended
from feedamp.state import ledger, open_orders, outbox
from feedamp.state.ledger import LedgerOrder
from feedamp.steps.difference_table import DifferenceTable
from feedamp.steps.edge import Tally
from feedamp.steps.mending import mend_ledger
from feedamp.steps.placing import SellerBatch
from feedamp.steps.warehouse_reading import Stored, WarehouseReader
from feedamp.sweep import read_by_number, read_whole
from feedamp.tables import RECONCILIATIONS
from feedamp.units import count_units

ORDERS_PER_CHUNK = 200


@dataclass
class _Case:
    """One order as all three see it."""

    number: str
    ours: LedgerOrder | None
    stored: Stored
    shown: Order | None = None
    read_at: datetime | None = None
    rows: Rows = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    repair: Repair = AGREE
    is_to_be_sent: bool = False


class SellerComparison:
    """The orders of one seller; a chunk's differences are written before the next chunk is read."""

    def __init__(
        self,
        parts: Parts,
        run: Run,
        client: FeedAmpClient,
        warehouse: WarehouseReader,
        tally: Tally,
        table: DifferenceTable,
        *,
        repair: bool,
    ) -> None:
        self._parts = parts
        self._run = run
        self._client = client
        self._seller_id = client.seller_id
        self._warehouse = warehouse
        self._tally = tally
        self._table = table
        self._repair = repair

    async def compare(self, numbers: Sequence[str]) -> None:
        """Compares all these orders.

        Raises:
            BusyError: another process holds the warehouse.
        """
        for start in range(0, len(numbers), ORDERS_PER_CHUNK):
            await self._compare_chunk(list(numbers[start : start + ORDERS_PER_CHUNK]))

    async def _compare_chunk(self, numbers: list[str]) -> None:
        # The ledger is read before FeedAMP, and once more before anything is written: an order that moved in between
        # is left out.
        with self._parts.state.read() as connection:
            ours = ledger.read_many(connection, self._seller_id, numbers)
        fresh = await read_by_number(self._client, numbers)
        for error in fresh.failed:
            self._tally.leave(self._seller_id, error)
        self._note_unread(fresh.unread)
        stored = await self._warehouse.read(self._seller_id, numbers)
        self._table.compared += len(numbers)
        shown = {order.mp_order_number: (order, read_at) for order, read_at in fresh.orders}
        cases = []
        for number in numbers:
            if number in shown or number in fresh.missing:
                case = _Case(number, ours.get(number), stored[number], *shown.get(number, (None, None)))
                if self._differs(case) and await self._is_confirmed(case):
                    cases.append(case)
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
        )  # somebody has read the order after us: the warehouse knows better
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
            read = await read_whole(self._client, order)
        except NotFoundError:
            case.shown, case.read_at = None, None
        except UnclearError as error:
            self._tally.leave(self._seller_id, error)  # the others are no worse for it
            return False
        except UnreadableError as error:
            self._note_unread([Unread(case.number, error.where)])
            return False
        else:
            if isinstance(read, Unread):
                self._note_unread([read])
                return False
            case.shown, case.read_at = read[0], read[1] or read_at
        differs = self._differs(case)
        case.repair = self._decide(case)
        return differs

    def _decide(self, case: _Case) -> Repair:
        has_acted = case.stored.has_units
        if case.shown is None and not has_acted:
            with self._parts.state.read() as connection:
                held = open_orders.read(connection, self._seller_id, case.number)
            units = count_units({}, held.snapshot.fulfillments if held else ()).values()
            has_acted = any(line.shipped or line.cancelled for line in units)
        return decide_repair(case.ours, case.shown, seller_has_acted=has_acted)

    def _write(self, cases: list[_Case]) -> list[_Case]:
        """Writes a chunk's differences, and what mends them, in one transaction; returns what is to be sent."""
        if cases:
            with self._parts.state.begin() as connection:
                still = ledger.read_many(connection, self._seller_id, [case.number for case in cases])
                for case in cases:
                    if still.get(case.number) != case.ours:
                        self._table.moved += 1
                        self._tally.complete = False
                        self._tally.note(
                            self._seller_id,
                            f"order {case.number} changed while it was compared, so it is left out; "
                            "the next reconciliation of its day compares it",
                        )
                        continue
                    self._table.add(self._seller_id, case.number, case.differences)
                    mended = self._mend(connection, case) if self._repair else []
                    self._record(connection, case, case.differences, mended)
        return [case for case in cases if case.is_to_be_sent]

    def _mend(self, connection: Connection, case: _Case) -> list[Difference]:
        """Brings the ledger, and by way of the lake the warehouse, to what FeedAMP shows; returns what that mends."""
        done = mend_ledger(connection, self._parts, self._run, case.ours, case.shown, case.repair)
        if case.shown is not None and case.read_at is not None:
            snapshot = case.shown.snapshot()
            open_orders.keep_open(connection, self._seller_id, [(snapshot, case.read_at)])
            outbox.put_all(connection, case.rows, recorded_at=case.read_at)
        if case.repair.reason:
            self._tally.note(self._seller_id, f"order {case.number}: {case.repair.reason}")
        elif case.repair.action is Action.PLACE_AGAIN:
            self._tally.note(
                self._seller_id,
                f"order {case.number}: FeedAMP no longer had it; it is placed again as it was first accepted",
            )
        if any(is_about_content(difference) for difference in case.differences):
            self._tally.note(
                self._seller_id,
                f"order {case.number}: FeedAMP has other lines or quantities than were placed, and takes no change of "
                "them. Settle it with the seller or FeedAMP; the warehouse shows what FeedAMP has.",
            )
        case.is_to_be_sent = done and case.repair.action in SENDING
        follows = done and not case.is_to_be_sent
        return [d for d in case.differences if is_mended(d, ledger_follows=follows)]

    def _record(
        self,
        connection: Connection,
        case: _Case,
        differences: Sequence[Difference],
        mended: Sequence[Difference],
    ) -> None:
        now = self._parts.state.now()
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
            await SellerBatch(self._parts, self._run, self._tally, self._client).send(numbers)
        finally:  # a seller in trouble may have got some of them
            with self._parts.state.begin() as connection:
                now = ledger.read_many(connection, self._seller_id, numbers)
                for case in cases:
                    if now[case.number].phase in ("settled", "closed"):
                        late = [d for d in case.differences if not is_mended(d, ledger_follows=False)]
                        mended = [d for d in late if is_mended(d, ledger_follows=True)]
                        self._record(connection, case, mended, mended)

    def _note_unread(self, unread: Sequence[Unread]) -> None:
        self._tally.orders_unread += len(unread)
        for item in unread:
            self._tally.note(self._seller_id, item.sentence)
