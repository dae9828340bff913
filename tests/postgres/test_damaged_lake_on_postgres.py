"""Damaged files of the lake with the warehouse on Postgres: what holds for every engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from env import Env, open_env
from postgres import Server
from postgres_warehouses import address_of

from feedamp.warehouse.postgres import PostgresWarehouse

pytest.register_assert_rewrite("damage_contract")

from damage_contract import *  # noqa: E402, F403 - the tests


@pytest.fixture
def env(tmp_path: Path, server: Server) -> Iterator[Env]:
    with open_env(tmp_path) as opened:
        warehouse = PostgresWarehouse(address_of(server.database()), lock_wait_s=0.0)
        opened.resources = replace(opened.resources, warehouse=warehouse)
        yield opened
