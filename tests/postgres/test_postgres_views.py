"""Views that block a change of their tables, as only Postgres has them."""

from __future__ import annotations

import logging

import pytest
from postgres import Server
from postgres_warehouses import address_of, looking

from feedamp.warehouse.postgres import PostgresAddress, PostgresWarehouse


@pytest.fixture
def address(server: Server) -> PostgresAddress:
    return address_of(server.database())


def opened(address: PostgresAddress) -> None:
    with PostgresWarehouse(address).session():
        pass


def an_older_definition(owner, columns: str) -> None:
    owner.execute(
        f"DROP VIEW late_orders; CREATE VIEW late_orders AS SELECT {columns} FROM orders;"
        "UPDATE feedamp_meta.view_definitions SET definition = 'older' WHERE name = 'late_orders'"
    )


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param("seller_id, mp_order_number", id="it had fewer columns"),
        pytest.param("mp_order_number, seller_id", id="in another order"),
        pytest.param("seller_id, units_ordered AS mp_order_number", id="of another type"),
    ],
)
def test_a_view_that_an_older_version_defined_is_brought_up_to_date(
    address: PostgresAddress, columns: str
) -> None:
    opened(address)
    with looking(address) as owner:
        an_older_definition(owner, columns)
        opened(address)
        assert "hours_late" in [c.name for c in owner.execute("SELECT * FROM late_orders").description or ()]


def test_a_view_that_others_need_stays_until_they_let_go(
    address: PostgresAddress, caplog: pytest.LogCaptureFixture
) -> None:
    opened(address)
    with looking(address) as owner, caplog.at_level(logging.WARNING):
        an_older_definition(owner, "mp_order_number, seller_id")
        owner.execute("CREATE VIEW public.mine AS SELECT * FROM late_orders")
        opened(address)
        assert "public.mine" in caplog.text
        owner.execute("DROP VIEW public.mine")
        opened(address)
        assert owner.execute("SELECT hours_late FROM late_orders").fetchall() == []
