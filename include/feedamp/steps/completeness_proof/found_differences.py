"""The differences that a comparison found, kept on disk because there may be as many as there are orders."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import msgspec

from feedamp.rules.expected_rows import Difference

DIFFERENCES_NAMED = 20
_ROWS_AT_ONCE = 500


def row_mark(table: str, *values: Any) -> str:
    """A text that identifies a row by its table and some of its values, in whichever store it was read."""
    plain = [value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value for value in values]
    return msgspec.json.encode([table, *plain]).decode()


class FoundDifferences:
    """Differences, each stored once; `compared` counts the compared orders. Use as a context manager."""

    def __init__(self) -> None:
        self._rows = sqlite3.connect("")  # a temporary file, deleted when the connection is closed
        self._rows.executescript(
            """
            CREATE TABLE found (
                id INTEGER PRIMARY KEY, table_name TEXT, seller_id TEXT, number TEXT, key TEXT, what TEXT, mark TEXT,
                in_lake INTEGER, UNIQUE (table_name, key));
            CREATE INDEX found_by_mark ON found (mark);
            CREATE INDEX found_by_order ON found (seller_id, number);
            """
        )
        self.compared = 0
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._rows.close()

    def __len__(self) -> int:
        [[count]] = self._rows.execute("SELECT count(*) FROM found")
        return int(count)

    def add(
        self, difference: Difference, *, number: str | None = None, mark: str = "", in_lake: bool = False
    ) -> None:
        """Adds a difference, with the order's number if it is about an order.

        `mark` is the `row_mark` of the row that would settle the difference. `in_lake` says that the lake has the row
        that the warehouse lacks; it is also set on a difference that was added before.
        """
        key = msgspec.json.encode(difference.key).decode()
        self._rows.execute(
            "INSERT INTO found (table_name, seller_id, number, key, what, mark, in_lake) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET in_lake = found.in_lake OR excluded.in_lake",
            (difference.table, difference.seller_id, number, key, difference.what, mark, in_lake),
        )

    def clear(self) -> None:
        """Removes all differences and notes, before another comparison."""
        self._rows.execute("DELETE FROM found")
        self.compared = 0
        self.notes.clear()

    def is_marked(self) -> bool:
        """Whether a row that is still on its way could settle any difference."""
        return self._rows.execute("SELECT 1 FROM found WHERE mark <> '' LIMIT 1").fetchone() is not None

    def settle(self, marks: Iterable[str]) -> None:
        """Drops differences whose row is still on its way."""
        self._rows.executemany("DELETE FROM found WHERE mark = ?", ((mark,) for mark in marks))

    def drop(self, table: str, keys: Iterable[Sequence[str]]) -> None:
        """Drops differences that have an explanation."""
        self._rows.executemany(
            "DELETE FROM found WHERE table_name = ? AND key = ?",
            ((table, msgspec.json.encode(list(key)).decode()) for key in keys),
        )

    def drop_orders(self, is_left_out: Callable[[str, str], bool]) -> None:
        """Drops differences of orders, by seller and number, that are not meant to be anywhere."""
        query = (
            "SELECT DISTINCT seller_id, number FROM found WHERE seller_id IS NOT NULL AND number IS NOT NULL"
        )
        dropped = [key for key in self._rows.execute(query).fetchall() if is_left_out(*key)]
        self._rows.executemany("DELETE FROM found WHERE seller_id = ? AND number = ?", dropped)

    def counts(self) -> list[tuple[str, str | None, int]]:
        """(table, seller, number of differences), sorted."""
        query = "SELECT table_name, seller_id, count(*) FROM found GROUP BY 1, 2 ORDER BY 1, 2"
        return list(self._rows.execute(query))

    def first(self, limit: int = DIFFERENCES_NAMED) -> list[Difference]:
        """The first differences, at most one per order."""
        query = (
            "SELECT table_name, seller_id, key, what FROM found WHERE id IN "
            "(SELECT min(id) FROM found GROUP BY coalesce(seller_id, ''), coalesce(number, key)) ORDER BY id LIMIT ?"
        )
        return [_difference(row) for row in self._rows.execute(query, (limit,))]

    def of_table(self, table: str) -> Iterator[list[Difference]]:
        """The differences of one table, up to 500 at a time; they may be dropped while iterating."""
        query = "SELECT id, table_name, seller_id, key, what FROM found WHERE table_name = ? AND id > ? ORDER BY id"
        for rows in self._pages(query, table, 0):
            yield [_difference(row[1:]) for row in rows]

    def in_lake(self) -> set[str]:
        """Tables with differences whose row the lake has."""
        return {table for (table,) in self._rows.execute("SELECT table_name FROM found WHERE in_lake")}

    def sellers(self) -> list[str]:
        """Sellers that have orders with differences."""
        query = "SELECT DISTINCT seller_id FROM found WHERE number IS NOT NULL ORDER BY 1"
        return [row[0] for row in self._rows.execute(query)]

    def orders(self, seller_id: str) -> Iterator[list[tuple[str, frozenset[str]]]]:
        """(number, tables with differences) of one seller's orders, up to 500 at a time."""
        query = (
            "SELECT number, group_concat(DISTINCT table_name) FROM found WHERE seller_id = ? AND number > ? "
            "GROUP BY number ORDER BY number"
        )
        for rows in self._pages(query, seller_id, ""):
            yield [(number, frozenset(names.split(","))) for number, names in rows]

    def _pages(self, query: str, of: str, after: int | str) -> Iterator[list[Any]]:
        """Rows in the order of their first column, each page after the last row of the one before."""
        while rows := self._rows.execute(f"{query} LIMIT {_ROWS_AT_ONCE}", (of, after)).fetchall():
            yield rows
            after = rows[-1][0]


def _difference(row: Sequence[Any]) -> Difference:
    return Difference(row[0], row[1], tuple(msgspec.json.decode(row[2])), row[3])
