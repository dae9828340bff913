"""One loader at a time on a Postgres warehouse, and servers and roles that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from manifests import Loader, closure, finding, order, placed, snapshot
from postgres import Server
from postgres_warehouses import address_of, looking, rows_of_tables

from feedamp import warehouse as warehouse_package
from feedamp.errors import BusyError, FeedAmpError, StoreAwayError, TransientError
from feedamp.lake.manifest import Manifest
from feedamp.lake.store import Lake
from feedamp.warehouse.engine import in_transaction
from feedamp.warehouse.postgres import PostgresAddress, PostgresWarehouse

INCLUDE = str(Path(warehouse_package.__file__).parents[2])
LOADS = """
import sys
from feedamp.warehouse.postgres import PostgresAddress, PostgresWarehouse
host, port, database, user, password = sys.argv[1:]
with PostgresWarehouse(PostgresAddress(host, int(port), database, user, password)).session():
    print("ready", flush=True)
    sys.stdin.read()
"""
HISTORY = (
    placed(0),
    snapshot(order(1), 1),
    snapshot(order(1, 1), 2) | finding(2, "to_report"),
    closure(4),
)


@pytest.fixture
def address(server: Server) -> PostgresAddress:
    return address_of(server.database())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    with closing(Loader(tmp_path)) as loader:
        for rows in HISTORY:
            loader.publish(rows)
        return loader.lake


@contextmanager
def holding(address: PostgresAddress) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a load, for the time of the block or until its stdin ends."""
    parts = (address.host, str(address.port), address.database, address.user, address.password)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {"PYTHONPATH": INCLUDE}
    with subprocess.Popen(
        [sys.executable, "-c", LOADS, *parts], **pipes, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def give_up(_seconds: float) -> None:
    raise AssertionError("waited although no wait was allowed")


def test_a_second_loader_names_the_first_and_takes_over_when_it_dies(address):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if holder.poll() is None:
            os.kill(holder.pid, 9)
            holder.wait()

    with holding(address) as holder:
        with pytest.raises(BusyError) as busy:
            with PostgresWarehouse(address, lock_wait_s=0.0, sleep=give_up).session():
                pass
        assert f"feedamp process {holder.pid} on " in str(busy.value)
        assert busy.value.retry_after_s == 60
        with PostgresWarehouse(address, lock_wait_s=60.0, sleep=sleep).session() as session:
            assert list(session.rows("orders", ["seller_id"], [("S1", "M-1")])) == []
    assert waits


def test_waiting_ends_after_the_time_allowed(address):
    seconds = iter(range(100))
    patient = PostgresWarehouse(
        address, lock_wait_s=5.0, sleep=lambda s: None, monotonic=lambda: float(next(seconds))
    )
    with PostgresWarehouse(address).session(), pytest.raises(BusyError), patient.session():
        pass
    assert next(seconds) < 12


def test_of_two_loaders_at_once_each_manifest_is_loaded_by_one(address, lake):
    def load_everything(_number: int) -> list[bool]:
        with PostgresWarehouse(address).session() as session:
            return [session.load(lake, manifest) for manifest in lake.manifests()]

    with ThreadPoolExecutor(2) as pool:
        by_each = list(pool.map(load_everything, range(2)))
    assert sorted(by_each) == [[False] * len(HISTORY), [True] * len(HISTORY)]
    assert len(rows_of_tables(address)["orders"]) == 1


def loaded(address: PostgresAddress, lake: Lake) -> dict[str, list[str]]:
    with PostgresWarehouse(address).session() as session:
        session.load_all(lake)
    return rows_of_tables(address)


class WatchedLake(Lake):
    """Calls a function before it yields each manifest except the first."""

    def __init__(self, lake: Lake, act: Callable[[], None]) -> None:
        super().__init__(lake.root)
        self._act = act

    def manifests(self) -> Iterator[Manifest]:
        for number, manifest in enumerate(super().manifests()):
            if number:
                self._act()
            yield manifest


def test_readers_see_the_old_rows_until_a_rebuild_is_whole(address, lake):
    before = loaded(address, lake)
    with looking(address) as other:
        other.execute("UPDATE orders SET currency = 'old'")
        seen = []
        peek = lambda: seen.append(other.execute("SELECT currency FROM orders").fetchall())  # noqa: E731
        assert PostgresWarehouse(address).rebuild(WatchedLake(lake, peek)) == len(HISTORY)
    assert seen == [[("old",)]] * (len(HISTORY) - 1)
    assert rows_of_tables(address) == before
    with PostgresWarehouse(address).session() as session:
        assert not any(session.load(lake, manifest) for manifest in lake.manifests())


def test_a_rebuild_keeps_grants_and_views_of_others(address, lake):
    loaded(address, lake)
    with looking(address) as owner:
        owner.execute(
            f"CREATE ROLE reader_{address.database}; GRANT USAGE ON SCHEMA feedamp TO reader_{address.database};"
            f"GRANT SELECT ON orders TO reader_{address.database};"
            "CREATE VIEW public.mine AS SELECT count(*) FROM orders"
        )
        PostgresWarehouse(address).rebuild(lake)
        owner.execute(f"SET ROLE reader_{address.database}")
        assert owner.execute("SELECT count(*) FROM feedamp.orders").fetchall() == [(1,)]
        owner.execute("RESET ROLE")
        assert owner.execute("SELECT * FROM public.mine").fetchall() == [(1,)]


def kill_backends(address: PostgresAddress) -> None:
    with looking(address) as killer:
        killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'feedamp process%' AND pid <> pg_backend_pid()"
        )


def test_a_connection_that_breaks_in_a_rebuild_changes_nothing(address, lake):
    before = loaded(address, lake)
    with pytest.raises(TransientError, match=r"could not complete|closed the connection") as broken:
        PostgresWarehouse(address).rebuild(WatchedLake(lake, lambda: kill_backends(address)))
    assert address.password not in shown(broken.value)
    assert rows_of_tables(address) == before
    assert PostgresWarehouse(address).rebuild(lake) == len(HISTORY)


def test_a_session_whose_connection_breaks_takes_the_lock_again_and_continues(address, lake):
    with PostgresWarehouse(address, sleep=give_up).session() as session:
        for manifest in lake.manifests():
            kill_backends(address)
            assert session.load(lake, manifest)
        with pytest.raises(BusyError), PostgresWarehouse(address, lock_wait_s=0.0).session():
            pass
        assert not any(session.load(lake, manifest) for manifest in lake.manifests())


def test_a_statement_that_breaks_every_connection_is_given_up(address):
    with PostgresWarehouse(address).session() as session:
        ends_itself = partial(session._found, "SELECT pg_terminate_backend(pg_backend_pid())")
        with pytest.raises(StoreAwayError):
            ends_itself()


def test_a_lake_with_a_hole_changes_nothing(address, lake):
    before = loaded(address, lake)
    last = list(lake.manifests())[-1]
    Path(lake.absolute(last.files[0].path)).unlink()
    with pytest.raises(FeedAmpError, match="was not changed"):
        PostgresWarehouse(address).rebuild(lake)
    assert rows_of_tables(address) == before


def shown(error: BaseException) -> str:
    """All that a log would print of it."""
    return "".join(traceback.format_exception(error))


def test_what_the_server_says_of_a_row_it_refuses_is_not_passed_on(address, lake, caplog):
    [manifest] = [m for m in lake.manifests() if "extract-002-" in m.path]
    [path] = [Path(lake.absolute(f.path)) for f in manifest.files if f.table == "orders"]
    rows = pq.read_table(path)
    at = rows.schema.get_field_index("customer_email")
    rows = rows.set_column(at, "customer_email", pa.array(["jane@example.com"]))
    at = rows.schema.get_field_index("seller_id")
    pq.write_table(rows.set_column(at, "seller_id", pa.array([None], pa.string())), path)
    with PostgresWarehouse(address).session() as session:
        with pytest.raises(FeedAmpError, match="cannot take a value") as refused:
            in_transaction(session._engine, lambda: session._merge(lake, [manifest]))
        assert "jane" not in shown(refused.value)
        assert session.load(lake, manifest)  # without the row
        assert "jane" not in caplog.text


def test_a_warehouse_beside_the_state_in_one_database_waits_for_no_step(server, state, url):
    """Both take advisory locks of their own."""
    with state.begin(), PostgresWarehouse(address_of(url), lock_wait_s=0.0, sleep=give_up).session():
        pass
