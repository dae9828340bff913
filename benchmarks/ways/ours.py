"""`extract` into the lake, and `load` into DuckDB or Postgres, as the tasks of the DAG do it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from clock import Job, Once, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory import furnish, resources_in

from feedamp.run import Run
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.steps.load import load


def open_way(job: Job) -> Once:
    """An env with so many sellers; each call is one run of the DAG, without its `plan` and `gate`."""
    furnish(Path(job.folder), job.sellers)
    seller_ids = [f"S{number:03d}" for number in range(job.sellers)]
    resources = resources_in(Path(job.folder), job.api)
    if job.target == "postgres":
        resources = replace(resources, warehouse=_postgres(job.postgres))

    def once() -> None:
        run = Run("feedamp_extract_fulfillments", "manual__1", datetime.now(UTC))
        result = asyncio.run(extract(resources, run, 0, seller_ids))
        if not result.complete:
            raise RuntimeError(f"not everything was read: {result.undone}")
        if job.target != "lake":
            load(resources, run)

    return once


def _postgres(url: str) -> object:
    from sqlalchemy.engine import make_url

    from feedamp.warehouse.postgres import PostgresAddress, PostgresWarehouse

    at = make_url(url)
    address = PostgresAddress(
        host=at.host, port=at.port, database=at.database, user=at.username, password=at.password
    )
    return PostgresWarehouse(address)


if __name__ == "__main__":
    main(open_way)
