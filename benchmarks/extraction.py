"""How long extraction takes, compared with a bare loop that only writes the same pages to Parquet, in one run.

python benchmarks/extraction.py                    20,000 orders in 400 pages, without and with 20 ms a page
python benchmarks/extraction.py --orders N --latency-ms L

Ours does what a task does: request slots, tokens, types and units checked, five tables, proof of completeness. The bare loop
reads page after page over one connection (http.client, json) and writes one flat table; it checks nothing and stores no state
everything. With dlt installed (python -m pip install "dlt[parquet]", 1.x) it is measured too. One seller, so that no
tool gains by reading sellers side by side.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from memory import furnish, resources_in
from pages import serving

from feedamp.run import Run
from feedamp.steps.extract_fulfillments.extract import extract
from feedamp.steps.load import load

Measured = Callable[[str, Path, int], None]


def ours(api: str, folder: Path, orders: int) -> None:
    """`extract` of one seller into the lake."""
    import asyncio

    furnish(folder)
    parts = resources_in(folder, api)
    run = Run("feedamp_extract_fulfillments", "manual__1", datetime.now(UTC))
    result = asyncio.run(extract(parts, run, 0, ["S000"]))
    if (result.orders, result.complete) != (orders, True):
        raise RuntimeError("not everything was read")


def ours_with_load(api: str, folder: Path, orders: int) -> None:
    """The same, and `load` into DuckDB."""
    ours(api, folder, orders)
    parts = resources_in(folder, api)
    load(parts, Run("feedamp_extract_fulfillments", "manual__1", datetime.now(UTC)))


def bare_loop(api: str, folder: Path, orders: int) -> None:
    """A loop that anyone could write in ten minutes."""
    address = urlsplit(api)
    connection = http.client.HTTPConnection(address.netloc)
    rows, cursor = [], ""
    while cursor is not None:
        connection.request("GET", f"{address.path}/orders?page_size=50&cursor={cursor or 0}")
        page = json.loads(connection.getresponse().read())
        cursor = page["next_cursor"]
        for order in page["orders"]:
            kept = ("customer", "shipping_address", "order_lines", "fulfillments", "errors")
            flat = {name: value for name, value in order.items() if name not in kept}
            rows.append({**flat, **{name: json.dumps(order[name]) for name in kept}})
    pq.write_table(pa.Table.from_pylist(rows), folder / "orders.parquet")
    if len(rows) != orders:
        raise RuntimeError("not everything was read")


def dlt_to_parquet(api: str, folder: Path, orders: int) -> None:
    """dlt's REST client and normalizer, to Parquet files."""
    import dlt
    from dlt.sources.helpers.rest_client import RESTClient
    from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator

    paginator = JSONResponseCursorPaginator(cursor_path="next_cursor", cursor_param="cursor")
    client = RESTClient(base_url=api, paginator=paginator)
    pages = client.paginate("/orders", params={"page_size": 50}, data_selector="orders")
    destination = dlt.destinations.filesystem(bucket_url=str(folder / "out"))
    pipeline = dlt.pipeline("feedamp", pipelines_dir=str(folder / "pipelines"), destination=destination)
    pipeline.run(pages, table_name="orders", loader_file_format="parquet")
    counts = pipeline.last_trace.last_normalize_info.row_counts
    if counts["orders"] != orders:
        raise RuntimeError("not everything was read")


def main() -> int:
    """0 when everything was read by all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--latency-ms", type=float, action="append")
    options = parser.parse_args()
    ways: dict[str, Measured] = {
        "bare loop -> Parquet": bare_loop,
        "feedamp extract -> Parquet": ours,
        "feedamp extract, load -> DuckDB": ours_with_load,
    }
    if importlib.util.find_spec("dlt"):
        ways["dlt -> Parquet"] = dlt_to_parquet
    for latency_ms in options.latency_ms or [0, 20]:
        print(f"{options.orders:,} orders, {latency_ms:g} ms a page")
        first_s = None
        with serving(options.orders, latency_s=latency_ms / 1000) as api:
            for name, way in ways.items():
                with TemporaryDirectory(prefix="feedamp-bench-") as folder:
                    began = time.monotonic()
                    way(api, Path(folder), options.orders)
                    seconds = time.monotonic() - began
                first_s = first_s or seconds
                print(
                    f"  {name:<34} {seconds:6.1f} s   {seconds / first_s:5.2f} times the bare loop",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
