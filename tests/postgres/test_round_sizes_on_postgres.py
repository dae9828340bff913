"""The sizes of tests/steps/test_round_sizes.py, with the warehouse on Postgres."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from postgres import Server
from postgres_warehouses import address_of
from round_sizes import Chain

from feedamp.warehouse.postgres import PostgresWarehouse


def test_rows_of_every_size_are_loaded_rebuilt_and_compacted_whole(server: Server, tmp_path: Path) -> None:
    warehouse = PostgresWarehouse(address_of(server.database()), lock_wait_s=0.0)
    with closing(Chain(tmp_path, warehouse)) as chain:
        chain.check_all_sizes()
