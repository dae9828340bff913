"""Reads orders from the warehouse for many sellers at the same time.

Only one process at a time can have the warehouse open. So a lookup opens it briefly, in a separate thread, and never
keeps it open during a request to FeedAMP. Lookups that arrive meanwhile are answered together the next time: to open it
takes a tenth of a second, and each request to FeedAMP asks for 50 orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from feedamp.rules.comparison import COMPARED, INDEXES, Side, rows_side
from feedamp.tables import ORDER_LINES, ORDERS, Row
from feedamp.warehouse import Warehouse

ORDERS_PER_LOOKUP = 2_000
WAIT_S = 10.0  # a reconciliation should not wait longer for another process that reads the warehouse
Key = tuple[str, str]
_KEY = ("seller_id", "mp_order_number")


@dataclass(frozen=True)
class WarehouseRow:
    """One order as the warehouse has it, and when it was extracted (None: never)."""

    side: Side
    extracted_at: datetime | None = None

    @property
    def has_units(self) -> bool:
        """Whether it shows shipped or cancelled units."""
        return any(
            path[2:] in (("units_shipped",), ("units_cancelled",)) and value not in ("", "0")
            for path, value in self.side.items()
        )


@dataclass
class _Lookup:
    """One caller's keys; `answer` is the task that reads them together with those of other callers."""

    keys: list[Key]
    answer: asyncio.Task[dict[Key, WarehouseRow]] | None = None


class WarehouseReader:
    """Combines the lookups of many sellers; safe to use from all tasks of one event loop."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._waiting: list[_Lookup] = []
        self._lock = asyncio.Lock()

    async def read(self, seller_id: str, numbers: Sequence[str]) -> dict[str, WarehouseRow]:
        """The warehouse's rows of one seller's orders, by number; an order it does not have gets an empty side.

        Raises:
            BusyError: another process holds the warehouse.
        """
        lookup = _Lookup([(seller_id, number) for number in numbers])
        self._waiting.append(lookup)
        async with self._lock:
            while lookup.answer is None:
                await self._answer_batch()
        found = await lookup.answer
        return {number: found.get((seller_id, number), WarehouseRow({})) for number in numbers}

    async def _answer_batch(self) -> None:
        batch = [self._waiting.pop(0)]
        while self._waiting and sum(len(lookup.keys) for lookup in batch) < ORDERS_PER_LOOKUP:
            batch.append(self._waiting.pop(0))
        keys = [key for lookup in batch for key in lookup.keys]
        answer = asyncio.create_task(asyncio.to_thread(self._read, keys))
        for lookup in batch:
            lookup.answer = answer
        await asyncio.wait([answer])  # an error is raised in each caller that awaits its answer

    def _read(self, keys: list[Key]) -> dict[Key, WarehouseRow]:
        rows: dict[Key, dict[str, list[Row]]] = {}
        moments: dict[Key, datetime | None] = {}
        with self._warehouse.session(wait_s=min(WAIT_S, self._warehouse.lock_wait_s)) as session:
            for table in (ORDERS.name, ORDER_LINES.name, *INDEXES):
                for row in session.rows(table, _columns(table), keys):
                    key = (row["seller_id"], row["mp_order_number"])
                    rows.setdefault(key, {}).setdefault(table, []).append(row)
                    if table == ORDERS.name:
                        moments[key] = row["extracted_at"]
        return {key: WarehouseRow(rows_side(found), moments.get(key)) for key, found in rows.items()}


def _columns(table: str) -> list[str]:
    more: tuple[str, ...] = ("extracted_at",)
    if table != ORDERS.name:
        more = ("mp_line_number", *([INDEXES[table]] if table in INDEXES else []))
    return list(dict.fromkeys((*_KEY, *more, *COMPARED[table])))


def purchased_orders(
    warehouse: Warehouse, seller_ids: Sequence[str], start: datetime, end: datetime
) -> dict[str, dict[str, date]]:
    """UTC days of all warehouse orders purchased from `start` (inclusive) to `end` (exclusive), by seller and number.

    Includes orders that are not in the ledger.
    """
    found: dict[str, dict[str, date]] = {}
    with warehouse.session(wait_s=min(WAIT_S, warehouse.lock_wait_s)) as session:
        for seller_id, number, day in session.purchased(seller_ids, start, end):
            found.setdefault(seller_id, {})[number] = day
    return found
