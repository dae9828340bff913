"""The DuckDB file belongs to one process at a time, and grows with the package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from feedamp import warehouse as warehouse_package
from feedamp.errors import BusyError
from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse

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
