"""What a long ledger costs: each plan, `gate`, `status` and a shard without work, by the number of orders.

python benchmarks/ledger.py                            10,000 and 1,000,000 orders of 1,500 sellers, on SQLite
python benchmarks/ledger.py --orders 100000 --state postgresql+psycopg://user@127.0.0.1/an_empty_database

Nine of ten orders are closed; the others are placed, read and validated, and nothing is due. Seconds are CPU seconds of
this process (on Postgres: wall seconds, since the server does the work), the least of three runs; the ratio is to the
first number of orders. A shard has 50 sellers and asks a server that has nothing new. `gate` is what that task asks of the state
for a run of each DAG, without what it tells by notifications: that is `status`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import sqlalchemy as sa
from cryptography.fernet import Fernet
from memory import resources_in
from pages import serving

from feedamp.codec import content_hash, encode_body
from feedamp.models import Snapshot
from feedamp.resources import Resources
from feedamp.rules.order import AWAITING_SHIPMENT, SHIPPED, Phase
from feedamp.run import Run
from feedamp.state import State, grants, sellers
from feedamp.state.schema import findings, orders, snapshots, watermarks
from feedamp.state.schema import grants as grants_table
from feedamp.steps.extract_fulfillments.extract import extract, plan_sellers
from feedamp.steps.place_orders.inbox_verdict import inbox_problems
from feedamp.steps.place_orders.place import place, plan_place
from feedamp.steps.process_fulfillments.close import close
from feedamp.steps.process_fulfillments.validate import plan_process, validate
from feedamp.steps.reconcile_orders.planned_days import run_counts
from feedamp.steps.refresh_tokens.renew_idle_grants import plan_refresh, refresh
from feedamp.steps.refused_grants import decide_refusals

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from order_samples import example_order

SELLERS, SHARD, RUNS, AT_ONCE = 1_500, 50, 3, 10_000
OPEN_ONE_OF = 10


def fill(resources: Resources, count: int) -> None:
    """Sellers with grants and watermarks, and their orders."""
    now = resources.state.now()
    with resources.state.begin() as connection:
        for number in range(SELLERS):
            seller_id = f"S{number:04d}"
            sellers.add(connection, seller_id, conn_id="feedamp", now=now)
            grants.put_grant(connection, resources.cipher, seller_id, "feedamp", f"rt-{number}", now=now)
        # Their accounts were compared and their tokens refreshed.
        compared = {"account_checked_at": grants_table.c.issued_at, "refreshed_at": grants_table.c.issued_at}
        connection.execute(sa.update(grants_table).values(**compared))
        connection.execute(
            sa.insert(watermarks),
            [{"seller_id": f"S{n:04d}", "watermark": now, "moved_at": now} for n in range(SELLERS)],
        )
    for start in range(0, count, AT_ONCE):
        numbers = range(start, min(start + AT_ONCE, count))
        with resources.state.begin() as connection:
            for table, rows in (
                (orders, [_order(number, now) for number in numbers]),
                (snapshots, [_snapshot(number, now) for number in numbers if number % OPEN_ONE_OF == 0]),
                (findings, [_finding(number, now) for number in numbers if number % OPEN_ONE_OF == 5]),
            ):
                connection.execute(sa.insert(table), rows)


def _key(number: int) -> dict[str, str]:
    return {"seller_id": f"S{number % SELLERS:04d}", "mp_order_number": f"M-{number:07d}"}


_BODY = encode_body({k: v for k, v in example_order("M-0").items() if k != "marketplace_state"}).decode()
_SNAPSHOT = Snapshot("M-0", "NEW", AWAITING_SHIPMENT, quantities={"1": 2})


def _order(number: int, now: datetime) -> dict[str, Any]:
    is_open = number % OPEN_ONE_OF == 0
    purchased = now - timedelta(minutes=number % 500_000)
    return {
        **_key(number),
        "phase": Phase.SETTLED if is_open else Phase.CLOSED,
        "body": _BODY,
        "body_hash": "0" * 32,
        "desired_state": AWAITING_SHIPMENT if is_open else SHIPPED,
        "accepted_state": AWAITING_SHIPMENT if is_open else SHIPPED,
        "delivered": "[]",
        "purchase_date": purchased,
        "source": "orders.jsonl",
        "source_row": number,
        "row_hash": "0" * 64,
        "taken_at": purchased,
        "attempts": 0,
        "first_put_at": purchased,
        "placed_at": purchased,
        "closed_at": None if is_open else purchased,
        "ended_at": None if is_open else purchased,
    }


def _snapshot(number: int, now: datetime) -> dict[str, Any]:
    snapshot = msgspec.structs.replace(_SNAPSHOT, mp_order_number=_key(number)["mp_order_number"])
    hashed = content_hash(snapshot)
    return {
        **_key(number),
        "read_at": now,
        "snapshot_hash": hashed,
        "snapshot": msgspec.json.encode(snapshot).decode(),
        "validated_hash": hashed,
        "closable": False,
        "waits_for": "units do not add up yet",
        "needs_person": False,
    }


def _finding(number: int, now: datetime) -> dict[str, Any]:
    return {
        **_key(number),
        "finding_id": f"{number:032d}",
        "kind": "invalid_tracking",
        "severity": "error",
        "message": "It cannot be a tracking number.",
        "state": "resolved",
        "line_hash": "0" * 32,
        "found_at": now,
        "reported_at": now,
        "resolved_at": now,
    }


def works(resources: Resources) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is measured, by name."""
    run = Run("feedamp", "manual__1", datetime.now(UTC))
    shard = [f"S{number:04d}" for number in range(SHARD)]
    yield "plan of place", lambda: plan_place(resources, run, [])
    yield "plan of extract", lambda: plan_sellers(resources, [])
    yield "plan of process", lambda: plan_process(resources, [])
    yield "plan of refresh", lambda: plan_refresh(resources, [])
    for step in (place, extract, validate, close, refresh):
        name = step.__name__
        yield f"shard of {name}", lambda step=step: asyncio.run(step(resources, run, 0, shard))

    def what_gate_asks() -> object:
        return (
            resources.read_only.stop(),
            decide_refusals(resources.state, run),
            inbox_problems(resources, run),
            run_counts(resources, run, set()),
        )

    yield "gate", what_gate_asks

    def status_document() -> object:
        from feedamp_airflow.cli import status

        with resources.state.read() as connection:
            return status.document(connection, resources.settings, resources.state.now())

    yield "status", status_document


def measure(count: int, state_url: str | None) -> dict[str, float]:
    """Seconds of each kind of work over so many orders."""
    with TemporaryDirectory(prefix="feedamp-ledger-") as name, serving(0) as api:
        (Path(name) / "key").write_text(Fernet.generate_key().decode())
        resources = resources_in(Path(name), api)
        clock = time.process_time
        if state_url is not None:
            resources = replace(resources, state=State(state_url))
            clock = time.monotonic
        fill(resources, count)
        taken = {}
        for work, do in works(resources):
            do()  # the first also imports, and gets the tokens
            tries = []
            for _ in range(RUNS):
                began = clock()
                do()
                tries.append(clock() - began)
            taken[work] = min(tries)
        resources.state.close()
    return taken


def main() -> int:
    """Prints a line for each kind of work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--orders", type=int, action="append", metavar="N", help="may be given more than once"
    )
    parser.add_argument("--state", metavar="URL", help="an empty Postgres database instead of a SQLite file")
    options = parser.parse_args()
    counts = options.orders or [10_000, 1_000_000]
    columns = [measure(count, options.state) for count in counts]
    print(f"{'seconds':<18}" + "".join(f"{count:>12,}" for count in counts) + f"{'ratio':>8}")
    for work in columns[0]:
        taken = [column[work] for column in columns]
        print(f"{work:<18}" + "".join(f"{t:>12.3f}" for t in taken) + f"{taken[-1] / taken[0]:>8.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
