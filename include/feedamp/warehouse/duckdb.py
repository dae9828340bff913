"""The default warehouse: one DuckDB file, one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from feedamp.errors import BusyError, IncompleteError
from feedamp.lake import Lake, Manifest
from feedamp.tables import SCHEMA, TABLES, Type
from feedamp.warehouse import merge

log = logging.getLogger(__name__)
_TYPES = {
    Type.TEXT: "VARCHAR",
    Type.INTEGER: "BIGINT",
    Type.BOOLEAN: "BOOLEAN",
    Type.MONEY: "DECIMAL(18,4)",
    Type.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    Type.DATE: "DATE",
    Type.JSON: "JSON",
}
_Taken = TypeVar("_Taken")
_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")


class DuckDbWarehouse:
    """A DuckDB file; opened for as short as possible, because a reader keeps the writer out and the reverse."""

    def __init__(
        self,
        path: str,
        *,
        memory_limit: str = "512MB",
        lock_wait_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self._memory_limit = memory_limit
        self._lock_wait_s = lock_wait_s
        self._sleep = sleep
        self._monotonic = monotonic

    @contextmanager
    def session(self) -> Iterator[DuckDbSession]:
        """Opens the file, waiting up to `lock_wait_s` for whoever holds it.

        Raises:
            BusyError: it is still held; the message names the program and its process id.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writer_lock():
            connection = self._patiently(self._connect)
            try:
                yield DuckDbSession(connection, self.path.parent)
            finally:
                connection.close()

    def rebuild(self, lake: Lake) -> int:
        """Makes a new file from all manifests of the lake, oldest first, and puts it in the place of the old one.

        Raises:
            BusyError: another process holds the old file; it stays as it is.
            IncompleteError: a file of the lake is missing or cannot be read; the old file stays as it is.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(f"{self.path}.rebuilding")
        with self._writer_lock():
            _remove(draft)  # of a rebuild that was killed
            try:
                loaded = self._load_all(draft, lake)
                self._let_go_of_old_file()
                draft.replace(self.path)
            finally:
                _remove(draft)
        return loaded

    def _load_all(self, draft: Path, lake: Lake) -> int:
        loaded = 0
        connection = self._connect(draft)
        try:
            session = DuckDbSession(connection, self.path.parent)
            for manifest in lake.manifests():
                try:
                    session.load(lake, manifest)
                except (duckdb.Error, OSError) as error:
                    raise IncompleteError(
                        f"Manifest {manifest.path} cannot be loaded ({type(error).__name__}): a file it names is "
                        f"missing or damaged. {self.path} is as it was."
                    ) from error
                loaded += 1
                if loaded % 500 == 0:
                    log.info("%d manifests loaded", loaded)
        finally:
            connection.close()
        return loaded

    def _let_go_of_old_file(self) -> None:
        """Makes sure that nobody holds the old file, and that nothing is left of its write-ahead log."""
        if self.path.exists():
            try:
                self._patiently(self._connect).close()
            except duckdb.Error:
                log.warning("%s could not be opened; it is replaced all the same.", self.path)
        Path(f"{self.path}.wal").unlink(missing_ok=True)  # DuckDB would apply it to the new file

    def _connect(self, path: Path | None = None) -> duckdb.DuckDBPyConnection:
        try:
            connection = duckdb.connect(
                str(path or self.path), config={"memory_limit": self._memory_limit, "threads": 2}
            )
        except duckdb.IOException as error:
            holder = _HOLDER.search(str(error))
            if holder is None and "conflicting lock" not in str(error).lower():
                raise
            raise BusyError(self._busy_message(holder), retry_after_s=60) from error
        connection.execute("SET TimeZone = 'UTC'")
        _create_tables(connection)
        return connection

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        """Two of our own loads queue here; the lock ends with the process, however it dies."""
        with Path(f"{self.path}.lock").open("a+") as file:

            def take() -> None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    file.seek(0)
                    pid = file.read().strip()
                    raise BusyError(
                        f"{self.path} is being loaded by process {pid or 'unknown'}; try again when it is done.",
                        retry_after_s=60,
                    ) from error

            self._patiently(take)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def _patiently(self, take: Callable[[], _Taken]) -> _Taken:
        give_up_at = self._monotonic() + self._lock_wait_s
        while True:
            try:
                return take()
            except BusyError:
                if self._monotonic() >= give_up_at:
                    raise
            self._sleep(0.2)

    def _busy_message(self, holder: re.Match[str] | None) -> str:
        who = f"{holder['program']} (process {holder['pid']})" if holder else "another process"
        return f"{self.path} is held by {who}; close it there, the next run goes on by itself."


class DuckDbSession:
    """An open DuckDB file, writable by this process alone."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path | None = None) -> None:
        """`folder` takes copies of files from a remote lake, one manifest at a time."""
        self._connection = connection
        self._folder = folder

    def load(self, lake: Lake, manifest: Manifest) -> bool:
        """Merges a manifest's files in one transaction. Safe to repeat: a manifest counts once."""
        with tempfile.TemporaryDirectory(prefix="feedamp-", dir=self._folder) as folder:
            return self._merge(manifest, lake.on_disk(manifest, Path(folder)))

    def _merge(self, manifest: Manifest, files: Mapping[str, Sequence[str]]) -> bool:
        self._connection.begin()
        try:
            fresh = merge.merge_manifest(self._connection.execute, manifest.path, files)
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        return fresh

    def orders(self, seller_id: str, numbers: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows of `orders` of one seller."""
        return self._of_orders("orders", seller_id, numbers)

    def order_lines(self, seller_id: str, numbers: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Rows of `order_lines` of one seller."""
        return self._of_orders("order_lines", seller_id, numbers)

    def rows(
        self, table: str, columns: Sequence[str], keys: Sequence[tuple[str, str]]
    ) -> Iterator[dict[str, Any]]:
        """Some columns of a table with an order's key, of orders by (seller_id, mp_order_number)."""
        cursor = self._connection.execute(
            f"SELECT {', '.join(columns)} FROM {SCHEMA}.{table} "
            "WHERE (seller_id, mp_order_number) IN (SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[])))",
            [[seller_id for seller_id, _ in keys], [number for _, number in keys]],
        )
        while batch := cursor.fetchmany(1_000):
            yield from (dict(zip(columns, row, strict=True)) for row in batch)

    def bought(self, seller_ids: Sequence[str], start: datetime, end: datetime) -> Iterator[tuple[str, str]]:
        """(seller_id, mp_order_number) of `orders` bought from `start` (inclusive) to `end` (exclusive)."""
        cursor = self._connection.execute(
            f"SELECT seller_id, mp_order_number FROM {SCHEMA}.orders WHERE purchase_date >= ? "
            "AND purchase_date < ? AND seller_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY ALL",
            [start, end, list(seller_ids)],
        )
        while batch := cursor.fetchmany(1_000):
            yield from batch

    def _of_orders(self, table: str, seller_id: str, numbers: Sequence[str]) -> Iterator[dict[str, Any]]:
        cursor = self._connection.execute(
            f"SELECT * FROM {SCHEMA}.{table} WHERE seller_id = ? AND list_contains(?, mp_order_number)",
            [seller_id, list(numbers)],
        )
        names = [column[0] for column in cursor.description or ()]
        while batch := cursor.fetchmany(1_000):
            yield from (dict(zip(names, row, strict=True)) for row in batch)


def _remove(file: Path) -> None:
    for path in (file, Path(f"{file}.wal")):
        path.unlink(missing_ok=True)


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    present = {
        (table, column)
        for table, column in connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE schema_name = ?", [SCHEMA]
        ).fetchall()
    }
    wanted = {(table.name, column.name) for table in TABLES.values() for column in table.columns}
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {merge.META}")
    for statement in merge.META_TABLES:
        connection.execute(statement)
    if wanted <= present:
        return
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    for table in TABLES.values():
        columns = ", ".join(
            f"{c.name} {_TYPES[c.type]}{' NOT NULL' if c.name in table.key else ''}" for c in table.columns
        )
        connection.execute(f"CREATE TABLE IF NOT EXISTS {SCHEMA}.{table.name} ({columns})")
        for column in table.columns:
            connection.execute(
                f"ALTER TABLE {SCHEMA}.{table.name} ADD COLUMN IF NOT EXISTS {column.name} {_TYPES[column.type]}"
            )
