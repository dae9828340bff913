"""An env of files that any process can open: state, lake, warehouse, inbox; and every step by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from cryptography.fernet import Fernet

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
from feedamp.state.data_key import open_cipher
from feedamp.steps.extract_fulfillments.extract import extract, plan_sellers
from feedamp.steps.load import load
from feedamp.steps.place_orders.place import place, plan_place
from feedamp.steps.place_orders.read_inbox import intake
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.validate import plan_process, validate
from feedamp.steps.reconcile_orders.reconcile import plan_reconcile, reconcile
from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh, refresh
from feedamp.steps.step_result import StepResult
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
STEPS: dict[str, Any] = {
    "place": place,
    "extract": extract,
    "validate": validate,
    "close": close,
    "reconcile": reconcile,
    "refresh": refresh,
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

    @classmethod
    def of(cls, folder: Path, sandbox: Any, clock: Clock | None = None, **more: Any) -> Self:
        """Those of a new env that works against a sandbox; who has consented is registered with the token that works now."""
        key = Fernet.generate_key().decode()
        made = cls(folder, sandbox.api, sandbox.client_id, key, sandbox.client_secret, clock, **more)
        consented = [s["seller_id"] for s in sandbox.sellers if s["refresh_token"]]
        made.register({seller_id: sandbox.refresh_token(seller_id) for seller_id in consented})
        return made

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
        state = self.open_state()
        cipher = open_cipher(state, self.key, checks_key=False)
        return Resources(
            state,
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


def plan(resources: Resources, name: str, run: Run, **more: Any) -> list[Any]:
    """The shards of a step; `more` says which orders, to a reconciliation."""
    if name == "place":
        return plan_place(resources, run, [])
    if name == "extract":
        return plan_sellers(resources, [])
    if name == "reconcile":
        start, end, with_stale = more["start"], more["end"], more["with_stale"]
        return plan_reconcile(resources, run, start, end, [], with_stale=with_stale)
    if name == "refresh":
        return plan_refresh(resources, [])
    return plan_process(resources, [])


def run_shard(
    resources: Resources, name: str, run: Run, seller_ids: Sequence[str], shard: int = 0, **more: Any
) -> StepResult:
    """One task of a step, for these sellers."""
    return asyncio.run(STEPS[name](resources, run, shard, list(seller_ids), **more))


def run_whole(resources: Resources, name: str, run: Run, **more: Any) -> StepResult:
    """A step on its one shard; nothing to do is an empty result."""
    if name == "intake":
        return intake(resources, run)
    shards = plan(resources, name, run, **more)
    if not shards:
        return StepResult(name)
    [shard] = shards
    return run_shard(resources, name, run, shard["sellers"], shard["shard"], **more)


def run_step(resources: Resources, name: str, run_id: str, *, try_number: int = 1) -> dict[str, Any]:
    """Runs one step by its name, or `repair`; returns its counts, with what it left undone and what it noted."""
    run = Run(f"feedamp_{DAG_OF[name]}", run_id, resources.state.now(), try_number)
    if name == "load":
        return dict(load(resources, run))
    more: dict[str, Any] = {}
    if name in ("reconcile", "repair"):
        more = {"start": DAY[0], "end": DAY[1], "with_stale": False, "repair": name == "repair"}
    result = run_whole(resources, "reconcile" if name == "repair" else name, run, **more)
    return {**result.summary(), "undone": result.undone, "noted": result.notes}
