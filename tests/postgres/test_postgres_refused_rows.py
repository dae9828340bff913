"""Rows that Postgres refuses: what holds for every engine, and a key that no index can hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from manifests import Loader, order, snapshot
from postgres import Server
from postgres_warehouses import address_of

from feedamp.lake.store import Lake
from feedamp.warehouse.postgres import PostgresWarehouse
from feedamp.warehouse.session import Session, SetAside

pytest.register_assert_rewrite("refused_contract")

from refused_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture
def open_rebuilt(server: Server) -> Callable[[Lake, SetAside], AbstractContextManager[Session]]:
    @contextmanager
    def rebuilt(lake: Lake, set_aside: SetAside) -> Iterator[Session]:
        warehouse = PostgresWarehouse(address_of(server.database()))
        warehouse.rebuild(lake, set_aside)
        with warehouse.session() as session:
            yield session

    return rebuilt


def test_a_key_that_no_index_can_hold_costs_its_order(loader: Loader) -> None:
    # Random, because Postgres compresses what it can.
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9_000))
    rows = [snapshot(order(1, mp_order_number=number), 1) for number in ("M-1", long, "M-2")]
    refused = []
    loader.session.load(loader.lake, loader.publish(*rows), refused.extend)
    assert [(row.table, row.place) for row in refused] == [("orders", 1)]
    assert loader.query("SELECT mp_order_number FROM orders ORDER BY 1") == [("M-1",), ("M-2",)]
