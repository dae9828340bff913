"""Merges manifests with SQL that all engines share; manifests give the same result in any order.

One rule decides everywhere: of all rows with one key, wherever they come from, the greatest by `Table.rank` counts.
For example, these rows of one finding, ranked by `recorded_at`, `resolved_at`, `reported_at`, `state`, in any order:

    | state     | recorded_at | reported_at |                                              |
    |-----------|-------------|-------------|----------------------------------------------|
    | held      | 11:00       |             |                                              |
    | to_report | 12:00       |             |                                              |
    | to_report | 13:00       |             |                                              |
    | reported  | 13:00       | 13:00       | counts: no later row, and null is the lowest |

An order is ranked by `extracted_at` first, so any snapshot replaces a row that `place` wrote. Its children have no
rank: they come and go with the row of `orders` that they were read with.

A full snapshot replaces all rows of its table, unless the table holds a newer one.

`placed_at`, `closed_at`, and a `marketplace_state` set after the snapshot was read follow `placements` and `closures`.
An order that is open again has no `closed_at`, even if `closures` has a row for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from feedamp.column_types import Type
from feedamp.tables import (
    CHILDREN,
    CLOSURES,
    ORDERS,
    PLACEMENTS,
    RECORDED_AT,
    SCHEMA,
    SHIPMENTS,
    SNAPSHOT_HASH,
    Table,
)
from feedamp.warehouse.engine import META, Engine
from feedamp.warehouse.structure import FIRST_REPORTS
from feedamp.warehouse.unchanged import UNCHANGED, compared, find_unchanged, move_moments, remember_makers
from feedamp.warehouse.views import judged

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
_ORDER_KEY = ORDERS.key
_ORDER = ", ".join(_ORDER_KEY)
_TOUCHED = "feedamp_touched"
# The keys of so few rows are compared as they pass: a query takes longer than all that is done with the rows.
ROWS_COMPARED_IN_PASSING = 1_000
_DECIDED_BY = (PLACEMENTS.name, CLOSURES.name)
_DECIDING = (ORDERS.name, *_DECIDED_BY)  # whose rows decide what `orders` shows of an order
_COMPARABLE = {
    Type.TEXT: "coalesce({}, '') COLLATE \"C\"",
    Type.TIMESTAMP: "coalesce({}, TIMESTAMP WITH TIME ZONE '-infinity')",
}


class Files(Protocol):
    """The rows of a manifest."""

    def __contains__(self, table: str) -> bool: ...

    def reader(self, table: Table) -> pa.RecordBatchReader:
        """All rows of a table in the schema `Table.lake_schema`; can be read once."""


def merged_before(engine: Engine, paths: Sequence[str]) -> set[str]:
    """Those of the manifests at these paths, of which there is one at least, whose files were merged."""
    asked = ", ".join(f"${at}" for at in range(1, len(paths) + 1))
    query = f"SELECT path FROM {META}.loaded_manifests WHERE path IN ({asked})"
    return {row["path"] for row in engine.rows(query, paths)}


def merge_files(
    engine: Engine,
    tables: Mapping[str, Table],
    paths: Sequence[str],
    files: Files,
    full_snapshots: Mapping[str, datetime],
) -> None:
    """Merges the files of the manifests at these paths in the caller's transaction. Safe to repeat."""
    engine.scratch(_TOUCHED, "seller_id VARCHAR, mp_order_number VARCHAR")
    children = [tables[child.name] for child in CHILDREN]
    staged, shows_news = _Staged(engine, files), True
    for table in tables.values():
        if table.full_snapshot:
            if table.name in full_snapshots:
                _replace_rows(engine, table, staged, full_snapshots[table.name])
        elif table.name == ORDERS.name and table.name in files:
            shows_news = _merge_orders(engine, table, children, staged)
        elif table.name in files and table not in children:
            newest = _merge(engine, table, staged)
            if table.name in _DECIDING:
                engine.execute(f"INSERT INTO {_TOUCHED} SELECT {_ORDER} FROM {newest}")
    if SHIPMENTS.name in files and shows_news:
        _note_first_reports(engine, tables[SHIPMENTS.name], staged)
    if ORDERS.name not in files and (orphaned := [child.name for child in children if child.name in files]):
        # Builds before 0.1.0 published such manifests; if they were refused, no rebuild could ever succeed.
        log.warning(
            "Manifest %s has rows of %s without their orders; `feedamp lake verify --repair` reads the orders again.",
            ", ".join(paths),
            ", ".join(orphaned),
        )
    decide = _DECIDING if shows_news else _DECIDED_BY  # what was decided on unchanged orders is in their rows
    if any(name in files for name in decide):
        _apply_decisions(engine)
    listed = ", ".join(f"(${at})" for at in range(1, len(paths) + 1))
    engine.execute(f"INSERT INTO {META}.loaded_manifests VALUES {listed}", paths)


class _Staged:
    """The rows of a manifest in temporary relations, each read from its files when it is first asked for."""

    def __init__(self, engine: Engine, files: Files) -> None:
        self._engine, self._files = engine, files
        self._relations: dict[str, str] = {}
        self._have_twice: dict[str, bool] = {}

    def __contains__(self, table: str) -> bool:
        return table in self._files

    def relation(self, table: Table) -> str:
        """Its name, with the columns of `Table.lake_columns`."""
        if table.name not in self._relations:
            self._relations[table.name] = self.read(table, f"feedamp_staged_{table.name}")
        return self._relations[table.name]

    def read(self, table: Table, name: str) -> str:
        """Reads the columns of a table into a relation of this name, which is returned."""
        self._engine.stage(name, table, self._compared(table))
        return name

    def _compared(self, table: Table) -> pa.RecordBatchReader:
        """The rows of a table; once few of them are read, `has_twice` is known."""
        import pyarrow as pa

        reader = self._files.reader(table)

        def batches() -> Iterator[pa.RecordBatch]:
            keys, rows = set[tuple[object, ...]](), 0
            for batch in reader:
                rows += batch.num_rows
                if rows <= ROWS_COMPARED_IN_PASSING:
                    keys.update(zip(*(batch.column(name).to_pylist() for name in table.key), strict=True))
                yield batch
            if rows <= ROWS_COMPARED_IN_PASSING:
                self._have_twice[table.name] = len(keys) < rows

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def has_twice(self, table: Table, read: str = "") -> bool:
        """Whether two of the rows have one key: only then is there anything to choose, which takes long for wide rows.

        `read` is a relation that has their keys; without one, the rows are read.
        """
        relation = read or self.relation(table)
        if table.name not in self._have_twice:
            self._have_twice[table.name] = _finds(
                self._engine, f"FROM {relation} GROUP BY {_names(table.key, '')} HAVING count(*) > 1"
            )
        return self._have_twice[table.name]


def _finds(engine: Engine, rest: str) -> bool:
    return bool(list(engine.rows(f"SELECT 1 AS found {rest} LIMIT 1")))


def _merge_orders(engine: Engine, orders: Table, children: list[Table], staged: _Staged) -> bool:
    """Merges orders together with their children; returns False if none of them shows anything new."""
    is_first = not _finds(engine, f"FROM {SCHEMA}.{orders.name}")
    read = staged.relation(orders) if is_first else staged.read(compared(orders), "feedamp_compared")
    unchanged = 0 if is_first or staged.has_twice(orders, read) else find_unchanged(engine, read)
    remember_makers(engine, read)
    if unchanged:
        move_moments(engine, children)
        [rows] = engine.rows(f"SELECT count(*) AS orders FROM {read}")
        if rows["orders"] == unchanged:
            return False
        engine.execute(
            f"DELETE FROM {staged.relation(orders)} incoming USING {UNCHANGED} newer "
            f"WHERE {_same(_ORDER_KEY, 'incoming', 'newer')}"
        )
    newest = _merge(engine, orders, staged)
    _take_children(engine, children, newest, staged)
    engine.execute(f"INSERT INTO {_TOUCHED} SELECT {_ORDER} FROM {newest}")
    return True


def _merge(engine: Engine, table: Table, staged: _Staged) -> str:
    """Puts the manifest's rows that count into the table; returns the temporary table that holds them.

    A row equal in rank to the loaded one is put in once more, so that loading again restores what an order lost.
    """
    newest = _newest(engine, table, staged)
    columns = _columns(table)
    engine.execute(
        f"DELETE FROM {SCHEMA}.{table.name} loaded USING {newest} newest "
        f"WHERE {_same(table.key, 'loaded', 'newest')}"
    )
    engine.execute(f"INSERT INTO {SCHEMA}.{table.name} ({columns}) SELECT {columns} FROM {newest}")
    return newest


def _newest(engine: Engine, table: Table, staged: _Staged) -> str:
    """The temporary table with those of the manifest's rows that count: all of them, unless an older one is found."""
    read, same = staged.relation(table), _same(table.key, "loaded", "incoming")
    incoming, loaded = (", ".join(rank_of(table, prefix)) for prefix in ("incoming.", "loaded."))
    is_older = f"({incoming}) < ({loaded})"
    if not staged.has_twice(table) and not _finds(
        engine, f"FROM {read} incoming JOIN {SCHEMA}.{table.name} loaded ON {same} WHERE {is_older}"
    ):
        return read
    newest = f"feedamp_newest_{table.name}"
    engine.scratch(
        newest, ", ".join(f"{column.name} {engine.types[column.type]}" for column in table.columns)
    )
    columns = _columns(table)
    engine.execute(
        f"""INSERT INTO {newest} ({columns})
        SELECT {_columns(table, "incoming.")} FROM (
            SELECT {columns}, row_number() OVER (
                PARTITION BY {", ".join(table.key)}
                ORDER BY {", ".join(f"{value} DESC" for value in rank_of(table))}) AS place
            FROM {read}
        ) incoming
        LEFT JOIN {SCHEMA}.{table.name} loaded ON {same}
        WHERE incoming.place = 1 AND (loaded.{table.key[0]} IS NULL OR NOT {is_older})"""
    )
    return newest


def _replace_rows(engine: Engine, table: Table, staged: _Staged, taken_at: datetime) -> None:
    """Replaces all rows of a table by a full snapshot, unless the table holds a newer one."""
    moments = f"{META}.full_snapshots"
    held = engine.rows(f"SELECT taken_at FROM {moments} WHERE table_name = $1", [table.name])
    if any(row["taken_at"] > taken_at for row in list(held)):
        return
    engine.execute(f"DELETE FROM {SCHEMA}.{table.name}")
    if table.name in staged:
        engine.execute(
            f"INSERT INTO {SCHEMA}.{table.name} ({_columns(table)}) SELECT {_columns(table)} "
            f"FROM {staged.relation(table)} WHERE {RECORDED_AT} = $1",
            [taken_at],
        )
    engine.execute(f"DELETE FROM {moments} WHERE table_name = $1", [table.name])
    engine.execute(f"INSERT INTO {moments} VALUES ($1, $2)", [table.name, taken_at])


def _take_children(engine: Engine, children: list[Table], newest: str, staged: _Staged) -> None:
    """Replaces the children of the orders in `newest` by those that were read with them."""
    if not _finds(engine, f"FROM {newest}"):
        return
    same_order = _same(_ORDER_KEY, "loaded", "newest")
    for child in children:
        engine.execute(f"DELETE FROM {SCHEMA}.{child.name} loaded USING {newest} newest WHERE {same_order}")
        if child.name in staged:
            read_with = f"""FROM {staged.relation(child)} incoming
                JOIN {newest} newest ON {_same((*_ORDER_KEY, RECORDED_AT), "newest", "incoming")}
                 AND coalesce(incoming.{SNAPSHOT_HASH}, newest.{SNAPSHOT_HASH}, '')
                     = coalesce(newest.{SNAPSHOT_HASH}, '')"""
            values = {name: f"incoming.{name}" for name in child.names}
            found = _first(staged, child, values, read_with, f"incoming.{RECORDED_AT}")
            engine.execute(f"INSERT INTO {SCHEMA}.{child.name} ({_columns(child)}) {found}")
    unshown = f"{META}.unshown_states"
    engine.execute(f"DELETE FROM {unshown} loaded USING {newest} newest WHERE {same_order}")
    engine.execute(f"INSERT INTO {unshown} SELECT {_ORDER} FROM {newest} WHERE marketplace_state IS NULL")


def _note_first_reports(engine: Engine, table: Table, staged: _Staged) -> None:
    """Keeps of each shipment the check of the oldest snapshot that shows it, even if that is loaded late."""
    key, known, first = table.key, f"{META}.first_reports", "feedamp_first_reports"
    snapshot_hash = f"coalesce(incoming.{SNAPSHOT_HASH}, '')"
    reported = f'incoming.{RECORDED_AT}, {snapshot_hash} COLLATE "C"'
    earlier = f"""FROM (SELECT *, {judged()} AS judged FROM {staged.relation(table)}) incoming
        LEFT JOIN {known} known ON {_same(key, "known", "incoming")}
        WHERE known.seller_id IS NULL OR ({reported}) < (known.reported_at, known.{SNAPSHOT_HASH} COLLATE "C")"""
    values = {name: f"incoming.{name}" for name in key} | {
        "tracking_check": "incoming.judged",
        "reported_at": f"incoming.{RECORDED_AT}",
        SNAPSHOT_HASH: snapshot_hash,
    }
    columns = ", ".join(values)
    engine.scratch(first, FIRST_REPORTS)
    engine.execute(f"INSERT INTO {first} ({columns}) {_first(staged, table, values, earlier, reported)}")
    engine.execute(f"DELETE FROM {known} known USING {first} newest WHERE {_same(key, 'known', 'newest')}")
    engine.execute(f"INSERT INTO {known} ({columns}) SELECT {columns} FROM {first}")


def _first(staged: _Staged, table: Table, values: Mapping[str, str], rest: str, order: str) -> str:
    """A SELECT of values, by name, of `incoming` rows of a table: of each key the first row. `rest` begins with FROM."""
    chosen = ", ".join(f"{value} AS {name}" for name, value in values.items())
    if not staged.has_twice(table):
        return f"SELECT {chosen} {rest}"
    place = f"row_number() OVER (PARTITION BY {_names(table.key, 'incoming.')} ORDER BY {order}) AS place"
    return f"SELECT {', '.join(values)} FROM (SELECT {chosen}, {place} {rest}) placed WHERE place = 1"


_STATE = """CASE
            WHEN decisions.state IS NOT NULL
                 AND (decisions.decided_at > orders.extracted_at OR orders.extracted_at IS NULL
                      OR decisions.is_unshown OR orders.marketplace_state IS NULL)
            THEN decisions.state ELSE orders.marketplace_state END"""
# What columns of `orders` are, given the `decisions` on each order.
DECIDED = {
    "placed_at": "decisions.placed_at",
    "marketplace_state": _STATE,
    "closed_at": f"CASE WHEN {_STATE} IN ('PENDING', 'AWAITING_SHIPMENT') THEN NULL ELSE decisions.closed_at END",
}


def decisions(touched: str, *, unshown: str, placements: str, closures: str) -> str:
    """A SELECT of the decisions on the orders in `touched`; the arguments are relations with an order key."""
    chosen = f"SELECT DISTINCT {_ORDER} FROM {touched}"
    return f"""SELECT touched.seller_id, touched.mp_order_number, unshown.seller_id IS NOT NULL AS is_unshown,
                   decided.placed_at, decided.closed_at, decided.decided_at, decided.state
            FROM ({chosen}) touched
            LEFT JOIN (SELECT DISTINCT {_ORDER} FROM {unshown}) unshown ON {_same(_ORDER_KEY, "unshown", "touched")}
            LEFT JOIN (
                SELECT decision.seller_id, decision.mp_order_number,
                       min(decision.decided_at) FILTER (WHERE decision.placing) AS placed_at,
                       coalesce(min(decision.decided_at) FILTER (WHERE NOT decision.placing),
                                min(decision.decided_at) FILTER (WHERE decision.final)) AS closed_at,
                       max(decision.decided_at) AS decided_at,
                       (array_agg(decision.state ORDER BY decision.decided_at DESC NULLS LAST,
                                                          decision.placing, decision.state))[1] AS state
                FROM (
                    SELECT {_ORDER}, marketplace_state AS state, placed_at AS decided_at, true AS placing,
                           marketplace_state IN ('SHIPPED', 'CANCELLED') AS final
                    FROM {placements}
                    UNION ALL
                    SELECT {_ORDER}, marketplace_state, closed_at, false, true FROM {closures}
                ) decision
                JOIN ({chosen}) asked ON {_same(_ORDER_KEY, "decision", "asked")}
                GROUP BY decision.seller_id, decision.mp_order_number
            ) decided ON {_same(_ORDER_KEY, "decided", "touched")}"""


def _apply_decisions(engine: Engine) -> None:
    """Updates touched orders with the placement and closing times and states in `placements` and `closures`."""
    found = decisions(
        _TOUCHED,
        unshown=f"{META}.unshown_states",
        placements=f"{SCHEMA}.placements",
        closures=f"{SCHEMA}.closures",
    )
    engine.execute(
        f"""UPDATE {SCHEMA}.orders SET {", ".join(f"{name} = {value}" for name, value in DECIDED.items())}
        FROM ({found}) decisions WHERE {_same(_ORDER_KEY, "orders", "decisions")}
          AND ({" OR ".join(f"orders.{name} IS DISTINCT FROM {value}" for name, value in DECIDED.items())})"""
    )


def rank_of(table: Table, prefix: str = "") -> list[str]:
    """The values that rank a row, as SQL; null is lowest, and text compares by bytes on every engine."""
    types = {column.name: column.type for column in table.columns}
    return [_COMPARABLE[types[name]].format(f"{prefix}{name}") for name in table.rank]


def _columns(table: Table, prefix: str = "") -> str:
    return _names(table.names, prefix)


def _names(names: tuple[str, ...], prefix: str) -> str:
    return ", ".join(prefix + name for name in names)


def _same(key: tuple[str, ...], one: str, other: str) -> str:
    return " AND ".join(f"{one}.{name} = {other}.{name}" for name in key)
