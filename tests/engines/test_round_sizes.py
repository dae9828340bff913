"""Rows from the outbox and from an extraction to the warehouse, with every bound on the way made small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from env_fixtures import connect_seller, open_state
from manifests import order, stores
from memory_warehouse import OpenWarehouse, emptied_warehouse

from crashes.clock import Clock
from feedamp.lake import (
    schema_evolution,
    writer,
)
from feedamp.lake.manifest import LakeFile
from feedamp.lake.manifest import SellerProgress as LakeSweep
from feedamp.lake.store import Lake
from feedamp.models import ReadOrder
from feedamp.run import Run
from feedamp.state import extraction_start, outbox, watermarks
from feedamp.steps import compact as compact_step
from feedamp.steps import load as load_step
from feedamp.steps import publish_outbox
from feedamp.steps.extract_fulfillments import publisher
from feedamp.tables import LAKE_TABLES
from feedamp.warehouse import Warehouse

BATCH, GROUP, READ, PORTION, TOGETHER, MANIFEST = 3, 6, 4, 5, 7, 10
SIZES = sorted(
    {
        0,
        *(
            n + by
            for k in (BATCH, GROUP, READ, PORTION, TOGETHER, MANIFEST)
            for n in (k, 2 * k)
            for by in (-1, 0, 1)
        ),
    }
)


@contextmanager
def patched_sizes() -> Iterator[None]:
    """All bounds in which rows are gathered, small and different from each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "ROWS_PER_BATCH", BATCH)
        patch.setattr(writer, "ROWS_PER_GROUP", GROUP)
        patch.setattr(schema_evolution, "ROWS_READ_AT_ONCE", READ)
        patch.setattr(publisher, "ORDERS_PER_MANIFEST", PORTION)
        patch.setattr(publisher, "ORDERS_AT_ONCE", TOGETHER)
        patch.setattr(publish_outbox, "ROWS_PER_MANIFEST", MANIFEST)
        patch.setattr(compact_step, "MOST_ROWS_OF_A_MANIFEST", 1_000)
        yield


class Chain:
    """State, lake and warehouse; `check_all_sizes` adds to what is there and looks at all of it.

    A second warehouse, of another engine, is only rebuilt: loads differ between engines in nothing that counts rows.
    """

    def __init__(self, folder: Path, warehouse: Warehouse, second: Warehouse) -> None:
        self.clock = Clock()
        self.state = open_state(folder, self.clock)
        connect_seller(self.state, "S1")
        self.resources = stores(self.state, Lake(str(folder / "lake")), warehouse=warehouse)
        self._second = second
        self._in_files: dict[str, int] = {}
        self._runs = 0
        self._placed: set[str] = set()
        self._shown: set[str] = set()

    def close(self) -> None:
        self.state.close()

    def check_all_sizes(self) -> None:
        """Places and shows so many orders a round, and finds all of them, after a rebuild and a compaction too."""
        with patched_sizes():
            for placed, shown in zip(SIZES, reversed(SIZES), strict=True):
                self._place(placed)
                self._show(shown)
                counts = load_step.load(self.resources, self._run())
                assert (counts["rows"], counts["waiting"]) == (placed + 4 * shown, 0)
                self._look()
            self._rebuild()
            self._compact()
            self._rebuild()

    def _rebuild(self) -> None:
        for warehouse in (self.resources.warehouse, self._second):
            warehouse.rebuild(self.resources.lake)
            self._find_all(warehouse)
        self._look()

    def _compact(self) -> None:
        before = len(list(self.resources.lake.manifests()))
        tomorrow = (self.clock.now() + timedelta(days=1)).date()
        counts = compact_step.compact(self.resources, self._run(), before=tomorrow)
        assert counts["replaced"] == before > counts["written"]

    def _run(self) -> Run:
        self._runs += 1
        return Run("feedamp_sizes", f"r{self._runs}", self.state.now())

    def _place(self, count: int) -> None:
        with self.state.begin() as connection:
            for _ in range(count):
                number = f"P-{len(self._placed)}"
                self._placed.add(number)
                row = {"seller_id": "S1", "mp_order_number": number, "marketplace_state": "AWAITING_SHIPMENT"}
                now = self.state.now()
                outbox.put(connection, "placements", [{**row, "placed_at": now}], recorded_at=now)

    def _show(self, count: int) -> None:
        task = publisher.ManifestPublisher(self.resources, self._run(), "extract", 0)
        read_at = self.state.now()
        told: list[Sequence[ReadOrder]] = []
        for _ in range(count):
            number = f"X-{len(self._shown)}"
            self._shown.add(number)
            read = [ReadOrder(order(3, mp_order_number=number), read_at)]
            task.take("S1", read, 0, lambda orders, _: told.append(orders))
        task.publish([LakeSweep(seller_id="S1", complete=True, watermark=read_at)])
        assert sum(map(len, told)) == count
        self._watermark = read_at

    @property
    def _wanted(self) -> dict[str, int]:
        placed, shown = len(self._placed), len(self._shown)
        return {"orders": shown, "order_lines": shown, "shipments": shown, "placements": placed}

    def _find_all(self, warehouse: Warehouse) -> None:
        keys = [("S1", number) for number in (*self._placed, *self._shown)]
        with warehouse.session() as session:
            found = {
                table: sum(1 for _ in session.rows(table, ["seller_id"], keys)) for table in self._wanted
            }
        assert found == self._wanted

    def _look(self) -> None:
        self._find_all(self.resources.warehouse)
        held: Counter[str] = Counter()
        for manifest in self.resources.lake.manifests():
            for file in manifest.files:
                held[file.table] += self._rows_in(file)
        assert {name: held[name] for name in self._wanted} == self._wanted
        assert held.keys() <= LAKE_TABLES.keys()
        with self.state.read() as connection:
            assert watermarks.read(connection, "S1") == self._watermark
            start = extraction_start.read_all(connection, ["S1"], now=self.state.now())
            assert not start["S1"].watched

    def _rows_in(self, file: LakeFile) -> int:
        """Read once, because a file that was published never changes."""
        if file.path not in self._in_files:
            batches = self.resources.lake.record_batches(file, rows=100, columns=["seller_id"])
            self._in_files[file.path] = sum(batch.num_rows for batch in batches)
        return self._in_files[file.path]


def test_rows_of_every_size_are_loaded_rebuilt_and_compacted_whole(
    tmp_path: Path, open_postgres: OpenWarehouse
) -> None:
    open_postgres.empty()
    with closing(Chain(tmp_path, emptied_warehouse(is_patient=False), open_postgres)) as chain:
        chain.check_all_sizes()
