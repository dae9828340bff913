"""The bare limit of placing: aiohttp PUTs each line of the same file, 32 at a time; nothing is checked or remembered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from clock import Job, Phases, main

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inbox import write_inbox

AT_ONCE = 32


def open_way(job: Job) -> Phases:
    """One session for all sellers."""
    path = write_inbox(Path(job.folder), job.orders, job.sellers)

    async def put_all() -> None:
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        with path.open("rb") as lines:
            async with aiohttp.ClientSession(connector=connector) as session:
                rows = map(msgspec.json.decode, lines)
                await asyncio.gather(*(_put_some(session, job, rows) for _ in range(AT_ONCE)))

    return {"place": lambda: asyncio.run(put_all())}


async def _put_some(session: aiohttp.ClientSession, job: Job, rows: Iterator[Any]) -> None:
    for row in rows:
        order = row["order"]
        headers = {"Content-Type": "application/json", **job.headers(int(row["seller_id"][1:]))}
        address = f"{job.api}/orders/{order['mp_order_number']}"
        async with session.put(address, data=msgspec.json.encode(order), headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()


if __name__ == "__main__":
    main(open_way)
