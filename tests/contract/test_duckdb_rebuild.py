"""A warehouse rebuilt from the lake alone has the same rows, and the old file stays until the new one is complete."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from compacting import HISTORY
from manifests import Loader

from feedamp.errors import BusyError, IncompleteError
from feedamp.lake.store import Lake
from feedamp.tables import TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse


class Store:
    """A lake with a history, and a warehouse that has loaded it in a different order."""

    def __init__(self, folder: Path) -> None:
        self.warehouse = DuckDbWarehouse(str(folder / "warehouse.duckdb"), lock_wait_s=0.0)
        self.path = self.warehouse.path
        self.lake = Lake(str(folder / "lake"))

    def fill(self) -> None:
        with closing(Loader(self.path.parent)) as loader:
            manifests = [loader.publish(rows) for rows in HISTORY]
        with self.warehouse.session() as session:
            for manifest in (manifests[2], manifests[0], manifests[4], manifests[1], manifests[3]):
                session.load(self.lake, manifest)

    def tables(self) -> dict[str, list[str]]:
        with closing(duckdb.connect(str(self.path), read_only=True)) as connection:
            return {
                name: sorted(map(repr, connection.execute(f"FROM feedamp.{name}").fetchall()))
                for name in TABLES
            }

    def files(self) -> set[str]:
        return {path.name for path in self.path.parent.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a store, to copy."""
    folder = tmp_path_factory.mktemp("filled")
    Store(folder).fill()
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Store:
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path)


def test_the_rebuilt_warehouse_is_equal_to_the_row(store: Store) -> None:
    before = store.tables()
    assert all(before[name] for name in ("orders", "shipments", "findings", "closures", "placements"))
    assert store.warehouse.rebuild(store.lake) == len(HISTORY)
    assert store.tables() == before
    assert store.warehouse.rebuild(store.lake) == len(HISTORY)
    assert store.tables() == before
    assert store.files() == {"warehouse.duckdb", "warehouse.duckdb.lock"}


def test_what_the_lake_does_not_hold_is_gone(store: Store) -> None:
    before = store.tables()
    with closing(duckdb.connect(str(store.path))) as connection:
        connection.execute(
            "INSERT INTO feedamp.closures SELECT 'S9', * EXCLUDE (seller_id) FROM feedamp.closures"
        )
    assert store.tables() != before
    store.warehouse.rebuild(store.lake)
    assert store.tables() == before


def test_a_manifest_loaded_by_the_rebuild_counts_as_loaded(store: Store) -> None:
    store.warehouse.rebuild(store.lake)
    with store.warehouse.session() as session:
        assert [session.load(store.lake, manifest) for manifest in store.lake.manifests()] == [False] * len(
            HISTORY
        )


def test_a_lost_warehouse_is_rebuilt(store: Store) -> None:
    before = store.tables()
    store.path.unlink()
    store.warehouse.rebuild(store.lake)
    assert store.tables() == before


@pytest.mark.parametrize("content", [b"", b"no DuckDB file at all" * 1000])
def test_a_damaged_warehouse_is_rebuilt(store: Store, content: bytes) -> None:
    before = store.tables()
    store.path.write_bytes(content)
    store.warehouse.rebuild(store.lake)
    assert store.tables() == before


def test_leftovers_of_a_killed_process_do_not_get_in(store: Store) -> None:
    before = store.tables()
    # Dies with its change in the write-ahead log only.
    dying = "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('DELETE FROM feedamp.orders'); os._exit(0)"
    subprocess.run([sys.executable, "-c", dying, store.path], check=True)
    Path(f"{store.path}.rebuilding").write_bytes(b"half")
    Path(f"{store.path}.rebuilding.wal").write_bytes(b"half")
    assert Path(f"{store.path}.wal").exists()
    store.warehouse.rebuild(store.lake)
    assert store.tables() == before
    assert store.files() == {"warehouse.duckdb", "warehouse.duckdb.lock"}


def test_a_lake_with_a_hole_leaves_the_old_file_alone(store: Store) -> None:
    before = store.tables()
    manifest = list(store.lake.manifests())[-1]
    Path(store.lake.absolute(manifest.files[0].path)).unlink()
    with pytest.raises(IncompleteError, match="was not changed"):
        store.warehouse.rebuild(store.lake)
    assert store.tables() == before
    assert store.files() == {"warehouse.duckdb", "warehouse.duckdb.lock"}


def test_a_reader_keeps_the_swap_out_and_is_named(store: Store) -> None:
    reading = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", reading, store.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with pytest.raises(BusyError, match=f"process {reader.pid}"):
            store.warehouse.rebuild(store.lake)
    assert store.files() == {"warehouse.duckdb", "warehouse.duckdb.lock"}


def test_an_empty_lake_makes_an_empty_warehouse(tmp_path: Path) -> None:
    with closing(Loader(tmp_path)) as loader:
        warehouse = DuckDbWarehouse(str(tmp_path / "new" / "warehouse.duckdb"), lock_wait_s=0.0)
        assert warehouse.rebuild(loader.lake) == 0
        with warehouse.session() as session:
            assert list(session.rows("orders", ["seller_id"], [("S1", "M-1")])) == []
