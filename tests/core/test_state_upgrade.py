"""A state database of an earlier version is upgraded to the newest schema with all its rows."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from old_state import CLOSED_AT, LEASED_UNTIL, READ_BACK_AT, make_old_state, schema_differences

from feedamp.state import HEAD, State, ledger, order_events


def test_orders_of_the_first_schema_are_read_as_before(tmp_path):
    url = f"sqlite:///{tmp_path}/state.db"
    make_old_state(url)
    with closing(State(url)) as state:
        assert state.current_revision() == HEAD
        assert schema_differences(state) == []
        with state.read() as connection:
            orders = ledger.read_many(connection, "S1", ["open", "closed", "elsewhere", "waiting"])
            events_since = order_events.recorded_since(connection)
    assert all(order.has_body and order.adopted_at is None for order in orders.values())
    assert (orders["open"].ended_at, orders["closed"].ended_at) == (None, CLOSED_AT)
    assert (orders["open"].next_try_at, orders["open"].read_back_at) == (None, READ_BACK_AT)
    assert (orders["waiting"].next_try_at, orders["waiting"].read_back_at) == (READ_BACK_AT, None)
    ended_at = orders["elsewhere"].ended_at
    assert ended_at is not None
    assert events_since is not None
    assert abs(ended_at - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize("name", ["close/S1/open", "refresh/S1"])
def test_work_of_the_version_before_stays_leased_until_its_time(tmp_path, name):
    url = f"sqlite:///{tmp_path}/state.db"
    make_old_state(url)
    for minutes, is_free in ((-1, False), (1, True)):
        clock = LEASED_UNTIL + timedelta(minutes=minutes)
        with closing(State(url, clock=lambda clock=clock: clock)) as state, state.leases.hold(name) as lease:
            assert (lease is not None) is is_free


def test_a_process_of_the_version_before_begins_no_refresh_after_the_upgrade(tmp_path):
    url = f"sqlite:///{tmp_path}/state.db"
    make_old_state(url)
    State(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        taken = sa.text("UPDATE grants SET lease_owner = 'x' WHERE lease_owner IS NULL OR lease_until < :now")
        assert connection.execute(taken, {"now": "2100-01-01 00:00:00.000000"}).rowcount == 0
    engine.dispose()
