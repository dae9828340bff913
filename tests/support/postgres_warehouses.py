"""Warehouses on the test server, and what can be seen in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from feedamp.tables import TABLES
from feedamp.warehouse.postgres import PostgresAddress


def address_of(url: str, **changes: Any) -> PostgresAddress:
    """The address of a database of the test server."""
    found = make_url(url)
    given = {
        "host": found.host,
        "port": found.port,
        "database": found.database,
        "user": found.username,
        "password": found.password,
    }
    return PostgresAddress(**given | changes)


@contextmanager
def looking(address: PostgresAddress) -> Iterator[psycopg.Connection[Any]]:
    """A reader of the warehouse, each statement by itself."""
    with psycopg.connect(address.conninfo, autocommit=True) as connection:
        connection.execute("SET search_path = feedamp; SET TimeZone = 'UTC'")
        yield connection


def rows_of_tables(address: PostgresAddress) -> dict[str, list[str]]:
    """Every row of every table, sorted."""
    with looking(address) as reader:
        return {
            name: sorted(map(repr, reader.execute(f"SELECT {', '.join(table.names)} FROM {name}").fetchall()))
            for name, table in TABLES.items()
        }
