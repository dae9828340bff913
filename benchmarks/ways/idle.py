"""`plan` and `extract` of sellers that have open orders and nothing new, in one process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from clock import Job, Phases, main

# An earlier commit is measured with its own env and rows.
sys.path.insert(0, f"{os.environ['FEEDAMP_BENCH_CODE']}/tests/support")
sys.path.insert(0, f"{os.environ['FEEDAMP_BENCH_CODE']}/benchmarks")

import ledger
import sqlalchemy as sa
from cryptography.fernet import Fernet
from memory import resources_in
from sqlalchemy.engine import Connection, Engine

from feedamp.run import Run
from feedamp.state.schema import orders, snapshots
from feedamp.steps.extract_fulfillments.extract import extract, plan_sellers


def open_way(job: Job) -> Phases:
    """Two runs: in the first one every seller needs a token."""
    folder = Path(job.folder)
    (folder / "key").write_text(Fernet.generate_key().decode())
    resources = resources_in(folder, job.api)
    ledger.SELLERS, ledger.OPEN_ONE_OF = job.sellers, 1
    ledger.fill(resources, 0)
    for start in range(0, job.orders * job.sellers, ledger.AT_ONCE):
        numbers = range(start, min(start + ledger.AT_ONCE, job.orders * job.sellers))
        now = resources.state.now()
        with resources.state.begin() as connection:
            for table, row in ((orders, ledger._order), (snapshots, ledger._snapshot)):  # noqa: SLF001
                connection.execute(sa.insert(table), [row(number, now) for number in numbers])
    commits: Counter[str] = Counter()

    @sa.event.listens_for(Engine, "commit")
    def count(_connection: Connection) -> None:
        commits["all"] += 1

    def once() -> dict[str, float]:
        run = Run("feedamp_extract_fulfillments", "manual__1", datetime.now(UTC))
        before, done = commits["all"], 0
        for shard in plan_sellers(resources, []):
            result = asyncio.run(extract(resources, run, shard["shard"], shard["sellers"]))
            if not result.complete:
                raise RuntimeError(f"not everything was read: {result.undone}")
            done += len(shard["sellers"])
        if done != job.sellers:
            raise RuntimeError(f"{done} sellers were planned")
        return {"transactions": (commits["all"] - before) / job.sellers}

    return {"first": once, "nothing new": once}


if __name__ == "__main__":
    main(open_way)
