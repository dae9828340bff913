"""No order is lost when their number exactly fills batches, pages, groups and manifests."""

from __future__ import annotations

from typing import Any

import pytest
from env import Env, open_env, shipment


@pytest.mark.slow
@pytest.mark.parametrize("count", [250, 500, 1_000])
def test_a_round_of_so_many_orders_goes_all_the_way_round(count: int) -> None:
    numbers = [f"M-{at:04}" for at in range(count)]
    with open_env() as env:
        env.placed(*numbers)
        env.load()
        assert counts(env) == {
            "orders": count,
            "order_lines": count,
            "placements": count,
            "shipments": 0,
            "closures": 0,
        }
        with env.sandbox.world.lock:
            for number in numbers:
                env.fulfill(number, shipment(2))
        env.read()
        env.process()
        env.load()
        whole = dict.fromkeys(("orders", "order_lines", "placements", "shipments", "closures"), count)
        assert counts(env) == whole
        assert env.rows("SELECT DISTINCT marketplace_state, units_shipped FROM orders") == [("SHIPPED", 2)]
        env.resources.warehouse.rebuild(env.resources.lake)
        assert counts(env) == whole


def counts(env: Env) -> dict[str, Any]:
    tables = ("orders", "order_lines", "placements", "shipments", "closures")
    return {table: env.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
