"""An env in which an installation of an earlier version goes on, against a FeedAMP that holds what it held."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from env import Env, open_env
from installations import held_by_feedamp, unpack

from feedamp.lake.store import Lake
from feedamp.state import State
from feedamp.state.token_cipher import TokenCipher
from feedamp.warehouse.duckdb import DuckDbWarehouse


@contextmanager
def open_earlier(name: str, folder: Path) -> Iterator[Env]:
    """The installation `name`, two days after it was left; its sellers connected with the sandbox."""
    with open_env(folder, rules={"sellers_per_task": 50}) as env:
        old = unpack(name, folder / "old")
        env.clock.skip(days=2)
        env.state.close()
        env.state = State(f"sqlite:///{old / 'state.db'}", clock=env.clock.now)
        env.cipher = TokenCipher((old / "state.db.key").read_text())
        env.folder = old
        env.resources = replace(
            env.resources,
            state=env.state,
            cipher=env.cipher,
            lake=Lake(str(old / "lake")),
            warehouse=DuckDbWarehouse(str(old / "warehouse.duckdb"), lock_wait_s=0.0),
        )
        env.register(*(seller["seller_id"] for seller in env.sandbox.sellers))
        fill(env, held_by_feedamp(old))
        yield env


def fill(env: Env, orders: list[dict[str, Any]]) -> None:
    """Lets the sandbox hold these orders, as they are; their sellers touch them no more."""
    with env.sandbox.world.lock:
        for held in orders:
            order = env.sandbox.world.orders.add(held["seller_id"], held["body"], env.clock.now())
            order.marketplace_state = held["marketplace_state"]
            order.fulfillments = copy.deepcopy(held["fulfillments"])
            order.errors = list(held["errors"])
            order.acknowledged = bool(order.fulfillments)
            order.by_hand = True
