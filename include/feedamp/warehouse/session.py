"""Loads, reads and rebuilds an open warehouse, on any engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from feedamp.errors import FeedAmpError, IncompleteError
from feedamp.lake.manifest import Manifest
from feedamp.lake.schema_evolution import LakeFiles
from feedamp.lake.store import Lake
from feedamp.tables import ORDERS, SCHEMA, Row, Table
from feedamp.warehouse import merge, missing_rows
from feedamp.warehouse.engine import META, Engine, in_transaction

log = logging.getLogger(__name__)
ORDERS_PER_QUERY = 500


class Session:
    """An open warehouse whose tables match their declarations; no other process writes to it."""

    def __init__(self, engine: Engine, tables: Mapping[str, Table]) -> None:
        self._engine = engine
        self._tables = tables

    def load(self, lake: Lake, manifest: Manifest) -> bool:
        """Merges a manifest's files in one transaction; newer snapshots win.

        Returns:
            False if the manifest was loaded before. Safe to repeat.

        Raises:
            IncompleteError: one of its files is missing or cannot be read; nothing was changed.
        """
        return in_transaction(self._engine, lambda: self._merge(lake, manifest))

    def load_all(self, lake: Lake) -> int:
        """Merges every manifest of the lake, oldest first, each in its own transaction; returns how many.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; earlier manifests are loaded.
        """
        return self._each(lake, self.load)

    def load_again(self, lake: Lake, tables: Collection[str]) -> None:
        """Merges every manifest with rows of the named tables again, oldest first, which restores missing rows.

        Safe to repeat.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; earlier manifests are loaded.
        """

        def reload(lake: Lake, manifest: Manifest) -> bool:
            if not any(file.table in tables for file in manifest.files):
                return False
            self._execute(f"DELETE FROM {META}.loaded_manifests WHERE path = $1", [manifest.path])
            return self.load(lake, manifest)

        self._each(lake, reload)

    def replace_all(self, lake: Lake) -> int:
        """Replaces all rows by those of the lake in one transaction; returns how many manifests were merged.

        Tables, views, indexes and grants remain, and readers see the old rows until the commit.

        Raises:
            IncompleteError: a file of the lake is missing or cannot be read; nothing was changed.
        """
        with self._engine.transaction():
            for name in self._tables:
                self._engine.execute(f"DELETE FROM {SCHEMA}.{name}")
            for name in ("loaded_manifests", "unshown_states"):
                self._engine.execute(f"DELETE FROM {META}.{name}")
            return self._each(lake, self._merge)

    def _each(self, lake: Lake, merge_one: Callable[[Lake, Manifest], bool]) -> int:
        loaded = 0
        for manifest in lake.manifests():
            merge_one(lake, manifest)
            loaded += 1
            if loaded % 500 == 0:
                log.info("%d manifests loaded", loaded)
        return loaded

    def rows(self, table: str, columns: Sequence[str], keys: Sequence[tuple[str, str]]) -> Iterator[Row]:
        """The named columns of a table with an order key, for orders by (seller_id, mp_order_number)."""
        for some, places in _in_parts(keys):
            yield from self._found(
                f"SELECT {', '.join(columns)} FROM {SCHEMA}.{table} "
                f"WHERE (seller_id, mp_order_number) IN ({places})",
                some,
            )

    def purchased(
        self, seller_ids: Sequence[str], start: datetime, end: datetime
    ) -> Iterator[tuple[str, str]]:
        """(seller_id, mp_order_number) of `orders` purchased from `start` (inclusive) to `end` (exclusive)."""
        for first in range(0, len(seller_ids), ORDERS_PER_QUERY):
            part = seller_ids[first : first + ORDERS_PER_QUERY]
            places = ", ".join(f"${at}" for at in range(3, len(part) + 3))
            found = self._found(
                f"SELECT seller_id, mp_order_number FROM {SCHEMA}.{ORDERS.name} WHERE purchase_date >= $1 "
                f"AND purchase_date < $2 AND seller_id IN ({places}) ORDER BY seller_id, mp_order_number",
                [start, end, *part],
            )
            yield from ((row["seller_id"], row["mp_order_number"]) for row in found)

    def absent(self, table: str, rows: Sequence[Row]) -> list[Row]:
        """The given rows that the table lacks; all have the same columns, and null equals null."""
        return missing_rows.absent(self._engine, self._tables[table], rows)

    def torn_orders(self, seller_ids: Sequence[str] = ()) -> Iterator[tuple[str, str, str]]:
        """(table, seller_id, mp_order_number) where the units in a table differ from the totals of the order."""
        return missing_rows.torn_orders(self._engine, seller_ids)

    def loaded_manifests(self) -> set[str]:
        """Paths of the merged manifests."""
        return missing_rows.loaded_manifests(self._engine)

    def digests(self, table: str) -> dict[str, tuple[int, int]]:
        """(number of rows, sum of the hashes of their `row_keys`) of a table, by seller; `""` for rows without one."""
        return missing_rows.digests(self._engine, self._tables[table])

    def row_keys(self, table: str, seller_id: str, after: Sequence[Any], limit: int) -> list[Row]:
        """Keys of a seller's rows after a key (exclusive), in key order; for `orders`, with the snapshot hash."""
        return missing_rows.row_keys(self._engine, self._tables[table], seller_id, after, limit)

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of placed orders (`placed`), closures (`closed`) and `findings`, each by seller."""
        return missing_rows.counts(self._engine)

    def _found(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        return in_transaction(self._engine, lambda: list(self._engine.rows(sql, parameters)))

    def _execute(self, sql: str, parameters: Sequence[Any]) -> None:
        in_transaction(self._engine, lambda: self._engine.execute(sql, parameters))

    def _merge(self, lake: Lake, manifest: Manifest) -> bool:
        files = LakeFiles(lake, manifest)
        try:
            is_new = merge.merge_manifest(self._engine, self._tables, manifest.path, files)
            if is_new:
                files.refuse_rest()
            return is_new
        except Exception as error:
            failure = files.failure or (error if isinstance(error, IncompleteError) else None)
            if failure is None:
                raise
            if isinstance(failure, FeedAmpError) and not isinstance(failure, IncompleteError):
                raise failure from error  # the store failed; the manifest is not at fault
            why = str(failure) if isinstance(failure, FeedAmpError) else f"{type(failure).__name__}."
            raise IncompleteError(
                f"Manifest {manifest.path} cannot be loaded: {why} The warehouse was not changed."
            ) from error


def _in_parts(keys: Sequence[tuple[str, str]]) -> Iterator[tuple[list[str], str]]:
    """(parameters, placeholders) for `(seller_id, mp_order_number) IN (…)`, one portion of the orders at a time."""
    for start in range(0, len(keys), ORDERS_PER_QUERY):
        part = keys[start : start + ORDERS_PER_QUERY]
        places = ", ".join(f"(${2 * at + 1}, ${2 * at + 2})" for at in range(len(part)))
        yield [value for key in part for value in key], places
