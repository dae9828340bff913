"""Places the orders of an inbox file as the tasks of the DAG do it, and takes the same rows again from another file."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from clock import Job, Phases, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inbox import JSONL, write_inbox
from memory import furnish, resources_in

from feedamp.run import Run
from feedamp.steps.load import load
from feedamp.steps.place_orders.place import place, plan_place
from feedamp.steps.place_orders.read_inbox import intake

SETTLED_S = 3_600


def open_way(job: Job) -> Phases:
    """An env with the file in its inbox; the state is SQLite, or Postgres if the job has one."""
    folder = Path(job.folder)
    furnish(folder, job.sellers, state_url=job.postgres)
    resources = resources_in(folder, job.api, state_url=job.postgres)
    run = Run("feedamp_place_orders", "manual__1", datetime.now(UTC))
    inbox = folder / "inbox"
    inbox.mkdir(exist_ok=True)
    first = write_inbox(folder, job.orders, job.sellers)
    deliver = [shutil.move(first, inbox / JSONL)]
    os.utime(deliver[0], (time.time() - SETTLED_S,) * 2)

    def take() -> None:
        result = intake(resources, run)
        if (result.orders, result.rejected) != (job.orders * job.sellers, 0):
            raise RuntimeError(f"{result.orders} rows were read and {result.rejected} rejected")

    def send() -> None:
        for shard in plan_place(resources, run, []):
            result = asyncio.run(place(resources, run, shard["shard"], shard["sellers"]))
            if result.undone:
                raise RuntimeError(f"not every order was placed: {result.undone}")

    def again() -> None:
        second = shutil.copy(inbox / JSONL, inbox / "again.jsonl")
        os.utime(second, (time.time() - SETTLED_S,) * 2)
        for step in (take, send, bring):
            step()

    def bring() -> None:
        load(resources, run)

    return {"intake": take, "place": send, "load": bring, "the same again": again}


if __name__ == "__main__":
    main(open_way)
