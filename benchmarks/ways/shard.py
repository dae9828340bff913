"""`extract` of some sellers in an env that exists, beside other processes that do the same for others."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from clock import GO, Job, Once, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory import furnish, resources_in

from feedamp.run import Run
from feedamp.steps.extract_fulfillments.extract import extract

WARM = "warm-"


def open_way(job: Job) -> Once:
    """Waits for the other processes before it returns; not with the first page, for which it makes an env of its own."""
    folder = Path(job.folder)
    is_warm = folder.name.startswith(WARM)
    first = 0 if is_warm else job.first_seller
    if is_warm:
        furnish(folder, job.sellers)
    resources = resources_in(
        folder,
        job.api,
        state_url="" if is_warm else job.postgres,
        requests_per_second=job.requests_per_second,
        page_size=job.page_size,
    )
    seller_ids = [f"S{number:03d}" for number in range(first, first + job.sellers)]

    def once() -> dict[str, int]:
        run = Run("feedamp_extract_fulfillments", "manual__1", datetime.now(UTC))
        result = asyncio.run(extract(resources, run, job.first_seller, seller_ids))
        if not result.complete or result.orders != job.orders * job.sellers:
            raise RuntimeError(f"{result.orders} orders were read: {result.undone}")
        return {"orders": result.orders}

    if not is_warm:
        (folder / f"ready-{job.first_seller}").touch()
        while not (folder / GO).exists():
            time.sleep(0.01)
    return once


if __name__ == "__main__":
    main(open_way)
