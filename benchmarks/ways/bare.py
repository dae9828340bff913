"""The bare limit: one connection, the fastest decoder, pyarrow's own nested Parquet of the orders as they come.

It checks nothing, keeps no state and judges no order; no client that writes Parquet can do less.
"""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from clock import Job, Once, main

ROWS_PER_GROUP = 5_000


def open_way(job: Job) -> Once:
    """One file for all sellers, in row groups, so that memory is bounded."""

    def once() -> None:
        address = urlsplit(job.api)
        connection = http.client.HTTPConnection(address.netloc)
        decode = msgspec.json.Decoder().decode
        rows: list[dict[str, object]] = []
        writer = None
        for seller in range(job.sellers):
            cursor = "0"
            while cursor is not None:
                path = f"{address.path}/orders?page_size=50&cursor={cursor}"
                connection.request("GET", path, headers=job.headers(seller))
                page = decode(connection.getresponse().read())
                cursor = page["next_cursor"]
                rows += page["orders"]
                if len(rows) >= ROWS_PER_GROUP:
                    writer = _write(job, writer, rows)
        if rows:
            writer = _write(job, writer, rows)
        if writer is not None:
            writer.close()

    return once


def _write(job: Job, writer: pq.ParquetWriter | None, rows: list[dict[str, object]]) -> pq.ParquetWriter:
    table = pa.Table.from_pylist(rows, schema=writer.schema if writer else None)
    rows.clear()
    if writer is None:
        writer = pq.ParquetWriter(Path(job.folder) / "orders.parquet", table.schema, compression="zstd")
    writer.write_table(table)
    return writer


if __name__ == "__main__":
    main(open_way)
