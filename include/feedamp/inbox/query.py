"""Reads orders from a database query, one per row. The query itself is run elsewhere (`OrderQuery`)."""

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Protocol

from feedamp.inbox.cells import EXACT_DIGITS, evaluate_cells
from feedamp.inbox.jsonl import decode
from feedamp.order_body import BodyRules, Reason
from feedamp.order_body.rows import BadRow, OrderRow

QUERY_PREFIX = "sql:"


class OrderQuery(Protocol):
    """A query on the marketplace's database."""

    @property
    def source(self) -> str:
        """The source name of its rows, starting with `sql:`; the same in every run."""

    def rows(self) -> Iterator[tuple[object, object]]:
        """(seller_id, order) of each row, streamed.

        Raises:
            TransientError: the database cannot be reached, or failed while rows were read.
            ConfigurationError: the query cannot be run, or does not return these columns.
        """


def read_query(query: OrderQuery, rules: BodyRules) -> Iterator[OrderRow | BadRow]:
    """An order or reject per row, numbered from 1. Memory does not grow with the rows. Raises as `OrderQuery.rows`."""
    for row_number, (seller_id, order) in enumerate(query.rows(), start=1):
        content = order.tobytes() if isinstance(order, memoryview) else order
        row = {"seller_id": seller_id, "order": content}
        yield evaluate_cells(row, query.source, row_number, rules, tuple(_inexact(order)))


def read_kept(source: str, row_number: int, raw: str, rules: BodyRules) -> OrderRow | BadRow:
    """The order or reject of the stored text of a query row."""
    content = decode(raw.encode())
    return evaluate_cells(content if isinstance(content, dict) else {}, source, row_number, rules)


def _inexact(order: object) -> Iterator[Reason]:
    """A reason if the driver decoded the JSON itself and may have rounded a long number, which cannot be detected here."""
    with suppress(RecursionError):  # `evaluate_cells` rejects it
        if not _has_inexact(order):
            return
        yield Reason(
            "order",
            "bad_number",
            "holds a number that the database driver may have rounded: cast the column to text",
        )


def _has_inexact(value: object) -> bool:
    if isinstance(value, dict):
        return any(_has_inexact(member) for member in value.values())
    if isinstance(value, list | tuple):
        return any(_has_inexact(item) for item in value)
    return isinstance(value, float) and len(Decimal(repr(value)).normalize().as_tuple().digits) > EXACT_DIGITS
