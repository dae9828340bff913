"""HttpOperator with pagination, its answers flattened with pandas, one Parquet file a table.

The operator runs without a scheduler, so that Airflow's cost of a task is in none of the figures.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from clock import Job, Once, main


def open_way(job: Job) -> Once:
    """One operator a seller, one after another."""
    os.environ["AIRFLOW_HOME"] = job.folder
    os.environ["AIRFLOW_CONN_PAGES"] = json.dumps({"conn_type": "http", "host": job.api})
    import pandas as pd
    from airflow.providers.http.operators.http import HttpOperator

    def next_page(response: Any) -> dict[str, Any] | None:
        cursor = response.json()["next_cursor"]
        return {"data": {"page_size": 50, "cursor": cursor}} if cursor else None

    def once() -> None:
        orders: list[dict[str, Any]] = []
        for seller in range(job.sellers):
            operator = HttpOperator(
                task_id=f"read_{seller}",
                http_conn_id="pages",
                endpoint="orders",
                method="GET",
                data={"page_size": 50},
                headers=job.headers(seller),
                pagination_function=next_page,
                response_filter=lambda pages: [order for page in pages for order in page.json()["orders"]],
            )
            orders += operator.execute({})
        key = ["mp_order_number"]
        tables = {
            "orders": pd.json_normalize(orders).drop(columns=["order_lines", "fulfillments"]),
            "order_lines": pd.json_normalize(orders, "order_lines", key),
            "shipments": pd.json_normalize(orders, ["fulfillments", "shipments"], key),
        }
        for name, frame in tables.items():
            frame.to_parquet(Path(job.folder) / f"{name}.parquet", compression="zstd")

    return once


if __name__ == "__main__":
    main(open_way)
