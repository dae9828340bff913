"""A Postgres state of an earlier version is brought to the newest schema."""

from __future__ import annotations

from contextlib import closing

import pytest
import sqlalchemy as sa
from env_fixtures import connect_seller
from old_state import CLOSED_AT, READ_BACK_AT, make_old_state, schema_differences

from feedamp.api.account import check_origin
from feedamp.api.transport import Endpoint
from feedamp.errors import BusyError, ConfigurationError
from feedamp.state import HEAD, State, grants, ledger


def test_orders_of_the_first_schema_are_read_as_before(server):
    url = server.database()
    make_old_state(url)
    with closing(State(url)) as state:
        assert state.current_revision() == HEAD
        assert schema_differences(state) == []
        with state.read() as connection:
            orders = ledger.read_many(connection, "S1", ["open", "closed", "elsewhere", "waiting"])
    assert [orders[n].ended_at for n in ("open", "closed")] == [None, CLOSED_AT]
    assert orders["elsewhere"].ended_at is not None
    times = {number: (order.next_try_at, order.read_back_at) for number, order in orders.items()}
    assert times["open"] == (None, READ_BACK_AT)
    assert times["waiting"] == (READ_BACK_AT, None)
    assert times["closed"] == (None, None)
    assert all(order.has_body for order in orders.values())


def test_numbers_are_found_by_how_they_begin_after_an_upgrade_too(server):
    """In most databases texts are compared by the rules of a language, where no usual index finds a beginning."""
    old, new = server.database(), server.database()
    make_old_state(old)
    engine = sa.create_engine(old)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX orders_by_number ON orders (mp_order_number, purchase_date)")
    engine.dispose()
    for url in (old, new):
        with closing(State(url)) as state, state.read() as connection:
            made = sa.text("SELECT indexdef FROM pg_indexes WHERE indexname = 'orders_by_number'")
            index = connection.execute(made).scalar_one()
        assert "(mp_order_number varchar_pattern_ops, purchase_date)" in index


def test_counts_of_units_become_as_large_as_they_can_get(server):
    url = server.database()
    with closing(State(url)) as state, state.engine.begin() as connection:
        for column in ("closed_units_shipped", "acknowledged_shipped"):
            connection.execute(sa.text(f"ALTER TABLE orders ALTER {column} TYPE INTEGER"))
        connection.execute(sa.text("UPDATE feedamp_alembic_version SET version_num = '0039'"))
    with closing(State(url)) as state:
        assert (state.current_revision(), schema_differences(state)) == (HEAD, [])


def test_an_upgrade_gives_way_to_a_long_reader_and_works_after_it(server):
    """Every later statement would wait behind a waiting ALTER."""
    url = server.database()
    make_old_state(url)
    engine = sa.create_engine(url)
    with engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM orders"))
        with pytest.raises(BusyError, match="in use"):
            State(url)
    engine.dispose()
    with closing(State(url)) as state:
        assert state.current_revision() == HEAD


def test_an_upgrade_leaves_no_short_wait_on_the_connections_of_the_pool(server):
    with closing(State(server.database())) as state:
        connections = [state.engine.connect() for _ in range(3)]
        waits = [connection.execute(sa.text("SHOW lock_timeout")).scalar_one() for connection in connections]
        for connection in connections:
            connection.close()
    assert waits == ["0", "0", "0"]


def test_a_grant_belongs_to_the_server_of_its_first_use_after_the_upgrade(server):
    url = server.database()
    make_old_state(url)
    with closing(State(url)) as state:
        connect_seller(state, "S1")
        check_origin(state, "feedamp", Endpoint("https://a.example/api/v1"))
        with pytest.raises(ConfigurationError, match=r"points to https://b\.example:443"):
            check_origin(state, "feedamp", Endpoint("https://b.example/api/v1"))
        with state.read() as connection:
            assert grants.origins(connection, "feedamp") == {"https://a.example:443": 1}
