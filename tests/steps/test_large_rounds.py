"""No order is lost when their number exactly fills batches, pages, groups and manifests."""

from __future__ import annotations

from typing import Any

import pytest
from env import Env, open_env, shipment

from feedamp.api import orders_by_number
from feedamp.lake import schema_evolution, writer
from feedamp.state import group_commit
from feedamp.steps import publish_outbox
from feedamp.steps.extract_fulfillments import publisher
from feedamp.steps.place_orders import ingest_row, seller_batch
from feedamp.steps.process_fulfillments import validate

# Every bound on the way of an order, made so small that a few orders fill it more than once.
SMALL = {
    (ingest_row, "ROWS_PER_TRANSACTION"): 10,
    (seller_batch, "ORDERS_PER_CHUNK"): 10,
    (writer, "ROWS_PER_BATCH"): 5,
    (writer, "ROWS_PER_GROUP"): 10,
    (schema_evolution, "ROWS_READ_AT_ONCE"): 10,
    (publish_outbox, "ROWS_PER_MANIFEST"): 40,
    (publisher, "ORDERS_PER_MANIFEST"): 10,
    (publisher, "ORDERS_AT_ONCE"): 7,
    (orders_by_number, "NUMBERS_PER_REQUEST"): 5,
    (validate, "ORDERS_PER_TRANSACTION"): 5,
    (group_commit, "ITEMS_AT_ONCE"): 3,
}


@pytest.mark.slow
def test_a_round_of_so_many_orders_goes_all_the_way_round() -> None:
    with open_env() as env:  # batches and pages are full, and a chunk is not
        go_round(env, 250)


@pytest.mark.parametrize("count", [9, 10, 11])
def test_a_round_fills_every_bound_on_its_way(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for (module, name), bound in SMALL.items():
        monkeypatch.setattr(module, name, bound)
    with open_env(rules={"page_size": 10}) as env:
        go_round(env, count)


def go_round(env: Env, count: int) -> None:
    """Places, ships, reads and closes so many orders."""
    numbers = [f"M-{at:04}" for at in range(count)]
    env.placed(*numbers)
    env.load()
    placed = {"orders": count, "order_lines": count, "placements": count, "shipments": 0, "closures": 0}
    assert counts(env) == placed
    with env.sandbox.world.lock:
        for number in numbers:
            env.fulfill(number, shipment(2))
    env.read()
    env.process()
    env.load()
    whole = dict.fromkeys(placed, count)
    assert counts(env) == whole
    assert env.rows("SELECT DISTINCT marketplace_state, units_shipped FROM orders") == [("SHIPPED", 2)]
    env.resources.warehouse.rebuild(env.resources.lake)
    assert counts(env) == whole


def counts(env: Env) -> dict[str, Any]:
    tables = ("orders", "order_lines", "placements", "shipments", "closures")
    return {table: env.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables}
