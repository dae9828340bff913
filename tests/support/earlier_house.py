"""A house in which an installation of an earlier version goes on, against a FeedAMP that holds what it held."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from house import House, open_house
from installations import held_by_feedamp, unpack

from feedamp.lake.store import Lake
from feedamp.state import State
from feedamp.state.token_cipher import TokenCipher
from feedamp.warehouse.duckdb import DuckDbWarehouse


@contextmanager
def open_earlier(name: str, folder: Path) -> Iterator[House]:
    """The installation `name`, two days after it was left; its sellers connected with the sandbox."""
    with open_house(folder, rules={"sellers_per_task": 50}) as house:
        old = unpack(name, folder / "old")
        house.clock.skip(days=2)
        house.state.close()
        house.state = State(f"sqlite:///{old / 'state.db'}", clock=house.clock.now)
        house.cipher = TokenCipher((old / "state.db.key").read_text())
        house.folder = old
        house.resources = replace(
            house.resources,
            state=house.state,
            cipher=house.cipher,
            lake=Lake(str(old / "lake")),
            warehouse=DuckDbWarehouse(str(old / "warehouse.duckdb"), lock_wait_s=0.0),
        )
        house.register(*(seller["seller_id"] for seller in house.sandbox.sellers))
        fill(house, held_by_feedamp(old))
        yield house


def fill(house: House, orders: list[dict[str, Any]]) -> None:
    """Lets the sandbox hold these orders, as they are; their sellers touch them no more."""
    with house.sandbox.world.lock:
        for held in orders:
            order = house.sandbox.world.orders.add(held["seller_id"], held["body"], house.clock.now())
            order.marketplace_state = held["marketplace_state"]
            order.fulfillments = copy.deepcopy(held["fulfillments"])
            order.errors = list(held["errors"])
            order.acknowledged = bool(order.fulfillments)
            order.by_hand = True
