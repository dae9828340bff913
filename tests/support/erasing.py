"""An order full of words that are nowhere else, and every place of lake and warehouse where one of them may have been left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
from env import BAD_NUMBER, OTHER, SELLER, Env, shipment
from leaks import WORDS, Place, hits, telling_order

from feedamp.steps import depart
from feedamp.tables import TABLES

NUMBER = "Wyverncroft-1"
LEFT = (*WORDS, NUMBER)
BESIDE = ("M-2", "M-3")


def telling(env: Env, **changes: Any) -> dict[str, Any]:
    """The order: every customer field has a word of its own."""
    order = telling_order(NUMBER, purchase_date=env.body(NUMBER)["purchase_date"], **changes)
    del order["location"]  # allowed only where an option names it
    return order


def live(env: Env) -> None:
    """The order and others pass through all steps: placed, shipped with a fault, corrected, closed, and loaded each time."""
    env.drop("a.jsonl", telling(env), *(env.body(number) for number in BESIDE))
    env.drop("b.jsonl", env.body("M-2"), seller=OTHER)
    env.drop("bad.jsonl", telling(env, currency="dollars"))
    env.loop()
    for number in (NUMBER, *BESIDE):
        env.fulfill(number, shipment(2, BAD_NUMBER))
    env.loop()
    env.fulfill(NUMBER, shipment(3), cancelled=1)
    env.fulfill("M-3", shipment(1), cancelled=1)
    env.sandbox.clear_errors(SELLER, NUMBER)
    env.reconcile()
    for _ in range(2):
        env.clock.skip(hours=1)
        env.loop()


def erase(env: Env, number: str | None = NUMBER) -> dict[str, dict[str, int]]:
    """What its command does; returns what went, by store."""
    done = depart.erase(env.resources, SELLER, number, asked_by="t")
    assert done.unfinished == {}
    return done.counts


def rows(env: Env) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of the warehouse but those of the order."""
    found = {}
    for name, table in TABLES.items():
        of_it = f"WHERE NOT (seller_id = '{SELLER}' AND mp_order_number = '{NUMBER}')"
        where = of_it if "mp_order_number" in table.names else ""
        found[name] = sorted(env.rows(f"SELECT {', '.join(table.names)} FROM {name} {where}"), key=repr)
    return found


def in_lake(root: Path) -> Iterator[Place]:
    """Every byte of every file, packed pages unpacked."""
    yield from in_objects(
        (str(path), path.read_bytes()) for path in sorted(root.rglob("*")) if path.is_file()
    )


def in_objects(objects: Iterable[tuple[str, bytes]]) -> Iterator[Place]:
    """The same of objects by their names."""
    for name, content in objects:
        yield name, content.decode("utf-8", "replace")
        if name.endswith(".parquet"):
            yield name, repr(pq.read_table(BytesIO(content), use_threads=False).to_pylist())


def in_postgres(url: str) -> Iterator[Place]:
    """Every value of every table of both schemas, and of the statistics on them."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname LIKE 'feedamp%'"
        ).fetchall()
        for schema, table in tables:
            for (row,) in connection.execute(f"SELECT t::text FROM {schema}.{table} t"):
                yield f"{schema}.{table}", row
        for (row,) in connection.execute("SELECT s::text FROM pg_stats s WHERE schemaname LIKE 'feedamp%'"):
            yield "pg_stats", row


def found(places: Iterator[Place], words: tuple[str, ...] = LEFT) -> list[Place]:
    return hits(places, words)
