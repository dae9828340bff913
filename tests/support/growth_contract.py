"""Warehouses and lakes of the first version under later declarations, over every engine.

A test module of an engine imports these tests and brings the fixture `open_warehouse`: gives the test's one
warehouse, with the tables asked for. The lake is tests/data/lake-v1.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedamp.errors import ConfigurationError
from feedamp.lake.store import Lake
from feedamp.tables import ORDER_LINES, ORDERS, SCHEMA, TABLES, Column, Table, Type
from feedamp.warehouse import Warehouse

OLD_LAKE = Path(__file__).parents[1] / "data" / "lake-v1"
PROMOTED = (
    Column("gift_note", Type.TEXT, "Words on the card.", from_extra="gift_note"),
    Column("insured_value", Type.MONEY, "Insured for.", from_extra="insured_value"),
    Column("pickup_after", Type.TIMESTAMP, "Not before.", from_extra="pickup_after"),
    Column("gift", Type.JSON, "The wrapping.", from_extra="gift"),
)
NEW = Column("loyalty_level", Type.INTEGER, "Something no file knows yet.")
ORDERS_LATER = replace(ORDERS, columns=(*ORDERS.columns, *PROMOTED, NEW))
LINES_LATER = replace(
    ORDER_LINES,
    columns=tuple(
        replace(column, type=Type.MONEY) if column.name == "quantity" else column
        for column in ORDER_LINES.columns
    ),
)
LATER = {**TABLES, ORDERS.name: ORDERS_LATER, ORDER_LINES.name: LINES_LATER}
AS_TOLD = {
    "gift_note": "for Ada",
    "insured_value": Decimal("19.5000"),
    "pickup_after": datetime(2026, 3, 11, 8, tzinfo=UTC),
    "gift": '{"paper":"red"}',
    "loyalty_level": None,
}
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


def test_a_lake_of_the_first_version_is_rebuilt_under_later_tables(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    warehouse = open_warehouse(LATER)
    assert warehouse.rebuild(lake) == 3
    found = rows(warehouse, LATER)
    [order], [line] = found["orders"], found["order_lines"]
    assert {name: order[name] for name in AS_TOLD} == AS_TOLD
    assert msgspec.json.decode(order["extra"])["gift_note"] == "for Ada"  # stays where it was
    assert (line["quantity"], type(line["quantity"])) == (Decimal(3), Decimal)


def test_a_warehouse_of_the_first_version_grows_into_what_a_rebuild_makes(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    load(open_warehouse(TABLES), lake)
    later = open_warehouse(LATER)
    grown = rows(later, LATER)
    assert {name: grown["orders"][0][name] for name in AS_TOLD} == AS_TOLD
    assert grown["order_lines"][0]["quantity"] == Decimal(3)
    assert load(later, lake) == [False] * 3
    later.rebuild(lake)
    assert rows(later, LATER) == grown


def test_more_rows_than_are_filled_at_once_get_their_promoted_values(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    before = open_warehouse(TABLES)
    load(before, lake)
    names = ", ".join(name for name in ORDERS.names if name != "mp_order_number")
    change(
        before,
        f"""INSERT INTO {SCHEMA}.orders (mp_order_number, {names})
        SELECT concat('N-', n), {names} FROM {SCHEMA}.orders o CROSS JOIN generate_series(1, 10001) AS g(n)""",
    )
    with open_warehouse(LATER).session() as session:
        [row] = session._engine.rows(
            f"SELECT count(*) AS rows, count(gift_note) AS filled FROM {SCHEMA}.orders WHERE gift_note = 'for Ada'"
        )
    assert row == {"rows": 10_002, "filled": 10_002}


def test_an_old_file_that_comes_late_goes_into_a_grown_warehouse(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    manifests = list(lake.manifests())
    with open_warehouse(TABLES).session() as session:
        session.load(lake, manifests[0])
    with open_warehouse(LATER).session() as session:
        assert [session.load(lake, manifest) for manifest in manifests] == [False, True, True]
        [order] = session.rows("orders", list(AS_TOLD), [("S1", "M-1")])
    assert order == AS_TOLD


def test_an_older_version_leaves_a_grown_warehouse_as_wide_as_it_is(
    open_warehouse: OpenWarehouse, lake: Lake
) -> None:
    later = open_warehouse(LATER)
    load(later, lake)
    change(later, f"UPDATE {SCHEMA}.order_lines SET quantity = 2.5")
    older = open_warehouse(TABLES)
    assert load(older, lake) == [False] * 3
    found = rows(later, LATER)
    assert found["order_lines"][0]["quantity"] == Decimal("2.5")
    assert found["orders"][0]["gift_note"] == "for Ada"


@pytest.mark.parametrize(
    ("table", "column", "narrow", "value"),
    [
        pytest.param("orders", "units_ordered", "INTEGER", 2**40, id="an integer of 32 bits"),
        pytest.param(
            "order_lines", "unit_price", "DECIMAL(10,2)", Decimal("12345678901.2345"), id="a short decimal"
        ),
    ],
)
def test_a_narrower_column_is_widened_and_keeps_its_values(
    open_warehouse: OpenWarehouse, lake: Lake, table: str, column: str, narrow: str, value: Any
) -> None:
    warehouse = open_warehouse(TABLES)
    load(warehouse, lake)
    change(
        warehouse,
        *(f"DROP VIEW {SCHEMA}.{name}" for name in ("late_orders", "time_to_ship", "seller_scorecards")),
        f"ALTER TABLE {SCHEMA}.{table} ALTER COLUMN {column} TYPE {narrow}",
    )
    [before] = rows_as_they_are(warehouse, table, column)
    change(warehouse, f"UPDATE {SCHEMA}.{table} SET {column} = {column} + {value}")
    assert rows(warehouse, TABLES)[table][0][column] == before + value
    assert rows_as_they_are(warehouse, "late_orders", "units_ordered") == []  # the views are there again


def rows_as_they_are(warehouse: Any, relation: str, column: str) -> list[Any]:
    with warehouse.session() as session:
        return [row[column] for row in session._engine.rows(f"SELECT {column} FROM {SCHEMA}.{relation}")]


def test_a_column_of_a_type_that_cannot_grow_is_named(open_warehouse: OpenWarehouse) -> None:
    warehouse = open_warehouse(TABLES)
    change(
        warehouse,
        f"ALTER TABLE {SCHEMA}.runs DROP COLUMN pages",
        f"ALTER TABLE {SCHEMA}.runs ADD COLUMN pages DATE",
    )
    with pytest.raises(ConfigurationError, match=f"Column {SCHEMA}.runs.pages"), warehouse.session():
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
