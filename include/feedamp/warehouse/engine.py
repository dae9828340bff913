"""The protocol that the merge needs of an engine: run SQL, and read Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from feedamp.column_types import Type
from feedamp.tables import Row, Table

if TYPE_CHECKING:
    import pyarrow as pa

META = "feedamp_meta"  # the schema of the merge's bookkeeping tables
_Result = TypeVar("_Result")


class Engine(Protocol):
    """An open connection. SQL has parameters as `$1`, `$2`, and relations with their schema."""

    types: Mapping[Type, str]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """Runs one statement."""

    def execute_all(self, statements: Sequence[str]) -> None:
        """Runs statements without results and parameters, in one round trip."""

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        """Rows of a query by column name; money as Decimal, timestamps with a zone."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commits at the end of the block, rolls back on an exception."""

    def scratch(self, name: str, columns: str) -> None:
        """Creates an empty temporary table, replacing one of the same name."""

    def stage(self, name: str, table: Table, reader: pa.RecordBatchReader) -> None:
        """Makes the reader's rows available as a temporary relation in this transaction.

        Types are those of `Table.lake_schema`. An implementation must not hold all rows in memory.
        """

    def recovers_from(self, error: Exception) -> bool:
        """Removes the cause of a transaction's failure, such as a lost connection; True if it should be tried again."""

    def refuses_value(self, error: Exception) -> bool:
        """Whether an error says that a value cannot be stored, and not that a connection, lock, disk or memory failed."""

    def relations(self, schema: str) -> dict[str, dict[str, str]]:
        """Tables and views of a schema, each with its columns in order and their types; empty if the schema does not exist."""

    def index(self, table: Table) -> Sequence[str]:
        """Statements to run after CREATE TABLE, so that rows are found quickly by key."""

    def users_of(self, schema: str, relation: str) -> list[str]:
        """Views of other users that prevent that a view is dropped."""


def in_transaction(engine: Engine, work: Callable[[], _Result]) -> _Result:
    """The result of `work` in one transaction; both are repeated while the engine recovers from the error."""
    while True:
        try:
            with engine.transaction():
                return work()
        except Exception as error:
            if not engine.recovers_from(error):
                raise
