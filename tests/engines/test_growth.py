"""Warehouses and lakes of the first version under later declarations. The lake is tests/data/lake-v1."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedamp.column_types import Type
from feedamp.errors import ConfigurationError
from feedamp.lake.store import Lake
from feedamp.tables import ORDERS, SCHEMA, TABLES, Column, Table
from feedamp.warehouse import Warehouse

OLD_LAKE = Path(__file__).parents[1] / "data" / "lake-v1"
NEW = Column("loyalty_level", Type.INTEGER, "Something no file knows yet.")
LATER = {**TABLES, ORDERS.name: replace(ORDERS, columns=(*ORDERS.columns, NEW))}
OpenWarehouse = Callable[[Mapping[str, Table]], Warehouse]
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def lake() -> Lake:
    return Lake(str(OLD_LAKE))


def rows(warehouse: Any, tables: Mapping[str, Table]) -> Rows:
    with warehouse.session() as session:
        return {
            name: sorted(
                session._engine.rows(f"SELECT {', '.join(table.names)} FROM {SCHEMA}.{name}"),
                key=lambda row: [str(value) for value in row.values()],
            )
            for name, table in tables.items()
        }


def change(warehouse: Any, *statements: str) -> None:
    with warehouse.session() as session, session._engine.transaction():
        for statement in statements:
            session._engine.execute(statement)


def load(warehouse: Warehouse, lake: Lake) -> list[bool]:
    with warehouse.session() as session:
        return [session.load(lake, manifest) for manifest in lake.manifests()]


def test_a_lake_of_the_first_version_is_whole_under_the_tables_of_today(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    warehouse = open_warehouse(TABLES)
    assert load(warehouse, lake) == [True] * 3
    found = rows(warehouse, TABLES)
    [order], [line] = found["orders"], found["order_lines"]
    assert (order["units_shipped"], order["units_cancelled"], order["closed_at"].hour) == (2, 1, 15)
    assert (line["quantity"], line["unit_price"]) == (3, Decimal("25.5000"))
    assert [row["state"] for row in found["findings"]] == ["resolved"]
    assert not any(map(found.get, ("rejected_orders", "reconciliations", "runs")))


def test_a_warehouse_of_the_first_version_grows_into_what_a_rebuild_makes(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    load(open_warehouse(TABLES), lake)
    later = open_warehouse(LATER)
    grown = rows(later, LATER)
    assert grown["orders"][0]["loyalty_level"] is None
    assert load(later, lake) == [False] * 3
    assert later.rebuild(lake) == 3
    assert rows(later, LATER) == grown


def test_an_old_file_that_comes_late_goes_into_a_grown_warehouse(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    manifests = list(lake.manifests())
    with open_warehouse(TABLES).session() as session:
        session.load(lake, manifests[0])
    with open_warehouse(LATER).session() as session:
        assert [session.load(lake, manifest) for manifest in manifests] == [False, True, True]
        [order] = session.rows("orders", ["units_shipped", "loyalty_level"], [("S1", "M-1")])
    assert order == {"units_shipped": 2, "loyalty_level": None}


def test_an_older_version_leaves_a_grown_warehouse_as_it_is(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    later = open_warehouse(LATER)
    load(later, lake)
    change(later, f"UPDATE {SCHEMA}.orders SET loyalty_level = 3")
    assert load(open_warehouse(TABLES), lake) == [False] * 3
    assert rows(later, LATER)["orders"][0]["loyalty_level"] == 3


def test_a_column_of_another_type_is_named(open_warehouse: OpenWarehouse) -> None:
    warehouse = open_warehouse(TABLES)
    change(
        warehouse,
        f"ALTER TABLE {SCHEMA}.runs DROP COLUMN pages",
        f"ALTER TABLE {SCHEMA}.runs ADD COLUMN pages INTEGER",
    )
    with (
        pytest.raises(
            ConfigurationError, match=f"Column {SCHEMA}.runs.pages is INTEGER and should be BIGINT"
        ),
        warehouse.session(),
    ):
        pass


def test_a_lake_of_a_newer_writer_is_refused(
    open_warehouse: OpenWarehouse, lake: Lake, tmp_path: Path
) -> None:
    newer = Lake(str(shutil.copytree(OLD_LAKE, tmp_path / "lake")))
    manifest = list(newer.manifests())[1]
    newer.publish(msgspec.structs.replace(manifest, writer_version=manifest.writer_version + 1))
    warehouse = open_warehouse(TABLES)
    load(warehouse, lake)
    before = rows(warehouse, TABLES)
    with pytest.raises(ConfigurationError, match="newer version"):
        warehouse.rebuild(newer)
    assert rows(warehouse, TABLES) == before
