"""What the merge asks of an engine that understands its SQL: run it, and take in Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa

from feedamp.tables import Row, Table, Type

META = "feedamp_meta"  # the schema of what the merge itself remembers


class Engine(Protocol):
    """One open connection. Parameters are written `$1`, `$2`; relations with their schema."""

    types: Mapping[Type, str]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Runs one statement."""

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a query by column name; money as Decimal, moments with zone."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commits at the end of the block, rolls back on an exception."""

    def scratch(self, name: str, columns: str) -> None:
        """Makes an empty temporary table, in place of one of that name."""

    def stage(self, name: str, table: Table, reader: pa.RecordBatchReader) -> None:
        """Makes the rows of the reader a relation of that name, to be read once in this transaction.

        Types as `Table.lake_schema`. Must not hold all of it in memory.
        """

    def has_more_memory_for(self, error: Exception) -> bool:
        """Whether the transaction that failed with this is worth another try, with more memory than before."""

    def relations(self, schema: str) -> dict[str, dict[str, str]]:
        """Tables and views of a schema, each with its columns in order and their types; empty if there is none."""

    def index(self, table: Table) -> Sequence[str]:
        """Statements to follow CREATE TABLE, so that a row is found by its key."""

    def users_of(self, schema: str, relation: str) -> list[str]:
        """Views of others that stand in the way of changing a relation."""
