"""Ours and peers read the same pages in turn; what each wrote is counted before its figures are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from environments import OURS, Round, postgres_server, run
from pages import CHANGED, LINES, PAGE, page_server
from ways.clock import Job

ONCE = {"first": 1}
MERGES = {"first": 1, "all changed": CHANGED, "nothing changed": CHANGED}
SHIPPED_ON = {1: "2026-03-04", CHANGED: "2026-03-05"}


@dataclass(frozen=True)
class Way:
    """One way of doing the work: its program in `ways/`, its environment, and where its rows are, by target.

    `written` has three sources of SQL: one row an order with its number, one a line, one a shipment with `shipped_date`.
    """

    name: str
    program: str
    environment: str
    written: dict[str, tuple[str, str, str]]


NESTED = (
    "read_parquet('{folder}/orders.parquet')",
    "(SELECT unnest(order_lines) FROM read_parquet('{folder}/orders.parquet'))",
    "(SELECT unnest(f.shipments, recursive := true) FROM read_parquet('{folder}/orders.parquet'), unnest(fulfillments) AS t(f))",
)
BARE = Way("bare limit", "bare", OURS, {"lake": NESTED})
FEEDAMP = Way(
    "feedamp",
    "ours",
    OURS,
    {
        "lake": (
            "read_parquet('{folder}/lake/orders/**/*.parquet')",
            "read_parquet('{folder}/lake/order_lines/**/*.parquet')",
            "read_parquet('{folder}/lake/shipments/**/*.parquet')",
        ),
        "duckdb": (
            "warehouse.feedamp.orders",
            "warehouse.feedamp.order_lines",
            "warehouse.feedamp.shipments",
        ),
        "postgres": ("feedamp.orders", "feedamp.order_lines", "feedamp.shipments"),
    },
)
_TABLES = ("orders", "orders__order_lines", "orders__fulfillments__shipments")
DLT = Way(
    "dlt",
    "with_dlt",
    "dlt",
    {
        "lake": tuple(f"read_parquet('{{folder}}/lake/shop/{name}/*.parquet')" for name in _TABLES),
        "duckdb": tuple(f"warehouse.shop.{name}" for name in _TABLES),
        "postgres": tuple(f"shop.{name}" for name in _TABLES),
    },  # type: ignore[arg-type,unused-ignore]
)
HTTP_OPERATOR = Way(
    "HttpOperator + pandas",
    "http_operator",
    OURS,
    {
        "lake": (
            "read_parquet('{folder}/orders.parquet')",
            "read_parquet('{folder}/order_lines.parquet')",
            "read_parquet('{folder}/shipments.parquet')",
        )
    },
)
SINGER = Way(
    "singer-sdk tap + target-jsonl",
    "singer_tap",
    "tap",
    {"lake": tuple(one.replace("read_parquet", "read_json").replace(".parquet", ".jsonl") for one in NESTED)},  # type: ignore[arg-type,unused-ignore]
)
AIRBYTE = Way("Airbyte CDK + pyarrow", "airbyte_source", "airbyte", {"lake": NESTED})
READERS = (BARE, FEEDAMP, HTTP_OPERATOR, DLT, SINGER, AIRBYTE)


@dataclass(frozen=True)
class Reading:
    """How the pages are read: by which ways, from how many sellers, to which target, in which phases."""

    ways: tuple[Way, ...] = READERS
    target: str = "lake"
    versions: dict[str, int] = field(default_factory=lambda: ONCE)
    latency_ms: float = 0.0
    shape: str = "plain"
    sellers: int = 1


def read_in_turn(
    reading: Reading, orders: int, rounds: int, *, without_peers: bool = False
) -> Iterator[Round]:
    """The figures of each round; `orders` are those of all sellers. Each round begins with the next way.

    Raises:
        RuntimeError: a way failed, or wrote other orders, lines or shipments than the server has.
    """
    ways = [way for way in reading.ways if way in (BARE, FEEDAMP) or not without_peers]
    with page_server() as server, postgres_server(reading.target == "postgres") as databases:
        for number in range(rounds):
            found: Round = {}
            for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                each = orders // reading.sellers
                play = server.play(
                    each, latency_ms=reading.latency_ms, shape=reading.shape, sellers=reading.sellers
                )
                with TemporaryDirectory(prefix="feedamp-bench-") as folder:
                    warm = server.play(PAGE, shape=reading.shape)
                    job = Job(
                        url=play.url,
                        warm_url=warm.url,
                        folder=folder,
                        orders=each,
                        sellers=reading.sellers,
                        target=reading.target,
                        versions=reading.versions,
                        postgres=databases.database() if databases else "",
                        warm_postgres=databases.database() if databases else "",
                    )
                    found[way.name] = run(way.program, way.environment, job)
                    check(way, job)
            yield found


def check(way: Way, job: Job) -> None:
    """Counts orders, lines and shipments of the last version in what a way wrote.

    Raises:
        RuntimeError: they are not what the server has.
    """
    orders = job.orders * job.sellers
    shipped_on = SHIPPED_ON[list(job.versions.values())[-1]]
    of_orders, of_lines, of_shipments = (one.format(folder=job.folder) for one in way.written[job.target])
    counts = (
        f"SELECT count(DISTINCT mp_order_number) FROM {of_orders} AS found",
        f"SELECT count(*) FROM {of_lines} AS found",
        f"SELECT count(*) FROM {of_shipments} AS found WHERE CAST(shipped_date AS VARCHAR) = '{shipped_on}'",
    )
    with _looking(job) as look:
        found = [look(one) for one in counts]
    if found != [orders, orders * LINES, orders * LINES]:
        raise RuntimeError(f"{way.name} wrote {found} orders, lines and shipments of {orders} orders")


@contextmanager
def _looking(job: Job) -> Iterator[Any]:
    if job.target == "postgres":
        import psycopg

        url = job.postgres.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(url) as server:
            yield lambda sql: server.execute(sql).fetchone()[0]
        return
    import duckdb

    with duckdb.connect() as reader:
        if job.target == "duckdb":
            reader.execute(f"ATTACH '{Path(job.folder) / 'warehouse.duckdb'}' AS warehouse (READ_ONLY)")
        yield lambda sql: reader.execute(sql).fetchone()[0]
