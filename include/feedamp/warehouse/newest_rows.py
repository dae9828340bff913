"""The rows of a table from the lake alone, as the merge would leave them in the warehouse, by one SELECT of DuckDB.

Files are streamed with the columns that are needed; what does not fit into DuckDB's memory limit goes to a temporary folder.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from feedamp.lake.manifest import Manifest
from feedamp.lake.schema_evolution import LakeFiles
from feedamp.lake.store import Lake
from feedamp.tables import CHILDREN, CLOSURES, ORDERS, PLACEMENTS, RECORDED_AT, SNAPSHOT_HASH, Table
from feedamp.warehouse.duckdb import READ, select
from feedamp.warehouse.merge import DECIDED, decisions, rank_of

NEWEST = "newest"
# Of rows that are equal in rank, the one of the last manifest counts, as in a rebuild.
_PLACE = "manifest_place"


def newest_rows(
    lake: Lake, table: Table, columns: Collection[str], sql: str, *, memory_limit: str
) -> pa.Table:
    """The rows of a SELECT from `newest`, which has these columns of the row that counts for each key of the table.

    Raises:
        ConfigurationError: DuckDB refuses the statement.
        IncompleteError: a file of the lake is missing or damaged.
    """
    manifests = list(lake.manifests())
    if table.full_snapshot:
        manifests = [one for one in manifests if table.name in one.full_snapshots]
        manifests = sorted(manifests, key=lambda one: one.full_snapshots[table.name])[-1:]
    relations, read = _relations(table, columns, manifests)
    with TemporaryDirectory(prefix=READ) as spill:
        with duckdb.connect(
            config={
                "memory_limit": memory_limit,
                "threads": 2,
                "preserve_insertion_order": False,
                "temp_directory": spill,
            }
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            readers = [_TableReader(lake, manifests, one) for one in read]
            for reader in readers:
                connection.register(f"lake_{reader.table.name}", reader.batches())
            try:
                return select(connection, f"WITH {', '.join(relations)} {sql}")
            except Exception as error:
                failure = next((reader.failure for reader in readers if reader.failure), None)
                if failure is None:
                    raise
                raise failure from error


class _TableReader:
    """Some columns of all rows of a table in the lake; can be read once. `failure` is the error of a file."""

    def __init__(self, lake: Lake, manifests: Sequence[Manifest], table: Table) -> None:
        self._lake, self._manifests, self.table = lake, manifests, table
        self.failure: Exception | None = None

    def batches(self) -> pa.RecordBatchReader:
        place = pa.field(_PLACE, pa.int64())
        schema = pa.schema([*self.table.lake_schema, place])
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for place, manifest in enumerate(self._manifests):
            files = LakeFiles(self._lake, manifest)
            try:
                for batch in files.batches(self.table):
                    places = pa.repeat(pa.scalar(place, pa.int64()), len(batch))
                    yield pa.RecordBatch.from_arrays([*batch.columns, places], schema=schema)
            finally:
                self.failure = self.failure or files.failure


def _relations(
    table: Table, columns: Collection[str], manifests: Sequence[Manifest]
) -> tuple[list[str], list[Table]]:
    """The definitions that end with `newest`, and the tables, cut to the columns that they read."""
    if table.full_snapshot:
        taken_at = "".join(f"TIMESTAMPTZ '{one.full_snapshots[table.name].isoformat()}'" for one in manifests)
        of_it = f"WHERE {RECORDED_AT} = {taken_at or 'NULL'}"
        return [f"{NEWEST} AS (SELECT {', '.join(columns)} FROM lake_{table.name} {of_it})"], [
            _cut(table, columns)
        ]
    if table in CHILDREN:
        return _of_children(table, columns)
    if table == ORDERS and not DECIDED.keys().isdisjoint(columns):
        return _of_orders(columns)
    return [f"{NEWEST} AS ({_highest(table, columns)})"], [_cut(table, columns)]


def _of_children(table: Table, columns: Collection[str]) -> tuple[list[str], list[Table]]:
    read_with = (*ORDERS.key, RECORDED_AT, _PLACE)
    chosen = ", ".join(f"child.{name}" for name in columns)
    key = ", ".join(f"child.{name}" for name in table.key)
    return [
        f"read_orders AS ({_highest(ORDERS, [*read_with, SNAPSHOT_HASH])})",
        f"""{NEWEST} AS (SELECT {chosen} FROM lake_{table.name} child
            JOIN read_orders USING ({", ".join(read_with)})
            WHERE coalesce(child.{SNAPSHOT_HASH}, read_orders.{SNAPSHOT_HASH}, '')
                 = coalesce(read_orders.{SNAPSHOT_HASH}, '')
            QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY child.{RECORDED_AT}) = 1)""",
    ], [_cut(ORDERS, ()), _cut(table, columns)]


def _of_orders(columns: Collection[str]) -> tuple[list[str], list[Table]]:
    needed = dict.fromkeys([*ORDERS.key, "extracted_at", "marketplace_state", *columns])
    unshown = "(SELECT * FROM read_orders WHERE marketplace_state IS NULL)"
    found = decisions("read_orders", unshown=unshown, placements="placed", closures="closed")
    chosen = ", ".join(f"{DECIDED.get(name, f'orders.{name}')} AS {name}" for name in columns)
    return [
        f"read_orders AS MATERIALIZED ({_highest(ORDERS, needed)})",
        f"placed AS ({_highest(PLACEMENTS, PLACEMENTS.names)})",
        f"closed AS ({_highest(CLOSURES, CLOSURES.names)})",
        f"""{NEWEST} AS (SELECT {chosen} FROM read_orders orders
            JOIN ({found}) decisions USING ({", ".join(ORDERS.key)}))""",
    ], [_cut(ORDERS, needed), PLACEMENTS, CLOSURES]


def _highest(table: Table, columns: Collection[str]) -> str:
    """A SELECT of the highest row by rank for each key."""
    ranks = ", ".join(f"{value} DESC" for value in [*rank_of(table), _PLACE])
    return (
        f"SELECT {', '.join(columns)} FROM lake_{table.name} "
        f"QUALIFY row_number() OVER (PARTITION BY {', '.join(table.key)} ORDER BY {ranks}) = 1"
    )


def _cut(table: Table, columns: Collection[str]) -> Table:
    """The table with these columns and those that decide which row counts."""
    kept = {*columns, *table.key, *table.rank, RECORDED_AT}
    return replace(table, columns=tuple(column for column in table.columns if column.name in kept))
