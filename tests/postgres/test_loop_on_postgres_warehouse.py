"""All steps with the warehouse on Postgres: the same env, the same result, and the same rows as in DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from env import BAD_NUMBER, OTHER, SELLER, open_env, shipment
from postgres_warehouses import address_of

from feedamp.state import overview
from feedamp.tables import SCHEMA, TABLES
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.postgres import PostgresWarehouse
from feedamp.warehouse.views import VIEWS
from feedamp_sandbox.options import DEFAULT_BEHAVIORS

PATIENT = tuple((name, weight) for name, weight in DEFAULT_BEHAVIORS if name != "never")
AMOUNTS = {
    "taxes": [{"type": "sales_tax", "amount": 1.25}],
    "discounts": [{"name": "May", "type": "ITEM", "amount": 0.5}],
}
MOMENT = "TIMESTAMP WITH TIME ZONE '2026-03-15 12:00:00+00'"


def all_rows(session) -> Mapping[str, list[dict[str, Any]]]:
    """Every row of every table and view, as of one moment."""
    queries = {name: f"SELECT {', '.join(t.names)} FROM {SCHEMA}.{name}" for name, t in TABLES.items()}
    queries |= {view.name: view.select(MOMENT) for view in VIEWS}
    return {
        name: sorted(session._engine.rows(query), key=lambda row: [str(value) for value in row.values()])
        for name, query in queries.items()
    }


def test_the_loop_ends_the_same_and_both_engines_hold_the_same_rows(tmp_path, server):
    with open_env(tmp_path, seed=3, behaviors=PATIENT) as env:
        warehouse = PostgresWarehouse(address_of(server.database()), lock_wait_s=0.0)
        env.resources = replace(env.resources, warehouse=warehouse)
        for seller in (SELLER, OTHER):
            bodies = [env.body(f"{seller}-{n}") for n in range(2)]
            bodies[0]["order_lines"][0] |= AMOUNTS
            env.drop(f"{seller}.jsonl", *bodies, seller=seller)
        env.drop("bad.jsonl", env.body("BAD", order_lines=[]))
        env.loop()
        env.fulfill(f"{SELLER}-0", shipment(number=BAD_NUMBER))
        for _ in range(5):
            env.loop()
            env.sandbox.act()
            env.clock.skip(hours=2)
        env.fulfill(f"{SELLER}-0", shipment())
        env.sandbox.clear_errors(SELLER, f"{SELLER}-0")
        env.loop()
        env.loop()
        assert env.reconcile().extra["differences"] == 0
        env.load()
        with env.state.read() as connection:
            assert overview.count_by_phase(connection) == {"closed": 4}
        assert env.sandbox.broken_rules == []

        fresh = DuckDbWarehouse(str(tmp_path / "second.duckdb"))
        fresh.rebuild(env.resources.lake)
        with warehouse.session() as postgres, fresh.session() as duckdb:
            ours, theirs = all_rows(postgres), all_rows(duckdb)
        assert ours == theirs
        empty = {name for name, rows in ours.items() if not rows}
        assert empty <= {
            "cancellations",
            "reconciliations",
            "current_differences",
            "late_orders",
            "open_findings_by_age",
            "waiting_orders",
        }
        warehouse.rebuild(env.resources.lake)
        with warehouse.session() as postgres:
            assert all_rows(postgres) == ours
