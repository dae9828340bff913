"""PURE: leaves the rows of erased sellers and orders out of what is read from the lake or written to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from feedamp.rules.erased import Erased, is_number
from feedamp.tables import ORDERS, REJECTED_ORDERS, Row

if TYPE_CHECKING:
    import pyarrow as pa

SELLER, NUMBER = ORDERS.key
NOTHING = Erased((), str)


def _recognizer(erased: Erased, table: str) -> Callable[[str | None, str | None], bool]:
    """Says of seller and number of a row whether it was erased."""
    return erased.has_delivered if table == REJECTED_ORDERS.name else erased.has


def without_erased(batch: pa.RecordBatch, erased: Erased, table: str) -> pa.RecordBatch:
    """The rows of a batch of a table that belong to no erased seller or order; tables without sellers have no others."""
    import pyarrow as pa

    if not erased or SELLER not in batch.schema.names:
        return batch
    sellers = batch.column(SELLER).to_pylist()
    has_number = NUMBER in batch.schema.names
    numbers = batch.column(NUMBER).to_pylist() if has_number else [None] * len(sellers)
    keys = list(zip(sellers, numbers, strict=True))
    is_gone = _recognizer(erased, table)
    gone = {key for key in set(keys) if is_gone(*key)}
    if not gone:
        return batch
    return batch.filter(pa.array((key not in gone for key in keys), pa.bool_()))


def rows_without_erased(rows: Iterable[Row], erased: Erased, table: str) -> list[Row]:
    """As `without_erased`, of rows as dicts."""
    if not erased:
        return list(rows)
    is_gone = _recognizer(erased, table)
    return [row for row in rows if not is_gone(row.get(SELLER), row.get(NUMBER))]


def spellings(delivered: Iterable[str], mp_order_number: str) -> list[str]:
    """Those of the numbers of rejected rows that mean the order."""
    return [one for one in delivered if is_number(one, mp_order_number)]
