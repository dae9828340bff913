"""Tables of the warehouse or the lake as pandas frames, in a notebook, a script or a task (docs/pandas.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

import pandas as pd
import pyarrow as pa

from feedamp.column_types import Type
from feedamp.errors import ConfigurationError
from feedamp.tables import SCHEMA, TABLES, Table
from feedamp.warehouse import Warehouse
from feedamp.warehouse.newest_rows import NEWEST, newest_rows
from feedamp_airflow.config import read_options
from feedamp_airflow.wiring import lake_as_erased, make_warehouse

SOURCES = ("warehouse", "lake")
_Known = TypeVar("_Known")
# The catalog of Postgres, which DuckDB has, too; unlike the information schema, it shows what a role may not read.
_STORED = f"""SELECT CAST(field.attname AS VARCHAR) FROM pg_catalog.pg_attribute field
    JOIN pg_catalog.pg_class relation ON relation.oid = field.attrelid
    JOIN pg_catalog.pg_namespace space ON space.oid = relation.relnamespace
    WHERE space.nspname = '{SCHEMA}' AND relation.relname = '{{table}}' AND field.attnum > 0"""


def read(
    table: str,
    where: str | None = None,
    columns: Iterable[str] | None = None,
    source: Literal["warehouse", "lake"] = "warehouse",
) -> pd.DataFrame:
    """The newest row per key of a table, with Arrow-backed types: money as exact decimals, times in UTC. In no order.

    `where` is an SQL condition on the columns, in the dialect of the warehouse's engine, of the lake in DuckDB's. It is
    evaluated where the rows are, so memory grows with the result only. It can read what this process can read of the
    warehouse, but write nothing; it is code, so never put the text of others into it. The lake has what was published
    and may be ahead of the warehouse. Only manifests count there, not the files that a store lists.

    Raises:
        ConfigurationError: there is no such table, column or source, the warehouse does not have it yet, or the engine
            refuses the condition.
        ConfigurationError: of the lake, the state or the key that says what was erased is missing.
        BusyError: another process has held the DuckDB file for `duckdb_lock_wait_s`.
        IncompleteError: a file of the lake is missing or damaged.
    """
    declared = _known("table", TABLES, table)
    _known("source", dict.fromkeys(SOURCES), source)
    if isinstance(columns, str):
        raise ConfigurationError("columns must be a list of names.")
    chosen = list(dict.fromkeys(declared.names if columns is None else columns))
    of_name = {column.name: column for column in declared.columns}
    kinds = [_known(f"column of {table}", of_name, name).type for name in chosen]
    if not chosen:
        raise ConfigurationError(f"Name at least one column of {table}: {', '.join(of_name)}.")
    selected = ", ".join(
        f"CAST({name} AS VARCHAR) AS {name}" if kind is Type.JSON else name
        for name, kind in zip(chosen, kinds, strict=True)
    )
    condition = f"\nWHERE (\n{where}\n)" if where and where.strip() else ""
    found = _found(declared, selected, condition, {*chosen, *_mentioned(declared, where or "")}, source)
    arrays = [_cast(array, kind.arrow) for array, kind in zip(found.columns, kinds, strict=True)]
    frame: pd.DataFrame = pa.table(arrays, names=chosen).to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _found(table: Table, selected: str, condition: str, needed: set[str], source: str) -> pa.Table:
    options = read_options()
    if source == "warehouse":
        warehouse = make_warehouse(options, lock_wait_s=options.duckdb_lock_wait_s)
        try:
            return warehouse.read(f"SELECT {selected} FROM {SCHEMA}.{table.name}{condition}")
        except ConfigurationError as error:
            missing = _missing(warehouse, table, needed)
            if missing is None:
                raise
            raise ConfigurationError(
                f"{warehouse.shown} has no {missing} yet; the next load of new rows adds it."
            ) from error
    return newest_rows(
        lake_as_erased(options),
        table,
        [name for name in table.names if name in needed],
        f"SELECT {selected} FROM {NEWEST} AS {table.name}{condition}",
        memory_limit=options.duckdb_memory_limit,
    )


def _missing(warehouse: Warehouse, table: Table, needed: set[str]) -> str | None:
    """What of it a warehouse that was last loaded by an older version lacks, or was never loaded; null: nothing."""
    try:
        found = warehouse.read(_STORED.format(table=table.name)).column(0).to_pylist()
    except ConfigurationError:  # it cannot be opened at all
        return None
    absent = [name for name in table.names if name in needed and name not in found]
    if not found:
        return f"table {table.name}"
    return f"column {', '.join(absent)} of {table.name}" if absent else None


def _known(what: str, known: Mapping[str, _Known], name: str) -> _Known:
    if name not in known:
        raise ConfigurationError(f"There is no {what} {name!r}; there is {', '.join(known)}.")
    return known[name]


def _mentioned(table: Table, where: str) -> set[str]:
    """The columns that the condition may use; all of them where it means whole rows."""
    means_rows = "*" in where or re.search(rf"\b{table.name}\b(?!\s*\.)", where.lower())
    return {name for name in table.names if means_rows or name in where.lower()}


def _cast(array: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column in its declared type; Postgres gives numeric columns as text in a type of their own."""
    if isinstance(array.type, pa.BaseExtensionType):
        array = pa.chunked_array([chunk.storage for chunk in array.chunks], type=array.type.storage_type)
    return array.cast(kind)
