"""Numbers of orders that fill batches, pages, groups and manifests exactly lose none of them on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from house import House, open_house, shipment
from round_sizes import Chain

from feedamp.warehouse.duckdb import DuckDbWarehouse


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    with closing(
        Chain(tmp_path, DuckDbWarehouse(str(tmp_path / "warehouse.duckdb"), lock_wait_s=0.0))
    ) as opened:
        yield opened


def test_rows_of_every_size_are_loaded_rebuilt_and_compacted_whole(chain: Chain) -> None:
    chain.check_all_sizes()


@pytest.mark.slow
@pytest.mark.parametrize("count", [250, 500, 1_000])
def test_a_round_of_so_many_orders_goes_all_the_way_round(tmp_path: Path, count: int) -> None:
    numbers = [f"M-{at:04}" for at in range(count)]
    with open_house(tmp_path) as house:
        house.placed(*numbers)
        house.load()
        assert counts(house) == {
            "orders": count,
            "order_lines": count,
            "placements": count,
            "shipments": 0,
            "closures": 0,
        }
        with house.sandbox.world.lock:
            for number in numbers:
                house.fulfill(number, shipment(2))
        house.read()
        house.process()
        house.load()
        whole = dict.fromkeys(("orders", "order_lines", "placements", "shipments", "closures"), count)
        assert counts(house) == whole
        assert house.rows("SELECT DISTINCT marketplace_state, units_shipped FROM orders") == [("SHIPPED", 2)]
        house.resources.warehouse.rebuild(house.resources.lake)
        assert counts(house) == whole


def counts(house: House) -> dict[str, Any]:
    tables = ("orders", "order_lines", "placements", "shipments", "closures")
    return {table: house.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
