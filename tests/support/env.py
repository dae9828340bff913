"""A whole env for tests of steps: sandbox, state, lake and warehouse, and one clock for all of them.

Time goes on by itself and jumps where the code sleeps, so that waiting costs nothing and every pause that
FeedAMP asks for is still obeyed.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from env_fixtures import OTHER, SELLER, empty_warehouse, open_state
from env_views import Views
from installations import held_by_feedamp, unpack
from memory_warehouse import emptied_warehouse, folder_in_memory
from order_samples import example_order

from crashes.clock import NOON, Clock
from crashes.fixtures import DAG_OF, DAY, run_shard, run_whole
from feedamp.api.account import FeedAmpAccount
from feedamp.api.decoding import read_order
from feedamp.api.json_fields import Coercions
from feedamp.api.oauth import Credentials
from feedamp.api.token_journal import TokenJournal
from feedamp.api.transport import Endpoint
from feedamp.codec import decode_json
from feedamp.lake.privacy import Privacy
from feedamp.lake.store import Lake
from feedamp.resources import Resources
from feedamp.rules.finding import WAIVED
from feedamp.run import Run
from feedamp.settings import Settings
from feedamp.state import State, findings, grants, open_orders, sellers
from feedamp.state.token_cipher import TokenCipher
from feedamp.steps import load as _load
from feedamp.steps.refused_grants import decide_refusals
from feedamp.steps.step_result import StepResult
from feedamp.storage import open_storage
from feedamp.warehouse import Warehouse
from feedamp.warehouse.duckdb import DuckDbWarehouse
from feedamp_sandbox import Sandbox, SandboxOptions, running
from feedamp_sandbox.views import order_view

__all__ = ["BAD_NUMBER", "GOOD_NUMBER", "NOON", "OTHER", "SELLER", "Env", "open_env", "shipment"]

GOOD_NUMBER = "1Z999AA10123456784"  # UPS, check digit right
BAD_NUMBER = "1Z999AA10123456785"
FAST = {"requests_per_second": 100_000.0, "burst": 100_000}


def shipment(quantity: Any = 2, number: str | None = GOOD_NUMBER, carrier: str | None = "UPS") -> Any:
    """A shipment as FeedAMP shows it."""
    return {"quantity": quantity, "carrier": carrier, "tracking_number": number, "shipped_date": "2026-03-09"}


def fulfillments(number: str, *shipments: dict[str, Any], cancelled: int = 0) -> list[dict[str, Any]]:
    """The whole snapshot of an order with one line."""
    cancellations = [{"quantity": cancelled, "reason": "out_of_stock"}] if cancelled else []
    line_number = f"{number}-1"
    return [{"mp_line_number": line_number, "shipments": list(shipments), "cancellations": cancellations}]


class Env(Views):
    """Everything a step needs, and every step as one call."""

    def __init__(
        self,
        folder: Path,
        sandbox: Sandbox,
        clock: Clock,
        state: State,
        warehouse: Warehouse,
        **rules: Any,
    ) -> None:
        self.folder, self.sandbox, self.clock, self.state = folder, sandbox, clock, state
        self.inbox = folder / "inbox"
        self.inbox.mkdir()
        self.cipher = TokenCipher(Fernet.generate_key().decode())
        connection = FeedAmpAccount(
            Endpoint(sandbox.api, timeout_s=5.0),
            Credentials("feedamp", sandbox.client_id, sandbox.client_secret),
            requests_per_second=10_000.0,
        )
        self.resources = Resources(
            self.state,
            self.cipher,
            Lake(str(folder / "lake")),
            warehouse,
            Settings(str(self.inbox), inbox_settle_s=0, **rules),
            Privacy(None),
            lambda conn_id: connection,
            TokenJournal(open_storage("journal_url", str(folder / "journal")), self.cipher),
            default_conn_id="feedamp",
            sleep=clock.sleep,
        )
        self._runs = self._files = 0
        self.refused_clients: list[str] = []

    def use(self, warehouse: Warehouse) -> None:
        """Another warehouse than the DuckDB file of the folder."""
        self.resources = replace(self.resources, warehouse=warehouse)

    def set_rules(self, **rules: Any) -> None:
        self.resources = replace(self.resources, settings=replace(self.resources.settings, **rules))

    # Sellers and what they do

    def register(self, *seller_ids: str, token: str | None = None) -> None:
        with self.state.begin() as connection:
            for seller_id in seller_ids:
                sellers.add(connection, seller_id, conn_id="feedamp", now=self.state.now())
                newest = token or self.sandbox.refresh_token(seller_id)
                grants.put_grant(connection, self.cipher, seller_id, "feedamp", newest, now=self.state.now())

    def fulfill(
        self, number: str, *shipments: dict[str, Any], cancelled: int = 0, seller: str = SELLER
    ) -> None:
        """The seller's whole snapshot of an order with one line."""
        self.sandbox.set_fulfillments(seller, number, fulfillments(number, *shipments, cancelled=cancelled))

    def stock(self, count: int) -> None:
        """FeedAMP holds that many orders that we did not place."""
        with self.sandbox.world.lock:
            for number in range(count):
                order = self.sandbox.world.orders.add(SELLER, self.body(f"X-{number}"), self.clock.now())
                order.seller_updated_at = self.clock.now()

    def hold(self, orders: list[dict[str, Any]]) -> None:
        """FeedAMP holds these orders, as they are; their sellers touch them no more."""
        with self.sandbox.world.lock:
            for held in orders:
                order = self.sandbox.world.orders.add(held["seller_id"], held["body"], self.clock.now())
                order.marketplace_state = held["marketplace_state"]
                order.fulfillments = copy.deepcopy(held["fulfillments"])
                order.errors = list(held["errors"])
                order.acknowledged = bool(order.fulfillments)
                order.by_hand = True

    def see(self, *numbers: str, seller: str = SELLER) -> None:
        """What FeedAMP shows of orders reaches the state, as `load` brings it after an extraction."""
        with self.sandbox.world.lock:
            views = [
                order_view(self.sandbox._order(seller, number), self.sandbox.world.options)
                for number in numbers
            ]
        shown = [decode_json(json.dumps(view, default=float).encode()) for view in views]
        seen = [(read_order(view, Coercions()).snapshot(), self.state.now()) for view in shown]
        with self.state.begin() as connection:
            open_orders.keep_open(connection, seller, seen, run_id=None)

    def waive(self, number: str) -> None:
        """As `feedamp findings waive` does for every finding of an order."""
        now = self.state.now()
        waived = [f.but(state=WAIVED, resolved_at=now, note="looked at") for f in self.findings(number)]
        with self.state.begin() as connection:
            findings.write(connection, waived, run_id=None, now=now)
            open_orders.invalidate_validation(connection, SELLER, number)

    # Inbox

    body = staticmethod(example_order)

    def drop(self, name: str, *bodies: dict[str, Any], seller: str = SELLER) -> None:
        """Writes an inbox file of orders of one seller."""
        path = self.inbox / name
        rows = [json.dumps({"seller_id": seller, "order": body}, default=float) for body in bodies]
        path.write_text("\n".join(rows) + "\n")
        moment = self.clock.now().timestamp() - 1
        os.utime(path, (moment, moment))

    def deliver(self, number: str, *, seller: str = SELLER, **changes: Any) -> StepResult:
        """One order in a file of its own, taken in."""
        self._files += 1
        self.drop(f"{self._files:04d}.jsonl", self.body(number, **changes), seller=seller)
        return self.intake()

    def placed(self, *numbers: str, seller: str = SELLER, **changes: Any) -> None:
        """Orders that FeedAMP has accepted; their rows still wait in the outbox."""
        self._files += 1
        bodies = [self.body(number, **changes) for number in numbers]
        self.drop(f"{self._files:04d}.jsonl", *bodies, seller=seller)
        self.intake()
        self.place()

    # Steps

    def run(self, dag_id: str, *, dry_run: bool = False) -> Run:
        self._runs += 1
        return Run(f"feedamp_{dag_id}", f"manual__{self._runs}", self.state.now(), dry_run=dry_run)

    def intake(self, *, dry_run: bool = False) -> StepResult:
        return self._work("intake", dry_run)

    def place(self, *, dry_run: bool = False) -> StepResult:
        return self._work("place", dry_run)

    def extract(self, *, since: datetime | None = None, dry_run: bool = False) -> StepResult:
        return self._work("extract", dry_run, since=since)

    def validate(self, *, dry_run: bool = False) -> StepResult:
        return self._work("validate", dry_run)

    def close(self, *, dry_run: bool = False) -> StepResult:
        return self._work("close", dry_run)

    def reconcile(
        self,
        start: datetime | None = DAY[0],
        end: datetime | None = DAY[1],
        *,
        with_stale: bool = False,
        repair: bool = False,
        dry_run: bool = False,
    ) -> StepResult:
        day = {"start": start, "end": end, "with_stale": with_stale, "repair": repair}
        return self._work("reconcile", dry_run, **day)

    def refresh(self) -> StepResult:
        return self._work("refresh")

    def load(self) -> dict[str, int]:
        return _load.load(self.resources, self.run("load"))

    def read(self) -> None:
        self.extract()
        self.load()

    def process(self) -> None:
        self.validate()
        self.close()

    def loop(self) -> None:
        """What all DAGs do in their time."""
        self.intake()
        self.place()
        self.read()
        self.process()
        self.load()

    def for_sellers(self, step: str, *seller_ids: str, shard: int = 0, **more: Any) -> StepResult:
        """One task of a step for these sellers, and what `gate` decides at its end."""
        run = self.run(DAG_OF[step])
        try:
            return run_shard(self.resources, step, run, seller_ids, shard, **more)
        finally:
            self.refused_clients = decide_refusals(self.state, run)

    def _work(self, step: str, dry_run: bool = False, **more: Any) -> StepResult:
        """The step on its one shard, and what `gate` decides at its end; nothing to do is an empty result."""
        run = self.run(DAG_OF[step], dry_run=dry_run)
        try:
            return run_whole(self.resources, step, run, **more)
        finally:
            self.refused_clients = decide_refusals(self.state, run)


@contextmanager
def open_env(
    folder: Path | None = None,
    *,
    rules: Any = None,
    state_url: str = "",
    merges_at_once: bool = False,
    **options: Any,
) -> Iterator[Env]:
    """An env with two registered sellers who do nothing by themselves.

    Its state is a SQLite file and its warehouse a DuckDB file in `folder`. Without a folder, files lie in memory, and the
    warehouse is the one of this process, emptied, which is much faster; it merges what was loaded when it is looked at,
    or at once if a test is about that. Other keywords are options of the sandbox.
    """
    clock = Clock()
    settings = SandboxOptions(**{"sellers": 2, "behaviors": (("never", 1),), **FAST, **options})
    with (
        nullcontext(folder) if folder else folder_in_memory() as place,
        closing(open_state(place, clock, state_url)) as state,
        running(settings, clock=clock.now, monotonic=clock.elapsed_s) as sandbox,
    ):
        warehouse = warehouse_file(place) if folder else emptied_warehouse(is_patient=not merges_at_once)
        env = Env(place, sandbox, clock, state, warehouse, **(rules or {}))
        env.register(*(seller["seller_id"] for seller in sandbox.sellers))
        yield env


def warehouse_file(folder: Path) -> DuckDbWarehouse:
    """A DuckDB file with nothing in its tables."""
    path = folder / "warehouse.duckdb"
    shutil.copy(empty_warehouse(), path)
    return DuckDbWarehouse(str(path), lock_wait_s=0.0)


@contextmanager
def open_earlier(name: str, folder: Path) -> Iterator[Env]:
    """The installation `name` of an earlier version goes on, two days after it was left.

    Its sellers are connected with the sandbox, which holds what FeedAMP held.
    """
    with open_env(folder, rules={"sellers_per_task": 50}) as env:
        old = unpack(name, folder / "old")
        env.clock.skip(days=2)
        with closing(State(f"sqlite:///{old / 'state.db'}", clock=env.clock.now)) as state:
            env.state, env.folder = state, old
            env.cipher = TokenCipher((old / "state.db.key").read_text())
            env.resources = replace(
                env.resources,
                state=state,
                cipher=env.cipher,
                lake=Lake(str(old / "lake")),
                warehouse=DuckDbWarehouse(str(old / "warehouse.duckdb"), lock_wait_s=0.0),
            )
            env.register(*(seller["seller_id"] for seller in env.sandbox.sellers))
            env.hold(held_by_feedamp(old))
            yield env
