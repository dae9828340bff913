"""The lake alone gives the rows that the warehouse has after a rebuild."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from itertools import count

import pytest
from exploring import examples
from histories import Event, histories
from hypothesis import given
from hypothesis import strategies as st
from manifests import Loader
from memory_warehouse import folder_in_memory

from feedamp.lake.store import Lake
from feedamp.tables import TABLES
from feedamp.warehouse.newest_rows import newest_rows

LAKES = count()


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    with folder_in_memory() as folder, closing(Loader(folder)) as opened:
        yield opened


def start(loader: Loader) -> None:
    """Empties the warehouse and gives it another lake."""
    loader.empty()
    loader.lake = Lake(f"{loader.lake.root}-{next(LAKES)}")


def told(rows: list[tuple[object, ...]]) -> list[list[str]]:
    return sorted([v.isoformat() if isinstance(v, datetime) else repr(v) for v in row] for row in rows)


def read(loader: Loader, table: str, *columns: str, where: str = "true") -> list[tuple[object, ...]]:
    names = columns or TABLES[table].names
    sql = f"SELECT {', '.join(names)} FROM newest WHERE {where}"
    found = newest_rows(loader.lake, TABLES[table], names, sql, memory_limit="100MB")
    return [tuple(row[name] for name in names) for row in found.to_pylist()]


def assert_equal(loader: Loader) -> None:
    for name, table in TABLES.items():
        stored = loader.query(f"SELECT {', '.join(table.names)} FROM {name}")
        assert told(read(loader, name)) == told(stored), name


@examples(2)
@given(data=st.data(), events=histories())
def test_the_lake_gives_the_rows_of_the_warehouse(
    loader: Loader, data: st.DataObject, events: list[Event]
) -> None:
    start(loader)
    for event in data.draw(st.permutations(events)):
        loader.load(event.rows)
    assert_equal(loader)
