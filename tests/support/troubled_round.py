"""A go of all five DAGs in which nearly every seller meets trouble, and what is left of it where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from leaks import (
    Place,
    bad_rows,
    duckdb_cells,
    ends,
    files,
    headerless_csv,
    parquet_cells,
    postgres_cells,
    secrets_of,
    telling_order,
)

from demo.airflow_server import DAGS

PLACE, EXTRACT, PROCESS, RECONCILE, REFRESH = DAGS
WRONG_SECRET, PROXY_PASSWORD = "wrongsecret-5f0c9a7d21e84b36", "proxypassword-81b6d2c47e90"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT09:00:00Z")


@dataclass
class Round:
    """All five DAGs have run, against trouble of every kind."""

    guarded: Any
    sellers: dict[str, str]
    ends: dict[str, str]

    @property
    def folder(self) -> Path:
        return Path(self.guarded.folder)

    @property
    def state(self) -> Path:
        return self.folder / "state.db"

    def everywhere(self) -> Iterator[Place]:
        """What Airflow has written, and what went over the wire in the open."""
        yield from files(self.guarded.home / "logs")
        yield from files(self.guarded.home.parent / "logs")
        yield from postgres_cells(self.guarded.metadata_url)
        yield from (("URL", url) for url in list(self.guarded.urls))
        yield from (("access log", str(request)) for request in self.guarded.sandbox.requests)

    def warehouse(self) -> Iterator[Place]:
        yield from duckdb_cells(self.folder / "warehouse.duckdb")

    def lake(self) -> Iterator[Place]:
        yield from parquet_cells(self.folder / "lake")

    def secrets(self) -> set[str]:
        ours = (self.guarded.encryption_key, WRONG_SECRET, PROXY_PASSWORD)
        return secrets_of(self.guarded.sandbox) | {part for secret in ours for part in ends(secret)}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "warehouse.duckdb"), read_only=True) as warehouse:
            return warehouse.execute(sql).fetchall()

    def drop(self, name: str, text: str) -> None:
        path = self.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (0, 0))

    def run(self, dag_id: str) -> None:
        """For all but the one of the wrong connection, whose refusal would be the only word in the log."""
        chosen = [seller_id for name, seller_id in self.sellers.items() if name != "wrong"]
        self.ends[dag_id] = self.guarded.run(dag_id, {"sellers": chosen})


def go_round(guarded: Any) -> Round:
    ids = [seller["seller_id"] for seller in guarded.sandbox.sellers][4:]  # others have the first
    names = ("good", "refused", "revoked", "failing", "throttled", "wrong")
    sellers = dict(zip(names, ids, strict=False))
    guarded.connect([sellers[name] for name in names[:-1]])
    guarded.connect([sellers["wrong"]], conn_id="feedamp_wrong")
    going = Round(guarded, sellers, {})
    sandbox = guarded.sandbox
    sandbox.revoke(sellers["revoked"])
    rows = [
        {"seller_id": seller_id, "order": telling_order(f"L-{name}-{n}", purchase_date=YESTERDAY)}
        for name, seller_id in sellers.items()
        for n in range(2)
    ]
    other = {"purchase_date": YESTERDAY, "customer": {"full_name": "Wilhelmina Ashgrove"}}
    rows.append({"seller_id": sellers["good"], "order": telling_order("L-good-2", **other)})
    lines = [json.dumps(row, default=float) for row in rows]
    going.drop("leaks.jsonl", "\n".join([*lines, *bad_rows(sellers["good"], YESTERDAY)]) + "\n")
    going.drop("leaks.csv", headerless_csv())
    with_trouble(going, PLACE, "PUT")
    for n, tracking_number in enumerate(("1Z999AA10123456785", "1Z999AA10123456784")):
        parcel = {"quantity": 4, "carrier": "UPS", "tracking_number": tracking_number}
        line = {"mp_line_number": f"L-good-{n}-1", "shipments": [parcel], "cancellations": []}
        sandbox.set_fulfillments(sellers["good"], f"L-good-{n}", [line])
    sandbox.fault("misshapen_order", seller_id=sellers["good"], path="^/orders$")
    sandbox.fault("unknown_values", seller_id=sellers["good"], path="^/orders$")
    with_trouble(going, EXTRACT, "GET")
    sandbox.fault("echo_400", seller_id=sellers["good"], method="POST", path="/errors$")
    with_trouble(going, PROCESS, "GET")
    with_trouble(going, RECONCILE, "GET")
    going.run(REFRESH)
    going.ends["wrong"] = guarded.run(EXTRACT, {"sellers": [sellers["wrong"]]})
    return going


def with_trouble(going: Round, dag_id: str, method: str) -> None:
    """A run in which every seller but one meets something; who is throttled lets the retries come soon."""
    sandbox, sellers = going.guarded.sandbox, going.sellers
    for seller_id in sellers.values():
        sandbox.expire_access_tokens(seller_id)
    sandbox.fault("echo_400", seller_id=sellers["refused"], method=method)
    sandbox.fault("echo_401", seller_id=sellers["good"], method=method, times=1)
    sandbox.fault("echo_500", seller_id=sellers["good"], path="/access_token$")
    sandbox.fault("echo_500", seller_id=sellers["failing"], method=method, times=None)
    sandbox.fault("throttle", seller_id=sellers["throttled"], method=method, times=None)
    going.run(dag_id)
    sandbox.clear_faults()
