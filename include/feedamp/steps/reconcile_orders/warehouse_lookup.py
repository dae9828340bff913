"""What the warehouse holds of orders, for many sellers at once.

The warehouse may be held by one process at a time, so it is opened for a moment, in a thread of its own and never while
a request is on its way; whoever asks meanwhile is answered together with the others in the next opening.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from feedamp.rules.comparison import (
    COMPARED,
    INDEXES,
    Side,
    rows_side,
)
from feedamp.tables import ORDER_LINES, ORDERS, Row
from feedamp.warehouse import Warehouse

ORDERS_PER_LOOKUP = 2_000
WAIT_S = 10.0  # whoever compares has other work than to wait for a reader
Key = tuple[str, str]
_KEY = ("seller_id", "mp_order_number")


@dataclass(frozen=True)
class Stored:
    """What the warehouse says of one order, and when FeedAMP showed it (None: never)."""

    side: Side
    extracted_at: datetime | None = None

    @property
    def has_units(self) -> bool:
        """The seller had shipped or cancelled something."""
        return any(
            path[2:] in (("units_shipped",), ("units_cancelled",)) and value not in ("", "0")
            for path, value in self.side.items()
        )


@dataclass
class _Asked:
    """What one asker wants; `answer` holds it, among others', once its turn has come."""

    keys: list[Key]
    answer: asyncio.Task[dict[Key, Stored]] | None = None


class WarehouseReader:
    """Answers many askers; safe to use from all tasks of one event loop."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._waiting: list[_Asked] = []
        self._door = asyncio.Lock()

    async def read(self, seller_id: str, numbers: Sequence[str]) -> dict[str, Stored]:
        """What is stored of one seller's orders, by number; an order that is not there has an empty side.

        Raises:
            BusyError: another process holds the warehouse.
        """
        asked = _Asked([(seller_id, number) for number in numbers])
        self._waiting.append(asked)
        async with self._door:
            while asked.answer is None:
                await self._answer_some()
        found = await asked.answer
        return {number: found.get((seller_id, number), Stored({})) for number in numbers}

    async def _answer_some(self) -> None:
        together = [self._waiting.pop(0)]
        while self._waiting and sum(len(asked.keys) for asked in together) < ORDERS_PER_LOOKUP:
            together.append(self._waiting.pop(0))
        keys = [key for asked in together for key in asked.keys]
        answer = asyncio.create_task(asyncio.to_thread(self._read, keys))
        for asked in together:
            asked.answer = answer
        await asyncio.wait([answer])  # each asker meets its error, if it has one

    def _read(self, keys: list[Key]) -> dict[Key, Stored]:
        rows: dict[Key, dict[str, list[Row]]] = {}
        moments: dict[Key, datetime | None] = {}
        with self._warehouse.session(wait_s=min(WAIT_S, self._warehouse.lock_wait_s)) as session:
            for table in (ORDERS.name, ORDER_LINES.name, *INDEXES):
                for row in session.rows(table, _columns(table), keys):
                    key = (row["seller_id"], row["mp_order_number"])
                    rows.setdefault(key, {}).setdefault(table, []).append(row)
                    if table == ORDERS.name:
                        moments[key] = row["extracted_at"]
        return {key: Stored(rows_side(found), moments.get(key)) for key, found in rows.items()}


def _columns(table: str) -> list[str]:
    more: tuple[str, ...] = ("extracted_at",)
    if table != ORDERS.name:
        more = ("mp_line_number", *([INDEXES[table]] if table in INDEXES else []))
    return list(dict.fromkeys((*_KEY, *more, *COMPARED[table])))


def bought(
    warehouse: Warehouse, seller_ids: Sequence[str], start: datetime, end: datetime
) -> dict[str, list[str]]:
    """Numbers of all orders that the warehouse holds of a span of time, ours or not, by seller."""
    numbers: dict[str, list[str]] = {}
    with warehouse.session(wait_s=min(WAIT_S, warehouse.lock_wait_s)) as session:
        for seller_id, number in session.bought(seller_ids, start, end):
            numbers.setdefault(seller_id, []).append(number)
    return numbers
