"""Distinctive customers and secrets, and every place of an installation where one of them may have been left."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
from order_samples import good_line, good_order

from feedamp_sandbox import Sandbox

Place = tuple[str, str]  # where, and the text found there

CUSTOMER = {
    "full_name": "Zorvath Quillmere",
    "email": "zq@pellworthy.example",
    "phone": "970-555-0147",
    "vat": "GBVAT77120983",
}
HIDDEN_ADDRESS = {
    "full_name": "Isolde Brackenfeld",
    "address1": "771 Thistlewick Lane",
    "address2": "Annex Cobblethorn",
    "address3": "Dock Fennimore",
    "phone": "970-555-0188",
}
SHOWN_ADDRESS = {
    "city": "Verity Harbour",
    "state": "OR",
    "postal_code": "97214-0777",
    "country_code": "USA",
}
NOTES = "ring for Mrs Ottoline Pruett"
PERSONAL = (  # columns of `orders`
    *(f"customer_{name}" for name in CUSTOMER),
    *(f"shipping_address_{name}" for name in HIDDEN_ADDRESS),
    "delivery_notes",
)
WORDS = (
    *("Zorvath", "Quillmere", "pellworthy", "970-555-0147", "GBVAT77120983"),
    *("Isolde", "Brackenfeld", "Thistlewick", "Cobblethorn", "Fennimore", "970-555-0188"),
    *("Ottoline", "Pruett", "Marrowgate", "Grimsdyke"),
)


def telling_order(number: str, **changes: Any) -> dict[str, Any]:
    """An order with every personal field the API has, and two that have no column and go to `extra`."""
    line = good_line(
        mp_line_number=f"{number}-1",
        unit_price=25.5,
        discounts=[{"name": "Voucher Grimsdyke", "type": "voucher", "amount": 1.5}],
    )
    body = {
        "mp_order_number": number,
        "customer": CUSTOMER,
        "shipping_address": HIDDEN_ADDRESS | SHOWN_ADDRESS,
        "delivery_notes": NOTES,
        "location": {"gate": "Marrowgate"},
        "order_lines": [line],
    }
    return good_order(**body | changes)


def bad_rows(seller_id: str, purchase_date: str) -> list[str]:
    """Lines of an inbox file, each rejected over a customer's value in a field that cannot hold it."""
    changes: list[dict[str, Any]] = [
        {"purchase_date": "Zorvath Quillmere"},
        {"currency": "Isolde Brackenfeld"},
        {"marketplace_state": "771 Thistlewick Lane"},
        {"shipping_address": HIDDEN_ADDRESS | SHOWN_ADDRESS | {"country_code": "Annex Cobblethorn"}},
        {"order_lines": [good_line(quantity="Ottoline", unit_price="Pruett")]},
        {"customer": "Zorvath Quillmere, zq@pellworthy.example"},
        {"gift_note": "from Zorvath Quillmere"},
        {"location": "Marrowgate"},
        {"latest_ship_date": NOTES},
    ]
    rows = [
        {
            "seller_id": seller_id,
            "order": telling_order(f"L-bad-{n}", **{"purchase_date": purchase_date} | change),
        }
        for n, change in enumerate(changes)
    ]
    rows.append({"seller_id": seller_id, "order": "Isolde Brackenfeld"})
    lines = [json.dumps(row, default=float) for row in rows]
    return [*lines, lines[-2][: len(lines[-2]) // 2]]


def headerless_csv() -> str:
    """A file whose first row is a customer instead of the names of columns."""
    cells = [CUSTOMER["full_name"], CUSTOMER["email"], CUSTOMER["full_name"], HIDDEN_ADDRESS["address1"]]
    return "".join(f"seller,L-csv-{n},{','.join(cells)}\n" for n in range(2))


def secrets_of(sandbox: Sandbox) -> set[str]:
    """Both ends of every token that the sandbox ever gave, old and rotated ones too, and of the client secret."""
    issued = sandbox.world.grants
    with sandbox.world.lock:
        whole = {
            sandbox.client_secret,
            *issued._refresh,
            *issued._access,
            *issued._codes,
            *issued._used_codes,
        }
    return {part for secret in whole for part in ends(secret)}


def ends(secret: str) -> set[str]:
    return {secret[:16], secret[-16:]}


def hits(places: Iterable[Place], words: Iterable[str]) -> list[Place]:
    """The places at which each word is found."""
    wanted = [word.lower() for word in words]
    lowered = (
        (where, text.lower()) for where, text in places
    )  # once for all words: a file may be of many megabytes
    return sorted({(where, word) for where, text in lowered for word in wanted if word in text})


def files(folder: Path, pattern: str = "*") -> Iterator[Place]:
    """The content of every file, whatever it is."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            yield str(path), path.read_bytes().decode("utf-8", "replace")


def sqlite_cells(path: Path) -> Iterator[Place]:
    """Every value of every table, by table and column."""
    with closing(sqlite3.connect(path)) as connection:
        yield from _cells(connection, "SELECT name FROM sqlite_master WHERE type = 'table'")


def postgres_cells(url: str) -> Iterator[Place]:
    """The same for the tables of the public schema."""
    with closing(psycopg.connect(url)) as connection:
        yield from _cells(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


def _cells(connection: Any, tables: str) -> Iterator[Place]:
    for (table,) in connection.execute(tables).fetchall():
        cursor = connection.execute(f'SELECT * FROM "{table}"')
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield from ((f"{table}.{name}", shown(value)) for name, value in zip(names, row, strict=True))


def shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def duckdb_cells(path: Path) -> Iterator[Place]:
    """The same of a DuckDB file."""
    with closing(duckdb.connect(str(path), read_only=True)) as warehouse:
        for schema, table in warehouse.execute(
            "SELECT schema_name, table_name FROM duckdb_tables()"
        ).fetchall():
            cursor = warehouse.execute(f"SELECT COLUMNS(*)::VARCHAR FROM {schema}.{table}")
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                yield from ((f"{table}.{name}", str(value)) for name, value in zip(names, row, strict=True))


def parquet_cells(lake: Path) -> Iterator[Place]:
    """The same of every Parquet file, and the manifests."""
    yield from files(lake, "*.json")
    for path in sorted(lake.rglob("*.parquet")):
        table = path.relative_to(lake).parts[0]
        for row in pq.ParquetFile(path).read().to_pylist():
            yield from ((f"{table}.{name}", str(value)) for name, value in row.items())
