"""`plan` and `validate` over orders that were read with their shipments, and over the same with nothing new."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from clock import Job, Phases, main

# An earlier commit is measured with its own env and rows.
sys.path.insert(0, f"{os.environ['FEEDAMP_BENCH_CODE']}/tests/support")
sys.path.insert(0, f"{os.environ['FEEDAMP_BENCH_CODE']}/benchmarks")

import duckdb
import sqlalchemy as sa
from ledger import _order
from memory import furnish, resources_in
from order_samples import example_order, good_line

from feedamp.codec import encode_body
from feedamp.resources import Resources
from feedamp.run import Run, shards
from feedamp.state.schema import orders
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.steps.load import load
from feedamp.steps.process_fulfillments.validate import plan_process, validate

LINES, AT_ONCE = 2, 5_000
PURCHASED_AT = datetime(2026, 3, 2, 14, 5, tzinfo=UTC)  # as in the bodies, and before the shipments


def open_way(job: Job) -> Phases:
    """Extracts the orders and puts them into the ledger before `load` stores their snapshots; nothing of it is measured."""
    folder = Path(job.folder)
    furnish(folder, job.sellers)
    resources = resources_in(folder, job.api)
    run = Run("feedamp_process_fulfillments", "manual__1", datetime.now(UTC))
    seller_ids = [f"S{number:03d}" for number in range(job.sellers)]
    asyncio.run(extract(resources, run, 0, seller_ids))
    _into_the_ledger(resources, folder)
    load(resources, run)

    def everything(expected: int) -> None:
        plan_process(resources, [])
        done = 0
        for shard in shards(seller_ids, sellers_per_task=resources.settings.sellers_per_task):
            result = asyncio.run(validate(resources, run, shard["shard"], shard["sellers"]))
            done += result.orders
        if done != expected:
            raise RuntimeError(f"{done} orders were validated instead of {expected}")

    return {
        "all new": lambda: everything(job.orders * job.sellers),
        "nothing changed": lambda: everything(0),
    }


def _into_the_ledger(resources: Resources, folder: Path) -> None:
    found = (
        f"SELECT DISTINCT seller_id, mp_order_number FROM read_parquet('{folder}/lake/orders/**/*.parquet')"
    )
    keys = duckdb.execute(found).fetchall()
    placed_at = resources.state.now() - timedelta(days=1)
    for start in range(0, len(keys), AT_ONCE):
        rows = list(_rows(keys[start : start + AT_ONCE], placed_at))
        with resources.state.begin() as connection:
            connection.execute(sa.insert(orders), rows)


def _rows(keys: list[tuple[str, str]], placed_at: datetime) -> Iterator[dict[str, Any]]:
    for seller_id, number in keys:
        lines = [good_line(mp_line_number=f"{number}-{line}", quantity=2) for line in range(LINES)]
        body = example_order(number, order_lines=lines)
        del body["marketplace_state"]
        key = {"seller_id": seller_id, "mp_order_number": number}
        yield _order(0, placed_at) | key | {"body": encode_body(body).decode(), "purchase_date": PURCHASED_AT}


if __name__ == "__main__":
    main(open_way)
