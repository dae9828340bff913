"""dlt: its REST client and normalizer, to Parquet files, or merged into DuckDB or Postgres."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from clock import Job, Once, main

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"


def open_way(job: Job) -> Once:
    """One pipeline; a run of it reads one seller after another. Merges have the order's number as key."""
    os.environ["DLT_DATA_DIR"] = f"{job.folder}/dlt"
    import dlt
    from dlt.sources.helpers.rest_client import RESTClient
    from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator

    folder = Path(job.folder)
    destination: Any
    if job.target == "duckdb":
        destination = dlt.destinations.duckdb(str(folder / "warehouse.duckdb"))
    elif job.target == "postgres":
        destination = dlt.destinations.postgres(job.postgres.replace("postgresql+psycopg", "postgresql"))
    else:
        destination = dlt.destinations.filesystem(bucket_url=(folder / "lake").as_uri())
    merge = job.target != "lake"
    pipeline = dlt.pipeline(
        "feedamp", pipelines_dir=f"{job.folder}/pipelines", destination=destination, dataset_name="shop"
    )

    @dlt.resource(
        name="orders",
        write_disposition="merge" if merge else "append",
        primary_key="mp_order_number" if merge else None,
    )
    def orders() -> Any:
        for seller in range(job.sellers):
            paginator = JSONResponseCursorPaginator(cursor_path="next_cursor", cursor_param="cursor")
            client = RESTClient(base_url=job.api, paginator=paginator, headers=job.headers(seller))
            yield from client.paginate("/orders", params={"page_size": 50}, data_selector="orders")

    def once() -> None:
        # By COPY; dlt's default for Postgres are INSERT statements.
        chosen = {"loader_file_format": "csv" if job.target == "postgres" else "parquet"}
        pipeline.run(orders(), **chosen).raise_on_failed_jobs()

    return once


if __name__ == "__main__":
    main(open_way)
