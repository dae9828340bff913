"""Rows that are decoded by column: the same as SQLAlchemy's, for any number of keys."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from wire import opened_state

from crashes.clock import NOON, Clock
from feedamp.state.columns import columns_of
from feedamp.state.schema import UtcTime, findings, orders, snapshots, tracking_uses

KEPT = 600


def filled(column, number):
    """A value of a column that differs between rows, and is None or false in some of them."""
    if column.nullable and number % 3 == 0:
        return None
    if isinstance(column.type, UtcTime):
        return NOON + timedelta(microseconds=number % 7)
    if isinstance(column.type, sa.Boolean):
        return number % 2 == 0
    return number if isinstance(column.type, sa.Integer) else f"{column.name} {number}"


def row(table, seller_id, number):
    values = {column.name: filled(column, number) for column in table.c}
    return {**values, "seller_id": seller_id, "mp_order_number": f"MP-{number}"}


TABLES = [orders, snapshots, findings, tracking_uses]


@pytest.fixture(scope="module")
def filled_state():
    """Rows of two sellers in each table, for tests that only read them."""
    with opened_state(Clock(keeps_still=True)) as state:
        with state.begin() as connection:
            for table in TABLES:
                rows = [row(table, ("S1", "S2")[number % 2], number) for number in range(KEPT)]
                connection.execute(sa.insert(table), rows)
        yield state


@pytest.mark.parametrize("asked", [0, 1, 2, 3, 5, 129, 500])
@pytest.mark.parametrize("sellers", [["S1"], ["S1", "S2"]], ids=["of one seller", "of two sellers"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_rows_by_column_are_those_of_sqlalchemy(filled_state, table, sellers, asked):
    keys = [(sellers[number % len(sellers)], f"MP-{number}") for number in range(asked)]
    with filled_state.read() as connection:
        found = columns_of(connection, table, keys)
        of_keys = [one for one in connection.execute(sa.select(table)) if one[:2] in keys or one[1:3] in keys]
    assert list(found) == table.c.keys()
    rows = zip(*found.values(), strict=True)
    # As text, because True equals 1.
    assert sorted(map(repr, rows)) == sorted(repr(tuple(one)) for one in of_keys)
    assert len(of_keys) == (asked if len(sellers) == 2 else (min(asked, KEPT) + 1) // 2)


def test_rows_are_found_by_another_column(state):
    with state.begin() as connection:
        connection.execute(
            sa.insert(tracking_uses), [row(tracking_uses, "S1", number) for number in range(9)]
        )
        keys = [("S1", f"tracking_hash {number}") for number in (2, 4, 11)]
        found = columns_of(connection, tracking_uses, keys, by=("seller_id", "tracking_hash"))
    assert sorted(found["mp_order_number"]) == ["MP-2", "MP-4"]
