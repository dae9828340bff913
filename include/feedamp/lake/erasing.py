"""PURE: leaves the rows of erased sellers and orders out of what is read from the lake or written to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from feedamp.rules.erased import Erased
from feedamp.tables import ORDERS, Row

if TYPE_CHECKING:
    import pyarrow as pa

SELLER, NUMBER = ORDERS.key
NOTHING = Erased((), str)


def without_erased(batch: pa.RecordBatch, erased: Erased) -> pa.RecordBatch:
    """The rows of a batch that belong to no erased seller or order; tables without sellers have no others."""
    import pyarrow as pa

    if not erased or SELLER not in batch.schema.names:
        return batch
    sellers = batch.column(SELLER).to_pylist()
    has_number = NUMBER in batch.schema.names
    numbers = batch.column(NUMBER).to_pylist() if has_number else [None] * len(sellers)
    keys = list(zip(sellers, numbers, strict=True))
    gone = {key for key in set(keys) if erased.has(*key)}
    if not gone:
        return batch
    return batch.filter(pa.array((key not in gone for key in keys), pa.bool_()))


def rows_without_erased(rows: Iterable[Row], erased: Erased) -> list[Row]:
    """As `without_erased`, of rows as dicts."""
    if not erased:
        return list(rows)
    return [row for row in rows if not erased.has(row.get(SELLER), row.get(NUMBER))]


def values_without_erased(
    rows: Sequence[tuple[Any, ...]], names: Sequence[str], erased: Erased
) -> Sequence[tuple[Any, ...]]:
    """As `without_erased`, of rows of orders as tuples in the order of `names`."""
    if not erased:
        return rows
    seller, number = names.index(SELLER), names.index(NUMBER)
    return [row for row in rows if not erased.has(row[seller], row[number])]
