"""An env of files that any process can open: state, lake, warehouse, inbox; and every step by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crashes.clock import Clock
from feedamp.api.account import FeedAmpAccount
from feedamp.api.oauth import Credentials
from feedamp.api.rate_limit import Sleep
from feedamp.api.token_journal import TokenJournal
from feedamp.api.transport import Endpoint
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.run import Run
from feedamp.settings import Settings
from feedamp.state import State, grants, sellers
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps.extract_fulfillments.extract import extract, plan_sellers
from feedamp.steps.load import load
from feedamp.steps.place_orders.place import place, plan_place
from feedamp.steps.place_orders.read_inbox import intake
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.validate import plan_process, validate
from feedamp.steps.reconcile_orders.reconcile import plan_reconcile, reconcile
from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh, refresh
from feedamp.steps.runner import StepResult
from feedamp.storage import open_storage
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp.warehouse.postgres_address import PostgresAddress

CONN = "feedamp_default"
PLACE_DAG = ("intake", "place", "load")
EXTRACT_DAG = ("extract", "load")
PROCESS_DAG = ("validate", "close", "load")
LOOP = (*PLACE_DAG, *EXTRACT_DAG, *PROCESS_DAG)
DAG_OF = {
    "intake": "place_orders",
    "place": "place_orders",
    "extract": "extract_fulfillments",
    "load": "extract_fulfillments",
    "validate": "process_fulfillments",
    "close": "process_fulfillments",
    "reconcile": "reconcile_orders",
    "repair": "reconcile_orders",
    "refresh": "refresh_tokens",
}
DAY = (datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC))


@dataclass(frozen=True)
class Fixtures:
    """The paths of everything in an env; can be passed to other processes. Without a clock, time is the machine's.

    The warehouse is a DuckDB file unless `postgres` names a database.
    """

    folder: Path
    api: str
    client_id: str
    key: str = field(repr=False)
    client_secret: str = field(repr=False)
    clock: Clock | None = None
    state_url: str = ""
    requests_per_second: float = 10_000.0
    timeout_s: float = 5.0
    lock_wait_s: float = 30.0
    postgres: PostgresAddress | None = None
    sellers_per_task: int = 50

    def open_state(self) -> State:
        """The state database."""
        url = self.state_url or f"sqlite:///{self.folder / 'state.db'}"
        return State(url, clock=self.clock.now if self.clock else None)

    def resources(self, *, on_secret: Callable[[str], None] = lambda secret: None) -> Resources:
        """What a step needs; the caller closes `resources.state`."""
        inbox = self.folder / "inbox"
        inbox.mkdir(exist_ok=True)
        connection = FeedAmpAccount(
            Endpoint(self.api, timeout_s=self.timeout_s),
            Credentials(CONN, self.client_id, self.client_secret),
            requests_per_second=self.requests_per_second,
        )
        sleep: Sleep = self.clock.sleep if self.clock and not self.clock.keeps_still else asyncio.sleep
        cipher = TokenCipher(self.key)
        return Resources(
            self.open_state(),
            cipher,
            Lake(str(self.folder / "lake")),
            self._warehouse(),
            Settings(str(inbox), inbox_settle_s=0, sellers_per_task=self.sellers_per_task),
            Privacy(None),
            lambda conn_id: connection,
            TokenJournal(open_storage("journal_url", str(self.folder / "journal")), cipher),
            default_conn_id=CONN,
            sleep=sleep,
            on_secret=on_secret,
        )

    def _warehouse(self) -> Warehouse:
        if self.postgres is None:
            return DuckDbWarehouse(str(self.folder / "warehouse.duckdb"), lock_wait_s=self.lock_wait_s)
        from feedamp.warehouse.postgres import PostgresWarehouse  # its driver is an extra

        return PostgresWarehouse(self.postgres, lock_wait_s=self.lock_wait_s)

    def register(self, tokens: dict[str, str]) -> None:
        """Registers sellers with their refresh tokens."""
        resources = self.resources()
        with resources.state.begin() as connection:
            for seller_id, token in tokens.items():
                sellers.add(connection, seller_id, conn_id=CONN, now=resources.state.now())
                grants.put_grant(
                    connection, resources.cipher, seller_id, CONN, token, now=resources.state.now()
                )
        resources.state.close()


def run_step(resources: Resources, name: str, run_id: str, *, try_number: int = 1) -> dict[str, Any]:
    """Runs one step on all its shards; returns its counts, with what it left undone and what it noted."""
    run = Run(f"feedamp_{DAG_OF[name]}", run_id, resources.state.now(), try_number)
    if name == "load":
        return dict(load(resources, run))
    if name == "intake":
        return _told(intake(resources, run))
    more: dict[str, Any] = {}
    step: Any
    if name == "place":
        step, shards = place, plan_place(resources, run, [])
    elif name == "extract":
        step, shards = extract, plan_sellers(resources, [])
    elif name in ("reconcile", "repair"):
        more = {"start": DAY[0], "end": DAY[1], "with_stale": False, "repair": name == "repair"}
        step, shards = reconcile, plan_reconcile(resources, *DAY, [], with_stale=False)
    elif name == "refresh":
        step, shards = refresh, plan_refresh(resources, [])
    else:
        step, shards = {"validate": validate, "close": close}[name], plan_process(resources, [])
    if not shards:
        return _told(StepResult(name))
    [shard] = shards
    return _told(asyncio.run(step(resources, run, shard["shard"], shard["sellers"], **more)))


def _told(result: StepResult) -> dict[str, Any]:
    return {**result.summary(), "undone": result.undone, "noted": result.notes}
