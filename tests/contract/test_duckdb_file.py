"""The DuckDB file belongs to one process at a time, and grows with the package."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from feedamp import warehouse as warehouse_package
from feedamp.errors import BusyError, ConfigurationError, FeedAmpError, StoreAwayError
from feedamp.file_modes import made_with
from feedamp.lake.store import Lake
from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import (
    READ,
    VERIFY,
    DuckDbEngine,
    DuckDbWarehouse,
    remove_abandoned_copies,
)

INCLUDE = str(Path(warehouse_package.__file__).parents[2])
READS = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
print("ready", flush=True)
sys.stdin.read()
"""
LOADS = """
import sys
from feedamp.warehouse.duckdb import DuckDbWarehouse
with DuckDbWarehouse(sys.argv[1]).session():
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse.duckdb"
    with DuckDbWarehouse(str(path)).session():
        pass
    return path


@contextmanager
def holding(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the file open for the duration of the block, or until its stdin ends."""
    command = [sys.executable, "-c", script, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env={"PYTHONPATH": INCLUDE}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def test_rows_that_fit_neither_memory_nor_disk_end_in_a_lack_of_memory(tmp_path: Path) -> None:
    """By that error the engine knows that it may raise its limit and try again."""
    connection = duckdb.connect(config={"memory_limit": "20MB", "temp_directory": str(tmp_path / "spill")})
    connection.execute("SET max_temp_directory_size = '1MB'")
    schema = pa.schema({"text": pa.string()})
    batches = (pa.record_batch([[os.urandom(2_000).hex() for _ in range(100)]], schema) for _ in range(100))
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    engine = DuckDbEngine(connection)
    with pytest.raises(duckdb.OutOfMemoryException), engine.transaction():
        engine.stage("staged_orders", TABLES["orders"], reader)
    connection.close()


def give_up(_seconds: float) -> None:
    raise AssertionError("waited although no wait was allowed")


@pytest.mark.parametrize(
    "script",
    [pytest.param(READS, id="someone reads it"), pytest.param(LOADS, id="another load is under way")],
)
def test_a_held_file_is_busy_and_its_holder_is_named(script: str, path: Path) -> None:
    impatient = DuckDbWarehouse(str(path), lock_wait_s=0.0, sleep=give_up)
    with holding(script, path) as holder, pytest.raises(BusyError) as busy, impatient.session():
        pass
    assert f"process {holder.pid}" in str(busy.value)
    assert busy.value.retry_after_s == 60


@pytest.mark.parametrize(
    "script",
    [pytest.param(READS, id="someone reads it"), pytest.param(LOADS, id="another load is under way")],
)
def test_a_load_waits_until_the_holder_lets_go(script: str, path: Path) -> None:
    waits: list[float] = []
    with holding(script, path) as holder:

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if holder.poll() is None:
                holder.communicate()

        with DuckDbWarehouse(str(path), lock_wait_s=60.0, sleep=sleep).session() as session:
            assert list(session.rows("orders", ["seller_id"], [("S1", "M-1")])) == []
    assert waits


def test_waiting_ends_after_the_time_allowed(path: Path) -> None:
    seconds = iter(range(100))
    monotonic: Callable[[], float] = lambda: float(next(seconds))  # noqa: E731
    patient = DuckDbWarehouse(str(path), lock_wait_s=5.0, sleep=lambda s: None, monotonic=monotonic)
    with holding(READS, path), pytest.raises(BusyError), patient.session():
        pass
    assert next(seconds) < 12


def test_a_lock_file_left_by_a_killed_load_does_not_hold_up_the_next(path: Path) -> None:
    with holding(LOADS, path) as holder:
        os.kill(holder.pid, 9)
        holder.wait()
        with DuckDbWarehouse(str(path), lock_wait_s=0.0).session() as session:
            assert list(session.rows("orders", ["seller_id"], [])) == []


def test_every_table_is_there_from_the_first_session(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'feedamp'"
        ).fetchall()
    assert {name for (name,) in found} == TABLES.keys()


def test_a_file_of_an_older_version_gets_the_new_columns_and_tables(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE feedamp.orders DROP COLUMN units_over; DROP TABLE feedamp.runs")
    with DuckDbWarehouse(str(path)).session():
        pass
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT units_over FROM feedamp.orders").fetchall() == []
        assert connection.execute("FROM feedamp.runs").fetchall() == []


def test_a_file_is_made_for_the_oldest_version_that_is_to_read_it(tmp_path: Path) -> None:
    path = str(tmp_path / "w.duckdb")
    with DuckDbWarehouse(path, storage_version="v1.2.0").session():
        pass
    with duckdb.connect(path, read_only=True) as reader:
        [(tags,)] = reader.execute("SELECT tags FROM duckdb_databases() WHERE NOT internal").fetchall()
    assert tags["storage_version"].startswith("v1.2")


def test_a_storage_version_that_duckdb_does_not_know_is_named(tmp_path: Path) -> None:
    warehouse = DuckDbWarehouse(str(tmp_path / "w.duckdb"), storage_version="v0.0.0.7")
    with (
        pytest.raises(ConfigurationError, match=r"duckdb_storage_version .* it is v0\.0\.0\.7"),
        warehouse.session(),
    ):
        pass


@pytest.mark.parametrize(
    "left", ["warehouse.duckdb.tmp/x", "warehouse.duckdb.rebuilding.tmp/x", "warehouse.duckdb.rebuilding"]
)
def test_what_a_killed_load_or_rebuild_left_behind_is_removed(path: Path, left: str) -> None:
    leftover = path.parent / left
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_bytes(b"half")
    with DuckDbWarehouse(str(path)).session():
        assert not leftover.exists()


def test_what_is_spilled_to_disk_is_only_for_this_user(path: Path) -> None:
    spill = Path(f"{path}.tmp")
    with DuckDbWarehouse(str(path)).session() as session:
        assert spill.stat().st_mode & 0o777 == 0o700
        [row] = session._found("SELECT current_setting('temp_directory') AS folder")
        assert row["folder"] == str(spill)
    assert not spill.exists()


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder"),
    [
        pytest.param(0o000, 0o600, 0o700, id="for its owner alone although nothing is masked"),
        pytest.param(0o077, 0o640, 0o750, id="for a group although the mask forbids it"),
    ],
)
def test_what_duckdb_makes_has_the_mode(tmp_path: Path, umask: int, file_mode: int, folder: int) -> None:
    path = tmp_path / "made.duckdb"
    warehouse = DuckDbWarehouse(str(path), file_mode=file_mode)
    before = os.umask(umask)
    try:
        with warehouse.session() as session:
            for _ in range(2):  # after a checkpoint the log is made again
                session._engine.execute("CHECKPOINT")  # type: ignore[attr-defined]
                session._engine.execute("CREATE OR REPLACE TABLE written AS SELECT 1 AS number")
                assert modes(tmp_path) == {
                    "made.duckdb": file_mode,
                    "made.duckdb.lock": file_mode,
                    "made.duckdb.tmp": folder,
                    "made.duckdb.wal": file_mode,
                }
        warehouse.rebuild(Lake(str(tmp_path / "lake")))
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"made.duckdb": file_mode, "made.duckdb.lock": file_mode}


def modes(folder: Path) -> dict[str, int]:
    """The modes of what is in a folder, by its name."""
    return {found.name: found.stat().st_mode & 0o777 for found in folder.iterdir()}


def test_a_warehouse_that_is_there_keeps_its_mode_until_it_is_rebuilt(path: Path, tmp_path: Path) -> None:
    path.chmod(0o644)
    with DuckDbWarehouse(str(path)).session():
        assert path.stat().st_mode & 0o777 == 0o644
    DuckDbWarehouse(str(path)).rebuild(Lake(str(tmp_path / "lake")))
    assert path.stat().st_mode & 0o777 == 0o600


def test_sessions_of_two_threads_leave_the_umask_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        entered = [made_with(0o600), made_with(0o640)]
        for one in entered:
            one.__enter__()
        entered[0].__exit__(None, None, None)  # the first ends first
        assert os.umask(0o027) == 0o027
        entered[1].__exit__(None, None, None)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_copies_that_killed_processes_left_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed, at_work = tmp_path / f"{VERIFY}killed", tmp_path / f"{VERIFY}at-work"
    old, new = tmp_path / f"{READ}old", tmp_path / f"{READ}new"
    for folder in (killed, at_work, old, new):
        folder.mkdir()
    with holding(LOADS, killed / "lake.duckdb") as process:
        process.kill()
    os.utime(old, (0, 0))
    with holding(LOADS, at_work / "lake.duckdb"):
        assert remove_abandoned_copies() == 2
    assert sorted(tmp_path.iterdir()) == sorted([at_work, new])


def test_a_disk_that_is_full_amid_an_erasure_is_named_with_the_room_it_needs(path: Path) -> None:
    class Full(DuckDbWarehouse):
        def _copy_into_draft(self, give_up_at: float) -> None:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
            try:
                super()._copy_into_draft(give_up_at)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with pytest.raises(FeedAmpError, match=rf"bytes still hold them.* up to \d+ MB of disk in {path.parent}"):
        Full(str(path)).erase("S1")
    assert list(path.parent.glob("*.rebuilding*")) == []
    assert DuckDbWarehouse(str(path)).erase("S1") == {}


def test_a_disk_that_is_full_amid_a_load_is_named_and_stores_nothing(path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = {"seller_id": ["S1"], "name": [os.urandom(500_000).hex()]}
    stores = "CREATE TABLE feedamp_notes AS SELECT * FROM feedamp_staged"

    def load() -> None:
        with DuckDbWarehouse(str(path)).session() as session, session._engine.transaction():
            session._engine.stage("feedamp_staged", TABLES["sellers"], pa.table(rows).to_reader())
            session._engine.execute(stores)

    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        with pytest.raises(StoreAwayError, match=rf"{path} cannot be written .* room on its disk"):
            load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    load()  # the table does not exist: nothing of the first try is there


def test_a_cell_that_speaks_of_a_full_disk_is_not_taken_for_one(path: Path) -> None:
    with pytest.raises(duckdb.ConversionException), DuckDbWarehouse(str(path)).session() as session:
        session._engine.execute("SELECT CAST('no space left' AS INTEGER)")
