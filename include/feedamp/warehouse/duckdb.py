"""The default warehouse: one DuckDB file, one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, TypeVar

from feedamp.column_types import Type
from feedamp.errors import BeingLoadedError, BusyError, ConfigurationError, FeedAmpError, StoreAwayError
from feedamp.file_modes import FILE_MODE, folder_mode, made_with, make_file, open_folder
from feedamp.lake.store import Lake
from feedamp.tables import TABLES, Row, Table
from feedamp.warehouse.engine import in_transaction
from feedamp.warehouse.session import Session, SetAside, ignore
from feedamp.warehouse.structure import prepare
from feedamp.warehouse.views import VIEWS, View

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

log = logging.getLogger(__name__)
_TYPES = {
    Type.TEXT: "VARCHAR",
    Type.INTEGER: "BIGINT",
    Type.BOOLEAN: "BOOLEAN",
    Type.MONEY: "DECIMAL(18,4)",
    Type.NUMBER: "DOUBLE",
    Type.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    Type.DATE: "DATE",
    Type.JSON: "JSON",
}
# Enough for a usual manifest; with Arrow and Python, a load needs less than 250 MB.
ENOUGH_BYTES = 128_000_000
# Prefixes of temporary folders with rows in them: what reads spill, and what a verification builds from the lake.
TEMPORARY = READ, VERIFY = "feedamp-read-", "feedamp-verify-"
LONGEST_READ_S = 86_400.0
_Result = TypeVar("_Result")
_CANNOT_WRITE = re.compile("could not write|no space left", re.IGNORECASE)
_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")


class DuckDbWarehouse:
    """A DuckDB file; it is opened as briefly as possible, because readers block the writer and the writer blocks readers."""

    def __init__(
        self,
        path: str,
        *,
        memory_limit: str = "512MB",
        storage_version: str = "v1.4.0",
        file_mode: int = FILE_MODE,
        lock_wait_s: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        tables: Mapping[str, Table] = TABLES,
        views: Sequence[View] = VIEWS,
    ) -> None:
        self.path = Path(path)
        self._tables, self._views = tables, views
        self._draft = Path(f"{path}.rebuilding")
        self._memory_limit = memory_limit
        self._storage_version = storage_version
        self._file_mode = file_mode
        self.lock_wait_s = lock_wait_s
        self._sleep = sleep
        self._monotonic = monotonic

    @property
    def shown(self) -> str:
        return str(self.path)

    @property
    def lineage_name(self) -> tuple[str, str]:
        return f"duckdb://{self.path}", self.path.stem

    @property
    def is_there(self) -> bool:
        return self.path.exists()

    @contextmanager
    def session(self, *, wait_s: float | None = None) -> Iterator[Session]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        give_up_at = self._give_up_at(wait_s)
        with self._writer_lock(give_up_at):
            _remove(self._draft)  # of a killed rebuild; it may be as large as the warehouse
            with self._opened(self.path, give_up_at) as session:
                yield session

    def read(self, sql: str) -> pa.Table:
        """As `Warehouse.read`. The file is open no longer than it takes, because no load can open it then."""
        if not self.path.exists():
            raise ConfigurationError(f"There is no warehouse at {self.path} yet; the first load makes it.")
        with TemporaryDirectory(prefix=READ) as spill:
            connection = self._patiently(
                lambda: self._connect(self.path, spill, read_only=True), self._give_up_at()
            )
            try:
                return select(connection, sql)
            finally:
                connection.close()

    def rebuild(self, lake: Lake, set_aside: SetAside = ignore) -> int:
        """As `Warehouse.rebuild`: builds a new file, oldest manifest first, and replaces the old one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._writer_lock(self._give_up_at()):
            _remove(self._draft)
            try:
                with self._opened(self._draft, self._give_up_at(0.0)) as session:
                    loaded = session.load_all(lake, set_aside)
                self._release_old_file()
                self._draft.replace(self.path)
            finally:
                _remove(self._draft)
        return loaded

    def erase(self, seller_id: str, mp_order_number: str | None = None) -> dict[str, int]:
        """As `Warehouse.erase`: copies what is left into a new file, which replaces the old one.

        DuckDB leaves the bytes of deleted rows in free blocks of its file. Tables and views that others made in the file are
        copied too, and not searched.
        """
        give_up_at = self._give_up_at()
        with self._writer_lock(give_up_at):
            _remove(self._draft)
            try:
                with self._opened(self.path, give_up_at) as session:
                    deleted = session.erase(seller_id, mp_order_number)
                self._copy_what_is_left(give_up_at)
                self._release_old_file()
                self._draft.replace(self.path)
            finally:
                _remove(self._draft)
        return deleted

    def left_by_erasing(self) -> str:
        return ""

    def _copy_what_is_left(self, give_up_at: float) -> None:
        import duckdb

        try:
            self._copy_into_draft(give_up_at)
        except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
            size_mb = -(-self.path.stat().st_size // 1_000_000)
            raise FeedAmpError(
                f"The rows are deleted from {self.path}, but its bytes still hold them, because the file could not be copied "
                f"({type(error).__name__}). The copy needs up to {size_mb} MB of disk in {self.path.parent}: make room, then "
                "repeat the command."
            ) from error

    def _copy_into_draft(self, give_up_at: float) -> None:
        with made_with(self._file_mode):
            connection = self._patiently(lambda: self._connect(self.path), give_up_at)
            try:
                [[name]] = connection.execute("SELECT current_database()").fetchall()
                quoted = name.replace('"', '""')
                draft, version = (
                    text.replace("'", "''") for text in (str(self._draft), self._storage_version)
                )
                connection.execute(f"ATTACH '{draft}' AS feedamp_draft (STORAGE_VERSION '{version}')")
                connection.execute(f'COPY FROM DATABASE "{quoted}" TO feedamp_draft')
                connection.execute("DETACH feedamp_draft")
            finally:
                connection.close()
                shutil.rmtree(f"{self.path}.tmp", ignore_errors=True)

    @contextmanager
    def _opened(self, path: Path, give_up_at: float) -> Iterator[Session]:
        """A session on a file; it, its write-ahead log and what DuckDB spills to disk meanwhile have `file_mode`."""
        spill = Path(f"{path}.tmp")
        with made_with(self._file_mode), _told_if_full(path):
            connection = self._patiently(lambda: self._connect(path), give_up_at)
            try:
                # Of a killed load: no other process has the file open now.
                shutil.rmtree(spill, ignore_errors=True)
                spill.mkdir(mode=folder_mode(FILE_MODE))
                open_folder(spill, self._file_mode)
                engine = DuckDbEngine(connection, self._memory_limit)
                in_transaction(engine, lambda: prepare(engine, self._tables, self._views))
                yield Session(engine, self._tables)
            finally:
                connection.close()
                shutil.rmtree(spill, ignore_errors=True)

    def _release_old_file(self) -> None:
        """Waits until no process uses the old file, and removes its write-ahead log."""
        import duckdb

        if self.path.exists():
            try:
                self._patiently(lambda: self._connect(self.path), self._give_up_at()).close()
            except duckdb.Error:
                log.warning("%s could not be opened; the rebuild replaces it anyway.", self.path)
        Path(f"{self.path}.wal").unlink(missing_ok=True)  # DuckDB would apply it to the new file

    def _connect(
        self, path: Path, spill: str | None = None, *, read_only: bool = False
    ) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            connection = duckdb.connect(
                str(path),
                read_only=read_only,
                config={
                    "memory_limit": self._memory_limit,
                    # A second thread makes a merge take a quarter more CPU seconds.
                    "threads": 2 if read_only else 1,
                    "preserve_insertion_order": False,  # saves memory
                    "storage_compatibility_version": self._storage_version,
                    "temp_directory": spill or f"{path}.tmp",
                },
            )
        except duckdb.InvalidInputException as error:
            if self._storage_version not in str(error):
                raise
            raise ConfigurationError(
                f"[feedamp] duckdb_storage_version must be a version that DuckDB {duckdb.__version__} knows, as v1.4.0; it is "
                f"{self._storage_version}."
            ) from error
        except duckdb.ConnectionException as error:  # another part of this process has it open for writing
            raise BusyError(self._busy_message(None), retry_after_s=60) from error
        except duckdb.IOException as error:
            holder = _HOLDER.search(str(error))
            if holder is None and "conflicting lock" not in str(error).lower():
                raise
            raise BusyError(self._busy_message(holder), retry_after_s=60) from error
        connection.execute("SET TimeZone = 'UTC'")
        return connection

    @contextmanager
    def _writer_lock(self, give_up_at: float) -> Iterator[None]:
        """Locks out other loads by this package; the lock ends when the process ends, even if it is killed."""
        lock = f"{self.path}.lock"
        make_file(lock, self._file_mode)
        with Path(lock).open("a+") as file:

            def take() -> None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    file.seek(0)
                    pid = file.read().strip()
                    raise BeingLoadedError(
                        f"{self.path} is being loaded by process {pid or 'unknown'}; try again when it is done.",
                        retry_after_s=60,
                    ) from error

            self._patiently(take, give_up_at)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                file.truncate(0)

    def _give_up_at(self, wait_s: float | None = None) -> float:
        return self._monotonic() + (self.lock_wait_s if wait_s is None else wait_s)

    def _patiently(self, take: Callable[[], _Result], give_up_at: float) -> _Result:
        while True:
            try:
                return take()
            except BusyError:
                if self._monotonic() >= give_up_at:
                    raise
            self._sleep(0.2)

    def _busy_message(self, holder: re.Match[str] | None) -> str:
        who = f"{holder['program']} (process {holder['pid']})" if holder else "another process"
        return f"{self.path} is held by {who}; close it there, and the next run continues."


@contextmanager
def _told_if_full(path: Path) -> Iterator[None]:
    """Says in words that the disk of the file takes no more. DuckDB has no error type of its own for it."""
    import duckdb

    try:
        yield
    except (
        duckdb.OperationalError,
        duckdb.FatalException,
    ) as error:  # the messages of others may quote a cell
        if not _CANNOT_WRITE.search(str(error)):
            raise
        raise StoreAwayError(
            f"{path} cannot be written ({error}): is there room on its disk? Nothing of this transaction is stored.",
            retry_after_s=60,
        ) from error


class DuckDbEngine:
    """An open DuckDB file; Arrow is read without a copy.

    DuckDB uses all memory it is allowed, so the limit is small at first and is raised to `most_memory` once a merge
    needs more: a load of 200,000 orders added 193 MB instead of 405.
    """

    types: Mapping[Type, str] = _TYPES

    def __init__(self, connection: duckdb.DuckDBPyConnection, most_memory: str | None = None) -> None:
        self._connection = connection
        # The same few statements again and again; to parse one costs a third of what it costs to run on a few rows.
        self._parsed = lru_cache(maxsize=500)(connection.extract_statements)
        self._more_memory: str | None = None
        if most_memory is not None:
            [[allowed]] = connection.execute("SELECT current_setting('memory_limit')").fetchall()
            if _bytes_of(allowed) > ENOUGH_BYTES:
                self._set_memory(f"{ENOUGH_BYTES}B")
                self._more_memory = most_memory

    def recovers_from(self, error: Exception) -> bool:
        """Raises the limit to `most_memory`, once, if the error is a lack of memory."""
        import duckdb

        if not isinstance(error, duckdb.OutOfMemoryException) or self._more_memory is None:
            return False
        log.info(
            "A merge needs more than %d MB; the limit is raised to %s.",
            ENOUGH_BYTES // 1_000_000,
            self._more_memory,
        )
        self._set_memory(self._more_memory)
        self._more_memory = None
        return True

    def _set_memory(self, limit: str) -> None:
        quoted = limit.replace("'", "''")
        self._connection.execute(f"SET memory_limit = '{quoted}'")

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self._run(sql, parameters)

    def _run(self, sql: str, parameters: Sequence[Any]) -> duckdb.DuckDBPyConnection:
        [statement] = self._parsed(sql)
        return self._connection.execute(statement, list(parameters))

    def execute_all(self, statements: Sequence[str]) -> None:
        self._connection.execute("; ".join(statements))

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Row]:
        cursor = self._run(sql, parameters)
        names = [column[0] for column in cursor.description or ()]
        while batch := cursor.fetchmany(1_000):
            yield from (dict(zip(names, row, strict=True)) for row in batch)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        import duckdb

        self._connection.begin()
        try:
            yield
            self._connection.commit()
        except BaseException:
            with suppress(duckdb.Error):  # a COMMIT that fails, as on a full disk, has ended the transaction
                self._connection.rollback()
            raise

    def refuses_value(self, error: Exception) -> bool:
        """Whether DuckDB cannot hold a value; its errors of memory, disk and locks have other types."""
        import duckdb

        return isinstance(error, duckdb.DataError | duckdb.IntegrityError | duckdb.InvalidInputException)

    def scratch(self, name: str, columns: str) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")

    def stage(self, name: str, table: Table, reader: pa.RecordBatchReader) -> None:
        """Reads the rows into a temporary table, a batch at a time; what does not fit into memory is spilled to disk."""
        # DuckDB finds this variable by its name; to register the reader as a view takes longer than to read a few rows.
        feedamp_incoming = reader  # noqa: F841
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM feedamp_incoming")

    def relations(self, schema: str) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for relation, column, type_name in self._connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE schema_name = $1 AND database_name = current_database() ORDER BY table_name, column_index",
            [schema],
        ).fetchall():
            found.setdefault(relation, {})[column] = type_name
        return found

    def index(self, table: Table) -> Sequence[str]:
        """No statements: a scan by column is as fast."""
        return ()

    def users_of(self, schema: str, relation: str) -> list[str]:
        """No views: DuckDB resolves a view only when it is read, so a view prevents no change."""
        return []


def select(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The rows of one SELECT, which reads only the database; ConfigurationError if it is not one, or DuckDB refuses it."""
    import duckdb

    try:
        kinds = [statement.type for statement in duckdb.extract_statements(sql)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise ConfigurationError("Only one SELECT is run; the condition must be a single SQL expression.")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET lock_configuration = true")
        return connection.sql(sql).to_arrow_table()
    except (
        duckdb.ParserException,
        duckdb.BinderException,
        duckdb.CatalogException,
        duckdb.PermissionException,
    ) as error:
        raise ConfigurationError(f"DuckDB refuses the query: {str(error).splitlines()[0]}") from error
    except (duckdb.DataError, duckdb.InvalidInputException) as error:  # the message may quote a cell
        raise ConfigurationError(
            f"DuckDB cannot evaluate the query for all rows ({type(error).__name__})."
        ) from None


def _bytes_of(size: str) -> float:
    """The bytes in a size as DuckDB writes it, such as `488.2 MiB`."""
    number, unit = size.split()
    return float(number) * 1024.0 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit)


def remove_abandoned_copies() -> int:
    """Removes temporary copies of warehouse rows that killed processes of this user left; returns how many folders.

    A verification holds the lock of its copy as long as it lives. A folder without one goes when no reader can still use it.
    """
    removed = 0
    for prefix in TEMPORARY:
        for folder in Path(gettempdir()).glob(f"{prefix}*"):
            with suppress(OSError):  # of another user, in use, or removed meanwhile
                if not _is_in_use(folder):
                    shutil.rmtree(folder)
                    removed += 1
    return removed


def _is_in_use(folder: Path) -> bool:
    locks = list(folder.glob("*.lock"))
    if not locks:
        return time.time() - folder.stat().st_mtime < LONGEST_READ_S
    with locks[0].open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises a BlockingIOError if it is held
    return False


def _remove(file: Path) -> None:
    """Removes a DuckDB file with its write-ahead log and what was spilled beside it."""
    for path in (file, Path(f"{file}.wal")):
        path.unlink(missing_ok=True)
    shutil.rmtree(f"{file}.tmp", ignore_errors=True)
